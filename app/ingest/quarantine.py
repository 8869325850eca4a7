"""SQL for quarantine: requests of which something could not be read or applied, within a quota for each source."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, func, text
from sqlalchemy.orm import defer
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import Select

from app.base import db
from app.base.db import Transaction
from app.base.errors import Conflict, NotFound, Overloaded
from app.base.schema import Quarantine, Source, StoredRequest
from app.ingest.intake.store import DeliveryRecord
from app.ingest.reading.envelope import envelope_of
from app.ingest.sender import Rejected, Request

log = logging.getLogger("aftermath.ingest")

OVERHEAD_BYTES = 1024  # counted for each request and each part of it, for the rows and their indexes


class QuarantineFull(Overloaded):
    """Nothing that was acknowledged is lost: the readable part of the delivery is stored, the sender keeps the rest."""

    title = "Quarantine full"

    def __init__(self, source: str, quota: int) -> None:
        super().__init__(
            f"parts of this delivery cannot be read, and the quarantine of the source {source!r} is full ({quota} "
            "bytes); all other parts were stored. GET /api/v1/quarantine lists its items: replay or delete them, or "
            "raise AFTERMATH_QUARANTINE_BYTES"
        )


# — on arrival —


async def keep_rejected(tx: Transaction, deliveries: Sequence[DeliveryRecord], *, quota: int) -> None:
    """Stores the rejected parts of the deliveries with their requests, or takes them out if they exceed the quota.

    A delivery from the spool is always kept, because it has been acknowledged.
    """
    taken = {source_id: await used(tx, source_id) for source_id in sorted({one.source_id for one in deliveries})}
    kept: list[tuple[DeliveryRecord, Request, int]] = []
    for one in deliveries:
        if one.request is None:
            continue
        size = _size(one.request, one.reading.rejected)
        if not one.spooled and taken[one.source_id] + size > quota:
            await tx.execute(_DELETE_REPLAYED, {"source_id": one.source_id})
            taken[one.source_id] = await used(tx, one.source_id) + sum(
                size for other, _, size in kept if other.source_id == one.source_id
            )
            if taken[one.source_id] + size > quota:
                one.refuse(QuarantineFull(one.source, quota))
                log.warning("the quarantine of %s is full; %d items were refused", one.source, one.refused)
                continue
        taken[one.source_id] += size
        kept.append((one, one.request, size))
    if kept:
        await db.copy(tx, "stored_request", _REQUEST, [_request_row(*each) for each in kept])
        await db.copy(tx, "quarantine", _ITEM, [row for one, _, _ in kept for row in _item_rows(one)])


def _size(request: Request, rejected: Sequence[Rejected]) -> int:
    headers = sum(len(name) + len(value) for name, value in request.headers.items())
    parts = sum(len(one.raw or b"") + OVERHEAD_BYTES for one in rejected)
    return len(request.body) + headers + parts + OVERHEAD_BYTES


async def used(tx: Transaction, source_id: int) -> int:
    """Bytes in the quarantine of a source."""
    return int((await tx.execute(_USED, {"source_id": source_id})).one()[0])


_USED = text("""
    SELECT coalesce(sum(stored_bytes), 0)
      FROM stored_request
     WHERE source_id = :source_id
""")

# They have been applied, so nothing is lost.
_DELETE_REPLAYED = text("""
    DELETE
      FROM stored_request
     WHERE source_id = :source_id
       AND NOT EXISTS (SELECT
                         FROM quarantine
                        WHERE quarantine.delivery_id = stored_request.delivery_id
                          AND quarantine.replayed_at IS NULL)
""")

_REQUEST = ("delivery_id", "source_id", "stored_bytes", "headers", "query", "path", "method", "endpoint", "body")
_ITEM = ("source_id", "delivery_id", "received_at", "reason", "detail", "part_start", "part_length", "raw")


def _request_row(one: DeliveryRecord, request: Request, size: int) -> tuple[object, ...]:
    envelope = envelope_of(request)
    json = [msgspec.json.encode(part).decode() for part in (envelope.headers, envelope.query, envelope.path)]
    return (one.id, one.source_id, size, *json, envelope.method, envelope.endpoint, request.body)


def _item_rows(one: DeliveryRecord) -> Iterator[tuple[object, ...]]:
    for each in one.reading.rejected:
        part = each.part or (None, None)
        yield one.source_id, one.id, one.received_at, each.reason, each.detail, *part, each.raw


# — as people see it —


class QuarantinedNotFound(NotFound):
    title = "Quarantined item not found"

    def __init__(self, quarantine_id: int) -> None:
        super().__init__(f"there is no item {quarantine_id} in quarantine; GET /api/v1/quarantine lists them")


class AlreadyReplayed(Conflict):
    title = "Item already replayed"


class ListedItem(NamedTuple):
    """An item without what was received, which may be large."""

    item: Quarantine
    source: str
    size: int  # of what was received, in bytes


_SENT = func.coalesce(col(Quarantine.raw), col(StoredRequest.body))


@dataclass(frozen=True, slots=True)
class Filters:
    """Selects items. `waiting`: only those that have not been replayed; `sources`: only those from any of these;
    `text`: only those with this text in the reason or detail, ignoring case.
    """

    waiting: bool
    sources: Collection[str] = ()
    text: str | None = None


async def listed(
    session: AsyncSession, filters: Filters, *, after: int | None = None, oldest_first: bool = False, limit: int
) -> Sequence[ListedItem]:
    """Newest or oldest first. `after` is the id of the last one before."""
    place = col(Quarantine.id)
    query = _listed().where(*_matching(filters)).order_by(place if oldest_first else place.desc()).limit(limit)
    if after is not None:
        query = query.where(place > after if oldest_first else place < after)
    return [ListedItem(*row) for row in await session.exec(query)]


async def count(session: AsyncSession, filters: Filters) -> int:
    query = select(Quarantine.id).join(Source, col(Source.id) == Quarantine.source_id).where(*_matching(filters))
    return await db.total(session, query)


def _matching(filters: Filters) -> list[ColumnElement[bool]]:
    conditions = [db.containing(filters.text, Quarantine.reason, Quarantine.detail)]
    if filters.waiting:
        conditions.append(col(Quarantine.replayed_at).is_(None))
    if filters.sources:
        conditions.append(col(Source.name).in_(filters.sources))
    return conditions


async def find(session: AsyncSession, quarantine_id: int) -> tuple[ListedItem, Mapping[str, str]]:
    """The item and the headers of its request. Raises QuarantinedNotFound."""
    row = (await session.exec(_listed().where(Quarantine.id == quarantine_id))).one_or_none()
    if row is None:
        raise QuarantinedNotFound(quarantine_id)
    query = select(StoredRequest.headers).where(StoredRequest.delivery_id == row[0].delivery_id)
    return ListedItem(*row), (await session.exec(query)).one()


def _listed() -> Select[Quarantine, str, int]:
    without_raw = defer(Quarantine.raw)  # type: ignore[arg-type]
    return (
        select(Quarantine, Source.name, func.octet_length(_SENT))
        .join(StoredRequest, col(StoredRequest.delivery_id) == Quarantine.delivery_id)
        .join(Source, col(Source.id) == Quarantine.source_id)
        .options(without_raw)
    )


async def sent(session: AsyncSession, quarantine_id: int, *, at: int, size: int) -> bytes:
    """`size` bytes of what was received, from byte `at` on; fewer at its end. Raises QuarantinedNotFound."""
    query = (
        select(func.substring(_SENT, at + 1, size))
        .join_from(Quarantine, StoredRequest, col(StoredRequest.delivery_id) == Quarantine.delivery_id)
        .where(Quarantine.id == quarantine_id)
    )
    found: bytes | None = (await session.exec(query)).one_or_none()
    if found is None:
        raise QuarantinedNotFound(quarantine_id)
    return found


async def beginnings(session: AsyncSession, ids: Collection[int], *, size: int) -> Mapping[int, bytes]:
    """The first `size` bytes of what was received, by id."""
    query = (
        select(Quarantine.id, func.substring(_SENT, 1, size))
        .join_from(Quarantine, StoredRequest, col(StoredRequest.delivery_id) == Quarantine.delivery_id)
        .where(col(Quarantine.id).in_(ids))
    )
    return dict((await session.exec(query)).all()) if ids else {}


async def used_by_source(session: AsyncSession) -> Mapping[str, int]:
    """Bytes in the quarantine of each source that has any, by name."""
    query = (
        select(Source.name, func.sum(StoredRequest.stored_bytes))
        .join_from(StoredRequest, Source, col(Source.id) == StoredRequest.source_id)
        .group_by(Source.name)
        .order_by(Source.name)
    )
    return {name: int(size or 0) for name, size in await session.exec(query)}


# — deletion —


class Deleted(NamedTuple):
    items: int
    stored_bytes: int


async def delete_item(session: AsyncSession, quarantine_id: int) -> None:
    """Raises QuarantinedNotFound."""
    item = await session.get(Quarantine, quarantine_id, with_for_update=True)
    if item is None:
        raise QuarantinedNotFound(quarantine_id)
    stored = await session.get(StoredRequest, item.delivery_id, with_for_update=True)
    assert stored is not None, "a foreign key"
    await session.delete(item)
    others = select(func.count()).where(Quarantine.delivery_id == item.delivery_id)
    if not (await session.exec(others)).one():
        await session.delete(stored)
    elif stored.stored_bytes is not None:
        stored.stored_bytes = max(0, stored.stored_bytes - len(item.raw or b"") - OVERHEAD_BYTES)


async def delete_all(session: AsyncSession, source_id: int) -> Deleted:
    """Deletes everything in the quarantine of a source."""
    return await _delete(session, col(Quarantine.source_id) == source_id)


async def delete_old(session: AsyncSession, before: datetime) -> Deleted:
    """Deletes what was received before that time."""
    return await _delete(session, col(Quarantine.received_at) < before)


async def _delete(session: AsyncSession, which: ColumnElement[bool]) -> Deleted:
    items = (await session.exec(select(func.count()).select_from(Quarantine).where(which))).one()
    of_them = col(StoredRequest.delivery_id).in_(select(col(Quarantine.delivery_id)).where(which))
    size = (await session.exec(select(func.sum(StoredRequest.stored_bytes)).where(of_them))).one()
    await session.exec(delete(StoredRequest).where(of_them))
    return Deleted(items, size or 0)


# — replay —


Quarantined = tuple[Quarantine, StoredRequest, Source]


async def begin_replay(session: AsyncSession, quarantine_id: int) -> Quarantined:
    """The item, locked against a second replay. Raises QuarantinedNotFound or AlreadyReplayed."""
    query = (
        select(Quarantine, StoredRequest, Source)
        .join(StoredRequest, col(StoredRequest.delivery_id) == Quarantine.delivery_id)
        .join(Source, col(Source.id) == Quarantine.source_id)
        .where(Quarantine.id == quarantine_id)
        .with_for_update(of=Quarantine)
    )
    found = (await session.exec(query)).one_or_none()
    if found is None:
        raise QuarantinedNotFound(quarantine_id)
    item = found[0]
    if item.replayed_at is not None:
        message = f"item {quarantine_id} was already replayed at {item.replayed_at.isoformat()}; no action is needed"
        raise AlreadyReplayed(message)
    return found


def end_replay(session: AsyncSession, item: Quarantine, rejected: Sequence[Rejected], *, now: datetime) -> None:
    """Keeps the parts rejected again: the first under the item's id with one more attempt, the others as new items."""
    if not rejected:
        item.replayed_at = now
        return
    item.attempts += 1
    for number, again in enumerate(rejected):
        row = item if number == 0 else _sibling_of(item)
        row.reason, row.detail, row.raw = again.reason, again.detail, again.raw
        row.part_start, row.part_length = again.part or (None, None)
        session.add(row)


def _sibling_of(item: Quarantine) -> Quarantine:
    return Quarantine(
        source_id=item.source_id,
        delivery_id=item.delivery_id,
        received_at=item.received_at,
        reason=item.reason,
        detail=item.detail,
        attempts=item.attempts,
    )
