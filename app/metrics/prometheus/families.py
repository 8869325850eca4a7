"""The metric families exported to Prometheus, with labels and help texts.

Pure. A family that exports a number of the registry takes its help text from there and adds how the sample differs: for
example, counters count incidents once, when they settle. Families about Aftermath and its sources are defined here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from app.incidents.definitions import DEFINED
from app.incidents.measures.measures import MEASURES


class FamilyType(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Family:
    """`formula` is the help text; `shows` is the name of the definition it exports."""

    name: str
    type: FamilyType
    labels: tuple[str, ...]
    formula: str
    shows: str | None = None
    version: int = 1


_COUNTER, _GAUGE, _HISTOGRAM = FamilyType.COUNTER, FamilyType.GAUGE, FamilyType.HISTOGRAM
_PLACE = ("service", "severity")

RATIO_WINDOWS: Mapping[str, timedelta] = {"7d": timedelta(days=7), "30d": timedelta(days=30)}
RATIOS_CACHED_FOR = timedelta(seconds=30)
_HOW_OLD = f"At most {RATIOS_CACHED_FOR.total_seconds():.0f} s old; not exported for services folded into 'other'"
_SETTLED = "All time, for settled incidents: resolved for longer than their window plus the allowed lateness"


def _shows(defined: str, name: str, type_: FamilyType, labels: tuple[str, ...], sample: str) -> Family:
    """`sample` describes how it differs from the number that REST returns for a period."""
    known = DEFINED[defined]
    return Family(name, type_, labels, f"{known.label}: {known.formula}. {sample}", defined, known.version)


_SAMPLED = "At most five minutes old"

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            "aftermath_deliveries_total",
            _COUNTER,
            ("source", "outcome"),
            "Requests received from a source, by outcome",
        ),
        Family(
            "aftermath_signals_total",
            _COUNTER,
            ("source", "verdict"),
            "Signals received in deliveries, by verdict",
        ),
        Family(
            "aftermath_truncated_alerts_total",
            _COUNTER,
            ("source",),
            "Alerts that a source reported as omitted from its deliveries",
        ),
        Family(
            "aftermath_truncated_deliveries_total",
            _COUNTER,
            ("source",),
            "Requests from a source that reported omitted alerts",
        ),
        Family(
            "aftermath_quarantined_total",
            _COUNTER,
            ("source", "reason"),
            "Alerts that could not be parsed or applied, by reason, including those replayed since",
        ),
        Family(
            "aftermath_acknowledgements_dropped_total",
            _COUNTER,
            ("source",),
            "Acknowledgements dropped because no alert came for them within 7 days",
        ),
        Family(
            "aftermath_resolved_without_firing_total",
            _COUNTER,
            ("source",),
            "Alerts whose first signal was their resolve",
        ),
        Family(
            "aftermath_alerts_open",
            _GAUGE,
            ("source",),
            f"Open alerts. {_SAMPLED}",
        ),
        Family(
            "aftermath_alerts_unrefreshed",
            _GAUGE,
            ("source",),
            f"Open alerts not reported for a day. {_SAMPLED}",
        ),
        Family(
            "aftermath_ingest_lag_seconds",
            _HISTOGRAM,
            ("source",),
            "Time from the start or end of an alert to the arrival of its signal",
        ),
        Family(
            "aftermath_source_last_delivery_timestamp_seconds",
            _GAUGE,
            ("source",),
            "Time of the last delivery from the source",
        ),
        Family(
            "aftermath_heartbeat_last_timestamp_seconds",
            _GAUGE,
            ("source",),
            "Time the source's heartbeat was last received; with several heartbeats, the one silent for the longest",
        ),
        Family(
            "aftermath_heartbeats_missing",
            _GAUGE,
            ("source",),
            "Heartbeats of the source that are currently missing",
        ),
        Family(
            "aftermath_peers",
            _GAUGE,
            ("source", "state"),
            "Alertmanagers of the source that are polled, by whether they answered the last poll",
        ),
        Family(
            "aftermath_concluded_signals_total",
            _COUNTER,
            ("source", "reason"),
            "Signals that Aftermath generated for a source and that changed something, such as timeouts, by reason",
        ),
        Family(
            "aftermath_quarantine_size",
            _GAUGE,
            ("source",),
            "Alerts in quarantine, waiting to be replayed",
        ),
        Family(
            "aftermath_history_corrections_total",
            _COUNTER,
            (),
            "Changes to settled incidents; the REST API reflects them, counters and histograms do not. Changes to "
            "rates and maintenance also change past numbers in the REST API, but are not counted here",
        ),
        _shows("incidents", "aftermath_incidents_total", _COUNTER, _PLACE, _SETTLED),
        _shows("open", "aftermath_incidents_open", _GAUGE, _PLACE, "Current number, whenever detected"),
        _shows(
            "open",
            "aftermath_incidents_unacknowledged",
            _GAUGE,
            _PLACE,
            "Current number not yet acknowledged, whenever detected",
        ),
        Family(
            "aftermath_oldest_open_incident_start_timestamp_seconds",
            _GAUGE,
            ("service",),
            "Time the oldest open incident was detected",
        ),
        Family(
            "aftermath_oldest_unacknowledged_incident_start_timestamp_seconds",
            _GAUGE,
            ("service",),
            "Time the oldest open, unacknowledged incident was detected",
        ),
        Family(
            "aftermath_services_folded",
            _GAUGE,
            (),
            "Services beyond the limit AFTERMATH_METRICS_SERVICES, folded into service 'other'",
        ),
        *(
            _shows(measure.name, f"aftermath_{measure.name}_seconds", _HISTOGRAM, _PLACE, _SETTLED)
            for measure in MEASURES
            if measure.histogram
        ),
        _shows(
            "downtime",
            "aftermath_downtime_seconds_total",
            _COUNTER,
            ("service",),
            f"{_SETTLED}; full duration, not cut to a period",
        ),
        _shows(
            "cost",
            "aftermath_downtime_cost_total",
            _COUNTER,
            ("service", "currency"),
            f"{_SETTLED}; full duration; the expected amount, at the rates and maintenance known when they settled",
        ),
        _shows(
            "deployments",
            "aftermath_deployments_total",
            _COUNTER,
            ("service", "outcome"),
            "All time and all environments, by the first final outcome reported; canceled ones have their own outcome",
        ),
        _shows(
            "change_failures",
            "aftermath_change_failures_total",
            _COUNTER,
            ("service",),
            "All time; counted once the deployment is marked as failed or the incident it caused has settled",
        ),
        _shows(
            "availability_weighted",
            "aftermath_availability_ratio",
            _GAUGE,
            ("service", "window"),
            f"Over the last 7 or 30 days, depending on label window. {_HOW_OLD}",
        ),
        _shows(
            "left_ratio",
            "aftermath_error_budget_remaining_ratio",
            _GAUGE,
            ("service",),
            f"Over the window of the service's objective. {_HOW_OLD}",
        ),
        Family(
            "aftermath_database_up",
            _GAUGE,
            (),
            "1 if the database responds, else 0; while it is 0, metrics read from the database are not exported",
        ),
        Family(
            "aftermath_spool_records",
            _GAUGE,
            (),
            "Deliveries spooled on this machine's disk until the database is available",
        ),
        Family(
            "aftermath_spool_bytes",
            _GAUGE,
            (),
            "Size of the spool on this machine's disk",
        ),
        Family(
            "aftermath_spool_max_bytes",
            _GAUGE,
            (),
            "Maximum size of the spool, AFTERMATH_SPOOL_MAX_BYTES; 0 without a spool",
        ),
        Family(
            "aftermath_spool_oldest_timestamp_seconds",
            _GAUGE,
            (),
            "Time the oldest delivery in the spool was received; no sample while the spool is empty",
        ),
        Family(
            "aftermath_build_info",
            FamilyType.INFO,
            ("version",),
            "Version of the running service",
        ),
    )
}
