"""Reviews of incidents: what they found, the action items that follow from them, and reports for customers."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, ForeignKey, Index, Sequence, UniqueConstraint, text
from sqlmodel import Field

from app.base.schema.columns import Jsonb, Row, SmallInt, Text, TextArray, Timestamp
from app.base.schema.search import WORDS_OF_ACTION_ITEM, WORDS_OF_FINDING, WORDS_OF_REVIEW

review_number = Sequence("review_number", metadata=Row.metadata)
action_item_number = Sequence("action_item_number", metadata=Row.metadata)

PHASES = "'detection', 'response', 'remediation', 'analysis', 'readiness'"
ELEMENTS = "'people', 'process', 'technology'"


class Review(Row, table=True):
    """A review of some incidents, of a time frame, or of a near miss without any incident.

    Each state keeps the times of those before it: a closed review has been held, published and closed.
    """

    __tablename__ = "review"
    __table_args__ = (
        UniqueConstraint("number", name="review_number_is_unique"),
        UniqueConstraint("drafted_for", name="review_is_drafted_once_per_incident"),
        CheckConstraint("state IN ('draft', 'held', 'published', 'closed', 'dropped')", name="review_state_is_known"),
        CheckConstraint(
            "(state IN ('held', 'published', 'closed')) = (held_at IS NOT NULL)", name="review_that_is_held_has_a_time"
        ),
        CheckConstraint(
            "(state IN ('published', 'closed')) = (published_at IS NOT NULL)",
            name="review_that_is_published_has_a_time",
        ),
        CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="review_that_is_closed_has_a_time"),
        CheckConstraint("(state = 'dropped') = (dropped_because IS NOT NULL)", name="review_is_dropped_for_a_reason"),
        CheckConstraint("held_at <= published_at", name="review_is_held_before_it_is_published"),
        CheckConstraint("published_at <= closed_at", name="review_is_published_before_it_is_closed"),
        CheckConstraint("(begins_at IS NULL) = (ends_at IS NULL)", name="review_time_frame_has_both_ends"),
        CheckConstraint(
            "begins_at < ends_at AND ends_at <= begins_at + interval '720 hours'",
            name="review_time_frame_is_up_to_30_days",
        ),
        CheckConstraint("duration_seconds BETWEEN 60 AND 86400", name="review_lasts_a_minute_to_a_day"),
        CheckConstraint(
            "required_because <@ ARRAY['severity', 'budget', 'recurrence', 'type']", name="review_reasons_are_known"
        ),
        Index("review_by_words", text(WORDS_OF_REVIEW), postgresql_using="gin"),
        Index("review_by_due_time", "due_at", postgresql_where=text("state = 'draft'")),
    )

    id: UUID = Field(primary_key=True)
    number: int = Field(
        sa_type=sa.BigInteger, default=None, sa_column_kwargs={"server_default": review_number.next_value()}
    )
    title: Text[str]
    state: Text[str]
    required_because: TextArray[list[str]]  # empty: not required
    required_counted_at: Timestamp[datetime | None] = None  # when its outcome was counted, once whatever follows
    drafted_for: UUID | None = Field(
        default=None, sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),)
    )  # the incident for which the service drafted it; null: a person did
    facilitator: Text[str | None] = None
    begins_at: Timestamp[datetime | None] = None  # the time frame; null: that of its incidents
    ends_at: Timestamp[datetime | None] = None
    due_at: Timestamp[datetime | None] = None
    scheduled_at: Timestamp[datetime | None] = None
    held_at: Timestamp[datetime | None] = None
    duration_seconds: int | None = None
    published_at: Timestamp[datetime | None] = None
    closed_at: Timestamp[datetime | None] = None
    follow_up_at: Timestamp[datetime | None] = None
    summary: Text[str]
    customer_impact: Text[str]
    resolution: Text[str]
    nothing_now_because: Text[str | None] = None  # why no action item has priority 1
    dropped_because: Text[str | None] = None
    version: int  # the ETag
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class ReviewIncident(Row, table=True):
    """An incident that a review is about, as it was at the time: it may have been merged since."""

    __tablename__ = "review_incident"
    __table_args__ = (Index("review_by_incident", "incident_id"),)

    review_id: UUID = Field(primary_key=True, foreign_key="review.id", ondelete="CASCADE")
    incident_id: UUID = Field(
        primary_key=True, sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),)
    )


class ReviewParticipant(Row, table=True):
    """A person invited to a review, and the part that they had in the incidents or have in the review."""

    __tablename__ = "review_participant"
    __table_args__ = (
        CheckConstraint(
            "part IN ('note_taker', 'first_responder', 'escalation', 'commander', 'communications', 'support', "
            "'management', 'affected', 'curious')",
            name="participant_part_is_known",
        ),
    )

    review_id: UUID = Field(primary_key=True, foreign_key="review.id", ondelete="CASCADE")
    person: str = Field(sa_type=sa.Text, primary_key=True)
    part: Text[str]
    attended: bool | None = None  # null: not recorded


class Factor(Row, table=True):
    """A word for something that contributes to incidents, so that findings of many reviews can be counted together."""

    __tablename__ = "factor"
    __table_args__ = (
        CheckConstraint(f"element IN ({ELEMENTS})", name="factor_element_is_known"),
        CheckConstraint("replaced_by <> name", name="factor_does_not_replace_itself"),
    )

    name: str = Field(sa_type=sa.Text, primary_key=True)
    element: Text[str]
    description: Text[str]
    replaced_by: str | None = Field(default=None, sa_type=sa.Text, foreign_key="factor.name")  # the word to use instead
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class Finding(Row, table=True):
    """Something that a review found."""

    __tablename__ = "finding"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('learning', 'factor', 'went_well', 'went_badly', 'luck', 'mitigator', 'risk', 'human_factor', "
            "'gap', 'question', 'parked')",
            name="finding_kind_is_known",
        ),
        CheckConstraint(f"phase IN ({PHASES})", name="finding_phase_is_known"),
        CheckConstraint(f"element IN ({ELEMENTS})", name="finding_element_is_known"),
        CheckConstraint("(kind = 'factor') = (factor IS NOT NULL)", name="finding_of_a_factor_names_it"),
        CheckConstraint("new_to BETWEEN 0 AND 1000", name="finding_is_new_to_up_to_1000"),
        Index("finding_by_review", "review_id", "position"),
        Index("finding_by_words", text(WORDS_OF_FINDING), postgresql_using="gin"),
        Index("finding_by_factor", "factor", postgresql_where=text("factor IS NOT NULL")),
    )

    id: UUID = Field(primary_key=True)
    review_id: UUID = Field(foreign_key="review.id", ondelete="CASCADE")
    position: int  # in the review, from 1
    kind: Text[str]
    text: Text[str]
    phase: Text[str | None] = None
    element: Text[str | None] = None
    factor: str | None = Field(default=None, sa_type=sa.Text, foreign_key="factor.name")
    prompt: Text[str | None] = None  # the question that it answers
    timeline_id: int | None = Field(default=None, sa_type=sa.BigInteger, foreign_key="timeline.id", ondelete="SET NULL")
    new_to: SmallInt[int | None] = None  # how many of the participants did not know it
    by: Text[str | None] = None
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class ActionItem(Row, table=True):
    """A task that follows from a review or an incident."""

    __tablename__ = "action_item"
    __table_args__ = (
        UniqueConstraint("number", name="action_item_number_is_unique"),
        UniqueConstraint("link", name="action_item_link_is_unique"),
        CheckConstraint("num_nonnulls(review_id, incident_id) > 0", name="action_item_has_an_origin"),
        CheckConstraint("finding_id IS NULL OR review_id IS NOT NULL", name="action_item_of_a_finding_has_its_review"),
        CheckConstraint(f"phase IN ({PHASES})", name="action_item_phase_is_known"),
        CheckConstraint("term IN ('short', 'long')", name="action_item_term_is_known"),
        CheckConstraint("priority BETWEEN 1 AND 3", name="action_item_priority_is_1_to_3"),
        CheckConstraint("state IN ('open', 'in_progress', 'done', 'dropped')", name="action_item_state_is_known"),
        CheckConstraint(
            "(state IN ('done', 'dropped')) = (closed_at IS NOT NULL)", name="action_item_that_is_closed_has_a_time"
        ),
        CheckConstraint(
            "(state = 'dropped') = (dropped_because IS NOT NULL)", name="action_item_is_dropped_for_a_reason"
        ),
        CheckConstraint("effective IN ('yes', 'no', 'cannot_tell')", name="action_item_effect_is_known"),
        CheckConstraint("effective IS NULL OR state = 'done'", name="action_item_with_an_effect_is_done"),
        Index("action_item_by_review", "review_id"),
        Index("action_item_by_incident", "incident_id", postgresql_where=text("incident_id IS NOT NULL")),
        Index("action_item_by_finding", "finding_id", postgresql_where=text("finding_id IS NOT NULL")),
        Index("action_item_by_words", text(WORDS_OF_ACTION_ITEM), postgresql_using="gin"),
        Index("action_item_by_due_time", "due_at", postgresql_where=text("closed_at IS NULL")),
    )

    id: UUID = Field(primary_key=True)
    number: int = Field(
        sa_type=sa.BigInteger, default=None, sa_column_kwargs={"server_default": action_item_number.next_value()}
    )
    review_id: UUID | None = Field(default=None, foreign_key="review.id")
    incident_id: UUID | None = Field(
        default=None, sa_column_args=(ForeignKey("incident.id", deferrable=True, initially="DEFERRED"),)
    )
    finding_id: UUID | None = Field(default=None, foreign_key="finding.id", ondelete="SET NULL")
    title: Text[str]
    done_when: Text[str | None] = None  # how to see that it is done
    phase: Text[str]  # the phase of later incidents that it improves
    term: Text[str]
    priority: SmallInt[int | None] = None  # 1 now, 2 next, 3 later
    owner: Text[str | None] = None
    due_at: Timestamp[datetime | None] = None
    state: Text[str]
    state_at: Timestamp[datetime | None] = None  # of the latest statement about the state; null: there was none
    dropped_because: Text[str | None] = None
    link: Text[str | None] = None  # to an issue tracker, normalized
    closed_at: Timestamp[datetime | None] = None  # when it was done or dropped
    reopened: int = Field(default=None, sa_column_kwargs={"server_default": "0"})
    effective: Text[str | None] = None  # whether it helped, as judged by a person
    effective_note: Text[str | None] = None
    version: int  # the ETag
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class Issue(Row, table=True):
    """The latest known state of an issue in a tracker, by its link. Without an action item it is kept for a while."""

    __tablename__ = "issue"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'in_progress', 'done', 'dropped')", name="issue_state_is_known"),
        CheckConstraint("(state = 'dropped') = (reason IS NOT NULL)", name="issue_is_dropped_for_a_reason"),
        CheckConstraint("since <= at", name="issue_was_in_its_state_before_it_was_reported"),
    )

    link: str = Field(sa_type=sa.Text, primary_key=True)  # normalized as that of an action item
    state: Text[str]
    at: Timestamp[datetime]  # when the tracker changed it
    since: Timestamp[datetime]  # when it got into this state
    by: Text[str | None] = None
    reason: Text[str | None] = None
    created: bool  # it was created in this state, and no change of the state is known
    received_at: Timestamp[datetime]


class ReportVersion(Row, table=True):
    """A version of the public report of a review. Its content never changes.

    It is approved with a token other than its author's. The approval names the digest of the page, and only a page
    whose version and digest are approved can stand in `public_report`.
    """

    __tablename__ = "report_version"
    __table_args__ = (
        UniqueConstraint("review_id", "version", name="report_of_a_review_is_one"),
        UniqueConstraint("report_id", "version", "approved_digest", name="report_is_published_as_approved"),
        CheckConstraint("version > 0", name="report_versions_begin_at_1"),
        CheckConstraint("outline IN ('full', 'short')", name="report_outline_is_known"),
        CheckConstraint("digest = sha256(page)", name="report_digest_is_that_of_its_page"),
        CheckConstraint("approved_token <> author_token", name="report_is_approved_by_another_token"),
        CheckConstraint("approved_digest = digest", name="report_is_approved_as_it_is"),
        CheckConstraint(
            "num_nulls(approved_at, approved_by, approved_token, approved_digest) IN (0, 4)",
            name="report_approval_is_whole",
        ),
        CheckConstraint(
            "num_nulls(published_at, published_by, published_token) IN (0, 3)", name="report_publication_is_whole"
        ),
        CheckConstraint("published_at IS NULL OR approved_at IS NOT NULL", name="report_publication_needs_approval"),
        CheckConstraint("published_at >= approved_at", name="report_is_published_after_its_approval"),
        CheckConstraint(
            "num_nulls(withdrawn_at, withdrawn_by, withdrawn_token) IN (0, 3)", name="report_withdrawal_is_whole"
        ),
        CheckConstraint("withdrawn_at IS NULL OR published_at IS NOT NULL", name="report_withdrawal_needs_publication"),
        Index("report_version_by_incident", "public_incident_id"),
    )

    report_id: UUID = Field(primary_key=True)  # in its public address
    version: int = Field(primary_key=True)
    review_id: UUID = Field(foreign_key="review.id")
    public_incident_id: UUID = Field(foreign_key="public_incident.id")
    outline: Text[str]
    text: Jsonb[dict[str, Any]]  # what people wrote, by field
    markdown: Text[str]  # for comparisons
    page: bytes  # what is served
    digest: bytes
    accepted: Jsonb[list[dict[str, Any]]]  # warnings that people accepted
    author: Text[str]
    author_token: Text[str]
    created_at: Timestamp[datetime]
    approved_at: Timestamp[datetime | None] = None
    approved_by: Text[str | None] = None
    approved_token: Text[str | None] = None
    approved_digest: bytes | None = None
    published_at: Timestamp[datetime | None] = None
    published_by: Text[str | None] = None
    published_token: Text[str | None] = None
    withdrawn_at: Timestamp[datetime | None] = None
    withdrawn_by: Text[str | None] = None
    withdrawn_token: Text[str | None] = None
