"""The timeline: the append-only history of each incident, and the event log of the service.

A fact that a person recorded is one or more entries: the first, and a later one for each correction, which names the
first. The newest entry of a fact is current; a fact whose newest entry is a withdrawal does not count.

Entries derived from alerts are written by incidents/grouping/write.py, entries by people with `append`. `read_after`
reads all entries, in an order that guarantees that no reader misses one.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Text, and_, cast, false, func, literal, or_, text, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Conflict
from app.base.schema import Incident, RemovedEntry, TimelineEntry
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.history.fact import Fact
from app.incidents.history.path import Phase
from app.incidents.measures.measures import Facts, detected_at

# Of one incident. Every query of its path reads all its tasks.
TASKS_AT_MOST = 1000  # with their corrections
ENTRIES_AT_MOST = 20_000
RESERVED_ENTRIES = 1000  # more, so that a full incident can still be acknowledged, resolved and corrected
_RESERVED_FOR = frozenset(
    {
        TimelineKind.DECLARED,
        TimelineKind.ACKNOWLEDGED,
        TimelineKind.IDENTIFIED,
        TimelineKind.MITIGATED,
        TimelineKind.RESOLVED,
        TimelineKind.REOPENED,
        TimelineKind.WITHDRAWN,
    }
)


class TimelineIsFull(Conflict):
    title = "Timeline is full"


class UnknownEntry(LookupError):
    """The cursor refers to an entry that does not exist, for example after an older backup was restored."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """When something happened, the person who recorded it, and their comment."""

    at: datetime
    by: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """Who corrected or withdrew a fact, and why. `fact` is the id of its first entry."""

    fact: int
    by: str | None
    why: str | None = None


async def append(
    session: AsyncSession,
    incident_id: UUID,
    kind: TimelineKind,
    attribution: Attribution,
    *,
    detail: Mapping[str, Any] | None = None,
    correction: Correction | None = None,
    idempotency_key: str | None = None,
    now: datetime,
) -> TimelineEntry:
    """Records an action by a person, in the same transaction as the action. Raises TimelineIsFull."""
    await require_room(session, incident_id, kind)
    entry = TimelineEntry(
        incident_id=incident_id,
        at=attribution.at,
        recorded_at=now,
        kind=kind,
        by=attribution.by,
        note=attribution.note,
        detail=None if detail is None else dict(detail),
        corrects=correction.fact if correction else None,
        corrected_by=correction.by if correction else None,
        why=correction.why if correction else None,
        idempotency_key=idempotency_key,
        sent_to=None if idempotency_key is None else incident_id,
    )
    session.add(entry)
    # Flush now, not at commit, to keep the order of entries, including those written by raw statements.
    await session.flush()
    return entry


async def require_room(session: AsyncSession, incident_id: UUID, kind: TimelineKind, entries: int = 1) -> None:
    """Raises TimelineIsFull if the incident may not get this many entries more."""
    at_most = ENTRIES_AT_MOST + (RESERVED_ENTRIES if kind in _RESERVED_FOR else 0)
    if await _count(session, incident_id, at_most) + entries > at_most:
        message = f"the timeline of an incident has at most {ENTRIES_AT_MOST} entries; put details into documents of "
        raise TimelineIsFull(message + "their own, and link them")
    if kind is TimelineKind.TASK and await _count(session, incident_id, TASKS_AT_MOST, kind) + entries > TASKS_AT_MOST:
        message = f"an incident has at most {TASKS_AT_MOST} tasks, with their corrections; record small steps as notes"
        raise TimelineIsFull(message)


async def _count(session: AsyncSession, incident_id: UUID, at_most: int, kind: TimelineKind | None = None) -> int:
    """The entries, or one more than `at_most`."""
    entries = select(col(TimelineEntry.id)).where(TimelineEntry.incident_id == incident_id)
    if kind is not None:
        entries = entries.where(TimelineEntry.kind == kind)
    return (await session.exec(select(func.count()).select_from(entries.limit(at_most + 1).subquery()))).one()


async def sent_before(session: AsyncSession, incident: Incident, idempotency_key: str) -> TimelineEntry | None:
    """The entry recorded with this key, if a request to this incident would repeat it.

    It was sent to this incident, wherever a merge or split has moved it since; or it was sent to another one and is in
    this one now (of a merged incident: in the one it was merged into).
    """
    sent_to, incident_id = col(TimelineEntry.sent_to), col(TimelineEntry.incident_id)
    here = incident_id.in_([incident.id, *([incident.merged_into] if incident.merged_into else [])])
    query = (
        select(TimelineEntry)
        .where(TimelineEntry.idempotency_key == idempotency_key, or_(sent_to == incident.id, here))
        .order_by((sent_to == incident.id).desc(), col(TimelineEntry.id))
        .limit(1)
    )
    return (await session.exec(query)).first()


def fact_of(entry: TimelineEntry) -> int:
    """The id of the first entry of the fact."""
    return entry.id if entry.corrects is None else entry.corrects


async def latest(session: AsyncSession, incident_id: UUID, kind: TimelineKind) -> TimelineEntry | None:
    """The current entry of the most recently recorded fact of this kind that is not withdrawn."""
    query = (
        select(TimelineEntry)
        .where(TimelineEntry.incident_id == incident_id, TimelineEntry.kind == kind, text(IS_CURRENT))
        .order_by(func.coalesce(TimelineEntry.corrects, TimelineEntry.id).desc())
        .limit(1)
    )
    return (await session.exec(query)).first()


async def entries_of_facts(session: AsyncSession, facts: Collection[int]) -> Sequence[TimelineEntry]:
    """All entries of these facts, in the order in which they were recorded, whichever incident they belong to."""
    id_, corrects = col(TimelineEntry.id), col(TimelineEntry.corrects)
    query = select(TimelineEntry).where(or_(id_.in_(facts), corrects.in_(facts))).order_by(id_)
    # Raw statements move entries.
    return (await session.exec(query.execution_options(populate_existing=True))).all()


async def facts_of(
    tx: AsyncConnection, incidents: Collection[UUID], kinds: Collection[TimelineKind]
) -> Mapping[UUID, Sequence[Fact]]:
    """The facts of these kinds, as corrected and without withdrawn ones; incidents without any are missing.

    One statement for any number of incidents.
    """
    query = TimelineEntry.__table__.select().where(
        col(TimelineEntry.incident_id).in_(incidents), col(TimelineEntry.kind).in_(kinds), text(IS_CURRENT)
    )
    found: dict[UUID, list[Fact]] = defaultdict(list)
    for row in await tx.execute(query):
        fact = Fact(row.corrects or row.id, row.at, TimelineKind(row.kind), row.by, row.note or "", row.detail)
        found[row.incident_id].append(fact)
    return found


Key = tuple[datetime, int]  # the time and id of an entry


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries of an incident; empty means all. Its phases follow from its `facts`."""

    facts: Facts
    kinds: frozenset[TimelineKind] = frozenset()
    phases: frozenset[Phase] = frozenset()


async def entries(
    session: AsyncSession, incident_id: UUID, chosen: EntryFilter, *, after: Key | None, limit: int
) -> Sequence[TimelineEntry]:
    """The timeline of one incident, earliest first; `after` is the key of the last entry read."""
    at, id_ = col(TimelineEntry.at), col(TimelineEntry.id)
    query = select(TimelineEntry).where(TimelineEntry.incident_id == incident_id).order_by(at, id_).limit(limit)
    if chosen.kinds:
        query = query.where(col(TimelineEntry.kind).in_(chosen.kinds))
    if chosen.phases:
        query = query.where(or_(*(_during(phase, chosen.facts) for phase in chosen.phases)))
    if after is not None:
        query = query.where(tuple_(at, id_) > tuple_(*map(literal, after)))
    return (await session.exec(query)).all()


def _during(phase: Phase, facts: Facts) -> ColumnElement[bool]:
    """The same as `path.phase_at`, in SQL."""
    at, detected = col(TimelineEntry.at), detected_at(facts)
    if phase is Phase.DETECTION:
        return at < detected
    ended, identified, reviewed = facts.ended_at, facts.identified_at, facts.reviewed_at
    if phase in {Phase.ANALYSIS, Phase.READINESS}:
        if ended is None or (phase is Phase.READINESS and reviewed is None):
            return false()
        after = and_(at >= detected, at > ended)
        if reviewed is None:
            return after
        return and_(after, at <= reviewed if phase is Phase.ANALYSIS else at > reviewed)
    if identified is None:
        return false()
    before_end = at <= ended if ended is not None else true()
    return and_(at >= detected, before_end, at < identified if phase is Phase.RESPONSE else at >= identified)


# — the event log —


async def read_after(session: AsyncSession, after: int | None, *, limit: int) -> Sequence[TimelineEntry]:
    """The next entries of all incidents; `after` is the id of the last entry read, None to start.

    A reader that continues from the last id of each result gets every entry exactly once, in whatever order
    transactions commit. Ids alone cannot guarantee that: they are assigned before the commit, so a reader may see id 8
    before id 7 is visible and then skip 7. Therefore entries are ordered by writing transaction, then by id, and
    entries of the oldest running transaction and of all later ones are held back.

    An entry is not read again when a merge or split moves it, and its removal is not reported; corrections and
    withdrawals are entries too. Raises UnknownEntry.
    """
    transaction_id, id_ = col(TimelineEntry.transaction_id), col(TimelineEntry.id)
    query = select(TimelineEntry).where(transaction_id < _OLDEST_RUNNING).order_by(transaction_id, id_).limit(limit)
    if after is not None:
        last = aliased(TimelineEntry)
        here = select(col(last.transaction_id)).where(col(last.id) == after)
        removed = select(col(RemovedEntry.transaction_id)).where(col(RemovedEntry.id) == after)
        written_by = here.union_all(removed).scalar_subquery()
        query = query.where(tuple_(transaction_id, id_) > tuple_(written_by, literal(after)))
    found = (await session.exec(query)).all()
    if after is not None and not found and not await _has_existed(session, after):
        message = f"there is no timeline entry {after}"
        raise UnknownEntry(message)
    return found


async def _has_existed(session: AsyncSession, entry_id: int) -> bool:
    return any([await session.get(table, entry_id) for table in (TimelineEntry, RemovedEntry)])


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
    await tx.execute(text("LOCK TABLE timeline, removed_entry IN SHARE ROW EXCLUSIVE MODE"))
    renumbered: int = (await tx.execute(_RENUMBER)).scalar_one()
    return renumbered


# Committed transactions are always below the xmax of a new snapshot.
_LATEST = """
      FROM (SELECT max(transaction_id) AS latest FROM timeline
             UNION ALL
            SELECT max(transaction_id) FROM removed_entry) AS written"""

_IS_IN_THE_FUTURE = text(f"""
    SELECT coalesce(max(latest) >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint, false)
    {_LATEST}
""")

# Check again: another process may have renumbered while this one waited for the lock.
_RENUMBER = text(f"""
    WITH restored AS (
        SELECT max(latest) - pg_snapshot_xmin(pg_current_snapshot())::text::bigint + 1 AS distance
        {_LATEST}
        HAVING max(latest) >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    ), removed AS (
        UPDATE removed_entry
           SET transaction_id = transaction_id - restored.distance
          FROM restored
    ), renumbered AS (
        UPDATE timeline
           SET transaction_id = transaction_id - restored.distance
          FROM restored
        RETURNING 1
    )
    SELECT count(*)
      FROM renumbered
""")  # noqa: S608  a constant of this file
