"""HTTP API of downtime and cost by service."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypedDict

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.base.http.auth import Reader
from app.base.http.context import Knobs, Now, Tx
from app.base.http.csv import Line, also_as_csv, cells
from app.base.http.problems import problem_responses
from app.base.threads import off_loop
from app.metrics.api.answer import (
    DowntimeModel,
    FiltersModel,
    PeriodCostModel,
    cost_model,
    downtime_model,
    filters_model,
    links_of,
    links_with_impact,
)
from app.metrics.api.query import GROUPS_AT_MOST, QueryDep
from app.metrics.query import GroupBy
from app.metrics.summary.numbers import Numbers
from app.metrics.summary.store import read_summary

router = APIRouter()


class ServiceDowntimeModel(BaseModel):
    service: str
    downtime: DowntimeModel
    cost: PeriodCostModel


class DowntimeAnswer(BaseModel):
    filters: FiltersModel
    downtime: DowntimeModel
    cost: PeriodCostModel
    services: list[ServiceDowntimeModel] = Field(description="The 500 services with the most downtime, longest first")
    services_left_out: int


def _rows(answer: DowntimeAnswer) -> Iterator[Line]:
    yield cells(answer)
    for each in answer.services:
        yield cells(answer.filters) | cells(each)


@router.get("/api/v1/metrics/downtime", summary="Show downtime by service", responses=problem_responses())
@also_as_csv(router, "/api/v1/metrics/downtime", _rows, lines="One line for the total, then one per service")
async def downtime_of_services(_: Reader, tx: Tx, now: Now, settings: Knobs, query: QueryDep) -> DowntimeAnswer:
    """Downtime and cost of each service. Overlapping incidents count once."""
    total, groups = await read_summary(tx, replace(query, group_by=GroupBy.SERVICE), now=now, weights=settings.impact)
    harmed = sorted((group for group in groups if group.downtime), key=lambda group: group.downtime, reverse=True)

    def answer() -> DowntimeAnswer:
        return DowntimeAnswer(
            filters=filters_model(query),
            **_harm(total),
            services=[
                ServiceDowntimeModel(service=group.query.filters.service or "", **_harm(group))
                for group in harmed[:GROUPS_AT_MOST]
            ],
            services_left_out=max(0, len(harmed) - GROUPS_AT_MOST),
        )

    return await off_loop(answer)


class _Harm(TypedDict):
    downtime: DowntimeModel
    cost: PeriodCostModel


def _harm(numbers: Numbers) -> _Harm:
    links = links_with_impact(numbers, links_of(numbers.query, numbers.services))
    return {"downtime": downtime_model(numbers, links), "cost": cost_model(numbers, links)}
