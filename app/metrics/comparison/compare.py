"""Compares one measure between two periods and decides whether the difference is more than chance.

Pure: no clock, no I/O, no settings, no randomness: the same input gives the same answer. Incident durations are roughly
lognormal, so means and medians of two periods differ by chance far more than people expect (Davidovič, Incident Metrics
in SRE, 2021). Therefore logarithms are compared, pending durations count for as long as they were observed (censored),
and a verdict is given only if a rank test and the interval of the effect agree.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy import stats

from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.measures.measures import CONFIDENCE
from app.incidents.measures.vectorized import OUTCOMES, Booleans, MeasuredMany

POWER = 0.8
SHORTEST_SECONDS = 1.0

TEST = "log-rank test, two-sided"
OUT_OF_HOURS = "began outside business hours"
# Allows for the rank test, which must agree too. Found by simulation with lognormal durations, σ 1.5; the slow tests
# verify it.
_RANK_TEST_FACTOR = 1.12


@dataclass(frozen=True, slots=True)
class Sample:
    """One measure of a period's incidents, in seconds. All three fields together cover every incident."""

    recorded: Sequence[float]
    censored: Sequence[float] = ()  # how long each was observed without it happening
    left_out: Mapping[str, int] = field(default_factory=dict)  # by reason


class Trend(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "cannot_tell"


class Effect(NamedTuple):
    """Ratios of B to A: below 1 means shorter, hence better."""

    ratio: float
    low: float
    high: float


class DetectableChange(NamedTuple):
    """The smallest changes, as ratios of B to A, that would have been detected in most cases.

    `longer` is None if no increase would have been: too little happened in the range observed on both sides.
    """

    shorter: float
    longer: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Only verdict and reason are set if there are too few values. Typical durations are in seconds."""

    verdict: Trend
    reason: str
    effect: Effect | None = None
    p_value: float | None = None
    smallest_change: DetectableChange | None = None
    typical_a: float | None = None
    typical_b: float | None = None
    horizon: float | None = None  # seconds; None: the longest recorded value exceeds every censored one


class Side(NamedTuple):
    sample: Sample
    services: Sequence[str]  # of its incidents


class Compared(NamedTuple):
    """A comparison with the two sides it compared."""

    found: Comparison
    a: Side
    b: Side


def sample(measured: MeasuredMany, *, in_hours: Booleans | None = None) -> Sample:
    """The comparable values; pending ones are included if it is known how long they have lasted.

    In business hours, only durations that began within them (`in_hours`) are included. For a duration that began
    outside, the business clock measures only the rest: 0 if it was over before hours began, else what was left by then.
    On a log scale those zeros would make up nearly all of the difference, and their number depends on when incidents
    began, not on how long people at work took.
    """
    recorded, waited = np.isfinite(measured.seconds), np.isfinite(measured.waited)
    outside = np.zeros(len(recorded), np.bool_) if in_hours is None else (recorded | waited) & ~in_hours
    outcomes, counts = np.unique(measured.outcome[~recorded & ~waited], return_counts=True)
    left_out = {
        OUTCOMES[place].reason or "": count for place, count in zip(outcomes.tolist(), counts.tolist(), strict=True)
    }
    if outside.any():
        left_out[OUT_OF_HOURS] = int(outside.sum())
    return Sample(
        measured.seconds[recorded & ~outside].tolist(),
        measured.waited[waited & ~outside].tolist(),
        dict(sorted(left_out.items())),
    )


def compare(a: Sample, b: Sample) -> Comparison:
    """Whether B is better than A. O(n log n)."""
    few = [
        f"{name} has {len(side.recorded)} recorded values"
        for name, side in (("A", a), ("B", b))
        if len(side.recorded) < SUMMARY_FROM
    ]
    if few:
        return Comparison(Trend.CANNOT_TELL, f"{' and '.join(few)}; below {SUMMARY_FROM} no verdict is given")
    watched = min(_watched(a), _watched(b))
    of_a, of_b = _mean_log(a, watched), _mean_log(b, watched)
    effect, seen = _effect(of_a, of_b)
    p_value = _p_value(a, b)
    verdict, reason = _verdict(effect, p_value)
    return Comparison(
        verdict=verdict,
        reason=reason,
        effect=effect,
        p_value=p_value,
        smallest_change=_detectable_change(a, b, watched, seen),
        typical_a=math.exp(of_a.mean),
        typical_b=math.exp(of_b.mean),
        horizon=math.exp(watched) if math.isfinite(watched) else None,
    )


class _MeanLog(NamedTuple):
    mean: float
    variance: float  # of the mean
    events: int


def _logs(seconds: Sequence[float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.log(np.maximum(np.asarray(seconds, dtype=np.float64), SHORTEST_SECONDS))


def _watched(side: Sample) -> float:
    """The log duration up to which the survival curve is known; infinite if the curve reaches zero.

    A censored value at least as long as the longest recorded one will end later, so the curve stops above zero.
    """
    longest = max(side.censored, default=-math.inf)
    return math.inf if longest < max(side.recorded) else math.log(max(longest, SHORTEST_SECONDS))


def _mean_log(side: Sample, watched: float) -> _MeanLog:
    """The mean of min(log duration, watched) from the Kaplan-Meier curve, with Greenwood's variance.

    The factor m / (m - 1) gives the variance that Student's t requires; it is exact without censoring.
    """
    happened, unseen = np.sort(_logs(side.recorded)), _logs(side.censored)
    curve = stats.ecdf(stats.CensoredData(uncensored=happened, right=unseen)).sf
    everything = np.sort(np.concatenate((happened, unseen)))
    events = np.searchsorted(happened, curve.quantiles, "right") - np.searchsorted(happened, curve.quantiles, "left")
    at_risk = len(everything) - np.searchsorted(everything, curve.quantiles, "left")

    before = curve.quantiles < watched
    last = min(watched, float(everything[-1]))
    borders = np.append(curve.quantiles[before], last)
    areas = curve.probabilities[before] * np.diff(borders)
    beyond = np.cumsum(areas[::-1])[::-1]  # area under the curve after each border
    died, lived = events[before], (at_risk - events)[before]
    risk = np.divide(died, at_risk[before] * lived, out=np.zeros(len(died)), where=lived > 0)
    m = len(happened)
    return _MeanLog(float(borders[0] + areas.sum()), float((beyond**2 * risk).sum()) * m / (m - 1), m)


def _effect(a: _MeanLog, b: _MeanLog) -> tuple[Effect, float]:
    """The effect, and the difference of the means at which a verdict is reached in most cases."""
    difference, variance = b.mean - a.mean, a.variance + b.variance
    error = math.sqrt(variance)
    if error == 0:  # all values on a side are equal, on both sides
        return Effect(math.exp(difference), math.exp(difference), math.exp(difference)), 0.0
    freedom = variance**2 / (a.variance**2 / (a.events - 1) + b.variance**2 / (b.events - 1))
    sure, likely = (float(stats.t.ppf(share, freedom)) for share in ((1 + CONFIDENCE) / 2, POWER))
    return (
        Effect(math.exp(difference), math.exp(difference - sure * error), math.exp(difference + sure * error)),
        _RANK_TEST_FACTOR * (sure + likely) * error,
    )


def _detectable_change(a: Sample, b: Sample, watched: float, seen: float) -> DetectableChange:
    """The changes of all durations that shift the mean, restricted to the range observed on both sides, by `seen`.

    Durations beyond that range shift nothing. So lengthening all by d shifts the mean by the area under the cumulative
    distribution from watched - d to watched, and shortening them by at least d times its last value.
    """
    if math.isinf(watched) or seen == 0:
        return DetectableChange(math.exp(-seen), math.exp(seen))
    happened, unseen = _logs([*a.recorded, *b.recorded]), _logs([*a.censored, *b.censored])
    curve = stats.ecdf(stats.CensoredData(uncensored=happened, right=unseen)).cdf
    before = curve.quantiles < watched
    shares = curve.probabilities[before][::-1]  # the latest first
    distances = watched - curve.quantiles[before][::-1]
    areas = np.cumsum(shares * np.diff(distances, prepend=0.0))
    longer = float(np.interp(seen, [0.0, *areas], [0.0, *distances])) if seen <= areas[-1] else None
    return DetectableChange(math.exp(-seen / float(shares[0])), None if longer is None else math.exp(longer))


def _p_value(a: Sample, b: Sample) -> float:
    with np.errstate(invalid="ignore"):  # 0 / 0 if the sides never differ
        tested = stats.logrank(
            stats.CensoredData(uncensored=a.recorded, right=a.censored),
            stats.CensoredData(uncensored=b.recorded, right=b.censored),
        )
    return 1.0 if math.isnan(tested.pvalue) else float(tested.pvalue)


def _verdict(effect: Effect, p_value: float) -> tuple[Trend, str]:
    shown = f"B takes {effect.ratio:.2f} times as long as A, 95 % interval {effect.low:.2f} to {effect.high:.2f}"
    changed = not effect.low <= 1 <= effect.high
    tested = p_value < 1 - CONFIDENCE
    match changed, tested:
        case True, True:
            return (Trend.BETTER if effect.ratio < 1 else Trend.WORSE), shown
        case False, False:
            return Trend.CANNOT_TELL, f"{shown}, which includes no change"
        case False, True:
            return Trend.CANNOT_TELL, f"{shown}, which includes no change although the log-rank test finds one"
        case _:
            return Trend.CANNOT_TELL, f"{shown}, but the log-rank test finds no change (p = {p_value:.2f})"
