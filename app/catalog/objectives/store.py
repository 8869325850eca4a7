"""SQL for objectives, and the inputs of availability and error budgets."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db, schema
from app.base.errors import NotFound, ServiceNotFound
from app.base.process.threads import off_loop
from app.base.values.times import Span
from app.incidents.impact import availability
from app.incidents.impact.availability import Availability, Budget, BudgetLeft, Objective
from app.incidents.impact.columns import impact_columns
from app.incidents.impact.maintenance import UNBOUNDED, Bounds
from app.incidents.impact.store import (
    failing_within,
    impacting_within,
    impacting_within_everywhere,
    in_service_since,
    planned_within,
)
from app.incidents.measures.measures import Weights
from app.incidents.services import add_service


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
    """The stored objective, and whether it is new; an unknown service is added."""
    await add_service(session, objective.service, now=objective.updated_at)
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
    """The error budget of the objective and the part that is left. Runs a fixed number of statements."""
    objective = Objective.of(row.model_dump())
    within = availability.reach(objective, now)
    tx = await session.connection()
    failing = await failing_within(tx, within, [row.service], environment=row.environment, now=now, weights=weights)
    planned = await planned_within(tx, [row.service], within)
    since = await in_service_since(tx, [row.service])

    def work() -> Budget:
        return availability.budget(
            objective,
            failing.get(objective.service, ()),
            planned.get(objective.service, ()),
            since=since.get(objective.service),
            now=now,
        )

    return await off_loop(work)


async def budgets_left(
    session: AsyncSession,
    names: Collection[str] | None = None,
    *,
    since: Mapping[str, datetime] | None = None,
    now: datetime,
    weights: Weights,
) -> list[BudgetLeft]:
    """What is left of the error budget of each of these services (None: of all) with an objective, by service.

    `since`: when each came into service, if that has been read. At most five statements.
    """
    query = select(schema.Objective).order_by(col(schema.Objective.service))
    if names is not None:
        query = query.where(col(schema.Objective.service).in_(names))
    rows = (await session.exec(query)).all()
    objectives = [Objective.of(row.model_dump()) for row in rows]
    if not objectives:
        return []
    services = [each.service for each in objectives]
    periods = [each.period(now) for each in objectives]
    tx = await session.connection()
    earliest = min(period.start for period in periods)
    columns, stretches, environment = await impacting_within_everywhere(tx, Span(earliest, now), services)
    planned = await planned_within(tx, services, Span(earliest, max(period.end for period in periods)))
    since = await in_service_since(tx, services) if since is None else since
    alike: dict[tuple[str | None, Span], list[Objective]] = defaultdict(list)
    for each, period in zip(objectives, periods, strict=True):
        alike[each.environment, period].append(each)

    def work() -> list[BudgetLeft]:
        impacts = impact_columns(columns, stretches, now=now, weights=weights)
        found: list[BudgetLeft] = []
        for (name, period), those in alike.items():
            there = impacts
            if name is not None:
                matches = np.array([value == name for value in environment.values], np.bool_)
                there = impacts.where(matches[environment.codes][impacts.incident])
            names = [each.service for each in those]
            burned = availability.availabilities(columns, there, names, planned, period, since=since, now=now)
            found += [
                availability.budget_left(each, of_service, planned.get(each.service, ()), now=now)
                for each, of_service in zip(those, burned, strict=True)
            ]
        return sorted(found, key=lambda each: each.objective.service)

    return await off_loop(work)


async def availabilities(
    tx: AsyncConnection,
    period: Span,
    names: Collection[str] = (),
    environments: Collection[str] = (),
    *,
    now: datetime,
    weights: Weights,
    bounds: Bounds = UNBOUNDED,
) -> list[Availability]:
    """Availability of the known services with these names, in these environments, least available first. None means
    all.

    Runs a fixed number of statements. Raises TooMuchMaintenance.
    """
    named = [*names] or None
    since = await in_service_since(tx, named)
    services = sorted(since)
    columns, stretches = await impacting_within(tx, period, named, environments=environments)
    passed = Span(period.start, max(period.start, min(period.end, now)))
    planned = await planned_within(tx, services, passed, occurrences_at_most=bounds.occurrences)

    def work() -> list[Availability]:
        impacts = impact_columns(columns, stretches, now=now, weights=weights)
        found = availability.availabilities(
            columns, impacts, services, planned, period, since=since, now=now, parts_at_most=bounds.parts
        )
        return sorted(found, key=lambda each: (each.downtime_weighted, each.downtime), reverse=True)

    return await off_loop(work)
