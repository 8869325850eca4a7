"""What is computed from one measure over many incidents."""

from app.incidents.definitions.model import EVERY_INCIDENT, P95_FROM, SUMMARY_FROM, Definition, Kind

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
        EVERY_INCIDENT,
        "what another of n, pending, censored, invalid and excluded counts",
        cannot_tell,
    )


STATISTICS = (
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
        EVERY_INCIDENT,
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
