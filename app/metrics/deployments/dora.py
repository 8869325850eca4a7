"""The numbers of DORA, and which deployment caused which incident.

Pure: no clock, no I/O. Estimates and intervals are scipy's. No data is None, never 0. Links are derived anew whenever
somebody asks, so that late alerts, merges and deployments told late count as if they had come in time; only what a
person says is kept.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import numpy as np
from scipy import stats

from app.base.times import HOUR_MICROSECONDS
from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.grouping.signal import AlertClass
from app.incidents.measures import measures
from app.incidents.measures.measures import CONFIDENCE, NOT_RECOVERED_YET, Facts
from app.incidents.measures.vectorized import (
    OUTCOMES,
    Booleans,
    Coded,
    Columns,
    Ints,
    MeasuredMany,
    measured,
    microseconds,
)
from app.metrics.deployments.deployment import Deployment, Outcome, environment_of

LOOK_BACK = timedelta(hours=24)
VERSION_LOOK_BACK = timedelta(days=7)
DEPLOYMENT_LABEL = "deployment_id"
VERSION_LABELS = (
    "version",
    "app_version",
    "app_kubernetes_io_version",
    "release",
    "image_tag",
    "revision",
    "git_sha",
    "sha",
)
ENVIRONMENT_LABELS = ("environment", "env")

# — links —


class Basis(StrEnum):
    """Why we think so, the surest first."""

    STATED = "stated"
    LABEL = "label"
    VERSION = "version"
    LAST_DEPLOYMENT = "last_deployment"


class Confidence(StrEnum):
    CERTAIN = "certain"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Link:
    """The deployment that caused an incident; None: a person says that none did."""

    deployment: Deployment | None
    basis: Basis
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class Stated:
    """A person's last word on the cause."""

    deployment_id: str | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """An incident as linking sees it. `deployment_ids` are those that its alerts name.

    A label that all its alerts share may name a deployment of any service, anything else one of its own.
    """

    id: UUID
    number: int
    facts: Facts
    labels: Mapping[str, str]
    deployment_ids: tuple[str, ...] = ()
    stated: Stated | None = None

    @property
    def began_at(self) -> datetime:
        return measures.began(self.facts)

    @property
    def service(self) -> str:
        return measures.service(self.facts)

    @property
    def counts(self) -> bool:
        """Whether users may have been harmed: no false alarm, not merged away, no trouble of the monitoring itself."""
        facts = self.facts
        return not facts.merged and measures.severity(facts) != 5 and facts.alert_class is not AlertClass.MONITORING


def links(troubles: Iterable[Trouble], deployments: Iterable[Deployment]) -> dict[UUID, Link]:
    """The cause of each incident, as far as one is known.

    A person's word; else a deployment that the alerts name; else the last deployment of the service and environment
    before the incident, within a week, whose version or sha the labels name; else the last one at all, within a day: a
    deployment at d answers for what begins in [d, the next one) and before d + 24 h.
    """
    known = list(deployments)
    by_id = {deployment.id: deployment for deployment in known}
    by_service = defaultdict[str, list[Deployment]](list)
    for deployment in known:
        if deployment.outcome not in {Outcome.PENDING, Outcome.CANCELLED}:
            by_service[deployment.service].append(deployment)
    for those in by_service.values():
        those.sort(key=_order)
    starts = {name: [deployment.began_at for deployment in those] for name, those in by_service.items()}
    found: dict[UUID, Link] = {}
    for trouble in troubles:
        link = _explicit(trouble, by_id) or _derived(
            trouble, by_service.get(trouble.service, ()), starts.get(trouble.service, ())
        )
        if link is not None:
            found[trouble.id] = link
    return found


def _order(deployment: Deployment) -> tuple[datetime, str]:
    return deployment.began_at, deployment.id


def _explicit(trouble: Trouble, by_id: Mapping[str, Deployment]) -> Link | None:
    stated = trouble.stated
    if stated is not None and (stated.deployment_id is None or stated.deployment_id in by_id):
        cause = None if stated.deployment_id is None else by_id[stated.deployment_id]
        return Link(cause, Basis.STATED, Confidence.CERTAIN)
    if not trouble.deployment_ids:
        return None
    named = [
        by_id[id_]
        for id_ in trouble.deployment_ids
        if id_ in by_id and (by_id[id_].service == trouble.service or trouble.labels.get(DEPLOYMENT_LABEL) == id_)
    ]
    return Link(max(named, key=_order), Basis.LABEL, Confidence.CERTAIN) if named else None


def _derived(trouble: Trouble, candidates: Sequence[Deployment], starts: Sequence[datetime]) -> Link | None:
    """`candidates` are of the service, in order; `starts` is when each began."""
    at = trouble.began_at
    environment = next((trouble.labels[name] for name in ENVIRONMENT_LABELS if trouble.labels.get(name)), None)
    versions = [trouble.labels[name] for name in VERSION_LABELS if trouble.labels.get(name)]
    last: Deployment | None = None
    for place in range(bisect_right(starts, at) - 1, -1, -1):
        candidate = candidates[place]
        if at - candidate.began_at >= VERSION_LOOK_BACK:
            break
        if not _is_there(candidate, environment):
            continue
        if any(_is_version(candidate, version) for version in versions):
            return Link(candidate, Basis.VERSION, Confidence.HIGH)
        last = last or candidate
        if not versions:
            break
    if last is None or at - last.began_at >= LOOK_BACK:
        return None
    soon = at - last.began_at < timedelta(hours=1)
    return Link(last, Basis.LAST_DEPLOYMENT, Confidence.MEDIUM if soon else Confidence.LOW)


def _is_there(deployment: Deployment, environment: str | None) -> bool:
    """An incident that names no environment, or production, is of production."""
    wanted = environment_of(environment)
    return deployment.environment == wanted or (deployment.production and wanted == environment_of(None))


def _is_version(deployment: Deployment, label: str) -> bool:
    if deployment.version is not None and label.removeprefix("v") == deployment.version.removeprefix("v"):
        return True
    sha = deployment.sha
    return sha is not None and re.fullmatch("[0-9a-f]{7,64}", label) is not None and sha.startswith(label)


# — causes of many —


@dataclass(frozen=True, slots=True)
class Troubles:
    """Many incidents, and of each the cause: a place in `deployments`, or that it is not known, or that it was none."""

    columns: Columns
    deployments: Sequence[Deployment]
    cause: Ints
    basis: Ints  # place in Basis; only where the cause is known
    confidence: Ints  # place in Confidence; likewise

    def link(self, row: int) -> Link:
        return Link(self.deployments[self.cause[row]], BASES[self.basis[row]], CONFIDENCES[self.confidence[row]])


UNKNOWN, NO_DEPLOYMENT = -1, -2
BASES, CONFIDENCES = tuple(Basis), tuple(Confidence)
_LOOK_BACK = LOOK_BACK // timedelta(microseconds=1)


def caused(
    columns: Columns, environments: Coded, told: Mapping[int, Trouble], deployments: Sequence[Deployment]
) -> Troubles:
    """As `links` of each. `told` are, by row, those of which more is known than the environment: a person has spoken,
    alerts name a deployment, labels name a version.
    """
    found = Troubles(columns, deployments, *(np.full(len(columns), UNKNOWN) for _ in range(3)))
    if len(columns):
        _last_before(found, environments)
    place = {id(each): place for place, each in enumerate(deployments)}
    sure = links(told.values(), deployments)
    for row, trouble in told.items():
        link = sure.get(trouble.id)
        found.cause[row] = UNKNOWN
        if link is not None:
            found.cause[row] = NO_DEPLOYMENT if link.deployment is None else place[id(link.deployment)]
            found.basis[row] = BASES.index(link.basis)
            found.confidence[row] = CONFIDENCES.index(link.confidence)
    return found


def _last_before(found: Troubles, environments: Coded) -> None:
    """The last deployment of the service and environment, if it began less than LOOK_BACK before."""
    began = found.columns.began()
    of_service = defaultdict[str, list[int]](list)
    for place, each in enumerate(found.deployments):
        if each.outcome not in {Outcome.PENDING, Outcome.CANCELLED}:
            of_service[each.service].append(place)
    both = found.columns.service.codes * len(environments.values) + environments.codes
    order = np.argsort(both, kind="stable")
    kinds, first = np.unique(both[order], return_index=True)
    for kind, rows in zip(kinds.tolist(), np.split(order, first[1:]), strict=True):
        service, environment = divmod(kind, len(environments.values))
        candidates = [
            place
            for place in of_service[found.columns.service.values[service]]
            if _is_there(found.deployments[place], environments.values[environment])
        ]
        if not candidates:
            continue
        candidates.sort(key=lambda place: _order(found.deployments[place]))
        starts = np.array([microseconds(found.deployments[place].began_at) for place in candidates])
        last = np.searchsorted(starts, began[rows], "right") - 1
        since = began[rows] - starts[last]
        holds = (last >= 0) & (since < _LOOK_BACK)
        linked = rows[holds]
        found.cause[linked] = np.array(candidates)[last[holds]]
        found.basis[linked] = BASES.index(Basis.LAST_DEPLOYMENT)
        medium, low = CONFIDENCES.index(Confidence.MEDIUM), CONFIDENCES.index(Confidence.LOW)
        found.confidence[linked] = np.where(since[holds] < HOUR_MICROSECONDS, medium, low)


# — numbers —


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
    """`n` in so many days, with the exact Poisson interval; per day."""

    n: int
    days: float
    per_day: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds. Of fewer than `SUMMARY_FROM` there are only these `values`, rising, and `mean`, which DORA's formula of
    the cost needs and which is shown nowhere else. The median's interval comes from the order statistics (scipy's
    quantile test).

    `pending` may still end, `left_out` never had a duration that counts.
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
    """A deployment that failed its users. `rows` are the incidents in `troubles` that tell so."""

    deployment: Deployment
    marked: bool
    rows: Sequence[int]
    troubles: Troubles

    @property
    def links(self) -> list[tuple[int, Link]]:
        """By the number of the incident, why. Made when asked for: few of many thousands are ever shown."""
        numbers = self.troubles.columns.number
        return [(int(numbers[row]), self.troubles.link(row)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Dora:
    """`unlinked` are incidents without a known cause; if a person says that no deployment caused it, that is known."""

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
    troubles: Troubles,
    *,
    begins: datetime,
    ends: datetime,
    service: str | None = None,
    environment: str | None = None,
) -> Dora:
    """Of deployments that finished, and incidents detected, in `[begins, ends)`; None: all services, production."""
    mine = [
        each
        for each in troubles.deployments
        if (service is None or each.service == service)
        and (each.production if environment is None else _is_there(each, environment))
        and each.finished_at is not None
        and begins <= each.finished_at < ends
    ]
    finished = [each for each in mine if each.outcome in {Outcome.SUCCEEDED, Outcome.FAILED}]
    succeeded = [each for each in finished if each.outcome is Outcome.SUCCEEDED]
    columns = troubles.columns
    counted = (columns.severity != 5) & ~columns.monitoring
    failures = _failures(finished, troubles, counted)
    detected_at = columns.detected_at()
    detected = counted & (microseconds(begins) <= detected_at) & (detected_at < microseconds(ends))
    if service is not None:
        detected &= np.array([name == service for name in columns.service.values], np.bool_)[columns.service.codes]
    failed = {failure.deployment.id for failure in failures}
    has_failed = np.array([each.id in failed for each in troubles.deployments] + [False, False], np.bool_)
    unplanned = [each for each in finished if each.unplanned]
    known = detected & (troubles.cause != UNKNOWN)
    bases = np.bincount(troubles.basis[known], minlength=len(BASES)).tolist()
    recovery = measured(columns, now=ends)["time_to_recover"]
    return Dora(
        finished=len(finished),
        frequency=frequency(len(succeeded), ends - begins),
        lead_time=_lead_time(succeeded),
        without_commit_times=sum(1 for each in succeeded if not any(commit.at for commit in each.commits)),
        change_fail_rate=ratio(len(failures), len(finished)),
        failures=failures,
        # The last two places are those of UNKNOWN and NO_DEPLOYMENT.
        failed_deployment_recovery_time=_recovery(recovery, counted & has_failed[troubles.cause]),
        time_to_recover=_recovery(recovery, detected),
        rework_rate=ratio(sum(1 for each in unplanned if each.made_for), len(finished)),
        unplanned_without_incident=sum(1 for each in unplanned if not each.made_for),
        unlinked=ratio(int(detected.sum() - known.sum()), int(detected.sum())),
        bases={basis: count for basis, count in zip(BASES, bases, strict=True) if count},
    )


def is_failure(deployment: Deployment, linked: Iterable[Link]) -> bool:
    """Whether a finished deployment needed immediate intervention, as somebody says or an incident shows."""
    finished = deployment.outcome in {Outcome.SUCCEEDED, Outcome.FAILED}
    return finished and (deployment.needed_intervention or any(True for _ in linked))


def _failures(finished: Iterable[Deployment], troubles: Troubles, counted: Booleans) -> tuple[Failure, ...]:
    """`finished` have finished."""
    rows = np.flatnonzero(counted & (troubles.cause >= 0))
    rows = rows[np.lexsort((troubles.columns.number[rows], troubles.cause[rows]))]
    places, first = np.unique(troubles.cause[rows], return_index=True)
    caused = dict(zip(places.tolist(), np.split(rows, first[1:]), strict=True)) if len(rows) else {}
    of = {troubles.deployments[place].id: those.tolist() for place, those in caused.items()}
    return tuple(
        Failure(each, each.needed_intervention, of.get(each.id, ()), troubles)
        for each in sorted({each.id: each for each in finished}.values(), key=_order)
        if each.needed_intervention or each.id in of
    )


def _lead_time(succeeded: Iterable[Deployment]) -> Durations:
    """A commit counts once, with the first deployment of its service that brought it."""
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
    # Exact: microseconds are the finest there is.
    microseconds_each = np.rint(np.asarray(values) * 10**6).astype(np.int64)
    mean = Decimal(int(microseconds_each.sum())).scaleb(-6) / len(values) if values else None
    if len(values) < SUMMARY_FROM:
        return Durations(len(values), values, None, None, None, None, mean, pending, left_out)
    median, p90 = (float(quantile) for quantile in np.quantile(values, (0.5, 0.9)))
    interval: Any = stats.quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    return Durations(len(values), None, median, low, high, p90, mean, pending, left_out)


# — what it costs, by DORA's formula —


def cost_of_downtime(
    deployments: Decimal | int, change_fail_rate: Decimal, hours_to_recover: Decimal, cost_per_hour: Decimal
) -> Decimal:
    """Deployments × change fail rate × mean time to recover × hourly cost of outage, exactly.

    A cross-check, not what incidents cost: it takes every failure for a full outage and none to overlap.
    """
    return deployments * change_fail_rate * hours_to_recover * cost_per_hour
