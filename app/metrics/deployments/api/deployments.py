"""Deployments as people and pipelines report and read them, and the causes of incidents."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.base.errors import Invalid
from app.base.http.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.fields import At, Contract, IncidentInPath, Name, Words, rfc3339
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.timeline import Attribution
from app.metrics.deployments import causes, store
from app.metrics.deployments.causes import Cause
from app.metrics.deployments.deployment import CLOCK_SKEW, COMMITS_AT_MOST, ID, Commit, Outcome, Report
from app.metrics.deployments.links import Basis, Confidence
from app.metrics.deployments.sources import SOURCES
from app.metrics.deployments.store import Filters

router = APIRouter()


class CommitContract(Contract):
    sha: Name
    at: At | None = Field(None, description="When it was written; lead time counts from here")


class DeploymentContract(Contract):
    """A report of a deployment. What it leaves out stays as other reports of the same id have it."""

    id: Annotated[str, StringConstraints(pattern=ID)] = Field(
        description="Given by you; several reports with one id are one deployment"
    )
    service: Name
    outcome: Outcome | None = Field(None, description="Null: says nothing of it")
    environment: Name | None = Field(None, description="Told nowhere: production")
    production: bool | None = Field(
        None, description="Whether users are served from it; null: by the name of the environment"
    )
    version: Name | None = None
    sha: Name | None = None
    link: Annotated[Words, StringConstraints(max_length=2_000)] | None = None
    started_at: At | None = None
    finished_at: At | None = Field(None, description="Null though finished: when the outcome was told")
    commits: list[CommitContract] = Field([], max_length=COMMITS_AT_MOST)
    unplanned: bool | None = Field(None, description="Made because something was broken: a hotfix, a rollback")
    made_for: Name | None = Field(None, description="The incident it was made for", examples=["INC-1"])
    needed_intervention: bool | None = Field(
        None, description="It failed its users, and somebody had to roll back or mend it at once"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "DeploymentContract":
        if self.started_at and self.finished_at and self.started_at > self.finished_at:
            message = "finished_at lies before started_at"
            raise ValueError(message)
        return self


class CommitShown(BaseModel):
    sha: str
    at: At | None

    @model_validator(mode="before")
    @classmethod
    def _of_a_pair(cls, value: object) -> object:
        return dict(zip(("sha", "at"), value, strict=True)) if isinstance(value, list | tuple) else value


class DeploymentShown(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    service: str
    environment: str
    production: bool
    version: str | None
    sha: str | None
    link: str | None
    outcome: Outcome
    started_at: At | None
    finished_at: At | None
    happened_at: At = Field(description="When it finished, else when it began, else when it was first told of")
    commits: list[CommitShown]
    unplanned: bool
    made_for: str | None
    needed_intervention: bool


@router.post(
    "/api/v1/deployments",
    response_model=DeploymentShown,
    responses=problem_responses() | {201: {"model": DeploymentShown}},
    tags=["deployments"],
    summary="Report a deployment",
)
async def report_deployment(
    _: Writer,
    session: Session,
    now: Now,
    report: Annotated[
        DeploymentContract,
        Body(examples=[dict(SOURCES["deployments"].example)]),
    ],
    response: Response,
) -> DeploymentShown:
    """Idempotent: the same report again changes nothing. Reports of one id may come in any order, from here and from
    the doors: the last final outcome counts, and a stale `in_progress` undoes none. 201 if the report is new.
    """
    latest = max((at for at in (report.started_at, report.finished_at) if at is not None), default=now)
    if latest > now + CLOCK_SKEW:
        message = f"{rfc3339(latest)} is in the future; deployment times must not be"
        raise Invalid(message)
    commits = tuple(Commit(each.sha, each.at) for each in report.commits)
    new = Report(**(report.model_dump() | {"commits": commits}))
    whole, is_new = await store.report(session, new, source_id=MANUAL_SOURCE_ID, now=now)
    response.status_code = 201 if is_new else 200
    return DeploymentShown.model_validate(whole)


@router.get(
    "/api/v1/deployments",
    response_model=Page[DeploymentShown],
    responses=problem_responses(),
    tags=["deployments"],
    summary="List deployments",
)
async def list_deployments(
    _: Reader,
    session: Session,
    paging: Pages,
    service: Annotated[Name | None, Query(examples=["checkout"])] = None,
    environment: Annotated[Name | None, Query(examples=["production"])] = None,
    outcome: Annotated[Outcome | None, Query()] = None,
    begins: Annotated[At | None, Query(alias="from", description="Happened at or after")] = None,
    ends: Annotated[At | None, Query(alias="to", description="Happened before")] = None,
) -> Page[DeploymentShown]:
    """Newest first."""
    filters = Filters(service, environment, outcome, begins, ends)
    rows = await store.deployments(session, filters, before=_key(paging.after(datetime, str)), limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda each: (each.happened_at, each.id))
    return Page(items=[DeploymentShown.model_validate(each) for each in items], next_cursor=cursor)


@router.get(
    "/api/v1/deployments/{id}",
    response_model=DeploymentShown,
    responses=problem_responses(404),
    tags=["deployments"],
    summary="Show a deployment",
)
async def show_deployment(
    _: Reader,
    session: Session,
    deployment_id: Annotated[str, Path(alias="id", examples=["checkout-1742"]), StringConstraints(pattern=ID)],
) -> DeploymentShown:
    """What all its reports amount to."""
    return DeploymentShown.model_validate(await store.find(session, deployment_id))


def _key(after: tuple[Any, ...] | None) -> tuple[datetime, str] | None:
    return (after[0], after[1]) if after else None


# — causes —


class CauseContract(Contract):
    deployment_id: Annotated[str, StringConstraints(pattern=ID)] | None = Field(
        description="Null: no deployment caused it", examples=["checkout-1742"]
    )
    by: Name | None = None
    note: Words | None = None


class CauseShown(BaseModel):
    """Without a basis no cause is known; `stated` without a deployment means that no deployment caused it."""

    deployment: DeploymentShown | None
    basis: Basis | None = Field(
        description="stated by a person; a `deployment_id` among labels or annotations of an alert; a version that the "
        "labels name, deployed in the week before; or the last deployment of the service and environment in the 24 "
        "hours before"
    )
    confidence: Confidence | None = Field(description="certain, high (version), medium (within an hour) or low")
    stated_at: At | None
    by: str | None
    note: str | None


@router.get(
    "/api/v1/incidents/{id}/cause",
    response_model=CauseShown,
    responses=problem_responses(404),
    tags=["deployments"],
    summary="Show which deployment caused an incident",
)
async def show_cause(_: Reader, session: Session, incident: IncidentInPath) -> CauseShown:
    """As far as it is known, and how. Worked out anew each time, so that what is told late counts; a person's word
    stands above all else.
    """
    return _cause_shown(await causes.cause(session, incident))


@router.put(
    "/api/v1/incidents/{id}/cause",
    response_model=CauseShown,
    responses=problem_responses(404, 409),
    tags=["deployments"],
    summary="State which deployment caused an incident",
)
async def state_cause(
    _: Writer, session: Session, now: Now, incident: IncidentInPath, statement: CauseContract
) -> CauseShown:
    """The latest statement counts, null as well; each is kept in the timeline."""
    attribution = Attribution(now, statement.by, statement.note)
    await causes.state_cause(session, incident, statement.deployment_id, attribution, now=now)
    return _cause_shown(await causes.cause(session, incident))


def _cause_shown(cause: Cause) -> CauseShown:
    link, statement = cause.link, cause.statement
    return CauseShown(
        deployment=DeploymentShown.model_validate(link.deployment) if link and link.deployment else None,
        basis=link.basis if link else None,
        confidence=link.confidence if link else None,
        stated_at=statement.at if statement else None,
        by=statement.by if statement else None,
        note=statement.note if statement else None,
    )
