"""Planned maintenance: its occurrences, and that exactly its time is excluded from downtime and cost."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.values.times import Span
from app.incidents.impact.intervals import ImpactInterval, costs, downtime, total, union
from app.incidents.impact.maintenance import (
    Recurrence,
    TooMuchMaintenance,
    Window,
    occurrences,
    outside,
    planned,
    unplanned,
)
from app.incidents.impact.rates import Rate
from tests.incidents.impact.test_intervals import (
    DAY,
    WHOLE,
    a_rate,
    a_span,
    an_impact,
    at,
    by_brute_force,
    cuts,
    expected_of,
    many_impacts,
    many_rates,
    spans,
)

SUNDAY = 6
EVERY_DAY = frozenset(range(7))


def a_rule(**changes: object) -> Recurrence:
    """Sundays at 02:30 in Berlin, for two hours, from 2026 on."""
    rule = Recurrence(frozenset({SUNDAY}), time(2, 30), timedelta(hours=2), "Europe/Berlin", date(2026, 1, 1))
    return replace(rule, **changes)  # type: ignore[arg-type]


def a_window(when: Span | Recurrence, *services: str) -> Window:
    return Window("deploy", frozenset(services), when)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def begins_of(rule: Recurrence, start: str, end: str) -> list[str]:
    found = occurrences(a_window(rule), Span(utc(start), utc(end)))
    assert all(span.end - span.start == rule.lasts for span in found)
    return [f"{span.start:%Y-%m-%d %H:%M}" for span in found]


# — occurrences —


def test_it_recurs_at_the_local_time_of_its_zone() -> None:
    # 2026-03-29 skips 02:00-03:00 in Berlin: 02:30 by the offset before it is 03:30 there, 01:30 in UTC.
    assert begins_of(a_rule(), "2026-03-20", "2026-04-10") == [
        "2026-03-22 01:30",
        "2026-03-29 01:30",
        "2026-04-05 00:30",
    ]
    # 2026-10-25 shows 02:00-03:00 twice: the first is at 00:30 in UTC.
    assert begins_of(a_rule(), "2026-10-18", "2026-11-02") == [
        "2026-10-18 00:30",
        "2026-10-25 00:30",
        "2026-11-01 01:30",
    ]


def test_the_weekday_is_that_of_the_zone() -> None:
    auckland = a_rule(zone="Pacific/Auckland", start_time=time(1, 0))
    assert begins_of(auckland, "2026-06-01", "2026-06-09") == ["2026-06-06 13:00"]
    los_angeles = a_rule(zone="America/Los_Angeles", start_time=time(23, 0))
    assert begins_of(los_angeles, "2026-06-02", "2026-06-09") == ["2026-06-08 06:00"]


def test_first_and_last_date_are_included() -> None:
    rule = a_rule(weekdays=EVERY_DAY, zone="UTC", first_date=date(2026, 5, 2), last_date=date(2026, 5, 4))
    assert begins_of(rule, "2026-01-01", "2027-01-01") == ["2026-05-02 02:30", "2026-05-03 02:30", "2026-05-04 02:30"]


def test_one_that_is_running_at_the_border_counts_and_one_that_touches_it_does_not() -> None:
    rule = a_rule(zone="UTC")
    assert begins_of(rule, "2026-05-03 04:29", "2026-05-04") == ["2026-05-03 02:30"]
    assert begins_of(rule, "2026-05-03 04:30", "2026-05-10 02:30") == []
    once = a_window(a_span("10:00", "11:00"))
    assert occurrences(once, a_span("10:59", "12:00")) == [a_span("10:00", "11:00")]
    assert occurrences(once, a_span("11:00", "12:00")) == []


def test_a_week_long_one_reaches_into_the_next_week() -> None:
    assert begins_of(a_rule(lasts=timedelta(days=7), zone="UTC"), "2026-05-09", "2026-05-10") == ["2026-05-03 02:30"]


def test_times_at_the_end_of_the_calendar_are_no_error() -> None:
    end_of_time = Span(utc("2199-12-28"), datetime.max.replace(tzinfo=UTC))
    assert begins_of(a_rule(zone="UTC"), "2199-12-28", "9999-12-31") == ["2199-12-29 02:30"]
    assert len(occurrences(a_window(a_rule(zone="UTC")), end_of_time)) == 1


rules = st.builds(
    Recurrence,
    st.frozensets(st.integers(0, 6), min_size=1),
    st.times().map(lambda at: at.replace(second=0, microsecond=0)),
    st.integers(1, 7 * 24 * 60).map(lambda minutes: timedelta(minutes=minutes)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]),
    st.dates(date(2026, 1, 1), date(2026, 3, 1)),
    st.none() | st.dates(date(2026, 9, 1), date(2026, 12, 31)),
)
moments = st.datetimes(datetime(2025, 12, 1), datetime(2027, 1, 31)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001


@given(rules, st.tuples(moments, moments).map(lambda pair: Span(*sorted(pair))))
def test_occurrences_are_the_days_of_the_rule_by_brute_force(rule: Recurrence, within: Span) -> None:
    expected = []
    day = rule.first_date
    while day <= (rule.last_date or date(2027, 3, 1)):
        start = datetime.combine(day, rule.start_time, ZoneInfo(rule.zone)).astimezone(UTC)
        if day.weekday() in rule.weekdays and start < within.end and start + rule.lasts > within.start:
            expected.append(Span(start, start + rule.lasts))
        day += timedelta(days=1)
    assert occurrences(a_window(rule), within) == expected


# — effect on downtime and cost —


def test_impact_during_maintenance_is_no_downtime_and_costs_nothing() -> None:
    windows = [a_window(a_span("10:30", "11:00"), "checkout"), a_window(a_span("11:00", "11:30"))]
    when = planned(windows, ["checkout"], a_span("00:00", "24:00"))
    assert when == {"checkout": [a_span("10:30", "11:30")]}
    left = unplanned([an_impact(1, "10:00", "12:00")], when)
    assert left == [an_impact(1, "10:00", "10:30"), an_impact(1, "11:30", "12:00")]
    assert expected_of(costs(left, [a_rate("100")]).incidents[UUID(int=1)]) == 100


def test_an_incident_entirely_in_maintenance_costs_0_and_not_null() -> None:
    left = unplanned([an_impact(1, "10:00", "11:00")], {"checkout": [a_span("09:00", "11:00")]})
    assert expected_of(costs(left, [a_rate("100")]).incidents[UUID(int=1)]) == 0


def test_no_service_named_is_every_service() -> None:
    within = a_span("00:00", "24:00")
    everywhere = planned([a_window(a_span("10:00", "11:00"))], ["checkout", "search"], within)
    assert everywhere == {"checkout": [a_span("10:00", "11:00")], "search": [a_span("10:00", "11:00")]}
    assert not planned([a_window(a_span("10:00", "11:00"), "other")], ["checkout"], within)["checkout"]


breaks = st.lists(spans(), max_size=5).map(union)


@given(st.lists(spans(), max_size=6), breaks)
def test_downtime_and_the_planned_part_are_the_downtime_before(drawn: list[Span], maintenance: list[Span]) -> None:
    left = outside(drawn, maintenance)
    common = [Span(max(a.start, b.start), min(a.end, b.end)) for a in drawn for b in maintenance]
    assert downtime(left, WHOLE) + downtime(common, WHOLE) == downtime(drawn, WHOLE)
    assert all(downtime([span], whole) == timedelta() for span in left for whole in maintenance)


@given(many_impacts(), breaks)
def test_subtracting_maintenance_is_idempotent(intervals: list[ImpactInterval], maintenance: list[Span]) -> None:
    when = {"checkout": maintenance, "search": maintenance[:1]}
    once = unplanned(intervals, when)
    assert unplanned(once, when) == once
    assert {each.incident for each in once} == {each.incident for each in intervals}


@given(many_impacts(), many_rates(), breaks)
def test_parts_still_sum_to_the_whole_exactly(
    intervals: list[ImpactInterval], rates: list[Rate], maintenance: list[Span]
) -> None:
    left = unplanned(intervals, {"checkout": maintenance, "search": maintenance})
    priced = costs(left, rates)
    for service in ("checkout", "search"):
        own = {each.incident for each in intervals if each.service == service}
        parts = total(cost for incident, cost in priced.incidents.items() if incident in own)
        assert parts == priced.services.get(service, {})
        for currency, amount in parts.items():
            assert amount.expected == by_brute_force(left, rates, service, currency)


@given(many_impacts(), many_rates(), breaks)
def test_maintenance_of_other_services_does_not_matter(
    intervals: list[ImpactInterval], rates: list[Rate], maintenance: list[Span]
) -> None:
    before, after = costs(intervals, rates), costs(unplanned(intervals, {"search": maintenance}), rates)
    assert after.services.get("checkout") == before.services.get("checkout")
    own = [each.incident for each in intervals if each.service == "checkout"]
    assert [after.incidents.get(each) for each in own] == [before.incidents.get(each) for each in own]


@given(many_impacts(), many_rates(), cuts)
def test_maintenance_subtracts_exactly_the_cost_of_its_time(
    intervals: list[ImpactInterval], rates: list[Rate], cut: datetime
) -> None:
    """Maintenance from a moment on leaves the costs until that moment."""
    left = costs(
        unplanned(intervals, {name: [Span(cut, WHOLE.end)] for name in ("checkout", "search")}), rates
    ).services
    until = costs(intervals, rates, Span(DAY, cut)).services
    assert {name: _above_0(cost) for name, cost in left.items() if _above_0(cost)} == {
        name: _above_0(cost) for name, cost in until.items() if _above_0(cost)
    }


def _above_0(cost: object) -> dict[str, Fraction]:
    return {currency: amount.expected for currency, amount in cost.items() if amount.expected}  # type: ignore[attr-defined]


@given(st.lists(spans(), max_size=6), breaks, cuts)
def test_the_rest_does_not_depend_on_how_maintenance_is_split(
    drawn: list[Span], maintenance: Sequence[Span], cut: datetime
) -> None:
    halves = [
        half
        for span in maintenance
        for half in (Span(span.start, min(span.end, cut)), Span(max(span.start, cut), span.end))
    ]
    windows = [a_window(half) for half in halves if half.start < half.end]
    assert planned(windows, ["checkout"], WHOLE).get("checkout", []) == list(maintenance)
    assert outside(drawn, union(halves)) == outside(drawn, maintenance)


@pytest.mark.parametrize("moment", ["09:59", "11:00"])
def test_an_empty_span_outside_stays_as_it_is(moment: str) -> None:
    empty = Span(at(moment), at(moment))
    assert outside([empty], [a_span("10:00", "11:00")]) == [empty]


@given(
    windows=st.lists(
        st.tuples(
            st.frozensets(st.integers(0, 6), min_size=1),
            st.integers(1, 70),
            st.frozensets(st.sampled_from("abc"), max_size=2),
        ),
        max_size=4,
    )
)
def test_services_share_what_each_would_have_alone(
    windows: list[tuple[frozenset[int], int, frozenset[str]]],
) -> None:
    within = Span(utc("2026-03-01"), utc("2026-04-01"))
    every = [
        a_window(a_rule(weekdays=weekdays, lasts=timedelta(hours=hours)), *services)
        for weekdays, hours, services in windows
    ]
    together = planned(every, "abc", within)
    for service in "abc":
        alone = union(span for window in every if window.concerns(service) for span in occurrences(window, within))
        assert list(together.get(service, ())) == alone


@given(
    weekdays=st.frozensets(st.integers(0, 6), min_size=1),
    start=st.datetimes(utc("1990-01-01").replace(tzinfo=None), utc("2150-01-01").replace(tzinfo=None)),
    days=st.integers(0, 900),
)
def test_what_is_refused_up_front_is_close_to_what_would_be_computed(
    weekdays: frozenset[int], start: datetime, days: int
) -> None:
    window = a_window(a_rule(weekdays=weekdays))
    within = Span(start.replace(tzinfo=UTC), start.replace(tzinfo=UTC) + timedelta(days=days))
    number = len(occurrences(window, within))
    if number > 2 * len(weekdays):
        with pytest.raises(TooMuchMaintenance, match="ask for a shorter period or for one service"):
            planned([window], ["a"], within, occurrences_at_most=number - 2 * len(weekdays))
    planned([window], ["a"], within, occurrences_at_most=number + 2 * len(weekdays))
