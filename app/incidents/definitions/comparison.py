"""Definitions of the numbers that compare one measure between two periods."""

from app.incidents.definitions.model import (
    BUSINESS_HOURS,
    EVERY_INCIDENT,
    OCCASIONS_FROM,
    SUMMARY_FROM,
    Definition,
    metric,
)

_COMPARED = "one measure in two periods: recorded and censored values"
_NOT_COMPARED = "values that are not applicable or invalid, counted by reason"


def _compared(
    name: str, label: str, unit: str, statistic: str, formula: str, *, cannot_show: str, version: int = 1
) -> Definition:
    return metric(
        f"compare_{name}",
        label,
        unit,
        statistic,
        formula,
        counted=_COMPARED,
        left_out=_NOT_COMPARED,
        cannot_show=cannot_show,
        version=version,
    )


COMPARISON = (
    _compared(
        "typical",
        "Typical duration",
        "seconds",
        "restricted geometric mean",
        "exp of the area under the Kaplan-Meier curve of log(duration), up to the horizon; without censored values it "
        "is the geometric mean. Durations below 1 s count as 1 s",
        cannot_show="totals, like any geometric mean. It differs from the geometric mean of the summary, which leaves "
        "out censored values",
    ),
    _compared(
        "horizon",
        "Horizon of the comparison",
        "seconds",
        "minimum",
        "the longest duration observed on both sides; none if on each side every censored value was observed for less "
        "than the longest recorded one",
        cannot_show="what happens beyond it: nothing is compared there",
        version=2,
    ),
    _compared(
        "effect",
        "Effect",
        "ratio",
        "ratio",
        "typical duration of B / typical duration of A",
        cannot_show="why it changed: different incidents, rules and people contribute too. If there is a horizon, "
        "durations beyond it count as equal, which makes the effect smaller than the change of the durations",
    ),
    _compared(
        "interval",
        "Interval of the effect",
        "ratio",
        "95 % interval, robust to clusters",
        "95 % interval of the difference of log durations: Student's t with Welch's degrees of freedom. The variance "
        "of a side is the sum over its clusters of (sum of the influences of its incidents on the mean)^2 / (1 - share "
        "of the events), with the degrees of freedom by Bell and McCaffrey for the correlation within clusters that is "
        "found; with one incident in each cluster and nothing censored it is Welch's interval. By storms, and from 56 "
        "days on each side by weeks too: the wider one counts",
        cannot_show="how far next quarter will be from this one, nor what lasts longer than a week: a bad month makes "
        "two quarters differ, no matter what people changed",
        version=2,
    ),
    _compared(
        "p_value",
        "p-value",
        "probability",
        "log-rank test, two-sided, robust to clusters",
        "the probability that two periods without a real difference differ at least as much as these, by the log-rank "
        "test with a variance that sums the scores of each cluster before squaring them (Lee, Wei and Amato). By "
        "storms, and from 56 days on each side by weeks too: the larger one counts",
        cannot_show="how large a change is, or how likely it is that there is one. With few clusters it is too small "
        "by itself, so there is no verdict without the interval",
        version=2,
    ),
    _compared(
        "verdict",
        "Verdict",
        "word",
        "interval and test together",
        "better or worse if, by storms and from 56 days on each side by weeks too, the interval excludes 1 and the "
        "p-value of the log-rank test is below 0.05; otherwise cannot_tell, and always cannot_tell with fewer than "
        f"{SUMMARY_FROM} recorded values on a side, or with recorded values from fewer than {OCCASIONS_FROM} storms or "
        "weeks. Censored values (incidents still pending, or resolved without the event) count in both as lasting "
        "longer than they were observed",
        cannot_show="that nothing changed: cannot_tell is not a finding. The more pairs are compared, the more "
        "differences appear by chance. With less than 56 days on a side, storms that last for days and good and bad "
        "weeks still look like change",
        version=2,
    ),
    _compared(
        "smallest_change",
        "Smallest detectable change",
        "ratio",
        "detectable ratio at 80 % power",
        "the smallest true change of all durations, to shorter and to longer, that gets a verdict in at least 80 % of "
        "such comparisons: the one that moves the mean of log durations up to the horizon by 1.12 x (t at 97.5 % + t "
        "at 80 %) x standard error of the difference, by storms or by weeks, whichever is larger. Durations beyond the "
        "horizon do not move the mean, so the fewer events happened before it, the larger a change must be; the factor "
        "1.12 accounts for the log-rank test, which has to agree",
        cannot_show="what did change; it only shows what the comparison could have detected. It assumes that with "
        f"longer durations {SUMMARY_FROM} values would still have been recorded on each side, and with about five "
        "storms on a side it is a rough guess",
        version=3,
    ),
    _compared(
        "clusters",
        "Storms and weeks",
        "clusters",
        "count",
        "sorted by detected_at and over all services that are compared, a new storm begins when nothing has begun for "
        "more than 6 h, or once a storm has lasted for 24 h; weeks are calendar weeks in UTC, and count from 56 days "
        "on each side",
        cannot_show="whether the incidents of a storm have a cause in common. A storm that spreads over days is cut "
        "into several, which only the weeks allow for",
    ),
    _compared(
        "effective_n",
        "Effective number of incidents",
        "incidents",
        "ratio of variances",
        "incidents x variance of the mean log duration if they were independent / its variance by clusters; at most "
        "the number of incidents",
        cannot_show="which incidents: it depends on how alike the durations within a cluster are, and is itself an "
        "estimate",
    ),
    metric(
        "compare_incidents",
        "Comparison of the number of incidents",
        "word",
        "ratio of rates with an interval",
        "fewer or more if the 95 % interval of incidents per day in B / incidents per day in A excludes 1; otherwise "
        "cannot_tell. The interval is the wider of two: Clopper and Pearson's of the share of B in both, after "
        "dividing the numbers by the dispersion (see dispersion) of both sides, pooled; and Welch's, of the logarithm "
        "of the ratio with the variance dispersion / incidents of each side",
        counted=EVERY_INCIDENT,
        left_out="merged incidents; the part of a period that has not passed yet",
        cannot_show="that nothing changed, and why: rules that group differently change the number too. It assumes "
        "that days differ by chance only, so a calm and a busy month look like change",
    ),
    metric(
        "compare_business_hours",
        "Comparison in business hours",
        "word",
        "interval and test together",
        "the same comparison, of durations in business hours (see business_hours) that start within these hours",
        counted=f"{_COMPARED}, if they start in business hours",
        left_out=f"{_NOT_COMPARED}; values that start outside business hours, also counted: on this clock they are 0 "
        "if they ended before opening time, and cut off at the front otherwise, so they would reflect when incidents "
        "started rather than how long people at work needed",
        cannot_show="anything about nights and weekends. It is a second verdict about the same incidents: picking the "
        "more favorable of the two finds up to twice as many changes by chance",
        clock=BUSINESS_HOURS,
        version=2,
    ),
)
