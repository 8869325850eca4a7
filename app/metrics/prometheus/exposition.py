"""Renders one snapshot in the Prometheus text format or OpenMetrics.

Pure, except for the metrics of this process (`python_…` and `process_…`). No sample has a timestamp.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app import __version__
from app.base.process.spool import Depth
from app.base.values.severity import severity_name
from app.incidents.grouping.signal import Verdict
from app.incidents.history.path import Effect, Phase
from app.incidents.measures.measures import DURATION_BOUNDS, INGEST_LAG_BOUNDS, MEASURES
from app.metrics.prometheus.families import FAMILIES
from app.metrics.prometheus.others import Gauges
from app.metrics.prometheus.ratios import Ratios
from app.metrics.prometheus.reviews import (
    COMPLETED_TALLY,
    ISSUE_VERDICTS,
    ISSUES_TALLY,
    PRIORITIES,
    REPORT_OUTCOMES,
    REPORTS_TALLY,
    REQUIRED_OUTCOMES,
    REQUIRED_TALLY,
)
from app.metrics.prometheus.snapshot import (
    CHAT_MESSAGES,
    OTHER,
    TARGET_OUTCOMES,
    TASKS,
    UNKNOWN_PHASE,
    Snapshot,
)

OUTCOMES = ("accepted", "partly_quarantined", "quarantined")
INFERRED_REASONS = (  # reasons of the signals that source health checks generate
    "heartbeat_missing",
    "heartbeat_returned",
    "heartbeat_forgotten",
    "timeout",
    "reconciled",
    "missed",
    "present",
)
DEPLOYMENT_OUTCOMES = ("succeeded", "failed", "canceled", "unknown")


@dataclass(frozen=True, slots=True)
class LocalMetrics:
    """Values that this machine knows without the database."""

    spool: Depth = field(default_factory=Depth)
    spool_max_bytes: int = 0


def text(
    snapshot: Snapshot | None,
    accept: str = "",
    ratios: Ratios | None = None,
    local: LocalMetrics | None = None,
    gauges: Gauges | None = None,
) -> tuple[bytes, str]:
    """The body and its content type: OpenMetrics if `accept` prefers it, else the classic text format.

    No snapshot means that the database is unavailable: its families are left out, because stale values would look
    current.
    """
    registry = CollectorRegistry()
    if snapshot:
        registry.register(DatabaseCollector(snapshot, ratios, gauges))
    for collector in (_ProcessCollector(local or LocalMetrics(), database_up=snapshot is not None), *_OF_THE_PROCESS):
        registry.register(collector)
    if _weight(accept, "application/openmetrics-text") > _weight(accept, "text/plain"):
        body: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return body, openmetrics.CONTENT_TYPE_LATEST
    return exposition.generate_latest(registry), exposition.CONTENT_TYPE_PLAIN_0_0_4


_OF_THE_PROCESS = (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR)


def _weight(accept: str, kind: str) -> float:
    """The quality (0 to 1) the Accept header gives OpenMetrics. The client library's parser raises on odd versions."""
    weights = [0.0]
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name == kind:
            weight = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
            weights.append(float(weight) if weight.replace(".", "", 1).isdecimal() and weight.isascii() else 0.0)
    return max(weights)


class DatabaseCollector(Collector):
    """Families read from the database, equal on all processes and replicas."""

    def __init__(self, snapshot: Snapshot, ratios: Ratios | None = None, gauges: Gauges | None = None) -> None:
        self.snapshot = snapshot
        self.gauges = gauges or {}
        self.ratios = ratios or Ratios({}, {}, {})

    def collect(self) -> Iterator[Metric]:
        yield from _sources(self.snapshot)
        yield from _incidents(self.snapshot)
        yield from _durations(self.snapshot)
        yield from _impact(self.snapshot)
        yield _tasks(self.snapshot)
        yield from _reviews(self.snapshot)
        yield from _response(self.snapshot, self.gauges)
        yield from _changes(self.snapshot)
        yield from _ratios(self.ratios)


class _ProcessCollector(Collector):
    def __init__(self, local: LocalMetrics, *, database_up: bool) -> None:
        self.local = local
        self.database_up = database_up

    def collect(self) -> Iterator[Metric]:
        depth = self.local.spool
        yield _gauge("database_up", {(): float(self.database_up)})
        yield _gauge("spool_records", {(): float(depth.records)})
        yield _gauge("spool_bytes", {(): float(depth.bytes)})
        yield _gauge("spool_max_bytes", {(): float(self.local.spool_max_bytes)})
        yield _gauge("spool_oldest_timestamp_seconds", {(): depth.oldest_at.timestamp() if depth.oldest_at else None})
        yield InfoMetricFamily("aftermath_build", FAMILIES["aftermath_build_info"].formula, {"version": __version__})


# — sources: what was received —


def _sources(snapshot: Snapshot) -> Iterator[Metric]:
    tallies: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for row in snapshot.tallies:
        tallies[row.name][row.source, row.label] = float(row.value)
    sources = snapshot.sources
    yield _counter(
        "deliveries",
        {(source, outcome): 0.0 for source in sources for outcome in OUTCOMES} | tallies["deliveries"],
    )
    yield _counter(
        "signals",
        {(source, str(verdict)): 0.0 for source in sources for verdict in Verdict} | tallies["signals"],
    )
    yield _counter(
        "truncated_alerts",
        {(source,): tallies["truncated_alerts"].get((source, ""), 0.0) for source in sources},
    )
    for name in ("truncated_deliveries", "resolved_without_firing", "acknowledgements_dropped"):
        yield _counter(name, {(source,): tallies[name].get((source, ""), 0.0) for source in sources})
    for name, tally in (("unrecognized_severities", "severity_unrecognized"), ("contradictions", "contradictions")):
        by_source = dict.fromkeys(((source,) for source in sources), 0.0)
        for (source, _), value in tallies[tally].items():
            by_source[source,] = by_source.get((source,), 0.0) + value
        yield _counter(name, by_source)
    yield _counter("quarantined", tallies["quarantined"])
    yield _counter(
        "inferred_signals",
        {(source, reason): 0.0 for source in sources for reason in INFERRED_REASONS} | tallies["inferred"],
    )
    beats = snapshot.heartbeats
    yield _gauge("heartbeat_last_timestamp_seconds", {(source,): beats[source].last_at.timestamp() for source in beats})
    yield _gauge("heartbeats_missing", {(source,): float(beats[source].missing) for source in beats})
    yield _gauge("peers", {labels: float(number) for labels, number in snapshot.peers.items()})
    for name in ("alerts_open", "alerts_unrefreshed"):
        yield _gauge(name, {(source,): float(getattr(found, name)) for source, found in snapshot.alerts.items()})
    lag = _histogram("ingest_lag_seconds")
    for source in sources:
        counts = [tallies["ingest_lag_bucket"].get((source, bound), 0.0) for bound in _LAG_LABELS]
        lag.add_metric((source,), _buckets(INGEST_LAG_BOUNDS, counts), tallies["ingest_lag_sum"].get((source, ""), 0.0))
    yield lag
    yield _gauge(
        "source_last_delivery_timestamp_seconds",
        {(source,): tallies["last_delivery"].get((source, "")) for source in sources},
    )
    yield _gauge(
        "quarantine_size",
        {(source,): float(snapshot.quarantine.get(source, 0)) for source in sources},
    )
    yield _counter(
        "history_corrections",
        {(): tallies["history_corrections"].get(("", ""), 0.0)},
    )


_LAG_LABELS = (*(f"{bound:g}" for bound in INGEST_LAG_BOUNDS), "+Inf")  # bucket names in the `tally` table


# — incidents —


def _incidents(snapshot: Snapshot) -> Iterator[Metric]:
    seen = _seen(snapshot)
    settled: dict[tuple[str, str, str], float] = {
        (row.service, row.environment, severity_name(row.severity)): float(row.n)
        for row in snapshot.measures
        if row.measure == "incidents"
    }
    yield _counter(
        "incidents",
        dict.fromkeys(seen, 0.0) | settled,
    )
    for name, column in (("incidents_open", "open"), ("incidents_unacknowledged", "unacknowledged")):
        now: dict[tuple[str, str, str], float] = {
            (row.service, row.environment, severity_name(row.severity)): float(getattr(row, column))
            for row in snapshot.unsettled
        }
        yield _gauge(name, dict.fromkeys(seen, 0.0) | now)
    for name, column in (
        ("oldest_open_incident_start_timestamp_seconds", "oldest_at"),
        ("oldest_unacknowledged_incident_start_timestamp_seconds", "oldest_unacknowledged_at"),
    ):
        oldest: dict[tuple[str, ...], float] = {}
        for row in snapshot.unsettled:
            at = getattr(row, column)
            if at is not None:
                oldest[row.service,] = min(at.timestamp(), oldest.get((row.service,), at.timestamp()))
        yield _gauge(name, oldest)
    yield _gauge(
        "services_folded",
        {(): float(snapshot.folded)},
    )


def _seen(snapshot: Snapshot) -> Sequence[tuple[str, str, str]]:
    """Services, environments and severities that have had incidents. Their series start at 0, before the first incident
    settles.
    """
    places = {(row.service, row.environment, row.severity) for row in snapshot.unsettled}
    places |= {(row.service, row.environment, row.severity) for row in snapshot.measures}
    return sorted((service, environment, severity_name(severity)) for service, environment, severity in places)


def _durations(snapshot: Snapshot) -> Iterator[Metric]:
    counts: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0] * (len(DURATION_BOUNDS) + 1))
    seconds: dict[tuple[str, ...], float] = defaultdict(float)
    for row in snapshot.measures:
        place: tuple[str, ...] = (row.measure, row.service, row.environment, severity_name(row.severity))
        counts[place][row.bucket] += float(row.n)
        seconds[place] += float(row.seconds)
    for measure in MEASURES:
        if not measure.histogram:
            continue
        family = _histogram(f"{measure.name}_seconds")
        for labels in _seen(snapshot):
            place = (measure.name, *labels)
            family.add_metric(labels, _buckets(DURATION_BOUNDS, counts[place]), seconds[place])
        yield family


def _impact(snapshot: Snapshot) -> Iterator[Metric]:
    known = [*snapshot.services, *([OTHER] if snapshot.folded else [])]
    yield _counter(
        "downtime_seconds",
        {(service,): 0.0 for service in known} | {(name,): float(sum_) for name, sum_ in snapshot.downtime.items()},
    )
    yield _counter(
        "downtime_cost",
        {labels: float(amount) for labels, amount in snapshot.cost.items()},
    )


def _tasks(snapshot: Snapshot) -> Metric:
    """Their tally holds the phase in place of the source."""
    phases = (*(str(phase) for phase in Phase), UNKNOWN_PHASE)
    none = {(phase, str(effect)): 0.0 for phase in phases for effect in Effect}
    return _counter(
        "tasks", none | {(row.source, row.label): float(row.value) for row in snapshot.tallies if row.name == TASKS}
    )


def _reviews(snapshot: Snapshot) -> Iterator[Metric]:
    """The tally of completed action items holds the priority in place of the source."""
    numbers = snapshot.reviews
    yield _gauge("reviews", {(state,): float(n) for state, n in numbers.reviews.items()})
    yield _gauge("reviews_overdue", {(): float(numbers.overdue)})
    due_at = numbers.oldest_due_at
    yield _gauge("review_oldest_due_timestamp_seconds", {(): due_at.timestamp() if due_at else None})
    outcomes = {(outcome,): 0.0 for outcome in REQUIRED_OUTCOMES}
    yield _counter("reviews_required", outcomes | {(label,): n for (_, label), n in _tally(snapshot, REQUIRED_TALLY)})
    yield _gauge("action_items", {labels: float(n) for labels, n in numbers.items.items()})
    yield _gauge("action_items_overdue", {(priority,): float(n) for priority, n in numbers.items_overdue.items()})
    oldest = {(priority,): at.timestamp() for priority, at in numbers.oldest_open_at.items()}
    yield _gauge("action_item_oldest_open_timestamp_seconds", oldest)
    none = {(priority, str(phase)): 0.0 for priority in PRIORITIES for phase in Phase}
    yield _counter("action_items_completed", none | dict(_tally(snapshot, COMPLETED_TALLY)))
    verdicts = {(verdict,): 0.0 for verdict in ISSUE_VERDICTS}
    yield _counter("issue_events", verdicts | {(label,): n for (_, label), n in _tally(snapshot, ISSUES_TALLY)})
    reports = {(outcome,): 0.0 for outcome in REPORT_OUTCOMES}
    yield _counter("public_reports", reports | {(label,): n for (_, label), n in _tally(snapshot, REPORTS_TALLY)})
    yield _gauge("public_reports_waiting", {(): float(numbers.reports_waiting)})


def _tally(snapshot: Snapshot, name: str) -> Iterator[tuple[tuple[str, str], float]]:
    """By source and label."""
    return (((row.source, row.label), float(row.value)) for row in snapshot.tallies if row.name == name)


RESPONSE_GAUGES = (
    "updates_overdue",
    "roles_vacant",
    "exit_criteria_open",
    "playbooks",
    "services_without_playbook",
    "delegates_missing",
)
STATUS_PAGE_GAUGES = ("components", "public_incidents_open", "public_updates_overdue")


def _response(snapshot: Snapshot, gauges: Gauges) -> Iterator[Metric]:
    """Their tallies hold the target and the format of the chat in place of the source."""
    tallies: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for row in snapshot.tallies:
        tallies[row.name][row.source, *row.label.split(" ")] = float(row.value)
    yield _counter(TARGET_OUTCOMES, tallies[TARGET_OUTCOMES])
    yield _counter(CHAT_MESSAGES, tallies[CHAT_MESSAGES])
    for name in (*RESPONSE_GAUGES, *STATUS_PAGE_GAUGES):
        yield _gauge(name, gauges.get(name, {}))


def _ratios(ratios: Ratios) -> Iterator[Metric]:
    yield _gauge("availability_ratio", ratios.availability)
    since = {(service,): at.timestamp() for service, at in ratios.in_service_since.items()}
    yield _gauge("service_in_service_since_timestamp_seconds", since)
    yield _gauge("error_budget_remaining_ratio", {(name,): left for name, left in ratios.budget_left.items()})


def _changes(snapshot: Snapshot) -> Iterator[Metric]:
    """Families about deployments. Their tallies hold the service in place of the source."""
    own = set(snapshot.services)
    deployments: dict[tuple[str, str], float] = {}
    failures: dict[tuple[str], float] = defaultdict(float)
    for row in snapshot.tallies:
        service = row.source if row.source in own else OTHER
        if row.name == "deployments":
            for outcome in DEPLOYMENT_OUTCOMES:
                deployments.setdefault((service, outcome), 0.0)
            deployments[service, row.label] += float(row.value)
            failures[service,] += 0.0
        elif row.name == "change_failures":
            failures[service,] += float(row.value)
    yield _counter("deployments", deployments)
    yield _counter("change_failures", failures)


# — families —


Labels = TypeVar("Labels", bound=tuple[str, ...])


def _counter(name: str, samples: Mapping[Labels, float]) -> Metric:
    known = FAMILIES[f"aftermath_{name}_total"]
    family = CounterMetricFamily(f"aftermath_{name}", known.formula, labels=known.labels)
    for values, value in sorted(samples.items()):
        family.add_metric(values, value)
    return family


def _gauge(name: str, samples: Mapping[Labels, float | None]) -> Metric:
    """A missing value gets no sample: 0 would be taken for a value."""
    known = FAMILIES[f"aftermath_{name}"]
    family = GaugeMetricFamily(known.name, known.formula, labels=known.labels)
    for values, value in sorted(samples.items()):
        if value is not None:
            family.add_metric(values, value)
    return family


def _histogram(name: str) -> HistogramMetricFamily:
    known = FAMILIES[f"aftermath_{name}"]
    return HistogramMetricFamily(known.name, known.formula, labels=known.labels)


def _buckets(bounds: Iterable[float], counts: Iterable[float]) -> list[tuple[str, float]]:
    """Cumulative buckets, as Prometheus expects; `counts` has one extra entry for +Inf."""
    labels = [*map(floatToGoString, bounds), "+Inf"]
    return list(zip(labels, accumulate(counts), strict=True))
