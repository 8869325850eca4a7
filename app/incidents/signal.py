"""Signals, and the law of a series: which alerts a set of signals amounts to.

Pure: no clock, no I/O. A *signal* is one fact of a delivery, a *series* is `(source, fingerprint)`, an *alert* is one
episode of a series. The alerts of a series are a function of the **set** of its signals; order, repetition and
batching do not matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Status(StrEnum):
    FIRING = "firing"
    RESOLVED = "resolved"


class AlertClass(StrEnum):
    """`monitoring`: the monitoring itself is in trouble (no data, query error); never downtime of a service."""

    SERVICE = "service"
    MONITORING = "monitoring"


class EndReason(StrEnum):
    """Why an alert has ended. Only the first three are recoveries; the others stay out of recovery statistics."""

    RECOVERED = "recovered"
    SUPERSEDED = "superseded"  # still open when a later alert of its series began
    MANUAL = "manual"  # a person resolved the incident
    RULE_PAUSED = "rule_paused"
    RULE_UPDATED = "rule_updated"
    RULE_DELETED = "rule_deleted"
    MISSING_SERIES = "missing_series"
    NO_DATA = "no_data"
    TIMEOUT = "timeout"


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


@dataclass(frozen=True, slots=True)
class Signal:
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
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    annotations: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    link: str = ""
    end_reason: EndReason | None = None
    alert_class: AlertClass = AlertClass.SERVICE
    flags: tuple[str, ...] = ()
    test: bool = False


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Alertmanager's fingerprint of a label set: FNV-1a, 64 bits, 16 hex digits (prometheus/common, model/signature.go)."""
    value = 0xCBF29CE484222325
    for name in sorted(labels):
        for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"
