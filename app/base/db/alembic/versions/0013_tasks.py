"""Tasks in the timeline, and the keys with which notes and tasks are recorded only once.

While the version before runs beside this one, it shows tasks as other entries, but cannot correct or withdraw them.

Revision 0013, after 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_RULES = {
    "timeline_task_has_an_effect": (
        "kind <> 'task' OR detail ->> 'effect' IN ('positive', 'negative', 'none', 'unknown') IS TRUE"
    ),
    "timeline_key_has_its_incident": "(idempotency_key IS NULL) = (sent_to IS NULL)",
}


def upgrade() -> None:
    # Can be repeated: if building the index is interrupted, what comes before it is there already.
    op.execute("""
        ALTER TABLE timeline
          ADD COLUMN IF NOT EXISTS idempotency_key text,
          ADD COLUMN IF NOT EXISTS sent_to uuid
    """)
    for name, rule in _RULES.items():
        op.execute(f"ALTER TABLE timeline DROP CONSTRAINT IF EXISTS {name}")
        op.execute(f"ALTER TABLE timeline ADD CONSTRAINT {name} CHECK ({rule}) NOT VALID")
    with op.get_context().autocommit_block():
        for name in _RULES:
            op.execute(f"ALTER TABLE timeline VALIDATE CONSTRAINT {name}")
        op.drop_index("timeline_once_per_key", "timeline", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            "timeline_once_per_key",
            "timeline",
            ["idempotency_key", "sent_to"],
            unique=True,
            postgresql_where=sa.text("idempotency_key IS NOT NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    # Its tasks become notes: the text stays readable.
    for name in _RULES:
        op.execute(f"ALTER TABLE timeline DROP CONSTRAINT IF EXISTS {name}")
    op.execute("UPDATE timeline SET kind = 'note' WHERE kind = 'task'")
    with op.get_context().autocommit_block():
        op.drop_index("timeline_once_per_key", "timeline", postgresql_concurrently=True, if_exists=True)
    op.execute("""
        ALTER TABLE timeline
         DROP COLUMN IF EXISTS idempotency_key,
         DROP COLUMN IF EXISTS sent_to
    """)
