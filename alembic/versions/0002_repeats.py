"""A repeat is no longer counted in its alert: a row that does not change costs nothing.

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
    op.drop_column("alert", "repeats")


def downgrade() -> None:
    op.add_column("alert", sa.Column("repeats", sa.Integer(), server_default="0", nullable=False))
    op.alter_column("alert", "repeats", server_default=None)
