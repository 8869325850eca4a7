"""Rates of incidents and shares of deployments, with intervals that allow for clusters, and a comparison of two counts.

Pure: no clock, no I/O, no settings, no randomness. Incidents that come in storms vary from period to period far more
than independent ones would (Poisson), so their number says less about how often they will come.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy import special

from app.incidents.measures.measures import CONFIDENCE
from app.incidents.measures.vectorized import Floats, Ints, microseconds
from app.metrics import clusters

BLOCKS_FROM = 6  # on both sides; the variance of fewer is known too badly
_BLOCKS = (1.0, 7.0)  # days: storms, and good and bad weeks
_DAY = timedelta(days=1)
_TAIL = (1 - CONFIDENCE) / 2


@dataclass(frozen=True, slots=True)
class Events:
    """When something happened, in days since the period began, and the `days` that were observed."""

    at: Floats
    days: float

    @property
    def n(self) -> int:
        return len(self.at)


def events(at: Ints, start: datetime, observed: timedelta) -> Events:
    """`at` in microseconds since 1970."""
    return Events((at - microseconds(start)) / (_DAY / timedelta(microseconds=1)), observed / _DAY)


@dataclass(frozen=True, slots=True)
class PerDay:
    """Events per day with their interval; None without a day. They came as if in groups of `dispersion`."""

    per_day: float | None
    low: float | None
    high: float | None
    dispersion: float


NOTHING_OBSERVED = PerDay(None, None, None, 1.0)


def per_day(of: Events) -> PerDay:
    """The exact Poisson interval of n / dispersion events, scaled; and the wider one by Student's t if that is wider.

    Without dispersion it is the exact Poisson interval.
    """
    if of.days <= 0:
        return NOTHING_OBSERVED
    spread = dispersion(of)
    effective = of.n / spread
    low = float(special.gammaincinv(effective, _TAIL)) if of.n else 0.0
    high = float(special.gammaincinv(effective + 1, 1 - _TAIL))
    if of.n and spread > 1:
        freedom = max(1.0, min(effective, of.days) - 1)
        factor = math.exp(min(700.0, clusters.student(freedom, 1 - _TAIL) / math.sqrt(effective)))
        low, high = min(low, effective / factor), max(high, effective * factor)
    return PerDay(of.n / of.days, low * spread / of.days, high * spread / of.days, spread)


def dispersion(of: Events) -> float:
    """Variance over mean of the counts of days or of weeks, the greater one; at least 1, as of independent events."""
    own, _ = _dispersions([of])
    return own[0]


def _dispersions(sides: list[Events]) -> tuple[list[float], float]:
    """The dispersion of each side, and pooled: counts vary around their side's mean (McCullagh and Nelder, 1989)."""
    own, pooled = [1.0 for _ in sides], 1.0
    total = sum(side.n for side in sides)
    if not total:
        return own, pooled
    if any(side.days < BLOCKS_FROM for side in sides):
        # Too short for blocks: as if nothing but storms were independent, which is careful.
        squares = [
            float(np.square(np.bincount(clusters.storms(side.at * _DAY.total_seconds()))).sum()) for side in sides
        ]
        own = [square / side.n if side.n else 1.0 for square, side in zip(squares, sides, strict=True)]
        return own, max(1.0, sum(squares) / total)
    for block in _BLOCKS:
        sizes = [int(side.days // block) for side in sides]
        if min(sizes) < BLOCKS_FROM:
            continue
        squares = [_square(side, size) for side, size in zip(sides, sizes, strict=True)]
        own = [
            max(before, square / (size - 1) / (side.n / size)) if side.n else before
            for before, square, side, size in zip(own, squares, sides, sizes, strict=True)
        ]
        per_day = sum(square / (side.days / size) for square, side, size in zip(squares, sides, sizes, strict=True))
        of_all = total / sum(side.days for side in sides)
        pooled = max(pooled, per_day / (sum(sizes) - len(sides)) / of_all)
    return [each if side.n else pooled for each, side in zip(own, sides, strict=True)], pooled


def _square(side: Events, blocks: int) -> float:
    """The sum of squares around the mean of the counts of so many equally long blocks."""
    place = np.clip(side.at * blocks / side.days, 0, blocks - 1).astype(np.int64)
    count = np.bincount(place, minlength=blocks)
    return float(np.square(count - count.mean()).sum())


# — are there more? —


class CountVerdict(StrEnum):
    FEWER = "fewer"
    MORE = "more"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True)
class CountComparison:
    """`ratio` is the rate of B over that of A. None: unknown, or without an upper bound."""

    verdict: CountVerdict
    reason: str
    ratio: float | None
    low: float | None
    high: float | None


def compare_counts(a: Events, b: Events) -> CountComparison:
    """Whether B has more events per day than A, by the wider of two intervals of the ratio.

    One is exact (Clopper and Pearson) for the share of B in n / pooled dispersion events; the other is Welch's, of the
    logarithm of the ratio, with each side's own dispersion.
    """
    if min(a.days, b.days) <= 0:
        return CountComparison(CountVerdict.CANNOT_TELL, "a period has not begun", None, None, None)
    if not a.n or not b.n:
        nothing = " and ".join(name for name, side in (("A", a), ("B", b)) if not side.n)
        ratio = 0.0 if a.n else None
        return CountComparison(CountVerdict.CANNOT_TELL, f"no incidents in {nothing}", ratio, None, None)
    own, pooled = _dispersions([a, b])
    of_a, of_b = a.n / pooled, b.n / pooled
    shares = special.betaincinv(of_b, of_a + 1, _TAIL), special.betaincinv(of_b + 1, of_a, 1 - _TAIL)
    low, high = (float(share) / (1 - float(share)) * a.days / b.days for share in shares)
    ratio = b.n / b.days / (a.n / a.days)
    variances = [spread / side.n for spread, side in zip(own, (a, b), strict=True)]
    freedom = sum(variances) ** 2 / sum(each**2 / max(1.0, 1 / each - 1) for each in variances)
    factor = math.exp(min(700.0, clusters.student(freedom, 1 - _TAIL) * math.sqrt(sum(variances))))
    low, high = min(low, ratio / factor), max(high, ratio * factor)
    verdict = CountVerdict.FEWER if high < 1 else CountVerdict.MORE if low > 1 else CountVerdict.CANNOT_TELL
    shown = f"B has {ratio:.2f} times as many incidents per day as A, 95 % interval {low:.2f} to {high:.2f}"
    same = ", which includes no change" if verdict is CountVerdict.CANNOT_TELL else ""
    return CountComparison(verdict, f"{shown}{same}", ratio, low, high)


class Counted(NamedTuple):
    """How many there were, in how many storms, and how many a day."""

    n: int
    storms: int
    per_day: PerDay


class CountsCompared(NamedTuple):
    found: CountComparison
    a: Counted
    b: Counted


def counted(of: Events) -> Counted:
    storms = clusters.storms(of.at * _DAY.total_seconds())
    return Counted(of.n, int(storms.max(initial=-1)) + 1, per_day(of))


def both_counted(a: Events, b: Events) -> CountsCompared:
    return CountsCompared(compare_counts(a, b), counted(a), counted(b))


# — shares —


def share(k: int, n: int, design_effect: float = 1.0) -> tuple[float, float]:
    """Wilson's interval of k of n, of which n / design_effect are independent. `n` must not be 0."""
    if math.isinf(design_effect):
        return 0.0, 1.0
    normal = float(special.ndtri(1 - _TAIL))
    value, square = k / n, normal**2 * design_effect / n
    center = (value + square / 2) / (1 + square)
    half = math.sqrt(square * value * (1 - value) + square**2 / 4) / (1 + square)
    return max(0.0, center - half), min(1.0, center + half)


def design_effect(values: Floats, began: Floats, observed: timedelta) -> float:
    """How many times as many observations the same knowledge takes as if they were independent; at least 1.

    `values` of 0 or 1, and `began` in seconds since 1970. Infinite if everything is in one cluster.
    """
    if not len(values):
        return 1.0
    influence = (values - values.mean()) / len(values)
    labels = list(clusters.clusterings(began, observed).values())
    return clusters.widening(influence, np.ones(len(values), np.bool_), labels).factor ** 2
