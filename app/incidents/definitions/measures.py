"""Definitions of the numbers of one incident. Durations come from the registry in `app.incidents.measures.measures`."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.incidents.definitions.model import BUSINESS_HOURS, EVERY_INCIDENT, NO_RECOVERY, Definition, DefinitionKind
from app.incidents.measures.measures import MEASURES

_ONE = "the value of one incident; see the statistics for many incidents"
_NOT_A_SERVICE = "merged incidents (counted as the one they were merged into); monitoring failures, unless requested"
_STATED = "incidents without a stated time, because any default would be a guess"

_NO_REVIEW = "incidents without a review, because most need none"


@dataclass(frozen=True, slots=True)
class _Population:
    left_out: str
    cannot_show: str


_POPULATIONS: Mapping[str, _Population] = {
    "time_to_detect": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}",
        "how long impact goes undetected if no one states its start; check how many incidents are left out",
    ),
    "time_to_acknowledge": _Population(
        _NOT_A_SERVICE,
        "whether anyone worked on it: it is one click. Incidents that resolved by themselves were not ignored; they "
        "count as censored",
    ),
    "time_to_declare": _Population(
        f"incidents that no one declared, or that were detected by their declaration; {_NOT_A_SERVICE}",
        "whether the response was needed, or how it went; nor incidents that were handled without one",
    ),
    "time_to_public_update": _Population(
        f"incidents that were never on the status page, because most concern no customer; {_NOT_A_SERVICE}",
        "whether customers read it, or knew of the problem before; nor incidents that should have been published and "
        "were not",
    ),
    "time_to_mitigate": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}", "anything about incidents whose mitigation was not recorded"
    ),
    "time_to_recover": _Population(
        f"{NO_RECOVERY}; {_NOT_A_SERVICE}",
        "how good the fix was, or how hard the incident was: it starts at the impact start if stated, else at "
        "detection, "
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
    "analysis": _Population(
        f"{_NO_REVIEW}; {_NOT_A_SERVICE}",
        "how much was learned: it ends when the first review was held. A review held while the incident ran makes it "
        "invalid",
    ),
    "readiness": _Population(
        f"{_NO_REVIEW}; {_NOT_A_SERVICE}",
        "whether the action items helped; each action item has its own estimate of that. Adding an action item later "
        "makes it pending again",
    ),
}

MEASURE_DEFINITIONS = (
    *(
        Definition(
            name=measure.name,
            kind=DefinitionKind.MEASURE,
            label=measure.label,
            unit="seconds",
            statistic=_ONE,
            formula=measure.formula,
            counted=EVERY_INCIDENT,
            left_out=_POPULATIONS[measure.name].left_out,
            cannot_show=_POPULATIONS[measure.name].cannot_show,
            second_clock=BUSINESS_HOURS,
            starts=measure.starts,
            ends=measure.ends,
        )
        for measure in MEASURES
    ),
    Definition(
        "business_hours",
        DefinitionKind.MEASURE,
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
        "impact",
        DefinitionKind.MEASURE,
        "Impact of an incident",
        "share of the service",
        _ONE,
        "impact(t) is the share of the worst severity among its alerts that fire at time t, and 0 while none fires; a "
        "stated impact or severity replaces that of every alert; a stated start (impact_started_at, else detected_at) "
        "before the first alert extends that alert back to it, and before a stated impact_started_at impact is 0; with "
        "harmed_throughout, gaps between alerts have the worst severity of the incident",
        "alerts of sources, from the start that the annotation `for` implies, if there is one; and the time for which "
        "a person declared the incident or held it open",
        "alerts after a person resolved them; monitoring failures, whose impact is 0",
        "what users noticed: the share of each severity is a setting (`AFTERMATH_IMPACT`)",
    ),
    Definition(
        "incident_cost",
        DefinitionKind.MEASURE,
        "Cost of an incident",
        "currency",
        _ONE,
        "the integral of rate(t) x impact(t) until resolved_at, else now, less planned maintenance; where incidents "
        "of a service overlap, the greatest impact counts once and is split among them in proportion to their "
        "impacts, so the incidents of a service sum exactly to its cost",
        "incidents of services that had a rate at the time",
        "services without a rate, because unknown is not 0; planned maintenance",
        "the cost of the incident on its own: an overlapping incident takes a share, and a later correction of that "
        "incident changes this number",
    ),
    Definition(
        "incident_downtime",
        DefinitionKind.MEASURE,
        "Downtime of an incident",
        "seconds",
        _ONE,
        "the time until resolved_at, else now, at which impact(t) is above 0, less planned maintenance",
        "incidents with an impact above 0",
        "gaps between alerts, unless harmed_throughout is stated; planned maintenance; merged incidents",
        "how long the incident took: time_to_recover includes the gaps and counts every severity. Nor whether users "
        "were affected while no alert fired",
    ),
    Definition(
        "incident_labor",
        DefinitionKind.MEASURE,
        "Labor for an incident",
        "currency",
        _ONE,
        "responders for its severity x pay per hour x the hours from acknowledged_at (detected_at, if that is later) "
        "to (resolved_at, else now)",
        "incidents that a person acknowledged before they ended, if `AFTERMATH_LABOR` is set",
        "incidents that no one acknowledged before they ended, because unknown is not 0; merged incidents",
        "who actually worked, and how long: it rests on an acknowledgement, an end and configured rates",
    ),
    Definition(
        "reopened",
        DefinitionKind.MEASURE,
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
