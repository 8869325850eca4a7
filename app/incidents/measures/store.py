"""SQL for reading calendars as business hours; `app/catalog/calendars/` has the rest of their SQL."""

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select

from app.base import db
from app.base.errors import NotFound
from app.base.schema import Calendar, CalendarHours
from app.incidents.measures.business_hours import BusinessHours, Hours


class CalendarNotFound(NotFound):
    title = "Calendar not found"

    def __init__(self, name: str) -> None:
        super().__init__(f"no calendar is named {name!r}; GET /api/v1/calendars lists all calendars")


async def read_business_hours(tx: AsyncConnection, name: str) -> BusinessHours:
    """Raises CalendarNotFound."""
    async with db.session_within(tx) as session:
        calendar = await session.get(Calendar, name)
        if calendar is None:
            raise CalendarNotFound(name)
        query = select(CalendarHours).where(CalendarHours.calendar == name).order_by(col(CalendarHours.begins_minute))
        week: list[list[Hours]] = [[] for _ in range(7)]
        for each in await session.exec(query):
            week[each.weekday].append(Hours(each.begins_minute, each.ends_minute))
    return BusinessHours(name, calendar.zone, tuple(map(tuple, week)), frozenset(calendar.holidays))
