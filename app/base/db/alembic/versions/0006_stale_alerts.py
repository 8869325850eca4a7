"""stale alerts: how long a source may not tell of an alert before it has ended

The law of migrations: the previous version of the service goes on working beside the new schema (add first, remove a
release later); no lock that a door would notice (indexes CONCURRENTLY once there is data, constraints NOT VALID first);
every step can be taken back; `alembic check` finds no difference to app/base/schema/__init__.py afterwards.

Revision 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("source", sa.Column("stale_seconds", sa.Integer(), nullable=True))
    op.create_check_constraint("source_stale_is_5min_to_30d", "source", "stale_seconds BETWEEN 300 AND 2592000")


def downgrade() -> None:
    op.drop_constraint("source_stale_is_5min_to_30d", "source")
    op.drop_column("source", "stale_seconds")
