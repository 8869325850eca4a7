"""What the time of responders cost in a period: a line of its own beside the numbers, worked out apart from them.

PostgreSQL sums the time, exactly and whatever the number of incidents; what it costs says `app.incidents.impact.labor`.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.severity import SeverityName, severity_name
from app.base.times import Span
from app.incidents.grouping.batch import PEOPLE
from app.incidents.impact.intervals import Cost
from app.incidents.impact.labor import Pay, priced
from app.metrics.statistics import GroupBy, Scope
from app.metrics.store import hour_of_week

NOT_ACKNOWLEDGED = "not acknowledged while it ran"


@dataclass(frozen=True, slots=True)
class Labour:
    """`n` incidents were worked on in the period; of those detected in it that are `left_out` no work is known."""

    cost: Cost
    n: int
    left_out: Mapping[str, int]


NONE = Labour({}, 0, {})


async def labour(
    tx: AsyncConnection,
    scope: Scope,
    periods: Sequence[Span],
    group_by: GroupBy | None = None,
    *,
    now: datetime,
    pay: Pay,
) -> Mapping[Any, Sequence[Labour]]:
    """That of each of the periods, which make up that of the scope in order and without gaps: of the groups that have
    any, by key; without `group_by` of the whole, under None. One statement.
    """
    if not periods:
        return {}
    asked = {
        "borders": [periods[0].begins, *(period.ends for period in periods)],
        "begins": scope.period.begins,
        "ends": scope.period.ends,
        "service": scope.service,
        "severity": scope.severity,
        "source": scope.source,
        "owner": scope.owner,
        "hour_of_week": scope.hour_of_week,
        "people": PEOPLE,
        "now": now,
    }
    rows = (await tx.execute(_BY[group_by], asked)).all()
    # Thousands of amounts must not keep the doors waiting.
    return await asyncio.to_thread(_by_key, rows, len(periods), pay)


def _by_key(rows: Iterable[Any], periods: int, pay: Pay) -> dict[Any, list[Labour]]:
    groups: dict[Any, dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row.key][row.bucket].append(row)
    return {
        key: [_labour(of[bucket], pay) if bucket in of else NONE for bucket in range(1, periods + 1)]
        for key, of in groups.items()
    }


def _labour(rows: Iterable[Any], pay: Pay) -> Labour:
    """One row for each severity."""
    seconds: dict[SeverityName, Decimal] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        counts["n"] += row.n
        counts[NOT_ACKNOWLEDGED] += row.not_acknowledged
        if row.n:
            seconds[severity_name(row.severity)] = row.seconds
    n = counts.pop("n", 0)
    return Labour(priced(seconds, pay), n, +counts)


# As `labour.worked`, cut to the periods. Why `ended_at` has an upper bound is said in `app/incidents/impact/store.py`.
_KNOWN = f"""
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
         WHERE is_worked_on -- of what lies before or after all borders the series is empty
         UNION ALL
        SELECT asked.*, width_bucket(detected_at, at), NULL
          FROM asked, border
         WHERE NOT is_worked_on
           AND detected_at >= :begins
    )
"""  # noqa: S608

_BY = {
    group_by: text(f"""
    {_KNOWN}
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
