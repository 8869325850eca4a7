"""How a request comes in over a connection: whole within a time, its head within a size, or the connection is cut; and
how its answer goes out: in one piece.

uvicorn itself waits for ever: for a first byte, the rest of a head, the rest of a body. A client that sends a byte a
second, or an endless head, would hold its connection, and what it has sent in memory, for as long as it likes. To
senders a cut is a failed delivery, which they send again.

uvicorn writes the head of an answer and its body each by itself: two system calls and two packets, of which the first
wakes the client for nothing. At the doors that was an eighth of all their time.
"""

import asyncio
from functools import cache
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.settings import Settings

HEAD_BYTES = 64 * 1024


class Connection(HttpToolsProtocol):
    """uvicorn's, with an end to its patience. One timer a connection, none a request: the doors are hot."""

    _receiving_since: float | None  # of the request that is not whole yet
    _head_bytes: int | None  # None once the head is whole
    _watch: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", _InOnePiece(cast("asyncio.Transport", transport), self.loop)))
        self._receiving_since = self.loop.time()
        self._head_bytes = 0
        self._look_again_in(receive_seconds())

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._receiving_since is None:
            self._receiving_since = self.loop.time()
            self._head_bytes = 0
        super().data_received(data)
        if self._head_bytes is not None and self._receiving_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._receiving_since = None
        super().on_message_complete()

    def _look(self) -> None:
        left = receive_seconds()
        if self._receiving_since is not None:
            left -= self.loop.time() - self._receiving_since
        if left > 0:
            self._look_again_in(left)
        else:
            self.transport.abort()

    def _look_again_in(self, seconds: float) -> None:
        self._watch = self.loop.call_later(seconds, self._look)


class _InOnePiece:
    """A transport that writes once a turn of the event loop, all that it was given in it."""

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
        # Who has gone since is told nothing.
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))


@cache
def receive_seconds() -> float:
    # uvicorn makes its connections itself, in workers too: nothing can be passed to them but by the environment.
    return Settings().receive_seconds
