"""Signals, and the law of a series: which alerts a set of signals amounts to.

Pure: no clock, no I/O. (Structs of msgspec are frozen dataclasses made in C: tens of thousands a second come this
way.) A *signal* is one fact of a delivery, a *series* is `(source, fingerprint)`, an *alert* is one
episode of a series. The alerts of a series are a function of the **set** of its signals; order, repetition and
batching do not matter.
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
    """`monitoring`: the monitoring itself fails (no data, query error); never downtime of a service."""

    SERVICE = "service"
    MONITORING = "monitoring"


class EndReason(StrEnum):
    """Why an alert has ended. Only the first four are recoveries; the others stay out of recovery statistics."""

    RECOVERED = "recovered"
    SUPERSEDED = "superseded"  # still open when a later alert of its series began
    MANUAL = "manual"  # a person resolved the incident
    RECONCILED = "reconciled"  # no longer listed by its sender, which reported no end
    RULE_PAUSED = "rule_paused"
    RULE_UPDATED = "rule_updated"
    RULE_DELETED = "rule_deleted"
    MISSING_SERIES = "missing_series"
    NO_DATA = "no_data"
    TIMEOUT = "timeout"  # not resent for longer than its source allows


class Verdict(StrEnum):
    """What one signal did. The same word in the response, the log, the row and the metric label."""

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

    Times are aware UTC datetimes, truncated to microseconds. `started_at` is None where the sender names no start:
    a resolve then ends the newest alert that began at or before its end, a firing begins at `received_at` unless the
    series is firing already. `ended_at` is set on resolves only. `flags` name what was odd about it
    (`ends_clamped`, `naive_time`, …). `test` marks a test notification, which never opens an incident.
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
    """How long the condition had held before it fired: the annotation `for`, a Prometheus duration (`1h30m`).

    Senders report a start after the rule's `for:` has elapsed; if an annotation repeats it, the impact began earlier.
    None if there is none, or it makes no sense.
    """
    value = annotations.get(PENDING_ANNOTATION)
    found = _DURATION.fullmatch(value.strip()) if value and len(value) < 40 else None
    if found is None or not any(found.groups()):
        return None
    weeks, days, hours, minutes, seconds, milliseconds = (min(int(part or 0), 10**9) for part in found.groups())
    length = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    return length if length <= _LONGEST_PENDING else None


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Alertmanager's fingerprint of a label set: FNV-1a, 64 bits, 16 hex digits.

    As in prometheus/common, model/signature.go.
    """
    value = 0xCBF29CE484222325
    for name in sorted(labels):
        for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


class End(msgspec.Struct, frozen=True, gc=False):
    """An end and why. `guessed`: the sender reported none that can be true, so the time of arrival stands in; or none
    at all, so that the time at which the alert was last reported does (`INFERRED`).
    """

    at: datetime
    reason: EndReason
    guessed: bool = False


_BELIEF = {reason: -place for place, reason in enumerate(EndReason)}
RECOVERIES = frozenset({EndReason.RECOVERED, EndReason.SUPERSEDED, EndReason.MANUAL, EndReason.RECONCILED})


# Ends that neither a sender nor a person reported: the alert was not reported after them. A later report voids them.
INFERRED = frozenset({EndReason.RECONCILED, EndReason.TIMEOUT})


class Episode(msgspec.Struct, frozen=True, gc=False):
    """What is known of one start of a series: the end of it that senders reported, and a person's."""

    started_at: datetime
    named_end: End | None = None
    manual_end_at: datetime | None = None


def latest(one: End | None, other: End | None) -> End | None:
    """The end to believe: a real one before a guess, a sender's guess before what was inferred; the latest real one,
    but the earliest guess, because a retry must not move it; the latest inferred one, which rests on most reports. At
    the same moment a recovery is believed before anything else.
    """
    if one is None or other is None:
        return one or other
    return max(one, other, key=_belief)


def _belief(end: End) -> tuple[int, timedelta, int]:
    at = end.at - EPOCH  # a time cannot be negated, a duration can
    if end.reason in INFERRED:
        return 0, at, _BELIEF[end.reason]
    return (1, -at, _BELIEF[end.reason]) if end.guessed else (2, at, _BELIEF[end.reason])


def carried(episodes: Sequence[Episode]) -> list[End | None]:
    """The end that senders reported for each episode, or for one that covers it. `episodes` in order of start.

    A start inside an episode that ran from before it until after it is the same episode (a peer whose clock differs by
    milliseconds, a stale retry): it ends with that one, so that it cannot stay open for ever. A guess covers nothing.
    """
    ends: list[End | None] = []
    running: End | None = None
    for episode in episodes:
        covering = running if running is not None and running.at > episode.started_at else None
        if episode.named_end is not None and not episode.named_end.guessed:
            running = latest(running, episode.named_end)
        ends.append(latest(covering, episode.named_end))
    return ends


def ends_of(episodes: Sequence[Episode], loose_ends: Sequence[End] = ()) -> list[End | None]:
    """When and why each episode of a series has ended, None while it is open. `episodes` in order of start.

    The latest end that names it or covers it wins. Without one, a loose end (a resolve that names no start) ends the
    newest episode that began at or before it; the earliest such, because an unmatched resolve closes an alert, it does
    not extend it. Without either, it ends when a later episode of the series begins, or with an inferred end before
    that. A person's resolve ends it at that time unless it had ended before.
    """
    ends: list[End | None] = []
    starts = [episode.started_at for episode in episodes]
    loose: dict[int, End] = {}
    for loose_end in sorted(loose_ends, key=lambda end: (end.at, -_BELIEF[end.reason])):
        newest = bisect_right(starts, loose_end.at) - 1
        if newest >= 0:
            loose.setdefault(newest, loose_end)
    for place, (episode, real) in enumerate(zip(episodes, carried(episodes), strict=True)):
        inferred = real if real is not None and real.reason in INFERRED else None
        end = (None if inferred else real) or loose.get(place)
        if end is None and place + 1 < len(episodes):
            superseded = End(starts[place + 1], EndReason.SUPERSEDED)
            end = min(inferred or superseded, superseded, key=lambda known: known.at)
        ends.append(lone_end(end or inferred, episode.manual_end_at))
    return ends


def lone_end(named_end: End | None, manual_end_at: datetime | None = None) -> End | None:
    """`ends_of` an episode with no other beside it and no loose end: the most common case."""
    if manual_end_at is not None and (named_end is None or manual_end_at < named_end.at):
        return End(manual_end_at, EndReason.MANUAL)
    if named_end is not None and named_end.guessed:
        return End(named_end.at, named_end.reason)  # which end to believe has been decided
    return named_end
