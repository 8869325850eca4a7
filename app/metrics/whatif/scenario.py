"""Computes what a period would have cost if its incidents had been detected, acknowledged or resolved earlier or later.

Pure: no clock, no I/O, no settings. The stored intervals are moved and priced again, exactly: amounts are fractions,
changes are decimals as written in the request. `ASSUMPTIONS` lists the assumptions.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np

from app.base.errors import Invalid
from app.base.values.times import MICROSECOND, Span
from app.incidents.impact.columns import ImpactColumns
from app.incidents.impact.intervals import NOTHING, Amount, Cost, Shown, rounded, total
from app.incidents.impact.maintenance import Planned
from app.incidents.impact.rates import Rate
from app.incidents.impact.sweep import Pieces, Sweep, outside, pieces, union
from app.incidents.measures.vectorized import NEVER, Booleans, Columns, Ints, else_, microseconds, moment

ASSUMPTIONS = (
    """time_to_detect: the start of impact stays the same; everything after detection, including recovery, moves by \
the same amount as detection. Applies to incidents with a stated impact start that were detected before they ended.""",
    """time_to_acknowledge: work starts with the acknowledgement, so recovery moves by the same amount. Applies to \
incidents that were acknowledged before they ended.""",
    "time_to_recover: recovery moves, after the two changes above. Applies to all incidents that have ended.",
    """incidents: multiplies what the selected incidents add to cost and downtime, as if incidents of every kind and \
length became equally rarer.""",
    """severity: changes only incidents of that severity. Cost and downtime include all incidents, because where \
incidents overlap, the others stay.""",
    """Impact is cut where the incident would have ended, or lasts until then at the severity it ended with.""",
    """Open incidents keep their current duration, and incidents that ended before the period stay out of it. Rates, \
impact and planned maintenance stay the same. Incidents that would end after the period are cut at its end.""",
)
_LARGEST = 2**62
_LONGEST = timedelta(days=366_000)  # a thousand years, so that combined changes cannot overflow datetime


class InvalidChange(Invalid):
    title = "Invalid change"


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A change to a duration or a number: times `factor`, plus `more` for durations; never below 0."""

    factor: Fraction = Fraction(1)
    more: timedelta = timedelta()

    def of(self, lasted: timedelta) -> timedelta:
        microseconds = lasted // MICROSECOND * self.factor
        return max(timedelta(), min(_LONGEST, timedelta(microseconds=int(microseconds)) + self.more))


_CHANGE = re.compile(
    r" ?([+-]?)([0-9]{1,7}(?:\.[0-9]{1,6})?)(%|s|m|h)", re.ASCII
)  # in a URL, a plus may arrive as a space
_UNITS = {"s": 1, "m": 60, "h": 3600}


def change(text: str, *, name: str = "change", absolute: bool = True) -> Adjustment:
    """Parses `-20%` and, if `absolute`, also `-5m`, `+30s` or `-0.5h`. `name` is that of the parameter.

    Raises InvalidChange.
    """
    found = _CHANGE.fullmatch(text)
    if found is None or (found[3] != "%" and not absolute):
        examples = "`-20%` or `-5m` (units: s, m, h)" if absolute else "`-20%` or `+10%`"
        message = f"`{name}` must be a change such as {examples}"
        raise InvalidChange(message)
    by = Fraction(Decimal(f"{found[1]}{found[2]}"))
    if found[3] == "%":
        if not -100 <= by <= 1000:
            message = f"`{name}` must be between -100% and +1000%"
            raise InvalidChange(message)
        return Adjustment(factor=1 + by / 100)
    seconds = by * _UNITS[found[3]]
    if abs(seconds) > 366 * 86_400:
        message = f"`{name}` must not exceed one year"
        raise InvalidChange(message)
    return Adjustment(more=timedelta(microseconds=int(seconds * 10**6)))


@dataclass(frozen=True, slots=True)
class Adjustments:
    """Changes to incidents of one of these severities, or to all."""

    time_to_detect: Adjustment | None = None
    time_to_acknowledge: Adjustment | None = None
    time_to_recover: Adjustment | None = None
    incidents: Adjustment | None = None
    severity: Sequence[int] = ()

    def concern(self, columns: Columns) -> Booleans:
        everyone = np.ones(len(columns), np.bool_)
        return np.isin(columns.severity, self.severity) if self.severity else everyone


@dataclass(frozen=True, slots=True)
class BeforeAndAfter:
    """Cost and downtime before and after the change: both costs have the same currencies, none without a rate."""

    before: Cost
    after: Cost
    downtime_before: timedelta
    downtime_after: timedelta

    @property
    def difference(self) -> Cost:
        return {currency: _less(amount, self.before[currency]) for currency, amount in self.after.items()}


@dataclass(frozen=True, slots=True)
class WhatIf:
    """`incidents` had impact in the period; `applied` counts those that each change applies to, by its name."""

    incidents: int
    applied: Mapping[str, int]
    whole: BeforeAndAfter
    services: Mapping[str, BeforeAndAfter]


@dataclass(frozen=True, slots=True)
class Moved:
    """Incidents as they were, when each would have ended, and its impact then.

    `impacting`: which of the impacts are in the period.
    """

    columns: Columns
    impacts: ImpactColumns
    impacting: Booleans  # of each impact
    would_end: Ints  # of each incident
    would_harm: ImpactColumns


def move(columns: Columns, impacts: ImpactColumns, changes: Adjustments, within: Span, *, now: datetime) -> Moved:
    """Moves the ends of incidents with impact in the period; the others stay the same."""
    end = else_(columns.ended_at, np.full(len(columns), microseconds(now)))
    start = np.minimum(columns.began(), end)
    lasted = end - start
    would_last = lasted  # never falls below 0, because both parts together are never longer
    for measure, known in _PARTS.items():
        asked: Adjustment | None = getattr(changes, measure)
        if asked is not None:
            part, is_known = known(columns)
            part = np.where(is_known, part, 0)
            would_last = would_last + np.where(is_known, _changed(part, asked) - part, 0)
    if changes.time_to_recover is not None:
        would_last = np.where(columns.ended_at == NEVER, would_last, _changed(would_last, changes.time_to_recover))
    period = [microseconds(at) for at in within]
    impacting = np.maximum(impacts.start, period[0]) < np.minimum(impacts.end, period[1])
    moves = _incidents(columns, impacts, impacting) & changes.concern(columns)
    would_end = np.where(moves, start + would_last, end)
    return Moved(columns, impacts, impacting, would_end, _until(impacts, end, would_end))


def _incidents(columns: Columns, impacts: ImpactColumns, those: Booleans) -> Booleans:
    """The incidents of those impacts."""
    return np.bincount(impacts.incident[those], minlength=len(columns)) > 0


def _until(impacts: ImpactColumns, end: Ints, would_end: Ints) -> ImpactColumns:
    """The impact of incidents that would have ended then: cut there, or with its last part extended."""
    was, until = end[impacts.incident], would_end[impacts.incident]
    is_last = np.append(impacts.incident[1:] != impacts.incident[:-1], True)[: len(was)]
    moved_ends = np.where(until < was, np.minimum(impacts.end, until), impacts.end)
    moved_ends = np.where((until > was) & is_last, until, moved_ends)
    return replace(impacts, start=np.minimum(impacts.start, moved_ends), end=moved_ends)


def _changed(lasted: Ints, change: Adjustment) -> Ints:
    """`Adjustment.of` for each, in integers of any size: a factor may have six decimals, a century has 16 digits."""
    longest = int(np.abs(lasted).max(initial=0)) * max(change.factor.numerator, change.factor.denominator)
    whole = lasted if longest < _LARGEST else lasted.astype(object)
    changed = whole * change.factor.numerator // change.factor.denominator + change.more // MICROSECOND
    return np.array(changed.clip(0, _LONGEST // MICROSECOND), np.int64)


def what_if(
    moved: Moved,
    changes: Adjustments,
    rates: Iterable[Rate],
    planned: Planned,
    within: Span,
    *,
    parts_at_most: int | None = None,
) -> WhatIf:
    """`moved` holds all incidents with impact in the period, of any severity; `planned` must cover the moved ends.

    Raises TooMuchMaintenance.
    """
    most = parts_at_most
    dated, often, columns = list(rates), changes.incidents or Adjustment(), moved.columns
    was = _priced(columns, moved.impacts, dated, planned, within, parts_at_most=most)
    would_be = _priced(columns, moved.would_harm, dated, planned, within, parts_at_most=most)
    # A changed number of incidents scales only what these add to the cost of the others. Otherwise all of it stays.
    others: Mapping[str, tuple[Cost, timedelta]] = {}
    if changes.incidents is not None:
        concerned = changes.concern(columns)
        others = _priced(columns, moved.impacts, dated, planned, within, parts_at_most=most, only=~concerned)
    services = {}
    for service, (before, down) in sorted(was.items()):
        after, would_be_down = would_be[service]
        stays, down_anyway = others.get(service, ({}, timedelta()))
        if before or after or down:
            currencies = sorted(before.keys() | after.keys())
            services[service] = BeforeAndAfter(
                {currency: before.get(currency, NOTHING) for currency in currencies},
                {
                    currency: _more(after.get(currency, NOTHING), stays.get(currency, NOTHING), often.factor)
                    for currency in currencies
                },
                down,
                down_anyway + often.of(would_be_down - down_anyway),
            )
    impacting = moved.impacting & (moved.impacts.impact > 0)
    impacting = _incidents(columns, moved.impacts, impacting) & changes.concern(columns)
    return WhatIf(int(impacting.sum()), _applied(columns, impacting, changes), _sum(services.values()), services)


def affected_span(moved: Moved, within: Span) -> Span:
    """The part of the period with any impact, before or after the change."""
    if not moved.impacting.any():
        return Span(within.start, within.start)
    is_touched = _incidents(moved.columns, moved.impacts, moved.impacting)[moved.impacts.incident]
    end = np.maximum(moved.impacts.end, moved.would_harm.end)[is_touched].max()
    start = moved.impacts.start[moved.impacting].min()
    return Span(max(within.start, moment(int(start))), min(within.end, moment(int(end))))


def _priced(
    columns: Columns,
    impacts: ImpactColumns,
    rates: Iterable[Rate],
    planned: Planned,
    within: Span,
    *,
    parts_at_most: int | None,
    only: Booleans | None = None,
) -> dict[str, tuple[Cost, timedelta]]:
    services, borders = columns.service.values, np.array([microseconds(at) for at in within])
    row, start, end = outside(impacts, services, planned, parts_at_most=parts_at_most)
    cut = pieces(start, end, borders)
    parts = Pieces(row[cut.row], *cut[1:])
    if only is not None:
        parts = parts.where(only[impacts.incident[parts.row]])
    costs, _ = Sweep(parts, impacts, services, rates).of_services(borders)
    impacting = parts.where((impacts.impact[parts.row] > 0) & (parts.start < parts.end))
    down = dict(zip(*(each.tolist() for each in union(impacts.service[impacting.row], *impacting[1:3])), strict=True))
    return {
        name: (costs.total([code]), timedelta(microseconds=down.get(code, 0))) for code, name in enumerate(services)
    }


def _applied(columns: Columns, impacting: Booleans, changes: Adjustments) -> dict[str, int]:
    over = impacting & (columns.ended_at != NEVER)
    counts = {measure: int((known(columns)[1] & over).sum()) for measure, known in _PARTS.items()}
    counts |= {"time_to_recover": int(over.sum()), "incidents": int(impacting.sum())}
    return {name: count for name, count in counts.items() if getattr(changes, name) is not None}


def _time_to_detect(columns: Columns) -> tuple[Ints, Booleans]:
    """Time to detect, and the incidents for which an earlier detection would have made a difference."""
    return _between(columns.impact_started_at, columns.detected_at(), columns.ended_at)


def _time_to_acknowledge(columns: Columns) -> tuple[Ints, Booleans]:
    return _between(columns.detected_at(), columns.acknowledged_at, columns.ended_at)


def _between(start: Ints, end: Ints, over: Ints) -> tuple[Ints, Booleans]:
    """The time between, and whether all three are known and consistent. NEVER sorts before every time."""
    return end - start, (start != NEVER) & (start <= end) & (end <= over)


_PARTS: Mapping[str, Callable[[Columns], tuple[Ints, Booleans]]] = {
    "time_to_detect": _time_to_detect,
    "time_to_acknowledge": _time_to_acknowledge,
}


def _sum(outcomes: Iterable[BeforeAndAfter]) -> BeforeAndAfter:
    each = list(outcomes)
    return BeforeAndAfter(
        total(one.before for one in each),
        total(one.after for one in each),
        sum((one.downtime_before for one in each), timedelta()),
        sum((one.downtime_after for one in each), timedelta()),
    )


def _more(amount: Amount, stays: Amount, factor: Fraction) -> Amount:
    """`stays` plus `factor` times the part of the amount above it."""
    return Amount(*(least + (each - least) * factor for each, least in zip(amount, stays, strict=True)))


def _less(amount: Amount, by: Amount) -> Amount:
    return Amount(amount.low - by.low, amount.expected - by.expected, amount.high - by.high)


def shown(cost: Cost) -> dict[str, Shown]:
    """Like `intervals.shown`, for amounts that may be negative."""
    return {currency: Shown(*map(_rounded, amount)) for currency, amount in sorted(cost.items())}


def _rounded(amount: Fraction) -> Decimal:
    size = rounded(abs(amount))
    return size.copy_negate() if amount < 0 and size else size
