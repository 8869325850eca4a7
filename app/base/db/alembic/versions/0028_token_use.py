"""When a token expires, and when it was last used.

Revision 0028, after 0027
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE token ADD COLUMN IF NOT EXISTS expires_at timestamptz")
    op.execute("ALTER TABLE token ADD COLUMN IF NOT EXISTS last_used_at timestamptz")


def downgrade() -> None:
    op.drop_column("token", "last_used_at")
    op.drop_column("token", "expires_at")
