"""Definitions of the statistics of one measure over many incidents."""

from app.incidents.definitions.model import EVERY_INCIDENT, P95_FROM, SUMMARY_FROM, Definition, DefinitionKind

_RECORDED = "recorded values"
_AND_WAITS = (
    "recorded values, and the waiting times of incidents that are pending or were resolved without the event "
    "(censored); a waiting time of 0 s so far carries no information and is ignored"
)
_FEW = f"everything if fewer than {SUMMARY_FROM} values are recorded; `values` lists them instead"
_CLUSTERS = "storms, and from 56 days on calendar weeks too (see compare_clusters); never narrower than without"
_OPEN = "pending and censored incidents, and with them most of the long ones"


def _statistic(
    name: str,
    label: str,
    statistic: str,
    formula: str,
    cannot_show: str,
    *,
    unit: str = "seconds",
    of_all: bool = False,
    version: int = 1,
) -> Definition:
    counted, left_out = (
        (_AND_WAITS, f"incidents for which it is not applicable or invalid; {_FEW}")
        if of_all
        else (_RECORDED, f"{_OPEN}; {_FEW}")
    )
    return Definition(
        name, DefinitionKind.STATISTIC, label, unit, statistic, formula, counted, left_out, cannot_show, version=version
    )


def _count(name: str, label: str, formula: str, cannot_show: str) -> Definition:
    """These counts partition the incidents: each is in exactly one of them."""
    return Definition(
        name,
        DefinitionKind.STATISTIC,
        label,
        "incidents",
        "count",
        formula,
        EVERY_INCIDENT,
        "incidents counted by another of n, pending, censored, invalid and excluded",
        cannot_show,
    )


STATISTICS = (
    _count(
        "n",
        "Recorded values",
        "the number of incidents with a recorded value; n + pending + censored + invalid + all of excluded is the "
        "number of incidents. For a rate: its denominator",
        "anything by itself; check it before you read the other numbers",
    ),
    _count(
        "pending",
        "Pending",
        "open incidents whose measure may still be recorded",
        "how they will end; their waiting times are used only by the statistics that include censored values",
    ),
    _count(
        "censored",
        "Censored",
        "incidents that were resolved before the event, so it would have taken longer than that. In a comparison and "
        "with the Kaplan-Meier median, pending incidents count as censored too",
        "why: an incident that resolved by itself and one that was ignored look alike",
    ),
    _count(
        "invalid",
        "Invalid",
        "incidents whose facts contradict each other, such as an end before the start; never clamped to 0",
        "which fact is wrong; correct it and the incident counts",
    ),
    _count(
        "excluded",
        "Excluded, by reason",
        "incidents without such a duration: a time was never stated, the end was not a recovery, …",
        "whether they would have looked like the others: incidents without stated times are seldom a fair sample",
    ),
    Definition(
        "zeros",
        DefinitionKind.STATISTIC,
        "Recorded values of 0",
        "incidents",
        "count",
        "recorded values of 0: start and end are equal or, in business hours, the whole duration is outside them",
        _RECORDED,
        _OPEN,
        "anything about values above 0. If it is half of n or more, the median is 0 and means nothing else",
    ),
    Definition(
        "left_out",
        DefinitionKind.STATISTIC,
        "Left out",
        "incidents",
        "count",
        "incidents without a usable duration: excluded or invalid; for lead times, commits later than their deployment",
        EVERY_INCIDENT,
        "recorded, censored and pending incidents",
        "whether they would have looked like the others",
    ),
    Definition(
        "values",
        DefinitionKind.STATISTIC,
        "Individual values",
        "seconds",
        "none: the values themselves",
        f"the recorded values in ascending order, if there are fewer than {SUMMARY_FROM}",
        _RECORDED,
        _OPEN,
        "what is typical: there are too few values",
    ),
    _statistic(
        "median",
        "Median",
        "50 % quantile",
        "half of the recorded values are shorter; interpolated linearly between the two nearest values",
        "how long the worst incidents take, or those that are still open",
    ),
    _statistic(
        "p90",
        "90th percentile",
        "90 % quantile",
        "nine in ten recorded values are shorter; interpolated linearly between the two nearest values",
        "a trend: it varies a lot from quarter to quarter by chance alone",
    ),
    _statistic(
        "p95",
        "95th percentile",
        "95 % quantile",
        f"19 in 20 recorded values are shorter; interpolated linearly; only with at least {P95_FROM} values",
        "a trend, even less than the 90th percentile",
    ),
    _statistic(
        "geometric_mean",
        "Geometric mean",
        "geometric mean",
        "exp(mean of log(value)); none if any value is 0, because it would be 0 then, as is often so in business hours",
        "totals: it is a typical value for skewed durations and must not be multiplied by a count",
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
        "50 % quantile, including censored values",
        "the shortest time by which the Kaplan-Meier curve, the product of (1 - events / at risk) over the durations "
        "so far, is at most one half; 95 % interval where the curve's band (exponential Greenwood, widened as in ecdf) "
        "crosses one half",
        "anything about why durations are censored: it assumes that censored incidents are otherwise like the rest",
        of_all=True,
        version=3,
    ),
    _statistic(
        "restricted_mean",
        "Restricted mean",
        "mean up to a horizon, including censored values",
        "the area under the Kaplan-Meier curve from 0 to the horizon: the mean, with longer durations counted as the "
        "horizon; 95 % interval by Greenwood's variance and Student's t on the log scale, widened by the ratio of the "
        f"standard errors with and without clusters: {_CLUSTERS}",
        "anything beyond its horizon, which is lowered to the longest observed duration if that is shorter and "
        "censored; compare only means with the same horizon. The interval contains the true value in about 85 of "
        "100 cases with 10 independent values, and in 92 with 50",
        of_all=True,
        version=3,
    ),
    _statistic(
        "ecdf",
        "Distribution",
        "cumulative shares, including censored values",
        "for increasing durations the share of events by then: 1 - the Kaplan-Meier curve, with its 95 % band, in at "
        "most 50 steps. At each step the band is widened by the ratio of the standard errors with and without "
        f"clusters: {_CLUSTERS}",
        "the end of the curve reliably while many incidents are open: the band is wide there",
        unit="share",
        of_all=True,
        version=3,
    ),
    _statistic(
        "histogram",
        "Histogram",
        "counts",
        "recorded values in bins of doubling width, the same for all data: …, 30 to 60 s, 1 to 2 min, 2 to 4 min, …",
        "open incidents, which belong on the right",
        unit="incidents",
    ),
)
