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
from typing import Any, NamedTuple
from uuid import UUID

from app.errors import Invalid
from app.incidents import measures
from app.incidents.definitions import SUMMARY_FROM
from app.incidents.downtime import Cost, Costs, Harm, Span, clipped, costs, downtime, harm, total
from app.incidents.maintenance import Planned, unplanned
from app.incidents.measures import MEASURES, Facts, Measured, MeasureStatus, Weights
from app.incidents.money import Rate
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


def summary(measured: Iterable[Measured], horizon: float | None = None) -> Summary:
    """`typical` is of recorded values only; `estimates` count the time that others have waited, up to `horizon`."""
    every = list(measured)
    recorded = [each.seconds for each in every if each.seconds is not None]
    waited = [each.censored_seconds for each in every if each.censored_seconds is not None]
    # By reason, of which each belongs to one status: counting a hundred thousand statuses takes far longer.
    reasons = Counter([each.reason for each in every if each.reason is not None])
    status_of = {each.reason: each.status for each in every}
    censored = Counter([each.reason for each in every if each.censored_seconds is not None])
    counts: Counter[str] = Counter()
    excluded = {}
    for reason, count in reasons.items():
        if status_of[reason] is not MeasureStatus.NOT_APPLICABLE:
            counts[status_of[reason]] += count
        elif reason in censored:
            counts["censored"] += count
        else:
            excluded[reason] = count
    return Summary(
        n=len(recorded),
        typical=survival.typical(recorded),
        values=sorted(recorded) if len(recorded) < SUMMARY_FROM else None,
        pending=counts[MeasureStatus.PENDING],
        censored=counts["censored"],
        invalid=counts[MeasureStatus.INVALID],
        excluded=dict(sorted(excluded.items())),
        estimates=None if horizon is None else survival.estimates(recorded, waited, horizon),
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


class Known(NamedTuple):  # three times faster to make than a frozen dataclass, and there may be a hundred thousand
    """An incident, and what is worked out of it once for all groups and periods."""

    number: int
    facts: Facts
    detected_at: datetime
    harm: Harm
    unplanned: Sequence[Harm]  # the same without what fell into planned maintenance, which is what counts
    measured: Mapping[str, Measured]
    sources: Sequence[str] = ()
    owner: str = ""


def know(
    id_: UUID,
    number: int,
    facts: Facts,
    *,
    now: datetime,
    weights: Weights,
    include_non_recoveries: bool,
    planned: Planned | None = None,
    sources: Sequence[str] = (),
    owner: str = "",
) -> Known:
    measured = measures.measures(facts, include_non_recoveries=include_non_recoveries, now=now)
    harmed = harm(id_, facts, now=now, weights=weights)
    parts = unplanned([harmed], planned) if planned else (harmed,)
    return Known(number, facts, measures.detected_at(facts), harmed, parts, measured, sources, owner)


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
    services: Sequence[str]  # of the incidents that were detected in the period or harm in it


def numbers(
    known: Iterable[Known],
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
    around = list(known)
    dated = list(rates)
    shares = scope.is_part_of_services or group_by in _PARTS_OF_SERVICES  # else whole services count: faster
    priced = costs((part for each in around for part in each.unplanned), dated, scope.period, shares=shares)
    priced_from = _first_rates(dated)
    within = [each for each in around if _in_scope(each, scope)]
    groups: dict[str | int, list[Known]] = defaultdict(list)
    if group_by is not None:
        for each in within:
            for key in _keys(each, group_by):
                groups[key].append(each)
    return _numbers(within, priced, priced_from, scope, horizon), [
        _numbers(groups[key], priced, priced_from, narrowed(scope, group_by, key), horizon) for key in sorted(groups)
    ]


_PARTS_OF_SERVICES = {GroupBy.SEVERITY, GroupBy.SOURCE, GroupBy.HOUR_OF_WEEK}


def narrowed(scope: Scope, group_by: GroupBy | None, key: str | int) -> Scope:
    filter_: dict[str, Any] = {group_by.value: key} if group_by else {}
    return replace(scope, **filter_)


def _keys(known: Known, group_by: GroupBy) -> Sequence[str | int]:
    """The groups that it is in: one, but for sources."""
    match group_by:
        case GroupBy.SERVICE:
            return (known.harm.service,)
        case GroupBy.SEVERITY:
            return (measures.severity(known.facts),)
        case GroupBy.SOURCE:
            return known.sources
        case GroupBy.OWNER:
            return (known.owner,)
        case GroupBy.HOUR_OF_WEEK:
            return (known.detected_at.weekday() * 24 + known.detected_at.hour,)


def _in_scope(known: Known, scope: Scope) -> bool:
    """All filters apply, and detected in the period or harming in it."""
    span = clipped(known.harm.span, scope.period)
    return (
        (span.begins < span.ends or scope.period.begins <= known.detected_at < scope.period.ends)
        and (scope.service is None or known.harm.service == scope.service)
        and (scope.severity is None or measures.severity(known.facts) == scope.severity)
        and (scope.source is None or scope.source in known.sources)
        and (scope.owner is None or known.owner == scope.owner)
        and (scope.hour_of_week is None or scope.hour_of_week in _keys(known, GroupBy.HOUR_OF_WEEK))
    )


def _first_rates(rates: Iterable[Rate]) -> dict[str, datetime]:
    first: dict[str, datetime] = {}
    for rate in rates:
        first[rate.service] = min(rate.valid_from, first.get(rate.service, rate.valid_from))
    return first


def _cost(known: Sequence[Known], priced: Costs, scope: Scope, services: Iterable[str]) -> Cost:
    if scope.is_part_of_services:
        return total(priced.incidents.get(each.harm.incident, {}) for each in known)
    return total(priced.services.get(service, {}) for service in services)


def _numbers(
    known: Sequence[Known],
    priced: Costs,
    priced_from: Mapping[str, datetime],
    scope: Scope,
    horizon: float | None = None,
) -> Numbers:
    period = scope.period
    services = sorted({each.harm.service for each in known})
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
        if period.begins <= each.detected_at < period.ends:
            counted.append(each)
        elif harms:
            carried_in.append(each.number)
    down = _downtime(harmed, period)
    return Numbers(
        scope=scope,
        incidents=len(counted),
        open=sum(each.facts.ended_at is None for each in counted),
        measures={
            measure.name: summary([each.measured[measure.name] for each in counted], horizon) for measure in MEASURES
        },
        downtime=down,
        planned=_downtime(planned_too, period) - down if is_cut else timedelta(),
        cost=_cost(known, priced, scope, services) or None,
        services_without_rate=sorted(without_rate),
        carried_in=sorted(carried_in),
        services=services,
    )


def _downtime(spans: Mapping[str, Iterable[Span]], period: Span) -> timedelta:
    return sum((downtime(of_service, period) for of_service in spans.values()), timedelta())


def hours_of_week(period: Span, hour: int) -> list[Span]:
    """Each time that this hour of the week comes in the period, cut at its ends."""
    monday = period.begins.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=period.begins.weekday())
    weeks = range((period.ends - monday) // timedelta(days=7) + 1)
    begins = (monday + timedelta(days=7 * week, hours=hour) for week in weeks)
    spans = (clipped(Span(each, each + timedelta(hours=1)), period) for each in begins)
    return [span for span in spans if span.begins < span.ends]


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
    key: str | int | None = getattr(scope, group_by.value) if group_by else None
    return key


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
        if whole.begins <= each.detected_at < whole.ends:
            touched.add(bisect_right(begins, each.detected_at) - 1)
        for place in touched:
            touching[place].append(each)
    return touching
