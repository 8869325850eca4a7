"""SQL for components: what people configure, what their services suggest, and what the page shows of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func
from sqlalchemy import select as core_select
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db, schema
from app.base.errors import Conflict, Invalid, NotFound
from app.base.values.times import Span
from app.incidents.impact.store import planned_within
from app.incidents.reading.views import IS_COUNTED, IS_MONITORING, incident
from app.status_page.component import OpenIncident, Proposal, Status, Uptime, propose
from app.status_page.public_incident import Spell, spells_by_component, statuses
from app.status_page.store.incidents import everything_public

COMPONENTS_AT_MOST = 200


class ComponentNotFound(NotFound):
    title = "Component not found"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no component {name!r}; GET /api/v1/status-page/components lists all components")


class UnknownService(Invalid):
    title = "Unknown service"


class TooManyComponents(Conflict):
    title = "Too many components"


async def all_components(session: AsyncSession) -> Sequence[schema.Component]:
    """In the order of the page."""
    query = select(schema.Component).order_by(col(schema.Component.position), col(schema.Component.name))
    return (await session.exec(query)).all()


async def find_component(session: AsyncSession, name: str) -> schema.Component:
    """Raises ComponentNotFound."""
    found = await session.get(schema.Component, name)
    if found is None:
        raise ComponentNotFound(name)
    return found


async def put_component(session: AsyncSession, component: schema.Component) -> tuple[schema.Component, bool]:
    """The stored component, and whether it is new. Raises UnknownService or TooManyComponents."""
    await require_services(session, component.services)
    stored, is_new = await db.upsert(session, component)
    if is_new and (await session.exec(select(func.count()).select_from(schema.Component))).one() > COMPONENTS_AT_MOST:
        message = (
            f"the status page may have at most {COMPONENTS_AT_MOST} components; delete one that is no longer needed"
        )
        raise TooManyComponents(message)
    if stored.uptime != Uptime.MEASURED:
        await session.exec(delete(schema.ComponentDay).where(col(schema.ComponentDay.component) == stored.name))
    return stored, is_new


async def require_services(session: AsyncSession, names: Sequence[str]) -> None:
    """Raises UnknownService: a misspelled service would never have an incident."""
    known = set(await session.exec(select(schema.Service.name).where(col(schema.Service.name).in_(names))))
    if missing := [name for name in names if name not in known]:
        message = f"there is no service {missing[0]!r}; create it with PUT /api/v1/services/{{name}}"
        raise UnknownService(message)


async def delete_component(session: AsyncSession, name: str) -> None:
    """Public incidents keep its name. Raises ComponentNotFound."""
    deleted = await session.exec(delete(schema.Component).where(col(schema.Component.name) == name))
    if deleted.rowcount == 0:
        raise ComponentNotFound(name)


@dataclass(frozen=True, slots=True)
class ComponentOverview:
    """A component with what it shows, and what its services suggest. `spells` are its published statuses over time."""

    row: schema.Component
    published: Status
    proposal: Proposal
    spells: Sequence[Spell]

    @property
    def differs(self) -> bool:
        """Whether a person should look at it."""
        return self.published is not self.proposal.status


async def component_overviews(session: AsyncSession, *, now: datetime) -> list[ComponentOverview]:
    """All components, in the order of the page. At most seven statements."""
    rows = await all_components(session)
    public = await everything_public(session)
    proposals = await proposed(session, rows, now=now)
    shown, known = statuses(public, now), spells_by_component(public, now)
    return [
        ComponentOverview(
            row,
            shown.get(row.name, Status.OPERATIONAL),
            proposals[row.name],
            known.get(row.name, ()),
        )
        for row in rows
    ]


async def proposed(session: AsyncSession, rows: Sequence[schema.Component], *, now: datetime) -> Mapping[str, Proposal]:
    """The statuses that the services of these components suggest, by component. At most two statements."""
    services = sorted({service for row in rows for service in row.services})
    if not services:
        return {row.name: propose((), (), ()) for row in rows}
    tx = await session.connection()
    name = func.coalesce(incident.service_stated, incident.service)
    detected_at = func.coalesce(incident.detected_at_stated, incident.began_at)
    found = await tx.execute(
        core_select(
            incident.number, name, func.coalesce(incident.severity_stated, incident.severity), detected_at
        ).where(
            incident.merged_into.is_(None), IS_COUNTED, incident.ended_at.is_(None), ~IS_MONITORING, name.in_(services)
        )
    )
    running = [OpenIncident(*row) for row in found]
    planned = await planned_within(tx, services, Span(now, now + timedelta(microseconds=1)))
    in_maintenance = {service for service, spans in planned.items() if spans}
    return {row.name: propose(row.services, running, in_maintenance) for row in rows}
