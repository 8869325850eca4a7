"""The summary of a period."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.http.auth import Reader
from app.base.http.context import Knobs, Now, Tx
from app.base.http.csv import Line, Table, also_as_csv, cells, spreadsheet_text
from app.base.http.problems import problem_responses
from app.base.threads import off_loop
from app.incidents.definitions.model import SUMMARY_FROM
from app.metrics.api.answer import (
    CalendarModel,
    EstimatedSummaryModel,
    MeasureSummaryModel,
    NumbersModel,
    calendar_model,
    numbers_model,
)
from app.metrics.api.query import GROUPS_AT_MOST, HORIZON, HORIZON_AT_MOST, AskedByGroup
from app.metrics.query import GroupBy
from app.metrics.summary.store import read_summary

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
    query: AskedByGroup,
    horizon: Annotated[
        float,
        Query(
            gt=0,
            le=HORIZON_AT_MOST,
            description="Seconds, of the restricted mean: what takes longer counts as this long",
            examples=[172_800],
        ),
    ] = HORIZON,
) -> SummaryAnswer:
    """How many incidents, how long they took, how long services were down and what it cost. An incident belongs to the
    period of its detection; downtime and cost are cut at the ends of the period. What each number means and what it
    cannot tell say the definitions. With a calendar, durations stand in its hours as well; downtime and cost do not.
    """
    total, groups = await read_summary(tx, query, now=now, weights=settings.impact, pay=settings.labor, horizon=horizon)

    def answer() -> SummaryAnswer:
        places = sorted(range(len(groups)), key=lambda place: groups[place].incidents, reverse=True)[:GROUPS_AT_MOST]
        largest = [groups[place] for place in sorted(places)]
        return SummaryAnswer(
            group_by=query.group_by,
            calendar=calendar_model(query.calendar),
            total=numbers_model(total),
            groups=[numbers_model(group) for group in largest],
            groups_left_out=len(groups) - len(largest),
        )

    return await off_loop(answer)
