"""The HTTP protocol over real sockets, before an application of a few lines: its limits, and answers in one write.

These tests fail when a release of uvicorn changes what app/base/http/server.py relies on. How limits protect the whole
service is tested from outside, in faults/.
"""

import asyncio
import inspect
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, ClassVar

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.base.http.server import HEAD_BYTES, LimitedProtocol, _OneWrite, protocol_with
from app.base.logs import Application, Receive, Scope, Send

RECEIVE_SECONDS = 0.4
BODY = b"the answer"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds with the length of the body once it is complete; never responds to `/waits`."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/waits":
        await asyncio.sleep(1.5 * RECEIVE_SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BODY))]})
    await send({"type": "http.response.body", "body": BODY})


class Server(uvicorn.Server):
    """Runs in this process on a separate port, without signal handlers."""

    def __init__(self, protocol: type[HttpToolsProtocol], app: Application = echo, **settings: Any) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        config = {"lifespan": "off", "log_config": None, "access_log": False, "timeout_keep_alive": 3600, **settings}
        super().__init__(uvicorn.Config(app, http=protocol, **config))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        serving = asyncio.create_task(self.serve(sockets=[self.listening]))
        try:
            await until(lambda: self.started)
            yield self
        finally:
            self.should_exit = True
            await serving


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.01)


class Recorded(_OneWrite):
    """Counts the writes that reach the real transport."""

    writes: ClassVar[list[bytes]] = []

    def _write(self) -> None:
        if self._pieces:
            self.writes.append(b"".join(self._pieces))
        super()._write()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr("app.base.http.server._OneWrite", Recorded)
    monkeypatch.setattr(Recorded, "writes", [])
    async with Server(protocol_with(receive_seconds=RECEIVE_SECONDS)).running() as server:
        yield server


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def cut_off_after(reader: asyncio.StreamReader) -> float:
    """Seconds until the server drops the connection without a response."""
    began = time.monotonic()
    async with asyncio.timeout(30):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    return time.monotonic() - began


async def an_answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        return await reader.readuntil(BODY)


def a_request(body: bytes = b"", path: str = "/") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


# — what it relies on —


def test_uvicorn_still_has_the_overridden_methods() -> None:
    """Checks the signatures of uvicorn's methods, and that no attribute of its instances has a name used here."""
    expected = {
        "connection_made": ["self", "transport"],
        "connection_lost": ["self", "exc"],
        "data_received": ["self", "data"],
        "on_headers_complete": ["self"],
        "on_message_complete": ["self"],
    }
    for name, parameters in expected.items():
        assert list(inspect.signature(getattr(HttpToolsProtocol, name)).parameters) == parameters, name
        assert name in vars(LimitedProtocol)
    plain = HttpToolsProtocol(uvicorn.Config(echo), uvicorn.server.ServerState(), {}, asyncio.new_event_loop())
    ours = {"receive_seconds", *LimitedProtocol.__annotations__, "_check", "_check_in"}
    assert ours.isdisjoint(dir(plain))
    plain.loop.close()


def test_uvicorn_takes_a_class_and_makes_the_protocol_itself() -> None:
    config = uvicorn.Config(echo, http=protocol_with(receive_seconds=7))
    config.load()
    assert issubclass(config.http_protocol_class, LimitedProtocol)
    assert config.http_protocol_class.receive_seconds == 7


# — limits —


@pytest.mark.parametrize("sent", [b"", b"POST / HT", a_request(b"x" * 10)[:-3]], ids=["nothing", "head", "body"])
async def test_an_incomplete_request_is_cut_off_in_time(server: Server, sent: bytes) -> None:
    async with connected(server) as (reader, writer):
        writer.write(sent)
        assert RECEIVE_SECONDS * 0.9 < await cut_off_after(reader) < RECEIVE_SECONDS * 10


async def test_the_time_limit_does_not_restart_with_each_byte(server: Server) -> None:
    async with connected(server) as (reader, writer):
        cut = asyncio.create_task(cut_off_after(reader))
        for byte in a_request(b"x" * 100):
            if cut.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(RECEIVE_SECONDS / 5)
        assert await cut < RECEIVE_SECONDS * 10


async def test_neither_an_answer_that_takes_long_nor_an_idle_connection_is_cut_off(server: Server) -> None:
    async with connected(server) as (reader, writer):
        for path in ("/waits", "/"):
            writer.write(a_request(path=path))
            assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(1.5 * RECEIVE_SECONDS)


@pytest.mark.parametrize("begins", [b"POST /", b"POST / HTTP/1.1\r\nX: "], ids=["url", "header"])
async def test_a_head_without_end_is_cut_off(server: Server, begins: bytes) -> None:
    async with connected(server) as (reader, writer):
        writer.write(begins)
        for _ in range(HEAD_BYTES // 1024 + 2):
            writer.write(b"a" * 1024)
        assert await cut_off_after(reader) < RECEIVE_SECONDS


async def test_a_body_may_be_larger_than_a_head(server: Server) -> None:
    async with connected(server) as (reader, writer):
        writer.write(a_request(b"x" * 4 * HEAD_BYTES))
        assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")


async def test_the_next_head_has_its_own_limit(server: Server) -> None:
    async with connected(server) as (reader, writer):
        for _ in range(3):
            writer.write(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nX: %b\r\n\r\n" % (b"a" * (HEAD_BYTES // 2))
            )
            assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")


# — one write —


async def test_head_and_body_of_an_answer_leave_in_one_write(server: Server) -> None:
    async with connected(server) as (reader, writer):
        for turn in range(1, 3):
            writer.write(a_request(b"x"))
            await an_answer(reader)
            assert len(Recorded.writes) == turn
            assert Recorded.writes[-1].startswith(b"HTTP/1.1 200 OK\r\n")
            assert Recorded.writes[-1].endswith(b"\r\n\r\n" + BODY)


async def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    async with connected(server) as (reader, writer):
        writer.write(a_request(b"x", path="/waits") + a_request(b"y") * 2)
        for _ in range(3):
            assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")


async def test_invalid_http_gets_a_response_before_the_connection_closes(server: Server) -> None:
    async with connected(server) as (reader, writer):
        writer.write(b"POST  HTTP\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


class Below(asyncio.Transport):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def write(self, data: Any) -> None:
        self.seen.append(bytes(data))

    def close(self) -> None:
        self.seen.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.seen

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": "there"}.get(name, default)


async def test_pieces_leave_together_and_before_the_connection_ends() -> None:
    below = Below()
    transport = _OneWrite(below, asyncio.get_running_loop())
    transport.write(b"head")
    transport.write(b"body")
    assert below.seen == []
    await asyncio.sleep(0)
    assert below.seen == [b"headbody"]
    transport.write(b"last")
    transport.close()
    await asyncio.sleep(0)
    assert below.seen == [b"headbody", b"last", "closed"]
    assert transport.is_closing()
    assert transport.get_extra_info("peername") == "there"


async def test_an_answer_to_a_client_that_has_gone_is_dropped() -> None:
    below = Below()
    transport = _OneWrite(below, asyncio.get_running_loop())
    transport.write(b"head")
    below.close()  # by the other side
    await asyncio.sleep(0)
    assert below.seen == ["closed"]
