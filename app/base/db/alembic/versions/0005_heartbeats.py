"""heartbeats: rules for dead man's switches, and when each has come last

The law of migrations: the previous version of the service goes on working beside the new schema (add first, remove a
release later); no lock that a door would notice (indexes CONCURRENTLY once there is data, constraints NOT VALID first);
every step can be taken back; `alembic check` finds no difference to app/base/schema/__init__.py afterwards.

Revision 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rule", sa.Column("heartbeat_seconds", sa.Integer(), nullable=True))
    op.create_check_constraint("rule_heartbeat_is_60s_to_a_week", "rule", "heartbeat_seconds BETWEEN 60 AND 604800")
    op.create_check_constraint(
        "rule_of_a_heartbeat_has_matchers", "rule", "heartbeat_seconds IS NULL OR cardinality(matchers) > 0"
    )
    op.create_table(
        "heartbeat",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("returned_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("returned_at >= missing_since", name="heartbeat_returns_after_it_was_missing"),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("heartbeat_source_id_fkey")),
        sa.PrimaryKeyConstraint("source_id", "fingerprint", name=op.f("heartbeat_pkey")),
    )
    op.create_table(
        "feed_watch",
        sa.Column("single", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("round_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("listening_since", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("single", name="feed_watch_is_one_row"),
        sa.PrimaryKeyConstraint("single", name=op.f("feed_watch_pkey")),
    )
    # Prometheus' own heartbeat is repeated as the sender's repeat_interval says, four hours if nobody has set it; ours
    # (deploy/prometheus, deploy/alertmanager) every five minutes. Asked first, whatever other rules there are.
    op.execute(
        """
        INSERT INTO rule (name, position, matchers, key_labels, window_seconds, max_span_seconds, ignored_labels,
                          service_labels, severity_labels, severities, heartbeat_seconds, created_at, updated_at)
        SELECT name, 0, ARRAY[matcher], '{service,environment}', 300, 86400, '{}',
               '{service,app,app_kubernetes_io_name,job,rulename,alertname}', '{severity,priority,level}', '{}',
               heartbeat_seconds, now(), now()
          FROM (VALUES ('watchdog', 'alertname="Watchdog"', 5 * 3600),
                       ('aftermath-heartbeat', 'alertname="AftermathHeartbeat"', 900)
               ) AS usual (name, matcher, heartbeat_seconds)
            ON CONFLICT DO NOTHING
        """
    )


def downgrade() -> None:
    op.execute("DELETE FROM rule WHERE heartbeat_seconds IS NOT NULL")
    op.drop_table("feed_watch")
    op.drop_table("heartbeat")
    op.drop_constraint("rule_of_a_heartbeat_has_matchers", "rule")
    op.drop_constraint("rule_heartbeat_is_60s_to_a_week", "rule")
    op.drop_column("rule", "heartbeat_seconds")
