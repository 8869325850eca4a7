"""The states of issues in trackers, and when the state of an action item was last stated.

Revision 0023, after 0021
"""

from alembic import op

revision = "0023"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE action_item ADD COLUMN state_at timestamptz")
    op.execute("""
        CREATE TABLE issue (
            link text NOT NULL,
            state text NOT NULL,
            at timestamptz NOT NULL,
            since timestamptz NOT NULL,
            by text,
            reason text,
            created boolean NOT NULL,
            received_at timestamptz NOT NULL,
            CONSTRAINT issue_pkey PRIMARY KEY (link),
            CONSTRAINT issue_state_is_known CHECK (state IN ('open', 'in_progress', 'done', 'dropped')),
            CONSTRAINT issue_is_dropped_for_a_reason CHECK ((state = 'dropped') = (reason IS NOT NULL)),
            CONSTRAINT issue_was_in_its_state_before_it_was_reported CHECK (since <= at)
        )
    """)
    # So far, only people stated them; a tracker's report from before then must not change them.
    op.execute(
        "UPDATE action_item SET state_at = coalesce(closed_at, updated_at) WHERE state <> 'open' OR reopened > 0"
    )


def downgrade() -> None:
    op.execute("DROP TABLE issue")
    op.execute("ALTER TABLE action_item DROP COLUMN state_at")
