"""One measure compared between two periods."""

from app.incidents.definitions.model import BUSINESS_HOURS, SUMMARY_FROM, Definition, metric

_COMPARED = "one measure in two periods: recorded values, and waits that were cut short"
_NOT_COMPARED = "what is not applicable or invalid, counted by reason"


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
    metric(
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
