"""Logs: one wide line per request, in the words of the domain.

No payloads, no secrets, and no raw paths: a path may hold a token.
"""

import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

log = logging.getLogger("aftermath.request")

TOLD = "aftermath.told"  # in a request's scope: what the route adds to its line, no text of the client's among it

_QUIET = {"/healthz", "/readyz", "/metrics"}


def configure(level: str) -> None:
    """Everything to standard error as `time level logger message`; asked for once per process."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    # uvicorn's access log writes raw paths, and with them path tokens.
    logging.getLogger("uvicorn.access").disabled = True
    for noisy in ("alembic", "httpx", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class OneLinePerRequest:
    """Logs method, route template, status and duration of every request, health checks and scrapes at debug."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not lines_are_written():
            await self.app(scope, receive, send)
            return
        status, began = 0, time.perf_counter()

        async def observed(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            write_line(scope["method"], route, status, began=began, told=scope.get(TOLD, {}))


def lines_are_written() -> bool:
    return log.isEnabledFor(logging.INFO)


def write_line(method: str, route: str, status: int, *, began: float, told: Mapping[str, object]) -> None:
    """Of one request; `began` by the performance counter."""
    level = logging.DEBUG if route in _QUIET and status < 400 else logging.INFO
    milliseconds = (time.perf_counter() - began) * 1000
    words = "".join(f" {name}={value}" for name, value in told.items())
    log.log(level, "method=%s route=%s status=%d ms=%.1f%s", method, route, status, milliseconds, words)
