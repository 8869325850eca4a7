"""Sessions of people who have signed in to the pages.

Revision 0012, after 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "web_session",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("token_id", sa.Text(), nullable=True),
        sa.Column("token_digest", sa.LargeBinary(), nullable=False),
        sa.Column("person", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["token.id"], name="web_session_token_id_fkey"),
        sa.PrimaryKeyConstraint("digest", name="web_session_pkey"),
        if_not_exists=True,
    )
    op.create_index("web_session_token_id_idx", "web_session", ["token_id"], if_not_exists=True)
    op.create_index("web_session_expires_at_idx", "web_session", ["expires_at"], if_not_exists=True)


def downgrade() -> None:
    op.drop_table("web_session", if_exists=True)
