"""The HTTP protocol over real sockets, before an application of a few lines: its limits, and answers in one write.

These tests fail when a release of uvicorn changes what app/base/http/limits/server.py relies on. How limits protect the
whole service is tested from outside, in faults/.
"""

import asyncio
import inspect
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, ClassVar

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.base.http.limits.clients import Connections
from app.base.http.limits.server import (
    BYTES_PER_CHUNK,
    CHUNKS,
    HEAD_BYTES,
    PIPELINED_REQUESTS,
    LimitedProtocol,
    Limits,
    protocol_with,
)
from app.base.http.limits.transport import PACKET_BYTES, OneWrite
from app.base.process.logs import Application, Receive, Scope, Send

RECEIVE_SECONDS = 0.4
BODY = b"the answer"
LARGE = bytes(8 * 2**20)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds when the body is complete: to `/waits` late, to `/early` at once, to `/large` with much."""
    body, more = b"", scope["path"] != "/early"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/waits":
        await asyncio.sleep(1.5 * RECEIVE_SECONDS)
    answer = LARGE if scope["path"] == "/large" else BODY
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


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


def limits(**changed: Any) -> Limits:
    usual = {"write_seconds": 30, "unread_bytes": 2**26, "connections": Connections(100)}
    return Limits(**{"receive_seconds": RECEIVE_SECONDS, **usual, **changed})


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.01)


class Recorded(OneWrite):
    """Counts the writes that reach the real transport."""

    writes: ClassVar[list[bytes]] = []

    def _write(self) -> None:
        if self._pieces:
            self.writes.append(b"".join(self._pieces))
        super()._write()


@asynccontextmanager
async def serving(**changed: Any) -> AsyncIterator[Server]:
    async with Server(protocol_with(limits(**changed))).running() as server:
        yield server


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr("app.base.http.limits.server.OneWrite", Recorded)
    monkeypatch.setattr(Recorded, "writes", [])
    async with Server(protocol_with(limits())).running() as server:
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


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server closes the connection."""
    read = b""
    async with asyncio.timeout(30):
        with suppress(ConnectionError):
            while more := await reader.read(2**16):
                read += more
    return read


async def an_answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        return await reader.readuntil(BODY)


def a_request(body: bytes = b"", path: str = "/") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


# — methods of uvicorn —


def test_uvicorn_still_has_the_overridden_methods() -> None:
    """Checks the signatures of uvicorn's methods, and that no attribute of its instances has a name used here."""
    expected = {
        "connection_made": ["self", "transport"],
        "connection_lost": ["self", "exc"],
        "data_received": ["self", "data"],
        "eof_received": ["self"],
        "pause_writing": ["self"],
        "resume_writing": ["self"],
        "on_header": ["self", "name", "value"],
        "on_headers_complete": ["self"],
        "on_body": ["self", "body"],
        "on_message_complete": ["self"],
        "send_400_response": ["self", "msg"],
    }
    for name, parameters in expected.items():
        assert list(inspect.signature(getattr(HttpToolsProtocol, name)).parameters) == parameters, name
        assert name in vars(LimitedProtocol)
    plain = HttpToolsProtocol(uvicorn.Config(echo), uvicorn.server.ServerState(), {}, asyncio.new_event_loop())
    ours = {*LimitedProtocol.__annotations__, *vars(LimitedProtocol)} - {*vars(object), *expected}
    assert {name for name in ours if not name.startswith("__")}.isdisjoint(dir(plain))
    used = {"app", "client", "cycle", "flow", "headers", "loop", "parser", "pipeline", "server_state", "url"}
    used |= {"timeout_keep_alive", "timeout_keep_alive_handler", "timeout_keep_alive_task"}
    assert used - {*dir(plain), "url"} == set()  # `url` is set when a request begins
    plain.loop.close()


def test_uvicorn_still_has_the_attributes_of_a_cycle() -> None:
    used = {"disconnected", "keep_alive", "message_event", "more_body", "response_complete", "response_started"}
    assert used - set(inspect.getsource(RequestResponseCycle).replace("self.", " ").split()) == set()


def test_uvicorn_takes_a_class_and_makes_the_protocol_itself() -> None:
    shared = limits()
    config = uvicorn.Config(echo, http=protocol_with(shared))
    config.load()
    assert issubclass(config.http_protocol_class, LimitedProtocol)
    assert config.http_protocol_class.limits is shared


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
        assert (await all_of(reader)).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"X: " + b"a" * (HEAD_BYTES - 50) + b"\r\n", 200),
        (b"X: " + b"a" * HEAD_BYTES + b"\r\n", 431),
        (b"X: " + b"a" * 2**20 + b"\r\n", 431),
        (b"a:b\r\n" * 90, 200),
        (b"a:b\r\n" * 101, 431),
        (b"a:b\r\n" * 10_000, 431),
    ],
    ids=["64 KB", "65 KB", "1 MB", "90 headers", "101 headers", "10,000 headers"],
)
async def test_a_whole_head_in_one_packet_is_limited_too(server: Server, headers: bytes, status: int) -> None:
    async with connected(server) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n" + headers + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 %d " % status)


async def test_a_head_behind_another_request_is_limited_too(server: Server) -> None:
    async with connected(server) as (reader, writer):
        head = b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES
        writer.write(a_request() + head)
        assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")
        writer.write(b"aaaa\r\n\r\n")
        assert (await all_of(reader)).startswith(b"HTTP/1.1 431 ")


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begins", "endless"),
    [
        (b"1\r\nx\r\n0\r\n", b"t: " + b"x" * 1021),
        (b"0\r\n", b"t: x\r\n"),
        (b"0\r\nt: ", b"x" * 1024),
        (b"200000\r\n" + bytes(2**21) + b"\r\n0\r\nt: ", b"x" * 1024),
        (b"1;", b"e=x;" * 256),
        (b"", b"1;" + b"e" * 1020 + b"\r\nx\r\n"),
        (b"", b"0" * 1024),
    ],
    ids=[
        "a trailer",
        "trailers",
        "a long trailer",
        "a long trailer after a body",
        "an extension",
        "extensions",
        "zeros",
    ],
)
async def test_bytes_around_the_body_are_counted(begins: bytes, endless: bytes) -> None:
    async with serving(receive_seconds=30) as server, connected(server) as (reader, writer):
        writer.write(CHUNKED + begins)
        refused = asyncio.create_task(all_of(reader))
        sent = 0
        while not refused.done() and sent < 2**24:
            writer.write(endless * 16)
            sent += len(endless) * 16
            await asyncio.sleep(0.001)
        assert (await refused)[:13] in {b"HTTP/1.1 400 ", b""}
        assert sent < 2**20


def in_chunks(pieces: Iterable[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def of_an_encoder() -> list[bytes]:
    """Half a megabyte of alerts as Python's JSON encoder yields them: each key, each value and each comma."""
    alert = {"status": "firing", "labels": {"alertname": "A", "n": "1"}, "startsAt": "2026-08-20T10:00:00Z", "value": 1}
    return [piece.encode() for piece in json.JSONEncoder().iterencode({"alerts": [alert] * 4000})]


@pytest.mark.parametrize(
    ("path", "chunks", "status"),
    [
        ("/", [b"x"] * CHUNKS, 200),
        ("/", [b"x"] * 3 * CHUNKS, 413),
        ("/", of_an_encoder(), 200),
        ("/", [b"x" * BYTES_PER_CHUNK] * 3 * CHUNKS, 200),
        ("/early", [b"x"] * 3 * CHUNKS, 200),
        ("/early", [b"x" * BYTES_PER_CHUNK] * 3 * CHUNKS, 200),
    ],
    ids=["some", "many", "encoder", "larger", "many unread", "larger unread"],
)
async def test_tiny_chunks_are_limited(path: str, chunks: list[bytes], status: int) -> None:
    async with serving(receive_seconds=30) as server, connected(server) as (reader, writer):
        writer.write(CHUNKED.replace(b"/", path.encode(), 1) + in_chunks(chunks))
        writer.write(b"0\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 %d " % status)


async def test_too_many_tiny_chunks_are_refused_in_words_even_if_the_client_reads_last() -> None:
    async with serving(receive_seconds=30) as server, connected(server) as (reader, writer):
        writer.write(CHUNKED)
        await drained(writer, in_chunks([b"x"] * 50 * CHUNKS))
        writer.write_eof()
        assert b"send larger chunks" in await all_of(reader)


async def test_tiny_chunks_that_nobody_reads_are_not_parsed_for_long() -> None:
    parsed = 0

    class Counting(protocol_with(limits(receive_seconds=30))):  # type: ignore[misc]
        def on_body(self, body: bytes) -> None:
            nonlocal parsed
            parsed += 1
            super().on_body(body)

    async with Server(Counting).running() as server, connected(server) as (reader, writer):
        writer.write(CHUNKED.replace(b"/", b"/early", 1))
        await drained(writer, in_chunks([b"x" * BYTES_PER_CHUNK] * 20 * CHUNKS))
        writer.write_eof()
        assert (await all_of(reader)).startswith(b"HTTP/1.1 200 ")
    assert parsed < CHUNKS


async def test_tiny_packets_are_no_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes an iteration of the event loop, in which others are served."""
    monkeypatch.setattr("app.base.http.limits.server.CHUNKS", 10)
    for request in (a_request(b"x" * 100), CHUNKED + in_chunks([b"x"]) * 10 + b"0\r\n\r\n"):
        async with serving(receive_seconds=30) as server, connected(server) as (reader, writer):
            for byte in request:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.001)
            assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_others_have_their_turn_while_tiny_chunks_are_parsed(run: Callable[[Any], None]) -> None:
    """At first one packet of each connection, then one packet of all of them in an iteration of the event loop."""
    connections, size = 10, 8 * PACKET_BYTES
    turn, chunks_by_turn = 0, Counter[int]()

    class Counting(protocol_with(limits(receive_seconds=30))):  # type: ignore[misc]
        def on_body(self, body: bytes) -> None:
            chunks_by_turn[turn] += 1
            super().on_body(body)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    async def attack() -> None:
        async with Server(Counting).running() as server:
            counting = asyncio.create_task(count_turns())
            await asyncio.to_thread(send, server.port)
            counting.cancel()

    def send(port: int) -> None:
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
            for client in clients:
                client.sendall(CHUNKED)
            for client in clients:
                client.sendall((in_chunks([b"x"]) * size)[:size])
                client.shutdown(socket.SHUT_WR)
            for client in clients:
                client.settimeout(30)
                with suppress(ConnectionError):
                    while client.recv(2**16):
                        pass

    run(attack())
    in_a_packet = PACKET_BYTES // len(in_chunks([b"x"])) + 1
    assert max(chunks_by_turn.values()) <= connections * in_a_packet
    packets = chunks_by_turn.total() / in_a_packet
    assert packets > 4 * connections
    assert len(chunks_by_turn) > packets - connections


async def test_trailers_do_not_become_headers() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        seen.extend(name for name, _ in scope["headers"])

    async with Server(protocol_with(limits()), app).running() as server, connected(server) as (reader, writer):
        writer.write(CHUNKED + b"0\r\nAuthorization: x\r\n\r\n")
        assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")
    assert seen == [b"host", b"transfer-encoding"]


async def test_trailers_are_counted_for_each_request(server: Server) -> None:
    request = CHUNKED + b"1\r\nx\r\n0\r\nt: " + b"x" * 1000 + b"\r\n\r\n"
    async with connected(server) as (reader, writer):
        writer.write(request * 20)
        for _ in range(20):
            assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("trailers", "status"), [(7, 200), (9, 400)])
async def test_trailers_in_one_packet_are_limited(server: Server, trailers: int, status: int) -> None:
    async with connected(server) as (reader, writer):
        writer.write(CHUNKED + b"0\r\n" + (b"t: " + b"x" * 1000 + b"\r\n") * trailers + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 %d " % status)


async def test_pipelined_requests_are_limited() -> None:
    async with serving() as server, connected(server) as (reader, writer):
        writer.write(a_request(path="/waits") + a_request() * 5000)
        answers = await all_of(reader)
        assert answers.count(BODY) <= PIPELINED_REQUESTS + 1


async def test_a_body_behind_another_request_is_cut_off_in_time(server: Server) -> None:
    async with connected(server) as (reader, writer):
        writer.write(a_request() + a_request(b"x" * 10)[:-3])
        assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")
        assert await cut_off_after(reader) < RECEIVE_SECONDS * 10


# — responses —


@pytest.mark.parametrize("garbage", [b"garbage", b"\x00", b"GET\r\n\r\n"])
@pytest.mark.parametrize("before", [1, 3])
async def test_garbage_behind_requests_does_not_replace_their_answers(
    server: Server, garbage: bytes, before: int
) -> None:
    async with connected(server) as (reader, writer):
        writer.write(a_request(b"x", path="/waits") * before + garbage)
        answers = await all_of(reader)
        assert (answers.count(b"HTTP/1.1 200 "), answers.count(BODY)) == (before, before)
        assert b"connection: close" in answers


async def test_garbage_after_an_answer_is_refused(server: Server) -> None:
    async with connected(server) as (reader, writer):
        writer.write(a_request(b"x"))
        await an_answer(reader)
        writer.write(b"garbage")
        refused = await all_of(reader)
        assert refused.startswith(b"HTTP/1.1 400 ")
        assert b"content-type: application/problem+json\r\n" in refused


async def test_garbage_in_a_body_is_refused(server: Server) -> None:
    async with connected(server) as (reader, writer):
        writer.write(CHUNKED + b"1\r\nx\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"garbage\r\n")
        assert (await all_of(reader)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("requests", [1, 3])
async def test_a_client_that_only_closes_its_direction_gets_its_answers(server: Server, requests: int) -> None:
    async with connected(server) as (reader, writer):
        writer.write(a_request(b"x", path="/waits") * requests)
        writer.write_eof()
        assert (await all_of(reader)).count(BODY) == requests


@pytest.mark.parametrize("sent", [b"", a_request(b"xx")[:-1]], ids=["idle", "incomplete"])
async def test_a_client_that_closes_its_direction_too_early_is_disconnected(sent: bytes) -> None:
    async with serving(receive_seconds=30) as server, connected(server) as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        assert await all_of(reader) == b""


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"], ids=["keep-alive", "close"])
async def test_a_client_that_sends_everything_before_it_reads_gets_an_early_answer(close: bytes) -> None:
    """If it keeps the connection, that is closed like any other idle one."""

    def client(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sender:
            sender.sendall(b"POST /early HTTP/1.1\r\n" + close + b"Content-Length: %d\r\n\r\n" % len(LARGE))
            sender.sendall(LARGE)
            answer = b""
            while more := sender.recv(2**16):
                answer += more
            return answer

    protocol = protocol_with(limits(receive_seconds=30))
    async with Server(protocol, timeout_keep_alive=1).running() as server:
        assert (await asyncio.to_thread(client, server.port)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("packets", [[b"rest"], [b"re", b"st"], [b"rest" + a_request(path="/early")]], ids=len)
async def test_a_connection_serves_the_next_request_after_an_early_answer(packets: list[bytes]) -> None:
    """Clients send the body after the head, so an early answer may come in between; they then use the connection
    again, and a request on a closed one fails.
    """
    async with serving(receive_seconds=30) as server, connected(server) as (reader, writer):
        writer.write(b"POST /early HTTP/1.1\r\nContent-Length: 4\r\n\r\n")
        await reader.readuntil(BODY)
        for packet in packets:
            writer.write(packet)
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.write(a_request(b"x", path="/early"))
        for _ in range(1 + packets[-1].count(b"POST")):
            async with asyncio.timeout(20):
                await reader.readuntil(BODY)


async def test_a_request_after_an_early_answer_is_not_cut_off_by_the_timer_of_idle_connections() -> None:
    protocol = protocol_with(limits(receive_seconds=30))
    async with Server(protocol, timeout_keep_alive=1).running() as server, connected(server) as (reader, writer):
        writer.write(b"POST /early HTTP/1.1\r\nContent-Length: 4\r\n\r\n")
        await reader.readuntil(BODY)
        writer.write(b"rest" + a_request(b"long")[:-4])
        await asyncio.sleep(1.5)
        writer.write(b"long")
        async with asyncio.timeout(20):
            await reader.readuntil(BODY)


async def test_what_is_discarded_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.base.http.limits.server.DISCARDED_BYTES", 2**20)
    async with serving(receive_seconds=30) as server, connected(server) as (_, writer):
        writer.write(b"POST /early HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (10 * len(LARGE)))
        with pytest.raises(ConnectionError):
            await drained(writer, LARGE * 10)


async def drained(writer: asyncio.StreamWriter, data: bytes) -> None:
    for at in range(0, len(data), 2**16):
        writer.write(data[at : at + 2**16])
        await writer.drain()


# — clients that do not read —


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with serving(write_seconds=0.3) as server, connected(server) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(a_request(path="/large"))
        await until(lambda: server.server_state.connections)
        began = time.monotonic()
        await until(lambda: not server.server_state.connections)
        assert time.monotonic() - began < 5
        del reader


async def test_a_client_that_reads_slowly_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.base.http.limits.server.PROGRESS_BYTES", 1)
    async with serving(write_seconds=0.3) as server, connected(server) as (reader, writer):
        writer.write(a_request(path="/large"))
        read = 0
        while read < len(LARGE):
            got = await reader.read(2**20)
            assert got
            read += len(got)
            await asyncio.sleep(0.1)


async def test_the_slowest_of_too_many_unread_answers_are_dropped() -> None:
    shared = limits(unread_bytes=2 * len(LARGE))
    async with Server(protocol_with(shared)).running() as server, AsyncExitStack() as stack:
        for _ in range(6):
            _, writer = await stack.enter_async_context(connected(server))
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(a_request(path="/large"))
            await asyncio.sleep(0.1)
        await until(lambda: len(server.server_state.connections) < 6)
        assert 0 < sum(one.unsent_bytes() for one in shared.slow) <= 2 * len(LARGE)


# — too many connections —


async def test_idle_connections_make_room_and_busy_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.base.http.limits.clients.IDLE_SECONDS", 0.2)
    async with serving(connections=Connections(2), receive_seconds=30) as server, AsyncExitStack() as stack:
        idle, _ = await stack.enter_async_context(connected(server))
        await asyncio.sleep(0.3)
        busy, writer = await stack.enter_async_context(connected(server))
        writer.write(a_request(path="/waits"))
        third, writer = await stack.enter_async_context(connected(server))
        writer.write(a_request(path="/waits"))
        assert await cut_off_after(idle) < 5
        fourth, writer = await stack.enter_async_context(connected(server))
        writer.write(a_request())
        refused = await all_of(fourth)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5" in refused
        assert b"AFTERMATH_MAX_CONNECTIONS" in refused
        fifth, writer = await stack.enter_async_context(connected(server))
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert (await an_answer(fifth)).startswith(b"HTTP/1.1 200 ")
        for reader in (busy, third):
            assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")


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
    transport = OneWrite(below, asyncio.get_running_loop())
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


async def test_the_response_to_a_disconnected_client_is_dropped() -> None:
    below = Below()
    transport = OneWrite(below, asyncio.get_running_loop())
    transport.write(b"head")
    below.close()  # by the other side
    await asyncio.sleep(0)
    assert below.seen == ["closed"]
