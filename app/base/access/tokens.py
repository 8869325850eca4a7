"""Access tokens with scopes, stored as hashes and compared in constant time.

A token has the form `aft_<id>_<secret>`, with 256 random bits. For tools that check the form of a key, it is
`<id><secret>` in 32 lower-case letters and digits, with 124 random bits. Only its SHA-256 is stored: with so many
random bits, a fast hash is as good as a slow one. `ingest` tokens are for the webhooks of one source only. Of the other
scopes (read, write, admin) each includes the ones before it.
"""

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, func, literal, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.base.db import rows
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
    """The holder of a valid token. `source`, its id and its kind are set for scope `ingest` only; `id` is that of the
    token, or `admin` for the one in the settings.
    """

    name: str
    scope: Scope
    source_id: int | None = None
    source: str | None = None
    kind: str | None = None
    id: str = "admin"


@dataclass(frozen=True, slots=True)
class KnownToken:
    row: Token
    bearer: Bearer

    def is_valid(self, now: datetime) -> bool:
        return not self.row.revoked_at and (self.row.expires_at is None or now < self.row.expires_at)


def digest_of(presented: str) -> bytes:
    return hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()


def id_of(presented: str) -> str | None:
    """The public part of a token, None if it does not have the form of one and so cannot exist."""
    found = _FORM.fullmatch(presented)
    return found and (found[1] or found[2])


# As `create_token` makes them. Checked first, so that no other text reaches the cache or the database.
_FORM = re.compile(r"aft_([0-9a-f]{8})_[A-Za-z0-9_-]{43}|([0-9a-f]{8})[0-9a-z]{24}", re.ASCII)


_ALPHANUMERIC = string.digits + string.ascii_lowercase  # 24 of them have 124 bits


def matches(known: KnownToken, presented: str) -> bool:
    return hmac.compare_digest(known.row.digest, digest_of(presented))


async def create_token(
    session: AsyncSession,
    name: str,
    scope: Scope,
    *,
    now: datetime,
    source_name: str | None = None,
    kind: str = "",
    alphanumeric: bool = False,
    expires_at: datetime | None = None,
) -> str:
    """Returns the token, which is shown once and never stored. An `ingest` token creates its source if necessary.

    `alphanumeric`: it consists of 32 lower-case letters and digits. `expires_at`: None means never.
    """
    public = secrets.token_hex(4)
    if alphanumeric:
        presented = public + "".join(secrets.choice(_ALPHANUMERIC) for _ in range(24))
    else:
        presented = f"aft_{public}_{secrets.token_urlsafe(32)}"
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
            expires_at=expires_at,
        )
    )
    await session.flush()
    return presented


async def ensure_source(session: AsyncSession, name: str, kind: str, *, now: datetime) -> Source:
    """The source with this name, created if it is new. Raises SourceOfOtherKind."""
    of_name = insert(Source).values(name=name, kind=kind, created_at=now)
    await session.exec(of_name.on_conflict_do_nothing(index_elements=["name"]))
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


async def list_sources(
    session: AsyncSession, *, containing: str | None = None, after: str = "", limit: int | None = None
) -> Sequence[Source]:
    """Sources of alerts and deployments with names greater than `after`, sorted by name. Their names contain the text,
    ignoring case.
    """
    query = _sources(containing).where(col(Source.name) > after)
    return (await session.exec(query.order_by(col(Source.name)).limit(limit))).all()


async def count_sources(session: AsyncSession, *, containing: str | None = None) -> int:
    return await rows.total(session, _sources(containing))


def _sources(containing: str | None) -> SelectOfScalar[Source]:
    return select(Source).where(Source.kind != "person", rows.containing(containing, Source.name))


async def find_token(session: AsyncSession, public: str) -> KnownToken | None:
    found = (await session.exec(_TOKENS.where(Token.id == public))).one_or_none()
    return found and _known_token(*found)


async def list_tokens(session: AsyncSession) -> list[KnownToken]:
    return [_known_token(*found) for found in await session.exec(_TOKENS)]


async def page_of_tokens(
    session: AsyncSession,
    containing: str | None = None,
    *,
    revoked: bool,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[KnownToken]:
    """The valid tokens, newest first, or the revoked ones, latest first, with the text in their name. `after` is the
    time (of creation or revocation) and the id of the last one before.
    """
    at = col(Token.revoked_at) if revoked else col(Token.created_at)
    query = select(Token, Source).join(Source, isouter=True).order_by(at.desc(), col(Token.id).desc())
    query = query.where(*_of_tokens(containing, revoked=revoked))
    if after is not None:
        query = query.where(tuple_(at, col(Token.id)) < tuple_(*map(literal, after)))
    return [_known_token(*found) for found in await session.exec(query.limit(limit))]


async def count_listed_tokens(session: AsyncSession, containing: str | None = None, *, revoked: bool) -> int:
    return await rows.total(session, select(Token.id).where(*_of_tokens(containing, revoked=revoked)))


def _of_tokens(containing: str | None, *, revoked: bool) -> tuple[ColumnElement[bool], ...]:
    of_state = col(Token.revoked_at).is_not(None) if revoked else col(Token.revoked_at).is_(None)
    return of_state, rows.containing(containing, Token.name)


async def count_tokens(session: AsyncSession) -> tuple[int, int]:
    """How many are valid, and how many were revoked."""
    every, revoked = (
        await session.exec(select(func.count(), func.count(col(Token.revoked_at))).select_from(Token))
    ).one()
    return every - revoked, revoked


async def revoke_token(session: AsyncSession, public: str, *, now: datetime) -> None:
    """An already revoked token keeps its time of revocation. Raises TokenNotFound."""
    found = await session.get(Token, public, with_for_update=True)
    if found is None:
        message = f"there is no token with the id or name {public!r}; `aftermath token list` lists all tokens"
        raise TokenNotFound(message)
    found.revoked_at = found.revoked_at or now


async def valid_tokens(session: AsyncSession, name: str, *, now: datetime) -> list[KnownToken]:
    """The valid tokens with this name, newest first, locked. Raises TokenNotFound if there are none."""
    query = select(Token, Source).join(Source, isouter=True).where(Token.name == name, col(Token.revoked_at).is_(None))
    query = query.order_by(col(Token.created_at).desc(), col(Token.id)).with_for_update(of=Token)
    found = [known for each in await session.exec(query) if (known := _known_token(*each)).is_valid(now)]
    if not found:
        message = f"there is no valid token with the name {name!r}; `GET /api/v1/tokens` lists all tokens"
        raise TokenNotFound(message)
    return found


async def revoke_tokens(session: AsyncSession, name: str, *, now: datetime) -> list[str]:
    """Revokes all tokens with this name, and returns their ids. Raises TokenNotFound if none is valid."""
    found = await valid_tokens(session, name, now=now)
    for known in found:
        known.row.revoked_at = now
    return [known.row.id for known in found]


class DifferentTokens(Conflict):
    title = "Tokens with this name differ"


@dataclass(frozen=True, slots=True)
class Rotated:
    token: str
    replaced: list[str]  # ids


async def rotate_token(
    session: AsyncSession,
    name: str,
    *,
    now: datetime,
    valid_until: datetime,
    expires_at: datetime | None,
    alphanumeric: bool = False,
) -> Rotated:
    """Creates a token like those with this name, which expire at `valid_until` if not before. Raises TokenNotFound and
    DifferentTokens.
    """
    found = await valid_tokens(session, name, now=now)
    kept = found[0].bearer
    if any((one.bearer.scope, one.bearer.source) != (kept.scope, kept.source) for one in found):
        message = (
            f"{len(found)} valid tokens have the name {name!r}, with different scopes or sources; create one with "
            "another name, and revoke these"
        )
        raise DifferentTokens(message)
    for known in found:
        known.row.expires_at = min(known.row.expires_at or valid_until, valid_until)
    token = await create_token(
        session,
        name,
        kept.scope,
        now=now,
        source_name=kept.source,
        kind=kept.kind or "",
        alphanumeric=alphanumeric,
        expires_at=expires_at,
    )
    return Rotated(token, [known.row.id for known in found])


async def note_use(session: AsyncSession, used: Mapping[str, datetime]) -> None:
    """Stores when tokens were last used, by id."""
    statement = text("""
        UPDATE token
        SET last_used_at = GREATEST(token.last_used_at, used.at)
        FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS used (id, at)
        WHERE token.id = used.id
    """)
    ids = sorted(used)  # in the order in which other processes lock these rows too
    await (await session.connection()).execute(statement, {"ids": ids, "times": [used[each] for each in ids]})


_TOKENS = select(Token, Source).join(Source, isouter=True).order_by(col(Token.created_at), col(Token.id))


def _known_token(token: Token, source: Source | None) -> KnownToken:
    name, kind = (source.name, source.kind) if source else (None, None)
    return KnownToken(token, Bearer(token.name, Scope(token.scope), token.source_id, name, kind, token.id))
