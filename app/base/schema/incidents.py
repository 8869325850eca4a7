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

from app.base.schema.columns import BigInt, IntArray, Json, Jsonb, Row, SmallInt, Text, TextArray, Timestamp, UuidArray
from app.base.schema.search import TITLE_IS_BY_A_PERSON, WORDS_OF_INCIDENT

incident_number = Sequence("incident_number", metadata=Row.metadata)

_LIVE = text("merged_into IS NULL")


class Incident(Row, table=True):
    """A connected group of alerts with one grouping key, or one declared by a person.

    The first block of columns is derived only from the alerts, the second holds values set by people, and the third is
    derived from its reviews. The values in the API (`detected_at`, `status`, …) combine them, see
    incidents/measures/measures.py.
    """

    __tablename__ = "incident"
    __table_args__ = (
        UniqueConstraint("number", name="incident_number_is_unique"),
        CheckConstraint("severity BETWEEN 1 AND 5", name="incident_severity_is_sev1_to_sev5"),
        CheckConstraint("severity_stated BETWEEN 1 AND 5", name="incident_stated_severity_is_sev1_to_sev5"),
        CheckConstraint("impact_stated BETWEEN 0 AND 1", name="incident_impact_is_a_share"),
        CheckConstraint("ended_at >= began_at", name="incident_ends_after_it_began"),
        CheckConstraint("octet_length(stretches) % 18 = 0", name="incident_stretches_are_whole"),
        CheckConstraint("NOT stretches_current OR octet_length(stretches) > 0", name="incident_stretches_exist"),
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
        Index("incident_merged", "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
        Index(
            "incident_without_stretches",
            "began_at",
            postgresql_where=text("settled_at IS NOT NULL AND NOT stretches_current AND merged_into IS NULL"),
        ),
        Index(
            "incident_by_words",
            text(WORDS_OF_INCIDENT),
            postgresql_using="gin",
            postgresql_where=text(f"{TITLE_IS_BY_A_PERSON} AND merged_into IS NULL"),
        ),
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
    environment: Text[str | None] = None  # null: its alerts name none
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
    # The latest report that one of its alerts fires although it has ended; null if none is later than that end.
    fired_after_end_at: Timestamp[datetime | None] = None
    # Unused since migration 0007; the version before writes it.
    still_firing: bool = Field(default=None, sa_column_kwargs={"server_default": "false"})
    merged_into: UUID | None = Field(
        default=None, sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),)
    )
    settled_at: Timestamp[datetime | None] = None
    declared: bool
    # the earliest start that an alert's annotation `for` implies
    impact_started_at_reported: Timestamp[datetime | None] = None
    # When its alerts fired and how severe (incidents/impact/stretches.py). Stored when it settles, because alerts are
    # dropped some day; not current from the next change of its alerts until they are stored again.
    stretches: bytes | None = None
    stretches_current: bool = Field(default=None, sa_column_kwargs={"server_default": "false"})
    # set by people
    title_stated: Text[str | None] = None
    service_stated: Text[str | None] = None
    severity_stated: SmallInt[int | None] = None
    impact_stated: Decimal | None = None
    harmed_throughout_stated: bool | None = None  # users were harmed between its alerts too
    type_stated: Text[str | None] = None  # an incident type, which may have been deleted since
    expected_to_last_stated: bool | None = None  # for more than an hour
    test_stated: bool | None = None  # if true, it counts in no number
    detected_at_stated: Timestamp[datetime | None] = None
    impact_started_at_stated: Timestamp[datetime | None] = None
    impact_started_at: datetime | None = Field(
        sa_type=sa.DateTime(timezone=True),
        default=None,
        sa_column_args=(Computed("coalesce(impact_started_at_stated, impact_started_at_reported)", persisted=True),),
    )
    acknowledged_at: Timestamp[datetime | None] = None
    acknowledged_by: Text[str | None] = None
    acknowledged_via: Text[str | None] = None  # the name of a source, `api` or `page`; null: unknown
    declared_at: Timestamp[datetime | None] = None  # a person began the response
    first_public_at: Timestamp[datetime | None] = None  # the first update on the status page
    identified_at: Timestamp[datetime | None] = None
    mitigated_at: Timestamp[datetime | None] = None
    # derived from its reviews (incidents/grouping/reviewed.py)
    reviewed_at: Timestamp[datetime | None] = None  # when its first review was held
    ready_at: Timestamp[datetime | None] = None  # when its last review was published and its last action item closed
    review_planned: bool = Field(default=None, sa_column_kwargs={"server_default": "false"})  # it has a draft
    version: int  # the ETag
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class Alert(Row, table=True):
    """One episode of a series. Partitioned by month, see base/db/partitions.py.

    The ends of each kind and the times of reports are facts, see incidents/grouping/law/episode.py; `ended_at`,
    `end_reason`, `end_reported_at`, `sender_ended` and `covered` are derived from them. Report times are whole minutes.
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
    environment: Text[str | None] = None
    alert_class: Text[str]
    fired_at: Timestamp[datetime | None] = None  # the latest report that it fires
    listed_since: Timestamp[datetime | None] = None  # all peers have listed it as active since then
    # When it ends unless it is reported again, according to that latest report; null if its sender announces none. At
    # most a minute too early.
    expires_at: Timestamp[datetime | None] = None
    real_end_at: Timestamp[datetime | None] = None  # the latest
    real_end_reason: Text[str | None] = None
    real_end_reported_at: Timestamp[datetime | None] = None  # the latest report of any real end
    guessed_end_at: Timestamp[datetime | None] = None  # the sender gave no end, so it is the earliest time of arrival
    guessed_end_reason: Text[str | None] = None
    guessed_end_reported_at: Timestamp[datetime | None] = None
    inferred_end_at: Timestamp[datetime | None] = None  # the latest
    inferred_end_reason: Text[str | None] = None
    manual_end_at: Timestamp[datetime | None] = None
    # Unused since migration 0007; the version before writes it.
    real_end_guessed: bool = Field(default=None, sa_column_kwargs={"server_default": "false"})
    sender_ended: bool  # in any way; a person may have ended it earlier
    covered: bool = Field(default=None, sa_column_kwargs={"server_default": "false"})
    ended_at: Timestamp[datetime | None] = None
    end_reason: Text[str | None] = None
    end_reported_at: Timestamp[datetime | None] = None  # the latest report of an end that is not void
    labels: Json[dict[str, str]]
    annotations: Json[dict[str, str]]
    link: Text[str]
    flags: TextArray[list[str]]
    first_seen_at: Timestamp[datetime]
    last_seen_at: Timestamp[datetime]  # the latest report of any kind; at most a minute too early
    impact_started_at_reported: Timestamp[datetime | None] = None  # `started_at` minus the annotation `for`
    # What several tools call it, as digests in order, see incidents/grouping/signal.py. Not indexed: that would slow
    # down every insert, and reactions find its incident by time.
    correlations: UuidArray[list[UUID] | None] = None


class UnmatchedResolve(Row, table=True):
    """A resolve without a start. Ends the newest alert that began at or before it, and is stored until there is one."""

    __tablename__ = "unmatched_resolve"

    series: UUID = Field(primary_key=True)
    ended_at: datetime = Field(sa_type=sa.DateTime(timezone=True), primary_key=True)
    end_reason: Text[str]
    reported_at: Timestamp[datetime | None] = None  # the latest report of it


class Reaction(Row, table=True):
    """What a person did about an alert in another tool, kept for 7 days: it may come before its alert, and its alert
    may move. Its entries in the timeline are those with its `reaction_id`.

    See incidents/grouping/reaction_placement.py for the incidents it belongs to.
    """

    __tablename__ = "reaction"
    __table_args__ = (
        UniqueConstraint("source_id", "digest", name="reaction_is_stored_once"),
        CheckConstraint("kind IN ('acknowledged', 'unacknowledged', 'closed', 'note')", name="reaction_kind_is_known"),
        CheckConstraint("series IS NOT NULL OR correlation IS NOT NULL", name="reaction_concerns_an_alert"),
        Index("reaction_by_series", "series", postgresql_where=text("series IS NOT NULL")),
        Index("reaction_by_correlation", "correlation", postgresql_where=text("correlation IS NOT NULL")),
        Index("reaction_by_arrival", "received_at"),
        Index("reaction_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )

    id: int = Field(sa_type=sa.BigInteger, default=None, primary_key=True, sa_column_args=(Identity(),))
    digest: bytes  # of all that it says, so that a repeat is not stored again
    kind: Text[str]
    at: Timestamp[datetime]
    by: Text[str | None] = None  # null: the source does not report it
    note: Text[str | None] = None
    at_arrival: bool  # the source reports no time, so it is when the request was received
    series: UUID | None = None  # its alerts, if the source has sent any
    correlation: UUID | None = None  # otherwise all alerts with this one, of any source
    source_id: int = Field(foreign_key="source.id")
    received_at: Timestamp[datetime]
    waits: bool = Field(default=None, sa_column_kwargs={"server_default": "true"})  # it belongs to no incident yet
    due_at: Timestamp[datetime | None] = None  # when it has to be placed once more; null: it is where it belongs


class Acknowledgement(Row, table=True):
    """Unused since migration 0017, which made reactions of its rows; the version before writes it."""

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
    timeline_id: BigInt[int | None] = None


class TimelineEntry(Row, table=True):
    """An event of an incident. Append-only, except that `incident_id` follows merges and splits, that an entry which a
    source reported is removed if it turns out to belong to no incident (see `RemovedEntry`), and that a person who is
    forgotten gets another name.

    A correction or withdrawal is an entry too, and names the first entry of its fact. Of the entries of one fact the
    newest counts, unless it is a withdrawal.
    """

    __tablename__ = "timeline"
    __table_args__ = (
        CheckConstraint("corrects < id", name="timeline_corrects_an_earlier_entry"),
        CheckConstraint(
            "kind <> 'task' OR detail ->> 'effect' IN ('positive', 'negative', 'none', 'unknown') IS TRUE",
            name="timeline_task_has_an_effect",
        ),
        CheckConstraint("(idempotency_key IS NULL) = (sent_to IS NULL)", name="timeline_key_has_its_incident"),
        Index("timeline_of_corrections", "corrects", "id", postgresql_where=text("corrects IS NOT NULL")),
        Index("timeline_by_incident", "incident_id", "at", "id"),
        # Deployments set as the cause by a person: few, and queried over many incidents.
        Index("timeline_of_causes", "incident_id", "id", postgresql_where=text("kind = 'cause'")),
        # What people recorded, and what is queried over many incidents: few of all entries.
        Index(
            "timeline_of_response",
            "kind",
            "incident_id",
            postgresql_where=text("kind IN ('task', 'update')"),
        ),
        Index("timeline_in_order", "transaction_id", "id"),
        Index("timeline_of_reactions", "reaction_id", postgresql_where=text("reaction_id IS NOT NULL")),
        Index(
            "timeline_once_per_key",
            "idempotency_key",
            "sent_to",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )

    id: int = Field(sa_type=sa.BigInteger, default=None, primary_key=True, sa_column_args=(Identity(),))
    incident_id: UUID = Field(sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),))
    at: Timestamp[datetime]  # when it happened
    recorded_at: Timestamp[datetime]
    kind: Text[str]
    by: Text[str | None] = None
    note: Text[str | None] = None
    detail: Jsonb[dict[str, Any] | None] = None
    corrects: BigInt[int | None] = None  # the first entry of the fact that this one corrects or withdraws
    corrected_by: Text[str | None] = None  # the person who did
    why: Text[str | None] = None  # their reason
    idempotency_key: Text[str | None] = None  # with which a client sent it, so that a repeat is not recorded again
    sent_to: UUID | None = None  # if it has a key: the incident it was sent to, even after a merge or split
    reaction_id: BigInt[int | None] = None  # the reaction that a source reported; it may have been dropped since
    # The transaction that wrote it; `incidents.history.timeline.read_after` sorts by it.
    transaction_id: int = Field(
        sa_type=sa.BigInteger,
        default=None,
        sa_column_kwargs={"server_default": text("pg_current_xact_id()::text::bigint")},
    )


class RemovedEntry(Row, table=True):
    """The place of an entry that was removed from the timeline: a reader of all entries may have stopped there."""

    __tablename__ = "removed_entry"

    id: int = Field(sa_type=sa.BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    transaction_id: int = Field(sa_type=sa.BigInteger)


class IncidentRelation(Row, table=True):
    """Two incidents that a person marked as related, as they were at the time: either may have been merged since."""

    __tablename__ = "incident_relation"
    __table_args__ = (
        CheckConstraint("incident_id < other_id", name="incident_relation_is_stored_once"),
        Index("incident_relation_by_other", "other_id"),
    )

    incident_id: UUID = Field(
        primary_key=True, sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),)
    )
    other_id: UUID = Field(
        primary_key=True, sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),)
    )
