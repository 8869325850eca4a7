"""Downtime and cost of incidents: intervals, their union, and the integral of rate times impact.

Pure: no clock, no I/O, no settings. All intervals are half-open.

Internally amounts are `Fraction`: three overlapping incidents share by thirds, which no Decimal can represent, and only
exact shares sum to the whole for any number of incidents, cuts and rates. Only `shown` rounds: each amount separately,
half-even, to the cent. It does not distribute the remaining cents (largest remainder), because the amount of an
incident would then depend on what else is on the page, or change with incidents that it does not even overlap. A
displayed total may therefore differ from the sum of its displayed parts, by at most half a cent per part; the exact
amounts agree.
"""

import heapq
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from itertools import pairwise, takewhile
from typing import NamedTuple
from uuid import UUID

from app.base.values.times import EPOCH, HOUR_MICROSECONDS, MICROSECOND, Span
from app.incidents.impact.rates import Rate
from app.incidents.impact.stretches import Stretch
from app.incidents.measures import measures
from app.incidents.measures.measures import Facts, Weights


def union(spans: Iterable[Span]) -> list[Span]:
    """The same time as sorted spans that neither overlap nor touch."""
    joined: list[Span] = []
    for span in sorted(span for span in spans if span.start < span.end):
        if joined and span.start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined


def clipped(span: Span, within: Span) -> Span:
    if within.start <= span.start and span.end <= within.end:
        return span  # the common case; four times faster than creating a new one
    return Span(max(span.start, within.start), min(span.end, within.end))


def downtime(spans: Iterable[Span], within: Span) -> timedelta:
    """Time in `within` during which at least one span was running."""
    joined = union(clipped(span, within) for span in spans)
    return sum((span.end - span.start for span in joined), timedelta())


@dataclass(frozen=True, slots=True)
class ImpactInterval:
    """A time with constant impact of one incident on its service. `impact` is the affected share; 0 means no downtime
    and no cost.
    """

    incident: UUID
    service: str
    span: Span
    impact: Decimal


def impact_intervals(
    incident: UUID, facts: Facts, stretches: Sequence[Stretch], *, now: datetime, weights: Weights
) -> list[ImpactInterval]:
    """The impact of an incident, in order and without overlaps: that of the worst severity firing at each time.

    `stretches` are as returned by `stretches.stretches`, at least one; an open one lasts until `now`. What people
    stated is applied here:

    - a stated impact or severity replaces those of the stretches;
    - if the impact (or else the detection) is stated to have started before the first stretch, the time between has
      the severity of that stretch; before a stated impact start there is no impact;
    - if the incident harmed throughout, gaps have its worst severity.

    Without any impact, the result is one empty interval at the end, so that its cost is 0 rather than unknown.
    """
    known: list[tuple[datetime, datetime, int]] = []
    for start, end, severity in stretches:
        until = now if end is None else end
        known.append((min(start, until), until, severity))
    first, _, severity = known[0]
    since = facts.impact_started_at_stated or facts.detected_at_stated
    if since is not None and since < first:
        known.insert(0, (since, first, severity))
    if facts.harmed_throughout_stated:
        known += [(before[1], after[0], facts.severity) for before, after in pairwise(known) if before[1] < after[0]]
        known.sort()
    earliest = facts.impact_started_at_stated or known[0][0]
    service = measures.service(facts)
    found = [
        ImpactInterval(incident, service, Span(max(start, earliest), end), measures.impact(facts, severity, weights))
        for start, end, severity in known
        if max(start, earliest) < end
    ]
    end = known[-1][1]
    return found or [ImpactInterval(incident, service, Span(end, end), measures.impact(facts, facts.severity, weights))]


class Amount(NamedTuple):
    low: Fraction
    expected: Fraction
    high: Fraction

    def plus(self, other: "Amount") -> "Amount":
        return Amount(self.low + other.low, self.expected + other.expected, self.high + other.high)


Cost = Mapping[str, Amount]  # by currency; never empty: without a rate there is no cost
NOTHING = Amount(Fraction(0), Fraction(0), Fraction(0))


@dataclass(frozen=True, slots=True)
class Costs:
    """`services` and `incidents` have exactly the same sum. Services without a rate meanwhile are in neither."""

    incidents: Mapping[UUID, Cost]
    services: Mapping[str, Cost]


def costs(
    intervals: Iterable[ImpactInterval], rates: Iterable[Rate], within: Span | None = None, *, shares: bool = True
) -> Costs:
    """The cost of the impact: the integral of rate times impact, in `within` if given.

    Where incidents of a service overlap, the greatest impact counts once and is split among them in proportion to their
    impacts. O(n log n) in the number of impacts and rates. Without `shares` it is several times faster, and `incidents`
    is empty.
    """
    intervals_of: dict[str, list[ImpactInterval]] = defaultdict(list)
    for each in intervals:
        span = each.span if within is None else clipped(each.span, within)
        if span.start < span.end or (span == each.span and (within is None or span.start < within.end)):
            intervals_of[each.service].append(each if span is each.span else replace(each, span=span))
    rates_of: dict[str, dict[str, list[Rate]]] = defaultdict(lambda: defaultdict(list))
    for rate in sorted(rates, key=lambda rate: rate.valid_from):
        rates_of[rate.service][rate.currency].append(rate)
    incidents: dict[UUID, dict[str, Amount]] = defaultdict(dict)
    services: dict[str, dict[str, Amount]] = defaultdict(dict)
    for service in intervals_of.keys() & rates_of.keys():
        _price(intervals_of[service], rates_of[service], incidents if shares else None, services[service])
    return Costs(dict(incidents), {service: cost for service, cost in services.items() if cost})


def total(costs: Iterable[Cost]) -> Cost:
    """Sums per currency, without conversion."""
    sums: dict[str, Amount] = {}
    for cost in costs:
        for currency, amount in cost.items():
            sums[currency] = sums.get(currency, NOTHING).plus(amount)
    return sums


@dataclass(frozen=True, slots=True)
class Weighted:
    """Seconds of downtime, weighted by the affected share. `incidents` sums exactly to `seconds`."""

    seconds: Fraction
    incidents: Mapping[UUID, Fraction]


def weighted(intervals: Iterable[ImpactInterval], within: Span, *, shares: bool = True) -> Weighted:
    """Weighted downtime of one service. Overlapping incidents count and share as in `costs`."""
    cut = [replace(each, span=clipped(each.span, within)) for each in intervals]
    scale, pieces = _pieces([each for each in cut if each.span.start < each.span.end])
    if not pieces:
        return Weighted(Fraction(0), {})
    moments = sorted({at for piece in pieces for at in (piece.start, piece.end)})
    greatest, quotient = _integrals(pieces, moments, shares=shares)
    unit = scale * 10**6
    incidents: dict[UUID, Fraction] = defaultdict(Fraction)
    for piece in pieces if shares else ():
        incidents[piece.incident] += (quotient[piece.end] - quotient[piece.start]) * piece.impact / unit
    return Weighted(Fraction(greatest[moments[-1]], unit), dict(incidents))


def running(intervals: Iterable[ImpactInterval], within: Span) -> list[tuple[datetime, Fraction]]:
    """The weighted downtime up to each moment at which it may change its pace, in order; the last is that of all.

    Between two moments it grows evenly. Empty without impact in `within`.
    """
    cut = [replace(each, span=clipped(each.span, within)) for each in intervals]
    scale, pieces = _pieces([each for each in cut if each.span.start < each.span.end])
    if not pieces:
        return []
    moments = sorted({at for piece in pieces for at in (piece.start, piece.end)})
    greatest, _ = _integrals(pieces, moments, shares=False)
    return [(EPOCH + at * MICROSECOND, Fraction(greatest[at], scale * 10**6)) for at in moments]


class Shown(NamedTuple):
    low: Decimal
    expected: Decimal
    high: Decimal


def shown(cost: Cost) -> dict[str, Shown]:
    """Rounds each amount separately, half-even, to the cent; see the docstring of this module."""
    return {
        currency: Shown(rounded(amount.low), rounded(amount.expected), rounded(amount.high))
        for currency, amount in sorted(cost.items())
    }


def rounded(amount: Fraction, places: int = 2) -> Decimal:
    # Built from digits, because scaleb and division would round to the 28 digits of the decimal context.
    return Decimal((0, tuple(map(int, str(round(amount * 10**places)))), -places))


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


class _Piece(NamedTuple):
    """One impact in microseconds, with its impact as an integer in a common scale."""

    incident: UUID
    start: int
    end: int
    impact: int


class _Period(NamedTuple):
    """The time in which a rate is valid; `rate` is per microsecond and unit of impact."""

    start: int
    end: int
    rate: Amount


def _price(
    intervals: Sequence[ImpactInterval],
    rates: Mapping[str, Sequence[Rate]],
    incidents: dict[UUID, dict[str, Amount]] | None,
    service: dict[str, Amount],
) -> None:
    """Adds the cost of each impact of one service to `incidents` (unless None), and the cost of all to `service`.

    Between two consecutive changes, n impacts cost `rate x max(impacts)`, and one of them costs
    `rate x max(impacts) / sum(impacts) x its impact`. So two running integrals are enough, of the maximum and of the
    quotient; any share is a difference of the latter times an impact.
    """
    scale, pieces = _pieces(intervals)
    starts = {currency: [_microseconds(rate.valid_from) for rate in dated] for currency, dated in rates.items()}
    moments = sorted({at for piece in pieces for at in (piece.start, piece.end)}.union(*starts.values()))
    greatest, quotient = _integrals(pieces, moments, shares=incidents is not None)
    for currency, dated in rates.items():
        per_unit = [
            _times(Amount(*map(Fraction, (r.low, r.expected, r.high))), Fraction(1, HOUR_MICROSECONDS * scale))
            for r in dated
        ]
        periods = [*map(_Period, starts[currency], [*starts[currency][1:], moments[-1]], per_unit)]
        first = starts[currency][0]
        # Impact without duration has a rate too, and costs 0; before the first rate there is no cost.
        priced = [piece for piece in pieces if first <= piece.start or first < piece.end]
        if priced:
            service[currency] = _sum(
                _times(rate, Fraction(greatest[end] - greatest[start])) for start, end, rate in periods
            )
        if incidents is None:
            continue
        for piece in priced:
            held = periods[max(0, bisect_right(starts[currency], piece.start) - 1) :]
            share = _sum(
                _times(rate, (quotient[min(end, piece.end)] - quotient[max(start, piece.start)]) * piece.impact)
                for start, end, rate in takewhile(lambda period: period.start < piece.end, held)  # noqa: B023
                if piece.impact
            )
            before = incidents[piece.incident].get(currency)
            incidents[piece.incident][currency] = before.plus(share) if before else share


def _pieces(intervals: Sequence[ImpactInterval]) -> tuple[int, list[_Piece]]:
    """The common scale, and the impacts in it."""
    impacts = {each.impact: Fraction(each.impact) for each in intervals}
    scale = math.lcm(*(impact.denominator for impact in impacts.values()))
    return scale, [
        _Piece(
            each.incident,
            _microseconds(each.span.start),
            _microseconds(each.span.end),
            int(impacts[each.impact] * scale),
        )
        for each in intervals
    ]


def _times(amount: Amount, factor: Fraction) -> Amount:
    return Amount(amount.low * factor, amount.expected * factor, amount.high * factor)


def _sum(amounts: Iterable[Amount]) -> Amount:
    first, *others = [*amounts] or [NOTHING]  # usually there is only one, and adding fractions is slow
    return reduce(Amount.plus, others, first)


def _integrals(
    pieces: Sequence[_Piece], moments: Sequence[int], *, shares: bool
) -> tuple[dict[int, int], dict[int, Fraction]]:
    """The integrals up to each moment: of the greatest impact and, for shares, of greatest / sum."""
    changes: dict[int, int] = defaultdict(int)
    for piece in pieces:
        changes[piece.start] += piece.impact
        changes[piece.end] -= piece.impact
    coming = sorted(((piece.start, piece.impact, piece.end) for piece in pieces if piece.impact), reverse=True)
    running: list[tuple[int, int]] = []  # heap of (-impact, end), greatest impact first; ended ones are removed lazily
    greatest, quotient = {moments[0]: 0}, {moments[0]: Fraction(0)}
    impacts = 0
    for at, following in pairwise(moments):
        impacts += changes[at]
        while coming and coming[-1][0] <= at:
            _start, impact, end = coming.pop()
            heapq.heappush(running, (-impact, end))
        while running and running[0][1] <= at:
            heapq.heappop(running)
        top = -running[0][0] if running else 0
        greatest[following] = greatest[at] + top * (following - at)
        if shares:
            quotient[following] = quotient[at] + Fraction(top * (following - at), impacts) if top else quotient[at]
    return greatest, quotient
