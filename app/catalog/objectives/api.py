"""HTTP API of objectives with their error budgets, and of availability."""

import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Body, Query, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from app.base import schema
from app.base.http.auth import Reader, Writer
from app.base.http.context import Knobs, Now, Session, Tx
from app.base.http.csv import Line, also_as_csv, cells
from app.base.http.fields import AskedPeriod, At, Contract, Name, NamedInOneSegment, ServiceName, rfc3339
from app.base.http.problems import problem_responses
from app.base.threads import off_loop
from app.base.times import Span
from app.catalog.objectives import store
from app.incidents.definitions import FORMULAS
from app.incidents.impact.availability import Availability, Budget, Calendar

SERVICES_AT_MOST = 500
INCIDENTS_AT_MOST = 500
LINKS_AT_MOST = 100

_objective = APIRouter(prefix="/api/v1/services", tags=["services"], route_class=NamedInOneSegment)
_availability = APIRouter(prefix="/api/v1/metrics", tags=["metrics"])


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
    """A calendar month or quarter in UTC."""

    calendar: Calendar


class ObjectiveContract(Contract):
    target: Target = Field(description="Share of time as a string, greater than 0 and less than 1", examples=["0.999"])
    window: RollingContract | CalendarContract
    weighted: bool = Field(True, description="Whether downtime is weighted by impact; otherwise it counts in full")


class BurnedModel(BaseModel):
    incident: str = Field(examples=["INC-1"])
    seconds: float
    link: str


class BurnRateModel(BaseModel):
    hours: int
    rate: float | None = Field(
        description="1.0: the budget lasts exactly one window; null: planned maintenance throughout"
    )


class BudgetModel(BaseModel):
    since: At = Field(serialization_alias="from")
    until: At = Field(serialization_alias="to", description="Not included")
    seconds: float
    burned_seconds: float
    left_seconds: float = Field(description="Negative: the objective is missed")
    left_ratio: float | None = Field(
        description="Share of the budget that is left; null: planned maintenance throughout, so there is no budget"
    )
    incidents: list[BurnedModel] = Field(
        description="The incidents that burned it, largest share first; with `left_out_seconds` they add up to "
        "`burned_seconds`"
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

Ratio = Annotated[float | None, Field(description="0 to 1; null: planned maintenance throughout", examples=[0.9995])]


class CountModel(BaseModel):
    value: int
    low: float = Field(description="Lower bound of the 95% interval")
    high: float = Field(description="Upper bound of the 95% interval")


class BetweenFailuresModel(BaseModel):
    """Without failures `seconds` is null, because there is no mean; only its lower bound `low` is known."""

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
    maintenance_seconds: float = Field(description="Planned maintenance, whether or not anything failed during it")
    in_service_seconds: float
    failures: CountModel
    mtbf: BetweenFailuresModel
    links: list[str] = Field(description="Links, relative to the URL of Aftermath, to the underlying incidents")


class AvailabilityAnswer(BaseModel):
    since: At = Field(serialization_alias="from")
    until: At = Field(serialization_alias="to", description="Not included")
    service: str | None = Field(description="Null: all services")
    formulas: dict[str, str]
    services: list[ServiceAvailabilityModel] = Field(description="Most weighted downtime first; at most 500")
    services_left_out: int


# — the routes —


@_objective.get("/{name}/objective", summary="Get an objective and its error budget", responses=problem_responses(404))
async def show_objective(session: Session, now: Now, settings: Knobs, name: ServiceName, _: Reader) -> ObjectiveShown:
    """Returns the target, the remaining error budget, the incidents that burned it, and the burn rates."""
    objective = await store.find_objective(session, name)
    return _objective_shown(objective, await store.budget(session, objective, now=now, weights=settings.impact))


@_objective.put(
    "/{name}/objective",
    summary="Create or replace an objective",
    responses=problem_responses(404) | {201: {"model": ObjectiveShown}},
)
async def put_objective(
    session: Session,
    now: Now,
    settings: Knobs,
    name: ServiceName,
    body: Annotated[
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
    """A service has one objective. It also applies to the past part of its window. Returns 201 if there was none."""
    row = schema.Objective(
        service=name,
        target=Decimal(body.target),
        weighted=body.weighted,
        **body.window.model_dump(),
        created_at=now,
        updated_at=now,
    )
    objective, is_new = await store.put_objective(session, row)
    response.status_code = 201 if is_new else 200
    return _objective_shown(objective, await store.budget(session, objective, now=now, weights=settings.impact))


@_objective.delete(
    "/{name}/objective", summary="Delete an objective", status_code=204, responses=problem_responses(404)
)
async def delete_objective(session: Session, name: ServiceName, _: Writer) -> None:
    """The service and its availability are not affected."""
    await store.delete_objective(session, name)


def _rows(answer: AvailabilityAnswer) -> Iterator[Line]:
    for each in answer.services:
        yield cells(answer, only=("since", "until")) | cells(each)


@_availability.get("/availability", summary="Get the availability of services", responses=problem_responses())
@also_as_csv(_availability, "/availability", _rows, lines="One line per service")
async def availability_of_services(
    tx: Tx,
    now: Now,
    settings: Knobs,
    period: AskedPeriod,
    _: Reader,
    service: Annotated[Name | None, Query(examples=["checkout"])] = None,
) -> AvailabilityAnswer:
    """Returns, for each service, the share of time without impact, the number of failures and the mean time between
    failures. If the period is not over, only its past part counts. Services that never failed are included.
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

    return await off_loop(answer)


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
for _each in (_objective, _availability):
    router.include_router(_each)


# — the answers —


def _objective_shown(objective: schema.Objective, budget: Budget) -> ObjectiveShown:
    window: RollingContract | CalendarContract
    if objective.rolling_days is not None:
        window = RollingContract(rolling_days=objective.rolling_days)
    else:
        window = CalendarContract.model_validate({"calendar": objective.calendar})
    return ObjectiveShown(
        service=objective.service,
        target=f"{objective.target:f}",
        window=window,
        weighted=objective.weighted,
        created_at=objective.created_at,
        updated_at=objective.updated_at,
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
