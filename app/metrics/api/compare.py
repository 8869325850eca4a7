"""HTTP API of comparisons: one measure in two periods (are we getting better?)."""

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
from app.metrics.api.query import CalendarDep, FiltersDep, NonRecoveries
from app.metrics.comparison.compare import TEST, Compared, Side, Trend
from app.metrics.comparison.store import compare_periods
from app.metrics.query import MetricsQuery

router = APIRouter()


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
    typical_seconds: Seconds
    links: Links


class EffectModel(BaseModel):
    """How many times as long B takes as A, with a 95 % interval; below 1 means B is shorter."""

    ratio: float = Field(examples=[0.62])
    low: float = Field(examples=[0.45])
    high: float = Field(examples=[0.86])


class SmallestChangeModel(BaseModel):
    """The smallest true changes, as ratios, that this much data would have detected in at least 80 % of cases."""

    shorter: float = Field(examples=[0.58])
    longer: float | None = Field(
        description="Null if no increase would have been detectable: too little had happened in the range of durations "
        "observed on both sides",
        examples=[1.72],
    )


class ComparisonModel(BaseModel):
    verdict: Trend
    reason: str = Field(examples=["B takes 0.62 times as long as A, 95 % interval 0.45 to 0.86"])
    effect: EffectModel | None = Field(description="Null with too few values")
    test: str = Field(examples=[TEST])
    p_value: float | None = Field(description="Null with too few values", examples=[0.004])
    smallest_change: SmallestChangeModel | None = Field(description="Null with too few values")
    horizon_seconds: float | None = Field(
        description="Longer durations are cut to this length before comparing; null if they are compared in full"
    )
    a: SideModel
    b: SideModel


class ComparisonInHoursModel(ComparisonModel):
    """The comparison in business hours, of durations that began within them; the others are in `left_out`."""

    formula: str


class _QuestionModel(BaseModel):
    measure: str = Field(examples=["time_to_recover"])
    label: str
    starts: str
    ends: str
    service: str | None = Field(description="Null means all")
    severity: SeverityName | None = Field(description="Null means all")
    source: str | None = Field(description="Null means all")
    owner: str | None = Field(description="Owner of the service; null means all, empty means services without an owner")
    hour_of_week: int | None = Field(description="Null means all")
    include_non_recoveries: bool
    calendar: CalendarModel | None = Field(description="Calendar for `business_hours`; null if none was requested")


class CompareAnswer(ComparisonModel, _QuestionModel):  # pydantic puts the fields of the last base first
    business_hours: ComparisonInHoursModel | None = Field(description="Null if no calendar was requested")
    formulas: dict[str, str]


def _measure(value: str) -> str:
    names = sorted(measure.name for measure in MEASURES)
    if value not in names:
        message = f"unknown measure; expected one of {', '.join(names)}"
        raise ValueError(message)
    return value


def _rows(answer: CompareAnswer) -> Iterator[Line]:
    yield cells(answer)


@router.get("/api/v1/metrics/compare", summary="Compare two periods", responses=problem_responses(404))
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
    a_from: Annotated[At, Query(description="Start of the baseline period", examples=["2026-05-01T00:00:00Z"])],
    a_to: Annotated[At, Query(description="End of the baseline period, exclusive", examples=["2026-07-01T00:00:00Z"])],
    b_from: Annotated[
        At, Query(description="Start of the period to compare with it", examples=["2026-07-01T00:00:00Z"])
    ],
    filters: FiltersDep,
    calendar: CalendarDep,
    b_to: Annotated[At | None, Query(description="End of the second period, exclusive; defaults to now")] = None,
    include_non_recoveries: NonRecoveries = False,  # noqa: FBT002  a query parameter has a name
) -> CompareAnswer:
    """Compares one measure between two periods. The verdict is `better`, `worse`, or `cannot_tell` if the difference
    may be due to chance. Pending durations count with the time elapsed so far. An incident belongs to the period in
    which it was detected. With a calendar, durations that began in business hours are also compared in business hours:
    decide which of the two verdicts counts before you look at them.
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
        message = "a period must not end before it starts"
        raise Invalid(message)
    if max(a.begins, b.begins) < min(a.ends, b.ends):
        message = "the periods must not overlap; an incident can belong to only one of them"
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
        smallest_change=found.smallest_change
        and SmallestChangeModel.model_validate(found.smallest_change, from_attributes=True),
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
