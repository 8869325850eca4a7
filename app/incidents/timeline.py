"""The timeline: everything that happened to incidents, append-only.

The law's entries are written with its batches, by grouping/write.py; people's come through `append`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import literal, tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import TimelineEntry
from app.incidents.grouping.timeline import TimelineKind


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
