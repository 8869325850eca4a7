"""What teams agree on before an incident: types, people and delegates, targets, playbooks.

What happens during one stands in the timeline.
"""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlmodel import Field

from app.base.schema.columns import Jsonb, Row, SmallInt, Text, TextArray, Timestamp


class IncidentType(Row, table=True):
    """A kind of incident and how to respond to it."""

    __tablename__ = "incident_type"
    __table_args__ = (
        CheckConstraint("cardinality(exit_criteria) BETWEEN 1 AND 20", name="type_has_an_exit"),
        CheckConstraint(
            "jsonb_typeof(channels) = 'array' AND jsonb_array_length(channels) BETWEEN 2 AND 6",
            name="type_has_a_backup_channel",
        ),
        CheckConstraint(
            "(channels #>> '{0,kind}' <> channels #>> '{1,kind}') IS TRUE", name="type_backup_is_of_another_kind"
        ),
        CheckConstraint("update_seconds BETWEEN 300 AND 86400", name="type_updates_are_5min_to_a_day"),
        CheckConstraint("review IN ('required', 'by_severity', 'never')", name="type_review_is_known"),
    )

    name: str = Field(sa_type=sa.Text, primary_key=True)
    position: int  # lower is tried first; ties by name
    matchers: TextArray[list[str]]  # on the labels of an incident, and service, environment, severity, owner
    description: Text[str]
    exit_criteria: TextArray[list[str]]
    roles: TextArray[list[str]]
    channels: Jsonb[list[dict[str, str | None]]]  # `kind`, `name`, `link`; the first is primary, the others are backups
    steps: TextArray[list[str]]
    update_seconds: int | None = None  # null: as in the target
    review: Text[str]
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class Person(Row, table=True):
    """Someone who responds to incidents; `name` is what `by` has in the timeline."""

    __tablename__ = "person"

    name: str = Field(sa_type=sa.Text, primary_key=True)
    email: Text[str | None] = None
    contacts: Jsonb[list[dict[str, str]]]  # `kind`, `value`
    zone: Text[str]
    away: Jsonb[list[dict[str, str]]]  # `from`, `to`
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class Delegate(Row, table=True):
    """A person who fills a role in incidents of the services of an owner, after those before in the order."""

    __tablename__ = "delegate"
    __table_args__ = (
        UniqueConstraint("role", "owner", "person", name="delegate_stands_once"),
        CheckConstraint("position BETWEEN 1 AND 20", name="delegate_position_is_1_to_20"),
    )

    role: str = Field(sa_type=sa.Text, primary_key=True)
    owner: str = Field(sa_type=sa.Text, primary_key=True)  # of services; empty: of all
    position: int = Field(sa_type=sa.SmallInteger, primary_key=True)
    person: str = Field(sa_type=sa.Text, foreign_key="person.name")


class Target(Row, table=True):
    """The effort agreed on for incidents of a severity, valid from a date."""

    __tablename__ = "target"
    __table_args__ = (
        CheckConstraint("severity BETWEEN 1 AND 5", name="target_severity_is_sev1_to_sev5"),
        CheckConstraint(
            "least(acknowledge_seconds, update_seconds, resolve_seconds, responders, review_seconds) > 0",
            name="target_is_positive",
        ),
        CheckConstraint(
            "num_nonnulls(acknowledge_seconds, update_seconds, resolve_seconds, responders, review_seconds) > 0",
            name="target_agrees_on_something",
        ),
    )

    service: str = Field(sa_type=sa.Text, primary_key=True)  # empty: all services that have none of their own
    severity: int = Field(sa_type=sa.SmallInteger, primary_key=True)
    valid_from: datetime = Field(sa_type=sa.DateTime(timezone=True), primary_key=True)
    acknowledge_seconds: int | None = None
    update_seconds: int | None = None
    resolve_seconds: int | None = None
    responders: SmallInt[int | None] = None
    review_seconds: int | None = None  # null: no review is required
    # null: the clock that always runs
    calendar: str | None = Field(default=None, sa_type=sa.Text, foreign_key="calendar.name")


class Playbook(Row, table=True):
    """A version of a playbook. Its content never changes; verification, approval and withdrawal are recorded once."""

    __tablename__ = "playbook"
    __table_args__ = (
        CheckConstraint("version > 0", name="playbook_versions_begin_at_1"),
        CheckConstraint("num_nonnulls(body, link) > 0", name="playbook_has_a_body_or_a_link"),
        CheckConstraint("verified_token <> author_token", name="playbook_is_verified_by_another_token"),
        CheckConstraint("approved_token <> author_token", name="playbook_is_approved_by_another_token"),
        CheckConstraint("approved_at >= verified_at", name="playbook_is_approved_after_it_was_verified"),
        CheckConstraint(
            "num_nulls(verified_at, verified_by, verified_token) IN (0, 3)", name="playbook_verification_is_whole"
        ),
        CheckConstraint(
            "num_nulls(approved_at, approved_by, approved_token, expires_at) IN (0, 4)",
            name="playbook_approval_is_whole",
        ),
        CheckConstraint("approved_at IS NULL OR verified_at IS NOT NULL", name="playbook_approval_needs_verification"),
        CheckConstraint("expires_at > approved_at", name="playbook_expires_after_its_approval"),
    )

    service: str = Field(sa_type=sa.Text, primary_key=True, foreign_key="service.name")
    name: str = Field(sa_type=sa.Text, primary_key=True)
    version: int = Field(primary_key=True)
    body: Text[str | None] = None
    link: Text[str | None] = None
    author: Text[str]
    author_token: Text[str]
    created_at: Timestamp[datetime]
    verified_at: Timestamp[datetime | None] = None
    verified_by: Text[str | None] = None
    verified_token: Text[str | None] = None
    # The incident in which it was followed.
    verified_in: UUID | None = Field(
        default=None, sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),)
    )
    approved_at: Timestamp[datetime | None] = None
    approved_by: Text[str | None] = None
    approved_token: Text[str | None] = None
    expires_at: Timestamp[datetime | None] = None
    withdrawn_at: Timestamp[datetime | None] = None
