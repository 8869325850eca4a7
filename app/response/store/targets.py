"""SQL for targets."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.errors import Conflict, Invalid, NotFound, ServiceNotFound
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.store import read_business_hours
from app.incidents.services import add_service
from app.response.targets import Agreements, Target

TARGETS_AT_MOST = 500  # of a service


class UnknownCalendar(Invalid):
    title = "Unknown calendar"


class TargetNotFound(NotFound):
    title = "Target not found"

    def __init__(self) -> None:
        super().__init__("this target was changed or removed in the meantime; reload the targets and try again")


class TargetExists(Conflict):
    title = "Target exists"

    def __init__(self) -> None:
        super().__init__("there is already a target for this severity from this time on; change that one")


class TooManyTargets(Conflict):
    title = "Too many targets"

    def __init__(self) -> None:
        super().__init__(f"a service may have at most {TARGETS_AT_MOST} targets; remove old ones")


async def list_targets(session: AsyncSession, service: str | None = None) -> Sequence[schema.Target]:
    """The targets of the service (empty: those for all services; None: all), by service, severity and time."""
    table = schema.Target
    query = select(table).order_by(col(table.service), col(table.severity), col(table.valid_from))
    if service is not None:
        query = query.where(table.service == service)
    return (await session.exec(query)).all()


async def put_targets(
    session: AsyncSession, service: str, targets: Sequence[schema.Target], *, now: datetime | None = None
) -> Sequence[schema.Target]:
    """Replaces all targets of the service (empty: those for all). With `now`, an unknown service that gets any is
    added.

    Raises ServiceNotFound or UnknownCalendar.
    """
    await _lock(session)
    if service and targets and now is not None:
        await add_service(session, service, now=now)
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


TargetKey = tuple[str, int, datetime]  # service, severity, valid from


async def change_target(session: AsyncSession, key: TargetKey | None, target: schema.Target | None) -> None:
    """Replaces the target with this key, which may move to another service; None adds one, or removes it.

    Raises TargetNotFound, TargetExists, TooManyTargets, ServiceNotFound or UnknownCalendar.
    """
    await _lock(session)
    known = {}
    for each in await list_targets(session):
        session.expunge(each)  # put_targets stores them anew
        known[_key(each)] = each
    if key is not None and known.pop(key, None) is None:
        raise TargetNotFound
    if target is not None:
        if _key(target) in known:
            raise TargetExists
        known[_key(target)] = target
    places = {key[0]} if key is not None else set()
    for service in sorted(places | ({target.service} if target is not None else set())):
        own = [schema.Target(**each.model_dump()) for each in known.values() if each.service == service]
        if len(own) > TARGETS_AT_MOST:
            raise TooManyTargets
        await put_targets(session, service, own)


async def _lock(session: AsyncSession) -> None:
    """Serializes changes; reading goes on."""
    await (await session.connection()).execute(text("LOCK TABLE target IN SHARE ROW EXCLUSIVE MODE"))


def _key(target: schema.Target) -> TargetKey:
    return target.service, target.severity, target.valid_from


async def agreements(session: AsyncSession) -> Agreements:
    """All targets. One statement."""
    return Agreements(Target(**row.model_dump()) for row in await session.exec(select(schema.Target)))


async def business_hours(tx: AsyncConnection, names: Iterable[str]) -> Mapping[str, BusinessHours]:
    """Two statements for each calendar."""
    return {name: await read_business_hours(tx, name) for name in names}
