"""Stored names: the time of a deployment report is `reported_at`, and the tally of inferred signals `inferred`.

While the previous version runs beside this one, it cannot read the renamed reports; webhook deliveries about such a
deployment go to quarantine and can be replayed.

Revision 0002, after 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _rename_in_reports("told_at", "reported_at")
    op.execute("UPDATE tally SET name = 'inferred' WHERE name = 'concluded'")


def downgrade() -> None:
    op.execute("UPDATE tally SET name = 'concluded' WHERE name = 'inferred'")
    _rename_in_reports("reported_at", "told_at")


def _rename_in_reports(old: str, new: str) -> None:
    op.execute(f"""
        UPDATE deployment_report
           SET report = report - '{old}' || jsonb_build_object('{new}', report -> '{old}')
         WHERE jsonb_exists(report, '{old}')
    """)  # noqa: S608  the names are constants
