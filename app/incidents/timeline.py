"""The timeline: everything that happened to incidents, append-only, and the event log of the service.

The law's entries are written with its batches, by grouping/write.py; people's come through `append`. `read_after` reads
all of them, in an order in which no reader misses one.
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
    """A cursor names an entry that does not exist, as after a restore of an older backup."""


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
    """Records what a person did, in the transaction that does it."""
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
    # Now, not at the commit: entries have the order in which they were appended, also beside those of raw statements.
    await session.flush()


async def latest(session: AsyncSession, incident_id: UUID, kind: TimelineKind) -> TimelineEntry | None:
    """The entry of this kind that was recorded last."""
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
    """The timeline of one incident, earliest first; `after` is the time and id of the last entry of the page before."""
    at, id_ = col(TimelineEntry.at), col(TimelineEntry.id)
    query = select(TimelineEntry).where(TimelineEntry.incident_id == incident_id).order_by(at, id_).limit(limit)
    if after is not None:
        query = query.where(tuple_(at, id_) > tuple_(*map(literal, after)))
    return (await session.exec(query)).all()


# — the event log —


async def read_after(session: AsyncSession, after: int | None, *, limit: int) -> Sequence[TimelineEntry]:
    """The next entries of all incidents; `after` is the id of the last entry that was read, None to start.

    A reader that goes on from the last id of each answer gets every entry exactly once, whatever order transactions
    commit in. Ids alone do not give that: they are assigned before the commit, so a reader may see id 8 before id 7 is
    visible, and would never return to 7. So entries are ordered by the transaction that wrote them, then by id, and
    those of the oldest transaction still running, and of all that began after it, have to wait.

    An entry that follows its incident through a merge or split, or is marked as corrected, is not read again. Raises
    UnknownEntry.
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
    """Makes the order of entries go on in this database cluster; the number of entries that were renumbered.

    Transaction ids start anew in another cluster, so a restored timeline may lie in its future: readers would wait for
    years, and new entries would come before old ones. All entries move down by the same number, to below every
    transaction that is running, which keeps their order and so every reader's place. Belongs at the start of the
    service, first in a transaction; does nothing where the timeline lies in the past.
    """
    if not (await tx.execute(_IS_IN_THE_FUTURE)).scalar_one():
        return 0
    await tx.execute(text("LOCK TABLE timeline IN SHARE ROW EXCLUSIVE MODE"))
    return (await tx.execute(_RENUMBER)).rowcount


# No transaction that has committed is at or above the xmax of a snapshot.
_IS_IN_THE_FUTURE = text("""
    SELECT coalesce(max(transaction_id) >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint, false)
      FROM timeline
""")

# Another process may have renumbered while this one waited for the lock, so look again.
_RENUMBER = text("""
    UPDATE timeline
       SET transaction_id = transaction_id - restored.distance
      FROM (SELECT max(transaction_id) - pg_snapshot_xmin(pg_current_snapshot())::text::bigint + 1 AS distance
              FROM timeline
            HAVING max(transaction_id) >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint) AS restored
""")
