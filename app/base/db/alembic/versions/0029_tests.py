"""Incidents that people mark as tests.

Revision 0029, after 0028
"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE incident ADD COLUMN IF NOT EXISTS test_stated boolean")


def downgrade() -> None:
    op.drop_column("incident", "test_stated")
