"""All that is public, and what follows from it at one time. Pure: no clock, no I/O, no settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TypeAlias
from uuid import UUID

from app.status_page.component import Component, Status, Uptime
from app.status_page.public_incident import (
    PublicIncident,
    PublicKind,
    PublicStage,
    is_over,
    spells_by_component,
    stage,
    statuses,
)
from app.status_page.uptime import Day, MeasuredDay, of_measured, published

# The newest are public: so many, and as many as have updates of so many bytes together.
INCIDENTS_AT_MOST, UPDATES_BYTES = 1000, 8 * 2**20
REPORTS_AT_MOST = 500  # likewise, the newest


@dataclass(frozen=True, slots=True)
class Site:
    """The status page itself. `url` is the address at which customers reach it, without a slash at its end; empty if it
    is not known, and then links are paths.
    """

    name: str
    url: str

    def address(self, path: str) -> str:
        return f"{self.url}{path}"

    @property
    def identity(self) -> str:
        """The text from which ids are derived; each site has its own."""
        return self.url or self.name


@dataclass(frozen=True, slots=True)
class Report:
    """A report about a public incident, as it was approved. `title` and `page` are None after its withdrawal."""

    id: UUID
    incident_id: UUID
    title: str | None
    page: bytes | None
    digest: bytes
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Content:
    """`components` are in the order of the page, `incidents` newest first; `measured` is by component and day.
    `reports` are newest first, also those that were withdrawn.
    """

    components: Sequence[Component] = ()
    incidents: Sequence[PublicIncident] = ()
    measured: Mapping[str, Mapping[date, MeasuredDay]] | None = None
    reports: Sequence[Report] = ()

    @property
    def updated_at(self) -> datetime | None:
        times = [each.updated_at for each in self.components] + [each.updated_at for each in self.incidents]
        return max(times, default=None)

    def find(self, id_: UUID) -> PublicIncident | None:
        return next((each for each in self.incidents if each.id == id_), None)

    def find_report(self, id_: UUID) -> Report | None:
        """Also one that was withdrawn."""
        return next((each for each in self.reports if each.id == id_), None)

    def shown_reports(self, incident_id: UUID | None = None) -> list[Report]:
        """The reports that customers can read, of one public incident or all."""
        return [each for each in self.reports if each.page is not None and incident_id in {None, each.incident_id}]

    def sections(self) -> dict[str | None, list[Component]]:
        """The components by section, in the order of the first of each; those without one first."""
        found: dict[str | None, list[Component]] = {None: []}
        for each in self.components:
            found.setdefault(each.section, []).append(each)
        return {name: components for name, components in found.items() if components}


@dataclass(frozen=True, slots=True)
class State:
    """The state of the page at one time. `problems` and `maintenance` are not over; `coming` has not begun."""

    statuses: Mapping[str, Status]
    problems: Sequence[PublicIncident]
    maintenance: Sequence[PublicIncident]
    coming: Sequence[PublicIncident]
    past: Sequence[PublicIncident]


def state(content: Content, now: datetime) -> State:
    going_on = [each for each in content.incidents if not is_over(each, now)]
    found = statuses(going_on, now)
    maintenance = [each for each in going_on if each.kind is PublicKind.MAINTENANCE]
    coming = [each for each in maintenance if stage(each, now) is PublicStage.SCHEDULED]
    return State(
        {each.name: found.get(each.name, Status.OPERATIONAL) for each in content.components},
        [each for each in going_on if each.kind is PublicKind.INCIDENT],
        [each for each in maintenance if each not in coming],
        sorted(coming, key=lambda each: each.begins_at),
        [each for each in content.incidents if is_over(each, now)],
    )


def days_of(content: Content, now: datetime) -> dict[str, list[Day]]:
    """The last days of each component, as it wants them shown; empty if they are hidden."""
    known = spells_by_component(content.incidents, now)
    measured = content.measured or {}
    found: dict[str, list[Day]] = {}
    for each in content.components:
        match each.uptime:
            case Uptime.PUBLISHED:
                found[each.name] = published(known.get(each.name, ()), each.since, now=now)
            case Uptime.MEASURED:
                found[each.name] = of_measured(measured.get(each.name, {}), each.since, now=now)
            case _:
                found[each.name] = []
    return found


Months: TypeAlias = Mapping[str, Sequence[PublicIncident]]


def months_of(content: Content) -> Months:
    """The public incidents by the month in which they began in UTC, such as `2026-11`."""
    found: dict[str, list[PublicIncident]] = {}
    for each in content.incidents:
        found.setdefault(f"{each.begins_at.astimezone(UTC):%Y-%m}", []).append(each)
    return found
