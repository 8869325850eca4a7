"""A period beside the one before it: numbers, verdicts, services, availability and single values, from one read."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.process.threads import off_loop
from app.base.values.arrays import distinct
from app.base.values.times import Span
from app.incidents.impact.availability import Availability, availabilities
from app.incidents.impact.labor import Pay
from app.incidents.impact.maintenance import Planned
from app.incidents.impact.store import in_service_since, planned_within
from app.incidents.measures.business_durations import starts_in_business_hours
from app.incidents.measures.measures import Weights
from app.incidents.measures.vectorized import Booleans, Floats, Ints, MeasuredMany, moment
from app.metrics.comparison.compare import Compared, sample
from app.metrics.comparison.store import compared, observed
from app.metrics.counts import CountsCompared, both_counted, events
from app.metrics.query import GroupBy, MetricsQuery
from app.metrics.summary import numbers as summaries
from app.metrics.summary.numbers import Numbers, Prepared, summarize_periods
from app.metrics.summary.store import Incidents, prepared_for, read_incidents, with_labor

DOTS_AT_MOST = 400


class Dot(NamedTuple):
    """One value. `censored`: it had not happened (yet) after that many seconds."""

    seconds: float
    censored: bool
    number: int
    detected_at: datetime


@dataclass(frozen=True, slots=True)
class Dots:
    """The values of one measure, newest first; in the hours of the query's calendar, if it has one.

    More than `DOTS_AT_MOST` are not listed; `total` counts all, and `seconds` has all: recorded, then censored.
    """

    dots: Sequence[Dot]
    total: int
    seconds: tuple[Floats, Floats] = field(compare=False)  # arrays, which cannot be compared


@dataclass(frozen=True, slots=True)
class PeriodNumbers:
    total: Numbers
    dots: Mapping[str, Dots]  # by measure


@dataclass(frozen=True, slots=True)
class Periods:
    """`verdicts` compare the current period (B) with the previous one (A), by measure.

    `read` has the incidents of both periods and what else the numbers were computed from.
    """

    read: Incidents
    current: PeriodNumbers
    previous: PeriodNumbers | None
    services: Sequence[Numbers]  # in the current period, as the groups of a summary by service
    verdicts: Mapping[str, Compared]
    verdicts_in_hours: Mapping[str, Compared] | None  # in the hours of the query's calendar
    incidents: CountsCompared | None  # None without a previous period
    availability: Mapping[str, Availability]  # in the current period, of every known service; empty unless asked for
    in_service: Mapping[str, datetime]  # since when each of them is in service


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to compute beyond the totals."""

    services: bool = True
    measures_of_services: Collection[str] | None = None  # None: all of the query
    availability: bool = False
    dots: Collection[str] = ()  # measures
    horizon: float | None = None  # seconds; with a horizon, totals include estimates
    pay: Pay | None = None  # with it, totals include labor


async def read_periods(
    tx: AsyncConnection,
    query: MetricsQuery,
    previous: Span | None,
    wanted: Wanted = Wanted(),
    *,
    now: datetime,
    weights: Weights,
) -> Periods:
    """The numbers of the query's period, and of the `previous` one, which must end where it starts.

    At most nine statements, however many incidents and services there are. Every number is equal to that of the
    summary, comparison or availability of the same query. Raises TooMuchMaintenance or TooManyHours.
    """
    periods = [query.period] if previous is None else [previous, query.period]
    asked = replace(
        query,
        period=Span(periods[0].start, query.period.end),
        group_by=GroupBy.SERVICE if wanted.services else None,
    )
    read = await read_incidents(tx, asked, now=now)
    in_service: Mapping[str, datetime] = {}
    planned: Planned = {}
    if wanted.availability:
        in_service = await in_service_since(tx, query.filters.service or None)
        passed = Span(query.period.start, max(query.period.start, min(query.period.end, now)))
        planned = await planned_within(tx, in_service, passed, occurrences_at_most=query.bounds.occurrences)

    lasted = [observed(period, now) for period in periods]

    def work() -> _Computed:
        prepared = prepared_for(read, asked, now=now, weights=weights)
        found = summarize_periods(
            prepared,
            read.rates,
            asked,
            periods,
            horizon=wanted.horizon,
            measures_of_groups=wanted.measures_of_services,
        )
        by_time, by_hours = _verdicts(prepared, query, found.detected, lasted) if previous is not None else ({}, None)
        return _Computed(
            found,
            by_time,
            by_hours,
            _incidents(prepared, periods, found.detected, lasted),
            [{name: _dots(prepared, name, rows) for name in wanted.dots} for rows in found.detected],
            _availability(prepared, query, in_service, planned, now) if wanted.availability else {},
        )

    computed = await off_loop(work)
    totals = computed.found.totals
    if wanted.pay is not None:
        [totals] = await with_labor(tx, [list(totals)], replace(asked, group_by=None), periods, now, wanted.pay)
    every = [PeriodNumbers(*each) for each in zip(totals, computed.dots, strict=True)]
    return Periods(
        read,
        every[-1],
        None if previous is None else every[0],
        computed.found.groups,
        computed.verdicts,
        computed.verdicts_in_hours,
        computed.incidents,
        computed.availability,
        in_service,
    )


class _Computed(NamedTuple):
    found: summaries.SummarizedPeriods
    verdicts: Mapping[str, Compared]
    verdicts_in_hours: Mapping[str, Compared] | None
    incidents: CountsCompared | None
    dots: Sequence[Mapping[str, Dots]]  # of each period, by measure
    availability: Mapping[str, Availability]


def _verdicts(
    prepared: Prepared, query: MetricsQuery, detected: Sequence[Ints], lasted: Sequence[timedelta]
) -> tuple[dict[str, Compared], dict[str, Compared] | None]:
    service = prepared.columns.service
    services = [[service.values[code] for code in distinct(service.codes[rows]).tolist()] for rows in detected]

    def of(each: MeasuredMany, in_hours: Booleans | None = None) -> Compared:
        samples = [
            sample(
                each.of(rows),
                prepared.detected_at[rows],
                observed=passed,
                in_hours=None if in_hours is None else in_hours[rows],
            )
            for rows, passed in zip(detected, lasted, strict=True)
        ]
        return compared(samples, services)

    by_time = {name: of(each) for name, each in prepared.measured.items()}
    if query.calendar is None or prepared.in_business_hours is None:
        return by_time, None
    in_hours = {name: starts_in_business_hours(each, query.calendar) for name, each in prepared.measured.items()}
    return by_time, {name: of(each, in_hours[name]) for name, each in prepared.in_business_hours.items()}


def _incidents(
    prepared: Prepared, periods: Sequence[Span], detected: Sequence[Ints], lasted: Sequence[timedelta]
) -> CountsCompared | None:
    if len(periods) == 1:
        return None
    return both_counted(
        *(
            events(prepared.detected_at[rows], period.start, passed)
            for rows, period, passed in zip(detected, periods, lasted, strict=True)
        )
    )


def _dots(prepared: Prepared, name: str, rows: Ints) -> Dots:
    each = (prepared.in_business_hours or prepared.measured)[name].of(rows)
    recorded, waited = np.isfinite(each.seconds), np.isfinite(each.waited)
    known = np.flatnonzero(recorded | waited)
    seconds = each.seconds[recorded], each.waited[waited]
    if len(known) > DOTS_AT_MOST:
        return Dots((), len(known), seconds)
    number, detected_at = prepared.columns.number[rows], prepared.detected_at[rows]
    newest = known[np.lexsort((number[known], detected_at[known]))][::-1]
    values = np.where(recorded, each.seconds, each.waited)
    columns = (each[newest].tolist() for each in (values, ~recorded, number, detected_at))
    return Dots(
        [Dot(length, cut_short, which, moment(at)) for length, cut_short, which, at in zip(*columns, strict=True)],
        len(known),
        seconds,
    )


def _availability(
    prepared: Prepared, query: MetricsQuery, since: Mapping[str, datetime], planned: Planned, now: datetime
) -> dict[str, Availability]:
    impacts = prepared.impacts
    if query.filters.environment:
        environment = prepared.environment
        matches = np.array([value in query.filters.environment for value in environment.values], np.bool_)
        impacts = impacts.where(matches[environment.codes][impacts.incident])
    found = availabilities(
        prepared.columns,
        impacts,
        sorted(since),
        planned,
        query.period,
        since=since,
        now=now,
        parts_at_most=query.bounds.parts,
    )
    return {each.service: each for each in found}
