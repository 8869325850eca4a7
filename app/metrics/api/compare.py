"""One measure in two periods: are we getting better?"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, Field

from app.base.errors import Invalid
from app.base.http.auth import Reader
from app.base.http.context import Now, Tx
from app.base.http.csv import Line, also_as_csv, cells
from app.base.http.fields import At, PeriodModel
from app.base.http.problems import problem_responses
from app.base.severity import SeverityName, severity_name
from app.base.times import Span
from app.incidents.definitions import FORMULAS
from app.incidents.measures.measures import MEASURES
from app.metrics.api.answer import CalendarModel, Links, Seconds, calendar_model, links_of
from app.metrics.api.query import AskedCalendar, AskedFilters, NonRecoveries
from app.metrics.comparison.compare import TEST, Compared, Side, Trend
from app.metrics.comparison.store import compare_periods
from app.metrics.query import MetricsQuery

router = APIRouter()


class SideModel(PeriodModel):
    """One of the two periods: `n + censored` and all of `left_out` together are its incidents."""

    n: int = Field(description="Recorded values")
    censored: int = Field(description="Still pending, or ended without it; they count as lasting longer than that")
    left_out: dict[str, int] = Field(description="Not applicable or contradicting facts, by reason")
    typical_seconds: Seconds
    links: Links


class EffectModel(BaseModel):
    """How many times as long B takes as A, with its 95 % interval; below 1 is shorter."""

    ratio: float = Field(examples=[0.62])
    low: float = Field(examples=[0.45])
    high: float = Field(examples=[0.86])


class SmallestChangeModel(BaseModel):
    """The smallest true ratios that these numbers would have shown in at least 80 % of cases."""

    shorter: float = Field(examples=[0.58])
    longer: float | None = Field(
        description="Null: none would have, for too little had happened while both sides were watched", examples=[1.72]
    )


class ComparisonModel(BaseModel):
    verdict: Trend
    reason: str = Field(examples=["B takes 0.62 times as long as A, 95 % interval 0.45 to 0.86"])
    effect: EffectModel | None = Field(description="Null: too few values")
    test: str = Field(examples=[TEST])
    p_value: float | None = Field(description="Null: too few values", examples=[0.004])
    smallest_change: SmallestChangeModel | None = Field(description="Null: too few values")
    horizon_seconds: float | None = Field(
        description="Longer durations are compared up to here; null: as long as they are"
    )
    a: SideModel
    b: SideModel


class ComparisonInHoursModel(ComparisonModel):
    """By the second clock, of what began in business hours; the others are in `left_out`."""

    formula: str


class _QuestionModel(BaseModel):
    measure: str = Field(examples=["time_to_recover"])
    label: str
    starts: str
    ends: str
    service: str | None = Field(description="Null: all")
    severity: SeverityName | None = Field(description="Null: all")
    source: str | None = Field(description="Null: all")
    owner: str | None = Field(description="Of the service; null: all, empty: services without one")
    hour_of_week: int | None = Field(description="Null: all")
    include_non_recoveries: bool
    calendar: CalendarModel | None = Field(description="Of `business_hours`; null: none was asked for")


class CompareAnswer(ComparisonModel, _QuestionModel):  # the fields of the question come first
    business_hours: ComparisonInHoursModel | None = Field(description="Null: no calendar was asked for")
    formulas: dict[str, str]


def _measure(value: str) -> str:
    names = sorted(measure.name for measure in MEASURES)
    if value not in names:
        message = f"there are the measures {', '.join(names)}"
        raise ValueError(message)
    return value


def _rows(answer: CompareAnswer) -> Iterator[Line]:
    yield cells(answer)


@router.get("/api/v1/metrics/compare", summary="Are we getting better?", responses=problem_responses(404))
@also_as_csv(router, "/api/v1/metrics/compare", _rows, lines="One line", problems=[404])
async def compare(
    _: Reader,
    tx: Tx,
    now: Now,
    measure: Annotated[
        str,
        AfterValidator(_measure),
        Query(json_schema_extra={"enum": [measure.name for measure in MEASURES]}, examples=["time_to_recover"]),
    ],
    a_from: Annotated[At, Query(description="Begin of the one period, that before", examples=["2026-05-01T00:00:00Z"])],
    a_to: Annotated[At, Query(description="Its end, not included", examples=["2026-07-01T00:00:00Z"])],
    b_from: Annotated[At, Query(description="Begin of the other, that after", examples=["2026-07-01T00:00:00Z"])],
    filters: AskedFilters,
    calendar: AskedCalendar,
    b_to: Annotated[At | None, Query(description="Its end, not included; left out: now")] = None,
    include_non_recoveries: NonRecoveries = False,  # noqa: FBT002  a query parameter has a name
) -> CompareAnswer:
    """One measure in two periods: `better`, `worse`, or `cannot_tell` where the difference may as well be chance. What
    is still pending takes part with the time it has lasted. An incident belongs to the period of its detection. With a
    calendar, what began in its hours is compared by their clock as well: choose which verdict counts before you look.
    """
    a = MetricsQuery(Span(a_from, a_to), filters, include_non_recoveries=include_non_recoveries, calendar=calendar)
    b = replace(a, period=Span(b_from, b_to or max(now, b_from)))
    _check(a.period, b.period)
    by_time, by_hours = await compare_periods(tx, measure, a, b, now=now)
    [asked] = [each for each in MEASURES if each.name == measure]
    return CompareAnswer(
        measure=measure,
        label=asked.label,
        starts=asked.starts,
        ends=asked.ends,
        service=filters.service,
        severity=severity_name(filters.severity) if filters.severity else None,
        source=filters.source,
        owner=filters.owner,
        hour_of_week=filters.hour_of_week,
        include_non_recoveries=include_non_recoveries,
        calendar=calendar_model(calendar),
        **dict(_comparison(by_time, a, b)),
        business_hours=by_hours
        and ComparisonInHoursModel(**dict(_comparison(by_hours, a, b)), formula=FORMULAS["compare_business_hours"]),
        formulas={
            "measure": FORMULAS[measure],
            **{name: FORMULAS[f"compare_{name}"] for name in _FORMULAS},
        },
    )


def _check(a: Span, b: Span) -> None:
    if any(period.begins > period.ends for period in (a, b)):
        message = "a period ends before it begins"
        raise Invalid(message)
    if max(a.begins, b.begins) < min(a.ends, b.ends):
        message = "the periods overlap; an incident can stand on one side only"
        raise Invalid(message)


_FORMULAS = ("typical", "horizon", "effect", "interval", "p_value", "verdict", "smallest_change")


def _comparison(compared: Compared, a: MetricsQuery, b: MetricsQuery) -> ComparisonModel:
    found = compared.found
    return ComparisonModel(
        verdict=found.verdict,
        reason=found.reason,
        effect=found.effect and EffectModel.model_validate(found.effect, from_attributes=True),
        test=TEST,
        p_value=found.p_value,
        smallest_change=found.reach and SmallestChangeModel.model_validate(found.reach, from_attributes=True),
        horizon_seconds=found.horizon,
        a=_side(a, compared.a, found.typical_a),
        b=_side(b, compared.b, found.typical_b),
    )


def _side(query: MetricsQuery, side: Side, typical: float | None) -> SideModel:
    return SideModel(
        begins=query.period.begins,
        ends=query.period.ends,
        n=len(side.sample.recorded),
        censored=len(side.sample.censored),
        left_out=dict(side.sample.left_out),
        typical_seconds=typical,
        links=links_of(query, sorted(side.services)),
    )
