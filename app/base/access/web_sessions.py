"""Sessions of people who have signed in to the pages with a token. Only a digest of the cookie is stored."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import col, delete, or_
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import WebSession

LIFETIME = timedelta(days=14)
IDLE = timedelta(hours=24)  # a session that is not used for longer ends
SEEN_EVERY = timedelta(minutes=5)  # how exactly the last use is known


@dataclass(frozen=True, slots=True)
class OpenedBy:
    """The token that opens a session. `id` is None for the admin token of the settings."""

    id: str | None
    digest: bytes


def digest_of(cookie: str) -> bytes | None:
    """None if the value cannot be that of a session."""
    return hashlib.sha256(cookie.encode()).digest() if _FORM.fullmatch(cookie) else None


_FORM = re.compile("[A-Za-z0-9_-]{43}", re.ASCII)


async def open_session(session: AsyncSession, token: OpenedBy, person: str | None, *, now: datetime) -> str:
    """Returns the value of the cookie."""
    cookie = secrets.token_urlsafe(32)
    digest = digest_of(cookie)
    assert digest is not None
    session.add(
        WebSession(
            digest=digest,
            token_id=token.id,
            token_digest=token.digest,
            person=person,
            created_at=now,
            seen_at=now,
            expires_at=now + LIFETIME,
        )
    )
    await session.flush()
    return cookie


async def find_session(session: AsyncSession, cookie: str, *, now: datetime) -> WebSession | None:
    """The session, unless it has expired. Notes that it is in use."""
    digest = digest_of(cookie)
    found = await session.get(WebSession, digest) if digest else None
    if found is None or found.expires_at <= now or found.seen_at <= now - IDLE:
        return None
    if found.seen_at <= now - SEEN_EVERY:
        found.seen_at = now
    return found


async def close_session(session: AsyncSession, cookie: str) -> None:
    await session.exec(delete(WebSession).where(col(WebSession.digest) == digest_of(cookie)))


async def delete_expired(session: AsyncSession, *, now: datetime) -> None:
    ended = or_(col(WebSession.expires_at) <= now, col(WebSession.seen_at) <= now - IDLE)
    await session.exec(delete(WebSession).where(ended))
