"""HTTP API of comparisons: one measure in two periods (are we getting better?)."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AfterValidator, BaseModel, Field

from app.base.errors import Invalid
from app.base.http.access.auth import Reader
from app.base.http.context import Now, SettingsDep, Tx
from app.base.http.requests.fields import DEFAULT_PERIOD, TIME, Length, PeriodModel, When, time_of
from app.base.http.responses.csv import CSV, Line, cells, or_csv
from app.base.http.responses.numbers import DefinitionName, DefinitionNames, Number, OptionalSeconds, Seconds
from app.base.http.responses.problems import problem_responses
from app.base.values.times import EARLIEST, Span
from app.incidents.measures.measures import MEASURES
from app.metrics.api.answer import (
    CalendarModel,
    FiltersModel,
    Links,
    calendar_model,
    filters_model,
    links_of,
    per_day_model,
)
from app.metrics.api.query import CalendarDep, FiltersDep, NonRecoveries, bounds_in
from app.metrics.clusters import Clustering, Occasions
from app.metrics.comparison.compare import TEST, Compared, Comparison, Side, Trend, evidence_in_words
from app.metrics.comparison.store import compare_periods
from app.metrics.counts import Counted, CountsCompared, CountVerdict
from app.metrics.query import MetricsQuery
from app.metrics.shapes import PerDayModel

router = APIRouter()


class OccasionsModel(BaseModel):
    """How much information the incidents carry. Incidents of one storm, or of one week, are not independent."""

    clusters: int = Field(description="Number of storms or of weeks that the incidents come from", examples=[34])
    effective_n: Number = Field(
        description="The number of independent incidents with as much information", examples=[48.2]
    )
    largest_share: Number = Field(description="Share of the recorded values that is in the largest of them")


class SideModel(PeriodModel):
    """One of the two periods. `n + censored` plus the sum of `left_out` is the number of its incidents."""

    n: int = Field(description="Number of recorded values")
    censored: int = Field(
        description="Incidents for which it is still pending, or that ended before it happened; they count as lasting "
        "longer than the time observed"
    )
    left_out: dict[str, int] = Field(
        description="Incidents the measure does not apply to, or whose facts contradict each other, by reason"
    )
    typical_seconds: OptionalSeconds
    storms: OccasionsModel | None = Field(
        description="Storms of incidents that began within 6 h of one another, cut after 24 h; null with too few values"
    )
    weeks: OccasionsModel | None = Field(
        description="Calendar weeks in UTC; null with too few values, or with less than 56 days on a side"
    )
    evidence: str | None = Field(
        description="Null with too few values",
        examples=["150 incidents in 34 storms, worth about 48 independent ones"],
    )
    links: Links


class ComparedEffectModel(BaseModel):
    """How many times as long B takes as A, with a 95 % interval; below 1 means B is shorter."""

    ratio: Number = Field(examples=[0.62])
    low: Number = Field(examples=[0.45])
    high: Number = Field(examples=[0.86])


class SmallestChangeModel(BaseModel):
    """The smallest true changes, as ratios, that this much data would have detected in at least 80 % of cases."""

    shorter: Number = Field(examples=[0.58])
    longer: Number | None = Field(
        description="Null if no increase would have been detectable: too little had happened in the range of durations "
        "observed on both sides",
        examples=[1.72],
    )


class FoundModel(BaseModel):
    """The result if incidents of one storm, or of one week, are not treated as independent."""

    finds_change: bool = Field(description="Whether the interval excludes 1 and the p-value is below 0.05")
    low: Number | None = Field(description="Lower bound of the 95 % interval of the effect; null with too few of them")
    high: Number | None = Field(description="Upper bound of the 95 % interval of the effect; null with too few of them")
    p_value: Number


class ComparisonModel(BaseModel):
    verdict: Trend
    reason: str = Field(examples=["B takes 0.62 times as long as A, 95 % interval 0.45 to 0.86"])
    effect: ComparedEffectModel | None = Field(
        description="With the wider interval of `by_storms` and `by_weeks`; null with too few values, storms or weeks"
    )
    test: str = Field(examples=[TEST])
    p_value: Number | None = Field(
        description="The greater one of `by_storms` and `by_weeks`; null with too few values, storms or weeks",
        examples=[0.004],
    )
    smallest_change: SmallestChangeModel | None = Field(description="Null with too few values, storms or weeks")
    by_storms: FoundModel | None = Field(description="Null with too few values")
    by_weeks: FoundModel | None = Field(
        description="Null with too few values, or with less than 56 days on a side. A verdict needs both"
    )
    horizon_seconds: Seconds | None = Field(
        description="Longer durations are cut to this length before comparing; null if they are compared in full"
    )
    a: SideModel
    b: SideModel


class ComparisonInHoursModel(ComparisonModel):
    """The comparison in business hours, of durations that began within them; the others are in `left_out`."""

    definition: DefinitionName


class ComparedCountModel(BaseModel):
    """The incidents that were detected in a period."""

    value: int
    storms: int = Field(
        description="Number of storms that they came in: incidents that began within 6 h of one another, cut after 24 h"
    )
    per_day: PerDayModel


class CountComparisonModel(BaseModel):
    """Whether there were more incidents per day, of any duration."""

    verdict: CountVerdict
    reason: str
    ratio: Number | None = Field(description="Incidents per day in B divided by those in A; null if A has none")
    low: Number | None = Field(description="Lower bound of the 95 % interval; null if a side has no incidents")
    high: Number | None = Field(description="Upper bound of the 95 % interval; null if a side has no incidents")
    a: ComparedCountModel
    b: ComparedCountModel


class _QuestionModel(BaseModel):
    measure: str = Field(examples=["time_to_recover"])
    filters: FiltersModel
    calendar: CalendarModel | None = Field(description="Calendar for `business_hours`; null if none was requested")


class CompareResponse(ComparisonModel, _QuestionModel):  # pydantic puts the fields of the last base first
    incidents: CountComparisonModel
    business_hours: ComparisonInHoursModel | None = Field(description="Null if no calendar was requested")
    definitions: DefinitionNames


def _measure(value: str) -> str:
    names = sorted(measure.name for measure in MEASURES)
    if value not in names:
        message = f"must be one of {', '.join(names)}"
        raise ValueError(message)
    return value


def _periods(
    now: Now,
    a_from: Annotated[
        When | None, Query(description=f"Start of the baseline period. {TIME}", examples=["2026-05-01"])
    ] = None,
    a_to: Annotated[
        When | None, Query(description=f"End of the baseline period, exclusive. {TIME}", examples=["2026-07-01"])
    ] = None,
    b_from: Annotated[
        When | None, Query(description=f"Start of the period to compare with it. {TIME}", examples=["2026-07-01"])
    ] = None,
    b_to: Annotated[
        When | None, Query(description=f"End of the second period, exclusive; defaults to now. {TIME}")
    ] = None,
    period: Annotated[
        Length | None,
        Query(
            description="Instead of the other times: compares the period of this length that ends at `b_to` with the "
            "one before; defaults to `30d`",
            examples=["30d"],
        ),
    ] = None,
) -> tuple[Span, Span]:
    end = time_of(b_to, now)
    starts = [time_of(each, now) for each in (a_from, a_to, b_from)]
    if not any(starts):
        length, end = period or DEFAULT_PERIOD, end or now
        if end - EARLIEST < 2 * length:
            message = f"the period before would begin before the year {EARLIEST.year}; compare shorter periods"
            raise Invalid(message)
        return Span(end - 2 * length, end - length), Span(end - length, end)
    match starts:
        case [datetime() as begin_a, datetime() as end_a, datetime() as begin_b] if period is None:
            a, b = Span(begin_a, end_a), Span(begin_b, end or max(now, begin_b))
        case _:
            message = "send `a_from`, `a_to` and `b_from`, or `period` instead of them"
            raise Invalid(message)
    if any(each.start > each.end for each in (a, b)):
        message = "a period must not end before it starts"
        raise Invalid(message)
    if max(a.start, b.start) < min(a.end, b.end):
        message = "the periods must not overlap; an incident can belong to only one of them"
        raise Invalid(message)
    return a, b


def _rows(answer: CompareResponse) -> Iterator[Line]:
    yield cells(answer)


@router.get("/api/v1/metrics/compare", summary="Compare two periods", responses=problem_responses(404) | CSV)
@or_csv(_rows, lines="One line")
async def get_comparison(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: SettingsDep,
    measure: Annotated[
        str,
        AfterValidator(_measure),
        Query(json_schema_extra={"enum": [measure.name for measure in MEASURES]}, examples=["time_to_recover"]),
    ],
    periods: Annotated[tuple[Span, Span], Depends(_periods)],
    filters: FiltersDep,
    calendar: CalendarDep,
    include_non_recoveries: NonRecoveries = False,  # noqa: FBT002  a query parameter has a name
) -> CompareResponse:
    """Compares one measure between two periods. The verdict is `better`, `worse`, or `cannot_tell` if the difference
    may be due to chance. Pending durations count with the time elapsed so far. An incident belongs to the period in
    which it was detected. `period=30d` compares the last 30 days with the 30 days before. With a calendar, durations
    that began in business hours are also compared in business hours: decide which of the two verdicts counts before you
    look at them.
    """
    of_a, of_b = periods
    a = MetricsQuery(
        of_a,
        filters,
        include_non_recoveries=include_non_recoveries,
        bounds=bounds_in(settings),
        calendar=calendar,
    )
    b = replace(a, period=of_b)
    found = await compare_periods(tx, measure, a, b, now=now)
    return CompareResponse(
        measure=measure,
        filters=filters_model(a),
        calendar=calendar_model(calendar),
        **dict(_comparison(found.by_time, a, b)),
        incidents=_incidents(found.incidents),
        business_hours=found.in_hours
        and ComparisonInHoursModel(**dict(_comparison(found.in_hours, a, b)), definition="compare_business_hours"),
        definitions={"measure": measure, **{name: f"compare_{name}" for name in _DEFINED}},
    )


_DEFINED = (
    *("typical", "horizon", "effect", "interval", "p_value", "verdict", "smallest_change"),
    *("clusters", "effective_n", "incidents"),
)


def _comparison(compared: Compared, a: MetricsQuery, b: MetricsQuery) -> ComparisonModel:
    found = compared.found
    return ComparisonModel(
        verdict=found.verdict,
        reason=found.reason,
        effect=found.effect and ComparedEffectModel.model_validate(found.effect, from_attributes=True),
        test=TEST,
        p_value=found.p_value,
        smallest_change=found.smallest_change
        and SmallestChangeModel.model_validate(found.smallest_change, from_attributes=True),
        by_storms=_found(found, Clustering.STORMS),
        by_weeks=_found(found, Clustering.WEEKS),
        horizon_seconds=found.horizon,
        a=_side(a, compared.a, found.typical_a, {each: found.by[each].a for each in found.by}),
        b=_side(b, compared.b, found.typical_b, {each: found.by[each].b for each in found.by}),
    )


def _found(found: Comparison, clustering: Clustering) -> FoundModel | None:
    each = found.by.get(clustering)
    if each is None:
        return None
    unknown = each.a.are_too_few or each.b.are_too_few
    return FoundModel(
        finds_change=each.is_change and not unknown,
        low=None if unknown else each.low,
        high=None if unknown else each.high,
        p_value=each.p_value,
    )


def _side(query: MetricsQuery, side: Side, typical: float | None, of: Mapping[Clustering, Occasions]) -> SideModel:
    n, censored = len(side.sample.recorded), len(side.sample.censored)
    storms, weeks = of.get(Clustering.STORMS), of.get(Clustering.WEEKS)
    return SideModel(
        start=query.period.start,
        end=query.period.end,
        n=n,
        censored=censored,
        left_out=dict(side.sample.left_out),
        typical_seconds=typical,
        storms=storms and OccasionsModel.model_validate(storms, from_attributes=True),
        weeks=weeks and OccasionsModel.model_validate(weeks, from_attributes=True),
        evidence=storms and evidence_in_words(storms, n + censored),
        links=links_of(query),
    )


def _incidents(compared: CountsCompared) -> CountComparisonModel:
    return CountComparisonModel(**asdict(compared.found), a=_count(compared.a), b=_count(compared.b))


def _count(of: Counted) -> ComparedCountModel:
    return ComparedCountModel(value=of.n, storms=of.storms, per_day=per_day_model(of.per_day))
