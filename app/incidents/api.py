"""Incidents over HTTP."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, Field, PlainSerializer, StringConstraints
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base import db
from app.base.errors import Invalid
from app.base.http.auth import Reader, Writer
from app.base.http.context import Knobs, Now, Tx, context_of
from app.base.http.csv import CHUNK, CSV, attached, cells, written
from app.base.http.fields import At, Contract, Name, Words
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.base.severity import SeverityName, severity_name, severity_number
from app.incidents import actions as people
from app.incidents import views
from app.incidents.actions import Said
from app.incidents.impact import intervals as downtime
from app.incidents.impact import labor as labour
from app.incidents.impact.labor import Pay
from app.incidents.impact.store import costs_of
from app.incidents.measures.measures import (
    MEASURES,
    Facts,
    IncidentStatus,
    MeasureStatus,
    Priority,
    detected_at,
    measures,
    priority,
    service,
    severity,
    status,
)
from app.settings import Settings

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])

Money = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:.2f}", return_type=str)]
Share = Annotated[Decimal, PlainSerializer(str, return_type=str)]


class MeasureModel(BaseModel):
    seconds: float | None = Field(description="Set if and only if the status is `recorded`")
    status: MeasureStatus
    reason: str | None


class CostModel(BaseModel):
    """At the service's rates per hour, low, expected and high; what overlapping incidents share is split among them."""

    low: Money = Field(examples=["125.00"])
    expected: Money = Field(examples=["250.00"])
    high: Money = Field(examples=["500.00"])


class IncidentModel(BaseModel):
    id: UUID
    number: str = Field(examples=["INC-1"])
    title: str
    service: str
    severity: SeverityName
    priority: Priority
    status: IncidentStatus
    sources: list[str]
    key: str = Field(description="Same key, same trouble", examples=['service="checkout"'])
    labels: dict[str, str] = Field(description="What all its alerts have in common")
    detected_at: At
    impact_started_at: At | None = Field(
        description="When users were first harmed: as a person stated it, else as an alert's annotation `for` tells"
    )
    acknowledged_at: At | None
    acknowledged_by: str | None
    identified_at: At | None
    mitigated_at: At | None
    first_resolved_at: At | None
    resolved_at: At | None
    end_reason: str | None = Field(
        description="Why its last alert ended; `recovered`, `superseded` and `manual` are recoveries"
    )
    settled: bool = Field(description="Resolved for long enough to have been counted into the Prometheus histograms")
    reopened: int = Field(description="How often it came back after a recovery")
    alerts: int
    open_alerts: int
    still_firing: bool = Field(description="A person resolved it, and its alerts are still repeated as firing")
    merged_into: str | None = Field(description="The incident it is part of; then it is in no list and no metric")
    impact: Share | None = Field(description="Share of the hourly cost as a person stated it; null: by severity")
    measures: dict[str, MeasureModel]
    cost: dict[str, CostModel] | None = Field(description="By currency; null: the service has no rate, which is not 0")
    labour: dict[str, CostModel] | None = Field(
        description="What the time of responders cost, never part of `cost`; null: nobody is known to have worked, or "
        "`AFTERMATH_LABOUR` says not what an hour costs"
    )


async def _models(tx: AsyncConnection, rows: Sequence[Any], settings: Settings, now: datetime) -> list[IncidentModel]:
    names = await views.source_names(tx)
    winners = await views.numbers(tx, [row.merged_into for row in rows if row.merged_into is not None])
    costs = await costs_of(tx, rows, now=now, weights=settings.impact)
    return [_model(row, names, winners, costs.get(row.id), settings.labour, now) for row in rows]


def _model(row: Any, sources: Any, winners: Any, cost: Any, pay: Pay | None, now: datetime) -> IncidentModel:
    facts = Facts.of(row)
    worked = labour.of_incident(facts, pay, now=now) if pay else {}
    return IncidentModel.model_validate(
        {
            "id": row.id,
            "number": f"INC-{row.number}",
            "title": row.title_stated or row.title,
            "service": service(facts),
            "severity": severity_name(severity(facts)),
            "priority": priority(facts),
            "status": status(facts),
            "sources": [sources[id_] for id_ in row.source_ids if id_ != 0],
            "key": row.key,
            "labels": row.labels,
            "detected_at": detected_at(facts),
            "impact_started_at": row.impact_started_at,
            "acknowledged_at": row.acknowledged_at,
            "acknowledged_by": row.acknowledged_by,
            "identified_at": row.identified_at,
            "mitigated_at": row.mitigated_at,
            "first_resolved_at": row.first_ended_at,
            "resolved_at": row.ended_at,
            "end_reason": row.end_reason if row.ended_at else None,
            "settled": row.settled_at is not None,
            "reopened": row.reopened,
            "alerts": row.alerts,
            "open_alerts": row.open_alerts,
            "still_firing": row.still_firing,
            "merged_into": f"INC-{winners[row.merged_into]}" if row.merged_into else None,
            "impact": row.impact_stated,
            "measures": {
                name: {"seconds": measured.seconds, "status": measured.status, "reason": measured.reason}
                for name, measured in measures(facts).items()
            },
            "cost": cost and {currency: _cost_model(amount) for currency, amount in cost.items()},
            "labour": {currency: _cost_model(amount) for currency, amount in downtime.shown(worked).items()} or None,
        }
    )


def _cost_model(amount: Any) -> dict[str, Decimal]:
    return {"low": amount.low, "expected": amount.expected, "high": amount.high}


async def _shown(
    tx: AsyncConnection, ref: people.Ref, settings: Settings, now: datetime, response: Response
) -> IncidentModel:
    row = await people.find(tx, ref)
    response.headers["ETag"] = people.etag(row.version)
    [model] = await _models(tx, [row], settings, now)
    return model


RefText = Annotated[
    str,
    Path(description="The uuid of an incident, or its number as `INC-1`", examples=["INC-1"]),
    StringConstraints(pattern=r"^(INC-[1-9][0-9]{0,17}|[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})$"),
]


def _ref_of(text: str) -> people.Ref:
    return int(text[4:]) if text.startswith("INC-") else UUID(text)


def _label(value: str) -> str:
    if "=" not in value[1:]:
        message = "a label filter reads name=value"
        raise ValueError(message)
    return value


Label = Annotated[Words, AfterValidator(_label)]


def _filters(
    status: Annotated[IncidentStatus | None, Query(description="open: nobody has acknowledged it yet")] = None,
    service: Annotated[Name | None, Query()] = None,
    severity: Annotated[SeverityName | None, Query()] = None,
    source: Annotated[Name | None, Query(description="An alert of this source is among the evidence")] = None,
    since: Annotated[At | None, Query(alias="from", description="Detected at or after")] = None,
    until: Annotated[At | None, Query(alias="to", description="Detected before")] = None,
    label: Annotated[
        list[Label],
        Query(description="`name=value`: an alert of the evidence has this label; may be repeated", max_length=10),
    ] = [],  # noqa: B006  fastapi copies it
) -> views.Filters:
    if since and until and since > until:
        message = "`from` lies after `to`"
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
    _: Reader, tx: Tx, now: Now, settings: Knobs, paging: Pages, filters: Filtered
) -> Page[IncidentModel]:
    """Newest first. Merged incidents are left out; their number still leads to them."""
    key = paging.after(datetime, int)
    rows = await views.incidents(tx, filters, before=key, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row.began_at, row.number))
    return Page(items=await _models(tx, items, settings, now), next_cursor=cursor)


@router.get(
    ".csv",
    summary="Export incidents as CSV",
    response_class=StreamingResponse,
    responses=problem_responses() | CSV,
)
async def export_incidents(
    _: Reader, request: Request, now: Now, settings: Knobs, filters: Filtered
) -> StreamingResponse:
    """All incidents that the list has, newest first, with their measures in seconds and, for each currency that a
    service has a rate in, their cost; then their labour, if it is priced. An empty cell: there is none. Text that a
    spreadsheet would take for a formula has an apostrophe before it.
    """
    engine = context_of(request).engine

    async def chunk(before: tuple[datetime, int] | None) -> tuple[Sequence[Any], list[IncidentModel]]:
        async with db.transaction(engine) as tx:  # one each, so that a slow reader keeps no connection
            rows = await views.incidents(tx, filters, before=before, limit=CHUNK)
            return rows, await _models(tx, rows, settings, now)

    async with db.transaction(engine) as tx:
        money = [("cost", currency) for currency in await views.currencies(tx)]
    if settings.labour is not None:
        money.append(("labour", settings.labour.currency))
    first = await chunk(None)  # before the answer begins, so that what fails is told as a problem

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


_IN_MANY_COLUMNS = {"id", "labels", "measures", "cost", "labour"}  # or in none
_EXPORTED = tuple(name for name in IncidentModel.model_fields if name not in _IN_MANY_COLUMNS)
_AMOUNTS = ("low", "expected", "high")


def _columns(money: Sequence[tuple[str, str]]) -> list[str]:
    return [
        *_EXPORTED,
        *(f"{measure.name}_{part}" for measure in MEASURES for part in ("seconds", "status")),
        *(f"{line}_{currency.lower()}_{amount}" for line, currency in money for amount in _AMOUNTS),
    ]


class Declaration(Contract):
    title: Annotated[Name, Field(examples=["Payments fail for some customers"])]
    service: Annotated[Name, Field(examples=["payments"])]
    severity: SeverityName = "sev3"
    impact_started_at: At | None = Field(None, description="When users were first harmed; left out: not known")
    detected_at: At | None = Field(None, description="Left out: now")
    by: Name | None = Field(None, examples=["ada"])
    note: Words | None = None


@router.post(
    "", status_code=201, response_model=IncidentModel, responses=problem_responses(), summary="Declare an incident"
)
async def declare(
    _: Writer, tx: Tx, now: Now, settings: Knobs, response: Response, declaration: Declaration
) -> IncidentModel:
    """For trouble that no monitoring saw. Open until a person resolves it."""
    declared = await people.declare(
        tx,
        title=declaration.title,
        service=declaration.service,
        severity=severity_number(declaration.severity),
        impact_started_at=declaration.impact_started_at,
        said=Said(declaration.detected_at or now, declaration.by, declaration.note),
        now=now,
    )
    model = await _shown(tx, declared, settings, now, response)
    response.headers["Location"] = f"/api/v1/incidents/{model.number}"
    return model


@router.get("/{id}", response_model=IncidentModel, responses=problem_responses(404), summary="Get an incident")
async def get_incident(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: Knobs,
    response: Response,
    id: RefText,  # noqa: A002
) -> IncidentModel:
    """By uuid or number. The ETag is for `If-Match` of a PATCH."""
    return await _shown(tx, _ref_of(id), settings, now, response)


class Amendment(Contract):
    """Only what is sent is changed; null takes a stated word back, so that what the alerts say counts again."""

    title: Name | None = None
    severity: SeverityName | None = None
    service: Name | None = None
    impact: Annotated[Decimal, Field(ge=0, le=1, max_digits=10, decimal_places=6)] | None = Field(
        None, description="Share of the hourly cost, 0 to 1", examples=["0.25"]
    )
    impact_started_at: At | None = None
    detected_at: At | None = None
    by: Name | None = Field(None, description="Who corrects it, for the timeline")


_COLUMNS = {
    "title": "title_stated",
    "severity": "severity_stated",
    "service": "service_stated",
    "impact": "impact_stated",
    "impact_started_at": "impact_started_at_stated",
    "detected_at": "detected_at_stated",
}


@router.patch(
    "/{id}", response_model=IncidentModel, responses=problem_responses(404, 409, 412), summary="Correct an incident"
)
async def amend(
    _: Writer,
    tx: Tx,
    now: Now,
    settings: Knobs,
    response: Response,
    id: RefText,  # noqa: A002
    amendment: Amendment,
    if_match: Annotated[str | None, Header(max_length=100, description="Only if it is still at this ETag")] = None,
) -> IncidentModel:
    """A person's word goes over what the alerts say, and is kept in the timeline."""
    changes: dict[str, Any] = {
        _COLUMNS[name]: value for name, value in amendment.model_dump(exclude_unset=True, exclude={"by"}).items()
    }
    if changes.get("severity_stated"):
        changes["severity_stated"] = severity_number(changes["severity_stated"])
    changed = await people.amend(tx, _ref_of(id), changes, by=amendment.by, if_match=if_match, now=now)
    return await _shown(tx, changed, settings, now, response)


class Word(Contract):
    """What a person says happened."""

    at: At | None = Field(None, description="When it happened; left out: now")
    by: Name | None = Field(None, examples=["ada"])
    note: Words | None = None

    def said(self, now: datetime) -> Said:
        return Said(self.at or now, self.by, self.note)


class MilestoneWord(Word):
    milestone: Literal["identified", "mitigated"]


@router.post(
    "/{id}/acknowledge",
    response_model=IncidentModel,
    responses=problem_responses(404, 409),
    summary="Acknowledge an incident",
)
async def acknowledge(
    _: Writer,
    tx: Tx,
    now: Now,
    settings: Knobs,
    response: Response,
    id: RefText,  # noqa: A002
    word: Word | None = None,
) -> IncidentModel:
    """The first one counts; saying it again changes nothing. Of a resolved incident only an earlier `at` is taken."""
    word = word or Word()
    said = None if word.at is None and word.note is None else word.said(now)
    changed = await people.acknowledge(tx, _ref_of(id), said, by=word.by, now=now)
    return await _shown(tx, changed, settings, now, response)


@router.post(
    "/{id}/resolve", response_model=IncidentModel, responses=problem_responses(404, 409), summary="Resolve an incident"
)
async def resolve(
    _: Writer,
    tx: Tx,
    now: Now,
    settings: Knobs,
    response: Response,
    id: RefText,  # noqa: A002
    word: Word | None = None,
) -> IncidentModel:
    """Ends its open alerts there and then. Their repeats do not reopen it, `still_firing` says so; a new alert does."""
    word = word or Word()
    changed = await people.resolve(tx, _ref_of(id), word.said(now), at_stated=word.at is not None, now=now)
    return await _shown(tx, changed, settings, now, response)


@router.post(
    "/{id}/reopen", response_model=IncidentModel, responses=problem_responses(404, 409), summary="Reopen an incident"
)
async def reopen(
    _: Writer,
    tx: Tx,
    now: Now,
    settings: Knobs,
    response: Response,
    id: RefText,  # noqa: A002
    word: Word | None = None,
) -> IncidentModel:
    """It is not over after all: the outage goes on without a gap, until its alerts end or a person resolves it."""
    changed = await people.reopen(tx, _ref_of(id), (word or Word()).said(now), now=now)
    return await _shown(tx, changed, settings, now, response)


@router.post(
    "/{id}/milestones", response_model=IncidentModel, responses=problem_responses(404, 409), summary="Set a milestone"
)
async def set_milestone(
    _: Writer,
    tx: Tx,
    now: Now,
    settings: Knobs,
    response: Response,
    id: RefText,  # noqa: A002
    word: MilestoneWord,
) -> IncidentModel:
    """`identified` (the cause is known) or `mitigated` (users are no longer harmed). Neither is required."""
    changed = await people.milestone(tx, _ref_of(id), word.milestone, word.said(now), now=now)
    return await _shown(tx, changed, settings, now, response)


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
    flags: list[str] = Field(description="What was odd about it, such as `ends_clamped`")
    first_seen_at: At = Field(description="When the first signal of it arrived")
    last_seen_at: At = Field(description="When it was last told of, to the minute")


@router.get(
    "/{id}/alerts", response_model=Page[AlertModel], responses=problem_responses(404), summary="List the evidence"
)
async def list_alerts(_: Reader, tx: Tx, paging: Pages, id: RefText) -> Page[AlertModel]:  # noqa: A002
    """The alerts of an incident, earliest first."""
    incident = await people.find(tx, _ref_of(id))
    key = paging.after(datetime, UUID)
    rows = await views.alerts(tx, incident.id, after=key, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row.started_at, row.series))
    models = [
        AlertModel.model_validate(dict(row._mapping) | {"severity": severity_name(row.severity)}) for row in items
    ]
    return Page(items=models, next_cursor=cursor)


class EntryModel(BaseModel):
    at: At = Field(description="When it happened")
    recorded_at: At = Field(description="When it was told")
    kind: str = Field(examples=["acknowledged"])
    by: str | None
    note: str | None
    detail: dict[str, Any] | None


@router.get(
    "/{id}/timeline", response_model=Page[EntryModel], responses=problem_responses(404), summary="Read the timeline"
)
async def read_timeline(_: Reader, tx: Tx, paging: Pages, id: RefText) -> Page[EntryModel]:  # noqa: A002
    """Everything that happened to an incident, earliest first."""
    incident = await people.find(tx, _ref_of(id))
    key = paging.after(datetime, int)
    rows = await views.entries(tx, incident.id, after=key, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row.at, row.id))
    return Page(items=[EntryModel.model_validate(dict(row._mapping)) for row in items], next_cursor=cursor)


class Note(Contract):
    note: Annotated[Words, StringConstraints(min_length=1), Field(examples=["Rolled back to 1.41"])]
    at: At | None = Field(None, description="What time it is about; left out: now")
    by: Name | None = None


@router.post(
    "/{id}/timeline",
    status_code=201,
    response_model=IncidentModel,
    responses=problem_responses(404, 409),
    summary="Add a note",
)
async def add_note(
    _: Writer,
    tx: Tx,
    now: Now,
    settings: Knobs,
    response: Response,
    id: RefText,  # noqa: A002
    note: Note,
) -> IncidentModel:
    """Adds a note to the timeline."""
    changed = await people.note(tx, _ref_of(id), Said(note.at or now, note.by, note.note), now=now)
    return await _shown(tx, changed, settings, now, response)
