"""SQL for targets."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.errors import Invalid, ServiceNotFound
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.store import read_business_hours
from app.response.targets import Agreements, Target

TARGETS_AT_MOST = 500  # of a service


class UnknownCalendar(Invalid):
    title = "Unknown calendar"


async def list_targets(session: AsyncSession, service: str | None = None) -> Sequence[schema.Target]:
    """Those of the service (empty: those for all services), or all; by service, severity and time."""
    table = schema.Target
    query = select(table).order_by(col(table.service), col(table.severity), col(table.valid_from))
    if service is not None:
        query = query.where(table.service == service)
    return (await session.exec(query)).all()


async def put_targets(session: AsyncSession, service: str, targets: Sequence[schema.Target]) -> Sequence[schema.Target]:
    """Replaces all targets of the service (empty: those for all). Raises ServiceNotFound or UnknownCalendar."""
    # Serializes concurrent replacements; reading goes on.
    await (await session.connection()).execute(text("LOCK TABLE target IN SHARE ROW EXCLUSIVE MODE"))
    if service and await session.get(schema.Service, service) is None:
        raise ServiceNotFound(service)
    wanted = {each.calendar for each in targets if each.calendar is not None}
    calendar = col(schema.Calendar.name)
    query_calendars = select(schema.Calendar.name).where(calendar.in_(wanted)).order_by(calendar)
    known = (await session.exec(query_calendars.with_for_update(key_share=True))).all()
    if wanted - {*known}:
        message = "a target names a calendar that does not exist; GET /api/v1/calendars lists all calendars"
        raise UnknownCalendar(message)
    await session.exec(delete(schema.Target).where(col(schema.Target.service) == service))
    session.add_all(targets)
    await session.flush()
    return await list_targets(session, service)


async def agreements(session: AsyncSession) -> Agreements:
    """All targets. One statement."""
    return Agreements(Target(**row.model_dump()) for row in await session.exec(select(schema.Target)))


async def business_hours(tx: AsyncConnection, names: Iterable[str]) -> Mapping[str, BusinessHours]:
    """Two statements for each calendar."""
    return {name: await read_business_hours(tx, name) for name in names}
