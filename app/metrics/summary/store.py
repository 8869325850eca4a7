"""SQL for the numbers of a period: its incidents with their rates and maintenance, and the work on them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from app.base.schema import Service, Source
from app.base.threads import off_loop
from app.base.times import Span
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.impact.labor import Pay
from app.incidents.impact.maintenance import Planned
from app.incidents.impact.rates import Rate
from app.incidents.impact.store import COLUMNS, columns_of, planned_within, rates_of
from app.incidents.measures.measures import Weights
from app.incidents.measures.vectorized import NEVER, Coded, Columns, coded, microseconds, moment
from app.metrics.query import GroupBy, GroupKey, MetricsQuery
from app.metrics.sql import bound, hour_of_week
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
) -> tuple[Numbers, list[Numbers]]:
    """The numbers in total and of each group; with `pay` including labor, with a horizon (seconds) estimates too."""
    read = await _read(tx, query, now)

    def work() -> tuple[Numbers, list[Numbers]]:
        return summarize(_prepare(read, query, now, weights), read.rates, query, horizon=horizon)

    whole, groups = await off_loop(work)
    if pay is None:
        return whole, groups
    [[whole]] = await _with_labor(tx, [[whole]], replace(query, group_by=None), [query.period], now, pay)
    rows = await _with_labor(tx, [[group] for group in groups], query, [query.period], now, pay)
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
    read = await _read(tx, query, now)

    def work() -> list[list[Numbers]]:
        prepared = _prepare(read, query, now, weights)
        return summarize_buckets(prepared, read.rates, query, buckets, points_at_most=points_at_most)

    rows = await off_loop(work)
    return rows if pay is None else await _with_labor(tx, rows, query, buckets, now, pay)


async def read_labor(
    tx: AsyncConnection, query: MetricsQuery, buckets: Sequence[Span], *, now: datetime, pay: Pay
) -> Mapping[GroupKey, Sequence[Labor]]:
    """The labor in each bucket, for groups that have any; without `group_by` the total, under None.

    The buckets must cover the period of the query, in order and without gaps. One statement.
    """
    if not buckets:
        return {}
    borders = [buckets[0].begins, *(bucket.ends for bucket in buckets)]
    rows = (await tx.execute(_WORK[query.group_by], bound(query) | {"borders": borders, "now": now})).all()
    return await off_loop(lambda: labor_by_group((Work(*row) for row in rows), len(buckets), pay))


async def read_columns(tx: AsyncConnection, query: MetricsQuery, *, now: datetime) -> Columns:
    """Incidents of any severity detected or with impact in the period, of the query's service (None: of all)."""
    row = (await tx.execute(_OF_PERIOD, bound(query) | {"now": now})).one()
    return await off_loop(columns_of, row)


class _Read(NamedTuple):
    columns: Columns
    sources: Coded | None  # tuples of names; None: not asked for
    rates: Sequence[Rate]
    planned: Planned
    owners: Mapping[str, str]  # owner by service


async def _read(tx: AsyncConnection, query: MetricsQuery, now: datetime) -> _Read:
    by_source = query.filters.source is not None or query.group_by is GroupBy.SOURCE
    if by_source:
        columns, sources = await _columns_with_sources(tx, query, now)
    else:
        columns, sources = await read_columns(tx, query, now=now), None
    services = columns.service.values
    within = await off_loop(_affected, columns, query.period, now)
    owned = await tx.execute(select(col(Service.name), col(Service.owner)).where(col(Service.owner).is_not(None)))
    return _Read(
        columns,
        sources,
        await rates_of(tx, services),
        await planned_within(tx, services, within),
        {name: owner for name, owner in owned if owner is not None},
    )


async def _columns_with_sources(tx: AsyncConnection, query: MetricsQuery, now: datetime) -> tuple[Columns, Coded]:
    row = (await tx.execute(_OF_PERIOD_WITH_SOURCES, bound(query) | {"now": now})).one()
    columns = await off_loop(columns_of, row)
    named = await tx.execute(select(col(Source.id), col(Source.name)).where(col(Source.id) != MANUAL_SOURCE_ID))
    names = {str(id_): name for id_, name in named}
    ids: str | None = row.source_ids

    def work() -> Coded:
        codes, every = coded((ids or "").split(";"))
        return Coded(
            codes[: len(columns)], [tuple(names[id_] for id_ in each.split() if id_ in names) for each in every]
        )

    return columns, await off_loop(work)


def _affected(columns: Columns, period: Span, now: datetime) -> Span:
    """The part of the period that contains incidents; the period itself may be centuries longer."""
    began, ended = columns.began(), columns.ended_at
    if not len(columns):
        return Span(period.begins, period.begins)
    latest = np.where(ended == NEVER, microseconds(now), ended).max()
    return Span(max(moment(int(began.min())), period.begins), min(moment(int(latest)), period.ends))


def _prepare(read: _Read, query: MetricsQuery, now: datetime, weights: Weights) -> Prepared:
    return prepare(
        read.columns,
        query,
        now=now,
        weights=weights,
        planned=read.planned,
        sources=read.sources,
        owners=read.owners,
    )


async def _with_labor(
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

# Like `worked` in `app/incidents/impact/labor.py`, cut to the buckets. `app/incidents/impact/store.py` explains the
# upper bound of `ended_at`.
_PARTS = f"""
    WITH known AS (
        SELECT coalesce(service_stated, incident.service) AS service,
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
           AND (   ended_at IS NULL
                OR ended_at BETWEEN :begins AND 'infinity'
                OR detected_at_stated BETWEEN :begins AND 'infinity')
           AND coalesce(detected_at_stated, began_at) < :ends
    ), asked AS (
        SELECT *,
               (worked_from < worked_until) IS TRUE AS is_worked_on,
               greatest(worked_from, :begins) AS begins,
               least(worked_until, :ends) AS ends,
               {hour_of_week("detected_at")} AS hour_of_week
          FROM known
         WHERE (CAST(:service AS text) IS NULL OR service = :service)
           AND (CAST(:severity AS smallint) IS NULL OR severity = :severity)
           AND (CAST(:owner AS text) IS NULL OR owner = :owner)
           AND (CAST(:source AS text) IS NULL
                OR (SELECT id FROM source WHERE name = :source AND id <> :people) = ANY(source_ids))
    ), border AS (
        SELECT CAST(:borders AS timestamptz[]) AS at
    ), part AS (
        SELECT asked.*, bucket, least(ends, at[bucket + 1]) - greatest(begins, at[bucket]) AS work
          FROM asked, border,
               generate_series(width_bucket(begins, at), width_bucket(ends - INTERVAL '1 microsecond', at)) AS bucket
         WHERE is_worked_on -- the series is empty for work before or after all borders
         UNION ALL
        SELECT asked.*, width_bucket(detected_at, at), NULL
          FROM asked, border
         WHERE NOT is_worked_on
           AND detected_at >= :begins
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
     WHERE (CAST(:hour_of_week AS integer) IS NULL OR hour_of_week = :hour_of_week)
     GROUP BY 1, bucket, severity
""")  # noqa: S608
    for group_by, key, join in (
        (None, "NULL", ""),
        (GroupBy.SERVICE, "part.service", ""),
        (GroupBy.SEVERITY, "severity", ""),
        (GroupBy.SOURCE, "source.name", "JOIN source ON source.id = ANY(source_ids) AND source.id <> :people"),
        (GroupBy.OWNER, "owner", ""),
        (GroupBy.HOUR_OF_WEEK, "hour_of_week", ""),
    )
}
