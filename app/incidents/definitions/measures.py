"""The numbers of one incident. Durations come from the registry in `app.incidents.measures.measures`."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.incidents.definitions.model import BUSINESS_HOURS, EVERY_INCIDENT, NO_RECOVERY, Definition, Kind
from app.incidents.measures.measures import MEASURES

_ONE = "the value of one incident; the statistics say what is made of many"
_NOT_A_SERVICE = "merged incidents (counted under the one they went into); trouble of the monitoring, unless asked for"
_STATED = "incidents for which nobody stated it, because a default would be made up"


@dataclass(frozen=True, slots=True)
class _Population:
    left_out: str
    cannot_tell: str


_POPULATIONS: Mapping[str, _Population] = {
    "time_to_detect": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}",
        "how long harm goes unseen where nobody states its start; look at how many are left out",
    ),
    "time_to_acknowledge": _Population(
        _NOT_A_SERVICE,
        "whether anybody worked on it: it is a click. What resolved by itself was not ignored; it counts as censored",
    ),
    "time_to_mitigate": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}", "anything about incidents whose mitigation nobody noted down"
    ),
    "time_to_recover": _Population(
        f"{NO_RECOVERY}; {_NOT_A_SERVICE}",
        "whether the repair was good, or the incident hard: it begins at impact where that is stated and at detection "
        "where it is not, and alerts end by their own rule, not when users are well",
    ),
    "detection": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}",
        "more than time_to_detect: it is the same duration, as the first phase of an incident",
    ),
    "response": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}", "when work began: it ends when a person says that the cause was known"
    ),
    "remediation": _Population(
        f"{_STATED}; {NO_RECOVERY}; {_NOT_A_SERVICE}", "how much of the time was work, and how much was waiting"
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
        "of the same duration the seconds in which a clock on the wall of the calendar's zone shows a time within the "
        "hours of that weekday, on a date that is no holiday; 0 where all of it lies outside of them. What the clocks "
        "skip is not there, what they show twice counts twice",
        "the incidents of the measure, with the status and the reason that they have in it",
        "time out of hours",
        "how long users waited, who are harmed at night as well; or what people on call do then",
        clock=BUSINESS_HOURS,
    ),
    Definition(
        "incident_cost",
        Kind.MEASURE,
        "Cost of an incident",
        "currency",
        _ONE,
        "the integral of rate(t) x impact(t) from (impact_started_at, else detected_at) to (resolved_at, else now), "
        "less planned maintenance; where incidents of a service overlap, the greatest impact counts once and they "
        "share it in proportion to theirs, so that the incidents of a service sum exactly to its cost",
        "incidents of a service that had a rate then",
        "services without a rate: unknown is not 0; planned maintenance",
        "what it would have cost alone: another incident at the same time takes a part of it, and a later correction "
        "of that one changes this one",
    ),
    Definition(
        "incident_labor",
        Kind.MEASURE,
        "Labor at an incident",
        "currency",
        _ONE,
        "responders of its severity x pay per hour x the hours from acknowledged_at (detected_at, if that is later) to "
        "(resolved_at, else now)",
        "incidents that a person acknowledged while they ran, where the setting says what an hour costs",
        "incidents that nobody acknowledged while they ran: unknown is not 0; merged incidents",
        "who really worked and how long: it is a click, an end, and numbers that somebody stated",
    ),
    Definition(
        "reopened",
        Kind.MEASURE,
        "Reopenings",
        "times",
        _ONE,
        "gaps within the incident: how often all its alerts had ended before another began within the window",
        "every incident",
        "repeats and retries, which reopen nothing",
        "whether a fix failed: it may be the same trouble, or another one with the same key",
    ),
)
