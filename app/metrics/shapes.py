"""Response models that all metrics share, those of deployments too: counts, rates per day, and durations."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.base.http.requests.fields import rfc3339
from app.base.http.responses.numbers import DefinitionName, Number, Seconds
from app.base.values.times import Span
from app.metrics.summary.survival import Typical


class CountModel(BaseModel):
    value: int
    definition: DefinitionName


class PerDayModel(BaseModel):
    """How many per day, with a 95 % interval that allows for storms."""

    value: Number | None = Field(description="Null if nothing of the period has passed")
    low: Number | None
    high: Number | None
    dispersion: Number = Field(
        description="Variance of the counts of days or weeks over their mean: they came as if in groups of this size. "
        "1 means independent"
    )


class StatisticsModel(BaseModel):
    """Statistics of the recorded values, in seconds."""

    median: Seconds = Field(description="Half of them took at most this many seconds")
    p90: Seconds = Field(description="90 % of them took at most this many seconds")
    p95: Annotated[Seconds | None, Field(description="Seconds; null with fewer than 60 values")]
    geometric_mean: Annotated[Seconds | None, Field(description="Seconds; null if any value is 0")]
    mean: Seconds = Field(description="Arithmetic mean, in seconds")


class ValuesModel(BaseModel):
    """Recorded durations: fewer than 10 are listed in `values`, more are described by `statistics`."""

    n: int = Field(
        description="Number of recorded values; with fewer than 10, the values are listed instead of statistics"
    )
    values: list[Seconds] | None = Field(
        None, description="The individual values in ascending order, in seconds; null if there are 10 or more"
    )
    statistics: StatisticsModel | None = Field(None, description="Null if there are fewer than 10 values")
    pending: int = Field(0, description="Those in which the event may still happen")


def statistics_model(typical: Typical | None) -> StatisticsModel | None:
    return None if typical is None else StatisticsModel.model_validate(typical, from_attributes=True)


def window(period: Span) -> dict[str, Any]:
    return {"from": rfc3339(period.start), "to": rfc3339(period.end)}
