"""Admits a webhook delivery: checks its token, size, encoding and signature, and finds its source."""

from collections.abc import Mapping
from datetime import datetime

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest

from app.base.errors import Forbidden, TooLarge, Unauthorized, Unsupported
from app.base.http.auth import presented_token
from app.base.http.context import Context
from app.base.schema import Source
from app.base.tokens import Bearer, Scope
from app.ingest.sender import EMPTY, Request, Sender

TOKEN = "token"  # noqa: S105  the name of a path parameter


async def admit(
    context: Context, http: HTTPRequest, sender: Sender, path: Mapping[str, str], *, now: datetime
) -> tuple[Source, Request]:
    """The source of the delivery, and its request without the token.

    Raises Unauthorized, Forbidden, TooLarge or Unsupported.
    """
    token = _token(http, sender, path)
    sent = stored = None
    if token is None and sender.credential.body is not None:
        sent = await _raw_body(http, context)
        token, stored = sender.credential.body(sent)
    bearer = await context.credentials.identify(token)
    _require_ingest(bearer, sender.kind)
    if sent is None:
        sent = await _raw_body(http, context)
    source = await context.credentials.source_of(bearer, sender.kind, now=now)
    if TOKEN in path:
        path = {name: value for name, value in path.items() if name != TOKEN} or EMPTY
    request = Request(sent, now, source.name, http.headers, _query(http, sender), path)
    if source.hmac_secret is not None and (
        sender.verify is None
        or not sender.verify(
            request,
            secret=source.hmac_secret,
            now=now,
            header=source.hmac_header,
            timestamp_header=source.hmac_timestamp_header,
        )
    ):
        raise Unauthorized(
            "the signature of this delivery is missing or wrong; the sender must use the hmac_secret of the source"
        )
    if stored is not None:
        request = Request(stored, now, source.name, request.headers, request.query, path)
    return source, request


def _token(http: HTTPRequest, sender: Sender, path: Mapping[str, str]) -> str | None:
    credential = sender.credential
    if found := path.get(TOKEN):
        return found
    for name in credential.headers:
        if found := http.headers.get(name):
            return found
    for name in credential.query:
        if found := http.query_params.get(name):
            return found
    return presented_token(http)


def _query(http: HTTPRequest, sender: Sender) -> Mapping[str, str]:
    if not http.scope.get("query_string"):
        return EMPTY
    return {name: value for name, value in http.query_params.items() if name not in sender.credential.query}


def _require_ingest(bearer: Bearer, kind: str) -> None:
    """Raises Forbidden."""
    if bearer.scope not in _INGEST_SCOPES:
        raise Forbidden(f"webhooks require a token with scope `ingest`; this token has scope `{bearer.scope}`")
    if bearer.kind is not None and bearer.kind != kind:
        raise Forbidden(f"this token belongs to a source of kind {bearer.kind!r}: post to /webhooks/{bearer.kind}")


_INGEST_SCOPES = frozenset({Scope.INGEST, Scope.ADMIN})


async def _raw_body(http: HTTPRequest, context: Context) -> bytes:
    """Raises TooLarge as soon as the limit is exceeded, and Unsupported for compressed bodies (no sender uses them)."""
    if http.headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
        raise Unsupported("send the body uncompressed; bodies with a Content-Encoding are not accepted")
    limit = context.settings.max_body_bytes
    declared = http.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    more = True
    while more:
        message = await http.receive()
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
