"""SQL for calendars."""

from collections import defaultdict
from collections.abc import Sequence

from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.base import db, schema
from app.base.errors import Conflict
from app.incidents.measures.store import CalendarNotFound

# A calendar with its hours, in the order of the week.
WithHours = tuple[schema.Calendar, Sequence[schema.CalendarHours]]


async def list_calendars(
    session: AsyncSession, containing: str | None = None, *, after: str, limit: int
) -> Sequence[WithHours]:
    """Calendars with names greater than `after` that contain the text, sorted by name."""
    name = col(schema.Calendar.name)
    query = _matching(containing).where(name > after).order_by(name).limit(limit)
    calendars = (await session.exec(query)).all()
    hours = defaultdict[str, list[schema.CalendarHours]](list)
    for each in await _hours(session, [calendar.name for calendar in calendars]):
        hours[each.calendar].append(each)
    return [(calendar, hours[calendar.name]) for calendar in calendars]


async def count_calendars(session: AsyncSession, containing: str | None = None) -> int:
    return await db.total(session, _matching(containing))


def _matching(containing: str | None) -> SelectOfScalar[schema.Calendar]:
    return select(schema.Calendar).where(db.containing(containing, schema.Calendar.name))


async def find_calendar(session: AsyncSession, name: str) -> WithHours:
    """Raises CalendarNotFound."""
    calendar = await session.get(schema.Calendar, name)
    if calendar is None:
        raise CalendarNotFound(name)
    return calendar, await _hours(session, [name])


async def put_calendar(
    session: AsyncSession, calendar: schema.Calendar, hours: Sequence[schema.CalendarHours]
) -> tuple[WithHours, bool]:
    """The stored calendar, and whether it is new. All its hours are replaced."""
    # The upsert locks the calendar, so that concurrent replacements of its hours wait for each other.
    stored, is_new = await db.upsert(session, calendar)
    await session.exec(delete(schema.CalendarHours).where(col(schema.CalendarHours.calendar) == stored.name))
    session.add_all(hours)
    return (stored, await _hours(session, [stored.name])), is_new


class CalendarInUse(Conflict):
    title = "Calendar is in use"


async def delete_calendar(session: AsyncSession, name: str) -> None:
    """Raises CalendarNotFound or CalendarInUse."""
    # The lock keeps a target from naming it meanwhile.
    await session.exec(select(schema.Calendar).where(schema.Calendar.name == name).with_for_update())
    if (await session.exec(select(schema.Target).where(schema.Target.calendar == name).limit(1))).first():
        message = "targets are measured in its business hours; change them with PUT /api/v1/targets first"
        raise CalendarInUse(message)
    deleted = await session.exec(delete(schema.Calendar).where(col(schema.Calendar.name) == name))
    if deleted.rowcount == 0:
        raise CalendarNotFound(name)


async def _hours(session: AsyncSession, calendars: Sequence[str]) -> Sequence[schema.CalendarHours]:
    hours = schema.CalendarHours
    query = select(hours).where(col(hours.calendar).in_(calendars))
    return (await session.exec(query.order_by(col(hours.weekday), col(hours.begins_minute)))).all()
