"""Queries of incidents over HTTP: the list, its export, one incident, its alerts and its timeline."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.errors import Invalid
from app.base.http.access.auth import Reader
from app.base.http.context import Now, Session, SettingsDep, context_of
from app.base.http.requests.fields import TIME, AtShown, IncidentInPath, Length, When, Words
from app.base.http.requests.filters import (
    Contained,
    Environments,
    Owners,
    Services,
    Severities,
    Sources,
    severity_numbers,
    times_between,
)
from app.base.http.requests.paging import Counted, CountedPage, Page, Pages, page_of
from app.base.http.responses.csv import CHUNK, CSV, Format, attached, cells, wants_csv, written
from app.base.http.responses.problems import problem_responses
from app.base.schema import Incident
from app.base.values.severity import SeverityName, severity_name
from app.incidents import actions
from app.incidents.api.answer import Answering, IncidentModel, ListedIncidentModel, columns_of, models_of
from app.incidents.measures.measures import MEASURES, IncidentStatus, Priority
from app.incidents.reading import listing, views
from app.settings import Settings

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])


def _label(value: str) -> str:
    if "=" not in value[1:]:
        message = "must have the form `name=value`"
        raise ValueError(message)
    return value


Label = Annotated[Words, AfterValidator(_label)]


def _filters(
    now: Now,
    status: Annotated[
        list[IncidentStatus],
        Query(description="`open` means not acknowledged yet; may be repeated", examples=[["open", "acknowledged"]]),
    ] = [],  # noqa: B006  fastapi copies it, as the other lists
    service: Services = [],  # noqa: B006
    environment: Environments = [],  # noqa: B006
    severity: Severities = [],  # noqa: B006
    priority: Annotated[list[Priority], Query(description="May be repeated", examples=[["critical"]])] = [],  # noqa: B006
    source: Sources = [],  # noqa: B006
    owner: Owners = [],  # noqa: B006
    since: Annotated[
        When | None,
        Query(alias="from", description=f"Only incidents detected at or after this time. {TIME}", examples=["-7d"]),
    ] = None,
    until: Annotated[
        When | None, Query(alias="to", description=f"Only incidents detected before this time. {TIME}")
    ] = None,
    acknowledged: Annotated[
        bool | None,
        Query(description="`true`: only incidents that were acknowledged, open or resolved; `false`: only others"),
    ] = None,
    test: Annotated[
        bool | None, Query(description="Only those that a person marked as tests, or only others; default: both")
    ] = None,
    min_duration: Annotated[
        Length | None,
        Query(
            description="Only those that lasted at least this long from detection to the end, or until now",
            examples=["1h"],
        ),
    ] = None,
    max_duration: Annotated[
        Length | None, Query(description="Only those that lasted at most this long, or have so far", examples=["24h"])
    ] = None,
    q: Contained = None,
    label: Annotated[
        list[Label],
        Query(
            description="`name=value`: only incidents with an alert that has this label; if repeated, with each of "
            "them",
            max_length=10,
        ),
    ] = [],  # noqa: B006
) -> views.Filters:
    begin, end = times_between(since, until, now=now)
    return views.Filters(
        status=status,
        service=service,
        environment=environment,
        severity=severity_numbers(severity),
        priority=priority,
        source=source,
        owner=owner,
        detected_from=begin,
        detected_to=end,
        acknowledged=acknowledged,
        test=test,
        duration=views.Duration(min_duration, max_duration, now) if min_duration or max_duration else None,
        text=q,
        labels=[(text[0] + text[1:].partition("=")[0], text[1:].partition("=")[2]) for text in label],
    )


Filtered = Annotated[views.Filters, Depends(_filters)]


Sorted = Annotated[
    views.Sort,
    Query(
        description="`severity`: most severe first; `duration`: open incidents first, then the longest. Ties are "
        "newest first"
    ),
]


@router.get(
    "", response_model=CountedPage[ListedIncidentModel], responses=problem_responses() | CSV, summary="List incidents"
)
async def list_incidents(
    _: Reader,
    request: Request,
    session: Session,
    now: Now,
    settings: SettingsDep,
    paging: Pages,
    filters: Filtered,
    sort: Sorted = views.Sort.NEWEST,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
    format_: Format = None,
) -> CountedPage[ListedIncidentModel] | StreamingResponse:
    """An incident must match at least one value of each filter. Merged incidents are not listed,
    but can still be fetched by number.

    As CSV, the response has all matching incidents, with the measures in seconds, the cost in each currency that has a
    rate and, if `AFTERMATH_LABOR` is set, the cost of labor.
    """
    if wants_csv(request, format_):
        if of_pages := {"limit", "cursor", "count"} & {*request.query_params}:
            message = f"CSV has the incidents of all pages; omit `{min(of_pages)}`"
            raise Invalid(message)
        return await csv_of(context_of(request).engine, settings, filters, sort=sort, now=now)
    key = paging.after_in(sort, int, datetime, int)
    rows, cut = await views.incidents(
        session, filters, sort=sort, after=key, limit=paging.limit + 1, bytes_at_most=settings.page_bytes
    )
    items, cursor = page_of(rows, paging, lambda row: (sort.value, *views.key_of(row, sort)), cut=cut)
    return CountedPage(
        items=await models_of(session, items, settings=settings, now=now),
        next_cursor=cursor,
        total=await listing.count(session, filters) if count else None,
    )


async def csv_of(
    engine: AsyncEngine,
    settings: Settings,
    filters: views.Filters,
    *,
    sort: views.Sort = views.Sort.NEWEST,
    now: datetime,
) -> StreamingResponse:
    """Every incident that matches the filters."""

    async def chunk(after: views.Key | None) -> tuple[Sequence[Incident], list[ListedIncidentModel]]:
        async with db.read_session(engine) as session:  # one per chunk: a slow client does not hold a connection
            rows, _ = await views.incidents(
                session, filters, sort=sort, after=after, limit=CHUNK, bytes_at_most=settings.page_bytes
            )
            return rows, await models_of(session, rows, settings=settings, now=now)

    async with db.read_session(engine) as session:
        money = [("cost", currency) for currency in await views.currencies(session)]
    if settings.labor is not None:
        money.append(("labor", settings.labor.currency))
    first = await chunk(None)  # before the response starts, so that a failure becomes an error response

    columns = _columns(money)

    async def parts() -> AsyncIterator[str]:
        yield written([columns])
        rows, models = first
        while rows:
            lines = map(cells, models)
            yield written([line.get(column, "") for column in columns] for line in lines)
            rows, models = await chunk(views.key_of(rows[-1], sort))

    return attached("incidents", parts())


_IN_MANY_COLUMNS = {"id", "labels", "measures", "cost", "labor"}  # or excluded
_EXPORTED = tuple(name for name in ListedIncidentModel.model_fields if name not in _IN_MANY_COLUMNS)
_AMOUNTS = ("low", "expected", "high")


def _columns(money: Sequence[tuple[str, str]]) -> list[str]:
    return [
        *_EXPORTED,
        *(f"{measure.name}_{part}" for measure in MEASURES for part in ("seconds", "status")),
        *(f"{line}_{currency.lower()}_{amount}" for line, currency in money for amount in _AMOUNTS),
    ]


@router.get("/{id}", response_model=IncidentModel, responses=problem_responses(404), summary="Get an incident")
async def get_incident(_: Reader, session: Session, answer: Answering, ref: IncidentInPath) -> IncidentModel:
    """By UUID or number. Send the ETag as `If-Match` with a PATCH."""
    return await answer(await actions.find(session, ref))


class AlertModel(BaseModel):
    """One episode of a series."""

    source: str
    fingerprint: str
    started_at: AtShown
    ended_at: AtShown | None
    end_reason: str | None
    environment: str | None = Field(description="Null: its labels name none")
    severity: SeverityName
    alert_class: str
    labels: dict[str, str]
    annotations: dict[str, str]
    link: str
    flags: list[str] = Field(
        description="Anomalies in the alert as received, such as `ends_clamped` or `severity_unrecognized`"
    )
    first_seen_at: AtShown = Field(description="When its first signal was received")
    last_seen_at: AtShown = Field(description="When it was last reported, accurate to about a minute")
    fired_at: AtShown | None = Field(description="When it was last reported as firing, to the minute")
    end_reported_at: AtShown | None = Field(
        description="When its end was last reported, to the minute; null if it has none, or only an inferred one"
    )


class SilenceModel(BaseModel):
    """A silence of an Alertmanager that suppressed alerts of the incident.

    It shows that someone knew of the alerts, but does not count as an acknowledgement.
    """

    source: str = Field(description="The source whose Alertmanager was polled")
    id: str = Field(description="As Alertmanager reports it, like the fields that follow")
    by: str = Field(description="Its author", examples=["ada"])
    comment: str
    matchers: str = Field(examples=['alertname="DiskFull", service="shop"'])
    starts_at: AtShown
    ends_at: AtShown
    first_seen_at: AtShown = Field(description="When it first suppressed an alert with the incident's grouping key")
    last_seen_at: AtShown = Field(description="When it last did")


class Silences(BaseModel):
    """Earliest first, at most 20."""

    items: list[SilenceModel]


@router.get(
    "/{id}/silences",
    response_model=Silences,
    responses=problem_responses(404),
    summary="List the silences of an incident",
)
async def list_silences(_: Reader, session: Session, ref: IncidentInPath) -> Silences:
    """Silences that suppressed notifications of its alerts. Only for sources that are reconciled with Alertmanager."""
    rows = await views.silences(session, await actions.find(session, ref))
    return Silences(
        items=[SilenceModel.model_validate(columns_of(row, SilenceModel) | {"source": source}) for row, source in rows]
    )


@router.get(
    "/{id}/alerts",
    response_model=Page[AlertModel],
    responses=problem_responses(404),
    summary="List the alerts of an incident",
)
async def list_alerts(
    _: Reader, session: Session, settings: SettingsDep, paging: Pages, ref: IncidentInPath
) -> Page[AlertModel]:
    """Earliest first."""
    incident = await actions.find(session, ref)
    key = paging.after(datetime, UUID)
    rows, cut = await views.alerts(
        session, incident.id, after=key, limit=paging.limit + 1, bytes_at_most=settings.page_bytes
    )
    items, cursor = page_of(rows, paging, lambda row: (row[0].started_at, row[0].series), cut=cut)
    models = [
        AlertModel.model_validate(
            columns_of(alert, AlertModel) | {"source": source, "severity": severity_name(alert.severity)}
        )
        for alert, source in items
    ]
    return Page(items=models, next_cursor=cursor)
