"""HTTP API of time series: summaries by day, week or month."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader
from app.base.http.context import Now, SettingsDep, Tx
from app.base.http.requests.fields import PeriodModel
from app.base.http.responses.csv import CSV, Line, Table, cells, or_csv, spreadsheet_text
from app.base.http.responses.numbers import DefinitionNames
from app.base.http.responses.problems import problem_responses
from app.base.process.threads import off_loop
from app.incidents.measures.measures import MEASURES
from app.metrics.api.answer import (
    BucketModel,
    CalendarModel,
    FiltersModel,
    SummaryModel,
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


class SeriesModel(PeriodModel):
    filters: FiltersModel
    points: list[BucketModel]


class TimeseriesResponse(BaseModel):
    interval: Interval
    group_by: GroupBy | None
    calendar: CalendarModel | None = Field(description="Calendar for `business_hours`; null if none was requested")
    definitions: DefinitionNames
    measures: list[str] = Field(
        description="Names of the measures, which are also the names of their definitions",
        examples=[["time_to_recover"]],
    )
    series: list[SeriesModel] = Field(description="One series; with `group_by`, one per group that had incidents")


def _rows(answer: TimeseriesResponse) -> Iterator[Line]:
    """`calendar` is empty for elapsed time."""
    clocks = [""] + ([answer.calendar.name] if answer.calendar else [])
    for series in answer.series:
        place = cells(series, only=_OF_SERIES)
        for point in series.points:
            at = place | cells(point, only=("start", "end"))
            for calendar, measures in zip(clocks, (point.measures, point.business_hours or {}), strict=False):
                for name in answer.measures:
                    measure = measures.get(name, _NOTHING)
                    yield at | {"measure": name, "calendar": spreadsheet_text(calendar)} | cells(measure)


def _totals(answer: TimeseriesResponse) -> Iterator[Line]:
    for series in answer.series:
        place = cells(series, only=_OF_SERIES)
        for point in series.points:
            yield place | cells(point, only=_NOT_OF_MEASURES)


_OF_SERIES = ("start", "end", "filters")
_NOTHING = SummaryModel(n=0, values=[])
_NOT_OF_MEASURES = BucketModel.model_fields.keys() - {"measures", "business_hours"}


@router.get(
    "/api/v1/metrics/timeseries", summary="Summarize each day, week or month", responses=problem_responses(404) | CSV
)
@or_csv(
    _rows,
    lines="One line per group, bucket and measure; with a calendar, also in business hours",
    compact=True,
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
    names = ["incidents", "open", "downtime", "cost"]
    names += [name for name, wanted in (("business_hours", query.calendar), ("labor", settings.labor)) if wanted]
    measures = [each.name for each in MEASURES if query.measures is None or each.name in query.measures]

    def answer() -> TimeseriesResponse:
        return TimeseriesResponse(
            interval=interval,
            group_by=query.group_by,
            calendar=calendar_model(query.calendar),
            definitions={name: name for name in names},
            measures=measures,
            series=[_series(row, query) for row in rows],
        )

    return await off_loop(answer)


def _series(row: Sequence[Numbers], query: MetricsQuery) -> SeriesModel:
    of_group = replace(row[0].query, period=query.period) if row else query
    return SeriesModel(
        start=query.period.start,
        end=query.period.end,
        filters=filters_model(of_group),
        points=[point_model(each) for each in row],
    )
