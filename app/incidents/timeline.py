"""The timeline: the append-only history of each incident, and the event log of the service.

Entries derived from alerts are written by grouping/write.py, entries by people with `append`. `read_after` reads all
entries, in an order that guarantees that no reader misses one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Text, cast, func, literal, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import TimelineEntry
from app.incidents.grouping.timeline import TimelineKind


class UnknownEntry(LookupError):
    """The cursor refers to an entry that does not exist, for example after an older backup was restored."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """When something happened, the person who recorded it, and their comment."""

    at: datetime
    by: str | None = None
    note: str | None = None


async def append(
    session: AsyncSession,
    incident_id: UUID,
    kind: TimelineKind,
    attribution: Attribution,
    *,
    detail: Mapping[str, Any] | None = None,
    now: datetime,
) -> None:
    """Records an action by a person, in the same transaction as the action."""
    session.add(
        TimelineEntry(
            incident_id=incident_id,
            at=attribution.at,
            recorded_at=now,
            kind=kind,
            by=attribution.by,
            note=attribution.note,
            detail=None if detail is None else dict(detail),
        )
    )
    # Flush now, not at commit, to keep the order of entries, including those written by raw statements.
    await session.flush()


async def latest(session: AsyncSession, incident_id: UUID, kind: TimelineKind) -> TimelineEntry | None:
    """The most recently recorded entry of this kind."""
    query = (
        select(TimelineEntry)
        .where(TimelineEntry.incident_id == incident_id, TimelineEntry.kind == kind)
        .order_by(col(TimelineEntry.id).desc())
        .limit(1)
    )
    return (await session.exec(query)).first()


async def entries(
    session: AsyncSession, incident_id: UUID, *, after: tuple[datetime, int] | None, limit: int
) -> Sequence[TimelineEntry]:
    """The timeline of one incident, earliest first; `after` is the time and id of the last entry read."""
    at, id_ = col(TimelineEntry.at), col(TimelineEntry.id)
    query = select(TimelineEntry).where(TimelineEntry.incident_id == incident_id).order_by(at, id_).limit(limit)
    if after is not None:
        query = query.where(tuple_(at, id_) > tuple_(*map(literal, after)))
    return (await session.exec(query)).all()


# — the event log —


async def read_after(session: AsyncSession, after: int | None, *, limit: int) -> Sequence[TimelineEntry]:
    """The next entries of all incidents; `after` is the id of the last entry read, None to start.

    A reader that continues from the last id of each result gets every entry exactly once, in whatever order
    transactions commit. Ids alone cannot guarantee that: they are assigned before the commit, so a reader may see id 8
    before id 7 is visible and then skip 7. Therefore entries are ordered by writing transaction, then by id, and
    entries of the oldest running transaction and of all later ones are held back.

    An entry is not read again when a merge or split moves it, or when it is marked as corrected. Raises UnknownEntry.
    """
    transaction_id, id_ = col(TimelineEntry.transaction_id), col(TimelineEntry.id)
    query = select(TimelineEntry).where(transaction_id < _OLDEST_RUNNING).order_by(transaction_id, id_).limit(limit)
    if after is not None:
        last = aliased(TimelineEntry)
        written_by = select(col(last.transaction_id)).where(col(last.id) == after).scalar_subquery()
        query = query.where(tuple_(transaction_id, id_) > tuple_(written_by, literal(after)))
    found = (await session.exec(query)).all()
    if after is not None and not found and await session.get(TimelineEntry, after) is None:
        message = f"there is no timeline entry {after}"
        raise UnknownEntry(message)
    return found


_OLDEST_RUNNING = cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger)


async def renumber_after_restore(tx: AsyncConnection) -> int:
    """Adapts a restored timeline to this database cluster; returns the number of entries that were renumbered.

    Transaction ids are specific to a cluster, so the ids in a restored timeline may be in the future: readers would
    wait for years, and new entries would sort before old ones. Renumbering lowers all ids by the same amount, below
    every running transaction, which preserves the order and every reader's position. Call it when the service starts,
    as the first statement of a transaction; it does nothing if no id is in the future.
    """
    if not (await tx.execute(_IS_IN_THE_FUTURE)).scalar_one():
        return 0
    await tx.execute(text("LOCK TABLE timeline IN SHARE ROW EXCLUSIVE MODE"))
    return (await tx.execute(_RENUMBER)).rowcount


# Committed transactions are always below the xmax of a new snapshot.
_IS_IN_THE_FUTURE = text("""
    SELECT coalesce(max(transaction_id) >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint, false)
      FROM timeline
""")

# Check again: another process may have renumbered while this one waited for the lock.
_RENUMBER = text("""
    UPDATE timeline
       SET transaction_id = transaction_id - restored.distance
      FROM (SELECT max(transaction_id) - pg_snapshot_xmin(pg_current_snapshot())::text::bigint + 1 AS distance
              FROM timeline
            HAVING max(transaction_id) >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint) AS restored
""")
