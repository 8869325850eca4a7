"""HTTP API of the registry of definitions."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.errors import Invalid
from app.base.http.access.auth import Reader
from app.base.http.responses.csv import CSV, Line, or_csv, spreadsheet_text
from app.base.http.responses.problems import problem_responses
from app.incidents.definitions import DEFINITIONS
from app.incidents.definitions.model import DefinitionKind
from app.metrics.prometheus.families import FAMILIES, FamilyType

router = APIRouter()

_NAMES = [each.name for each in DEFINITIONS]


class NumberDefinitionModel(BaseModel):
    name: str = Field(examples=["time_to_recover"])
    kind: DefinitionKind = Field(
        description="A measure of one incident, a statistic of one measure over many incidents, or a metric of a period"
    )
    label: str
    unit: str
    statistic: str = Field(description="How values are combined into one: sum, count, ratio, …")
    starts: str | None = Field(description="The event a duration starts with; null if it is not a duration")
    ends: str | None = Field(description="The event a duration ends with; null if it is not a duration")
    clock: str
    second_clock: str | None = Field(description="Second clock, with `calendar=`; null if there is only one")
    counted: str = Field(description="What is included")
    left_out: str = Field(description="What is excluded, and why")
    formula: str
    cannot_show: str
    version: int = Field(description="Increases whenever the same incidents would yield a different number")


class FamilyModel(BaseModel):
    """A metric family exported to Prometheus; the formula is its help text."""

    name: str = Field(examples=["aftermath_time_to_recover_seconds"])
    type: FamilyType
    labels: list[str]
    formula: str
    shows: str | None = Field(
        description="Name of the definition it exports; null if it describes only Aftermath or its sources"
    )
    version: int


class DefinitionsResponse(BaseModel):
    definitions: list[NumberDefinitionModel]
    families: list[FamilyModel]


def _rows(answer: DefinitionsResponse) -> Iterator[Line]:
    yield from map(_line, answer.definitions)
    for family in answer.families:
        yield _line(family) | {"kind": "family"}


def _line(each: BaseModel) -> dict[str, str]:
    """Every field: unlike elsewhere, the CSV includes all texts of the JSON."""
    words = {
        name: ", ".join(value) if isinstance(value, list) else str(value or "")
        for name, value in each.model_dump().items()
    }
    return {name: spreadsheet_text(text) for name, text in words.items()}


@router.get("/api/v1/metrics/definitions", summary="List definitions", responses=problem_responses() | CSV)
@or_csv(
    _rows,
    lines="One line per definition, then one per Prometheus metric family, with `family` as its `kind`",
)
async def list_definitions(
    _: Reader,
    name: Annotated[
        list[Annotated[str, Field(json_schema_extra={"enum": _NAMES})]],
        Query(
            description="Only the definition with this name, and the metric families that export it; may be repeated",
            examples=[["time_to_recover"]],
        ),
    ] = [],  # noqa: B006  fastapi copies it
) -> DefinitionsResponse:
    """Every measure, statistic and metric, and every metric family exported to Prometheus: start and end, clock, what
    is included and excluded, formula, and what the number cannot show.
    """
    if unknown := set(name) - {*_NAMES}:
        message = f"{min(unknown)!r} is not the name of a definition; without `name` the response lists all of them"
        raise Invalid(message)
    return DefinitionsResponse(
        definitions=[NumberDefinitionModel(**asdict(each)) for each in DEFINITIONS if not name or each.name in name],
        families=[FamilyModel(**asdict(each)) for each in FAMILIES.values() if not name or each.shows in name],
    )
