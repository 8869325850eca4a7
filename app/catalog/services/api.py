"""The catalogue of services over HTTP: who owns one, where to read on, what an hour of its outage costs."""

import re
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Body, Response
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    HttpUrl,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from app.base.http.auth import Reader, Writer
from app.base.http.context import Now, Tx
from app.base.http.fields import At, Contract, Name, NamedInOneSegment, ServiceName
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.catalog.services import store
from app.catalog.services.store import Link, Service
from app.incidents.impact.rates import THE_BEGINNING, Rate

router = APIRouter(prefix="/api/v1/services", tags=["services"], route_class=NamedInOneSegment)


# — the contract —

_AMOUNT = r"^[0-9]{1,12}(\.[0-9]{1,4})?$"


def _amount(value: object) -> Decimal:
    # A float has lost the cents before we see it; `NaN`, `1e9` and digits of other scripts are Decimals too.
    if isinstance(value, bool | float) or not re.fullmatch(_AMOUNT, str(value)):
        message = 'must be text such as "1234.50" or a whole number: up to 12 digits and 4 decimal places, not negative'
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
    owner: Name | None = Field(None, description="The team or person to ask")
    links: list[LinkContract] = Field([], max_length=50, description="Runbooks, dashboards, repositories")


class RateContract(Contract):
    """What an hour of complete outage costs, from a moment on."""

    valid_from: At | None = Field(None, alias="from", description="Null: it has always been so")
    currency: Currency = Field(description="ISO 4217")
    low: Amount
    expected: Amount
    high: Amount

    @model_validator(mode="after")
    def _ordered(self) -> "RateContract":
        if not self.low <= self.expected <= self.high:
            message = "low <= expected <= high must hold"
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
    valid_from: At | None = Field(alias="from", description="Null: it has always been so")
    currency: str
    low: AmountShown
    expected: AmountShown
    high: AmountShown


class ServiceShown(BaseModel):
    name: str
    owner: str | None
    links: list[LinkShown]
    rates: list[RateShown] = Field(description="An hour's cost of outage; empty: unknown, which is not 0")
    first_seen_at: At
    updated_at: At


# — the routes —


@router.get("", summary="List services", responses=problem_responses())
async def list_services(tx: Tx, paging: Pages, _: Reader) -> Page[ServiceShown]:
    """By name. Services first seen in alerts appear by themselves."""
    after = paging.after(str)
    found = await store.services(tx, after=after[0] if after else "", limit=paging.limit + 1)
    services, next_cursor = page_of(found, paging, lambda service: (service.name,))
    return Page(items=[_shown(service) for service in services], next_cursor=next_cursor)


@router.get("/{name}", summary="Show a service", responses=problem_responses(404))
async def show_service(tx: Tx, name: ServiceName, _: Reader) -> ServiceShown:
    """Its owner, its links and what an hour of its outage costs."""
    return _shown(await store.find_service(tx, name))


@router.put(
    "/{name}", summary="Create or update a service", responses=problem_responses() | {201: {"model": ServiceShown}}
)
async def put_service(
    tx: Tx,
    now: Now,
    name: ServiceName,
    stated: Annotated[
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
    """Owner and links become exactly what the body says; rates stay. 201 if the service is new."""
    links = [Link(link.title, str(link.url)) for link in stated.links]
    service, is_new = await store.put_service(tx, name, owner=stated.owner, links=links, now=now)
    response.status_code = 201 if is_new else 200
    return _shown(service)


@router.put("/{name}/rates", summary="State what an hour of outage costs", responses=problem_responses(404))
async def put_rates(
    tx: Tx,
    now: Now,
    name: ServiceName,
    stated: Annotated[
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
    """All rates of the service become exactly these. Costs are always computed anew, those of the past too: add a rate
    with a `from` where the price has changed, rather than replacing the old one.
    """
    rates = [
        Rate(name, rate.valid_from or THE_BEGINNING, rate.currency, rate.low, rate.expected, rate.high)
        for rate in stated
    ]
    return _shown(await store.put_rates(tx, name, rates, now=now))


def _shown(service: Service) -> ServiceShown:
    return ServiceShown(
        name=service.name,
        owner=service.owner,
        links=[LinkShown(title=link.title, url=link.url) for link in service.links],
        rates=[
            RateShown(
                **{"from": None if rate.valid_from == THE_BEGINNING else rate.valid_from},
                currency=rate.currency,
                low=rate.low,
                expected=rate.expected,
                high=rate.high,
            )
            for rate in service.rates
        ],
        first_seen_at=service.first_seen_at,
        updated_at=service.updated_at,
    )
