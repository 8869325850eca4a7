"""Access tokens with scopes, stored as hashes and compared in constant time.

A token has the form `aft_<id>_<secret>`; only the SHA-256 of it is stored. The secret has 256 random bits, so a fast
hash is as good as a slow one. `ingest` tokens are for the webhooks of one source only; of the others each
scope includes the ones before it: read, write, admin.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Conflict, NotFound
from app.base.schema import Source, Token


class Scope(StrEnum):
    INGEST = "ingest"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, wanted: "Scope") -> bool:
        order = (Scope.READ, Scope.WRITE, Scope.ADMIN)
        return self is wanted or (self in order and wanted in order and order.index(self) >= order.index(wanted))


class SourceOfOtherKind(Conflict):
    title = "Different kind of source"


class TokenNotFound(NotFound):
    title = "Token not found"


@dataclass(frozen=True, slots=True)
class Bearer:
    """The holder of a valid token. `source`, its id and its kind are set for scope `ingest` only."""

    name: str
    scope: Scope
    source_id: int | None = None
    source: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class KnownToken:
    row: Token
    bearer: Bearer


def digest_of(presented: str) -> bytes:
    return hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()


def id_of(presented: str) -> str | None:
    """The public part of a token, None if it does not look like one."""
    prefix, _, rest = presented.partition("_")
    public, _, secret = rest.partition("_")
    return public if prefix == "aft" and public and secret else None


def matches(known: KnownToken, presented: str) -> bool:
    return hmac.compare_digest(known.row.digest, digest_of(presented))


async def create_token(
    session: AsyncSession, name: str, scope: Scope, *, now: datetime, source_name: str | None = None, kind: str = ""
) -> str:
    """Returns the token, which is shown once and never stored. An `ingest` token creates its source if necessary."""
    public, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    presented = f"aft_{public}_{secret}"
    source = None
    if scope is Scope.INGEST and source_name:
        source = await ensure_source(session, source_name, kind, now=now)
    session.add(
        Token(
            id=public,
            name=name,
            digest=digest_of(presented),
            scope=scope,
            source_id=source.id if source else None,
            created_at=now,
        )
    )
    await session.flush()
    return presented


async def ensure_source(session: AsyncSession, name: str, kind: str, *, now: datetime) -> Source:
    """The source with this name, created if it is new. Raises SourceOfOtherKind."""
    await session.exec(insert(Source).values(name=name, kind=kind, created_at=now).on_conflict_do_nothing())
    found = (await session.exec(select(Source).where(Source.name == name))).one()
    if found.kind != kind:
        message = f"the source {name!r} has kind {found.kind!r}; use another name for a source of kind {kind!r}"
        raise SourceOfOtherKind(message)
    return found


class SourceNotFound(NotFound):
    title = "Source not found"


async def source_by_name(session: AsyncSession, name: str) -> Source:
    """Raises SourceNotFound."""
    found = (await session.exec(select(Source).where(Source.name == name, Source.kind != "person"))).one_or_none()
    if found is None:
        message = "there is no source with this name; creating a token with scope `ingest` creates its source"
        raise SourceNotFound(message)
    return found


async def list_sources(session: AsyncSession, *, after: str = "", limit: int | None = None) -> Sequence[Source]:
    """Sources of alerts and deployments with names greater than `after`, sorted by name."""
    query = select(Source).where(Source.kind != "person", col(Source.name) > after)
    return (await session.exec(query.order_by(col(Source.name)).limit(limit))).all()


async def find_token(session: AsyncSession, public: str) -> KnownToken | None:
    found = (await session.exec(_TOKENS.where(Token.id == public))).one_or_none()
    return found and _known_token(*found)


async def list_tokens(session: AsyncSession) -> list[KnownToken]:
    return [_known_token(*found) for found in await session.exec(_TOKENS)]


async def revoke_token(session: AsyncSession, public: str, *, now: datetime) -> None:
    """An already revoked token keeps its time of revocation. Raises TokenNotFound."""
    found = await session.get(Token, public, with_for_update=True)
    if found is None:
        message = f"there is no token with the id {public!r}; `aftermath token list` lists all tokens"
        raise TokenNotFound(message)
    found.revoked_at = found.revoked_at or now


_TOKENS = select(Token, Source).join(Source, isouter=True).order_by(col(Token.created_at), col(Token.id))


def _known_token(token: Token, source: Source | None) -> KnownToken:
    name, kind = (source.name, source.kind) if source else (None, None)
    return KnownToken(token, Bearer(token.name, Scope(token.scope), token.source_id, name, kind))
