"""Numbers over many incidents over HTTP, and the exposition for Prometheus.

Every number says by which formula and filters it came about, and where the incidents behind it are listed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import AfterValidator, BaseModel, Field, PlainSerializer

from app.errors import Invalid
from app.incidents import downtime
from app.incidents.downtime import Cost, Span
from app.incidents.measures import MEASURES, SEVERITIES, SeverityName
from app.metrics import comparison, exposition, statistics, store
from app.metrics.comparison import Sample, Verdict
from app.metrics.statistics import GroupBy, Interval, Numbers, Scope, Summary
from app.web import EARLIEST, At, Knobs, Name, Now, Reader, Tx, problem_responses, rfc3339

router = APIRouter(tags=["metrics"])

DEFAULT_PERIOD = timedelta(days=30)
BUCKETS_AT_MOST = 1000
POINTS_AT_MOST = 10_000
GROUPS_AT_MOST = 500
LINKS_AT_MOST = 100


# — the contract —

Money = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:.2f}", return_type=str)]
Links = Annotated[
    list[str],
    Field(
        description="Addresses, below this service, of the incidents behind the number",
        examples=[["/api/v1/incidents?from=2026-08-01T00%3A00%3A00Z&to=2026-09-01T00%3A00%3A00Z"]],
    ),
]
Seconds = Annotated[float | None, Field(description="Seconds; null: nothing was recorded, which is not 0")]


class FiltersModel(BaseModel):
    """What the numbers were asked for; a group narrows it to itself."""

    since: At = Field(serialization_alias="from")
    until: At = Field(serialization_alias="to", description="Not included")
    service: str | None = Field(description="Null: all")
    severity: SeverityName | None = Field(description="Null: all")
    include_non_recoveries: bool


class CountModel(BaseModel):
    value: int
    formula: str
    links: Links


class SummaryModel(BaseModel):
    """Of one measure: `n + pending + censored + invalid` and all of `excluded` together are the incidents."""

    n: int = Field(description="Recorded values, of which median, p90 and mean are taken")
    median: Seconds
    p90: Seconds
    mean: Seconds
    pending: int = Field(description="May still happen")
    censored: int = Field(description="Had not happened when the incident ended, and no longer could")
    invalid: int = Field(description="The facts contradict each other; negative durations are never clamped")
    excluded: dict[str, int] = Field(description="Not applicable, by reason")


class MeasureSummaryModel(SummaryModel):
    label: str
    starts: str
    ends: str
    formula: str
    links: Links


class DowntimeModel(BaseModel):
    seconds: float
    planned_seconds: float = Field(description="That fell into planned maintenance, and is not in `seconds`")
    formula: str
    links: Links


class AmountModel(BaseModel):
    low: Money = Field(examples=["125.00"])
    expected: Money = Field(examples=["250.00"])
    high: Money = Field(examples=["500.00"])


Amounts = Annotated[
    dict[str, AmountModel] | None,
    Field(description="By currency, nothing is converted; null: no rate was known, which is not 0"),
]
WithoutRate = Annotated[
    list[str], Field(description="Services that were harmed and have no rate for that time: their cost is not in here")
]


class CostModel(BaseModel):
    amounts: Amounts
    services_without_rate: WithoutRate
    formula: str
    links: Links


class NumbersModel(BaseModel):
    filters: FiltersModel
    incidents: CountModel
    open: CountModel
    measures: dict[str, MeasureSummaryModel]
    downtime: DowntimeModel
    cost: CostModel


class SummaryAnswer(BaseModel):
    group_by: GroupBy | None
    total: NumbersModel
    groups: list[NumbersModel] = Field(description="Those that had incidents; the largest if there are too many")
    groups_left_out: int


class PointModel(BaseModel):
    """One bucket; its formulas stand at the top of the answer."""

    since: At = Field(serialization_alias="from")
    until: At = Field(serialization_alias="to", description="Not included")
    incidents: int
    open: int
    measures: dict[str, SummaryModel]
    downtime_seconds: float
    planned_seconds: float
    cost: Amounts
    services_without_rate: WithoutRate
    links: Links


class SeriesModel(BaseModel):
    filters: FiltersModel
    points: list[PointModel]


class TimeseriesAnswer(BaseModel):
    interval: Interval
    group_by: GroupBy | None
    formulas: dict[str, str]
    series: list[SeriesModel] = Field(description="One; with `group_by` one for each group that had incidents")


class ServiceDowntimeModel(BaseModel):
    service: str
    downtime: DowntimeModel
    cost: CostModel


class SideModel(BaseModel):
    """One of the two periods: `n + censored` and all of `left_out` together are its incidents."""

    since: At = Field(serialization_alias="from")
    until: At = Field(serialization_alias="to", description="Not included")
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
    """The smallest true ratios that these numbers would have shown in 80 % of cases."""

    shorter: float = Field(examples=[0.58])
    longer: float = Field(examples=[1.72])


class CompareAnswer(BaseModel):
    measure: str = Field(examples=["time_to_recover"])
    label: str
    starts: str
    ends: str
    service: str | None = Field(description="Null: all")
    severity: SeverityName | None = Field(description="Null: all")
    include_non_recoveries: bool
    verdict: Verdict
    reason: str = Field(examples=["B takes 0.62 times as long as A, 95 % interval 0.45 to 0.86"])
    effect: EffectModel | None = Field(description="Null: too few values")
    test: str = Field(examples=[comparison.TEST])
    p_value: float | None = Field(description="Null: too few values", examples=[0.004])
    smallest_change: SmallestChangeModel | None = Field(description="Null: too few values")
    horizon_seconds: float | None = Field(
        description="Longer durations are compared up to here; null: as long as they are"
    )
    a: SideModel
    b: SideModel
    formulas: dict[str, str]


class DowntimeAnswer(BaseModel):
    filters: FiltersModel
    downtime: DowntimeModel
    cost: CostModel
    services: list[ServiceDowntimeModel] = Field(description="Most downtime first; the first 500 of them")
    services_left_out: int


FORMULAS: Mapping[str, str] = {
    "incidents": "incidents whose detected_at lies in [from, to); merged incidents are none",
    "open": "of these, the ones that are not resolved now, acknowledged or not",
    "downtime": (
        "per service the union of [impact_started_at, else detected_at; resolved_at, else now) of incidents with an "
        "impact above 0, cut to [from, to), whenever they were detected, less planned maintenance; summed over services"
    ),
    "cost": (
        "per service the integral of rate(t) x impact(t) over [from, to), less planned maintenance; where incidents "
        "overlap the greatest impact counts once, shared among them by impact; summed over the incidents in question, "
        "per currency"
    ),
    **{measure.name: measure.formula for measure in MEASURES},
}
QUANTILES = "; median and p90 interpolate linearly between the two nearest values"


# — the question —


@dataclass(frozen=True, slots=True)
class Question:
    scope: Scope
    include_non_recoveries: bool


def _question(
    now: Now,
    since: Annotated[At | None, Query(alias="from", description="Left out: 30 days before `to`")] = None,
    until: Annotated[At | None, Query(alias="to", description="Not included; left out: now")] = None,
    service: Annotated[Name | None, Query(examples=["checkout"])] = None,
    severity: Annotated[SeverityName | None, Query()] = None,
    include_non_recoveries: Annotated[  # noqa: FBT002  a query parameter has a name
        bool,
        Query(description="Count ends that are not recoveries (rule paused, …) and trouble of the monitoring too"),
    ] = False,
) -> Question:
    until = until or max(now, since or now)
    since = since or max(until - DEFAULT_PERIOD, EARLIEST + timedelta(seconds=1))  # EARLIEST itself is too early
    if since > until:
        message = "`from` lies after `to`"
        raise Invalid(message)
    scope = Scope(Span(since, until), service, SEVERITIES.index(severity) + 1 if severity else None)
    return Question(scope, include_non_recoveries)


Asked = Annotated[Question, Depends(_question)]
Grouping = Annotated[GroupBy | None, Query(description="Give the numbers of each service or severity too")]


# — the routes —


@router.get("/api/v1/metrics/summary", summary="Numbers of a period", responses=problem_responses())
async def summary(
    _: Reader, tx: Tx, now: Now, settings: Knobs, asked: Asked, group_by: Grouping = None
) -> SummaryAnswer:
    """How many incidents, how long they took, how long services were down and what it cost. An incident belongs to the
    period of its detection; downtime and cost are cut at the ends of the period.
    """
    total, groups = await store.numbers(
        tx,
        asked.scope,
        group_by,
        now=now,
        weights=settings.impact,
        include_non_recoveries=asked.include_non_recoveries,
    )
    largest = sorted(groups, key=lambda group: group.incidents, reverse=True)[:GROUPS_AT_MOST]
    largest.sort(key=lambda group: (group.scope.service or "", group.scope.severity or 0))
    return SummaryAnswer(
        group_by=group_by,
        total=_numbers(total, asked),
        groups=[_numbers(group, asked) for group in largest],
        groups_left_out=len(groups) - len(largest),
    )


@router.get("/api/v1/metrics/timeseries", summary="Numbers of periods in a row", responses=problem_responses())
async def timeseries(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: Knobs,
    asked: Asked,
    interval: Annotated[Interval, Query(description="In UTC; weeks begin on Monday")] = Interval.DAY,
    group_by: Grouping = None,
) -> TimeseriesAnswer:
    """The summary of each day, week or month of the period. The first and the last are cut at its ends."""
    periods = statistics.buckets(asked.scope.period, interval, at_most=BUCKETS_AT_MOST)
    rows = await store.timeseries(
        tx,
        asked.scope,
        periods,
        group_by,
        now=now,
        weights=settings.impact,
        include_non_recoveries=asked.include_non_recoveries,
        points_at_most=POINTS_AT_MOST,
    )
    return TimeseriesAnswer(
        interval=interval,
        group_by=group_by,
        formulas={name: _formula(name) for name in FORMULAS},
        series=[
            SeriesModel(
                filters=_filters(
                    Scope(asked.scope.period, row[0].scope.service, row[0].scope.severity) if row else asked.scope,
                    asked,
                ),
                points=[_point(each) for each in row],
            )
            for row in rows
        ],
    )


def _measure(value: str) -> str:
    if value not in _MEASURE_NAMES:
        message = f"there are the measures {', '.join(sorted(_MEASURE_NAMES))}"
        raise ValueError(message)
    return value


@router.get("/api/v1/metrics/compare", summary="Are we getting better?", responses=problem_responses())
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
    b_to: Annotated[At | None, Query(description="Its end, not included; left out: now")] = None,
    service: Annotated[Name | None, Query(examples=["checkout"])] = None,
    severity: Annotated[SeverityName | None, Query()] = None,
    include_non_recoveries: Annotated[  # noqa: FBT002  a query parameter has a name
        bool,
        Query(description="Count ends that are not recoveries (rule paused, …) and trouble of the monitoring too"),
    ] = False,
) -> CompareAnswer:
    """One measure in two periods: `better`, `worse`, or `cannot_tell` where the difference may as well be chance. What
    is still pending takes part with the time it has lasted. An incident belongs to the period of its detection.
    """
    periods = Span(a_from, a_to), Span(b_from, b_to or max(now, b_from))
    if any(period.begins > period.ends for period in periods):
        message = "a period ends before it begins"
        raise Invalid(message)
    if max(period.begins for period in periods) < min(period.ends for period in periods):
        message = "the periods overlap; an incident can stand on one side only"
        raise Invalid(message)
    number = SEVERITIES.index(severity) + 1 if severity else None
    a, b = (Scope(period, service, number) for period in periods)
    found, sides = await store.comparison(tx, measure, a, b, now=now, include_non_recoveries=include_non_recoveries)
    [asked] = [each for each in MEASURES if each.name == measure]
    return CompareAnswer(
        measure=measure,
        label=asked.label,
        starts=asked.starts,
        ends=asked.ends,
        service=service,
        severity=severity,
        include_non_recoveries=include_non_recoveries,
        verdict=found.verdict,
        reason=found.reason,
        effect=found.effect and EffectModel(ratio=found.effect.ratio, low=found.effect.low, high=found.effect.high),
        test=comparison.TEST,
        p_value=found.p_value,
        smallest_change=found.reach and SmallestChangeModel(shorter=found.reach.shorter, longer=found.reach.longer),
        horizon_seconds=found.horizon,
        a=_side(a, sides[0], found.typical_a),
        b=_side(b, sides[1], found.typical_b),
        formulas={
            "measure": asked.formula,
            "effect": comparison.EFFECT,
            "interval": comparison.INTERVAL,
            "verdict": comparison.VERDICT,
            "smallest_change": comparison.REACH,
        },
    )


def _side(scope: Scope, sample: Sample, typical: float | None) -> SideModel:
    return SideModel(
        since=scope.period.begins,
        until=scope.period.ends,
        n=len(sample.recorded),
        censored=len(sample.censored),
        left_out=dict(sample.left_out),
        typical_seconds=typical,
        links=_links(scope),
    )


@router.get("/api/v1/metrics/downtime", summary="Downtime of services", responses=problem_responses())
async def downtime_of_services(_: Reader, tx: Tx, now: Now, settings: Knobs, asked: Asked) -> DowntimeAnswer:
    """How long each service was harmed and what it cost. Incidents that overlap count once."""
    total, groups = await store.numbers(tx, asked.scope, GroupBy.SERVICE, now=now, weights=settings.impact)
    harmed = sorted((group for group in groups if group.downtime), key=lambda group: group.downtime, reverse=True)
    return DowntimeAnswer(
        filters=_filters(asked.scope, asked),
        downtime=_downtime(total),
        cost=_cost(total),
        services=[
            ServiceDowntimeModel(service=group.scope.service or "", downtime=_downtime(group), cost=_cost(group))
            for group in harmed[:GROUPS_AT_MOST]
        ],
        services_left_out=max(0, len(harmed) - GROUPS_AT_MOST),
    )


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses=problem_responses()
    | {
        200: {
            "description": "In the text format, or OpenMetrics if the Accept header prefers it",
            "content": {
                "text/plain": {
                    "schema": {"type": "string"},
                    "example": 'aftermath_incidents_open{service="checkout",severity="sev1"} 1.0\n',
                },
                "application/openmetrics-text": {"schema": {"type": "string"}},
            },
        }
    },
)
async def metrics(_: Reader, tx: Tx, settings: Knobs, request: Request) -> Response:
    """Counters and histograms count incidents once they have settled, and never fall. `aftermath_…` is equal on every
    process and replica; `process_…` and `python_…` are of the one that answers.
    """
    snapshot = await store.snapshot(tx, services_at_most=settings.metrics_services)
    body, content_type = exposition.text(snapshot, request.headers.get("accept", ""))
    return Response(body, media_type=content_type)


# — the answer —


def _numbers(numbers: Numbers, asked: Question) -> NumbersModel:
    links = _links(numbers.scope)
    return NumbersModel(
        filters=_filters(numbers.scope, asked),
        incidents=CountModel(value=numbers.incidents, formula=_formula("incidents"), links=links),
        open=CountModel(
            value=numbers.open,
            formula=_formula("open"),
            links=[*_links(numbers.scope, status="open"), *_links(numbers.scope, status="acknowledged")],
        ),
        measures={
            measure.name: MeasureSummaryModel(
                **_summary(numbers.measures[measure.name]).model_dump(),
                label=measure.label,
                starts=measure.starts,
                ends=measure.ends,
                formula=_formula(measure.name),
                links=links,
            )
            for measure in MEASURES
        },
        downtime=_downtime(numbers),
        cost=_cost(numbers),
    )


def _point(numbers: Numbers) -> PointModel:
    return PointModel(
        since=numbers.scope.period.begins,
        until=numbers.scope.period.ends,
        incidents=numbers.incidents,
        open=numbers.open,
        measures={name: _summary(each) for name, each in numbers.measures.items()},
        downtime_seconds=numbers.downtime.total_seconds(),
        planned_seconds=numbers.planned.total_seconds(),
        cost=_amounts(numbers.cost),
        services_without_rate=list(numbers.services_without_rate),
        links=_links_of_harm(numbers),
    )


def _summary(each: Summary) -> SummaryModel:
    return SummaryModel(
        n=each.n,
        median=each.median,
        p90=each.p90,
        mean=each.mean,
        pending=each.pending,
        censored=each.censored,
        invalid=each.invalid,
        excluded=dict(each.excluded),
    )


def _downtime(numbers: Numbers) -> DowntimeModel:
    return DowntimeModel(
        seconds=numbers.downtime.total_seconds(),
        planned_seconds=numbers.planned.total_seconds(),
        formula=_formula("downtime"),
        links=_links_of_harm(numbers),
    )


def _cost(numbers: Numbers) -> CostModel:
    return CostModel(
        amounts=_amounts(numbers.cost),
        services_without_rate=list(numbers.services_without_rate),
        formula=_formula("cost"),
        links=_links_of_harm(numbers),
    )


def _amounts(cost: Cost | None) -> dict[str, AmountModel] | None:
    if cost is None:
        return None
    return {
        currency: AmountModel(low=amount.low, expected=amount.expected, high=amount.high)
        for currency, amount in downtime.shown(cost).items()
    }


def _formula(name: str) -> str:
    return FORMULAS[name] + (QUANTILES if name in _MEASURE_NAMES else "")


_MEASURE_NAMES = {measure.name for measure in MEASURES}


def _filters(scope: Scope, asked: Question) -> FiltersModel:
    return FiltersModel(
        since=scope.period.begins,
        until=scope.period.ends,
        service=scope.service,
        severity=SEVERITIES[scope.severity - 1] if scope.severity else None,
        include_non_recoveries=asked.include_non_recoveries,
    )


def _links(scope: Scope, **more: str) -> list[str]:
    asked = {"from": rfc3339(scope.period.begins), "to": rfc3339(scope.period.ends)}
    if scope.service is not None:
        asked["service"] = scope.service
    if scope.severity is not None:
        asked["severity"] = SEVERITIES[scope.severity - 1]
    return [f"/api/v1/incidents?{urlencode(asked | more)}"]


def _links_of_harm(numbers: Numbers) -> list[str]:
    """Those of the period, and one by one (100 at most) those that were detected at another time and harm in it."""
    carried_in: Sequence[int] = numbers.carried_in[:LINKS_AT_MOST]
    return [*_links(numbers.scope), *(f"/api/v1/incidents/INC-{number}" for number in carried_in)]
