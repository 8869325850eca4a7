"""What Prometheus reads: each family, its labels and its help text.

Pure. A family that shows a number of the registry has its help text from there, and adds what is special about the
sample: that counters count incidents once, when they settle. What is only of the feed is defined here.
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
    """`formula` is its help text; `shows` the name of the definition that it is a sample of."""

    name: str
    type: FamilyType
    labels: tuple[str, ...]
    formula: str
    shows: str | None = None
    version: int = 1


_COUNTER, _GAUGE, _HISTOGRAM = FamilyType.COUNTER, FamilyType.GAUGE, FamilyType.HISTOGRAM
_PLACE = ("service", "severity")

RATIO_WINDOWS: Mapping[str, timedelta] = {"7d": timedelta(days=7), "30d": timedelta(days=30)}
RATIOS_REMEMBERED = timedelta(seconds=30)
_HOW_OLD = f"At most {RATIOS_REMEMBERED.total_seconds():.0f} s old; none for services within 'other'"
_SETTLED = "Over all time, of incidents that have settled: resolved for longer than their window and allowed lateness"


def _shows(defined: str, name: str, type_: FamilyType, labels: tuple[str, ...], sample: str) -> Family:
    """`sample`: how it differs from the number that REST gives for a period."""
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
            "Requests of a source by what became of them",
        ),
        Family(
            "aftermath_signals_total",
            _COUNTER,
            ("source", "verdict"),
            "Facts in deliveries by what they did",
        ),
        Family(
            "aftermath_truncated_alerts_total",
            _COUNTER,
            ("source",),
            "Alerts that a source said it left out of its deliveries",
        ),
        Family(
            "aftermath_truncated_deliveries_total",
            _COUNTER,
            ("source",),
            "Requests of a source that said they left alerts out",
        ),
        Family(
            "aftermath_quarantined_total",
            _COUNTER,
            ("source", "reason"),
            "Alerts that could not be read or applied, by reason, replayed since or not",
        ),
        Family(
            "aftermath_resolved_without_firing_total",
            _COUNTER,
            ("source",),
            "Alerts that were first told of by their resolve",
        ),
        Family(
            "aftermath_alerts_open",
            _GAUGE,
            ("source",),
            f"Alerts that have not ended. {_SAMPLED}",
        ),
        Family(
            "aftermath_alerts_unrefreshed",
            _GAUGE,
            ("source",),
            f"Alerts that have not ended and were not told of for a day. {_SAMPLED}",
        ),
        Family(
            "aftermath_ingest_lag_seconds",
            _HISTOGRAM,
            ("source",),
            "From the start or end of an alert to its arrival",
        ),
        Family(
            "aftermath_source_last_delivery_timestamp_seconds",
            _GAUGE,
            ("source",),
            "When the source delivered last",
        ),
        Family(
            "aftermath_heartbeat_last_timestamp_seconds",
            _GAUGE,
            ("source",),
            "When a heartbeat of the source came last; of several, the one that has been silent longest",
        ),
        Family(
            "aftermath_heartbeats_missing",
            _GAUGE,
            ("source",),
            "Heartbeats of the source that were declared missing and have not come again",
        ),
        Family(
            "aftermath_peers",
            _GAUGE,
            ("source", "state"),
            "Alertmanagers of the source that are asked for their list, by whether they answered the last time",
        ),
        Family(
            "aftermath_concluded_signals_total",
            _COUNTER,
            ("source", "reason"),
            "Signals about a source that Aftermath itself made and that told news: what it found out about the feed",
        ),
        Family(
            "aftermath_quarantine_size",
            _GAUGE,
            ("source",),
            "Alerts that could not be applied and wait to be replayed",
        ),
        Family(
            "aftermath_history_corrections_total",
            _COUNTER,
            (),
            "Changes to settled incidents, which counters and histograms do not follow and the REST API does. Changes "
            "of rates and of maintenance correct the past in the REST API too, and are not counted",
        ),
        _shows("incidents", "aftermath_incidents_total", _COUNTER, _PLACE, _SETTLED),
        _shows("open", "aftermath_incidents_open", _GAUGE, _PLACE, "Now, whenever they were detected"),
        _shows(
            "open",
            "aftermath_incidents_unacknowledged",
            _GAUGE,
            _PLACE,
            "Of these, whenever they were detected, the ones that nobody has acknowledged",
        ),
        Family(
            "aftermath_oldest_open_incident_start_timestamp_seconds",
            _GAUGE,
            ("service",),
            "Detection of the oldest open incident",
        ),
        Family(
            "aftermath_oldest_unacknowledged_incident_start_timestamp_seconds",
            _GAUGE,
            ("service",),
            "Detection of the oldest open incident that nobody has acknowledged",
        ),
        Family(
            "aftermath_services_folded",
            _GAUGE,
            (),
            "Services beyond the bound AFTERMATH_METRICS_SERVICES, whose numbers are in service 'other'",
        ),
        *(
            _shows(measure.name, f"aftermath_{measure.name}_seconds", _HISTOGRAM, _PLACE, _SETTLED)
            for measure in MEASURES
            if measure.histogram
        ),
        _shows("downtime", "aftermath_downtime_seconds_total", _COUNTER, ("service",), f"{_SETTLED}, uncut"),
        _shows(
            "cost",
            "aftermath_downtime_cost_total",
            _COUNTER,
            ("service", "currency"),
            f"{_SETTLED}, uncut; the expected amount, at rates and maintenance as they were known then",
        ),
        _shows(
            "deployments",
            "aftermath_deployments_total",
            _COUNTER,
            ("service", "outcome"),
            "Over all time and of every environment, by the first final outcome that was told; cancelled ones apart",
        ),
        _shows(
            "change_failures",
            "aftermath_change_failures_total",
            _COUNTER,
            ("service",),
            "Over all time, as soon as it is marked so or the incident has settled",
        ),
        _shows(
            "availability_weighted",
            "aftermath_availability_ratio",
            _GAUGE,
            ("service", "window"),
            f"Of the last days until now, as the window says. {_HOW_OLD}",
        ),
        _shows(
            "left_ratio",
            "aftermath_error_budget_remaining_ratio",
            _GAUGE,
            ("service",),
            f"In the window of the service's objective. {_HOW_OLD}",
        ),
        Family(
            "aftermath_database_up",
            _GAUGE,
            (),
            "1 while the database answers, 0 while it is away; then the families that it knows of are not served",
        ),
        Family(
            "aftermath_spool_records",
            _GAUGE,
            (),
            "Deliveries on the disk of this machine that wait for the database",
        ),
        Family(
            "aftermath_spool_bytes",
            _GAUGE,
            (),
            "What the spool takes up on the disk of this machine",
        ),
        Family(
            "aftermath_spool_max_bytes",
            _GAUGE,
            (),
            "What it may take up: AFTERMATH_SPOOL_MAX_BYTES; 0 where there is none",
        ),
        Family(
            "aftermath_spool_oldest_timestamp_seconds",
            _GAUGE,
            (),
            "When the oldest delivery in the spool came; none while it is empty",
        ),
        Family(
            "aftermath_build_info",
            FamilyType.INFO,
            ("version",),
            "The version that answers",
        ),
    )
}
