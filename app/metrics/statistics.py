"""Numbers over many incidents: what a period, a service or a severity amounts to.

Pure: no clock, no I/O, no settings. No data is None, never 0.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np

from app.base.errors import Invalid
from app.base.severity import SEVERITIES
from app.base.times import HOUR_MICROSECONDS, Span
from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.impact import sweep as sums
from app.incidents.impact.intervals import Cost, clipped
from app.incidents.impact.maintenance import Planned
from app.incidents.impact.rates import Rate
from app.incidents.impact.sweep import Pieces, Sums, Sweep, pieces, ranges, union
from app.incidents.measures import vectorized as columns_
from app.incidents.measures.business_durations import in_business_hours
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.measures import MEASURES, NOT_ACKNOWLEDGED, MeasureStatus, Weights
from app.incidents.measures.vectorized import (
    NEVER,
    OUTCOMES,
    Booleans,
    Coded,
    Columns,
    Floats,
    Harms,
    Ints,
    MeasuredMany,
    coded,
    microseconds,
)
from app.metrics import survival
from app.metrics.survival import Estimates, Typical

# — one measure over many —


@dataclass(frozen=True, slots=True)
class Summary:
    """`n + pending + censored + invalid + sum(excluded)` is the number of incidents. Durations in seconds.

    Of fewer than `SUMMARY_FROM` recorded values there are only these `values`, rising, and no `typical`.
    """

    n: int
    typical: Typical | None
    values: Sequence[float] | None
    pending: int
    censored: int
    invalid: int
    excluded: Mapping[str, int]  # by reason
    estimates: Estimates | None = None
    zeros: int = 0  # of the recorded ones


def summaries(
    measured: MeasuredMany, incidents: Ints, cells: Ints, size: int, horizon: float | None = None
) -> list[Summary]:
    """Of each of `size` cells, of the incidents that are in it.

    `typical` is of recorded values only; `estimates` count the time that others have waited, up to `horizon`. Those who
    have waited for 0 s take no part: that it takes 0 s or longer is known beforehand.
    """
    outcome = measured.outcome[incidents]
    counts = np.bincount(cells * len(OUTCOMES) + outcome, minlength=size * len(OUTCOMES)).reshape(size, -1)
    recorded, starts = _in_order(measured.seconds[incidents], cells, size)
    all_waits = measured.waited[incidents]
    waited, waits = _in_order(np.where(all_waits > 0, all_waits, np.nan), cells, size)
    typical = survival.typicals(recorded, starts)
    found = []
    for cell, by_outcome in enumerate(counts.tolist()):
        n = by_outcome[0]
        values = recorded[starts[cell] : starts[cell + 1]]
        known = (values, waited[waits[cell] : waits[cell + 1]])
        found.append(
            Summary(
                n=n,
                typical=typical[cell],
                values=values.tolist() if n < SUMMARY_FROM else None,
                pending=sum(by_outcome[place] for place in _PENDING),
                censored=by_outcome[_CENSORED],
                invalid=sum(by_outcome[place] for place in _INVALID),
                excluded={reason: by_outcome[place] for reason, place in _EXCLUDED if by_outcome[place]},
                estimates=None if horizon is None else survival.estimates(*known, horizon),
                zeros=int(np.searchsorted(values, 0.0, "right")),
            )
        )
    return found


def _in_order(values: Floats, cells: Ints, size: int) -> tuple[Floats, Ints]:
    """Those that are numbers, rising within each cell, and where each cell begins and the last one ends."""
    known = np.isfinite(values)
    values, cells = values[known], cells[known]
    return values[np.lexsort((values, cells))], np.append(0, np.cumsum(np.bincount(cells, minlength=size)))


_CENSORED = OUTCOMES.index(NOT_ACKNOWLEDGED)
_PENDING = [place for place, each in enumerate(OUTCOMES) if each.status is MeasureStatus.PENDING]
_INVALID = [place for place, each in enumerate(OUTCOMES) if each.status is MeasureStatus.INVALID]
_EXCLUDED = sorted(
    (each.reason or "", place)
    for place, each in enumerate(OUTCOMES)
    if each.status is MeasureStatus.NOT_APPLICABLE and place != _CENSORED
)


# — incidents of a period —


class GroupBy(StrEnum):
    """By the name of a filter in `Scope`."""

    SERVICE = "service"
    SEVERITY = "severity"
    SOURCE = "source"
    OWNER = "owner"
    HOUR_OF_WEEK = "hour_of_week"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which incidents: those to which every filter applies that is not None, in a half-open period.

    `owner` is empty for services without one; `hour_of_week` is that of detection, in UTC, 0 to 167
    from Monday 00:00.
    """

    period: Span
    service: str | None = None
    severity: int | None = None
    source: str | None = None
    owner: str | None = None
    hour_of_week: int | None = None

    @property
    def is_part_of_services(self) -> bool:
        """Whether it may hold some incidents of a service and leave others out that share its cost."""
        return self.severity is not None or self.source is not None or self.hour_of_week is not None


@dataclass(frozen=True, slots=True)
class Known:
    """Incidents, and what is worked out of them once for all groups and periods."""

    columns: Columns
    detected_at: Ints
    harms: Harms
    unplanned: tuple[Ints, Ints, Ints]  # harm without what fell into planned maintenance: incident, begins, ends
    is_cut: bool  # whether any did
    measured: Mapping[str, MeasuredMany]
    in_business_hours: Mapping[str, MeasuredMany] | None  # the same by a second clock, if one was asked for
    sources: Coded  # tuples of names
    owner: Coded


def know(
    columns: Columns,
    *,
    now: datetime,
    weights: Weights,
    include_non_recoveries: bool,
    planned: Planned | None = None,
    sources: Coded | None = None,
    owners: Mapping[str, str] | None = None,
    calendar: BusinessHours | None = None,
    measures: Collection[str] | None = None,
) -> Known:
    """`sources` are tuples of names, `owners` those of services that have one, `measures` what is asked for; None: all
    of them.
    """
    measured = columns_.measured(columns, include_non_recoveries=include_non_recoveries, now=now)
    if measures is not None:
        measured = {name: each for name, each in measured.items() if name in measures}
    harmed = columns_.harms(columns, now=now, weights=weights)
    codes, services = columns.service
    owner = coded((owners or {}).get(name, "") for name in services)
    return Known(
        columns,
        columns.detected_at(),
        harmed,
        sums.outside(harmed, services, planned or {}),
        bool(planned),
        measured,
        None if calendar is None else in_business_hours(measured, calendar),
        sources or Coded(np.zeros(len(columns), np.int64), [()]),
        Coded(owner.codes[codes], owner.values),
    )


@dataclass(frozen=True, slots=True)
class Numbers:
    """`carried_in` are the numbers of incidents that were detected before the period, or after it, but harm in it."""

    scope: Scope
    incidents: int
    open: int
    measures: Mapping[str, Summary]
    business_hours: Mapping[str, Summary] | None  # the same by a second clock, if one was asked for
    downtime: timedelta
    planned: timedelta  # downtime that fell into planned maintenance, and is in neither downtime nor cost
    cost: Cost | None
    services_without_rate: Sequence[str]
    carried_in: Sequence[int]
    services: Sequence[str]  # of the incidents that were detected in the period or harm in it


def numbers(
    known: Known,
    rates: Iterable[Rate],
    scope: Scope,
    group_by: GroupBy | None = None,
    *,
    horizon: float | None = None,
) -> tuple[Numbers, list[Numbers]]:
    """The numbers of the scope, and of each of its groups; with a horizon, in seconds, estimates too.

    `known` must hold every incident of the services in question that was detected in the period or harms in it, of
    whatever severity: they share the cost. An incident is counted in the period of its detection, downtime and cost
    are cut at its ends. Downtime is the union per service, summed over services. An incident that several sources told
    of is in the group of each; one that a person declared has no source.
    """
    within = _Within(known, rates, scope, [scope.period])
    [[whole]] = within.rows(None, horizon)
    groups = [] if group_by is None else [row[0] for row in within.rows(group_by, horizon)]
    return whole, groups


def narrowed(scope: Scope, group_by: GroupBy | None, key: str | int | None) -> Scope:
    filter_: dict[str, Any] = {group_by.value: key} if group_by else {}
    return replace(scope, **filter_)


def key_of(scope: Scope, group_by: GroupBy | None) -> str | int | None:
    """Of which group the scope is."""
    key: str | int | None = getattr(scope, group_by.value) if group_by else None
    return key


def _hour_of_week(at: Ints) -> Ints:
    return (at // HOUR_MICROSECONDS + 3 * 24) % _HOURS_OF_WEEK  # 1970 began on a Thursday


_HOURS_OF_WEEK = 7 * 24


class _Members(NamedTuple):
    """Which incidents are in which group: pairs, by incident and then by place in `keys`."""

    incident: Ints
    group: Ints
    keys: Sequence[str | int | None]

    def of(self, incidents: Ints, size: int) -> tuple[Ints, Ints]:
        """For each of these incidents its groups: the place among them, and the group."""
        count = np.bincount(self.incident, minlength=size)
        rows, pairs = ranges((np.cumsum(count) - count)[incidents], count[incidents])
        return rows, self.group[pairs]


class _Within:
    """What lies in each of the periods, which follow one another without gaps: the ground for any grouping.

    A cell is a group in a period: `group x periods + period`.
    """

    def __init__(self, known: Known, rates: Iterable[Rate], scope: Scope, periods: Sequence[Span]) -> None:
        self.known, self.rates, self.scope, self.periods = known, list(rates), scope, periods
        self.size, self.services = len(known.columns), known.columns.service.values
        self.borders = np.array([microseconds(at) for at in (periods[0].begins, *(each.ends for each in periods))])
        place = np.searchsorted(self.borders, known.detected_at, "right") - 1
        self.detected = np.where((place >= 0) & (place < len(periods)), place, _NOWHERE)
        harm = pieces(known.harms.begins, known.harms.ends, self.borders)
        self.harm = harm.where(harm.begins < harm.ends)
        incident, begins, ends = known.unplanned
        cut = pieces(begins, ends, self.borders)
        self.unplanned = Pieces(incident[cut.incident], *cut[1:])

    @cached_property
    def sweep(self) -> Sweep:
        return Sweep(self.unplanned, self.known.harms, self.services, self.rates)

    @cached_property
    def of_services(self) -> tuple[Sums, int]:
        return self.sweep.of_services(self.borders)

    @cached_property
    def in_scope(self) -> Booleans:
        scope, known = self.scope, self.known
        holds = np.ones(self.size, np.bool_)
        for wanted, column in ((scope.service, known.columns.service), (scope.owner, known.owner)):
            if wanted is not None:
                holds &= np.array([value == wanted for value in column.values], np.bool_)[column.codes]
        if scope.severity is not None:
            holds &= known.columns.severity == scope.severity
        if scope.source is not None:
            codes, told = known.sources
            holds &= np.array([scope.source in names for names in told], np.bool_)[codes]
        if scope.hour_of_week is not None:
            holds &= _hour_of_week(known.detected_at) == scope.hour_of_week
        return holds

    def members(self, group_by: GroupBy | None) -> _Members:
        """The groups, in order, that have incidents in any of the periods; one of all without `group_by`."""
        there = self.in_scope & (self.detected != _NOWHERE)
        there[self.harm.incident] |= self.in_scope[self.harm.incident]
        incident = np.flatnonzero(there)
        if group_by is None:
            return _Members(incident, np.zeros(len(incident), np.int64), [None])
        known = self.known
        match group_by:
            case GroupBy.SERVICE:
                codes, values = known.columns.service
            case GroupBy.SEVERITY:
                codes, values = known.columns.severity, range(len(SEVERITIES) + 1)
            case GroupBy.SOURCE:
                codes, values = known.sources
            case GroupBy.OWNER:
                codes, values = known.owner
            case GroupBy.HOUR_OF_WEEK:
                codes, values = _hour_of_week(known.detected_at), range(_HOURS_OF_WEEK)
        codes = codes[incident]
        if group_by is GroupBy.SOURCE:  # several at once
            count = np.array([len(names) for names in values], np.int64)
            rows, places = ranges((np.cumsum(count) - count)[codes], count[codes])
            incident, (codes, values) = incident[rows], coded(name for names in values for name in names)
            codes = codes[places] if len(places) else places
        keys = sorted({values[code] for code in np.unique(codes).tolist()})
        place = {key: place for place, key in enumerate(keys)}
        order = np.array([place.get(value, 0) for value in values], np.int64)
        return _Members(incident, order[codes] if len(codes) else codes, keys)

    def rows(
        self, group_by: GroupBy | None, horizon: float | None = None, *, points_at_most: int | None = None
    ) -> list[list[Numbers]]:
        """One row per group, in each the numbers of every period. Raises TooManyPoints."""
        members = self.members(group_by)
        if points_at_most is not None and group_by and len(members.keys) * len(self.periods) > points_at_most:
            message = (
                f"{len(members.keys)} groups in {len(self.periods)} buckets are too many; "
                "narrow the filters or the period"
            )
            raise TooManyPoints(message)
        scopes = [
            replace(narrowed(self.scope, group_by, key), period=period)
            for key in members.keys
            for period in self.periods
        ]
        if not scopes:
            return []
        every = self._numbers(members, scopes, horizon)
        return [every[first : first + len(self.periods)] for first in range(0, len(every), len(self.periods))]

    def _numbers(self, members: _Members, scopes: Sequence[Scope], horizon: float | None) -> list[Numbers]:
        known, size = self.known, len(scopes)
        detected = self.detected[members.incident]
        incident = members.incident[detected != _NOWHERE]
        cells = (members.group * len(self.periods) + detected)[detected != _NOWHERE]
        is_open = known.columns.ended_at[incident] == NEVER
        rows, harm_cells = self._in_cells(members, self.harm)
        harmed = self.harm.where(rows)
        harms = known.harms.impact[harmed.incident] > 0
        parts, part_cells = self._in_cells(members, self.unplanned)
        left = self.unplanned.where(parts)
        down_left = (known.harms.impact[left.incident] > 0) & (left.begins < left.ends)
        harmful, harmful_cells = left.where(down_left), part_cells[down_left]
        down = self._downtime(harmful, harmful_cells, size)
        down_too = self._downtime(harmed.where(harms), harm_cells[harms], size) if known.is_cut else down
        carried_in = self.detected[harmful.incident] != harmful.period
        unpriced = self._first_rate()[known.harms.service[harmful.incident]] >= harmful.ends
        services = _by_cell(
            np.concatenate((cells, harm_cells)), self._alphabetical(np.concatenate((incident, harmed.incident))), size
        )
        names = sorted(self.services)
        of_measures = _summaries(known.measured, incident, cells, size, horizon)
        in_hours = None
        if known.in_business_hours is not None:
            in_hours = _summaries(known.in_business_hours, incident, cells, size, horizon)
        columns = zip(
            scopes,
            np.bincount(cells, minlength=size).tolist(),
            np.bincount(cells[is_open], minlength=size).tolist(),
            down.tolist(),
            (down_too - down).tolist(),
            self._costs(scopes, services, parts, part_cells),
            _by_cell(harmful_cells[unpriced], self._alphabetical(harmful.incident[unpriced]), size),
            _by_cell(harmful_cells[carried_in], known.columns.number[harmful.incident[carried_in]], size),
            services,
            strict=True,
        )
        return [
            Numbers(
                scope=scope,
                incidents=incidents,
                open=open_,
                measures={name: each[cell] for name, each in of_measures.items()},
                business_hours=None if in_hours is None else {name: each[cell] for name, each in in_hours.items()},
                downtime=timedelta(microseconds=down),
                planned=timedelta(microseconds=planned),
                cost=cost or None,
                services_without_rate=[names[place] for place in without_rate],
                carried_in=numbers,
                services=[names[place] for place in those],
            )
            for cell, (scope, incidents, open_, down, planned, cost, without_rate, numbers, those) in enumerate(columns)
        ]

    def _in_cells(self, members: _Members, each: Pieces) -> tuple[Ints, Ints]:
        """The places of the pieces of members, once for each of their groups, and the cell of each."""
        # An empty piece belongs to the period only if its incident does: it was detected or harms there.
        there = (each.begins < each.ends) | (self.detected[each.incident] == each.period)
        there |= self.known.harms.begins[each.incident] < self.known.harms.ends[each.incident]
        places = np.flatnonzero(there)
        rows, group = members.of(each.incident[places], self.size)
        places = places[rows]
        return places, group * len(self.periods) + each.period[places]

    def _downtime(self, harmful: Pieces, cells: Ints, size: int) -> Ints:
        services = max(1, len(self.services))
        keys, lasted = union(cells * services + self.known.harms.service[harmful.incident], *harmful[1:3])
        down = np.zeros(size, np.int64)
        np.add.at(down, keys // services, lasted)
        return down

    def _costs(
        self, scopes: Sequence[Scope], services: Sequence[Sequence[int]], parts: Ints, cells: Ints
    ) -> list[Cost]:
        """Of each cell: the shares of its incidents, or of its services all that they cost, which is faster."""
        if any(scope.is_part_of_services for scope in scopes):
            shared = self.sweep.shared(parts, cells)
            return [shared.total([cell]) for cell in range(len(scopes))]
        known, periods = self.of_services
        code = np.argsort(self._ranks()).tolist()
        return [
            known.total(code[place] * periods + cell % periods for place in those)
            for cell, those in enumerate(services)
        ]

    def _alphabetical(self, incidents: Ints) -> Ints:
        """The place of each one's service among the names in order."""
        return self._ranks()[self.known.harms.service[incidents]]

    def _ranks(self) -> Ints:
        place = {name: place for place, name in enumerate(sorted(self.services))}
        return np.array([place[name] for name in self.services], np.int64)

    def _first_rate(self) -> Ints:
        """From when on each service has a rate, of whatever currency."""
        first = dict.fromkeys(self.services, NO_RATE)
        for rate in self.rates:
            if rate.service in first:
                first[rate.service] = min(first[rate.service], microseconds(rate.valid_from))
        return np.array(list(first.values()), np.int64)


def _summaries(
    measured: Mapping[str, MeasuredMany], incidents: Ints, cells: Ints, size: int, horizon: float | None
) -> dict[str, list[Summary]]:
    found: dict[int, list[Summary]] = {}
    for each in measured.values():
        if id(each) not in found:  # the first phase is the time to detect
            found[id(each)] = summaries(each, incidents, cells, size, horizon)
    return {measure.name: found[id(measured[measure.name])] for measure in MEASURES if measure.name in measured}


_NOWHERE = -1
NO_RATE = int(np.iinfo(np.int64).max)


def _by_cell(cells: Ints, values: Ints, size: int) -> list[list[int]]:
    """The distinct values of each cell, rising."""
    order = np.lexsort((values, cells))
    cells, values = cells[order], values[order]
    is_new = np.append(True, (cells[1:] != cells[:-1]) | (values[1:] != values[:-1]))[: len(cells)]
    borders = np.searchsorted(cells[is_new], np.arange(1, size))
    return [each.tolist() for each in np.split(values[is_new], borders)]


def hours_of_week(period: Span, hour: int, *, last: int) -> list[Span]:
    """The last times, at most so many, that this hour of the week comes in the period, cut at its ends."""
    monday = period.begins.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=period.begins.weekday())
    weeks = range((period.ends - monday) // timedelta(days=7), -1, -1)
    begins = (monday + timedelta(days=7 * week, hours=hour) for week in weeks)
    spans = (clipped(Span(each, each + timedelta(hours=1)), period) for each in begins)
    return list(islice((span for span in spans if span.begins < span.ends), last))[::-1]


# — periods in a row —


class Interval(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class TooManyBuckets(Invalid):
    title = "Too many buckets"


class TooManyPoints(Invalid):
    title = "Too many groups in too many buckets"


def buckets(period: Span, interval: Interval, *, at_most: int) -> list[Span]:
    """The days, weeks (from Monday) or calendar months of UTC in the period, cut at its ends. Raises TooManyBuckets."""
    borders = [period.begins]
    while borders[-1] < period.ends:
        if len(borders) > at_most:
            message = f"that is more than {at_most} buckets; ask for a shorter period or a longer interval"
            raise TooManyBuckets(message)
        borders.append(min(_next_border(borders[-1], interval), period.ends))
    return [Span(*pair) for pair in pairwise(borders)]


def _next_border(after: datetime, interval: Interval) -> datetime:
    midnight = after.replace(hour=0, minute=0, second=0, microsecond=0)
    match interval:
        case Interval.DAY:
            return midnight + timedelta(days=1)
        case Interval.WEEK:
            return midnight + timedelta(days=7 - midnight.weekday())
        case Interval.MONTH:
            return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)


def timeseries(
    known: Known,
    rates: Iterable[Rate],
    scope: Scope,
    periods: Sequence[Span],
    group_by: GroupBy | None = None,
    *,
    points_at_most: int,
) -> list[list[Numbers]]:
    """One row per group (one in all without `group_by`), in each the numbers of every period. Raises TooManyPoints.

    `periods` follow one another without gaps. `known` as for `numbers`, over all of them.
    """
    if not periods:
        return [] if group_by else [[]]
    return _Within(known, rates, scope, periods).rows(group_by, points_at_most=points_at_most)
