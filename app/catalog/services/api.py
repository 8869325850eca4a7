"""HTTP API of services: owner, links to runbooks and dashboards, cost of an hour of outage."""

import re
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Body, Response
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from app.base import schema
from app.base.http.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.fields import At, Contract, Name, NamedInOneSegment, ServiceName
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.catalog.services import store
from app.incidents.impact.rates import THE_BEGINNING

router = APIRouter(prefix="/api/v1/services", tags=["services"], route_class=NamedInOneSegment)


# — the contract —

_AMOUNT = r"^[0-9]{1,12}(\.[0-9]{1,4})?$"


def _amount(value: object) -> Decimal:
    # A float may already have lost cents. Decimal also accepts `NaN`, `1e9` and digits of other scripts.
    if isinstance(value, bool | float) or not re.fullmatch(_AMOUNT, str(value)):
        message = 'must be a string such as "1234.50" or an integer: up to 12 digits and 4 decimal places, not negative'
        raise ValueError(message)
    return Decimal(str(value))


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": _AMOUNT}, {"type": "integer", "minimum": 0, "maximum": 10**12 - 1}]}
    ),
]
AmountShown = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:f}", return_type=str)]
Currency = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")]


class LinkContract(Contract):
    title: Name
    url: HttpUrl


class ServiceContract(Contract):
    owner: Name | None = Field(None, description="The responsible team or person")
    links: list[LinkContract] = Field([], max_length=50, description="Runbooks, dashboards, repositories")


class RateContract(Contract):
    """Cost of an hour of complete outage, from a point in time on."""

    valid_from: At | None = Field(None, alias="from", description="Null: valid from the beginning of time")
    currency: Currency = Field(description="ISO 4217")
    low: Amount
    expected: Amount
    high: Amount

    @model_validator(mode="after")
    def _ordered(self) -> "RateContract":
        if not self.low <= self.expected <= self.high:
            message = "must have low <= expected <= high"
            raise ValueError(message)
        return self


def _once_each(rates: list[RateContract]) -> list[RateContract]:
    if len({(rate.valid_from, rate.currency) for rate in rates}) < len(rates):
        message = "two rates have the same `from` and `currency`"
        raise ValueError(message)
    return rates


Rates = Annotated[list[RateContract], Field(max_length=500), AfterValidator(_once_each)]


class LinkShown(BaseModel):
    title: str
    url: str


class RateShown(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    valid_from: Annotated[At | None, BeforeValidator(lambda at: None if at == THE_BEGINNING else at)] = Field(
        serialization_alias="from", description="Null: valid from the beginning of time"
    )
    currency: str
    low: AmountShown
    expected: AmountShown
    high: AmountShown


class ServiceShown(BaseModel):
    name: str
    owner: str | None
    links: list[LinkShown]
    rates: list[RateShown] = Field(description="Cost of an hour of outage; empty: unknown, which is not the same as 0")
    first_seen_at: At
    updated_at: At

    @classmethod
    def of(cls, priced: store.Priced) -> "ServiceShown":
        service, rates = priced
        return cls.model_validate({**service.model_dump(), "rates": rates})


# — the routes —


@router.get("", summary="List services", responses=problem_responses())
async def list_services(session: Session, paging: Pages, _: Reader) -> Page[ServiceShown]:
    """Sorted by name. Includes services that were created by alerts."""
    found = await store.list_services(session, after=paging.after_name(), limit=paging.limit + 1)
    services, next_cursor = page_of(found, paging, lambda priced: (priced[0].name,))
    return Page(items=[ServiceShown.of(priced) for priced in services], next_cursor=next_cursor)


@router.get("/{name}", summary="Get a service", responses=problem_responses(404))
async def show_service(session: Session, name: ServiceName, _: Reader) -> ServiceShown:
    """Returns its owner, links and cost of an hour of outage."""
    return ServiceShown.of(await store.find_service(session, name))


@router.put(
    "/{name}", summary="Create or update a service", responses=problem_responses() | {201: {"model": ServiceShown}}
)
async def put_service(
    session: Session,
    now: Now,
    name: ServiceName,
    body: Annotated[
        ServiceContract,
        Body(
            examples=[
                {"owner": "Payments", "links": [{"title": "Runbook", "url": "https://wiki.example.org/checkout"}]}
            ]
        ),
    ],
    response: Response,
    _: Writer,
) -> ServiceShown:
    """Replaces owner and links, but not rates. Returns 201 if the service is new."""
    values = body.model_dump(mode="json")  # mode="json" because links are stored as JSON
    service = schema.Service(name=name, **values, first_seen_at=now, updated_at=now)
    priced, is_new = await store.put_service(session, service)
    response.status_code = 201 if is_new else 200
    return ServiceShown.of(priced)


@router.put("/{name}/rates", summary="Replace the cost rates of a service", responses=problem_responses(404))
async def put_rates(
    session: Session,
    now: Now,
    name: ServiceName,
    body: Annotated[
        Rates,
        Body(
            examples=[
                [
                    {"currency": "EUR", "low": "1000", "expected": "2500.50", "high": "8000"},
                    {
                        "from": "2026-01-01T00:00:00Z",
                        "currency": "EUR",
                        "low": "1500",
                        "expected": "3000",
                        "high": "9000",
                    },
                ]
            ]
        ),
    ],
    _: Writer,
) -> ServiceShown:
    """Replaces all rates, each the cost of an hour of outage. Costs are always recomputed, including past ones: if a
    price has changed, add a rate with `from` instead of replacing the old rate.
    """
    rates = [
        schema.ServiceRate(service=name, **rate.model_dump() | {"valid_from": rate.valid_from or THE_BEGINNING})
        for rate in body
    ]
    return ServiceShown.of(await store.put_rates(session, name, rates, now=now))
