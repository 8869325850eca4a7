"""The list of action items over all reviews and incidents: how old they are, and how long they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.http.requests.paging import Paging, cursor_of
from app.base.values.times import Span
from app.incidents.history.path import Phase
from app.metrics.api.action_items import HORIZON
from app.metrics.summary.action_items import read_completion
from app.pages.plots.axes import DurationAxis, Tick, duration_axis
from app.pages.reviews.listing import Cursor, Text
from app.pages.reviews.words import EFFECTIVE, PRIORITIES, QUESTIONS
from app.pages.web.frame import PageRequest, PageRoute, SignedIn, with_query
from app.reviews.action_item import CLOSED, ItemState
from app.reviews.api.answer import ActionItemModel, item_model
from app.reviews.store import action_items, waiting
from app.reviews.store.action_items import Filters, ListedActionItem

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 50
OWNERS_SUGGESTED = 200
COMPLETION_OF = timedelta(days=365)  # created since then
NOT_CLOSED = frozenset({ItemState.OPEN, ItemState.IN_PROGRESS})


@dataclass(frozen=True, slots=True)
class Row:
    """An action item, with its age and its due time on the common axis, in percent of the width."""

    item: ActionItemModel
    end_x: float
    due_x: float | None


def rows_of(found: Sequence[ListedActionItem], *, now: datetime) -> tuple[DurationAxis, list[Row]]:
    items = [item_model(each, now=now) for each in found]
    terms = [_seconds_until_due(each) for each in items]
    axis = duration_axis([*(each.age_seconds for each in items), *filter(None, terms)])
    placed = [None if term is None else axis.x(term) for term in terms]
    return axis, [Row(each, axis.x(each.age_seconds), due_x) for each, due_x in zip(items, placed, strict=True)]


def _seconds_until_due(item: ActionItemModel) -> float | None:
    return None if item.due_at is None else max((item.due_at - item.created_at).total_seconds(), 0)


@router.get("/action-items")
async def show_items(
    asked: SignedIn,
    state: Annotated[Literal["waiting", "open", "in_progress", "done", "dropped", "all"], Query()] = "waiting",
    owner: Annotated[Text, Query()] = "",
    nobody: Annotated[bool, Query()] = False,  # noqa: FBT002  a checkbox
    priority: Annotated[Literal["", "1", "2", "3"], Query()] = "",
    phase: Annotated[Literal["", "detection", "response", "remediation", "analysis", "readiness"], Query()] = "",
    overdue: Annotated[bool, Query()] = False,  # noqa: FBT002  a checkbox
    service: Annotated[Text, Query()] = "",
    after: Cursor = None,
) -> Response:
    states = {"waiting": NOT_CLOSED, "all": frozenset[ItemState]()}
    filters = Filters(
        states[state] if state in states else frozenset({ItemState(state)}),
        [""] if nobody else [owner] if owner else [],
        [int(priority)] if priority else [],
        [Phase(phase)] if phase else [],
        True if overdue else None,
        [service] if service else [],
    )
    by_due_time = bool(filters.states) and filters.states.isdisjoint(CLOSED)
    query = {
        "state": state if state != "waiting" else None,
        "owner": owner,
        "nobody": "true" if nobody else None,
        "priority": priority,
        "phase": phase,
        "overdue": "true" if overdue else None,
        "service": service,
    }
    period = Span(asked.now - COMPLETION_OF, asked.now)
    async with asked.turn(), asked.reading() as session:
        found, next_key = await _page(session, asked, filters, after, by_due_time=by_due_time)
        open_now = await waiting.open_items(session, now=asked.now)
        owners = await waiting.owners(session, limit=OWNERS_SUGGESTED)
        completion, _ = await read_completion(await session.connection(), period, now=asked.now, horizon=HORIZON)
    axis, rows = rows_of(found, now=asked.now)
    return asked.page(
        "action_items.html",
        rows=rows,
        axis=axis,
        ticks=_spaced(axis),
        open_now=open_now,
        owners=owners,
        completion=completion,
        days=COMPLETION_OF.days,
        by_due_time=by_due_time,
        chosen=query | {"state": state},
        is_filtered=any(value for value in query.values()),
        phases=list(Phase),
        priorities=PRIORITIES,
        questions=QUESTIONS,
        effective=EFFECTIVE,
        is_first=after is None,
        first=with_query("/action-items", query),
        later=with_query("/action-items", query | {"after": cursor_of(*next_key)}) if next_key else None,
    )


LABEL_WIDTH = 15  # percent of the plot, for the label of a tick


def _spaced(axis: DurationAxis) -> list[Tick]:
    """The ticks whose labels do not touch, in a plot that is a fifth of the page."""
    spaced: list[Tick] = []
    for tick in axis.ticks():
        if not spaced or tick.x - spaced[-1].x >= LABEL_WIDTH:
            spaced.append(tick)
    return spaced


async def _page(
    session: AsyncSession, asked: PageRequest, filters: Filters, after: str | None, *, by_due_time: bool
) -> tuple[Sequence[ListedActionItem], tuple[Any, ...] | None]:
    """The rows, and the key of the next page."""
    paging = Paging(cursor=after)
    if by_due_time:
        moment = paging.after(datetime, int)
        key = (moment[0], moment[1]) if moment else None
        found = await action_items.list_by_due_time(session, filters, after=key, limit=ROWS + 1, now=asked.now)
        rows = found[:ROWS]
        return rows, action_items.due_key(rows[-1].row) if len(found) > ROWS else None
    number = paging.after(int)
    found = await action_items.list_items(
        session, filters, before=number[0] if number else None, limit=ROWS + 1, now=asked.now
    )
    rows = found[:ROWS]
    return rows, (rows[-1].row.number,) if len(found) > ROWS else None
