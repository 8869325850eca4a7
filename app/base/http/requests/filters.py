"""Filters in queries. Each may be repeated: its values are alternatives, and none means all."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from app.base.http.requests.fields import SEVERAL_AT_MOST, EnvironmentFiltered, Name, Words
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
        description="A source that reported the incident; may be repeated",
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


class ServicesFiltered(BaseModel):
    """The filters that apply to these numbers. An empty list means all."""

    service: list[str] = Field(description="Services; empty means all", examples=[["checkout"]])


class SeveritiesFiltered(ServicesFiltered):
    """The filters that apply to these numbers. An empty list means all."""

    severity: list[SeverityName] = Field(description="Severities; empty means all", examples=[["sev1", "sev2"]])


def severity_numbers(names: Iterable[SeverityName]) -> tuple[int, ...]:
    return tuple(severity_number(each) for each in names)
