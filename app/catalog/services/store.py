"""SQL for services and their rates. A service first seen in an alert is inserted along with that alert."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, text
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.base import db, schema
from app.base.errors import Conflict, Invalid, PreconditionFailed, ServiceNotFound
from app.incidents.services import add_service

# A service with its rates, sorted by currency and start of validity.
Priced = tuple[schema.Service, Sequence[schema.ServiceRate]]

RATES_AT_MOST = 500


@dataclass(frozen=True, slots=True)
class Filters:
    """None or empty matches all."""

    text: str | None = None  # in the name, whatever the case
    owner: Collection[str] = ()  # any of these; empty text: services without an owner


ALL = Filters()


def _matching(filters: Filters) -> SelectOfScalar[schema.Service]:
    query = select(schema.Service).where(db.containing(filters.text, schema.Service.name))
    if filters.owner:
        query = query.where(func.coalesce(col(schema.Service.owner), "").in_(filters.owner))
    return query


async def count_services(session: AsyncSession, filters: Filters) -> int:
    return await db.total(session, _matching(filters))


async def list_services(session: AsyncSession, filters: Filters = ALL, *, after: str, limit: int) -> Sequence[Priced]:
    """Services with names greater than `after`, sorted by name."""
    name = col(schema.Service.name)
    services = (await session.exec(_matching(filters).where(name > after).order_by(name).limit(limit))).all()
    rates = defaultdict[str, list[schema.ServiceRate]](list)
    for rate in await _rates(session, [service.name for service in services]):
        rates[rate.service].append(rate)
    return [(service, rates[service.name]) for service in services]


async def find_service(session: AsyncSession, name: str) -> Priced:
    """Raises ServiceNotFound."""
    service = await session.get(schema.Service, name)
    if service is None:
        raise ServiceNotFound(name)
    return service, await _rates(session, [name])


async def put_service(session: AsyncSession, service: schema.Service) -> tuple[Priced, bool]:
    """The stored service, and whether it is new."""
    stored, is_new = await db.upsert(session, service, keep=("first_seen_at",))
    return (stored, await _rates(session, [stored.name])), is_new


class RateChanged(PreconditionFailed):
    title = "The rate has changed"


# Which of the rates of a service: its currency, and from when it is valid.
RateKey = tuple[str, datetime]


async def change_rate(
    session: AsyncSession, name: str, was: RateKey | None, rate: schema.ServiceRate | None, *, now: datetime
) -> Priced:
    """Replaces one rate of the service, adds one (`was` is None), or removes one (`rate` is None).

    Raises ServiceNotFound, RateChanged if there is no such rate any more, Conflict if there is already one with this
    currency and start, and Invalid for too many.
    """
    await _locked(session, name)
    known = {(each.currency, each.valid_from): each for each in await _rates(session, [name])}
    if was is not None and known.pop(was, None) is None:
        raise RateChanged(
            "someone else has changed or removed this rate in the meantime; nothing was changed. "
            "Reload the rates and try again"
        )
    if rate is not None:
        key = (rate.currency, rate.valid_from)
        if key in known:
            raise Conflict("there is already a rate in this currency from this time on; change that rate instead")
        known[key] = rate
    if len(known) > RATES_AT_MOST:
        message = f"a service may have at most {RATES_AT_MOST} rates; remove one that no incident needs"
        raise Invalid(message)
    session.expunge_all()  # the rows are about to be deleted
    return await put_rates(session, name, [schema.ServiceRate(**each.model_dump()) for each in known.values()], now=now)


async def put_rates(session: AsyncSession, name: str, rates: Sequence[schema.ServiceRate], *, now: datetime) -> Priced:
    """Replaces all rates of the service, which is created if it is unknown."""
    await add_service(session, name, now=now)
    service = await _locked(session, name)
    service.updated_at = now
    await session.exec(delete(schema.ServiceRate).where(col(schema.ServiceRate.service) == name))
    session.add_all(rates)
    return service, await _rates(session, [name])


class ServiceInUse(Conflict):
    title = "The service is in use"


async def delete_service(session: AsyncSession, name: str) -> None:
    """With its rates. Raises ServiceNotFound or ServiceInUse."""
    service = await _locked(session, name)
    users = (await (await session.connection()).execute(_USERS, {"name": name})).scalars().all()
    if users:
        message = f"it has {', '.join(users)}; only a service without them, such as a misspelled one, can be deleted"
        raise ServiceInUse(message)
    await session.exec(delete(schema.ServiceRate).where(col(schema.ServiceRate.service) == name))
    await session.delete(service)


_USERS = text("""
    SELECT kind
      FROM (VALUES
               ('incidents', EXISTS (SELECT 1 FROM incident WHERE :name IN (service, service_stated))),
               ('deployments', EXISTS (SELECT 1 FROM deployment WHERE service = :name)),
               ('changes', EXISTS (SELECT 1 FROM change WHERE service = :name)),
               ('an objective', EXISTS (SELECT 1 FROM objective WHERE service = :name)),
               ('targets', EXISTS (SELECT 1 FROM target WHERE service = :name)),
               ('playbooks', EXISTS (SELECT 1 FROM playbook WHERE service = :name)),
               ('maintenance', EXISTS (SELECT 1 FROM maintenance WHERE :name = ANY(services))),
               ('a component of the status page', EXISTS (SELECT 1 FROM component WHERE :name = ANY(services)))
           ) AS use (kind, exists)
     WHERE exists
""")


async def _locked(session: AsyncSession, name: str) -> schema.Service:
    # The lock serializes concurrent replacements. It is as weak as the lock of an UPDATE, so that foreign keys to the
    # service can still be checked.
    query = select(schema.Service).where(col(schema.Service.name) == name).with_for_update(key_share=True)
    service = (await session.exec(query)).one_or_none()
    if service is None:
        raise ServiceNotFound(name)
    return service


async def _rates(session: AsyncSession, services: Sequence[str]) -> Sequence[schema.ServiceRate]:
    rate = schema.ServiceRate
    query = select(rate).where(col(rate.service).in_(services)).order_by(col(rate.currency), col(rate.valid_from))
    return (await session.exec(query)).all()
