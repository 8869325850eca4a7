"""Changes of rules wait for the batches that were decided by the rules before.

Two batches that decide the same series by different rules have different keys, so they do not wait for each other and
could miss what the other writes. A change of rules therefore takes a lock that every batch shares.

Revision 0015, after 0013
"""

from alembic import op

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The numbers are those of app/incidents/grouping/decide.py.
    _replace("PERFORM pg_advisory_xact_lock(24941, 4096);")


def downgrade() -> None:
    _replace("")


def _replace(lock: str) -> None:
    op.execute(f"""
        CREATE OR REPLACE FUNCTION bump_rule_version() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT
        AS $$ BEGIN
            {lock}
            UPDATE rule_version SET version = version + 1;
            RETURN NULL;
        END $$
    """)  # noqa: S608  the constants above
