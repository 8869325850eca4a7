"""How answers leave, and deliveries that go straight from the connection to the doors: over real sockets, beside the
way that all other requests take. How long a request may take is tested from outside, in faults/.
"""

import asyncio
import gc
import gzip
import json
import logging
import re
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, cast

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base import tokens as access
from app.base.http import context as http_context
from app.base.http.context import Context
from app.base.http.server import Connection, _InOnePiece
from app.base.tokens import Scope
from app.ingest.intake import Intake
from app.ingest.webhook import AT_A_TIME, DirectDoors
from app.main import create_app
from app.settings import Settings
from tests.conftest import ADMIN_TOKEN
from tests.ingest.test_webhook import DOOR, a_delivery, an_alert, count

AT_MOST_BYTES = 300_000
IDLE_SECONDS = 1


class Server(uvicorn.Server):
    """In this process, on a port of its own; signals are none of its business."""

    def __init__(self, app: FastAPI, **config: Any) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=3600,  # whatever is closed is not closed because nobody spoke any more
                **config,
            )
        )

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

    @property
    def connection(self) -> Connection:
        """Its only one."""
        [connection] = self.server_state.connections
        return cast("Connection", connection)


class Site:
    """The app behind two servers: one hands its connections the doors, the other knows ASGI only."""

    def __init__(
        self, app: FastAPI, direct: Server, usual: Server, tokens: dict[str, str], directly: list[str]
    ) -> None:
        self.app = app
        self.direct = direct
        self.usual = usual
        self.tokens = tokens
        self.directly = directly  # the bodies that came the short way

    @property
    def context(self) -> Context:
        context: Context = self.app.state.context
        return context

    @property
    def intake(self) -> Intake:
        intake: Intake = self.app.state.intake
        return intake

    def delivery(self, *alerts: Any, token: str = "ingest", path: str = DOOR, **headers: str) -> bytes:
        """The bytes of a request that goes the short way, unless something is done to it."""
        body = json.dumps(a_delivery(*alerts)).encode()
        return a_request(body, path=path, Authorization=f"Bearer {self.tokens[token]}", **headers)

    async def sent(self, raw: bytes, server: Server | None = None) -> bytes:
        """The one answer to it; until the end, if the connection ends."""
        async with connected(server or self.direct) as (reader, writer):
            writer.write(raw)
            return await an_answer(reader)


def a_request(body: bytes, method: str = "POST", path: str = DOOR, version: str = "1.1", **headers: str) -> bytes:
    """With a Content-Length, unless the headers say otherwise; a header of no value is left out."""
    all_headers = {"Host": "x", "Content_Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in all_headers.items() if value]
    return f"{method} {path} HTTP/{version}\r\n{''.join(lines)}\r\n".encode("latin-1") + body


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def an_answer(reader: asyncio.StreamReader) -> bytes:
    """Head and body as they came; and " closed" if the connection then ended, as its head says."""
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        answer = head + (await reader.readexactly(int(length[1])) if length else b"")
        if b"connection: close" in head:
            answer += await reader.read() + b" closed"
        return answer


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def held(engine: AsyncEngine) -> AsyncIterator[None]:
    """No delivery can be committed meanwhile. For less than `SLOW_SECONDS`, so that the database is not suspected."""
    async with db.transaction(engine) as tx:
        await tx.execute(text("LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE"))
        yield


@pytest.fixture
async def site(settings: Settings, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    directly: list[str] = []
    opened = DirectDoors.opened

    def told(self: DirectDoors, method: str, url: str, headers: Any, length: int) -> Any:
        arriving = opened(self, method, url, headers, length)
        if arriving is not None:
            directly.append(url)
        return arriving

    monkeypatch.setattr(DirectDoors, "opened", told)
    monkeypatch.setattr(http_context, "CACHE_SECONDS", 3600)  # what is known is known for as long as a test takes
    app = create_app(settings.model_copy(update={"max_body_bytes": AT_MOST_BYTES}))
    tokens = {"admin": ADMIN_TOKEN}
    async with db.transaction(engine) as tx:
        for name, scope in (("ingest", Scope.INGEST), ("grafana", Scope.INGEST), ("read", Scope.READ)):
            of_source = {"source_name": name, "kind": "grafana" if name == "grafana" else "alertmanager"}
            tokens[name] = await access.create_token(
                tx, name, scope, now=datetime.now(UTC), **(of_source if scope is Scope.INGEST else {})
            )
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(Server(app).running())
        # The first one's lifespan made the app serve. Without one there is no state, and so there are no doors in it.
        usual = await stack.enter_async_context(Server(app, lifespan="off").running())
        site = Site(app, direct, usual, tokens, directly)
        await until(lambda: len(site.context.known_tokens) == 3)
        for name in ("ingest", "admin"):  # the admin's makes its source
            await site.sent(site.delivery(an_alert(), token=name), usual)
        assert directly == []
        yield site


# — the same answers —

BODY = json.dumps(a_delivery(an_alert())).encode()
INGEST = "Bearer {ingest}"

# Each request, and whether it goes the short way. `{name}` is a token.
REQUESTS: dict[str, tuple[bytes, bool]] = {
    "a delivery": (a_request(BODY, Authorization=INGEST), True),
    "by PUT": (a_request(BODY, "PUT", Authorization=INGEST), True),
    "with a quarantined alert": (a_request(BODY.replace(b"2026-08-20", b"yesterday"), Authorization=INGEST), True),
    "of the admin": (a_request(BODY, Authorization="Bearer {admin}"), True),
    "by basic auth": (a_request(BODY, Authorization="Basic {basic}"), True),
    "token in the path": (a_request(BODY, path=f"{DOOR}/{{ingest}}"), True),
    "no more after this": (a_request(BODY, Authorization=INGEST, Connection="close"), True),
    "no JSON": (a_request(b"not JSON", Authorization=INGEST), True),
    "JSON of another kind": (a_request(b'{"custom": "payload"}', Authorization=INGEST), True),
    "an empty body": (a_request(b"", Authorization=INGEST), True),
    "as large as may be": (a_request(BODY.ljust(AT_MOST_BYTES), Authorization=INGEST), True),
    "too large": (a_request(b"{", Authorization=INGEST, Content_Length=str(AT_MOST_BYTES + 1)), False),
    "in chunks": (
        a_request(
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
            Authorization=INGEST,
            Content_Length="",
            Transfer_Encoding="chunked",
        ),
        False,
    ),
    "gzip": (a_request(gzip.compress(BODY), Authorization=INGEST, Content_Encoding="gzip"), False),
    "HTTP/1.0": (a_request(BODY, version="1.0", Authorization=INGEST), False),
    "an upgrade": (a_request(BODY, Authorization=INGEST, Connection="Upgrade", Upgrade="h2c"), False),
    "no length": (a_request(b"", Authorization=INGEST, Content_Length=""), False),
    "two authorizations": (a_request(BODY, Authorization="Bearer {read}", AUTHORIZATION=INGEST), False),
    "no token": (a_request(BODY), False),
    "a wrong token": (a_request(BODY, Authorization=INGEST + "x"), False),
    "an unknown token": (a_request(BODY, Authorization="Bearer aft_00000000_x"), False),
    "a token beyond ASCII": (a_request(BODY, Authorization="Bearer \xff"), False),
    "basic auth that is none": (a_request(BODY, Authorization="Basic %%%"), False),
    "a wrong token in the path": (a_request(BODY, path=f"{DOOR}/{{ingest}}x", Authorization=INGEST), False),
    "an empty token in the path": (a_request(BODY, path=f"{DOOR}/", Authorization=INGEST), False),
    "more than a token in the path": (a_request(BODY, path=f"{DOOR}/{{ingest}}/x"), False),
    "with a query": (a_request(BODY, path=f"{DOOR}?x=y", Authorization=INGEST), False),
    "a query behind the token": (a_request(BODY, path=f"{DOOR}/{{ingest}}?x=y"), False),
    "percent-encoded": (a_request(BODY, path="/webhooks/%61lertmanager", Authorization=INGEST), False),
    "a token that reads": (a_request(BODY, Authorization="Bearer {read}"), False),
    "a token of another kind": (a_request(BODY, Authorization="Bearer {grafana}"), False),
    "a source that signs": (a_request(BODY, path="/webhooks/grafana", Authorization="Bearer {grafana}"), False),
    "no such kind": (a_request(BODY, path="/webhooks/nagios", Authorization=INGEST), False),
    "another method": (a_request(b"", "GET", Authorization=INGEST), False),
    "no HTTP": (b"POST  HTTP\r\n\r\n", False),
    "a length that is none": (a_request(BODY, Authorization=INGEST, Content_Length="+5"), False),
}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What has been logged of requests since it was last asked, but for ids and durations."""
    caplog.set_level(logging.INFO, "aftermath.request")

    def since() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.name == "aftermath.request"]
        caplog.clear()
        return [re.sub(r"ms=\S+|delivery=\S+", "", line) for line in found]

    return since


async def test_answers_and_log_are_the_same_either_way(site: Site, lines: Callable[[], list[str]]) -> None:
    """Byte for byte, but for the date and the id of the delivery."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.usual.port}") as client:
        admin = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        sources = "/api/v1/sources/grafana"
        signed = await client.put(sources, json={"kind": "grafana", "hmac_secret": "secret"}, headers=admin)
        assert signed.status_code == 200
    basic = httpx.BasicAuth("whoever", site.tokens["ingest"])._auth_header.removeprefix("Basic ")
    lines()
    for name, (request, is_direct) in REQUESTS.items():
        raw = request
        for token, value in {**site.tokens, "basic": basic}.items():
            raw = raw.replace(f"{{{token}}}".encode(), value.encode())
        site.directly.clear()
        answers, logged = [], []
        for server in (site.direct, site.usual, site.direct):  # the last, for the token is looked up by then
            answers.append(timeless(await site.sent(raw, server)))
            logged.append(lines())
        assert (name, answers[0]) == (name, answers[1])
        assert (name, answers[2]) == (name, answers[1])
        assert (name, logged[0], logged[2]) == (name, logged[1], logged[1])
        assert (name, len(site.directly)) == (name, 2 * is_direct)


def timeless(answer: bytes) -> bytes:
    answer, dates = re.subn(rb"date: [^\r]+ GMT\r\n", b"date\r\n", answer)
    assert dates == 1
    return re.sub(rb'"delivery_id":"[^"]{36}"', b"id", answer)


@pytest.mark.parametrize("token", ["a?b", "a%20b", "a#b"])
async def test_a_token_that_is_no_path_opens_no_door_in_one(site: Site, token: str) -> None:
    site.context.admin_digest = access.digest_of(token)
    raw = a_request(BODY, path=f"{DOOR}/{token}")
    answers = [timeless(await site.sent(raw, server)) for server in (site.direct, site.usual)]
    assert answers[0] == answers[1]
    assert (answers[0][9:12], site.directly) == (b"401", [])


@pytest.mark.parametrize("trouble", ["a full queue", "a bug", "the spool", "a full spool"])
async def test_troubles_are_told_alike_either_way(site: Site, engine: AsyncEngine, trouble: str) -> None:
    status = 503
    match trouble:
        case "a full queue":
            site.intake._queue_alerts = -1
        case "a bug":  # a database that takes neither the delivery nor its quarantine
            async with engine.begin() as connection:
                await connection.execute(text("ALTER TABLE delivery ADD CHECK (signals < 0) NOT VALID"))
            status = 500
        case "the spool" | "a full spool":
            site.context.reach._lost.set()
            site.intake._queue_alerts = -1  # which does not matter then
            status = 202 if trouble == "the spool" else 503
            site.intake._spool._max_bytes = 2**20 if trouble == "the spool" else 0
    answers = [timeless(await site.sent(site.delivery(an_alert()), server)) for server in (site.direct, site.usual)]
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 %d " % status)
    assert (b"retry-after" in answers[0]) == (status == 503)
    assert site.directly == [DOOR]
    site.context.reach._lost.clear()


async def test_nothing_is_left_of_a_delivery_or_its_connection(site: Site) -> None:
    """The collector seldom looks; what had to wait for it would pile up."""
    gc.disable()
    try:
        async with connected(site.direct) as (reader, writer):
            left: list[weakref.ref[Any]] = [weakref.ref(site.direct.connection)]
            for _ in range(2):
                writer.write(site.delivery(an_alert()))
                await an_answer(reader)
                left.append(weakref.ref(site.direct.connection.cycle))
            assert [reference() is None for reference in left] == [False, True, False]
        await until(lambda: all(reference() is None for reference in left))
    finally:
        gc.enable()
    assert site.directly == [DOOR] * 2


# — as it comes in —


async def test_a_delivery_may_come_byte_by_byte(site: Site) -> None:
    async with connected(site.direct) as (reader, writer):
        for turn in range(2):
            for byte in site.delivery(an_alert(instance=f"of turn {turn}")):
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert b'"verdicts":{"joined":1}' in await an_answer(reader)
    assert site.directly == [DOOR] * 2


async def test_a_large_one_is_not_waited_for_in_vain(site: Site) -> None:
    """Uvicorn stops reading at 64 KiB until somebody asks for more."""
    answer = await site.sent(site.delivery(an_alert(note="x" * 250_000)))
    assert (answer.startswith(b"HTTP/1.1 200 OK"), site.directly) == (True, [DOOR])


async def test_pipelined_requests_are_answered_in_order(site: Site, engine: AsyncEngine) -> None:
    alerts = [an_alert(instance=str(number)) for number in range(5)]
    ready = a_request(b"", "GET", "/readyz")
    async with connected(site.direct) as (reader, writer):
        for first in (site.delivery(*alerts[:1]), ready):
            async with held(engine):
                writer.write(first + b"".join([site.delivery(*alerts[:2]), ready, site.delivery(*alerts[:3])]))
                if first is ready:
                    assert b'"status"' in await an_answer(reader)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await reader.read(1)
            answers = [await an_answer(reader) for _ in range(3 if first is ready else 4)]
            told = [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
            assert [one.get("signals", "ready") for one in told][-3:] == [2, "ready", 3]
            assert (first is ready) or told[0]["signals"] == 1
        writer.write(site.delivery(*alerts[:4]))
        assert b'"signals":4' in await an_answer(reader)
    # The first of all, and the last: nothing went before them that was not answered.
    assert site.directly == [DOOR] * 2


async def test_one_behind_another_that_is_refused_at_once_has_all_the_time(site: Site, engine: AsyncEngine) -> None:
    """The wait for the next request begins with the answer to the last."""
    site.direct.config.timeout_keep_alive = IDLE_SECONDS
    async with connected(site.direct) as (reader, writer):
        async with held(engine):
            writer.write(a_request(b"no", path=f"{DOOR}/{site.tokens['ingest']}") + site.delivery(an_alert()))
            assert (await an_answer(reader)).startswith(b"HTTP/1.1 400 ")
            await asyncio.sleep(IDLE_SECONDS + 0.5)
        assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")
    assert site.directly == [f"{DOOR}/{site.tokens['ingest']}"]


async def test_nothing_is_taken_behind_the_last_request(site: Site, engine: AsyncEngine) -> None:
    """It is the last because of a shutdown, and answered before the packet is read in which it ends."""
    before = await count(engine, "SELECT count(*) FROM delivery")
    last = a_request(b"no", Authorization=f"Bearer {site.tokens['ingest']}")
    for more in (site.delivery(an_alert()), a_request(BODY, path=f"{DOOR}/{site.tokens['ingest']}", version="1.0")):
        async with connected(site.direct) as (reader, writer):
            writer.write(last[:-1])
            await until(lambda: site.directly)
            site.directly.clear()
            site.direct.connection.shutdown()
            writer.write(last[-1:] + more)
            answer = await an_answer(reader)
        assert (answer[9:12], answer.count(b"HTTP/1.1"), answer[-7:]) == (b"400", 1, b" closed")
        await until(lambda: not site.direct.server_state.connections)
    assert b'"repeated"' in await site.sent(site.delivery(an_alert()))
    assert await count(engine, "SELECT count(*) FROM delivery") == before + 1


async def test_of_a_crowd_some_are_read_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    """In between the event loop sees to the others, and one that fails holds up nobody."""
    doors, read, seen = DirectDoors(cast("Any", None), cast("Any", None)), list[int](), list[int]()

    class Arrived:
        def __init__(self, number: int) -> None:
            self.number = number

        def read(self, _: bytes) -> None:
            read.append(self.number)
            if self.number == 1:
                raise ZeroDivisionError

    for number in range(3 * AT_A_TIME):
        doors.read_soon(cast("Any", Arrived(number)), b"")
    while len(read) < 3 * AT_A_TIME:
        seen.append(len(read))
        await asyncio.sleep(0)
    assert read == [*range(3 * AT_A_TIME)]
    assert max(after - before for before, after in pairwise(seen)) == AT_A_TIME
    assert [one.exc_info[0] for one in caplog.records if one.exc_info] == [ZeroDivisionError]


async def test_who_does_not_read_answers_is_not_answered_without_end(site: Site) -> None:
    async with connected(site.direct) as (reader, writer):
        writer.write(site.delivery(an_alert()))
        await an_answer(reader)
        connection = site.direct.connection
        connection.pause_writing()  # as the transport does when too much waits to be written
        writer.write(site.delivery(an_alert()) * 3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await reader.read(1)
        assert len(connection.pipeline) == 2
        connection.resume_writing()
        for _ in range(3):
            assert b'"repeated"' in await an_answer(reader)
    assert site.directly == [DOOR]


# — connections end —


async def test_an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not(
    site: Site, engine: AsyncEngine
) -> None:
    site.direct.config.timeout_keep_alive = IDLE_SECONDS
    async with connected(site.direct) as (reader, writer):
        async with held(engine):
            writer.write(site.delivery(an_alert()))
            await asyncio.sleep(IDLE_SECONDS + 0.5)
        assert (await an_answer(reader)).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(30):
            assert await reader.read() == b""


async def test_who_goes_while_a_delivery_waits_is_told_nothing_and_it_is_kept(
    site: Site, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    before = await count(engine, "SELECT count(*) FROM delivery")
    async with connected(site.direct) as (_, writer):
        async with held(engine):
            writer.write(site.delivery(an_alert()))
            await until(lambda: site.directly)
            writer.close()
            await until(lambda: not site.direct.server_state.connections)
        assert b'"repeated"' in await site.sent(site.delivery(an_alert()))
    assert await count(engine, "SELECT count(*) FROM delivery") == before + 2
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("way", ["direct", "usual"])
async def test_who_goes_in_mid_body_leaves_a_line_either_way(
    site: Site, lines: Callable[[], list[str]], way: str
) -> None:
    lines()
    server: Server = getattr(site, way)
    state = server.server_state
    async with connected(server) as (_, writer):
        writer.write(site.delivery(an_alert())[:-5])
        await until(lambda: any(isinstance(one, Connection) and one.cycle for one in state.connections))
    await until(lambda: not state.connections and not state.tasks)
    assert lines() == [f"method=POST route={DOOR} status=422 "]
    assert site.directly == [DOOR] * (way == "direct")


async def test_a_shutdown_waits_for_the_answers_and_for_nothing_else(
    settings: Settings, site: Site, engine: AsyncEngine
) -> None:
    server = site.direct
    async with connected(server) as (idle, idle_writer), connected(server) as (half, half_writer):
        idle_writer.write(site.delivery(an_alert()))
        await an_answer(idle)
        request = site.delivery(an_alert())
        half_writer.write(request[:-5])
        await until(lambda: len(site.directly) == 2)
        async with connected(server) as (reader, writer):
            async with held(engine):
                writer.write(site.delivery(an_alert()))
                await until(lambda: len(site.directly) == 3)
                server.should_exit = True
                async with asyncio.timeout(30):
                    assert await idle.read() == b""
                half_writer.write(request[-5:])
            for waiting in (reader, half):
                answer = await an_answer(waiting)
                assert (answer.startswith(b"HTTP/1.1 200 "), answer.endswith(b"} closed")) == (True, True)
    assert site.directly == [DOOR] * 3


# — who gets in —


async def test_a_revoked_token_opens_no_door_for_long(
    site: Site, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_context, "CACHE_SECONDS", 0.5)
    site.context.known_tokens.clear()
    deliver = site.delivery(an_alert())
    while not site.directly:  # the first is looked up
        assert (await site.sent(deliver)).startswith(b"HTTP/1.1 200 ")
    async with db.transaction(engine) as tx:
        await access.revoke_token(tx, access.id_of(site.tokens["ingest"]) or "", now=datetime.now(UTC))
    await refused(site, deliver)


async def test_a_source_that_signs_from_now_on_is_asked_for_it(
    site: Site, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_context, "CACHE_SECONDS", 0.5)
    site.context.known_sources.clear()
    deliver = site.delivery(an_alert(), token="grafana", path="/webhooks/grafana")
    while not site.directly:
        assert (await site.sent(deliver)).startswith(b"HTTP/1.1 200 ")
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE source SET hmac_secret = 'secret' WHERE name = 'grafana'"))
    await refused(site, deliver)


async def refused(site: Site, raw: bytes) -> None:
    """Before long, and from then on."""
    async with asyncio.timeout(30):
        while not (await site.sent(raw)).startswith(b"HTTP/1.1 401 "):
            await asyncio.sleep(0.05)
    site.directly.clear()
    assert (await site.sent(raw)).startswith(b"HTTP/1.1 401 ")
    assert site.directly == []


# — in one piece —


class Recorded(asyncio.Transport):
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


async def test_head_and_body_leave_in_one_piece_and_before_the_connection_ends() -> None:
    below = Recorded()
    transport = _InOnePiece(below, asyncio.get_running_loop())
    transport.write(b"head")
    transport.write(b"body")
    assert below.seen == []
    await asyncio.sleep(0)
    assert below.seen == [b"headbody"]
    transport.write(b"one ")
    transport.write_now(b"after the other")
    assert below.seen == [b"headbody", b"one after the other"]
    transport.write(b"last")
    transport.close()
    await asyncio.sleep(0)
    assert below.seen == [b"headbody", b"one after the other", b"last", "closed"]
    assert transport.is_closing()
    assert transport.get_extra_info("peername") == "there"


async def test_who_has_gone_meanwhile_is_told_nothing() -> None:
    below = Recorded()
    transport = _InOnePiece(below, asyncio.get_running_loop())
    transport.write(b"head")
    below.close()  # by the other side
    await asyncio.sleep(0)
    assert below.seen == ["closed"]
