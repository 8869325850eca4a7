"""Downtime and money as properties, and a few examples worked by hand."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.base.values.times import Span
from app.incidents.impact.intervals import (
    Amount,
    Cost,
    ImpactInterval,
    clipped,
    costs,
    downtime,
    rounded,
    shown,
    total,
    union,
)
from app.incidents.impact.rates import THE_BEGINNING, Rate

DAY = datetime(2026, 8, 20, tzinfo=UTC)
WEIGHTS = {
    "sev1": Decimal(1),
    "sev2": Decimal("0.5"),
    "sev3": Decimal("0.1"),
    "sev4": Decimal(0),
    "sev5": Decimal(0),
}


def at(clock: str) -> datetime:
    hours, _, minutes = clock.partition(":")
    return DAY + timedelta(hours=int(hours), minutes=int(minutes))


def a_span(start: str, end: str) -> Span:
    return Span(at(start), at(end))


def an_impact(number: int, start: str, end: str, impact: str = "1", service: str = "checkout") -> ImpactInterval:
    return ImpactInterval(UUID(int=number), service, a_span(start, end), Decimal(impact))


def a_rate(
    expected: str = "100", valid_from: datetime = THE_BEGINNING, currency: str = "EUR", service: str = "checkout"
) -> Rate:
    amount = Decimal(expected)
    return Rate(service, valid_from, currency, amount / 2, amount, amount * 2)


def expected_of(cost: Cost, currency: str = "EUR") -> Fraction:
    return cost[currency].expected


# — examples —


def test_downtime_is_the_union_cut_at_the_period() -> None:
    spans = [a_span("10:00", "11:00"), a_span("10:30", "11:30"), a_span("13:00", "14:00"), a_span("14:00", "14:00")]
    assert union(spans) == [a_span("10:00", "11:30"), a_span("13:00", "14:00")]
    assert downtime(spans, a_span("10:15", "13:30")) == timedelta(minutes=75 + 30)


def test_spans_that_touch_are_one_and_leave_no_gap() -> None:
    assert union([a_span("11:00", "12:00"), a_span("10:00", "11:00")]) == [a_span("10:00", "12:00")]


def test_where_incidents_overlap_the_greatest_impact_counts_once_and_is_shared_by_impact() -> None:
    priced = costs([an_impact(1, "10:00", "12:00"), an_impact(2, "11:00", "13:00", "0.5")], [a_rate("90")])
    # 10-11: 90 for the first; 11-12: 90, two thirds and one third; 12-13: 45 for the second
    assert priced.incidents == {
        UUID(int=1): {"EUR": Amount(Fraction(75), Fraction(150), Fraction(300))},
        UUID(int=2): {"EUR": Amount(Fraction("37.5"), Fraction(75), Fraction(150))},
    }
    assert priced.services == {"checkout": {"EUR": Amount(Fraction("112.5"), Fraction(225), Fraction(450))}}


def test_a_rate_counts_from_its_date_even_in_the_middle_of_an_incident() -> None:
    priced = costs([an_impact(1, "10:00", "12:00")], [a_rate("100"), a_rate("400", at("11:30"))])
    assert expected_of(priced.services["checkout"]) == 150 + 200


def test_before_the_first_rate_there_is_no_cost_and_after_it_there_is() -> None:
    rates = [a_rate("60", at("11:00"))]
    priced = costs([an_impact(1, "09:00", "11:00"), an_impact(2, "10:00", "12:00")], rates)
    assert priced.incidents.keys() == {UUID(int=2)}
    assert expected_of(priced.incidents[UUID(int=2)]) == 60


def test_a_service_without_rate_has_no_cost_which_is_not_0() -> None:
    priced = costs([an_impact(1, "10:00", "12:00", service="search"), an_impact(2, "10:00", "12:00", "0")], [a_rate()])
    assert (set(priced.incidents), set(priced.services)) == ({UUID(int=2)}, {"checkout"})
    assert expected_of(priced.incidents[UUID(int=2)]) == 0


def test_currencies_stay_apart() -> None:
    priced = costs([an_impact(1, "10:00", "12:00")], [a_rate("100"), a_rate("10", at("11:00"), "USD")])
    assert {currency: amount.expected for currency, amount in priced.services["checkout"].items()} == {
        "EUR": 200,
        "USD": 10,
    }


def test_three_equal_incidents_share_by_thirds_and_each_is_rounded_by_itself() -> None:
    priced = costs([an_impact(number, "10:00", "11:00") for number in (1, 2, 3)], [a_rate("100")])
    assert sum(expected_of(cost) for cost in priced.incidents.values()) == 100
    assert [str(shown(cost)["EUR"].expected) for cost in priced.incidents.values()] == ["33.33"] * 3
    assert str(shown(priced.services["checkout"])["EUR"].expected) == "100.00"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0.00"),
        ("0.004", "0.00"),
        ("0.005", "0.00"),
        ("0.015", "0.02"),
        ("1234567890123456789012345678901.999", "1234567890123456789012345678902.00"),
    ],
)
def test_rounding_is_half_even_for_any_amount(amount: str, text: str) -> None:
    assert f"{rounded(Fraction(amount)):f}" == text


# — properties —

minutes = st.integers(0, 600)
impacts = st.sampled_from(["0", "0.1", "0.5", "1", "0.333333"]).map(Decimal)
services = st.sampled_from(["checkout", "search"])


@st.composite
def spans(draw: st.DrawFn) -> Span:
    start = DAY + timedelta(minutes=draw(minutes))
    return Span(start, start + timedelta(minutes=draw(st.integers(0, 200)), microseconds=draw(st.integers(0, 5))))


@st.composite
def many_impacts(draw: st.DrawFn) -> list[ImpactInterval]:
    drawn = draw(st.lists(st.tuples(services, spans(), impacts), min_size=1, max_size=8))
    return [ImpactInterval(UUID(int=number), *parts) for number, parts in enumerate(drawn)]


amounts = st.decimals(0, 10_000, places=2)


@st.composite
def many_rates(draw: st.DrawFn) -> list[Rate]:
    keys = draw(st.lists(st.tuples(services, minutes, st.sampled_from(["EUR", "USD"])), unique=True, max_size=5))
    return [
        Rate(service, DAY + timedelta(minutes=minute), currency, *sorted(draw(st.tuples(amounts, amounts, amounts))))
        for service, minute, currency in keys
    ]


cuts = minutes.map(lambda minute: DAY + timedelta(minutes=minute))
WHOLE = Span(DAY, DAY + timedelta(days=1))


def by_brute_force(intervals: Sequence[ImpactInterval], rates: Sequence[Rate], service: str, currency: str) -> Fraction:
    """The integral by its definition, cell by cell between all moments of change."""
    moments = sorted({at for each in intervals for at in each.span} | {rate.valid_from for rate in rates})
    whole = Fraction(0)
    for start, end in pairwise(moments):
        running = [e.impact for e in intervals if e.service == service and e.span.start <= start and end <= e.span.end]
        held = [r for r in rates if (r.service, r.currency) == (service, currency) and r.valid_from <= start]
        if running and held:
            rate = max(held, key=lambda rate: rate.valid_from)
            hours = Fraction((end - start) // timedelta(microseconds=1), 3600 * 10**6)
            whole += Fraction(rate.expected) * Fraction(max(running)) * hours
    return whole


@given(many_impacts(), many_rates())
def test_without_shares_the_services_cost_the_same(intervals: list[ImpactInterval], rates: list[Rate]) -> None:
    priced = costs(intervals, rates, shares=False)
    assert (priced.services, priced.incidents) == (costs(intervals, rates).services, {})


@given(many_impacts(), many_rates())
def test_cost_is_the_integral_and_the_parts_sum_to_it_exactly(
    intervals: list[ImpactInterval], rates: list[Rate]
) -> None:
    priced = costs(intervals, rates)
    for service in ("checkout", "search"):
        parts = total(
            priced.incidents[each.incident]
            for each in intervals
            if each.service == service and each.incident in priced.incidents
        )
        assert parts == priced.services.get(service, {})
        for currency, amount in parts.items():
            assert amount.expected == by_brute_force(intervals, rates, service, currency)
            assert 0 <= amount.low <= amount.expected <= amount.high
    assert all(amount.low >= 0 for cost in priced.incidents.values() for amount in cost.values())


@given(many_impacts(), many_rates(), st.integers(1, 9))
def test_splitting_an_interval_does_not_change_the_cost(
    intervals: list[ImpactInterval], rates: list[Rate], tenths: int
) -> None:
    first, *others = intervals
    cut = first.span.start + (first.span.end - first.span.start) * tenths / 10
    assume(first.span.start < cut < first.span.end)
    halves = [
        ImpactInterval(first.incident, first.service, span, first.impact)
        for span in (Span(first.span.start, cut), Span(cut, first.span.end))
    ]
    assert costs([*others, *halves], rates) == costs(intervals, rates)


@given(many_impacts(), many_rates())
def test_a_duplicate_shares_the_cost(intervals: list[ImpactInterval], rates: list[Rate]) -> None:
    twin = ImpactInterval(UUID(int=99), intervals[0].service, intervals[0].span, intervals[0].impact)
    priced, before = costs([*intervals, twin], rates), costs(intervals, rates)
    assert priced.services == before.services
    assert priced.incidents.get(twin.incident) == priced.incidents.get(intervals[0].incident)


@given(many_impacts(), many_rates(), cuts)
def test_costs_of_periods_add_up(intervals: list[ImpactInterval], rates: list[Rate], cut: datetime) -> None:
    before, after = (costs(intervals, rates, span) for span in (Span(DAY, cut), Span(cut, WHOLE.end)))
    whole = costs(intervals, rates, WHOLE)
    for incident in (each.incident for each in intervals):
        summed = total([before.incidents.get(incident, {}), after.incidents.get(incident, {})])
        assert summed == whole.incidents.get(incident, {})
    assert whole == costs(intervals, rates)


@given(many_impacts(), many_rates(), st.randoms(use_true_random=False))
def test_order_does_not_matter(intervals: list[ImpactInterval], rates: list[Rate], random: object) -> None:
    shuffled, reordered = list(intervals), list(rates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(reordered)  # type: ignore[attr-defined]
    assert costs(shuffled, reordered) == costs(intervals, rates)


@given(many_impacts(), many_rates())
def test_one_more_incident_never_lowers_the_cost_of_a_service(
    intervals: list[ImpactInterval], rates: list[Rate]
) -> None:
    before, after = costs(intervals[1:], rates).services, costs(intervals, rates).services
    for service, cost in before.items():
        assert all(after[service][currency].low >= amount.low for currency, amount in cost.items())


@given(st.lists(spans(), max_size=8), cuts)
def test_downtime_adds_up_over_periods_and_is_at_most_the_sum(drawn: list[Span], cut: datetime) -> None:
    whole = downtime(drawn, WHOLE)
    assert downtime(drawn, Span(DAY, cut)) + downtime(drawn, Span(cut, WHOLE.end)) == whole
    longest = max((span.end - span.start for span in drawn), default=timedelta())
    assert longest <= whole <= sum((span.end - span.start for span in drawn), timedelta())
    assert downtime([*drawn, *drawn], WHOLE) == downtime(union(reversed(drawn)), WHOLE) == whole


@given(spans(), spans())
def test_clipping_never_reaches_out(span: Span, within: Span) -> None:
    inside = clipped(span, within)
    assert inside.start >= max(span.start, within.start)
    assert inside.end <= min(span.end, within.end)
