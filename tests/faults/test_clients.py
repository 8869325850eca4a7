"""Clients that disconnect, are slow, send wrong times or huge bodies, alongside well-behaved ones."""

import asyncio
import gzip
import json
import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.faults.afterwards import TOKEN, a_service, assert_all_is_well, files_of, loaded, memory_of
from tests.faults.postgres import a_server
from tests.load import Plan, request
from tests.processes import RunningService, until

MANY = 40


# — connections —


def test_connections_cut_in_mid_body(tmp_path: Path) -> None:
    moment = random.Random("cut")
    service = a_service(tmp_path)
    target = httpx.URL(service.url)
    with service.serve() as running, loaded(service, Plan(seed=11)) as load:
        began_with = memory_of(running)
        load.wait_for(50)
        for delivery, _ in zip(Plan(seed=12).deliveries(), range(500), strict=False):
            # From another plan: aborted deliveries must not be stored.
            whole = request(target, TOKEN, delivery.body())
            with socket.create_connection((target.host, target.port)) as sender:
                sender.sendall(whole[: moment.randrange(1, len(whole))])
                if moment.random() < 0.5:
                    # Closed with a reset, like by a killed sender.
                    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        load.wait_for(50)
        load.finish()
        assert load.statuses.keys() == {200}
        assert "Traceback" not in running.log()
        assert_all_is_well(load, running, began_with=began_with)


DAWDLERS = 200
PATIENCE_SECONDS = 5


@pytest.mark.parametrize("workers", ["1", "2"])
def test_clients_that_send_a_byte_a_second_are_cut_off(tmp_path: Path, workers: str) -> None:
    service = a_service(tmp_path, AFTERMATH_RECEIVE_SECONDS=str(PATIENCE_SECONDS), AFTERMATH_WORKERS=workers)
    target = httpx.URL(service.url)
    whole = request(target, TOKEN, next(Plan(seed=19).deliveries()).body())
    head = len(whole.partition(b"\r\n\r\n")[0])

    async def dawdle(already_sent: int) -> float:
        """Seconds until the service dropped the connection."""
        reader, writer = await asyncio.open_connection(target.host, target.port)
        began = time.monotonic()
        writer.write(whole[:already_sent])
        try:
            for at in range(already_sent, len(whole)):
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        assert await reader.read() == b"", "it answered half a request"
                        break
                writer.write(whole[at : at + 1])
        except ConnectionError:
            pass
        writer.close()
        return time.monotonic() - began

    async def crowd() -> list[float]:
        # No bytes, a part of the head, a part of the body.
        return await asyncio.gather(*(dawdle([0, 20, head + 20][n % 3]) for n in range(DAWDLERS)))

    with service.serve() as running, loaded(service, Plan(seed=20), connections=4) as load:
        began_with, files = memory_of(running), files_of(running)
        load.wait_for(50)
        patience = asyncio.run(crowd())
        assert min(patience) > PATIENCE_SECONDS - 1
        assert max(patience) < PATIENCE_SECONDS * 4
        load.wait_for(50)
        load.finish()
        assert load.statuses.keys() == {200}
        assert "Traceback" not in running.log()
        until(lambda: files_of(running) < files + DAWDLERS / 4, "their connections are closed", within=30)
        assert_all_is_well(load, running, began_with=began_with)


def test_a_head_without_end_is_cut_off(tmp_path: Path) -> None:
    service = a_service(tmp_path)
    with service.serve() as running, loaded(service, Plan(seed=21), connections=4) as load:
        began_with = memory_of(running)
        for start in (b"POST /", b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            more = b"a" * 2**16 if not start.endswith(b"x\r\n") else b"a: b\r\n" * 2**13
            with socket.create_connection(("127.0.0.1", service.port), timeout=30) as sender:
                sender.sendall(start)
                # It is refused with 431, and only so much of the rest is read and discarded.
                with pytest.raises(ConnectionError):
                    sender.sendall(more * 3000)
        load.wait_for(50)
        load.finish()
        assert load.statuses.keys() == {200}
        assert_all_is_well(load, running, began_with=began_with)


def test_two_services_and_200_connections_on_one_hot_key(tmp_path: Path) -> None:
    plan = Plan(seed=13, over=timedelta(minutes=10), per_service=1_000_000, services_at_once=1)
    with a_server() as server:
        services = [a_service(tmp_path / name, AFTERMATH_DATABASE_URL=server.url) for name in ("one", "two")]
        for service in services:
            service.directory.mkdir()
        with services[0].serve() as one, services[1].serve() as two:
            began_with = [memory_of(one), memory_of(two)]
            with loaded(services, plan, connections=200) as load:
                load.wait_for(1500, within=120)
                load.finish()
                for running, before in zip((one, two), began_with, strict=True):
                    assert_all_is_well(load, running, began_with=before, database_url=server.url)


# — times —


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_a_source_is_wrong_by_an_hour(tmp_path: Path, hours: int) -> None:
    wrong = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=hours)
    service = a_service(tmp_path)
    with service.serve() as running, loaded(service, Plan(seed=14, until=wrong)) as load:
        began_with = memory_of(running)
        load.wait_for(300)
        load.finish()
        assert load.statuses.keys() == {200}
        assert_all_is_well(load, running, began_with=began_with, times_are_true=hours < 0)


# — hostile requests —


def post(
    running: RunningService,
    body: bytes | Iterator[bytes],
    *,
    path: str = "/webhooks/alertmanager",
    token: str | None = TOKEN,
    **headers: str,
) -> httpx.Response:
    with running.client(token) as client:
        return client.post(path, content=body, headers=headers, timeout=120)


MONSTERS: dict[str, tuple[bytes, dict[str, str], int]] = {
    "10,000 deep": (b'{"alerts":' + b"[" * 10_000 + b"]" * 10_000 + b"}", {}, 200),
    "10,000 deep in an alert": (
        b'{"alerts":[{"labels":{"alertname":"Deep"},"annotations":{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}}]}",
        {},
        200,
    ),
    # The parser stops before the missing end.
    "10,000 deep and not closed": (b'{"alerts":' + b"[" * 10_000, {}, 200),
    "a million brackets": (b"[" * 1_000_000, {}, 400),
    "a gzip bomb": (gzip.compress(bytes(50 * 2**20)), {"Content-Encoding": "gzip"}, 415),
    "a gzip bomb without Content-Encoding": (gzip.compress(bytes(50 * 2**20)), {}, 400),
    "random bytes": (random.Random("bytes").randbytes(2**20), {}, 400),
    "UTF-8 that is none, in a label": (
        b'{"alerts":[{"status":"firing","labels":{"alertname":"\xff\xfe\xc0\xaf\xed\xa0\x80","service":"bad-utf-8"},"startsAt":"2026-08-20T10:00:00Z"}]}',
        {},
        200,
    ),
    "nothing": (b"", {}, 400),
    "NUL": (b"\x00" * 1000, {}, 400),
}


def test_hostile_requests_are_answered_and_do_not_affect_others(tmp_path: Path) -> None:
    service = a_service(tmp_path)
    with service.serve() as running, loaded(service, Plan(seed=15), connections=4) as load:
        began_with = memory_of(running)
        load.wait_for(50)
        for name, (body, headers, status) in MONSTERS.items():
            for _ in range(5):
                assert (name, post(running, body, **headers).status_code) == (name, status)
        load.wait_for(50)
        load.finish()
        assert load.statuses.keys() == {200}
        assert_all_is_well(load, running, began_with=began_with, quarantined=15)


@pytest.mark.parametrize(("path", "token"), [("/webhooks/alertmanager", TOKEN), ("/api/v1/incidents", None)])
def test_bodies_of_200_mb_are_refused_before_they_are_held(tmp_path: Path, path: str, token: str | None) -> None:
    service = a_service(tmp_path)
    megabytes = 200

    def in_chunks() -> Iterator[bytes]:
        for _ in range(megabytes):
            yield bytes(2**20)

    def flood(chunked: bool) -> None:
        # The response arrives before the body is sent; a client that keeps writing finds a closed connection.
        with suppress(httpx.TransportError):
            length = {} if chunked else {"Content-Length": str(megabytes * 2**20)}
            answers.append(post(running, in_chunks(), path=path, token=token, **length).status_code)

    answers: list[int] = []
    with service.serve() as running, loaded(service, Plan(seed=16), connections=4) as load:
        began_with = memory_of(running)
        load.wait_for(50)
        floods = [Thread(target=flood, args=(n % 2 == 0,)) for n in range(8)]
        for thread in floods:
            thread.start()
        for thread in floods:
            thread.join()
        # Without a token, a body whose size is not declared is refused before any of it is read.
        assert set(answers) <= ({413} if token else {401, 413})
        load.wait_for(50)
        load.finish()
        assert load.statuses.keys() == {200}
        assert_all_is_well(load, running, began_with=began_with)


@pytest.mark.parametrize(
    ("status", "verdicts"),
    [
        ("firing", {"opened": 1000, "joined": 9000, "quarantined": 1}),
        ("in flames", {"quarantined": 10_001}),
    ],
)
def test_100_000_alerts_in_a_body(tmp_path: Path, status: str, verdicts: dict[str, int]) -> None:
    began = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    alerts = [
        {"status": status, "labels": {"service": f"many-{n % 1000}", "n": str(n)}, "startsAt": began}
        for n in range(100_000)
    ]
    body = json.dumps({"alerts": alerts}, separators=(",", ":")).encode()
    service = a_service(tmp_path, AFTERMATH_MAX_BODY_BYTES=str(len(body)))
    with service.serve() as running, loaded(service, Plan(seed=18), connections=4) as load:
        began_with = memory_of(running)
        load.wait_for(50)
        answer = post(running, body)
        # The signals within the limit are applied, the rest is quarantined as one item.
        assert (answer.status_code, answer.json().get("verdicts")) == (200, verdicts)
        load.finish()
        assert_all_is_well(load, running, began_with=began_with, quarantined=verdicts["quarantined"])
