"""HTTP API of services: owner, links to runbooks and dashboards, cost of an hour of outage."""

import re
from datetime import datetime
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
    WithJsonSchema,
    model_validator,
)

from app.base import schema
from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import (
    At,
    AtShown,
    Input,
    Name,
    ServiceName,
    SingleSegmentRoute,
)
from app.base.http.requests.filters import Contained, Owners
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.base.values.currency import Currency
from app.catalog.services import store
from app.incidents.impact.rates import THE_BEGINNING

router = APIRouter(prefix="/api/v1/services", tags=["services"], route_class=SingleSegmentRoute)


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


class LinkInput(Input):
    title: Name
    url: HttpUrl


class ServiceInput(Input):
    owner: Name | None = Field(None, description="The responsible team or person")
    links: list[LinkInput] = Field([], max_length=50, description="Runbooks, dashboards, repositories")
    in_service_since: At | None = Field(
        None, description="Availability and error budget count from then on; null: since the service was first seen"
    )


class RateInput(Input):
    """Cost of an hour of complete outage, from a point in time on."""

    valid_from: At | None = Field(None, alias="from", description="Null: valid from the beginning of time")
    currency: Currency
    low: Amount
    expected: Amount
    high: Amount

    @model_validator(mode="after")
    def _ordered(self) -> "RateInput":
        if not self.low <= self.expected <= self.high:
            message = "`low` must not be above `expected`, nor `expected` above `high`"
            raise ValueError(message)
        return self


def _once_each(rates: list[RateInput]) -> list[RateInput]:
    if len({(rate.valid_from, rate.currency) for rate in rates}) < len(rates):
        message = "two rates have the same `from` and `currency`; keep one of them"
        raise ValueError(message)
    return rates


Rates = Annotated[list[RateInput], Field(max_length=store.RATES_AT_MOST), AfterValidator(_once_each)]


class LinkResponse(BaseModel):
    title: str
    url: str


class RateResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    valid_from: Annotated[AtShown | None, BeforeValidator(lambda at: None if at == THE_BEGINNING else at)] = Field(
        serialization_alias="from", description="Null: valid from the beginning of time"
    )
    currency: str
    low: AmountShown
    expected: AmountShown
    high: AmountShown


class ServiceResponse(BaseModel):
    name: str
    owner: str | None
    links: list[LinkResponse]
    rates: list[RateResponse] = Field(
        description="Cost of an hour of outage; empty: unknown, which is not the same as 0"
    )
    first_seen_at: AtShown
    in_service_since: AtShown | None = Field(description="As stated; null: since the service was first seen")
    updated_at: AtShown

    @classmethod
    def of(cls, priced: store.Priced) -> "ServiceResponse":
        service, rates = priced
        return cls.model_validate({**service.model_dump(), "rates": rates})


# — the routes —


@router.get("", summary="List services", responses=problem_responses())
async def list_services(
    session: Session,
    paging: Pages,
    _: Reader,
    q: Contained = None,
    owner: Owners = [],  # noqa: B006  fastapi copies it
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[ServiceResponse]:
    """Sorted by name. Includes services that were created by alerts."""
    filters = store.Filters(q, owner)
    found = await store.list_services(session, filters, after=paging.after_name(), limit=paging.limit + 1)
    services, next_cursor = page_of(found, paging, lambda priced: (priced[0].name,))
    return CountedPage(
        items=[ServiceResponse.of(priced) for priced in services],
        next_cursor=next_cursor,
        total=await store.count_services(session, filters) if count else None,
    )


@router.get("/{name}", summary="Get a service", responses=problem_responses(404))
async def get_service(session: Session, name: ServiceName, _: Reader) -> ServiceResponse:
    """Returns its owner, links and cost of an hour of outage."""
    return ServiceResponse.of(await store.find_service(session, name))


@router.put(
    "/{name}", summary="Create or update a service", responses=problem_responses() | {201: {"model": ServiceResponse}}
)
async def put_service(
    session: Session,
    now: Now,
    name: ServiceName,
    body: Annotated[
        ServiceInput,
        Body(
            examples=[
                {"owner": "Payments", "links": [{"title": "Runbook", "url": "https://wiki.example.org/checkout"}]}
            ]
        ),
    ],
    response: Response,
    _: Writer,
) -> ServiceResponse:
    """Replaces owner, links and `in_service_since`, but not rates. Returns 201 if the service is new."""
    priced, is_new = await store.put_service(session, service_row(name, body, now))
    response.status_code = 201 if is_new else 200
    return ServiceResponse.of(priced)


@router.delete("/{name}", summary="Delete an unused service", status_code=204, responses=problem_responses(404, 409))
async def delete_service(session: Session, name: ServiceName, _: Writer) -> None:
    """Deletes the service and its rates. Only possible if it has no incidents, deployments or changes, and nothing is
    configured for it.
    """
    await store.delete_service(session, name)


@router.put("/{name}/rates", summary="Replace the cost rates of a service", responses=problem_responses())
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
) -> ServiceResponse:
    """Replaces all rates, each the cost of an hour of outage. An unknown service is created. Costs are always
    recomputed, including past ones. If a price has changed, add a rate with `from` instead of replacing the old one.
    """
    return ServiceResponse.of(await store.put_rates(session, name, [rate_row(name, rate) for rate in body], now=now))


def service_row(name: str, body: ServiceInput, now: datetime) -> schema.Service:
    return schema.Service(
        name=name,
        owner=body.owner,
        links=[link.model_dump(mode="json") for link in body.links],
        in_service_since=body.in_service_since,
        first_seen_at=now,
        updated_at=now,
    )


def rate_row(name: str, body: RateInput) -> schema.ServiceRate:
    return schema.ServiceRate(service=name, **body.model_dump() | {"valid_from": body.valid_from or THE_BEGINNING})
