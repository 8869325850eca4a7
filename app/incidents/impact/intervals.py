"""How long services were harmed and what it cost: intervals, their union, and the integral of rate times impact.

Pure: no clock, no I/O, no settings. All intervals are half-open.

Inside, amounts are `Fraction`: three incidents that overlap share by thirds, which no Decimal holds, and only exact
shares sum to the whole whatever the number of incidents, cuts and rates. `shown` is the one place that rounds, each
amount by itself, half-even, to the cent. It does not hand the remaining cents round (largest remainder): an incident's
amount would then depend on what else is on the page, or flicker with incidents it does not even overlap. What is shown
of a whole may therefore differ from the sum of what is shown of its parts, by half a cent a part at most; the amounts
behind do not differ at all.
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
    """The same time, as spans that neither overlap nor touch, in order."""
    joined: list[Span] = []
    for span in sorted(span for span in spans if span.begins < span.ends):
        if joined and span.begins <= joined[-1].ends:
            joined[-1] = Span(joined[-1].begins, max(joined[-1].ends, span.ends))
        else:
            joined.append(span)
    return joined


def clipped(span: Span, within: Span) -> Span:
    if within.begins <= span.begins and span.ends <= within.ends:
        return span  # as most are; four times faster than making it anew
    return Span(max(span.begins, within.begins), min(span.ends, within.ends))


def downtime(spans: Iterable[Span], within: Span) -> timedelta:
    """Time in `within` during which at least one span was running."""
    joined = union(clipped(span, within) for span in spans)
    return sum((span.ends - span.begins for span in joined), timedelta())


@dataclass(frozen=True, slots=True)
class Harm:
    """What one incident did to its service. `impact` is the share that was harmed; 0 is no downtime and costs 0."""

    incident: UUID
    service: str
    span: Span
    impact: Decimal


def harm(incident: UUID, facts: Facts, *, now: datetime, weights: Weights) -> Harm:
    """An open incident harms until `now`."""
    ends = facts.ended_at or now
    begins = min(measures.began(facts), ends)  # facts that contradict each other harm nobody
    return Harm(incident, measures.service(facts), Span(begins, ends), measures.impact(facts, weights))


class Amount(NamedTuple):
    low: Fraction
    expected: Fraction
    high: Fraction

    def plus(self, other: "Amount") -> "Amount":
        return Amount(self.low + other.low, self.expected + other.expected, self.high + other.high)


Cost = Mapping[str, Amount]  # by currency; never empty: where no rate held there is no cost at all
NOTHING = Amount(Fraction(0), Fraction(0), Fraction(0))


@dataclass(frozen=True, slots=True)
class Costs:
    """`services` sums, exactly, to the same as `incidents`. Who had no rate at any time of the harm is in neither."""

    incidents: Mapping[UUID, Cost]
    services: Mapping[str, Cost]


def costs(harms: Iterable[Harm], rates: Iterable[Rate], within: Span | None = None, *, shares: bool = True) -> Costs:
    """What the harm cost: the integral of rate times impact, in `within` if given.

    Where incidents of a service overlap the greatest impact counts, once, and is shared among them in proportion to
    their impacts. O(n log n) in the number of harms and rates. Without `shares`, several times faster, `incidents`
    stays empty.
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
    """Per currency; nothing is converted."""
    sums: dict[str, Amount] = {}
    for cost in costs:
        for currency, amount in cost.items():
            sums[currency] = sums.get(currency, NOTHING).plus(amount)
    return sums


@dataclass(frozen=True, slots=True)
class Weighted:
    """Seconds in which a service was down, each times the share that was. `incidents` sum, exactly, to `seconds`."""

    seconds: Fraction
    incidents: Mapping[UUID, Fraction]


def weighted(harms: Iterable[Harm], within: Span, *, shares: bool = True) -> Weighted:
    """Of one service. Where incidents overlap they count and share as they do in `costs`, also without `shares`."""
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
    """To the cent, half-even; why each amount by itself says the docstring of this module."""
    return {
        currency: Shown(rounded(amount.low), rounded(amount.expected), rounded(amount.high))
        for currency, amount in sorted(cost.items())
    }


def rounded(amount: Fraction, places: int = 2) -> Decimal:
    # From the integer's digits, because scaleb and division would round to the context's 28 digits.
    return Decimal((0, tuple(map(int, str(round(amount * 10**places)))), -places))


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


class _Piece(NamedTuple):
    """One harm on the axis of microseconds, with its impact as an integer in a scale shared by all."""

    incident: UUID
    begins: int
    ends: int
    impact: int


class _Period(NamedTuple):
    """One rate per microsecond and unit of impact, as long as it holds."""

    begins: int
    ends: int
    rate: Amount


def _price(
    harms: Sequence[Harm],
    rates: Mapping[str, Sequence[Rate]],
    incidents: dict[UUID, dict[str, Amount]] | None,
    service: dict[str, Amount],
) -> None:
    """Adds the cost of each harm of one service to `incidents` (None: not wanted), and that of all to `service`.

    Between two moments at which anything changes, n harms cost `rate x max(impacts)`, and one of them
    `rate x max(impacts) / sum(impacts) x its impact`. So two running integrals are enough, that of the maximum and
    that of the quotient; any share is a difference of the latter times an impact.
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
        # A moment of harm without duration has a rate too, and so costs 0; before the first rate there is no cost.
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
    """The scale, and the harms in it."""
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
    first, *others = [*amounts] or [NOTHING]  # most often one, and fractions are slow to add
    return reduce(Amount.plus, others, first)


def _integrals(
    pieces: Sequence[_Piece], moments: Sequence[int], *, shares: bool
) -> tuple[dict[int, int], dict[int, Fraction]]:
    """At each moment the integrals, of the greatest impact and, for shares, of greatest / sum."""
    changes: dict[int, int] = defaultdict(int)
    for piece in pieces:
        changes[piece.begins] += piece.impact
        changes[piece.ends] -= piece.impact
    coming = sorted(((piece.begins, piece.impact, piece.ends) for piece in pieces if piece.impact), reverse=True)
    running: list[tuple[int, int]] = []  # (-impact, ends), greatest impact first; the ended ones are dropped late
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
