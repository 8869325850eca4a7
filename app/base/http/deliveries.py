"""Admitting a webhook delivery: its credential, its size, its body and its signature."""

from collections.abc import Callable
from datetime import datetime

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.base import db, tokens
from app.base.errors import Forbidden, Overloaded, TooLarge, Unauthorised, Unsupported
from app.base.http.auth import ADMIN_BEARER, identify, is_admin, is_fresh, look_up_cached, proves
from app.base.http.context import Context, context_of
from app.base.spool import CannotKeep, Kept, Spool
from app.base.tokens import Bearer, Scope


async def admit(
    request: Request, kind: str, verify: Callable[..., bool] | None, *, now: datetime, token: str | None
) -> tuple[tokens.SourceRow, bytes]:
    """The source that delivers, and the body as it was sent.

    `verify` is the Verifier of the kind, None if it has no signatures. Raises Unauthorised, Forbidden, TooLarge or
    Unsupported.
    """
    bearer = await identify(context_of(request), token)
    if why_not := _why_not_through(bearer, kind):
        raise Forbidden(why_not)
    body = await _raw_body(request)
    source = await _source_of(request, bearer, kind, now)
    if source.hmac_secret is not None and (
        verify is None
        or not verify(
            body,
            request.headers,
            secret=source.hmac_secret,
            now=now,
            header=source.hmac_header,
            timestamp_header=source.hmac_timestamp_header,
        )
    ):
        raise Unauthorised("the signature of this delivery is missing or wrong")
    return source, body


def admitted_at_once(context: Context, kind: str, token: str | None) -> tokens.SourceRow | None:
    """The source that delivers, where nobody has to be asked and nothing is to be verified. None is no verdict: `admit`
    gives it.
    """
    bearer = _known_bearer(context, token) if token else None
    if bearer is None or _why_not_through(bearer, kind):
        return None
    source = context.known_sources.get(bearer.source or kind)
    return source.value if source and is_fresh(source) and source.value.hmac_secret is None else None


def _known_bearer(context: Context, presented: str) -> Bearer | None:
    if is_admin(context, presented):
        return ADMIN_BEARER
    seen = context.known_tokens.get(tokens.id_of(presented) or "")
    known = seen.value if seen and is_fresh(seen) else None
    return known.bearer if known and proves(presented, known) else None


def _why_not_through(bearer: Bearer, kind: str) -> str | None:
    if bearer.scope not in _DOOR_SCOPES:
        return f"a door needs a token of scope `ingest`; this one has `{bearer.scope}`"
    if bearer.kind is not None and bearer.kind != kind:
        return f"this token belongs to a source of kind {bearer.kind!r}: post to /webhooks/{bearer.kind}"
    return None


_DOOR_SCOPES = frozenset({Scope.INGEST, Scope.ADMIN})


async def _raw_body(request: Request) -> bytes:
    """Raises TooLarge as soon as that is known, and Unsupported for compressed bodies (no sender makes them)."""
    if request.headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
        raise Unsupported("send the body uncompressed; bodies with a Content-Encoding are not taken")
    limit = context_of(request).settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    body = bytearray()
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {limit} bytes; raise AFTERMATH_MAX_BODY_BYTES or let the sender group less"
    )


async def _source_of(request: Request, bearer: Bearer, kind: str, now: datetime) -> tokens.SourceRow:
    """An ingest token names its source; the admin token stands for the source named as its kind."""
    context = context_of(request)
    name = bearer.source or kind

    async def look_up() -> tokens.SourceRow:
        async with db.transaction(context.engine) as tx:
            if bearer.source is None:
                await tokens.ensure_source(tx, kind, kind, now=now)
            return await tokens.source_by_name(tx, name)

    return await look_up_cached(context, context.known_sources, name, look_up)


async def keep(spool: Spool, kept: Kept) -> None:
    """What cannot go to the database. Raises Overloaded."""
    try:
        await spool.keep(kept)
    except CannotKeep as error:
        message = f"the database does not answer, and {error}; send again"
        raise Overloaded(message) from None
