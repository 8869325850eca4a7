"""uvicorn's HTTP protocol with limits for everything that a client can send, leave open or not read.

uvicorn waits indefinitely for the rest of a request and for a client to read its response, and it does not count heads,
trailers, chunks and their extensions, pipelined requests or connections. Here each is limited, and so is what one
connection may take of an iteration of the event loop. uvicorn also writes the head and the body of a response
separately: two system calls and two packets, which took an eighth of the time of a small delivery.

Only this file depends on uvicorn's internals. It overrides callbacks of the protocol, reads its current cycle, and
passes it a transport; tests/base/test_server.py fails if a release of uvicorn changes any of that.
"""

import asyncio
import sys
from dataclasses import dataclass, field
from fcntl import ioctl
from http import HTTPStatus
from termios import TIOCOUTQ
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.base.errors import Overloaded, Problem, TooLarge
from app.base.http.limits.clients import Connections, network_of
from app.base.http.limits.guard import with_headers
from app.base.http.limits.transport import PACKET_BYTES, InPackets, InTurn, OneWrite
from app.base.http.responses.problems import answer_to
from app.base.process.logs import Application, Receive, Scope, Send

HEAD_BYTES = 64 * 1024
HEADERS = 100
PIPELINED_REQUESTS = 100  # on one connection, waiting for the response to an earlier one
# What a request may add to its body: its head, trailers, the sizes of chunks and their extensions. Chunks of one byte
# need five more each.
FRAMING_BYTES = 2 * HEAD_BYTES
FRAMING_PER_BODY_BYTE = 6
# Of trailers, and of an extension of one chunk. The parser holds a trailer until its end, however long it is.
TRAILER_BYTES = 8 * 1024
# A connection whose packet has more waits until other such connections have had their turn.
CHUNKS_IN_TURN = 128
# Of one body: as many of any size, and one more for every four bytes. An encoder that sends each key, value and comma
# of alerts as a chunk of its own stays below.
CHUNKS = 20_000
BYTES_PER_CHUNK = 4
# What is received and discarded after an early response. Most clients send the whole request before they read, and
# would otherwise find a broken connection instead of the response.
DISCARDED_BYTES = 128 * 2**20
PROGRESS_BYTES = 64 * 1024
RESERVED_SECONDS = 5.0  # time limit for a request on a reserved connection
_HEALTH = {"/healthz", "/readyz"}


class NotHttp(Problem):
    status, title = 400, "Not valid HTTP"


class HeadTooLarge(Problem):
    status, title = 431, "Request head too large"


@dataclass(slots=True)
class Limits:
    """Limits that all connections of a process share. `unread_bytes` limits the responses waiting for slow clients."""

    receive_seconds: float
    write_seconds: float
    unread_bytes: int
    connections: Connections
    slow: dict["LimitedProtocol", None] = field(default_factory=dict)  # connections that hold much of a response
    in_turn: InTurn = field(default_factory=InTurn)
    packet: memoryview = field(default_factory=lambda: memoryview(bytearray(PACKET_BYTES)))  # into which all are read


def protocol_with(limits: Limits) -> type["LimitedProtocol"]:
    """The class for uvicorn's `http` setting. uvicorn creates the instances, so the limits go into the class."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limits": limits})


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits. There is one timer per connection and none per request."""

    limits: ClassVar[Limits]

    network: str
    _clock: asyncio.AbstractEventLoop
    _connection: OneWrite
    _timer: asyncio.TimerHandle
    _patience: float  # seconds to receive a request
    # The request that is being received, or the last one.
    _began_at: float
    _is_receiving: bool
    _is_in_head: bool
    _received_bytes: int
    _carried_bytes: int  # at most as many of the request were in the packet that completed the one before
    _body_bytes: int
    _pieces: int  # of the body, in this packet
    _chunks: int
    _trailer_bytes: int  # parsed
    _bytes_without_body: int  # of the latest packets that had nothing of the body
    _refusal: Problem | None
    _is_deaf: bool  # nothing that arrives is parsed anymore
    # The response.
    _written_by: float  # time of the next look at the progress of the client
    _sent_until_then: int  # the bytes that it must have received by then

    # — the life of a connection —

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._clock = asyncio.get_running_loop()
        self._connection = OneWrite(cast("asyncio.Transport", transport), self._clock, self)
        super().connection_made(cast("asyncio.Transport", self._connection))
        self._connection.set_protocol(InPackets(self, self.limits.packet))
        self._began_at = now = self._clock.time()
        self._is_receiving = self._is_in_head = True
        self._is_deaf = False
        self._received_bytes = self._carried_bytes = self._sent_until_then = 0
        self._body_bytes = self._trailer_bytes = self._bytes_without_body = self._chunks = 0
        self._refusal = None
        self._patience = self.limits.receive_seconds
        self._written_by = now + self.limits.write_seconds
        self.network = network_of(self.client)
        self._timer = self._clock.call_later(self._patience, self._check)
        if not self.limits.connections.add(self):
            self.app = cast("Any", _only_health(cast("Any", self.app)))
            self._patience = min(self._patience, RESERVED_SECONDS)
        self._check()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self.limits.connections.remove(self)
        self.limits.slow.pop(self, None)
        super().connection_lost(exc)
        # This object, its cycle and its transport refer to each other, so that they wait for the garbage collector.
        # What they hold does not: after 500 refused requests it was 60 MB.
        self.headers = self.scope = cast("Any", None)
        self.pipeline.clear()
        if self.cycle is not None:
            self.cycle.body = bytearray()  # not read any more

    def idle_since(self) -> float | None:
        """For `Connections`."""
        cycle = self.cycle
        return self._began_at if cycle is None or cycle.response_complete or cycle.more_body else None

    def evict(self) -> None:
        """For `Connections`."""
        self._connection.abort()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keeps the connection of a client that has sent all its requests and now only reads."""
        super().eof_received()
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return None
        self._is_deaf = True
        cycle.keep_alive = False  # it is the last one on this connection
        return True

    # — receiving —

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._discard(len(data))
            return
        if not self._is_receiving:
            self._begin()
        self._received_bytes += len(data)
        began_in_head, body_bytes = self._is_in_head, self._body_bytes
        self._pieces = 0
        super().data_received(data)
        if self._is_deaf:
            return
        if self._pieces > CHUNKS_IN_TURN:
            if self._is_receiving and self.has_unread_request():
                self._refuse(_too_many_chunks())  # the client has its response; the rest is discarded unparsed
                return
            self.limits.in_turn.wait(self._connection)
        if self._is_receiving:
            is_without_body = not began_in_head and self._body_bytes == body_bytes
            self._bytes_without_body = self._bytes_without_body + len(data) if is_without_body else 0
            self._chunks += max(self._pieces - 1, 0)  # the first may only be the next piece of a body
            self._require_limits()
        elif (cycle := self.cycle) is not None and cycle.more_body and not cycle.response_complete:
            self._begin()  # this packet also has the head of another request
        else:
            self._carried_bytes = len(data)
            if cycle is not None and cycle.response_complete and self.timeout_keep_alive_task is None:
                # The rest of a request with an early response has arrived: the connection is idle now. uvicorn stopped
                # its timer for that when the packet came. Closing the connection could break the next request, which
                # may be on its way.
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    def _begin(self) -> None:
        self._began_at = self._clock.time()
        self._is_receiving = True
        self._received_bytes = self._body_bytes = self._bytes_without_body = self._chunks = 0

    # The parser stops at an exception and calls `send_400_response`. A packet can have 10,000 headers, which would be
    # megabytes as objects, so each is counted before it is kept.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            if len(self.headers) >= HEADERS:
                self._refusal = _head_too_large()
                raise self._refusal
            super().on_header(name, value)
            return
        # A trailer, which the application does not use.
        self._trailer_bytes += len(name) + len(value) + 4
        if self._trailer_bytes > TRAILER_BYTES:
            self._refusal = _framing_too_large()
            raise self._refusal

    def on_headers_complete(self) -> None:
        may_be_large = self._received_bytes + self._carried_bytes > HEAD_BYTES
        if may_be_large and self._head_bytes() > HEAD_BYTES:
            self._refusal = _head_too_large()
            raise self._refusal
        self._is_in_head = False
        self._trailer_bytes = 0
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED_REQUESTS:
            self._refusal = Overloaded(
                f"more than {PIPELINED_REQUESTS} requests wait on this connection; wait for responses, or use several "
                "connections"
            )
            raise self._refusal

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._pieces += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_receiving = False
        self._is_in_head = True
        super().on_message_complete()
        if self.cycle.response_complete and not self.cycle.keep_alive:
            self._connection.shut()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _require_limits(self) -> None:
        """For a request that is still incomplete after a packet."""
        if self._is_in_head:
            if self._received_bytes > HEAD_BYTES:
                self._refuse(_head_too_large())
        elif (
            self._received_bytes - self._body_bytes > FRAMING_BYTES + FRAMING_PER_BODY_BYTE * self._body_bytes
            or self._bytes_without_body > TRAILER_BYTES
        ):
            self._refuse(_framing_too_large())
        elif self._chunks > CHUNKS + self._body_bytes // BYTES_PER_CHUNK:
            self._refuse(_too_many_chunks())
        elif self.has_unread_request() and self._received_bytes > DISCARDED_BYTES:
            self._connection.abort()

    def discard_rest(self) -> None:
        """Called when the last response has been written. The time limit for the request still applies."""
        self._stop_parsing()
        self.flow.resume_reading()

    def _stop_parsing(self) -> None:
        self._is_deaf = True
        # They may hold most of a head or a packet, for as long as the client keeps the connection open.
        self.parser = self.headers = cast("Any", None)

    def _discard(self, received: int) -> None:
        self._received_bytes += received
        if self._received_bytes > DISCARDED_BYTES:
            self._connection.abort()

    # — refusing —

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn if its parser fails. The text of `msg` is replaced."""
        del msg
        refusal = self._refusal or NotHttp("this is not valid HTTP/1.1, so the connection is closed")
        self._refusal = refusal.__traceback__ = None  # its frames refer to this object
        self._refuse(refusal)

    def _refuse(self, problem: Problem) -> None:
        """Responds to what cannot be parsed any further, unless responses to earlier requests are still due."""
        self._stop_parsing()
        cycle = self.cycle
        if self.has_unread_request():
            self._connection.linger()
        elif cycle is None or cycle.response_complete:
            self._answer(problem)
        elif not cycle.more_body:
            cycle.keep_alive = False  # the connection closes after the response
        elif self.pipeline:
            cycle.disconnected = True
            self._began_at, self._is_receiving = self._clock.time(), True  # the time limit closes the connection
        elif cycle.response_started:
            self._connection.abort()
        else:
            self._answer(problem)
            cycle.disconnected = True
            cycle.message_event.set()

    def _answer(self, problem: Problem) -> None:
        response = answer_to(problem, "-")
        lines = [b"HTTP/1.1 %d %b" % (response.status_code, HTTPStatus(response.status_code).phrase.encode())]
        headers = [*response.raw_headers, *self.server_state.default_headers, (b"connection", b"close")]
        lines += [name + b": " + value for name, value in with_headers("", headers)]
        self._connection.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self._connection.linger()

    # — sending —

    def pause_writing(self) -> None:
        """Disconnects the slowest clients if all of them leave too much unread."""
        super().pause_writing()
        slow = self.limits.slow
        slow[self] = None
        unread = sum(one.unsent_bytes() for one in slow)
        while unread > self.limits.unread_bytes and len(slow) > 1:
            slowest = next(iter(slow))
            unread -= slowest.unsent_bytes()
            del slow[slowest]
            slowest.evict()

    def resume_writing(self) -> None:
        self.limits.slow.pop(self, None)
        super().resume_writing()

    def unsent_bytes(self) -> int:
        """The bytes of responses that the kernel has not accepted yet."""
        unsent: int = self._connection.get_write_buffer_size()
        return unsent

    def _queued_by_kernel(self) -> int:
        """The bytes that the kernel has accepted and the client's has not. They can be megabytes, and the kernel
        accepts more only when a third of them has gone, so a slow reader would seem to make no progress.
        """
        try:
            return int.from_bytes(ioctl(self._connection.get_extra_info("socket"), TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    def has_unread_request(self) -> bool:
        """Whether the client is still sending a request to which it has the response."""
        cycle = self.cycle
        return cycle is not None and cycle.response_complete and cycle.more_body

    # — the timer —

    def _check(self) -> None:
        self._timer.cancel()
        now = self._clock.time()
        patience = self._patience
        if self._is_receiving or self._connection.is_lingering:
            patience -= now - self._began_at
        if patience <= 0:
            self._connection.abort()
            return
        if now >= self._written_by:
            unsent = self.unsent_bytes()
            sent = self._connection.written_bytes - unsent - self._queued_by_kernel()
            if unsent and sent < self._sent_until_then:
                self._connection.abort()
                return
            self._sent_until_then = sent + min(unsent, PROGRESS_BYTES)
            self._written_by = now + self.limits.write_seconds
        self._timer = self._clock.call_later(min(patience, self._written_by - now), self._check)


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request line and the headers may have at most {HEAD_BYTES} bytes, and there may be at "
        f"most {HEADERS} headers"
    )


def _framing_too_large() -> NotHttp:
    return NotHttp(
        f"the trailers, or an extension of a chunk, have more than {TRAILER_BYTES} bytes, or the sizes and extensions "
        "of all chunks are too large; send larger chunks"
    )


def _too_many_chunks() -> TooLarge:
    return TooLarge(f"the body has more than {CHUNKS} chunks, most of them tiny; send larger chunks")


def _only_health(app: Application) -> Application:
    """The application for connections beyond the limit."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        if scope["path"] in _HEALTH:
            await app(scope, receive, closing)
            return
        error = Overloaded("all connections (AFTERMATH_MAX_CONNECTIONS) are in use; retry later, and keep fewer open")
        await answer_to(error, scope["method"])(scope, receive, closing)

    return limited
