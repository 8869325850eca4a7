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
from app.base.severity import severity_name
from app.base.spool import Depth
from app.incidents.grouping.signal import Verdict
from app.incidents.measures.measures import DURATION_BOUNDS, INGEST_LAG_BOUNDS, MEASURES
from app.metrics.prometheus.families import FAMILIES
from app.metrics.prometheus.ratios import Ratios
from app.metrics.prometheus.snapshot import OTHER, Snapshot

OUTCOMES = ("accepted", "partly_quarantined", "quarantined")
CONCLUSIONS = (  # reasons of the signals that source health checks generate
    "heartbeat_missing",
    "heartbeat_returned",
    "heartbeat_forgotten",
    "timeout",
    "reconciled",
    "missed",
    "present",
)
DEPLOYMENT_OUTCOMES = ("succeeded", "failed", "canceled")


@dataclass(frozen=True, slots=True)
class LocalMetrics:
    """Values that this machine knows without the database."""

    spool: Depth = field(default_factory=Depth)
    spool_max_bytes: int = 0


def text(
    snapshot: Snapshot | None, accept: str = "", ratios: Ratios | None = None, local: LocalMetrics | None = None
) -> tuple[bytes, str]:
    """The body and its content type: OpenMetrics if `accept` prefers it, else the classic text format.

    No snapshot means that the database is unavailable: its families are left out, because stale values would look
    current.
    """
    registry = CollectorRegistry()
    if snapshot:
        registry.register(Business(snapshot, ratios))
    for collector in (_Local(local or LocalMetrics(), database_up=snapshot is not None), *_OF_THE_PROCESS):
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


class Business(Collector):
    """Families read from the database, equal on all processes and replicas."""

    def __init__(self, snapshot: Snapshot, ratios: Ratios | None = None) -> None:
        self.snapshot = snapshot
        self.ratios = ratios or Ratios({}, {})

    def collect(self) -> Iterator[Metric]:
        yield from _feed(self.snapshot)
        yield from _incidents(self.snapshot)
        yield from _durations(self.snapshot)
        yield from _harm(self.snapshot)
        yield from _changes(self.snapshot)
        yield from _ratios(self.ratios)


class _Local(Collector):
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


def _feed(snapshot: Snapshot) -> Iterator[Metric]:
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
    yield _counter("quarantined", tallies["quarantined"])
    yield _counter(
        "concluded_signals",
        {(source, reason): 0.0 for source in sources for reason in CONCLUSIONS} | tallies["concluded"],
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
    settled: dict[tuple[str, str], float] = {
        (row.service, severity_name(row.severity)): float(row.n)
        for row in snapshot.measures
        if row.measure == "incidents"
    }
    yield _counter(
        "incidents",
        dict.fromkeys(seen, 0.0) | settled,
    )
    for name, column in (("incidents_open", "open"), ("incidents_unacknowledged", "unacknowledged")):
        now: dict[tuple[str, str], float] = {
            (row.service, severity_name(row.severity)): float(getattr(row, column)) for row in snapshot.unsettled
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


def _seen(snapshot: Snapshot) -> Sequence[tuple[str, str]]:
    """Services and severities that have had incidents. Their series start at 0, before the first incident settles."""
    places = {(row.service, row.severity) for row in snapshot.unsettled}
    places |= {(row.service, row.severity) for row in snapshot.measures}
    return sorted((service, severity_name(severity)) for service, severity in places)


def _durations(snapshot: Snapshot) -> Iterator[Metric]:
    counts: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0] * (len(DURATION_BOUNDS) + 1))
    seconds: dict[tuple[str, str, str], float] = defaultdict(float)
    for row in snapshot.measures:
        place: tuple[str, str, str] = (row.measure, row.service, severity_name(row.severity))
        counts[place][row.bucket] += float(row.n)
        seconds[place] += float(row.seconds)
    for measure in MEASURES:
        if not measure.histogram:
            continue
        family = _histogram(f"{measure.name}_seconds")
        for service, severity in _seen(snapshot):
            place = (measure.name, service, severity)
            family.add_metric((service, severity), _buckets(DURATION_BOUNDS, counts[place]), seconds[place])
        yield family


def _harm(snapshot: Snapshot) -> Iterator[Metric]:
    known = [*snapshot.services, *([OTHER] if snapshot.folded else [])]
    yield _counter(
        "downtime_seconds",
        {(service,): 0.0 for service in known} | {(name,): float(sum_) for name, sum_ in snapshot.downtime.items()},
    )
    yield _counter(
        "downtime_cost",
        {labels: float(amount) for labels, amount in snapshot.cost.items()},
    )


def _ratios(ratios: Ratios) -> Iterator[Metric]:
    yield _gauge("availability_ratio", ratios.availability)
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
