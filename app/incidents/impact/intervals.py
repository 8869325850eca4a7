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

from app.base.times import EPOCH, HOUR_MICROSECONDS, MICROSECOND, Span
from app.incidents.impact.rates import Rate
from app.incidents.measures import measures
from app.incidents.measures.measures import Facts, Weights


def union(spans: Iterable[Span]) -> list[Span]:
    """The same time as sorted spans that neither overlap nor touch."""
    joined: list[Span] = []
    for span in sorted(span for span in spans if span.begins < span.ends):
        if joined and span.begins <= joined[-1].ends:
            joined[-1] = Span(joined[-1].begins, max(joined[-1].ends, span.ends))
        else:
            joined.append(span)
    return joined


def clipped(span: Span, within: Span) -> Span:
    if within.begins <= span.begins and span.ends <= within.ends:
        return span  # the common case; four times faster than creating a new one
    return Span(max(span.begins, within.begins), min(span.ends, within.ends))


def downtime(spans: Iterable[Span], within: Span) -> timedelta:
    """Time in `within` during which at least one span was running."""
    joined = union(clipped(span, within) for span in spans)
    return sum((span.ends - span.begins for span in joined), timedelta())


@dataclass(frozen=True, slots=True)
class Harm:
    """The impact of one incident on its service. `impact` is the affected share; 0 means no downtime and no cost."""

    incident: UUID
    service: str
    span: Span
    impact: Decimal


def harm(incident: UUID, facts: Facts, *, now: datetime, weights: Weights) -> Harm:
    """The harm of an open incident lasts until `now`."""
    ends = facts.ended_at or now
    begins = min(measures.began(facts), ends)  # contradictory facts count as no harm
    return Harm(incident, measures.service(facts), Span(begins, ends), measures.impact(facts, weights))


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
    """`services` and `incidents` have exactly the same sum. Services without a rate during the harm are in neither."""

    incidents: Mapping[UUID, Cost]
    services: Mapping[str, Cost]


def costs(harms: Iterable[Harm], rates: Iterable[Rate], within: Span | None = None, *, shares: bool = True) -> Costs:
    """The cost of the harm: the integral of rate times impact, in `within` if given.

    Where incidents of a service overlap, the greatest impact counts once and is split among them in proportion to their
    impacts. O(n log n) in the number of harms and rates. Without `shares` it is several times faster, and `incidents`
    is empty.
    """
    harms_of: dict[str, list[Harm]] = defaultdict(list)
    for each in harms:
        span = each.span if within is None else clipped(each.span, within)
        if span.begins < span.ends or (span == each.span and (within is None or span.begins < within.ends)):
            harms_of[each.service].append(each if span is each.span else replace(each, span=span))
    rates_of: dict[str, dict[str, list[Rate]]] = defaultdict(lambda: defaultdict(list))
    for rate in sorted(rates, key=lambda rate: rate.valid_from):
        rates_of[rate.service][rate.currency].append(rate)
    incidents: dict[UUID, dict[str, Amount]] = defaultdict(dict)
    services: dict[str, dict[str, Amount]] = defaultdict(dict)
    for service in harms_of.keys() & rates_of.keys():
        _price(harms_of[service], rates_of[service], incidents if shares else None, services[service])
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


def weighted(harms: Iterable[Harm], within: Span, *, shares: bool = True) -> Weighted:
    """Weighted downtime of one service. Overlapping incidents count and share as in `costs`."""
    cut = [replace(each, span=clipped(each.span, within)) for each in harms]
    scale, pieces = _pieces([each for each in cut if each.span.begins < each.span.ends])
    if not pieces:
        return Weighted(Fraction(0), {})
    moments = sorted({at for piece in pieces for at in (piece.begins, piece.ends)})
    greatest, quotient = _integrals(pieces, moments, shares=shares)
    unit = scale * 10**6
    incidents: dict[UUID, Fraction] = defaultdict(Fraction)
    for piece in pieces if shares else ():
        incidents[piece.incident] += (quotient[piece.ends] - quotient[piece.begins]) * piece.impact / unit
    return Weighted(Fraction(greatest[moments[-1]], unit), dict(incidents))


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
    """One harm in microseconds, with its impact as an integer in a common scale."""

    incident: UUID
    begins: int
    ends: int
    impact: int


class _Period(NamedTuple):
    """The time in which a rate is valid; `rate` is per microsecond and unit of impact."""

    begins: int
    ends: int
    rate: Amount


def _price(
    harms: Sequence[Harm],
    rates: Mapping[str, Sequence[Rate]],
    incidents: dict[UUID, dict[str, Amount]] | None,
    service: dict[str, Amount],
) -> None:
    """Adds the cost of each harm of one service to `incidents` (unless None), and the cost of all to `service`.

    Between two consecutive changes, n harms cost `rate x max(impacts)`, and one of them costs
    `rate x max(impacts) / sum(impacts) x its impact`. So two running integrals are enough, of the maximum and of the
    quotient; any share is a difference of the latter times an impact.
    """
    scale, pieces = _pieces(harms)
    starts = {currency: [_microseconds(rate.valid_from) for rate in dated] for currency, dated in rates.items()}
    moments = sorted({at for piece in pieces for at in (piece.begins, piece.ends)}.union(*starts.values()))
    greatest, quotient = _integrals(pieces, moments, shares=incidents is not None)
    for currency, dated in rates.items():
        per_unit = [
            _times(Amount(*map(Fraction, (r.low, r.expected, r.high))), Fraction(1, HOUR_MICROSECONDS * scale))
            for r in dated
        ]
        periods = [*map(_Period, starts[currency], [*starts[currency][1:], moments[-1]], per_unit)]
        first = starts[currency][0]
        # Harm without duration has a rate too, and costs 0; before the first rate there is no cost.
        priced = [piece for piece in pieces if first <= piece.begins or first < piece.ends]
        if priced:
            service[currency] = _sum(
                _times(rate, Fraction(greatest[ends] - greatest[begins])) for begins, ends, rate in periods
            )
        if incidents is None:
            continue
        for piece in priced:
            held = periods[max(0, bisect_right(starts[currency], piece.begins) - 1) :]
            share = _sum(
                _times(rate, (quotient[min(ends, piece.ends)] - quotient[max(begins, piece.begins)]) * piece.impact)
                for begins, ends, rate in takewhile(lambda period: period.begins < piece.ends, held)  # noqa: B023
                if piece.impact
            )
            before = incidents[piece.incident].get(currency)
            incidents[piece.incident][currency] = before.plus(share) if before else share


def _pieces(harms: Sequence[Harm]) -> tuple[int, list[_Piece]]:
    """The common scale, and the harms in it."""
    impacts = {each.impact: Fraction(each.impact) for each in harms}
    scale = math.lcm(*(impact.denominator for impact in impacts.values()))
    return scale, [
        _Piece(
            each.incident,
            _microseconds(each.span.begins),
            _microseconds(each.span.ends),
            int(impacts[each.impact] * scale),
        )
        for each in harms
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
        changes[piece.begins] += piece.impact
        changes[piece.ends] -= piece.impact
    coming = sorted(((piece.begins, piece.impact, piece.ends) for piece in pieces if piece.impact), reverse=True)
    running: list[tuple[int, int]] = []  # heap of (-impact, ends), greatest impact first; ended ones are removed lazily
    greatest, quotient = {moments[0]: 0}, {moments[0]: Fraction(0)}
    impacts = 0
    for at, following in pairwise(moments):
        impacts += changes[at]
        while coming and coming[-1][0] <= at:
            _begins, impact, ends = coming.pop()
            heapq.heappush(running, (-impact, ends))
        while running and running[0][1] <= at:
            heapq.heappop(running)
        top = -running[0][0] if running else 0
        greatest[following] = greatest[at] + top * (following - at)
        if shares:
            quotient[following] = quotient[at] + Fraction(top * (following - at), impacts) if top else quotient[at]
    return greatest, quotient
