"""What the page of numbers shows, from what was read: plots, their tables, and words. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from app.base.values.times import Span
from app.incidents.definitions import DEFINED
from app.incidents.definitions.model import Definition
from app.incidents.impact.intervals import Shown, shown
from app.incidents.impact.stretches import OPEN_END
from app.incidents.impact.sweep import union
from app.incidents.measures.measures import MEASURES as REGISTRY
from app.incidents.measures.measures import Measure
from app.incidents.measures.vectorized import microseconds
from app.metrics.comparison.compare import Comparison
from app.metrics.comparison.periods import Dots, PeriodNumbers
from app.metrics.summary.numbers import Numbers
from app.metrics.summary.store import Incidents
from app.metrics.summary.summaries import Summary
from app.metrics.summary.survival import Step
from app.metrics.whatif import scenario
from app.pages.numbers import sentences
from app.pages.numbers.query import NumbersQuery
from app.pages.numbers.read import MEASURES, Read
from app.pages.plots.amounts import Ranges, ranges
from app.pages.plots.axes import Tick
from app.pages.plots.curve import Curve, curve
from app.pages.plots.dots import DOTS_AT_MOST, ManyValues, Value
from app.pages.plots.forest import Interval, forest
from app.pages.plots.periods import Median, Side, TwoPeriods, two_periods

SERVICES_AT_MOST = 25
ROWS_AT_MOST = 60  # of a table that is in the page without being asked for
STEPS_AT_MOST = 30  # the same, of the curve
CURVE_HEIGHT = 180  # pixels

# What the hollow marks of each measure are: pending, and ended without the event.
_CUT_SHORT = {
    "time_to_detect": ("not detected yet", ""),
    "time_to_acknowledge": ("not acknowledged yet", "resolved without acknowledgement"),
    "time_to_recover": ("still open", "superseded by the next alert of their series"),
}
_DEFINED = (
    *MEASURES,
    *("business_hours", "kaplan_meier_median", "ecdf"),
    *("compare_typical", "compare_effect", "compare_interval", "compare_verdict", "compare_smallest_change"),
    *("compare_clusters", "compare_effective_n", "compare_incidents"),
    *("downtime", "cost", "whatif"),
    *("deployment_frequency", "lead_time_for_changes", "change_fail_rate", "failed_deployment_recovery_time"),
)


# — the facts —


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the forest plot."""

    measure: Measure
    found: Comparison
    interval: Interval | None
    why: str


@dataclass(frozen=True, slots=True)
class PeriodOf:
    """One measure in one period. `values` ascend; they are empty if there are more than DOTS_AT_MOST."""

    name: str
    summary: Summary
    median: str
    cut_short: str | None
    left_out: str | None
    values: Sequence[Value]
    count: int
    hollow: int  # of these


@dataclass(frozen=True, slots=True)
class Distribution:
    """One measure in both periods, the one before first."""

    measure: Measure
    plot: TwoPeriods | None  # None: no value in either
    periods: Sequence[PeriodOf]
    has_table: bool

    @property
    def in_columns(self) -> bool:
        return self.plot is not None and any(row.bins for row in self.plot.rows)

    @property
    def rows(self) -> int:
        """How many its table has: of values, or of columns."""
        if self.plot is not None and self.in_columns:
            return sum(len(row.bins) for row in self.plot.rows)
        return sum(period.count for period in self.periods)


@dataclass(frozen=True, slots=True)
class Recovery:
    plot: Curve
    steps: Sequence[Step]
    words: str
    has_table: bool


@dataclass(frozen=True, slots=True)
class ServiceCost:
    """`amounts` and `ranges` by currency; none without a rate."""

    service: str
    numbers: Numbers
    recover: str  # typical time to recover
    amounts: Mapping[str, Shown]
    ranges: Ranges
    is_partly_unpriced: bool


@dataclass(frozen=True, slots=True)
class Saving:
    """With every recovery a fifth faster: by currency, what the period would have cost, and the difference."""

    after: Mapping[str, Shown]
    difference: Mapping[str, Shown]
    downtime_before_seconds: float
    downtime_after_seconds: float


@dataclass(frozen=True, slots=True)
class View:
    asked: NumbersQuery
    now: Numbers
    before: Numbers | None
    ratio_ticks: Sequence[Tick]
    verdicts: Sequence[Verdict]
    no_verdicts: str | None
    incidents: str | None  # whether there were more than before
    distributions: Sequence[Distribution]
    recovery: Recovery | None
    costs: Sequence[ServiceCost]
    costs_left_out: int
    total: Mapping[str, Shown]
    saving: Saving | None
    blind: float  # seconds of the period in which the monitoring itself failed
    definitions: Sequence[Definition]

    @property
    def all_dots(self) -> bool:
        return not any(each.in_columns for each in self.distributions)


def view(asked: NumbersQuery, read: Read, *, now: datetime) -> View:
    periods = read.periods
    verdicts, ticks = _verdicts(read)
    compared = any(each.found.by for each in verdicts)
    costs, left_out = _costs(periods.services)
    return View(
        asked=asked,
        now=periods.current.total,
        before=None if periods.previous is None else periods.previous.total,
        ratio_ticks=ticks,
        verdicts=verdicts,
        no_verdicts=None if compared else _no_verdicts(read),
        incidents=None if periods.incidents is None else sentences.incidents_words(periods.incidents),
        distributions=[_distribution(asked, read, measure) for measure in _measures()],
        recovery=_recovery(asked, read),
        costs=costs,
        costs_left_out=left_out,
        total=_shown(periods.current.total),
        saving=_saving(read),
        blind=_blind(read.periods.read, asked.period, now),
        definitions=[DEFINED[name] for name in _DEFINED],
    )


def _measures() -> list[Measure]:
    by_name = {measure.name: measure for measure in REGISTRY}
    return [by_name[name] for name in MEASURES]


# — verdicts —


def _verdicts(read: Read) -> tuple[list[Verdict], list[Tick]]:
    compared = read.periods.verdicts_in_hours or read.periods.verdicts
    each = [(measure, compared[measure.name]) for measure in _measures()]
    plot = forest([found.found.effect for _, found in each])
    rows = [
        Verdict(measure, sides.found, interval, sentences.why(sides.found, sides.a.sample, sides.b.sample))
        for (measure, sides), interval in zip(each, plot.rows, strict=True)
    ]
    return rows, plot.ticks


def _no_verdicts(read: Read) -> str:
    compared = read.periods.verdicts_in_hours or read.periods.verdicts
    return sentences.no_verdicts(
        {
            measure.label: (
                len(compared[measure.name].a.sample.recorded),
                len(compared[measure.name].b.sample.recorded),
            )
            for measure in _measures()
        }
    )


# — distributions —


def summary_of(numbers: Numbers, measure: str) -> Summary:
    """By the clock of the calendar, if there is one."""
    return (numbers.business_hours or numbers.measures)[measure]


def _distribution(asked: NumbersQuery, read: Read, measure: Measure) -> Distribution:
    both = [(f"{asked.length} before", read.periods.previous), (_last(asked), read.periods.current)]
    known = [(name, numbers, numbers.dots[measure.name]) for name, numbers in both if numbers is not None]
    periods = [_period(name, numbers, measure.name) for name, numbers, _ in known]
    plot = None
    if any(period.count for period in periods):
        plot = two_periods([_side(period, dots) for period, (*_, dots) in zip(periods, known, strict=True)])
    found = Distribution(measure, plot, periods, has_table=asked.table == measure.name)
    return replace(found, has_table=found.has_table or (found.rows <= ROWS_AT_MOST and not found.in_columns))


def _side(period: PeriodOf, dots: Dots) -> Side:
    values = period.values if period.count <= DOTS_AT_MOST else ManyValues(*dots.seconds)
    return Side(values, _median(period.summary))


def _last(asked: NumbersQuery) -> str:
    return f"last {asked.length}" if asked.days is not None else f"these {asked.length}"


def _period(name: str, numbers: PeriodNumbers, measure: str) -> PeriodOf:
    summary = summary_of(numbers.total, measure)
    dots = numbers.dots[measure]
    listed = dots.dots if dots.total <= DOTS_AT_MOST else ()
    values = [Value(dot.seconds, dot.censored, f"INC-{dot.number}") for dot in listed]
    pending, censored = _CUT_SHORT[measure]
    return PeriodOf(
        name=name,
        summary=summary,
        median=sentences.median_words(None if summary.estimates is None else summary.estimates.median, summary.n),
        cut_short=sentences.cut_short(summary, pending, censored),
        left_out=sentences.left_out(summary),
        values=sorted(values, key=lambda value: (value.seconds, value.censored, value.number)),
        count=dots.total,
        hollow=len(dots.seconds[1]),
    )


def _median(summary: Summary) -> Median | None:
    return None if summary.estimates is None else Median(*summary.estimates.median)


# — recovery —


def _recovery(asked: NumbersQuery, read: Read) -> Recovery | None:
    current = read.periods.current
    found = summary_of(current.total, "time_to_recover").estimates
    if found is None or not found.ecdf:
        return None
    observed = max(float(seconds.max(initial=0)) for seconds in current.dots["time_to_recover"].seconds)
    return Recovery(
        curve(found.ecdf, observed, height=CURVE_HEIGHT),
        found.ecdf,
        sentences.recovery_words(found.median, found.ecdf),
        has_table=asked.table == "recovery" or len(found.ecdf) <= STEPS_AT_MOST,
    )


# — cost —


def _costs(services: Sequence[Numbers]) -> tuple[list[ServiceCost], int]:
    """Most downtime first, as REST shows them."""
    affected = sorted((each for each in services if each.downtime), key=lambda each: each.downtime, reverse=True)
    amounts = [_shown(each) for each in affected[:SERVICES_AT_MOST]]
    rows = [
        ServiceCost(
            service=numbers.query.service,
            numbers=numbers,
            recover=sentences.typical_words(numbers.measures["time_to_recover"]),
            amounts=amount,
            ranges=drawn,
            is_partly_unpriced=bool(amount and numbers.services_without_rate),
        )
        for numbers, amount, drawn in zip(affected, amounts, ranges(amounts), strict=False)
    ]
    return rows, len(affected) - len(rows)


def _shown(numbers: Numbers) -> Mapping[str, Shown]:
    return {} if numbers.cost is None else shown(numbers.cost)


def _saving(read: Read) -> Saving | None:
    if read.faster is None or not read.faster.incidents:
        return None
    whole = read.faster.whole
    return Saving(
        scenario.shown(whole.after),
        scenario.shown(whole.difference),
        whole.downtime_before.total_seconds(),
        whole.downtime_after.total_seconds(),
    )


def _blind(read: Incidents, period: Span, now: datetime) -> float:
    """How long alerts of the monitoring fired in the period, overlapping ones counted once."""
    stretches = read.stretches.where(read.columns.monitoring[read.stretches.incident])
    end = np.where(stretches.end == OPEN_END, microseconds(now), stretches.end)
    first, last = map(microseconds, period)
    start, end = np.maximum(stretches.start, first), np.minimum(end, last)
    _, lasted = union(np.zeros(len(start), np.int64)[start < end], start[start < end], end[start < end])
    return float(lasted.sum()) / 1e6


def span_query(asked: NumbersQuery, span: Span) -> dict[str, str | None]:
    """The query string of the list of incidents behind a number."""
    return {
        "from": span.start.isoformat().replace("+00:00", "Z"),
        "to": span.end.isoformat().replace("+00:00", "Z"),
        "service": asked.service,
        "severity": asked.severity,
        "environment": asked.environment,
    }
