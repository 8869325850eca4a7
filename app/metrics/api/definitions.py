"""What each number means: the registry."""

from dataclasses import asdict

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.incidents.definitions import DEFINITIONS, Kind
from app.metrics.families import FAMILIES, FamilyType
from app.web import Reader, problem_responses

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


@router.get("/api/v1/metrics/definitions", summary="What each number means", responses=problem_responses())
async def definitions(_: Reader) -> DefinitionsAnswer:
    """Each measure, statistic and metric, and each family that Prometheus reads: from what to what, by which clock, who
    is counted and who is not, by which formula, and what the number cannot tell.
    """
    return DefinitionsAnswer(
        definitions=[DefinitionModel(**asdict(each)) for each in DEFINITIONS],
        families=[FamilyModel(**asdict(each)) for each in FAMILIES.values()],
    )
