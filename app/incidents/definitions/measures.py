"""Definitions of the numbers of one incident. Durations come from the registry in `app.incidents.measures.measures`."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.incidents.definitions.model import BUSINESS_HOURS, EVERY_INCIDENT, NO_RECOVERY, Definition, Kind
from app.incidents.measures.measures import MEASURES

_ONE = "the value of one incident; see the statistics for many incidents"
_NOT_A_SERVICE = "merged incidents (counted as the one they were merged into); monitoring failures, unless requested"
_STATED = "incidents without a stated time, because any default would be invented"


@dataclass(frozen=True, slots=True)
class _Population:
    left_out: str
    cannot_tell: str


_POPULATIONS: Mapping[str, _Population] = {
    "time_to_detect": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}",
        "how long impact goes undetected if nobody states its start; check how many incidents are left out",
    ),
    "time_to_acknowledge": _Population(
        _NOT_A_SERVICE,
        "whether anyone worked on it: it is one click. Incidents that resolved by themselves were not ignored; they "
        "count as censored",
    ),
    "time_to_mitigate": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}", "anything about incidents whose mitigation was not recorded"
    ),
    "time_to_recover": _Population(
        f"{NO_RECOVERY}; {_NOT_A_SERVICE}",
        "how good the fix was, or how hard the incident: it starts at the impact start if stated, else at detection, "
        "and ends when the alert resolves, which may not be when users recover",
    ),
    "detection": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}",
        "anything that time_to_detect does not: it is the same duration, shown as the first phase of an incident",
    ),
    "response": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}", "when work began: it ends when, according to a person, the cause was known"
    ),
    "remediation": _Population(
        f"{_STATED}; {NO_RECOVERY}; {_NOT_A_SERVICE}", "how much of the time was spent working, and how much waiting"
    ),
}

MEASURE_DEFINITIONS = (
    *(
        Definition(
            name=measure.name,
            kind=Kind.MEASURE,
            label=measure.label,
            unit="seconds",
            statistic=_ONE,
            formula=measure.formula,
            counted=EVERY_INCIDENT,
            left_out=_POPULATIONS[measure.name].left_out,
            cannot_tell=_POPULATIONS[measure.name].cannot_tell,
            second_clock=BUSINESS_HOURS,
            starts=measure.starts,
            ends=measure.ends,
        )
        for measure in MEASURES
    ),
    Definition(
        "business_hours",
        Kind.MEASURE,
        "A duration in business hours",
        "seconds",
        _ONE,
        "the seconds of the same duration during which the local time in the calendar's zone is within the hours of "
        "that weekday, on a date that is not a holiday; 0 if all of it is outside business hours. Local times "
        "skipped by a clock change do not count, repeated ones count twice",
        "the incidents of the measure, with the same status and reason",
        "time outside business hours",
        "how long users waited, who are affected at night as well; or the work of people on call outside these hours",
        clock=BUSINESS_HOURS,
    ),
    Definition(
        "incident_cost",
        Kind.MEASURE,
        "Cost of an incident",
        "currency",
        _ONE,
        "the integral of rate(t) x impact(t) from (impact_started_at, else detected_at) to (resolved_at, else now), "
        "less planned maintenance; where incidents of a service overlap, the greatest impact counts once and is split "
        "among them in proportion to their impacts, so the incidents of a service sum exactly to its cost",
        "incidents of services that had a rate at the time",
        "services without a rate, because unknown is not 0; planned maintenance",
        "the cost of the incident on its own: an overlapping incident takes a share, and a later correction of that "
        "incident changes this number",
    ),
    Definition(
        "incident_labor",
        Kind.MEASURE,
        "Labor for an incident",
        "currency",
        _ONE,
        "responders for its severity x pay per hour x the hours from acknowledged_at (detected_at, if that is later) "
        "to (resolved_at, else now)",
        "incidents that a person acknowledged before they ended, if `AFTERMATH_LABOR` is set",
        "incidents that nobody acknowledged before they ended, because unknown is not 0; merged incidents",
        "who actually worked, and how long: it rests on an acknowledgement, an end and configured rates",
    ),
    Definition(
        "reopened",
        Kind.MEASURE,
        "Reopenings",
        "times",
        _ONE,
        "the number of gaps within the incident: times at which all its alerts had ended, before another began "
        "within the window",
        "every incident",
        "repeats and retries, which reopen nothing",
        "whether a fix failed: it may be the same problem or another one with the same grouping key",
    ),
)
