"""Computes the DORA metrics from deployments and the incidents they caused.

Pure: no clock, no I/O. Intervals allow for clusters (`app/metrics/counts.py`). Missing data is None, never 0.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
from scipy import special

from app.base.values.facts import Outcome
from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.measures.measures import CONFIDENCE, NOT_RECOVERED_YET
from app.incidents.measures.vectorized import (
    OUTCOMES,
    Booleans,
    Ints,
    MeasuredMany,
    measured,
    microseconds,
)
from app.metrics import counts
from app.metrics.counts import Events
from app.metrics.deployments.deployment import Deployment
from app.metrics.deployments.links import (
    BASES,
    CONFIDENCES,
    UNKNOWN,
    Basis,
    Confidence,
    Link,
    LinkedIncidents,
    deployment_order,
    is_in_environment,
)
from app.metrics.summary.survival import Typical, typical

# A link by time alone, hours later, is a guess and no failure.
MIN_CONFIDENCE = Confidence.MEDIUM
_SECOND = 1e6
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Ratio:
    """`k` of `n` with Wilson's 95 % interval, of as many independent ones as they are worth."""

    k: int
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Frequency:
    """`n` deployments in `days`; the interval of the daily rate allows for their `dispersion` (`counts.per_day`)."""

    n: int
    days: float
    per_day: float | None
    low: float | None
    high: float | None
    dispersion: float


@dataclass(frozen=True, slots=True)
class Durations:
    """Durations in seconds. With fewer than `SUMMARY_FROM`, only `values` (ascending) and `mean` are set. That mean
    is exact, for DORA's cost formula. The median's interval is based on order statistics, and None where it would reach
    beyond them.

    `pending` durations may still end; `left_out` counts cases without a duration that counts.
    """

    n: int
    values: Sequence[float] | None
    typical: Typical | None
    low: float | None
    high: float | None
    mean: Decimal | None
    pending: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed deployment. `rows` are the rows of `incidents` that it caused."""

    deployment: Deployment
    marked: bool
    rows: Sequence[int]
    incidents: LinkedIncidents

    @property
    def links(self) -> list[tuple[int, Link]]:
        """Incident numbers with their links. Computed lazily: of many thousands only few are ever shown."""
        numbers = self.incidents.columns.number
        return [(int(numbers[row]), self.incidents.link(row)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Dora:
    """Failures are deployments that caused an incident by a link of at least `min_confidence`, or are marked.

    `unlinked` counts incidents without a known cause; a stated "no deployment" is a known cause. `unchanged` deployed
    what was running already, and `unknown_outcomes` ended with a word that is not known; neither is counted elsewhere.
    """

    min_confidence: Confidence
    finished: int
    unchanged: int
    unknown_outcomes: int
    frequency: Frequency
    lead_time: Durations
    without_commit_times: int  # deployments
    change_fail_rate: Ratio
    change_fail_rate_of_all_links: Ratio
    failures: tuple[Failure, ...]
    change_failures: Frequency
    failed_deployment_recovery_time: Durations
    time_to_recover: Durations
    rework_rate: Ratio
    unplanned_without_incident: int
    unlinked: Ratio
    bases: Mapping[Basis, int]
    confidences: Mapping[Confidence, int]


def dora(
    incidents: LinkedIncidents,
    *,
    start: datetime,
    end: datetime,
    services: Collection[str] = (),
    environments: Collection[str] = (),
    min_confidence: Confidence = MIN_CONFIDENCE,
) -> Dora:
    """DORA metrics of deployments finished and incidents detected in `[start, end)`.

    Without services all are included, and without environments all of production.
    """
    mine = [
        each
        for each in incidents.deployments
        if (not services or each.service in services)
        and (any(is_in_environment(each, one) for one in environments) if environments else each.production)
        and each.finished_at is not None
        and start <= each.finished_at < end
    ]
    finished = [each for each in mine if each.counts]
    succeeded = [each for each in finished if each.outcome is Outcome.SUCCEEDED]
    columns = incidents.columns
    counted = (columns.severity != 5) & ~columns.monitoring
    caused = counted & incidents.is_at_least(min_confidence)
    failures = _failures(finished, incidents, caused)
    failures_of_all_links = _failures(finished, incidents, counted & incidents.is_at_least(Confidence.LOW))
    detected_at = columns.detected_at()
    detected = counted & (microseconds(start) <= detected_at) & (detected_at < microseconds(end))
    if services:
        detected &= np.array([name in services for name in columns.service.values], np.bool_)[columns.service.codes]
    failed = {failure.deployment.id for failure in failures}
    failed_by_any_link = {failure.deployment.id for failure in failures_of_all_links}
    finished_at = _microseconds(each.finished_at for each in finished)

    def share(holds: Iterable[bool], of: Ints = finished_at) -> Ratio:
        return ratio(np.fromiter(holds, np.bool_, len(of)), of, end - start)

    def per_day(of: Iterable[datetime | None]) -> Frequency:
        return frequency(counts.events(_microseconds(of), start, end - start))

    has_failed = np.array([each.id in failed for each in incidents.deployments] + [False, False], np.bool_)
    known = detected & (incidents.cause != UNKNOWN)
    bases = np.bincount(incidents.basis[known], minlength=len(BASES)).tolist()
    confidences = np.bincount(incidents.confidence[known], minlength=len(CONFIDENCES)).tolist()
    recovery = measured(columns, now=end)["time_to_recover"]
    return Dora(
        min_confidence=min_confidence,
        finished=len(finished),
        unchanged=sum(each.unchanged and each.outcome is not Outcome.CANCELED for each in mine),
        unknown_outcomes=sum(each.outcome is Outcome.UNKNOWN and not each.unchanged for each in mine),
        frequency=per_day(each.finished_at for each in succeeded),
        lead_time=_lead_time(succeeded, end - start),
        without_commit_times=sum(1 for each in succeeded if not any(commit.at for commit in each.commits)),
        change_fail_rate=share(each.id in failed for each in finished),
        change_fail_rate_of_all_links=share(each.id in failed_by_any_link for each in finished),
        failures=failures,
        change_failures=per_day(failure.deployment.finished_at for failure in failures),
        # The last two entries stand for UNKNOWN and NO_DEPLOYMENT.
        failed_deployment_recovery_time=_recovery(
            recovery, caused & has_failed[incidents.cause], detected_at, end - start
        ),
        time_to_recover=_recovery(recovery, detected, detected_at, end - start),
        rework_rate=share(bool(each.unplanned and each.made_for) for each in finished),
        unplanned_without_incident=sum(1 for each in finished if each.unplanned and not each.made_for),
        unlinked=share(~known[detected], detected_at[detected]),
        bases={basis: count for basis, count in zip(BASES, bases, strict=True) if count},
        confidences={each: count for each, count in zip(CONFIDENCES, confidences, strict=True) if count},
    )


def is_failure(deployment: Deployment, linked: Iterable[Link]) -> bool:
    """Whether a finished deployment failed: it is marked as failed, or it caused an incident with enough confidence."""
    return deployment.counts and (
        deployment.is_marked or any(each.confidence.is_at_least(MIN_CONFIDENCE) for each in linked)
    )


def _failures(finished: Iterable[Deployment], incidents: LinkedIncidents, caused: Booleans) -> tuple[Failure, ...]:
    """`caused` are the incidents with a deployment as their cause."""
    rows = np.flatnonzero(caused)
    rows = rows[np.lexsort((incidents.columns.number[rows], incidents.cause[rows]))]
    places, first = np.unique(incidents.cause[rows], return_index=True)
    by_place = dict(zip(places.tolist(), np.split(rows, first[1:]), strict=True)) if len(rows) else {}
    of = {incidents.deployments[place].id: those.tolist() for place, those in by_place.items()}
    return tuple(
        Failure(each, each.is_marked, of.get(each.id, ()), incidents)
        for each in sorted({each.id: each for each in finished}.values(), key=deployment_order)
        if each.is_marked or each.id in of
    )


def _microseconds(times: Iterable[datetime | None]) -> Ints:
    return np.array([microseconds(at) for at in times], np.int64)


def _lead_time(succeeded: Iterable[Deployment], observed: timedelta) -> Durations:
    """A commit counts once, with the first deployment of its service that contains it."""
    seconds: dict[tuple[str, str], tuple[float, datetime]] = {}
    impossible = 0
    for deployment in sorted(succeeded, key=lambda each: (each.finished_at or each.happened_at, each.id)):
        for commit in deployment.commits:
            place = (deployment.service, commit.sha)
            if commit.at is None or deployment.finished_at is None or place in seconds:
                continue
            took = (deployment.finished_at - commit.at).total_seconds()
            if took < 0:
                impossible += 1
            else:
                seconds[place] = (took, deployment.finished_at)
    began = _microseconds(at for _, at in seconds.values())
    return durations([took for took, _ in seconds.values()], began, observed, left_out=impossible)


def _recovery(recovery: MeasuredMany, rows: Booleans, detected_at: Ints, observed: timedelta) -> Durations:
    seconds, outcome = recovery.seconds[rows], recovery.outcome[rows]
    recorded = np.isfinite(seconds)
    pending = int((outcome == OUTCOMES.index(NOT_RECOVERED_YET)).sum())
    return durations(
        seconds[recorded].tolist(),
        detected_at[rows][recorded],
        observed,
        pending=pending,
        left_out=len(seconds) - int(recorded.sum()) - pending,
    )


def ratio(holds: Booleans, began: Ints, observed: timedelta) -> Ratio:
    """How many it holds for, with when each began in microseconds since 1970."""
    k, n = int(holds.sum()), len(holds)
    if n == 0:
        return Ratio(k, n, None, None, None)
    effect = counts.design_effect(holds.astype(np.float64), began / _SECOND, observed)
    return Ratio(k, n, k / n, *counts.share(k, n, effect))


def frequency(of: Events) -> Frequency:
    return Frequency(of.n, max(0.0, of.days), *astuple(counts.per_day(of)))


def durations(
    seconds: Sequence[float], began: Ints, observed: timedelta, *, pending: int = 0, left_out: int = 0
) -> Durations:
    """`began` is when each belongs to, in microseconds since 1970: those of one storm are not independent."""
    order = np.argsort(np.asarray(seconds, np.float64), kind="stable")
    values = [seconds[place] for place in order.tolist()]
    # Exact, because times have a resolution of one microsecond.
    microseconds_each = np.rint(np.asarray(values) * 10**6).astype(np.int64)
    mean = Decimal(int(microseconds_each.sum())).scaleb(-6) / len(values) if values else None
    if len(values) < SUMMARY_FROM:
        return Durations(len(values), values, None, None, None, mean, pending, left_out)
    median = float(np.median(values))
    effect = counts.design_effect((np.asarray(seconds) <= median).astype(np.float64), began / _SECOND, observed)
    low, high = _interval_of_median(values, math.sqrt(effect))
    return Durations(len(values), None, typical(values), low, high, mean, pending, left_out)


def _interval_of_median(rising: Sequence[float], widening: float) -> tuple[float | None, float | None]:
    """From order statistics, as scipy's quantile test; their distances from the middle are widened."""
    n, tail = len(rising), (1 - CONFIDENCE) / 2
    if math.isinf(widening):
        return None, None
    ranks = (quantile_of_tosses(share, n) for share in (tail, 1 - tail))
    low, high = (n / 2 + (rank - n / 2) * widening for rank in ranks)
    first, last = math.floor(low + _ROUNDING) - 1, math.ceil(high - _ROUNDING)
    return rising[first] if first >= 0 else None, rising[last] if last < n else None


def quantile_of_tosses(share: float, n: int) -> float:
    """The quantile of the binomial distribution of n tosses of a coin."""
    quantile = math.ceil(special.bdtrik(share, n, 0.5))
    return float(quantile - 1 if quantile and special.bdtr(quantile - 1, n, 0.5) >= share else quantile)


def cost_of_downtime(
    deployments: Decimal | int, change_fail_rate: Decimal, hours_to_recover: Decimal, cost_per_hour: Decimal
) -> Decimal:
    """Deployments × change fail rate × mean time to recover × hourly cost of outage, exactly.

    A cross-check, not the actual cost: it treats every failure as a full outage and assumes that none overlap.
    """
    return deployments * change_fail_rate * hours_to_recover * cost_per_hour
