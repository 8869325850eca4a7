"""The registry: what each number means, in the words that REST, the help texts of Prometheus and docs/numbers.md use.

Pure. Measures are defined beside the law (`app.incidents.measures`) and taken from there; the rest is defined here,
once. A definition that changes what comes out gets a new version, so that numbers kept elsewhere can be told apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from app.incidents import availability
from app.incidents.measures import MEASURES
from app.metrics import comparison, whatif
from app.metrics.survival import P95_FROM, SUMMARY_FROM

EVENT_TIME = "event time: when the sender or a person says that it happened, not when it arrived"


class Kind(StrEnum):
    MEASURE = "measure"  # of one incident
    STATISTIC = "statistic"  # of one measure over many incidents
    METRIC = "metric"  # of a period


@dataclass(frozen=True, slots=True)
class Definition:
    name: str
    kind: Kind
    label: str
    unit: str
    formula: str
    counted: str  # who is in
    left_out: str  # who is not, and why
    cannot_tell: str
    clock: str = EVENT_TIME
    starts: str | None = None  # measures only
    ends: str | None = None
    version: int = 1


class FamilyType(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Family:
    """What Prometheus reads. `formula` is its help text."""

    name: str
    type: FamilyType
    labels: tuple[str, ...]
    formula: str
    version: int = 1


# — measures: of one incident —

_EVERY_INCIDENT = "incidents whose detection lies in the period"
_NOT_A_SERVICE = "merged incidents (counted under the one they went into); trouble of the monitoring, unless asked for"
_STATED = "incidents for which nobody stated it, because a default would be made up"
_NO_RECOVERY = "alerts that ended without a recovery (rule paused or deleted, series missing, …), unless asked for"


@dataclass(frozen=True, slots=True)
class _Population:
    left_out: str
    cannot_tell: str


_POPULATIONS: Mapping[str, _Population] = {
    "time_to_detect": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}",
        "how long harm goes unseen where nobody states its start; look at how many are left out",
    ),
    "time_to_acknowledge": _Population(
        _NOT_A_SERVICE,
        "whether anybody worked on it: it is a click. What resolved by itself was not ignored; it counts as censored",
    ),
    "time_to_mitigate": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}", "anything about incidents whose mitigation nobody noted down"
    ),
    "time_to_recover": _Population(
        f"{_NO_RECOVERY}; {_NOT_A_SERVICE}",
        "whether the repair was good, or the incident hard: it begins at impact where that is stated and at detection "
        "where it is not, and alerts end by their own rule, not when users are well",
    ),
    "detection": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}", "the same as time_to_detect: it is the first phase of an incident"
    ),
    "response": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}", "when work began: it ends when a person says that the cause was known"
    ),
    "remediation": _Population(
        f"{_STATED}; {_NO_RECOVERY}; {_NOT_A_SERVICE}", "how much of the time was work, and how much was waiting"
    ),
}

_MEASURES = tuple(
    Definition(
        name=measure.name,
        kind=Kind.MEASURE,
        label=measure.label,
        unit="seconds",
        formula=measure.formula,
        counted=_EVERY_INCIDENT,
        left_out=_POPULATIONS[measure.name].left_out,
        cannot_tell=_POPULATIONS[measure.name].cannot_tell,
        starts=measure.starts,
        ends=measure.ends,
    )
    for measure in MEASURES
)


# — statistics: of one measure over many —

_RECORDED = "recorded values"
_AND_WAITS = "recorded values, and the waits of what is pending or was resolved without it (censored)"
_FEW = f"all, if fewer than {SUMMARY_FROM} values are recorded: `values` has the single ones"
_OPEN = "what has not happened yet, and so most of what takes long"


def _statistic(
    name: str, label: str, formula: str, cannot_tell: str, *, unit: str = "seconds", of_all: bool = False
) -> Definition:
    counted, left_out = (
        (_AND_WAITS, f"what is not applicable or invalid; {_FEW}") if of_all else (_RECORDED, f"{_OPEN}; {_FEW}")
    )
    return Definition(name, Kind.STATISTIC, label, unit, formula, counted, left_out, cannot_tell)


_STATISTICS = (
    Definition(
        "n",
        Kind.STATISTIC,
        "Recorded values",
        "incidents",
        "how many incidents have the measure; with pending, censored, invalid and all of excluded it is every incident",
        _RECORDED,
        "pending (may still happen), censored (ended without it), invalid (facts contradict), excluded (by reason)",
        "anything by itself; look at it before any number beside it",
    ),
    Definition(
        "values",
        Kind.STATISTIC,
        "Single values",
        "seconds",
        f"the recorded values themselves, rising, where there are fewer than {SUMMARY_FROM}",
        _RECORDED,
        _OPEN,
        "what is typical: nobody could, from so few",
    ),
    _statistic(
        "median",
        "Median",
        "half of the recorded values are shorter; interpolated linearly between the two nearest values",
        "how bad the bad ones are, and how long those take that are still open",
    ),
    _statistic(
        "p90",
        "90th percentile",
        "nine in ten recorded values are shorter; interpolated linearly between the two nearest values",
        "a trend: from one quarter to the next it moves a lot by chance alone",
    ),
    _statistic(
        "p95",
        "95th percentile",
        f"19 in 20 recorded values are shorter; interpolated linearly; from {P95_FROM} values on",
        "a trend, even less than the 90th percentile",
    ),
    _statistic(
        "geometric_mean",
        "Geometric mean",
        "exp(mean of log(value)); none where a value is 0, which would make it 0",
        "totals: it says what is typical where durations are skewed, and must not be multiplied by a count",
    ),
    _statistic(
        "mean",
        "Arithmetic mean",
        "sum of the recorded values / n",
        "what is typical, or whether anything improved: one long incident moves it more than a hundred short ones",
    ),
    _statistic(
        "kaplan_meier_median",
        "Kaplan-Meier median",
        "the shortest time within which half have happened, by the product over the durations up to then of "
        "1 - happened / at risk; 95 % interval where the curve's band (exponential Greenwood) crosses one half",
        "why: it takes for granted that what was cut short is no different from what was not",
        of_all=True,
    ),
    _statistic(
        "restricted_mean",
        "Restricted mean",
        "the area under the Kaplan-Meier curve from 0 to the horizon: the mean, with what takes longer counted as the "
        "horizon; 95 % interval by Greenwood's variance and Student's t on the log scale",
        "anything beyond its horizon, which is lowered to the longest wait where that is shorter and was cut short; "
        "compare means of one horizon only. Of 10 values the interval holds the truth in about 85 of 100 cases, of 50 "
        "in 92",
        of_all=True,
    ),
    _statistic(
        "ecdf",
        "Distribution",
        "for rising durations the share that had happened by then: 1 - the Kaplan-Meier curve, with its 95 % band, at "
        "50 steps at most",
        "the end of the curve while much is open: the band is wide there",
        unit="share",
        of_all=True,
    ),
    _statistic(
        "histogram",
        "Histogram",
        "recorded values in bins that double, the same for all data: …, 30 to 60 s, 1 to 2 min, 2 to 4 min, …",
        "what is still open, which belongs to the right",
        unit="incidents",
    ),
)


# — metrics: of a period —

_METRICS = (
    Definition(
        "incidents",
        Kind.METRIC,
        "Incidents",
        "incidents",
        "incidents whose detected_at lies in [from, to); merged incidents are none",
        "every incident of the filters",
        "merged incidents: they are one with the one they went into",
        "how many things went wrong: it follows from the rules' keys and windows as well",
    ),
    Definition(
        "open",
        Kind.METRIC,
        "Open incidents",
        "incidents",
        "of these, the ones that are not resolved now, acknowledged or not",
        "incidents whose detection lies in the period",
        "those detected before or after it, open or not",
        "whether anybody is still harmed: alerts may stay on, or have been lost by their sender",
    ),
    Definition(
        "downtime",
        Kind.METRIC,
        "Downtime",
        "seconds",
        "per service the union of [impact_started_at, else detected_at; resolved_at, else now) of incidents with an "
        "impact above 0, cut to [from, to), whenever they were detected, less planned maintenance; summed over "
        "services",
        "incidents with an impact above 0 that harm in the period, whenever they were detected",
        "planned maintenance, shown apart; severities whose impact is 0; trouble of the monitoring",
        "how many users were harmed: a service is down or not here, whatever the severity",
    ),
    Definition(
        "cost",
        Kind.METRIC,
        "Cost",
        "currency",
        "per service the integral of rate(t) x impact(t) over [from, to), less planned maintenance; where incidents "
        "overlap the greatest impact counts once, shared among them by impact; summed over the incidents in question, "
        "per currency",
        "incidents that harm in the period, of services that had a rate then",
        "services without a rate, which are listed: unknown is not 0; planned maintenance",
        "what was really lost: it is an hour's price that somebody stated, times hours. Look at low and high too",
    ),
    *(
        Definition(
            name,
            Kind.METRIC,
            label,
            unit,
            availability.FORMULAS[name],
            "incidents of the service with an impact above 0",
            "planned maintenance, shown apart; severities whose impact is 0; trouble of the monitoring",
            cannot_tell,
        )
        for name, label, unit, cannot_tell in (
            ("in_service", "Time in service", "seconds", "whether anybody used it"),
            ("planned", "Planned downtime", "seconds", "whether what failed then failed because of the maintenance"),
            ("downtime_weighted", "Weighted downtime", "seconds", "how many users were harmed, but for stated impacts"),
            ("availability", "Availability", "ratio", "how bad the harm was: any above 0 counts in full"),
            (
                "availability_weighted",
                "Weighted availability",
                "ratio",
                "what users saw: impact is what somebody stated, or the usual one of the severity",
            ),
            ("failures", "Failures", "incidents", "how long they took; one outage may be two incidents that overlap"),
            ("mtbf", "Time between failures", "seconds", "when the next one comes, or anything from a few failures"),
            ("budget", "Error budget", "seconds", "whether the target is what users need"),
            ("burned", "Burned error budget", "seconds", "who is to blame: overlapping incidents share it by impact"),
            ("left", "Error budget left", "seconds", "how it will go on; look at the burn rate"),
            ("burn_rate", "Burn rate", "ratio", "a trend: over an hour one incident is all of it"),
        )
    ),
    Definition(
        "whatif",
        Kind.METRIC,
        "Cost, had it been otherwise",
        "currency",
        whatif.FORMULA,
        "incidents that harm in the period, of services that had a rate then",
        "services without a rate; planned maintenance",
        "what will be saved: it moves what has been, by the assumptions that stand beside it",
    ),
    *(
        Definition(
            f"compare_{name}",
            Kind.METRIC,
            label,
            unit,
            formula,
            "one measure in two periods: recorded values, and waits that were cut short",
            "what is not applicable or invalid, counted by reason",
            cannot_tell,
        )
        for name, label, unit, formula, cannot_tell in (
            (
                "effect",
                "Effect",
                "ratio",
                comparison.EFFECT,
                "why it changed: other incidents, other rules and other people count as well",
            ),
            (
                "interval",
                "Interval of the effect",
                "ratio",
                comparison.INTERVAL,
                "how far next quarter will be from this one",
            ),
            (
                "verdict",
                "Verdict",
                "word",
                comparison.VERDICT,
                "that nothing changed: cannot_tell is no finding, and the more pairs are compared the more are found",
            ),
            (
                "smallest_change",
                "Smallest change that would have shown",
                "ratio",
                comparison.REACH,
                "what did change; it says whether asking made sense",
            ),
        )
    ),
)


DEFINITIONS: tuple[Definition, ...] = (*_MEASURES, *_STATISTICS, *_METRICS)
FORMULAS: Mapping[str, str] = {each.name: each.formula for each in DEFINITIONS}


# — families: what Prometheus reads —

_COUNTER, _GAUGE, _HISTOGRAM = FamilyType.COUNTER, FamilyType.GAUGE, FamilyType.HISTOGRAM
_PLACE = ("service", "severity")

RATIO_WINDOWS: Mapping[str, timedelta] = {"7d": timedelta(days=7), "30d": timedelta(days=30)}
RATIOS_REMEMBERED = timedelta(seconds=30)
_HOW_OLD = f"At most {RATIOS_REMEMBERED.total_seconds():.0f} s old; none for services within 'other'"

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
            "aftermath_quarantine_size",
            _GAUGE,
            ("source",),
            "Alerts that could not be applied and wait to be replayed",
        ),
        Family(
            "aftermath_history_corrections_total",
            _COUNTER,
            (),
            "Changes to settled incidents, which counters and histograms do not follow and the REST API does",
        ),
        Family(
            "aftermath_incidents_total",
            _COUNTER,
            _PLACE,
            "Incidents that have settled: resolved for longer than their window and the allowed lateness",
        ),
        Family(
            "aftermath_incidents_open",
            _GAUGE,
            _PLACE,
            "Incidents that are not resolved",
        ),
        Family(
            "aftermath_incidents_unacknowledged",
            _GAUGE,
            _PLACE,
            "Incidents that are neither resolved nor acknowledged",
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
            Family(
                f"aftermath_{measure.name}_seconds",
                _HISTOGRAM,
                _PLACE,
                f"{measure.label} of settled incidents: {measure.formula}",
            )
            for measure in MEASURES
            if measure.histogram
        ),
        Family(
            "aftermath_downtime_seconds_total",
            _COUNTER,
            ("service",),
            "Time in which at least one settled incident harmed the service",
        ),
        Family(
            "aftermath_downtime_cost_total",
            _COUNTER,
            ("service", "currency"),
            "Expected cost of settled incidents, at the rates known when they settled; overlap counts once",
        ),
        Family(
            "aftermath_deployments_total",
            _COUNTER,
            ("service", "outcome"),
            "Deployments that finished, by the first final outcome that was told",
        ),
        Family(
            "aftermath_change_failures_total",
            _COUNTER,
            ("service",),
            "Deployments that needed immediate intervention: marked so, or the cause of an incident that has settled",
        ),
        Family(
            "aftermath_availability_ratio",
            _GAUGE,
            ("service", "window"),
            "Share of the window, the last days until now less planned maintenance, in which the service was not "
            f"harmed, weighted by impact. {_HOW_OLD}",
        ),
        Family(
            "aftermath_error_budget_remaining_ratio",
            _GAUGE,
            ("service",),
            "Share of the error budget that is left in the window of the service's objective; below 0 it is missed. "
            f"{_HOW_OLD}",
        ),
        Family(
            "aftermath_build_info",
            FamilyType.INFO,
            ("version",),
            "The version that answers",
        ),
    )
}


# — the page —

REFERENCE_BEGINS = "<!-- From here on written by `make numbers`, from the registry. -->\n"


def reference() -> str:
    """Every definition and family, as the last part of docs/numbers.md."""
    parts = [REFERENCE_BEGINS]
    for kind, title in _TITLES.items():
        parts += [f"## {title}\n", *(_entry(each) for each in DEFINITIONS if each.kind is kind)]
    parts += ["## What Prometheus reads\n", "| family | type | labels | what it is |\n|---|---|---|---|"]
    rows = (
        f"| `{each.name}` | {each.type} | {', '.join(each.labels)} | {each.formula} (version {each.version}) |"
        for each in FAMILIES.values()
    )
    return "\n".join([*parts, *rows]) + "\n"


_TITLES: Mapping[Kind, str] = {
    Kind.MEASURE: "Measures: of one incident",
    Kind.STATISTIC: "Statistics: of one measure over many incidents",
    Kind.METRIC: "Metrics: of a period",
}


def _entry(each: Definition) -> str:
    lines = [f"### `{each.name}`\n", f"{each.label}, in {each.unit}; version {each.version}.\n"]
    if each.starts and each.ends:
        lines.append(f"- **From** {each.starts} **to** {each.ends}.")
    lines += [
        f"- **Formula:** {each.formula}.",
        f"- **Clock:** {each.clock}.",
        f"- **Counted:** {each.counted}.",
        f"- **Left out:** {each.left_out}.",
        f"- **It cannot tell** {each.cannot_tell}.\n",
    ]
    return "\n".join(lines)
