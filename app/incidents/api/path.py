"""The path to recovery over HTTP: phases, tasks and their effects over time."""

from dataclasses import asdict

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.base.http.access.auth import Reader
from app.base.http.context import Now, Session
from app.base.http.requests.fields import AtShown, IncidentInPath
from app.base.http.responses.problems import problem_responses
from app.incidents import actions
from app.incidents.history import notes
from app.incidents.history.path import Effect, Path, Phase, Stage, path_of
from app.incidents.measures.measures import Facts, MeasureStatus

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class PhaseModel(_Shown):
    """One of the five phases in the life of an incident."""

    phase: Phase
    begins_at: AtShown | None = Field(description="Null: not known")
    ends_at: AtShown | None = Field(description="Null: not known")
    seconds: float | None = Field(description="Set if and only if the status is `recorded`")
    status: MeasureStatus
    reason: str | None


class MarksModel(BaseModel):
    """The times that delimit the phases, and others worth a mark; null if not known."""

    impact_started_at: AtShown | None
    detected_at: AtShown
    acknowledged_at: AtShown | None
    identified_at: AtShown | None
    mitigated_at: AtShown | None
    resolved_at: AtShown | None
    reviewed_at: AtShown | None
    ready_at: AtShown | None


class PlaybookModel(BaseModel):
    """A version of a playbook of a service."""

    service: str
    name: str
    version: int


class TaskModel(BaseModel):
    """A task as last corrected. Withdrawn ones are left out."""

    entry: int = Field(description="Id of its first entry in the timeline, with which it can be corrected")
    at: AtShown = Field(description="When it was done or started")
    ended_at: AtShown | None
    by: str | None
    text: str
    effect: Effect
    stage: Stage | None
    link: str | None
    command: str | None = Field(description="What was typed or run, without secrets")
    playbook: PlaybookModel | None = Field(description="The playbook that was followed")
    phase: Phase | None = Field(
        description="The phase in which it started; null between detection and end while the identification of the "
        "cause is not stated"
    )
    level: int = Field(description="The level that the path reaches with it")


class PathPointModel(_Shown):
    at: AtShown
    level: int = Field(description="Tasks with a negative effect so far minus those with a positive one")


class CountsModel(BaseModel):
    """A number for each effect."""

    positive: int
    negative: int
    none: int
    unknown: int


class SecondsModel(BaseModel):
    """Seconds for each effect."""

    positive: float
    negative: float
    none: float
    unknown: float


class SilenceInPathModel(_Shown):
    begins_at: AtShown
    ends_at: AtShown
    seconds: float


class PathModel(BaseModel):
    """How an incident developed: what was done, and whether it helped."""

    phases: list[PhaseModel] = Field(description="All five, in order")
    marks: MarksModel
    tasks: list[TaskModel] = Field(
        description="By the time they took effect: `ended_at`, or `at` if that is null; then by entry"
    )
    path: list[PathPointModel] = Field(
        description="Begins with level 0 at detection, or with the first task if that is earlier; has one point for "
        "each task; and ends at the end of the incident, or now while it is open"
    )
    counts: CountsModel
    seconds_in_tasks: SecondsModel = Field(
        description="The total duration of the tasks that have an `ended_at`, by effect; overlapping ones count each"
    )
    seconds_without_positive_effect: float = Field(
        description="From the first point of the path until a task had a positive effect, or else until the last point"
    )
    first_positive_at: AtShown | None = Field(description="When a task first had a positive effect; null: none has")
    longest_silence: SilenceInPathModel | None = Field(
        description="Between detection and end, the longest time without any mark, and in which no task began or ended"
    )


@router.get(
    "/{id}/path",
    response_model=PathModel,
    responses=problem_responses(404),
    summary="Get the path of an incident to its recovery",
)
async def get_path(_: Reader, session: Session, now: Now, ref: IncidentInPath) -> PathModel:
    """The phases of the incident, and its tasks with the path that they describe: each task with a positive effect
    moves it down by one, each with a negative effect up. The levels have no unit.
    """
    incident = await actions.find(session, ref)
    tasks = (await notes.tasks_of(await session.connection(), [incident.id])).get(incident.id, ())
    return path_model(path_of(Facts.of(incident), tasks, now=now))


def path_model(path: Path) -> PathModel:
    return PathModel(
        phases=[PhaseModel.model_validate(one) for one in path.phases],
        marks=MarksModel.model_validate(path.marks),
        tasks=[
            TaskModel.model_validate(asdict(step.task) | {"phase": step.phase, "level": step.level})
            for step in path.steps
        ],
        path=[PathPointModel.model_validate(one) for one in path.points],
        counts=CountsModel.model_validate(path.counts),
        seconds_in_tasks=SecondsModel.model_validate(path.seconds_in_tasks),
        seconds_without_positive_effect=path.seconds_without_positive_effect,
        first_positive_at=path.first_positive_at,
        longest_silence=SilenceInPathModel.model_validate(path.longest_silence) if path.longest_silence else None,
    )
