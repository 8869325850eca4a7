"""Types of numbers in responses: how they are rounded, and how they refer to their definitions."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

# Rounded to the millisecond.
Seconds = Annotated[
    float, PlainSerializer(lambda value: round(value, 3), return_type=float, when_used="json-unless-none")
]
# Rounded to nine significant digits: fewer would hide what an availability of 0.99998765 is about, more are noise.
Number = Annotated[
    float, PlainSerializer(lambda value: float(f"{value:.9g}"), return_type=float, when_used="json-unless-none")
]
OptionalSeconds = Annotated[
    Seconds | None, Field(description="Seconds; null if nothing was recorded (not the same as 0)")
]

# Instead of a formula beside each number.
DefinitionName = Annotated[
    str,
    Field(
        description="Name of the definition of this number. `GET /api/v1/metrics/definitions?name=…` shows the formula "
        "and what the number cannot show"
    ),
]
DefinitionNames = Annotated[
    dict[str, str],
    Field(
        description="Names of the definitions of numbers in this response, by the name of the number. "
        "`GET /api/v1/metrics/definitions?name=…` shows the formulas and what the numbers cannot show",
        examples=[{"incidents": "incidents"}],
    ),
]


class RatioModel(BaseModel):
    """`k` of `n`, with a 95 % interval."""

    model_config = ConfigDict(from_attributes=True)

    k: int = Field(description="Numerator of the ratio")
    n: int = Field(description="Denominator of the ratio")
    value: Number | None = Field(description="k / n; null if unknown (not the same as a ratio of 0)")
    low: Number | None = Field(description="Lower bound of the 95 % interval; null if unknown")
    high: Number | None = Field(description="Upper bound of the 95 % interval; null if unknown")
