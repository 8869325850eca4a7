"""Dots: every incident of a period on one axis of durations, or their distribution if there are too many."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.pages.plots.axes import DurationAxis, Floats

DOTS_AT_MOST = 400
FEW = 10  # below, dots keep their exact place


@dataclass(frozen=True, slots=True)
class Value:
    """How long something took with one incident: at least `seconds`, if it was cut short (censored)."""

    seconds: float
    censored: bool
    number: str  # INC-7


@dataclass(frozen=True, slots=True)
class ManyValues:
    """The same for many incidents, which are not named. Seconds, in any order."""

    recorded: Floats
    cut_short: Floats

    @classmethod
    def of(cls, values: Sequence[Value]) -> "ManyValues":
        return cls(
            np.array([value.seconds for value in values if not value.censored], np.float64),
            np.array([value.seconds for value in values if value.censored], np.float64),
        )

    def __len__(self) -> int:
        return len(self.recorded) + len(self.cut_short)


@dataclass(frozen=True, slots=True)
class Dot:
    x: float  # percent of the width
    level: int  # from below, 0 on the axis
    hollow: bool  # cut short
    value: Value


def dots(values: Sequence[Value], axis: DurationAxis, *, spacing: float = 1.05) -> list[Dot]:
    """One per value, from left to right; stacked where they would cover each other.

    `spacing` is the diameter of a dot and its gap, in percent of the width. From FEW values on, dots stand in columns
    that are so wide, which moves them by half of that at most.
    """
    levels: Counter[int] = Counter()
    placed = []
    ordered = sorted(values, key=lambda value: (value.seconds, value.censored, value.number))
    for value, x in zip(ordered, axis.places([value.seconds for value in ordered]).tolist(), strict=True):
        column = round(x / spacing)
        placed.append(Dot(x if len(values) < FEW else _place(column, spacing), levels[column], value.censored, value))
        levels[column] += 1
    return placed


def _place(column: int, spacing: float) -> float:
    return round(min(column * spacing, 100), 3)


def levels_of(placed: Sequence[Dot]) -> int:
    """How many dots stand on each other where the most do; 0 without dots."""
    return max((dot.level + 1 for dot in placed), default=0)


@dataclass(frozen=True, slots=True)
class Column:
    """Values between two durations. Heights are parts (0 to 1) of the highest column, one above the other."""

    x: float  # percent of the width
    width: float
    count: int
    censored: int
    filled: float
    hollow: float  # cut short


def columns(values: ManyValues, axis: DurationAxis, *, width: float = 2.1) -> list[Column]:
    """The distribution of values, from left to right without empty columns. `width` is in percent of the plot's."""
    size = int(100 // width) + 1
    recorded, cut_short = (
        np.bincount((axis.places(seconds) // width).astype(np.int64), minlength=size)
        for seconds in (values.recorded, values.cut_short)
    )
    most = int((recorded + cut_short).max())
    return [
        Column(
            x=round(place * width, 3),
            width=width,
            count=filled + hollow,
            censored=hollow,
            filled=filled / most,
            hollow=hollow / most,
        )
        for place, (filled, hollow) in enumerate(zip(recorded.tolist(), cut_short.tolist(), strict=True))
        if filled or hollow
    ]
