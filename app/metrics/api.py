"""Numbers over many incidents over HTTP, and the exposition for Prometheus.

Every number says by which formula and filters it came about, and where the incidents behind it are listed.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from itertools import chain, islice, product
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import AfterValidator, BaseModel, Field, PlainSerializer

from app.errors import Invalid
from app.incidents import downtime
from app.incidents.downtime import Cost, Span
from app.incidents.measures import MEASURES, SEVERITIES, Measure, SeverityName
from app.metrics import comparison, exposition, statistics, store, whatif
from app.metrics.comparison import Sample, Verdict
from app.metrics.definitions import DEFINITIONS, FAMILIES, FORMULAS, FamilyType, Kind
from app.metrics.statistics import GroupBy, Interval, Numbers, Scope, Summary
from app.metrics.store import RecentRatios
from app.metrics.whatif import Changes, Outcome
from app.web import (
    EARLIEST,
    AskedPeriod,
    At,
    Knobs,
    Name,
    Now,
    Reader,
    Tx,
    Words,
    problem_responses,
    rfc3339,
    spreadsheet_text,
)

router = APIRouter(tags=["metrics"])

DEFAULT_PERIOD = timedelta(days=30)
BUCKETS_AT_MOST = 1000
POINTS_AT_MOST = 10_000
GROUPS_AT_MOST = 500
HORIZON = 48 * 3600.0
HORIZON_AT_MOST = 10 * 365 * 86_400.0
LINKS_AT_MOST = 100
WEEKS_LINKED_AT_MOST = 12  # every number of 168 groups has them


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
    source: str | None = Field(description="Null: all")
    owner: str | None = Field(description="Of the service; null: all, empty: services without one")
    hour_of_week: int | None = Field(description="Null: all")
    include_non_recoveries: bool


class CountModel(BaseModel):
    value: int
    formula: str
    links: Links


class SummaryModel(BaseModel):
    """Of one measure: `n + pending + censored + invalid` and all of `excluded` together are the incidents."""

    n: int = Field(description="Recorded values; of fewer than 10 there are the values and no statistic")
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


class MeasureSummaryModel(SummaryModel):
    kaplan_meier_median: EstimateModel | None = Field(description="Waits take part; null: n is below 10")
    restricted_mean: RestrictedMeanModel | None = Field(description="Waits take part; null: n is below 10")
    ecdf: list[StepModel] = Field(description="Waits take part; 50 steps at most, none if n is below 10")
    histogram: list[BinModel] = Field(description="Recorded values in bins that double; none if n is below 10")
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


class DefinitionModel(BaseModel):
    name: str = Field(examples=["time_to_recover"])
    kind: Kind = Field(description="Of one incident, of one measure over many, or of a period")
    label: str
    unit: str
    starts: str | None = Field(description="Null: it is no duration between two events")
    ends: str | None = Field(description="Null: it is no duration between two events")
    clock: str
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
    version: int


class DefinitionsAnswer(BaseModel):
    definitions: list[DefinitionModel]
    families: list[FamilyModel]


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


class OutcomeModel(BaseModel):
    before: Amounts
    after: Amounts
    difference: Annotated[
        dict[str, AmountModel] | None,
        Field(description="after - before, so that what is saved is negative; null: no rate was known"),
    ]
    downtime_before_seconds: float
    downtime_after_seconds: float


class ServiceOutcomeModel(OutcomeModel):
    service: str


class WhatIfAnswer(BaseModel):
    since: At = Field(serialization_alias="from")
    until: At = Field(serialization_alias="to", description="Not included")
    service: str | None = Field(description="Null: all")
    changes: dict[str, str] = Field(description="As asked", examples=[{"time_to_recover": "-20%"}])
    incidents: int = Field(description="That harm in the period")
    applied: dict[str, int] = Field(description="To how many of them each change applies")
    total: OutcomeModel
    services: list[ServiceOutcomeModel] = Field(description="By name; the first 500 of them")
    services_left_out: int
    formula: str
    assumptions: list[str]
    links: Links


class DowntimeAnswer(BaseModel):
    filters: FiltersModel
    downtime: DowntimeModel
    cost: CostModel
    services: list[ServiceDowntimeModel] = Field(description="Most downtime first; the first 500 of them")
    services_left_out: int


# — the question —


Owner = Annotated[Words, Field(max_length=200)]


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
    source: Annotated[Name | None, Query(description="One that told of it", examples=["prod"])] = None,
    owner: Annotated[
        Owner | None, Query(description="Of the service; empty: services without one", examples=["Payments"])
    ] = None,
    hour_of_week: Annotated[
        int | None, Query(ge=0, le=167, description="Of detection, in UTC: 0 is Monday from 00:00 to 01:00")
    ] = None,
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
    number = SEVERITIES.index(severity) + 1 if severity else None
    scope = Scope(Span(since, until), service, number, source, owner, hour_of_week)
    return Question(scope, include_non_recoveries)


Asked = Annotated[Question, Depends(_question)]
Grouping = Annotated[
    GroupBy | None,
    Query(description="Give the numbers of each service, severity, … too; what two sources told of is in both groups"),
]
Horizon = Annotated[
    float,
    Query(
        gt=0,
        le=HORIZON_AT_MOST,
        description="Seconds, of the restricted mean: what takes longer counts as this long",
        examples=[172_800],
    ),
]


# — the routes —


@router.get("/api/v1/metrics/summary", summary="Numbers of a period", responses=problem_responses())
async def summary(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: Knobs,
    asked: Asked,
    group_by: Grouping = None,
    horizon: Horizon = HORIZON,
) -> SummaryAnswer:
    """How many incidents, how long they took, how long services were down and what it cost. An incident belongs to the
    period of its detection; downtime and cost are cut at the ends of the period. What each number means and what it
    cannot tell say the definitions.
    """
    total, groups = await store.numbers(
        tx,
        asked.scope,
        group_by,
        now=now,
        weights=settings.impact,
        include_non_recoveries=asked.include_non_recoveries,
        horizon=horizon,
    )
    places = sorted(range(len(groups)), key=lambda place: groups[place].incidents, reverse=True)[:GROUPS_AT_MOST]
    largest = [groups[place] for place in sorted(places)]
    return SummaryAnswer(
        group_by=group_by,
        total=_numbers(total, asked),
        groups=[_numbers(group, asked) for group in largest],
        groups_left_out=len(groups) - len(largest),
    )


@router.get(
    "/api/v1/metrics/summary.csv",
    summary="Numbers of a period, as CSV",
    response_class=PlainTextResponse,
    responses=problem_responses()
    | {
        200: {
            "description": "Comma-separated, with a header, in UTF-8",
            "content": {
                "text/csv": {
                    "schema": {"type": "string"},
                    "example": "from,to,service,…,number,statistic,unit,value,low,high\r\n",
                }
            },
        }
    },
)
async def summary_csv(
    reader: Reader,
    tx: Tx,
    now: Now,
    settings: Knobs,
    asked: Asked,
    group_by: Grouping = None,
    horizon: Horizon = HORIZON,
) -> Response:
    """The summary, one row for each number and statistic: first of the whole, then of each group. An empty value: there
    is none. Text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    answer = await summary(reader, tx, now, settings, asked, group_by, horizon)
    sheet = StringIO()
    writer = csv.writer(sheet)
    writer.writerow(_COLUMNS)
    for numbers in (answer.total, *answer.groups):
        filters = numbers.filters
        place = (
            rfc3339(filters.since),
            rfc3339(filters.until),
            *(
                text and spreadsheet_text(text)
                for text in (filters.service, filters.severity, filters.source, filters.owner)
            ),
            filters.hour_of_week,
        )
        writer.writerows((*place, *row) for row in _rows(numbers))
    headers = {"Content-Disposition": 'attachment; filename="summary.csv"'}
    return Response(sheet.getvalue(), media_type="text/csv", headers=headers)


@router.get("/api/v1/metrics/definitions", summary="What each number means", responses=problem_responses())
async def definitions(_: Reader) -> DefinitionsAnswer:
    """Each measure, statistic and metric, and each family that Prometheus reads: from what to what, by which clock, who
    is counted and who is not, by which formula, and what the number cannot tell.
    """
    return DefinitionsAnswer(
        definitions=[DefinitionModel(**asdict(each)) for each in DEFINITIONS],
        families=[FamilyModel(**asdict(each)) for each in FAMILIES.values()],
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
        formulas={name: _formula(name) for name in FORMULAS_OF_NUMBERS},
        series=[
            SeriesModel(
                filters=_filters(replace(row[0].scope, period=asked.scope.period) if row else asked.scope, asked),
                points=[_point(each) for each in row],
            )
            for row in rows
        ],
    )


def _measure(value: str) -> str:
    names = sorted(measure.name for measure in MEASURES)
    if value not in names:
        message = f"there are the measures {', '.join(names)}"
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


ChangeText = Annotated[str | None, Query(max_length=30, examples=["-20%"], description="As `-20%`, `+10%` or `-5m`")]


@router.get("/api/v1/metrics/whatif", summary="What a period would have cost", responses=problem_responses())
async def what_if(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: Knobs,
    period: AskedPeriod,
    service: Annotated[Name | None, Query(examples=["checkout"])] = None,
    time_to_detect: ChangeText = None,
    time_to_acknowledge: ChangeText = None,
    time_to_recover: ChangeText = None,
    incidents: Annotated[str | None, Query(max_length=30, examples=["-10%"], description="As `-10%`")] = None,
) -> WhatIfAnswer:
    """Moves the ends of the stored intervals and prices them anew: what faster or slower detection, acknowledgement or
    recovery, or fewer incidents, would have meant. `assumptions` says what is supposed.
    """
    asked = {
        name: text
        for name, text in (
            ("time_to_detect", time_to_detect),
            ("time_to_acknowledge", time_to_acknowledge),
            ("time_to_recover", time_to_recover),
            ("incidents", incidents),
        )
        if text is not None
    }
    changes = Changes(**{name: whatif.change(text, absolute=name != "incidents") for name, text in asked.items()})
    scope = Scope(Span(*period), service)
    found = await store.what_if(tx, scope, changes, now=now, weights=settings.impact)
    services = [
        ServiceOutcomeModel(service=name, **_outcome(each).model_dump()) for name, each in found.services.items()
    ]
    return WhatIfAnswer(
        since=period.since,
        until=period.until,
        service=service,
        changes={name: text.replace(" ", "+") for name, text in asked.items()},
        incidents=found.incidents,
        applied=dict(found.applied),
        total=_outcome(found.whole),
        services=services[:GROUPS_AT_MOST],
        services_left_out=max(0, len(services) - GROUPS_AT_MOST),
        formula=whatif.FORMULA,
        assumptions=list(whatif.ASSUMPTIONS),
        links=_links(scope),
    )


def _outcome(outcome: Outcome) -> OutcomeModel:
    before, after, difference = (
        {
            currency: AmountModel(low=amount.low, expected=amount.expected, high=amount.high)
            for currency, amount in whatif.shown(cost).items()
        }
        or None
        for cost in (outcome.before, outcome.after, outcome.difference)
    )
    return OutcomeModel(
        before=before,
        after=after,
        difference=difference,
        downtime_before_seconds=outcome.downtime_before.total_seconds(),
        downtime_after_seconds=outcome.downtime_after.total_seconds(),
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
async def metrics(_: Reader, tx: Tx, now: Now, settings: Knobs, request: Request) -> Response:
    """Counters and histograms count incidents once they have settled, and never fall. `aftermath_…` is equal on every
    process and replica; `process_…` and `python_…` are of the one that answers.
    """
    snapshot = await store.snapshot(tx, services_at_most=settings.metrics_services)
    recent: RecentRatios = request.app.state.ratios
    ratios = await recent.of(tx, snapshot.services, now=now, weights=settings.impact)
    body, content_type = exposition.text(snapshot, request.headers.get("accept", ""), ratios)
    return Response(body, media_type=content_type)


# — the answer —


def _numbers(numbers: Numbers, asked: Question) -> NumbersModel:
    links = _links(numbers.scope, numbers.services)
    of_status = [_links(numbers.scope, numbers.services, status=status) for status in ("open", "acknowledged")]
    return NumbersModel(
        filters=_filters(numbers.scope, asked),
        incidents=CountModel(value=numbers.incidents, formula=_formula("incidents"), links=links),
        open=CountModel(value=numbers.open, formula=_formula("open"), links=list(chain(*of_status))),
        measures={
            measure.name: _measure_summary(measure, numbers.measures[measure.name], links) for measure in MEASURES
        },
        downtime=_downtime(numbers),
        cost=_cost(numbers),
    )


def _measure_summary(measure: Measure, each: Summary, links: Sequence[str]) -> MeasureSummaryModel:
    found = each.estimates
    half, area = (found.median, found.restricted_mean) if found else (None, None)
    return MeasureSummaryModel(
        **dict(_summary(each)),
        kaplan_meier_median=half and EstimateModel(seconds=half.seconds, low=half.low, high=half.high),
        restricted_mean=area
        and RestrictedMeanModel(seconds=area.seconds, low=area.low, high=area.high, horizon_seconds=area.horizon),
        ecdf=[
            StepModel(seconds=step.seconds, share=step.share, low=step.low, high=step.high)
            for step in (found.ecdf if found else ())
        ],
        histogram=[
            BinModel(begins=each.begins, ends=each.ends, incidents=each.incidents)
            for each in (found.histogram if found else ())
        ],
        label=measure.label,
        starts=measure.starts,
        ends=measure.ends,
        formula=_formula(measure.name),
        links=list(links),
    )


_COLUMNS = (
    "from",
    "to",
    "service",
    "severity",
    "source",
    "owner",
    "hour_of_week",
    "number",
    "statistic",
    "unit",
    "value",
    "low",
    "high",
)
_COUNTS = ("n", "pending", "censored", "invalid")
_DURATIONS = ("median", "p90", "p95", "geometric_mean", "mean")


def _rows(numbers: NumbersModel) -> Iterator[tuple[object, ...]]:
    """From the column `number` on."""
    yield "incidents", "count", "incidents", numbers.incidents.value, None, None
    yield "open", "count", "incidents", numbers.open.value, None, None
    for name, of in numbers.measures.items():
        for count in _COUNTS:
            yield name, count, "incidents", getattr(of, count), None, None
        yield name, "excluded", "incidents", sum(of.excluded.values()), None, None
        for statistic in _DURATIONS:
            yield name, statistic, "seconds", getattr(of, statistic), None, None
        for statistic, found in (
            ("kaplan_meier_median", of.kaplan_meier_median),
            ("restricted_mean", of.restricted_mean),
        ):
            yield name, statistic, "seconds", *((found.seconds, found.low, found.high) if found else (None, None, None))
    yield "downtime", "sum", "seconds", numbers.downtime.seconds, None, None
    for currency, amount in (numbers.cost.amounts or {}).items():
        shown = (f"{each:.2f}" for each in (amount.expected, amount.low, amount.high))
        yield "cost", "sum", spreadsheet_text(currency), *shown


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
    typical = each.typical
    return SummaryModel(
        n=each.n,
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
    return FORMULAS[name]


FORMULAS_OF_NUMBERS = ("incidents", "open", "downtime", "cost", *(measure.name for measure in MEASURES))


def _filters(scope: Scope, asked: Question) -> FiltersModel:
    return FiltersModel(
        since=scope.period.begins,
        until=scope.period.ends,
        service=scope.service,
        severity=SEVERITIES[scope.severity - 1] if scope.severity else None,
        source=scope.source,
        owner=scope.owner,
        hour_of_week=scope.hour_of_week,
        include_non_recoveries=asked.include_non_recoveries,
    )


def _links(scope: Scope, services: Sequence[str] = (), **more: str) -> list[str]:
    """One; for an owner one per service, 100 at most, for an hour of the week one for each of the last 12 weeks."""
    asked = dict(more)
    if scope.severity is not None:
        asked["severity"] = SEVERITIES[scope.severity - 1]
    if scope.source is not None:
        asked["source"] = scope.source
    periods = [scope.period]
    if scope.hour_of_week is not None:
        periods = statistics.hours_of_week(scope.period, scope.hour_of_week)[-WEEKS_LINKED_AT_MOST:]
    names = [scope.service] if scope.owner is None or scope.service is not None else services
    return [
        f"/api/v1/incidents?{urlencode(_window(period) | ({} if name is None else {'service': name}) | asked)}"
        for period, name in islice(product(periods, names), LINKS_AT_MOST)
    ]


def _window(period: Span) -> dict[str, str]:
    return {"from": rfc3339(period.begins), "to": rfc3339(period.ends)}


def _links_of_harm(numbers: Numbers) -> list[str]:
    """Those of the period, and one by one (100 at most) those that were detected at another time and harm in it."""
    carried_in: Sequence[int] = numbers.carried_in[:LINKS_AT_MOST]
    return [*_links(numbers.scope, numbers.services), *(f"/api/v1/incidents/INC-{number}" for number in carried_in)]
