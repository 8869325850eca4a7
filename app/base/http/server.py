"""uvicorn's HTTP protocol with a time limit for requests, a size limit for their heads, and one write per response.

uvicorn waits indefinitely for the rest of a request, so a client that sends one byte a second, or an endless head,
could hold a connection and its memory forever. Senders treat a dropped connection as a failed delivery and retry.
uvicorn also writes the head and the body of a response separately: two system calls and two packets, which took an
eighth of the time of a small delivery.

Only this file depends on uvicorn's internals. It overrides five callbacks of the protocol and passes it a transport;
tests/base/test_server.py fails if a release of uvicorn changes any of that.
"""

import asyncio
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024


def protocol_with(*, receive_seconds: float) -> type["LimitedProtocol"]:
    """The class for uvicorn's `http` setting. uvicorn creates the instances, so the limit goes into the class."""
    return type("LimitedProtocol", (LimitedProtocol,), {"receive_seconds": receive_seconds})


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a read timeout. There is one timer per connection and none per request."""

    receive_seconds: ClassVar[float] = 60

    _clock: asyncio.AbstractEventLoop
    _connection: "_OneWrite"
    _receiving_since: float | None  # of the request that is still incomplete
    _head_bytes: int | None  # None once the head is complete
    _timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._clock = asyncio.get_running_loop()
        self._connection = _OneWrite(cast("asyncio.Transport", transport), self._clock)
        super().connection_made(cast("asyncio.Transport", self._connection))
        self._receiving_since = self._clock.time()
        self._head_bytes = 0
        self._check_in(self.receive_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._receiving_since is None:
            self._receiving_since = self._clock.time()
            self._head_bytes = 0
        super().data_received(data)
        if self._head_bytes is not None and self._receiving_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._connection.abort()

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._receiving_since = None
        super().on_message_complete()

    def _check(self) -> None:
        left = self.receive_seconds
        if self._receiving_since is not None:
            left -= self._clock.time() - self._receiving_since
        if left > 0:
            self._check_in(left)
        else:
            self._connection.abort()

    def _check_in(self, seconds: float) -> None:
        self._timer = self._clock.call_later(seconds, self._check)


class _OneWrite:
    """A transport that combines everything written in one iteration of the event loop into one write."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, piece: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._write)
        self._pieces.append(piece)

    def close(self) -> None:
        self._write()
        self._transport.close()

    def _write(self) -> None:
        pieces, self._pieces = self._pieces, []
        # If the client has disconnected, drop the response.
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))
