"""Computes the DORA metrics from deployments and the incidents they caused.

Pure: no clock, no I/O. Estimates and intervals are scipy's. Missing data is None, never 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from scipy import stats

from app.base.facts import Outcome
from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.measures.measures import CONFIDENCE, NOT_RECOVERED_YET
from app.incidents.measures.vectorized import (
    OUTCOMES,
    Booleans,
    MeasuredMany,
    measured,
    microseconds,
)
from app.metrics.deployments.deployment import Deployment
from app.metrics.deployments.links import (
    BASES,
    UNKNOWN,
    Basis,
    Link,
    LinkedIncidents,
    deployment_order,
    is_in_environment,
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """`k` of `n` with Wilson's 95 % interval."""

    k: int
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Frequency:
    """`n` deployments in `days`; the daily rate has the exact Poisson interval."""

    n: int
    days: float
    per_day: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Durations:
    """Durations in seconds. With fewer than `SUMMARY_FROM`, only `values` (ascending) and `mean` are set; that mean is
    used only for DORA's cost formula. The median's interval is based on order statistics (scipy's quantile test).

    `pending` durations may still end; `left_out` counts cases without a duration that counts.
    """

    n: int
    values: Sequence[float] | None
    median: float | None
    low: float | None
    high: float | None
    p90: float | None
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
    """`unlinked` counts incidents without a known cause; a stated "no deployment" is a known cause."""

    finished: int
    frequency: Frequency
    lead_time: Durations
    without_commit_times: int  # deployments
    change_fail_rate: Ratio
    failures: tuple[Failure, ...]
    failed_deployment_recovery_time: Durations
    time_to_recover: Durations
    rework_rate: Ratio
    unplanned_without_incident: int
    unlinked: Ratio
    bases: Mapping[Basis, int]


def dora(
    incidents: LinkedIncidents,
    *,
    begins: datetime,
    ends: datetime,
    service: str | None = None,
    environment: str | None = None,
) -> Dora:
    """DORA metrics of deployments finished and incidents detected in `[begins, ends)`.

    None means all services, and all production environments.
    """
    mine = [
        each
        for each in incidents.deployments
        if (service is None or each.service == service)
        and (each.production if environment is None else is_in_environment(each, environment))
        and each.finished_at is not None
        and begins <= each.finished_at < ends
    ]
    finished = [each for each in mine if each.outcome in {Outcome.SUCCEEDED, Outcome.FAILED}]
    succeeded = [each for each in finished if each.outcome is Outcome.SUCCEEDED]
    columns = incidents.columns
    counted = (columns.severity != 5) & ~columns.monitoring
    failures = _failures(finished, incidents, counted)
    detected_at = columns.detected_at()
    detected = counted & (microseconds(begins) <= detected_at) & (detected_at < microseconds(ends))
    if service is not None:
        detected &= np.array([name == service for name in columns.service.values], np.bool_)[columns.service.codes]
    failed = {failure.deployment.id for failure in failures}
    has_failed = np.array([each.id in failed for each in incidents.deployments] + [False, False], np.bool_)
    unplanned = [each for each in finished if each.unplanned]
    known = detected & (incidents.cause != UNKNOWN)
    bases = np.bincount(incidents.basis[known], minlength=len(BASES)).tolist()
    recovery = measured(columns, now=ends)["time_to_recover"]
    return Dora(
        finished=len(finished),
        frequency=frequency(len(succeeded), ends - begins),
        lead_time=_lead_time(succeeded),
        without_commit_times=sum(1 for each in succeeded if not any(commit.at for commit in each.commits)),
        change_fail_rate=ratio(len(failures), len(finished)),
        failures=failures,
        # The last two entries stand for UNKNOWN and NO_DEPLOYMENT.
        failed_deployment_recovery_time=_recovery(recovery, counted & has_failed[incidents.cause]),
        time_to_recover=_recovery(recovery, detected),
        rework_rate=ratio(sum(1 for each in unplanned if each.made_for), len(finished)),
        unplanned_without_incident=sum(1 for each in unplanned if not each.made_for),
        unlinked=ratio(int(detected.sum() - known.sum()), int(detected.sum())),
        bases={basis: count for basis, count in zip(BASES, bases, strict=True) if count},
    )


def is_failure(deployment: Deployment, linked: Iterable[Link]) -> bool:
    """Whether a finished deployment failed: it is marked as needing intervention, or it caused an incident."""
    finished = deployment.outcome in {Outcome.SUCCEEDED, Outcome.FAILED}
    return finished and (deployment.needed_intervention or any(True for _ in linked))


def _failures(finished: Iterable[Deployment], incidents: LinkedIncidents, counted: Booleans) -> tuple[Failure, ...]:
    """`finished` have finished."""
    rows = np.flatnonzero(counted & (incidents.cause >= 0))
    rows = rows[np.lexsort((incidents.columns.number[rows], incidents.cause[rows]))]
    places, first = np.unique(incidents.cause[rows], return_index=True)
    caused = dict(zip(places.tolist(), np.split(rows, first[1:]), strict=True)) if len(rows) else {}
    of = {incidents.deployments[place].id: those.tolist() for place, those in caused.items()}
    return tuple(
        Failure(each, each.needed_intervention, of.get(each.id, ()), incidents)
        for each in sorted({each.id: each for each in finished}.values(), key=deployment_order)
        if each.needed_intervention or each.id in of
    )


def _lead_time(succeeded: Iterable[Deployment]) -> Durations:
    """A commit counts once, with the first deployment of its service that contains it."""
    seconds: dict[tuple[str, str], float] = {}
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
                seconds[place] = took
    return durations(seconds.values(), left_out=impossible)


def _recovery(recovery: MeasuredMany, rows: Booleans) -> Durations:
    seconds, outcome = recovery.seconds[rows], recovery.outcome[rows]
    recorded = seconds[np.isfinite(seconds)].tolist()
    pending = int((outcome == OUTCOMES.index(NOT_RECOVERED_YET)).sum())
    return durations(recorded, pending=pending, left_out=len(seconds) - len(recorded) - pending)


def ratio(k: int, n: int) -> Ratio:
    if n == 0:
        return Ratio(k, n, None, None, None)
    interval = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Ratio(k, n, k / n, float(interval.low), float(interval.high))


def frequency(n: int, period: timedelta) -> Frequency:
    days = period / timedelta(days=1)
    if days <= 0:
        return Frequency(n, 0.0, None, None, None)
    tail = (1 - CONFIDENCE) / 2
    low = float(stats.gamma.ppf(tail, n)) if n else 0.0
    high = float(stats.gamma.ppf(1 - tail, n + 1))
    return Frequency(n, days, n / days, low / days, high / days)


def durations(seconds: Iterable[float], *, pending: int = 0, left_out: int = 0) -> Durations:
    values = sorted(seconds)
    # Exact, because times have a resolution of one microsecond.
    microseconds_each = np.rint(np.asarray(values) * 10**6).astype(np.int64)
    mean = Decimal(int(microseconds_each.sum())).scaleb(-6) / len(values) if values else None
    if len(values) < SUMMARY_FROM:
        return Durations(len(values), values, None, None, None, None, mean, pending, left_out)
    median, p90 = (float(quantile) for quantile in np.quantile(values, (0.5, 0.9)))
    interval: Any = stats.quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    return Durations(len(values), None, median, low, high, p90, mean, pending, left_out)


def cost_of_downtime(
    deployments: Decimal | int, change_fail_rate: Decimal, hours_to_recover: Decimal, cost_per_hour: Decimal
) -> Decimal:
    """Deployments × change fail rate × mean time to recover × hourly cost of outage, exactly.

    A cross-check, not the actual cost: it treats every failure as a full outage and assumes that none overlap.
    """
    return deployments * change_fail_rate * hours_to_recover * cost_per_hour
