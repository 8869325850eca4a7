"""The status page: what customers see, in words that people chose for them.

`PUBLIC_COLUMNS` are all that the public pages read; app/base/db/public_role.py lets their database role read no more.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, text
from sqlmodel import Field

from app.base.schema.columns import BigInt, Jsonb, Row, Text, TextArray, Timestamp


class Component(Row, table=True):
    """A part of what customers use. Its status follows from the public incidents that name it."""

    __tablename__ = "component"
    __table_args__ = (
        CheckConstraint("uptime IN ('published', 'measured', 'hidden')", name="component_uptime_is_known"),
        CheckConstraint("uptime <> 'measured' OR services <> '{}'", name="component_is_measured_by_services"),
    )

    name: str = Field(sa_type=sa.Text, primary_key=True)  # as customers see it
    description: Text[str]
    section: Text[str | None] = None
    position: int  # lower is shown first; ties by name
    services: TextArray[list[str]]  # never public
    automatic: bool  # its problems are published without a person
    uptime: Text[str]
    since: date  # before it nothing is known
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class ComponentDay(Row, table=True):
    """Measured downtime of a component on a day in UTC; what is left of the day was not watched, or was maintenance."""

    __tablename__ = "component_day"
    __table_args__ = (
        CheckConstraint("down_seconds BETWEEN 0 AND watched_seconds", name="component_day_is_down_while_watched"),
        CheckConstraint("watched_seconds <= 86400", name="component_day_is_a_day"),
    )

    component: str = Field(sa_type=sa.Text, primary_key=True, foreign_key="component.name", ondelete="CASCADE")
    day: date = Field(primary_key=True)
    watched_seconds: int
    down_seconds: int


class PublicIncident(Row, table=True):
    """A problem or planned maintenance, as customers see it. Its status and components follow from its updates."""

    __tablename__ = "public_incident"
    __table_args__ = (
        CheckConstraint("kind IN ('incident', 'maintenance')", name="public_incident_kind_is_known"),
        CheckConstraint("ends_at >= begins_at", name="public_incident_ends_after_it_began"),
        CheckConstraint(
            "(kind = 'maintenance') = (scheduled_to IS NOT NULL)", name="public_incident_only_maintenance_is_scheduled"
        ),
        CheckConstraint("scheduled_to > begins_at", name="public_incident_schedule_is_ordered"),
        CheckConstraint("kind = 'incident' OR incident_id IS NULL", name="public_incident_maintenance_has_no_incident"),
        Index("public_incident_by_time", text("begins_at DESC"), text("id DESC")),
        Index("public_incident_by_incident", "incident_id", postgresql_where=text("incident_id IS NOT NULL")),
    )

    id: UUID = Field(primary_key=True)
    # The incident it is about; never public.
    incident_id: UUID | None = Field(
        default=None, sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),)
    )
    kind: Text[str]
    title: Text[str]
    begins_at: Timestamp[datetime]
    begins_at_stated: bool  # by a person; otherwise it follows the incident
    ends_at: Timestamp[datetime | None] = None  # null while it is not over
    ends_at_stated: bool
    scheduled_to: Timestamp[datetime | None] = None
    automatic: bool  # no person has written to it yet
    withdrawn_at: Timestamp[datetime | None] = None  # it is no longer public
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class PublicUpdate(Row, table=True):
    """What was published about a public incident at one time. Only its text and components can be corrected."""

    __tablename__ = "public_update"
    __table_args__ = (
        CheckConstraint(
            "status IN ('investigating', 'identified', 'monitoring', 'resolved', 'scheduled', 'in_progress', "
            "'completed')",
            name="public_update_status_is_known",
        ),
        Index("public_update_by_incident", "public_incident_id", "at"),
    )

    id: UUID = Field(primary_key=True)
    public_incident_id: UUID = Field(foreign_key="public_incident.id")
    at: Timestamp[datetime]
    status: Text[str]
    body: Text[str]
    components: Jsonb[dict[str, str]]  # the status of each from `at` on; others stay as they were
    by: Text[str | None] = None
    token: Text[str | None] = None  # its id, or `page` if it was written on a page; null: published automatically
    recorded_at: Timestamp[datetime]
    corrected_at: Timestamp[datetime | None] = None
    earlier: Jsonb[list[dict[str, Any]]]  # as it was before each correction
    entry: BigInt[int | None] = None  # the fact in the timeline of the incident


class PublicReport(Row, table=True):
    """The published version of the report about a public incident, as the public side reads it. It is the page that was
    approved, byte for byte; after its withdrawal, nothing of it is left here.
    """

    __tablename__ = "public_report"
    __table_args__ = (
        ForeignKeyConstraint(
            ["id", "version", "digest"],
            ["report_version.report_id", "report_version.version", "report_version.approved_digest"],
            name="public_report_is_approved",
        ),
        CheckConstraint("digest = sha256(page)", name="public_report_digest_is_that_of_its_page"),
        CheckConstraint(
            "num_nonnulls(page, title) = CASE WHEN withdrawn_at IS NULL THEN 2 ELSE 0 END",
            name="public_report_has_a_page_until_it_is_withdrawn",
        ),
        Index("public_report_by_incident", "public_incident_id"),
    )

    id: UUID = Field(primary_key=True)
    version: int
    public_incident_id: UUID = Field(foreign_key="public_incident.id")
    title: Text[str | None] = None
    page: bytes | None = None
    digest: bytes
    published_at: Timestamp[datetime]
    withdrawn_at: Timestamp[datetime | None] = None


class WatchGap(Row, table=True):
    """A time in which no delivery could arrive, because the service or its database was down."""

    __tablename__ = "watch_gap"
    __table_args__ = (CheckConstraint("ends_at > begins_at", name="watch_gap_ends_after_it_began"),)

    begins_at: datetime = Field(sa_type=sa.DateTime(timezone=True), primary_key=True)
    ends_at: Timestamp[datetime]


PUBLIC_COLUMNS: Mapping[type[Row], Sequence[str]] = {
    Component: ("name", "description", "section", "position", "uptime", "since", "created_at", "updated_at"),
    ComponentDay: ("component", "day", "watched_seconds", "down_seconds"),
    PublicIncident: (
        *("id", "kind", "title", "begins_at", "ends_at", "scheduled_to", "withdrawn_at", "created_at", "updated_at"),
    ),
    PublicUpdate: ("id", "public_incident_id", "at", "status", "body", "components", "recorded_at", "corrected_at"),
    PublicReport: ("id", "public_incident_id", "title", "page", "digest", "published_at", "withdrawn_at"),
}
