"""Durations of two periods above each other on one axis: every incident is a dot, many are columns.

Dots that are not links are drawn as two paths, filled and hollow, which takes a tenth of the bytes: each dot is an
empty segment with round ends. Paths are for a nested SVG with a `viewBox` of WIDTH units by as many units as it is
pixels high, stretched to the width of the plot.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from app.pages.plots import dots as stacked
from app.pages.plots.axes import INSET, DurationAxis, Floats, Tick
from app.pages.plots.dots import DOTS_AT_MOST, Column, Dot, ManyValues, Value, levels_of
from app.pages.plots.durations import with_zero

WIDTH = 1000
LINKED_AT_MOST = 40  # dots of both periods together that are links

LABEL_HEIGHT = 20  # pixels for the name of a period
MEDIAN_HEIGHT = 18  # for the label of the median above dots and columns
STACK_HEIGHT = 120  # of the highest stack or column
STEP, LEAST_STEP = 8.0, 2.0  # from dot to dot of a stack; columns instead of even less


class Median(NamedTuple):
    """In seconds; None is unknown, because too little has happened."""

    seconds: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Side:
    """The values of a period, named if there are at most DOTS_AT_MOST; with few of them there is no median."""

    values: Sequence[Value] | ManyValues
    median: Median | None

    @property
    def many(self) -> ManyValues:
        return self.values if isinstance(self.values, ManyValues) else ManyValues.of(self.values)

    @property
    def seconds(self) -> Floats:
        return np.concatenate((self.many.recorded, self.many.cut_short))


class Mark(NamedTuple):
    """The median, and from where to where its interval reaches, in percent of the width."""

    x: float | None
    low: float
    high: float


class Rectangle(NamedTuple):
    """x and width in percent; y and height in pixels."""

    x: float
    width: float
    y: float
    height: float


class Bin(NamedTuple):
    """The values behind a column: durations from `low` to `high`, in seconds. The last one includes all beyond."""

    low: float
    high: float
    incidents: int
    censored: int  # of these


@dataclass(frozen=True, slots=True)
class Row:
    """A period. Its dots or columns stand on `base`, in pixels from above; the stack reaches up to `top`."""

    start: float
    top: float
    base: float
    median: Mark | None
    dots: Sequence[tuple[Dot, float]]  # with its y; empty if drawn as paths
    filled: str
    hollow: str
    bars: Sequence[Rectangle]
    hollow_bars: Sequence[Rectangle]
    bins: Sequence[Bin]  # of the columns; none for dots

    @property
    def columns(self) -> str:
        """The bars as one path."""
        return _outlines(self.bars)

    @property
    def hollow_columns(self) -> str:
        return _outlines(self.hollow_bars)


def _outlines(bars: Sequence[Rectangle]) -> str:
    parts = []
    for bar in bars:
        x, width = round(bar.x * WIDTH / 100), round(bar.width * WIDTH / 100)
        parts.append(f"M{x} {bar.y:g}h{width}v{bar.height:g}h-{width}z")
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class TwoPeriods:
    axis: DurationAxis
    ticks: Sequence[Tick]
    height: float
    radius: float
    rows: Sequence[Row]


def two_periods(sides: Sequence[Side]) -> TwoPeriods:
    """Both rows have one scale, in width and in height.

    Columns if a period has more than DOTS_AT_MOST values, or so many equal ones that their dots would cover each other.
    """
    axis, ticks = with_zero(np.concatenate([side.seconds for side in sides]))
    named = [side.values for side in sides if not isinstance(side.values, ManyValues)]
    if len(named) < len(sides) or any(len(values) > DOTS_AT_MOST for values in named):
        return _in_columns(sides, axis, ticks)
    placed = [_exact(stacked.dots(values, axis), axis) for values in named]
    step = min(STEP, STACK_HEIGHT / max(1, *(levels_of(each) for each in placed)))
    if step < LEAST_STEP:
        return _in_columns(sides, axis, ticks)
    radius = round(min(3.5, max(2, step * 0.45)), 2)
    linked = sum(map(len, placed)) <= LINKED_AT_MOST
    rows, start = [], 0.0
    for side, each in zip(sides, placed, strict=True):
        top, base = _place(start, levels_of(each) * step if each else 0)
        there = [(dot, round(base - radius - 1 - dot.level * step, 1)) for dot in each]
        rows.append(
            Row(
                start=start,
                top=top,
                base=base,
                median=_median(side.median, axis),
                dots=there if linked else (),
                filled="" if linked else _path(pair for pair in there if not pair[0].hollow),
                hollow="" if linked else _path(pair for pair in there if pair[0].hollow),
                bars=(),
                hollow_bars=(),
                bins=(),
            )
        )
        start = base
    return TwoPeriods(axis, ticks, start, radius, rows)


def _exact(dots: Sequence[Dot], axis: DurationAxis) -> Sequence[Dot]:
    """A stack of equal values, such as round minutes, stands at its exact place, where the median is drawn too."""
    seconds: dict[float, set[float]] = {}
    for dot in dots:
        seconds.setdefault(dot.x, set()).add(dot.value.seconds)
    return [replace(dot, x=axis.x(dot.value.seconds)) if len(seconds[dot.x]) == 1 else dot for dot in dots]


def _place(start: float, stack: float) -> tuple[float, float]:
    top = start + LABEL_HEIGHT + (MEDIAN_HEIGHT if stack else 0)
    return top, round(top + max(stack, 6) + 4, 1)


def _path(dots: Iterable[tuple[Dot, float]]) -> str:
    return "".join(f"M{round(dot.x * WIDTH / 100, 1):g} {y:g}h0" for dot, y in dots)


def _median(median: Median | None, axis: DurationAxis) -> Mark | None:
    if median is None or (median.seconds is None and median.low is None):
        return None
    x = None if median.seconds is None else axis.x(median.seconds)
    return Mark(x, 0 if median.low is None else axis.x(median.low), 100 if median.high is None else axis.x(median.high))


def _in_columns(sides: Sequence[Side], axis: DurationAxis, ticks: Sequence[Tick]) -> TwoPeriods:
    columns = [stacked.columns(side.many, axis) for side in sides]
    most = max((column.count for column in chain(*columns)), default=1)
    rows, start = [], 0.0
    for side, each in zip(sides, columns, strict=True):
        highest = max((column.count for column in each), default=0)
        top, base = _place(start, STACK_HEIGHT * highest / most)
        drawn = [_bars(column, base, STACK_HEIGHT / most) for column in each]
        rows.append(
            Row(
                start=start,
                top=top,
                base=base,
                median=_median(side.median, axis),
                dots=(),
                filled="",
                hollow="",
                bars=[filled for filled, _ in drawn if filled.height],
                hollow_bars=[hollow for _, hollow in drawn if hollow.height],
                bins=[_bin(column, axis) for column in each],
            )
        )
        start = base
    return TwoPeriods(axis, ticks, start, 0, rows)


def _bin(column: Column, axis: DurationAxis) -> Bin:
    low, high = (_at(x, axis) for x in (column.x, column.x + column.width))
    return Bin(0 if column.x < INSET else low, high, column.count, column.censored)


def _at(x: float, axis: DurationAxis) -> float:
    """The duration at `x` percent of the width."""
    part = min(max((x - INSET) / (100 - 2 * INSET), 0), 1)
    return float(axis.low * (axis.high / axis.low) ** part)


def _bars(column: Column, base: float, unit: float) -> tuple[Rectangle, Rectangle]:
    """The hollow part, of those that were cut short, stands on the filled one."""
    x = column.x + column.width * 0.06
    width = min(column.width * 0.88, 100 - x)
    filled, hollow = (column.count - column.censored) * unit, column.censored * unit
    return (
        Rectangle(round(x, 2), round(width, 2), round(base - filled, 1), round(filled, 1)),
        Rectangle(round(x, 2), round(width, 2), round(base - filled - hollow, 1), round(hollow, 1)),
    )
