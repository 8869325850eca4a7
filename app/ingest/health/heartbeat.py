"""Heartbeats (dead man's switches): alerts that always fire, so that their absence signals a problem.

Pure. A rule with `heartbeat` opens no incident: each matching delivery is a beat. If no beat arrives for longer than
the rule allows, the service itself reports an alert of class `monitoring`, which starts when the next beat was due and
ends when a beat arrives. It is applied like any other signal, so incidents remain a function of facts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.incidents.grouping.rule import HEARTBEAT_MISSING
from app.incidents.grouping.signal import AlertClass, EndReason, Signal, Status

# A beat may be queued before it is stored, and must not be declared missing during that time.
GRACE = timedelta(seconds=30)
FINGERPRINT_PREFIX = "heartbeat:"


@dataclass(frozen=True, slots=True)
class BeatSeries:
    """One series of beats. `missing_since` is set when it is declared missing, `returned_at` by the next beat."""

    source_id: int
    source: str
    fingerprint: str
    rule: str
    labels: Mapping[str, str]
    first_at: datetime
    last_at: datetime
    timeout: timedelta | None  # None: its rule no longer exists or no longer defines heartbeats
    missing_since: datetime | None = None
    returned_at: datetime | None = None


class HeartbeatEvent(StrEnum):
    MISSING = "heartbeat_missing"
    RETURNED = "heartbeat_returned"
    FORGOTTEN = "heartbeat_forgotten"


@dataclass(frozen=True, slots=True)
class HeartbeatTransition:
    """The change of a heartbeat, and the signal to apply, if any."""

    event: HeartbeatEvent
    signal: Signal | None

    @property
    def missing_since(self) -> datetime | None:
        return self.signal.started_at if self.event is HeartbeatEvent.MISSING and self.signal else None


def judge(beats: BeatSeries, *, listening_since: datetime, now: datetime) -> HeartbeatTransition | None:
    """None if nothing has changed. Beats cannot arrive while the service is down, so the wait restarts after that."""
    if beats.timeout is None:
        return forget(beats, now=now)
    if beats.missing_since is None:
        due = max(beats.last_at, listening_since) + beats.timeout
        return HeartbeatTransition(HeartbeatEvent.MISSING, _missing(beats, due)) if now > due + GRACE else None
    if beats.returned_at is not None:
        signal = _ended(beats, beats.missing_since, beats.returned_at, EndReason.RECOVERED)
        return HeartbeatTransition(HeartbeatEvent.RETURNED, signal)
    return None


def forget(beats: BeatSeries, *, now: datetime) -> HeartbeatTransition:
    """Stops expecting the heartbeat. If it is missing, its alert ends, which does not count as a recovery."""
    if beats.missing_since is None:
        return HeartbeatTransition(HeartbeatEvent.FORGOTTEN, None)
    ended_at = max(now, beats.missing_since)
    return HeartbeatTransition(
        HeartbeatEvent.FORGOTTEN, _ended(beats, beats.missing_since, ended_at, EndReason.RULE_DELETED)
    )


def _missing(beats: BeatSeries, since: datetime) -> Signal:
    kept = {name: value for name, value in beats.labels.items() if name not in {"alertname", "severity"}}
    return Signal(
        fingerprint=FINGERPRINT_PREFIX + beats.fingerprint,
        status=Status.FIRING,
        started_at=since,
        labels={"service": "monitoring", **kept, "alertname": HEARTBEAT_MISSING, "severity": "critical"},
        annotations={
            "summary": f"no heartbeat from {beats.source} since {beats.last_at:%Y-%m-%d %H:%M:%S} UTC",
            "description": f"The heartbeat {beats.labels.get('alertname', beats.fingerprint)!r} is overdue (rule "
            f"{beats.rule!r}): alerts from {beats.source} may not be reaching Aftermath.",
        },
        alert_class=AlertClass.MONITORING,
    )


def _ended(beats: BeatSeries, missing_since: datetime, at: datetime, reason: EndReason) -> Signal:
    return Signal(
        fingerprint=FINGERPRINT_PREFIX + beats.fingerprint,
        status=Status.RESOLVED,
        started_at=missing_since,
        ended_at=at,
        labels=_missing(beats, missing_since).labels,
        end_reason=reason,
        alert_class=AlertClass.MONITORING,
    )
