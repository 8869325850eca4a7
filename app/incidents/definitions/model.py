"""What a definition is, and the populations and thresholds that several of them share."""

from dataclasses import dataclass
from enum import StrEnum

SUMMARY_FROM = 10  # recorded values; below it a median says more about chance than about the service
P95_FROM = 60  # below it the 95th percentile is the opinion of three incidents

EVENT_TIME = "event time: when the sender or a person says that it happened, not when it arrived"
BUSINESS_HOURS = "the hours of a calendar, as the wall clock of its zone shows them; it stands still outside of them"
DEPLOYED = "event time: when a deployment finished, as its reports say, else when its outcome was told"


# Populations.
EVERY_INCIDENT = "incidents whose detection lies in the period"
NO_RECOVERY = "alerts that ended without a recovery (rule paused or deleted, series missing, …), unless asked for"
HARMING = "incidents with an impact above 0 that harm in the period, whenever they were detected"
HARMING_WITH_RATE = f"{HARMING}, of services that had a rate then"
PLANNED = "planned maintenance, shown apart; severities whose impact is 0; trouble of the monitoring"
NO_RATE = "services without a rate, which are listed: unknown is not 0; planned maintenance"


class Kind(StrEnum):
    MEASURE = "measure"  # of one incident
    STATISTIC = "statistic"  # of one measure over many incidents
    METRIC = "metric"  # of a period


@dataclass(frozen=True, slots=True)
class Definition:
    name: str
    kind: Kind
    label: str
    unit: str
    statistic: str  # how many values become one: a sum, a count, a ratio, …
    formula: str
    counted: str  # the population
    left_out: str  # what is not in it, and why
    cannot_tell: str
    clock: str = EVENT_TIME
    second_clock: str | None = None  # available on request
    starts: str | None = None  # of a duration between two events
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
    cannot_tell: str,
    clock: str = EVENT_TIME,
    version: int = 1,
) -> Definition:
    return Definition(
        name,
        Kind.METRIC,
        label,
        unit,
        statistic,
        formula,
        counted,
        left_out,
        cannot_tell,
        clock=clock,
        version=version,
    )
