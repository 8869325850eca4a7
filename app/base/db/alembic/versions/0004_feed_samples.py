"""feed samples: what the tallies of a source were, so that there are rates

The law of migrations: the previous version of the service goes on working beside the new schema (add first, remove a
release later); no lock that a door would notice (indexes CONCURRENTLY once there is data, constraints NOT VALID first);
every step can be taken back; `alembic check` finds no difference to app/base/schema/__init__.py afterwards.

Revision 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feed_sample",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tallies", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("open_alerts", sa.Integer(), nullable=False),
        sa.Column("oldest_open_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unrefreshed", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("feed_sample_source_id_fkey")),
        sa.PrimaryKeyConstraint("source_id", "at", name=op.f("feed_sample_pkey")),
    )


def downgrade() -> None:
    op.drop_table("feed_sample")
