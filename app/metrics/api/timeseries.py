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
from app.base.values.severity import severity_name
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
from app.metrics.api.query import BUCKETS_AT_MOST, OF_SERIES, POINTS_AT_MOST, GroupedQueryDep
from app.metrics.query import GroupBy, MetricsQuery
from app.metrics.summary.numbers import Numbers
from app.metrics.summary.periods import Interval, buckets
from app.metrics.summary.store import read_timeseries

router = APIRouter()


class SeriesModel(BaseModel):
    group: str | int | None = Field(
        description="Its service, severity, …; empty for an owner: services without one; null without `group_by`",
        examples=["checkout"],
    )
    points: list[BucketModel] = Field(description="One for each of `periods`, in the same order")


class TimeseriesResponse(PeriodModel):
    interval: Interval
    filters: FiltersModel
    group_by: GroupBy | None
    calendar: CalendarModel | None = Field(description="Calendar for `business_hours`; null if none was requested")
    definitions: DefinitionNames
    measures: list[str] = Field(
        description="Names of the measures, which are also the names of their definitions",
        examples=[["time_to_recover"]],
    )
    periods: list[PeriodModel] = Field(description="The period of each bucket, earliest first")
    series: list[SeriesModel] = Field(description="One series; with `group_by`, one per group that had incidents")


def _rows(answer: TimeseriesResponse) -> Iterator[Line]:
    """`calendar` is empty for elapsed time."""
    clocks = [""] + ([answer.calendar.name] if answer.calendar else [])
    for place, point in _points(answer):
        for calendar, measures in zip(clocks, (point.measures, point.business_hours or {}), strict=False):
            for name in answer.measures:
                measure = measures.get(name, _NOTHING)
                yield place | {"measure": name, "calendar": spreadsheet_text(calendar)} | cells(measure)


def _totals(answer: TimeseriesResponse) -> Iterator[Line]:
    for place, point in _points(answer):
        yield place | cells(point, only=_NOT_OF_MEASURES)


def _points(answer: TimeseriesResponse) -> Iterator[tuple[dict[str, str], BucketModel]]:
    """Each bucket with the cells of its period and filters."""
    periods = [cells(each) for each in answer.periods]
    for series in answer.series:
        filters = answer.filters
        if answer.group_by is not None:
            filters = filters.model_copy(update={answer.group_by.value: [series.group]})
        selected = cells(filters)
        for period, point in zip(periods, series.points, strict=True):
            yield period | selected, point


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
    period. Each series has a point for every one of `periods`; groups without incidents are left out.
    """
    query = replace(query, measures=frozenset(OF_SERIES) if query.measures is None else query.measures)
    spans = buckets(query.period, interval, at_most=BUCKETS_AT_MOST)
    rows = await read_timeseries(
        tx, query, spans, now=now, weights=settings.impact, points_at_most=POINTS_AT_MOST, pay=settings.labor
    )
    names = ["incidents", "open", "downtime", "cost"]
    names += [name for name, wanted in (("business_hours", query.calendar), ("labor", settings.labor)) if wanted]

    def answer() -> TimeseriesResponse:
        return TimeseriesResponse(
            start=query.period.start,
            end=query.period.end,
            interval=interval,
            filters=filters_model(query),
            group_by=query.group_by,
            calendar=calendar_model(query.calendar),
            definitions={name: name for name in names},
            measures=[each.name for each in MEASURES if query.measures and each.name in query.measures],
            periods=[PeriodModel(start=each.start, end=each.end) for each in spans],
            series=[_series(row, query) for row in rows],
        )

    return await off_loop(answer)


def _series(row: Sequence[Numbers], query: MetricsQuery) -> SeriesModel:
    group = row[0].query.key if row else None
    if query.group_by is GroupBy.SEVERITY and isinstance(group, int):
        group = severity_name(group)
    return SeriesModel(group=group if query.group_by else None, points=[point_model(each) for each in row])
