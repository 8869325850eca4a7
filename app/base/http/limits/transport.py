"""What is between the protocol of a connection and its transport: fewer writes, and short reads in turn."""

import asyncio
from collections import deque
from typing import Any, Protocol

# What is read from one connection before others are served: as many chunks as can be parsed in about a millisecond.
PACKET_BYTES = 16 * 1024


class Lingering(Protocol):
    """What a transport must know of its protocol."""

    def has_unread_request(self) -> bool:
        """Whether the client is still sending a request to which it has the response."""

    def discard_rest(self) -> None:
        """Called when the last response has been written."""


class OneWrite:
    """A transport that combines everything written in one iteration of the event loop into one write."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, protocol: Lingering | None = None
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._protocol = protocol
        self._pieces: list[bytes] = []
        self.written_bytes = 0
        self.is_lingering = False
        self._is_paused = self._is_waiting = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self) -> None:
        self._is_paused = True
        self._read_or_not()

    def resume_reading(self) -> None:
        self._is_paused = False
        self._read_or_not()

    def wait(self, is_waiting: bool) -> None:  # noqa: FBT001
        """Also pauses reading, whatever uvicorn wants."""
        self._is_waiting = is_waiting
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._transport.is_closing():
            return
        if self._is_paused or self._is_waiting:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def is_closing(self) -> bool:
        return self.is_lingering or self._transport.is_closing()

    def write(self, piece: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._write)
        self._pieces.append(piece)

    def close(self) -> None:
        if self._protocol is not None and self._protocol.has_unread_request():
            self.linger()
        elif not self.is_lingering:
            self.shut()

    def shut(self) -> None:
        self._write()
        self._transport.close()

    def linger(self) -> None:
        """Sends what is written and ends this direction. The client's is discarded until it closes the connection: if
        the kernel closed it with unread data, the client could lose the response.
        """
        if self.is_closing():
            return
        self._write()
        self.is_lingering = True
        if self._protocol is not None:
            self._protocol.discard_rest()
        self._transport.write_eof()

    def _write(self) -> None:
        pieces, self._pieces = self._pieces, []
        # If the client has disconnected, drop the response.
        if pieces and not self.is_closing():
            data = b"".join(pieces)
            self.written_bytes += len(data)
            self._transport.write(data)


class InTurn:
    """Connections that have sent many chunks at once. In each iteration of the event loop, one of them is read."""

    def __init__(self) -> None:
        self._waiting: deque[OneWrite] = deque()

    def wait(self, connection: OneWrite) -> None:
        connection.wait(True)
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        self._waiting.append(connection)

    def _next(self) -> None:
        self._waiting.popleft().wait(False)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)


class InPackets(asyncio.BufferedProtocol):
    """Limits what is read at once. Without a buffer of its own, uvloop reads up to 8 MB before others are served."""

    def __init__(self, protocol: asyncio.Protocol, packet: memoryview) -> None:
        self._protocol = protocol
        self._packet = packet

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._packet

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(bytes(self._packet[:nbytes]))

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
