"""${message}

The law of migrations: the previous version of the service goes on working beside the new schema (add first, remove a
release later); no lock that a door would notice (indexes CONCURRENTLY once there is data, constraints NOT VALID first);
every step can be taken back; `alembic check` finds no difference to app/base/schema/__init__.py afterwards.

Revision ${up_revision}, after ${down_revision | comma,n}
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
