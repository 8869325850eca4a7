"""SQL for action items: one list over all reviews and incidents."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import exists, tuple_
from sqlmodel import col, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import Select, SelectOfScalar

from app.base import db
from app.base.errors import Conflict, Invalid, NotFound
from app.base.schema import ActionItem, Finding, Incident, Issue, Review, ReviewIncident
from app.base.values.ids import new_id
from app.base.values.times import LATEST
from app.incidents import actions
from app.incidents.actions import Ref, not_in_the_future
from app.incidents.grouping.write import count
from app.incidents.history.path import Phase
from app.reviews.action_item import CLOSED, ItemState, default_due_at, normalized_link, stated_at
from app.reviews.store import reviews

ITEMS_AT_MOST = 100  # of a review
COMPLETED_TALLY = "action_items_completed"  # by priority and phase
NO_PRIORITY = "none"


class ActionItemNotFound(NotFound):
    title = "Action item not found"


class TooManyActionItems(Conflict):
    title = "Too many action items"


class LinkIsUsed(Conflict):
    title = "Link is used by another action item"


@dataclass(frozen=True, slots=True)
class ListedActionItem:
    """An action item, with the numbers of what it comes from, and its issue as the tracker last reported it."""

    row: ActionItem
    review: int | None
    incident: int | None
    issue: Issue | None


@dataclass(frozen=True, slots=True)
class Filters:
    """None or empty matches all."""

    states: frozenset[ItemState] = frozenset()
    owner: Collection[str] = ()  # empty text: those without one
    priority: Collection[int] = ()
    phase: Collection[Phase] = ()
    overdue: bool | None = None
    service: Collection[str] = ()
    review: Ref | None = None
    incident: Ref | None = None
    text: str | None = None  # in the title, whatever the case


async def find(session: AsyncSession, ref: Ref) -> ListedActionItem:
    """Raises ActionItemNotFound."""
    column = col(ActionItem.id) if isinstance(ref, UUID) else col(ActionItem.number)
    found = await _listed(session, _every().where(column == ref))
    if not found:
        message = "no action item has this id or number; GET /api/v1/action-items lists all action items"
        raise ActionItemNotFound(message)
    return found[0]


async def items_of(session: AsyncSession, review_id: UUID) -> Sequence[ListedActionItem]:
    """The action items of one review, by number."""
    query = _every().where(col(ActionItem.review_id) == review_id).order_by(col(ActionItem.number))
    return await _listed(session, query)


async def list_items(
    session: AsyncSession, filters: Filters, *, before: int | None, limit: int, now: datetime
) -> Sequence[ListedActionItem]:
    """Newest first."""
    query = (await _matching(session, filters, now=now)).order_by(col(ActionItem.number).desc()).limit(limit)
    if before is not None:
        query = query.where(col(ActionItem.number) < before)
    return await _listed(session, query)


Key = tuple[datetime, int]
# An action item, the numbers of its review and of its own incident, and its issue.
ListedRows = Select[ActionItem, int | None, int | None, Issue | None]


def due_key(item: ActionItem) -> Key:
    """Its place in the order of due times."""
    return item.due_at or LATEST, item.number


async def list_by_due_time(
    session: AsyncSession, filters: Filters, *, after: Key | None, limit: int, now: datetime
) -> Sequence[ListedActionItem]:
    """Earliest first, those without a due time last. `after` is a `due_key`."""
    moment = func.coalesce(col(ActionItem.due_at), LATEST)
    query = (await _matching(session, filters, now=now)).order_by(moment, col(ActionItem.number)).limit(limit)
    if after is not None:
        query = query.where(tuple_(moment, col(ActionItem.number)) > after)
    return await _listed(session, query)


async def count_items(session: AsyncSession, filters: Filters, *, now: datetime) -> int:
    return await db.total(session, (await _matching(session, filters, now=now)).with_only_columns(col(ActionItem.id)))


async def _matching(session: AsyncSession, filters: Filters, *, now: datetime) -> ListedRows:
    item = ActionItem
    query = _every()
    if filters.text:
        query = query.where(col(item.title).icontains(filters.text, autoescape=True))
    if filters.states:
        query = query.where(col(item.state).in_(filters.states))
    if filters.owner:
        query = query.where(func.coalesce(col(item.owner), "").in_(filters.owner))
    if filters.priority:
        query = query.where(col(item.priority).in_(filters.priority))
    if filters.phase:
        query = query.where(col(item.phase).in_(filters.phase))
    if filters.overdue is not None:
        is_overdue = col(item.closed_at).is_(None) & (func.coalesce(col(item.due_at), now) < now)
        query = query.where(is_overdue == filters.overdue)
    if filters.review is not None:
        query = query.where(col(item.review_id) == (await reviews.find(session, filters.review)).id)
    if filters.service:
        service = func.coalesce(col(Incident.service_stated), col(Incident.service))
        query = query.where(exists(_incidents_of_item().where(service.in_(filters.service))))
    if filters.incident is not None:
        named = await actions.find(session, filters.incident)
        living = named.merged_into or named.id
        one = or_(col(Incident.id) == living, col(Incident.merged_into) == living)
        query = query.where(exists(_incidents_of_item().where(one)))
    return query


def _incidents_of_item() -> SelectOfScalar[UUID]:
    """The incidents of its review, and its own."""
    of_review = col(ReviewIncident.review_id) == col(ActionItem.review_id)
    linked = select(ReviewIncident.incident_id).where(of_review).correlate(ActionItem)
    own = col(Incident.id) == col(ActionItem.incident_id)
    return select(Incident.id).where(or_(own, col(Incident.id).in_(linked))).correlate(ActionItem)


def _every() -> ListedRows:
    named = Incident.__table__.alias("named")
    living = Incident.__table__.alias("living")
    return (
        select(ActionItem, Review.number, living.c.number, Issue)
        .join(Issue, col(Issue.link) == col(ActionItem.link), isouter=True)
        .join(Review, col(Review.id) == col(ActionItem.review_id), isouter=True)
        .join(named, named.c.id == col(ActionItem.incident_id), isouter=True)
        .join(living, living.c.id == func.coalesce(named.c.merged_into, named.c.id), isouter=True)
    )


async def _listed(session: AsyncSession, query: ListedRows) -> list[ListedActionItem]:
    return [ListedActionItem(*found) for found in await session.exec(query)]


async def create(
    session: AsyncSession,
    values: Mapping[str, Any],
    *,
    review: Ref | None,
    incident: Ref | None,
    now: datetime,
) -> ListedActionItem:
    """Raises ReviewNotFound, IncidentNotFound, TooManyActionItems, LinkIsUsed or Invalid."""
    if values.get("link") is not None:
        await lock_issue(session, normalized_link(values["link"]))
    row = ActionItem(
        **dict(values) | {"state": ItemState.OPEN, "version": 1, "created_at": now, "updated_at": now},
        id=new_id(now),
    )
    if review is not None:
        held = await reviews.hold_row(session, review)
        row.review_id = held.id
        counted = select(func.count()).select_from(ActionItem).where(col(ActionItem.review_id) == held.id)
        if (await session.exec(counted)).one() >= ITEMS_AT_MOST:
            message = f"a review has at most {ITEMS_AT_MOST} action items; drop or combine some of them"
            raise TooManyActionItems(message)
    if incident is not None:
        named = await actions.find(session, incident)
        row.incident_id = named.merged_into or named.id
    row.due_at = row.due_at if "due_at" in values else default_due_at(row.priority, now=now)
    await _check(session, row)
    session.add(row)
    await session.flush()
    await follow_issue(session, row)
    await changed(session, row, ItemState.OPEN)
    return await find(session, row.id)


async def amend(
    session: AsyncSession,
    ref: Ref,
    values: Mapping[str, Any],
    *,
    closed_at: datetime | None,
    if_match: str | None,
    now: datetime,
) -> ListedActionItem:
    """Changes an action item; `values` are its columns.

    Raises ActionItemNotFound, PreconditionFailed, LinkIsUsed, InTheFuture or Invalid.
    """
    if values.get("link") is not None:
        await lock_issue(session, normalized_link(values["link"]))
    row = (await find(session, ref)).row
    await hold(session, row)
    reviews.require_version(row.version, if_match)
    was, link = ItemState(row.state), row.link
    for name, value in values.items():
        setattr(row, name, value)
    state = ItemState(row.state)
    if values.get("priority") is not None and row.due_at is None and "due_at" not in values:
        row.due_at = default_due_at(row.priority, now=now)
    if "state" in values:
        row.state_at = stated_at(row.state_at, now=now)
    await _close(row, was, state, closed_at, now=now)
    await _check(session, row)
    row.version += 1
    row.updated_at = now
    await session.flush()
    if row.link != link:
        await follow_issue(session, row)
    await changed(session, row, was)
    return await find(session, row.id)


async def hold(session: AsyncSession, row: ActionItem) -> None:
    """Locks its review and the action item itself until the transaction ends."""
    if row.review_id is not None:
        await reviews.hold_row(session, row.review_id)
    await session.refresh(row, with_for_update={"key_share": True})


async def lock_issue(session: AsyncSession, link: str) -> None:
    """Until the transaction ends, no other one stores the state of this issue or gives its link to an action item.

    Take it before the locks of `hold`. `link` is normalized.
    """
    await session.exec(select(func.pg_advisory_xact_lock(func.hashtextextended(f"issue {link}", 0))))


async def follow_issue(session: AsyncSession, row: ActionItem, *, followed_at: datetime | None = None) -> bool:
    """Gives it the state of its issue, unless that is older than what was stated here. Requires `lock_issue`.

    A person who stated the same state is right about everything else, such as when it was done. `followed_at`: the time
    of the issue's state before, which distinguishes the statement of a person from that of the tracker. Returns whether
    it did.
    """
    issue = None if row.link is None else await session.get(Issue, row.link, populate_existing=True)
    if issue is None or issue.created or (row.state_at is not None and issue.at < row.state_at):
        return False
    state = ItemState(issue.state)
    if row.state == state and row.state_at not in {None, followed_at}:
        row.state_at = stated_at(row.state_at, now=issue.at + timedelta(microseconds=1))
        await session.flush()
        return False
    row.reopened += row.state in CLOSED and state not in CLOSED
    row.state, row.state_at, row.dropped_because = state, issue.at, issue.reason
    row.closed_at = issue.since if state in CLOSED else None
    if state is not ItemState.DONE:
        row.effective = None
    await session.flush()
    return True


async def changed(session: AsyncSession, row: ActionItem, was: ItemState) -> None:
    """Derives what depends on it, and counts it if it is done now."""
    await _derive(session, row)
    if row.state == ItemState.DONE and was is not ItemState.DONE:
        label = NO_PRIORITY if row.priority is None else str(row.priority)
        await count(await session.connection(), [(COMPLETED_TALLY, label, row.phase, 1)])


async def _close(
    row: ActionItem, was: ItemState, state: ItemState, closed_at: datetime | None, *, now: datetime
) -> None:
    if closed_at is not None:
        if state not in CLOSED:
            message = "`closed_at` is only for action items that are `done` or `dropped`"
            raise Invalid(message)
        not_in_the_future(closed_at, now, field="closed_at")
        row.closed_at = closed_at
    elif state in CLOSED and was not in CLOSED:
        row.closed_at = now
    elif state not in CLOSED:
        row.reopened += was in CLOSED
        row.closed_at = None
    if state is not ItemState.DROPPED:
        row.dropped_because = None
    elif not row.dropped_because:
        message = "dropping an action item needs a reason; send it as `dropped_because`"
        raise Invalid(message)
    if state is not ItemState.DONE:
        if row.effective is not None and was is not ItemState.DONE:
            message = "whether an action item was `effective` can be stated once it is `done`"
            raise Invalid(message)
        row.effective = None


async def _check(session: AsyncSession, row: ActionItem) -> None:
    with session.no_autoflush:
        if row.finding_id is not None:
            finding = await session.get(Finding, row.finding_id)
            if finding is None or finding.review_id != row.review_id:
                message = "`finding` must be a finding of the same review"
                raise Invalid(message)
        if row.link is not None:
            row.link = normalized_link(row.link)
            other = select(ActionItem.number).where(col(ActionItem.link) == row.link, col(ActionItem.id) != row.id)
            if (number := (await session.exec(other)).first()) is not None:
                message = f"AI-{number} has the same link; an issue belongs to one action item"
                raise LinkIsUsed(message)


async def _derive(session: AsyncSession, row: ActionItem) -> None:
    """When the incidents it comes from are ready depends on it."""
    if row.review_id is not None:
        await reviews.derive_of(session, row.review_id)
    elif row.incident_id is not None:
        named = await actions.find(session, row.incident_id)
        await reviews.derive(session, [named.merged_into or named.id])
