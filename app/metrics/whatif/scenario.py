"""Computes what a period would have cost if its incidents had been detected, acknowledged or resolved earlier or later.

Pure: no clock, no I/O, no settings. The stored intervals are moved and priced again, exactly: amounts are fractions,
changes are decimals as written in the request. `ASSUMPTIONS` lists the assumptions.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np

from app.base.errors import Invalid
from app.base.times import MICROSECOND, Span
from app.incidents.impact.intervals import NOTHING, Amount, Cost, Shown, rounded, total
from app.incidents.impact.maintenance import Planned
from app.incidents.impact.rates import Rate
from app.incidents.impact.sweep import Pieces, Sweep, outside, pieces, union
from app.incidents.measures.vectorized import NEVER, Booleans, Columns, Harms, Ints, microseconds, moment

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
    """Open incidents keep their current duration, and incidents that ended before the period stay out of it. Rates, \
impact and planned maintenance stay the same. Incidents that would end after the period are cut at its end.""",
)
_LONGEST = timedelta(days=366_000)  # a thousand years, so that combined changes cannot overflow datetime


class InvalidChange(Invalid):
    title = "Invalid change"


@dataclass(frozen=True, slots=True)
class Change:
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


def change(text: str, *, absolute: bool = True) -> Change:
    """Parses `-20%` and, if `absolute`, also `-5m`, `+30s` or `-0.5h`. Raises InvalidChange."""
    found = _CHANGE.fullmatch(text)
    if found is None or (found[3] != "%" and not absolute):
        message = f"expected a change such as -20% {'or -5m (units: s, m, h)' if absolute else 'or +10%'}"
        raise InvalidChange(message)
    by = Fraction(Decimal(f"{found[1]}{found[2]}"))
    if found[3] == "%":
        if not -100 <= by <= 1000:
            message = "a change must be between -100% and +1000%"
            raise InvalidChange(message)
        return Change(factor=1 + by / 100)
    seconds = by * _UNITS[found[3]]
    if abs(seconds) > 366 * 86_400:
        message = "a change must not exceed one year"
        raise InvalidChange(message)
    return Change(more=timedelta(microseconds=int(seconds * 10**6)))


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes to incidents of `severity`, or to all."""

    time_to_detect: Change | None = None
    time_to_acknowledge: Change | None = None
    time_to_recover: Change | None = None
    incidents: Change | None = None
    severity: int | None = None

    def concern(self, columns: Columns) -> Booleans:
        everyone = np.ones(len(columns), np.bool_)
        return everyone if self.severity is None else columns.severity == self.severity


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
    """Incidents as they were, and when the impact of each would have ended; `harming`: it has impact in the period."""

    columns: Columns
    harms: Harms
    harming: Booleans
    would_end: Ints


def move(columns: Columns, harms: Harms, changes: Changes, within: Span) -> Moved:
    """Moves the ends of incidents with impact in the period; the others stay the same."""
    begins, ends = harms.begins, harms.ends
    lasted = ends - begins
    would_last = lasted  # never falls below 0, because both parts together are never longer
    for measure, known in _PARTS.items():
        asked: Change | None = getattr(changes, measure)
        if asked is not None:
            part, is_known = known(columns)
            part = np.where(is_known, part, 0)
            would_last = would_last + np.where(is_known, _changed(part, asked) - part, 0)
    if changes.time_to_recover is not None:
        would_last = np.where(columns.ended_at == NEVER, would_last, _changed(would_last, changes.time_to_recover))
    period = [microseconds(at) for at in within]
    harming = np.maximum(begins, period[0]) < np.minimum(ends, period[1])
    return Moved(columns, harms, harming, np.where(harming & changes.concern(columns), begins + would_last, ends))


def _changed(lasted: Ints, change: Change) -> Ints:
    """`Change.of` for each, in integers of any size: a factor may have six decimals, a century has 16 digits."""
    changed = lasted.astype(object) * change.factor.numerator // change.factor.denominator + change.more // MICROSECOND
    return np.array(changed.clip(0, _LONGEST // MICROSECOND), np.int64)


def what_if(moved: Moved, changes: Changes, rates: Iterable[Rate], planned: Planned, within: Span) -> WhatIf:
    """`moved` holds all incidents with impact in the period, of any severity; `planned` must cover the moved ends."""
    dated, often, columns = list(rates), changes.incidents or Change(), moved.columns
    was = _priced(columns, moved.harms, dated, planned, within)
    would_be = _priced(columns, replace(moved.harms, ends=moved.would_end), dated, planned, within)
    # A change in their number scales only what they add on top of the others.
    others = _priced(columns, moved.harms, dated, planned, within, only=~changes.concern(columns))
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
    harming = moved.harming & (moved.harms.impact > 0) & changes.concern(columns)
    return WhatIf(int(harming.sum()), _applied(columns, harming, changes), _sum(services.values()), services)


def affected_span(moved: Moved, within: Span) -> Span:
    """The part of the period with any impact, before or after the change."""
    if not moved.harming.any():
        return Span(within.begins, within.begins)
    ends = np.maximum(moved.harms.ends, moved.would_end)[moved.harming].max()
    begins = moved.harms.begins[moved.harming].min()
    return Span(max(within.begins, moment(int(begins))), min(within.ends, moment(int(ends))))


def _priced(
    columns: Columns,
    harms: Harms,
    rates: Iterable[Rate],
    planned: Planned,
    within: Span,
    *,
    only: Booleans | None = None,
) -> dict[str, tuple[Cost, timedelta]]:
    services, borders = columns.service.values, np.array([microseconds(at) for at in within])
    incident, begins, ends = outside(harms, services, planned)
    cut = pieces(begins, ends, borders)
    parts = Pieces(incident[cut.incident], *cut[1:])
    if only is not None:
        parts = parts.where(only[parts.incident])
    costs, _ = Sweep(parts, harms, services, rates).of_services(borders)
    harmful = parts.where((harms.impact[parts.incident] > 0) & (parts.begins < parts.ends))
    down = dict(zip(*(each.tolist() for each in union(harms.service[harmful.incident], *harmful[1:3])), strict=True))
    return {
        name: (costs.total([code]), timedelta(microseconds=down.get(code, 0))) for code, name in enumerate(services)
    }


def _applied(columns: Columns, harming: Booleans, changes: Changes) -> dict[str, int]:
    over = harming & (columns.ended_at != NEVER)
    counts = {measure: int((known(columns)[1] & over).sum()) for measure, known in _PARTS.items()}
    counts |= {"time_to_recover": int(over.sum()), "incidents": int(harming.sum())}
    return {name: count for name, count in counts.items() if getattr(changes, name) is not None}


def _time_to_detect(columns: Columns) -> tuple[Ints, Booleans]:
    """Time to detect, and the incidents for which an earlier detection would have made a difference."""
    return _between(columns.impact_started_at, columns.detected_at(), columns.ended_at)


def _time_to_acknowledge(columns: Columns) -> tuple[Ints, Booleans]:
    return _between(columns.detected_at(), columns.acknowledged_at, columns.ended_at)


def _between(begins: Ints, ends: Ints, over: Ints) -> tuple[Ints, Booleans]:
    """The time between, and whether all three are known and consistent. NEVER sorts before every time."""
    return ends - begins, (begins != NEVER) & (begins <= ends) & (ends <= over)


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
