"""Cache of tokens and sources, so that most requests need no lookup and known senders are still recognized while the
database is down.
"""

import asyncio
import hmac
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access import tokens
from app.base.access.tokens import Bearer, KnownToken, Scope
from app.base.access.web_sessions import OpenedBy
from app.base.errors import Unauthorized
from app.base.http.limits.clients import Failures
from app.base.schema import Source

FRESH_SECONDS = 5.0  # how long a process may still accept a revoked token, or use former settings of a source
SHARED_LOOKUP_SECONDS = 1.0  # how long other requests use the expired value while one request looks it up again
LOOKUP_SECONDS = 2.0  # time limit for a lookup
GUESSES_AT_MOST = 10_000
EXPIRED = -math.inf

T = TypeVar("T")
Clock = Callable[[], float]  # monotonic, in seconds


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T
    looked_up_at: float
    fresh_until: float


class Cache(Generic[T]):
    """Values from the database by name, each looked up at most once in `fresh_seconds`.

    While the database is down the last value stays valid for `trust_seconds`. A missing value (None) is not trusted
    then: it may exist by now.
    """

    def __init__(
        self, monitor: db.DatabaseMonitor, *, trust_seconds: float, fresh_seconds: float, clock: Clock
    ) -> None:
        self._monitor = monitor
        self._trust_seconds = trust_seconds
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._entries: dict[str, _Entry[T]] = {}
        self._lookups: dict[str, asyncio.Task[T]] = {}

    async def get(self, name: str, look_up: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Raises what `look_up` raises, and db.DatabaseDown."""
        last = self._entries.get(name)
        if last and self._clock() < last.fresh_until:
            return last.value
        try:
            if self._monitor.is_down:
                raise db.DatabaseDown  # noqa: TRY301  handled like a failed lookup
            if last and last.fresh_until != EXPIRED:
                last.fresh_until = self._clock() + SHARED_LOOKUP_SECONDS
            async with asyncio.timeout(LOOKUP_SECONDS):
                value = await self._shared_lookup(name, look_up)
        except Exception as error:
            if not db.is_unreachable(error):
                raise
            self._monitor.check_soon()
            if last and last.value and self._clock() < last.looked_up_at + self._trust_seconds:
                return last.value
            raise
        self.store({name: value})
        return value

    def store(self, values: Mapping[str, T]) -> None:
        now = self._clock()
        for name, value in values.items():
            self._entries[name] = _Entry(value, now, now + self._fresh_seconds)

    def expire(self, name: str) -> None:
        """The next request looks the value up again. The former value remains in case the database is down."""
        if entry := self._entries.get(name):
            entry.fresh_until = EXPIRED

    def forget_missing(self) -> None:
        self._entries = {name: entry for name, entry in self._entries.items() if entry.value is not None}

    def has(self, name: str) -> bool:
        """Whether there is a value, though perhaps an old one, or none as of a moment ago."""
        entry = self._entries.get(name)
        return entry is not None and (entry.value is not None or self._clock() < entry.fresh_until)

    def __len__(self) -> int:
        return len(self._entries)

    async def _shared_lookup(self, name: str, look_up: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Requests that need the same value at the same time share one lookup."""
        task = self._lookups.get(name)
        if task is None:
            task = self._lookups[name] = asyncio.create_task(look_up())

            def done(task: asyncio.Task[T]) -> None:
                del self._lookups[name]
                if not task.cancelled():
                    task.exception()  # retrieved here, because all waiting requests may have been canceled

            task.add_done_callback(done)
        return await asyncio.shield(task)


class Credentials:
    """Recognizes tokens, and the sources they belong to."""

    def __init__(
        self,
        engine: AsyncEngine,
        monitor: db.DatabaseMonitor,
        *,
        admin_token: str | None,
        trust_seconds: float,
        fresh_seconds: float = FRESH_SECONDS,
        clock: Clock = time.monotonic,
    ) -> None:
        self._engine = engine
        self._admin_digest = tokens.digest_of(admin_token) if admin_token else None
        self._tokens = Cache[KnownToken | None](
            monitor, trust_seconds=trust_seconds, fresh_seconds=fresh_seconds, clock=clock
        )
        self._sources = Cache[Source](monitor, trust_seconds=trust_seconds, fresh_seconds=fresh_seconds, clock=clock)
        self._failures = Failures(clock)
        self._used: dict[str, datetime] = {}  # since the last refresh, by id

    async def identify(self, presented: str | None, client: Any = None) -> Bearer:
        """The holder of a token. `client` is that of the ASGI scope; too many wrong tokens slow its network down.

        Raises Unauthorized, Overloaded, and db.DatabaseDown for an unknown token while the database is down.
        """
        if not presented:
            raise Unauthorized(
                "send a token as `Authorization: Bearer …` or as the basic-auth password",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if self._admin_digest is not None and hmac.compare_digest(self._admin_digest, tokens.digest_of(presented)):
            return ADMIN_BEARER
        public = tokens.id_of(presented)
        known = await self._token(public, client) if public else None
        now = datetime.now(UTC)
        if known is None or not known.is_valid(now) or not tokens.matches(known, presented):
            await self._failures.delay(client)
            self._failures.note(client)
            raise Unauthorized("this token is unknown, revoked or expired", headers={"WWW-Authenticate": "Bearer"})
        self._used[known.row.id] = now
        return known.bearer

    def opener(self, presented: str) -> OpenedBy:
        """How a session refers to a token that `identify` has accepted."""
        digest = tokens.digest_of(presented)
        if self._admin_digest is not None and hmac.compare_digest(self._admin_digest, digest):
            return OpenedBy(None, digest)
        return OpenedBy(tokens.id_of(presented), digest)

    async def still_valid(self, token: OpenedBy) -> Bearer | None:
        """The holder of the token that opened a session, None if the token was revoked or replaced."""
        if token.id is None:
            admin = self._admin_digest
            return ADMIN_BEARER if admin is not None and hmac.compare_digest(admin, token.digest) else None
        known = await self._token(token.id, None)
        now = datetime.now(UTC)
        if known is None or not known.is_valid(now) or not hmac.compare_digest(known.row.digest, token.digest):
            return None
        self._used[known.row.id] = now
        return known.bearer

    async def source_of(self, bearer: Bearer, kind: str, *, now: datetime) -> Source:
        """The source of an `ingest` token. For the admin token, the source named like the kind."""
        name = bearer.source or kind

        async def look_up() -> Source:
            async with db.session(self._engine) as session:
                if bearer.source is None:
                    return await tokens.ensure_source(session, kind, kind, now=now)
                return await tokens.source_by_name(session, name)

        return await self._sources.get(name, look_up)

    def forget_token(self, public: str) -> None:
        """Makes the next request with the token that has this id look it up, so that this process notices at once that
        it was revoked.
        """
        self._tokens.expire(public)

    def forget_source(self, name: str) -> None:
        """Makes the next request look it up."""
        self._sources.expire(name)

    async def refresh(self) -> None:
        """Stores which tokens were used, and loads all tokens and sources, so that rarely used ones are also known when
        the database goes down.
        """
        used, self._used = self._used, {}
        try:
            if used:
                async with db.session(self._engine) as session:
                    await tokens.note_use(session, used)
        except BaseException:
            self._used = used | self._used
            raise
        async with db.session(self._engine) as session:
            found, sources = await tokens.list_tokens(session), await tokens.list_sources(session)
        self._tokens.store({known.row.id: known for known in found})
        self._sources.store({source.name: source for source in sources})

    async def _token(self, public: str, client: Any) -> KnownToken | None:
        async def look_up() -> KnownToken | None:
            async with db.session(self._engine) as session:
                return await tokens.find_token(session, public)

        if not self._tokens.has(public):
            await self._failures.delay(client)  # before the lookup, because the database must not work for guesses
        if len(self._tokens) > GUESSES_AT_MOST:  # guessed ids must not fill the memory
            self._tokens.forget_missing()
        return await self._tokens.get(public, look_up)


ADMIN_BEARER = Bearer("admin", Scope.ADMIN)
