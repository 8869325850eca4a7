"""When a required review was counted, so that none is counted again after it was reopened.

Revision 0027, after 0026
"""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE review ADD COLUMN IF NOT EXISTS required_counted_at timestamptz")
    # These were counted when they were held or dropped.
    op.execute("""
        UPDATE review
           SET required_counted_at = coalesce(held_at, updated_at)
         WHERE state <> 'draft'
           AND required_because <> '{}'
    """)


def downgrade() -> None:
    op.drop_column("review", "required_counted_at")
