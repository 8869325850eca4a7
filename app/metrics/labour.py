"""What the time of responders cost in a period: a line of its own beside the numbers, worked out apart from them.

PostgreSQL sums the time, exactly and whatever the number of incidents; what it costs says `app.incidents.labour`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.incidents.batch import PEOPLE
from app.incidents.downtime import Cost
from app.incidents.labour import Pay, priced
from app.incidents.measures import SEVERITIES, SeverityName
from app.metrics.statistics import GroupBy, Scope

NOT_ACKNOWLEDGED = "not acknowledged while it ran"


@dataclass(frozen=True, slots=True)
class Labour:
    """`n` incidents were worked on in the period; of those detected in it that are `left_out` no work is known."""

    cost: Cost
    n: int
    left_out: Mapping[str, int]


NONE = Labour({}, 0, {})


async def labour(
    tx: AsyncConnection, scope: Scope, group_by: GroupBy | None = None, *, now: datetime, pay: Pay
) -> tuple[Labour, Mapping[Any, Labour]]:
    """Of the scope, and of each of its groups by key. One statement each."""
    asked = {
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
    [*whole] = await tx.execute(_WHOLE, asked)
    groups: dict[Any, list[Any]] = defaultdict(list)
    if group_by is not None:
        for row in await tx.execute(_BY[group_by], asked):
            groups[row.key].append(row)
    return _labour(whole, pay), {key: _labour(rows, pay) for key, rows in groups.items()}


def _labour(rows: Iterable[Any], pay: Pay) -> Labour:
    """One row for each severity."""
    seconds: dict[SeverityName, Decimal] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        counts["n"] += row.n
        counts[NOT_ACKNOWLEDGED] += row.not_acknowledged
        if row.n:
            seconds[SEVERITIES[row.severity - 1]] = row.seconds
    n = counts.pop("n", 0)
    return Labour(priced(seconds, pay), n, +counts)


# As `labour.worked`, cut to the period. Why `ended_at` has an upper bound is said in `app/incidents/costs.py`.
_KNOWN = """
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
               least(worked_until, :ends) - greatest(worked_from, :begins) AS work,
               (extract(isodow FROM detected_at AT TIME ZONE 'UTC')::int - 1) * 24
                   + extract(hour FROM detected_at AT TIME ZONE 'UTC')::int AS hour_of_week
          FROM known
         WHERE (CAST(:service AS text) IS NULL OR service = :service)
           AND (CAST(:severity AS smallint) IS NULL OR severity = :severity)
           AND (CAST(:owner AS text) IS NULL OR owner = :owner)
           AND (CAST(:source AS text) IS NULL
                OR (SELECT id FROM source WHERE name = :source AND id <> :people) = ANY(source_ids))
    )
"""
_SUMS = """
           severity,
           count(*) FILTER (WHERE is_worked_on AND work > INTERVAL '0') AS n,
           count(*) FILTER (WHERE NOT is_worked_on AND detected_at >= :begins) AS not_acknowledged,
           sum(extract(epoch FROM work)) FILTER (WHERE is_worked_on AND work > INTERVAL '0') AS seconds
"""
_OF_HOUR = "(CAST(:hour_of_week AS integer) IS NULL OR hour_of_week = :hour_of_week)"

_WHOLE = text(f"""
    {_KNOWN}
    SELECT {_SUMS}
      FROM asked
     WHERE {_OF_HOUR}
     GROUP BY severity
""")  # noqa: S608

_BY = {
    group_by: text(f"""
    {_KNOWN}
    SELECT {key} AS key, {_SUMS}
      FROM asked
      {join}
     WHERE {_OF_HOUR}
     GROUP BY 1, severity
""")  # noqa: S608
    for group_by, key, join in (
        (GroupBy.SERVICE, "asked.service", ""),
        (GroupBy.SEVERITY, "severity", ""),
        (GroupBy.SOURCE, "source.name", "JOIN source ON source.id = ANY(source_ids) AND source.id <> :people"),
        (GroupBy.OWNER, "owner", ""),
        (GroupBy.HOUR_OF_WEEK, "hour_of_week", ""),
    )
}
