"""Response models shared by the metrics routes: each number names its definition, and links lead to its incidents."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from app.base.http.requests.fields import MoneyRange, PeriodModel
from app.base.http.requests.filters import SeveritiesFiltered
from app.base.http.responses.numbers import DefinitionName, Number, Seconds
from app.base.values.severity import severity_name
from app.incidents.impact.intervals import Cost, Shown, shown
from app.incidents.measures.business_hours import BusinessHours
from app.metrics.counts import NOTHING_OBSERVED, PerDay
from app.metrics.query import MetricsQuery
from app.metrics.shapes import CountModel, PerDayModel, ValuesModel, statistics_model, window
from app.metrics.summary.labor import Labor
from app.metrics.summary.numbers import Numbers
from app.metrics.summary.periods import hours_of_week
from app.metrics.summary.summaries import Summary
from app.metrics.summary.survival import Estimates

LINKS_AT_MOST = 100
WEEKS_LINKED_AT_MOST = 12  # an answer can have 168 groups, and each of their numbers repeats these links

# — the contract —

Links = Annotated[
    list[str],
    Field(
        description="Links, relative to the URL of Aftermath, to the incidents behind the number",
        examples=[["/api/v1/incidents?from=2026-08-01T00%3A00%3A00Z&to=2026-09-01T00%3A00%3A00Z"]],
    ),
]


class FiltersModel(SeveritiesFiltered):
    """The filters that apply to these numbers; for a group they include the group itself. An empty list means all."""

    environment: list[str] = Field(
        description="Environments; empty means all, and `unknown` means incidents without an environment",
        examples=[["production"]],
    )
    source: list[str] = Field(description="Sources; empty means all", examples=[["prometheus-eu"]])
    owner: list[str] = Field(
        description="Owners of the services; an empty list means all, an empty name means services without an owner",
        examples=[["payments"]],
    )
    hour_of_week: list[int] = Field(
        description="Hours of detection within the week, from Monday 00:00 UTC; empty means all", examples=[[9]]
    )
    include_non_recoveries: bool


class LinkedCountModel(CountModel):
    links: Links


class DefinedPerDayModel(PerDayModel):
    definition: DefinitionName


class SummaryModel(ValuesModel):
    """One measure of many incidents. `n + pending + censored + invalid` plus the sum of `excluded` is the number of
    incidents.
    """

    zeros: int = Field(
        0,
        description="Number of recorded values that are 0; in business hours: durations entirely outside those hours",
    )
    censored: int = Field(0, description="Incidents that ended before the event happened, so that it no longer can")
    invalid: int = Field(
        0,
        description="Incidents whose facts contradict each other; negative durations are never clamped",
    )
    excluded: dict[str, int] = Field({}, description="Incidents the measure does not apply to, by reason")


class EstimateModel(BaseModel):
    seconds: Annotated[
        Seconds | None, Field(description="Null if the event has happened for fewer than half of the incidents")
    ]
    low: Annotated[Seconds | None, Field(description="Lower bound of the 95 % interval; null if unknown")]
    high: Annotated[Seconds | None, Field(description="Upper bound of the 95 % interval; null if unknown")]


class RestrictedMeanModel(BaseModel):
    seconds: Seconds
    low: Seconds = Field(description="Lower bound of the 95 % interval")
    high: Seconds = Field(description="Upper bound of the 95 % interval")
    horizon_seconds: Seconds = Field(
        description="The requested horizon, or the longest duration if that is shorter and censored. Compare "
        "restricted means only if their horizons are equal"
    )


class StepModel(BaseModel):
    """The share of incidents in which the event had happened within `seconds`."""

    seconds: Seconds
    share: Number
    low: Number = Field(description="Lower bound of the 95 % band")
    high: Number = Field(description="Upper bound of the 95 % band")


class BinModel(BaseModel):
    """The number of incidents that took at least `from` and less than `to` seconds."""

    start: Seconds = Field(serialization_alias="from")
    end: Seconds = Field(serialization_alias="to")
    incidents: int


class EstimatesModel(BaseModel):
    """Estimates that include pending and censored durations, and the distribution."""

    kaplan_meier_median: EstimateModel = Field(description="Median that includes pending and censored durations")
    restricted_mean: RestrictedMeanModel = Field(
        description="Mean up to the horizon that includes pending and censored durations"
    )
    ecdf: list[StepModel] = Field(description="Distribution with pending and censored durations, in at most 50 steps")
    histogram: list[BinModel] = Field(description="Recorded values, in bins that double in width")


class EstimatedSummaryModel(SummaryModel):
    estimates: EstimatesModel | None = Field(None, description="Null if there are fewer than 10 values")


class CalendarModel(BaseModel):
    name: str = Field(examples=["berlin-office"])
    zone: str = Field(examples=["Europe/Berlin"])


MeasureSummaries = Annotated[
    dict[str, EstimatedSummaryModel],
    Field(description="By the name of the measure, which is also the name of its definition"),
]


class BusinessHoursModel(BaseModel):
    """The same incidents measured in business hours: only seconds within the calendar's hours count."""

    definition: DefinitionName
    measures: MeasureSummaries = Field(description="The horizon, too, is in seconds of business hours")


class DowntimeModel(BaseModel):
    seconds: Seconds
    planned_seconds: Seconds = Field(0.0, description="Downtime during planned maintenance; not included in `seconds`")


class PeriodDowntimeModel(DowntimeModel):
    definition: DefinitionName
    links: Links


Amounts = Annotated[
    dict[str, MoneyRange] | None,
    Field(description="By currency, never converted; null if no rate was known (not the same as 0)"),
]
WithoutRate = Annotated[
    list[str],
    Field(description="Services that were impacted but had no rate at that time; their cost is not included."),
]


class OutageCostModel(BaseModel):
    amounts: Amounts
    services_without_rate: WithoutRate = []


class PeriodCostModel(OutageCostModel):
    """Cost of the downtime, and so of the same incidents."""

    definition: DefinitionName


class LaborModel(BaseModel):
    """Cost of responders' time; never part of `cost`."""

    amounts: dict[str, MoneyRange] | None = Field(
        description="By currency; null if no work is known (not the same as 0)"
    )
    n: int = Field(description="Number of incidents that were worked on in the period")
    left_out: dict[str, int] = Field(description="Incidents detected in the period without known work, by reason")


class PeriodLaborModel(LaborModel):
    definition: DefinitionName


class NumbersModel(PeriodModel):
    """The numbers of a period. The incidents behind `incidents_per_day`, `measures` and `labor` are those of
    `incidents`, and those behind `cost` are those of `downtime`.
    """

    filters: FiltersModel
    incidents: LinkedCountModel
    incidents_per_day: DefinedPerDayModel
    open: LinkedCountModel
    measures: MeasureSummaries
    business_hours: BusinessHoursModel | None = Field(description="Null if no calendar was requested")
    downtime: PeriodDowntimeModel
    cost: PeriodCostModel
    labor: PeriodLaborModel | None = Field(description="Null if `AFTERMATH_LABOR` is not set")


class BucketModel(BaseModel):
    """The numbers of one bucket, without what is 0, null or empty; the names of their definitions are at the top level.

    The incidents behind them are those that the filters and the group select in the period of the bucket, and
    `carried_in`.
    """

    incidents: int
    open: int
    measures: dict[str, SummaryModel] = Field(
        description="By the name of the measure, which is also the name of its definition; empty without incidents"
    )
    business_hours: dict[str, SummaryModel] | None = Field(
        None, description="The measures in business hours of the calendar; null if no calendar was requested"
    )
    downtime: DowntimeModel
    cost: OutageCostModel
    labor: LaborModel | None = Field(None, description="Null if `AFTERMATH_LABOR` is not set")
    carried_in: list[str] = Field(
        [],
        description="Incidents detected at another time with impact in this bucket, at most 100",
        examples=[["INC-42"]],
    )


# — the answer —


def numbers_model(numbers: Numbers) -> NumbersModel:
    query = numbers.query
    links = links_of(query)
    return NumbersModel(
        start=query.period.start,
        end=query.period.end,
        filters=filters_model(query),
        incidents=LinkedCountModel(value=numbers.incidents, definition="incidents", links=links),
        incidents_per_day=DefinedPerDayModel(
            **dict(per_day_model(numbers.per_day or NOTHING_OBSERVED)), definition="incidents_per_day"
        ),
        open=LinkedCountModel(
            value=numbers.open, definition="open", links=[f"{link}&status=open&status=acknowledged" for link in links]
        ),
        measures=estimated_models(numbers.measures),
        business_hours=numbers.business_hours
        and BusinessHoursModel(definition="business_hours", measures=estimated_models(numbers.business_hours)),
        downtime=downtime_model(numbers),
        cost=cost_model(numbers),
        labor=numbers.labor and PeriodLaborModel(**_labor(numbers.labor), definition="labor"),
    )


def per_day_model(each: PerDay) -> PerDayModel:
    return PerDayModel(value=each.per_day, low=each.low, high=each.high, dispersion=each.dispersion)


def estimated_models(summaries: Mapping[str, Summary]) -> dict[str, EstimatedSummaryModel]:
    return {name: estimated_model(each) for name, each in summaries.items()}


def estimated_model(each: Summary) -> EstimatedSummaryModel:
    return EstimatedSummaryModel(**_summary(each), estimates=each.estimates and _estimates(each.estimates))


def _estimates(found: Estimates) -> EstimatesModel:
    area = found.restricted_mean
    return EstimatesModel(
        kaplan_meier_median=EstimateModel.model_validate(found.median, from_attributes=True),
        restricted_mean=RestrictedMeanModel(
            seconds=area.seconds, low=area.low, high=area.high, horizon_seconds=area.horizon
        ),
        ecdf=[StepModel.model_validate(each, from_attributes=True) for each in found.ecdf],
        histogram=[BinModel.model_validate(each, from_attributes=True) for each in found.histogram],
    )


def calendar_model(calendar: BusinessHours | None) -> CalendarModel | None:
    return None if calendar is None else CalendarModel(name=calendar.name, zone=calendar.zone)


def point_model(numbers: Numbers) -> BucketModel:
    return BucketModel(
        incidents=numbers.incidents,
        open=numbers.open,
        measures=_summaries(numbers, numbers.measures),
        business_hours=None if numbers.business_hours is None else _summaries(numbers, numbers.business_hours),
        downtime=DowntimeModel(**_downtime(numbers)),
        cost=OutageCostModel(**_cost(numbers)),
        labor=numbers.labor and LaborModel(**_labor(numbers.labor)),
        carried_in=[f"INC-{number}" for number in numbers.carried_in[:LINKS_AT_MOST]],
    )


def _summaries(numbers: Numbers, summaries: Mapping[str, Summary]) -> dict[str, SummaryModel]:
    return {name: summary_model(each) for name, each in summaries.items()} if numbers.incidents else {}


def summary_model(each: Summary) -> SummaryModel:
    return SummaryModel(**_summary(each))


def _summary(each: Summary) -> dict[str, Any]:
    return {
        "n": each.n,
        "values": None if each.values is None else list(each.values),
        "statistics": statistics_model(each.typical),
        "zeros": each.zeros,
        "pending": each.pending,
        "censored": each.censored,
        "invalid": each.invalid,
        "excluded": dict(each.excluded),
    }


def downtime_model(numbers: Numbers) -> PeriodDowntimeModel:
    return PeriodDowntimeModel(**_downtime(numbers), definition="downtime", links=links_with_impact(numbers))


def _downtime(numbers: Numbers) -> dict[str, Any]:
    return {"seconds": numbers.downtime.total_seconds(), "planned_seconds": numbers.planned.total_seconds()}


def cost_model(numbers: Numbers) -> PeriodCostModel:
    return PeriodCostModel(**_cost(numbers), definition="cost")


def _cost(numbers: Numbers) -> dict[str, Any]:
    return {"amounts": amounts(numbers.cost), "services_without_rate": list(numbers.services_without_rate)}


def _labor(labor: Labor) -> dict[str, Any]:
    return {"amounts": amounts(labor.cost or None), "n": labor.n, "left_out": dict(labor.left_out)}


def amounts(cost: Cost | None) -> dict[str, MoneyRange] | None:
    return None if cost is None else money_ranges(shown(cost))


def money_ranges(cost: Mapping[str, Shown]) -> dict[str, MoneyRange]:
    """By currency."""
    return {currency: MoneyRange.model_validate(amount, from_attributes=True) for currency, amount in cost.items()}


def filters_model(query: MetricsQuery) -> FiltersModel:
    filters = query.filters
    return FiltersModel(
        service=list(filters.service),
        severity=[severity_name(each) for each in filters.severity],
        environment=list(filters.environment),
        source=list(filters.source),
        owner=list(filters.owner),
        hour_of_week=list(filters.hour_of_week),
        include_non_recoveries=query.include_non_recoveries,
    )


def links_of(query: MetricsQuery) -> list[str]:
    """One link; with hours of the week, one for each of them in each of the last 12 weeks, at most 100."""
    filters = query.filters
    asked = {
        "service": filters.service,
        "environment": filters.environment,
        "severity": [severity_name(each) for each in filters.severity],
        "source": filters.source,
        "owner": filters.owner,
    }
    periods = [query.period]
    if filters.hour_of_week:
        periods = [
            period
            for hour in filters.hour_of_week
            for period in hours_of_week(query.period, hour, last=WEEKS_LINKED_AT_MOST)
        ]
    return [f"/api/v1/incidents?{urlencode(window(period) | asked, doseq=True)}" for period in periods[:LINKS_AT_MOST]]


def links_with_impact(numbers: Numbers) -> list[str]:
    """The links of the period, and one for each incident detected at another time with impact in it, at most 100."""
    carried_in: Sequence[int] = numbers.carried_in[:LINKS_AT_MOST]
    return [*links_of(numbers.query), *(f"/api/v1/incidents/INC-{number}" for number in carried_in)]
