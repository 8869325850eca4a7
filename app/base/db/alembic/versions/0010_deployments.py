"""Deployments by source, service, environment and id; rollbacks, repeated syncs and unknown outcomes; other changes.

Deployments from before keep their key. The tables have at most some ten thousand rows, so their indexes are built and
their constraints checked in milliseconds.

Revision 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_BEFORE = "'succeeded', 'failed', 'canceled'"
_AFTER = f"{_BEFORE}, 'unknown'"


def upgrade() -> None:
    op.add_column("deployment", sa.Column("reported_id", sa.Text()))
    op.add_column("deployment", sa.Column("source", sa.Text()))
    op.add_column("deployment", sa.Column("rolled_back", sa.Text()))
    op.add_column("deployment", sa.Column("clock_ahead", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("deployment", sa.Column("unchanged", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("deployment", sa.Column("rolled_back_by", sa.Text()))
    _know_outcomes(_AFTER)
    op.create_check_constraint("deployment_is_rolled_back_by_another", "deployment", "rolled_back_by <> id")
    identity = ["reported_id", "service", "environment", "source"]
    op.create_unique_constraint("deployment_has_one_identity", "deployment", identity)
    op.create_index(
        "deployment_rolling_back",
        "deployment",
        ["service", "rolled_back"],
        postgresql_where=sa.text("rolled_back IS NOT NULL"),
    )
    op.create_table(
        "change",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("reported_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("summary", sa.Text()),
        sa.Column("environment", sa.Text()),
        sa.Column("version", sa.Text()),
        sa.Column("sha", sa.Text()),
        sa.Column("link", sa.Text()),
        sa.Column("clock_ahead", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("change_pkey")),
    )
    op.create_index("change_by_time", "change", [sa.literal_column("happened_at DESC"), sa.literal_column("id DESC")])
    op.create_index("change_by_service", "change", ["service", sa.literal_column("happened_at DESC")])


def downgrade() -> None:
    op.drop_table("change")
    # The version before knows neither `unknown` nor the field in the reports.
    op.execute("UPDATE deployment SET outcome = 'canceled' WHERE outcome = 'unknown'")
    op.execute("""
        UPDATE deployment_report
           SET report = jsonb_set(report, '{outcome}', '"canceled"')
         WHERE report ->> 'outcome' = 'unknown'
    """)
    op.execute("UPDATE deployment_report SET report = report - 'rolled_back' WHERE jsonb_exists(report, 'rolled_back')")
    op.drop_index("deployment_rolling_back", table_name="deployment")
    op.drop_constraint("deployment_has_one_identity", "deployment", type_="unique")
    op.drop_constraint("deployment_is_rolled_back_by_another", "deployment", type_="check")
    _know_outcomes(_BEFORE)
    for column in ("rolled_back_by", "unchanged", "clock_ahead", "rolled_back", "source", "reported_id"):
        op.drop_column("deployment", column)


def _know_outcomes(final: str) -> None:
    for name, rule in (
        ("deployment_outcome_is_known", f"outcome IN ('pending', 'in_progress', {final})"),
        ("deployment_has_an_outcome_once_finished", f"(finished_at IS NOT NULL) = (outcome IN ({final}))"),
    ):
        op.drop_constraint(name, "deployment", type_="check")
        op.create_check_constraint(name, "deployment", rule)
