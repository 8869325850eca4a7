"""Guards all routes except the webhook endpoints: checks the size of a request, then its credential, and only then lets
the application read the body.

FastAPI reads a whole body before it looks at credentials, so both checks happen when it begins to read. Also here: a
trailing slash of the path is dropped, headers for browsers, and a problem as the response to an unexpected error.
"""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request

from app.base.http.access.auth import admit, scope_required_by
from app.base.http.limits.bodies import SMALL_BYTES, require_declared_size, too_large
from app.base.http.requests.paths import drop_trailing_slash
from app.base.http.responses.problems import answer_to
from app.base.process.logs import Application, Receive, Scope, Send

_DOCS = "/docs"
_STATIC = "/docs/assets/"

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}
_DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"
# The page of the API starts with an inline script.
_DOCS_POLICY = (
    b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Guard:
    """Responds 413 to bodies of more than `at_most` bytes, 401 or 403 before a body is read, and 503 if the bodies of
    all requests together are too large. `larger` has other limits, by patterns of whole paths.
    """

    def __init__(self, app: Application, *, at_most: int, larger: Mapping[re.Pattern[str], int] = {}) -> None:
        self._app = app
        self._at_most = at_most
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        drop_trailing_slash(scope)
        others = (limit for pattern, limit in self._larger.items() if pattern.fullmatch(scope["path"]))
        at_most = next(others, self._at_most)
        guarded = _Guarded(scope, receive, send, at_most)
        try:
            require_declared_size(Headers(raw=scope["headers"]).get("content-length", ""), at_most)
            await self._app(scope, guarded.receive, guarded.send)
        except Exception as error:  # noqa: BLE001  becomes the response
            await guarded.fail(error)
        finally:
            guarded.release()
        await guarded.refuse()


class _Guarded:
    """One request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, at_most: int) -> None:
        self._scope, self._receive, self._send, self._at_most = scope, receive, send, at_most
        self._received = 0
        self._is_admitted = False
        self._refusal: Exception | None = None
        self._has_started = self._has_finished = False

    async def receive(self) -> MutableMapping[str, Any]:
        """The next part of the body. After a refusal the application sees a disconnected client, and stops reading.

        After a response has begun, nothing is refused any more: Starlette listens for the client's disconnection while
        it streams, and would stop in the middle of the response.
        """
        if self._has_started:
            return await self._receive()
        if self._refusal is None:
            try:
                return await self._next()
            except Exception as error:  # noqa: BLE001  becomes the response
                self._refusal = error
        return {"type": "http.disconnect"}

    async def _next(self) -> MutableMapping[str, Any]:
        if not self._is_admitted:
            route = self._scope.get("route")
            if isinstance(route, APIRoute) and (wanted := scope_required_by(route.endpoint)):
                await admit(Request(self._scope), wanted)
            self._is_admitted = True
        message = await self._receive()
        if part := message.get("body", b""):
            self._received += len(part)
            if self._received > self._at_most:
                raise too_large(self._at_most)
            if self._received > SMALL_BYTES:
                self._scope["state"]["context"].in_flight.count(self._scope, self._received)
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if self._refusal is not None and not self._has_started:
            return
        await self._pass_on(message)

    async def _pass_on(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._has_started = True
            message = {**message, "headers": with_headers(self._scope["path"], message.get("headers", ()))}
        elif not message.get("more_body", False):
            self._has_finished = True
        await self._send(message)

    async def fail(self, error: Exception) -> None:
        """Responds to an error that nothing else has handled."""
        if self._has_finished:
            return  # Starlette responds to an unexpected error, and then raises it again
        if self._has_started:
            raise error  # the server closes the connection, so that the client notices
        self._refusal = self._refusal or error

    async def refuse(self) -> None:
        if self._refusal is not None and not self._has_started:
            await answer_to(self._refusal, self._scope["method"])(self._scope, self._receive, self._pass_on)

    def release(self) -> None:
        if self._received > SMALL_BYTES:
            self._scope["state"]["context"].in_flight.release(self._scope)


def with_headers(path: str, headers: Any) -> list[tuple[bytes, bytes]]:
    """The headers of a response, and those that protect it in a browser unless it has its own. Data is not cached."""
    added = {**_HEADERS, b"content-security-policy": _DATA_POLICY}
    if path.startswith(_DOCS):
        added[b"content-security-policy"] = _DOCS_POLICY
    if not path.startswith(_STATIC):
        added[b"cache-control"] = b"no-store"
    for name, _ in headers:
        added.pop(name.lower(), None)
    return [*headers, *added.items()]
