"""The list of reviews: first what waits to be held and published, and the others by state. Its address is its state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, StringConstraints
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.http.requests.fields import storable
from app.base.http.requests.paging import Paging, cursor_of
from app.base.schema import Incident, Review
from app.incidents.measures.measures import Facts, service, severity
from app.pages.reviews.words import REASONS, STATES
from app.pages.web.frame import PageRequest, PageRoute, SignedIn, with_query
from app.reviews.api.answer import ReviewSummaryModel, summary_model
from app.reviews.lifecycle import ReviewState
from app.reviews.store import reviews, waiting
from app.reviews.store.reviews import Filters
from app.reviews.store.waiting import WAITING, Counts

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 25
INCIDENTS_IN_A_ROW = 3


class Show(StrEnum):
    """Which reviews a list has. Those that wait are in the order in which they are due, others are newest first."""

    WAITING = "waiting"
    OVERDUE = "overdue"
    DRAFT = "draft"
    HELD = "held"
    PUBLISHED = "published"
    FOLLOW_UP = "follow_up"
    CLOSED = "closed"
    DROPPED = "dropped"
    ALL = "all"


NAMES: Mapping[Show, str] = {
    Show.WAITING: "Waiting",
    Show.OVERDUE: "Overdue",
    Show.DRAFT: "Drafts",
    Show.HELD: "Held",
    Show.PUBLISHED: "Published",
    Show.FOLLOW_UP: "Follow-up due",
    Show.CLOSED: "Closed",
    Show.DROPPED: "Dropped",
    Show.ALL: "All",
}
_IN_ORDER_OF_DUE = {Show.WAITING, Show.OVERDUE, Show.DRAFT, Show.HELD, Show.FOLLOW_UP}
_BY_TIME = {Show.FOLLOW_UP: (waiting.list_follow_ups, waiting.follow_up_key)}

Text = Annotated[str, StringConstraints(max_length=200, strip_whitespace=True), AfterValidator(storable)]
Cursor = Annotated[str | None, Query(max_length=1000)]


def _filters(show: Show, facilitator: str, of_service: str, *, required: bool) -> Filters:
    every = frozenset[ReviewState]()
    states = {Show.WAITING: WAITING, Show.OVERDUE: every, Show.FOLLOW_UP: every, Show.ALL: every}
    chosen = states[show] if show in states else frozenset({ReviewState(show)})
    return Filters(
        chosen,
        True if required else None,
        True if show is Show.OVERDUE else None,
        [facilitator] if facilitator else [],
        [of_service] if of_service else [],
    )


@dataclass(frozen=True, slots=True)
class Row:
    """A review in the list."""

    review: ReviewSummaryModel
    services: Sequence[str]
    severity: int | None  # the worst of its incidents
    incidents: Sequence[str]
    more_incidents: int
    overdue_seconds: float | None
    items: int
    items_open: int


def rows_of(
    found: Sequence[Review],
    incidents: Mapping[UUID, Sequence[Incident]],
    items: Mapping[UUID, tuple[int, int]],
    *,
    now: datetime,
) -> list[Row]:
    return [_row(each, incidents.get(each.id, ()), items.get(each.id, (0, 0)), now) for each in found]


def _row(row: Review, incidents: Sequence[Incident], items: tuple[int, int], now: datetime) -> Row:
    review = summary_model(row, incidents, now=now)
    facts = [Facts.of(one) for one in incidents]
    late = (now - review.due_at).total_seconds() if review.overdue and review.due_at else None
    return Row(
        review,
        list(dict.fromkeys(map(service, facts))),
        min(map(severity, facts), default=None),
        review.incidents[:INCIDENTS_IN_A_ROW],
        max(0, len(review.incidents) - INCIDENTS_IN_A_ROW),
        late,
        *items,
    )


def tabs(found: Counts) -> list[tuple[Show, str, int]]:
    """The lists that have something, and the two that everyone looks for."""
    numbers = {Show(state.value): number for state, number in found.by_state.items()}
    numbers |= {
        Show.WAITING: sum(found.by_state.get(state, 0) for state in WAITING),
        Show.OVERDUE: found.overdue,
        Show.FOLLOW_UP: found.follow_ups,
        Show.ALL: sum(found.by_state.values()),
    }
    always = {Show.WAITING, Show.ALL}
    return [(show, NAMES[show], numbers.get(show, 0)) for show in Show if numbers.get(show) or show in always]


@router.get("/reviews")
async def show_reviews(
    asked: SignedIn,
    show: Annotated[Show, Query()] = Show.WAITING,
    facilitator: Annotated[Text, Query()] = "",
    service: Annotated[Text, Query()] = "",
    required: Annotated[bool, Query()] = False,  # noqa: FBT002  a checkbox
    after: Cursor = None,
) -> Response:
    filters = _filters(show, facilitator, service, required=required)
    async with asked.reading() as session:
        counted = await waiting.counts(session, now=asked.now)
        found, next_key = await _page(session, asked, show, filters, after)
        incidents = await reviews.incidents_of(session, [row.id for row in found])
        items = await waiting.item_counts(session, [row.id for row in found])
    query = {
        "show": show if show is not Show.WAITING else None,
        "facilitator": facilitator,
        "service": service,
        "required": "true" if required else None,
    }
    return asked.page(
        "reviews.html",
        show=show,
        tabs=tabs(counted),
        total=sum(counted.by_state.values()),
        rows=rows_of(found, incidents, items, now=asked.now),
        facilitator=facilitator,
        service=service,
        required=required,
        is_filtered=bool(facilitator or service or required),
        states=STATES,
        reasons=REASONS,
        in_order_of_due=show in _IN_ORDER_OF_DUE,
        address=lambda tab: with_query("/reviews", query | {"show": tab if tab is not Show.WAITING else None}),
        is_first=after is None,
        first=with_query("/reviews", query),
        later=with_query("/reviews", query | {"after": cursor_of(*next_key)}) if next_key else None,
    )


async def _page(
    session: AsyncSession, asked: PageRequest, show: Show, filters: Filters, after: str | None
) -> tuple[Sequence[Review], tuple[Any, ...] | None]:
    """The rows, and the key of the next page."""
    paging = Paging(cursor=after)
    if show in _IN_ORDER_OF_DUE:
        list_them, key_of = _BY_TIME.get(show, (waiting.list_waiting, waiting.key_of))
        moment = paging.after(datetime, int)
        key = (moment[0], moment[1]) if moment else None
        found = await list_them(session, filters, after=key, limit=ROWS + 1, now=asked.now)
        rows = found[:ROWS]
        return rows, key_of(rows[-1]) if len(found) > ROWS else None
    number = paging.after(int)
    found = await reviews.list_reviews(
        session, filters, before=number[0] if number else None, limit=ROWS + 1, now=asked.now
    )
    rows = found[:ROWS]
    return rows, (rows[-1].number,) if len(found) > ROWS else None
