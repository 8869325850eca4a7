"""Survival analysis: time until an event over many incidents, with recorded and censored durations.

Pure: no clock, no I/O, no settings. All durations are in seconds. The estimates are equal to scipy's. Ignoring censored
durations would bias the result towards fast incidents: after a week, most incidents still open are slow ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from app.incidents.definitions.model import P95_FROM, SUMMARY_FROM
from app.incidents.measures.measures import CONFIDENCE
from app.metrics import clusters
from app.metrics.clusters import Clusters
from app.metrics.summary import kaplan_meier

Floats = NDArray[np.float64]

# — known values only —


@dataclass(frozen=True, slots=True)
class Typical:
    """Statistics of recorded values. P95 needs `P95_FROM` values; no geometric mean if any value is 0."""

    median: float
    p90: float
    p95: float | None
    geometric_mean: float | None
    mean: float


def typical(recorded: ArrayLike) -> Typical | None:
    """None with fewer than `SUMMARY_FROM` values."""
    seconds = np.sort(np.asarray(recorded, np.float64))
    [found] = typicals(seconds, np.array([0, seconds.size]))
    return found


def typicals(recorded: Floats, borders: NDArray[np.int64]) -> list[Typical | None]:
    """`typical` for many cells at once: each holds the ascending values between two borders."""
    size = np.diff(borders)
    found: list[Typical | None] = [None] * len(size)
    places = np.flatnonzero(size >= SUMMARY_FROM)
    if not places.size:
        return found
    first, size = borders[places], size[places]
    within, which = _between(first, size)
    seconds = recorded[within]
    sums = np.bincount(which, seconds)
    logs = np.bincount(which, np.log(np.where(seconds > 0, seconds, 1.0)))  # the log of 0 is undefined, and unused
    columns = (
        places,
        *(_quantile(recorded, first, size, share) for share in (0.5, 0.9, 0.95)),
        size,
        recorded[first],
        np.exp(logs / size),
        sums / size,
    )
    for place, median, p90, p95, n, shortest, geometric, mean in zip(*(each.tolist() for each in columns), strict=True):
        found[place] = Typical(median, p90, p95 if n >= P95_FROM else None, geometric if shortest > 0 else None, mean)
    return found


def _between(first: NDArray[np.int64], size: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    which = np.repeat(np.arange(len(size)), size)
    return np.arange(len(which)) - np.repeat(np.cumsum(size) - size, size) + first[which], which


def _quantile(rising: Floats, first: NDArray[np.int64], size: NDArray[np.int64], share: float) -> Floats:
    """Like numpy's percentile with linear interpolation, which needs a call of 0.1 ms for each array."""
    place = (size - 1) * share
    below = np.floor(place).astype(np.int64)
    part = place - below
    low, high = rising[first + below], rising[first + np.minimum(below + 1, size - 1)]
    between: Floats = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))
    return between


class Bin(NamedTuple):
    """The number of values in `[start, end)`."""

    start: float
    end: float
    incidents: int


def histogram(recorded: ArrayLike) -> list[Bin]:
    """Bins that double in width, the same for all data: 0 to 1.875 s, to 3.75 s, …, 30 s to 1 min, to 2 min, …

    From the first to the last nonempty bin, including empty ones between them.
    """
    seconds = np.asarray(recorded, np.float64)
    if not seconds.size:
        return []
    _, exponents = np.frexp(seconds / 60)  # 60 x 2^(exponent - 1) <= seconds < 60 x 2^exponent
    places = np.maximum(exponents, _FIRST_BIN)
    places[seconds < 60 * 2.0**_FIRST_BIN] = _FIRST_BIN
    counts = np.bincount(places - places.min())
    return [
        Bin(0.0 if place == _FIRST_BIN else 60 * 2.0 ** (place - 1), 60 * 2.0**place, int(count))
        for place, count in enumerate(counts, start=int(places.min()))
    ]


_FIRST_BIN = -5


# — known values and waits —


@dataclass(frozen=True, slots=True)
class Curve:
    """Kaplan-Meier curve: `waiting` is the share that takes longer than `seconds`, with its 95 % band.

    One entry per distinct duration (recorded or censored), ascending; `at_risk` lasted at least that long, and for
    `happened` of them the event occurred then.
    """

    seconds: Floats
    waiting: Floats
    low: Floats
    high: Floats
    at_risk: Floats
    happened: Floats


def curve(recorded: ArrayLike, censored: ArrayLike = ()) -> Curve:
    """The Kaplan-Meier estimate, with a band from the exponential Greenwood formula, which stays within 0 and 1.

    `censored` durations ended without the event or are still running. Needs at least one duration.
    """
    found = kaplan_meier.survival(np.asarray(recorded, np.float64), np.asarray(censored, np.float64))
    low, high = _filled(found.waiting, *kaplan_meier.band(found, CONFIDENCE))
    return Curve(
        found.seconds,
        found.waiting,
        low,
        high,
        at_risk=found.at_risk.astype(np.float64),
        happened=found.happened.astype(np.float64),
    )


def _filled(share: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Fills in the band where its formula divides by 0: before the first event and after the last."""
    low, high = low.copy(), high.copy()
    low[share >= 1] = high[share >= 1] = 1.0
    none_left = share <= _ROUNDING
    low[none_left] = 0.0
    high[none_left] = high[~none_left][-1] if not none_left.all() else 1.0
    return low, high


_ROUNDING = 1e-9  # a product of many shares may miss 0.5 or 0 slightly


class Estimate(NamedTuple):
    """None: the curve, or this side of its band, never falls to one half."""

    seconds: float | None
    low: float | None
    high: float | None


def median(curve: Curve) -> Estimate:
    """The shortest time within which at least half have happened; its interval is where the band crosses one half."""
    return Estimate(
        _first_below_half(curve, curve.waiting),
        _first_below_half(curve, curve.low),
        _first_below_half(curve, curve.high),
    )


def _first_below_half(curve: Curve, share: Floats) -> float | None:
    places = np.flatnonzero(share <= 0.5 + _ROUNDING)
    return float(curve.seconds[places[0]]) if places.size else None


class RestrictedMean(NamedTuple):
    """`horizon` is the effective one: as requested, or the longest duration if that is shorter and censored."""

    seconds: float
    low: float
    high: float
    horizon: float


def restricted_mean(curve: Curve, horizon: float, *, widening: float = 1.0) -> RestrictedMean:
    """The area under the curve from 0 to the horizon: the mean, with longer durations counted as the horizon.

    Its variance is Greenwood's: the sum, over the durations t at which d of n at risk happened, of
    (area from t to the horizon)^2 x d / (n x (n - d)), times m / (m - 1) for m events. Without censoring this is the
    sample variance of the mean. The interval is Student's, with m - 1 degrees of freedom, on the log scale, because
    durations are skewed. A bootstrap gets no closer to 95 % and is a thousand times slower. The standard error is
    multiplied by `widening`, which allows for clusters.
    """
    horizon = effective_horizon(curve, horizon)
    within = curve.seconds < horizon
    times = np.concatenate(([0.0], curve.seconds[within], [horizon]))
    areas = np.concatenate(([1.0], curve.waiting[within])) * np.diff(times)
    mean = float(areas.sum())
    ahead = mean - np.cumsum(areas)[:-1]  # from each duration to the horizon
    happened, at_risk = curve.happened[within], curve.at_risk[within]
    counts = (happened > 0) & (happened < at_risk)  # no area is left after the last one
    spread = np.square(ahead[counts]) * happened[counts] / (at_risk[counts] * (at_risk[counts] - happened[counts]))
    several = float(curve.happened.sum())
    variance = float(spread.sum()) * (several / (several - 1) if several > 1 else 1.0)
    if mean <= 0:
        return RestrictedMean(0.0, 0.0, 0.0, horizon)
    quantile = special.stdtrit(max(several - 1, 1), 0.5 + CONFIDENCE / 2)
    exponent = widening * float(quantile) * math.sqrt(variance) / mean
    factor = math.exp(exponent) if exponent < _LARGEST_LOG else math.inf
    return RestrictedMean(mean, mean / factor, min(mean * factor, horizon), horizon)


def effective_horizon(curve: Curve, horizon: float) -> float:
    return min(horizon, float(curve.seconds[-1])) if curve.waiting[-1] > _ROUNDING else horizon


class Step(NamedTuple):
    """The event happened within `seconds` for `share` of the incidents."""

    seconds: float
    share: float
    low: float
    high: float


def steps(curve: Curve, at_most: int) -> list[Step]:
    """The cumulative distribution, ascending. If there are many steps, those nearest to evenly spaced shares."""
    places, share = _evenly(curve, at_most), 1 - curve.waiting
    return [
        Step(*each)
        for each in zip(
            curve.seconds[places].tolist(),
            share[places].tolist(),
            (1 - curve.high[places]).tolist(),
            (1 - curve.low[places]).tolist(),
            strict=True,
        )
    ]


def _evenly(curve: Curve, at_most: int) -> NDArray[np.intp]:
    places = np.flatnonzero(curve.happened)
    if places.size <= at_most:
        return places
    share = 1 - curve.waiting[places]
    marks = np.linspace(share[0], share[-1], at_most)
    return places[np.unique(np.searchsorted(share, marks - _ROUNDING))]


# — all of it —

STEPS_AT_MOST = 50


@dataclass(frozen=True, slots=True)
class Estimates:
    median: Estimate
    restricted_mean: RestrictedMean
    ecdf: Sequence[Step]
    histogram: Sequence[Bin]  # of recorded values


def estimates(
    recorded: ArrayLike, censored: ArrayLike, horizon: float, *, began: ArrayLike, observed: timedelta
) -> Estimates | None:
    """None with fewer than `SUMMARY_FROM` recorded values.

    `began` is when incidents began, in seconds since 1970: first of the recorded, then of the censored durations. The
    intervals allow for their clusters; `observed` is how long the period was.
    """
    known, cut_short = np.asarray(recorded, np.float64), np.asarray(censored, np.float64)
    if known.size < SUMMARY_FROM:
        return None
    lasted = np.concatenate((known, cut_short))
    happened = np.arange(lasted.size) < known.size
    labels = list(clusters.clusterings(np.asarray(began, np.float64), observed).values())
    estimated = curve(known, cut_short)
    mean = clusters.restricted_mean(lasted, happened, effective_horizon(estimated, horizon))
    widening = clusters.widening(mean.influence, happened, labels)
    if math.isinf(widening.factor):  # all events are in one cluster, so nothing is known about chance
        nothing = np.zeros_like(estimated.low)
        estimated = replace(estimated, low=nothing, high=nothing + 1)
        middle = Estimate(median(estimated).seconds, None, None)
    else:
        estimated = _widened(estimated, lasted, happened, widening.clusterings)
        middle = median(estimated)
    return Estimates(
        middle,
        restricted_mean(estimated, horizon, widening=widening.factor),
        steps(estimated, STEPS_AT_MOST),
        histogram(known),
    )


def _widened(
    estimated: Curve,
    lasted: Floats,
    happened: NDArray[np.bool_],
    clusterings: Sequence[Clusters],
) -> Curve:
    """With the band that allows for clusters, at the steps that are shown; between them interpolated."""
    shown = _evenly(estimated, STEPS_AT_MOST)
    shown = shown[estimated.waiting[shown] > _ROUNDING]
    if not shown.size:
        return estimated
    at = estimated.seconds[shown]
    wide = np.interp(estimated.seconds, at, clusters.curve_widening(lasted, happened, at, clusterings))
    inside = (estimated.waiting > _ROUNDING) & (estimated.waiting < 1)
    low, high = estimated.low.copy(), estimated.high.copy()
    middle = np.log(-np.log(estimated.waiting[inside]))
    for bound in (low, high):
        # Within these limits neither 0 nor 1 is reached, and exp does not overflow.
        distance = np.log(-np.log(np.clip(bound[inside], 1e-300, 1 - 1e-16))) - middle
        bound[inside] = np.exp(-np.exp(np.clip(middle + distance * wide[inside], -_LARGEST_LOG, _LARGEST_LOG)))
    low, high = _filled(estimated.waiting, low, high)
    return replace(estimated, low=low, high=high)


_LARGEST_LOG = 700.0
