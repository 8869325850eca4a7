"""All SQL of the numbers over many: incidents of a period, settling, and what a scrape says."""

import asyncio
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np
from sqlalchemy import ARRAY, Text, any_, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.schema import objective, service, source
from app.base.times import Span
from app.incidents.grouping.batch import PEOPLE
from app.incidents.grouping.read import TRY_LOCK_KEY
from app.incidents.impact.availability import Availability, Objective, availabilities, left_ratio
from app.incidents.impact.intervals import Harm, costs, downtime, harm, rounded
from app.incidents.impact.maintenance import Planned, unplanned
from app.incidents.impact.rates import Rate
from app.incidents.impact.store import (
    COLUMNS,
    FACTS_OF_INCIDENT,
    columns_of,
    harming_within,
    harms_during,
    planned_during,
    planned_within,
    rates_of,
)
from app.incidents.measures import measures
from app.incidents.measures.business_durations import begins_in_business_hours, in_business_hours
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.measures import DURATION_BOUNDS, MEASURES, Facts, MeasureStatus, Weights
from app.incidents.measures.vectorized import NEVER, Coded, Columns, coded, harms, measured, microseconds, moment
from app.metrics import comparison as compared
from app.metrics import statistics, whatif
from app.metrics.comparison import Compared, Sample, Side
from app.metrics.prometheus.families import RATIO_WINDOWS, RATIOS_REMEMBERED
from app.metrics.statistics import GroupBy, Known, Numbers, Scope
from app.metrics.whatif import Changes, WhatIf

# — numbers of a period —


async def numbers(
    tx: AsyncConnection,
    scope: Scope,
    group_by: GroupBy | None = None,
    *,
    now: datetime,
    weights: Weights,
    include_non_recoveries: bool = False,
    horizon: float | None = None,
    calendar: BusinessHours | None = None,
    measures: Collection[str] | None = None,
) -> tuple[Numbers, list[Numbers]]:
    """The numbers of the scope, and of each of its groups; with a horizon, in seconds, estimates too; with a calendar
    the durations in its hours as well; with `measures` only these.
    """
    read = await _read(tx, scope, now, sources=scope.source is not None or group_by is GroupBy.SOURCE)

    def work() -> tuple[Numbers, list[Numbers]]:
        known = _know(read, now, weights, include_non_recoveries, calendar, measures)
        return statistics.numbers(known, read.rates, scope, group_by, horizon=horizon)

    return await asyncio.to_thread(work)  # tens of thousands of incidents must not keep the doors waiting


async def timeseries(
    tx: AsyncConnection,
    scope: Scope,
    periods: Sequence[Span],
    group_by: GroupBy | None = None,
    *,
    now: datetime,
    weights: Weights,
    points_at_most: int,
    include_non_recoveries: bool = False,
    calendar: BusinessHours | None = None,
    measures: Collection[str] | None = None,
) -> list[list[Numbers]]:
    """One row per group (one in all without `group_by`), in each the numbers of every period.

    Raises statistics.TooManyPoints.
    """
    read = await _read(tx, scope, now, sources=scope.source is not None or group_by is GroupBy.SOURCE)

    def work() -> list[list[Numbers]]:
        known = _know(read, now, weights, include_non_recoveries, calendar, measures)
        return statistics.timeseries(known, read.rates, scope, periods, group_by, points_at_most=points_at_most)

    return await asyncio.to_thread(work)


class _Read(NamedTuple):
    columns: Columns
    rates: Sequence[Rate]
    planned: Planned
    sources: Coded | None  # tuples of names
    owners: Mapping[str, str]  # of services that have one


async def _read(tx: AsyncConnection, scope: Scope, now: datetime, *, sources: bool = False) -> _Read:
    columns, told = await _columns(tx, scope, now, sources=sources)
    services = columns.service.values
    within = await asyncio.to_thread(_reached, columns, scope.period, now)
    owned = select(service.c.name, service.c.owner).where(service.c.owner.is_not(None))
    return _Read(
        columns,
        await rates_of(tx, services),
        await planned_within(tx, services, within),
        told,
        {each.name: each.owner for each in await tx.execute(owned)},
    )


async def _columns(
    tx: AsyncConnection, scope: Scope, now: datetime, *, sources: bool = False
) -> tuple[Columns, Coded | None]:
    asked = {"begins": scope.period.begins, "ends": scope.period.ends, "service": scope.service, "now": now}
    row = (await tx.execute(_OF_PERIOD_WITH_SOURCES if sources else _OF_PERIOD, asked)).one()
    columns = await asyncio.to_thread(columns_of, row)
    if not sources:
        return columns, None
    named = await tx.execute(select(source.c.id, source.c.name).where(source.c.id != PEOPLE))
    names = {str(each.id): each.name for each in named}
    codes, every = coded((row.source_ids or "").split(";"))
    told = [tuple(names[id_] for id_ in each.split() if id_ in names) for each in every]
    return columns, Coded(codes[: len(columns)], told)


def _reached(columns: Columns, period: Span, now: datetime) -> Span:
    """Not the whole period: it may be centuries longer than there were incidents."""
    began, ended = columns.began(), columns.ended_at
    if not len(columns):
        return Span(period.begins, period.begins)
    latest = np.where(ended == NEVER, microseconds(now), ended).max()
    return Span(max(moment(int(began.min())), period.begins), min(moment(int(latest)), period.ends))


def _know(
    read: _Read,
    now: datetime,
    weights: Weights,
    include_non_recoveries: bool,  # noqa: FBT001
    calendar: BusinessHours | None,
    measures: Collection[str] | None,
) -> Known:
    return statistics.know(
        read.columns,
        now=now,
        weights=weights,
        include_non_recoveries=include_non_recoveries,
        planned=read.planned,
        sources=read.sources,
        owners=read.owners,
        calendar=calendar,
        measures=measures,
    )


# Detected in the period, or harming in it. The third condition follows from the last and is there for the indexes;
# why it has upper bounds is said beside `harms_during`.
_IN_PERIOD = """
      FROM incident
     WHERE merged_into IS NULL
       AND (CAST(:service AS text) IS NULL OR coalesce(service_stated, service) = :service)
       AND (   ended_at IS NULL
            OR ended_at BETWEEN :begins AND 'infinity'
            OR detected_at_stated BETWEEN :begins AND 'infinity')
       AND (   (    coalesce(detected_at_stated, began_at) >= :begins
                AND coalesce(detected_at_stated, began_at) < :ends)
            OR (    coalesce(impact_started_at, detected_at_stated, began_at) < :ends
                AND coalesce(ended_at, :now) > :begins))
"""
_OF_PERIOD = text(f"SELECT {COLUMNS} {_IN_PERIOD}")
_OF_PERIOD_WITH_SOURCES = text(
    f"SELECT {COLUMNS}, string_agg(array_to_string(source_ids, ' '), ';') AS source_ids {_IN_PERIOD}"
)


# — two periods —


async def comparison(
    tx: AsyncConnection,
    measure: str,
    a: Scope,
    b: Scope,
    *,
    now: datetime,
    include_non_recoveries: bool = False,
    calendar: BusinessHours | None = None,
) -> tuple[Compared, Compared | None]:
    """Whether the incidents of B did better than those of A; with a calendar by the clock of its hours too."""
    rows = [await _detected(tx, scope) for scope in (a, b)]

    def work() -> tuple[Compared, Compared | None]:
        known = [columns_of(row) for row in rows]
        services = [each.service.values for each in known]
        sides = [measured(each, include_non_recoveries=include_non_recoveries, now=now)[measure] for each in known]
        by_time = _compared([compared.sample(side) for side in sides], services)
        if calendar is None:
            return by_time, None
        by_hours = (in_business_hours({measure: side}, calendar)[measure] for side in sides)
        in_hours = (begins_in_business_hours(side, calendar) for side in sides)
        pairs = zip(by_hours, in_hours, strict=True)
        return by_time, _compared([compared.sample(side, in_hours=those) for side, those in pairs], services)

    return await asyncio.to_thread(work)


def _compared(samples: Sequence[Sample], services: Sequence[Sequence[str]]) -> Compared:
    a, b = (Side(*each) for each in zip(samples, services, strict=True))
    return Compared(compared.compare(a.sample, b.sample), a, b)


async def _detected(tx: AsyncConnection, scope: Scope) -> Any:
    """The row of COLUMNS."""
    found = await tx.execute(
        _DETECTED_IN_PERIOD,
        {
            "begins": scope.period.begins,
            "ends": scope.period.ends,
            "service": scope.service,
            "severity": scope.severity,
            "source": scope.source,
            "owner": scope.owner,
            "hour_of_week": scope.hour_of_week,
            "people": PEOPLE,
        },
    )
    return found.one()


def hour_of_week(at: str) -> str:
    """In SQL, as `Scope` has it."""
    utc = f"{at} AT TIME ZONE 'UTC'"
    return f"(extract(isodow FROM {utc})::int - 1) * 24 + extract(hour FROM {utc})::int"


# The first condition on times follows from the others and is there for the indexes.
_DETECTED_IN_PERIOD = text(f"""
    SELECT {COLUMNS}
      FROM incident
     WHERE merged_into IS NULL
       AND (CAST(:service AS text) IS NULL OR coalesce(service_stated, service) = :service)
       AND (CAST(:severity AS smallint) IS NULL OR coalesce(severity_stated, severity) = :severity)
       AND (CAST(:owner AS text) IS NULL
            OR coalesce(service_stated, service)
               = ANY(ARRAY(SELECT known.name FROM service AS known WHERE coalesce(known.owner, '') = :owner)))
       AND (CAST(:source AS text) IS NULL
            OR (SELECT id FROM source WHERE name = :source AND id <> :people) = ANY(source_ids))
       AND (CAST(:hour_of_week AS integer) IS NULL
            OR {hour_of_week("coalesce(detected_at_stated, began_at)")} = :hour_of_week)
       AND (   began_at >= :begins AND began_at < :ends
            OR detected_at_stated >= :begins AND detected_at_stated < :ends)
       AND coalesce(detected_at_stated, began_at) >= :begins
       AND coalesce(detected_at_stated, began_at) < :ends
""")  # noqa: S608


# — what would have been —


async def what_if(tx: AsyncConnection, scope: Scope, changes: Changes, *, now: datetime, weights: Weights) -> WhatIf:
    """What the period would have cost, of all severities."""
    columns, _ = await _columns(tx, scope, now)

    def know() -> tuple[whatif.Moved, Span]:
        moved = whatif.move(columns, harms(columns, now=now, weights=weights), changes, scope.period)
        return moved, whatif.reach(moved, scope.period)

    moved, reached = await asyncio.to_thread(know)
    services = columns.service.values
    rates = await rates_of(tx, services)
    planned = await planned_within(tx, services, reached)
    return await asyncio.to_thread(whatif.what_if, moved, changes, rates, planned, scope.period)


# — settling —

SETTLED_AT_ONCE = 500
_INCIDENTS = "incidents"  # the measure under which settled incidents are counted
_PLACES = 12  # of a currency's unit, in the sums that only grow


async def settle(
    tx: AsyncConnection,
    *,
    now: datetime,
    allowed_lateness: timedelta,
    weights: Weights,
    at_most: int = SETTLED_AT_ONCE,
) -> int:
    """Counts incidents that have been resolved for long enough into what Prometheus sees, once and for ever.

    Gives how many; the oldest first, `at_most` at a time. Downtime and cost grow by what incidents settled before had
    not covered, less planned maintenance as it is known now. Ten statements, whatever the number. While another process
    settles there is nothing to do: 0.
    """
    if not (await tx.execute(_SETTLE_ALONE)).scalar_one():
        return 0
    await tx.execute(_REMEMBER_PLACES)
    ripe = (await tx.execute(_RIPE, {"ripe_at": now - allowed_lateness, "at_most": at_most})).all()
    if not ripe:
        return 0
    facts: dict[UUID, Facts] = {row.id: Facts.of(row._mapping) for row in ripe}
    await tx.execute(_MARK_SETTLED, {"ids": list(facts), "now": now})
    harms = [harm(id_, each, now=now, weights=weights) for id_, each in facts.items()]
    before = [
        each
        for each in await harms_during(tx, harms, now=now, weights=weights, settled_only=True)
        if each.incident not in facts
    ]
    planned = await planned_during(tx, [*before, *harms])
    before, harms = unplanned(before, planned), unplanned(harms, planned)
    rates = await rates_of(tx, {each.service for each in harms})
    await tx.execute(_ADD_MEASURES, {"rows": _json(_measured(facts.values()))})
    await tx.execute(_ADD_DOWNTIME, {"rows": _json(_more_downtime(before, harms))})
    await tx.execute(_ADD_COST, {"rows": _json(_more_cost(before, harms, rates))})
    return len(facts)


def _measured(settled: Iterable[Facts]) -> list[dict[str, object]]:
    counts: Counter[tuple[str, str, int, int]] = Counter()
    seconds: dict[tuple[str, str, int, int], float] = defaultdict(float)
    for facts in settled:
        of = (measures.service(facts), measures.severity(facts))
        counts[_INCIDENTS, *of, 0] += 1
        found = measures.measures(facts)
        for measure in MEASURES:
            measured = found[measure.name]
            if measure.histogram and measured.status is MeasureStatus.RECORDED and measured.seconds is not None:
                place = (measure.name, *of, bisect_left(DURATION_BOUNDS, measured.seconds))
                counts[place] += 1
                seconds[place] += measured.seconds
    names = ("measure", "service", "severity", "bucket")
    return [
        {**dict(zip(names, place, strict=True)), "count": count, "seconds": seconds[place]}
        for place, count in sorted(counts.items())
    ]


def _more_downtime(before: Sequence[Harm], harms: Sequence[Harm]) -> list[dict[str, object]]:
    whole = Span(min(each.span.begins for each in harms), max(each.span.ends for each in harms))

    def of(service: str, those: Iterable[Harm]) -> timedelta:
        return downtime((each.span for each in those if each.service == service and each.impact > 0), whole)

    more = {
        service: of(service, [*before, *harms]) - of(service, before) for service in {each.service for each in harms}
    }
    return [
        {"service": service, "seconds": Decimal(time // timedelta(microseconds=1)).scaleb(-6)}
        for service, time in sorted(more.items())
    ]


def _more_cost(before: Sequence[Harm], harms: Sequence[Harm], rates: Sequence[Rate]) -> list[dict[str, object]]:
    """The expected one, at the rates as they are known now."""
    without = costs(before, rates, shares=False).services
    with_ = costs([*before, *harms], rates, shares=False).services
    more = {
        (service, currency): amount.expected - without[service][currency].expected
        if currency in without.get(service, {})
        else amount.expected
        for service, cost in with_.items()
        for currency, amount in cost.items()
    }
    return [
        {"service": service, "currency": currency, "amount": rounded(amount, _PLACES)}
        for (service, currency), amount in sorted(more.items())
    ]


def _json(rows: Sequence[object]) -> str:
    return msgspec.json.encode(rows).decode()


_SETTLE_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtext('aftermath.settle'))")

# With their keys locked: a batch that has read an incident as not settled must not find it settled when it writes. Keys
# that are in use wait for the next round; the conditions are looked at again under the lock.
_RIPE = text(f"""
    WITH ripe AS MATERIALIZED (
        SELECT id
          FROM incident
         WHERE settled_at IS NULL
           AND merged_into IS NULL
           AND ended_at IS NOT NULL
           AND reach_at <= :ripe_at
         ORDER BY began_at, id
         LIMIT :at_most
    ), free AS MATERIALIZED (
        SELECT incident.id
          FROM ripe
          JOIN incident USING (id)
         WHERE {TRY_LOCK_KEY}
    )
    SELECT {FACTS_OF_INCIDENT}
      FROM free
      JOIN incident USING (id)
     WHERE settled_at IS NULL
       AND merged_into IS NULL
       AND ended_at IS NOT NULL
       AND reach_at <= :ripe_at
     ORDER BY began_at, incident.id
       FOR UPDATE OF incident SKIP LOCKED
""")  # noqa: S608

# A series that was there at 0 stays, even if the incident that brought it is merged or gets another severity.
_REMEMBER_PLACES = text(f"""
    INSERT INTO settled_measure (measure, service, severity, bucket, count, seconds)
    SELECT DISTINCT '{_INCIDENTS}', coalesce(service_stated, service), coalesce(severity_stated, severity), 0, 0, 0
      FROM incident
     WHERE merged_into IS NULL
       AND (ended_at IS NULL OR settled_at IS NULL)
        ON CONFLICT DO NOTHING
""")  # noqa: S608

_MARK_SETTLED = text("""
    UPDATE incident
       SET settled_at = :now
     WHERE id = ANY(CAST(:ids AS uuid[]))
""")

_ADD_MEASURES = text("""
    INSERT INTO settled_measure (measure, service, severity, bucket, count, seconds)
    SELECT measure, service, severity, bucket, count, seconds
      FROM json_to_recordset(CAST(:rows AS json)) AS new (
           measure text, service text, severity smallint, bucket smallint, count bigint, seconds double precision)
        ON CONFLICT (measure, service, severity, bucket)
        DO UPDATE SET count = settled_measure.count + excluded.count,
                      seconds = settled_measure.seconds + excluded.seconds
""")

_ADD_DOWNTIME = text("""
    INSERT INTO settled_downtime (service, seconds)
    SELECT service, seconds
      FROM json_to_recordset(CAST(:rows AS json)) AS new (service text, seconds numeric)
        ON CONFLICT (service)
        DO UPDATE SET seconds = settled_downtime.seconds + excluded.seconds
""")

_ADD_COST = text("""
    INSERT INTO settled_cost (service, currency, amount)
    SELECT service, currency, amount
      FROM json_to_recordset(CAST(:rows AS json)) AS new (service text, currency text, amount numeric)
        ON CONFLICT (service, currency)
        DO UPDATE SET amount = settled_cost.amount + excluded.amount
""")


# — what a scrape says —

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows for the exposition. Services beyond the bound are summed up as `other`; which ones never changes.

    Nothing in it takes longer to read the more incidents have settled.
    """

    services: Sequence[str]  # with series of their own
    folded: int  # services within `other`
    sources: Sequence[str]
    tallies: Sequence[Any]  # name, source, label, value
    unsettled: Sequence[Any]  # service, severity, open, unacknowledged, oldest_at, oldest_unacknowledged_at
    measures: Sequence[Any]  # measure, service, severity, bucket, count, seconds
    downtime: Mapping[str, Decimal]
    cost: Mapping[tuple[str, str], Decimal]
    quarantine: Mapping[str, int]  # waiting, by source
    peers: Mapping[tuple[str, str], int]  # by source and whether they answer
    heartbeats: Mapping[str, Any]  # last_at and missing, by source
    alerts: Mapping[str, Mapping[str, int]]  # how many are open and how many of these unrefreshed, by source


async def snapshot(tx: AsyncConnection, *, services_at_most: int) -> Snapshot:
    own = (await tx.execute(_OWN_SERVICES, {"at_most": services_at_most})).all()
    bound = {"own": [row.name for row in own]}
    sources = await tx.execute(select(source.c.name).where(source.c.kind != "person").order_by(source.c.name))
    return Snapshot(
        services=bound["own"],
        folded=own[0].known - len(own) if own else 0,
        sources=list(sources.scalars()),
        tallies=(await tx.execute(_TALLIES)).all(),
        unsettled=(await tx.execute(_UNSETTLED, bound)).all(),
        measures=(await tx.execute(_SETTLED_MEASURES, bound)).all(),
        downtime={row.service: row.seconds for row in await tx.execute(_SETTLED_DOWNTIME, bound)},
        cost={(row.service, row.currency): row.amount for row in await tx.execute(_SETTLED_COST, bound)},
        quarantine={row.source: row.waiting for row in await tx.execute(_QUARANTINE)},
        peers={
            (row.source, state): getattr(row, state)
            for row in await tx.execute(_PEERS)
            for state in ("answering", "silent")
        },
        heartbeats={row.source: row for row in await tx.execute(_HEARTBEATS)},
        alerts={row.source: dict(row._mapping) for row in await tx.execute(_ALERTS)},
    )


# By age, so that a new service never takes the place of one that has counted already.
_OWN_SERVICES = text("""
    SELECT name, (SELECT count(*) FROM service) AS known
      FROM service
     ORDER BY first_seen_at, name
     LIMIT :at_most
""")

# Summed as numeric: exact, so that the order of rows cannot make a counter fall in its last digit.
_TALLIES = text("""
    SELECT name, source, label,
           CASE WHEN name = 'last_delivery' THEN max(value) ELSE sum(value::numeric) END AS value
      FROM tally
     GROUP BY name, source, label
     ORDER BY name, source, label
""")


def _shown(column: str) -> str:
    return f"CASE WHEN {column} = ANY(CAST(:own AS text[])) THEN {column} ELSE '{OTHER}' END AS service"


# Open ones may have settled before (a late alert reopened them); each half of the OR has its index.
_UNSETTLED = text(f"""
    SELECT {_shown("coalesce(service_stated, service)")},
           coalesce(severity_stated, severity) AS severity,
           count(*) FILTER (WHERE ended_at IS NULL) AS open,
           count(*) FILTER (WHERE ended_at IS NULL AND acknowledged_at IS NULL) AS unacknowledged,
           min(coalesce(detected_at_stated, began_at)) FILTER (WHERE ended_at IS NULL) AS oldest_at,
           min(coalesce(detected_at_stated, began_at)) FILTER (WHERE ended_at IS NULL AND acknowledged_at IS NULL)
               AS oldest_unacknowledged_at
      FROM incident
     WHERE merged_into IS NULL
       AND (ended_at IS NULL OR settled_at IS NULL)
     GROUP BY 1, 2
     ORDER BY 1, 2
""")  # noqa: S608

_SETTLED_MEASURES = text(f"""
    SELECT measure, {_shown("service")}, severity, bucket,
           sum(count)::bigint AS count,
           sum(seconds::numeric) AS seconds
      FROM settled_measure
     GROUP BY 1, 2, 3, 4
     ORDER BY 1, 2, 3, 4
""")  # noqa: S608

_SETTLED_DOWNTIME = text(f"""
    SELECT {_shown("service")}, sum(seconds) AS seconds
      FROM settled_downtime
     GROUP BY 1
""")  # noqa: S608

# Every service with a rate, at 0 before its first outage.
_SETTLED_COST = text(f"""
    SELECT {_shown("service")}, currency, sum(amount) AS amount
      FROM (SELECT service, currency, amount
              FROM settled_cost
             UNION ALL
            SELECT service, currency, 0
              FROM service_rate) AS known
     GROUP BY 1, 2
     ORDER BY 1, 2
""")  # noqa: S608

_QUARANTINE = text("""
    SELECT source.name AS source, count(*) AS waiting
      FROM quarantine
      JOIN source ON source.id = quarantine.source_id
     WHERE quarantine.replayed_at IS NULL
     GROUP BY source.name
""")


_PEERS = text("""
    SELECT source.name AS source, count(*) FILTER (WHERE peer.error IS NULL) AS answering,
           count(*) FILTER (WHERE peer.error IS NOT NULL) AS silent
      FROM peer
      JOIN source ON source.id = peer.source_id
     GROUP BY source.name
""")

_HEARTBEATS = text("""
    SELECT source.name AS source, min(heartbeat.last_at) AS last_at,
           count(*) FILTER (WHERE heartbeat.missing_since IS NOT NULL AND heartbeat.returned_at IS NULL) AS missing
      FROM heartbeat
      JOIN source ON source.id = heartbeat.source_id
     GROUP BY source.name
""")

# As last sampled: to count them costs as much as there are.
_ALERTS = text("""
    SELECT source.name AS source, latest.open_alerts AS alerts_open, latest.unrefreshed AS alerts_unrefreshed
      FROM source
     CROSS JOIN LATERAL (
           SELECT *
             FROM feed_sample
            WHERE feed_sample.source_id = source.id
            ORDER BY at DESC
            LIMIT 1
           ) AS latest
     WHERE source.kind <> 'person'
""")


# — how available services have been lately —


@dataclass(frozen=True, slots=True)
class Ratios:
    availability: Mapping[tuple[str, str], float]  # by service and window; 1 is always
    budget_left: Mapping[str, float]  # of services with an objective; below 0 it is missed


async def ratios(tx: AsyncConnection, services: Sequence[str], *, now: datetime, weights: Weights) -> Ratios:
    """Of these services. It reads what harms in the windows, by an index: what is older costs nothing."""
    rows = await tx.execute(select(objective).where(objective.c.service == any_(literal(list(services), ARRAY(Text)))))
    objectives = [Objective.of(row._mapping) for row in rows]
    periods = [each.period(now) for each in objectives]
    lately = Span(now - max(RATIO_WINDOWS.values()), now)
    since = Span(min((each.begins for each in periods), default=now), now)
    harming = await harming_within(tx, lately, services)
    harming_longer = await harming_within(tx, since, [each.service for each in objectives])
    reached = Span(min(lately.begins, since.begins), max((each.ends for each in periods), default=now))
    planned = await planned_within(tx, services, reached)

    def found(row: Any, asked: Iterable[tuple[Sequence[str], Span]]) -> Iterator[Sequence[Availability]]:
        columns = columns_of(row)
        harmed = harms(columns, now=now, weights=weights)
        for names, period in asked:
            yield availabilities(columns, harmed, names, planned, period, now=now)

    def work() -> Ratios:
        windows = found(harming, ((services, Span(now - length, now)) for length in RATIO_WINDOWS.values()))
        available = {
            (each.service, window): float(each.ratio_weighted)
            for window, of_window in zip(RATIO_WINDOWS, windows, strict=True)
            for each in of_window
            if each.ratio_weighted is not None
        }
        together = [(period, [each for each in objectives if each.period(now) == period]) for period in set(periods)]
        burned = found(harming_longer, (([each.service for each in those], period) for period, those in together))
        left = {
            each.service: left_ratio(each, of_service, planned.get(each.service, ()), now=now)
            for (_, those), of_period in zip(together, burned, strict=True)
            for each, of_service in zip(those, of_period, strict=True)
        }
        return Ratios(available, {name: float(ratio) for name, ratio in left.items() if ratio is not None})

    return await asyncio.to_thread(work)


@dataclass(slots=True)
class RecentRatios:
    """The ratios as one process knows them, at most `RATIOS_REMEMBERED` old: what fails in the windows has its cost.

    Their windows end at a full `RATIOS_REMEMBERED`, so that all processes speak of the same ones.
    """

    found: Ratios | None = None
    services: Sequence[str] = ()
    at: datetime | None = None

    async def of(self, tx: AsyncConnection, services: Sequence[str], *, now: datetime, weights: Weights) -> Ratios:
        as_of = now - (now - datetime.min.replace(tzinfo=UTC)) % RATIOS_REMEMBERED
        if self.found is None or self.at != as_of or self.services != services:
            self.found, self.services, self.at = await ratios(tx, services, now=as_of, weights=weights), services, as_of
        return self.found
