"""What follows from incidents: merges, splits and, as long as no person has stated them, times of public incidents."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


async def follow(tx: AsyncConnection, *, now: datetime, id_: UUID | None = None) -> int:
    """Public incidents (one, or all) follow merges and splits of their incidents, and their times follow those of the
    incidents as long as no person has stated them. Returns how many times changed.
    """
    await tx.execute(_FOLLOW_INCIDENTS, {"id": id_})
    return (await tx.execute(_FOLLOW_TIMES, {"id": id_, "now": now})).rowcount


# The entries of the timeline move with merges and splits; a public incident stays with that of its first update.
_FOLLOW_INCIDENTS = text("""
    UPDATE public_incident
       SET incident_id = known.incident_id
      FROM (
            SELECT public.id, coalesce(incident.merged_into, incident.id) AS incident_id
              FROM public_incident AS public
              LEFT JOIN LATERAL (
                    SELECT entry
                      FROM public_update
                     WHERE public_incident_id = public.id
                       AND entry IS NOT NULL
                     ORDER BY at, recorded_at, id
                     LIMIT 1
                   ) AS first ON true
              LEFT JOIN timeline ON timeline.id = first.entry
              JOIN incident ON incident.id = coalesce(timeline.incident_id, public.incident_id)
             WHERE public.incident_id IS NOT NULL
               AND (CAST(:id AS uuid) IS NULL OR public.id = :id)
           ) AS known
     WHERE public_incident.id = known.id
       AND public_incident.incident_id <> known.incident_id
""")

# A problem begins with its incident, not with the first update, and ends with it, not with the last. If people
# published that it is back after the incident had ended, it ends when they say so.
_FOLLOW_TIMES = text("""
    WITH word AS (
        SELECT public_incident_id, at, status,
               status IN ('resolved', 'completed') AS is_over,
               lag(status) OVER earlier IN ('resolved', 'completed') AS was_over,
               count(*) FILTER (WHERE status NOT IN ('resolved', 'completed')) OVER later = 0 AS stays_over
          FROM public_update
         WHERE CAST(:id AS uuid) IS NULL OR public_incident_id = :id
        WINDOW earlier AS (PARTITION BY public_incident_id ORDER BY at, recorded_at, id),
               later AS (PARTITION BY public_incident_id ORDER BY at DESC, recorded_at DESC, id DESC)
    ), published AS (
        SELECT public_incident_id, min(at) AS first_at,
               min(at) FILTER (WHERE status = 'in_progress') AS started_at,
               max(at) FILTER (WHERE was_over AND NOT is_over) AS back_at,
               min(at) FILTER (WHERE stays_over) AS over_at
          FROM word
         GROUP BY public_incident_id
    ), known AS (
        SELECT public.id,
               CASE WHEN published.back_at > incident.ended_at THEN published.over_at
                    WHEN published.over_at IS NOT NULL THEN coalesce(incident.ended_at, published.over_at)
                    END AS ends_at,
               CASE WHEN public.kind = 'maintenance' THEN least(public.begins_at, published.started_at)
                    WHEN public.begins_at_stated THEN public.begins_at
                    ELSE coalesce(incident.impact_started_at, incident.detected_at_stated, incident.began_at,
                                  published.first_at) END AS begins_at
          FROM public_incident AS public
          JOIN published ON published.public_incident_id = public.id
          LEFT JOIN incident ON incident.id = public.incident_id
    ), fact AS (
        SELECT known.id, known.begins_at,
               CASE WHEN known.ends_at IS NOT NULL
                    THEN greatest(known.begins_at, CASE WHEN public.ends_at_stated THEN public.ends_at
                                                        ELSE known.ends_at END)
                    END AS ends_at
          FROM known
          JOIN public_incident AS public ON public.id = known.id
    )
    UPDATE public_incident
       SET begins_at = fact.begins_at,
           ends_at = fact.ends_at,
           ends_at_stated = public_incident.ends_at_stated AND fact.ends_at IS NOT NULL,
           updated_at = :now
      FROM fact
     WHERE public_incident.id = fact.id
       AND (public_incident.begins_at, public_incident.ends_at) IS DISTINCT FROM (fact.begins_at, fact.ends_at)
""")
