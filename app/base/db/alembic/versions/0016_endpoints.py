"""Stored requests keep their method and their endpoint, by which some senders tell what a request means.

Revision 0016, after 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stored_request", sa.Column("method", sa.Text(), nullable=False, server_default="POST"))
    op.add_column("stored_request", sa.Column("endpoint", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("stored_request", "endpoint")
    op.drop_column("stored_request", "method")
