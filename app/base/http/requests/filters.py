"""Filters in queries, and what else lists take. Each filter may be repeated: its values are alternatives, and none
means all.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from app.base.errors import Invalid
from app.base.http.requests.fields import SEVERAL_AT_MOST, EnvironmentFiltered, Name, When, Words, time_of
from app.base.values.severity import SeverityName, severity_number

Services = Annotated[
    list[Name], Query(description="May be repeated", max_length=SEVERAL_AT_MOST, examples=[["checkout"]])
]
Environments = Annotated[
    list[EnvironmentFiltered],
    Query(
        description="`prod` and other usual names are normalized; `unknown` selects those without an environment; may "
        "be repeated",
        max_length=SEVERAL_AT_MOST,
        examples=[["production"]],
    ),
]
Severities = Annotated[list[SeverityName], Query(description="May be repeated", examples=[["sev1", "sev2"]])]
Sources = Annotated[
    list[Name],
    Query(
        description="A source that reported it; may be repeated",
        max_length=SEVERAL_AT_MOST,
        examples=[["prod"]],
    ),
]
Owners = Annotated[
    list[Annotated[Words, Field(max_length=200)]],
    Query(
        description="Owner of the service; empty selects services without an owner; may be repeated",
        max_length=SEVERAL_AT_MOST,
        examples=[["Payments"]],
    ),
]
Contained = Annotated[
    Name | None,
    Query(
        description="Only those with this text in their name, title, id or summary, ignoring case",
        examples=["check"],
    ),
]


class TimeSort(StrEnum):
    """The order of a list by time."""

    NEWEST = "newest"
    OLDEST = "oldest"


Sorted = Annotated[TimeSort, Query(description="`newest`: the latest first; `oldest`: the earliest first")]


class ServicesFiltered(BaseModel):
    """The filters that apply to these numbers. An empty list means all."""

    service: list[str] = Field(description="Services; empty means all", examples=[["checkout"]])


class SeveritiesFiltered(ServicesFiltered):
    """The filters that apply to these numbers. An empty list means all."""

    severity: list[SeverityName] = Field(description="Severities; empty means all", examples=[["sev1", "sev2"]])


def times_between(since: When | None, until: When | None, *, now: datetime) -> tuple[datetime | None, datetime | None]:
    """The times of `from` and `to`, which lists take without a default. Raises Invalid."""
    begin, end = time_of(since, now), time_of(until, now)
    if begin and end and begin > end:
        message = "`from` must not be after `to`"
        raise Invalid(message)
    return begin, end


def severity_numbers(names: Iterable[SeverityName]) -> tuple[int, ...]:
    return tuple(severity_number(each) for each in names)
