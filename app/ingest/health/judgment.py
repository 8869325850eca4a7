"""Derives the health of a source from its counts: a status, and reasons that a person can act on.

Pure. Covers the last day, or the lifetime of a younger source, so a fixed problem disappears after a day.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate

from app.incidents.grouping.signal import Verdict
from app.incidents.measures.measures import INGEST_LAG_BOUNDS
from app.ingest.health.heartbeat import Beats

UNREFRESHED_AFTER = timedelta(days=1)
ENOUGH = 10  # with fewer signals, no pattern is assumed
LATE = timedelta(minutes=15)


class SourceStatus(StrEnum):
    """From best to worst. `never_seen` is separate: nothing has been received yet, so there is nothing to judge."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILING = "failing"
    NEVER_SEEN = "never_seen"


@dataclass(frozen=True, slots=True)
class Reason:
    """One problem: a stable identifier, the observation, the remedy, and the resulting status of the source."""

    reason: str
    status: SourceStatus
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Lag:
    """Time from event to arrival, without repeats. Quantiles are upper bounds of histogram buckets."""

    signals: int
    mean_seconds: float | None
    median_at_most_seconds: float | None  # None: no signals, or beyond the last bound
    p95_at_most_seconds: float | None


Tallies = Mapping[tuple[str, str], float]  # of one source, by name and label


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of what was received in a span of time: the difference between two readings of the tallies."""

    seconds: float
    deliveries: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)  # by reason
    truncated_deliveries: int = 0
    truncated_alerts: int = 0
    resolved_without_firing: int = 0
    lag: Lag = field(default_factory=lambda: Lag(0, None, None, None))

    @property
    def signals(self) -> int:
        return sum(self.verdicts.values())

    @property
    def repeated(self) -> int:
        return self.verdicts.get(Verdict.REPEATED, 0)

    @property
    def deliveries_per_minute(self) -> float:
        return self.deliveries / self._minutes

    @property
    def signals_per_minute(self) -> float:
        return self.signals / self._minutes

    @property
    def _minutes(self) -> float:
        return max(self.seconds, 1.0) / 60

    @property
    def started(self) -> int:
        """Alerts that started."""
        return sum(self.verdicts.get(verdict, 0) for verdict in (Verdict.OPENED, Verdict.JOINED, Verdict.REOPENED))


def counts(now: Tallies, then: Tallies, *, seconds: float) -> Counts:
    """The difference between two readings that are `seconds` apart."""

    def gained(name: str) -> dict[str, float]:
        found = {label: value - then.get((kind, label), 0.0) for (kind, label), value in now.items() if kind == name}
        return {label: value for label, value in sorted(found.items()) if value}

    def whole(name: str) -> dict[str, int]:
        return {label: round(value) for label, value in gained(name).items()}

    return Counts(
        seconds=seconds,
        deliveries=sum(whole("deliveries").values()),
        verdicts=whole("signals"),
        quarantined=whole("quarantined"),
        truncated_deliveries=sum(whole("truncated_deliveries").values()),
        truncated_alerts=sum(whole("truncated_alerts").values()),
        resolved_without_firing=sum(whole("resolved_without_firing").values()),
        lag=_lag(whole("ingest_lag_bucket"), sum(gained("ingest_lag_sum").values())),
    )


def _lag(buckets: Mapping[str, int], total_seconds: float) -> Lag:
    bounds = [*INGEST_LAG_BOUNDS, None]
    upto = list(accumulate(buckets.get("+Inf" if bound is None else f"{bound:g}", 0) for bound in bounds))
    signals = upto[-1]
    if not signals:
        return Lag(0, None, None, None)

    def at_most(share: float) -> float | None:
        return next(bound for bound, reached in zip(bounds, upto, strict=True) if reached >= share * signals)

    return Lag(signals, total_seconds / signals, at_most(0.5), at_most(0.95))


@dataclass(frozen=True, slots=True)
class Observations:
    """Everything known about a source at one moment."""

    last_delivery_at: datetime | None
    recent: Counts  # of the last day, or of its lifetime if that is shorter
    open_alerts: int = 0
    unrefreshed: int = 0  # open, and not resent for UNREFRESHED_AFTER
    quarantined: Mapping[str, int] = field(default_factory=dict)  # items waiting to be replayed, by reason
    missing: Sequence[Beats] = ()
    peers: int = 0
    silent_peers: Mapping[str, str] = field(default_factory=dict)  # their errors by address


def judge(observed: Observations) -> tuple[SourceStatus, list[Reason]]:
    """The status, which is that of the worst reason, and all reasons, worst first."""
    if observed.last_delivery_at is None:
        return SourceStatus.NEVER_SEEN, [
            Reason(
                "never_delivered",
                SourceStatus.NEVER_SEEN,
                "Nothing has been received from this source yet.",
                "Point the sender at the webhook endpoint, with a token for this source. In the sender's log, 401 "
                "means a wrong token and a refused connection means a wrong address.",
            )
        ]
    found = sorted(_reasons(observed), key=lambda reason: _ORDER.index(reason.status), reverse=True)
    return found[0].status if found else SourceStatus.HEALTHY, found


_ORDER = list(SourceStatus)


def _reasons(observed: Observations) -> Iterator[Reason]:
    recent = observed.recent
    for beats in observed.missing:
        yield Reason(
            "heartbeat_missing",
            SourceStatus.FAILING,
            f"The heartbeat {beats.labels.get('alertname', beats.fingerprint)!r} was last received at "
            f"{beats.last_at:%Y-%m-%d %H:%M:%S} UTC.",
            "Check that it fires in Prometheus, that Prometheus reaches Alertmanager, and that Alertmanager reaches "
            "Aftermath (alertmanager_notifications_failed_total). If it was removed on purpose, DELETE it here.",
        )
    if observed.silent_peers:
        errors = "; ".join(f"{url} {error}" for url, error in sorted(observed.silent_peers.items()))
        yield Reason(
            "peers_silent",
            SourceStatus.FAILING if len(observed.silent_peers) == observed.peers else SourceStatus.DEGRADED,
            f"{len(observed.silent_peers)} of {observed.peers} peers did not answer the last poll: {errors}.",
            "Check the API address (http://host:9093, including any path prefix) and the credentials. Only peers that "
            "answer are considered; while none does, nothing is reconciled.",
        )
    if waiting := sum(observed.quarantined.values()):
        by_reason = ", ".join(f"{reason} {number}" for reason, number in sorted(observed.quarantined.items()))
        yield Reason(
            "quarantine_waiting",
            SourceStatus.DEGRADED,
            f"{waiting} items could not be read or applied and are not part of any incident: {by_reason}.",
            "GET /api/v1/quarantine shows them as received. Fix the sender or update Aftermath, then replay them.",
        )
    if recent.truncated_alerts:
        yield Reason(
            "truncated",
            SourceStatus.DEGRADED,
            f"The sender omitted {recent.truncated_alerts} alerts from {recent.truncated_deliveries} deliveries.",
            "Remove the sender's limit (Alertmanager: max_alerts: 0): an omitted resolve is never resent.",
        )
    if observed.unrefreshed:
        yield Reason(
            "unrefreshed",
            SourceStatus.DEGRADED,
            f"{observed.unrefreshed} of {observed.open_alerts} open alerts were not resent for a day.",
            "Their resolves were probably lost, for example because of a silence. Check whether they are still firing.",
        )
    if recent.started >= ENOUGH and not recent.verdicts.get(Verdict.RESOLVED) and not recent.resolved_without_firing:
        yield Reason(
            "resolves_missing",
            SourceStatus.DEGRADED,
            f"{recent.started} alerts started and none ended.",
            "Configure the sender to send resolves (Alertmanager: send_resolved: true) through the same receiver.",
        )
    if recent.resolved_without_firing >= ENOUGH and 2 * recent.resolved_without_firing > recent.started:
        yield Reason(
            "firings_missing",
            SourceStatus.DEGRADED,
            f"{recent.resolved_without_firing} of {recent.started} alerts were first reported as resolved.",
            "Their first notifications do not arrive: check the sender's log for failures, and reduce group_wait.",
        )
    median = recent.lag.median_at_most_seconds
    if recent.lag.signals >= ENOUGH and (median is None or median > LATE.total_seconds()):
        yield Reason(
            "late",
            SourceStatus.DEGRADED,
            f"Half of the signals arrive more than {LATE.total_seconds() / 60:.0f} minutes after the event.",
            "Compare the clocks of sender and receiver, and reduce the sender's group_interval.",
        )
