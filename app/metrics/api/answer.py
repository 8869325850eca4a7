"""Response models shared by the metrics routes: each number with its formula and links to its incidents."""

from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import Annotated
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from app.base.http.fields import MoneyRange, PeriodModel, rfc3339
from app.base.severity import SeverityName, severity_name
from app.base.times import Span
from app.incidents.definitions import FORMULAS
from app.incidents.impact.intervals import Cost, Shown, shown
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.measures import MEASURES, Measure
from app.metrics.counts import NOTHING_OBSERVED, PerDay
from app.metrics.query import MetricsQuery
from app.metrics.summary.labor import Labor
from app.metrics.summary.numbers import Numbers
from app.metrics.summary.periods import hours_of_week
from app.metrics.summary.summaries import Summary

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
Seconds = Annotated[float | None, Field(description="Seconds; null if nothing was recorded (not the same as 0)")]


class FiltersModel(PeriodModel):
    """The filters that apply to these numbers; for a group they include the group itself."""

    service: str | None = Field(description="Null means all")
    environment: str | None = Field(
        description="Null means all, `unknown` means incidents without an environment", examples=["production"]
    )
    severity: SeverityName | None = Field(description="Null means all")
    source: str | None = Field(description="Null means all")
    owner: str | None = Field(description="Owner of the service; null means all, empty means services without an owner")
    hour_of_week: int | None = Field(description="Null means all")
    include_non_recoveries: bool


class IncidentCountModel(BaseModel):
    value: int
    formula: str
    links: Links


class PerDayModel(BaseModel):
    """Incidents per day, with a 95 % interval that allows for storms."""

    value: float | None = Field(description="Null if nothing of the period has passed")
    low: float | None
    high: float | None
    dispersion: float = Field(
        description="Variance of the counts of days or weeks over their mean: incidents came as if in groups of this "
        "size. 1 means independent"
    )
    formula: str
    links: Links


class SummaryModel(BaseModel):
    """Statistics of one measure. `n + pending + censored + invalid` plus the sum of `excluded` is the number of
    incidents.
    """

    n: int = Field(
        description="Number of recorded values; with fewer than 10, the values are listed instead of statistics"
    )
    zeros: int = Field(
        description="Number of recorded values that are 0; in business hours: durations entirely outside those hours"
    )
    values: list[float] | None = Field(
        description="The individual values in ascending order; null if there are 10 or more"
    )
    median: Seconds
    p90: Seconds
    p95: Annotated[float | None, Field(description="Seconds; null with fewer than 60 values")]
    geometric_mean: Annotated[float | None, Field(description="Seconds; also null if any value is 0")]
    mean: Seconds
    pending: int = Field(description="Incidents in which the event may still happen")
    censored: int = Field(description="Incidents that ended before the event happened, so that it no longer can")
    invalid: int = Field(
        description="Incidents whose facts contradict each other; negative durations are never clamped"
    )
    excluded: dict[str, int] = Field(description="Incidents the measure does not apply to, by reason")


class EstimateModel(BaseModel):
    seconds: Annotated[
        float | None, Field(description="Null if the event has happened for fewer than half of the incidents")
    ]
    low: Annotated[float | None, Field(description="Lower bound of the 95 % interval; null if unknown")]
    high: Annotated[float | None, Field(description="Upper bound of the 95 % interval; null if unknown")]


class RestrictedMeanModel(BaseModel):
    seconds: float
    low: float = Field(description="Lower bound of the 95 % interval")
    high: float = Field(description="Upper bound of the 95 % interval")
    horizon_seconds: float = Field(
        description="The requested horizon, or the longest duration if that is shorter and censored. Compare "
        "restricted means only if their horizons are equal"
    )


class StepModel(BaseModel):
    """The share of incidents in which the event had happened within `seconds`."""

    seconds: float
    share: float
    low: float = Field(description="Lower bound of the 95 % band")
    high: float = Field(description="Upper bound of the 95 % band")


class BinModel(BaseModel):
    """The number of incidents that took at least `from` and less than `to` seconds."""

    start: float = Field(serialization_alias="from")
    end: float = Field(serialization_alias="to")
    incidents: int


class EstimatedSummaryModel(SummaryModel):
    kaplan_meier_median: EstimateModel | None = Field(
        description="Median that includes pending and censored durations; null if n is below 10"
    )
    restricted_mean: RestrictedMeanModel | None = Field(
        description="Mean up to the horizon that includes pending and censored durations; null if n is below 10"
    )
    ecdf: list[StepModel] = Field(
        description="Distribution with pending and censored durations, in at most 50 steps; empty if n is below 10"
    )
    histogram: list[BinModel] = Field(
        description="Recorded values, in bins that double in width; empty if n is below 10"
    )


class MeasureSummaryModel(EstimatedSummaryModel):
    label: str
    starts: str
    ends: str
    formula: str
    links: Links


class CalendarModel(BaseModel):
    name: str = Field(examples=["berlin-office"])
    zone: str = Field(examples=["Europe/Berlin"])


class BusinessHoursModel(BaseModel):
    """The same incidents measured in business hours: only seconds within the calendar's hours count."""

    formula: str
    measures: dict[str, EstimatedSummaryModel] = Field(description="The horizon, too, is in seconds of business hours")


class DowntimeModel(BaseModel):
    seconds: float
    planned_seconds: float = Field(description="Downtime during planned maintenance; not included in `seconds`")
    formula: str
    links: Links


Amounts = Annotated[
    dict[str, MoneyRange] | None,
    Field(description="By currency, never converted; null if no rate was known (not the same as 0)"),
]
WithoutRate = Annotated[
    list[str],
    Field(description="Services that were impacted but had no rate at that time; their cost is not included"),
]


class PeriodCostModel(BaseModel):
    amounts: Amounts
    services_without_rate: WithoutRate
    formula: str
    links: Links


class BucketLaborModel(BaseModel):
    """Cost of responders' time; never part of `cost`."""

    amounts: dict[str, MoneyRange] | None = Field(
        description="By currency; null if no work is known (not the same as 0)"
    )
    n: int = Field(description="Number of incidents that were worked on in the period")
    left_out: dict[str, int] = Field(description="Incidents detected in the period without known work, by reason")


class LaborModel(BucketLaborModel):
    formula: str
    links: Links


class NumbersModel(BaseModel):
    filters: FiltersModel
    incidents: IncidentCountModel
    incidents_per_day: PerDayModel
    open: IncidentCountModel
    measures: dict[str, MeasureSummaryModel]
    business_hours: BusinessHoursModel | None = Field(description="Null if no calendar was requested")
    downtime: DowntimeModel
    cost: PeriodCostModel
    labor: LaborModel | None = Field(description="Null if `AFTERMATH_LABOR` is not set")


class BucketModel(PeriodModel):
    """The numbers of one bucket; the formulas are at the top level of the response."""

    incidents: int
    open: int
    measures: dict[str, SummaryModel]
    business_hours: dict[str, SummaryModel] | None = Field(
        description="The measures in business hours of the calendar; null if no calendar was requested"
    )
    downtime_seconds: float
    planned_seconds: float
    cost: Amounts
    services_without_rate: WithoutRate
    labor: BucketLaborModel | None = Field(description="Null if `AFTERMATH_LABOR` is not set")
    links: Links


# — the answer —


def numbers_model(numbers: Numbers) -> NumbersModel:
    links = links_of(numbers.query, numbers.services)
    of_open = [f"{link}&status={status}" for status in ("open", "acknowledged") for link in links]
    with_impact = links_with_impact(numbers, links)
    return NumbersModel(
        filters=filters_model(numbers.query),
        incidents=IncidentCountModel(value=numbers.incidents, formula=FORMULAS["incidents"], links=links),
        incidents_per_day=_per_day(numbers.per_day or NOTHING_OBSERVED, links),
        open=IncidentCountModel(value=numbers.open, formula=FORMULAS["open"], links=of_open),
        measures={
            measure.name: _measure_summary(measure, numbers.measures[measure.name], links)
            for measure in MEASURES
            if measure.name in numbers.measures
        },
        business_hours=numbers.business_hours
        and BusinessHoursModel(
            formula=FORMULAS["business_hours"],
            measures={name: estimated_model(each) for name, each in numbers.business_hours.items()},
        ),
        downtime=downtime_model(numbers, with_impact),
        cost=cost_model(numbers, with_impact),
        labor=numbers.labor and _labor_model(numbers.labor, links),
    )


def _per_day(each: PerDay, links: Links) -> PerDayModel:
    return PerDayModel(
        value=each.per_day,
        low=each.low,
        high=each.high,
        dispersion=each.dispersion,
        formula=FORMULAS["incidents_per_day"],
        links=links,
    )


def _measure_summary(measure: Measure, each: Summary, links: Sequence[str]) -> MeasureSummaryModel:
    return MeasureSummaryModel(
        **dict(estimated_model(each)),
        label=measure.label,
        starts=measure.starts,
        ends=measure.ends,
        formula=FORMULAS[measure.name],
        links=list(links),
    )


def estimated_model(each: Summary) -> EstimatedSummaryModel:
    found = each.estimates
    half, area = (found.median, found.restricted_mean) if found else (None, None)
    return EstimatedSummaryModel(
        **dict(summary_model(each)),
        kaplan_meier_median=half and EstimateModel.model_validate(half, from_attributes=True),
        restricted_mean=area
        and RestrictedMeanModel(seconds=area.seconds, low=area.low, high=area.high, horizon_seconds=area.horizon),
        ecdf=[StepModel.model_validate(each, from_attributes=True) for each in (found.ecdf if found else ())],
        histogram=[BinModel.model_validate(each, from_attributes=True) for each in (found.histogram if found else ())],
    )


def calendar_model(calendar: BusinessHours | None) -> CalendarModel | None:
    return None if calendar is None else CalendarModel(name=calendar.name, zone=calendar.zone)


def point_model(numbers: Numbers) -> BucketModel:
    return BucketModel(
        start=numbers.query.period.start,
        end=numbers.query.period.end,
        incidents=numbers.incidents,
        open=numbers.open,
        measures={name: summary_model(each) for name, each in numbers.measures.items()},
        business_hours=numbers.business_hours
        and {name: summary_model(each) for name, each in numbers.business_hours.items()},
        downtime_seconds=numbers.downtime.total_seconds(),
        planned_seconds=numbers.planned.total_seconds(),
        cost=amounts(numbers.cost),
        services_without_rate=list(numbers.services_without_rate),
        labor=numbers.labor and _labor_of_bucket(numbers.labor),
        links=links_with_impact(numbers, links_of(numbers.query, numbers.services)),
    )


def summary_model(each: Summary) -> SummaryModel:
    typical = each.typical
    return SummaryModel(
        n=each.n,
        zeros=each.zeros,
        values=None if each.values is None else list(each.values),
        median=typical and typical.median,
        p90=typical and typical.p90,
        p95=typical and typical.p95,
        geometric_mean=typical and typical.geometric_mean,
        mean=typical and typical.mean,
        pending=each.pending,
        censored=each.censored,
        invalid=each.invalid,
        excluded=dict(each.excluded),
    )


def downtime_model(numbers: Numbers, links: list[str]) -> DowntimeModel:
    return DowntimeModel(
        seconds=numbers.downtime.total_seconds(),
        planned_seconds=numbers.planned.total_seconds(),
        formula=FORMULAS["downtime"],
        links=links,
    )


def cost_model(numbers: Numbers, links: list[str]) -> PeriodCostModel:
    return PeriodCostModel(
        amounts=amounts(numbers.cost),
        services_without_rate=list(numbers.services_without_rate),
        formula=FORMULAS["cost"],
        links=links,
    )


def _labor_model(labor: Labor, links: Sequence[str]) -> LaborModel:
    return LaborModel(**dict(_labor_of_bucket(labor)), formula=FORMULAS["labor"], links=list(links))


def _labor_of_bucket(labor: Labor) -> BucketLaborModel:
    return BucketLaborModel(amounts=amounts(labor.cost or None), n=labor.n, left_out=dict(labor.left_out))


def amounts(cost: Cost | None) -> dict[str, MoneyRange] | None:
    return None if cost is None else money_ranges(shown(cost))


def money_ranges(cost: Mapping[str, Shown]) -> dict[str, MoneyRange]:
    """By currency."""
    return {currency: MoneyRange.model_validate(amount, from_attributes=True) for currency, amount in cost.items()}


FORMULAS_OF_NUMBERS = ("incidents", "open", "downtime", "cost", *(measure.name for measure in MEASURES))


def filters_model(query: MetricsQuery) -> FiltersModel:
    filters = query.filters
    return FiltersModel(
        start=query.period.start,
        end=query.period.end,
        service=filters.service,
        environment=filters.environment,
        severity=severity_name(filters.severity) if filters.severity else None,
        source=filters.source,
        owner=filters.owner,
        hour_of_week=filters.hour_of_week,
        include_non_recoveries=query.include_non_recoveries,
    )


def links_of(query: MetricsQuery, services: Sequence[str] = ()) -> list[str]:
    """Usually one link. For an owner one per service, for an hour of the week one for each of the last 12 weeks; at
    most 100.
    """
    filters = query.filters
    asked: dict[str, str] = {}
    if filters.environment is not None:
        asked["environment"] = filters.environment
    if filters.severity is not None:
        asked["severity"] = severity_name(filters.severity)
    if filters.source is not None:
        asked["source"] = filters.source
    periods = [query.period]
    if filters.hour_of_week is not None:
        periods = hours_of_week(query.period, filters.hour_of_week, last=WEEKS_LINKED_AT_MOST)
    names = [filters.service] if filters.owner is None or filters.service is not None else services
    return [
        f"/api/v1/incidents?{urlencode(_window(period) | ({} if name is None else {'service': name}) | asked)}"
        for period, name in islice(product(periods, names), LINKS_AT_MOST)
    ]


def _window(period: Span) -> dict[str, str]:
    return {"from": rfc3339(period.start), "to": rfc3339(period.end)}


def links_with_impact(numbers: Numbers, links: Sequence[str]) -> list[str]:
    """The links of the period, and one for each incident detected at another time with impact in it, at most 100."""
    carried_in: Sequence[int] = numbers.carried_in[:LINKS_AT_MOST]
    return [*links, *(f"/api/v1/incidents/INC-{number}" for number in carried_in)]
