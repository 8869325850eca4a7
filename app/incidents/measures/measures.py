"""The effective facts of one incident, and the registry of measures.

Pure: no clock, no I/O, no settings. Some facts are derived from alerts, others are stated by people; only this module
decides which take precedence. `MEASURES` feeds REST, Prometheus, statistics and documentation: adding a measure takes
one function and one entry.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from app.base.values.severity import SeverityName, severity_name
from app.incidents.grouping.law.episode import RECOVERIES
from app.incidents.grouping.signal import AlertClass, EndReason

Weights = Mapping[SeverityName, Decimal]  # share of the hourly cost, by severity
CONFIDENCE = 0.95  # level of every confidence interval

# Upper bounds of the histograms' buckets, in seconds; the last bucket, +Inf, has none.
DURATION_BOUNDS = (60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400, 172_800, 604_800)
INGEST_LAG_BOUNDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


# — facts —


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one incident. `…_stated` and milestones come from people, the rest is derived from its alerts."""

    began_at: datetime  # the first firing, or the declared time
    service: str
    severity: int
    ended_at: datetime | None = None
    end_reason: EndReason | None = None  # of the last alert to end, even while others are open
    alert_class: AlertClass = AlertClass.SERVICE
    declared: bool = False
    merged: bool = False
    detected_at_stated: datetime | None = None
    impact_started_at: datetime | None = None
    acknowledged_at: datetime | None = None
    declared_at: datetime | None = None
    first_public_at: datetime | None = None  # of the first update on the status page
    identified_at: datetime | None = None
    mitigated_at: datetime | None = None
    reviewed_at: datetime | None = None  # when its first review was held
    ready_at: datetime | None = None  # when its last review was published and its last action item closed
    review_planned: bool = False  # it has a draft of a review
    service_stated: str | None = None
    severity_stated: int | None = None
    impact_stated: Decimal | None = None
    impact_started_at_stated: datetime | None = None  # by a person; `impact_started_at` may come from an alert
    harmed_throughout_stated: bool | None = None

    @classmethod
    def of(cls, row: object) -> "Facts":
        """Creates facts from a row of `incident`, or of a query with at least the columns in `FACTS`."""
        values = list(_facts_of(row))
        values[_END_REASON] = _END_REASONS[values[_END_REASON]]
        values[_ALERT_CLASS] = _ALERT_CLASSES[values[_ALERT_CLASS]]
        values[_MERGED_INTO] = values[_MERGED_INTO] is not None
        return cls(*values)


# The columns of `incident` with its facts, in the order of the fields.
FACTS = tuple("merged_into" if field.name == "merged" else field.name for field in fields(Facts))

_facts_of = attrgetter(*FACTS)
_END_REASON, _ALERT_CLASS, _MERGED_INTO = map(FACTS.index, ("end_reason", "alert_class", "merged_into"))
# Looking it up is five times faster than EndReason(…).
_END_REASONS: Mapping[str | None, EndReason | None] = {None: None, **{reason.value: reason for reason in EndReason}}
_ALERT_CLASSES = {kind.value: kind for kind in AlertClass}


class IncidentStatus(StrEnum):
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Priority(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


def status(facts: Facts) -> IncidentStatus:
    if facts.ended_at is not None:
        return IncidentStatus.RESOLVED
    return IncidentStatus.OPEN if facts.acknowledged_at is None else IncidentStatus.ACKNOWLEDGED


def detected_at(facts: Facts) -> datetime:
    return facts.detected_at_stated or facts.began_at


def began(facts: Facts) -> datetime:
    """The start of the time to mitigate and to recover: the impact start if known, else detection."""
    return facts.impact_started_at or facts.detected_at_stated or facts.began_at


def service(facts: Facts) -> str:
    return facts.service if facts.service_stated is None else facts.service_stated


def severity(facts: Facts) -> int:
    """From 1 (worst) to 5."""
    return facts.severity if facts.severity_stated is None else facts.severity_stated


SEVERITIES_OF: Mapping[Priority, Sequence[int]] = {
    Priority.CRITICAL: (1, 2),
    Priority.WARNING: (3, 4),
    Priority.INFO: (5,),
}


def priority(facts: Facts) -> Priority:
    return next((each for each, of in SEVERITIES_OF.items() if severity(facts) in of), Priority.INFO)


def impact(facts: Facts, of_alerts: int, weights: Weights) -> Decimal:
    """The affected share of the service's users or value, 0…1, while `of_alerts` is the worst severity that fires.

    A stated impact or severity replaces that of every alert. Failures of the monitoring itself affect no users,
    whatever their severity.
    """
    if facts.alert_class is AlertClass.MONITORING:
        return Decimal(0)
    if facts.impact_stated is not None:
        return facts.impact_stated
    return weights[severity_name(of_alerts if facts.severity_stated is None else facts.severity_stated)]


# — measures —


class MeasureStatus(StrEnum):
    RECORDED = "recorded"
    PENDING = "pending"  # may still happen
    NOT_APPLICABLE = "not_applicable"
    INVALID = "invalid"  # the facts contradict each other; never clamped


class Measured(NamedTuple):
    """`seconds` is set if and only if `status` is recorded, `reason` if and only if it is not.

    `censored_seconds`: the time from the start to the end of the incident, if it ended without the event; or, for a
    pending measure with a known start, the time until `now`, if given.
    """

    seconds: float | None
    status: MeasureStatus
    reason: str | None = None
    censored_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """An entry of the registry. `of` takes the facts, and whether ends that are not recoveries count."""

    name: str
    label: str
    starts: str
    ends: str
    formula: str
    of: Callable[[Facts, bool], Measured]
    since: Callable[[Facts], datetime | None]  # the time described by `starts`; None if unknown
    histogram: bool = False  # exported as aftermath_<name>_seconds


def measures(facts: Facts, *, include_non_recoveries: bool = False, now: datetime | None = None) -> dict[str, Measured]:
    """All measures of the incident by name; with `now`, pending ones include the time waited so far.

    Not applicable unless `include_non_recoveries`: recovery measures if the alerts ended without a recovery (rule
    paused, series missing, …), and all measures of incidents that are failures of the monitoring itself.
    """
    if facts.merged:
        return dict.fromkeys(_NAMES, MERGED)
    if facts.alert_class is AlertClass.MONITORING and not include_non_recoveries:
        return dict.fromkeys(_NAMES, MONITORING)
    found = {measure.name: measure.of(facts, include_non_recoveries) for measure in MEASURES}
    if now is not None:
        for measure in MEASURES:
            _, status, reason, _ = found[measure.name]
            since = measure.since(facts)
            # A start in the future (wrong clock, mistyped date) means no waiting time yet.
            if status is MeasureStatus.PENDING and since is not None and since <= now:
                found[measure.name] = Measured(None, status, reason, (now - since).total_seconds())
    return found


def _time_to_detect(facts: Facts, _every_end: bool) -> Measured:
    if facts.impact_started_at is None:
        return IMPACT_NOT_STATED
    return _elapsed(facts.impact_started_at, detected_at(facts), DETECTED_EARLY)


def _time_to_acknowledge(facts: Facts, _every_end: bool) -> Measured:
    detected = detected_at(facts)
    if facts.acknowledged_at is not None:
        return _elapsed(detected, facts.acknowledged_at, ACKNOWLEDGED_EARLY)
    if facts.ended_at is None:
        return NOT_ACKNOWLEDGED_YET
    if facts.end_reason is EndReason.ENDS_BEFORE_START:
        return END_UNKNOWN
    unseen = (facts.ended_at - detected).total_seconds()
    if unseen < 0:
        return ENDED_BEFORE_DETECTED
    return Measured(None, NOT_ACKNOWLEDGED.status, NOT_ACKNOWLEDGED.reason, unseen)


def _time_to_declare(facts: Facts, _every_end: bool) -> Measured:
    if facts.declared_at is not None:
        if facts.declared_at == detected_at(facts):
            return DETECTED_BY_DECLARATION
        return _elapsed(detected_at(facts), facts.declared_at, DECLARED_EARLY)
    return NOT_DECLARED_YET if facts.ended_at is None else NOT_DECLARED


def _time_to_public_update(facts: Facts, _every_end: bool) -> Measured:
    if facts.first_public_at is not None:
        return _elapsed(detected_at(facts), facts.first_public_at, PUBLISHED_EARLY)
    return NOT_PUBLISHED_YET if facts.ended_at is None else NOT_PUBLISHED


def _time_to_mitigate(facts: Facts, _every_end: bool) -> Measured:
    if facts.mitigated_at is not None:
        return _elapsed(began(facts), facts.mitigated_at, MITIGATED_EARLY)
    return NOT_MITIGATED_YET if facts.ended_at is None else MITIGATION_NOT_STATED


def _time_to_recover(facts: Facts, every_end: bool) -> Measured:
    return _until_recovered(began(facts), facts, every_end, RECOVERED_EARLY)


def _response(facts: Facts, _every_end: bool) -> Measured:
    if facts.identified_at is not None:
        return _elapsed(detected_at(facts), facts.identified_at, IDENTIFIED_EARLY)
    return NOT_IDENTIFIED_YET if facts.ended_at is None else IDENTIFICATION_NOT_STATED


def _remediation(facts: Facts, every_end: bool) -> Measured:
    if facts.identified_at is None:
        return NOT_IDENTIFIED_YET if facts.ended_at is None else IDENTIFICATION_NOT_STATED
    return _until_recovered(facts.identified_at, facts, every_end, RECOVERED_BEFORE_IDENTIFIED)


def _analysis(facts: Facts, _every_end: bool) -> Measured:
    if facts.ended_at is None:
        return NOT_RECOVERED_YET
    if facts.end_reason is EndReason.ENDS_BEFORE_START:
        return END_UNKNOWN
    if facts.reviewed_at is None:
        return NOT_REVIEWED_YET if facts.review_planned else NO_REVIEW
    return _elapsed(facts.ended_at, facts.reviewed_at, REVIEWED_EARLY)


def _readiness(facts: Facts, _every_end: bool) -> Measured:
    if facts.reviewed_at is None:
        if facts.ended_at is None:
            return NOT_RECOVERED_YET
        return NOT_REVIEWED_YET if facts.review_planned else NO_REVIEW
    return NOT_READY_YET if facts.ready_at is None else _elapsed(facts.reviewed_at, facts.ready_at, READY_EARLY)


def _impact_started_at(facts: Facts) -> datetime | None:
    return facts.impact_started_at


def _identified_at(facts: Facts) -> datetime | None:
    return facts.identified_at


def _ended_at(facts: Facts) -> datetime | None:
    return facts.ended_at


def _reviewed_at(facts: Facts) -> datetime | None:
    return facts.reviewed_at


def _until_recovered(start: datetime, facts: Facts, every_end: bool, negative: Measured) -> Measured:
    if facts.ended_at is None:
        return NOT_RECOVERED_YET
    reason = facts.end_reason
    if reason is EndReason.ENDS_BEFORE_START:
        return END_UNKNOWN
    elapsed = _elapsed(start, facts.ended_at, negative)
    if reason is None or reason in RECOVERIES or every_end:
        return elapsed
    if reason is EndReason.SUPERSEDED and elapsed.seconds is not None:
        # It lasted at least until the last report that it fires.
        return Measured(None, MeasureStatus.NOT_APPLICABLE, NOT_A_RECOVERY[reason].reason, elapsed.seconds)
    return NOT_A_RECOVERY[reason]


def _elapsed(start: datetime, end: datetime, negative: Measured) -> Measured:
    seconds = (end - start).total_seconds()
    return Measured(seconds, MeasureStatus.RECORDED) if seconds >= 0 else negative


def _pending(reason: str) -> Measured:
    return Measured(None, MeasureStatus.PENDING, reason)


def _not_applicable(reason: str) -> Measured:
    return Measured(None, MeasureStatus.NOT_APPLICABLE, reason)


def _invalid(reason: str) -> Measured:
    return Measured(None, MeasureStatus.INVALID, reason)


NOT_ACKNOWLEDGED_YET = _pending("not acknowledged yet")
NOT_DECLARED_YET = _pending("not declared yet")
NOT_PUBLISHED_YET = _pending("not on the status page yet")
NOT_MITIGATED_YET = _pending("not mitigated yet")
NOT_IDENTIFIED_YET = _pending("not identified yet")
NOT_RECOVERED_YET = _pending("not resolved yet")
NOT_REVIEWED_YET = _pending("not reviewed yet")
NOT_READY_YET = _pending("its review is not published yet, or an action item is open")
MERGED = _not_applicable("merged into another incident")
MONITORING = _not_applicable("monitoring failure, not a service failure")
IMPACT_NOT_STATED = _not_applicable("impact start not stated")
NOT_ACKNOWLEDGED = _not_applicable("resolved without acknowledgement")
NOT_DECLARED = _not_applicable("resolved without declaration")
NOT_PUBLISHED = _not_applicable("never on the status page")
DETECTED_BY_DECLARATION = _not_applicable("detected by its declaration")
MITIGATION_NOT_STATED = _not_applicable("resolved without a stated mitigation")
IDENTIFICATION_NOT_STATED = _not_applicable("resolved without a stated identification")
NO_REVIEW = _not_applicable("no review")
NOT_A_RECOVERY = {reason: _not_applicable(f"ended by {reason}") for reason in EndReason}
END_UNKNOWN = _invalid("the end reported is before the start")
DETECTED_EARLY = _invalid("detected_at is before impact_started_at")
ACKNOWLEDGED_EARLY = _invalid("acknowledged_at is before detected_at")
DECLARED_EARLY = _invalid("declared_at is before detected_at")
PUBLISHED_EARLY = _invalid("published before detected_at")
ENDED_BEFORE_DETECTED = _invalid("resolved_at is before detected_at")
MITIGATED_EARLY = _invalid("mitigated_at is before the incident began")
RECOVERED_EARLY = _invalid("resolved_at is before the incident began")
IDENTIFIED_EARLY = _invalid("identified_at is before detected_at")
RECOVERED_BEFORE_IDENTIFIED = _invalid("resolved_at is before identified_at")
REVIEWED_EARLY = _invalid("reviewed_at is before resolved_at")
READY_EARLY = _invalid("ready_at is before reviewed_at")

MEASURES: tuple[Measure, ...] = (
    Measure(
        "time_to_detect",
        "Time to detect",
        "impact start, as stated",
        "detection (first firing, or as stated)",
        "detected_at - impact_started_at; not applicable without a stated impact start",
        _time_to_detect,
        _impact_started_at,
        histogram=True,
    ),
    Measure(
        "time_to_acknowledge",
        "Time to acknowledge",
        "detection (first firing, or as stated)",
        "first explicit acknowledgement by a person",
        "acknowledged_at - detected_at; resolved without acknowledgement counts as censored",
        _time_to_acknowledge,
        detected_at,
        histogram=True,
    ),
    Measure(
        "time_to_declare",
        "Time to declare",
        "detection (first firing, or as stated)",
        "declaration of the response by a person",
        "declared_at - detected_at; not applicable to incidents that were detected by their declaration",
        _time_to_declare,
        detected_at,
        histogram=True,
    ),
    Measure(
        "time_to_public_update",
        "Time to first public update",
        "detection (first firing, or as stated)",
        "first update on the status page",
        "first_public_at - detected_at; not applicable to resolved incidents that were never on the status page",
        _time_to_public_update,
        detected_at,
        histogram=True,
    ),
    Measure(
        "time_to_mitigate",
        "Time to mitigate",
        "impact start if stated, else detection",
        "mitigation, as stated",
        "mitigated_at - (impact_started_at, else detected_at)",
        _time_to_mitigate,
        began,
    ),
    Measure(
        "time_to_recover",
        "Time to recover",
        "impact start if stated, else detection",
        "last recovery",
        "resolved_at - (impact_started_at, else detected_at); ends that are not recoveries are left out; `superseded` "
        "counts as censored",
        _time_to_recover,
        began,
        histogram=True,
    ),
    Measure(
        "detection",
        "Detection phase",
        "impact start, as stated",
        "detection (first firing, or as stated)",
        "detected_at - impact_started_at; not applicable without a stated impact start",
        _time_to_detect,
        _impact_started_at,
    ),
    Measure(
        "response",
        "Response phase",
        "detection (first firing, or as stated)",
        "identification of the cause, as stated",
        "identified_at - detected_at",
        _response,
        detected_at,
    ),
    Measure(
        "remediation",
        "Remediation phase",
        "identification of the cause, as stated",
        "last recovery",
        "resolved_at - identified_at; ends that are not recoveries are left out; `superseded` counts as censored",
        _remediation,
        _identified_at,
    ),
    Measure(
        "analysis",
        "Analysis phase",
        "last recovery",
        "first review, when it was held",
        "reviewed_at - resolved_at; not applicable to incidents without a review",
        _analysis,
        _ended_at,
    ),
    Measure(
        "readiness",
        "Readiness phase",
        "first review, when it was held",
        "last review published and last action item done or dropped",
        "ready_at - reviewed_at; not applicable to incidents without a review",
        _readiness,
        _reviewed_at,
    ),
)
_NAMES = tuple(measure.name for measure in MEASURES)
