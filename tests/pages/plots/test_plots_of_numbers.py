"""Geometry of the plots of the page of numbers: forest, periods, recovery curve, amounts."""

import re
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.incidents.impact.intervals import Shown
from app.metrics.comparison.compare import Effect
from app.metrics.summary import survival
from app.pages import words
from app.pages.plots.amounts import ranges
from app.pages.plots.curve import WIDTH, curve
from app.pages.plots.dots import Value
from app.pages.plots.durations import with_zero
from app.pages.plots.forest import forest
from app.pages.plots.periods import LINKED_AT_MOST, Median, Side, two_periods

SECONDS = st.floats(0, 10**8)
VALUES = st.lists(
    st.builds(Value, SECONDS | st.sampled_from((60.0, 120.0)), st.booleans(), st.just("INC-1")), max_size=80
)
MANY = [Value(60.0 * place, place % 7 == 0, "") for place in range(401)]


# — forest —

RATIO = st.floats(1e-4, 1e4)


@given(
    st.lists(st.none() | st.builds(lambda at: Effect(sorted(at)[1], min(at), max(at)), st.tuples(RATIO, RATIO, RATIO)))
)
def test_intervals_hold_their_ratio_and_stay_in_the_plot(effects: list[Effect | None]) -> None:
    plot = forest(effects)
    assert [row is None for row in plot.rows] == [effect is None for effect in effects]
    for row, effect in zip(plot.rows, effects, strict=True):
        if row is not None and effect is not None:
            assert 0 <= row.low <= row.ratio <= row.high <= 100
            assert (row.low == 0) == (effect.low < 1 / plot.axis.reach)
            assert (row.high == 100) == (effect.high > plot.axis.reach)
            assert (row.low <= 50 <= row.high) or not (effect.low <= 1 <= effect.high)


def test_half_and_double_are_equally_far_from_same() -> None:
    [row] = forest([Effect(1.0, 0.5, 2.0)]).rows
    assert row is not None
    assert row.ratio == 50
    assert round(50 - row.low, 6) == round(row.high - 50, 6) > 0


@pytest.mark.parametrize("low", [0.6, 0.3, 0.15])
def test_labels_of_ratios_do_not_touch(low: float) -> None:
    ticks = forest([Effect(1.0, low, 1.2)]).ticks
    assert all(after.x - tick.x >= 8 for tick, after in pairwise(ticks))
    assert {"half", "same", "double"} <= {tick.label for tick in ticks}


# — two periods —


def test_equal_values_stand_where_their_median_is() -> None:
    values = [Value(120.0, False, "INC-1") for _ in range(12)] + [Value(1000.0, False, "INC-2")]
    plot = two_periods([Side(values, Median(120.0, 120.0, 120.0)), Side([], None)])
    row = plot.rows[0]
    assert row.median is not None
    assert [dot.x for dot, _ in row.dots[:12]] == [row.median.x] * 12


@example([Value(7.0**place, place % 3 == 0, "INC-1") for place in range(9)] * 7, [])  # drawn as paths
@given(VALUES, VALUES)
def test_every_value_is_a_mark_in_the_plot(before: list[Value], now: list[Value]) -> None:
    sides = [Side(before, None), Side(now, Median(90.0, 30.0, None))]
    plot = two_periods(sides)
    assume(not plot.rows[0].bins)
    linked = len(before) + len(now) <= LINKED_AT_MOST
    for side, row in zip(sides, plot.rows, strict=True):
        if linked:
            marks = [(dot.x, y, dot.hollow) for dot, y in row.dots]
            assert all(dot.hollow == dot.value.censored for dot, _ in row.dots)
        else:
            assert not row.dots
            marks = [
                (x / WIDTH * 100, y, hollow)
                for path, hollow in ((row.filled, False), (row.hollow, True))
                for x, y in places(path)
            ]
        assert sum(hollow for *_, hollow in marks) == len(side.many.cut_short)
        assert len(marks) == len(side.values)
        assert all(0 <= x <= 100 and row.start <= y - plot.radius and y + plot.radius <= row.base for x, y, _ in marks)
        assert row.median is None or 0 <= row.median.low <= 100 >= row.median.high >= row.median.low
    assert plot.rows[0].base <= plot.rows[1].start
    assert plot.rows[1].base == plot.height


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"M([\d.e+-]+) ([\d.e+-]+)h0", path)]


def test_an_unknown_end_of_an_interval_reaches_the_edge() -> None:
    values = [Value(60.0 * place, False, "") for place in range(1, 20)]
    plot = two_periods([Side(values, Median(600.0, 300.0, None)), Side(values, Median(None, 300.0, None))])
    first, second = (row.median for row in plot.rows)
    assert first is not None and second is not None  # noqa: PT018
    assert (first.x == plot.axis.x(600), first.high, second.x, second.high) == (True, 100, None, 100)


# More values than Hypothesis likes to draw one by one.
HUNDREDS = st.lists(st.builds(Value, SECONDS, st.booleans(), st.just("")), min_size=20, max_size=60).map(
    lambda some: (some * 21)[: 400 + len(some)]
)


@given(HUNDREDS, VALUES)
def test_more_than_400_values_are_columns_of_one_scale(many: list[Value], few: list[Value]) -> None:
    sides = [Side(many, None), Side(few, None)]
    plot = two_periods(sides)
    for side, row in zip(sides, plot.rows, strict=True):
        assert not row.dots
        assert not row.filled
        assert sum(each.incidents for each in row.bins) == len(side.values)
        assert sum(each.censored for each in row.bins) == len(side.many.cut_short)
        assert all(each.low < each.high for each in row.bins)
        bars = [*row.bars, *row.hollow_bars]
        assert all(bar.x >= 0 and bar.x + bar.width <= 100.001 for bar in bars)
        assert all(bar.y >= row.top - 0.2 and bar.y + bar.height <= row.base + 0.2 for bar in bars)
    per_incident = {
        round(bar.height / (each.incidents - each.censored), 1)
        for row in plot.rows
        for bar, each in zip(row.bars, [each for each in row.bins if each.incidents > each.censored], strict=True)
        if each.incidents - each.censored > 20
    }
    assert not per_incident or max(per_incident) - min(per_incident) <= 0.2


def test_bins_hold_their_values() -> None:
    row = two_periods([Side(MANY, None)]).rows[0]
    for each in row.bins[1:-1]:
        inside = [value for value in MANY if each.low <= value.seconds < each.high]
        assert abs(len(inside) - each.incidents) <= 1, each  # a value at the border of two


@pytest.mark.parametrize(("count", "in_columns"), [(60, False), (61, True)])
def test_a_stack_of_which_the_dots_would_cover_each_other_is_a_column(count: int, in_columns: bool) -> None:
    plot = two_periods([Side([Value(60.0, False, "INC-1")] * count, None), Side([], None)])
    assert (bool(plot.rows[0].bins), bool(plot.rows[0].filled)) == (in_columns, not in_columns)
    assert plot.height < 200


@given(st.lists(st.floats(0, 0.99) | st.floats(1, 10**8), min_size=1))
def test_0_has_a_place_of_its_own(seconds: list[float]) -> None:
    axis, ticks = with_zero(seconds)
    zeros, others = {axis.x(each) for each in seconds if each < 1}, [axis.x(each) for each in seconds if each >= 1]
    assert (ticks[0].label == words.duration(0)) == bool(zeros)
    assert zeros <= {ticks[0].x}
    assert not zeros or all(x >= ticks[1].x - 0.001 > ticks[0].x + 4 for x in others)
    assert [tick.x for tick in ticks] == sorted(tick.x for tick in ticks)


# — recovery —


@given(
    st.lists(SECONDS, min_size=10, max_size=60),
    st.lists(st.floats(1, 10**8), max_size=30),
)
def test_the_curve_only_rises_and_stays_in_its_band(recorded: list[float], censored: list[float]) -> None:
    steps = survival.steps(survival.curve(recorded, censored), 50)
    plot = curve(steps, max([*recorded, *censored]), height=180)
    corners = corners_of(plot.line)
    assert all(0 <= x <= WIDTH and 0 <= y <= 180 for x, y in (*corners, *corners_of(plot.band)))
    assert all(x <= after and y >= below for (x, y), (after, below) in pairwise(corners))
    assert corners[0][1] == 180
    assert abs(corners[-1][1] - (180 - steps[-1].share * 180)) <= 0.051
    heights = [y for _, y in corners_of(plot.band)]
    assert min(heights) <= min(y for _, y in corners) + 0.1
    assert len(heights) == 4 * len(steps)


def corners_of(path: str) -> list[tuple[float, float]]:
    """The corners of a path that consists of M, L, H, V and Z with absolute places."""
    x = y = 0.0
    found = []
    for command, rest in re.findall(r"([MLHV])([^MLHVZ]*)", path):
        numbers = [float(number) for number in rest.split()]
        match command:
            case "M" | "L":
                x, y = numbers
            case "H":
                [x] = numbers
            case _:
                [y] = numbers
        found.append((x, y))
    return found


# — amounts —

MONEY = st.decimals(0, 10**9, places=2)
COST = st.dictionaries(
    st.sampled_from(("EUR", "USD")), st.tuples(MONEY, MONEY, MONEY).map(lambda at: Shown(*sorted(at))), max_size=2
)


@given(st.lists(COST, max_size=9))
def test_a_range_holds_its_dot_and_starts_at_0(costs: list[dict[str, Shown]]) -> None:
    drawn = ranges(costs)
    assert [each.keys() for each in drawn] == [cost.keys() for cost in costs]
    assert all(0 <= at.low <= at.expected <= at.high <= 100 for each in drawn for at in each.values())


def test_lengths_compare_within_a_currency() -> None:
    one, two = Shown(Decimal(0), Decimal(50), Decimal(100)), Shown(Decimal(0), Decimal(100), Decimal(200))
    euro, dollar = ranges([{"EUR": one}, {"EUR": two, "USD": one}])
    assert round(euro["EUR"].high - euro["EUR"].low, 3) * 2 == round(dollar["EUR"].high - dollar["EUR"].low, 3)
    assert dollar["USD"].high == dollar["EUR"].high
