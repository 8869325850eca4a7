"""Computes the numbers of a period, in total and by service, severity, …

Pure: no clock, no I/O, no settings. Missing data is None, never 0.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple

import numpy as np

from app.base.errors import Invalid
from app.base.values.arrays import by_key, distinct
from app.base.values.severity import SEVERITIES
from app.base.values.times import HOUR_MICROSECONDS, Span
from app.base.values.vocabulary import UNKNOWN_ENVIRONMENT
from app.incidents.impact.columns import ImpactColumns, StretchColumns, impact_columns
from app.incidents.impact.intervals import Cost
from app.incidents.impact.maintenance import Planned
from app.incidents.impact.rates import Rate
from app.incidents.impact.sweep import Pieces, Sums, Sweep, outside, pieces, ranges, union
from app.incidents.measures.business_durations import in_business_hours
from app.incidents.measures.measures import MEASURES, Weights
from app.incidents.measures.vectorized import (
    NEVER,
    Booleans,
    Categorical,
    Columns,
    Ints,
    MeasuredMany,
    coded,
    microseconds,
)
from app.incidents.measures.vectorized import measured as measured_many
from app.metrics import counts
from app.metrics.counts import PerDay
from app.metrics.query import GroupBy, GroupKey, MetricsQuery
from app.metrics.summary.labor import Labor
from app.metrics.summary.summaries import EstimateBasis, Summary, summaries


@dataclass(frozen=True, slots=True)
class Prepared:
    """Incidents, with the values that are computed once for all groups and periods."""

    now: datetime
    columns: Columns
    detected_at: Ints
    impacts: ImpactColumns
    unplanned: tuple[Ints, Ints, Ints]  # impact outside planned maintenance: row of `impacts`, start, end
    is_cut: bool  # whether there was any maintenance
    measured: Mapping[str, MeasuredMany]
    in_business_hours: Mapping[str, MeasuredMany] | None  # the same in the hours of the query's calendar
    sources: Categorical  # tuples of names
    owner: Categorical
    environment: Categorical


def prepare(
    columns: Columns,
    stretches: StretchColumns,
    query: MetricsQuery,
    *,
    now: datetime,
    weights: Weights,
    planned: Planned | None = None,
    sources: Categorical | None = None,
    owners: Mapping[str, str] | None = None,
    environments: Categorical | None = None,
) -> Prepared:
    """`sources` holds a tuple of names for each incident; `owners` maps services to their owners."""
    measured = measured_many(
        columns, include_non_recoveries=query.include_non_recoveries, now=now, names=query.measures
    )
    impacts = impact_columns(columns, stretches, now=now, weights=weights)
    codes, services = columns.service
    owner = coded((owners or {}).get(name, "") for name in services)
    return Prepared(
        now,
        columns,
        columns.detected_at(),
        impacts,
        outside(impacts, services, planned or {}, parts_at_most=query.bounds.parts),
        bool(planned),
        measured,
        None
        if query.calendar is None
        else in_business_hours(measured, query.calendar, parts_at_most=query.bounds.parts),
        sources or Categorical(np.zeros(len(columns), np.int64), [()]),
        Categorical(owner.codes[codes], owner.values),
        environments or Categorical(np.zeros(len(columns), np.int64), [UNKNOWN_ENVIRONMENT]),
    )


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one group in one period or bucket; `query` is narrowed to both.

    `carried_in` lists the numbers of incidents detected before or after the period but with impact in it.
    """

    query: MetricsQuery
    incidents: int
    per_day: PerDay | None  # of incidents; only with estimates
    monitoring: int  # of them, failures of the monitoring, which the measures leave out
    open: int
    measures: Mapping[str, Summary]
    business_hours: Mapping[str, Summary] | None  # the same in the hours of the query's calendar
    downtime: timedelta
    planned: timedelta  # downtime during planned maintenance; included in neither downtime nor cost
    cost: Cost | None
    services_without_rate: Sequence[str]
    carried_in: Sequence[int]
    services: Sequence[str]  # of the incidents that were detected or had impact in the period
    labor: Labor | None = None  # None: AFTERMATH_LABOR is not set


def summarize(
    prepared: Prepared,
    rates: Iterable[Rate],
    query: MetricsQuery,
    *,
    horizon: float | None = None,
    groups_at_most: int | None = None,
) -> tuple[Numbers, list[Numbers]]:
    """The numbers in total and of each group. With a horizon (in seconds), estimates are included.

    Raises TooManyPoints for more than `groups_at_most` groups.

    `prepared` must hold every incident of the selected services that was detected or had impact in the period, of any
    severity, because they share the cost. An incident is counted in the period in which it was detected; downtime and
    cost are cut at the ends of the period. Downtime is the union per service, summed over services. An incident
    reported by several sources is in the group of each; a declared incident has no source.
    """
    within = _Within(prepared, rates, query, [query.period])
    [[whole]] = within.rows(None, horizon)
    groups = (
        []
        if query.group_by is None
        else [row[0] for row in within.rows(query.group_by, horizon, points_at_most=groups_at_most)]
    )
    return whole, groups


class TooManyPoints(Invalid):
    title = "Too many groups or buckets"


def summarize_buckets(
    prepared: Prepared, rates: Iterable[Rate], query: MetricsQuery, buckets: Sequence[Span], *, points_at_most: int
) -> list[list[Numbers]]:
    """One row per group (a single row without `group_by`), with the numbers of every bucket. Raises TooManyPoints.

    `buckets` must be in order and without gaps. `prepared` is as for `summarize`, covering all of them.
    """
    if not buckets:
        return [] if query.group_by else [[]]
    return _Within(prepared, rates, query, buckets).rows(query.group_by, points_at_most=points_at_most)


class SummarizedPeriods(NamedTuple):
    """Several periods from one preparation."""

    totals: Sequence[Numbers]
    groups: Sequence[Numbers]  # of the last period: as `summarize` returns them; empty without `group_by`
    detected: Sequence[Ints]  # of each period: the rows of the incidents that match and were detected in it


def summarize_periods(
    prepared: Prepared,
    rates: Iterable[Rate],
    query: MetricsQuery,
    periods: Sequence[Span],
    *,
    horizon: float | None = None,
    measures_of_groups: Collection[str] | None = None,
) -> SummarizedPeriods:
    """The numbers of each period, and of each group in the last one, as `summarize` computes them one by one.

    `periods` must be in order and without gaps. With a horizon (in seconds), totals include estimates. Groups have only
    `measures_of_groups` (None: all of the query). `prepared` is as for `summarize`, covering all periods.
    """
    within = _Within(prepared, rates, query, periods)
    [totals] = within.rows(None, horizon)
    last = [len(periods) - 1]
    groups = within.rows(query.group_by, measures=measures_of_groups, periods=last) if query.group_by else []
    return SummarizedPeriods(
        totals,
        [group for [group] in groups if group.services],
        [np.flatnonzero(within.matching & (within.detected == place)) for place in range(len(periods))],
    )


def _hour_of_week(at: Ints) -> Ints:
    return (at // HOUR_MICROSECONDS + 3 * 24) % _HOURS_OF_WEEK  # 1970 began on a Thursday


_HOURS_OF_WEEK = 7 * 24


class _Members(NamedTuple):
    """Pairs of an incident and its group (an index into `keys`), sorted by incident, then group."""

    incident: Ints
    group: Ints
    keys: Sequence[GroupKey]

    def of(self, incidents: Ints, size: int) -> tuple[Ints, Ints]:
        """The groups of these incidents, as pairs of an index into `incidents` and a group."""
        count = np.bincount(self.incident, minlength=size)
        rows, pairs = ranges((np.cumsum(count) - count)[incidents], count[incidents])
        return rows, self.group[pairs]


class _Within:
    """Incidents and impact in each of the periods (in order, without gaps), before any grouping.

    A cell is one group in one of the chosen periods: `group x chosen + place of the period among these`.
    """

    def __init__(self, prepared: Prepared, rates: Iterable[Rate], query: MetricsQuery, periods: Sequence[Span]) -> None:
        self.prepared, self.rates, self.query, self.periods = prepared, list(rates), query, periods
        self.size, self.services = len(prepared.columns), prepared.columns.service.values
        self.borders = np.array([microseconds(at) for at in (periods[0].start, *(each.end for each in periods))])
        place = np.searchsorted(self.borders, prepared.detected_at, "right") - 1
        self.detected = np.where((place >= 0) & (place < len(periods)), place, _NOWHERE)
        impact_pieces = pieces(prepared.impacts.start, prepared.impacts.end, self.borders)
        self.impact_pieces = impact_pieces.where(impact_pieces.start < impact_pieces.end)
        row, start, end = prepared.unplanned
        cut = pieces(start, end, self.borders)
        self.unplanned = Pieces(row[cut.row], *cut[1:])

    @cached_property
    def sweep(self) -> Sweep:
        return Sweep(self.unplanned, self.prepared.impacts, self.services, self.rates)

    @cached_property
    def of_services(self) -> tuple[Sums, int]:
        return self.sweep.of_services(self.borders)

    @cached_property
    def matching(self) -> Booleans:
        filters, prepared = self.query.filters, self.prepared
        holds = np.ones(self.size, np.bool_)
        for wanted, column in (
            (filters.service, prepared.columns.service),
            (filters.environment, prepared.environment),
            (filters.owner, prepared.owner),
        ):
            if wanted:
                holds &= np.array([value in wanted for value in column.values], np.bool_)[column.codes]
        if filters.severity:
            holds &= np.isin(prepared.columns.severity, filters.severity)
        if filters.source:
            codes, sources = prepared.sources
            holds &= np.array([not set(filters.source).isdisjoint(names) for names in sources], np.bool_)[codes]
        if filters.hour_of_week:
            holds &= np.isin(_hour_of_week(prepared.detected_at), filters.hour_of_week)
        return holds

    def members(self, group_by: GroupBy | None) -> _Members:
        """The groups with incidents in any of the periods, in order; a single group without `group_by`."""
        there = self.matching & (self.detected != _NOWHERE)
        affected = self.prepared.impacts.incident[self.impact_pieces.row]
        there[affected] |= self.matching[affected]
        incident = np.flatnonzero(there)
        if group_by is None:
            return _Members(incident, np.zeros(len(incident), np.int64), [None])
        prepared = self.prepared
        match group_by:
            case GroupBy.SERVICE:
                codes, values = prepared.columns.service
            case GroupBy.ENVIRONMENT:
                codes, values = prepared.environment
            case GroupBy.SEVERITY:
                codes, values = prepared.columns.severity, range(len(SEVERITIES) + 1)
            case GroupBy.SOURCE:
                codes, values = prepared.sources
            case GroupBy.OWNER:
                codes, values = prepared.owner
            case GroupBy.HOUR_OF_WEEK:
                codes, values = _hour_of_week(prepared.detected_at), range(_HOURS_OF_WEEK)
        codes = codes[incident]
        if group_by is GroupBy.SOURCE:  # an incident can have several sources
            count = np.array([len(names) for names in values], np.int64)
            rows, places = ranges((np.cumsum(count) - count)[codes], count[codes])
            incident, (codes, values) = incident[rows], coded(name for names in values for name in names)
            codes = codes[places] if len(places) else places
        keys = sorted({values[code] for code in distinct(codes).tolist()})
        place = {key: place for place, key in enumerate(keys)}
        order = np.array([place.get(value, 0) for value in values], np.int64)
        return _Members(incident, order[codes] if len(codes) else codes, keys)

    def rows(
        self,
        group_by: GroupBy | None,
        horizon: float | None = None,
        *,
        points_at_most: int | None = None,
        measures: Collection[str] | None = None,
        periods: Sequence[int] | None = None,
    ) -> list[list[Numbers]]:
        """One row per group, with the numbers of these periods (None: of every one) and these measures.

        Raises TooManyPoints.
        """
        members, chosen = self.members(group_by), range(len(self.periods)) if periods is None else periods
        if points_at_most is not None and group_by and len(members.keys) * len(chosen) > points_at_most:
            message = (
                f"{len(members.keys)} groups in {len(chosen)} buckets are more than {points_at_most} points; "
                "narrow the filters, shorten the period or use a longer interval"
            )
            raise TooManyPoints(message)
        query = replace(self.query, group_by=group_by)
        queries = [
            replace(of_group, period=self.periods[one])
            for of_group in (query.narrowed(key, query.period) for key in members.keys)
            for one in chosen
        ]
        if not queries:
            return []
        every = self._numbers(members, queries, horizon, measures, chosen)
        return [every[first : first + len(chosen)] for first in range(0, len(every), len(chosen))]

    def _numbers(
        self,
        members: _Members,
        queries: Sequence[MetricsQuery],
        horizon: float | None,
        measures: Collection[str] | None,
        chosen: Sequence[int],
    ) -> list[Numbers]:
        prepared, size = self.prepared, len(queries)
        place = np.full(len(self.periods) + 1, _NOWHERE)  # the last one is for _NOWHERE
        place[list(chosen)] = np.arange(len(chosen))
        detected = place[self.detected[members.incident]]
        incident = members.incident[detected != _NOWHERE]
        cells = (members.group * len(chosen) + detected)[detected != _NOWHERE]
        is_open = prepared.columns.ended_at[incident] == NEVER
        is_monitoring = prepared.columns.monitoring[incident]
        rows, impact_cells = self._in_cells(members, self.impact_pieces, place, len(chosen))
        affected = self.impact_pieces.where(rows)
        affected_incident = prepared.impacts.incident[affected.row]
        has_impact = prepared.impacts.impact[affected.row] > 0
        parts, part_cells = self._in_cells(members, self.unplanned, place, len(chosen))
        left = self.unplanned.where(parts)
        down_left = (prepared.impacts.impact[left.row] > 0) & (left.start < left.end)
        impacting, impacting_cells = left.where(down_left), part_cells[down_left]
        down = self._downtime(impacting, impacting_cells, size)
        down_too = (
            self._downtime(affected.where(has_impact), impact_cells[has_impact], size) if prepared.is_cut else down
        )
        impacting_incident = prepared.impacts.incident[impacting.row]
        carried_in = self.detected[impacting_incident] != impacting.period
        unpriced = self._first_rate()[prepared.impacts.service[impacting.row]] >= impacting.end
        services = by_key(
            np.concatenate((cells, impact_cells)),
            self._alphabetical(np.concatenate((incident, affected_incident))),
            size,
        )
        names = sorted(self.services)
        those = [self.periods[one] for one in chosen]
        observed = [max(timedelta(0), min(each.end, prepared.now) - each.start) for each in those]
        asked = None if horizon is None else EstimateBasis(horizon, prepared.detected_at, observed)
        of_measures = _summaries(_only(prepared.measured, measures), incident, cells, size, asked)
        in_hours = None
        if prepared.in_business_hours is not None:
            in_hours = _summaries(_only(prepared.in_business_hours, measures), incident, cells, size, asked)
        columns = zip(
            queries,
            np.bincount(cells, minlength=size).tolist(),
            [None] * size if asked is None else self._per_day(incident, cells, size, chosen, observed),
            np.bincount(cells[is_monitoring], minlength=size).tolist(),
            np.bincount(cells[is_open], minlength=size).tolist(),
            down.tolist(),
            (down_too - down).tolist(),
            self._costs(queries, services, parts, part_cells, chosen),
            by_key(impacting_cells[unpriced], self._alphabetical(impacting_incident[unpriced]), size),
            by_key(impacting_cells[carried_in], prepared.columns.number[impacting_incident[carried_in]], size),
            services,
            strict=True,
        )
        return [
            Numbers(
                query=query,
                incidents=incidents,
                per_day=per_day,
                monitoring=monitoring,
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
            for cell, (
                query,
                incidents,
                per_day,
                monitoring,
                open_,
                down,
                planned,
                cost,
                without_rate,
                numbers,
                those,
            ) in enumerate(columns)
        ]

    def _per_day(
        self, incident: Ints, cells: Ints, size: int, chosen: Sequence[int], observed: Sequence[timedelta]
    ) -> list[PerDay]:
        order = np.argsort(cells, kind="stable")
        those = np.split(self.prepared.detected_at[incident[order]], np.cumsum(np.bincount(cells, minlength=size))[:-1])
        starts = [self.periods[one].start for one in chosen]
        return [
            counts.per_day(counts.events(at, starts[cell % len(starts)], observed[cell % len(starts)]))
            for cell, at in enumerate(those)
        ]

    def _in_cells(self, members: _Members, each: Pieces, place: Ints, chosen: int) -> tuple[Ints, Ints]:
        """Indexes of the members' pieces, repeated for each of their groups, and the cell of each.

        `place` has that of each period among those chosen.
        """
        # An empty piece belongs to a period only if its incident was detected or has impact there.
        impacts = self.prepared.impacts
        there = (each.start < each.end) | (self.detected[impacts.incident[each.row]] == each.period)
        there |= impacts.start[each.row] < impacts.end[each.row]
        places = np.flatnonzero(there & (place[each.period] != _NOWHERE))
        rows, group = members.of(impacts.incident[each.row[places]], self.size)
        places = places[rows]
        return places, group * chosen + place[each.period[places]]

    def _downtime(self, impacting: Pieces, cells: Ints, size: int) -> Ints:
        services = max(1, len(self.services))
        keys, lasted = union(cells * services + self.prepared.impacts.service[impacting.row], *impacting[1:3])
        down = np.zeros(size, np.int64)
        np.add.at(down, keys // services, lasted)
        return down

    def _costs(
        self,
        queries: Sequence[MetricsQuery],
        services: Sequence[Sequence[int]],
        parts: Ints,
        cells: Ints,
        chosen: Sequence[int],
    ) -> list[Cost]:
        """The cost of each cell: the shares of its incidents, or the total of its services where equal (faster)."""
        if queries[0].filters.may_split_a_service:  # all queries filter by the same fields
            shared = self.sweep.shared(parts, cells)
            return [shared.total([cell]) for cell in range(len(queries))]
        sums, periods = self.of_services
        code = np.argsort(self._ranks()).tolist()
        return [
            sums.total(code[place] * periods + chosen[cell % len(chosen)] for place in those)
            for cell, those in enumerate(services)
        ]

    def _alphabetical(self, incidents: Ints) -> Ints:
        """The rank of each incident's service in alphabetical order."""
        return self._ranks()[self.prepared.columns.service.codes[incidents]]

    def _ranks(self) -> Ints:
        place = {name: place for place, name in enumerate(sorted(self.services))}
        return np.array([place[name] for name in self.services], np.int64)

    def _first_rate(self) -> Ints:
        """When the first rate of each service, in any currency, takes effect."""
        first = dict.fromkeys(self.services, NO_RATE)
        for rate in self.rates:
            if rate.service in first:
                first[rate.service] = min(first[rate.service], microseconds(rate.valid_from))
        return np.array(list(first.values()), np.int64)


def _only(measured: Mapping[str, MeasuredMany], names: Collection[str] | None) -> Mapping[str, MeasuredMany]:
    return measured if names is None else {name: each for name, each in measured.items() if name in names}


def _summaries(
    measured: Mapping[str, MeasuredMany], incidents: Ints, cells: Ints, size: int, asked: EstimateBasis | None
) -> dict[str, list[Summary]]:
    found: dict[int, list[Summary]] = {}
    for each in measured.values():
        if id(each) not in found:  # the first phase is the time to detect
            found[id(each)] = summaries(each, incidents, cells, size, asked)
    return {measure.name: found[id(measured[measure.name])] for measure in MEASURES if measure.name in measured}


_NOWHERE = -1
NO_RATE = int(np.iinfo(np.int64).max)
