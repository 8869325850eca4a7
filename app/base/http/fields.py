"""Types that requests and responses share: clean text, times, names."""

import re
from collections.abc import MutableMapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote, unquote
from zoneinfo import available_timezones

from fastapi import Depends, Path, Query
from fastapi.routing import APIRoute
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints
from starlette.routing import Match

from app.base.errors import Invalid
from app.base.http.context import Now

EARLIEST, LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: str) -> str:
    if UNSTORABLE.search(value):
        message = "must not hold NUL or unpaired surrogates"
        raise ValueError(message)
    return value


def to_utc(value: datetime) -> datetime:
    # Compared before it is converted: year 1 with an offset overflows.
    if not EARLIEST.replace(tzinfo=None) < value.replace(tzinfo=None) < LATEST.replace(tzinfo=None):
        message = f"must lie between {EARLIEST.year} and {LATEST.year}"
        raise ValueError(message)
    return value.astimezone(UTC)


def rfc3339(value: datetime) -> str:
    """`2026-08-20T10:00:15.123Z`"""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(storable)]
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
        message = f"must lie between {EARLIEST.year} and {LATEST.year}"
        raise ValueError(message)
    return value


Zone = Annotated[Name, AfterValidator(_zone), Field(description="IANA", examples=["Europe/Berlin"])]
LocalTime = Annotated[str, StringConstraints(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Date = Annotated[date, AfterValidator(_date)]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Contract(BaseModel):
    """What the API takes: unknown fields are an error, so that a typo is not silently nothing."""

    model_config = ConfigDict(extra="forbid")


class NamedInOneSegment(APIRoute):
    """A route whose path is matched as it was sent, percent-encoded: `%2F` belongs to a name, `/` ends it.

    Names of services come from labels and hold anything. Decoded first, as is usual, `payments%2Frates` would be the
    rates of `payments`.
    """

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        sent = scope.get("raw_path") or quote(scope["path"]).encode()
        match, found = super().matches({**scope, "path": sent.decode("utf-8", "replace")})
        if match is not Match.NONE:
            found["path_params"] = {name: unquote(value) for name, value in found["path_params"].items()}
        return match, found


ServiceName = Annotated[
    Name,
    Path(description="Percent-encoded: names come from labels and may hold slashes", examples=["checkout"]),
]

DEFAULT_PERIOD = timedelta(days=30)


class Period(NamedTuple):
    """Half-open."""

    since: datetime
    until: datetime


def _period(
    now: Now,
    since: Annotated[At | None, Query(alias="from", description="Left out: 30 days before `to`")] = None,
    until: Annotated[At | None, Query(alias="to", description="Not included; left out: now")] = None,
) -> Period:
    until = until or max(now, since or now)
    since = since or max(until - DEFAULT_PERIOD, EARLIEST + timedelta(seconds=1))  # EARLIEST itself is too early
    if since > until:
        message = "`from` lies after `to`"
        raise Invalid(message)
    return Period(since, until)


AskedPeriod = Annotated[Period, Depends(_period)]
