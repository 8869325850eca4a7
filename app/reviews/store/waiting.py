"""SQL for what waits: reviews until they are held and published, and action items until they are done."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import text, tuple_
from sqlmodel import col, func
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Review
from app.base.values.times import LATEST
from app.reviews.lifecycle import ReviewState
from app.reviews.store import reviews
from app.reviews.store.reviews import Filters

WAITING = frozenset({ReviewState.DRAFT, ReviewState.HELD})

Key = tuple[datetime, int]


def key_of(review: Review) -> Key:
    """Its place among those that wait: since when it waits for its publication, or until when it should be held."""
    return review.held_at or review.due_at or LATEST, review.number


async def list_waiting(
    session: AsyncSession, filters: Filters, *, after: Key | None, limit: int, now: datetime
) -> Sequence[Review]:
    """The reviews that waited longest or are due first; drafts without a due time come last. `after` is a `key_of`."""
    moment = func.coalesce(col(Review.held_at), col(Review.due_at), LATEST)
    query = (await reviews.matching(session, filters, now=now)).order_by(moment, col(Review.number)).limit(limit)
    if after is not None:
        query = query.where(tuple_(moment, col(Review.number)) > after)
    return (await session.exec(query)).all()


def follow_up_key(review: Review) -> Key:
    """Its place among those that are due for their follow-up."""
    return review.follow_up_at or LATEST, review.number


async def list_follow_ups(
    session: AsyncSession, filters: Filters, *, after: Key | None, limit: int, now: datetime
) -> Sequence[Review]:
    """Published reviews whose follow-up was due, longest ago first. `after` is a `follow_up_key`."""
    published = replace(filters, states=frozenset({ReviewState.PUBLISHED}))
    moment = col(Review.follow_up_at)
    query = (await reviews.matching(session, published, now=now)).where(moment < now)
    query = query.order_by(moment, col(Review.number)).limit(limit)
    if after is not None:
        query = query.where(tuple_(moment, col(Review.number)) > after)
    return (await session.exec(query)).all()


async def item_counts(session: AsyncSession, ids: Collection[UUID]) -> Mapping[UUID, tuple[int, int]]:
    """How many action items follow from each of these reviews, and how many of them are open. One statement."""
    rows = await (await session.connection()).execute(_ITEMS, {"ids": list(ids)})
    return {row.review_id: (row.items, row.open) for row in rows}


_ITEMS = text("""
    SELECT review_id, count(*) AS items, count(*) FILTER (WHERE closed_at IS NULL) AS open
      FROM action_item
     WHERE review_id = ANY(CAST(:ids AS uuid[]))
     GROUP BY review_id
""")


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of reviews by state, of drafts that are overdue, and of published ones whose follow-up was due."""

    by_state: Mapping[ReviewState, int]
    overdue: int
    follow_ups: int


async def counts(session: AsyncSession, *, now: datetime) -> Counts:
    """One statement."""
    rows = (await (await session.connection()).execute(_COUNTS, {"now": now})).all()
    by_state = {ReviewState(row.state): row.number for row in rows}
    return Counts(by_state, sum(row.overdue for row in rows), sum(row.follow_ups for row in rows))


_COUNTS = text("""
    SELECT state, count(*) AS number,
           count(*) FILTER (WHERE state = 'draft' AND due_at < :now) AS overdue,
           count(*) FILTER (WHERE state = 'published' AND follow_up_at < :now) AS follow_ups
      FROM review
     GROUP BY state
""")


@dataclass(frozen=True, slots=True)
class Waiting:
    """`due` are drafts that should be held within a week, and those that are overdue."""

    due: int
    overdue: int
    next_due_at: datetime | None
    items_open: int
    items_overdue: int


async def waiting(session: AsyncSession, *, now: datetime) -> Waiting:
    """One statement, over partial indexes."""
    return Waiting(*(await (await session.connection()).execute(_WAITING, {"now": now})).one())


_WAITING = text("""
    SELECT drafts.due, drafts.overdue, drafts.next_due_at, items.open, items.overdue AS items_overdue
      FROM (SELECT count(*) AS due,
                   count(*) FILTER (WHERE due_at < :now) AS overdue,
                   min(due_at) FILTER (WHERE due_at >= :now) AS next_due_at
              FROM review
             WHERE state = 'draft'
               AND due_at < CAST(:now AS timestamptz) + interval '7 days') AS drafts,
           (SELECT count(*) AS open, count(*) FILTER (WHERE due_at < :now) AS overdue
              FROM action_item
             WHERE closed_at IS NULL) AS items
""")


@dataclass(frozen=True, slots=True)
class OfIncident:
    """A review of an incident, with the number of its action items. Numbers are those after `REV-`."""

    number: int
    title: str
    state: ReviewState
    due_at: datetime | None
    held_at: datetime | None
    items: int
    items_open: int


async def of_incident(session: AsyncSession, incident_id: UUID) -> Sequence[OfIncident]:
    """The reviews of an incident and of those that were merged into it, oldest first. One statement."""
    rows = await (await session.connection()).execute(_OF_INCIDENT, {"incident": incident_id})
    return [OfIncident(row[0], row[1], ReviewState(row[2]), *row[3:]) for row in rows]


_OF_INCIDENT = text("""
    SELECT review.number, review.title, review.state, review.due_at, review.held_at,
           count(item.id) AS items, count(item.id) FILTER (WHERE item.closed_at IS NULL) AS items_open
      FROM review
      LEFT JOIN action_item AS item ON item.review_id = review.id
     WHERE review.id IN (SELECT review_id
                           FROM review_incident
                           JOIN incident ON incident.id = review_incident.incident_id
                          WHERE coalesce(incident.merged_into, incident.id) = :incident)
     GROUP BY review.id
     ORDER BY review.number
     LIMIT 20
""")


# — action items —


@dataclass(frozen=True, slots=True)
class Open:
    """Action items of one priority that are open. None: without a priority."""

    priority: int | None
    number: int
    overdue: int
    oldest_at: datetime


async def open_items(session: AsyncSession, *, now: datetime) -> Sequence[Open]:
    """By priority, those without one last. One statement."""
    rows = await (await session.connection()).execute(_OPEN, {"now": now})
    return [Open(*row) for row in rows]


_OPEN = text("""
    SELECT priority, count(*), count(*) FILTER (WHERE due_at < :now), min(created_at)
      FROM action_item
     WHERE closed_at IS NULL
     GROUP BY priority
     ORDER BY priority NULLS LAST
""")


async def owners(session: AsyncSession, *, limit: int) -> Sequence[str]:
    """The owners of action items, by name. One statement."""
    return list((await (await session.connection()).execute(_OWNERS, {"limit": limit})).scalars())


_OWNERS = text("SELECT DISTINCT owner FROM action_item WHERE owner IS NOT NULL ORDER BY owner LIMIT :limit")
