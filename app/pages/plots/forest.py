"""The forest plot: how many times as long something takes as before, with an interval, one row per comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.pages.plots.axes import RatioAxis, Tick, ratio_axis

APART = 8.0  # percent of the width that two labels need


class Ratio(Protocol):
    """A ratio with its interval; 1 means no change."""

    @property
    def ratio(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Interval:
    """In percent of the width. An end beyond the axis is at 0 or 100, which no other mark reaches."""

    low: float
    ratio: float
    high: float


@dataclass(frozen=True, slots=True)
class Forest:
    axis: RatioAxis
    rows: Sequence[Interval | None]  # None: too few values

    @property
    def ticks(self) -> list[Tick]:
        """Without the wide ones where they would touch their neighbors."""
        ticks = self.axis.ticks()
        always = [tick.x for tick in ticks if not tick.wide]
        return [tick for tick in ticks if not tick.wide or min(abs(tick.x - x) for x in always) >= APART]


def forest(ratios: Sequence[Ratio | None]) -> Forest:
    """One row per ratio, all on one axis around 1."""
    known = [each for each in ratios if each is not None]
    axis = ratio_axis([at for each in known for at in (each.low, each.ratio, each.high)])
    return Forest(axis, [None if each is None else _interval(each, axis) for each in ratios])


def _interval(each: Ratio, axis: RatioAxis) -> Interval:
    low = axis.x(each.low) if each.low >= 1 / axis.reach else 0
    high = axis.x(each.high) if each.high <= axis.reach else 100
    return Interval(low, axis.x(each.ratio), high)
