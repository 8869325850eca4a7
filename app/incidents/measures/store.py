"""The hours of a calendar, as business durations need them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from sqlalchemy import ARRAY, Text, any_, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.errors import NotFound
from app.base.schema import calendar, calendar_hours
from app.incidents.measures.business_hours import BusinessHours, Hours

Week = tuple[tuple[Hours, ...], ...]  # for each weekday, from Monday


class CalendarNotFound(NotFound):
    title = "No such calendar"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no calendar {name!r}; GET /api/v1/calendars lists all")


async def find_calendar(tx: AsyncConnection, name: str) -> BusinessHours:
    """Raises CalendarNotFound."""
    row = (await tx.execute(select(calendar).where(calendar.c.name == name))).one_or_none()
    if row is None:
        raise CalendarNotFound(name)
    weeks = await weeks_of(tx, [name])
    return BusinessHours(row.name, row.zone, weeks[name], frozenset(row.holidays))


async def weeks_of(tx: AsyncConnection, names: Iterable[str]) -> Mapping[str, Week]:
    """By the name of the calendar."""
    wanted = list(names)
    columns = calendar_hours.c
    rows = await tx.execute(
        select(columns.calendar, columns.weekday, columns.begins_minute, columns.ends_minute)
        .where(columns.calendar == any_(literal(wanted, ARRAY(Text))))
        .order_by(columns.begins_minute)
    )
    hours: dict[tuple[str, int], list[Hours]] = defaultdict(list)
    for name, weekday, begins, ends in rows:
        hours[name, weekday].append(Hours(begins, ends))
    return {name: tuple(tuple(hours[name, day]) for day in range(7)) for name in wanted}
