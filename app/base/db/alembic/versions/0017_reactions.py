"""Reactions of people that other tools report, the correlations by which they find alerts, and by which way an incident
was acknowledged.

Acknowledgements that sources reported so far become reactions. Their table stays for the version before: what that
version stores while both run is placed by it alone.

Revision 0017, after 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# Of reactions: the same is stored once. As in app/incidents/history/reactions.py.
_DIGEST = (
    "sha256(convert_to(jsonb_build_array(kind, extract(epoch FROM at), by, note, series, correlation)::text, 'UTF8'))"
)


def upgrade() -> None:
    # Can be repeated: if building an index is interrupted, what comes before it is there already.
    op.execute("ALTER TABLE alert ADD COLUMN IF NOT EXISTS correlations uuid[]")
    op.execute("ALTER TABLE incident ADD COLUMN IF NOT EXISTS acknowledged_via text")
    op.execute("ALTER TABLE source ADD COLUMN IF NOT EXISTS correlation_label text")
    # Batches are decided with the setting as loaded with the rules; this makes them reload it.
    op.execute("""
        CREATE OR REPLACE TRIGGER rule_version_of_correlated AFTER INSERT ON source
           FOR EACH ROW WHEN (NEW.correlation_label IS NOT NULL) EXECUTE FUNCTION bump_rule_version()
    """)
    op.execute("""
        CREATE OR REPLACE TRIGGER rule_version_of_correlation AFTER UPDATE ON source
           FOR EACH ROW WHEN (NEW.correlation_label IS DISTINCT FROM OLD.correlation_label)
           EXECUTE FUNCTION bump_rule_version()
    """)
    op.create_table(
        "reaction",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.Text()),
        sa.Column("note", sa.Text()),
        sa.Column("at_arrival", sa.Boolean(), nullable=False),
        sa.Column("series", sa.Uuid()),
        sa.Column("correlation", sa.Uuid()),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("waits", sa.Boolean(), nullable=False, server_default="true"),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "kind IN ('acknowledged', 'unacknowledged', 'closed', 'note')", name="reaction_kind_is_known"
        ),
        sa.CheckConstraint("series IS NOT NULL OR correlation IS NOT NULL", name="reaction_concerns_an_alert"),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name="reaction_source_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="reaction_pkey"),
        sa.UniqueConstraint("source_id", "digest", name="reaction_is_stored_once"),
        if_not_exists=True,
    )
    for name, columns, where in _INDEXES:
        op.create_index(name, "reaction", columns, postgresql_where=where and sa.text(where), if_not_exists=True)
    op.create_table(
        "removed_entry",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("transaction_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="removed_entry_pkey"),
        if_not_exists=True,
    )
    op.execute("ALTER TABLE timeline ADD COLUMN IF NOT EXISTS reaction_id bigint")
    with op.get_context().autocommit_block():
        op.drop_index("timeline_of_reactions", "timeline", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            "timeline_of_reactions",
            "timeline",
            ["reaction_id"],
            postgresql_where=sa.text("reaction_id IS NOT NULL"),
            postgresql_concurrently=True,
        )
    _move_acknowledgements()


_INDEXES = (
    ("reaction_by_series", ["series"], "series IS NOT NULL"),
    ("reaction_by_correlation", ["correlation"], "correlation IS NOT NULL"),
    ("reaction_by_arrival", ["received_at"], None),
    ("reaction_due", ["due_at"], "due_at IS NOT NULL"),
)


def _move_acknowledgements() -> None:
    op.execute(f"""
        INSERT INTO reaction (digest, kind, at, by, note, at_arrival, series, correlation, source_id, received_at, waits)
        SELECT {_DIGEST}, found.*
          FROM (SELECT 'acknowledged' AS kind, at, nullif(by, '') AS by, CAST(NULL AS text) AS note, false,
                       series, CAST(NULL AS uuid) AS correlation, source_id, received_at, timeline_id IS NULL
                  FROM acknowledgement) AS found
            ON CONFLICT DO NOTHING
    """)  # noqa: S608  the digest is a constant
    op.execute("""
        UPDATE timeline
           SET reaction_id = CASE WHEN timeline.corrects IS NULL THEN reaction.id END,
               detail = jsonb_build_object('source', source.name)
          FROM acknowledgement
          JOIN reaction
            ON reaction.series = acknowledgement.series
           AND reaction.at = acknowledgement.at
           AND coalesce(reaction.by, '') = acknowledgement.by
           AND reaction.source_id = acknowledgement.source_id
          JOIN source ON source.id = acknowledgement.source_id
         WHERE coalesce(timeline.corrects, timeline.id) = acknowledgement.timeline_id
           AND timeline.kind = 'acknowledged'
    """)
    op.execute("""
        UPDATE incident
           SET acknowledged_via = timeline.detail ->> 'source'
          FROM acknowledgement
          JOIN timeline ON acknowledgement.timeline_id IN (timeline.id, timeline.corrects)
         WHERE incident.id = timeline.incident_id
           AND incident.acknowledged_at = timeline.at
           AND incident.acknowledged_by IS NOT DISTINCT FROM timeline.by
    """)


def downgrade() -> None:
    op.drop_index("timeline_of_reactions", "timeline")
    op.drop_column("timeline", "reaction_id")
    op.drop_table("removed_entry")
    op.drop_table("reaction")
    op.execute("DROP TRIGGER rule_version_of_correlation ON source")
    op.execute("DROP TRIGGER rule_version_of_correlated ON source")
    op.drop_column("source", "correlation_label")
    op.drop_column("incident", "acknowledged_via")
    op.drop_column("alert", "correlations")
