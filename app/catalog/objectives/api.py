"""HTTP API of objectives with their error budgets, and of availability."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Body, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints

from app.base import schema
from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session, SettingsDep, Tx
from app.base.http.limits.turns import IN_TURN
from app.base.http.requests.fields import (
    AtShown,
    EnvironmentName,
    Input,
    PeriodDep,
    PeriodModel,
    ServiceName,
    SingleSegmentRoute,
    rfc3339,
)
from app.base.http.requests.filters import Environments, Services, ServicesFiltered
from app.base.http.responses.csv import CSV, Line, cells, or_csv
from app.base.http.responses.numbers import DefinitionNames, Number, Seconds
from app.base.http.responses.problems import problem_responses
from app.base.process.threads import off_loop
from app.base.values.times import Span
from app.catalog.objectives import store
from app.incidents.impact.availability import Availability, Budget, CalendarPeriod
from app.incidents.impact.maintenance import Bounds

SERVICES_AT_MOST = 500
INCIDENTS_AT_MOST = 500
LINKS_AT_MOST = 100

_objective = APIRouter(prefix="/api/v1/services", tags=["services"], route_class=SingleSegmentRoute)
_availability = APIRouter(prefix="/api/v1/metrics", tags=["metrics"], dependencies=[IN_TURN])


SINCE = (
    "Only the time from then on counts: the service's `in_service_since` if it is stated, else when the service was "
    "first seen"
)


# — the contract: objectives —

_TARGET = r"^0\.[0-9]{1,9}$"


def _target(value: str) -> str:
    if not re.search("[1-9]", value):
        message = "must be above 0"
        raise ValueError(message)
    return value


Target = Annotated[str, StringConstraints(pattern=_TARGET), AfterValidator(_target)]


class RollingInput(Input):
    rolling_days: int = Field(ge=1, le=366)


class CalendarInput(Input):
    """A calendar month or quarter in UTC."""

    calendar: CalendarPeriod


def _one_shape(window: object) -> object:
    if isinstance(window, dict) and len({"rolling_days", "calendar"} & window.keys()) != 1:
        message = "must have either `rolling_days` or `calendar`, and not both"
        raise ValueError(message)
    return window


class ObjectiveInput(Input):
    target: Target = Field(description="Share of time as a string, greater than 0 and less than 1", examples=["0.999"])
    window: Annotated[RollingInput | CalendarInput, BeforeValidator(_one_shape)]
    weighted: bool = Field(True, description="Whether downtime is weighted by impact; if not, it counts in full")
    environment: EnvironmentName | None = Field(
        None, description="Only incidents in this environment burn the budget; null: all do", examples=["production"]
    )


class RollingResponse(BaseModel):
    rolling_days: int


class CalendarWindowResponse(BaseModel):
    """A calendar month or quarter in UTC."""

    calendar: str


class BurnedModel(BaseModel):
    incident: str = Field(examples=["INC-1"])
    seconds: Seconds
    link: str


class BurnRateModel(BaseModel):
    hours: int
    rate: Number | None = Field(
        description="1.0: the budget lasts exactly one window; null: the service was not in service"
    )


class BudgetModel(PeriodModel):
    in_service_since: AtShown = Field(description=SINCE)
    seconds: Seconds
    burned_seconds: Seconds
    left_seconds: Seconds = Field(description="Negative: the objective is missed")
    left_ratio: Number | None = Field(
        description="Share of the budget that is left; null: the service is not in service in the window, so there is "
        "no budget"
    )
    incidents: list[BurnedModel] = Field(
        description="The incidents that burned it, largest share first; with `left_out_seconds` they add up to "
        "`burned_seconds`"
    )
    incidents_left_out: int
    left_out_seconds: Seconds
    burn_rates: list[BurnRateModel]
    definitions: DefinitionNames


class ObjectiveResponse(BaseModel):
    service: str
    target: str
    window: RollingResponse | CalendarWindowResponse
    weighted: bool
    environment: str | None = Field(description="Only incidents in this environment burn the budget; null: all do")
    created_at: AtShown
    updated_at: AtShown
    error_budget: BudgetModel


# — the contract: availability —

Ratio = Annotated[Number | None, Field(description="0 to 1; null: not in service in the period", examples=[0.9995])]


class FailureCountModel(BaseModel):
    value: int
    low: Number = Field(description="Lower bound of the 95 % interval")
    high: Number = Field(description="Upper bound of the 95 % interval")


class BetweenFailuresModel(BaseModel):
    """Without failures `seconds` is null, because there is no mean; only its lower bound `low` is known."""

    seconds: Seconds | None
    low: Seconds | None
    high: Seconds | None
    exposure_seconds: Seconds


class ServiceAvailabilityModel(BaseModel):
    service: str
    in_service_since: AtShown = Field(description=SINCE)
    counted_from: AtShown = Field(description="`in_service_since`, or `from` if that is later")
    availability: Ratio
    availability_weighted: Ratio
    downtime_seconds: Seconds
    downtime_weighted_seconds: Seconds
    planned_seconds: Seconds
    maintenance_seconds: Seconds = Field(description="Planned maintenance, whether or not anything failed during it")
    in_service_seconds: Seconds
    failures: FailureCountModel
    mtbf: BetweenFailuresModel
    links: list[str] = Field(description="Links, relative to the URL of Aftermath, to the underlying incidents")


class AvailabilityFilters(ServicesFiltered):
    environment: list[str] = Field(
        description="Environments; empty means all, and `unknown` means incidents without one",
        examples=[["production"]],
    )


class AvailabilityResponse(PeriodModel):
    filters: AvailabilityFilters
    definitions: DefinitionNames
    services: list[ServiceAvailabilityModel] = Field(description="Most weighted downtime first; at most 500")
    services_left_out: int


# — the routes —


@_objective.get("/{name}/objective", summary="Get an objective and its error budget", responses=problem_responses(404))
async def get_objective(
    session: Session, now: Now, settings: SettingsDep, name: ServiceName, _: Reader
) -> ObjectiveResponse:
    """Returns the target, the remaining error budget, the incidents that burned it, and the burn rates."""
    objective = await store.find_objective(session, name)
    return _objective_shown(objective, await store.budget(session, objective, now=now, weights=settings.impact))


@_objective.put(
    "/{name}/objective",
    summary="Create or replace an objective",
    responses=problem_responses() | {201: {"model": ObjectiveResponse}},
)
async def put_objective(
    session: Session,
    now: Now,
    settings: SettingsDep,
    name: ServiceName,
    body: Annotated[
        ObjectiveInput,
        Body(
            examples=[
                {"target": "0.999", "window": {"rolling_days": 30}, "weighted": True},
                {"target": "0.99", "window": {"calendar": "quarter"}, "weighted": False},
            ]
        ),
    ],
    response: Response,
    _: Writer,
) -> ObjectiveResponse:
    """A service has one objective. It also applies to the past part of its window. Returns 201 if there was none. An
    unknown service is created.
    """
    objective, is_new = await store.put_objective(session, objective_row(name, body, now))
    response.status_code = 201 if is_new else 200
    return _objective_shown(objective, await store.budget(session, objective, now=now, weights=settings.impact))


@_objective.delete(
    "/{name}/objective", summary="Delete an objective", status_code=204, responses=problem_responses(404)
)
async def delete_objective(session: Session, name: ServiceName, _: Writer) -> None:
    """The service and its availability are not affected."""
    await store.delete_objective(session, name)


def _rows(answer: AvailabilityResponse) -> Iterator[Line]:
    for each in answer.services:
        yield cells(answer, only=("start", "end")) | cells(each)


@_availability.get("/availability", summary="Get the availability of services", responses=problem_responses() | CSV)
@or_csv(_rows, lines="One line per service")
async def get_availability(
    tx: Tx,
    now: Now,
    settings: SettingsDep,
    period: PeriodDep,
    _: Reader,
    service: Services = [],  # noqa: B006  fastapi copies it, as the other list
    environment: Environments = [],  # noqa: B006
) -> AvailabilityResponse:
    """Returns, for each service, the share of time without impact, the number of failures and the mean time between
    failures. Only the past part of the period counts, from when the service came into service. Services that never
    failed are included.
    """
    bounds = Bounds(settings.query_occurrences, settings.query_parts)
    found = await store.availabilities(
        tx, period, service, environment, now=now, weights=settings.impact, bounds=bounds
    )

    def answer() -> AvailabilityResponse:
        return AvailabilityResponse(
            start=period.start,
            end=period.end,
            filters=AvailabilityFilters(service=service, environment=environment),
            definitions={name: name for name in _OF_AVAILABILITY},
            services=[_availability_shown(each, period, environment) for each in found[:SERVICES_AT_MOST]],
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


def objective_row(name: str, body: ObjectiveInput, now: datetime) -> schema.Objective:
    return schema.Objective(
        service=name,
        target=Decimal(body.target),
        weighted=body.weighted,
        environment=body.environment,
        **body.window.model_dump(),
        created_at=now,
        updated_at=now,
    )


# — the answers —


def _objective_shown(objective: schema.Objective, budget: Budget) -> ObjectiveResponse:
    window: RollingResponse | CalendarWindowResponse
    if objective.rolling_days is not None:
        window = RollingResponse(rolling_days=objective.rolling_days)
    else:
        window = CalendarWindowResponse(calendar=str(objective.calendar))
    return ObjectiveResponse(
        service=objective.service,
        target=f"{objective.target:f}",
        window=window,
        weighted=objective.weighted,
        environment=objective.environment,
        created_at=objective.created_at,
        updated_at=objective.updated_at,
        error_budget=_budget_shown(budget),
    )


def _budget_shown(budget: Budget) -> BudgetModel:
    shown, left_out = budget.incidents[:INCIDENTS_AT_MOST], budget.incidents[INCIDENTS_AT_MOST:]
    return BudgetModel(
        start=budget.period.start,
        end=budget.period.end,
        in_service_since=budget.in_service_since or budget.period.start,
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
        definitions={name: name for name in _OF_BUDGET},
    )


def _availability_shown(each: Availability, asked: Span, environments: Sequence[str]) -> ServiceAvailabilityModel:
    fewest, most = each.failures_interval
    shortest, longest = each.mtbf_interval
    of = {"service": each.service, "environment": environments}
    query = urlencode({"from": rfc3339(asked.start), "to": rfc3339(asked.end), **of}, doseq=True)
    carried_in = each.carried_in[:LINKS_AT_MOST]
    return ServiceAvailabilityModel(
        service=each.service,
        in_service_since=each.in_service_since or each.period.start,
        counted_from=each.period.start,
        availability=None if each.ratio is None else float(each.ratio),
        availability_weighted=None if each.ratio_weighted is None else float(each.ratio_weighted),
        downtime_seconds=each.downtime.total_seconds(),
        downtime_weighted_seconds=float(each.downtime_weighted),
        planned_seconds=each.planned.total_seconds(),
        maintenance_seconds=each.maintenance.total_seconds(),
        in_service_seconds=each.in_service.total_seconds(),
        failures=FailureCountModel(value=each.failures, low=fewest, high=most),
        mtbf=BetweenFailuresModel(
            seconds=each.mtbf, low=shortest, high=longest, exposure_seconds=each.exposure.total_seconds()
        ),
        links=[f"/api/v1/incidents?{query}", *(f"/api/v1/incidents/INC-{number}" for number in carried_in)],
    )
