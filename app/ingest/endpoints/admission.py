"""Admits a webhook delivery: checks its token, size, encoding and signature, and finds its source."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from starlette.datastructures import QueryParams

from app.base.access.tokens import Bearer, Scope
from app.base.errors import Forbidden, Unauthorized, UnsupportedMediaType
from app.base.http.access.auth import token_in
from app.base.http.context import Context
from app.base.http.limits.bodies import read_body, require_declared_size
from app.base.process.logs import Receive
from app.base.process.logs import Scope as AsgiScope
from app.base.process.threads import off_loop_if_large
from app.base.schema import Source
from app.ingest.sender import EMPTY, Request, Sender
from app.ingest.senders import SENDERS

TOKEN = "token"  # noqa: S105  the name of a path parameter


async def admit(
    context: Context,
    http: AsgiScope,
    receive: Receive,
    sender: Sender,
    path: Mapping[str, str],
    *,
    endpoint: str,
    now: datetime,
) -> tuple[Source, Request]:
    """The source of the delivery, and its request without the token. `path` has the values of the parameters of
    `endpoint`.

    Raises TooLarge, Unauthorized, Forbidden, UnsupportedMediaType or Overloaded.
    """
    # Reversed, so that the first of several headers with one name counts. Starlette's classes for headers and requests
    # would take as long as reading a small body.
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(http["headers"])}
    require_declared_size(headers.get("content-length", ""), context.settings.max_body_bytes, _TOO_LARGE)
    query: Mapping[str, str] = QueryParams(http["query_string"]) if http["query_string"] else EMPTY
    token = _token(headers, query, path, sender)
    sent = stored = None
    if sender.credential.body is not None:
        sent = await _raw_body(http, headers, receive, context, at_most=UNKNOWN_AT_MOST)
        in_body, stored = await off_loop_if_large(len(sent), sender.credential.body, sent)
        token = token or in_body
    bearer = await context.credentials.identify(token, http.get("client"))
    _require_ingest(bearer, sender.kind)
    if sent is None:
        sent = await _raw_body(http, headers, receive, context)
    source = await context.credentials.source_of(bearer, sender.kind, now=now)
    if TOKEN in path:
        path = {name: value for name, value in path.items() if name != TOKEN} or EMPTY
    if query:
        query = {name: value for name, value in query.items() if name not in sender.credential.query}
    request = Request(sent, now, source.name, headers, query, path, http["method"], endpoint)
    if source.hmac_secret is not None and (
        sender.verify is None
        or not await off_loop_if_large(
            len(sent),
            sender.verify,
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
        request = msgspec.structs.replace(request, body=stored)
    return source, request


def _token(headers: Mapping[str, str], query: Mapping[str, str], path: Mapping[str, str], sender: Sender) -> str | None:
    credential = sender.credential
    if found := path.get(TOKEN):
        return found
    for name in credential.headers:
        if found := headers.get(name):
            return found
    for name in credential.query:
        if found := query.get(name):
            return found
    return token_in(headers.get("authorization", ""))


def _require_ingest(bearer: Bearer, kind: str) -> None:
    """Raises Forbidden."""
    if bearer.scope not in _INGEST_SCOPES:
        raise Forbidden(f"webhooks require a token with scope `ingest`; this token has scope `{bearer.scope}`")
    if bearer.kind is not None and bearer.kind != kind:
        raise Forbidden(f"this token belongs to a source of kind {bearer.kind!r}: {_address_of(bearer.kind)}")


def _address_of(kind: str) -> str:
    found = SENDERS.get(kind)
    return f"post to {found.endpoints[0].path}" if found else "no version of Aftermath that runs here knows it"


_INGEST_SCOPES = frozenset({Scope.INGEST, Scope.ADMIN})


# Bytes of a body that contains the token, so that it must be read before its sender is known. PagerDuty's limit is half
# of it.
UNKNOWN_AT_MOST = 2**20


async def _raw_body(
    http: AsgiScope, headers: Mapping[str, str], receive: Receive, context: Context, *, at_most: int | None = None
) -> bytes:
    """Raises TooLarge, Overloaded, and UnsupportedMediaType for compressed bodies."""
    if headers.get("content-encoding", "").lower() not in {"identity", ""}:
        raise UnsupportedMediaType("send the body uncompressed; bodies with a Content-Encoding are not accepted")
    return await read_body(
        http,
        receive,
        at_most=min(context.settings.max_body_bytes, at_most or context.settings.max_body_bytes),
        advice=_TOO_LARGE if at_most is None else "",
        in_flight=context.in_flight,
    )


_TOO_LARGE = "; raise AFTERMATH_MAX_BODY_BYTES or reduce the sender's group size"
