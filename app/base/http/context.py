"""What every route is given: the process's context, one transaction and one `now` per request."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db, tokens
from app.base.spool import Spool
from app.settings import Settings

CACHE_SECONDS = 5.0  # how long a process may still take a revoked token, or go by the former settings of a source

T = TypeVar("T")


class Seen(NamedTuple, Generic[T]):
    """What the database said last, when, and until when nobody needs to ask again; both by the monotonic clock."""

    at: float
    until: float
    value: T

    @classmethod
    def now(cls, value: T) -> "Seen[T]":
        now = time.monotonic()
        return cls(now, now + CACHE_SECONDS, value)


@dataclass(slots=True)
class Context:
    """What a process serves with; on `app.state.context`."""

    settings: Settings
    engine: AsyncEngine
    reach: db.Reach
    spool: Spool
    admin_digest: bytes | None = None
    known_tokens: dict[str, Seen[tokens.KnownToken | None]] = field(default_factory=dict)
    known_sources: dict[str, Seen[tokens.SourceRow]] = field(default_factory=dict)
    lookups: dict[Any, "asyncio.Task[Any]"] = field(default_factory=dict)  # that are under way


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _transaction(request: Request) -> AsyncIterator[AsyncConnection]:
    async with db.transaction(context_of(request).engine) as connection:
        yield connection


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    async with db.session(context_of(request).engine) as rows:
        yield rows


def _now() -> datetime:
    return datetime.now(UTC)


def _settings(request: Request) -> Settings:
    return context_of(request).settings


# scope="function": commit before the response leaves, so that a 2xx is never a lost write.
# A route takes one of the two: each is a transaction of its own.
Tx = Annotated[AsyncConnection, Depends(_transaction, scope="function")]
Session = Annotated[AsyncSession, Depends(_session, scope="function")]
Now = Annotated[datetime, Depends(_now)]
Knobs = Annotated[Settings, Depends(_settings)]
