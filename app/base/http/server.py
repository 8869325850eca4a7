"""How a request comes in over a connection: whole within a time, its head within a size, or the connection is cut; how
its answer goes out: in one piece; and the short way between them, for deliveries.

uvicorn itself waits for ever: for a first byte, the rest of a head, the rest of a body. A client that sends a byte a
second, or an endless head, would hold its connection, and what it has sent in memory, for as long as it likes. To
senders a cut is a failed delivery, which they send again.

uvicorn writes the head of an answer and its body each by itself: two system calls and two packets, of which the first
wakes the client for nothing. At the doors that was an eighth of all their time.

ASGI makes a scope, a cycle, a task and messages of each request, which took longer than to parse, to decide and to
write what is in a delivery. So the application may offer `Doors`: what they open for goes to them as a body and comes
back as an answer. They open for requests without peculiarities only; all else goes the usual way.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.settings import Settings

HEAD_BYTES = 64 * 1024
DOORS = "aftermath.doors"  # in the state that the application's lifespan gives the server

Headers = Iterable[tuple[bytes, bytes]]
Answer = Callable[[int, Headers, bytes], None]  # status, headers, body


class Doors(Protocol):
    def opened(self, method: str, url: str, headers: Mapping[bytes, bytes], length: int) -> "Arriving | None":
        """For a request whose body of `length` bytes is still to come. None: it goes the usual way."""


class Arriving(Protocol):
    """One of the two is called, once."""

    def whole(self, body: bytes, answer: Answer) -> None:
        """`answer` is to be called once, in a later turn of the event loop: what else is in the packet is parsed first.
        Raises nothing: uvicorn would take it for the client's fault.
        """

    def cut(self) -> None:
        """The connection ended before the body did."""


class Connection(HttpToolsProtocol):
    """uvicorn's, with an end to its patience. One timer a connection, none a request: the doors are hot."""

    _receiving_since: float | None  # of the request that is not whole yet
    _head_bytes: int | None  # None once the head is whole
    _watch: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", _InOnePiece(cast("asyncio.Transport", transport), self.loop)))
        self._doors: Doors | None = self.app_state.get(DOORS)
        self._receiving_since = self.loop.time()
        self._head_bytes = 0
        self._look_again_in(receive_seconds())

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)
        if arriving := self._arriving():
            arriving.cut()

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
        arriving = self._opened()
        if arriving is None:
            super().on_headers_complete()
        else:
            self.cycle = _DirectCycle(self, arriving)

    def on_body(self, body: bytes) -> None:
        if self._arriving():
            # Nobody asks for it piece by piece: to pause reading, as uvicorn does, would be for ever.
            self.cycle.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._receiving_since = None
        if arriving := self._arriving():
            cycle = cast("_DirectCycle", self.cycle)
            cycle.arriving, cycle.more_body = None, False
            arriving.whole(bytes(cycle.body), cycle.answer)
        else:
            super().on_message_complete()

    def _arriving(self) -> Arriving | None:
        return self.cycle.arriving if isinstance(self.cycle, _DirectCycle) else None

    def _opened(self) -> Arriving | None:
        if self._doors is None or self.parser.get_http_version() != "1.1" or self.limit_concurrency is not None:
            return None
        # Another is not answered yet, or the client does not read its answers: uvicorn knows how to wait.
        if (self.cycle is not None and not self.cycle.response_complete) or self.flow.write_paused:
            return None
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"")
        if len(headers) < len(self.headers) or not length.isdigit() or not _PECULIAR.isdisjoint(headers):
            return None
        method, url = self.parser.get_method().decode("latin-1"), self.url.decode("latin-1")
        return self._doors.opened(method, url, headers, int(length))

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


_PECULIAR = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"})


class _DirectCycle(RequestResponseCycle):
    """A delivery in uvicorn's books. Where uvicorn looks for the request under way it finds this: so what is pipelined
    behind it waits, a shutdown waits for its answer, and a connection that is lost is known to be.
    """

    on_response: Callable[[], None]

    def __init__(self, connection: Connection, arriving: Arriving) -> None:
        super().__init__(
            scope=connection.scope,
            transport=connection.transport,
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.access_logger,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=_NOBODY_WAITS,
            expect_100_continue=False,
            keep_alive=connection.parser.should_keep_alive(),
            on_response=connection.on_response_complete,
        )
        self.arriving: Arriving | None = arriving  # None once its body is whole

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        on_response, self.on_response = self.on_response, _nothing  # which would hold the connection, and it this
        if self.disconnected:
            return
        self.response_complete = True
        lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in (*self.default_headers, *headers))]
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        cast("_InOnePiece", self.transport).write_now(b"%b\r\n%b" % (b"".join(lines), body))
        if not self.keep_alive:
            self.transport.close()
        on_response()


def _nothing() -> None:
    pass


_NOBODY_WAITS = asyncio.Event()


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

    def write_now(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._write()

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
