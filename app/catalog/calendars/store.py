"""The SQL of calendars."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Select, delete, insert, literal_column, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.schema import calendar, calendar_hours
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.store import CalendarNotFound, weeks_of


@dataclass(frozen=True, slots=True)
class KnownCalendar:
    hours: BusinessHours
    created_at: datetime
    updated_at: datetime


async def calendars(tx: AsyncConnection, *, after: str, limit: int) -> Sequence[KnownCalendar]:
    """By name, those behind `after`."""
    columns = calendar.c
    return await _calendars(tx, select(calendar).where(columns.name > after).order_by(columns.name).limit(limit))


async def find_calendar(tx: AsyncConnection, name: str) -> KnownCalendar:
    """Raises CalendarNotFound."""
    for known in await _calendars(tx, select(calendar).where(calendar.c.name == name)):
        return known
    raise CalendarNotFound(name)


async def put_calendar(tx: AsyncConnection, stated: BusinessHours, *, now: datetime) -> tuple[KnownCalendar, bool]:
    """The calendar, and whether it is new."""
    columns = {"zone": stated.zone, "holidays": sorted(stated.holidays), "updated_at": now}
    # The upsert locks the row, so that of two who do this at once one comes after the other.
    query = (
        upsert(calendar)
        .values(name=stated.name, created_at=now, **columns)
        .on_conflict_do_update(index_elements=["name"], set_=columns)
        # A row that an upsert has inserted was never locked or deleted by anyone.
        .returning(literal_column("xmax = 0", Boolean))
    )
    is_new = (await tx.execute(query)).scalar_one()
    await tx.execute(delete(calendar_hours).where(calendar_hours.c.calendar == stated.name))
    rows = [
        {"calendar": stated.name, "weekday": weekday, "begins_minute": each.begins, "ends_minute": each.ends}
        for weekday, of_day in enumerate(stated.week)
        for each in of_day
    ]
    await tx.execute(insert(calendar_hours).values(rows))
    return await find_calendar(tx, stated.name), is_new


async def delete_calendar(tx: AsyncConnection, name: str) -> None:
    """Raises CalendarNotFound."""
    deleted = await tx.execute(delete(calendar).where(calendar.c.name == name))
    if deleted.rowcount == 0:
        raise CalendarNotFound(name)


async def _calendars(tx: AsyncConnection, query: Select[Any]) -> Sequence[KnownCalendar]:
    rows = (await tx.execute(query)).all()
    weeks = await weeks_of(tx, [row.name for row in rows])
    return [
        KnownCalendar(
            BusinessHours(row.name, row.zone, weeks[row.name], frozenset(row.holidays)), row.created_at, row.updated_at
        )
        for row in rows
    ]
