"""Intervals and tests that allow for incidents that come in clusters: one bad night, one bad release.

Pure: no clock, no I/O, no settings, no randomness. Incidents of one storm carry much the same information, so counting
each of them as a new observation makes chance look like change. Clusters are derived from the times at which incidents
began, of all services together: storms, and over longer periods calendar weeks too. Estimates do not depend on
clusters; their variances do.
"""

import math
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy import special

from app.incidents.definitions.model import OCCASIONS_FROM
from app.incidents.measures.measures import CONFIDENCE
from app.incidents.measures.vectorized import Booleans, Floats, Ints

QUIET_SECONDS = 6 * 3600.0  # a storm ends when nothing has begun for longer
LONGEST_SECONDS = 24 * 3600.0  # without a limit, a busy service would have one storm that never ends
WEEKS_FROM = timedelta(days=56)
_WEEK_SECONDS = 7 * 24 * 3600.0
_FIRST_MONDAY = -3 * 24 * 3600.0  # 1970 began on a Thursday


class Clustering(StrEnum):
    STORMS = "storms"
    WEEKS = "weeks"


def clusterings(began: Floats, observed: timedelta) -> dict[Clustering, Ints]:
    """The cluster of each incident, by storms and, if it was observed for eight weeks or more, by weeks too.

    `began` in seconds since 1970. Clusters are numbered from 0.
    """
    found = {Clustering.STORMS: storms(began)}
    return found | {Clustering.WEEKS: weeks(began)} if observed >= WEEKS_FROM else found


def storms(began: Floats) -> Ints:
    """A new storm begins after more than 6 h in which nothing began, or once a storm has lasted for 24 h."""
    if not len(began):
        return np.zeros(0, np.int64)
    order = np.argsort(began, kind="stable")
    rising = began[order]
    starts = np.append(True, np.diff(rising) > QUIET_SECONDS)
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(rising)) - 1
    for run in np.flatnonzero(rising[last] - rising[first] >= LONGEST_SECONDS).tolist():
        place, end = int(first[run]), int(last[run]) + 1
        while (place := int(np.searchsorted(rising, rising[place] + LONGEST_SECONDS))) < end:
            starts[place] = True
    label = np.empty(len(began), np.int64)
    label[order] = np.cumsum(starts) - 1
    return label


def weeks(began: Floats) -> Ints:
    """Calendar weeks in UTC, which start on Monday."""
    week = np.floor((began - _FIRST_MONDAY) / _WEEK_SECONDS).astype(np.int64)
    return np.unique(week, return_inverse=True)[1]


# — how much each incident moves an estimate —


class Mean(NamedTuple):
    """The mean of min(duration, limit) by the Kaplan-Meier curve; `influence` is how much each incident moves it.

    Without censored durations the influence is (duration - mean) / n. The sum of its squares is Greenwood's variance,
    except for the own terms of censored durations.
    """

    mean: float
    influence: Floats


def restricted_mean(lasted: Floats, recorded: Booleans, limit: float) -> Mean:
    """`lasted` are durations or their logarithms; those not `recorded` are censored. O(n log n).

    The influence is the infinitesimal jackknife's: with A(t) the area under the curve from t to the limit, d events and
    Y at risk at t, each event of duration t counts -A(t) / (Y - d), and every incident still at risk then
    A(t) d / (Y (Y - d)).
    """
    counts = recorded & (lasted < limit)
    times, place, happened = np.unique(lasted[counts], return_inverse=True, return_counts=True)
    rising = np.sort(lasted)
    at_risk = len(lasted) - np.searchsorted(rising, times)
    end = min(limit, float(rising[-1]))
    area = np.cumprod(1 - happened / at_risk) * np.diff(times, append=end)
    ahead = np.cumsum(area[::-1])[::-1]
    step = np.divide(ahead, at_risk - happened, out=np.zeros(len(times)), where=at_risk > happened)
    influence = np.append(0.0, np.cumsum(step * happened / at_risk))[np.searchsorted(times, lasted, "right")]
    influence[counts] -= step[place]
    return Mean((float(times[0]) if len(times) else end) + float(area.sum()), influence)


def scores(lasted: Floats, recorded: Booleans, is_b: Booleans) -> Floats:
    """The contribution of each incident to the log-rank test of B against A; their sum is B's events, observed less
    expected.

    Score residuals under no difference (Lin and Wei, 1989).
    """
    times, place, happened = np.unique(lasted[recorded], return_inverse=True, return_counts=True)
    at_risk = len(lasted) - np.searchsorted(np.sort(lasted), times)
    of_b = lasted[is_b]
    share = (len(of_b) - np.searchsorted(np.sort(of_b), times)) / at_risk
    hazard = happened / at_risk
    passed = np.searchsorted(times, lasted, "right")
    found: Floats = np.append(0.0, np.cumsum(share * hazard))[passed]
    found -= is_b * np.append(0.0, np.cumsum(hazard))[passed]
    found[recorded] += is_b[recorded] - share[place]
    return found


# — what clusters make of it —


class Variance(NamedTuple):
    """The variance of a mean, and degrees of freedom of Student's t; infinite and 0 if one cluster has all events."""

    value: float
    freedom: float


def variance(influence: Floats, label: Ints, recorded: Booleans, correlation: float) -> Variance:
    """Bell and McCaffrey's CR2 variance and Satterthwaite's degrees of freedom, for a correlation within clusters.

    With w the share of the events in a cluster, the variance is the sum of (sum of influences)^2 / (1 - w) over the
    clusters. Clusters of one incident each give the usual variance with n - 1 degrees of freedom.
    """
    events = np.bincount(label, recorded)
    share = events / events.sum()
    if share.max() > 1 - 1e-9:
        return Variance(math.inf, 0.0)
    scale = 1 / (1 - share)
    value = float((scale * np.bincount(label, influence) ** 2).sum())
    # The trace of M Omega, squared, over that of its square, without the matrices: M_cc and M_cd (of two clusters) are
    # `own` and mean - lever_c - lever_d.
    omega = events * (1 + np.maximum(events - 1, 0) * correlation)
    lever = scale * share
    mean = float((lever * share).sum())
    own = scale - 2 * lever + mean
    weight, levers = omega.sum(), float((omega * lever).sum())
    pairs = 2 * weight * float((omega * lever**2).sum()) + 2 * levers**2 - 4 * mean * weight * levers
    pairs += (mean * weight) ** 2
    square = pairs + float((omega**2 * (own**2 - (mean - 2 * lever) ** 2)).sum())
    return Variance(value, float((omega * own).sum()) ** 2 / square)


def correlation(parts: Sequence[tuple[Floats, Ints]]) -> float:
    """How alike values are within clusters, from 0 to 1; pooled over `parts`, each of values and their clusters.

    The estimate of a one-way analysis of variance.
    """
    between = within = size = 0.0
    between_freedom = within_freedom = 0
    for values, label in parts:
        members = np.bincount(label)
        means = np.bincount(label, values) / members
        between += float((members * (means - values.mean()) ** 2).sum())
        # Summed by cluster first, so that the order of incidents of the same duration changes no digit.
        within += float(np.bincount(label, (values - means[label]) ** 2).sum())
        between_freedom += len(members) - 1
        within_freedom += len(values) - len(members)
        size += len(values) - float(np.square(members).sum()) / len(values)
    if not between_freedom or not within_freedom or size <= 0:
        return 0.0
    between, within = between / between_freedom, within / within_freedom
    total = between + (size / between_freedom - 1) * within
    return min(1.0, max(0.0, (between - within) / total)) if total > 0 else 0.0


def student(freedom: float, share: float) -> float:
    """The quantile of Student's t; infinite without a degree of freedom."""
    return float(special.stdtrit(freedom, share)) if freedom > 0 else math.inf


class Occasions(NamedTuple):
    """How much information the incidents of a side carry: as much as `effective_n` independent ones."""

    clusters: int
    effective_n: float
    largest_share: float  # of the recorded values that are in one cluster
    with_values: int  # clusters with a recorded value

    @property
    def are_too_few(self) -> bool:
        return self.with_values < OCCASIONS_FROM


def occasions(influence: Floats, label: Ints, recorded: Booleans, found: Variance) -> Occasions:
    """The clusters of one side; `found` is the variance that allows for them."""
    events = np.bincount(label, recorded)
    total, alone = events.sum(), float(np.square(influence).sum())
    if math.isinf(found.value):
        effective = 1.0
    else:
        effective = len(label) * (min(1.0, alone / found.value) if found.value > 0 else 1.0)
    return Occasions(
        len(events), effective, float(events.max() / total) if total else 0.0, int(np.count_nonzero(events))
    )


class Clusters(NamedTuple):
    """The clusters of one clustering, and the degrees of freedom that they leave a mean."""

    label: Ints
    freedom: float


class Widening(NamedTuple):
    """How many times as wide as for independent incidents an interval of a mean must be; at least 1.

    `factor` is that of the widest of the clusterings; infinite if all events are in one cluster.
    """

    factor: float
    clusterings: Sequence[Clusters]


def widening(influence: Floats, recorded: Booleans, labels: Sequence[Ints]) -> Widening:
    events = int(np.count_nonzero(recorded))
    squares = np.square(influence)
    alone = float(squares.sum() + squares[recorded].sum() / (events - 1)) if events > 1 else 0.0
    found = [(label, variance(influence, label, recorded, correlation([(influence, label)]))) for label in labels]
    clusterings = [Clusters(label, each.freedom) for label, each in found]
    if any(each.freedom == 0 for _, each in found):
        return Widening(math.inf, clusterings)
    if alone <= 0:
        return Widening(1.0, clusterings)
    narrow = student(events - 1, _SURE)
    return Widening(
        max(1.0, *(math.sqrt(each.value / alone) * student(each.freedom, _SURE) / narrow for _, each in found)),
        clusterings,
    )


_SURE = (1 + CONFIDENCE) / 2


def curve_widening(lasted: Floats, recorded: Booleans, at: Floats, clusterings: Sequence[Clusters]) -> Floats:
    """How many times as wide as Greenwood's the band of the Kaplan-Meier curve must be at each of `at`; at least 1.

    `at` must ascend, the curve be above 0 there, and no cluster have all events. O(n log n), and clusters x times.
    """
    times, place, happened = np.unique(lasted[recorded], return_inverse=True, return_counts=True)
    at_risk = len(lasted) - np.searchsorted(np.sort(lasted), times)
    left = np.maximum(at_risk - happened, 0.5)  # after the last event the curve is 0, and not asked for
    passed = np.append(0.0, np.cumsum(happened / (at_risk * left)))
    # Until its end an incident moves the logarithm of the curve by `passed` so far, and from its event on by `moved`.
    moved = passed[np.searchsorted(times, lasted, "right")]
    moved[recorded] -= (1 / left)[place]
    so_far = passed[np.searchsorted(times, at, "right")]
    column, columns = np.searchsorted(at, lasted), len(at) + 1

    ended = np.cumsum(np.bincount(column, minlength=columns))[:-1]
    alone = np.cumsum(np.bincount(column, moved**2, columns))[:-1] + so_far**2 * (len(lasted) - ended)
    events = len(place)
    alone *= events / (events - 1)
    widest = np.ones(len(at))
    narrow = student(events - 1, _SURE)
    for label, freedom in clusterings:
        share = np.bincount(label, recorded) / events
        cells, size = label * columns + column, len(share) * columns
        sums, ended_in = (
            np.cumsum(np.bincount(cells, weights, size).reshape(-1, columns), axis=1) for weights in (moved, None)
        )
        total = sums[:, :-1] + so_far * (ended_in[:, -1:] - ended_in[:, :-1])
        found = (1 / (1 - share)) @ np.square(total)
        ratio = np.divide(found, alone, out=np.ones(len(at)), where=alone > 0)
        widest = np.maximum(widest, np.sqrt(ratio) * student(freedom, _SURE) / narrow)
    return widest
