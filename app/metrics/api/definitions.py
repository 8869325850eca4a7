"""What each number means: the registry."""

from collections.abc import Iterator
from dataclasses import asdict

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.base.http.auth import Reader
from app.base.http.csv import Line, also_as_csv, spreadsheet_text
from app.base.http.problems import problem_responses
from app.incidents.definitions import DEFINITIONS
from app.incidents.definitions.model import Kind
from app.metrics.prometheus.families import FAMILIES, FamilyType

router = APIRouter()


class DefinitionModel(BaseModel):
    name: str = Field(examples=["time_to_recover"])
    kind: Kind = Field(description="Of one incident, of one measure over many, or of a period")
    label: str
    unit: str
    statistic: str = Field(description="What is made of the many: a sum, a count, a ratio, …")
    starts: str | None = Field(description="Null: it is no duration between two events")
    ends: str | None = Field(description="Null: it is no duration between two events")
    clock: str
    second_clock: str | None = Field(description="Beside it, with `calendar=`; null: it has one clock only")
    counted: str = Field(description="Who is in")
    left_out: str = Field(description="Who is not, and why")
    formula: str
    cannot_tell: str
    version: int = Field(description="Rises when the same incidents would give another number")


class FamilyModel(BaseModel):
    """What Prometheus reads; the formula is its help text."""

    name: str = Field(examples=["aftermath_time_to_recover_seconds"])
    type: FamilyType
    labels: list[str]
    formula: str
    shows: str | None = Field(description="The definition that it is a sample of; null: it is of the feed only")
    version: int


class DefinitionsAnswer(BaseModel):
    definitions: list[DefinitionModel]
    families: list[FamilyModel]


def _rows(answer: DefinitionsAnswer) -> Iterator[Line]:
    yield from map(_line, answer.definitions)
    for family in answer.families:
        yield _line(family) | {"kind": "family"}


def _line(each: BaseModel) -> dict[str, str]:
    """All of it: here words are what is asked for, so none is in the JSON only."""
    words = {
        name: ", ".join(value) if isinstance(value, list) else str(value or "")
        for name, value in each.model_dump().items()
    }
    return {name: spreadsheet_text(text) for name, text in words.items()}


@router.get("/api/v1/metrics/definitions", summary="What each number means", responses=problem_responses())
@also_as_csv(
    router,
    "/api/v1/metrics/definitions",
    _rows,
    lines="A line for each definition, then one for each family of Prometheus, whose `kind` is `family`",
)
async def definitions(_: Reader) -> DefinitionsAnswer:
    """Each measure, statistic and metric, and each family that Prometheus reads: from what to what, by which clock, who
    is counted and who is not, by which formula, and what the number cannot tell.
    """
    return DefinitionsAnswer(
        definitions=[DefinitionModel(**asdict(each)) for each in DEFINITIONS],
        families=[FamilyModel(**asdict(each)) for each in FAMILIES.values()],
    )
