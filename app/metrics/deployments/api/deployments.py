"""Routes to report and read deployments."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, Field, model_validator

from app.base import schema
from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import TIME, AtShown, Input, Name, When
from app.base.http.requests.filters import Contained, Environments, Services, Sorted, TimeSort, times_between
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.base.values.facts import COMMITS_AT_MOST, REPORT_EXAMPLE, Commit, Outcome, Report
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.metrics.deployments import store
from app.metrics.deployments.api.fields import DeploymentKey, Link, Moment, OutcomeWord, SourceName, require_plausible
from app.metrics.deployments.deployment import Deployment
from app.metrics.deployments.store import Filters

router = APIRouter()


class CommitInput(Input):
    sha: Name
    at: Moment | None = Field(None, description="When the commit was authored; lead time starts here")


class DeploymentInput(Input):
    """A report of a deployment. Omitted fields keep the values from other reports of the same deployment.

    Times may be RFC 3339, RFC 2822 or Unix times in seconds or milliseconds.
    """

    id: Name = Field(
        description="Chosen by the sender. All reports with the same source, service, environment and id describe one "
        "deployment",
        examples=["checkout-1742"],
    )
    service: Name
    source: SourceName = None
    outcome: OutcomeWord | None = Field(
        None,
        description="Null if this report does not change it. Words of CI systems (`UNSTABLE`, `timed_out`, `done`, …) "
        "are accepted too",
    )
    environment: Name | None = Field(None, description="Defaults to production")
    production: bool | None = Field(
        None, description="Whether the environment serves users; null: derived from its name"
    )
    version: Name | None = None
    sha: Name | None = None
    link: Link | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = Field(None, description="Defaults to when a final outcome was reported")
    commits: list[CommitInput] = Field([], max_length=COMMITS_AT_MOST)
    unplanned: bool | None = Field(
        None, description="Made because something was broken: hotfix or rollback. Null: it is a rollback"
    )
    made_for: Name | None = Field(None, description="The incident it was meant to fix", examples=["INC-1"])
    needed_intervention: bool | None = Field(
        None, description="It failed in production and had to be rolled back or fixed immediately"
    )
    rolled_back: Name | None = Field(
        None,
        description="Key of the deployment that this one rolls back, or its id if it has the same service and "
        "environment. The other one then counts as failed; this one is never considered the cause of an incident",
        examples=["checkout-1741"],
    )

    @model_validator(mode="after")
    def _consistent(self) -> "DeploymentInput":
        if self.started_at and self.finished_at and self.started_at > self.finished_at:
            message = "finished_at must not be before started_at"
            raise ValueError(message)
        if self.rolled_back == self.id:
            message = "rolled_back must name another deployment"
            raise ValueError(message)
        return self


class CommitResponse(BaseModel):
    sha: str
    at: AtShown | None

    @model_validator(mode="before")
    @classmethod
    def _of_a_pair(cls, value: object) -> object:
        return dict(zip(("sha", "at"), value, strict=True)) if isinstance(value, list | tuple) else value


class DeploymentResponse(BaseModel):
    key: str = Field(description="Unique; use it in URLs", examples=["people:checkout:production:checkout-1742"])
    id: str = Field(description="As reported; unique per source, service and environment")
    source: str | None = Field(description="Name of the source; null: unknown, from before sources were recorded")
    service: str
    environment: str
    production: bool
    version: str | None
    sha: str | None
    link: str | None
    outcome: Outcome
    started_at: AtShown | None
    finished_at: AtShown | None
    happened_at: AtShown = Field(description="When it finished, else when it started, else when it was first reported")
    commits: list[CommitResponse]
    unplanned: bool
    made_for: str | None
    needed_intervention: bool
    rolled_back: str | None = Field(description="The deployment that this one rolled back, as reported")
    rolled_back_by: str | None = Field(description="Key of the deployment that rolled this one back")
    unchanged: bool = Field(
        description="It deployed what was running already, such as a repeated sync: it is listed as a change and not "
        "counted as a deployment"
    )
    clock_ahead: bool = Field(description="A reported time was in the future: the clock of the sender is wrong")


def deployment_shown(deployment: Deployment | schema.Deployment) -> DeploymentResponse:
    """`id` of the row is its key: migrations never rename a column."""
    shown = {name: getattr(deployment, name) for name in _SAME}
    return DeploymentResponse(key=deployment.id, id=deployment.reported_id or deployment.id, **shown)


_SAME = DeploymentResponse.model_fields.keys() - {"key", "id"}


@router.post(
    "/api/v1/deployments",
    response_model=DeploymentResponse,
    responses=problem_responses(409) | {201: {"model": DeploymentResponse}},
    tags=["deployments"],
    summary="Report a deployment",
)
async def report_deployment(
    _: Writer,
    session: Session,
    now: Now,
    report: Annotated[
        DeploymentInput,
        Body(examples=[dict(REPORT_EXAMPLE)]),
    ],
    response: Response,
) -> DeploymentResponse:
    """Idempotent: repeating a report changes nothing. Reports of one deployment may arrive in any order, here and
    through webhooks: the last final outcome counts, and a stale `in_progress` never undoes it. The status is 201 if the
    report is new, and 409 if it contradicts an earlier report of the same deployment, for example because it names a
    different version.
    """
    require_plausible(now, report.started_at, report.finished_at)
    commits = tuple(Commit(each.sha, each.at) for each in report.commits)
    new = Report(**(report.model_dump(exclude={"source"}) | {"commits": commits}))
    source_id = MANUAL_SOURCE_ID if report.source is None else await store.source_named(session, report.source)
    whole, is_new = await store.report(session, new, source_id=source_id, now=now, strict=True)
    response.status_code = 201 if is_new else 200
    return deployment_shown(whole)


@router.get(
    "/api/v1/deployments",
    response_model=CountedPage[DeploymentResponse],
    responses=problem_responses(),
    tags=["deployments"],
    summary="List deployments",
)
async def list_deployments(
    _: Reader,
    session: Session,
    now: Now,
    paging: Pages,
    service: Services = [],  # noqa: B006  fastapi copies it
    environment: Environments = [],  # noqa: B006
    outcome: Annotated[list[Outcome], Query(description="May be repeated", examples=[["failed"]])] = [],  # noqa: B006
    start: Annotated[
        When | None, Query(alias="from", description=f"Only deployments from this time on. {TIME}", examples=["-7d"])
    ] = None,
    end: Annotated[When | None, Query(alias="to", description=f"Only deployments before this time. {TIME}")] = None,
    q: Contained = None,
    sort: Sorted = TimeSort.NEWEST,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[DeploymentResponse]:
    """Without those that deployed what was running already, which `GET /api/v1/changes` lists. `q` is searched in the
    id, the version and the hash of the commit.
    """
    filters = Filters(service, environment, outcome, *times_between(start, end, now=now), q)
    key, oldest_first = paging.after_in(sort, datetime, str), sort is TimeSort.OLDEST
    rows = await store.deployments(session, filters, after=key, oldest_first=oldest_first, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda each: (sort.value, each.happened_at, each.id))
    return CountedPage(
        items=[deployment_shown(each) for each in items],
        next_cursor=cursor,
        total=await store.count_deployments(session, filters) if count else None,
    )


@router.get(
    "/api/v1/deployments/{key}",
    response_model=DeploymentResponse,
    responses=problem_responses(404, 409),
    tags=["deployments"],
    summary="Show a deployment",
)
async def get_deployment(_: Reader, session: Session, key: DeploymentKey) -> DeploymentResponse:
    """The deployment as combined from all its reports. An id that only one deployment has works as a key too."""
    return deployment_shown(await store.find(session, key))
