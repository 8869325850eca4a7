"""Corrections and withdrawals as timeline entries that name the entry they correct, and related incidents.

Milestones corrected so far have a mark in `detail` instead: their correction is the next milestone of the same kind in
the same incident, else a withdrawal is recorded. While the version before runs beside this one, it counts the newest
entry of a milestone and the earliest acknowledgement, withdrawn or not.

Revision 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Can be repeated: if building an index is interrupted, what comes before it is there already.
    op.execute("""
        ALTER TABLE timeline
          ADD COLUMN IF NOT EXISTS corrects bigint,
          ADD COLUMN IF NOT EXISTS corrected_by text,
          ADD COLUMN IF NOT EXISTS why text
    """)
    op.execute("ALTER TABLE timeline DROP CONSTRAINT IF EXISTS timeline_corrects_an_earlier_entry")
    op.execute("""
        ALTER TABLE timeline
          ADD CONSTRAINT timeline_corrects_an_earlier_entry CHECK (corrects < id) NOT VALID
    """)
    op.create_table(
        "incident_relation",
        sa.Column("incident_id", sa.Uuid(), nullable=False),
        sa.Column("other_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("incident_id < other_id", name="incident_relation_is_stored_once"),
        sa.ForeignKeyConstraint(
            ["incident_id"],
            ["incident.id"],
            name="incident_relation_incident_id_fkey",
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.ForeignKeyConstraint(
            ["other_id"], ["incident.id"], name="incident_relation_other_id_fkey", deferrable=True, initially="DEFERRED"
        ),
        sa.PrimaryKeyConstraint("incident_id", "other_id", name="incident_relation_pkey"),
        if_not_exists=True,
    )
    op.create_index("incident_relation_by_other", "incident_relation", ["other_id"], if_not_exists=True)
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE timeline VALIDATE CONSTRAINT timeline_corrects_an_earlier_entry")
        op.drop_index("timeline_of_corrections", "timeline", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            "timeline_of_corrections",
            "timeline",
            ["corrects", "id"],
            postgresql_where=sa.text("corrects IS NOT NULL"),
            postgresql_concurrently=True,
        )
        op.drop_index("incident_merged", "incident", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            "incident_merged",
            "incident",
            ["merged_into"],
            postgresql_where=sa.text("merged_into IS NOT NULL"),
            postgresql_concurrently=True,
        )
    _move_marks()


def _move_marks() -> None:
    # All versions of a fact name its first entry, so a run of corrected milestones names the first of the run.
    op.execute("""
        WITH milestone AS (
            SELECT id, incident_id, kind, detail IS NOT NULL AND jsonb_exists(detail, 'corrected') AS marked
              FROM timeline
             WHERE kind IN ('identified', 'mitigated')
               AND corrects IS NULL
        ), run AS (
            SELECT milestone.*,
                   count(*) FILTER (WHERE NOT marked) OVER (
                       PARTITION BY incident_id, kind ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                   ) AS number
              FROM milestone
        ), chain AS (
            SELECT id, min(id) OVER (PARTITION BY incident_id, kind, number) AS first
              FROM run
        )
        UPDATE timeline
           SET corrects = chain.first,
               corrected_by = timeline.by
          FROM chain
         WHERE timeline.id = chain.id
           AND chain.first < chain.id
    """)
    op.execute("""
        INSERT INTO timeline (incident_id, at, recorded_at, kind, corrects)
        SELECT incident_id, at, recorded_at, 'withdrawn', coalesce(corrects, id)
          FROM timeline
         WHERE kind IN ('identified', 'mitigated')
           AND jsonb_exists(detail, 'corrected')
           AND NOT EXISTS (SELECT
                             FROM timeline AS later
                            WHERE later.corrects = coalesce(timeline.corrects, timeline.id)
                              AND later.id > timeline.id)
    """)
    op.execute("""
        UPDATE timeline
           SET detail = NULL
         WHERE kind IN ('identified', 'mitigated')
           AND jsonb_exists(detail, 'corrected')
    """)


def downgrade() -> None:
    op.execute("""
        UPDATE timeline
           SET detail = coalesce(detail, '{}') || '{"corrected": true}'
         WHERE kind <> 'withdrawn'
           AND EXISTS (SELECT
                         FROM timeline AS later
                        WHERE later.corrects = coalesce(timeline.corrects, timeline.id)
                          AND later.id > timeline.id)
    """)
    op.execute("DELETE FROM timeline WHERE kind = 'withdrawn'")
    with op.get_context().autocommit_block():
        op.drop_index("incident_merged", "incident", postgresql_concurrently=True, if_exists=True)
        op.drop_index("timeline_of_corrections", "timeline", postgresql_concurrently=True, if_exists=True)
    op.drop_table("incident_relation", if_exists=True)
    op.execute("""
        ALTER TABLE timeline
         DROP COLUMN IF EXISTS corrects,
         DROP COLUMN IF EXISTS corrected_by,
         DROP COLUMN IF EXISTS why
    """)
