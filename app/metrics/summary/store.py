"""SQL for the numbers of a period: its incidents with their rates and maintenance, and the work on them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from app.base.process.threads import off_loop
from app.base.schema import Service, Source
from app.base.values.times import Span
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.impact.columns import StretchColumns
from app.incidents.impact.labor import Pay
from app.incidents.impact.maintenance import Planned
from app.incidents.impact.rates import Rate
from app.incidents.impact.store import (
    COLUMNS,
    EARLIEST,
    ENVIRONMENT,
    ENVIRONMENTS,
    STRETCHES,
    impact_columns_of,
    planned_within,
    rates_of,
    texts,
)
from app.incidents.measures.measures import Weights
from app.incidents.measures.vectorized import NEVER, Categorical, Columns, coded, else_, microseconds, moment
from app.metrics.query import GroupBy, GroupKey, MetricsQuery
from app.metrics.sql import FROM_SOURCE, bound, chosen, hour_of_week
from app.metrics.summary.labor import NO_LABOR, Labor, Work, labor_by_group
from app.metrics.summary.numbers import Numbers, Prepared, prepare, summarize, summarize_buckets


async def read_summary(
    tx: AsyncConnection,
    query: MetricsQuery,
    *,
    now: datetime,
    weights: Weights,
    pay: Pay | None = None,
    horizon: float | None = None,
    groups_at_most: int | None = None,
) -> tuple[Numbers, list[Numbers]]:
    """The numbers in total and of each group; with `pay` including labor, with a horizon (seconds) estimates too.

    Raises TooManyPoints, TooMuchMaintenance or TooManyHours.
    """
    read = await read_incidents(tx, query, now=now)

    def work() -> tuple[Numbers, list[Numbers]]:
        prepared = prepared_for(read, query, now=now, weights=weights)
        return summarize(prepared, read.rates, query, horizon=horizon, groups_at_most=groups_at_most)

    whole, groups = await off_loop(work)
    if pay is None:
        return whole, groups
    [[whole]] = await with_labor(tx, [[whole]], replace(query, group_by=None), [query.period], now, pay)
    rows = await with_labor(tx, [[group] for group in groups], query, [query.period], now, pay)
    return whole, [group for [group] in rows]


async def read_timeseries(
    tx: AsyncConnection,
    query: MetricsQuery,
    buckets: Sequence[Span],
    *,
    now: datetime,
    weights: Weights,
    points_at_most: int,
    pay: Pay | None = None,
) -> list[list[Numbers]]:
    """One row per group (a single row without `group_by`), with the numbers of every bucket.

    Raises TooManyPoints.
    """
    read = await read_incidents(tx, query, now=now)

    def work() -> list[list[Numbers]]:
        prepared = prepared_for(read, query, now=now, weights=weights)
        return summarize_buckets(prepared, read.rates, query, buckets, points_at_most=points_at_most)

    rows = await off_loop(work)
    return rows if pay is None else await with_labor(tx, rows, query, buckets, now, pay)


async def read_labor(
    tx: AsyncConnection, query: MetricsQuery, buckets: Sequence[Span], *, now: datetime, pay: Pay
) -> Mapping[GroupKey, Sequence[Labor]]:
    """The labor in each bucket, for groups that have any; without `group_by` the total, under None.

    The buckets must cover the period of the query, in order and without gaps. One statement.
    """
    if not buckets:
        return {}
    borders = [buckets[0].start, *(bucket.end for bucket in buckets)]
    rows = (await tx.execute(_WORK[query.group_by], bound(query) | {"borders": borders, "now": now})).all()
    return await off_loop(lambda: labor_by_group((Work(*row) for row in rows), len(buckets), pay))


async def read_columns(tx: AsyncConnection, query: MetricsQuery, *, now: datetime) -> tuple[Columns, StretchColumns]:
    """Incidents of any severity detected or with impact in the period, of the query's services."""
    row = (await tx.execute(_OF_PERIOD, bound(query) | {"now": now})).one()
    return await impact_columns_of(tx, row)


class Incidents(NamedTuple):
    """The data from which the numbers of a period are computed."""

    columns: Columns
    stretches: StretchColumns
    sources: Categorical | None  # tuples of names; None: not asked for
    environments: Categorical | None  # names; None: not asked for
    rates: Sequence[Rate]
    planned: Planned
    owners: Mapping[str, str]  # owner by service


async def read_incidents(tx: AsyncConnection, query: MetricsQuery, *, now: datetime) -> Incidents:
    """At most six statements, however many incidents there are. Raises TooMuchMaintenance."""
    if query.filters.source or query.filters.environment or query.group_by in {GroupBy.SOURCE, GroupBy.ENVIRONMENT}:
        (columns, stretches), sources, environments = await _columns_with_details(tx, query, now)
    else:
        (columns, stretches), sources, environments = await read_columns(tx, query, now=now), None, None
    services = columns.service.values
    within = await off_loop(_affected, columns, query.period, now)
    owned = await tx.execute(select(col(Service.name), col(Service.owner)).where(col(Service.owner).is_not(None)))
    return Incidents(
        columns,
        stretches,
        sources,
        environments,
        await rates_of(tx, services),
        await planned_within(tx, services, within, occurrences_at_most=query.bounds.occurrences),
        {name: owner for name, owner in owned if owner is not None},
    )


async def _columns_with_details(
    tx: AsyncConnection, query: MetricsQuery, now: datetime
) -> tuple[tuple[Columns, StretchColumns], Categorical, Categorical]:
    """With the sources and environments of the incidents."""
    row = (await tx.execute(_OF_PERIOD_WITH_DETAILS, bound(query) | {"now": now})).one()
    columns, stretches = await impact_columns_of(tx, row)
    named = await tx.execute(select(col(Source.id), col(Source.name)).where(col(Source.id) != MANUAL_SOURCE_ID))
    names = {str(id_): name for id_, name in named}
    ids: str | None = row.source_ids

    def work() -> tuple[Categorical, Categorical]:
        codes, every = coded((ids or "").split(";"))
        sources = [tuple(names[id_] for id_ in each.split() if id_ in names) for each in every]
        return Categorical(codes[: len(columns)], sources), coded(texts(row.environments, row.environment_lengths))

    return (columns, stretches), *await off_loop(work)


def _affected(columns: Columns, period: Span, now: datetime) -> Span:
    """The part of the period that contains incidents; the period itself may be centuries longer."""
    if not len(columns):
        return Span(period.start, period.start)
    starts = np.concatenate((columns.began_at, columns.impact_started_at, columns.detected_at_stated))
    latest = else_(columns.ended_at, np.full(len(columns), microseconds(now))).max()
    earliest = starts[starts != NEVER].min()
    return Span(max(moment(int(earliest)), period.start), min(moment(int(latest)), period.end))


def prepared_for(read: Incidents, query: MetricsQuery, *, now: datetime, weights: Weights) -> Prepared:
    return prepare(
        read.columns,
        read.stretches,
        query,
        now=now,
        weights=weights,
        planned=read.planned,
        sources=read.sources,
        environments=read.environments,
        owners=read.owners,
    )


async def with_labor(
    tx: AsyncConnection,
    rows: list[list[Numbers]],
    query: MetricsQuery,
    buckets: Sequence[Span],
    now: datetime,
    pay: Pay,
) -> list[list[Numbers]]:
    """The same rows (one per group, with the numbers of every bucket), with labor added."""
    if not rows or not buckets:
        return rows
    labor = await read_labor(tx, query, buckets, now=now, pay=pay)

    def work() -> list[list[Numbers]]:
        nothing = [NO_LABOR] * len(buckets)
        return [
            [
                replace(numbers, labor=each)
                for numbers, each in zip(row, labor.get(row[0].query.key, nothing), strict=True)
            ]
            for row in rows
        ]

    return await off_loop(work)


# Detected or with impact in the period. The third condition is implied by the last and lets PostgreSQL use the indexes;
# `app/incidents/impact/store.py` explains its upper bounds.
_IN_PERIOD = f"""
      FROM incident
     WHERE merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND {chosen("service", "text", "coalesce(service_stated, service)")}
       AND (   ended_at IS NULL
            OR ended_at BETWEEN :start AND 'infinity'
            OR detected_at_stated BETWEEN :start AND 'infinity')
       AND (   (    coalesce(detected_at_stated, began_at) >= :start
                AND coalesce(detected_at_stated, began_at) < :end)
            OR (    {EARLIEST} < :end
                AND coalesce(ended_at, :now) > :start))
"""
_OF_PERIOD = text(f"SELECT {COLUMNS}, {STRETCHES} {_IN_PERIOD}")
_OF_PERIOD_WITH_DETAILS = text(f"""
    SELECT {COLUMNS}, {STRETCHES},
           string_agg(array_to_string(source_ids, ' '), ';') AS source_ids,
           {ENVIRONMENTS}
           {_IN_PERIOD}
""")

# Like `worked` in `app/incidents/impact/labor.py`, cut to the buckets. `app/incidents/impact/store.py` explains the
# upper bound of `ended_at`.
_PARTS = f"""
    WITH known AS (
        SELECT coalesce(service_stated, incident.service) AS service,
               {ENVIRONMENT} AS environment,
               coalesce(severity_stated, severity) AS severity,
               coalesce(service.owner, '') AS owner,
               source_ids,
               coalesce(detected_at_stated, began_at) AS detected_at,
               CASE WHEN acknowledged_at IS NOT NULL
                    THEN greatest(acknowledged_at, coalesce(detected_at_stated, began_at)) END AS worked_from,
               coalesce(ended_at, :now) AS worked_until
          FROM incident
          LEFT JOIN service ON service.name = coalesce(service_stated, incident.service)
         WHERE merged_into IS NULL
           AND test_stated IS NOT TRUE
           AND (   ended_at IS NULL
                OR ended_at BETWEEN :start AND 'infinity'
                OR detected_at_stated BETWEEN :start AND 'infinity')
           AND coalesce(detected_at_stated, began_at) < :end
    ), asked AS (
        SELECT *,
               (worked_from < worked_until) IS TRUE AS is_worked_on,
               greatest(worked_from, :start) AS starts_at,
               least(worked_until, :end) AS ends_at,
               {hour_of_week("detected_at")} AS hour_of_week
          FROM known
         WHERE {chosen("service", "text", "service")}
           AND {chosen("environment", "text", "environment")}
           AND {chosen("severity", "smallint", "severity")}
           AND {chosen("owner", "text", "owner")}
           AND {FROM_SOURCE}
    ), border AS (
        SELECT CAST(:borders AS timestamptz[]) AS at
    ), part AS (
        SELECT asked.*, bucket, least(ends_at, at[bucket + 1]) - greatest(starts_at, at[bucket]) AS work
          FROM asked, border,
               generate_series(width_bucket(starts_at, at),
                               width_bucket(ends_at - INTERVAL '1 microsecond', at)) AS bucket
         WHERE is_worked_on -- the series is empty for work before or after all borders
         UNION ALL
        SELECT asked.*, width_bucket(detected_at, at), NULL
          FROM asked, border
         WHERE NOT is_worked_on
           AND detected_at >= :start
    )
"""  # noqa: S608

_WORK = {
    group_by: text(f"""
    {_PARTS}
    SELECT {key} AS key,
           bucket,
           severity,
           count(work) AS n,
           count(*) - count(work) AS not_acknowledged,
           sum(extract(epoch FROM work)) AS seconds
      FROM part
      {join}
     WHERE {chosen("hour_of_week", "integer", "hour_of_week")}
     GROUP BY 1, bucket, severity
""")  # noqa: S608
    for group_by, key, join in (
        (None, "NULL", ""),
        (GroupBy.SERVICE, "part.service", ""),
        (GroupBy.ENVIRONMENT, "part.environment", ""),
        (GroupBy.SEVERITY, "severity", ""),
        (GroupBy.SOURCE, "source.name", "JOIN source ON source.id = ANY(source_ids) AND source.id <> :people"),
        (GroupBy.OWNER, "owner", ""),
        (GroupBy.HOUR_OF_WEEK, "hour_of_week", ""),
    )
}
