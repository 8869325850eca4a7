"""The SQL of the catalogue of services. Services first seen in alerts are inserted by the store of incidents."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Select, delete, insert, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.errors import ServiceNotFound
from app.base.schema import service, service_rate
from app.incidents.impact.rates import Rate
from app.incidents.impact.store import rates_of


@dataclass(frozen=True, slots=True)
class Link:
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Service:
    """`rates` by currency, then by when they begin."""

    name: str
    owner: str | None
    links: tuple[Link, ...]
    first_seen_at: datetime
    updated_at: datetime
    rates: tuple[Rate, ...]


async def services(tx: AsyncConnection, *, after: str = "", limit: int | None = None) -> Sequence[Service]:
    """By name, those behind `after`."""
    return await _services(tx, select(service).where(service.c.name > after).order_by(service.c.name).limit(limit))


async def find_service(tx: AsyncConnection, name: str) -> Service:
    """Raises ServiceNotFound."""
    for found in await _services(tx, select(service).where(service.c.name == name)):
        return found
    raise ServiceNotFound(name)


async def put_service(
    tx: AsyncConnection, name: str, *, owner: str | None, links: Sequence[Link], now: datetime
) -> tuple[Service, bool]:
    """The service, and whether it is new."""
    stated = {"owner": owner, "links": [{"title": link.title, "url": link.url} for link in links], "updated_at": now}
    query = (
        upsert(service)
        .values(name=name, first_seen_at=now, **stated)
        .on_conflict_do_update(index_elements=["name"], set_=stated)
        # A row that an upsert has inserted was never locked or deleted by anyone.
        .returning(literal_column("xmax = 0", Boolean))
    )
    is_new = (await tx.execute(query)).scalar_one()
    return await find_service(tx, name), is_new


async def put_rates(tx: AsyncConnection, name: str, stated: Sequence[Rate], *, now: datetime) -> Service:
    """Puts these rates in place of all there were; raises ServiceNotFound."""
    # The update locks the service, so that of two who do this at once one comes after the other.
    changed = await tx.execute(update(service).where(service.c.name == name).values(updated_at=now))
    if changed.rowcount == 0:
        raise ServiceNotFound(name)
    await tx.execute(delete(service_rate).where(service_rate.c.service == name))
    if stated:
        await tx.execute(insert(service_rate).values([asdict(rate) | {"service": name} for rate in stated]))
    return await find_service(tx, name)


async def _services(tx: AsyncConnection, query: Select[Any]) -> Sequence[Service]:
    rows = (await tx.execute(query)).all()
    their_rates = defaultdict[str, list[Rate]](list)
    for rate in sorted(
        await rates_of(tx, [row.name for row in rows]), key=lambda rate: (rate.currency, rate.valid_from)
    ):
        their_rates[rate.service].append(rate)
    return [
        Service(
            row.name,
            row.owner,
            tuple(Link(link["title"], link["url"]) for link in row.links),
            row.first_seen_at,
            row.updated_at,
            tuple(their_rates[row.name]),
        )
        for row in rows
    ]
