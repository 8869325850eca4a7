"""The structure of a definition, and the populations and thresholds that several definitions share."""

from dataclasses import dataclass
from enum import StrEnum

SUMMARY_FROM = 10  # recorded values; a median of fewer reflects chance more than the service
P95_FROM = 60  # of fewer, the 95th percentile rests on the three longest incidents
OCCASIONS_FROM = 5  # storms or weeks with recorded values; an interval from fewer is too wide to be of use

EVENT_TIME = "event time: when it happened according to the sender or a person, not when it was received"
BUSINESS_HOURS = "business hours of a calendar, in local time of its zone; the clock is stopped outside them"
DEPLOYED = "event time: when a deployment finished according to its reports, else when its outcome was reported"


# Populations.
EVERY_INCIDENT = "incidents detected in the period"
NO_RECOVERY = "alerts that ended without a recovery (rule paused or deleted, series missing, …), unless requested"
WITH_IMPACT = "incidents with an impact above 0 at some time in the period, whenever they were detected"
WITH_IMPACT_AND_RATE = f"{WITH_IMPACT}, if their service had a rate at the time"
PLANNED = "planned maintenance, shown separately; severities with an impact of 0; monitoring failures"
NO_RATE = "services without a rate, which are listed, because unknown is not 0; planned maintenance"


class DefinitionKind(StrEnum):
    MEASURE = "measure"  # of one incident
    STATISTIC = "statistic"  # of one measure over many incidents
    METRIC = "metric"  # of a period


@dataclass(frozen=True, slots=True)
class Definition:
    name: str
    kind: DefinitionKind
    label: str
    unit: str
    statistic: str  # how values are aggregated: a sum, a count, a ratio, …
    formula: str
    counted: str  # the population
    left_out: str  # exclusions, with the reason
    cannot_show: str  # its limits; reads on from "It cannot show"
    clock: str = EVENT_TIME
    second_clock: str | None = None  # used on request
    starts: str | None = None  # the two events of a duration
    ends: str | None = None
    version: int = 1


def metric(
    name: str,
    label: str,
    unit: str,
    statistic: str,
    formula: str,
    *,
    counted: str,
    left_out: str,
    cannot_show: str,
    clock: str = EVENT_TIME,
    version: int = 1,
) -> Definition:
    return Definition(
        name,
        DefinitionKind.METRIC,
        label,
        unit,
        statistic,
        formula,
        counted,
        left_out,
        cannot_show,
        clock=clock,
        version=version,
    )
