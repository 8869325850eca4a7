"""The summary of a period."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.http.auth import Reader
from app.base.http.context import Knobs, Now, Tx
from app.base.http.csv import Line, Table, also_as_csv, cells, spreadsheet_text
from app.base.http.problems import problem_responses
from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.impact.labor import Pay
from app.metrics import labor as labour
from app.metrics import store
from app.metrics.api.answer import (
    CalendarModel,
    EstimatedSummaryModel,
    MeasureSummaryModel,
    NumbersModel,
    calendar_model,
    numbers_model,
)
from app.metrics.api.question import GROUPS_AT_MOST, HORIZON, Asked, Grouping, Horizon, OnlyMeasures, SecondClock
from app.metrics.labor import Labour
from app.metrics.statistics import GroupBy, Numbers, Scope, key_of

router = APIRouter()


class SummaryAnswer(BaseModel):
    group_by: GroupBy | None
    calendar: CalendarModel | None = Field(description="Of `business_hours`; null: none was asked for")
    total: NumbersModel
    groups: list[NumbersModel] = Field(description="Those that had incidents; the largest if there are too many")
    groups_left_out: int


def _rows(answer: SummaryAnswer) -> Iterator[Line]:
    return map(cells, (answer.total, *answer.groups))


def _table(part: str) -> Callable[[SummaryAnswer], Iterator[Line]]:
    """Of a list that each measure has, by either clock; `calendar` is empty where time simply passes."""

    def rows(answer: SummaryAnswer) -> Iterator[Line]:
        for numbers in (answer.total, *answer.groups):
            place = cells(numbers.filters)
            for calendar, measures in _clocks(answer, numbers):
                for name, measure in measures.items():
                    for each in getattr(measure, part) or ():
                        cell = cells(each, part) if isinstance(each, BaseModel) else {part: str(each)}
                        yield place | {"measure": name, "calendar": spreadsheet_text(calendar)} | cell

    return rows


def _clocks(
    answer: SummaryAnswer, numbers: NumbersModel
) -> Iterator[tuple[str, Mapping[str, MeasureSummaryModel] | Mapping[str, EstimatedSummaryModel]]]:
    yield "", numbers.measures
    if answer.calendar and numbers.business_hours:
        yield answer.calendar.name, numbers.business_hours.measures


_OF_EACH = "of each measure, of the whole and then of each group; with a calendar by either clock"
_TABLES = {
    "ecdf": Table(_table("ecdf"), f"A line for each step of the distribution {_OF_EACH}"),
    "histogram": Table(_table("histogram"), f"A line for each bin {_OF_EACH}"),
    "values": Table(_table("values"), f"A line for each value, where there are fewer than {SUMMARY_FROM}, {_OF_EACH}"),
}


@router.get("/api/v1/metrics/summary", summary="Numbers of a period", responses=problem_responses(404))
@also_as_csv(
    router,
    "/api/v1/metrics/summary",
    _rows,
    lines="A line for the whole, then one for each group",
    tables=_TABLES,
    problems=[404],
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
    measures: OnlyMeasures = None,
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
        measures=measures,
    )
    worked = None if settings.labour is None else await _worked(tx, asked.scope, group_by, now, settings.labour)

    def labour_of(group: Numbers | None = None) -> Labour | None:
        key = group and key_of(group.scope, group_by)
        return None if worked is None else worked.get(key, labour.NONE)

    def answer() -> SummaryAnswer:
        places = sorted(range(len(groups)), key=lambda place: groups[place].incidents, reverse=True)[:GROUPS_AT_MOST]
        largest = [groups[place] for place in sorted(places)]
        return SummaryAnswer(
            group_by=group_by,
            calendar=calendar_model(calendar),
            total=numbers_model(total, asked, labour_of()),
            groups=[numbers_model(group, asked, labour_of(group)) for group in largest],
            groups_left_out=len(groups) - len(largest),
        )

    return await asyncio.to_thread(answer)  # hundreds of groups must not keep the doors waiting


async def _worked(
    tx: AsyncConnection, scope: Scope, group_by: GroupBy | None, now: datetime, pay: Pay
) -> Mapping[Any, Labour]:
    """Of each group by key, and of the whole under None."""
    found = dict(await labour.labour(tx, scope, [scope.period], now=now, pay=pay))
    if group_by is not None:
        found |= await labour.labour(tx, scope, [scope.period], group_by, now=now, pay=pay)
    return {key: each for key, [each] in found.items()}
