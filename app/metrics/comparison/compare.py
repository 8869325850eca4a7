"""Compares one measure between two periods and decides whether the difference is more than chance.

Pure: no clock, no I/O, no settings, no randomness: the same input gives the same answer. Incident durations are roughly
lognormal, so means and medians of two periods differ by chance far more than people expect (Davidovič, Incident Metrics
in SRE, 2021). Therefore logarithms are compared, pending durations count for as long as they were observed (censored),
incidents of one storm do not count as independent (`app/metrics/clusters.py`), and a verdict is given only if a rank
test and the interval of the effect agree.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from app.incidents.definitions.model import OCCASIONS_FROM, SUMMARY_FROM
from app.incidents.measures.measures import CONFIDENCE
from app.incidents.measures.vectorized import OUTCOMES, Booleans, Floats, Ints, MeasuredMany
from app.metrics import clusters
from app.metrics.clusters import Clustering, Occasions
from app.metrics.summary.kaplan_meier import survival

POWER = 0.8
SHORTEST_SECONDS = 1.0

TEST = "cluster-robust log-rank test, two-sided"
OUT_OF_HOURS = "began outside business hours"
# Allows for the rank test, which must agree too. Found by simulation with lognormal durations, σ 1.5; the slow tests
# verify it.
_RANK_TEST_FACTOR = 1.12
_LARGEST_LOG = 700.0  # exp of more overflows


@dataclass(frozen=True, slots=True)
class Sample:
    """One measure of a period's incidents, in seconds. The first three fields together cover every incident.

    `began` is when the incidents began, in seconds since 1970: first of the recorded, then of the censored durations.
    `observed` is how much of the period has passed.
    """

    recorded: Sequence[float]
    censored: Sequence[float] = ()  # how long each was observed without it happening
    left_out: Mapping[str, int] = field(default_factory=dict)  # by reason
    began: Sequence[float] = field(kw_only=True)
    observed: timedelta = field(kw_only=True)


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


class ClusteringResult(NamedTuple):
    """The result of one clustering: the interval of the effect, and the test's p-value."""

    low: float
    high: float
    p_value: float
    a: Occasions
    b: Occasions

    @property
    def excludes_same(self) -> bool:
        return not self.low <= 1 <= self.high

    @property
    def is_tested(self) -> bool:
        return self.p_value < 1 - CONFIDENCE

    @property
    def is_change(self) -> bool:
        return self.excludes_same and self.is_tested


@dataclass(frozen=True, slots=True)
class Comparison:
    """Only verdict and reason are set if there are too few values, and with too few independent occasions no effect.

    Typical durations are in seconds. The interval of the effect is the widest and the p-value the largest of those that
    the clusterings give, which `by` has one by one.
    """

    verdict: Trend
    reason: str
    effect: Effect | None = None
    p_value: float | None = None
    smallest_change: DetectableChange | None = None
    typical_a: float | None = None
    typical_b: float | None = None
    horizon: float | None = None  # seconds; None: the longest recorded value exceeds every censored one
    by: Mapping[Clustering, ClusteringResult] = field(default_factory=dict)


class Side(NamedTuple):
    """One of the two periods, as far as it could be compared."""

    sample: Sample
    services: Sequence[str]  # of its incidents


class Compared(NamedTuple):
    """A comparison with the two sides it compared."""

    found: Comparison
    a: Side
    b: Side


def evidence_in_words(occasions: Occasions, incidents: int) -> str:
    """`150 incidents in 34 storms, worth about 48 independent ones`."""
    storms, worth = occasions.clusters, round(occasions.effective_n)
    return (
        f"{incidents:,} incidents in {storms:,} {'storm' if storms == 1 else 'storms'}, worth about "
        f"{worth:,} independent {'one' if worth == 1 else 'ones'}"
    )


def sample(
    measured: MeasuredMany, detected_at: Ints, *, observed: timedelta, in_hours: Booleans | None = None
) -> Sample:
    """The comparable values; pending ones are included if it is known how long they have lasted.

    `detected_at` is in microseconds since 1970.

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
    recorded, waited = recorded & ~outside, waited & ~outside
    return Sample(
        measured.seconds[recorded].tolist(),
        measured.waited[waited].tolist(),
        dict(sorted(left_out.items())),
        began=(np.concatenate((detected_at[recorded], detected_at[waited])) / 1e6).tolist(),
        observed=observed,
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
    a, b = (_as_arrays(each) for each in (a, b))
    limit = min(_watched(a), _watched(b))
    sides = _side(a, limit), _side(b, limit)
    difference = sides[1].mean - sides[0].mean
    observed = min(a.observed, b.observed)
    labels = [clusters.clusterings(np.asarray(each.began), observed) for each in (a, b)]
    scores = _scores(*sides)
    found = {each: _found(sides, (labels[0][each], labels[1][each]), scores, difference) for each in labels[0]}
    by = {clustering: each for clustering, (each, _) in found.items()}
    whole = Comparison(
        verdict=Trend.CANNOT_TELL,
        reason="",
        typical_a=math.exp(sides[0].mean),
        typical_b=math.exp(sides[1].mean),
        horizon=math.exp(limit) if math.isfinite(limit) else None,
        by=by,
    )
    lacking = _too_few_occasions(by)
    if lacking:
        return replace(whole, reason=lacking)
    effect = Effect(math.exp(difference), min(each.low for each in by.values()), max(each.high for each in by.values()))
    verdict, reason = _verdict(effect, by)
    return replace(
        whole,
        verdict=verdict,
        reason=reason,
        effect=effect,
        p_value=max(each.p_value for each in by.values()),
        smallest_change=_detectable_change(a, b, limit, max(seen for _, seen in found.values())),
    )


def _as_arrays(side: Sample) -> Sample:
    recorded, censored, began = (np.asarray(each, np.float64) for each in (side.recorded, side.censored, side.began))
    return replace(side, recorded=recorded, censored=censored, began=began)  # type: ignore[arg-type]


class _Side(NamedTuple):
    """Logarithms of durations, with how much each incident moves their mean."""

    logs: Floats
    recorded: Booleans
    mean: float
    influence: Floats


def _logs(seconds: ArrayLike) -> Floats:
    logs: Floats = np.log(np.maximum(np.asarray(seconds, dtype=np.float64), SHORTEST_SECONDS))
    return logs


def _watched(side: Sample) -> float:
    """The log duration up to which the survival curve is known; infinite if the curve reaches zero.

    A censored value at least as long as the longest recorded one will end later, so the curve stops above zero.
    """
    longest = float(np.max(side.censored, initial=-math.inf))
    return math.inf if longest < np.max(side.recorded) else math.log(max(longest, SHORTEST_SECONDS))


def _side(side: Sample, limit: float) -> _Side:
    logs = _logs(np.concatenate((side.recorded, side.censored)))
    recorded = np.arange(len(logs)) < len(side.recorded)
    return _Side(logs, recorded, *clusters.restricted_mean(logs, recorded, limit))


def _scores(a: _Side, b: _Side) -> tuple[Floats, Floats]:
    is_b = np.repeat((False, True), (len(a.logs), len(b.logs)))
    found = clusters.scores(np.concatenate((a.logs, b.logs)), np.concatenate((a.recorded, b.recorded)), is_b)
    return found[~is_b], found[is_b]


def _found(
    sides: tuple[_Side, _Side], labels: tuple[Ints, Ints], scores: tuple[Floats, Floats], difference: float
) -> tuple[ClusteringResult, float]:
    """The result of a clustering, and the difference of the means at which a verdict is reached in most cases."""
    pairs = list(zip(sides, labels, strict=True))
    alike = clusters.correlation([(side.influence * len(side.logs), label) for side, label in pairs])
    a, b = variances = [clusters.variance(side.influence, label, side.recorded, alike) for side, label in pairs]
    total = a.value + b.value
    if total == 0:  # all values on a side are equal, on both sides
        half = seen = 0.0
    else:
        # Welch's; the variance of a single cluster is infinite
        freedom = 0.0 if math.isinf(total) else total**2 / sum(each.value**2 / each.freedom for each in variances)
        sure, likely = (clusters.student(freedom, share) for share in ((1 + CONFIDENCE) / 2, POWER))
        half, seen = sure * math.sqrt(total), _RANK_TEST_FACTOR * (sure + likely) * math.sqrt(total)
    # Lee, Wei and Amato (1992). Scores are not centered on each side, which is careful with few clusters.
    spread = sum(float(np.square(np.bincount(label, score)).sum()) for score, label in zip(scores, labels, strict=True))
    observed = sum(float(score.sum()) for score in scores)
    of_a, of_b = (
        clusters.occasions(side.influence, label, side.recorded, each)
        for (side, label), each in zip(pairs, variances, strict=True)
    )
    return (
        ClusteringResult(
            _exp(difference - half),
            _exp(difference + half),
            float(special.chdtrc(1, observed**2 / spread)) if spread > 0 else 1.0,
            of_a,
            of_b,
        ),
        min(seen, _LARGEST_LOG),
    )


def _exp(log: float) -> float:
    return math.exp(max(-_LARGEST_LOG, min(_LARGEST_LOG, log)))


def _too_few_occasions(by: Mapping[Clustering, ClusteringResult]) -> str | None:
    few = [
        f"{name} has recorded values from only {each.with_values} {_counted(clustering, each.with_values)}"
        for clustering, found in by.items()
        for name, each in (("A", found.a), ("B", found.b))
        if each.are_too_few
    ]
    return (
        f"too few independent occasions: {' and '.join(few)}; below {OCCASIONS_FROM} no verdict is given"
        if few
        else None
    )


def _counted(clustering: Clustering, count: int) -> str:
    return clustering.removesuffix("s") if count == 1 else str(clustering)


def _detectable_change(a: Sample, b: Sample, watched: float, seen: float) -> DetectableChange:
    """The changes of all durations that shift the mean, restricted to the range observed on both sides, by `seen`.

    Durations beyond that range shift nothing. So lengthening all by d shifts the mean by the area under the cumulative
    distribution from watched - d to watched, and shortening them by at least d times its last value.
    """
    if math.isinf(watched) or seen == 0:
        return DetectableChange(math.exp(-seen), math.exp(seen))
    happened, unseen = (_logs(np.concatenate(each)) for each in ((a.recorded, b.recorded), (a.censored, b.censored)))
    curve = survival(happened, unseen)
    before = curve.seconds < watched
    shares = curve.passed[before][::-1]  # the latest first
    distances = watched - curve.seconds[before][::-1]
    areas = np.cumsum(shares * np.diff(distances, prepend=0.0))
    longer = float(np.interp(seen, [0.0, *areas], [0.0, *distances])) if seen <= areas[-1] else None
    return DetectableChange(math.exp(-seen / float(shares[0])), None if longer is None else math.exp(longer))


def _verdict(effect: Effect, by: Mapping[Clustering, ClusteringResult]) -> tuple[Trend, str]:
    shown = f"B takes {effect.ratio:.2f} times as long as A, 95 % interval {effect.low:.2f} to {effect.high:.2f}"
    without = {clustering: each for clustering, each in by.items() if not each.is_change}
    if not without:
        return (Trend.BETTER if effect.ratio < 1 else Trend.WORSE), shown
    if len(without) < len(by):
        [finds] = by.keys() - without.keys()
        [(lacks, each)] = without.items()
        why = "the interval includes no change" if not each.excludes_same else _not_tested(each.p_value)
        return Trend.CANNOT_TELL, f"{shown}: by {finds} there is a change, but by {lacks} {why}"
    p_value = max(each.p_value for each in by.values())
    if not effect.low <= 1 <= effect.high:
        return Trend.CANNOT_TELL, f"{shown}, but {_not_tested(p_value)}"
    although = " although the log-rank test finds one" if p_value < 1 - CONFIDENCE else ""
    return Trend.CANNOT_TELL, f"{shown}, which includes no change{although}"


def _not_tested(p_value: float) -> str:
    return f"the log-rank test finds no change (p = {p_value:.2f})"
