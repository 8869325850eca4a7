"""HTTP API of downtime and cost by service."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypedDict

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader
from app.base.http.context import Now, SettingsDep, Tx
from app.base.http.requests.fields import PeriodModel
from app.base.http.responses.csv import CSV, Line, cells, or_csv
from app.base.http.responses.problems import problem_responses
from app.base.process.threads import off_loop
from app.metrics.api.answer import (
    FiltersModel,
    PeriodCostModel,
    PeriodDowntimeModel,
    cost_model,
    downtime_model,
    filters_model,
)
from app.metrics.api.query import GROUPS_AT_MOST, QueryDep
from app.metrics.query import GroupBy
from app.metrics.summary.numbers import Numbers
from app.metrics.summary.store import read_summary

router = APIRouter()


class ServiceDowntimeModel(BaseModel):
    service: str
    downtime: PeriodDowntimeModel
    cost: PeriodCostModel


class DowntimeResponse(PeriodModel):
    filters: FiltersModel
    downtime: PeriodDowntimeModel
    cost: PeriodCostModel
    services: list[ServiceDowntimeModel] = Field(description="The 500 services with the most downtime, longest first")
    services_left_out: int


def _rows(answer: DowntimeResponse) -> Iterator[Line]:
    yield cells(answer)
    for each in answer.services:
        yield cells(answer, only=("start", "end", "filters")) | cells(each)


@router.get("/api/v1/metrics/downtime", summary="Show downtime by service", responses=problem_responses() | CSV)
@or_csv(_rows, lines="One line for the total, then one per service")
async def get_downtime(_: Reader, tx: Tx, now: Now, settings: SettingsDep, query: QueryDep) -> DowntimeResponse:
    """Downtime and cost of each service. Overlapping incidents count once."""
    total, groups = await read_summary(
        tx, replace(query, group_by=GroupBy.SERVICE, measures=frozenset()), now=now, weights=settings.impact
    )
    affected = sorted((group for group in groups if group.downtime), key=lambda group: group.downtime, reverse=True)

    def answer() -> DowntimeResponse:
        return DowntimeResponse(
            start=query.period.start,
            end=query.period.end,
            filters=filters_model(query),
            **_downtime_of(total),
            services=[
                ServiceDowntimeModel(service=group.query.service, **_downtime_of(group))
                for group in affected[:GROUPS_AT_MOST]
            ],
            services_left_out=max(0, len(affected) - GROUPS_AT_MOST),
        )

    return await off_loop(answer)


class _Downtime(TypedDict):
    downtime: PeriodDowntimeModel
    cost: PeriodCostModel


def _downtime_of(numbers: Numbers) -> _Downtime:
    return {"downtime": downtime_model(numbers), "cost": cost_model(numbers)}
