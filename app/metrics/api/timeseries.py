"""HTTP API of time series: summaries by day, week or month."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.http.auth import Reader
from app.base.http.context import Now, SettingsDep, Tx
from app.base.http.csv import CSV, Line, Table, cells, or_csv, spreadsheet_text
from app.base.http.problems import problem_responses
from app.base.threads import off_loop
from app.incidents.definitions import FORMULAS
from app.metrics.api.answer import (
    FORMULAS_OF_NUMBERS,
    BucketModel,
    CalendarModel,
    FiltersModel,
    calendar_model,
    filters_model,
    point_model,
)
from app.metrics.api.query import BUCKETS_AT_MOST, POINTS_AT_MOST, GroupedQueryDep
from app.metrics.query import GroupBy, MetricsQuery
from app.metrics.summary.numbers import Numbers
from app.metrics.summary.periods import Interval, buckets
from app.metrics.summary.store import read_timeseries

router = APIRouter()


class SeriesModel(BaseModel):
    filters: FiltersModel
    points: list[BucketModel]


class TimeseriesResponse(BaseModel):
    interval: Interval
    group_by: GroupBy | None
    calendar: CalendarModel | None = Field(description="Calendar for `business_hours`; null if none was requested")
    formulas: dict[str, str]
    series: list[SeriesModel] = Field(description="One series; with `group_by`, one per group that had incidents")


def _rows(answer: TimeseriesResponse) -> Iterator[Line]:
    """`calendar` is empty for elapsed time."""
    clock = answer.calendar.name if answer.calendar else ""
    for series in answer.series:
        place = cells(series.filters)
        for point in series.points:
            at = place | cells(point, only=("start", "end"))
            for calendar, measures in (("", point.measures), (clock, point.business_hours or {})):
                for name, measure in measures.items():
                    yield at | {"measure": name, "calendar": spreadsheet_text(calendar)} | cells(measure)


def _totals(answer: TimeseriesResponse) -> Iterator[Line]:
    for series in answer.series:
        place = cells(series.filters)
        for point in series.points:
            yield place | cells(point, only=_NOT_OF_MEASURES)


_NOT_OF_MEASURES = BucketModel.model_fields.keys() - {"measures", "business_hours"}


@router.get(
    "/api/v1/metrics/timeseries", summary="Summarize each day, week or month", responses=problem_responses(404) | CSV
)
@or_csv(
    _rows,
    lines="One line per group, bucket and measure; with a calendar, also in business hours",
    tables={"totals": Table(_totals, "One line with incidents, downtime and cost per group and bucket")},
)
async def get_timeseries(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: SettingsDep,
    query: GroupedQueryDep,
    interval: Annotated[Interval, Query(description="Size of a bucket, in UTC; weeks start on Monday")] = Interval.DAY,
) -> TimeseriesResponse:
    """The summary of each day, week or month in the period. The first and last bucket are cut at the ends of the
    period.
    """
    rows = await read_timeseries(
        tx,
        query,
        buckets(query.period, interval, at_most=BUCKETS_AT_MOST),
        now=now,
        weights=settings.impact,
        points_at_most=POINTS_AT_MOST,
        pay=settings.labor,
    )
    names = [*FORMULAS_OF_NUMBERS]
    names += [name for name, wanted in (("business_hours", query.calendar), ("labor", settings.labor)) if wanted]

    def answer() -> TimeseriesResponse:
        return TimeseriesResponse(
            interval=interval,
            group_by=query.group_by,
            calendar=calendar_model(query.calendar),
            formulas={name: FORMULAS[name] for name in names},
            series=[_series(row, query) for row in rows],
        )

    return await off_loop(answer)


def _series(row: Sequence[Numbers], query: MetricsQuery) -> SeriesModel:
    of_group = replace(row[0].query, period=query.period) if row else query
    return SeriesModel(filters=filters_model(of_group), points=[point_model(each) for each in row])
