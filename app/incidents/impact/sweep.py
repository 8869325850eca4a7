"""Vectorized downtime and cost of many incidents by period and group, with exactly the results of `intervals.py`.

Pure. Times are whole microseconds. The moments of all services form one line, one service after the other, so that
intervals become index ranges on it, and sums over ranges become differences of running sums. All values are integers;
amounts become fractions once, at the end. If a sum might exceed 64 bits, the slower Python integers are used.
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

from app.base.values.arrays import distinct, in_order, indexed
from app.base.values.times import HOUR_MICROSECONDS
from app.incidents.impact.columns import ImpactColumns
from app.incidents.impact.intervals import Amount, Cost
from app.incidents.impact.maintenance import Planned, TooMuchMaintenance
from app.incidents.impact.rates import Rate
from app.incidents.measures.vectorized import Booleans, Ints, microseconds

_LARGEST = 2**62


class Pieces(NamedTuple):
    """Intervals, each a part of one impact and within one period."""

    row: Ints  # index into `ImpactColumns`
    start: Ints
    end: Ints
    period: Ints

    def where(self, holds: Any) -> "Pieces":
        return Pieces(*(column[holds] for column in self))


def ranges(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Repeats each row `count` times: returns the row indices, and for each row the numbers from `first` on."""
    rows = np.repeat(np.arange(len(count)), count)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count) + first[rows]


def pieces(start: Ints, end: Ints, borders: Ints) -> Pieces:
    """Splits intervals at the borders of periods. An empty interval belongs to the period in which it starts."""
    first = np.searchsorted(borders, start, "right") - 1
    last = np.where(start < end, np.searchsorted(borders, end, "left") - 1, first)
    first, last = np.maximum(first, np.where(start < end, 0, first)), np.minimum(last, len(borders) - 2)
    count = np.where((first < 0) | (first > len(borders) - 2), 0, np.maximum(0, last - first + 1))
    rows, period = ranges(first, count)
    return Pieces(rows, np.maximum(start[rows], borders[period]), np.minimum(end[rows], borders[period + 1]), period)


def outside(
    impacts: ImpactColumns, services: Sequence[str], planned: Planned, *, parts_at_most: int | None = None
) -> tuple[Ints, Ints, Ints]:
    """Vectorized `maintenance.outside`: row of `impacts`, start and end; with an empty interval if nothing is left.

    Raises TooMuchMaintenance.
    """
    everyone = np.arange(len(impacts.start))
    concerned = [code for code, name in enumerate(services) if planned.get(name)]
    if not concerned:
        return everyone, impacts.start, impacts.end
    untouched = ~np.isin(impacts.service, concerned)
    found = [(everyone[untouched], impacts.start[untouched], impacts.end[untouched])]
    known: dict[int, Ints] = {}  # many services share the same sequence
    parts = 0
    for code in concerned:
        rows = np.flatnonzero(impacts.service == code)
        spans = planned[services[code]]
        if id(spans) not in known:
            known[id(spans)] = np.array([[microseconds(at) for at in span] for span in spans], np.int64)
        maintenance = known[id(spans)]
        parts += _number_of_parts(impacts.start[rows], impacts.end[rows], maintenance)
        if parts_at_most is not None and parts > parts_at_most:
            message = (
                "planned maintenance divides the impact of these incidents into more than AFTERMATH_QUERY_PARTS "
                f"({parts_at_most}) parts; ask for a shorter period or for one service"
            )
            raise TooMuchMaintenance(message)
        found.append(_outside(rows, impacts.start[rows], impacts.end[rows], maintenance))
    interval, start, end = (np.concatenate(column) for column in zip(*found, strict=True))
    return interval, start, end


def _number_of_parts(start: Ints, end: Ints, maintenance: Ints) -> int:
    """How many more intervals `_outside` returns than it gets, at most."""
    inside = np.searchsorted(maintenance[:, 0], end) - np.searchsorted(maintenance[:, 1], start)
    return int(np.maximum(inside, 0).sum())


def _outside(rows: Ints, start: Ints, end: Ints, maintenance: Ints) -> tuple[Ints, Ints, Ints]:
    """Intersects with the gaps between the intervals of `maintenance`, which are sorted and disjoint."""
    far = np.iinfo(np.int64)
    gap_starts = np.concatenate(([far.min], maintenance[:, 1]))
    gap_ends = np.concatenate((maintenance[:, 0], [far.max]))
    first = np.searchsorted(gap_ends, start, "right")
    count = np.where(start < end, np.maximum(0, np.searchsorted(gap_starts, end, "left") - first), 0)
    places, gap = ranges(first, count)
    gone = count == 0
    return (
        np.concatenate((rows[places], rows[gone])),
        np.concatenate((np.maximum(start[places], gap_starts[gap]), start[gone])),
        np.concatenate((np.minimum(end[places], gap_ends[gap]), start[gone])),
    )


# — downtime —


def union(keys: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """The keys in order, and for each the microseconds during which at least one of its intervals was running."""
    if not len(keys):
        return keys, keys
    order = in_order(keys, start)
    keys, start, end = keys[order], start[order], end[order]
    is_first = np.append(True, keys[1:] != keys[:-1])
    latest = _latest(is_first, end)
    covered = np.where(is_first, start, np.append(start[:1], latest[:-1]))
    more = np.maximum(0, end - np.maximum(start, covered))
    return keys[is_first], np.add.reduceat(more, np.flatnonzero(is_first))


def _latest(is_first: Booleans, end: Ints) -> Ints:
    """The latest end so far within each key. An offset per key allows one running maximum."""
    place = np.cumsum(is_first) - 1
    least = int(end.min())
    width = int(end.max()) - least + 1
    if (int(place[-1]) + 1) * width < _LARGEST:
        above = place * width
        return np.asarray(np.maximum.accumulate(end - least + above) - above + least)
    times, rank = np.unique(end, return_inverse=True)
    above = place * len(times)
    return np.asarray(times[np.maximum.accumulate(rank + above) - above])


# — cost —


@dataclass(frozen=True, slots=True)
class Sum:
    """Low, expected and high as integers; divided by a common unit they are amounts."""

    low: int = 0
    expected: int = 0
    high: int = 0

    def plus(self, other: "Sum") -> "Sum":
        return Sum(self.low + other.low, self.expected + other.expected, self.high + other.high)


class Sums:
    """Costs by key, which can be summed before they are divided by `unit`."""

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
    """The rates of one currency by service and date; amounts are integers in a common unit."""

    service: Ints
    start: Ints
    amounts: Sequence[tuple[int, int, int]]


class Sweep:
    """The moments at which anything changes, and the impact between consecutive moments.

    `pieces` must include all incidents that share the cost.
    """

    def __init__(self, pieces: Pieces, impacts: ImpactColumns, services: Sequence[str], rates: Iterable[Rate]) -> None:
        self.pieces, self.scale = pieces, impacts.scale
        self.service, self.impact = impacts.service[pieces.row], impacts.impact[pieces.row]
        self.decimals, self.rates = _dated(rates, services)
        self._line()

    def _line(self) -> None:
        """Sorts the moments of all services, and locates each piece and each rate on the line."""
        start, end = self.pieces.start, self.pieces.end
        dated = list(self.rates.values())
        service = np.concatenate((self.service, self.service, *(each.service for each in dated)))
        at = np.concatenate((start, end, *(each.start for each in dated)))
        order = in_order(service, at)
        service, at = service[order], at[order]
        is_new = np.append(True, (service[1:] != service[:-1]) | (at[1:] != at[:-1]))[: len(at)]
        places = np.empty(len(at), np.int64)
        places[order] = np.cumsum(is_new) - 1
        self.moment_service, self.at = service[is_new], at[is_new]
        parts = np.split(places, np.cumsum([len(start), len(end), *(len(each.start) for each in dated)])[:-1])
        self.first, self.last, starts = parts[0], parts[1], parts[2:]
        self.rate = {
            currency: self._held(of) for currency, of in zip(self.rates, starts, strict=True)
        }  # for each moment the index of the rate valid from then on, or -1

    def _held(self, starts: Ints) -> Ints:
        begins_anew = np.append(True, self.moment_service[1:] != self.moment_service[:-1])
        rate = np.full(len(self.at), -1)
        rate[starts] = np.arange(len(starts))
        marks = np.where(begins_anew | (rate >= 0), np.arange(len(self.at)), 0)
        return rate[np.maximum.accumulate(marks)]

    @cached_property
    def running(self) -> tuple[Ints, Ints]:
        """From each moment to the next: duration times the greatest impact, and the sum of the impacts."""
        impact, size = self.impact, len(self.at)
        top = np.zeros(size, impact.dtype)
        for level in distinct(impact[impact > 0]):
            its = impact == level
            changes = np.bincount(self.first[its], minlength=size) - np.bincount(self.last[its], minlength=size)
            top[np.cumsum(changes) > 0] = level
        changes = np.zeros(size, impact.dtype)
        np.add.at(changes, self.first, impact)
        np.subtract.at(changes, self.last, impact)
        together = np.cumsum(changes)
        if size:
            longest = int(self.at.max()) - int(self.at.min())
            services = int(self.moment_service.max()) + 1  # sums span all services
            if services * longest * int(top.max(initial=0)) * max(1, int(together.max(initial=0))) >= _LARGEST:
                top, together = top.astype(object), together.astype(object)
        return top * np.append(np.diff(self.at), 0), together

    @property
    def unit(self) -> int:
        return int(HOUR_MICROSECONDS * self.scale * 10**self.decimals)

    def of_services(self, borders: Ints) -> tuple[Sums, int]:
        """The cost by service and period, with key `service x periods + period`, and the number of periods."""
        periods = len(borders) - 1
        sums = Sums(self.unit)
        weight, _ = self.running
        for currency, dated in self.rates.items():
            held = self._priced(currency)
            for key in distinct(self.service[held] * periods + self.pieces.period[held]).tolist():
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
        sums_of_impacts, divisor = indexed(together[shared])
        segments = Segments(shared, weight[shared], divisor, len(sums_of_impacts))
        divisors = [int(each) for each in sums_of_impacts]
        whole = math.lcm(*divisors)
        factors = [whole // each for each in divisors]
        sums = Sums(self.unit * whole)
        for currency, dated in self.rates.items():
            held = self._priced(currency)[piece]
            for key in distinct(keys[held]).tolist():
                sums.add(key, currency, Sum())
            rows, first, last, rate = self._by_rate(currency, piece)
            combined, cells = indexed(keys[rows] * len(dated.amounts) + rate)
            shares = [0] * len(combined)
            for cell, place, part in segments.parts(first, last, self.impact[piece[rows]], cells):
                shares[cell] += part * factors[place]
            for both, share in zip(combined.tolist(), shares, strict=True):
                key, which = divmod(both, len(dated.amounts))
                sums.add(key, currency, _times(dated.amounts[which], share))
        return sums

    def _priced(self, currency: str) -> Any:
        """Whether a rate was valid at any time of each piece. A piece without duration can have one too; it costs 0."""
        dated = self.rates[currency]
        earliest = np.full(int(max(self.service.max(initial=0), dated.service.max(initial=0))) + 1, _LARGEST)
        np.minimum.at(earliest, dated.service, dated.start)
        since = earliest[self.service]
        return (since <= self.pieces.start) | (since < self.pieces.end)

    def _by_rate(self, currency: str, piece: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """The pieces split where the rate changes: their rows, their ranges on the line, and their rates."""
        rate = self.rate[currency]
        changes = np.flatnonzero(np.append(True, rate[1:] != rate[:-1]))[: len(rate)]
        cut = pieces(self.first[piece], self.last[piece], np.append(changes, len(rate)))
        holds = rate[cut.start[:]] if len(cut.start) else cut.start
        kept = (holds >= 0) & (cut.start < cut.end)
        return cut.row[kept], cut.start[kept], cut.end[kept], holds[kept]


class Segments(NamedTuple):
    """The intervals between consecutive moments that have impact."""

    place: Ints  # index on the line
    weight: Ints  # duration times the greatest impact
    divisor: Ints  # the sum of the impacts, as an index of distinct sums
    divisors: int

    def parts(self, first: Ints, last: Ints, impact: Ints, cells: Ints) -> Iterator[tuple[int, int, int]]:
        """The numerators by cell and divisor: the weights between `first` and `last` times `impact`.

        Iterates either over the segments covered by each piece, or over all divisors for the whole line. The former is
        less work unless very many pieces overlap.
        """
        start = np.searchsorted(self.place, first)
        covered = np.searchsorted(self.place, last) - start
        if covered.sum() > self.divisors * (len(self.place) + len(first)):
            return self.by_divisor(start, start + covered, impact, cells)
        return self.by_piece(start, covered, impact, cells)

    def by_divisor(self, first: Ints, last: Ints, impact: Ints, cells: Ints) -> Iterator[tuple[int, int, int]]:
        for divisor in range(self.divisors):
            so_far = np.append(0, np.cumsum(np.where(self.divisor == divisor, self.weight, 0)))
            for cell, part in zip(*_summed(cells, (so_far[last] - so_far[first]) * impact), strict=True):
                yield int(cell), divisor, int(part)

    def by_piece(
        self, first: Ints, covered: Ints, impact: Ints, cells: Ints, *, at_once: int = 2**18
    ) -> Iterator[tuple[int, int, int]]:
        # In batches, so that memory use does not depend on the amount of overlap.
        so_far = np.cumsum(covered)
        borders = np.arange(at_once, int(covered.sum()), at_once)
        for some in np.split(np.arange(len(first)), np.searchsorted(so_far, borders)):
            rows, segment = ranges(first[some], covered[some])
            piece = some[rows]
            both = cells[piece] * self.divisors + self.divisor[segment]
            for combined, part in zip(*_summed(both, self.weight[segment] * impact[piece]), strict=True):
                cell, divisor = divmod(int(combined), self.divisors)
                yield cell, divisor, int(part)


def _dated(rates: Iterable[Rate], services: Sequence[str]) -> tuple[int, Mapping[str, _Dated]]:
    """The number of decimals that makes all amounts integers, and the rates of these services by currency."""
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
            [tuple(_whole(each, decimals) for each in (r.low, r.expected, r.high)) for r in dated],  # type: ignore[misc]
        )
        for currency, dated in sorted(by_currency.items())
    }


def _whole(amount: Decimal, decimals: int) -> int:
    above, below = amount.as_integer_ratio()
    return int(above * 10**decimals // below)


def _decimals(amount: Decimal) -> int:
    exponent = amount.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _summed(keys: Ints, values: Ints) -> tuple[Ints, Ints]:
    places, inverse = indexed(keys)
    sums = np.zeros(len(places), values.dtype)
    np.add.at(sums, inverse, values)
    return places, sums


def _times(amounts: tuple[int, int, int], factor: int) -> Sum:
    low, expected, high = amounts
    return Sum(low * factor, expected * factor, high * factor)
