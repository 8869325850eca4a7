"""The Grafana dashboard as code: `make dashboard` writes aftermath.json, which is what Grafana reads.

Names, labels and first sentences come from the registry of definitions. Three rules shape the queries:

- Every replica and worker exports the same business numbers, so instances are joined with max, never added up.
- Counters count settled incidents, which are rare, and never fall, not even over a restart. The increase in a period is
  therefore a plain difference (`gained`); increase() would extrapolate, and would miss a series' first value.
- No data is not 0, and there is no quantile of a few values.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grafana_foundation_sdk.builders import bargauge, heatmap, stat, table, timeseries
from grafana_foundation_sdk.builders import common as layout
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, prometheus
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmaps

from app.incidents.definitions.model import SUMMARY_FROM
from app.metrics.prometheus.families import FAMILIES

WRITTEN = Path(__file__).with_name("aftermath.json")
DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

# The heartbeat of deploy/prometheus/aftermath.rules.yml needs no response, so it is left out.
CHOSEN = {
    "service": 'service=~"$service", service!="heartbeat"',
    "environment": 'environment=~"$environment"',
    "severity": 'severity=~"$severity"',
}


def written() -> str:
    """The content of aftermath.json."""
    return json.dumps(built(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def built() -> model.Dashboard:
    made = (
        grafana.Dashboard("Aftermath")
        .uid("aftermath")
        .description(
            "Incidents and their effects, as counted by Aftermath. Each panel states the limits of its number."
        )
        .tags(["aftermath", "incidents"])
        .time("now-7d", "now")
        .timezone("browser")
        .refresh("1m")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    for variable in _variables():
        made.with_variable(variable)
    for row, panels in ROWS.items():
        made.with_row(grafana.Row(row))
        for panel in panels:
            made.with_panel(panel.built())
    dashboard = made.build()
    # Links to a panel name its number.
    for number, placed in enumerate(dashboard.panels or (), 1):
        placed.id_val = number
    return dashboard


def _variables() -> Sequence[grafana.DatasourceVariable | grafana.QueryVariable]:
    everything = model.VariableOption(selected=True, text="All", value="$__all")
    return [
        grafana.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        *(
            grafana.QueryVariable(name)
            .label(name.capitalize())
            .datasource(DATASOURCE)
            .query({"query": f"label_values({series}, {name})", "refId": name})
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(everything)
            for name, series in (
                ("service", 'aftermath_downtime_seconds_total{service!="heartbeat"}'),
                ("environment", "aftermath_incidents_open"),
                ("severity", "aftermath_incidents_open"),
            )
        ),
    ]


# — queries —


@dataclass(frozen=True, slots=True)
class Series:
    """The series of one family that the dashboard variables select; for a histogram, its `part`."""

    family: str
    part: Literal["", "_bucket", "_count"] = ""
    only: str = ""  # a further matcher

    @property
    def labels(self) -> str:
        """The labels that distinguish its series once instances are joined."""
        return ", ".join([*FAMILIES[self.family].labels, *(["le"] if self.part == "_bucket" else [])])

    @property
    def selector(self) -> str:
        matchers = [CHOSEN[label] for label in FAMILIES[self.family].labels if label in CHOSEN]
        chosen = ", ".join([*matchers, *([self.only] if self.only else [])])
        return f"{self.family}{self.part}{{{chosen}}}" if chosen else f"{self.family}{self.part}"

    @property
    def now(self) -> str:
        """Each series once, for any number of replicas."""
        return f"max by ({self.labels}) ({self.selector})"

    def gained(self, span: str, *, by: str = "") -> str:
        """The increase of a counter over the span: its value now less its value then.

        The value then is, in this order: the sample at that time; 0, if Aftermath was scraped then and did not export
        the series yet; otherwise (nothing was scraped then) the first sample in the span.
        """
        then = f"max by ({self.labels}) ({self.selector} offset {span})"
        unborn = f"0 * {self.now} and on () max(aftermath_build_info offset {span})"
        first = f"min by ({self.labels}) (min_over_time({self.selector}[{span}]))"
        return f"sum by ({by}) (\n  {self.now}\n  - (\n    {then}\n    or ({unborn})\n    or {first}\n  )\n)"


def share(part: str, whole: str, *, by: str = "") -> str:
    """No result where the whole is 0."""
    return f"{part}\n/ on ({by})\n({whole} > 0)"


def quantile(q: float, measure: str, span: str) -> str:
    """No result where there are fewer values than a summary needs."""
    values = Series(measure, "_bucket").gained(span, by="le")
    count = Series(measure, "_count").gained(span)
    return f"histogram_quantile({q}, {values})\nand on ()\n({count} >= {SUMMARY_FROM})"


# — panels —


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""


Kind = Literal["stat", "bars", "lines", "heatmap", "gauges", "table"]


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    kind: Kind
    queries: Sequence[Query]
    about: str
    family: str = ""  # its definition opens the description
    unit: str = "short"
    width: int = 6
    height: int = 8
    if_none: str = "no data"
    smallest_interval: str = "1h"
    warns: tuple[tuple[float, str], ...] = ()  # from this value on, this color
    least: float | None = None
    most: float | None = None

    @property
    def description(self) -> str:
        return f"{FAMILIES[self.family].formula}. {self.about}".strip() if self.family else self.about

    def built(self) -> "Drawn":
        drawn = _drawn(self)
        drawn.title(self.title).description(self.description).datasource(DATASOURCE)
        drawn.span(self.width).height(self.height).unit(self.unit).no_value(self.if_none)
        if self.least is not None:
            drawn.min(self.least)
        if self.most is not None:
            drawn.max(self.most)
        steps = [model.Threshold(None, "green" if self.warns else "blue"), *(model.Threshold(*at) for at in self.warns)]
        drawn.thresholds(grafana.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        for name, query in zip("ABCDEFGH", self.queries, strict=False):
            drawn.with_target(_asked(query, self.kind).ref_id(name))
        return drawn


Drawn = stat.Panel | timeseries.Panel | heatmap.Panel | bargauge.Panel | table.Panel


def _drawn(panel: Panel) -> Drawn:
    last = layout.ReduceDataOptions().calcs(["lastNotNull"])
    match panel.kind:
        case "stat":
            return stat.Panel().reduce_options(last).graph_mode(common.BigValueGraphMode.NONE)
        case "gauges":
            gauges = bargauge.Panel().reduce_options(last).orientation(common.VizOrientation.HORIZONTAL)
            return gauges.display_mode(common.BarGaugeDisplayMode.BASIC)
        case "table":
            hidden = model.DataTransformerConfig("organize", options={"excludeByName": {"Time": True}})
            return table.Panel().with_transformation(hidden).show_header(True)
        case "heatmap":
            # The buckets grow geometrically, so rows of equal height form a logarithmic scale.
            cells = heatmap.Panel().interval(panel.smallest_interval).calculate(False).show_tooltip()
            cells.y_axis(heatmap.YAxisConfig().unit(panel.unit))
            cells.rows_frame(heatmap.RowsHeatmapOptions().layout(common.HeatmapCellLayout.LE))
            return cells.cell_values(heatmap.CellValues().unit("short")).color(
                heatmap.HeatmapColorOptions()
                .mode(heatmaps.HeatmapColorMode.SCHEME)
                .scheme("Blues")
                .exponent(0.5)
                .steps(32)
            )
        case "lines" | "bars":
            graph = timeseries.Panel().interval(panel.smallest_interval).fill_opacity(10)
            graph.legend(layout.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM))
            graph.tooltip(layout.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
            if panel.kind == "bars":
                graph.draw_style(common.GraphDrawStyle.BARS).fill_opacity(80)
                graph.stacking(layout.StackingConfig().mode(common.StackingMode.NORMAL))
            return graph


def _asked(query: Query, kind: Kind) -> Dataquery:
    asked = Dataquery().expr(query.expr).legend_format(query.legend or "__auto")
    match kind:
        case "lines" | "bars":
            return asked.range().format(prometheus.PromQueryFormat.TIME_SERIES)
        case "heatmap":
            return asked.range().format(prometheus.PromQueryFormat.HEATMAP)
        case "table":
            return asked.instant().format(prometheus.PromQueryFormat.TABLE)
        case _:
            return asked.instant().format(prometheus.PromQueryFormat.TIME_SERIES)


PERIOD, STEP = "$__range", "$__interval"

OPEN = Series("aftermath_incidents_open")
UNACKNOWLEDGED = Series("aftermath_incidents_unacknowledged")
SETTLED = Series("aftermath_incidents_total")
DOWNTIME = Series("aftermath_downtime_seconds_total")
COST = Series("aftermath_downtime_cost_total")
FINISHED = Series("aftermath_deployments_total", only='outcome!="canceled"')
FAILED = Series("aftermath_change_failures_total")

GAINED = (
    "An exact difference between two times, in whole incidents. If Prometheus has no data from the beginning of the "
    "period, it counts from the first scrape within it."
)
ONCE = (
    "Only settled incidents, each counted once, when it settled; open incidents and later corrections are not included."
)


def _measure(name: str, label: str, left_out: str) -> Sequence[Panel]:
    family = f"aftermath_{name}_seconds"
    buckets, count = Series(family, "_bucket"), Series(family, "_count")
    within = {"5 min": 300, "15 min": 900, "1 h": 3600, "4 h": 14_400}
    return [
        Panel(
            label,
            "heatmap",
            [Query(buckets.gained(STEP, by="le"), "{{le}}")],
            f"Number of incidents by duration. {ONCE} {left_out} A cell is at the time when the incident settled, not "
            "when it began.",
            family=family,
            unit="s",
            width=12,
        ),
        Panel(
            f"{label}: share within",
            "gauges",
            [
                Query(share(Series(family, "_bucket", f'le="{seconds}.0"').gained(PERIOD), count.gained(PERIOD)), limit)
                for limit, seconds in within.items()
            ],
            f"Exact, because these are bucket boundaries. {ONCE} {left_out}",
            unit="percentunit",
            least=0,
            most=1,
        ),
        Panel(
            f"{label}: median and P90",
            "stat",
            [
                Query(quantile(0.5, family, PERIOD), "median (approx.)"),
                Query(quantile(0.9, family, PERIOD), "P90 (approx.)"),
            ],
            "Approximate: interpolated within a bucket whose boundaries are a factor of 1.5 to 3.5 apart, and at most "
            f"a week. Not shown below {SUMMARY_FROM} values. {ONCE} {left_out} The REST API returns exact quantiles "
            "with intervals, and Kaplan-Meier estimates that include open incidents.",
            unit="s",
            if_none=f"fewer than {SUMMARY_FROM} values",
        ),
    ]


ROWS: dict[str, Sequence[Panel]] = {
    "Now": [
        Panel(
            "Open",
            "stat",
            [Query(f"sum({OPEN.now})")],
            "Excludes the heartbeat.",
            family=OPEN.family,
            width=3,
            warns=((1, "orange"),),
        ),
        Panel(
            "Unacknowledged",
            "stat",
            [Query(f"sum({UNACKNOWLEDGED.now})")],
            "Excludes the heartbeat.",
            family=UNACKNOWLEDGED.family,
            width=3,
            warns=((1, "red"),),
        ),
        Panel(
            "Oldest open",
            "gauges",
            [
                Query(
                    "time() - min by (service) "
                    f"({Series('aftermath_oldest_open_incident_start_timestamp_seconds').selector})",
                    "{{service}}",
                )
            ],
            "Time since then. All severities, whatever is selected above.",
            family="aftermath_oldest_open_incident_start_timestamp_seconds",
            unit="s",
            if_none="none open",
            least=0,
        ),
        Panel(
            "Open by service, environment and severity",
            "table",
            [Query(f"{OPEN.now} > 0")],
            "",
            family=OPEN.family,
            if_none="none open",
        ),
        Panel(
            "Open by severity",
            "lines",
            [Query(f"sum by (severity) ({OPEN.now})", "{{severity}}")],
            "As known at that time: late alerts and corrections do not change the past here.",
            family=OPEN.family,
            smallest_interval="15s",
            least=0,
        ),
    ],
    "Response and recovery times": [
        *_measure(
            "time_to_acknowledge",
            "Time to acknowledge",
            "Incidents that were never acknowledged are not included; check how many there are.",
        ),
        *_measure(
            "time_to_recover",
            "Time to recover",
            "Open incidents are not included and may be the worst.",
        ),
        Panel(
            "Settled incidents",
            "bars",
            [Query(SETTLED.gained(STEP, by="severity"), "{{severity}}")],
            f"A bar is at the time when incidents settled, not when they began. {GAINED}",
            family=SETTLED.family,
            width=12,
        ),
        Panel(
            "n: incidents behind these numbers",
            "stat",
            [
                Query(SETTLED.gained(PERIOD), "settled"),
                Query(Series("aftermath_time_to_acknowledge_seconds", "_count").gained(PERIOD), "acknowledged"),
                Query(Series("aftermath_time_to_recover_seconds", "_count").gained(PERIOD), "recovered"),
                Query(Series("aftermath_time_to_detect_seconds", "_count").gained(PERIOD), "impact start known"),
                Query(Series("aftermath_time_to_declare_seconds", "_count").gained(PERIOD), "declared"),
                Query(Series("aftermath_time_to_public_update_seconds", "_count").gained(PERIOD), "on the status page"),
            ],
            "How many of the incidents that settled in the period have a time to acknowledge, recover, detect, declare "
            "and tell. "
            f"The shares and quantiles next to this panel are based on these only. {GAINED}",
            width=8,
        ),
        Panel(
            "Corrected later",
            "stat",
            [Query(Series("aftermath_history_corrections_total").gained(PERIOD))],
            f"All services. If it is not 0, REST returns different numbers from this page, and those of REST are "
            f"right. {GAINED}",
            family="aftermath_history_corrections_total",
            width=4,
            warns=((1, "orange"),),
        ),
        Panel(
            "Tasks",
            "bars",
            [Query(Series("aftermath_tasks_total").gained(STEP, by="effect"), "{{effect}}")],
            f"Whether what people tried helped. {ONCE} Not restricted to the selected services.",
            family="aftermath_tasks_total",
            width=24,
            height=6,
            if_none="no tasks recorded",
        ),
    ],
    "Response": [
        Panel(
            "Targets",
            "bars",
            [Query(Series("aftermath_target_outcomes_total").gained(STEP, by="outcome"), "{{outcome}}")],
            "Incidents that met or missed what was agreed on, as they settle. Details: `GET /api/v1/metrics/targets`.",
            family="aftermath_target_outcomes_total",
            width=12,
            if_none="none",
        ),
        Panel(
            "Overdue updates",
            "stat",
            [Query(f"sum ({Series('aftermath_updates_overdue').now})")],
            "Open incidents whose stakeholders are waiting for an update.",
            family="aftermath_updates_overdue",
            width=4,
            warns=((1, "orange"),),
            if_none="none",
        ),
        Panel(
            "Vacant roles",
            "stat",
            [Query(Series("aftermath_roles_vacant").now, "{{role}}")],
            "Open incidents whose type needs the role, but no one holds it.",
            family="aftermath_roles_vacant",
            width=4,
            warns=((1, "orange"),),
            if_none="none",
        ),
        Panel(
            "Open exit criteria",
            "stat",
            [Query(Series("aftermath_exit_criteria_open").now)],
            "Of open incidents.",
            family="aftermath_exit_criteria_open",
            width=4,
            if_none="none",
        ),
        Panel(
            "Playbooks",
            "stat",
            [Query(Series("aftermath_playbooks").now, "{{state}}")],
            "By the state of the version in use, else of the newest.",
            family="aftermath_playbooks",
            width=8,
            if_none="none",
        ),
        Panel(
            "Services without a playbook",
            "stat",
            [Query(Series("aftermath_services_without_playbook").now)],
            "With an incident in the last 90 days.",
            family="aftermath_services_without_playbook",
            width=4,
            if_none="none",
        ),
        Panel(
            "Missing delegates",
            "stat",
            [Query(Series("aftermath_delegates_missing").now, "{{role}}")],
            "Owners with fewer than two delegates for a role in the next 7 days.",
            family="aftermath_delegates_missing",
            width=6,
            if_none="none",
        ),
        Panel(
            "Chat messages",
            "bars",
            [Query(Series("aftermath_chat_messages_total").gained(STEP, by="outcome"), "{{outcome}}")],
            "Imported into timelines, or the reason why not.",
            family="aftermath_chat_messages_total",
            width=6,
            if_none="none",
        ),
        Panel(
            "Components of the status page",
            "stat",
            [Query(Series("aftermath_components").now, "{{status}}")],
            "By the status that customers see.",
            family="aftermath_components",
            width=12,
            if_none="none",
        ),
        Panel(
            "Open on the status page",
            "stat",
            [Query(Series("aftermath_public_incidents_open").now)],
            "Problems that customers see, without maintenance.",
            family="aftermath_public_incidents_open",
            width=6,
            if_none="none",
        ),
        Panel(
            "Overdue on the status page",
            "stat",
            [Query(Series("aftermath_public_updates_overdue").now)],
            "Problems in their first two hours without an update for 20 minutes.",
            family="aftermath_public_updates_overdue",
            width=6,
            warns=((1, "orange"),),
            if_none="none",
        ),
    ],
    "Reviews and action items": [
        Panel(
            "Reviews",
            "stat",
            [Query(Series("aftermath_reviews").now, "{{state}}")],
            "All services.",
            family="aftermath_reviews",
            width=8,
        ),
        Panel(
            "Overdue reviews",
            "stat",
            [Query(Series("aftermath_reviews_overdue").now)],
            "The oldest one first: `GET /api/v1/reviews?overdue=true`.",
            family="aftermath_reviews_overdue",
            width=4,
            warns=((1, "orange"),),
        ),
        Panel(
            "Since the first review was due",
            "stat",
            [Query(f"time() - {Series('aftermath_review_oldest_due_timestamp_seconds').now}")],
            "Time since then; negative until it is due.",
            family="aftermath_review_oldest_due_timestamp_seconds",
            width=6,
            unit="s",
            if_none="none",
        ),
        Panel(
            "Required reviews",
            "bars",
            [Query(Series("aftermath_reviews_required_total").gained(STEP, by="outcome"), "{{outcome}}")],
            "Whether they were held in time.",
            family="aftermath_reviews_required_total",
            width=6,
            if_none="none",
        ),
        Panel(
            "Action items",
            "stat",
            [Query(f"sum by (state) ({Series('aftermath_action_items').now})", "{{state}}")],
            "All priorities.",
            family="aftermath_action_items",
            width=6,
        ),
        Panel(
            "Overdue action items",
            "stat",
            [Query(Series("aftermath_action_items_overdue").now, "{{priority}}")],
            "By priority: 1 now, 2 next, 3 later.",
            family="aftermath_action_items_overdue",
            width=4,
            warns=((1, "orange"),),
        ),
        Panel(
            "Oldest open action item",
            "stat",
            [Query(f"time() - {Series('aftermath_action_item_oldest_open_timestamp_seconds').now}", "{{priority}}")],
            "Time since then.",
            family="aftermath_action_item_oldest_open_timestamp_seconds",
            width=4,
            unit="s",
            if_none="none",
        ),
        Panel(
            "Action items done",
            "bars",
            [Query(Series("aftermath_action_items_completed_total").gained(STEP, by="phase"), "{{phase}}")],
            "By the phase of an incident that they improve.",
            family="aftermath_action_items_completed_total",
            width=5,
            if_none="none",
        ),
        Panel(
            "Reports of issue trackers",
            "bars",
            [Query(Series("aftermath_issue_events_total").gained(STEP, by="verdict"), "{{verdict}}")],
            "Changes of issues: stored for an action item, known already, or waiting for one with their link.",
            family="aftermath_issue_events_total",
            width=5,
            if_none="none",
        ),
        Panel(
            "Reports for customers",
            "bars",
            [Query(Series("aftermath_public_reports_total").gained(STEP, by="outcome"), "{{outcome}}")],
            "Versions that were written, published or withdrawn.",
            family="aftermath_public_reports_total",
            width=12,
            if_none="none",
        ),
        Panel(
            "Reports waiting for approval",
            "stat",
            [Query(Series("aftermath_public_reports_waiting").now)],
            "Reports for customers that have been waiting for approval for a day.",
            family="aftermath_public_reports_waiting",
            width=12,
            warns=((1, "orange"),),
            if_none="none",
        ),
    ],
    "Downtime and cost": [
        Panel(
            "Downtime",
            "gauges",
            [Query(DOWNTIME.gained(PERIOD, by="service"), "{{service}}")],
            f"All severities; overlapping incidents count once. {ONCE}",
            family=DOWNTIME.family,
            unit="s",
            least=0,
        ),
        Panel(
            "Cost",
            "stat",
            [Query(COST.gained(PERIOD, by="currency"), "{{currency}}")],
            "All severities; currencies are never added up. A service without a rate has no cost, which is not 0. "
            f"{ONCE} The first cost of a service is missed if Prometheus has no data from the beginning of the "
            "period. REST also returns low and high.",
            family=COST.family,
            if_none="no cost known",
        ),
        Panel(
            "Cost by service",
            "bars",
            [Query(COST.gained(STEP, by="service, currency"), "{{service}} {{currency}}")],
            "A bar is at the time when incidents settled. Compare heights within one currency only.",
            family=COST.family,
            width=12,
        ),
    ],
    "Objectives": [
        Panel(
            "Error budget left",
            "gauges",
            [Query(Series("aftermath_error_budget_remaining_ratio").now, "{{service}}")],
            "",
            family="aftermath_error_budget_remaining_ratio",
            unit="percentunit",
            if_none="no objective set",
            most=1,
        ),
        Panel(
            "Error budget left over time",
            "lines",
            [Query(Series("aftermath_error_budget_remaining_ratio").now, "{{service}}")],
            "As known at that time. It rises when an incident leaves a rolling window or a calendar window begins.",
            family="aftermath_error_budget_remaining_ratio",
            unit="percentunit",
            width=8,
            smallest_interval="1m",
            most=1,
        ),
        Panel(
            "Availability",
            "table",
            [Query(Series("aftermath_availability_ratio").now)],
            "Only as complete as the alerts Aftermath receives: an outage that was not reported counts as available. "
            "A new service counts from when it came into service, so its ratio may be over less than the window.",
            family="aftermath_availability_ratio",
            unit="percentunit",
            width=6,
        ),
        Panel(
            "In service for",
            "gauges",
            [Query(f"time() - {Series('aftermath_service_in_service_since_timestamp_seconds').now}", "{{service}}")],
            "Availability and error budget count from when a service came into service.",
            family="aftermath_service_in_service_since_timestamp_seconds",
            width=4,
            unit="s",
            least=0,
        ),
    ],
    "Deployments": [
        Panel(
            "Finished deployments",
            "bars",
            [Query(Series("aftermath_deployments_total").gained(STEP, by="outcome"), "{{outcome}}")],
            "A bar is at the time when deployments were reported, not when they finished.",
            family="aftermath_deployments_total",
            width=12,
        ),
        Panel(
            "Deployments per day",
            "stat",
            [
                Query(
                    Series("aftermath_deployments_total", only='outcome="succeeded"').gained(PERIOD)
                    + " * 86400 / $__range_s"
                )
            ],
            "Successful deployments of all selected services, per day of the period. REST also returns the interval.",
            unit="none",
            if_none="no deployments reported",
        ),
        Panel(
            "Change fail rate",
            "gauges",
            [
                Query(
                    share(FAILED.gained(PERIOD, by="service"), FINISHED.gained(PERIOD, by="service"), by="service"),
                    "{{service}}",
                )
            ],
            "Failed deployments divided by finished ones, without canceled ones. A failure is counted when its "
            "incident settles, possibly in a later period than the deployment, so a short period may show more than "
            "100 %. REST counts per deployment, never exceeds 1, and returns the interval.",
            family=FAILED.family,
            unit="percentunit",
            if_none="no deployments reported",
            least=0,
        ),
    ],
    "Source health": [
        Panel(
            "Last delivery",
            "gauges",
            [Query(f"time() - ({Series('aftermath_source_last_delivery_timestamp_seconds').now} > 0)", "{{source}}")],
            "Time since then. Silence from a source without a heartbeat may mean that all is well.",
            family="aftermath_source_last_delivery_timestamp_seconds",
            unit="s",
            least=0,
        ),
        Panel(
            "Deliveries",
            "bars",
            [Query(Series("aftermath_deliveries_total").gained(STEP, by="source, outcome"), "{{source}} {{outcome}}")],
            "",
            family="aftermath_deliveries_total",
            width=9,
            smallest_interval="5m",
        ),
        Panel(
            "Signals",
            "bars",
            [Query(Series("aftermath_signals_total").gained(STEP, by="verdict"), "{{verdict}}")],
            "Repeats are not incidents; senders repeat what they have reported before.",
            family="aftermath_signals_total",
            width=9,
            smallest_interval="5m",
        ),
        Panel(
            "Quarantine",
            "gauges",
            [Query(Series("aftermath_quarantine_size").now, "{{source}}")],
            "Quarantined alerts are in no incident. GET /api/v1/quarantine shows the reasons.",
            family="aftermath_quarantine_size",
            warns=((1, "red"),),
            least=0,
        ),
        Panel(
            "Ingest lag",
            "heatmap",
            [Query(Series("aftermath_ingest_lag_seconds", "_bucket").gained(STEP, by="le"), "{{le}}")],
            "All sources, only signals with new information. Includes the delay from the sender's grouping.",
            family="aftermath_ingest_lag_seconds",
            unit="s",
            width=9,
            smallest_interval="5m",
        ),
        Panel(
            "Dropped by senders",
            "stat",
            [Query(Series("aftermath_truncated_alerts_total").gained(PERIOD, by="source"), "{{source}}")],
            "If it is not 0, incidents are missing. Raise the sender's limit (Alertmanager: max_alerts).",
            family="aftermath_truncated_alerts_total",
            warns=((1, "red"),),
            width=5,
        ),
        Panel(
            "Services within 'other'",
            "stat",
            [Query(Series("aftermath_services_folded").now)],
            "",
            family="aftermath_services_folded",
            warns=((1, "orange"),),
            width=4,
        ),
        Panel(
            "Open alerts",
            "lines",
            [
                Query(Series("aftermath_alerts_open").now, "{{source}}"),
                Query(Series("aftermath_alerts_unrefreshed").now, "{{source}}, not reported for a day"),
            ],
            "If an alert has not been reported for a day, its resolve may have been lost.",
            family="aftermath_alerts_open",
            smallest_interval="5m",
            least=0,
        ),
        Panel(
            "Unreadable by reason",
            "bars",
            [
                Query(Series("aftermath_quarantined_total").gained(STEP, by="source, reason"), "{{source}} {{reason}}"),
            ],
            "Includes those replayed since.",
            family="aftermath_quarantined_total",
            width=9,
            smallest_interval="5m",
        ),
        Panel(
            "Doubtful deliveries",
            "bars",
            [
                Query(
                    Series("aftermath_truncated_deliveries_total").gained(STEP, by="source"), "{{source}}: truncated"
                ),
                Query(
                    Series("aftermath_resolved_without_firing_total").gained(STEP, by="source"),
                    "{{source}}: alerts first reported after their end",
                ),
                Query(
                    Series("aftermath_acknowledgements_dropped_total").gained(STEP, by="source"),
                    "{{source}}: acknowledgements without an alert",
                ),
                Query(
                    Series("aftermath_unrecognized_severities_total").gained(STEP, by="source"),
                    "{{source}}: severity not known",
                ),
                Query(
                    Series("aftermath_contradictions_total").gained(STEP, by="source"),
                    "{{source}}: contradicts another sender",
                ),
            ],
            "A few alerts first reported after their end are normal: they were short. The health of the source names "
            "a remedy for each of the others.",
            family="aftermath_resolved_without_firing_total",
            width=9,
            smallest_interval="5m",
        ),
        Panel(
            "Last heartbeat",
            "gauges",
            [Query(f"time() - {Series('aftermath_heartbeat_last_timestamp_seconds').now}", "{{source}}")],
            "Time since then. The rule of the heartbeat sets the limit.",
            family="aftermath_heartbeat_last_timestamp_seconds",
            width=4,
            unit="s",
            if_none="no heartbeats",
            least=0,
        ),
        Panel(
            "Missing heartbeats",
            "gauges",
            [Query(Series("aftermath_heartbeats_missing").now, "{{source}}")],
            "While a heartbeat is missing, other alerts may be missing too. See GET /api/v1/sources/{name}/health.",
            family="aftermath_heartbeats_missing",
            width=4,
            if_none="no heartbeats",
            warns=((1, "red"),),
            least=0,
        ),
        Panel(
            "Peers that do not answer",
            "gauges",
            [Query(Series("aftermath_peers", only='state="silent"').now, "{{source}}")],
            "If none answers, nothing is reconciled. See GET /api/v1/sources/{name}/health.",
            family="aftermath_peers",
            width=4,
            if_none="no peers",
            warns=((1, "red"),),
            least=0,
        ),
        Panel(
            "Signals inferred by Aftermath",
            "bars",
            [
                Query(
                    Series("aftermath_inferred_signals_total").gained(STEP, by="source, reason"),
                    "{{source}} {{reason}}",
                )
            ],
            "",
            family="aftermath_inferred_signals_total",
            width=12,
            smallest_interval="5m",
        ),
        Panel(
            "Spool",
            "lines",
            [
                Query("max by (instance) (aftermath_spool_records)", "deliveries on {{instance}}"),
                Query(
                    "100 * max by (instance) (aftermath_spool_bytes / (aftermath_spool_max_bytes > 0))",
                    "% full on {{instance}}",
                ),
            ],
            "Deliveries received while the database was unavailable. If it stays above 0 although the database is "
            "available, the log of the service shows why.",
            family="aftermath_spool_records",
            width=10,
            least=0,
            smallest_interval="5m",
        ),
        Panel(
            "Oldest in the spool",
            "lines",
            [
                Query(
                    "max by (instance) (time() - aftermath_spool_oldest_timestamp_seconds\n"
                    "  or 0 * aftermath_spool_records)",
                    "{{instance}}",
                )
            ],
            "How long it has been waiting; 0 while the spool is empty.",
            family="aftermath_spool_oldest_timestamp_seconds",
            unit="s",
            width=10,
            least=0,
            smallest_interval="5m",
        ),
        Panel(
            "Instances without their database",
            "stat",
            [Query("count(aftermath_database_up == 0) or vector(0)")],
            "They keep deliveries in their spool.",
            family="aftermath_database_up",
            warns=((1, "red"),),
            width=4,
        ),
    ],
}


if __name__ == "__main__":
    WRITTEN.write_text(written())
