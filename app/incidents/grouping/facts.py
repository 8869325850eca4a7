"""When incidents are merged or split, moves the facts that people recorded to the right incident."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text

from app.base.db import Transaction
from app.base.db.recordset import as_json
from app.incidents.grouping.batch import Batch
from app.incidents.grouping.reviewed import derive_reviewed, move_reviews
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind


async def move_facts(tx: Transaction, batch: Batch) -> None:
    """After a merge all facts belong to the winner; after a split, each belongs to the part that contains its time."""
    # Splits first: a part that is split off an incident that is then merged must take its facts along.
    if batch.split:
        split_off = [
            {"origin": origin, "part": part.id, "began_at": part.state.began_at}
            for origin, parts in batch.split.items()
            for part in parts
        ]
        await tx.execute(_SPLIT_FACTS, {"rows": as_json(split_off)})
        whole = [
            {"origin": origin, "part": part.id, "ended_at": part.state.ended_at}
            for origin, parts in batch.split.items()
            for part in (batch.incidents[origin], *parts)
        ]
        await tx.execute(_SPLIT_STATED, {"rows": as_json(whole)})
        await tx.execute(_SPLIT_RELATIONS, {"rows": as_json(split_off)})
        await move_reviews(tx, batch)
    merged = [{"loser": loser, "winner": winner} for loser, winner in batch.merged.items()]
    if merged:
        await tx.execute(_MERGE_FACTS, {"rows": as_json(merged)})
        await tx.execute(_MERGE_INCIDENTS, {"rows": as_json(merged), "now": batch.now})
    split = {part.id for parts in batch.split.values() for part in parts}
    survivors = set(batch.merged.values()) | set(batch.split) | split
    await derive_facts(tx, survivors - batch.merged.keys())
    await derive_reviewed(tx, survivors - batch.merged.keys())


async def derive_facts(tx: Transaction, incidents: Collection[UUID]) -> None:
    """Derives acknowledgement, declaration and milestones of these incidents from their timelines."""
    await tx.execute(_DERIVE_FACTS, {"ids": list(incidents)})


_IS_DETECTED = "timeline.at >= coalesce(known.detected_at_stated, known.began_at)"
_COUNTS_AS_ACKNOWLEDGEMENT = f"kind = '{TimelineKind.ACKNOWLEDGED}' AND {_IS_DETECTED}"
_COUNTS_AS_DECLARATION = f"kind = '{TimelineKind.DECLARED}' AND {_IS_DETECTED}"

# The name of the source that reported an entry, or how a person recorded it here.
_VIA = "coalesce(timeline.detail ->> 'source', timeline.detail ->> 'via')"

_MERGE_FACTS = text("""
    UPDATE timeline
       SET incident_id = merged.winner
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS merged (loser uuid, winner uuid)
     WHERE timeline.incident_id = merged.loser
""")

# Facts stated for the winner take precedence over those stated for the loser.
_MERGE_INCIDENTS = text("""
    WITH merged AS (
        SELECT *
          FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS merged (loser uuid, winner uuid)
    ), stated AS (
        SELECT merged.winner,
               (array_agg(title_stated ORDER BY number) FILTER (WHERE title_stated IS NOT NULL))[1] AS title_stated,
               (array_agg(service_stated ORDER BY number) FILTER (WHERE service_stated IS NOT NULL))[1]
                   AS service_stated,
               min(severity_stated) AS severity_stated,
               max(impact_stated) AS impact_stated,
               min(impact_started_at_stated) AS impact_started_at_stated,
               min(detected_at_stated) AS detected_at_stated,
               bool_or(harmed_throughout_stated) AS harmed_throughout_stated,
               (array_agg(type_stated ORDER BY number) FILTER (WHERE type_stated IS NOT NULL))[1] AS type_stated,
               bool_or(expected_to_last_stated) AS expected_to_last_stated,
               bool_and(test_stated IS TRUE) AS all_tests,
               bool_or(declared) AS declared
          FROM merged
          JOIN incident ON incident.id = merged.loser
         GROUP BY merged.winner
    ), gone AS (
        UPDATE incident
           SET merged_into = merged.winner,
               version = version + 1,
               updated_at = CAST(:now AS timestamptz)
          FROM merged
         WHERE incident.id = merged.loser
            OR incident.merged_into = merged.loser
    )
    UPDATE incident
       SET title_stated = coalesce(incident.title_stated, stated.title_stated),
           service_stated = coalesce(incident.service_stated, stated.service_stated),
           severity_stated = coalesce(incident.severity_stated, stated.severity_stated),
           impact_stated = coalesce(incident.impact_stated, stated.impact_stated),
           -- Ignore a stated detection later than the first alert of the merged incident.
           detected_at_stated = CASE WHEN incident.detected_at_stated IS NOT NULL
                                       OR stated.detected_at_stated > incident.began_at
                                     THEN incident.detected_at_stated
                                     ELSE stated.detected_at_stated END,
           impact_started_at_stated = least(incident.impact_started_at_stated, stated.impact_started_at_stated),
           harmed_throughout_stated = coalesce(incident.harmed_throughout_stated, stated.harmed_throughout_stated),
           type_stated = coalesce(incident.type_stated, stated.type_stated),
           expected_to_last_stated = coalesce(incident.expected_to_last_stated, stated.expected_to_last_stated),
           -- What is not a test counts, so it makes the whole count.
           test_stated = incident.test_stated AND stated.all_tests,
           declared = incident.declared OR stated.declared
      FROM stated
     WHERE incident.id = stated.winner
""")

_SPLIT_FACTS = text("""
    WITH part AS (
        SELECT *
          FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS part (origin uuid, part uuid, began_at timestamptz)
    )
    UPDATE timeline
       SET incident_id = (SELECT part.part
                            FROM part
                           WHERE part.origin = timeline.incident_id
                             AND part.began_at <= timeline.at
                           ORDER BY part.began_at DESC
                           LIMIT 1)
     WHERE timeline.incident_id IN (SELECT origin FROM part)
       AND timeline.at >= (SELECT min(part.began_at) FROM part WHERE part.origin = timeline.incident_id)
""")

# Facts stated for the whole incident apply to each part, but a stated time belongs only to the first part that ends at
# or after it, or else to the last part.
_SPLIT_STATED = text("""
    WITH part AS (
        SELECT *
          FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS part (origin uuid, part uuid, ended_at timestamptz)
    ), ranked AS (
        SELECT part.*, coalesce(ended_at, 'infinity') AS until,
               lead(part) OVER (PARTITION BY origin ORDER BY ended_at NULLS LAST) IS NULL AS last,
               coalesce(lag(ended_at) OVER (PARTITION BY origin ORDER BY ended_at NULLS LAST), '-infinity') AS since
          FROM part
    ), stated AS (
        SELECT ranked.part, origin.title_stated, origin.service_stated, origin.severity_stated, origin.impact_stated,
               origin.harmed_throughout_stated, origin.type_stated, origin.expected_to_last_stated, origin.test_stated,
               CASE WHEN origin.impact_started_at_stated > since
                     AND (origin.impact_started_at_stated <= until OR last)
                    THEN origin.impact_started_at_stated END AS impact_started_at_stated,
               CASE WHEN origin.detected_at_stated > since
                     AND (origin.detected_at_stated <= until OR last)
                    THEN origin.detected_at_stated END AS detected_at_stated
          FROM ranked
          JOIN incident AS origin ON origin.id = ranked.origin
    )
    UPDATE incident
       SET title_stated = stated.title_stated,
           service_stated = stated.service_stated,
           severity_stated = stated.severity_stated,
           impact_stated = stated.impact_stated,
           harmed_throughout_stated = stated.harmed_throughout_stated,
           type_stated = stated.type_stated,
           expected_to_last_stated = stated.expected_to_last_stated,
           test_stated = stated.test_stated,
           impact_started_at_stated = stated.impact_started_at_stated,
           detected_at_stated = stated.detected_at_stated
      FROM stated
     WHERE incident.id = stated.part
""")

# What a person marked as related to the whole incident is related to each part.
_SPLIT_RELATIONS = text("""
    WITH part AS (
        SELECT *
          FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS part (origin uuid, part uuid)
    ), related AS (
        SELECT part.part, CASE WHEN known.id = relation.incident_id THEN relation.other_id
                               ELSE relation.incident_id END AS other_id
          FROM part
          JOIN incident AS known
            ON known.id = part.origin
            OR known.merged_into = part.origin
          JOIN incident_relation AS relation
            ON relation.incident_id = known.id
            OR relation.other_id = known.id
    )
    INSERT INTO incident_relation (incident_id, other_id)
    SELECT least(part, other_id), greatest(part, other_id)
      FROM related
        ON CONFLICT DO NOTHING
""")

# The earliest acknowledgement and declaration at or after detection count, and of the milestones of a kind the one
# stated last: correcting an earlier one does not state it anew.
_DERIVE_FACTS = text(f"""
    UPDATE incident
       SET acknowledged_at = fact.acknowledged_at,
           acknowledged_by = fact.acknowledged_by,
           acknowledged_via = fact.acknowledged_via,
           declared_at = fact.declared_at,
           first_public_at = fact.first_public_at,
           identified_at = fact.identified_at,
           mitigated_at = fact.mitigated_at
      FROM (SELECT known.id,
                   min(timeline.at) FILTER (WHERE {_COUNTS_AS_ACKNOWLEDGEMENT}) AS acknowledged_at,
                   (array_agg(timeline.by ORDER BY timeline.at, timeline.by, {_VIA})
                       FILTER (WHERE {_COUNTS_AS_ACKNOWLEDGEMENT}))[1] AS acknowledged_by,
                   (array_agg({_VIA} ORDER BY timeline.at, timeline.by, {_VIA})
                       FILTER (WHERE {_COUNTS_AS_ACKNOWLEDGEMENT}))[1] AS acknowledged_via,
                   min(timeline.at) FILTER (WHERE {_COUNTS_AS_DECLARATION}) AS declared_at,
                   min(timeline.at) FILTER (WHERE kind = '{TimelineKind.PUBLISHED}') AS first_public_at,
                   (array_agg(timeline.at ORDER BY coalesce(timeline.corrects, timeline.id) DESC)
                       FILTER (WHERE kind = '{TimelineKind.IDENTIFIED}'))[1] AS identified_at,
                   (array_agg(timeline.at ORDER BY coalesce(timeline.corrects, timeline.id) DESC)
                       FILTER (WHERE kind = '{TimelineKind.MITIGATED}'))[1] AS mitigated_at
              FROM incident AS known
              LEFT JOIN timeline
                ON timeline.incident_id = known.id
               AND timeline.kind IN ('{TimelineKind.ACKNOWLEDGED}', '{TimelineKind.DECLARED}',
                                     '{TimelineKind.IDENTIFIED}', '{TimelineKind.MITIGATED}',
                                     '{TimelineKind.PUBLISHED}')
               AND {IS_CURRENT}
             WHERE known.id = ANY(CAST(:ids AS uuid[]))
             GROUP BY known.id) AS fact
     WHERE incident.id = fact.id
""")
