"""When incidents were reviewed and ready, derived from their reviews and action items.

A review is stored with an incident as it was, and follows merges when it is read: what was merged into an incident
counts as that incident. After a split, each part has been reviewed with the whole.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import text

from app.base.db import Transaction
from app.base.db.recordset import as_json
from app.incidents.grouping.batch import Batch


async def move_reviews(tx: Transaction, batch: Batch) -> None:
    """After a split, a review of the whole is a review of each part."""
    parts = [{"origin": origin, "part": part.id} for origin, parts in batch.split.items() for part in parts]
    if parts:
        await tx.execute(_SPLIT_REVIEWS, {"rows": as_json(parts)})


async def derive_reviewed(tx: Transaction, incidents: Collection[UUID]) -> Sequence[UUID]:
    """Sets `reviewed_at`, `ready_at` and `review_planned` of these incidents; returns those that changed.

    Reviewed: when the first of its reviews was held. Ready: when the last of them was published and the last action
    item done or dropped; never while one is missing. Dropped reviews do not count.
    """
    return [id_ for (id_,) in await tx.execute(_DERIVE, {"ids": list(incidents)})]


_SPLIT_REVIEWS = text("""
    INSERT INTO review_incident (review_id, incident_id)
    SELECT review_incident.review_id, part.part
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS part (origin uuid, part uuid)
      JOIN incident AS known
        ON known.id = part.origin
        OR known.merged_into = part.origin
      JOIN review_incident ON review_incident.incident_id = known.id
        ON CONFLICT DO NOTHING
""")

_DERIVE = text("""
    WITH known AS MATERIALIZED (
        SELECT id
          FROM incident
         WHERE id = ANY(CAST(:ids AS uuid[]))
           AND merged_into IS NULL
    ), member AS MATERIALIZED (
        SELECT id AS living, id
          FROM known
         UNION ALL
        SELECT known.id, incident.id
          FROM known
          JOIN incident ON incident.merged_into = known.id
    ), reviewed AS MATERIALIZED (
        SELECT DISTINCT member.living, review.id, review.state, review.held_at, review.published_at
          FROM member
          JOIN review_incident ON review_incident.incident_id = member.id
          JOIN review ON review.id = review_incident.review_id
         WHERE review.state <> 'dropped'
    ), item AS (
        SELECT reviewed.living, action_item.closed_at
          FROM reviewed
          JOIN action_item ON action_item.review_id = reviewed.id
         UNION ALL
        SELECT member.living, action_item.closed_at
          FROM member
          JOIN action_item ON action_item.incident_id = member.id
         WHERE action_item.review_id IS NULL
    ), items AS (
        SELECT living, max(closed_at) AS closed_at, bool_or(closed_at IS NULL) AS any_open
          FROM item
         GROUP BY living
    ), fact AS (
        SELECT known.id, min(reviewed.held_at) AS reviewed_at,
               CASE WHEN bool_and(reviewed.published_at IS NOT NULL) AND NOT coalesce(bool_or(items.any_open), false)
                    THEN greatest(max(reviewed.published_at), max(items.closed_at)) END AS ready_at,
               coalesce(bool_or(reviewed.state = 'draft') AND min(reviewed.held_at) IS NULL, false) AS review_planned
          FROM known
          LEFT JOIN reviewed ON reviewed.living = known.id
          LEFT JOIN items ON items.living = known.id
         GROUP BY known.id
    )
    UPDATE incident
       SET reviewed_at = fact.reviewed_at,
           ready_at = fact.ready_at,
           review_planned = fact.review_planned,
           version = incident.version + 1
      FROM fact
     WHERE incident.id = fact.id
       AND (incident.reviewed_at, incident.ready_at, incident.review_planned)
           IS DISTINCT FROM (fact.reviewed_at, fact.ready_at, fact.review_planned)
    RETURNING incident.id
""")
