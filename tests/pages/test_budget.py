"""The burn-down of an error budget: pure geometry, and its course against the budget."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from app.base.values.times import Span
from app.incidents.impact.availability import CalendarPeriod, FailingIncident, Objective, budget
from app.incidents.impact.intervals import ImpactInterval, weighted
from app.pages.plots.budget import CELLS, DEEPEST, HEIGHT, ROWS_AT_MOST, TOP, BurnDown, Course, burn_down, left_at

SINCE = datetime(2026, 8, 1, tzinfo=UTC)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]).map(ZoneInfo)


@st.composite
def courses(draw: st.DrawFn) -> Course:
    """Burned seconds never fall."""
    steps = draw(st.lists(st.tuples(st.integers(1, 50_000), st.floats(0, 5_000)), max_size=30))
    at, burned, course = SINCE, 0.0, []
    for gap, more in steps:
        at, burned = at + timedelta(seconds=gap), burned + more
        course.append((at, burned))
    return [(SINCE, 0.0), *course] if course else []


DAYS = st.integers(1, 366).map(lambda days: timedelta(days=days))


def numbers(path: str) -> list[tuple[float, float]]:
    found = [float(number) for number in re.findall(r"-?[0-9.]+", path)]
    return list(zip(found[::2], found[1::2], strict=True))


def drawn(course: Course, lasts: timedelta, zone: ZoneInfo, passed: float = 1) -> BurnDown:
    until = SINCE + lasts
    return burn_down(course, 3600, since=SINCE, until=until, now=SINCE + lasts * passed, zone=zone)


@given(courses(), DAYS, ZONES, st.floats(0.01, 1))
def test_the_curve_only_falls_and_stays_inside_the_plot(
    course: Course, lasts: timedelta, zone: ZoneInfo, passed: float
) -> None:
    plot = drawn(course, lasts, zone, passed)
    points = numbers(plot.curve)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(points))
    assert all(0 <= x <= 1000 and TOP <= y <= TOP + HEIGHT for x, y in [*points, *numbers(plot.below)])
    assert points[0][1] == TOP
    assert len(points) <= CELLS + 1
    assert abs(points[-1][0] / 10 - plot.end_x) < 0.1


@given(courses(), DAYS, ZONES)
def test_the_end_of_the_curve_is_what_is_left(course: Course, lasts: timedelta, zone: ZoneInfo) -> None:
    plot = drawn(course, lasts, zone)
    left = left_at(course, 3600, SINCE + lasts)
    assert plot.rows[-1] == (SINCE + lasts, left)
    assert bool(plot.below) == (left < 0)
    assert plot.is_cut == (left < DEEPEST)
    zero = next(level.y for level in plot.levels if level.ratio == 0)
    assert (plot.end_y > zero) == (left < 0) or abs(plot.end_y - zero) < 0.02


@given(courses(), DAYS, ZONES)
def test_the_table_has_round_local_times_and_falls_too(course: Course, lasts: timedelta, zone: ZoneInfo) -> None:
    plot = drawn(course, lasts, zone)
    assert 1 <= len(plot.rows) <= ROWS_AT_MOST
    assert all(moment.astimezone(zone).minute == 0 for moment, _ in plot.rows[:-1])
    ratios = [ratio for _, ratio in plot.rows]
    assert ratios == sorted(ratios, reverse=True)
    assert all(ratio == left_at(course, 3600, moment) for moment, ratio in plot.rows)


@given(
    st.lists(
        st.tuples(st.integers(0, 40_000), st.integers(0, 5_000), st.sampled_from(["0", "0.1", "0.5", "1"])), max_size=8
    ),
    st.booleans(),
    st.integers(0, 60_000),
)
def test_the_course_of_a_budget_is_what_was_burned_up_to_each_moment(
    failing: list[tuple[int, int, str]], is_weighted: bool, checked: int
) -> None:
    now = SINCE + timedelta(days=20)
    incidents = [
        FailingIncident(
            number,
            SINCE + timedelta(minutes=start),
            [
                ImpactInterval(
                    UUID(int=number),
                    "shop",
                    Span(SINCE + timedelta(minutes=start), SINCE + timedelta(minutes=start + length)),
                    Decimal(impact),
                )
            ],
        )
        for number, (start, length, impact) in enumerate(failing)
    ]
    objective = Objective("shop", Decimal("0.99"), CalendarPeriod.MONTH, is_weighted)
    whole = budget(objective, incidents, [], now=now)
    assert not whole.course or whole.course[-1][1] == whole.burned
    moment = min(SINCE + timedelta(minutes=checked), now)
    until_then = budget(objective, incidents, [], now=moment)
    by_course = 1 - left_at([(at, float(burned)) for at, burned in whole.course], 1.0, moment)
    assert abs(by_course - float(until_then.burned)) < 1e-3


def test_a_service_without_an_incident_keeps_its_whole_budget() -> None:
    plot = drawn([], timedelta(days=30), ZoneInfo("UTC"))
    assert {ratio for _, ratio in plot.rows} == {1.0}
    assert weighted([], Span(SINCE, SINCE)).seconds == Fraction(0)
