"""The status of components: its words, its order, and what the incidents of their services suggest.

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from fractions import Fraction


class Status(StrEnum):
    """In Statuspage's words, from best to worst."""

    OPERATIONAL = "operational"
    UNDER_MAINTENANCE = "under_maintenance"
    DEGRADED_PERFORMANCE = "degraded_performance"
    PARTIAL_OUTAGE = "partial_outage"
    MAJOR_OUTAGE = "major_outage"

    @property
    def rank(self) -> int:
        return _ORDER[self]

    @property
    def words(self) -> str:
        return self.replace("_", " ").capitalize()


_ORDER = {status: rank for rank, status in enumerate(Status)}

# The share of the time with this status that counts as downtime. Statuspage counts the same.
WEIGHTS: Mapping[Status, Fraction] = {
    Status.OPERATIONAL: Fraction(0),
    Status.UNDER_MAINTENANCE: Fraction(0),
    Status.DEGRADED_PERFORMANCE: Fraction(0),
    Status.PARTIAL_OUTAGE: Fraction(3, 10),
    Status.MAJOR_OUTAGE: Fraction(1),
}


class Uptime(StrEnum):
    """What the days of a component show."""

    PUBLISHED = "published"
    MEASURED = "measured"
    HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class Component:
    """The public part of a component."""

    name: str
    description: str
    section: str | None
    position: int
    uptime: Uptime
    since: date
    created_at: datetime
    updated_at: datetime


def worst(statuses: Iterable[Status]) -> Status:
    return max(statuses, key=lambda status: status.rank, default=Status.OPERATIONAL)


INDICATORS: Mapping[Status, str] = {
    Status.OPERATIONAL: "none",
    Status.UNDER_MAINTENANCE: "maintenance",
    Status.DEGRADED_PERFORMANCE: "minor",
    Status.PARTIAL_OUTAGE: "major",
    Status.MAJOR_OUTAGE: "critical",
}


def summary(statuses: Collection[Status], *, problems: bool) -> str:
    """One sentence for the page. `problems`: an incident is open, even if no component is named."""
    status = worst(statuses)
    every = bool(statuses) and all(each is status for each in statuses)
    if status is Status.OPERATIONAL:
        unnamed = "We are looking into a problem" if problems else "No problem is known"
        return "All systems operational" if statuses and not problems else unnamed
    match status:
        case Status.UNDER_MAINTENANCE:
            return "Maintenance is in progress"
        case Status.DEGRADED_PERFORMANCE:
            return "Performance is degraded" if every else "Performance of some systems is degraded"
        case Status.PARTIAL_OUTAGE:
            return "Partial outage" if every else "Partial outage of some systems"
        case _:
            return "Major outage" if every else "Major outage of some systems"


# — what the incidents suggest —

OF_SEVERITY: Mapping[int, Status] = {
    1: Status.MAJOR_OUTAGE,
    2: Status.PARTIAL_OUTAGE,
    3: Status.DEGRADED_PERFORMANCE,
}


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """An open incident of a service."""

    number: int
    service: str
    severity: int
    detected_at: datetime


@dataclass(frozen=True, slots=True)
class Proposal:
    """The status that the services of a component suggest. `incidents` are the reason, worst first."""

    status: Status
    incidents: Sequence[OpenIncident]
    maintenance: bool


def propose(
    services: Collection[str], open_incidents: Iterable[OpenIncident], in_maintenance: Collection[str]
) -> Proposal:
    """The worst of the open incidents of the services. Those of a service in planned maintenance are a part of it."""
    counted = sorted(
        (
            each
            for each in open_incidents
            if each.service in services and each.service not in in_maintenance and each.severity in OF_SEVERITY
        ),
        key=lambda each: (each.severity, each.detected_at, each.number),
    )
    return _proposal(counted, maintenance=any(service in in_maintenance for service in services))


def only(proposal: Proposal, counts: Callable[[OpenIncident], bool]) -> Proposal:
    """The proposal that follows from some of its incidents."""
    return _proposal([each for each in proposal.incidents if counts(each)], maintenance=proposal.maintenance)


def _proposal(incidents: Sequence[OpenIncident], *, maintenance: bool) -> Proposal:
    statuses = [OF_SEVERITY[each.severity] for each in incidents]
    if maintenance:
        statuses.append(Status.UNDER_MAINTENANCE)
    return Proposal(worst(statuses), incidents, maintenance)
