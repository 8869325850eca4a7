"""The numbers of the last weeks, and where their marks lie in the plots. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from app.base.values.arrays import distinct
from app.base.values.times import Span
from app.incidents.impact.availability import BudgetLeft
from app.incidents.impact.intervals import Cost, Shown, shown
from app.incidents.measures.vectorized import NEVER, microseconds
from app.metrics.comparison.compare import Comparison
from app.metrics.comparison.periods import Dots, PeriodNumbers, Periods
from app.metrics.summary.survival import Estimate
from app.pages.overview.read import MEASURES, Mark, Overview, marked
from app.pages.plots import marks
from app.pages.plots.axes import INSET, DurationAxis, TimeAxis, duration_axis
from app.pages.plots.dots import Column, Dot, ManyValues, Value, columns, dots, levels_of
from app.pages.plots.marks import Head, Path

DOTS_AT_MOST = 120  # more become a histogram: a strip is small
DOT_SPACING = 1.9  # percent of the width of a strip

LABELS = {"time_to_recover": "Time to recover", "time_to_acknowledge": "Time to acknowledge"}
UNFINISHED = {"time_to_recover": "not recovered", "time_to_acknowledge": "not acknowledged"}


@dataclass(frozen=True, slots=True)
class Strip:
    """Every value on one axis: either dots or columns."""

    axis: DurationAxis
    dots: Sequence[Dot]
    columns: Sequence[Column]
    levels: int  # of the dots


@dataclass(frozen=True, slots=True)
class DurationFigure:
    """One measure in the period. With fewer than ten values `median` is None and only the dots are shown."""

    name: str
    label: str
    unfinished_words: str
    n: int
    unfinished: int  # pending, or ended before it happened
    median: Estimate | None
    strip: Strip | None
    compared: Comparison | None


@dataclass(frozen=True, slots=True)
class Figures:
    incidents: int  # without those of the monitoring
    incidents_before: int | None
    monitoring: int
    durations: Sequence[DurationFigure]
    levels: int  # the height of all strips, so that they align
    downtime: float  # seconds
    downtime_before: float | None
    planned: float  # seconds
    cost: Mapping[str, Shown]  # by currency; empty: no rate
    services_without_rate: Sequence[str]


def figures_of(periods: Periods) -> Figures:
    current, previous = periods.current, periods.previous
    durations = [_duration(name, current, periods.verdicts[name].found) for name in MEASURES]
    return Figures(
        incidents=_incidents(current),
        incidents_before=None if previous is None else _incidents(previous),
        monitoring=current.total.monitoring,
        durations=durations,
        levels=max(_levels(each) for each in durations),
        downtime=current.total.downtime.total_seconds(),
        downtime_before=None if previous is None else previous.total.downtime.total_seconds(),
        planned=current.total.planned.total_seconds(),
        cost=_amounts(current.total.cost),
        services_without_rate=current.total.services_without_rate,
    )


def _incidents(numbers: PeriodNumbers) -> int:
    return numbers.total.incidents - numbers.total.monitoring


def _amounts(cost: Cost | None) -> Mapping[str, Shown]:
    return {} if cost is None else shown(cost)


def _duration(name: str, numbers: PeriodNumbers, compared: Comparison) -> DurationFigure:
    summary = numbers.total.measures[name]
    found = numbers.dots[name]
    return DurationFigure(
        name=name,
        label=LABELS[name],
        unfinished_words=UNFINISHED[name],
        n=summary.n,
        unfinished=summary.pending + summary.censored,
        median=summary.estimates.median if summary.estimates else None,
        strip=_strip(found) if found.total else None,
        compared=compared,
    )


def _strip(found: Dots) -> Strip:
    axis = duration_axis(np.concatenate(found.seconds))
    if found.total > DOTS_AT_MOST:
        return Strip(axis, (), columns(ManyValues(*found.seconds), axis, width=DOT_SPACING), 0)
    values = [Value(dot.seconds, dot.censored, f"INC-{dot.number}") for dot in found.dots]
    placed = dots(values, axis, spacing=DOT_SPACING)
    return Strip(axis, placed, (), levels_of(placed))


def _levels(figure: DurationFigure) -> int:
    return 0 if figure.strip is None else 10 if figure.strip.columns else figure.strip.levels


# — services —


@dataclass(frozen=True, slots=True)
class PlacedMark:
    x: float  # percent of the width
    mark: Mark


@dataclass(frozen=True, slots=True)
class ServiceRow:
    name: str
    owner: str | None
    count: int  # of its marks
    marks: Sequence[PlacedMark]
    paths: Sequence[Path]  # instead of marks, if there are too many
    heads: Sequence[Head]
    downtime: float  # seconds
    availability: float | None
    budget: BudgetLeft | None
    cost: Mapping[str, Shown]  # by currency
    has_no_rate: bool  # for some of its downtime


@dataclass(frozen=True, slots=True)
class Services:
    rows: Sequence[ServiceRow]
    left_out: int
    are_linked: bool  # the marks


def services_of(found: Overview, period: Span, zone: ZoneInfo) -> Services:
    numbers = {each.query.service: each for each in found.periods.services}
    axis = TimeAxis(period.start, period.end, zone)
    drawn = {} if found.marks is not None else _paths(found, period)
    rows = []
    for name in found.services:
        named = (found.marks or {}).get(name, ())
        count, paths, heads = drawn.get(name, (len(named), (), ()))
        each, known = numbers.get(name), found.periods.availability.get(name)
        rows.append(
            ServiceRow(
                name=name,
                owner=found.owners.get(name),
                count=count,
                marks=[PlacedMark(axis.x(mark.detected_at), mark) for mark in named],
                paths=paths,
                heads=heads,
                downtime=each.downtime.total_seconds() if each else 0.0,
                availability=None if known is None or known.ratio is None else float(known.ratio),
                budget=found.budgets.get(name),
                cost=_amounts(each.cost) if each else {},
                has_no_rate=each is not None and bool(each.services_without_rate),
            )
        )
    return Services(rows, found.services_left_out, found.marks is not None)


def _paths(found: Overview, period: Span) -> dict[str, tuple[int, Sequence[Path], Sequence[Head]]]:
    """The number of marks of each service, and what is drawn of them."""
    columns = found.periods.read.columns
    rows = np.flatnonzero(marked(found.periods, found.services, period))
    start, end = map(microseconds, period)
    place = INSET + (100 - 2 * INSET) * (columns.detected_at()[rows] - start) / (end - start)
    severity, service = columns.severity[rows], columns.service.codes[rows]
    status = np.where(columns.acknowledged_at[rows] == NEVER, marks.OPEN, marks.ACKNOWLEDGED)
    status = np.where(columns.ended_at[rows] == NEVER, status, marks.RESOLVED)
    every = {}
    for code in distinct(service).tolist():
        own = service == code
        every[columns.service.values[code]] = (int(own.sum()), *marks.paths(place[own], severity[own], status[own]))
    return every
