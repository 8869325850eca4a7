"""Dead man's switches: alerts that always fire, so that their silence tells.

Pure. What a rule with `heartbeat` matches opens no incident: each delivery of it is a beat. When no beat has come for
longer than the rule says, the service itself tells of an alert, of class `monitoring`, which began when the next beat
was due and ends with the beat that does come. It goes through the intake like any other, so incidents stay a function
of facts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.incidents.grouping.rule import HEARTBEAT_MISSING
from app.incidents.grouping.signal import AlertClass, EndReason, Signal, Status

# A beat that waits in a queue is older than it is stored; what is declared missing should not turn out to have come.
GRACE = timedelta(seconds=30)
FINGERPRINT_PREFIX = "heartbeat:"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One series of beats. `missing_since`: declared missing, and since when; `returned_at`: but has come again."""

    source_id: int
    source: str
    fingerprint: str
    rule: str
    labels: Mapping[str, str]
    first_at: datetime
    last_at: datetime
    timeout: timedelta | None  # None: its rule no longer takes it for a heartbeat
    missing_since: datetime | None = None
    returned_at: datetime | None = None


class Change(StrEnum):
    MISSING = "heartbeat_missing"
    RETURNED = "heartbeat_returned"
    FORGOTTEN = "heartbeat_forgotten"


@dataclass(frozen=True, slots=True)
class Found:
    """What has become of a heartbeat, and the signal that tells of it, if one is needed."""

    change: Change
    signal: Signal | None


def judge(beat: Heartbeat, *, listening_since: datetime, now: datetime) -> Found | None:
    """None: nothing has changed. What did not come while nobody listened was not missing: then the wait begins anew."""
    if beat.timeout is None:
        return forgotten(beat, now=now)
    if beat.missing_since is None:
        due = max(beat.last_at, listening_since) + beat.timeout
        return Found(Change.MISSING, _missing(beat, due)) if now > due + GRACE else None
    if beat.returned_at is not None:
        return Found(Change.RETURNED, _ended(beat, beat.missing_since, beat.returned_at, EndReason.RECOVERED))
    return None


def forgotten(beat: Heartbeat, *, now: datetime) -> Found:
    """Nobody waits for it any more: what was missing has not come back."""
    if beat.missing_since is None:
        return Found(Change.FORGOTTEN, None)
    ended_at = max(now, beat.missing_since)
    return Found(Change.FORGOTTEN, _ended(beat, beat.missing_since, ended_at, EndReason.RULE_DELETED))


def _missing(beat: Heartbeat, since: datetime) -> Signal:
    kept = {name: value for name, value in beat.labels.items() if name not in {"alertname", "severity"}}
    return Signal(
        fingerprint=FINGERPRINT_PREFIX + beat.fingerprint,
        status=Status.FIRING,
        started_at=since,
        labels={"service": "monitoring", **kept, "alertname": HEARTBEAT_MISSING, "severity": "critical"},
        annotations={
            "summary": f"nothing from {beat.source} since {beat.last_at:%Y-%m-%d %H:%M:%S} UTC",
            "description": f"The heartbeat {beat.labels.get('alertname', beat.fingerprint)!r} has not come for longer "
            f"than the rule {beat.rule!r} allows: alerts of {beat.source} may not reach Aftermath.",
        },
        alert_class=AlertClass.MONITORING,
    )


def _ended(beat: Heartbeat, missing_since: datetime, at: datetime, reason: EndReason) -> Signal:
    return Signal(
        fingerprint=FINGERPRINT_PREFIX + beat.fingerprint,
        status=Status.RESOLVED,
        started_at=missing_since,
        ended_at=at,
        labels=_missing(beat, missing_since).labels,
        end_reason=reason,
        alert_class=AlertClass.MONITORING,
    )
