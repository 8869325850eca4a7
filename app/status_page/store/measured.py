"""Measures the downtime of components from the incidents of their services, a number per day, for the public page."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.db.recordset import as_json
from app.base.process.threads import off_loop
from app.base.values.times import Span
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.impact.store import failing_within, in_service_since, planned_within
from app.incidents.measures.measures import Weights
from app.status_page.component import Uptime
from app.status_page.uptime import DAYS, MeasuredDay, Watched, days_until, measured, span_of


async def measure(session: AsyncSession, *, days: int, now: datetime, weights: Weights) -> int:
    """Stores the last days of all components that show measured downtime, and more if one is new. Returns how many rows
    were written.

    The public page may read the result, not what it was measured from.
    """
    query = select(schema.Component).where(col(schema.Component.uptime) == Uptime.MEASURED)
    rows = (await session.exec(query)).all()
    if not rows:
        return 0
    known = set(await session.exec(select(schema.ComponentDay.component).distinct()))
    if any(row.name not in known for row in rows):
        days = DAYS
    found = await measured_days(session, rows, days_until(now, days), now=now, weights=weights)
    records = [
        {
            "component": name,
            "day": day.day.isoformat(),
            "watched_seconds": int(day.watched.total_seconds()),
            "down_seconds": min(int(day.watched.total_seconds()), round(day.down.total_seconds())),
        }
        for name, of_component in found.items()
        for day in of_component
    ]
    tx = await session.connection()
    await tx.execute(_STORE, {"rows": as_json(records)})
    return len(records)


async def measured_days(
    session: AsyncSession,
    components: Sequence[schema.Component],
    days: Sequence[date],
    *,
    now: datetime,
    weights: Weights,
) -> Mapping[str, Sequence[MeasuredDay]]:
    """By component. A service is watched from when it came into service, while no heartbeat of its sources is missing,
    and while the service and its database ran. A fixed number of statements.
    """
    services = sorted({service for each in components for service in each.services})
    if not services:
        return {each.name: measured((), [_whole(days)], days, now=now) for each in components}
    within = Span(span_of(days[0]).start, now)
    tx = await session.connection()
    failing = await failing_within(tx, within, services, now=now, weights=weights)
    planned = await planned_within(tx, services, within)
    since = await in_service_since(tx, services)
    blind, sources, gaps = await _blind(tx, services, within, now=now)

    def work() -> Mapping[str, Sequence[MeasuredDay]]:
        return {
            each.name: measured(
                [
                    Watched(
                        [i.span for one in failing.get(service, ()) for i in one.intervals if i.impact > 0],
                        planned.get(service, ()),
                    )
                    for service in each.services
                ],
                [
                    *gaps,
                    *(span for span, of in blind if _concerns(of, each.services, sources)),
                    Span(within.start, min((since[one] for one in each.services if one in since), default=now)),
                ],
                days,
                now=now,
            )
            for each in components
        }

    return await off_loop(work)


def _whole(days: Sequence[date]) -> Span:
    return Span(span_of(days[0]).start, span_of(days[-1]).end)


def _concerns(of: frozenset[int], services: Iterable[str], sources: Mapping[str, frozenset[int]]) -> bool:
    """Whether a failure of the monitoring of these sources hides failures of the services. If it is not known which
    sources report them, any does.
    """
    reporting = frozenset[int]().union(*(sources.get(service, frozenset()) for service in services))
    return not reporting or not of or bool(of & reporting)


async def _blind(
    tx: AsyncConnection, services: Sequence[str], within: Span, *, now: datetime
) -> tuple[list[tuple[Span, frozenset[int]]], Mapping[str, frozenset[int]], list[Span]]:
    """Failures of the monitoring with their sources, the sources of each service, and times in which nothing ran."""
    parameters = {"start": within.start, "end": within.end, "people": MANUAL_SOURCE_ID}
    rows = await tx.execute(_MONITORING, parameters)
    blind = [
        (Span(row.began_at, row.ended_at or within.end), frozenset(row.source_ids) - {MANUAL_SOURCE_ID}) for row in rows
    ]
    sources: dict[str, set[int]] = defaultdict(set)
    # Always over the same days: otherwise a day would change with how many days are measured together with it.
    start = span_of(days_until(now, DAYS)[0]).start
    for service, source in await tx.execute(_SOURCES, {**parameters, "start": start, "services": services}):
        sources[service].add(source)
    gaps = [Span(*row) for row in await tx.execute(_GAPS, {"start": within.start, "end": within.end})]
    return blind, {service: frozenset(each) for service, each in sources.items()}, gaps


_MONITORING = text("""
    SELECT began_at, ended_at, source_ids
      FROM incident
     WHERE merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND alert_class = 'monitoring'
       AND (ended_at IS NULL OR ended_at BETWEEN :start AND 'infinity')
       AND began_at < :end
""")

_SOURCES = text("""
    SELECT DISTINCT coalesce(service_stated, service), source
      FROM incident, unnest(source_ids) AS source
     WHERE merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND alert_class <> 'monitoring'
       AND coalesce(service_stated, service) = ANY(CAST(:services AS text[]))
       AND began_at BETWEEN :start AND :end
       AND source <> :people
""")

_GAPS = text("""
    SELECT begins_at, ends_at
      FROM watch_gap
     WHERE begins_at < :end
       AND ends_at > :start
""")

_STORE = text("""
    INSERT INTO component_day (component, day, watched_seconds, down_seconds)
    SELECT component, day, watched_seconds, down_seconds
      FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS known (component text, day date, watched_seconds integer, down_seconds integer)
        ON CONFLICT (component, day)
        DO UPDATE SET watched_seconds = excluded.watched_seconds,
                      down_seconds = excluded.down_seconds
                WHERE (component_day.watched_seconds, component_day.down_seconds)
                      IS DISTINCT FROM (excluded.watched_seconds, excluded.down_seconds)
""")
