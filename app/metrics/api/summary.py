"""HTTP API of the summary of a period."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader
from app.base.http.context import Now, SettingsDep, Tx
from app.base.http.responses.csv import CSV, Line, Table, cells, or_csv, spreadsheet_text
from app.base.http.responses.problems import problem_responses
from app.base.process.threads import off_loop
from app.incidents.definitions.model import SUMMARY_FROM
from app.metrics.api.answer import (
    CalendarModel,
    EstimatedSummaryModel,
    NumbersModel,
    calendar_model,
    numbers_model,
)
from app.metrics.api.query import GROUPS_AT_MOST, HORIZON_AT_MOST, POINTS_AT_MOST, GroupedQueryDep
from app.metrics.query import HORIZON, GroupBy
from app.metrics.summary.store import read_summary

router = APIRouter()


class SummaryResponse(BaseModel):
    group_by: GroupBy | None
    calendar: CalendarModel | None = Field(description="Calendar for `business_hours`; null if none was requested")
    total: NumbersModel
    groups: list[NumbersModel] = Field(description="Groups with incidents; only the largest if there are too many")
    groups_left_out: int


def _rows(answer: SummaryResponse) -> Iterator[Line]:
    """Lines for every measure, by either clock; `calendar` is empty for elapsed time."""
    for place, measure in _measured(answer):
        yield place | cells(measure)


def _totals(answer: SummaryResponse) -> Iterator[Line]:
    return (cells(numbers, only=_NOT_OF_MEASURES) for numbers in (answer.total, *answer.groups))


_NOT_OF_MEASURES = NumbersModel.model_fields.keys() - {"measures", "business_hours"}


def _table(part: str) -> Callable[[SummaryResponse], Iterator[Line]]:
    """Lines for one list field of every measure, by either clock."""

    def rows(answer: SummaryResponse) -> Iterator[Line]:
        for place, measure in _measured(answer):
            for each in getattr(measure if part == "values" else measure.estimates, part, None) or ():
                yield place | (cells(each, part) if isinstance(each, BaseModel) else {part: str(each)})

    return rows


def _measured(answer: SummaryResponse) -> Iterator[tuple[dict[str, str], EstimatedSummaryModel]]:
    for numbers in (answer.total, *answer.groups):
        place = cells(numbers, only=("start", "end", "filters"))
        for calendar, measures in _clocks(answer, numbers):
            for name, measure in measures.items():
                yield place | {"measure": name, "calendar": spreadsheet_text(calendar)}, measure


def _clocks(
    answer: SummaryResponse, numbers: NumbersModel
) -> Iterator[tuple[str, Mapping[str, EstimatedSummaryModel]]]:
    yield "", numbers.measures
    if answer.calendar and numbers.business_hours:
        yield answer.calendar.name, numbers.business_hours.measures


_OF_EACH = "of each measure, for the total and then for each group; with a calendar, also in business hours"
_TABLES = {
    "totals": Table(_totals, "One line with incidents, downtime and cost for the total, then one per group"),
    "ecdf": Table(_table("ecdf"), f"One line per step of the distribution {_OF_EACH}"),
    "histogram": Table(_table("histogram"), f"One line per histogram bin {_OF_EACH}"),
    "values": Table(_table("values"), f"One line per value, if there are fewer than {SUMMARY_FROM}, {_OF_EACH}"),
}


@router.get("/api/v1/metrics/summary", summary="Summarize a period", responses=problem_responses(404) | CSV)
@or_csv(_rows, lines=f"One line per statistic {_OF_EACH}", tables=_TABLES)
async def get_summary(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: SettingsDep,
    query: GroupedQueryDep,
    horizon: Annotated[
        float,
        Query(
            gt=0,
            le=HORIZON_AT_MOST,
            description="Horizon of the restricted mean, in seconds: longer durations count as this long",
            examples=[172_800],
        ),
    ] = HORIZON,
) -> SummaryResponse:
    """Number of incidents, durations, downtime and cost. An incident belongs to the period in which it was detected;
    downtime and cost are cut at both ends of the period. `GET /api/v1/metrics/definitions` explains what each number
    means and what it cannot show. With a calendar, durations are also given in business hours; downtime and cost are
    not.
    """
    total, groups = await read_summary(
        tx,
        query,
        now=now,
        weights=settings.impact,
        pay=settings.labor,
        horizon=horizon,
        groups_at_most=POINTS_AT_MOST,
    )

    def answer() -> SummaryResponse:
        places = sorted(range(len(groups)), key=lambda place: groups[place].incidents, reverse=True)[:GROUPS_AT_MOST]
        largest = [groups[place] for place in sorted(places)]
        return SummaryResponse(
            group_by=query.group_by,
            calendar=calendar_model(query.calendar),
            total=numbers_model(total),
            groups=[numbers_model(group) for group in largest],
            groups_left_out=len(groups) - len(largest),
        )

    return await off_loop(answer)
