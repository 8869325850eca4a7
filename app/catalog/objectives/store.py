"""SQL for objectives, and the inputs of availability and error budgets."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db, schema
from app.base.errors import NotFound, ServiceNotFound
from app.base.threads import off_loop
from app.base.times import Span
from app.incidents.impact import availability
from app.incidents.impact.availability import Availability, Budget, Objective
from app.incidents.impact.store import failing_within, harming_within, planned_within
from app.incidents.measures.measures import Weights
from app.incidents.measures.vectorized import harms


class ObjectiveNotFound(NotFound):
    title = "Objective not found"

    def __init__(self, name: str) -> None:
        super().__init__(f"the service {name!r} has no objective; create one with PUT")


async def find_objective(session: AsyncSession, service: str) -> schema.Objective:
    """Raises ServiceNotFound or ObjectiveNotFound."""
    found = await session.get(schema.Objective, service)
    if found is None:
        await _require_service(session, service)
        raise ObjectiveNotFound(service)
    return found


async def put_objective(session: AsyncSession, objective: schema.Objective) -> tuple[schema.Objective, bool]:
    """The stored objective, and whether it is new; raises ServiceNotFound."""
    await _require_service(session, objective.service)
    return await db.upsert(session, objective)


async def delete_objective(session: AsyncSession, service: str) -> None:
    """Raises ServiceNotFound or ObjectiveNotFound."""
    deleted = await session.exec(delete(schema.Objective).where(col(schema.Objective.service) == service))
    if deleted.rowcount == 0:
        await _require_service(session, service)
        raise ObjectiveNotFound(service)


async def _require_service(session: AsyncSession, name: str) -> None:
    if await session.get(schema.Service, name) is None:
        raise ServiceNotFound(name)


# — numbers —


async def budget(session: AsyncSession, row: schema.Objective, *, now: datetime, weights: Weights) -> Budget:
    """The error budget of the objective and the part that is left. Runs two statements."""
    objective = Objective.of(row.model_dump())
    within = availability.reach(objective, now)
    tx = await session.connection()
    failing = await failing_within(tx, within, [row.service], now=now, weights=weights)
    planned = await planned_within(tx, [row.service], within)

    def work() -> Budget:
        return availability.budget(
            objective, failing.get(objective.service, ()), planned.get(objective.service, ()), now=now
        )

    return await off_loop(work)


async def availabilities(
    tx: AsyncConnection, period: Span, name: str | None = None, *, now: datetime, weights: Weights
) -> list[Availability]:
    """Availability of all known services, or of the one named, least available first. Runs three statements."""
    query = select(schema.Service.name).order_by(schema.Service.name)
    if name is not None:
        query = query.where(schema.Service.name == name)
    services = list((await tx.execute(query)).scalars())
    columns = await harming_within(tx, period, None if name is None else [name])
    planned = await planned_within(tx, services, Span(period.begins, min(period.ends, now)))

    def work() -> list[Availability]:
        harmed = harms(columns, now=now, weights=weights)
        found = availability.availabilities(columns, harmed, services, planned, period, now=now)
        return sorted(found, key=lambda each: (each.downtime_weighted, each.downtime), reverse=True)

    return await off_loop(work)
