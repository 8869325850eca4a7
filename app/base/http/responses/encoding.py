"""Compressed responses: whether a client takes them, and compression of those of REST."""

import zlib
from collections.abc import MutableMapping
from typing import Any

from fastapi import Request
from starlette.datastructures import MutableHeaders

from app.base.process.logs import Application, Receive, Scope, Send
from app.base.process.threads import LARGE, off_loop

FROM_BYTES = 1000
LEVEL = 5
_GZIP_FORMAT = 31  # zlib's number for the window and a header of gzip


def accepts_gzip(request: Request) -> bool:
    accepted = request.headers.get("accept-encoding", "")
    return any(
        name.strip() == "gzip" and parameters.replace(" ", "") not in {"q=0", "q=0.0"}
        for name, _, parameters in (one.partition(";") for one in accepted.split(","))
    )


class Gzip:
    """Compresses the responses of REST to clients that take it. Pages compress their own.

    Responses of REST have no secret beside text that someone else chooses, from whose compressed length the secret
    could be guessed; the only secrets are new tokens, each of which is sent once.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(("/api/v1/", "/openapi.")):
            compressing = _Compressing(send, is_wanted=accepts_gzip(Request(scope)))
            await self._app(scope, receive, compressing.send)
        else:
            await self._app(scope, receive, send)


def _is_text(headers: MutableHeaders) -> bool:
    return "content-encoding" not in headers and headers.get("content-type") != "application/octet-stream"


class _Compressing:
    """One response. Its head waits for the first part of the body, which decides."""

    def __init__(self, send: Send, *, is_wanted: bool) -> None:
        self._send, self._is_wanted = send, is_wanted
        self._head: MutableMapping[str, Any] | None = None
        self._gzip: Any = None

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            return
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if self._head is not None:
            head, self._head = self._head, None
            headers = MutableHeaders(raw=list(head["headers"]))
            headers.add_vary_header("Accept-Encoding")
            if self._is_wanted and _is_text(headers) and not (is_last and len(body) < FROM_BYTES):
                self._gzip = zlib.compressobj(LEVEL, wbits=_GZIP_FORMAT)
                headers["Content-Encoding"] = "gzip"
                if is_last:
                    body = await self._compressed(body, is_last=True)
                    headers["Content-Length"] = str(len(body))
                else:
                    del headers["Content-Length"]
                    body = await self._compressed(body, is_last=False)
            await self._send({**head, "headers": headers.raw})
        elif self._gzip is not None:
            body = await self._compressed(body, is_last=is_last)
        await self._send({**message, "body": body})

    async def _compressed(self, body: bytes, *, is_last: bool) -> bytes:
        def compress() -> bytes:
            flush = zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH
            compressed: bytes = self._gzip.compress(body) + self._gzip.flush(flush)
            return compressed

        return await off_loop(compress) if len(body) > LARGE else compress()
