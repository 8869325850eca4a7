"""Deliveries, quarantined parts of them, and the health of each source."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Identity, Index, text
from sqlmodel import Field

from app.base.schema.columns import (
    Double,
    Json,
    Jsonb,
    Row,
    Text,
    TextArray,
    Timestamp,
    TimestampArray,
)


class Delivery(Row, table=True):
    """One HTTP request of a source. Partitioned by month, see base/db/partitions.py."""

    __tablename__ = "delivery"
    __table_args__ = ({"postgresql_partition_by": "RANGE (received_at)"},)

    id: UUID = Field(primary_key=True)
    source_id: int
    received_at: datetime = Field(sa_type=sa.DateTime(timezone=True), primary_key=True)
    signals: int
    truncated: int = Field(default=None, sa_column_kwargs={"server_default": "0"})
    verdicts: Json[dict[str, int]]


class StoredRequest(Row, table=True):
    """A request of which something is in quarantine, without its credentials."""

    __tablename__ = "stored_request"
    __table_args__ = (Index("stored_request_of_source", "source_id", postgresql_include=["stored_bytes"]),)

    delivery_id: UUID = Field(primary_key=True)
    source_id: int | None = None
    stored_bytes: int | None = None  # of the request and its parts in quarantine; counts toward the quota of the source
    headers: Jsonb[dict[str, str]]  # names in lower case
    query: Jsonb[dict[str, str]]
    path: Jsonb[dict[str, str]]  # the parameters of its path
    method: str = Field(default=None, sa_type=sa.Text, sa_column_kwargs={"server_default": "POST"})
    # The path as the sender declares it, with the names of the parameters.
    endpoint: str = Field(default=None, sa_type=sa.Text, sa_column_kwargs={"server_default": ""})
    body: bytes


class Quarantine(Row, table=True):
    """A part of a stored request that could not be used yet: some alerts, or (`part_start` is null) all of it."""

    __tablename__ = "quarantine"
    __table_args__ = (
        CheckConstraint(
            "(part_start IS NULL) = (part_length IS NULL) AND (part_start IS NULL) = (raw IS NULL)",
            name="quarantine_is_a_part_or_all",
        ),
        Index("quarantine_waiting", "id", postgresql_where=text("replayed_at IS NULL")),
        Index("quarantine_of_delivery", "delivery_id"),
    )

    id: int = Field(sa_type=sa.BigInteger, default=None, primary_key=True, sa_column_args=(Identity(),))
    source_id: int = Field(foreign_key="source.id")
    delivery_id: UUID = Field(foreign_key="stored_request.delivery_id", ondelete="CASCADE")
    received_at: Timestamp[datetime]
    reason: Text[str]
    detail: Text[str]
    part_start: int | None = None
    part_length: int | None = None
    raw: bytes | None = None  # the part, to be shown
    attempts: int = Field(default=None, sa_column_kwargs={"server_default": "0"})  # replays that failed
    replayed_at: Timestamp[datetime | None] = None


class Tally(Row, table=True):
    """A monotonic counter. Its value is the sum of its shards, which keep connections from blocking each other."""

    __tablename__ = "tally"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)

    name: str = Field(sa_type=sa.Text, primary_key=True)
    source: str = Field(sa_type=sa.Text, primary_key=True)
    label: str = Field(sa_type=sa.Text, primary_key=True)
    shard: int = Field(sa_type=sa.SmallInteger, primary_key=True)
    value: Double[float]


class SourceSample(Row, table=True):
    """Tallies and open alerts of a source at one time, stored for a day. Rates are differences of samples."""

    __tablename__ = "feed_sample"

    source_id: int = Field(primary_key=True, foreign_key="source.id")
    at: datetime = Field(sa_type=sa.DateTime(timezone=True), primary_key=True)
    tallies: Jsonb[list[list[Any]]]  # [[name, label, value], …]
    open_alerts: int
    oldest_open_at: Timestamp[datetime | None] = None
    unrefreshed: int  # open, and not resent for a day


class Heartbeat(Row, table=True):
    """A dead man's switch: an alert that is resent continually."""

    __tablename__ = "heartbeat"
    __table_args__ = (CheckConstraint("returned_at >= missing_since", name="heartbeat_returns_after_it_was_missing"),)

    source_id: int = Field(primary_key=True, foreign_key="source.id")
    fingerprint: str = Field(sa_type=sa.Text, primary_key=True)
    rule: Text[str]
    labels: Jsonb[dict[str, str]]
    first_at: Timestamp[datetime]
    last_at: Timestamp[datetime]
    missing_since: Timestamp[datetime | None] = None
    returned_at: Timestamp[datetime | None] = None  # the first beat after it was declared missing


class Reconciler(Row, table=True):
    """Settings for polling the Alertmanagers of a source."""

    __tablename__ = "reconciler"
    __table_args__ = (
        CheckConstraint("cardinality(peers) > 0", name="reconciler_has_peers"),
        CheckConstraint("poll_seconds > 0 AND absences > 0 AND grace_seconds >= 0", name="reconciler_is_patient"),
        CheckConstraint("cardinality(counted_at) <= absences", name="reconciler_counts_what_it_takes"),
    )

    source_id: int = Field(primary_key=True, foreign_key="source.id")
    peers: TextArray[list[str]]
    poll_seconds: int
    absences: int
    grace_seconds: int
    receiver: Text[str | None] = None  # only its alerts are opened; null: all
    username: Text[str | None] = None  # for basic auth, with `secret` as password; null: `secret` is a bearer token
    secret: Text[str | None] = None
    began_at: Timestamp[datetime | None] = None  # claims a poll
    counted_at: TimestampArray[list[datetime]]  # times of the latest conclusive polls, at most `absences`
    # The alerts that all peers listed as active in the latest conclusive poll although they have ended here.
    contradicted: Jsonb[dict[str, Any] | None] = None


class Peer(Row, table=True):
    """The last response of each Alertmanager of a reconciler."""

    __tablename__ = "peer"

    source_id: int = Field(primary_key=True, foreign_key="reconciler.source_id", ondelete="CASCADE")
    url: str = Field(sa_type=sa.Text, primary_key=True)
    polled_at: Timestamp[datetime]
    answered_at: Timestamp[datetime | None] = None
    error: Text[str | None] = None  # the error of the last poll
    version: Text[str | None] = None
    cluster: Text[str | None] = None
    up_since: Timestamp[datetime | None] = None
    alerts: int | None = None
    suppressed: int | None = None  # silenced or inhibited alerts, which are listed but not sent
    silences: int | None = None


class Silence(Row, table=True):
    """A silence of an Alertmanager that suppressed alerts with this grouping key, as last polled.

    It is evidence of the incidents of that key that ran while it did.
    """

    __tablename__ = "silence"
    __table_args__ = (Index("silence_by_key", "key_id", "first_seen_at"), Index("silence_by_time", "last_seen_at"))

    source_id: int = Field(primary_key=True, foreign_key="source.id", ondelete="CASCADE")
    id: str = Field(sa_type=sa.Text, primary_key=True)
    key_id: UUID = Field(primary_key=True)
    by: Text[str]
    comment: Text[str]
    matchers: Text[str]
    starts_at: Timestamp[datetime]
    ends_at: Timestamp[datetime]
    first_seen_at: Timestamp[datetime]  # the first poll in which it suppressed an alert of the key
    last_seen_at: Timestamp[datetime]  # the last such poll


class SourceWatch(Row, table=True):
    """A single row: the time since which a process has been listening. Deliveries due earlier are not missing."""

    __tablename__ = "feed_watch"
    __table_args__ = (CheckConstraint("single", name="feed_watch_is_one_row"),)

    single: bool = Field(default=None, primary_key=True, sa_column_kwargs={"server_default": "true"})
    round_at: Timestamp[datetime]
    listening_since: Timestamp[datetime]
