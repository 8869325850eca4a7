"""Who may do what: tokens with scopes, stored hashed, compared in constant time.

A token reads `aft_<id>_<secret>`; only the SHA-256 of the whole is kept. The secret has 256 random bits, so a fast
hash is as good as a slow one. `ingest` tokens open the doors of one source and nothing else; of the others each scope
includes the ones before it: read, write, admin.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.errors import Conflict, NotFound
from app.base.schema import source, token

# The kinds of doors that tell of deployments. Those that tell of alerts stand in webhooks/sources.
CHANGE_KINDS = ("deployments", "github", "gitlab", "pagerduty-change")
SIGNED_CHANGE_KINDS = ("github",)


class Scope(StrEnum):
    INGEST = "ingest"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, wanted: "Scope") -> bool:
        order = (Scope.READ, Scope.WRITE, Scope.ADMIN)
        return self is wanted or (self in order and wanted in order and order.index(self) >= order.index(wanted))


class SourceOfOtherKind(Conflict):
    title = "The source is of another kind"


class TokenNotFound(NotFound):
    title = "No such token"


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whoever presented a valid token. `source` and `source_id` are set for `ingest` only."""

    name: str
    scope: Scope
    source_id: int | None = None
    source: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class KnownToken:
    id: str
    name: str
    digest: bytes
    bearer: Bearer
    created_at: datetime
    revoked_at: datetime | None


def digest_of(presented: str) -> bytes:
    return hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()


def id_of(presented: str) -> str | None:
    """The public part of a token, None if it does not look like one."""
    prefix, _, rest = presented.partition("_")
    public, _, secret = rest.partition("_")
    return public if prefix == "aft" and public and secret else None


def matches(known: KnownToken, presented: str) -> bool:
    return hmac.compare_digest(known.digest, digest_of(presented))


async def create_token(
    tx: AsyncConnection, name: str, scope: Scope, *, now: datetime, source_name: str | None = None, kind: str = ""
) -> str:
    """The token itself, which is shown once and never stored. An `ingest` token makes its source if there is none."""
    public, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    presented = f"aft_{public}_{secret}"
    source_id = await ensure_source(tx, source_name, kind, now=now) if scope is Scope.INGEST and source_name else None
    await tx.execute(
        insert(token).values(
            id=public, name=name, digest=digest_of(presented), scope=scope, source_id=source_id, created_at=now
        )
    )
    return presented


async def ensure_source(tx: AsyncConnection, name: str, kind: str, *, now: datetime) -> int:
    """The id of the source with this name, made if it is new. Raises SourceOfOtherKind."""
    await tx.execute(upsert(source).values(name=name, kind=kind, created_at=now).on_conflict_do_nothing())
    found = (await tx.execute(select(source.c.id, source.c.kind).where(source.c.name == name))).one()
    if found.kind != kind:
        message = f"the source {name!r} is of kind {found.kind!r}; name another one for {kind!r}"
        raise SourceOfOtherKind(message)
    return int(found.id)


@dataclass(frozen=True, slots=True)
class SourceRow:
    id: int
    name: str
    kind: str
    hmac_secret: str | None
    hmac_header: str | None
    hmac_timestamp_header: str | None
    stale_seconds: int | None
    created_at: datetime


class SourceNotFound(NotFound):
    title = "No such source"


async def source_by_name(tx: AsyncConnection, name: str) -> SourceRow:
    """Raises SourceNotFound."""
    found = (await tx.execute(select(source).where(source.c.name == name, source.c.kind != "person"))).one_or_none()
    if found is None:
        message = "there is no source of this name; a token of scope `ingest` makes one"
        raise SourceNotFound(message)
    return SourceRow(**found._mapping)


async def list_sources(tx: AsyncConnection) -> list[SourceRow]:
    """Those that send."""
    return [SourceRow(**row._mapping) for row in await tx.execute(select(source).where(source.c.kind != "person"))]


async def find_token(tx: AsyncConnection, public: str) -> KnownToken | None:
    for found in await _tokens(tx, public):
        return found
    return None


async def list_tokens(tx: AsyncConnection) -> list[KnownToken]:
    return await _tokens(tx, None)


async def revoke_token(tx: AsyncConnection, public: str, *, now: datetime) -> None:
    """Raises TokenNotFound."""
    changed = await tx.execute(
        update(token).where(token.c.id == public).values(revoked_at=func.coalesce(token.c.revoked_at, now))
    )
    if changed.rowcount == 0:
        message = f"there is no token with the id {public!r}; `aftermath token list` shows them"
        raise TokenNotFound(message)


async def _tokens(tx: AsyncConnection, public: str | None) -> list[KnownToken]:
    query = (
        select(token, source.c.name.label("source"), source.c.kind)
        .select_from(token.outerjoin(source))
        .order_by(token.c.created_at, token.c.id)
    )
    if public is not None:
        query = query.where(token.c.id == public)
    return [
        KnownToken(
            row.id,
            row.name,
            row.digest,
            Bearer(row.name, Scope(row.scope), row.source_id, row.source, row.kind),
            row.created_at,
            row.revoked_at,
        )
        for row in await tx.execute(query)
    ]
