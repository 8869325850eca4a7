"""Queries of incidents over HTTP: the list, its export, one incident, its alerts and its timeline."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.base import db
from app.base.errors import Invalid
from app.base.http.auth import Reader
from app.base.http.context import Knobs, Now, Session, context_of
from app.base.http.csv import CHUNK, CSV, attached, cells, written
from app.base.http.fields import At, IncidentInPath, Name, Words
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.base.schema import Incident
from app.base.severity import SeverityName, severity_name, severity_number
from app.incidents import actions, timeline, views
from app.incidents.api.answer import Answering, IncidentModel, columns_of, models_of
from app.incidents.measures.measures import MEASURES, IncidentStatus

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])


def _label(value: str) -> str:
    if "=" not in value[1:]:
        message = "a label filter has the form name=value"
        raise ValueError(message)
    return value


Label = Annotated[Words, AfterValidator(_label)]


def _filters(
    status: Annotated[IncidentStatus | None, Query(description="`open` means not acknowledged yet")] = None,
    service: Annotated[Name | None, Query()] = None,
    severity: Annotated[SeverityName | None, Query()] = None,
    source: Annotated[Name | None, Query(description="Only incidents with an alert from this source")] = None,
    since: Annotated[
        At | None, Query(alias="from", description="Only incidents detected at or after this time")
    ] = None,
    until: Annotated[At | None, Query(alias="to", description="Only incidents detected before this time")] = None,
    label: Annotated[
        list[Label],
        Query(
            description="`name=value`: only incidents with an alert that has this label; may be repeated", max_length=10
        ),
    ] = [],  # noqa: B006  fastapi copies it
) -> views.Filters:
    if since and until and since > until:
        message = "`from` must not be after `to`"
        raise Invalid(message)
    return views.Filters(
        status=status,
        service=service,
        severity=severity_number(severity) if severity else None,
        source=source,
        detected_from=since,
        detected_to=until,
        labels=[(text[0] + text[1:].partition("=")[0], text[1:].partition("=")[2]) for text in label],
    )


Filtered = Annotated[views.Filters, Depends(_filters)]


@router.get("", response_model=Page[IncidentModel], responses=problem_responses(), summary="List incidents")
async def list_incidents(
    _: Reader, session: Session, now: Now, settings: Knobs, paging: Pages, filters: Filtered
) -> Page[IncidentModel]:
    """Newest first. Merged incidents are not listed, but can still be fetched by number."""
    key = paging.after(datetime, int)
    rows = await views.incidents(session, filters, before=key, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row.began_at, row.number))
    return Page(items=await models_of(session, items, settings=settings, now=now), next_cursor=cursor)


@router.get(
    ".csv",
    summary="Export incidents as CSV",
    response_class=StreamingResponse,
    responses=problem_responses() | CSV,
)
async def export_incidents(
    _: Reader, request: Request, now: Now, settings: Knobs, filters: Filtered
) -> StreamingResponse:
    """Every incident that matches the filters, newest first. The columns include its measures in seconds, its cost in
    each currency that has a rate and, if `AFTERMATH_LABOR` is set, the cost of labor. Missing values are empty cells.
    Text that a spreadsheet would interpret as a formula is prefixed with an apostrophe.
    """
    engine = context_of(request).engine

    async def chunk(before: tuple[datetime, int] | None) -> tuple[Sequence[Incident], list[IncidentModel]]:
        async with db.session(engine) as session:  # one per chunk, so that a slow client does not hold a connection
            rows = await views.incidents(session, filters, before=before, limit=CHUNK)
            return rows, await models_of(session, rows, settings=settings, now=now)

    async with db.session(engine) as session:
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
            if len(rows) < CHUNK:
                return
            rows, models = await chunk((rows[-1].began_at, rows[-1].number))

    return attached("incidents", parts())


_IN_MANY_COLUMNS = {"id", "labels", "measures", "cost", "labor"}  # or excluded
_EXPORTED = tuple(name for name in IncidentModel.model_fields if name not in _IN_MANY_COLUMNS)
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
    started_at: At
    ended_at: At | None
    end_reason: str | None
    severity: SeverityName
    alert_class: str
    labels: dict[str, str]
    annotations: dict[str, str]
    link: str
    flags: list[str] = Field(description="Anomalies in the alert as received, such as `ends_clamped`")
    first_seen_at: At = Field(description="When its first signal was received")
    last_seen_at: At = Field(description="When it was last reported, accurate to about a minute")


@router.get(
    "/{id}/alerts",
    response_model=Page[AlertModel],
    responses=problem_responses(404),
    summary="List the alerts of an incident",
)
async def list_alerts(_: Reader, session: Session, paging: Pages, ref: IncidentInPath) -> Page[AlertModel]:
    """Earliest first."""
    incident = await actions.find(session, ref)
    key = paging.after(datetime, UUID)
    rows = await views.alerts(session, incident.id, after=key, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row[0].started_at, row[0].series))
    models = [
        AlertModel.model_validate(
            columns_of(alert, AlertModel) | {"source": source, "severity": severity_name(alert.severity)}
        )
        for alert, source in items
    ]
    return Page(items=models, next_cursor=cursor)


class EntryModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    at: At = Field(description="When it happened")
    recorded_at: At = Field(description="When it was recorded")
    kind: str = Field(examples=["acknowledged"])
    by: str | None
    note: str | None
    detail: dict[str, Any] | None


@router.get(
    "/{id}/timeline",
    response_model=Page[EntryModel],
    responses=problem_responses(404),
    summary="Read the timeline of an incident",
)
async def read_timeline(_: Reader, session: Session, paging: Pages, ref: IncidentInPath) -> Page[EntryModel]:
    """Everything that happened to the incident, earliest first."""
    incident = await actions.find(session, ref)
    key = paging.after(datetime, int)
    rows = await timeline.entries(session, incident.id, after=key, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row.at, row.id))
    return Page(items=list(map(EntryModel.model_validate, items)), next_cursor=cursor)
