"""Deployments over HTTP: the doors that tell of them, which incident each caused, and DORA's numbers."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, PlainSerializer, StringConstraints, model_validator
from sqlalchemy.ext.asyncio import AsyncConnection

from app import db
from app.deployments import store
from app.deployments.deployment import (
    CLOCK_SKEW,
    COMMITS_AT_MOST,
    ID,
    Commit,
    Deployment,
    Outcome,
    Report,
)
from app.deployments.dora import Basis, Confidence, Dora, Durations, Failure, Ratio, cost_of_downtime
from app.deployments.source import Ignored, Rejected, Source, read
from app.deployments.sources import SOURCES
from app.deployments.store import Filters
from app.errors import Invalid
from app.incidents.batch import new_id
from app.incidents.definitions import FORMULAS
from app.incidents.money import Rate
from app.incidents.people import Ref, Said
from app.sheet import Line, Table, also_as_csv, cells
from app.spool import Kept
from app.telemetry import TOLD
from app.web import (
    EARLIEST,
    At,
    Contract,
    Name,
    Now,
    Page,
    Pages,
    Reader,
    Tx,
    Words,
    Writer,
    admit,
    context_of,
    keep,
    page_of,
    presented_token,
    problem_responses,
    rfc3339,
)

router = APIRouter()

DEFAULT_PERIOD = timedelta(days=30)
FAILURES_AT_MOST = 500
PEOPLE = 0  # the source of what is told with a token of scope `write`


# — deployments —


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


class DeploymentShown(BaseModel):
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
    tx: Tx,
    now: Now,
    told: Annotated[
        DeploymentContract,
        Body(examples=[dict(SOURCES["deployments"].example)]),
    ],
    response: Response,
) -> DeploymentShown:
    """Idempotent: the same report again changes nothing. Reports of one id may come in any order, from here and from
    the doors: the last final outcome counts, and a stale `in_progress` undoes none. 201 if the report is new.
    """
    latest = max((at for at in (told.started_at, told.finished_at) if at is not None), default=now)
    if latest > now + CLOCK_SKEW:
        message = f"{rfc3339(latest)} is still to come; deployments have happened"
        raise Invalid(message)
    report = Report(**(told.model_dump() | {"commits": tuple(Commit(each.sha, each.at) for each in told.commits)}))
    whole, is_new = await store.report(tx, report, source_id=PEOPLE, now=now)
    response.status_code = 201 if is_new else 200
    return _deployment_shown(whole)


@router.get(
    "/api/v1/deployments",
    response_model=Page[DeploymentShown],
    responses=problem_responses(),
    tags=["deployments"],
    summary="List deployments",
)
async def list_deployments(
    _: Reader,
    tx: Tx,
    paging: Pages,
    service: Annotated[Name | None, Query(examples=["checkout"])] = None,
    environment: Annotated[Name | None, Query(examples=["production"])] = None,
    outcome: Annotated[Outcome | None, Query()] = None,
    since: Annotated[At | None, Query(alias="from", description="Happened at or after")] = None,
    until: Annotated[At | None, Query(alias="to", description="Happened before")] = None,
) -> Page[DeploymentShown]:
    """Newest first."""
    filters = Filters(service, environment, outcome, since, until)
    rows = await store.deployments(tx, filters, before=_key(paging.after(datetime, str)), limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda each: (each.happened_at, each.id))
    return Page(items=[_deployment_shown(each) for each in items], next_cursor=cursor)


@router.get(
    "/api/v1/deployments/{id}",
    response_model=DeploymentShown,
    responses=problem_responses(404),
    tags=["deployments"],
    summary="Show a deployment",
)
async def show_deployment(
    _: Reader,
    tx: Tx,
    id: Annotated[str, Path(examples=["checkout-1742"]), StringConstraints(pattern=ID)],  # noqa: A002
) -> DeploymentShown:
    """What all its reports amount to."""
    return _deployment_shown(await store.find(tx, id))


def _key(after: tuple[Any, ...] | None) -> tuple[datetime, str] | None:
    return (after[0], after[1]) if after else None


def _deployment_shown(whole: Deployment) -> DeploymentShown:
    return DeploymentShown(
        id=whole.id,
        service=whole.service,
        environment=whole.environment,
        production=whole.production,
        version=whole.version,
        sha=whole.sha,
        link=whole.link,
        outcome=whole.outcome,
        started_at=whole.started_at,
        finished_at=whole.finished_at,
        happened_at=whole.happened_at,
        commits=[CommitShown(sha=commit.sha, at=commit.at) for commit in whole.commits],
        unplanned=whole.unplanned,
        made_for=whole.made_for,
        needed_intervention=whole.needed_intervention,
    )


# — doors —


class DeploymentReceipt(BaseModel):
    """Sent after the commit: what is told here is on disk."""

    delivery_id: UUID
    verdict: Literal["recorded", "repeated", "ignored", "quarantined"] = Field(
        description="New, known already, not about a deployment, or unreadable and kept"
    )
    deployment: str | None = Field(description="The id of the deployment it is about")
    reason: str | None = Field(description="Why it was ignored or quarantined")


class DeploymentSpooled(BaseModel):
    """Sent once the report is on disk, while the database is away."""

    delivery_id: UUID
    spooled: Literal[True] = Field(True, description="What it does will be seen when the database is back")


_DOOR = """Takes one report of a deployment and answers after it is durable.

What is JSON but cannot be read goes to quarantine and is answered with 200 all the same: no sender mends a body because
of a status. While the database is away reports go to the spool and are answered 202; a full spool is 503 with
`Retry-After`."""

PATIENCE_SECONDS = 5.0  # with a database that hangs; GitHub waits 10


async def _take(request: Request, kind: Source, now: datetime, token: str | None) -> DeploymentReceipt | JSONResponse:
    if token is None and kind.token_header is not None:
        token = request.headers.get(kind.token_header)
    source, body = await admit(request, kind.kind, kind.verify, now=now, token=token or presented_token(request))
    said = read(kind, body, headers=request.headers, source=source.name, received_at=now)
    context, delivery_id = context_of(request), new_id(now)
    request.scope[TOLD] = told = {"source": source.id, "delivery": delivery_id}
    try:
        if context.reach.away:
            raise db.Away  # noqa: TRY301  as if it had been asked
        async with asyncio.timeout(PATIENCE_SECONDS), db.transaction(context.engine) as tx:
            receipt = await _tell(tx, said, body, delivery_id, source_id=source.id, source=source.name, now=now)
    except Exception as error:
        # What says nothing of a deployment is no loss.
        if not db.is_unreachable(error) or isinstance(said, Ignored):
            raise
        context.reach.suspect()
        # Whether its commit came through or not is unknown; the drain knows it again by its id.
        await keep(context.spool, Kept(delivery_id, kind.kind, source.name, now, body))
        told["spooled"] = 1
        return JSONResponse(DeploymentSpooled(delivery_id=delivery_id).model_dump(mode="json"), 202)
    told["verdict"] = receipt.verdict
    return receipt


async def _tell(
    tx: AsyncConnection,
    said: Report | Ignored | Rejected,
    body: bytes,
    delivery_id: UUID,
    *,
    source_id: int,
    source: str,
    now: datetime,
) -> DeploymentReceipt:
    receipt = DeploymentReceipt(delivery_id=delivery_id, verdict="ignored", deployment=None, reason=None)
    match said:
        case Report():
            whole, is_new = await store.report(tx, said, source_id=source_id, now=now)
            receipt.deployment, receipt.verdict = whole.id, "recorded" if is_new else "repeated"
        case Ignored():
            receipt.reason = said.reason
        case Rejected():
            receipt.reason, receipt.verdict = said.reason, "quarantined"
    await store.record_delivery(
        tx,
        delivery_id=receipt.delivery_id,
        source_id=source_id,
        source=source,
        verdict=receipt.verdict,
        rejected=said if isinstance(said, Rejected) else None,
        body=body,
        now=now,
    )
    return receipt


async def replay(
    tx: AsyncConnection,
    kind: str,
    body: bytes,
    *,
    source_id: int,
    source: str,
    received_at: datetime,
    delivery_id: UUID | None = None,
) -> tuple[UUID, str, str | None]:
    """Reads a body from quarantine or from the spool as if it came anew at that time: the delivery, its verdict, and
    the deployment.

    Headers are not kept: of GitHub's events only `deployment_status` is, and a form begins as one.
    """
    headers = {"content-type": "application/x-www-form-urlencoded"} if body.startswith(b"payload=") else {}
    said = read(SOURCES[kind], body, headers=headers, source=source, received_at=received_at)
    receipt = await _tell(
        tx, said, body, delivery_id or new_id(received_at), source_id=source_id, source=source, now=received_at
    )
    return receipt.delivery_id, receipt.verdict, receipt.deployment


def _add_door(kind: Source) -> None:
    async def take(request: Request, now: Now) -> DeploymentReceipt | JSONResponse:
        return await _take(request, kind, now, None)

    async def take_with_token(
        request: Request, now: Now, token: Annotated[str, Path(description="A token of scope `ingest`", max_length=200)]
    ) -> DeploymentReceipt | JSONResponse:
        return await _take(request, kind, now, token)

    body = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": dict(kind.example)}},
        }
    }
    operation = kind.kind.replace("-", "_")
    for method in ("POST", "PUT"):
        shown = " (PUT)" if method == "PUT" else ""
        common: dict[str, Any] = {
            "methods": [method],
            "response_model": DeploymentReceipt,
            "responses": problem_responses(400, 413, 415)
            | {202: {"model": DeploymentSpooled, "description": "Kept on disk until the database is back"}},
            "tags": ["deployments"],
            "description": f"{_DOOR}\n\n{kind.describes}",
        }
        router.add_api_route(
            f"/webhooks/{kind.kind}",
            take,
            summary=f"Deliver from {kind.name}{shown}",
            operation_id=f"{method.lower()}_{operation}",
            openapi_extra=body | {"security": [{"bearer": []}, {"basic": []}]},
            **common,
        )
        router.add_api_route(
            f"/webhooks/{kind.kind}/{{token}}",
            take_with_token,
            summary=f"Deliver from {kind.name}, token in the path{shown}",
            operation_id=f"{method.lower()}_{operation}_with_token",
            openapi_extra=body | {"security": []},
            **common,
        )


for _kind in SOURCES.values():
    _add_door(_kind)


# — causes —

RefText = Annotated[
    str,
    Path(description="The uuid of an incident, or its number as `INC-1`", examples=["INC-1"]),
    StringConstraints(pattern=r"^(INC-[1-9][0-9]{0,17}|[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})$"),
]


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


def _ref_of(text: str) -> Ref:
    return int(text[4:]) if text.startswith("INC-") else UUID(text)


@router.get(
    "/api/v1/incidents/{id}/cause",
    response_model=CauseShown,
    responses=problem_responses(404),
    tags=["deployments"],
    summary="Show which deployment caused an incident",
)
async def show_cause(_: Reader, tx: Tx, id: RefText) -> CauseShown:  # noqa: A002
    """As far as it is known, and how. Worked out anew each time, so that what is told late counts; a person's word
    stands above all else.
    """
    return _cause_shown(await store.cause(tx, _ref_of(id)))


@router.put(
    "/api/v1/incidents/{id}/cause",
    response_model=CauseShown,
    responses=problem_responses(404, 409),
    tags=["deployments"],
    summary="State which deployment caused an incident",
)
async def state_cause(
    _: Writer,
    tx: Tx,
    now: Now,
    id: RefText,  # noqa: A002
    word: CauseContract,
) -> CauseShown:
    """The last word counts, null as well; each is kept in the timeline."""
    await store.state_cause(tx, _ref_of(id), word.deployment_id, Said(now, word.by, word.note), now=now)
    return _cause_shown(await store.cause(tx, _ref_of(id)))


def _cause_shown(cause: store.Cause) -> CauseShown:
    link, said = cause.link, cause.said
    return CauseShown(
        deployment=_deployment_shown(link.deployment) if link and link.deployment else None,
        basis=link.basis if link else None,
        confidence=link.confidence if link else None,
        stated_at=said.at if said else None,
        by=said.by if said else None,
        note=said.note if said else None,
    )


# — DORA —

Seconds = Annotated[float | None, Field(description="Null: nothing was recorded, which is not 0")]
Money = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:.2f}", return_type=str)]
Links = Annotated[list[str], Field(description="Addresses, below this service, of what is behind the number")]


class DoraFilters(BaseModel):
    since: At = Field(serialization_alias="from")
    until: At = Field(serialization_alias="to", description="Not included")
    service: str | None = Field(description="Null: all")
    environment: str | None = Field(description="Null: all that count as production")


class FrequencyModel(BaseModel):
    n: int
    days: float
    per_day: float | None
    low: float | None
    high: float | None
    formula: str
    links: Links


class DurationsModel(BaseModel):
    """`low` and `high` bound the median. Of fewer than 10 values there are the values and no statistic."""

    n: int
    values: list[float] | None = Field(description="The single values, rising; null: there are 10 or more")
    median_seconds: Seconds
    low_seconds: Seconds
    high_seconds: Seconds
    p90_seconds: Seconds
    mean_seconds: Seconds
    pending: int = Field(description="May still end")
    left_out: int = Field(description="Without a duration that counts")
    formula: str
    links: Links


class LeadTimeModel(DurationsModel):
    without_commit_times: int = Field(description="Deployments that tell no time of a commit, and so are not in here")


class RatioModel(BaseModel):
    k: int
    n: int
    value: float | None = Field(description="k / n; null: nothing happened, which is not 0")
    low: float | None
    high: float | None
    formula: str
    links: Links


class ReworkModel(RatioModel):
    unplanned_without_incident: int = Field(description="Unplanned, but they name no incident: not in `k`")


class CausedModel(BaseModel):
    incident: str
    basis: Basis
    confidence: Confidence


class FailureModel(BaseModel):
    deployment: str
    marked: bool = Field(description="Somebody says so: `needed_intervention`")
    incidents: list[CausedModel]


class UnlinkedModel(RatioModel):
    bases: dict[Basis, int] = Field(description="By what the others are linked")


class FormulaCostModel(BaseModel):
    currency: str
    cost_per_hour: Money = Field(description="Expected")
    low: Money
    expected: Money
    high: Money


class CostFormulaModel(BaseModel):
    """The inputs as they are, and the product."""

    deployments: int
    change_fail_rate: float | None
    mean_hours_to_recover: float | None
    amounts: list[FormulaCostModel]
    why_none: str | None = Field(description="Why there is no amount")
    formula: str


class DoraAnswer(BaseModel):
    filters: DoraFilters
    deployment_frequency: FrequencyModel
    lead_time_for_changes: LeadTimeModel
    change_fail_rate: RatioModel
    failures: list[FailureModel] = Field(description="The deployments that failed, the first 500 of them")
    failed_deployment_recovery_time: DurationsModel
    time_to_recover: DurationsModel
    rework_rate: ReworkModel
    unlinked: UnlinkedModel
    cost: CostFormulaModel


def _rows(answer: DoraAnswer) -> Iterator[Line]:
    line = cells(answer)
    for each in answer.cost.amounts:
        line |= cells(each, f"cost_{each.currency.lower()}")
    yield line


def _values(answer: DoraAnswer) -> Iterator[Line]:
    place = cells(answer.filters)
    for name in ("lead_time_for_changes", "failed_deployment_recovery_time", "time_to_recover"):
        durations: DurationsModel = getattr(answer, name)
        for seconds in durations.values or ():
            yield place | {"number": name, "values": str(seconds)}


_VALUES = Table(_values, "A line for each value of what has fewer than 10; `number` says of which")


@router.get(
    "/api/v1/metrics/dora",
    response_model=DoraAnswer,
    responses=problem_responses(),
    tags=["metrics"],
    summary="DORA's numbers of a period",
)
@also_as_csv(router, "/api/v1/metrics/dora", _rows, lines="One line", tables={"values": _VALUES}, tags=["metrics"])
async def dora(
    _: Reader,
    tx: Tx,
    now: Now,
    since: Annotated[At | None, Query(alias="from", description="Left out: 30 days before `to`")] = None,
    until: Annotated[At | None, Query(alias="to", description="Not included; left out: now")] = None,
    service: Annotated[Name | None, Query(examples=["checkout"])] = None,
    environment: Annotated[Name | None, Query(description="Left out: what counts as production")] = None,
) -> DoraAnswer:
    """How often is deployed, how long a change takes, how many deployments fail their users, how long recovery takes:
    each with n, a 95 % interval and its formula. Compare a service with its own past, not with other services.
    """
    until = until or max(now, since or now)
    since = since or max(until - DEFAULT_PERIOD, EARLIEST + timedelta(seconds=1))
    if since > until:
        message = "`from` lies after `to`"
        raise Invalid(message)
    numbers, rates = await store.numbers(tx, begins=since, ends=until, of_service=service, environment=environment)
    asked = {"from": rfc3339(since), "to": rfc3339(until)} | ({"service": service} if service else {})
    incidents = [f"/api/v1/incidents?{urlencode(asked)}"]
    # Without an environment the numbers are those of production, which may have several.
    of = {"environment": environment} if environment else {}
    deployments = [f"/api/v1/deployments?{urlencode(asked | of)}"]
    failures = numbers.failures[:FAILURES_AT_MOST]
    behind = [f"/api/v1/deployments/{failure.deployment.id}" for failure in failures]
    caused = sorted({number for failure in failures for number, _link in failure.links})
    return DoraAnswer(
        filters=DoraFilters(since=since, until=until, service=service, environment=environment),
        deployment_frequency=FrequencyModel(
            n=numbers.frequency.n,
            days=numbers.frequency.days,
            per_day=numbers.frequency.per_day,
            low=numbers.frequency.low,
            high=numbers.frequency.high,
            formula=FORMULAS["deployment_frequency"],
            links=[f"{link}&outcome=succeeded" for link in deployments],
        ),
        lead_time_for_changes=LeadTimeModel(
            **_durations(numbers.lead_time, "lead_time_for_changes", deployments),
            without_commit_times=numbers.without_commit_times,
        ),
        change_fail_rate=RatioModel(**_ratio(numbers.change_fail_rate, "change_fail_rate", [*deployments, *behind])),
        failures=[_failure(failure) for failure in failures],
        failed_deployment_recovery_time=DurationsModel(
            **_durations(
                numbers.failed_deployment_recovery_time,
                "failed_deployment_recovery_time",
                [f"/api/v1/incidents/INC-{number}" for number in caused],
            )
        ),
        time_to_recover=DurationsModel(**_durations(numbers.time_to_recover, "dora_time_to_recover", incidents)),
        rework_rate=ReworkModel(
            **_ratio(numbers.rework_rate, "rework_rate", deployments),
            unplanned_without_incident=numbers.unplanned_without_incident,
        ),
        unlinked=UnlinkedModel(**_ratio(numbers.unlinked, "unlinked", incidents), bases=dict(numbers.bases)),
        cost=_cost(numbers, rates, service),
    )


def _durations(each: Durations, name: str, links: list[str]) -> dict[str, Any]:
    return {
        "n": each.n,
        "values": None if each.values is None else list(each.values),
        "median_seconds": each.median,
        "low_seconds": each.low,
        "high_seconds": each.high,
        "p90_seconds": each.p90,
        "mean_seconds": None if each.mean is None or each.values is not None else float(each.mean),
        "pending": each.pending,
        "left_out": each.left_out,
        "formula": FORMULAS[name],
        "links": links,
    }


def _ratio(each: Ratio, name: str, links: list[str]) -> dict[str, Any]:
    return {
        "k": each.k,
        "n": each.n,
        "value": each.value,
        "low": each.low,
        "high": each.high,
        "formula": FORMULAS[name],
        "links": links,
    }


def _failure(failure: Failure) -> FailureModel:
    return FailureModel(
        deployment=failure.deployment.id,
        marked=failure.marked,
        incidents=[
            CausedModel(incident=f"INC-{number}", basis=link.basis, confidence=link.confidence)
            for number, link in failure.links
        ],
    )


def _cost(numbers: Dora, rates: Any, service: str | None) -> CostFormulaModel:
    rate, recovery = numbers.change_fail_rate, numbers.failed_deployment_recovery_time
    hours = None if recovery.mean is None else recovery.mean / 3600
    why_none = None
    if service is None:
        why_none = "ask for one service: an hour of outage costs each one differently"
    elif not rates:
        why_none = "the service has no rate"
    elif rate.n == 0:
        why_none = "nothing was deployed"
    elif hours is None and rate.k:
        why_none = "no failed deployment has a time to recover"
    amounts = [] if why_none else [_amount(each, rate, hours or Decimal(0)) for each in rates]
    return CostFormulaModel(
        deployments=numbers.finished,
        change_fail_rate=rate.value,
        mean_hours_to_recover=None if hours is None else float(hours),
        amounts=amounts,
        why_none=why_none,
        formula=FORMULAS["dora_cost"],
    )


def _amount(each: Rate, rate: Ratio, hours: Decimal) -> FormulaCostModel:
    share = Decimal(rate.k) / rate.n
    return FormulaCostModel(
        currency=each.currency,
        cost_per_hour=each.expected,
        low=cost_of_downtime(rate.n, share, hours, each.low),
        expected=cost_of_downtime(rate.n, share, hours, each.expected),
        high=cost_of_downtime(rate.n, share, hours, each.high),
    )
