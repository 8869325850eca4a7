"""Vectorized results equal those of each incident alone.

The oracle combines the scalar definitions of measures, impact and cost as plainly as possible; the code under test
computes the same in columns.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.base.values.times import Span
from app.incidents.definitions.model import P95_FROM, SUMMARY_FROM
from app.incidents.grouping.signal import AlertClass, EndReason
from app.incidents.impact import availability
from app.incidents.impact import intervals as downtime
from app.incidents.impact import sweep as sums
from app.incidents.impact.availability import CalendarPeriod, FailingIncident, Objective
from app.incidents.impact.columns import ImpactColumns, StretchColumns, impact_columns
from app.incidents.impact.intervals import Cost, ImpactInterval, clipped, total
from app.incidents.impact.maintenance import Planned, unplanned
from app.incidents.impact.rates import Rate
from app.incidents.impact.stretches import Stretch, stretches
from app.incidents.measures import measures
from app.incidents.measures import vectorized as columns
from app.incidents.measures.measures import MEASURES, Facts, Measured
from app.incidents.measures.vectorized import OUTCOMES, Columns, coded
from app.metrics.query import Filters, GroupBy, MetricsQuery
from app.metrics.summary import survival
from app.metrics.summary.numbers import Numbers, Prepared, prepare, summarize, summarize_buckets
from app.metrics.summary.periods import Interval, buckets
from tests.incidents.impact.test_stretches import whole as one_alert
from tests.incidents.measures.test_measures import DAY, WEIGHTS

NOW = DAY + timedelta(days=3)
SERVICES = ("a", "b", "c")
OWNERS = {"a": "Payments", "b": "Payments"}
SOURCES: tuple[tuple[str, ...], ...] = ((), ("prod",), ("prod", "grafana"))
ENVIRONMENTS = ("production", "unknown", "staging")  # of the incidents, in turn

# Coarse enough that incidents touch and share moments, fine enough that microseconds matter.
moments = st.builds(
    lambda hours, micros: DAY + timedelta(hours=hours, microseconds=micros),
    st.integers(-48, 96),
    st.sampled_from((0, 1)),
)
# Many end when others start, and some immediately.
lasting = st.sampled_from([timedelta(hours=hours) for hours in (0, 0, 1, 24)]) | st.timedeltas(
    timedelta(), timedelta(hours=60)
)
impacts = st.sampled_from(("0", "0.1", "0.25", "1", "0.333333333333333333333333333333")).map(Decimal)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    began = draw(moments)
    impact_stated = draw(st.none() | moments)
    ended = draw(st.none() | lasting.map(lambda lasted: began + lasted))
    return Facts(
        began,
        draw(st.sampled_from(SERVICES)),
        draw(st.integers(1, 5)),
        ended,
        draw(st.none() | st.sampled_from(EndReason)),
        draw(st.sampled_from([*AlertClass, AlertClass.SERVICE, AlertClass.SERVICE])),
        detected_at_stated=draw(st.none() | moments),
        impact_started_at=impact_stated or draw(st.none() | moments),
        acknowledged_at=draw(st.none() | moments),
        declared_at=draw(st.sampled_from([None, began]) | moments),
        first_public_at=draw(st.none() | moments),
        identified_at=draw(st.none() | moments),
        mitigated_at=draw(st.none() | moments),
        reviewed_at=draw(st.none() | moments),
        ready_at=draw(st.none() | moments),
        review_planned=draw(st.booleans()),
        service_stated=draw(st.none() | st.sampled_from(SERVICES)),
        severity_stated=draw(st.none() | st.integers(1, 5)),
        impact_stated=draw(st.none() | impacts),
        impact_started_at_stated=impact_stated,
        harmed_throughout_stated=draw(st.none() | st.booleans()),
    )


@st.composite
def incidents(draw: st.DrawFn) -> tuple[Facts, list[Stretch], tuple[str, ...]]:
    """Facts, stretches and sources; some incidents are one alert, others fire on and off."""
    known = draw(facts())
    alerts = one_alert(known)
    if draw(st.booleans()):
        starts = draw(st.lists(moments, max_size=4))
        alerts = [Stretch(at, at + draw(lasting), draw(st.integers(1, 5))) for at in [known.began_at, *starts]]
    return known, stretches(alerts), draw(st.sampled_from(SOURCES))


# — one by one —


@given(st.lists(facts()), st.booleans())
def test_measures_are_those_of_each_incident(every: list[Facts], include: bool) -> None:
    found = columns.measured(Columns.of(range(len(every)), every), include_non_recoveries=include, now=NOW)
    for place, each in enumerate(every):
        expected = measures.measures(each, include_non_recoveries=include, now=NOW)
        assert {name: one(measured, place) for name, measured in found.items()} == expected


def one(measured: columns.MeasuredMany, place: int) -> Measured:
    seconds, waited = (None if np.isnan(column[place]) else float(column[place]) for column in measured[:2])
    _, status, reason, _ = OUTCOMES[measured.outcome[place]]
    return Measured(seconds, status, reason, waited)


@given(st.lists(incidents(), min_size=1))
def test_impact_is_that_of_each_incident(every: list[tuple[Facts, list[Stretch], tuple[str, ...]]]) -> None:
    world = World(every, [], {}, include=False)
    many, found = world.columns, world.impacts
    rows = zip(found.incident, found.service, found.start, found.end, found.impact, strict=True)
    expected = [(place, each) for place, (one, alerts, _) in enumerate(every) for each in intervals_of(one, alerts)]
    for (which, service, start, end, impact), (place, interval) in zip(rows, expected, strict=True):
        assert (which, start, end) == (place, *map(columns.microseconds, interval.span))
        assert Decimal(int(impact)) / found.scale == pytest.approx(interval.impact)
        assert many.service.values[service] == interval.service


def intervals_of(one: Facts, alerts: list[Stretch], number: int = 0) -> list[ImpactInterval]:
    return downtime.impact_intervals(UUID(int=number), one, alerts, now=NOW, weights=WEIGHTS)


# — all together —


@dataclass(frozen=True)
class World:
    """Incidents with their stretches and sources, and everything else that their numbers depend on."""

    incidents: list[tuple[Facts, list[Stretch], tuple[str, ...]]]
    rates: list[Rate]
    planned: Planned
    include: bool

    @property
    def columns(self) -> Columns:
        return Columns.of(range(len(self.incidents)), [each for each, _, _ in self.incidents])

    @property
    def stretches(self) -> StretchColumns:
        return StretchColumns.of([alerts for _, alerts, _ in self.incidents])

    @property
    def impacts(self) -> ImpactColumns:
        return impact_columns(self.columns, self.stretches, now=NOW, weights=WEIGHTS)

    def prepared(self, query: MetricsQuery) -> Prepared:
        return prepare(
            self.columns,
            self.stretches,
            replace(query, include_non_recoveries=self.include),
            now=NOW,
            weights=WEIGHTS,
            planned=self.planned,
            sources=coded(names for _, _, names in self.incidents),
            owners=OWNERS,
            environments=coded(ENVIRONMENTS[number % 3] for number in range(len(self.incidents))),
        )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    known = draw(st.lists(incidents(), max_size=10))
    rates = [
        Rate(service, since, currency, Decimal("12.34"), Decimal(expected), Decimal(10**6))
        for service, currency, since, expected in draw(
            st.lists(
                st.tuples(
                    st.sampled_from(SERVICES),
                    st.sampled_from(("EUR", "USD")),
                    moments,
                    st.sampled_from(("20", "30.005")),
                ),
                unique_by=lambda rate: rate[:3],
                max_size=6,
            )
        )
    ]
    spans = st.lists(st.tuples(moments, moments).map(lambda pair: Span(*sorted(pair))), max_size=3)
    planned = {service: downtime.union(draw(spans)) for service in draw(st.sets(st.sampled_from(SERVICES)))}
    return World(known, rates, planned, draw(st.booleans()))


queries = st.builds(
    MetricsQuery,
    st.tuples(moments, moments).map(lambda pair: Span(*sorted(pair))),
    st.builds(
        Filters,
        st.lists(st.sampled_from(SERVICES), max_size=2),
        st.lists(st.integers(1, 5), max_size=2),
        st.lists(st.just("prod"), max_size=1),
        st.lists(st.sampled_from(("Payments", "")), max_size=2),
        st.lists(st.integers(0, 167), max_size=2),
        st.lists(st.sampled_from(ENVIRONMENTS[:2]), max_size=2),
    ),
    st.sampled_from([None, *GroupBy]),
)


@given(worlds(), queries)
def test_numbers_match_their_definitions(world: World, query: MetricsQuery) -> None:
    whole, groups = summarize(world.prepared(query), world.rates, query)
    assert as_dict(whole) == expected_numbers(world, replace(query, group_by=None))
    keys = sorted({key for each in detailed(world) if matches(each, query) for key in each.keys(query.group_by)})
    expected = [expected_numbers(world, query.narrowed(key, query.period)) for key in keys]
    assert [as_dict(group) for group in groups] == expected


@given(worlds(), queries)
def test_a_timeseries_is_the_numbers_of_each_bucket(world: World, query: MetricsQuery) -> None:
    periods = buckets(query.period, Interval.DAY, at_most=10)
    rows = summarize_buckets(world.prepared(query), world.rates, query, periods, points_at_most=10_000)
    for row in rows:
        assert [each.query.period for each in row] == periods
        assert [as_dict(each) for each in row] == [expected_numbers(world, each.query) for each in row]


def as_dict(numbers: Numbers) -> dict[str, Any]:
    return {
        name: getattr(numbers, name)
        for name in ("query", "incidents", "open", "downtime", "planned", "cost", "services_without_rate", "services")
    } | {
        "carried_in": list(numbers.carried_in),
        "counts": {
            name: (each.n, each.pending, each.censored, each.invalid) for name, each in numbers.measures.items()
        },
        "excluded": {name: dict(each.excluded) for name, each in numbers.measures.items()},
        "values": {name: each.values for name, each in numbers.measures.items()},
    }


@dataclass(frozen=True)
class Detailed:
    number: int
    facts: Facts
    sources: tuple[str, ...]
    intervals: list[ImpactInterval]
    left: list[ImpactInterval]
    measured: Mapping[str, Measured]

    @property
    def detected_at(self) -> datetime:
        return measures.detected_at(self.facts)

    @property
    def service(self) -> str:
        return measures.service(self.facts)

    def keys(self, group_by: GroupBy | None) -> tuple[Any, ...]:
        keys: dict[GroupBy | None, tuple[Any, ...]] = {
            None: (),
            GroupBy.SERVICE: (self.service,),
            GroupBy.ENVIRONMENT: (ENVIRONMENTS[self.number % 3],),
            GroupBy.SEVERITY: (measures.severity(self.facts),),
            GroupBy.SOURCE: self.sources,
            GroupBy.OWNER: (OWNERS.get(self.service, ""),),
            GroupBy.HOUR_OF_WEEK: (self.detected_at.weekday() * 24 + self.detected_at.hour,),
        }
        return keys[group_by]


def detailed(world: World) -> list[Detailed]:
    found = []
    for number, (each, alerts, sources) in enumerate(world.incidents):
        interval = intervals_of(each, alerts, number)
        measured = measures.measures(each, include_non_recoveries=world.include, now=NOW)
        found.append(Detailed(number, each, sources, interval, unplanned(interval, world.planned), measured))
    return found


def matches(each: Detailed, query: MetricsQuery) -> bool:
    is_there = is_detected(each, query) or any(is_within(interval.span, query.period) for interval in each.intervals)
    wanted = {by: getattr(query.filters, by.value) for by in GroupBy}
    return is_there and all(not keys or any(key in each.keys(by) for key in keys) for by, keys in wanted.items())


def is_within(span: Span, period: Span) -> bool:
    cut = clipped(span, period)
    return cut.start < cut.end


def is_detected(each: Detailed, query: MetricsQuery) -> bool:
    return query.period.start <= each.detected_at < query.period.end


def expected_numbers(world: World, query: MetricsQuery) -> dict[str, Any]:
    every = detailed(world)
    those = [each for each in every if matches(each, query)]
    counted = [each for each in those if is_detected(each, query)]
    impacting = [(each, part) for each in those for part in each.left if part.impact > 0]
    impacting = [(each, part) for each, part in impacting if is_within(part.span, query.period)]
    services = sorted({each.service for each in those})
    down = lasted([part for _, part in impacting], services, query)
    down_too = lasted(
        [interval for each in those for interval in each.intervals if interval.impact > 0], services, query
    )
    summed = {measure.name: [each.measured[measure.name] for each in counted] for measure in MEASURES}
    return {
        "query": query,
        "incidents": len(counted),
        "open": sum(each.facts.ended_at is None for each in counted),
        "downtime": down,
        "planned": down_too - down,
        "cost": expected_cost(world, every, those, query) or None,
        "services_without_rate": sorted({part.service for _, part in impacting if is_unpriced(world, part, query)}),
        "services": services,
        "carried_in": sorted({each.number for each, _ in impacting if not is_detected(each, query)}),
        "counts": {name: counts(each) for name, each in summed.items()},
        "excluded": {name: excluded(each) for name, each in summed.items()},
        "values": {name: values(each) for name, each in summed.items()},
    }


def lasted(impacts: list[ImpactInterval], services: Iterable[str], query: MetricsQuery) -> timedelta:
    of_services = ([each.span for each in impacts if each.service == service] for service in services)
    return sum((downtime.downtime(spans, query.period) for spans in of_services), timedelta())


def expected_cost(world: World, every: list[Detailed], those: list[Detailed], query: MetricsQuery) -> Cost:
    priced = downtime.costs((part for each in every for part in each.left), world.rates, query.period)
    if query.filters.may_split_a_service:
        return total(priced.incidents.get(UUID(int=each.number), {}) for each in those)
    return total(priced.services.get(service, {}) for service in sorted({each.service for each in those}))


def is_unpriced(world: World, part: ImpactInterval, query: MetricsQuery) -> bool:
    since = [rate.valid_from for rate in world.rates if rate.service == part.service]
    return not since or min(since) >= clipped(part.span, query.period).end


def counts(every: list[Measured]) -> tuple[int, int, int, int]:
    def of(status: str) -> int:
        return sum(each.status == status and each.censored_seconds is None for each in every)

    pending = sum(each.status == "pending" for each in every)
    censored = sum(each.status == "not_applicable" and each.censored_seconds is not None for each in every)
    return of("recorded"), pending, censored, of("invalid")


def excluded(every: list[Measured]) -> dict[str, int]:
    reasons = [each.reason or "" for each in every if each.status == "not_applicable" and each.censored_seconds is None]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def values(every: list[Measured]) -> list[float] | None:
    recorded = sorted(each.seconds for each in every if each.seconds is not None)
    return recorded if len(recorded) < SUMMARY_FROM else None


@pytest.mark.parametrize("fine", ["0.333333333333333333333333333333", "0.333333333"])
def test_amounts_beyond_64_bits_are_exact_too(fine: str) -> None:
    """Three overlapping incidents over a hundred years, with sums near and beyond 64 bits."""
    long = [
        Facts(DAY - timedelta(days=36_500), "a", 1, DAY + timedelta(hours=hours), impact_stated=Decimal(fine) * hours)
        for hours in (1, 2, 3)
    ]
    rates = [Rate("a", datetime(1900, 1, 1, tzinfo=UTC), "EUR", Decimal(1), Decimal("1.1"), Decimal(10**20))]
    world = World([(each, one_alert(each), ()) for each in long], rates, {}, include=False)
    query = MetricsQuery(Span(DAY - timedelta(days=40_000), NOW))
    for narrow in (query, replace(query, filters=Filters(severity=[1]))):
        whole, _ = summarize(world.prepared(narrow), rates, narrow)
        assert as_dict(whole) == expected_numbers(world, narrow)


def test_an_incident_over_midnight_is_carried_into_the_next_day() -> None:
    facts = Facts(DAY + timedelta(hours=22), "a", 1, DAY + timedelta(hours=26))
    world = World([(facts, one_alert(facts), ())], [], {}, include=False)
    query = MetricsQuery(Span(DAY, DAY + timedelta(days=2)))
    periods = buckets(query.period, Interval.DAY, at_most=2)
    [row] = summarize_buckets(world.prepared(query), [], query, periods, points_at_most=2)
    assert [(each.incidents, list(each.carried_in)) for each in row] == [(1, []), (0, [0])]


def test_a_rate_from_the_end_of_the_impact_on_is_none() -> None:
    facts = Facts(DAY, "a", 1, DAY + timedelta(hours=1))
    world = World([(facts, one_alert(facts), ())], [], {}, include=False)
    for micros, without in ((-1, []), (0, ["a"])):
        rate = Rate("a", DAY + timedelta(hours=1, microseconds=micros), "EUR", *[Decimal(1)] * 3)
        query = MetricsQuery(Span(DAY, NOW))
        whole, _ = summarize(world.prepared(query), [rate], query)
        assert whole.services_without_rate == without


def test_a_moment_of_impact_costs_0_from_the_moment_on_at_which_the_rate_is_known() -> None:
    """Before the first rate the cost is unknown, not 0."""
    query = MetricsQuery(Span(DAY - timedelta(days=1), NOW))
    for micros, is_known in ((-1, False), (0, True), (1, True)):
        at = DAY + timedelta(microseconds=micros)
        facts = Facts(at, "a", 1, at)
        rates = [Rate("a", DAY, "EUR", *[Decimal(1)] * 3)]
        world = World([(facts, one_alert(facts), ())], rates, {}, include=False)
        for each in (query, replace(query, filters=Filters(severity=[1]))):
            whole, _ = summarize(world.prepared(each), world.rates, each)
            assert (whole.cost is not None) is is_known
            assert as_dict(whole) == expected_numbers(world, each)


starts = st.dictionaries(st.sampled_from(SERVICES), moments)


@given(worlds(), st.tuples(moments, moments).map(lambda pair: Span(*sorted(pair))), starts, moments)
def test_availabilities_are_those_of_each_service(
    world: World, period: Span, since: dict[str, datetime], now: datetime
) -> None:
    found = availability.availabilities(
        world.columns, world.impacts, SERVICES, world.planned, period, since=since, now=now
    )
    failing: dict[str, list[FailingIncident]] = {service: [] for service in SERVICES}
    for each in detailed(world):
        failing[each.service].append(FailingIncident(each.number, each.detected_at, each.intervals))
    for service, those in zip(SERVICES, found, strict=True):
        maintenance = world.planned.get(service, ())
        assert those == availability.availability(
            service, failing[service], maintenance, period, since=since.get(service), now=now
        )


objectives = st.builds(
    Objective,
    st.sampled_from(SERVICES),
    st.sampled_from(("0.9", "0.999")).map(Decimal),
    st.just(timedelta(days=1)) | st.sampled_from(CalendarPeriod),
    st.booleans(),
)


@given(worlds(), objectives, starts)
def test_the_weighted_rest_equals_that_of_the_budget(
    world: World, objective: Objective, since: dict[str, datetime]
) -> None:
    name, period = objective.service, objective.period(NOW)
    [burned] = availability.availabilities(
        world.columns, world.impacts, [name], world.planned, period, since=since, now=NOW
    )
    maintenance = world.planned.get(name, ())
    failing = [
        FailingIncident(each.number, each.detected_at, each.intervals)
        for each in detailed(world)
        if each.service == name
    ]
    expected = availability.budget(objective, failing, maintenance, since=since.get(name), now=NOW).left_ratio
    assert availability.budget_left(objective, burned, maintenance, now=NOW).left_ratio == expected


# — typical values —


@given(st.lists(st.lists(st.floats(0, 1e8), max_size=80), min_size=1, max_size=5))
@example([[5e-324] * 5 + [1e8] * 5])
def test_typical_values_are_those_of_numpy(samples: list[list[float]]) -> None:
    borders = np.cumsum([0, *map(len, samples)])
    found = survival.typicals(np.array([each for sample in samples for each in sorted(sample)], np.float64), borders)
    for sample, typical in zip(samples, found, strict=True):
        if len(sample) < SUMMARY_FROM:
            assert typical is None
            continue
        assert typical is not None
        median, p90, p95 = np.quantile(sample, (0.5, 0.9, 0.95))
        assert (typical.median, typical.p90) == pytest.approx((median, p90))
        assert typical.p95 == (pytest.approx(p95) if len(sample) >= P95_FROM else None)
        assert typical.mean == pytest.approx(np.mean(sample))
        if min(sample) > 0:
            assert typical.geometric_mean == pytest.approx(np.exp(np.log(sample).mean()), rel=1e-9, abs=0)
        else:
            assert typical.geometric_mean is None


# — shares —


@given(st.data())
def test_shares_are_the_same_piece_by_piece_and_divisor_by_divisor(data: st.DataObject) -> None:
    """The algorithm depends on the overlap, and the chunk size on memory; the result depends on neither."""
    size, divisors = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))

    def column(highest: int) -> Any:
        return np.array(data.draw(st.lists(st.integers(0, highest), min_size=size, max_size=size)))

    weight, divisor = column(99), column(divisors - 1)
    segments = sums.Segments(np.arange(size), weight, divisor, divisors)
    one, other, impact, cells = column(size), column(size), column(9), column(2)
    first, last = np.minimum(one, other), np.maximum(one, other)
    expected: Counter[tuple[int, int]] = Counter()
    for row, place in np.ndindex(size, size):
        if first[row] <= place < last[row]:
            expected[int(cells[row]), int(divisor[place])] += int(weight[place] * impact[row])
    by_divisor = segments.by_divisor(first, last, impact, cells)
    by_piece = [segments.by_piece(first, last - first, impact, cells, at_once=most) for most in (1, 3, 2**18)]
    for way in (by_divisor, *by_piece):
        found: Counter[tuple[int, int]] = Counter()
        for cell, which, part in way:
            found[cell, which] += part
        assert +found == +expected
