"""Many incidents at once say the same as each of them alone.

The oracle is the definition of one incident (`measures`), of harm and its cost (`downtime`, `maintenance`), put
together here as plainly as it can be said; what is tested does the same in columns.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.base.times import Span
from app.incidents.definitions.model import P95_FROM, SUMMARY_FROM
from app.incidents.grouping.signal import AlertClass, EndReason
from app.incidents.impact import availability
from app.incidents.impact import intervals as downtime
from app.incidents.impact import sweep as sums
from app.incidents.impact.availability import Calendar, Failing, Objective
from app.incidents.impact.intervals import Cost, Harm, clipped, total
from app.incidents.impact.maintenance import Planned, unplanned
from app.incidents.impact.rates import Rate
from app.incidents.measures import measures
from app.incidents.measures import vectorized as columns
from app.incidents.measures.measures import MEASURES, Facts, Measured
from app.incidents.measures.vectorized import OUTCOMES, Columns, coded
from app.metrics.query import Filters, GroupBy, MetricsQuery
from app.metrics.summary import survival
from app.metrics.summary.numbers import Numbers, Prepared, prepare, summarize, summarize_buckets
from app.metrics.summary.periods import Interval, buckets
from tests.incidents.measures.test_measures import DAY, WEIGHTS

NOW = DAY + timedelta(days=3)
SERVICES = ("a", "b", "c")
OWNERS = {"a": "Payments", "b": "Payments"}
SOURCES: tuple[tuple[str, ...], ...] = ((), ("prod",), ("prod", "grafana"))

# Round enough that incidents meet and share moments, fine enough that microseconds count.
moments = st.builds(
    lambda hours, micros: DAY + timedelta(hours=hours, microseconds=micros),
    st.integers(-48, 96),
    st.sampled_from((0, 1)),
)
# Many end where others begin, and some at once.
lasting = st.sampled_from([timedelta(hours=hours) for hours in (0, 0, 1, 24)]) | st.timedeltas(
    timedelta(), timedelta(hours=60)
)
impacts = st.sampled_from(("0", "0.1", "0.25", "1", "0.333333333333333333333333333333")).map(Decimal)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    began = draw(moments)
    ended = draw(st.none() | lasting.map(lambda lasted: began + lasted))
    return Facts(
        began,
        draw(st.sampled_from(SERVICES)),
        draw(st.integers(1, 5)),
        ended,
        draw(st.none() | st.sampled_from(EndReason)),
        draw(st.sampled_from([*AlertClass, AlertClass.SERVICE, AlertClass.SERVICE])),
        detected_at_stated=draw(st.none() | moments),
        impact_started_at=draw(st.none() | moments),
        acknowledged_at=draw(st.none() | moments),
        identified_at=draw(st.none() | moments),
        mitigated_at=draw(st.none() | moments),
        service_stated=draw(st.none() | st.sampled_from(SERVICES)),
        severity_stated=draw(st.none() | st.integers(1, 5)),
        impact_stated=draw(st.none() | impacts),
    )


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


@given(st.lists(facts(), min_size=1))
def test_harm_is_that_of_each_incident(every: list[Facts]) -> None:
    many = Columns.of(range(len(every)), every)
    found = columns.harms(many, now=NOW, weights=WEIGHTS)
    for place, each in enumerate(every):
        expected = downtime.harm(uuid4(), each, now=NOW, weights=WEIGHTS)
        assert (found.begins[place], found.ends[place]) == tuple(map(columns.microseconds, expected.span))
        assert Decimal(int(found.impact[place])) / found.scale == pytest.approx(expected.impact)
        assert many.service.values[found.service[place]] == expected.service


# — all together —


@dataclass(frozen=True)
class World:
    """Incidents with their sources, and what else their numbers depend on."""

    incidents: list[tuple[Facts, tuple[str, ...]]]
    rates: list[Rate]
    planned: Planned
    include: bool

    def prepared(self, query: MetricsQuery) -> Prepared:
        return prepare(
            Columns.of(range(len(self.incidents)), [each for each, _ in self.incidents]),
            replace(query, include_non_recoveries=self.include),
            now=NOW,
            weights=WEIGHTS,
            planned=self.planned,
            sources=coded(names for _, names in self.incidents),
            owners=OWNERS,
        )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    incidents = draw(st.lists(st.tuples(facts(), st.sampled_from(SOURCES)), max_size=10))
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
    return World(incidents, rates, planned, draw(st.booleans()))


queries = st.builds(
    MetricsQuery,
    st.tuples(moments, moments).map(lambda pair: Span(*sorted(pair))),
    st.builds(
        Filters,
        st.none() | st.sampled_from(SERVICES),
        st.none() | st.integers(1, 5),
        st.none() | st.just("prod"),
        st.none() | st.sampled_from(("Payments", "")),
        st.none() | st.integers(0, 167),
    ),
    st.sampled_from([None, *GroupBy]),
)


@given(worlds(), queries)
def test_numbers_are_what_the_definitions_say(world: World, query: MetricsQuery) -> None:
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
    harm: Harm
    left: list[Harm]
    measured: Mapping[str, Measured]

    @property
    def detected_at(self) -> datetime:
        return measures.detected_at(self.facts)

    def keys(self, group_by: GroupBy | None) -> tuple[Any, ...]:
        match group_by:
            case None:
                return ()
            case GroupBy.SERVICE:
                return (self.harm.service,)
            case GroupBy.SEVERITY:
                return (measures.severity(self.facts),)
            case GroupBy.SOURCE:
                return self.sources
            case GroupBy.OWNER:
                return (OWNERS.get(self.harm.service, ""),)
            case GroupBy.HOUR_OF_WEEK:
                return (self.detected_at.weekday() * 24 + self.detected_at.hour,)


def detailed(world: World) -> list[Detailed]:
    found = []
    for number, (each, sources) in enumerate(world.incidents):
        harmed = downtime.harm(UUID(int=number), each, now=NOW, weights=WEIGHTS)
        measured = measures.measures(each, include_non_recoveries=world.include, now=NOW)
        found.append(Detailed(number, each, sources, harmed, unplanned([harmed], world.planned), measured))
    return found


def matches(each: Detailed, query: MetricsQuery) -> bool:
    is_there = is_within(each.harm.span, query.period) or is_detected(each, query)
    wanted = {by: getattr(query.filters, by.value) for by in GroupBy}
    return is_there and all(key is None or key in each.keys(by) for by, key in wanted.items())


def is_within(span: Span, period: Span) -> bool:
    cut = clipped(span, period)
    return cut.begins < cut.ends


def is_detected(each: Detailed, query: MetricsQuery) -> bool:
    return query.period.begins <= each.detected_at < query.period.ends


def expected_numbers(world: World, query: MetricsQuery) -> dict[str, Any]:
    every = detailed(world)
    those = [each for each in every if matches(each, query)]
    counted = [each for each in those if is_detected(each, query)]
    harming = [(each, part) for each in those for part in each.left if part.impact > 0]
    harming = [(each, part) for each, part in harming if is_within(part.span, query.period)]
    services = sorted({each.harm.service for each in those})
    down = lasted([part for _, part in harming], services, query)
    down_too = lasted([each.harm for each in those if each.harm.impact > 0], services, query)
    summed = {measure.name: [each.measured[measure.name] for each in counted] for measure in MEASURES}
    return {
        "query": query,
        "incidents": len(counted),
        "open": sum(each.facts.ended_at is None for each in counted),
        "downtime": down,
        "planned": down_too - down,
        "cost": expected_cost(world, every, those, query) or None,
        "services_without_rate": sorted({part.service for _, part in harming if is_unpriced(world, part, query)}),
        "services": services,
        "carried_in": sorted({each.number for each, _ in harming if not is_detected(each, query)}),
        "counts": {name: counts(each) for name, each in summed.items()},
        "excluded": {name: excluded(each) for name, each in summed.items()},
        "values": {name: values(each) for name, each in summed.items()},
    }


def lasted(harms: list[Harm], services: Iterable[str], query: MetricsQuery) -> timedelta:
    of_services = ([each.span for each in harms if each.service == service] for service in services)
    return sum((downtime.downtime(spans, query.period) for spans in of_services), timedelta())


def expected_cost(world: World, every: list[Detailed], those: list[Detailed], query: MetricsQuery) -> Cost:
    priced = downtime.costs((part for each in every for part in each.left), world.rates, query.period)
    if query.filters.may_split_a_service:
        return total(priced.incidents.get(each.harm.incident, {}) for each in those)
    return total(priced.services.get(service, {}) for service in sorted({each.harm.service for each in those}))


def is_unpriced(world: World, part: Harm, query: MetricsQuery) -> bool:
    since = [rate.valid_from for rate in world.rates if rate.service == part.service]
    return not since or min(since) >= clipped(part.span, query.period).ends


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
def test_what_is_beyond_64_bits_is_exact_too(fine: str) -> None:
    """A hundred years, three at a time, of impacts that do not fit or that do but for the years."""
    long = [
        Facts(DAY - timedelta(days=36_500), "a", 1, DAY + timedelta(hours=hours), impact_stated=Decimal(fine) * hours)
        for hours in (1, 2, 3)
    ]
    rates = [Rate("a", datetime(1900, 1, 1, tzinfo=UTC), "EUR", Decimal(1), Decimal("1.1"), Decimal(10**20))]
    world = World([(each, ()) for each in long], rates, {}, include=False)
    query = MetricsQuery(Span(DAY - timedelta(days=40_000), NOW))
    for narrow in (query, replace(query, filters=Filters(severity=1))):
        whole, _ = summarize(world.prepared(narrow), rates, narrow)
        assert as_dict(whole) == expected_numbers(world, narrow)


def test_what_runs_over_midnight_is_carried_into_the_next_day() -> None:
    world = World([(Facts(DAY + timedelta(hours=22), "a", 1, DAY + timedelta(hours=26)), ())], [], {}, include=False)
    query = MetricsQuery(Span(DAY, DAY + timedelta(days=2)))
    periods = buckets(query.period, Interval.DAY, at_most=2)
    [row] = summarize_buckets(world.prepared(query), [], query, periods, points_at_most=2)
    assert [(each.incidents, list(each.carried_in)) for each in row] == [(1, []), (0, [0])]


def test_a_rate_from_the_end_of_the_harm_on_is_none() -> None:
    world = World([(Facts(DAY, "a", 1, DAY + timedelta(hours=1)), ())], [], {}, include=False)
    for micros, without in ((-1, []), (0, ["a"])):
        rate = Rate("a", DAY + timedelta(hours=1, microseconds=micros), "EUR", *[Decimal(1)] * 3)
        query = MetricsQuery(Span(DAY, NOW))
        whole, _ = summarize(world.prepared(query), [rate], query)
        assert whole.services_without_rate == without


def test_a_moment_of_harm_costs_0_from_the_moment_on_at_which_the_rate_is_known() -> None:
    """Before it nothing is known of its cost, which is not 0."""
    query = MetricsQuery(Span(DAY - timedelta(days=1), NOW))
    for micros, is_known in ((-1, False), (0, True), (1, True)):
        at = DAY + timedelta(microseconds=micros)
        world = World([(Facts(at, "a", 1, at), ())], [Rate("a", DAY, "EUR", *[Decimal(1)] * 3)], {}, include=False)
        for each in (query, replace(query, filters=Filters(severity=1))):
            whole, _ = summarize(world.prepared(each), world.rates, each)
            assert (whole.cost is not None) is is_known
            assert as_dict(whole) == expected_numbers(world, each)


@given(worlds(), st.tuples(moments, moments).map(lambda pair: Span(*sorted(pair))), moments)
def test_availabilities_are_those_of_each_service(world: World, period: Span, now: datetime) -> None:
    every = [each for each, _ in world.incidents]
    many = Columns.of(range(len(every)), every)
    found = availability.availabilities(
        many, columns.harms(many, now=NOW, weights=WEIGHTS), SERVICES, world.planned, period, now=now
    )
    failing: dict[str, list[Failing]] = {service: [] for service in SERVICES}
    for each in detailed(world):
        failing[each.harm.service].append(Failing(each.number, each.detected_at, each.harm))
    for service, those in zip(SERVICES, found, strict=True):
        maintenance = world.planned.get(service, ())
        assert those == availability.availability(service, failing[service], maintenance, period, now=now)


objectives = st.builds(
    Objective,
    st.sampled_from(SERVICES),
    st.sampled_from(("0.9", "0.999")).map(Decimal),
    st.just(timedelta(days=1)) | st.sampled_from(Calendar),
    st.booleans(),
)


@given(worlds(), objectives)
def test_what_is_left_of_a_budget_is_what_the_budget_says(world: World, objective: Objective) -> None:
    every = [each for each, _ in world.incidents]
    many = Columns.of(range(len(every)), every)
    harmed = columns.harms(many, now=NOW, weights=WEIGHTS)
    name, period = objective.service, objective.period(NOW)
    [burned] = availability.availabilities(many, harmed, [name], world.planned, period, now=NOW)
    maintenance = world.planned.get(name, ())
    failing = [
        Failing(each.number, each.detected_at, each.harm) for each in detailed(world) if each.harm.service == name
    ]
    expected = availability.budget(objective, failing, maintenance, now=NOW).left_ratio
    assert availability.left_ratio(objective, burned, maintenance, now=NOW) == expected


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
    """Which way is taken depends on how much overlaps, how many pieces at once on memory. Neither shows."""
    size, divisors = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))

    def column(highest: int) -> Any:
        return np.array(data.draw(st.lists(st.integers(0, highest), min_size=size, max_size=size)))

    weight, divisor = column(99), column(divisors - 1)
    stretches = sums.Stretches(np.arange(size), weight, divisor, divisors)
    one, other, impact, cells = column(size), column(size), column(9), column(2)
    first, last = np.minimum(one, other), np.maximum(one, other)
    expected: Counter[tuple[int, int]] = Counter()
    for row, place in np.ndindex(size, size):
        if first[row] <= place < last[row]:
            expected[int(cells[row]), int(divisor[place])] += int(weight[place] * impact[row])
    by_divisor = stretches.by_divisor(first, last, impact, cells)
    by_piece = [stretches.by_piece(first, last - first, impact, cells, at_once=most) for most in (1, 3, 2**18)]
    for way in (by_divisor, *by_piece):
        found: Counter[tuple[int, int]] = Counter()
        for cell, which, part in way:
            found[cell, which] += part
        assert +found == +expected
