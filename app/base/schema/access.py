"""Access: sources, tokens, and sessions of people."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Identity, UniqueConstraint
from sqlmodel import Field

from app.base.schema.columns import Row, Text, Timestamp


class Source(Row, table=True):
    """A monitoring system that sends deliveries. Id 0 is `people`, for alerts that a person declares or keeps open."""

    __tablename__ = "source"
    __table_args__ = (
        UniqueConstraint("name", name="source_name_is_unique"),
        CheckConstraint("stale_seconds BETWEEN 300 AND 2592000", name="source_stale_is_5min_to_30d"),
        CheckConstraint("recoveries <@ ARRAY['missing_series', 'no_data']", name="source_recoveries_are_optional_ones"),
        CheckConstraint("refire_seconds BETWEEN 60 AND 86400", name="source_refire_is_1min_to_1d"),
    )

    id: int = Field(default=None, primary_key=True, sa_column_args=(Identity(),))
    name: Text[str]
    kind: Text[str]
    hmac_secret: Text[str | None] = None
    hmac_header: Text[str | None] = None
    hmac_timestamp_header: Text[str | None] = None
    stale_seconds: int | None = None  # alerts not resent for longer are ended; null: they stay open
    # Ends (`missing_series`, `no_data`) that are recoveries of its alerts.
    recoveries: list[str] = Field(default=None, sa_type=sa.ARRAY(sa.Text), sa_column_kwargs={"server_default": "{}"})
    # An end is void if the alert is reported as firing this long after the end was last reported.
    refire_seconds: int = Field(default=900, sa_column_kwargs={"server_default": "900"})
    correlation_label: Text[str | None] = (
        None  # its value is the correlation of an alert; null: what the sender reports
    )
    created_at: Timestamp[datetime]


class Token(Row, table=True):
    """A credential. Only a digest of the secret is stored."""

    __tablename__ = "token"
    __table_args__ = (
        CheckConstraint("scope IN ('ingest', 'read', 'write', 'admin')", name="token_scope_is_known"),
        CheckConstraint("(scope = 'ingest') = (source_id IS NOT NULL)", name="token_of_a_door_names_its_source"),
    )

    id: str = Field(sa_type=sa.Text, primary_key=True)  # the public part, at the start of the token
    name: Text[str]
    digest: bytes  # SHA-256 of the whole token, which contains at least 124 random bits
    scope: Text[str]
    source_id: int | None = Field(default=None, foreign_key="source.id")
    created_at: Timestamp[datetime]
    expires_at: Timestamp[datetime | None] = None
    last_used_at: Timestamp[datetime | None] = None  # to about a minute
    revoked_at: Timestamp[datetime | None] = None


class WebSession(Row, table=True):
    """A person who has signed in to the pages. It is valid as long as the token that opened it."""

    __tablename__ = "web_session"

    digest: bytes = Field(primary_key=True)  # SHA-256 of the value of the cookie, which has 256 random bits
    token_id: str | None = Field(default=None, sa_type=sa.Text, foreign_key="token.id", index=True)  # null: admin token
    token_digest: bytes  # so that another admin token in the settings ends the sessions of the former one
    person: Text[str | None] = None  # the name that the person gave; null: the token's name stands for them
    created_at: Timestamp[datetime]
    seen_at: Timestamp[datetime]
    expires_at: datetime = Field(sa_type=sa.DateTime(timezone=True), index=True)
