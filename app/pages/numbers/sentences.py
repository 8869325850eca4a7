"""What the page of numbers says in sentences. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from app.incidents.definitions.model import OCCASIONS_FROM, SUMMARY_FROM
from app.metrics.clusters import Clustering
from app.metrics.comparison.compare import (
    ClusteringResult,
    Comparison,
    DetectableChange,
    Effect,
    Sample,
    Trend,
    evidence_in_words,
)
from app.metrics.counts import CountsCompared, CountVerdict
from app.metrics.deployments.dora import Dora, Durations
from app.metrics.summary.summaries import Summary
from app.metrics.summary.survival import Estimate, Step
from app.pages.words import NARROW, duration, plural, share

VERDICTS = {Trend.BETTER: "Better", Trend.WORSE: "Worse", Trend.CANNOT_TELL: "Cannot tell"}


# — are we getting better? —


def why(found: Comparison, before: Sample, now: Sample) -> str:
    """Why the verdict is what it is, how much information the incidents carry, and what change would have been seen."""
    effect, p_value = found.effect, found.p_value
    if not found.by:
        return (
            f"{plural(len(before.recorded), 'value')} before and {plural(len(now.recorded), 'value')} now; with fewer "
            f"than {SUMMARY_FROM} in either period there is no verdict."
        )
    storms = found.by[Clustering.STORMS]
    evidence_before = evidence_in_words(storms.a, len(before.recorded) + len(before.censored))
    evidence_now = evidence_in_words(storms.b, len(now.recorded) + len(now.censored))
    parts = [f"Before: {evidence_before}. Now: {evidence_now}."]
    if effect is None or p_value is None:
        return " ".join([_too_few_occasions(found.by), *parts])
    parts = [_reason(found, effect, p_value), *parts]
    if found.smallest_change is not None:
        parts.append(detectable(found.smallest_change, len(before.recorded), len(now.recorded)))
    if found.horizon is not None:
        parts.append(f"Durations above {duration(found.horizon)} count as that long.")
    return " ".join(parts)


def _too_few_occasions(by: Mapping[Clustering, ClusteringResult]) -> str:
    [(clustering, few), *_] = [(name, each) for name, each in by.items() if each.a.are_too_few or each.b.are_too_few]
    return (
        f"Too few independent occasions: the values come from {few.a.with_values:,} {clustering} before and "
        f"{few.b.with_values:,} now; with fewer than {OCCASIONS_FROM} in either period there is no verdict."
    )


def _reason(found: Comparison, effect: Effect, p_value: float) -> str:
    interval = f"95{NARROW}% interval {times(effect.low)} to {times(effect.high)}"
    includes_same, tested = effect.low <= 1 <= effect.high, probability(p_value)
    if found.verdict is not Trend.CANNOT_TELL:
        return f"It takes {times(effect.ratio)} times as long as before ({interval}; {tested})."
    finding = [name for name, each in found.by.items() if each.is_change]
    if finding:
        [lacking] = found.by.keys() - finding
        return f"By {finding[0]} there is a change, but by {lacking} there is none ({interval}; {tested})."
    if not includes_same:
        return f"The {interval} leaves out \u201csame\u201d, but the log-rank test finds no change ({tested})."
    if p_value < 0.05:
        return f"The {interval} includes \u201csame\u201d, although the log-rank test finds a change ({tested})."
    return f"The {interval} includes \u201csame\u201d ({tested})."


def lacking(found: Comparison) -> str:
    """Why there is no interval."""
    return "too few storms or weeks" if found.by else "too few values"


def incidents_words(compared: CountsCompared) -> str:
    """Whether there were more incidents than before."""
    found, before, now = compared
    shown = (
        f"{plural(before.n, 'incident')} in {plural(before.storms, 'storm')} before and {plural(now.n, 'incident')} in "
    )
    shown += f"{plural(now.storms, 'storm')} now"
    if found.ratio is None or found.low is None or found.high is None:
        return f"Number of incidents: {shown}; that cannot be compared."
    interval = (
        f"{times(found.ratio)} times as many per day, 95{NARROW}% interval {times(found.low)} to {times(found.high)}"
    )
    return f"Number of incidents: {_CHANGES[found.verdict]}. {shown} ({interval})."


_CHANGES = {
    CountVerdict.FEWER: "fewer",
    CountVerdict.MORE: "more",
    CountVerdict.CANNOT_TELL: "cannot tell whether it changed",
}


def detectable(change: DetectableChange, before: int, now: int) -> str:
    """The smallest true changes that this many values would have shown."""
    counts = f"With {before:,} and {now:,} values"
    shorter = _percent(change.shorter)
    if change.longer is None:
        return f"{counts}, a change to {shorter} would show; an increase could not."
    return f"{counts}, a change to {shorter} or less, or to {_percent(change.longer)} or more, would show."


def times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def probability(p_value: float) -> str:
    return f"p{NARROW}<{NARROW}0.001" if p_value < 0.001 else f"p{NARROW}={NARROW}{p_value:.3f}"


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.0f}{NARROW}%"


def no_verdicts(counts: Mapping[str, tuple[int, int]]) -> str:
    """For periods in which nothing can be compared. `counts` are the values before and now, by label."""
    known = "; ".join(f"{label.lower()}: {before:,} and {now:,}" for label, (before, now) in counts.items())
    return (
        f"There are too few incidents to compare: that takes at least {SUMMARY_FROM} values in each period. "
        f"Values before and now: {known}."
    )


# — how long it took —


def median_words(found: Estimate | None, n: int) -> str:
    """The median of one period with its interval."""
    if n == 0:
        return "no value"
    if found is None:
        return f"{plural(n, 'value')}, too few for a median"
    if found.seconds is None:
        least = "" if found.low is None else f", and the median is above {duration(found.low)}"
        return f"fewer than half have happened{least}"
    low = "unknown" if found.low is None else duration(found.low)
    high = "unknown" if found.high is None else duration(found.high)
    return f"median {duration(found.seconds)}, 95{NARROW}% interval {low} to {high}"


def cut_short(summary: Summary, pending: str, censored: str) -> str | None:
    """The meaning of the hollow marks."""
    parts = [f"{summary.pending:,} {pending}"] if summary.pending else []
    parts += [f"{summary.censored:,} {censored}"] if summary.censored else []
    return " and ".join(parts) or None


def left_out(summary: Summary) -> str | None:
    """Incidents without a value, with the reasons."""
    reasons = [f"{count:,} {_reason_words(reason)}" for reason, count in summary.excluded.items()]
    reasons += [f"{summary.invalid:,} with times that contradict each other"] if summary.invalid else []
    return ", ".join(reasons) or None


def _reason_words(reason: str) -> str:
    return _REASONS.get(reason, reason.replace("_", " "))


_REASONS = {
    "impact start not stated": "without a stated start of impact",
    "monitoring failure, not a service failure": "of the monitoring, not of a service",
}


# — how many have recovered —


def recovery_words(found: Estimate, steps: Sequence[Step]) -> str:
    half = "fewer than half have recovered" if found.seconds is None else f"half within {duration(found.seconds)}"
    nine = next((step.seconds for step in steps if step.share >= 0.9), None)
    most = "fewer than nine of ten so far" if nine is None else f"nine of ten within {duration(nine)}"
    return f"{half[0].upper()}{half[1:]}" + ("." if found.seconds is None else f", {most}.")


# — what several values are —


def typical_words(summary: Summary) -> str:
    """The median of many values, or the range of few."""
    return range_words(summary.values or ()) if summary.typical is None else duration(summary.typical.median)


def range_words(values: Iterable[float]) -> str:
    ascending = sorted(values)
    if not ascending:
        return ""
    first, last = duration(ascending[0]), duration(ascending[-1])
    return first if first == last else f"{first} to {last}"


# — delivery —


def durations_words(each: Durations) -> tuple[str, str]:
    """The median and its interval, or all of few values."""
    if each.typical is not None and each.low is not None and each.high is not None:
        return duration(each.typical.median), f"{duration(each.low)} to {duration(each.high)}"
    if each.typical is not None:
        return duration(each.typical.median), "interval unknown"
    return ", ".join(map(duration, each.values or ())), ""


def unlinked_words(delivery: Dora) -> str | None:
    """How many incidents have no known cause."""
    of = delivery.unlinked
    if not of.n or of.value is None or of.low is None or of.high is None:
        return None
    return (
        f"{of.k:,} of {plural(of.n, 'incident')} ({share(of.value)}, {share(of.low)} to {share(of.high)}) "
        f"{'has' if of.k == 1 else 'have'} no known cause. The more there are, the less reliable the change fail rate "
        "is."
    )
