"""${message}

The law of migrations: the previous version of the service keeps working on the new schema (add first, remove a release
later); no long locks (indexes CONCURRENTLY once there is data, constraints NOT VALID first); every step can be reversed;
`alembic check` finds no difference to app/base/schema afterwards.

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
