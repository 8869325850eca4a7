"""Logging: one wide line per request, in the terms of the domain.

No payloads, no secrets and no raw paths, because a path may contain a token.
"""

import logging
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

log = logging.getLogger("aftermath.request")

# Key in the scope of a request: fields that a route adds to its log line, never text from the client.
LOG_FIELDS = "aftermath.log_fields"

_LINE = "method=%s route=%s status=%d ms=%.1f%s"
_QUIET = {"/healthz", "/readyz", "/metrics"}


def configure(level: str) -> None:
    """Logs to standard error as `time level logger message`. Call it once per process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Not in our lines, so there is no need to determine them for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # uvicorn's access log contains raw paths, and tokens in them.
    logging.getLogger("uvicorn.access").disabled = True
    for noisy in ("alembic", "httpx", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))


class _Formatter(logging.Formatter):
    """Formats the time once a second: under load, that would take a quarter of the time of a line."""

    _second = -1
    _formatted = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  logging's name
        second = int(record.created)
        if second != self._second:
            self._second, self._formatted = (
                second,
                time.strftime(datefmt or self.default_time_format, time.localtime(second)),
            )
        return f"{self._formatted},{int(record.msecs):03d}"


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class OneLinePerRequest:
    """Logs method, route template, status and duration of every request; health checks and scrapes at debug level."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not log.isEnabledFor(logging.INFO):
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
            level = logging.DEBUG if route in _QUIET and status < 400 else logging.INFO
            milliseconds = (time.perf_counter() - began) * 1000
            fields = "".join(f" {name}={value}" for name, value in scope.get(LOG_FIELDS, {}).items())
            if log.isEnabledFor(level):
                line = (scope["method"], route, status, milliseconds, fields)
                # Without `log.log`, which would search the stack for the caller.
                log.handle(logging.LogRecord(log.name, level, __file__, 0, _LINE, line, None))
