"""Admission of a webhook delivery: checks its credential, size, body and signature."""

from collections.abc import Callable
from datetime import datetime

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.base.errors import Forbidden, Overloaded, TooLarge, Unauthorized, Unsupported
from app.base.http.context import Context
from app.base.schema import Source
from app.base.spool import CannotKeep, Kept, Spool
from app.base.tokens import Bearer, Scope


async def admit(
    context: Context,
    request: Request,
    kind: str,
    verify: Callable[..., bool] | None,
    *,
    now: datetime,
    token: str | None,
) -> tuple[Source, bytes]:
    """The source of the delivery and the body as sent.

    `verify` is the Verifier of the kind, None if it has no signatures. Raises Unauthorized, Forbidden, TooLarge or
    Unsupported.
    """
    bearer = await context.credentials.identify(token)
    _require_ingest(bearer, kind)
    body = await _raw_body(request, context)
    source = await context.credentials.source_of(bearer, kind, now=now)
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
        raise Unauthorized("the signature of this delivery is missing or wrong")
    return source, body


def _require_ingest(bearer: Bearer, kind: str) -> None:
    """Raises Forbidden."""
    if bearer.scope not in _INGEST_SCOPES:
        raise Forbidden(f"webhooks require a token with scope `ingest`; this token has scope `{bearer.scope}`")
    if bearer.kind is not None and bearer.kind != kind:
        raise Forbidden(f"this token belongs to a source of kind {bearer.kind!r}: post to /webhooks/{bearer.kind}")


_INGEST_SCOPES = frozenset({Scope.INGEST, Scope.ADMIN})


async def _raw_body(request: Request, context: Context) -> bytes:
    """Raises TooLarge as soon as the limit is exceeded, and Unsupported for compressed bodies (no sender uses them)."""
    if request.headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
        raise Unsupported("send the body uncompressed; bodies with a Content-Encoding are not accepted")
    limit = context.settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
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
        f"the body is larger than {limit} bytes; raise AFTERMATH_MAX_BODY_BYTES or reduce the sender's group size"
    )


async def keep(spool: Spool, kept: Kept) -> None:
    """Stores a delivery in the spool because the database is unavailable. Raises Overloaded."""
    try:
        await spool.keep(kept)
    except CannotKeep as error:
        message = f"the database does not answer, and {error}; send it again later"
        raise Overloaded(message) from None
