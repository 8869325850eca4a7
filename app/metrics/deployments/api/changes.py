"""Routes to report and list changes that are no deployments."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session, Tx
from app.base.http.requests.fields import TIME, AtShown, Input, Name, When, Words
from app.base.http.requests.filters import Contained, Environments, Services, Sorted, TimeSort, times_between
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.base.values.facts import Change, is_ahead
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.metrics.deployments import changes, store
from app.metrics.deployments.api.fields import Link, Moment, SourceName, require_plausible
from app.metrics.deployments.changes import Filters

router = APIRouter()


class ChangeInput(Input):
    """A change that need not deploy anything: a merge, a setting, a feature flag, a run of Puppet."""

    id: Name = Field(description="Chosen by the sender, unique per source", examples=["puppet-8812"])
    service: Name = Field(description="What was changed", examples=["checkout"])
    source: SourceName = None
    at: Moment | None = Field(None, description="When it took effect; defaults to now")
    summary: Annotated[Words, StringConstraints(max_length=1_024)] | None = None
    environment: Name | None = Field(None, description="Null: it is not known, or there is none")
    version: Name | None = None
    sha: Name | None = None
    link: Link | None = None


class ChangeResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    key: str = Field(description="Unique")
    id: str = Field(description="As reported; unique per source")
    source: str | None
    service: str
    environment: str | None
    happened_at: AtShown
    summary: str | None
    version: str | None
    sha: str | None
    link: str | None
    clock_ahead: bool = Field(description="The time was in the future: the clock of the sender is wrong")
    deployment: bool = Field(
        description="Whether it is a deployment of a version that was running already, such as a repeated sync; `key` "
        "is the key of the deployment"
    )


_EXAMPLE = {
    "id": "puppet-8812",
    "service": "checkout",
    "at": "2026-08-20T09:55:30Z",
    "summary": "nginx.conf: worker_connections 1024 to 512",
    "environment": "production",
}


@router.post(
    "/api/v1/changes",
    response_model=ChangeResponse,
    responses=problem_responses(409) | {201: {"model": ChangeResponse}},
    tags=["deployments"],
    summary="Report a change",
)
async def report_change(
    _: Writer, session: Session, now: Now, change: Annotated[ChangeInput, Body(examples=[_EXAMPLE])], response: Response
) -> ChangeResponse:
    """Changes are candidates for the causes of incidents and never count in the DORA metrics. Idempotent; 409 if a
    change with this id was reported differently before.
    """
    require_plausible(now, change.at)
    values = change.model_dump(exclude={"source", "at"})
    new = Change(**values, happened_at=change.at or now, clock_ahead=is_ahead(change.at, now))
    source_id = MANUAL_SOURCE_ID if change.source is None else await store.source_named(session, change.source)
    tx = await session.connection()
    stored, is_new = await changes.record(tx, new, source_id=source_id, now=now, strict=change.at is not None)
    response.status_code = 201 if is_new else 200
    return ChangeResponse.model_validate(stored)


@router.get(
    "/api/v1/changes",
    response_model=CountedPage[ChangeResponse],
    responses=problem_responses(),
    tags=["deployments"],
    summary="List changes",
)
async def list_changes(
    _: Reader,
    tx: Tx,
    now: Now,
    paging: Pages,
    service: Services = [],  # noqa: B006  fastapi copies it
    environment: Environments = [],  # noqa: B006
    start: Annotated[
        When | None, Query(alias="from", description=f"Only changes from this time on. {TIME}", examples=["-7d"])
    ] = None,
    end: Annotated[When | None, Query(alias="to", description=f"Only changes before this time. {TIME}")] = None,
    q: Contained = None,
    sort: Sorted = TimeSort.NEWEST,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[ChangeResponse]:
    """Includes deployments that deployed what was running already; other deployments are listed by
    `GET /api/v1/deployments`. `q` is searched in the id, the summary, the version and the hash of the commit.
    """
    filters = Filters(service, environment, *times_between(start, end, now=now), q)
    key, oldest_first = paging.after_in(sort, datetime, str), sort is TimeSort.OLDEST
    rows = await changes.changes(tx, filters, after=key, oldest_first=oldest_first, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda each: (sort.value, each.happened_at, each.key))
    return CountedPage(
        items=[ChangeResponse.model_validate(each) for each in items],
        next_cursor=cursor,
        total=await changes.count_changes(tx, filters) if count else None,
    )
