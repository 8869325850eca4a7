"""Derives the health of a source from its counts: a status, and reasons that a person can act on.

Pure. Covers the last day, or the lifetime of a younger source, so a fixed problem disappears after a day.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate

from app.base.values.severity import severity_name
from app.base.values.vocabulary import DEFAULT_SEVERITY
from app.incidents.grouping.signal import Verdict
from app.incidents.measures.measures import INGEST_LAG_BOUNDS
from app.ingest.health.heartbeat import BeatSeries

UNREFRESHED_AFTER = timedelta(days=1)
OVERDUE_AFTER = timedelta(minutes=10)  # more than Alertmanager's `group_interval` by default
MIN_SIGNALS = 10  # with fewer signals, no pattern is assumed
LATE = timedelta(minutes=15)
NEARLY_FULL_PERCENT = 80
MISSING_AT_MOST = 20  # missing heartbeats that have a reason of their own


class SourceStatus(StrEnum):
    """From best to worst. `never_seen` is separate: nothing has been received yet."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILING = "failing"
    NEVER_SEEN = "never_seen"


Fact = int | str | datetime


@dataclass(frozen=True, slots=True)
class Reason:
    """One problem: a stable identifier, the resulting status of the source, the facts, and their wording.

    `observed` and `remedy` are templates: `observed` has the names of facts in braces, and `remedy` the names of
    targets. `wording.py` fills them in; times and links look different on each surface.
    """

    reason: str
    status: SourceStatus
    observed: str
    remedy: str
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def since(self) -> datetime | None:
        """The last time at which all was well, if it is known."""
        since = self.facts.get("since")
        return since if isinstance(since, datetime) else None


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
    quarantine_refused: int = 0  # items that did not fit into quarantine
    truncated_deliveries: int = 0
    truncated_alerts: int = 0
    resolved_without_firing: int = 0
    severities_unrecognized: Mapping[str, int] = field(default_factory=dict)  # signals, by word
    contradictions: Mapping[str, int] = field(default_factory=dict)  # signals, by pair of senders
    contradicted_ends: int = 0
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
        quarantine_refused=sum(whole("quarantine_refused").values()),
        truncated_deliveries=sum(whole("truncated_deliveries").values()),
        truncated_alerts=sum(whole("truncated_alerts").values()),
        resolved_without_firing=sum(whole("resolved_without_firing").values()),
        severities_unrecognized=whole("severity_unrecognized"),
        contradictions=whole("contradictions"),
        contradicted_ends=sum(whole("contradicted_ends").values()),
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
class Reactions:
    """The reactions that the source has reported of the last week: acknowledgements, notes and others.

    `overdue` of those from the last day (`recent`) have waited for their incident for more than OVERDUE_AFTER.
    """

    waiting: int = 0  # without an incident
    recent: int = 0
    overdue: int = 0
    last_kind: str | None = None
    last_at: datetime | None = None  # when the person did it
    last_by: str | None = None


@dataclass(frozen=True, slots=True)
class Observations:
    """Everything known about a source at one moment."""

    last_delivery_at: datetime | None
    recent: Counts  # of the last day, or of its lifetime if that is shorter
    open_alerts: int = 0
    unrefreshed: int = 0  # open, and not resent for UNREFRESHED_AFTER
    quarantined: Mapping[str, int] = field(default_factory=dict)  # items waiting to be replayed, by reason
    quarantine_bytes: int = 0
    quarantine_quota: int = 0
    missing: Sequence[BeatSeries] = ()
    peers: int = 0
    silent_peers: Mapping[str, str] = field(default_factory=dict)  # their errors by address
    reactions: Reactions = field(default_factory=Reactions)


def judge(observed: Observations) -> tuple[SourceStatus, list[Reason]]:
    """The status, which is that of the worst reason, and all reasons, worst first."""
    if observed.last_delivery_at is None:
        return SourceStatus.NEVER_SEEN, [
            Reason(
                "never_delivered",
                SourceStatus.NEVER_SEEN,
                "Nothing has been received from this source yet.",
                "Point the sender to the webhook endpoint, with a token for this source. In the sender's log, 401 "
                "means a wrong token and a refused connection means a wrong address.",
            )
        ]
    found = sorted(_reasons(observed), key=lambda reason: _ORDER.index(reason.status), reverse=True)
    return found[0].status if found else SourceStatus.HEALTHY, found


_ORDER = list(SourceStatus)


def rank(status: SourceStatus) -> int:
    """Higher is worse: healthy, never seen, degraded, failing."""
    return _RANKS.index(status)


_RANKS = (SourceStatus.HEALTHY, SourceStatus.NEVER_SEEN, SourceStatus.DEGRADED, SourceStatus.FAILING)
_LISTED_AT_MOST = 10


def _listed(counts: Mapping[str, int]) -> str:
    """The most frequent ones: `purple` (12), `pink` (3)."""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"`{word}` ({number})" for word, number in most[:_LISTED_AT_MOST])
    return f"{shown} and {len(most) - _LISTED_AT_MOST} more" if len(most) > _LISTED_AT_MOST else shown


def _reasons(observed: Observations) -> Iterator[Reason]:
    recent = observed.recent
    yield from _missing_heartbeats(observed.missing)
    if observed.silent_peers:
        yield Reason(
            "peers_silent",
            SourceStatus.FAILING if len(observed.silent_peers) == observed.peers else SourceStatus.DEGRADED,
            "{silent} of {peers} peers did not respond to the last poll: {errors}.",
            "Check the API address (http://host:9093, including any path prefix) and the credentials. Only peers that "
            "respond are considered; while none does, nothing is reconciled.",
            {
                "silent": len(observed.silent_peers),
                "peers": observed.peers,
                "errors": "; ".join(f"{url} {error}" for url, error in sorted(observed.silent_peers.items())),
            },
        )
    yield from _of_quarantine(observed)
    if recent.truncated_alerts:
        yield Reason(
            "truncated",
            SourceStatus.DEGRADED,
            "The sender omitted {alerts} alerts from {deliveries} deliveries.",
            "Remove the sender's limit (Alertmanager: max_alerts: 0): an omitted resolve is never resent.",
            {"alerts": recent.truncated_alerts, "deliveries": recent.truncated_deliveries},
        )
    yield from _misunderstandings(recent)
    if overdue := observed.reactions.overdue:
        yield Reason(
            "reactions_waiting",
            SourceStatus.DEGRADED,
            "{overdue} of {recent} acknowledgements, notes and other reactions of the last day have no incident.",
            "If the alerts never reach Aftermath, have the other tool report only those that do. If they do, "
            "Alertmanager sends a different key to each receiver, because the receivers are on different routes: put "
            "both "
            "on one route, or set `correlation_label` of the source of the alerts.",
            {"overdue": overdue, "recent": observed.reactions.recent},
        )
    if observed.unrefreshed:
        yield Reason(
            "unrefreshed",
            SourceStatus.DEGRADED,
            "{unrefreshed} of {open} open alerts were not resent for a day.",
            "Their resolves were probably lost, for example because of a silence. Check whether they are still firing "
            "({open_incidents}).",
            {"unrefreshed": observed.unrefreshed, "open": observed.open_alerts},
        )
    if (
        recent.started >= MIN_SIGNALS
        and not recent.verdicts.get(Verdict.RESOLVED)
        and not recent.resolved_without_firing
    ):
        yield Reason(
            "resolves_missing",
            SourceStatus.DEGRADED,
            "{started} alerts started and none ended.",
            "Configure the sender to send resolves (Alertmanager: send_resolved: true) through the same receiver.",
            {"started": recent.started},
        )
    if recent.resolved_without_firing >= MIN_SIGNALS and 2 * recent.resolved_without_firing > recent.started:
        yield Reason(
            "firings_missing",
            SourceStatus.DEGRADED,
            "{resolved} of {started} alerts were first reported as resolved.",
            "Their firing notifications do not arrive: check the sender's log for failures, and reduce group_wait.",
            {"resolved": recent.resolved_without_firing, "started": recent.started},
        )
    if recent.contradicted_ends:
        yield Reason(
            "contradicting_reports",
            SourceStatus.DEGRADED,
            "{ends} ends of alerts were contradicted by later reports that the alerts still fire.",
            "If several systems or tenants send as this source, give each its own source and token: one of them ends "
            "the alerts of the other. Otherwise the sender lets alerts expire: check whether Prometheus is late "
            "(prometheus_rule_group_iterations_missed_total).",
            {"ends": recent.contradicted_ends},
        )
    median = recent.lag.median_at_most_seconds
    if recent.lag.signals >= MIN_SIGNALS and (median is None or median > LATE.total_seconds()):
        yield Reason(
            "late",
            SourceStatus.DEGRADED,
            "Half of the signals arrive more than {minutes} minutes after the event.",
            "Compare the clocks of sender and receiver, and reduce the sender's group_interval.",
            {"minutes": LATE // timedelta(minutes=1)},
        )


def _of_quarantine(observed: Observations) -> Iterator[Reason]:
    refused, quota = observed.recent.quarantine_refused, observed.quarantine_quota
    full = 100 * observed.quarantine_bytes // quota if quota else 0
    if refused or full >= NEARLY_FULL_PERCENT:
        yield Reason(
            "quarantine_full",
            SourceStatus.FAILING if refused else SourceStatus.DEGRADED,
            "The quarantine of this source is {percent} % full ({bytes} of {quota} bytes)."
            + (" Items that did not fit were refused with 503: {refused}." if refused else ""),
            "Fix the sender or update Aftermath, replay the items that matter, and then delete the rest "
            "({quarantine_delete}), or raise AFTERMATH_QUARANTINE_BYTES.",
            {"percent": full, "bytes": observed.quarantine_bytes, "quota": quota, "refused": refused},
        )
    if waiting := sum(observed.quarantined.values()):
        yield Reason(
            "quarantine_waiting",
            SourceStatus.DEGRADED,
            "Items that could not be read or applied are in quarantine and not part of any incident: {by_reason}.",
            "See what was received ({quarantine}). Fix the sender or update Aftermath, then replay them.",
            {"waiting": waiting, "by_reason": _listed(observed.quarantined)},
        )


def _misunderstandings(recent: Counts) -> Iterator[Reason]:
    """Reasons about data that was received but may be misunderstood."""
    if contradictions := recent.contradictions:
        yield Reason(
            "contradicting_senders",
            SourceStatus.DEGRADED,
            "Signals contradict what another sender of this source reported about the same alert: {by_senders}.",
            "Two monitoring systems probably share this source and end each other's alerts. Create one source, with a "
            "token of its own, per tenant, organization or cluster. Only the peers of one cluster share a source; if "
            "these are peers, check that they are connected to each other.",
            {"signals": sum(contradictions.values()), "by_senders": _listed(contradictions)},
        )
    if words := recent.severities_unrecognized:
        yield Reason(
            "severity_unrecognized",
            SourceStatus.DEGRADED,
            "Signals have an unknown severity, so their alerts count as {counted_as}: {by_word}.",
            "Add each word to `severities` of the rule that matches the alerts ({rules}), or have the sender use a "
            "known word.",
            {
                "signals": sum(words.values()),
                "counted_as": severity_name(DEFAULT_SEVERITY),
                "by_word": _listed(words),
            },
        )


def _missing_heartbeats(missing: Sequence[BeatSeries]) -> Iterator[Reason]:
    for beats in missing[:MISSING_AT_MOST]:
        yield Reason(
            "heartbeat_missing",
            SourceStatus.FAILING,
            "The heartbeat {name!r} was last received at {since}.",
            "Check that it fires in Prometheus, that Prometheus reaches Alertmanager, and that Alertmanager reaches "
            "Aftermath (alertmanager_notifications_failed_total). If it was removed on purpose, stop expecting it "
            "({heartbeat}).",
            {
                "name": beats.labels.get("alertname", beats.fingerprint),
                "fingerprint": beats.fingerprint,
                "since": beats.last_at,
            },
        )
    if (more := len(missing) - MISSING_AT_MOST) > 0:
        yield Reason(
            "more_heartbeats_missing",
            SourceStatus.FAILING,
            "More heartbeats are missing: {number}.",
            "A heartbeat rule may match alerts that are not heartbeats: check its matchers ({rules}).",
            {"number": more},
        )
