"""Report times of alerts and of their ends, one column group for each kind of end, and when an end is void.

Every column is nullable or has a default, so the version before keeps working. It writes guessed and inferred ends as
real ones; those written so far are moved.

Revision 0007, after 0005.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None

_TIMES = (
    "fired_at",
    "listed_since",
    "real_end_reported_at",
    "guessed_end_at",
    "guessed_end_reported_at",
    "inferred_end_at",
    "end_reported_at",
)
_REASONS = ("guessed_end_reason", "inferred_end_reason")


def upgrade() -> None:
    op.add_column("source", sa.Column("refire_seconds", sa.Integer(), nullable=False, server_default="900"))
    op.create_check_constraint("source_refire_is_1min_to_1d", "source", "refire_seconds BETWEEN 60 AND 86400")
    # Batches are decided with the setting as loaded with the rules; this makes them reload it.
    op.execute("""
        CREATE TRIGGER rule_version_of_new AFTER INSERT ON source
           FOR EACH ROW WHEN (NEW.refire_seconds <> 900) EXECUTE FUNCTION bump_rule_version()
    """)
    op.execute("""
        CREATE TRIGGER rule_version_of_changed AFTER UPDATE ON source
           FOR EACH ROW WHEN (NEW.refire_seconds <> OLD.refire_seconds) EXECUTE FUNCTION bump_rule_version()
    """)
    op.add_column("incident", sa.Column("fired_after_end_at", sa.DateTime(timezone=True)))
    op.alter_column("incident", "still_firing", server_default="false")
    op.add_column("unmatched_resolve", sa.Column("reported_at", sa.DateTime(timezone=True)))
    op.add_column("reconciler", sa.Column("contradicted", postgresql.JSONB(none_as_null=True)))
    for name in _TIMES:
        op.add_column("alert", sa.Column(name, sa.DateTime(timezone=True)))
    for name in _REASONS:
        op.add_column("alert", sa.Column(name, sa.Text()))
    op.add_column("alert", sa.Column("covered", sa.Boolean(), nullable=False, server_default="false"))
    op.alter_column("alert", "real_end_guessed", server_default="false")
    op.execute("UPDATE alert SET fired_at = date_trunc('minute', last_seen_at, 'UTC') WHERE ended_at IS NULL")
    op.execute("""
        UPDATE alert
           SET inferred_end_at = CASE WHEN real_end_reason IN ('timeout', 'reconciled') THEN real_end_at END,
               inferred_end_reason = CASE WHEN real_end_reason IN ('timeout', 'reconciled') THEN real_end_reason END,
               guessed_end_at = CASE WHEN real_end_reason NOT IN ('timeout', 'reconciled') THEN real_end_at END,
               guessed_end_reason = CASE WHEN real_end_reason NOT IN ('timeout', 'reconciled') THEN real_end_reason END,
               real_end_at = NULL,
               real_end_reason = NULL,
               real_end_guessed = false
         WHERE real_end_guessed
    """)


def downgrade() -> None:
    op.execute("""
        UPDATE alert
           SET real_end_at = coalesce(guessed_end_at, inferred_end_at),
               real_end_reason = coalesce(guessed_end_reason, inferred_end_reason),
               real_end_guessed = true
         WHERE real_end_at IS NULL
           AND coalesce(guessed_end_at, inferred_end_at) IS NOT NULL
    """)
    op.alter_column("alert", "real_end_guessed", server_default=None)
    for name in (*_REASONS, *_TIMES, "covered"):
        op.drop_column("alert", name)
    op.drop_column("reconciler", "contradicted")
    op.drop_column("unmatched_resolve", "reported_at")
    op.alter_column("incident", "still_firing", server_default=None)
    op.drop_column("incident", "fired_after_end_at")
    op.execute("DROP TRIGGER rule_version_of_changed ON source")
    op.execute("DROP TRIGGER rule_version_of_new ON source")
    op.drop_constraint("source_refire_is_1min_to_1d", "source")
    op.drop_column("source", "refire_seconds")
