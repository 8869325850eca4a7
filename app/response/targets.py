"""Targets: the effort agreed on for a severity, and whether an incident met it.

Pure: no clock, no I/O, no settings. An incident is judged by what was agreed on when it was detected.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.incidents.grouping.law.episode import RECOVERIES
from app.incidents.grouping.signal import AlertClass, EndReason
from app.incidents.measures.measures import Facts, detected_at, service, severity
from app.response.updates import gaps_between


@dataclass(frozen=True, slots=True)
class Target:
    """Valid from a time on, until the next one of the same service and severity. `service` is empty: of all services.

    None: nothing is agreed on. `calendar` is the name of the business hours in which the durations are measured.
    """

    service: str
    severity: int
    valid_from: datetime
    acknowledge_seconds: int | None = None
    update_seconds: int | None = None
    resolve_seconds: int | None = None
    responders: int | None = None
    review_seconds: int | None = None
    calendar: str | None = None


class TargetOutcome(StrEnum):
    MET = "met"
    MISSED = "missed"
    PENDING = "pending"
    CANNOT_TELL = "cannot_tell"
    NOT_AGREED = "not_agreed"


class Judged(StrEnum):
    """What a target is about."""

    ACKNOWLEDGE = "acknowledge"
    UPDATE = "update"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`seconds`: the duration that is compared with the target, so far if it is pending; None if it is not known."""

    target_seconds: int | None
    outcome: TargetOutcome
    seconds: float | None = None


class Agreements:
    """All targets, to find the one in force."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._by_place: dict[tuple[str, int], list[Target]] = {}
        for each in sorted(targets, key=lambda each: each.valid_from, reverse=True):
            self._by_place.setdefault((each.service, each.severity), []).append(each)

    def of(self, facts: Facts) -> Target | None:
        """The target of the incident's service for its severity, else of all services, as of its detection."""
        for place in ((service(facts), severity(facts)), ("", severity(facts))):
            for each in self._by_place.get(place, ()):
                if each.valid_from <= detected_at(facts):
                    return each
        return None

    def calendars(self) -> set[str]:
        """The calendars that targets name."""
        return {each.calendar for found in self._by_place.values() for each in found if each.calendar is not None}

    def by_time(self, service: str, severity: int) -> list[Target]:
        """The targets of the service (empty: of all) for a severity, earliest first."""
        return self._by_place.get((service, severity), [])[::-1]


Elapsed = Callable[[datetime, datetime], float]  # seconds on the clock of the target


def elapsed(begins_at: datetime, ends_at: datetime) -> float:
    """Seconds on the clock that always runs."""
    return (ends_at - begins_at).total_seconds()


def judge(
    facts: Facts,
    target: Target | None,
    updates: Iterable[datetime],
    *,
    now: datetime,
    elapsed: Elapsed = elapsed,
) -> Mapping[Judged, Verdict]:
    """`updates` are the times of updates to stakeholders. What is pending for longer than its target is missed."""
    agreed = {
        Judged.ACKNOWLEDGE: target and target.acknowledge_seconds,
        Judged.UPDATE: target and target.update_seconds,
        Judged.RESOLVE: target and target.resolve_seconds,
    }
    judges = {
        Judged.ACKNOWLEDGE: lambda limit: _acknowledged(facts, limit, now, elapsed),
        Judged.UPDATE: lambda limit: _updated(facts, limit, updates, now, elapsed),
        Judged.RESOLVE: lambda limit: _resolved(facts, limit, now, elapsed),
    }
    return {
        what: Verdict(None, TargetOutcome.NOT_AGREED) if limit is None else judges[what](limit)
        for what, limit in agreed.items()
    }


def _acknowledged(facts: Facts, limit: int, now: datetime, elapsed: Elapsed) -> Verdict:
    detected = detected_at(facts)
    if _cannot_be_judged(facts):
        return Verdict(limit, TargetOutcome.CANNOT_TELL)
    if facts.acknowledged_at is not None:
        return _compared(limit, detected, facts.acknowledged_at, elapsed)
    if facts.ended_at is None:
        return _waiting(limit, detected, now, elapsed)
    return _at_least(limit, detected, facts.ended_at, elapsed)


def _resolved(facts: Facts, limit: int, now: datetime, elapsed: Elapsed) -> Verdict:
    # From detection, not from impact: the agreement is with those who respond.
    detected = detected_at(facts)
    if _cannot_be_judged(facts):
        return Verdict(limit, TargetOutcome.CANNOT_TELL)
    if facts.ended_at is None:
        return _waiting(limit, detected, now, elapsed)
    if facts.end_reason is None or facts.end_reason in RECOVERIES:
        return _compared(limit, detected, facts.ended_at, elapsed)
    if facts.end_reason is EndReason.SUPERSEDED:  # it lasted at least until then
        return _at_least(limit, detected, facts.ended_at, elapsed)
    return Verdict(limit, TargetOutcome.CANNOT_TELL)


def _updated(facts: Facts, limit: int, updates: Iterable[datetime], now: datetime, elapsed: Elapsed) -> Verdict:
    detected, until = detected_at(facts), facts.ended_at or now
    if _cannot_be_judged(facts) or (facts.ended_at is not None and until < detected):
        return Verdict(limit, TargetOutcome.CANNOT_TELL)
    longest = max((elapsed(*gap) for gap in gaps_between(updates, detected, until)), default=0.0)
    if longest > limit:
        return Verdict(limit, TargetOutcome.MISSED, longest)
    return Verdict(limit, TargetOutcome.PENDING if facts.ended_at is None else TargetOutcome.MET, longest)


def _cannot_be_judged(facts: Facts) -> bool:
    """Whether it was merged, is a failure of the monitoring itself, or ended at an unknown time."""
    is_merged_or_monitoring = facts.merged or facts.alert_class is AlertClass.MONITORING
    return is_merged_or_monitoring or (facts.ended_at is not None and facts.end_reason is EndReason.ENDS_BEFORE_START)


def _compared(limit: int, begins_at: datetime, ends_at: datetime, elapsed: Elapsed) -> Verdict:
    if ends_at < begins_at:
        return Verdict(limit, TargetOutcome.CANNOT_TELL)
    seconds = elapsed(begins_at, ends_at)
    return Verdict(limit, TargetOutcome.MET if seconds <= limit else TargetOutcome.MISSED, seconds)


def _waiting(limit: int, begins_at: datetime, now: datetime, elapsed: Elapsed) -> Verdict:
    seconds = elapsed(begins_at, max(begins_at, now))
    return Verdict(limit, TargetOutcome.PENDING if seconds <= limit else TargetOutcome.MISSED, seconds)


def _at_least(limit: int, begins_at: datetime, ends_at: datetime, elapsed: Elapsed) -> Verdict:
    """The verdict if it lasted at least until `ends_at`, and how much longer is not known."""
    if ends_at < begins_at or elapsed(begins_at, ends_at) <= limit:
        return Verdict(limit, TargetOutcome.CANNOT_TELL)
    return Verdict(limit, TargetOutcome.MISSED)
