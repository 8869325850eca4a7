"""calendars: the hours in which people are at work

The law of migrations: the previous version of the service goes on working beside the new schema (add first, remove a
release later); no lock that a door would notice (indexes CONCURRENTLY once there is data, constraints NOT VALID first);
every step can be taken back; `alembic check` finds no difference to app/base/schema/__init__.py afterwards.

Revision 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "calendar",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("holidays", sa.ARRAY(sa.Date()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("calendar_pkey")),
    )
    op.create_table(
        "calendar_hours",
        sa.Column("calendar", sa.Text(), nullable=False),
        sa.Column("weekday", sa.SmallInteger(), nullable=False),
        sa.Column("begins_minute", sa.SmallInteger(), nullable=False),
        sa.Column("ends_minute", sa.SmallInteger(), nullable=False),
        sa.CheckConstraint("weekday BETWEEN 0 AND 6", name="calendar_weekday_is_one_of_seven"),
        sa.CheckConstraint(
            "0 <= begins_minute AND begins_minute < ends_minute AND ends_minute <= 1440",
            name="calendar_hours_are_within_a_day",
        ),
        postgresql.ExcludeConstraint(
            (sa.text("calendar"), "="),
            (sa.text("weekday"), "="),
            (sa.text("int4range(begins_minute, ends_minute)"), "&&"),
            using="gist",
            name="calendar_hours_do_not_overlap",
        ),
        sa.ForeignKeyConstraint(
            ["calendar"], ["calendar.name"], name=op.f("calendar_hours_calendar_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("calendar", "weekday", "begins_minute", name=op.f("calendar_hours_pkey")),
    )


def downgrade() -> None:
    op.drop_table("calendar_hours")
    op.drop_table("calendar")
