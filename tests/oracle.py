"""Compares the incidents in a database with those derived from its alerts by pure code."""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.incidents.grouping import lifecycle
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.grouping.signal import End, EndReason

Span = tuple[UUID, datetime, datetime | None]


async def assert_lawful(engine: AsyncEngine) -> None:
    """The stored incidents equal those that the pure grouping code derives from the stored alerts."""
    stored, lawful = await courses_in(engine), await courses_by_law(engine)
    # By key, so that a failure shows the wrong incidents and not ten thousand correct ones.
    assert {key: stored.get(key) for key in stored.keys() | lawful.keys() if stored.get(key) != lawful.get(key)} == {}
    await assert_consistent(engine)


async def courses_by_law(engine: AsyncEngine) -> dict[UUID, list[lifecycle.Course]]:
    by_key: dict[UUID, list[lifecycle.Alert]] = defaultdict(list)
    async with engine.connect() as connection:
        for row in await connection.execute(_ALERTS):
            by_key[row.key_id].append(
                lifecycle.Alert(
                    row.series,
                    row.started_at,
                    End(row.ended_at, EndReason(row.end_reason)) if row.ended_at else None,
                    timedelta(seconds=row.window_seconds),
                    timedelta(seconds=row.max_span_seconds),
                    row.severity,
                    row.source_id == MANUAL_SOURCE_ID,
                    row.impact_started_at_reported,
                )
            )
    return {
        key: [lifecycle.course_of(group) for group in lifecycle.incidents_of(alerts)] for key, alerts in by_key.items()
    }


_ALERTS = text("""
    SELECT series, started_at, ended_at, end_reason, window_seconds, max_span_seconds, severity, source_id,
           impact_started_at_reported, key_id
      FROM alert
""")


async def courses_in(engine: AsyncEngine) -> dict[UUID, list[lifecycle.Course]]:
    stored: dict[UUID, list[lifecycle.Course]] = defaultdict(list)
    async with engine.connect() as connection:
        for row in await connection.execute(_INCIDENTS):
            stored[row.key_id].append(
                lifecycle.Course(
                    began_at=row.began_at,
                    last_start_at=row.last_start_at,
                    stretch_began_at=row.stretch_began_at,
                    first_ended_at=row.first_ended_at,
                    last_end=End(row.last_end_at, EndReason(row.end_reason)) if row.last_end_at else None,
                    reach_at=row.reach_at,
                    reopened=row.reopened,
                    alerts=row.alerts,
                    open_alerts=row.open_alerts,
                    severity=row.severity,
                    impact_started_at_reported=row.impact_started_at_reported,
                )
            )
    return dict(stored)


async def spans_in(engine: AsyncEngine) -> list[Span]:
    return await _spans(engine, _INCIDENTS)


async def spans_by_range_agg(engine: AsyncEngine, window: timedelta) -> list[Span]:
    """The grouping in one line of SQL; all alerts must have this window."""
    return await _spans(engine, _RANGE_AGG, window=window)


async def _spans(engine: AsyncEngine, query: Any, **parameters: object) -> list[Span]:
    async with engine.connect() as connection:
        return [(row.key_id, row.began_at, row.ended_at) for row in await connection.execute(query, parameters)]


_INCIDENTS = text("""
    SELECT * FROM incident WHERE merged_into IS NULL ORDER BY key_id, began_at
""")

_RANGE_AGG = text("""
    SELECT key_id, lower(component) AS began_at, upper(component) - :window AS ended_at
      FROM (SELECT key_id, unnest(range_agg(tstzrange(started_at, ended_at + :window, '[]'))) AS component
              FROM alert
             GROUP BY key_id) AS components
     ORDER BY key_id, began_at
""")


async def assert_consistent(engine: AsyncEngine) -> None:
    """Each alert belongs to the one live incident that covers its time; merged incidents lead to a live one."""
    async with engine.connect() as connection:
        assert (await connection.execute(_STRAYS)).scalar_one() == 0
        assert (await connection.execute(_LOST)).scalar_one() == 0


_STRAYS = text("""
    SELECT count(*)
      FROM alert
      LEFT JOIN incident
        ON incident.id = alert.incident_id
       AND incident.key_id = alert.key_id
       AND incident.merged_into IS NULL
       AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
     WHERE incident.id IS NULL
""")

_LOST = text("""
    SELECT count(*)
      FROM incident AS loser
      LEFT JOIN incident AS winner ON winner.id = loser.merged_into AND winner.merged_into IS NULL
     WHERE loser.merged_into IS NOT NULL
       AND winner.id IS NULL
""")
