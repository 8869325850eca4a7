"""Alerts have the time at which they end unless they are reported again; silences of polled Alertmanagers are kept.

The new column is nullable, so the version before keeps working; it has no senders that announce such a time.

Revision 0018, after 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alert", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.create_table(
        "silence",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("matchers", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name="silence_source_id_fkey", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("source_id", "id", "key_id", name="silence_pkey"),
    )
    op.create_index("silence_by_key", "silence", ["key_id", "first_seen_at"])
    op.create_index("silence_by_time", "silence", ["last_seen_at"])


def downgrade() -> None:
    op.drop_table("silence")
    op.drop_column("alert", "expires_at")
