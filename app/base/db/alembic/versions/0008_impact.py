"""Impact follows the alerts: the stretches of an incident, harm throughout, and since when a service is in service.

The background job stores the stretches of incidents that have settled before. The version before does not know of them:
a settled incident that it changes meanwhile keeps the stretches it has.

Revision 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Can be repeated: if building the index is interrupted, what comes before it is there already.
    op.execute(
        """
        ALTER TABLE incident
          ADD COLUMN IF NOT EXISTS stretches bytea,
          ADD COLUMN IF NOT EXISTS stretches_current boolean NOT NULL DEFAULT false,
          ADD COLUMN IF NOT EXISTS harmed_throughout_stated boolean
        """
    )
    op.execute("ALTER TABLE service ADD COLUMN IF NOT EXISTS in_service_since timestamptz")
    for name, rule in _RULES.items():
        op.execute(f"ALTER TABLE incident DROP CONSTRAINT IF EXISTS {name}")
        op.execute(f"ALTER TABLE incident ADD CONSTRAINT {name} CHECK ({rule}) NOT VALID")
    with op.get_context().autocommit_block():
        for name in _RULES:
            op.execute(f"ALTER TABLE incident VALIDATE CONSTRAINT {name}")
        op.drop_index("incident_without_stretches", "incident", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            "incident_without_stretches",
            "incident",
            ["began_at"],
            postgresql_where=sa.text("settled_at IS NOT NULL AND NOT stretches_current AND merged_into IS NULL"),
            postgresql_concurrently=True,
        )


_RULES = {
    "incident_stretches_are_whole": "octet_length(stretches) % 18 = 0",
    "incident_stretches_exist": "NOT stretches_current OR octet_length(stretches) > 0",
}


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("incident_without_stretches", "incident", postgresql_concurrently=True, if_exists=True)
    op.drop_column("service", "in_service_since")
    op.drop_column("incident", "harmed_throughout_stated")
    op.drop_column("incident", "stretches_current")  # with the constraints
    op.drop_column("incident", "stretches")
