"""Signals: facts in a delivery, each about one series.

Pure: no clock, no I/O. A *signal* is one fact, a *series* is `(source, fingerprint)`, an *alert* is one episode of a
series; `law/episode.py` has the law that makes alerts of signals. (msgspec structs are like frozen dataclasses but
faster; tens of thousands are created per second.)
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b, sha256
from types import MappingProxyType
from uuid import UUID

import msgspec

NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Status(StrEnum):
    FIRING = "firing"
    RESOLVED = "resolved"


class AlertClass(StrEnum):
    """`monitoring`: a failure of the monitoring itself (no data, query error), which is never downtime of a service."""

    SERVICE = "service"
    MONITORING = "monitoring"


class EndReason(StrEnum):
    """Why an alert ended. The first four are recoveries; the others are excluded from recovery statistics.

    Where alerts end at the same time, the reason that comes first here is shown.
    """

    RECOVERED = "recovered"
    MANUAL = "manual"  # a person resolved the incident
    RECONCILED = "reconciled"  # its sender no longer lists it, without having reported an end
    EXPIRED = "expired"  # its sender reported in advance when it ends unless it is reported again
    RULE_PAUSED = "rule_paused"
    RULE_UPDATED = "rule_updated"
    RULE_DELETED = "rule_deleted"
    MISSING_SERIES = "missing_series"
    NO_DATA = "no_data"
    TIMEOUT = "timeout"  # not resent within the time allowed by its source
    SUPERSEDED = "superseded"  # it was open when the next alert of its series started; ends when it was last reported
    ENDS_BEFORE_START = "ends_before_start"  # its only end is before its start, so when it ended is unknown


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
    the series is firing already. `happened_at` is the time of such a firing, if its sender reports that: an alert that
    is new begins then, rather than at `received_at`. `ended_at` is set only on resolves; it may be before `started_at`.
    `flags` list anomalies (`ends_clamped`, `naive_time`, …). `test` marks a test notification, which never opens an
    incident.
    `listed_since` is set by reconciliation if all peers of the source have listed the alert as active since then.

    `correlation` is how several tools refer to one alert or group of alerts, empty if the sender reports none: the
    SHA-256 of Alertmanager's group key in hex, which is also PagerDuty's dedup key, Opsgenie's alias and Splunk
    On-Call's entity id. `expires_at`: the sender repeats the alert before then, unless it has ended.
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
    listed_since: datetime | None = None
    correlation: str = ""
    expires_at: datetime | None = None
    happened_at: datetime | None = None


CORRELATIONS_AT_MOST = 8


@lru_cache(4096)
def correlation_id(correlation: str) -> UUID:
    """The id under which a correlation, which may have any length, is stored: the first half of its SHA-256."""
    return UUID(bytes=sha256(correlation.encode()).digest()[:16])


def with_correlation(known: Sequence[UUID] | None, added: UUID) -> Sequence[UUID]:
    """The correlations of an alert with one that it does not have yet; the same object if that is not kept.

    An alert has several if its Alertmanager sends it by several routes. It keeps the smallest ones, so that they are a
    function of all that were reported, whatever the order.
    """
    if known is None:
        return [added]
    if len(known) >= CORRELATIONS_AT_MOST and added > known[-1]:
        return known
    return sorted([*known, added])[:CORRELATIONS_AT_MOST]


PENDING_ANNOTATION = "for"
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNITS = (7 * 86_400_000, 86_400_000, 3_600_000, 60_000, 1_000, 1)  # milliseconds
_LONGEST_PENDING = timedelta(days=2)
_MILLISECOND = timedelta(milliseconds=1)


def pending(annotations: Mapping[str, str]) -> timedelta | None:
    """How long the condition held before the alert fired: the annotation `for`, a Prometheus duration (`1h30m`).

    The start that senders report is after the rule's `for:` has elapsed; an annotation with the same value shows that
    the impact started earlier. None if the annotation is missing or implausible.
    """
    value = annotations.get(PENDING_ANNOTATION)
    found = _DURATION.fullmatch(value.strip()) if value and len(value) < 40 else None
    if found is None or not any(found.groups()):
        return None
    # As an integer, which cannot overflow, unlike a timedelta.
    milliseconds = sum(int(part or 0) * unit for part, unit in zip(found.groups(), _UNITS, strict=True))
    return timedelta(milliseconds=milliseconds) if milliseconds <= _LONGEST_PENDING // _MILLISECOND else None


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Alertmanager's fingerprint of a label set: 64-bit FNV-1a as 16 hex digits.

    See prometheus/common, model/signature.go. FNV takes 0.1 s for 1 MB in Python, so label sets larger than any
    real one get another hash of the same length.
    """
    octets = b"".join(text.encode() + b"\xff" for pair in sorted(labels.items()) for text in pair)
    if len(octets) > _LONGEST_REAL_LABELS:
        return blake2b(octets, digest_size=8).hexdigest()
    value = 0xCBF29CE484222325
    for byte in octets:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


_LONGEST_REAL_LABELS = 16 * 1024  # bytes
