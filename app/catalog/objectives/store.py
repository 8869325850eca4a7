"""The SQL of planned maintenance and objectives, and the reading behind availability and error budgets."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, Table, delete, literal_column, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.errors import NotFound, ServiceNotFound
from app.base.schema import maintenance, objective, service
from app.base.times import Span
from app.incidents.impact import availability
from app.incidents.impact.availability import Availability, Budget, Objective
from app.incidents.impact.maintenance import Recurrence, Window
from app.incidents.impact.store import columns_of, failing_within, harming_within, planned_within
from app.incidents.measures.measures import Weights
from app.incidents.measures.vectorized import harms


class MaintenanceNotFound(NotFound):
    title = "No such maintenance"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no maintenance {name!r}; GET /api/v1/maintenance lists all")


class ObjectiveNotFound(NotFound):
    title = "No objective"

    def __init__(self, name: str) -> None:
        super().__init__(f"the service {name!r} has no objective; PUT states one")


# — maintenance —


@dataclass(frozen=True, slots=True)
class KnownWindow:
    window: Window
    created_at: datetime
    updated_at: datetime


async def windows(tx: AsyncConnection, *, after: str, limit: int) -> Sequence[KnownWindow]:
    """By name, those behind `after`."""
    columns = maintenance.c
    return await _windows(tx, select(maintenance).where(columns.name > after).order_by(columns.name).limit(limit))


async def find_window(tx: AsyncConnection, name: str) -> KnownWindow:
    """Raises MaintenanceNotFound."""
    for known in await _windows(tx, select(maintenance).where(maintenance.c.name == name)):
        return known
    raise MaintenanceNotFound(name)


async def put_window(tx: AsyncConnection, window: Window, *, now: datetime) -> tuple[KnownWindow, bool]:
    """The window, and whether it is new."""
    match window.when:
        case Span() as once:
            when = dict.fromkeys(_RECURRING) | {"begins_at": once.begins, "ends_at": once.ends}
        case Recurrence() as rule:
            when = {
                "begins_at": None,
                "ends_at": None,
                "weekdays": sorted(rule.weekdays),
                "start_time": rule.start_time,
                "duration_seconds": rule.lasts // timedelta(seconds=1),
                "zone": rule.zone,
                "first_date": rule.first_date,
                "last_date": rule.last_date,
            }
    stated = {"services": sorted(window.services), "reason": window.reason, "updated_at": now} | when
    row, is_new = await _put(tx, maintenance, {"name": window.name}, stated, now)
    return _known_window(row), is_new


async def delete_window(tx: AsyncConnection, name: str) -> None:
    """Raises MaintenanceNotFound."""
    deleted = await tx.execute(delete(maintenance).where(maintenance.c.name == name))
    if deleted.rowcount == 0:
        raise MaintenanceNotFound(name)


_RECURRING = ("weekdays", "start_time", "duration_seconds", "zone", "first_date", "last_date")


async def _windows(tx: AsyncConnection, query: Select[Any]) -> Sequence[KnownWindow]:
    return [_known_window(row) for row in await tx.execute(query)]


def _known_window(row: Row[Any]) -> KnownWindow:
    return KnownWindow(Window.of(row._mapping), row.created_at, row.updated_at)


# — objectives —


@dataclass(frozen=True, slots=True)
class KnownObjective:
    objective: Objective
    created_at: datetime
    updated_at: datetime


async def find_objective(tx: AsyncConnection, name: str) -> KnownObjective:
    """Raises ServiceNotFound or ObjectiveNotFound."""
    for row in await tx.execute(select(objective).where(objective.c.service == name)):
        return _known_objective(row)
    await _known_service(tx, name)
    raise ObjectiveNotFound(name)


async def put_objective(tx: AsyncConnection, stated: Objective, *, now: datetime) -> tuple[KnownObjective, bool]:
    """The objective, and whether it is new; raises ServiceNotFound."""
    await _known_service(tx, stated.service)
    rolling = stated.window.days if isinstance(stated.window, timedelta) else None
    columns = {
        "target": stated.target,
        "rolling_days": rolling,
        "calendar": None if rolling else str(stated.window),
        "weighted": stated.weighted,
        "updated_at": now,
    }
    row, is_new = await _put(tx, objective, {"service": stated.service}, columns, now)
    return _known_objective(row), is_new


async def delete_objective(tx: AsyncConnection, name: str) -> None:
    """Raises ServiceNotFound or ObjectiveNotFound."""
    deleted = await tx.execute(delete(objective).where(objective.c.service == name))
    if deleted.rowcount == 0:
        await _known_service(tx, name)
        raise ObjectiveNotFound(name)


async def _known_service(tx: AsyncConnection, name: str) -> None:
    known = await tx.execute(select(service.c.name).where(service.c.name == name))
    if known.one_or_none() is None:
        raise ServiceNotFound(name)


def _known_objective(row: Row[Any]) -> KnownObjective:
    return KnownObjective(Objective.of(row._mapping), row.created_at, row.updated_at)


async def _put(
    tx: AsyncConnection, table: Table, key: dict[str, str], stated: dict[str, Any], now: datetime
) -> tuple[Row[Any], bool]:
    query = (
        upsert(table)
        .values(**key, created_at=now, **stated)
        .on_conflict_do_update(index_elements=list(key), set_=stated)
        # A row that an upsert has inserted was never locked or deleted by anyone.
        .returning(*table.c, literal_column("xmax = 0").label("is_new"))
    )
    row = (await tx.execute(query)).one()
    return row, row.is_new


# — numbers —


async def budget(tx: AsyncConnection, stated: Objective, *, now: datetime, weights: Weights) -> Budget:
    """What the objective leaves to spend. Two statements."""
    within = availability.reach(stated, now)
    failing = await failing_within(tx, within, [stated.service], now=now, weights=weights)
    planned = await planned_within(tx, [stated.service], within)

    def work() -> Budget:
        return availability.budget(stated, failing.get(stated.service, ()), planned.get(stated.service, ()), now=now)

    return await asyncio.to_thread(work)


async def availabilities(
    tx: AsyncConnection, period: Span, name: str | None = None, *, now: datetime, weights: Weights
) -> list[Availability]:
    """Of each known service, or of that one, the least available first. Three statements."""
    query = select(service.c.name).order_by(service.c.name)
    services = list((await tx.execute(query if name is None else query.where(service.c.name == name))).scalars())
    row = await harming_within(tx, period, None if name is None else [name])
    planned = await planned_within(tx, services, Span(period.begins, min(period.ends, now)))

    def work() -> list[Availability]:
        columns = columns_of(row)
        harmed = harms(columns, now=now, weights=weights)
        found = availability.availabilities(columns, harmed, services, planned, period, now=now)
        return sorted(found, key=lambda each: (each.downtime_weighted, each.downtime), reverse=True)

    return await asyncio.to_thread(work)  # a year of a large installation must not keep the doors waiting
