"""HTTP API of the action items of a period."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader
from app.base.http.context import Now, Tx
from app.base.http.requests.fields import PeriodDep, PeriodModel
from app.base.http.requests.filters import Services, ServicesFiltered
from app.base.http.responses.csv import CSV, Line, cells, or_csv
from app.base.http.responses.numbers import DefinitionName, RatioModel
from app.base.http.responses.problems import problem_responses
from app.metrics.api.answer import EstimatedSummaryModel, estimated_model
from app.metrics.api.query import HORIZON_AT_MOST
from app.metrics.shapes import CountModel
from app.metrics.summary.action_items import Completion, read_completion

router = APIRouter()

HORIZON = 90 * 86_400.0


class TimeToCompleteModel(EstimatedSummaryModel):
    definition: DefinitionName


class InTimeModel(RatioModel):
    k: int = Field(description="Done in time")
    n: int = Field(description="Due by now, and not dropped")
    definition: DefinitionName


class CompletionModel(BaseModel):
    action_items: CountModel
    time_to_complete: TimeToCompleteModel
    done_in_time: InTimeModel


class PriorityModel(CompletionModel):
    priority: Literal["1", "2", "3", "none"]


class ActionItemsResponse(PeriodModel):
    """Action items created in a period."""

    filters: ServicesFiltered
    total: CompletionModel
    groups: list[PriorityModel] = Field(description="By priority, also those without any action item")


def _rows(answer: ActionItemsResponse) -> Iterator[Line]:
    total = cells(answer)
    yield total
    for each in answer.groups:
        yield {name: total[name] for name in ("from", "to", "service")} | cells(each)


@router.get("/api/v1/metrics/action-items", summary="Summarize action items", responses=problem_responses() | CSV)
@or_csv(_rows, lines="One line for the total, then one per priority")
async def get_action_item_numbers(
    _: Reader,
    tx: Tx,
    now: Now,
    period: PeriodDep,
    service: Services = [],  # noqa: B006  fastapi copies it
    horizon: Annotated[
        float,
        Query(
            gt=0,
            le=HORIZON_AT_MOST,
            description="Horizon of the restricted mean, in seconds: longer durations count as this long",
            examples=[7_776_000],
        ),
    ] = HORIZON,
) -> ActionItemsResponse:
    """Returns how many were created, how long they take to complete (including open ones, as for incidents), and how
    many were done in time; in total and by priority.
    """
    total, groups = await read_completion(tx, period, service, now=now, horizon=horizon)
    return ActionItemsResponse(
        start=period.start,
        end=period.end,
        filters=ServicesFiltered(service=service),
        total=_model(total),
        groups=[
            PriorityModel.model_validate({**dict(_model(each)), "priority": priority})
            for priority, each in groups.items()
        ],
    )


def _model(each: Completion) -> CompletionModel:
    return CompletionModel(
        action_items=CountModel(value=each.items, definition="action_items"),
        time_to_complete=TimeToCompleteModel(
            **dict(estimated_model(each.time_to_complete)), definition="time_to_complete"
        ),
        done_in_time=InTimeModel(**asdict(each.done_in_time), definition="done_in_time"),
    )
