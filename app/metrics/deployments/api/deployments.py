"""Routes to report and read deployments, and to state the causes of incidents."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.base.errors import Invalid
from app.base.facts import COMMITS_AT_MOST, DEPLOYMENT_ID, REPORT_EXAMPLE, Commit, Outcome, Report
from app.base.http.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.fields import At, Contract, IncidentInPath, Name, Words, rfc3339
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.timeline import Attribution
from app.metrics.deployments import causes, store
from app.metrics.deployments.causes import Cause
from app.metrics.deployments.deployment import CLOCK_SKEW
from app.metrics.deployments.links import Basis, Confidence
from app.metrics.deployments.store import Filters

router = APIRouter()


class CommitContract(Contract):
    sha: Name
    at: At | None = Field(None, description="When the commit was authored; lead time starts here")


class DeploymentContract(Contract):
    """A report of a deployment. Omitted fields keep the values from other reports with the same id."""

    id: Annotated[str, StringConstraints(pattern=DEPLOYMENT_ID)] = Field(
        description="Chosen by the sender; all reports with the same id describe one deployment"
    )
    service: Name
    outcome: Outcome | None = Field(None, description="Null if this report does not change it")
    environment: Name | None = Field(None, description="Defaults to production")
    production: bool | None = Field(
        None, description="Whether the environment serves users; null: derived from its name"
    )
    version: Name | None = None
    sha: Name | None = None
    link: Annotated[Words, StringConstraints(max_length=2_000)] | None = None
    started_at: At | None = None
    finished_at: At | None = Field(None, description="Defaults to when a final outcome was reported")
    commits: list[CommitContract] = Field([], max_length=COMMITS_AT_MOST)
    unplanned: bool | None = Field(None, description="Made because something was broken: hotfix or rollback")
    made_for: Name | None = Field(None, description="The incident it was meant to fix", examples=["INC-1"])
    needed_intervention: bool | None = Field(
        None, description="It failed in production and had to be rolled back or fixed immediately"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "DeploymentContract":
        if self.started_at and self.finished_at and self.started_at > self.finished_at:
            message = "finished_at must not be before started_at"
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
    happened_at: At = Field(description="When it finished, else when it started, else when it was first reported")
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
        Body(examples=[dict(REPORT_EXAMPLE)]),
    ],
    response: Response,
) -> DeploymentShown:
    """Idempotent: repeating a report changes nothing. Reports with the same id may arrive in any order, here and
    through webhooks: the last final outcome counts, and a stale `in_progress` never undoes it. The status is 201 if the
    report is new.
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
    begins: Annotated[At | None, Query(alias="from", description="Only deployments at or after this time")] = None,
    ends: Annotated[At | None, Query(alias="to", description="Only deployments before this time")] = None,
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
    deployment_id: Annotated[
        str, Path(alias="id", examples=["checkout-1742"]), StringConstraints(pattern=DEPLOYMENT_ID)
    ],
) -> DeploymentShown:
    """The deployment as combined from all its reports."""
    return DeploymentShown.model_validate(await store.find(session, deployment_id))


def _key(after: tuple[Any, ...] | None) -> tuple[datetime, str] | None:
    return (after[0], after[1]) if after else None


# — causes —


class CauseContract(Contract):
    deployment_id: Annotated[str, StringConstraints(pattern=DEPLOYMENT_ID)] | None = Field(
        description="Null states that no deployment caused it", examples=["checkout-1742"]
    )
    by: Name | None = None
    note: Words | None = None


class CauseShown(BaseModel):
    """No `basis` means that the cause is unknown; `stated` without a deployment means that no deployment caused it."""

    deployment: DeploymentShown | None
    basis: Basis | None = Field(
        description="Stated by a person; a `deployment_id` in the labels or annotations of an alert; a version in the "
        "labels that was deployed in the week before; or the last deployment of the service and environment in the 24 "
        "hours before"
    )
    confidence: Confidence | None = Field(description="`certain`, `high` (version), `medium` (within an hour) or `low`")
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
    """The cause, if known, and the evidence for it. It is derived anew for each request, so late reports count; a
    person's statement takes precedence.
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
    """The latest statement counts, including null; all statements are kept in the timeline."""
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
