"""Hostile clients: whatever they send, leave open or do not read, memory stays bounded and others are served."""

import asyncio
import json
import re
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import quantiles
from threading import Event, Thread

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr

from app.base.http.limits.clients import IDLE_SECONDS
from app.base.process.memory import GIVE_BACK_SECONDS
from app.ingest.senders import SENDERS
from app.main import create_api
from app.settings import Settings
from app.status_page import public
from tests.faults.afterwards import TOKEN, a_service, files_of, memory_of
from tests.processes import RunningService, a_delivery, an_alert, until

MEMORY_GROWTH = 64 * 2**20
WORKER_MEMORY = 700 * 2**20
STALL_SECONDS = 2.0  # on two cores that the attackers share
# Compared with the longest wait of a client that is alone, or that waits for as many ordinary requests as there are
# hostile connections.
STALL_RATIO = 1.5
STALL_RATIO_OF_ALL = 4  # compared with ordinary requests to all routes at once
AT_ONCE, MOMENT_SECONDS = 16, 2.0  # hostile connections; slow ones count for a moment
HOOK = "/webhooks/alertmanager"
NOW = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@dataclass
class Watch:
    """What another client and the process experience meanwhile."""

    waits: list[float] = field(default_factory=list)
    memory: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def stall(self) -> float:
        return max(self.waits)

    def __str__(self) -> str:
        p50, p99 = (quantiles(self.waits, n=100)[at] * 1000 for at in (49, 98))
        return (
            f"{self.memory / 2**20:.0f} MiB, {len(self.waits)} health checks: p50 {p50:.1f} ms, p99 {p99:.0f} ms, "
            f"longest {self.stall * 1000:.0f} ms"
        )


@contextmanager
def watched(running: RunningService) -> Iterator[Watch]:
    """Another client asks for the health of the process all the time, on new connections. What it or the service waits
    for a processor is not counted: other processes on this machine have it then, such as the attackers.
    """
    seen, stop = Watch(), Event()

    def watch() -> None:
        while not stop.wait(0.02):
            seen.memory = max(seen.memory, memory_of(running))

    thread = Thread(target=watch)
    thread.start()
    # Another process, which does not wait for the attackers of this one.
    command = [sys.executable, "-c", OTHER_CLIENT, f"{running.service.url}/healthz", str(running.process.pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        try:
            other.stdout.readline()  # it has begun
            yield seen
        finally:
            output, _ = other.communicate()
            stop.set()
            thread.join()
        seen.waits, seen.failures = json.loads(output)


OTHER_CLIENT = """
import json, sys, threading, time, urllib.request
def for_a_processor():
    waited = 0.0
    for process in sys.argv[2], "self":
        with open(f"/proc/{process}/schedstat") as of_main_thread:
            waited += int(of_main_thread.read().split()[1]) / 1e9
    return waited
waits, failures, ended = [], [], threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("begins", flush=True)
while len(waits) < 2 or not ended.wait(0.02):
    began, waited = time.monotonic(), for_a_processor()
    try:
        urllib.request.urlopen(sys.argv[1], timeout=30).read()
    except OSError as error:
        failures.append(str(error))
    waits.append(max(time.monotonic() - began - (for_a_processor() - waited), 0))
print(json.dumps([waits, failures]))
"""


@contextmanager
def unharmed(running: RunningService, *, growth: int = MEMORY_GROWTH) -> Iterator[Watch]:
    """Memory returns, others are served meanwhile, and nothing unexpected is logged."""
    before = memory_of(running)
    with watched(running) as seen:
        yield seen
    print(f"memory {before / 2**20:.0f} → {seen}")  # noqa: T201
    assert seen.failures == []
    assert seen.stall < STALL_SECONDS
    assert seen.memory < WORKER_MEMORY
    assert_it_recovers(running, before + growth)


def assert_it_recovers(running: RunningService, memory: int) -> None:
    returned = f"memory returns to less than {memory / 2**20:.0f} MiB"
    until(lambda: memory_of(running) < memory, returned, within=3 * GIVE_BACK_SECONDS)
    assert "Traceback" not in running.log()
    with running.client(TOKEN) as client:
        assert client.post(HOOK, json=a_delivery(an_alert(NOW))).status_code == 200


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Warmed up, so that only attacks make its memory grow."""
    service = a_service(tmp_path_factory.mktemp("hostile"), AFTERMATH_RECEIVE_SECONDS="5", AFTERMATH_STATUS_PAGE="true")
    with service.serve() as running, running.client(TOKEN) as client:
        for n in range(20):
            body = a_delivery(*[an_alert(NOW, service=f"s{n}", n=str(m), text="x" * 1000) for m in range(2000)])
            assert client.post(HOOK, json=body).status_code == 200
        client.get("/api/v1/incidents?limit=500").raise_for_status()
        for method, path in routes():  # the first response of each compiles its SQL and its templates
            if method == "GET":
                client.get(path)
        yield running


async def answer_to(
    running: RunningService, head: bytes, body: Callable[[], Iterator[bytes]], *, read_first: bool = False
) -> bytes:
    """Sends everything while the service takes it; the beginning of the response, empty if it just disconnected."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.service.port)
    reading = asyncio.create_task(reader.read(2000))
    with suppress(ConnectionError):
        writer.write(head)
        for piece in body():
            writer.write(piece)
            await writer.drain()
            if read_first and reading.done():
                break
    answer = b""
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(30):
            answer = await reading
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return answer


def head_of(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers, "", ""]
    ).encode()


MEGABYTE = bytes(2**20)


def repeated(piece: bytes, times: int, begins: bytes = b"") -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        yield begins
        for _ in range(times):
            yield piece

    return pieces


@cache
def routes() -> list[tuple[str, str]]:
    """Every route of the application, with each method; webhooks of every kind of sender."""
    api = create_api(Settings(admin_token=SecretStr(TOKEN), status_page=True))
    found = []
    for each in iter_route_contexts(api.routes):
        assert each.path is not None
        kinds = SENDERS if "{kind}" in each.path else [""]
        paths = [each.path.replace("{kind}", kind).replace("{token}", ":token") for kind in kinds]
        paths = [re.sub(r"[{}]|:path", "", path) for path in paths]
        found += [(method, path) for path in paths for method in sorted(each.methods or {"GET"})]
    return [
        *found,
        *((method, route.path.replace("{id}", "id")) for method in ("GET", "HEAD") for route in public.ROUTES),
    ]


@pytest.fixture(scope="module")
def tokens(running: RunningService) -> dict[str, str]:
    """By scope; that of a source is of Grafana, so that no webhook below accepts it."""
    source = ("--source", "grafana", "--kind", "grafana")
    return {
        "read": running.service.command("token", "create", "reader", "--scope", "read").strip(),
        "ingest": running.service.command("token", "create", "sender", "--scope", "ingest", *source).strip(),
    }


# — sizes —


SLOW, TINY = "a byte a second", "chunks of one byte"
ENDLESS_TRAILERS = repeated(b"t: x\r\n" * 10_000, 200, b"1\r\nx\r\n0\r\n")
ATTACKS = {
    "100 MB declared": (f"Content-Length: {100 * 2**20}", repeated(bytes(2**16), 1600)),
    "100 MB chunked": ("Transfer-Encoding: chunked", repeated(b"10000\r\n" + bytes(2**16) + b"\r\n", 1600)),
    "endless trailers": ("Transfer-Encoding: chunked", ENDLESS_TRAILERS),
    "a head of 1 MB": ("X: " + "a" * 2**20, repeated(b"", 0)),
    TINY: ("Transfer-Encoding: chunked", repeated(b"1\r\nx\r\n" * 10_000, 20)),
    SLOW: ("Content-Length: 100", repeated(b"{", 100)),
}
ORDINARY = ("X: y", repeated(b"", 0))
REFUSED = {"endless trailers", "a head of 1 MB"}  # whatever the route
# 400 and 202 are how imitated APIs refuse a key, and answer what they ignore.
STATUSES = {200, 202, 303, 400, 401, 403, 404, 405, 413, 422, 429, 431, 503}


@pytest.mark.timeout(900)  # if many others use this machine
def test_every_route_withstands_every_sender(running: RunningService, tokens: dict[str, str]) -> None:
    """Sixteen at a time, on connections that stay open until each has its answer or is closed. A health check waits
    hardly longer than without them: each hostile connection delays it hardly more than an ordinary request does.
    """
    attacked, memory = {}, 0
    for scope in ("nobody", *tokens):
        bound = STALL_RATIO * usual_wait(running, tokens["read"])
        memory = memory or memory_of(running)  # with everything in use
        for attack, (header, body) in ATTACKS.items():
            # Others on this machine also delay a client, but hardly thrice.
            for tried in range(3):
                if tried:
                    bound = max(bound, STALL_RATIO * usual_wait(running, tokens["read"]))
                seen, statuses = all_routes(
                    running, tokens.get(scope), header, body, pause_seconds=1 if attack == SLOW else 0
                )
                print(f"{scope}, {attack}: {seen}, {Counter(statuses.values())}")  # noqa: T201
                if seen.stall < bound:
                    break
            attacked[scope, attack] = seen
            assert seen.stall < bound
            assert seen.memory < WORKER_MEMORY
            assert seen.failures == []
            # Who has not sent the whole request in time is cut off. Some answers come later: when many others wait, and
            # to the last of many wrong tokens.
            allowed = STATUSES if attack in REFUSED else STATUSES | {0}
            assert {route: status for route, status in statuses.items() if status not in allowed} == {}
            if attack.startswith("100 MB"):
                writes = {
                    (method, path): status
                    for (method, path), status in statuses.items()
                    if method in {"PUT", "PATCH"} or (method == "POST" and path.startswith("/api/v1"))
                }
                assert {route: status for route, status in writes.items() if status not in {0, 401, 403, 413}} == {}
    largest, longest = max(seen.memory for seen in attacked.values()), max(seen.stall for seen in attacked.values())
    print(f"{len(attacked) * len(routes())} requests: {largest / 2**20:.0f} MiB, {longest:.2f} s")  # noqa: T201
    assert_it_recovers(running, memory + MEMORY_GROWTH)


@pytest.mark.parametrize("attack", ["100 MB chunked", TINY])
def test_all_routes_at_once_withstand_a_sender(running: RunningService, tokens: dict[str, str], attack: str) -> None:
    """Compared with ordinary requests to all routes at once, which also delay others."""
    for _ in range(3):
        usual, _ = all_routes(running, tokens["ingest"], *ORDINARY, at_once=1000)
        seen, _ = all_routes(running, tokens["ingest"], *ATTACKS[attack], at_once=1000)
        print(f"ordinary: {usual}; {attack}: {seen}")  # noqa: T201
        if seen.stall < STALL_RATIO_OF_ALL * usual.stall:
            break
    assert seen.stall < STALL_RATIO_OF_ALL * usual.stall
    assert seen.memory < WORKER_MEMORY
    assert seen.failures == []


def seconds_without_processor(running: RunningService) -> float:
    """The time that the service and this process have waited for one, as in `OTHER_CLIENT`."""
    files = (Path(f"/proc/{process}/schedstat") for process in (running.process.pid, "self"))
    return sum(int(file.read_text().split()[1]) / 1e9 for file in files)


def usual_wait(running: RunningService, token: str) -> float:
    """The longest wait of another client on this machine now: alone, or behind as many ordinary requests as there will
    be hostile connections.
    """
    with watched(running) as idle:
        time.sleep(1)
    reads = [path for method, path in routes() if method == "GET" and ":token" not in path]
    with running.client(token) as client:
        began, waited = time.monotonic(), seconds_without_processor(running)
        for path in reads:
            client.get(path)
        took = time.monotonic() - began - (seconds_without_processor(running) - waited)
    behind_others = took / len(reads) * AT_ONCE
    print(f"idle: {idle}; {AT_ONCE} ordinary requests: {behind_others * 1000:.0f} ms")  # noqa: T201
    return max(idle.stall, behind_others)


def all_routes(
    running: RunningService,
    token: str | None,
    header: str,
    body: Callable[[], Iterator[bytes]],
    *,
    at_once: int = AT_ONCE,
    pause_seconds: float = 0,
) -> tuple[Watch, dict[tuple[str, str], int]]:
    """The statuses by route, 0 if the connection was closed without any."""
    credential = [f"Authorization: Bearer {token}"] if token else []
    heads = [head_of(method, path.replace(":token", token or "none"), header, *credential) for method, path in routes()]
    with watched(running) as seen:
        statuses = asyncio.run(statuses_of(running, heads, body, at_once, pause_seconds))
    return seen, dict(zip(routes(), statuses, strict=True))


async def statuses_of(
    running: RunningService,
    heads: Sequence[bytes],
    body: Callable[[], Iterator[bytes]],
    at_once: int,
    pause_seconds: float,
) -> list[int]:
    free = asyncio.Semaphore(at_once)

    async def status_of(number: int, head: bytes) -> int:
        # From an address of its own, because the answers to wrong tokens from one address are delayed.
        address = (f"127.0.{1 + number // 250}.{1 + number % 250}", 0)
        async with free:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.service.port, local_addr=address)
            reading = asyncio.create_task(reader.read(2000))
            rest = asyncio.create_task(sent(head, writer, reading))
            await asyncio.wait([rest, reading], timeout=MOMENT_SECONDS if pause_seconds else 30)
            if not pause_seconds:
                await asyncio.wait([reading], timeout=30)
        await asyncio.wait([reading], timeout=30)
        writer.close()
        await rest
        return int(reading.result()[9:12] or 0) if reading.done() and not reading.exception() else 0

    async def sent(head: bytes, writer: asyncio.StreamWriter, reading: asyncio.Task[bytes]) -> None:
        with suppress(ConnectionError):
            writer.write(head)
            for piece in body():
                writer.write(piece)
                await writer.drain()
                if pause_seconds:
                    await asyncio.wait([reading], timeout=pause_seconds)
                if reading.done():
                    break

    return await asyncio.gather(*(status_of(*one) for one in enumerate(heads)))


PARTS = {
    "trailers": ("Transfer-Encoding: chunked", repeated(b"t: x\r\n" * 10_000, 4000, b"1\r\nx\r\n0\r\n")),
    "a trailer": ("Transfer-Encoding: chunked", repeated(MEGABYTE.replace(b"\0", b"x"), 200, b"1\r\nx\r\n0\r\nt: ")),
    "an extension": ("Transfer-Encoding: chunked", repeated(b"e" * 2**20, 200, b"1;")),
    "extensions": ("Transfer-Encoding: chunked", repeated((b"1;" + b"e" * 65_000 + b"\r\nx\r\n") * 16, 200)),
    "a head": ("X: " + "a" * 2**20, repeated(b"", 0)),
    "headers": ("\r\n".join(["a: b"] * 20_000), repeated(b"", 0)),
    "a header without end": ("X: a", repeated(b"a" * 2**20, 200)),
    "pipelined requests": ("X: a", repeated(b"GET /healthz HTTP/1.1\r\n\r\n" * 10_000, 50)),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("token", [None, TOKEN])
def test_every_byte_of_a_request_counts(running: RunningService, part: str, token: str | None) -> None:
    header, body = PARTS[part]
    credential = [f"Authorization: Bearer {token}"] if token else []
    head = head_of("POST", HOOK, *credential, header)
    if part == "a header without end":
        head = head[:-4]

    async def attack() -> list[bytes]:
        return await asyncio.gather(*(answer_to(running, head, body) for _ in range(10)))

    with unharmed(running):
        answers = asyncio.run(attack())
    assert {answer[9:12] for answer in answers} <= {b"", b"400", b"401", b"431", b"503"}


def test_many_large_bodies_at_once_share_one_limit(running: RunningService) -> None:
    alert = b'{"alerts":[{"labels":{"alertname":"Large"},"annotations":{"a":"'
    body = alert + b"x" * (9 * 2**20) + b'"}}]}'
    head = head_of("POST", HOOK, f"Authorization: Bearer {TOKEN}", f"Content-Length: {len(body)}")
    small: list[int] = []

    async def attack() -> list[bytes]:
        async def others() -> None:
            # Each on a new connection: this loop also sends the large bodies, and may be too late for an open one.
            once = httpx.Limits(max_keepalive_connections=0)
            async with httpx.AsyncClient(base_url=running.service.url, timeout=30, limits=once) as client:
                headers = {"Authorization": f"Bearer {TOKEN}"}
                for _ in range(50):
                    sent = a_delivery(an_alert(NOW, service="small"))
                    small.append((await client.post(HOOK, json=sent, headers=headers)).status_code)

        answers = asyncio.gather(
            *(answer_to(running, head, repeated(body[:-1], 1)) for _ in range(20)),
            *(answer_to(running, head, repeated(body, 1)) for _ in range(80)),
        )
        await asyncio.gather(answers, others())
        return answers.result()

    with unharmed(running, growth=2 * MEMORY_GROWTH):
        answers = asyncio.run(attack())
    assert {answer[9:12] for answer in answers} <= {b"", b"200", b"503"}
    refused = [answer for answer in answers if answer[9:12] == b"503"]
    assert all(b"retry-after" in answer for answer in refused)
    # Accepted ones cannot be read and go to quarantine, which is full after some, if the machine is fast.
    others = [answer for answer in refused if b"AFTERMATH_MAX_BYTES_IN_FLIGHT" not in answer]
    assert len(others) < len(refused)
    assert all(b"AFTERMATH_QUARANTINE_BYTES" in answer for answer in others)
    assert set(small) == {200}


# — tokens —


def test_guessed_tokens_are_refused_slowed_down_and_forgotten(running: RunningService) -> None:
    guesses = ["aft_" + "é" * 30_000 + "_x", "aft_%00_x"] * 10 + [f"aft_{n:08x}_{'x' * 43}" for n in range(100)] * 2

    async def attack() -> list[int]:
        async with httpx.AsyncClient(base_url=running.service.url, timeout=60) as client:
            at_once = asyncio.Semaphore(50)

            async def guess(token: str) -> int:
                async with at_once:
                    header = {"Authorization": f"Bearer {token}".encode()}
                    return (await client.get("/api/v1/incidents", headers=header)).status_code  # type: ignore[arg-type]

            return [*await asyncio.gather(*map(guess, guesses))]

    with unharmed(running), running.client(TOKEN) as known:
        longest, stop = 0.0, Event()

        def others() -> None:
            nonlocal longest
            while not stop.is_set():
                began = time.monotonic()
                known.get("/api/v1/sources").raise_for_status()
                longest = max(longest, time.monotonic() - began)

        thread = Thread(target=others)
        thread.start()
        began = time.monotonic()
        statuses = asyncio.run(attack())
        took = time.monotonic() - began
        stop.set()
        thread.join()
    assert set(statuses) <= {401, 503}
    assert took > 10
    assert longest < STALL_SECONDS
    path = f"/webhooks/alertmanager/aft_%00%00_{'x' * 43}"
    assert httpx.post(f"{running.service.url}{path}", json={}).status_code == 401


# — connections —


@asynccontextmanager
async def opened(
    running: RunningService, count: int
) -> AsyncIterator[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.service.port)
            stack.callback(writer.close)
            connections.append((reader, writer))
        yield connections


@contextmanager
def with_files(soft: int) -> Iterator[None]:
    """Limits open files for processes started meanwhile."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def test_more_idle_connections_than_files(tmp_path: Path) -> None:
    service = a_service(tmp_path)

    async def attack(running: RunningService) -> None:
        async with opened(running, 2500) as connections:
            # Those that are still open may also begin a request.
            for _, writer in connections[::2]:
                writer.write(b"POST / HTTP/1.1\r\n")
            # A connection makes room only when it has been idle for a while.
            await asyncio.sleep(2 * IDLE_SECONDS)
            async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
                for _ in range(20):
                    assert (await client.get("/healthz")).status_code == 200
                    answer = await client.post(
                        HOOK, json=a_delivery(an_alert(NOW)), headers={"Authorization": f"Bearer {TOKEN}"}
                    )
                    assert answer.status_code == 200
            assert files_of(running) < 1000 + 32 + 256
            service.kill_postgres()
            until(lambda: httpx.get(f"{service.url}/readyz").json()["status"] == "degraded", "the database is away")
            until(
                lambda: httpx.get(f"{service.url}/readyz").json()["status"] == "ok",
                "the built-in PostgreSQL runs again",
                within=90,
            )

    with ExitStack() as stack:
        with with_files(1024):
            running = stack.enter_context(service.serve())
        stack.enter_context(with_files(8192))
        assert "accepting up to 1000 connections; this process may open 3336 files" in running.log()
        asyncio.run(attack(running))
        assert "all 1000 connections (AFTERMATH_MAX_CONNECTIONS) are in use" in running.log()


def test_clients_that_do_not_read_are_cut_off(tmp_path: Path) -> None:
    service = a_service(tmp_path, AFTERMATH_WRITE_SECONDS="2")
    request = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"

    def unread() -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        client.sendall(request * 40)
        return client

    with service.serve() as running:
        httpx.get(f"{service.url}/docs/assets/swagger-ui-bundle.js").raise_for_status()
        files = files_of(running)
        with unharmed(running):
            clients = [unread() for _ in range(50)]
            time.sleep(1)  # they are accepted
            until(lambda: files_of(running) < files + 10, "they are cut off", within=60)
            for client in clients:
                client.close()


# — answers that reach the client —


def exchange(running: RunningService, *pieces: bytes, half_close: bool = False, only_head: bool = False) -> bytes:
    """Sends everything, then reads until the service closes the connection, or the head of the first answer."""
    with socket.create_connection(("127.0.0.1", running.service.port), timeout=30) as client:
        for piece in pieces:
            client.sendall(piece)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            while more := client.recv(2**16):
                answer += more
                if only_head and b"\r\n\r\n" in answer:
                    break
        return answer


def a_request(*headers: str) -> bytes:
    body = json.dumps(a_delivery(an_alert(NOW))).encode()
    length = f"Content-Length: {len(body)}"
    return head_of("POST", HOOK, f"Authorization: Bearer {TOKEN}", length, *headers) + body


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET\x00 / HTTP/1.1\r\n"])
def test_garbage_behind_deliveries_does_not_replace_their_answers(running: RunningService, garbage: bytes) -> None:
    for before in (1, 5):
        assert exchange(running, a_request() * before + garbage).count(b"HTTP/1.1 200 ") == before


def test_a_client_that_closes_its_direction_gets_its_answers(running: RunningService) -> None:
    assert exchange(running, a_request() * 3, half_close=True).count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize("path", [HOOK, "/api/v1/incidents"])
@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@pytest.mark.parametrize("megabytes_sent", [11, 60])
def test_a_client_that_writes_its_whole_body_first_gets_the_413(
    running: RunningService, path: str, connection: str, megabytes_sent: int
) -> None:
    head = head_of(
        "POST",
        path,
        f"Content-Length: {megabytes_sent * 2**20}",
        f"Authorization: Bearer {TOKEN}",
        f"Connection: {connection}",
    )
    answer = exchange(running, head, *[MEGABYTE] * megabytes_sent, only_head=connection == "keep-alive")
    assert answer.startswith(b"HTTP/1.1 413 ")
