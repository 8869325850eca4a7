"""The summary of each day, week or month."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.http.auth import Reader
from app.base.http.context import Knobs, Now, Tx
from app.base.http.csv import Line, also_as_csv, cells
from app.base.http.problems import problem_responses
from app.incidents.definitions import FORMULAS
from app.metrics import labor as labour
from app.metrics import statistics, store
from app.metrics.api.answer import (
    FORMULAS_OF_NUMBERS,
    CalendarModel,
    FiltersModel,
    PointModel,
    calendar_model,
    filters_model,
    point_model,
)
from app.metrics.api.question import (
    BUCKETS_AT_MOST,
    POINTS_AT_MOST,
    Asked,
    Grouping,
    OnlyMeasures,
    Question,
    SecondClock,
)
from app.metrics.labor import Labour
from app.metrics.statistics import GroupBy, Interval, Numbers, key_of

router = APIRouter()


class SeriesModel(BaseModel):
    filters: FiltersModel
    points: list[PointModel]


class TimeseriesAnswer(BaseModel):
    interval: Interval
    group_by: GroupBy | None
    calendar: CalendarModel | None = Field(description="Of `business_hours`; null: none was asked for")
    formulas: dict[str, str]
    series: list[SeriesModel] = Field(description="One; with `group_by` one for each group that had incidents")


def _rows(answer: TimeseriesAnswer) -> Iterator[Line]:
    for series in answer.series:
        place = cells(series.filters)
        for point in series.points:
            yield place | cells(point)


@router.get("/api/v1/metrics/timeseries", summary="Numbers of periods in a row", responses=problem_responses(404))
@also_as_csv(router, "/api/v1/metrics/timeseries", _rows, lines="A line for each bucket, of each group", problems=[404])
async def timeseries(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: Knobs,
    asked: Asked,
    interval: Annotated[Interval, Query(description="In UTC; weeks begin on Monday")] = Interval.DAY,
    group_by: Grouping = None,
    calendar: SecondClock = None,
    measures: OnlyMeasures = None,
) -> TimeseriesAnswer:
    """The summary of each day, week or month of the period. The first and the last are cut at its ends."""
    periods = statistics.buckets(asked.scope.period, interval, at_most=BUCKETS_AT_MOST)
    rows = await store.timeseries(
        tx,
        asked.scope,
        periods,
        group_by,
        now=now,
        weights=settings.impact,
        include_non_recoveries=asked.include_non_recoveries,
        points_at_most=POINTS_AT_MOST,
        calendar=calendar,
        measures=measures,
    )
    worked = None
    if settings.labour is not None:
        worked = await labour.labour(tx, asked.scope, periods, group_by, now=now, pay=settings.labour)
    names = [*FORMULAS_OF_NUMBERS]
    names += [name for name, wanted in (("business_hours", calendar), ("labour", settings.labour)) if wanted]

    def answer() -> TimeseriesAnswer:
        return TimeseriesAnswer(
            interval=interval,
            group_by=group_by,
            calendar=calendar_model(calendar),
            formulas={name: FORMULAS[name] for name in names},
            series=[_series(row, asked, group_by, worked) for row in rows],
        )

    return await asyncio.to_thread(answer)  # thousands of points must not keep the doors waiting


def _series(
    row: Sequence[Numbers], asked: Question, group_by: GroupBy | None, worked: Mapping[Any, Sequence[Labour]] | None
) -> SeriesModel:
    scope = replace(row[0].scope, period=asked.scope.period) if row else asked.scope
    of_buckets: Sequence[Labour | None] = [None] * len(row)
    if worked is not None:
        of_buckets = worked.get(key_of(scope, group_by), [labour.NONE] * len(row))
    points = [point_model(*pair) for pair in zip(row, of_buckets, strict=True)]
    return SeriesModel(filters=filters_model(scope, asked), points=points)
