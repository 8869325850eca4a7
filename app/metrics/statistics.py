"""Numbers over many incidents: what a period, a service or a severity amounts to.

Pure: no clock, no I/O, no settings. No data is None, never 0.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from uuid import UUID

import numpy as np

from app.errors import Invalid
from app.incidents import measures
from app.incidents.downtime import Cost, Costs, Harm, Span, clipped, costs, downtime, harm, total
from app.incidents.maintenance import Planned, unplanned
from app.incidents.measures import MEASURES, Facts, Measured, MeasureStatus, Weights
from app.incidents.money import Rate

# — one measure over many —


@dataclass(frozen=True, slots=True)
class Summary:
    """`n + pending + censored + invalid + sum(excluded)` is the number of incidents. Durations in seconds."""

    n: int
    median: float | None
    p90: float | None
    mean: float | None
    pending: int
    censored: int
    invalid: int
    excluded: Mapping[str, int]  # by reason


def summary(measured: Iterable[Measured]) -> Summary:
    """Of recorded values only; quantiles interpolate between the two values they fall between."""
    recorded: list[float] = []
    statuses: Counter[MeasureStatus] = Counter()
    excluded: Counter[str] = Counter()
    censored = 0
    for each in measured:
        if each.seconds is not None:
            recorded.append(each.seconds)
        elif each.censored_seconds is not None:
            censored += 1
        elif each.status is MeasureStatus.NOT_APPLICABLE:
            excluded[each.reason or ""] += 1
        else:
            statuses[each.status] += 1
    median, p90, mean = _typical(recorded)
    return Summary(
        n=len(recorded),
        median=median,
        p90=p90,
        mean=mean,
        pending=statuses[MeasureStatus.PENDING],
        censored=censored,
        invalid=statuses[MeasureStatus.INVALID],
        excluded=dict(sorted(excluded.items())),
    )


def _typical(seconds: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    if not seconds:
        return None, None, None
    median, p90 = np.quantile(seconds, (0.5, 0.9))
    return float(median), float(p90), float(np.mean(seconds))


# — incidents of a period —


class GroupBy(StrEnum):
    SERVICE = "service"
    SEVERITY = "severity"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which incidents: those of a service and severity (None: of all), in a half-open period."""

    period: Span
    service: str | None = None
    severity: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """An incident, and what is worked out of it once for all groups and periods."""

    number: int
    facts: Facts
    harm: Harm
    unplanned: Sequence[Harm]  # the same without what fell into planned maintenance, which is what counts
    measured: Mapping[str, Measured]


def know(
    id_: UUID,
    number: int,
    facts: Facts,
    *,
    now: datetime,
    weights: Weights,
    include_non_recoveries: bool,
    planned: Planned | None = None,
) -> Known:
    measured = measures.measures(facts, include_non_recoveries=include_non_recoveries)
    harmed = harm(id_, facts, now=now, weights=weights)
    return Known(number, facts, harmed, unplanned([harmed], planned or {}), measured)


@dataclass(frozen=True, slots=True)
class Numbers:
    """`carried_in` are the numbers of incidents that were detected before the period, or after it, but harm in it."""

    scope: Scope
    incidents: int
    open: int
    measures: Mapping[str, Summary]
    downtime: timedelta
    planned: timedelta  # downtime that fell into planned maintenance, and is in neither downtime nor cost
    cost: Cost | None
    services_without_rate: Sequence[str]
    carried_in: Sequence[int]


def numbers(
    known: Iterable[Known], rates: Iterable[Rate], scope: Scope, group_by: GroupBy | None = None
) -> tuple[Numbers, list[Numbers]]:
    """The numbers of the scope, and of each of its groups.

    `known` must hold every incident of the services in question that was detected in the period or harms in it, of
    whatever severity: they share the cost. An incident is counted in the period of its detection, downtime and cost
    are cut at its ends. Downtime is the union per service, summed over services.
    """
    around = list(known)
    dated = list(rates)
    shares = scope.severity is not None or group_by is GroupBy.SEVERITY  # else whole services count, which is faster
    priced = costs((part for each in around for part in each.unplanned), dated, scope.period, shares=shares)
    priced_from = _first_rates(dated)
    within = [each for each in around if _in_scope(each, scope)]
    groups: dict[str | int, list[Known]] = defaultdict(list)
    for each in within:
        match group_by:
            case GroupBy.SERVICE:
                groups[measures.service(each.facts)].append(each)
            case GroupBy.SEVERITY:
                groups[measures.severity(each.facts)].append(each)
    return _numbers(within, priced, priced_from, scope), [
        _numbers(groups[key], priced, priced_from, narrowed(scope, group_by, key)) for key in sorted(groups)
    ]


def narrowed(scope: Scope, group_by: GroupBy | None, key: str | int) -> Scope:
    match key:
        case str() if group_by is GroupBy.SERVICE:
            return replace(scope, service=key)
        case int() if group_by is GroupBy.SEVERITY:
            return replace(scope, severity=key)
    return scope


def _in_scope(known: Known, scope: Scope) -> bool:
    """Of the service and severity, and detected in the period or harming in it."""
    facts, span = known.facts, clipped(known.harm.span, scope.period)
    return (
        (scope.service is None or measures.service(facts) == scope.service)
        and (scope.severity is None or measures.severity(facts) == scope.severity)
        and (span.begins < span.ends or scope.period.begins <= measures.detected_at(facts) < scope.period.ends)
    )


def _first_rates(rates: Iterable[Rate]) -> dict[str, datetime]:
    first: dict[str, datetime] = {}
    for rate in rates:
        first[rate.service] = min(rate.valid_from, first.get(rate.service, rate.valid_from))
    return first


def _cost(known: Iterable[Known], priced: Costs, scope: Scope) -> Cost:
    if scope.severity is not None:
        return total(priced.incidents.get(each.harm.incident, {}) for each in known)
    if scope.service is not None:
        return priced.services.get(scope.service, {})
    return total(priced.services.values())


def _numbers(known: Sequence[Known], priced: Costs, priced_from: Mapping[str, datetime], scope: Scope) -> Numbers:
    period = scope.period
    counted, carried_in = [], []
    harmed: dict[str, list[Span]] = defaultdict(list)
    planned_too: dict[str, list[Span]] = defaultdict(list)
    is_cut = False
    without_rate = set()
    for each in known:
        harms = False
        if each.harm.impact > 0:
            planned_too[each.harm.service].append(each.harm.span)
            for part in each.unplanned:
                is_cut = is_cut or part is not each.harm
                span = clipped(part.span, period)
                if span.begins < span.ends:
                    harms = True
                    harmed[part.service].append(span)
                    if part.service not in priced_from or priced_from[part.service] >= span.ends:
                        without_rate.add(part.service)
        if period.begins <= measures.detected_at(each.facts) < period.ends:
            counted.append(each)
        elif harms:
            carried_in.append(each.number)
    down = _downtime(harmed, period)
    return Numbers(
        scope=scope,
        incidents=len(counted),
        open=sum(each.facts.ended_at is None for each in counted),
        measures={measure.name: summary(each.measured[measure.name] for each in counted) for measure in MEASURES},
        downtime=down,
        planned=_downtime(planned_too, period) - down if is_cut else timedelta(),
        cost=_cost(known, priced, scope) or None,
        services_without_rate=sorted(without_rate),
        carried_in=sorted(carried_in),
    )


def _downtime(spans: Mapping[str, Iterable[Span]], period: Span) -> timedelta:
    return sum((downtime(of_service, period) for of_service in spans.values()), timedelta())


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
    known: Iterable[Known],
    rates: Sequence[Rate],
    scope: Scope,
    periods: Sequence[Span],
    group_by: GroupBy | None = None,
    *,
    points_at_most: int,
) -> list[list[Numbers]]:
    """One row per group (one in all without `group_by`), in each the numbers of every period. Raises TooManyPoints.

    `periods` follow one another without gaps. `known` as for `numbers`, over all of them.
    """
    touching = _spread(known, periods)
    rows: dict[str | int | None, dict[int, Numbers]] = defaultdict(dict)
    for place, period in enumerate(periods):
        whole, groups = numbers(touching[place], rates, replace(scope, period=period), group_by)
        for each in [whole] if group_by is None else groups:
            rows[_key(each.scope, group_by)][place] = each
    if group_by is None:
        return [list(rows[None].values())] if periods else [[]]
    if len(rows) * len(periods) > points_at_most:
        message = f"{len(rows)} groups in {len(periods)} buckets are too many; narrow the filters or the period"
        raise TooManyPoints(message)
    nothing = Costs({}, {})
    return [
        [
            rows[key].get(place) or _numbers([], nothing, {}, narrowed(replace(scope, period=period), group_by, key))
            for place, period in enumerate(periods)
        ]
        for key in sorted(key for key in rows if key is not None)
    ]


def _key(scope: Scope, group_by: GroupBy | None) -> str | int | None:
    match group_by:
        case GroupBy.SERVICE:
            return scope.service
        case GroupBy.SEVERITY:
            return scope.severity
        case None:
            return None


def _spread(known: Iterable[Known], periods: Sequence[Span]) -> list[list[Known]]:
    """For each period the incidents that were detected in it or harm in it."""
    touching: list[list[Known]] = [[] for _ in periods]
    begins = [period.begins for period in periods]
    if not periods:
        return touching
    whole = Span(periods[0].begins, periods[-1].ends)
    for each in known:
        span = clipped(each.harm.span, whole)
        places = range(bisect_right(begins, span.begins) - 1, bisect_left(begins, span.ends))
        touched = set(places) if span.begins < span.ends else set()
        if whole.begins <= measures.detected_at(each.facts) < whole.ends:
            touched.add(bisect_right(begins, measures.detected_at(each.facts)) - 1)
        for place in touched:
            touching[place].append(each)
    return touching
