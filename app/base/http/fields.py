"""Field types shared by requests and responses: text, times, names."""

import re
from collections.abc import MutableMapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote
from uuid import UUID
from zoneinfo import available_timezones

from fastapi import Depends, Path, Query
from fastapi.routing import APIRoute
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
)
from starlette.routing import Match

from app.base.errors import Invalid
from app.base.http.context import Now
from app.base.times import Span

EARLIEST, LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: str) -> str:
    if UNSTORABLE.search(value):
        message = "must not contain NUL or unpaired surrogates"
        raise ValueError(message)
    return value


def to_utc(value: datetime) -> datetime:
    # Compare before converting: year 1 with an offset overflows.
    if not EARLIEST.replace(tzinfo=None) < value.replace(tzinfo=None) < LATEST.replace(tzinfo=None):
        message = f"must be between {EARLIEST.year} and {LATEST.year}"
        raise ValueError(message)
    return value.astimezone(UTC)


def rfc3339(value: datetime) -> str:
    """`2026-08-20T10:00:15.123Z`"""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(storable)]
Slug = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]  # a name that a person chooses
Words = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(storable)]
At = Annotated[AwareDatetime, AfterValidator(to_utc), PlainSerializer(rfc3339, when_used="json")]


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(name: str) -> str:
    if name not in _zones():
        message = "must be the name of a time zone such as `Europe/Berlin` or `UTC`"
        raise ValueError(message)
    return name


def _date(value: date) -> date:
    if not EARLIEST.date() < value < LATEST.date():
        message = f"must be between {EARLIEST.year} and {LATEST.year}"
        raise ValueError(message)
    return value


Zone = Annotated[Name, AfterValidator(_zone), Field(description="IANA time zone name", examples=["Europe/Berlin"])]
LocalTime = Annotated[str, StringConstraints(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Date = Annotated[date, AfterValidator(_date)]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Contract(BaseModel):
    """Base class of request bodies. Unknown fields are an error, so that a typo is not silently ignored."""

    model_config = ConfigDict(extra="forbid")


class NamedInOneSegment(APIRoute):
    """A route that matches the path as sent, percent-encoded: `%2F` is part of a name, `/` ends it.

    Service names come from labels and can contain anything. If the path were decoded before matching, as usual,
    `payments%2Frates` would mean the rates of `payments`.
    """

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        sent = scope.get("raw_path") or quote(scope["path"]).encode()
        match, found = super().matches({**scope, "path": sent.decode("utf-8", "replace")})
        if match is not Match.NONE:
            found["path_params"] = {name: unquote(value) for name, value in found["path_params"].items()}
        return match, found


ServiceName = Annotated[
    Name,
    Path(description="Percent-encoded, because names come from labels and may contain slashes", examples=["checkout"]),
]


# — money —

Money = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:.2f}", return_type=str)]


class MoneyRange(BaseModel):
    """An amount of money, in one currency."""

    low: Money = Field(examples=["125.00"])
    expected: Money = Field(examples=["250.00"])
    high: Money = Field(examples=["500.00"])


# — periods —

DEFAULT_PERIOD = timedelta(days=30)


class PeriodModel(BaseModel):
    """The period covered by the response."""

    begins: At = Field(serialization_alias="from")
    ends: At = Field(serialization_alias="to", description="Exclusive")


def _period(
    now: Now,
    begins: Annotated[At | None, Query(alias="from", description="Defaults to 30 days before `to`")] = None,
    ends: Annotated[At | None, Query(alias="to", description="Exclusive; defaults to now")] = None,
) -> Span:
    ends = ends or max(now, begins or now)
    begins = begins or max(ends - DEFAULT_PERIOD, EARLIEST + timedelta(seconds=1))  # EARLIEST itself is too early
    if begins > ends:
        message = "`from` must not be after `to`"
        raise Invalid(message)
    return Span(begins, ends)


AskedPeriod = Annotated[Span, Depends(_period)]


# — incidents —


def _incident_ref(value: object) -> UUID | int:
    text = str(value)
    if not _INCIDENT_REF.fullmatch(text):
        message = "must be the UUID of an incident, or its number such as `INC-1`"
        raise ValueError(message)
    return int(text[4:]) if text.startswith("INC-") else UUID(text)


_INCIDENT_REF = re.compile(r"(INC-[1-9][0-9]{0,17}|[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})", re.ASCII)

# An id, or the number behind `INC-`.
IncidentRef = Annotated[
    UUID | int,
    PlainValidator(
        _incident_ref,
        json_schema_input_type=Annotated[str, StringConstraints(pattern=f"^{_INCIDENT_REF.pattern}$")],
    ),
]
IncidentInPath = Annotated[
    IncidentRef,
    Path(alias="id", description="UUID of an incident, or its number such as `INC-1`", examples=["INC-1"]),
]
