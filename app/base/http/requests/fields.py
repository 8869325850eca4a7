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
    SecretStr,
    StringConstraints,
    WithJsonSchema,
)
from starlette.routing import Match

from app.base.errors import Invalid
from app.base.http.context import Now
from app.base.values.times import EARLIEST, LATEST, Span, is_in_bounds
from app.base.values.vocabulary import LONGEST_ENVIRONMENT, UNKNOWN_ENVIRONMENT, environment_of

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: str) -> str:
    if UNSTORABLE.search(value):
        message = "must not contain NUL or unpaired surrogates"
        raise ValueError(message)
    return value


def _storable_secret(value: SecretStr) -> SecretStr:
    storable(value.get_secret_value())
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        at = value.astimezone(UTC)
    except OverflowError:  # year 1 or 9999 with an offset
        at = None
    if at is None or not is_in_bounds(at):
        raise ValueError(_OUT_OF_BOUNDS)
    return at


_OUT_OF_BOUNDS = f"must be in the years {EARLIEST.year} to {LATEST.year - 1}, in UTC"


def rfc3339(value: datetime) -> str:
    """`2026-08-20T10:00:15.123Z`"""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(storable)]
Slug = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]  # a name that a person chooses
Words = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(storable)]
# Never empty: an empty secret would mean that there is none.
Secret = Annotated[SecretStr, Field(min_length=1), AfterValidator(_storable_secret)]
At = Annotated[AwareDatetime, AfterValidator(_in_utc)]  # in requests
# In responses. Like all types of responses it checks nothing, so that a value once stored can always be shown.
AtShown = Annotated[
    datetime,
    PlainSerializer(rfc3339, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def is_zone(name: str) -> bool:
    return name in _zones()


def _zone(name: str) -> str:
    if not is_zone(name):
        message = "must be the name of a time zone such as `Europe/Berlin` or `UTC`"
        raise ValueError(message)
    return name


def _date(value: date) -> date:
    if not EARLIEST.date() <= value < LATEST.date():
        raise ValueError(_OUT_OF_BOUNDS.removesuffix(", in UTC"))
    return value


Zone = Annotated[Name, AfterValidator(_zone), Field(description="IANA time zone name", examples=["Europe/Berlin"])]
LocalTime = Annotated[str, StringConstraints(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Date = Annotated[date, AfterValidator(_date)]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _environment(word: str) -> str:
    name = environment_of(word)
    if name is None:
        message = "does not name an environment; leave it out if the environment is unknown"
        raise ValueError(message)
    return name


# Normalized: `prod` is `production`.
EnvironmentName = Annotated[Name, StringConstraints(max_length=LONGEST_ENVIRONMENT), AfterValidator(_environment)]
# The same in a filter, where `unknown` selects what has no environment.
EnvironmentFiltered = Annotated[
    Name,
    StringConstraints(max_length=LONGEST_ENVIRONMENT),
    AfterValidator(lambda word: environment_of(word) or UNKNOWN_ENVIRONMENT),
]
EnvironmentFilter = Annotated[
    EnvironmentFiltered | None,
    Query(
        description="`prod` and other usual names are normalized; `unknown` selects those without an environment",
        examples=["production"],
    ),
]


class Input(BaseModel):
    """Base class of request bodies. Unknown fields are an error, so that a typo is not silently ignored."""

    model_config = ConfigDict(extra="forbid")


class SingleSegmentRoute(APIRoute):
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


SEVERAL_AT_MOST = 50  # values of one filter


# — times in queries —

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# A `+` that was not percent-encoded arrives as a space.
_TIME = re.compile(
    r"(?P<local>\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,12})?)?)(?P<offset>[Zz]|[+ -]\d\d:\d\d)", re.ASCII
)
_LENGTH = re.compile(r"([1-9][0-9]{0,7})([mhdw])", re.ASCII)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LONGEST = LATEST - EARLIEST

TIME = "A date such as `2026-11-28` (midnight in UTC), an RFC 3339 time, or relative to now, such as `-7d`"


def _length(value: object) -> timedelta:
    shape = _LENGTH.fullmatch(str(value))
    if shape is None:
        message = "must be a number of minutes, hours, days or weeks, such as `90m`, `24h`, `30d` or `4w`"
        raise ValueError(message)
    length = int(shape[1]) * _UNITS[shape[2]]
    if length > _LONGEST:
        message = f"must be at most {_LONGEST.days} days"
        raise ValueError(message)
    return length


def _moment(value: object) -> datetime | timedelta:
    text = str(value)
    if _LENGTH.fullmatch(text[1:]) and text.startswith("-"):
        return _length(text[1:])
    shape = _TIME.fullmatch(text)
    try:
        if _DATE.fullmatch(text):
            return _in_utc(datetime.fromisoformat(text).replace(tzinfo=UTC))
        if shape is not None:
            return _in_utc(datetime.fromisoformat(shape["local"] + shape["offset"].upper().replace(" ", "+")))
    except ValueError as error:
        if str(error) == _OUT_OF_BOUNDS:
            raise
        message = "must be a time that exists in the calendar"
        raise ValueError(message) from None
    message = (
        "must be a date such as `2026-11-28` (midnight in UTC), a time such as `2026-11-28T09:30:00Z`, or relative to "
        "now, such as `-90m`, `-24h`, `-7d` or `-4w`"
    )
    raise ValueError(message)


Length = Annotated[timedelta, PlainValidator(_length, json_schema_input_type=str)]
# As a timedelta: that long before now. `time_of` resolves it.
When = Annotated[datetime | timedelta, PlainValidator(_moment, json_schema_input_type=str)]


def time_of(moment: datetime | timedelta | None, now: datetime) -> datetime | None:
    """Raises Invalid."""
    if not isinstance(moment, timedelta):
        return moment
    at = now - moment
    if not is_in_bounds(at):
        message = f"times {_OUT_OF_BOUNDS}"
        raise Invalid(message)
    return at


# — periods —

DEFAULT_PERIOD = timedelta(days=30)


class PeriodModel(BaseModel):
    """The period covered by the response."""

    start: AtShown = Field(serialization_alias="from")
    end: AtShown = Field(serialization_alias="to", description="Exclusive")


def _period(
    now: Now,
    start: Annotated[When | None, Query(alias="from", description=f"{TIME}; defaults to `period` before `to`")] = None,
    end: Annotated[When | None, Query(alias="to", description=f"{TIME}; exclusive; defaults to now")] = None,
    period: Annotated[
        Length | None,
        Query(description="Length of the period, instead of `from`, such as `7d`; defaults to `30d`", examples=["30d"]),
    ] = None,
) -> Span:
    if period is not None and start is not None:
        message = "send `from` or `period`, not both"
        raise Invalid(message)
    begin, until = time_of(start, now), time_of(end, now)
    until = until or max(now, begin or now)
    begin = begin or max(until - (period or DEFAULT_PERIOD), EARLIEST)
    if begin > until:
        message = "`from` must not be after `to`"
        raise Invalid(message)
    return Span(begin, until)


PeriodDep = Annotated[Span, Depends(_period)]


# — incidents —


def _incident_ref(value: object) -> UUID | int:
    text = str(value)
    if not _INCIDENT_REF.fullmatch(text):
        message = "must be the UUID of an incident, or its number such as `INC-1`"
        raise ValueError(message)
    return int(text[4:]) if text[:4].upper() == "INC-" else UUID(text)


_INCIDENT_REF = re.compile(
    r"([Ii][Nn][Cc]-[1-9][0-9]{0,17}|[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})", re.ASCII
)

# An id, or the number behind `INC-`, also in lower case.
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
