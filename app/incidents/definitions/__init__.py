"""The registry: what each number means, in the words that REST, the help texts of Prometheus and docs/numbers.md use.

Pure. Measures are defined in `app.incidents.measures.measures` and taken from there; every other number is defined
here, once, and what computes it knows no words of its own. A definition that changes what comes out gets a new version,
so that numbers kept elsewhere can be told apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.incidents.measures.measures import MEASURES

SUMMARY_FROM = 10  # recorded values; below it a median says more about chance than about the service
P95_FROM = 60  # below it the 95th percentile is the opinion of three incidents

EVENT_TIME = "event time: when the sender or a person says that it happened, not when it arrived"
BUSINESS_HOURS = "the hours of a calendar, as the wall clock of its zone shows them; it stands still outside of them"
DEPLOYED = "event time: when a deployment finished, as its reports say, else when its outcome was told"


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
    statistic: str  # what is made of the many: a sum, a count, a ratio, …
    formula: str
    counted: str  # who is in
    left_out: str  # who is not, and why
    cannot_tell: str
    clock: str = EVENT_TIME
    second_clock: str | None = None  # which may be asked for besides
    starts: str | None = None  # of a duration between two events
    ends: str | None = None
    version: int = 1


# — measures: of one incident —

_ONE = "the value of one incident; the statistics say what is made of many"
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
        f"{_STATED}; {_NOT_A_SERVICE}",
        "more than time_to_detect: it is the same duration, as the first phase of an incident",
    ),
    "response": _Population(
        f"{_STATED}; {_NOT_A_SERVICE}", "when work began: it ends when a person says that the cause was known"
    ),
    "remediation": _Population(
        f"{_STATED}; {_NO_RECOVERY}; {_NOT_A_SERVICE}", "how much of the time was work, and how much was waiting"
    ),
}

_MEASURES = (
    *(
        Definition(
            name=measure.name,
            kind=Kind.MEASURE,
            label=measure.label,
            unit="seconds",
            statistic=_ONE,
            formula=measure.formula,
            counted=_EVERY_INCIDENT,
            left_out=_POPULATIONS[measure.name].left_out,
            cannot_tell=_POPULATIONS[measure.name].cannot_tell,
            second_clock=BUSINESS_HOURS,
            starts=measure.starts,
            ends=measure.ends,
        )
        for measure in MEASURES
    ),
    Definition(
        "business_hours",
        Kind.MEASURE,
        "A duration in business hours",
        "seconds",
        _ONE,
        "of the same duration the seconds in which a clock on the wall of the calendar's zone shows a time within the "
        "hours of that weekday, on a date that is no holiday; 0 where all of it lies outside of them. What the clocks "
        "skip is not there, what they show twice counts twice",
        "the incidents of the measure, with the status and the reason that they have in it",
        "time out of hours",
        "how long users waited, who are harmed at night as well; or what people on call do then",
        clock=BUSINESS_HOURS,
    ),
    Definition(
        "incident_cost",
        Kind.MEASURE,
        "Cost of an incident",
        "currency",
        _ONE,
        "the integral of rate(t) x impact(t) from (impact_started_at, else detected_at) to (resolved_at, else now), "
        "less planned maintenance; where incidents of a service overlap, the greatest impact counts once and they "
        "share it in proportion to theirs, so that the incidents of a service sum exactly to its cost",
        "incidents of a service that had a rate then",
        "services without a rate: unknown is not 0; planned maintenance",
        "what it would have cost alone: another incident at the same time takes a part of it, and a later correction "
        "of that one changes this one",
    ),
    Definition(
        "incident_labour",
        Kind.MEASURE,
        "Labour at an incident",
        "currency",
        _ONE,
        "responders of its severity x pay per hour x the hours from acknowledged_at (detected_at, if that is later) to "
        "(resolved_at, else now)",
        "incidents that a person acknowledged while they ran, where the setting says what an hour costs",
        "incidents that nobody acknowledged while they ran: unknown is not 0; merged incidents",
        "who really worked and how long: it is a click, an end, and numbers that somebody stated",
    ),
    Definition(
        "reopened",
        Kind.MEASURE,
        "Reopenings",
        "times",
        _ONE,
        "gaps within the incident: how often all its alerts had ended before another began within the window",
        "every incident",
        "repeats and retries, which reopen nothing",
        "whether a fix failed: it may be the same trouble, or another one with the same key",
    ),
)


# — statistics: of one measure over many —

_RECORDED = "recorded values"
_AND_WAITS = (
    "recorded values, and the waits of what is pending or was resolved without it (censored); a wait of 0 s so far "
    "says nothing and takes no part"
)
_FEW = f"all, if fewer than {SUMMARY_FROM} values are recorded: `values` has the single ones"
_OPEN = "what has not happened yet, and so most of what takes long"


def _statistic(
    name: str,
    label: str,
    statistic: str,
    formula: str,
    cannot_tell: str,
    *,
    unit: str = "seconds",
    of_all: bool = False,
    version: int = 1,
) -> Definition:
    counted, left_out = (
        (_AND_WAITS, f"what is not applicable or invalid; {_FEW}") if of_all else (_RECORDED, f"{_OPEN}; {_FEW}")
    )
    return Definition(
        name, Kind.STATISTIC, label, unit, statistic, formula, counted, left_out, cannot_tell, version=version
    )


def _count(name: str, label: str, formula: str, cannot_tell: str) -> Definition:
    """Every incident is in exactly one of these counts."""
    return Definition(
        name,
        Kind.STATISTIC,
        label,
        "incidents",
        "count",
        formula,
        _EVERY_INCIDENT,
        "what another of n, pending, censored, invalid and excluded counts",
        cannot_tell,
    )


_STATISTICS = (
    _count(
        "n",
        "Recorded values",
        "how many have the measure; n + pending + censored + invalid + all of excluded are the incidents. Of a rate: "
        "how many it is a share of",
        "anything by itself; look at it before any number beside it",
    ),
    _count(
        "pending",
        "Pending",
        "open incidents whose measure may still be recorded",
        "how they will end; their waits take part where waits are said to",
    ),
    _count(
        "censored",
        "Censored",
        "incidents that were resolved before it happened and so no longer could: it would have taken longer than that. "
        "In a comparison and beside the Kaplan-Meier median, pending ones are censored too",
        "why: an incident that resolves by itself and one that was ignored look alike",
    ),
    _count(
        "invalid",
        "Invalid",
        "incidents whose facts contradict each other, such as an end before the begin; never clamped to 0",
        "which of the facts is wrong; correct it, and the incident counts",
    ),
    _count(
        "excluded",
        "Excluded, by reason",
        "incidents that have no such duration: a time was never stated, the end was no recovery, …",
        "whether they would have looked like the others: those for which nobody states times are seldom a fair sample",
    ),
    Definition(
        "zeros",
        Kind.STATISTIC,
        "Recorded values of 0",
        "incidents",
        "count",
        "recorded values that are 0: begin and end at the same moment, or in business hours nothing of it within them",
        _RECORDED,
        _OPEN,
        "anything about those above 0. Where it is half of n or more the median is 0 and says no more than that",
    ),
    Definition(
        "left_out",
        Kind.STATISTIC,
        "Left out",
        "incidents",
        "count",
        "what has no duration that counts: excluded or invalid; of lead times, commits later than their deployment",
        _EVERY_INCIDENT,
        "recorded, censored and pending ones",
        "whether they would have looked like the others",
    ),
    Definition(
        "values",
        Kind.STATISTIC,
        "Single values",
        "seconds",
        "none: the values themselves",
        f"the recorded values, rising, where there are fewer than {SUMMARY_FROM}",
        _RECORDED,
        _OPEN,
        "what is typical: nobody could, from so few",
    ),
    _statistic(
        "median",
        "Median",
        "50 % quantile",
        "half of the recorded values are shorter; interpolated linearly between the two nearest values",
        "how bad the bad ones are, and how long those take that are still open",
    ),
    _statistic(
        "p90",
        "90th percentile",
        "90 % quantile",
        "nine in ten recorded values are shorter; interpolated linearly between the two nearest values",
        "a trend: from one quarter to the next it moves a lot by chance alone",
    ),
    _statistic(
        "p95",
        "95th percentile",
        "95 % quantile",
        f"19 in 20 recorded values are shorter; interpolated linearly; from {P95_FROM} values on",
        "a trend, even less than the 90th percentile",
    ),
    _statistic(
        "geometric_mean",
        "Geometric mean",
        "geometric mean",
        "exp(mean of log(value)); none where a value is 0, which would make it 0, as in business hours one often is",
        "totals: it says what is typical where durations are skewed, and must not be multiplied by a count",
    ),
    _statistic(
        "mean",
        "Arithmetic mean",
        "mean",
        "sum of the recorded values / n",
        "what is typical, or whether anything improved: one long incident moves it more than a hundred short ones",
    ),
    _statistic(
        "kaplan_meier_median",
        "Kaplan-Meier median",
        "50 % quantile, waits included",
        "the shortest time within which half have happened, by the product over the durations up to then of "
        "1 - happened / at risk; 95 % interval where the curve's band (exponential Greenwood) crosses one half",
        "why: it takes for granted that what was cut short is no different from what was not",
        of_all=True,
        version=2,
    ),
    _statistic(
        "restricted_mean",
        "Restricted mean",
        "mean up to a horizon, waits included",
        "the area under the Kaplan-Meier curve from 0 to the horizon: the mean, with what takes longer counted as the "
        "horizon; 95 % interval by Greenwood's variance and Student's t on the log scale",
        "anything beyond its horizon, which is lowered to the longest wait where that is shorter and was cut short; "
        "compare means of one horizon only. Of 10 values the interval holds the truth in about 85 of 100 cases, of 50 "
        "in 92",
        of_all=True,
        version=2,
    ),
    _statistic(
        "ecdf",
        "Distribution",
        "cumulative shares, waits included",
        "for rising durations the share that had happened by then: 1 - the Kaplan-Meier curve, with its 95 % band, at "
        "50 steps at most",
        "the end of the curve while much is open: the band is wide there",
        unit="share",
        of_all=True,
        version=2,
    ),
    _statistic(
        "histogram",
        "Histogram",
        "counts",
        "recorded values in bins that double, the same for all data: …, 30 to 60 s, 1 to 2 min, 2 to 4 min, …",
        "what is still open, which belongs to the right",
        unit="incidents",
    ),
)


# — metrics: of a period —

_HARMING = "incidents with an impact above 0 that harm in the period, whenever they were detected"
_HARMING_WITH_RATE = f"{_HARMING}, of services that had a rate then"
_PLANNED = "planned maintenance, shown apart; severities whose impact is 0; trouble of the monitoring"
_NO_RATE = "services without a rate, which are listed: unknown is not 0; planned maintenance"


def _metric(
    name: str,
    label: str,
    unit: str,
    statistic: str,
    formula: str,
    *,
    counted: str,
    left_out: str,
    cannot_tell: str,
    clock: str = EVENT_TIME,
    version: int = 1,
) -> Definition:
    return Definition(
        name,
        Kind.METRIC,
        label,
        unit,
        statistic,
        formula,
        counted,
        left_out,
        cannot_tell,
        clock=clock,
        version=version,
    )


_INCIDENTS = (
    _metric(
        "incidents",
        "Incidents",
        "incidents",
        "count",
        "incidents whose detected_at lies in [from, to)",
        counted="every incident of the filters, whatever its severity",
        left_out="merged incidents: they are one with the one they went into",
        cannot_tell="how many things went wrong: it follows from the rules' keys and windows as well",
    ),
    _metric(
        "open",
        "Open incidents",
        "incidents",
        "count",
        "incidents whose detected_at lies in [from, to) and that are not resolved now, acknowledged or not",
        counted=_EVERY_INCIDENT,
        left_out="those detected before or after it, open or not; merged incidents",
        cannot_tell="whether anybody is still harmed: alerts may stay on, or have been lost by their sender",
    ),
    _metric(
        "harming",
        "Incidents that harm",
        "incidents",
        "count",
        "incidents with an impact above 0 whose [impact_started_at, else detected_at; resolved_at, else now) has a "
        "part in [from, to)",
        counted=_HARMING,
        left_out="severities whose impact is 0; merged incidents; trouble of the monitoring",
        cannot_tell="how many began in the period: for that there is `incidents`",
    ),
    _metric(
        "downtime",
        "Downtime",
        "seconds",
        "sum over services of a union of intervals",
        "per service the union of [impact_started_at, else detected_at; resolved_at, else now) of incidents with an "
        "impact above 0, cut to [from, to), whenever they were detected, less planned maintenance; summed over "
        "services",
        counted=_HARMING,
        left_out=_PLANNED,
        cannot_tell="how many users were harmed: a service is down or not here, whatever the severity",
    ),
    _metric(
        "planned",
        "Planned downtime",
        "seconds",
        "union of intervals",
        "downtime that fell into planned maintenance; it is not in downtime",
        counted=_HARMING,
        left_out="severities whose impact is 0; trouble of the monitoring",
        cannot_tell="whether what failed then failed because of the maintenance",
    ),
    _metric(
        "cost",
        "Cost",
        "currency",
        "sum, exact",
        "per service the integral of rate(t) x impact(t) over [from, to), less planned maintenance; where incidents "
        "overlap the greatest impact counts once, shared among them by impact; summed over the incidents in question, "
        "per currency",
        counted=_HARMING_WITH_RATE,
        left_out=_NO_RATE,
        cannot_tell="what was really lost: it is an hour's price that somebody stated, times hours. Look at low and "
        "high too",
    ),
    _metric(
        "labour",
        "Labour",
        "currency",
        "sum, exact",
        "the sum over incidents of responders of the severity x pay per hour x the hours in [from, to) from "
        "acknowledged_at (detected_at, if that is later) to (resolved_at, else now); never part of cost",
        counted="incidents that a person acknowledged while they ran and that ran on in the period, those in "
        "maintenance and trouble of the monitoring too: they are work as well",
        left_out="incidents that nobody acknowledged while they ran, which are counted: unknown is not 0; merged "
        "incidents",
        cannot_tell="what was really worked: nobody wrote down hours. Incidents that overlap count twice, as if "
        "different people worked on them, and it ends with the recovery, before the review",
    ),
)

_AVAILABILITY = (
    _metric(
        "in_service",
        "Time in service",
        "seconds",
        "sum",
        "[from, to), as far as it has passed, less planned maintenance of the service",
        counted="every service, from the begin of the period, even if it was first seen later",
        left_out="planned maintenance",
        cannot_tell="whether anybody used it",
    ),
    _metric(
        "maintenance",
        "Planned maintenance",
        "seconds",
        "union of intervals",
        "planned maintenance of the service in [from, to), as far as it has passed, whether or not anything failed",
        counted="windows that name the service, or none",
        left_out="nothing; windows that overlap count once",
        cannot_tell="whether the work was done, or took as long as planned",
    ),
    _metric(
        "downtime_weighted",
        "Weighted downtime",
        "seconds",
        "integral",
        "the integral of impact over the time of downtime: at each moment the greatest of the incidents that run",
        counted=_HARMING,
        left_out=_PLANNED,
        cannot_tell="how many users were harmed, but for stated impacts",
    ),
    _metric(
        "availability",
        "Availability",
        "ratio",
        "ratio",
        "1 - downtime / in_service",
        counted=_HARMING,
        left_out=_PLANNED,
        cannot_tell="how bad the harm was: any above 0 counts in full",
    ),
    _metric(
        "availability_weighted",
        "Weighted availability",
        "ratio",
        "ratio",
        "1 - downtime_weighted / in_service",
        counted=_HARMING,
        left_out=_PLANNED,
        cannot_tell="what users saw: impact is what somebody stated, or the usual one of the severity",
    ),
    _metric(
        "failures",
        "Failures",
        "incidents",
        "count, with an interval",
        "incidents with an impact above 0 whose detected_at lies in [from, to), unless all their harm fell into "
        "planned maintenance; exact Poisson interval (Garwood), 95 %",
        counted="incidents of the service with an impact above 0",
        left_out=_PLANNED,
        cannot_tell="how long they took; one outage may be two incidents that overlap. The interval takes failures to "
        "be independent of each other, and bad weeks are not",
    ),
    _metric(
        "mtbf",
        "Time between failures",
        "seconds",
        "mean, with an interval",
        "(in_service - downtime) / failures; its interval divides by the ends of the interval of failures",
        counted="incidents of the service with an impact above 0",
        left_out=_PLANNED,
        cannot_tell="when the next one comes, or anything from a few failures. Without a failure there is no mean, "
        "which is not for ever",
    ),
    _metric(
        "exposure",
        "Time it ran",
        "seconds",
        "sum",
        "in_service - downtime",
        counted="every service",
        left_out="downtime and planned maintenance",
        cannot_tell="whether anybody used it",
    ),
    _metric(
        "budget",
        "Error budget",
        "seconds",
        "product",
        "(1 - target) x (the window of the objective, to its end, less planned maintenance)",
        counted="the whole window, what is still to come of it too",
        left_out="planned maintenance, which earns no budget",
        cannot_tell="whether the target is what users need",
    ),
    _metric(
        "burned",
        "Burned error budget",
        "seconds",
        "integral",
        "downtime in the window until now, weighted by impact if the objective says so, less planned maintenance; "
        "where incidents overlap they share it in proportion to their impacts",
        counted=_HARMING,
        left_out=_PLANNED,
        cannot_tell="who is to blame: overlapping incidents share it by impact",
    ),
    _metric(
        "left",
        "Error budget left",
        "seconds",
        "difference",
        "budget - burned; below 0 the objective is missed",
        counted=_HARMING,
        left_out=_PLANNED,
        cannot_tell="how it will go on; look at the burn rate",
    ),
    _metric(
        "left_ratio",
        "Share of the error budget left",
        "ratio",
        "ratio",
        "left / budget; below 0 the objective is missed; none where the window is nothing but maintenance",
        counted=_HARMING,
        left_out=_PLANNED,
        cannot_tell="how it will go on; early in a calendar window nearly all of it is left, whatever happens",
    ),
    _metric(
        "burn_rate",
        "Burn rate",
        "ratio",
        "ratio",
        "(downtime / in_service time of the last hours) / (1 - target): at 1.0 the budget is exactly spent at the end "
        "of a window; weighted by impact if the objective says so",
        counted=_HARMING,
        left_out=_PLANNED,
        cannot_tell="a trend: over an hour one incident is all of it",
    ),
)

_WHAT_IF = (
    _metric(
        "whatif",
        "Cost, had it been otherwise",
        "currency",
        "sum, exact",
        "the cost of [from, to) with every interval [impact_started_at, else detected_at; resolved_at) made as long as "
        "time_to_recover'(lasted + change of time_to_detect + change of time_to_acknowledge), never below 0, and what "
        "the incidents in question add to it times the change of their number",
        counted=_HARMING_WITH_RATE,
        left_out=f"{_NO_RATE}; what had ended before the period, however much longer it would have been",
        cannot_tell="what will be saved: it moves what has been, by the assumptions that stand beside it",
    ),
    _metric(
        "whatif_difference",
        "Difference of cost",
        "currency",
        "difference, exact",
        "whatif - cost, so that what is saved is negative",
        counted=_HARMING_WITH_RATE,
        left_out=_NO_RATE,
        cannot_tell="what will be saved: it moves what has been, by the assumptions that stand beside it",
    ),
    _metric(
        "whatif_downtime",
        "Downtime, had it been otherwise",
        "seconds",
        "sum over services of a union of intervals",
        "downtime with the intervals as whatif moves them, and what the incidents in question add to it times the "
        "change of their number",
        counted=_HARMING,
        left_out=_PLANNED,
        cannot_tell="how long it will be",
    ),
    _metric(
        "applied",
        "Incidents that a change applies to",
        "incidents",
        "count",
        "of the incidents that harm in [from, to), those that have the part that is changed: a stated impact start, an "
        "acknowledgement, an end",
        counted=_HARMING,
        left_out="those without the stated time, and open ones, unless it is their number that changes",
        cannot_tell="anything by itself; where few have the part, the change shows little",
    ),
)


_COMPARED = "one measure in two periods: recorded values, and waits that were cut short"
_NOT_COMPARED = "what is not applicable or invalid, counted by reason"


def _compared(
    name: str, label: str, unit: str, statistic: str, formula: str, *, cannot_tell: str, version: int = 1
) -> Definition:
    return _metric(
        f"compare_{name}",
        label,
        unit,
        statistic,
        formula,
        counted=_COMPARED,
        left_out=_NOT_COMPARED,
        cannot_tell=cannot_tell,
        version=version,
    )


_COMPARE = (
    _compared(
        "typical",
        "Typical duration",
        "seconds",
        "restricted geometric mean",
        "exp of the area under the Kaplan-Meier curve of log(duration), up to the horizon; without censored values it "
        "is the geometric mean. Durations below 1 s count as 1 s in it",
        cannot_tell="totals, as any geometric mean. It differs from that of the summary, which leaves waits out",
    ),
    _compared(
        "horizon",
        "Horizon of the comparison",
        "seconds",
        "minimum",
        "the longest time for which both sides were watched; none where all that is censored was watched for less than "
        "the longest recorded value of its side",
        cannot_tell="what happens beyond it: there nothing is compared",
        version=2,
    ),
    _compared(
        "effect",
        "Effect",
        "ratio",
        "ratio",
        "typical duration of B / that of A",
        cannot_tell="why it changed: other incidents, other rules and other people count as well. Where there is a "
        "horizon, what lasts beyond it counts as equal, so that the effect is smaller than the change of durations",
    ),
    _compared(
        "interval",
        "Interval of the effect",
        "ratio",
        "95 % interval",
        "95 % interval of the difference of log durations: Student's t with Greenwood's variances and Welch's degrees "
        "of freedom; without censored values it is Welch's interval",
        cannot_tell="how far next quarter will be from this one",
    ),
    _compared(
        "p_value",
        "p-value",
        "probability",
        "log-rank test, two-sided",
        "how often two periods that do not differ would look at least as different as these, by the log-rank test",
        cannot_tell="how large a change is, or how likely it is that there is one",
    ),
    _compared(
        "verdict",
        "Verdict",
        "word",
        "interval and test together",
        "better or worse where the interval leaves out 1 and the p-value of the log-rank test is below 0.05; else "
        f"cannot_tell, and always with fewer than {SUMMARY_FROM} recorded values on a side. Censored values, of what "
        "is still pending or was resolved without it happening, take part in both as lasting longer than they were "
        "watched",
        cannot_tell="that nothing changed: cannot_tell is no finding, and the more pairs are compared the more are "
        "found",
    ),
    _compared(
        "smallest_change",
        "Smallest change that would have shown",
        "ratio",
        "detectable ratio at 80 % power",
        "the smallest true change of all durations, to shorter and to longer, for which a verdict comes in at least "
        "80 % of such comparisons: the one that moves the mean of log durations up to the horizon by 1.12 x (t at "
        "97.5 % + t at 80 %) x standard error of the difference. What lasts beyond the horizon moves nothing, so that "
        "the less had happened by then, the larger a change must be; 1.12 is for the log-rank test, which has to agree",
        cannot_tell="what did change; it says whether asking made sense. It takes for granted that of longer durations "
        f"{SUMMARY_FROM} would still have been recorded on a side",
        version=2,
    ),
    _metric(
        "compare_business_hours",
        "Comparison in business hours",
        "word",
        "interval and test together",
        "the same comparison, of durations in business hours (see business_hours), of what begins within these hours",
        counted=f"{_COMPARED}, of what begins in business hours",
        left_out=f"{_NOT_COMPARED}; what begins out of business hours, counted too: by this clock it is 0 if it was "
        "over before they began, else cut short by its beginning, so that it would tell when trouble came and not how "
        "long it took people at work",
        cannot_tell="anything about nights and weekends. It is a second verdict about the same incidents: who looks "
        "for the one that pleases finds up to twice as many changes by chance",
        clock=BUSINESS_HOURS,
    ),
)

_FINISHED = "deployments of the service and environment in question that finished in [from, to)"
_NOT_FINISHED = "cancelled and unfinished deployments; environments that are not production, unless asked for"
_CAUSED = "incidents that a deployment is known to have caused, or is likely to: `basis` says how that is known"
_FEW_OF_DORA = f"statistics, if fewer than {SUMMARY_FROM} values are known: `values` has the single ones"
_FALSE_ALARMS = "sev5 (false alarms); merged incidents; trouble of the monitoring"

_DORA = (
    _metric(
        "deployment_frequency",
        "Deployment frequency",
        "per day",
        "rate, with an interval",
        "deployments that succeeded and finished in [from, to), per day; exact Poisson interval of 95 %",
        counted=_FINISHED,
        left_out=f"failed deployments; {_NOT_FINISHED}",
        cannot_tell="how much was delivered; and its interval is for deployments that come by chance, which planned "
        "ones do not",
        clock=DEPLOYED,
    ),
    _metric(
        "lead_time_for_changes",
        "Lead time for changes",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "finished_at - commit time, for each commit of a deployment that succeeded in [from, to), counted once per "
        "service with the first such deployment; a commit later than its deployment is left out and counted; median "
        "with the interval of its order statistics, 95 %",
        counted="commits with a time, of deployments that succeeded in [from, to)",
        left_out=f"deployments that tell no time of a commit, counted as without_commit_times; {_FEW_OF_DORA}",
        cannot_tell="how long the idea waited before the commit; a rebase makes old work look young. Commits of one "
        "deployment share its end, so the interval is narrower than it should be",
        clock=DEPLOYED,
        version=2,
    ),
    _metric(
        "without_commit_times",
        "Deployments without commit times",
        "deployments",
        "count",
        "deployments that succeeded in [from, to) and tell no time of any commit",
        counted=_FINISHED,
        left_out=f"failed deployments; {_NOT_FINISHED}",
        cannot_tell="their lead times, which are in no number",
        clock=DEPLOYED,
    ),
    _metric(
        "deployments",
        "Deployments",
        "deployments",
        "count",
        "finished deployments: with the outcome succeeded or failed",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="how large they were",
        clock=DEPLOYED,
    ),
    _metric(
        "change_failures",
        "Failed deployments",
        "deployments",
        "count",
        "distinct finished deployments that needed immediate intervention: marked so (needed_intervention), or the "
        "cause of an incident that is neither sev5 (false alarm) nor trouble of the monitoring. A pipeline's outcome "
        "`failed` alone harms nobody and is not one",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="more than its links: one to the last deployment before an incident is a guess, see `basis`",
        clock=DEPLOYED,
    ),
    _metric(
        "change_fail_rate",
        "Change fail rate",
        "ratio",
        "ratio, with an interval",
        "change_failures / deployments, so never above 1; Wilson interval of 95 %",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="whether changes are bad, or only well watched: what nobody links does not count. Recent "
        "deployments may still fail",
        clock=DEPLOYED,
    ),
    _metric(
        "failed_deployment_recovery_time",
        "Failed deployment recovery time",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "time_to_recover of the incidents that the failed deployments of [from, to) caused, whenever they were "
        "detected",
        counted=_CAUSED,
        left_out=f"{_NO_RECOVERY}; {_FALSE_ALARMS}; failed deployments without an incident; what is pending; "
        f"{_FEW_OF_DORA}",
        cannot_tell="how long recovery takes if it takes long: open incidents are counted as pending and are in no "
        "quantile here",
        version=2,
    ),
    _metric(
        "dora_time_to_recover",
        "Time to recover, of all incidents",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "time_to_recover of all incidents detected in [from, to), whatever caused them",
        counted=_EVERY_INCIDENT,
        left_out=f"{_NO_RECOVERY}; {_FALSE_ALARMS}; what is pending; {_FEW_OF_DORA}",
        cannot_tell="how good deploying is: it stands beside failed_deployment_recovery_time to be compared with it",
        version=2,
    ),
    _metric(
        "rework_rate",
        "Deployment rework rate",
        "ratio",
        "ratio, with an interval",
        "finished deployments that are `unplanned` and name the incident they were made for (made_for) / deployments; "
        "Wilson interval of 95 %",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="rework that nobody marks as unplanned",
        clock=DEPLOYED,
    ),
    _metric(
        "unplanned_without_incident",
        "Unplanned deployments without an incident",
        "deployments",
        "count",
        "finished deployments that are `unplanned` and name no incident; they are not in rework_rate",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="why they were made",
        clock=DEPLOYED,
    ),
    _metric(
        "unlinked",
        "Incidents without a known cause",
        "ratio",
        "ratio, with an interval",
        "incidents detected in [from, to) of which nothing says which deployment caused them, or that none did / "
        "incidents detected; Wilson interval of 95 %",
        counted=_EVERY_INCIDENT,
        left_out=_FALSE_ALARMS,
        cannot_tell="what caused them. The larger it is, the less the change fail rate means",
    ),
    _metric(
        "bases",
        "Linked incidents, by basis",
        "incidents",
        "count",
        "incidents detected in [from, to) whose cause is known, by how: stated by a person, a label that names the "
        "deployment, a version in the labels that was deployed in the week before, or the last deployment in the 24 "
        "hours before",
        counted=_EVERY_INCIDENT,
        left_out=_FALSE_ALARMS,
        cannot_tell="whether the links are right: last_deployment is a guess by time alone",
    ),
    _metric(
        "dora_cost",
        "Cost of downtime by DORA's formula",
        "currency",
        "product, exact",
        "deployments x change_fail_rate x mean failed_deployment_recovery_time in hours x hourly cost of outage as it "
        "is at `to`",
        counted="one service with a rate",
        left_out="incidents that no deployment caused; failed deployments without an incident take the mean",
        cannot_tell="what it cost: it is a cross-check that takes every failure for a full outage and none to overlap. "
        "For what it cost there is `cost`",
        clock=DEPLOYED,
    ),
)


DEFINITIONS: tuple[Definition, ...] = (
    *_MEASURES,
    *_STATISTICS,
    *_INCIDENTS,
    *_AVAILABILITY,
    *_WHAT_IF,
    *_COMPARE,
    *_DORA,
)
DEFINED: Mapping[str, Definition] = {each.name: each for each in DEFINITIONS}
FORMULAS: Mapping[str, str] = {each.name: each.formula for each in DEFINITIONS}
