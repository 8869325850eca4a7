"""Incidents, their alerts and their timelines."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Computed, ForeignKey, Identity, Index, Sequence, UniqueConstraint, func, text
from sqlalchemy import literal_column as column
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlmodel import Field

from app.base.schema.columns import BigInt, IntArray, Json, Jsonb, Row, SmallInt, Text, TextArray, Timestamp

incident_number = Sequence("incident_number", metadata=Row.metadata)

_LIVE = text("merged_into IS NULL")


class Incident(Row, table=True):
    """A connected group of alerts with one grouping key, or one declared by a person.

    The first block of columns is derived only from the alerts; the second holds values set by people. The values in the
    API (`detected_at`, `status`, …) combine both, see incidents/measures/measures.py.
    """

    __tablename__ = "incident"
    __table_args__ = (
        UniqueConstraint("number", name="incident_number_is_unique"),
        CheckConstraint("severity BETWEEN 1 AND 5", name="incident_severity_is_sev1_to_sev5"),
        CheckConstraint("severity_stated BETWEEN 1 AND 5", name="incident_stated_severity_is_sev1_to_sev5"),
        CheckConstraint("impact_stated BETWEEN 0 AND 1", name="incident_impact_is_a_share"),
        CheckConstraint("ended_at >= began_at", name="incident_ends_after_it_began"),
        CheckConstraint("(ended_at IS NULL) = (open_alerts > 0)", name="incident_is_open_while_an_alert_is"),
        CheckConstraint("merged_into <> id", name="incident_is_not_merged_into_itself"),
        ExcludeConstraint(
            (column("key_id"), "="),
            (func.tstzrange(column("began_at"), column("ended_at")), "&&"),
            where=_LIVE,
            name="incidents_of_a_key_never_overlap",
            deferrable=True,
            initially="DEFERRED",
        ),
        # NULLS LAST makes the order unique among the indexes: while the table is new, PostgreSQL could choose the
        # wrong one.
        Index("incident_by_key", "key_id", text("began_at DESC NULLS LAST"), postgresql_where=_LIVE),
        Index("incident_by_time", text("began_at DESC"), text("number DESC"), postgresql_where=_LIVE),
        Index(
            "incident_by_service",
            text("coalesce(service_stated, service)"),
            text("began_at DESC"),
            postgresql_where=_LIVE,
        ),
        Index("incident_by_end", "ended_at", postgresql_where=_LIVE),
        Index(
            "incident_detection_stated",
            "detected_at_stated",
            postgresql_where=text("detected_at_stated IS NOT NULL AND merged_into IS NULL"),
        ),
        Index("incident_open", "began_at", postgresql_where=text("ended_at IS NULL AND merged_into IS NULL")),
        Index("incident_unsettled", "began_at", postgresql_where=text("settled_at IS NULL AND merged_into IS NULL")),
        # Leave room for the next version of a row on the same page: joining alerts change no indexed column.
        {"postgresql_with": {"fillfactor": "70"}},
    )

    id: UUID = Field(primary_key=True)
    number: int = Field(
        sa_type=sa.BigInteger, default=None, sa_column_kwargs={"server_default": incident_number.next_value()}
    )
    key_id: UUID
    key: Text[str]
    rule: Text[str]
    title: Text[str]
    service: Text[str]
    severity: SmallInt[int]  # 1…5, the worst of its alerts
    alert_class: Text[str]
    labels: Jsonb[dict[str, str]]  # labels common to all its alerts
    source_ids: IntArray[list[int]]
    began_at: Timestamp[datetime]
    ended_at: Timestamp[datetime | None] = None  # null while an alert is open
    first_ended_at: Timestamp[datetime | None] = None  # the first moment at which none of its alerts was open
    last_end_at: Timestamp[datetime | None] = None  # latest end among the alerts that have ended
    last_start_at: Timestamp[datetime]
    stretch_began_at: Timestamp[datetime]  # start of the last stretch without recovery
    reach_at: Timestamp[datetime | None] = None  # latest end plus window among the alerts that have ended
    reopened: int
    alerts: int  # alerts from senders, excluding those of `people`
    open_alerts: int
    end_reason: Text[str | None] = None  # of the alert that ended last, even while another is open
    still_firing: bool
    merged_into: UUID | None = Field(
        default=None, sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),)
    )
    settled_at: Timestamp[datetime | None] = None
    declared: bool
    # the earliest start that an alert's annotation `for` implies
    impact_started_at_reported: Timestamp[datetime | None] = None
    # set by people
    title_stated: Text[str | None] = None
    service_stated: Text[str | None] = None
    severity_stated: SmallInt[int | None] = None
    impact_stated: Decimal | None = None
    detected_at_stated: Timestamp[datetime | None] = None
    impact_started_at_stated: Timestamp[datetime | None] = None
    impact_started_at: datetime | None = Field(
        sa_type=sa.DateTime(timezone=True),
        default=None,
        sa_column_args=(Computed("coalesce(impact_started_at_stated, impact_started_at_reported)", persisted=True),),
    )
    acknowledged_at: Timestamp[datetime | None] = None
    acknowledged_by: Text[str | None] = None
    identified_at: Timestamp[datetime | None] = None
    mitigated_at: Timestamp[datetime | None] = None
    version: int  # the ETag
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class Alert(Row, table=True):
    """One episode of a series. Partitioned by month, see base/db/partitions.py.

    `real_end_at` is the latest end that a sender reported; `ended_at` is the end derived by the grouping.
    """

    __tablename__ = "alert"
    __table_args__ = (
        CheckConstraint("ended_at >= started_at", name="alert_ends_after_it_began"),
        Index("alert_by_key", "key_id", "started_at"),
        # Few alerts refer to a deployment. The condition is on the text, because an index on the JSON would make
        # inserting an alert 50 % slower.
        Index(
            "alert_naming_a_deployment",
            "started_at",
            "incident_id",
            postgresql_where=text(
                "CAST(labels AS text) LIKE '%deployment_id%' OR CAST(annotations AS text) LIKE '%deployment_id%'"
            ),
        ),
        {"postgresql_partition_by": "RANGE (started_at)"},
    )

    series: UUID = Field(primary_key=True)  # digest of source and fingerprint
    started_at: datetime = Field(sa_type=sa.DateTime(timezone=True), primary_key=True)
    source_id: int
    fingerprint: Text[str]
    key_id: UUID
    incident_id: UUID
    window_seconds: int
    max_span_seconds: int
    severity: SmallInt[int]
    alert_class: Text[str]
    real_end_at: Timestamp[datetime | None] = None
    real_end_reason: Text[str | None] = None
    real_end_guessed: bool  # the sender gave no end, so it is the time of arrival
    sender_ended: bool  # in any way; a person may have ended it earlier
    manual_end_at: Timestamp[datetime | None] = None
    ended_at: Timestamp[datetime | None] = None
    end_reason: Text[str | None] = None
    labels: Json[dict[str, str]]
    annotations: Json[dict[str, str]]
    link: Text[str]
    flags: TextArray[list[str]]
    first_seen_at: Timestamp[datetime]
    last_seen_at: Timestamp[datetime]  # to the minute
    impact_started_at_reported: Timestamp[datetime | None] = None  # `started_at` minus the annotation `for`


class UnmatchedResolve(Row, table=True):
    """A resolve without a start. Ends the newest alert that began at or before it, and is stored until there is one."""

    __tablename__ = "unmatched_resolve"

    series: UUID = Field(primary_key=True)
    ended_at: datetime = Field(sa_type=sa.DateTime(timezone=True), primary_key=True)
    end_reason: Text[str]


class Acknowledgement(Row, table=True):
    """An acknowledgement that a source reported, kept for 7 days: it may come before its alert, and its alert may move.

    It belongs to the incident of the newest alert of its series that began at or before it.
    """

    __tablename__ = "acknowledgement"
    __table_args__ = (
        Index("acknowledgement_in_timeline", "timeline_id"),
        Index("acknowledgement_by_arrival", "received_at"),
    )

    series: UUID = Field(primary_key=True)
    at: datetime = Field(sa_type=sa.DateTime(timezone=True), primary_key=True)
    by: str = Field(sa_type=sa.Text, primary_key=True)  # empty: the source does not report it
    source_id: int = Field(foreign_key="source.id")
    received_at: Timestamp[datetime]
    timeline_id: BigInt[int | None] = None  # its entry; null while it waits for its incident


class TimelineEntry(Row, table=True):
    """An event of an incident. Append-only, except that `incident_id` follows merges and splits."""

    __tablename__ = "timeline"
    __table_args__ = (
        Index("timeline_by_incident", "incident_id", "at", "id"),
        # Deployments set as the cause by a person: few, and queried over many incidents.
        Index("timeline_of_causes", "incident_id", "id", postgresql_where=text("kind = 'cause'")),
        Index("timeline_in_order", "transaction_id", "id"),
    )

    id: int = Field(sa_type=sa.BigInteger, default=None, primary_key=True, sa_column_args=(Identity(),))
    incident_id: UUID = Field(sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),))
    at: Timestamp[datetime]  # when it happened
    recorded_at: Timestamp[datetime]
    kind: Text[str]
    by: Text[str | None] = None
    note: Text[str | None] = None
    detail: Jsonb[dict[str, Any] | None] = None
    # The transaction that wrote it; `incidents.timeline.read_after` sorts by it.
    transaction_id: int = Field(
        sa_type=sa.BigInteger,
        default=None,
        sa_column_kwargs={"server_default": text("pg_current_xact_id()::text::bigint")},
    )
