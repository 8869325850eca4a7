"""The size of each request in quarantine, for the quota of its source.

Both columns may be null: a process of the version before does not fill them in. Its requests do not count.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stored_request", sa.Column("source_id", sa.Integer()))
    op.add_column("stored_request", sa.Column("stored_bytes", sa.Integer()))
    op.execute(
        """
        UPDATE stored_request
           SET source_id = item.source_id,
               stored_bytes = octet_length(body) + item.bytes
          FROM (SELECT delivery_id, min(source_id) AS source_id, coalesce(sum(octet_length(raw)), 0) AS bytes
                  FROM quarantine
                 GROUP BY delivery_id) AS item
         WHERE item.delivery_id = stored_request.delivery_id
        """
    )
    op.create_index("stored_request_of_source", "stored_request", ["source_id"], postgresql_include=["stored_bytes"])
    op.create_index("quarantine_of_delivery", "quarantine", ["delivery_id"])


def downgrade() -> None:
    op.drop_index("quarantine_of_delivery", "quarantine")
    op.drop_index("stored_request_of_source", "stored_request")
    op.drop_column("stored_request", "stored_bytes")
    op.drop_column("stored_request", "source_id")
