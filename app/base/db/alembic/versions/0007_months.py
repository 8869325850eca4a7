"""Alerts and deliveries by month: the table that was becomes the partition of the past, without a row being copied.

While the past is attached each of its starts is looked at, and the doors wait; the senders' next try bridges that.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE alert RENAME TO alert_past")
    op.execute("ALTER TABLE alert_past RENAME CONSTRAINT alert_pkey TO alert_past_pkey")
    op.execute("ALTER INDEX alert_by_key RENAME TO alert_past_by_key")
    op.execute(
        """
        CREATE TABLE alert (LIKE alert_past INCLUDING ALL EXCLUDING INDEXES, CONSTRAINT alert_pkey PRIMARY KEY (series, started_at))
         PARTITION BY RANGE (started_at)
        """
    )
    op.execute("CREATE INDEX alert_by_key ON alert (key_id, started_at)")
    op.execute("ALTER TABLE delivery RENAME TO delivery_past")
    op.execute("ALTER TABLE delivery_past DROP CONSTRAINT delivery_pkey")
    op.execute("ALTER TABLE delivery_past ADD CONSTRAINT delivery_past_pkey PRIMARY KEY (id, received_at)")
    op.execute(
        """
        CREATE TABLE delivery (LIKE delivery_past INCLUDING ALL EXCLUDING INDEXES, CONSTRAINT delivery_pkey PRIMARY KEY (id, received_at))
         PARTITION BY RANGE (received_at)
        """
    )
    # Until the end of this month, so that all there is fits; the service makes the months to come.
    for table in ("alert", "delivery"):
        op.execute(
            f"""
            DO $$
            BEGIN
                EXECUTE format(
                    'ALTER TABLE {table} ATTACH PARTITION {table}_past FOR VALUES FROM (MINVALUE) TO (%L)',
                    date_trunc('month', now() + interval '1 day', 'UTC') + interval '1 month');
            END
            $$
            """
        )


def downgrade() -> None:
    for table, key in (("alert", "series, started_at"), ("delivery", "id")):
        op.execute(f"CREATE TABLE {table}_whole (LIKE {table} INCLUDING ALL EXCLUDING INDEXES)")
        op.execute(f"INSERT INTO {table}_whole SELECT * FROM {table}")  # noqa: S608
        op.execute(f"DROP TABLE {table}")
        op.execute(f"ALTER TABLE {table}_whole RENAME TO {table}")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY ({key})")
    op.execute("ALTER TABLE alert SET (fillfactor = 85)")
    op.execute("CREATE INDEX alert_by_key ON alert (key_id, started_at)")
