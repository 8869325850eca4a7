"""HTTP API of numbers over many incidents: outcomes of targets, and tasks."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader
from app.base.http.context import Now, Session, SettingsDep
from app.base.http.limits.turns import IN_TURN
from app.base.http.requests.fields import PeriodDep, PeriodModel
from app.base.http.requests.filters import Services, Severities, SeveritiesFiltered, severity_numbers
from app.base.http.responses.csv import CSV, Line, cells, or_csv
from app.base.http.responses.numbers import DefinitionNames, RatioModel, Seconds
from app.base.http.responses.problems import problem_responses
from app.base.values.severity import severity_name
from app.incidents.history.path import Effect
from app.response.store import numbers
from app.response.tallies import Outcomes, TargetGroup, TaskGroup, TaskTally
from app.response.targets import Judged, TargetOutcome

router = APIRouter(prefix="/api/v1/metrics", tags=["metrics"], dependencies=[IN_TURN])

GROUPS_AT_MOST = 500


def _chosen(
    period: PeriodDep,
    service: Services = [],  # noqa: B006  fastapi copies it, as the other list
    severity: Severities = [],  # noqa: B006
) -> numbers.IncidentFilter:
    return numbers.IncidentFilter(period, tuple(service), severity_numbers(severity))


ChosenDep = Annotated[numbers.IncidentFilter, Depends(_chosen)]


class _Filtered(PeriodModel):
    filters: SeveritiesFiltered


def _filters(chosen: numbers.IncidentFilter) -> dict[str, object]:
    start, end = chosen.period
    filters = SeveritiesFiltered(
        service=list(chosen.services), severity=[severity_name(each) for each in chosen.severities]
    )
    return {"start": start, "end": end, "filters": filters}


class OutcomesModel(BaseModel):
    met: int
    missed: int
    pending: int
    cannot_tell: int = Field(description="What happened is not known")
    not_agreed: int = Field(description="No target was in force")
    share_met: RatioModel = Field(description="Of those that met or missed it")


class TargetOutcomesModel(BaseModel):
    acknowledge: OutcomesModel
    update: OutcomesModel
    resolve: OutcomesModel


class TargetGroupModel(TargetOutcomesModel):
    key: str = Field(description="The service, or the severity", examples=["checkout"])


class TargetsNumbers(_Filtered):
    definitions: DefinitionNames
    total: TargetOutcomesModel
    groups: list[TargetGroupModel] = Field(description="By key; at most 500; empty without `group_by`")
    groups_left_out: int


def _rows(answer: "TargetsNumbers | TasksNumbers") -> Iterator[Line]:
    total = cells(answer)
    yield total
    for each in answer.groups:
        yield {name: total[name] for name in _FILTERS} | cells(each)


_FILTERS = ("from", "to", "service", "severity")
_LINES = "One line for the total, then one per group"


@router.get("/targets", summary="Count how often targets were met", responses=problem_responses() | CSV)
@or_csv(_rows, lines=_LINES)
async def get_target_numbers(
    _: Reader,
    session: Session,
    now: Now,
    settings: SettingsDep,
    chosen: ChosenDep,
    group_by: TargetGroup | None = None,
) -> TargetsNumbers:
    """The incidents detected in the period, each judged by the target that was in force when it was detected."""
    total, groups = await numbers.read_outcomes(session, chosen, group_by, now=now, parts_at_most=settings.query_parts)
    shown = list(groups.items())[:GROUPS_AT_MOST]
    return TargetsNumbers.model_validate(
        _filters(chosen)
        | {
            "definitions": {name: name for name in ("target_outcomes", "targets_met")},
            "total": _by_target(total),
            "groups": [{"key": key, **_by_target(found)} for key, found in shown],
            "groups_left_out": len(groups) - len(shown),
        }
    )


def _by_target(found: Mapping[Judged, Outcomes]) -> dict[str, object]:
    def shown(each: Outcomes) -> OutcomesModel:
        counts = {str(outcome): each.counts[outcome] for outcome in TargetOutcome}
        return OutcomesModel(share_met=RatioModel.model_validate(each.met), **counts)

    return {str(what): shown(each) for what, each in found.items()}


class EffectCounts(BaseModel):
    positive: int
    negative: int
    none: int
    unknown: int


class EffectSeconds(BaseModel):
    positive: Seconds
    negative: Seconds
    none: Seconds
    unknown: Seconds


class TaskNumbers(BaseModel):
    tasks: int
    effects: EffectCounts
    seconds: EffectSeconds = Field(description="The duration of tasks with a stated end, overlapping ones each")
    without_positive_effect: RatioModel = Field(description="Of the tasks whose effect is known")
    unknown: RatioModel = Field(description="Of all tasks: those whose effect no one has stated")


class TaskGroupModel(TaskNumbers):
    key: str = Field(description="The service, or the phase; `unknown`: the phase is not known", examples=["response"])


class TasksNumbers(_Filtered):
    definitions: DefinitionNames
    total: TaskNumbers
    groups: list[TaskGroupModel] = Field(description="By key; at most 500; empty without `group_by`")
    groups_left_out: int


@router.get("/tasks", summary="Count tasks by their effect", responses=problem_responses() | CSV)
@or_csv(_rows, lines=_LINES)
async def get_task_numbers(
    _: Reader,
    session: Session,
    chosen: ChosenDep,
    group_by: TaskGroup | None = None,
) -> TasksNumbers:
    """The tasks of the incidents detected in the period, by their effect."""
    total, groups = await numbers.read_tasks(session, chosen, group_by)
    shown = list(groups.items())[:GROUPS_AT_MOST]
    return TasksNumbers.model_validate(
        _filters(chosen)
        | {
            "definitions": {name: name for name in ("tasks", "tasks_without_positive_effect")},
            "total": _tasks(total),
            "groups": [{"key": key, **_tasks(found)} for key, found in shown],
            "groups_left_out": len(groups) - len(shown),
        }
    )


def _tasks(tally: TaskTally) -> dict[str, object]:
    return {
        "tasks": tally.tasks,
        "effects": {str(effect): tally.counts[effect] for effect in Effect},
        "seconds": {str(effect): time.total_seconds() for effect, time in tally.time.items()},
        "without_positive_effect": RatioModel.model_validate(tally.without_positive_effect()),
        "unknown": RatioModel.model_validate(tally.unknown()),
    }
