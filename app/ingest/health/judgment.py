"""How a source is doing: from what was counted of it to a status, and reasons that a person can act on.

Pure. What is judged is the last day, or all there is of a younger source: what has been mended is forgotten by then.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate

from app.incidents.grouping.signal import Verdict
from app.incidents.measures.measures import INGEST_LAG_BOUNDS
from app.ingest.health.heartbeat import Heartbeat

UNREFRESHED_AFTER = timedelta(days=1)
ENOUGH = 10  # fewer signals than this are no pattern
LATE = timedelta(minutes=15)


class SourceStatus(StrEnum):
    """From best to worst; `unheard` stands apart: nothing has come yet, so nothing can be said."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILING = "failing"
    UNHEARD = "unheard"


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is wrong: a stable word, what was seen, and what to do about it. `status` is what it makes of the
    source.
    """

    reason: str
    status: SourceStatus
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Lag:
    """From event to arrival, of signals that told news. Quantiles are the bounds of the buckets that hold them."""

    signals: int
    mean_seconds: float | None
    median_at_most_seconds: float | None  # None: none, or beyond the last bound
    p95_at_most_seconds: float | None


Tallies = Mapping[tuple[str, str], float]  # of one source, by name and label


@dataclass(frozen=True, slots=True)
class Counts:
    """What came in a stretch of time: the difference of two readings of the tallies."""

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
    def began(self) -> int:
        """Alerts that began."""
        return sum(self.verdicts.get(verdict, 0) for verdict in (Verdict.OPENED, Verdict.JOINED, Verdict.REOPENED))


def counts(now: Tallies, then: Tallies, *, seconds: float) -> Counts:
    """What was counted between two readings."""

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
class Seen:
    """What is known of a source at one moment."""

    last_delivery_at: datetime | None
    recent: Counts  # of the last day, or since there is something
    open_alerts: int = 0
    unrefreshed: int = 0  # open, and not told of for UNREFRESHED_AFTER
    waiting: Mapping[str, int] = field(default_factory=dict)  # in quarantine, by reason
    missing: Sequence[Heartbeat] = ()
    peers: int = 0
    peers_silent: Mapping[str, str] = field(default_factory=dict)  # why, by address


def judge(seen: Seen) -> tuple[SourceStatus, list[Reason]]:
    """The worst of its reasons, which come worst first; `healthy` if there is none."""
    if seen.last_delivery_at is None:
        return SourceStatus.UNHEARD, [
            Reason(
                "never_delivered",
                SourceStatus.UNHEARD,
                "Nothing has ever come from this source.",
                "Point a receiver at its door with a token of this source. In the sender's log 401 means a wrong "
                "token, a refused connection a wrong address.",
            )
        ]
    found = sorted(_reasons(seen), key=lambda reason: _ORDER.index(reason.status), reverse=True)
    return found[0].status if found else SourceStatus.HEALTHY, found


_ORDER = list(SourceStatus)


def _reasons(seen: Seen) -> Iterator[Reason]:
    recent = seen.recent
    for beat in seen.missing:
        yield Reason(
            "heartbeat_missing",
            SourceStatus.FAILING,
            f"The heartbeat {beat.labels.get('alertname', beat.fingerprint)!r} came last at "
            f"{beat.last_at:%Y-%m-%d %H:%M:%S} UTC.",
            "Does it fire in Prometheus, does Prometheus reach Alertmanager, does Alertmanager reach Aftermath "
            "(alertmanager_notifications_failed_total)? If it is gone for good, DELETE it here.",
        )
    if seen.peers_silent:
        all_of_them = len(seen.peers_silent) == seen.peers
        said = "; ".join(f"{url} {error}" for url, error in sorted(seen.peers_silent.items()))
        yield Reason(
            "peers_silent",
            SourceStatus.FAILING if all_of_them else SourceStatus.DEGRADED,
            f"{len(seen.peers_silent)} of {seen.peers} peers did not give their list when asked last: {said}.",
            "Is the address that of the API (http://host:9093, with its path prefix), and are the credentials right? "
            "The peers that answer decide; while none does, nothing is reconciled.",
        )
    if waiting := sum(seen.waiting.values()):
        why = ", ".join(f"{reason} {number}" for reason, number in sorted(seen.waiting.items()))
        yield Reason(
            "quarantine_waiting",
            SourceStatus.DEGRADED,
            f"{waiting} could not be read or applied and are in no incident: {why}.",
            "GET /api/v1/quarantine shows them as they came. Mend the sender or update Aftermath, then replay them.",
        )
    if recent.truncated_alerts:
        yield Reason(
            "truncated",
            SourceStatus.DEGRADED,
            f"The sender left {recent.truncated_alerts} alerts out of {recent.truncated_deliveries} deliveries.",
            "Set the sender's limit to none (Alertmanager: max_alerts: 0): resolves that are cut off never come again.",
        )
    if seen.unrefreshed:
        yield Reason(
            "unrefreshed",
            SourceStatus.DEGRADED,
            f"{seen.unrefreshed} of {seen.open_alerts} open alerts have not been told of for a day.",
            "Their resolves were probably lost: a silence swallows them. Look whether they still fire.",
        )
    if recent.began >= ENOUGH and not recent.verdicts.get(Verdict.RESOLVED) and not recent.resolved_without_firing:
        yield Reason(
            "resolves_missing",
            SourceStatus.DEGRADED,
            f"{recent.began} alerts began and none has ended.",
            "Let the sender tell of ends too (Alertmanager: send_resolved: true), through the same receiver.",
        )
    if recent.resolved_without_firing >= ENOUGH and 2 * recent.resolved_without_firing > recent.began:
        yield Reason(
            "firings_missing",
            SourceStatus.DEGRADED,
            f"{recent.resolved_without_firing} of {recent.began} alerts were first told of when they had ended.",
            "The first notifications do not arrive: look for failures in the sender's log, and for a long group_wait.",
        )
    median = recent.lag.median_at_most_seconds
    if recent.lag.signals >= ENOUGH and (median is None or median > LATE.total_seconds()):
        yield Reason(
            "late",
            SourceStatus.DEGRADED,
            f"Half of what is told has happened more than {LATE.total_seconds() / 60:.0f} minutes before it arrives.",
            "Compare the clocks of sender and receiver, and lower the sender's group_interval.",
        )
