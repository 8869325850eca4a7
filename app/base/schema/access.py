"""Access: sources and tokens."""

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
    )

    id: int = Field(default=None, primary_key=True, sa_column_args=(Identity(),))
    name: Text[str]
    kind: Text[str]
    hmac_secret: Text[str | None] = None
    hmac_header: Text[str | None] = None
    hmac_timestamp_header: Text[str | None] = None
    stale_seconds: int | None = None  # alerts not resent for longer are ended; null: they stay open
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
    digest: bytes  # SHA-256 of the whole token, which contains 256 random bits
    scope: Text[str]
    source_id: int | None = Field(default=None, foreign_key="source.id")
    created_at: Timestamp[datetime]
    revoked_at: Timestamp[datetime | None] = None
