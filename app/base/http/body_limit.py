"""Limits the size of request bodies before anything reads them, so no client can use more memory than that. FastAPI
reads the whole body before it checks credentials, and its own limit responds in plain text.
"""

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers

from app.base.errors import TooLarge
from app.base.http.problems import answer_to
from app.base.logs import Application, Receive, Scope, Send


class BodyLimit:
    """Responds 413 to bodies of more than `at_most` bytes."""

    def __init__(self, app: Application, *, at_most: int) -> None:
        self._app = app
        self._at_most = at_most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._at_most
        declared = Headers(raw=scope["headers"]).get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
            await _refuse(scope, receive, send, limit)
            return
        received, exceeded, answering = 0, False, False

        async def limited_receive() -> MutableMapping[str, Any]:
            nonlocal received, exceeded
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # The application stops reading. Its response is replaced.
                exceeded = True
                return {"type": "http.disconnect"}
            return message

        async def replacing_send(message: MutableMapping[str, Any]) -> None:
            nonlocal answering
            if exceeded and not answering:
                return
            answering = True
            await send(message)

        await self._app(scope, limited_receive, replacing_send)
        if exceeded and not answering:
            await _refuse(scope, receive, send, limit)


async def _refuse(scope: Scope, receive: Receive, send: Send, limit: int) -> None:
    await answer_to(TooLarge(f"the body is larger than {limit} bytes"), scope["method"])(scope, receive, send)
