"""Alerts that name a deployment are found by an index, one of each partition, made while the doors write.

CONCURRENTLY waits for every statement that is under way. So whoever waits for a migration must not do so within one:
`db.migrate` asks again and again. Of the version before it waits within one, and a process of it that starts just now
stops this migration (PostgreSQL sees the deadlock); the next start does it anew.

Revision 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_COLUMNS = "(started_at, incident_id)"
_NAMING = "CAST(labels AS text) LIKE '%deployment_id%' OR CAST(annotations AS text) LIKE '%deployment_id%'"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # First the whole, which is not valid yet: a partition that comes meanwhile then has its part.
        op.execute("DROP INDEX IF EXISTS alert_naming_a_deployment")
        op.execute(f"CREATE INDEX alert_naming_a_deployment ON ONLY alert {_COLUMNS} WHERE {_NAMING}")
        partitions = sa.text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'alert'::regclass")
        for partition in op.get_bind().execute(partitions).scalars().all():
            part = f"{partition}_naming_a_deployment"
            op.execute(f"DROP INDEX IF EXISTS {part}")  # of an attempt that was cut off
            op.execute(f"CREATE INDEX CONCURRENTLY {part} ON {partition} {_COLUMNS} WHERE {_NAMING}")
            op.execute(f"ALTER INDEX alert_naming_a_deployment ATTACH PARTITION {part}")


def downgrade() -> None:
    op.drop_index("alert_naming_a_deployment", table_name="alert")
