"""The summary of a period."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.metrics import labour, store
from app.metrics.api.answer import CalendarModel, NumbersModel, calendar_model, numbers_model
from app.metrics.api.question import GROUPS_AT_MOST, HORIZON, Asked, Grouping, Horizon, SecondClock
from app.metrics.labour import Labour
from app.metrics.statistics import GroupBy, key_of
from app.sheet import Line, also_as_csv, cells
from app.web import Knobs, Now, Reader, Tx, problem_responses

router = APIRouter()


class SummaryAnswer(BaseModel):
    group_by: GroupBy | None
    calendar: CalendarModel | None = Field(description="Of `business_hours`; null: none was asked for")
    total: NumbersModel
    groups: list[NumbersModel] = Field(description="Those that had incidents; the largest if there are too many")
    groups_left_out: int


def _rows(answer: SummaryAnswer) -> Iterator[Line]:
    return map(cells, (answer.total, *answer.groups))


@router.get("/api/v1/metrics/summary", summary="Numbers of a period", responses=problem_responses(404))
@also_as_csv(
    router, "/api/v1/metrics/summary", _rows, lines="A line for the whole, then one for each group", problems=[404]
)
async def summary(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: Knobs,
    asked: Asked,
    group_by: Grouping = None,
    horizon: Horizon = HORIZON,
    calendar: SecondClock = None,
) -> SummaryAnswer:
    """How many incidents, how long they took, how long services were down and what it cost. An incident belongs to the
    period of its detection; downtime and cost are cut at the ends of the period. What each number means and what it
    cannot tell say the definitions. With a calendar, durations stand in its hours as well; downtime and cost do not.
    """
    total, groups = await store.numbers(
        tx,
        asked.scope,
        group_by,
        now=now,
        weights=settings.impact,
        include_non_recoveries=asked.include_non_recoveries,
        horizon=horizon,
        calendar=calendar,
    )
    worked: Labour | None = None
    worked_by: Mapping[Any, Labour] = {}
    if settings.labour is not None:
        worked, worked_by = await labour.labour(tx, asked.scope, group_by, now=now, pay=settings.labour)

    def answer() -> SummaryAnswer:
        places = sorted(range(len(groups)), key=lambda place: groups[place].incidents, reverse=True)[:GROUPS_AT_MOST]
        largest = [groups[place] for place in sorted(places)]
        return SummaryAnswer(
            group_by=group_by,
            calendar=calendar_model(calendar),
            total=numbers_model(total, asked, worked),
            groups=[
                numbers_model(group, asked, worked and worked_by.get(key_of(group.scope, group_by), labour.NONE))
                for group in largest
            ],
            groups_left_out=len(groups) - len(largest),
        )

    return await asyncio.to_thread(answer)  # hundreds of groups must not keep the doors waiting
