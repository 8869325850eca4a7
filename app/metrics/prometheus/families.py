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
_PLACE = ("service", "environment", "severity")

RATIO_WINDOWS: Mapping[str, timedelta] = {"7d": timedelta(days=7), "30d": timedelta(days=30)}
RATIOS_CACHED_FOR = timedelta(seconds=30)
_HOW_OLD = (
    f"The value is at most {RATIOS_CACHED_FOR.total_seconds():.0f} s old; not exported for services folded into 'other'"
)
_RECENT = f"The value is at most {RATIOS_CACHED_FOR.total_seconds():.0f} s old"
_SETTLED = "All time, for settled incidents: resolved for longer than their window plus the allowed lateness"


def _shows(defined: str, name: str, type_: FamilyType, labels: tuple[str, ...], sample: str) -> Family:
    """`sample` describes how it differs from the number that REST returns for a period."""
    known = DEFINED[defined]
    return Family(name, type_, labels, f"{known.label}: {known.formula}. {sample}", defined, known.version)


_SAMPLED = "The value is at most five minutes old"

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
            "Acknowledgements dropped because no matching alert arrived within 7 days",
        ),
        Family(
            "aftermath_resolved_without_firing_total",
            _COUNTER,
            ("source",),
            "Alerts whose first signal was their resolve",
        ),
        Family(
            "aftermath_unrecognized_severities_total",
            _COUNTER,
            ("source",),
            "Signals with an unknown severity, to which the default applies",
        ),
        Family(
            "aftermath_contradictions_total",
            _COUNTER,
            ("source",),
            "Signals that contradict what another sender of the same source reported about the same alert",
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
            "Alertmanagers of the source that are polled, by whether they responded to the last poll",
        ),
        Family(
            "aftermath_inferred_signals_total",
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
        _shows("open", "aftermath_incidents_open", _GAUGE, _PLACE, "Exported: the current number, whenever detected"),
        _shows(
            "open",
            "aftermath_incidents_unacknowledged",
            _GAUGE,
            _PLACE,
            "Exported: the current number of those not yet acknowledged, whenever detected",
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
        Family(
            "aftermath_tasks_total",
            _COUNTER,
            ("phase", "effect"),
            "Tasks recorded to restore service, by phase of the incident and effect as known when it "
            f"settled. {_SETTLED}. "
            "The phase is unknown between detection and end without a stated identification",
        ),
        Family(
            "aftermath_reviews",
            _GAUGE,
            ("state",),
            "Reviews, by state",
        ),
        Family(
            "aftermath_reviews_overdue",
            _GAUGE,
            (),
            "Draft reviews that are overdue",
        ),
        Family(
            "aftermath_review_oldest_due_timestamp_seconds",
            _GAUGE,
            (),
            "Time the draft that is due first is or was due; no sample without such a draft",
        ),
        Family(
            "aftermath_reviews_required_total",
            _COUNTER,
            ("outcome",),
            "Required reviews that were held in time (held), held after they were due (late), or dropped; each is "
            "counted once, also if it is reopened",
        ),
        Family(
            "aftermath_action_items",
            _GAUGE,
            ("state", "priority"),
            "Action items, by state and priority",
        ),
        Family(
            "aftermath_action_items_overdue",
            _GAUGE,
            ("priority",),
            "Open action items that are overdue",
        ),
        Family(
            "aftermath_action_item_oldest_open_timestamp_seconds",
            _GAUGE,
            ("priority",),
            "Time the oldest action item that is neither done nor dropped was created",
        ),
        Family(
            "aftermath_action_items_completed_total",
            _COUNTER,
            ("priority", "phase"),
            "Action items done, by priority then and by the phase of an incident that they improve; one that was "
            "reopened and done again counts twice",
        ),
        Family(
            "aftermath_issue_events_total",
            _COUNTER,
            ("verdict",),
            "Reports of trackers about the state of an issue, by what was done with them: stored for its action item "
            "(recorded), nothing new (repeated), or kept for a week because no action item has its link (waiting)",
        ),
        Family(
            "aftermath_public_reports_total",
            _COUNTER,
            ("outcome",),
            "Versions of reports for customers that were written, published or withdrawn",
        ),
        Family(
            "aftermath_public_reports_waiting",
            _GAUGE,
            (),
            "Reports for customers whose newest version has been waiting for approval for a day",
        ),
        _shows(
            "target_outcomes",
            "aftermath_target_outcomes_total",
            _COUNTER,
            ("target", "severity", "outcome"),
            f"{_SETTLED}; only where something was agreed on",
        ),
        Family(
            "aftermath_chat_messages_total",
            _COUNTER,
            ("kind", "outcome"),
            "Chat messages imported into timelines, by format and outcome",
        ),
        _shows("updates_overdue", "aftermath_updates_overdue", _GAUGE, ("service", "severity"), _RECENT),
        Family(
            "aftermath_roles_vacant",
            _GAUGE,
            ("role",),
            "Open incidents, detected more than 5 minutes ago, whose type needs the role, but no one holds it. "
            f"{_RECENT}",
        ),
        Family(
            "aftermath_exit_criteria_open",
            _GAUGE,
            (),
            f"Exit criteria of open incidents that are not met. {_RECENT}",
        ),
        Family(
            "aftermath_playbooks",
            _GAUGE,
            ("state",),
            f"Playbooks by the state of the version in use, else of the newest version. {_RECENT}",
        ),
        Family(
            "aftermath_services_without_playbook",
            _GAUGE,
            (),
            f"Services with an incident in the last 90 days, but without an approved playbook. {_RECENT}",
        ),
        Family(
            "aftermath_delegates_missing",
            _GAUGE,
            ("role",),
            "Owners, each counted once, with fewer than two delegates for the role who are available "
            "for the next 7 days. "
            f"{_RECENT}",
        ),
        Family(
            "aftermath_components",
            _GAUGE,
            ("status",),
            f"Components of the status page, by published status. {_RECENT}",
        ),
        Family(
            "aftermath_public_incidents_open",
            _GAUGE,
            (),
            f"Problems on the status page that are not resolved there; maintenance is not counted. {_RECENT}",
        ),
        Family(
            "aftermath_public_updates_overdue",
            _GAUGE,
            (),
            "Problems on the status page without an update for 20 minutes, in the first two hours after their first "
            f"update. {_RECENT}",
        ),
        _shows(
            "deployments",
            "aftermath_deployments_total",
            _COUNTER,
            ("service", "outcome"),
            "All time and all environments, by the first final outcome reported; canceled ones and unknown outcomes "
            "have their own label value",
        ),
        _shows(
            "change_failures",
            "aftermath_change_failures_total",
            _COUNTER,
            ("service",),
            "All time; counted once the deployment is marked as failed or the incident it caused has settled, with at "
            "least medium confidence",
        ),
        _shows(
            "availability_weighted",
            "aftermath_availability_ratio",
            _GAUGE,
            ("service", "window"),
            f"Over the last 7 or 30 days, depending on label window; of a service that has not been in service for as "
            f"long, since then. {_HOW_OLD}",
        ),
        Family(
            "aftermath_service_in_service_since_timestamp_seconds",
            _GAUGE,
            ("service",),
            "Time from which the availability and error budget of the service are computed: as stated, else when it "
            "was first seen",
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
