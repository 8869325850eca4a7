"""The response models that the metrics routes share, each number with its formula and links to its incidents."""

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
from app.metrics.query import MetricsQuery
from app.metrics.summary.labor import Labor
from app.metrics.summary.numbers import Numbers
from app.metrics.summary.periods import hours_of_week
from app.metrics.summary.summaries import Summary

LINKS_AT_MOST = 100
WEEKS_LINKED_AT_MOST = 12  # every number of 168 groups has them

# — the contract —

Links = Annotated[
    list[str],
    Field(
        description="Addresses, below this service, of the incidents behind the number",
        examples=[["/api/v1/incidents?from=2026-08-01T00%3A00%3A00Z&to=2026-09-01T00%3A00%3A00Z"]],
    ),
]
Seconds = Annotated[float | None, Field(description="Seconds; null: nothing was recorded, which is not 0")]


class FiltersModel(PeriodModel):
    """What the numbers were asked for; a group narrows it to itself."""

    service: str | None = Field(description="Null: all")
    severity: SeverityName | None = Field(description="Null: all")
    source: str | None = Field(description="Null: all")
    owner: str | None = Field(description="Of the service; null: all, empty: services without one")
    hour_of_week: int | None = Field(description="Null: all")
    include_non_recoveries: bool


class CountOfIncidentsModel(BaseModel):
    value: int
    formula: str
    links: Links


class SummaryModel(BaseModel):
    """Of one measure: `n + pending + censored + invalid` and all of `excluded` together are the incidents."""

    n: int = Field(description="Recorded values; of fewer than 10 there are the values and no statistic")
    zeros: int = Field(description="Of these, how many are 0; in business hours: all of it lay out of them")
    values: list[float] | None = Field(description="The single values, rising; null: there are 10 or more")
    median: Seconds
    p90: Seconds
    p95: Annotated[float | None, Field(description="Seconds; of 60 values or more")]
    geometric_mean: Annotated[float | None, Field(description="Seconds; null too where a value is 0")]
    mean: Seconds
    pending: int = Field(description="May still happen")
    censored: int = Field(description="Had not happened when the incident ended, and no longer could")
    invalid: int = Field(description="The facts contradict each other; negative durations are never clamped")
    excluded: dict[str, int] = Field(description="Not applicable, by reason")


class EstimateModel(BaseModel):
    seconds: Annotated[float | None, Field(description="Null: fewer than half have happened")]
    low: Annotated[float | None, Field(description="Of the 95 % interval; null: unknown")]
    high: Annotated[float | None, Field(description="Of the 95 % interval; null: unknown")]


class RestrictedMeanModel(BaseModel):
    seconds: float
    low: float = Field(description="Of the 95 % interval")
    high: float = Field(description="Of the 95 % interval")
    horizon_seconds: float = Field(
        description="As asked for, or the longest wait if that is shorter and was cut short; compare equal ones only"
    )


class StepModel(BaseModel):
    """`share` had happened within `seconds`."""

    seconds: float
    share: float
    low: float = Field(description="Of the 95 % band")
    high: float = Field(description="Of the 95 % band")


class BinModel(BaseModel):
    """How many incidents took at least `from` and less than `to` seconds."""

    begins: float = Field(serialization_alias="from")
    ends: float = Field(serialization_alias="to")
    incidents: int


class EstimatedSummaryModel(SummaryModel):
    kaplan_meier_median: EstimateModel | None = Field(description="Waits take part; null: n is below 10")
    restricted_mean: RestrictedMeanModel | None = Field(description="Waits take part; null: n is below 10")
    ecdf: list[StepModel] = Field(description="Waits take part; 50 steps at most, none if n is below 10")
    histogram: list[BinModel] = Field(description="Recorded values in bins that double; none if n is below 10")


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
    """The measures by the second clock: of the same incidents, in seconds of the calendar's hours."""

    formula: str
    measures: dict[str, EstimatedSummaryModel] = Field(description="A horizon is in seconds of these hours too")


class DowntimeModel(BaseModel):
    seconds: float
    planned_seconds: float = Field(description="That fell into planned maintenance, and is not in `seconds`")
    formula: str
    links: Links


Amounts = Annotated[
    dict[str, MoneyRange] | None,
    Field(description="By currency, nothing is converted; null: no rate was known, which is not 0"),
]
WithoutRate = Annotated[
    list[str], Field(description="Services that were harmed and have no rate for that time: their cost is not in here")
]


class CostOfPeriodModel(BaseModel):
    amounts: Amounts
    services_without_rate: WithoutRate
    formula: str
    links: Links


class LaborOfBucketModel(BaseModel):
    """What the time of responders cost; never part of `cost`."""

    amounts: dict[str, MoneyRange] | None = Field(
        description="By currency; null: nobody is known to have worked, which is not 0"
    )
    n: int = Field(description="Incidents that were worked on in the period")
    left_out: dict[str, int] = Field(description="Incidents detected in it of which no work is known, by reason")


class LaborModel(LaborOfBucketModel):
    formula: str
    links: Links


class NumbersModel(BaseModel):
    filters: FiltersModel
    incidents: CountOfIncidentsModel
    open: CountOfIncidentsModel
    measures: dict[str, MeasureSummaryModel]
    business_hours: BusinessHoursModel | None = Field(description="Null: no calendar was asked for")
    downtime: DowntimeModel
    cost: CostOfPeriodModel
    labor: LaborModel | None = Field(description="Null: `AFTERMATH_LABOR` says not what an hour costs")


class PointModel(PeriodModel):
    """One bucket; its formulas stand at the top of the answer."""

    incidents: int
    open: int
    measures: dict[str, SummaryModel]
    business_hours: dict[str, SummaryModel] | None = Field(
        description="The measures in seconds of the calendar's hours; null: none was asked for"
    )
    downtime_seconds: float
    planned_seconds: float
    cost: Amounts
    services_without_rate: WithoutRate
    labor: LaborOfBucketModel | None = Field(description="Null: `AFTERMATH_LABOR` says not what an hour costs")
    links: Links


# — the answer —


def numbers_model(numbers: Numbers) -> NumbersModel:
    links = links_of(numbers.query, numbers.services)
    of_open = [f"{link}&status={status}" for status in ("open", "acknowledged") for link in links]
    of_harm = links_of_harm(numbers, links)
    return NumbersModel(
        filters=filters_model(numbers.query),
        incidents=CountOfIncidentsModel(value=numbers.incidents, formula=FORMULAS["incidents"], links=links),
        open=CountOfIncidentsModel(value=numbers.open, formula=FORMULAS["open"], links=of_open),
        measures={
            measure.name: _measure_summary(measure, numbers.measures[measure.name], links)
            for measure in MEASURES
            if measure.name in numbers.measures
        },
        business_hours=numbers.business_hours
        and BusinessHoursModel(
            formula=FORMULAS["business_hours"],
            measures={name: _estimated(each) for name, each in numbers.business_hours.items()},
        ),
        downtime=downtime_model(numbers, of_harm),
        cost=cost_model(numbers, of_harm),
        labor=numbers.labor and _labor_model(numbers.labor, links),
    )


def _measure_summary(measure: Measure, each: Summary, links: Sequence[str]) -> MeasureSummaryModel:
    return MeasureSummaryModel(
        **dict(_estimated(each)),
        label=measure.label,
        starts=measure.starts,
        ends=measure.ends,
        formula=FORMULAS[measure.name],
        links=list(links),
    )


def _estimated(each: Summary) -> EstimatedSummaryModel:
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


def point_model(numbers: Numbers) -> PointModel:
    return PointModel(
        begins=numbers.query.period.begins,
        ends=numbers.query.period.ends,
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
        links=links_of_harm(numbers, links_of(numbers.query, numbers.services)),
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


def cost_model(numbers: Numbers, links: list[str]) -> CostOfPeriodModel:
    return CostOfPeriodModel(
        amounts=amounts(numbers.cost),
        services_without_rate=list(numbers.services_without_rate),
        formula=FORMULAS["cost"],
        links=links,
    )


def _labor_model(labor: Labor, links: Sequence[str]) -> LaborModel:
    return LaborModel(**dict(_labor_of_bucket(labor)), formula=FORMULAS["labor"], links=list(links))


def _labor_of_bucket(labor: Labor) -> LaborOfBucketModel:
    return LaborOfBucketModel(amounts=amounts(labor.cost or None), n=labor.n, left_out=dict(labor.left_out))


def amounts(cost: Cost | None) -> dict[str, MoneyRange] | None:
    return None if cost is None else money_ranges(shown(cost))


def money_ranges(cost: Mapping[str, Shown]) -> dict[str, MoneyRange]:
    """By currency."""
    return {currency: MoneyRange.model_validate(amount, from_attributes=True) for currency, amount in cost.items()}


FORMULAS_OF_NUMBERS = ("incidents", "open", "downtime", "cost", *(measure.name for measure in MEASURES))


def filters_model(query: MetricsQuery) -> FiltersModel:
    filters = query.filters
    return FiltersModel(
        begins=query.period.begins,
        ends=query.period.ends,
        service=filters.service,
        severity=severity_name(filters.severity) if filters.severity else None,
        source=filters.source,
        owner=filters.owner,
        hour_of_week=filters.hour_of_week,
        include_non_recoveries=query.include_non_recoveries,
    )


def links_of(query: MetricsQuery, services: Sequence[str] = ()) -> list[str]:
    """One; for an owner one per service, 100 at most, for an hour of the week one for each of the last 12 weeks."""
    filters = query.filters
    asked: dict[str, str] = {}
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
    return {"from": rfc3339(period.begins), "to": rfc3339(period.ends)}


def links_of_harm(numbers: Numbers, links: Sequence[str]) -> list[str]:
    """Those of the period (`links`), and one by one, 100 at most, those that were detected at another time but harm in
    it.
    """
    carried_in: Sequence[int] = numbers.carried_in[:LINKS_AT_MOST]
    return [*links, *(f"/api/v1/incidents/INC-{number}" for number in carried_in)]
