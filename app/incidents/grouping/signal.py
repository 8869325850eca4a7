"""Signals, and the law of a series: how a set of signals determines the alerts of a series.

Pure: no clock, no I/O. A *signal* is one fact in a delivery, a *series* is `(source, fingerprint)`, an *alert* is one
episode of a series. The alerts of a series are a function of the **set** of its signals; order, repetition and
batching do not matter. (msgspec structs are like frozen dataclasses but faster; tens of thousands are created per
second.)
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

import msgspec

from app.base.times import EPOCH

NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Status(StrEnum):
    FIRING = "firing"
    RESOLVED = "resolved"


class AlertClass(StrEnum):
    """`monitoring`: a failure of the monitoring itself (no data, query error), which is never downtime of a service."""

    SERVICE = "service"
    MONITORING = "monitoring"


class EndReason(StrEnum):
    """Why an alert ended. The first four are recoveries; the others are excluded from recovery statistics."""

    RECOVERED = "recovered"
    SUPERSEDED = "superseded"  # it was open when the next alert of its series started
    MANUAL = "manual"  # a person resolved the incident
    RECONCILED = "reconciled"  # its sender no longer lists it, without having reported an end
    RULE_PAUSED = "rule_paused"
    RULE_UPDATED = "rule_updated"
    RULE_DELETED = "rule_deleted"
    MISSING_SERIES = "missing_series"
    NO_DATA = "no_data"
    TIMEOUT = "timeout"  # not resent within the time allowed by its source


class Verdict(StrEnum):
    """What one signal did. Responses, logs, rows and metric labels use the same words."""

    OPENED = "opened"
    JOINED = "joined"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    REOPENED = "reopened"
    MERGED = "merged"
    SPLIT = "split"
    LATE = "late"
    IGNORED = "ignored"
    QUARANTINED = "quarantined"
    ACKNOWLEDGED = "acknowledged"


class Signal(msgspec.Struct, frozen=True, gc=False):
    """One fact: this fingerprint is firing since `started_at`, or resolved at `ended_at`.

    Times are aware UTC datetimes, truncated to microseconds. `started_at` is None if the sender reported no start:
    a resolve then ends the newest alert that started at or before its end, and a firing starts at `received_at` unless
    the series is firing already. `ended_at` is set only on resolves. `flags` list anomalies (`ends_clamped`,
    `naive_time`, …). `test` marks a test notification, which never opens an incident.
    """

    fingerprint: str
    status: Status
    started_at: datetime | None
    ended_at: datetime | None = None
    labels: Mapping[str, str] = NO_LABELS
    annotations: Mapping[str, str] = NO_LABELS
    link: str = ""
    end_reason: EndReason | None = None
    alert_class: AlertClass = AlertClass.SERVICE
    flags: tuple[str, ...] = ()
    test: bool = False


PENDING_ANNOTATION = "for"
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")
_LONGEST_PENDING = timedelta(days=2)


def pending(annotations: Mapping[str, str]) -> timedelta | None:
    """How long the condition held before the alert fired: the annotation `for`, a Prometheus duration (`1h30m`).

    The start that senders report is after the rule's `for:` has elapsed; an annotation with the same value shows that
    the impact started earlier. None if the annotation is missing or implausible.
    """
    value = annotations.get(PENDING_ANNOTATION)
    found = _DURATION.fullmatch(value.strip()) if value and len(value) < 40 else None
    if found is None or not any(found.groups()):
        return None
    weeks, days, hours, minutes, seconds, milliseconds = (min(int(part or 0), 10**9) for part in found.groups())
    length = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    return length if length <= _LONGEST_PENDING else None


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Alertmanager's fingerprint of a label set: 64-bit FNV-1a as 16 hex digits.

    See prometheus/common, model/signature.go.
    """
    value = 0xCBF29CE484222325
    for name in sorted(labels):
        for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


class End(msgspec.Struct, frozen=True, gc=False):
    """When and why an alert ended. `guessed`: the sender reported no plausible end, so the time of receipt is used
    instead; or no end at all, so the time at which the alert was last reported is used (`INFERRED`).
    """

    at: datetime
    reason: EndReason
    guessed: bool = False


_PRECEDENCE = {reason: -rank for rank, reason in enumerate(EndReason)}
RECOVERIES = frozenset({EndReason.RECOVERED, EndReason.SUPERSEDED, EndReason.MANUAL, EndReason.RECONCILED})


# Ends that neither a sender nor a person reported, but the absence of reports implies. A later report voids them.
INFERRED = frozenset({EndReason.RECONCILED, EndReason.TIMEOUT})


class Episode(msgspec.Struct, frozen=True, gc=False):
    """One start of a series, with the end reported by senders and that of a manual resolve."""

    started_at: datetime
    named_end: End | None = None
    manual_end_at: datetime | None = None


def latest(one: End | None, other: End | None) -> End | None:
    """The end that takes precedence: a real end over a guess, a sender's guess over an inferred end. The latest real
    end wins, but the earliest guess, because a retry must not move it, and the latest inferred end, because it is based
    on the most reports. For equal times recoveries win.
    """
    if one is None or other is None:
        return one or other
    return max(one, other, key=_precedence)


def _precedence(end: End) -> tuple[int, timedelta, int]:
    at = end.at - EPOCH  # durations can be negated, times cannot
    if end.reason in INFERRED:
        return 0, at, _PRECEDENCE[end.reason]
    return (1, -at, _PRECEDENCE[end.reason]) if end.guessed else (2, at, _PRECEDENCE[end.reason])


def inherited_ends(episodes: Sequence[Episode]) -> list[End | None]:
    """The end that senders reported for each episode, or for one that covers it. `episodes` is in order of start.

    A start within another episode belongs to that episode (the clock of a peer differs by milliseconds, or a retry is
    stale): it ends with the covering episode, so that it cannot stay open forever. Guessed ends do not cover.
    """
    ends: list[End | None] = []
    running: End | None = None
    for episode in episodes:
        covering = running if running is not None and running.at > episode.started_at else None
        if episode.named_end is not None and not episode.named_end.guessed:
            running = latest(running, episode.named_end)
        ends.append(latest(covering, episode.named_end))
    return ends


def ends_of(episodes: Sequence[Episode], unmatched_resolves: Sequence[End] = ()) -> list[End | None]:
    """When and why each episode of a series ended, None while it is open. `episodes` is in order of start.

    The latest end reported for the episode or for one that covers it wins. Otherwise an unmatched resolve (one without
    a start) ends the newest episode that started at or before it. The earliest such resolve counts, because an
    unmatched resolve closes an alert but does not extend it. Otherwise the episode ends when the next episode of the
    series starts, or at an earlier inferred end. A manual resolve ends it at that time, unless it had already ended.
    """
    ends: list[End | None] = []
    starts = [episode.started_at for episode in episodes]
    unmatched: dict[int, End] = {}
    for unmatched_resolve in sorted(unmatched_resolves, key=lambda end: (end.at, -_PRECEDENCE[end.reason])):
        newest = bisect_right(starts, unmatched_resolve.at) - 1
        if newest >= 0:
            unmatched.setdefault(newest, unmatched_resolve)
    for index, (episode, real) in enumerate(zip(episodes, inherited_ends(episodes), strict=True)):
        inferred = real if real is not None and real.reason in INFERRED else None
        end = (None if inferred else real) or unmatched.get(index)
        if end is None and index + 1 < len(episodes):
            superseded = End(starts[index + 1], EndReason.SUPERSEDED)
            end = min(inferred or superseded, superseded, key=lambda known: known.at)
        ends.append(effective_end(end or inferred, episode.manual_end_at))
    return ends


def effective_end(named_end: End | None, manual_end_at: datetime | None = None) -> End | None:
    """`ends_of` for a single episode without unmatched resolves, the most common case."""
    if manual_end_at is not None and (named_end is None or manual_end_at < named_end.at):
        return End(manual_end_at, EndReason.MANUAL)
    if named_end is not None and named_end.guessed:
        return End(named_end.at, named_end.reason)  # no longer relevant: precedence has been decided
    return named_end
