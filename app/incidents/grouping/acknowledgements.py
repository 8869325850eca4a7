"""Places acknowledgements that sources report in the timelines of incidents.

Each belongs to the incident of the newest alert of its series that began at or before it, whatever the order of
arrival. `place_acknowledgements` must therefore run whenever alerts begin or move to another incident.
"""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from app.base.db import Executor
from app.base.db.recordset import as_json
from app.incidents.grouping.facts import derive_facts
from app.incidents.grouping.timeline import TimelineKind


async def place_acknowledgements(
    tx: Executor, series: Collection[UUID], incidents: Collection[UUID], *, now: datetime
) -> int:
    """Places the acknowledgements of these series and incidents; returns how many settled incidents it changed."""
    wanted = {*series}
    if incidents:
        wanted |= {row[0] for row in await tx.execute(_SERIES, {"incidents": list(incidents)})}
    if not wanted:
        return 0
    found = [*await tx.execute(_MISPLACED, {"series": list(wanted)})]
    if not found:
        return 0
    new, moved, changed = [], [], set()
    for one, at, by, timeline_id, was, now_of in found:
        changed |= {now_of} if was is None else {was, now_of}
        if timeline_id is None:
            new.append({"series": one, "at": at, "by": by, "incident_id": now_of})
        else:
            moved.append({"timeline_id": timeline_id, "incident_id": now_of})
    if new:
        await tx.execute(_ADD_ENTRIES, {"rows": as_json(new), "now": now, "kind": TimelineKind.ACKNOWLEDGED.value})
    if moved:
        await tx.execute(_MOVE_ENTRIES, {"rows": as_json(moved)})
    await derive_facts(tx, changed)
    settled = [row[0] for row in await tx.execute(_MARK_CHANGED, {"ids": list(changed), "now": now})]
    return sum(settled)


_SERIES = text("""
    SELECT DISTINCT acknowledgement.series
      FROM timeline
      JOIN acknowledgement ON acknowledgement.timeline_id = timeline.id
     WHERE timeline.incident_id = ANY(CAST(:incidents AS uuid[]))
""")

_MISPLACED = text("""
    SELECT acknowledgement.series, acknowledgement.at, acknowledgement.by, acknowledgement.timeline_id,
           timeline.incident_id, target.incident_id
      FROM acknowledgement
      LEFT JOIN timeline ON timeline.id = acknowledgement.timeline_id
     CROSS JOIN LATERAL (SELECT alert.incident_id
                           FROM alert
                          WHERE alert.series = acknowledgement.series
                            AND alert.started_at <= acknowledgement.at
                          ORDER BY alert.started_at DESC
                          LIMIT 1) AS target
     WHERE acknowledgement.series = ANY(CAST(:series AS uuid[]))
       AND target.incident_id IS DISTINCT FROM timeline.incident_id
""")

_ADD_ENTRIES = text("""
    WITH wanted AS MATERIALIZED (
        SELECT nextval(pg_get_serial_sequence('timeline', 'id')) AS id, new.*
          FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (
               series uuid, at timestamptz, by text, incident_id uuid)
    ), added AS (
        INSERT INTO timeline (id, incident_id, at, recorded_at, kind, by)
        SELECT id, incident_id, at, CAST(:now AS timestamptz), CAST(:kind AS text), nullif(by, '')
          FROM wanted
    )
    UPDATE acknowledgement
       SET timeline_id = wanted.id
      FROM wanted
     WHERE acknowledgement.series = wanted.series
       AND acknowledgement.at = wanted.at
       AND acknowledgement.by = wanted.by
""")

_MOVE_ENTRIES = text("""
    UPDATE timeline
       SET incident_id = moved.incident_id
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS moved (timeline_id bigint, incident_id uuid)
     WHERE timeline.id = moved.timeline_id
""")

_MARK_CHANGED = text("""
    UPDATE incident
       SET version = version + 1,
           updated_at = CAST(:now AS timestamptz)
     WHERE id = ANY(CAST(:ids AS uuid[]))
    RETURNING settled_at IS NOT NULL
""")
