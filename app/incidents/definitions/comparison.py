"""Definitions of the numbers that compare one measure between two periods."""

from app.incidents.definitions.model import BUSINESS_HOURS, SUMMARY_FROM, Definition, metric

_COMPARED = "one measure in two periods: recorded and censored values"
_NOT_COMPARED = "values that are not applicable or invalid, counted by reason"


def _compared(
    name: str, label: str, unit: str, statistic: str, formula: str, *, cannot_tell: str, version: int = 1
) -> Definition:
    return metric(
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


COMPARISON = (
    _compared(
        "typical",
        "Typical duration",
        "seconds",
        "restricted geometric mean",
        "exp of the area under the Kaplan-Meier curve of log(duration), up to the horizon; without censored values it "
        "is the geometric mean. Durations below 1 s count as 1 s",
        cannot_tell="totals, like any geometric mean. It differs from the geometric mean of the summary, which leaves "
        "out censored values",
    ),
    _compared(
        "horizon",
        "Horizon of the comparison",
        "seconds",
        "minimum",
        "the longest duration observed on both sides; none if on each side every censored value was observed for less "
        "than the longest recorded one",
        cannot_tell="what happens beyond it: nothing is compared there",
        version=2,
    ),
    _compared(
        "effect",
        "Effect",
        "ratio",
        "ratio",
        "typical duration of B / typical duration of A",
        cannot_tell="why it changed: different incidents, rules and people contribute too. If there is a horizon, "
        "durations beyond it count as equal, which makes the effect smaller than the change of the durations",
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
        "the probability that two periods without a real difference differ at least as much as these, by the log-rank "
        "test",
        cannot_tell="how large a change is, or how likely it is that there is one",
    ),
    _compared(
        "verdict",
        "Verdict",
        "word",
        "interval and test together",
        "better or worse if the interval excludes 1 and the p-value of the log-rank test is below 0.05; otherwise "
        f"cannot_tell, and always cannot_tell with fewer than {SUMMARY_FROM} recorded values on a side. Censored "
        "values (incidents still pending, or resolved without the event) count in both as lasting longer than they "
        "were observed",
        cannot_tell="that nothing changed: cannot_tell is not a finding. The more pairs are compared, the more "
        "differences appear by chance",
    ),
    _compared(
        "smallest_change",
        "Smallest detectable change",
        "ratio",
        "detectable ratio at 80 % power",
        "the smallest true change of all durations, to shorter and to longer, that gets a verdict in at least 80 % of "
        "such comparisons: the one that moves the mean of log durations up to the horizon by 1.12 x (t at 97.5 % + t "
        "at 80 %) x standard error of the difference. Durations beyond the horizon do not move the mean, so the fewer "
        "events happened before it, the larger a change must be; the factor 1.12 accounts for the log-rank test, "
        "which has to agree",
        cannot_tell="what did change; it shows whether the comparison could have found anything. It assumes that with "
        f"longer durations {SUMMARY_FROM} values would still have been recorded on each side",
        version=2,
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
        "started rather than how long people at work took",
        cannot_tell="anything about nights and weekends. It is a second verdict about the same incidents: picking the "
        "more favorable of the two finds up to twice as many changes by chance",
        clock=BUSINESS_HOURS,
    ),
)
