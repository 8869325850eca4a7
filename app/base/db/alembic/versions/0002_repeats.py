"""Repeats change no row, and the newest incident of a key is found by no other index.

The column stays for the version before, which still writes it. The index is made while incidents wait for it: they are
few, and made CONCURRENTLY it would wait for the processes that wait for this migration.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("alert", "repeats", server_default="0")
    _index_by_key("DESC NULLS LAST")


def downgrade() -> None:
    _index_by_key("DESC")
    op.alter_column("alert", "repeats", server_default=None)


def _index_by_key(order: str) -> None:
    op.drop_index("incident_by_key", table_name="incident")
    op.create_index(
        "incident_by_key",
        "incident",
        ["key_id", sa.literal_column(f"began_at {order}")],
        postgresql_where=sa.text("merged_into IS NULL"),
    )
