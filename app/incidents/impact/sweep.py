"""Downtime and cost of many incidents at once, cut into periods and summed by group, exactly as in `intervals.py`.

Pure. Time is an axis of whole microseconds. All services lie on one line of moments, one service after the other, so
that intervals become ranges of places on it, and sums over ranges become differences of running sums. Everything is a
whole number; amounts become fractions once, at the end. Where 64 bits might not hold a sum, numbers of any size are
used, more slowly.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from app.base.times import HOUR_MICROSECONDS
from app.incidents.impact.intervals import Amount, Cost
from app.incidents.impact.maintenance import Planned
from app.incidents.impact.rates import Rate
from app.incidents.measures.vectorized import Harms, Ints, microseconds

_LARGEST = 2**62


class Pieces(NamedTuple):
    """Intervals of incidents, by their place in the columns, each within one of the periods."""

    incident: Ints
    begins: Ints
    ends: Ints
    period: Ints

    def where(self, holds: Any) -> "Pieces":
        return Pieces(*(column[holds] for column in self))


def ranges(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Each row as often as its `count`: the places of the rows, and the numbers from `first` on."""
    rows = np.repeat(np.arange(len(count)), count)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count) + first[rows]


def pieces(begins: Ints, ends: Ints, borders: Ints) -> Pieces:
    """What of each interval lies in which of the periods between the borders. Empty ones lie where they begin."""
    first = np.searchsorted(borders, begins, "right") - 1
    last = np.where(begins < ends, np.searchsorted(borders, ends, "left") - 1, first)
    first, last = np.maximum(first, np.where(begins < ends, 0, first)), np.minimum(last, len(borders) - 2)
    count = np.where((first < 0) | (first > len(borders) - 2), 0, np.maximum(0, last - first + 1))
    rows, period = ranges(first, count)
    return Pieces(rows, np.maximum(begins[rows], borders[period]), np.minimum(ends[rows], borders[period + 1]), period)


def outside(harms: Harms, services: Sequence[str], planned: Planned) -> tuple[Ints, Ints, Ints]:
    """As `maintenance.outside`, of each: incident, begins, ends. Where nothing is left an empty interval is."""
    everyone = np.arange(len(harms.begins))
    concerned = [code for code, name in enumerate(services) if planned.get(name)]
    if not concerned:
        return everyone, harms.begins, harms.ends
    untouched = ~np.isin(harms.service, concerned)
    found = [(everyone[untouched], harms.begins[untouched], harms.ends[untouched])]
    for code in concerned:
        rows = np.flatnonzero(harms.service == code)
        maintenance = np.array([[microseconds(at) for at in span] for span in planned[services[code]]], np.int64)
        found.append(_outside(rows, harms.begins[rows], harms.ends[rows], maintenance))
    incident, begins, ends = (np.concatenate(column) for column in zip(*found, strict=True))
    return incident, begins, ends


def _outside(rows: Ints, begins: Ints, ends: Ints, maintenance: Ints) -> tuple[Ints, Ints, Ints]:
    """`maintenance` are disjoint intervals in order; what is left lies in the gaps between them."""
    far = np.iinfo(np.int64)
    gap_begins = np.concatenate(([far.min], maintenance[:, 1]))
    gap_ends = np.concatenate((maintenance[:, 0], [far.max]))
    first = np.searchsorted(gap_ends, begins, "right")
    count = np.where(begins < ends, np.maximum(0, np.searchsorted(gap_begins, ends, "left") - first), 0)
    places, gap = ranges(first, count)
    gone = count == 0
    return (
        np.concatenate((rows[places], rows[gone])),
        np.concatenate((np.maximum(begins[places], gap_begins[gap]), begins[gone])),
        np.concatenate((np.minimum(ends[places], gap_ends[gap]), begins[gone])),
    )


# — downtime —


def union(keys: Ints, begins: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Of each key, in order, the time during which at least one of its intervals was running, in microseconds."""
    if not len(keys):
        return keys, keys
    order = np.lexsort((begins, keys))
    keys, begins, ends = keys[order], begins[order], ends[order]
    is_first = np.append(True, keys[1:] != keys[:-1])
    # The latest end so far within a key. Ends by their rank, each key above those before it: one running maximum.
    times, rank = np.unique(ends, return_inverse=True)
    above = (np.cumsum(is_first) - 1) * len(times)
    latest = times[np.maximum.accumulate(rank + above) - above]
    covered = np.where(is_first, begins, np.append(begins[:1], latest[:-1]))
    more = np.maximum(0, ends - np.maximum(begins, covered))
    return keys[is_first], np.add.reduceat(more, np.flatnonzero(is_first))


# — cost —


@dataclass(frozen=True, slots=True)
class Sum:
    """Low, expected and high in whole numbers, which become amounts when they are divided by one common unit."""

    low: int = 0
    expected: int = 0
    high: int = 0

    def plus(self, other: "Sum") -> "Sum":
        return Sum(self.low + other.low, self.expected + other.expected, self.high + other.high)


class Sums:
    """Costs by key, of which any may be summed before they are divided."""

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.by_key: dict[int, dict[str, Sum]] = defaultdict(dict)

    def add(self, key: int, currency: str, more: Sum) -> None:
        known = self.by_key[key].get(currency)
        self.by_key[key][currency] = known.plus(more) if known else more

    def total(self, keys: Iterable[int]) -> Cost:
        sums: dict[str, Sum] = {}
        for key in keys:
            for currency, each in self.by_key.get(key, {}).items():
                sums[currency] = sums[currency].plus(each) if currency in sums else each
        return {
            currency: Amount(*(Fraction(amount, self.unit) for amount in (each.low, each.expected, each.high)))
            for currency, each in sums.items()
        }


class _Dated(NamedTuple):
    """The rates of one currency, by service and date; amounts are whole numbers of one unit shared by all."""

    service: Ints
    begins: Ints
    amounts: Sequence[tuple[int, int, int]]


class Sweep:
    """The line of moments at which anything changes, and what runs between each and the next.

    `pieces` are those of all incidents that share the cost, none of them left out.
    """

    def __init__(self, pieces: Pieces, harms: Harms, services: Sequence[str], rates: Iterable[Rate]) -> None:
        self.pieces, self.scale = pieces, harms.scale
        self.service, self.impact = harms.service[pieces.incident], harms.impact[pieces.incident]
        self.decimals, self.rates = _dated(rates, services)
        self._line()

    def _line(self) -> None:
        """Sorts the moments of all services, and finds each piece and each rate on the line."""
        begins, ends = self.pieces.begins, self.pieces.ends
        dated = list(self.rates.values())
        service = np.concatenate((self.service, self.service, *(each.service for each in dated)))
        at = np.concatenate((begins, ends, *(each.begins for each in dated)))
        order = np.lexsort((at, service))
        service, at = service[order], at[order]
        is_new = np.append(True, (service[1:] != service[:-1]) | (at[1:] != at[:-1]))[: len(at)]
        places = np.empty(len(at), np.int64)
        places[order] = np.cumsum(is_new) - 1
        self.moment_service, self.at = service[is_new], at[is_new]
        parts = np.split(places, np.cumsum([len(begins), len(ends), *(len(each.begins) for each in dated)])[:-1])
        self.first, self.last, starts = parts[0], parts[1], parts[2:]
        self.rate = {
            currency: self._held(of) for currency, of in zip(self.rates, starts, strict=True)
        }  # at each moment the place of the rate that holds from then on, or -1

    def _held(self, starts: Ints) -> Ints:
        begins_anew = np.append(True, self.moment_service[1:] != self.moment_service[:-1])
        rate = np.full(len(self.at), -1)
        rate[starts] = np.arange(len(starts))
        marks = np.where(begins_anew | (rate >= 0), np.arange(len(self.at)), 0)
        return rate[np.maximum.accumulate(marks)]

    @cached_property
    def running(self) -> tuple[Ints, Ints]:
        """From each moment to the next: time times the greatest impact, and the sum of the impacts."""
        impact, size = self.impact, len(self.at)
        top = np.zeros(size, impact.dtype)
        for level in np.unique(impact[impact > 0]):
            its = impact == level
            changes = np.bincount(self.first[its], minlength=size) - np.bincount(self.last[its], minlength=size)
            top[np.cumsum(changes) > 0] = level
        changes = np.zeros(size, impact.dtype)
        np.add.at(changes, self.first, impact)
        np.subtract.at(changes, self.last, impact)
        together = np.cumsum(changes)
        if size:
            longest = int(self.at.max()) - int(self.at.min())
            services = int(self.moment_service.max()) + 1  # sums are over all of them
            if services * longest * int(top.max(initial=0)) * max(1, int(together.max(initial=0))) >= _LARGEST:
                top, together = top.astype(object), together.astype(object)
        return top * np.append(np.diff(self.at), 0), together

    @property
    def unit(self) -> int:
        return int(HOUR_MICROSECONDS * self.scale * 10**self.decimals)

    def of_services(self, borders: Ints) -> tuple[Sums, int]:
        """What each service cost in each period: by `service x periods + period`, and the number of periods."""
        periods = len(borders) - 1
        sums = Sums(self.unit)
        weight, _ = self.running
        for currency, dated in self.rates.items():
            held = self._priced(currency)
            for key in np.unique(self.service[held] * periods + self.pieces.period[held]).tolist():
                sums.add(key, currency, Sum())
            rate = self.rate[currency]
            counts = np.flatnonzero((weight > 0) & (rate >= 0))
            period = np.searchsorted(borders, self.at[counts], "right") - 1
            places, weights = _summed(rate[counts] * periods + period, weight[counts])
            for place, each in zip(places.tolist(), weights.tolist(), strict=True):
                which, when = divmod(place, periods)
                sums.add(int(dated.service[which]) * periods + when, currency, _times(dated.amounts[which], each))
        return sums, periods

    def shared(self, piece: Ints, keys: Ints) -> Sums:
        """The shares of these pieces, summed by key."""
        weight, together = self.running
        shared = np.flatnonzero(weight > 0)
        sums_of_impacts, divisor = _distinct(together[shared])
        stretches = Stretches(shared, weight[shared], divisor, len(sums_of_impacts))
        divisors = [int(each) for each in sums_of_impacts]
        whole = math.lcm(*divisors)
        factors = [whole // each for each in divisors]
        sums = Sums(self.unit * whole)
        for currency, dated in self.rates.items():
            held = self._priced(currency)[piece]
            for key in np.unique(keys[held]).tolist():
                sums.add(key, currency, Sum())
            rows, first, last, rate = self._by_rate(currency, piece)
            combined, cells = _distinct(keys[rows] * len(dated.amounts) + rate)
            shares = [0] * len(combined)
            for cell, place, part in stretches.parts(first, last, self.impact[piece[rows]], cells):
                shares[cell] += part * factors[place]
            for both, share in zip(combined.tolist(), shares, strict=True):
                key, which = divmod(both, len(dated.amounts))
                sums.add(key, currency, _times(dated.amounts[which], share))
        return sums

    def _priced(self, currency: str) -> Any:
        """Whether a rate held at any time of each piece; a moment of harm has one too, and costs 0."""
        dated = self.rates[currency]
        earliest = np.full(int(max(self.service.max(initial=0), dated.service.max(initial=0))) + 1, _LARGEST)
        np.minimum.at(earliest, dated.service, dated.begins)
        since = earliest[self.service]
        return (since <= self.pieces.begins) | (since < self.pieces.ends)

    def _by_rate(self, currency: str, piece: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """The pieces cut where the rate changes: their rows, the range of each on the line, and its rate."""
        rate = self.rate[currency]
        changes = np.flatnonzero(np.append(True, rate[1:] != rate[:-1]))[: len(rate)]
        cut = pieces(self.first[piece], self.last[piece], np.append(changes, len(rate)))
        holds = rate[cut.begins[:]] if len(cut.begins) else cut.begins
        kept = (holds >= 0) & (cut.begins < cut.ends)
        return cut.incident[kept], cut.begins[kept], cut.ends[kept], holds[kept]


class Stretches(NamedTuple):
    """From one moment of the line to the next, where anybody is harmed."""

    place: Ints  # on the line
    weight: Ints  # time times the greatest impact
    divisor: Ints  # the sum of the impacts, as one of so many
    divisors: int

    def parts(self, first: Ints, last: Ints, impact: Ints, cells: Ints) -> Iterator[tuple[int, int, int]]:
        """What of each cell is to be divided by which divisor: the weights between `first` and `last` times `impact`.

        Either each piece is looked at in every stretch that it covers, or each divisor on the whole line; the former is
        less work but where very many overlap.
        """
        begins = np.searchsorted(self.place, first)
        covered = np.searchsorted(self.place, last) - begins
        if covered.sum() > self.divisors * (len(self.place) + len(first)):
            return self.by_divisor(begins, begins + covered, impact, cells)
        return self.by_piece(begins, covered, impact, cells)

    def by_divisor(self, first: Ints, last: Ints, impact: Ints, cells: Ints) -> Iterator[tuple[int, int, int]]:
        for divisor in range(self.divisors):
            so_far = np.append(0, np.cumsum(np.where(self.divisor == divisor, self.weight, 0)))
            for cell, part in zip(*_summed(cells, (so_far[last] - so_far[first]) * impact), strict=True):
                yield int(cell), divisor, int(part)

    def by_piece(
        self, first: Ints, covered: Ints, impact: Ints, cells: Ints, *, at_once: int = 2**18
    ) -> Iterator[tuple[int, int, int]]:
        # Some at a time: what a question needs of memory must not depend on how much overlaps.
        so_far = np.cumsum(covered)
        borders = np.arange(at_once, int(covered.sum()), at_once)
        for some in np.split(np.arange(len(first)), np.searchsorted(so_far, borders)):
            rows, stretch = ranges(first[some], covered[some])
            piece = some[rows]
            both = cells[piece] * self.divisors + self.divisor[stretch]
            for combined, part in zip(*_summed(both, self.weight[stretch] * impact[piece]), strict=True):
                cell, divisor = divmod(int(combined), self.divisors)
                yield cell, divisor, int(part)


def _dated(rates: Iterable[Rate], services: Sequence[str]) -> tuple[int, Mapping[str, _Dated]]:
    """How many decimals make all amounts whole, and the rates of these services by currency."""
    codes = {name: code for code, name in enumerate(services)}
    known = [rate for rate in rates if rate.service in codes]
    decimals = max((_decimals(each) for rate in known for each in (rate.low, rate.expected, rate.high)), default=0)
    by_currency: dict[str, list[Rate]] = defaultdict(list)
    for rate in sorted(known, key=lambda rate: (codes[rate.service], rate.valid_from)):
        by_currency[rate.currency].append(rate)
    return decimals, {
        currency: _Dated(
            np.array([codes[rate.service] for rate in dated], np.int64),
            np.array([microseconds(rate.valid_from) for rate in dated], np.int64),
            [tuple(int(Fraction(each) * 10**decimals) for each in (r.low, r.expected, r.high)) for r in dated],  # type: ignore[misc]
        )
        for currency, dated in sorted(by_currency.items())
    }


def _decimals(amount: Decimal) -> int:
    exponent = amount.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _summed(keys: Ints, values: Ints) -> tuple[Ints, Ints]:
    places, inverse = _distinct(keys)
    sums = np.zeros(len(places), values.dtype)
    np.add.at(sums, inverse, values)
    return places, sums


def _distinct(values: Ints) -> tuple[Ints, Ints]:
    """The distinct values, rising, and the place of each among them. Numpy's `unique` sorts; small ones are counted."""
    if values.dtype == object or not len(values) or values.min() < 0 or values.max() > 8 * len(values):
        places, inverse = np.unique(values, return_inverse=True)
        return places, inverse
    known = np.bincount(values) > 0
    return np.flatnonzero(known), (np.cumsum(known) - 1)[values]


def _times(amounts: tuple[int, int, int], factor: int) -> Sum:
    low, expected, high = amounts
    return Sum(low * factor, expected * factor, high * factor)
