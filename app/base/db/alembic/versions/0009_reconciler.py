"""reconciler: the peers of an Alertmanager, and what each said last

The law of migrations: the previous version of the service goes on working beside the new schema (add first, remove a
release later); no lock that a door would notice (indexes CONCURRENTLY once there is data, constraints NOT VALID first);
every step can be taken back; `alembic check` finds no difference to app/base/schema/__init__.py afterwards.

Revision 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reconciler",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("peers", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("poll_seconds", sa.Integer(), nullable=False),
        sa.Column("absences", sa.Integer(), nullable=False),
        sa.Column("grace_seconds", sa.Integer(), nullable=False),
        sa.Column("receiver", sa.Text(), nullable=True),
        sa.Column("username", sa.Text(), nullable=True),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("counted_at", sa.ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.CheckConstraint("cardinality(peers) > 0", name="reconciler_has_peers"),
        sa.CheckConstraint("poll_seconds > 0 AND absences > 0 AND grace_seconds >= 0", name="reconciler_is_patient"),
        sa.CheckConstraint("cardinality(counted_at) <= absences", name="reconciler_counts_what_it_takes"),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("reconciler_source_id_fkey")),
        sa.PrimaryKeyConstraint("source_id", name=op.f("reconciler_pkey")),
    )
    op.create_table(
        "peer",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("polled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("cluster", sa.Text(), nullable=True),
        sa.Column("up_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("alerts", sa.Integer(), nullable=True),
        sa.Column("suppressed", sa.Integer(), nullable=True),
        sa.Column("silences", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["source_id"], ["reconciler.source_id"], name=op.f("peer_source_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("source_id", "url", name=op.f("peer_pkey")),
    )


def downgrade() -> None:
    op.drop_table("peer")
    op.drop_table("reconciler")
