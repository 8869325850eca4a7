"""Planned maintenance, objectives and availability over HTTP."""

import asyncio
import re
from collections.abc import Iterator
from datetime import time, timedelta
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Body, Path, Query, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from app.base.http.auth import Reader, Writer
from app.base.http.context import Knobs, Now, Tx
from app.base.http.csv import Line, also_as_csv, cells
from app.base.http.fields import (
    WEEKDAYS,
    AskedPeriod,
    At,
    Contract,
    Date,
    LocalTime,
    Name,
    NamedInOneSegment,
    ServiceName,
    Slug,
    Weekday,
    Words,
    Zone,
    rfc3339,
)
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.base.times import Span
from app.catalog.objectives import store
from app.catalog.objectives.store import KnownObjective, KnownWindow
from app.incidents.definitions import FORMULAS
from app.incidents.impact import maintenance
from app.incidents.impact.availability import Availability, Budget, Calendar, Objective
from app.incidents.impact.maintenance import Recurrence, Window

SERVICES_AT_MOST = 500
INCIDENTS_AT_MOST = 500
LINKS_AT_MOST = 100

_maintenance = APIRouter(prefix="/api/v1/maintenance", tags=["maintenance"])
_objective = APIRouter(prefix="/api/v1/services", tags=["services"], route_class=NamedInOneSegment)
_availability = APIRouter(prefix="/api/v1/metrics", tags=["metrics"])


# — the contract: maintenance —

MaintenanceName = Annotated[
    Slug,
    Path(description="Letters, digits, `.`, `_` and `-`", examples=["sunday-patching"]),
]


class OnceContract(Contract):
    since: At = Field(alias="from")
    until: At = Field(alias="to", description="Not included")

    @model_validator(mode="after")
    def _ordered(self) -> "OnceContract":
        if self.since >= self.until:
            message = "`from` must lie before `to`"
            raise ValueError(message)
        return self


class RecurringContract(Contract):
    """A start that the clocks skip is taken by the offset before the change; of one shown twice, the first counts."""

    weekdays: list[Weekday] = Field(min_length=1, max_length=7, description="Of its start, in the zone")
    start_time: LocalTime = Field(description="In the zone", examples=["02:30"])
    duration_seconds: int = Field(ge=60, le=7 * 24 * 3600, description="As time passes, whatever the clocks do")
    zone: Zone
    first_date: Date
    last_date: Date | None = Field(None, description="Included; null: until further notice")

    @model_validator(mode="after")
    def _ordered(self) -> "RecurringContract":
        if self.last_date is not None and self.last_date < self.first_date:
            message = "last_date must not lie before first_date"
            raise ValueError(message)
        return self


class MaintenanceContract(Contract):
    """Either `once` or `recurring`."""

    services: list[Name] = Field([], max_length=500, description="None: all services, later ones too")
    reason: Annotated[Words, StringConstraints(min_length=1, max_length=1000)]
    once: OnceContract | None = None
    recurring: RecurringContract | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "MaintenanceContract":
        if (self.once is None) == (self.recurring is None):
            message = "give either `once` or `recurring`"
            raise ValueError(message)
        return self


class OccurrenceShown(BaseModel):
    since: At = Field(serialization_alias="from")
    until: At = Field(serialization_alias="to", description="Not included")


class MaintenanceShown(BaseModel):
    name: str
    services: list[str]
    reason: str
    once: OnceContract | None
    recurring: RecurringContract | None
    next: OccurrenceShown | None = Field(description="The one that is running or comes next; null: all are over")
    created_at: At
    updated_at: At


# — the contract: objectives —

_TARGET = r"^0\.[0-9]{1,9}$"


def _target(value: str) -> str:
    if not re.search("[1-9]", value):
        message = "must be above 0"
        raise ValueError(message)
    return value


Target = Annotated[str, StringConstraints(pattern=_TARGET), AfterValidator(_target)]


class RollingContract(Contract):
    rolling_days: int = Field(ge=1, le=366)


class CalendarContract(Contract):
    """In UTC."""

    calendar: Calendar


class ObjectiveContract(Contract):
    target: Target = Field(description="Share of the time, as text, above 0 and below 1", examples=["0.999"])
    window: RollingContract | CalendarContract
    weighted: bool = Field(True, description="Whether downtime counts by impact, or every harm counts in full")


class BurnedModel(BaseModel):
    incident: str = Field(examples=["INC-1"])
    seconds: float
    link: str


class BurnRateModel(BaseModel):
    hours: int
    rate: float | None = Field(description="1.0: spent exactly at the end of a window; null: all of it was maintenance")


class BudgetModel(BaseModel):
    since: At = Field(serialization_alias="from")
    until: At = Field(serialization_alias="to", description="Not included")
    seconds: float
    burned_seconds: float
    left_seconds: float = Field(description="Below 0: the objective is missed")
    left_ratio: float | None = Field(description="Of the budget; null: nothing but maintenance, so no budget")
    incidents: list[BurnedModel] = Field(
        description="Who burned it, the largest first; with `left_out_seconds` they sum to `burned_seconds`"
    )
    incidents_left_out: int
    left_out_seconds: float
    burn_rates: list[BurnRateModel]
    formulas: dict[str, str]


class ObjectiveShown(BaseModel):
    service: str
    target: str
    window: RollingContract | CalendarContract
    weighted: bool
    created_at: At
    updated_at: At
    error_budget: BudgetModel


# — the contract: availability —

Ratio = Annotated[
    float | None, Field(description="0 to 1; null: it was in maintenance all the time", examples=[0.9995])
]


class CountModel(BaseModel):
    value: int
    low: float = Field(description="Of the 95 % interval")
    high: float


class BetweenFailuresModel(BaseModel):
    """No failure has no mean, which is not for ever: then `low` alone says what is known."""

    seconds: float | None
    low: float | None
    high: float | None
    exposure_seconds: float


class ServiceAvailabilityModel(BaseModel):
    service: str
    availability: Ratio
    availability_weighted: Ratio
    downtime_seconds: float
    downtime_weighted_seconds: float
    planned_seconds: float
    maintenance_seconds: float = Field(description="Planned maintenance, whether or not anything failed in it")
    in_service_seconds: float
    failures: CountModel
    mtbf: BetweenFailuresModel
    links: list[str] = Field(description="Addresses, below this service, of the incidents behind the numbers")


class AvailabilityAnswer(BaseModel):
    since: At = Field(serialization_alias="from")
    until: At = Field(serialization_alias="to", description="Not included")
    service: str | None = Field(description="Null: all")
    formulas: dict[str, str]
    services: list[ServiceAvailabilityModel] = Field(description="Most weighted downtime first; the first 500")
    services_left_out: int


# — the routes —


@_maintenance.get("", summary="List planned maintenance", responses=problem_responses())
async def list_maintenance(tx: Tx, now: Now, paging: Pages, _: Reader) -> Page[MaintenanceShown]:
    """By name."""
    after = paging.after(str)
    found = await store.windows(tx, after=after[0] if after else "", limit=paging.limit + 1)
    known, next_cursor = page_of(found, paging, lambda each: (each.window.name,))
    return Page(items=[_window_shown(each, now) for each in known], next_cursor=next_cursor)


@_maintenance.get("/{name}", summary="Show planned maintenance", responses=problem_responses(404))
async def show_maintenance(tx: Tx, now: Now, name: MaintenanceName, _: Reader) -> MaintenanceShown:
    """Of which services, when and why."""
    return _window_shown(await store.find_window(tx, name), now)


@_maintenance.put(
    "/{name}", summary="Plan maintenance", responses=problem_responses() | {201: {"model": MaintenanceShown}}
)
async def put_maintenance(
    tx: Tx,
    now: Now,
    name: MaintenanceName,
    stated: Annotated[
        MaintenanceContract,
        Body(
            examples=[
                {
                    "services": ["checkout"],
                    "reason": "Patching of the database",
                    "recurring": {
                        "weekdays": ["sunday"],
                        "start_time": "02:30",
                        "duration_seconds": 7200,
                        "zone": "Europe/Berlin",
                        "first_date": "2026-01-01",
                    },
                },
                {
                    "reason": "Move to the new data centre",
                    "once": {"from": "2026-08-22T20:00:00Z", "to": "2026-08-23T04:00:00Z"},
                },
            ]
        ),
    ],
    response: Response,
    _: Writer,
) -> MaintenanceShown:
    """What falls into it is in no downtime, cost or error budget, and shown apart; the past is computed anew too.
    Counters for Prometheus do not follow: they take maintenance as it is known when an incident settles. 201 if it is
    new.
    """
    known, is_new = await store.put_window(tx, _window(name, stated), now=now)
    response.status_code = 201 if is_new else 200
    return _window_shown(known, now)


@_maintenance.delete("/{name}", summary="Delete maintenance", status_code=204, responses=problem_responses(404))
async def delete_maintenance(tx: Tx, name: MaintenanceName, _: Writer) -> None:
    """As if it had never been planned; to end one that recurs, state its `last_date` instead."""
    await store.delete_window(tx, name)


@_objective.get("/{name}/objective", summary="Show an objective and its budget", responses=problem_responses(404))
async def show_objective(tx: Tx, now: Now, settings: Knobs, name: ServiceName, _: Reader) -> ObjectiveShown:
    """How available the service is to be, how much of the error budget is left, who burned it and how fast it burns."""
    known = await store.find_objective(tx, name)
    return _objective_shown(known, await store.budget(tx, known.objective, now=now, weights=settings.impact))


@_objective.put(
    "/{name}/objective",
    summary="State an objective",
    responses=problem_responses(404) | {201: {"model": ObjectiveShown}},
)
async def put_objective(
    tx: Tx,
    now: Now,
    settings: Knobs,
    name: ServiceName,
    stated: Annotated[
        ObjectiveContract,
        Body(
            examples=[
                {"target": "0.999", "window": {"rolling_days": 30}, "weighted": True},
                {"target": "0.99", "window": {"calendar": "quarter"}, "weighted": False},
            ]
        ),
    ],
    response: Response,
    _: Writer,
) -> ObjectiveShown:
    """One for each service; it counts for the past of its window too. 201 if there was none."""
    known, is_new = await store.put_objective(tx, _objective_of(name, stated), now=now)
    response.status_code = 201 if is_new else 200
    return _objective_shown(known, await store.budget(tx, known.objective, now=now, weights=settings.impact))


@_objective.delete(
    "/{name}/objective", summary="Delete an objective", status_code=204, responses=problem_responses(404)
)
async def delete_objective(tx: Tx, name: ServiceName, _: Writer) -> None:
    """The service stays, and its availability is shown as before."""
    await store.delete_objective(tx, name)


def _rows(answer: AvailabilityAnswer) -> Iterator[Line]:
    for each in answer.services:
        yield cells(answer, only=("since", "until")) | cells(each)


@_availability.get("/availability", summary="Availability of services", responses=problem_responses())
@also_as_csv(_availability, "/availability", _rows, lines="A line for each service")
async def availability_of_services(
    tx: Tx,
    now: Now,
    settings: Knobs,
    period: AskedPeriod,
    _: Reader,
    service: Annotated[Name | None, Query(examples=["checkout"])] = None,
) -> AvailabilityAnswer:
    """Per service the share of the time in which it was not harmed, how often it failed and how long it ran between.
    Of a period that is not over, what has passed counts. Services that never failed are here too.
    """
    found = await store.availabilities(tx, period, service, now=now, weights=settings.impact)

    def answer() -> AvailabilityAnswer:
        return AvailabilityAnswer(
            since=period.begins,
            until=period.ends,
            service=service,
            formulas={name: FORMULAS[name] for name in _OF_AVAILABILITY},
            services=[_availability_shown(each, period) for each in found[:SERVICES_AT_MOST]],
            services_left_out=max(0, len(found) - SERVICES_AT_MOST),
        )

    return await asyncio.to_thread(answer)  # hundreds of services must not keep the doors waiting


_OF_AVAILABILITY = (
    "availability",
    "availability_weighted",
    "downtime",
    "downtime_weighted",
    "planned",
    "in_service",
    "maintenance",
    "failures",
    "mtbf",
    "exposure",
)
_OF_BUDGET = ("budget", "burned", "left", "left_ratio", "burn_rate")

router = APIRouter()
for _each in (_maintenance, _objective, _availability):
    router.include_router(_each)


# — the answers —


def _window(name: str, stated: MaintenanceContract) -> Window:
    if stated.once is not None:
        when: Span | Recurrence = Span(stated.once.since, stated.once.until)
    else:
        assert stated.recurring is not None
        rule = stated.recurring
        when = Recurrence(
            frozenset(WEEKDAYS.index(day) for day in rule.weekdays),
            time.fromisoformat(rule.start_time),
            timedelta(seconds=rule.duration_seconds),
            rule.zone,
            rule.first_date,
            rule.last_date,
        )
    return Window(name, frozenset(stated.services), when, stated.reason)


def _window_shown(known: KnownWindow, now: At) -> MaintenanceShown:
    window = known.window
    coming = maintenance.coming(window, now)
    once = recurring = None
    match window.when:
        case Span() as span:
            once = OnceContract(**{"from": span.begins, "to": span.ends})
        case Recurrence() as rule:
            recurring = RecurringContract(
                weekdays=[WEEKDAYS[day] for day in sorted(rule.weekdays)],
                start_time=f"{rule.start_time:%H:%M}",
                duration_seconds=rule.lasts // timedelta(seconds=1),
                zone=rule.zone,
                first_date=rule.first_date,
                last_date=rule.last_date,
            )
    return MaintenanceShown(
        name=window.name,
        services=sorted(window.services),
        reason=window.reason,
        once=once,
        recurring=recurring,
        next=None if coming is None else OccurrenceShown(since=coming.begins, until=coming.ends),
        created_at=known.created_at,
        updated_at=known.updated_at,
    )


def _objective_of(name: str, stated: ObjectiveContract) -> Objective:
    match stated.window:
        case RollingContract(rolling_days=days):
            window: timedelta | Calendar = timedelta(days=days)
        case CalendarContract(calendar=calendar):
            window = calendar
    return Objective(name, Decimal(stated.target), window, stated.weighted)


def _objective_shown(known: KnownObjective, budget: Budget) -> ObjectiveShown:
    objective = known.objective
    return ObjectiveShown(
        service=objective.service,
        target=f"{objective.target:f}",
        window=RollingContract(rolling_days=objective.window.days)
        if isinstance(objective.window, timedelta)
        else CalendarContract(calendar=objective.window),
        weighted=objective.weighted,
        created_at=known.created_at,
        updated_at=known.updated_at,
        error_budget=_budget_shown(budget),
    )


def _budget_shown(budget: Budget) -> BudgetModel:
    shown, left_out = budget.incidents[:INCIDENTS_AT_MOST], budget.incidents[INCIDENTS_AT_MOST:]
    return BudgetModel(
        since=budget.period.begins,
        until=budget.period.ends,
        seconds=float(budget.seconds),
        burned_seconds=float(budget.burned),
        left_seconds=float(budget.left),
        left_ratio=None if budget.left_ratio is None else float(budget.left_ratio),
        incidents=[
            BurnedModel(incident=f"INC-{number}", seconds=float(seconds), link=f"/api/v1/incidents/INC-{number}")
            for number, seconds in shown
        ],
        incidents_left_out=len(left_out),
        left_out_seconds=float(sum(seconds for _number, seconds in left_out)),
        burn_rates=[
            BurnRateModel(hours=lookback // timedelta(hours=1), rate=None if rate is None else float(rate))
            for lookback, rate in budget.burn_rates.items()
        ],
        formulas={name: FORMULAS[name] for name in _OF_BUDGET},
    )


def _availability_shown(each: Availability, asked: Span) -> ServiceAvailabilityModel:
    fewest, most = each.failures_interval
    shortest, longest = each.mtbf_interval
    query = urlencode({"from": rfc3339(asked.begins), "to": rfc3339(asked.ends), "service": each.service})
    carried_in = each.carried_in[:LINKS_AT_MOST]
    return ServiceAvailabilityModel(
        service=each.service,
        availability=None if each.ratio is None else float(each.ratio),
        availability_weighted=None if each.ratio_weighted is None else float(each.ratio_weighted),
        downtime_seconds=each.downtime.total_seconds(),
        downtime_weighted_seconds=float(each.downtime_weighted),
        planned_seconds=each.planned.total_seconds(),
        maintenance_seconds=each.maintenance.total_seconds(),
        in_service_seconds=each.in_service.total_seconds(),
        failures=CountModel(value=each.failures, low=fewest, high=most),
        mtbf=BetweenFailuresModel(
            seconds=each.mtbf, low=shortest, high=longest, exposure_seconds=each.exposure.total_seconds()
        ),
        links=[f"/api/v1/incidents?{query}", *(f"/api/v1/incidents/INC-{number}" for number in carried_in)],
    )
