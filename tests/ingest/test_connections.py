"""Deliveries over real connections to the whole application behind uvicorn: disconnecting clients, and a shutdown."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.http.limits.server import protocol_with
from app.main import create_app
from app.settings import Settings
from tests.base.test_server import Server, connected, limits, until
from tests.conftest import ADMIN_TOKEN
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert, count


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with Server(
        protocol_with(limits(receive_seconds=60)), create_app(settings), lifespan="on"
    ).running() as server:
        yield server


def a_request(*alerts: Any) -> bytes:
    body = json.dumps(a_delivery(*alerts)).encode()
    lines = (
        f"POST {WEBHOOK} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {ADMIN_TOKEN}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


async def an_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        return int(head[9:12]), json.loads(await reader.readexactly(int(length[1])))


@asynccontextmanager
async def held(engine: AsyncEngine) -> AsyncIterator[None]:
    """No delivery can be committed meanwhile. For less than `SLOW_SECONDS`, so that the database is not probed."""
    async with db.transaction(engine) as tx:
        await tx.execute(text("LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE"))
        yield


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The request log lines since the last call, without ids and durations."""
    caplog.set_level(logging.INFO, "aftermath.request")

    def since() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.name == "aftermath.request"]
        caplog.clear()
        return [re.sub(r"ms=\S+|delivery=\S+", "", line) for line in found]

    return since


async def test_a_delivery_is_answered_and_leaves_one_line(server: Server, lines: Callable[[], list[str]]) -> None:
    async with connected(server) as (reader, writer):
        for verdict in ("opened", "repeated"):
            writer.write(a_request(an_alert(note="x" * 250_000)))
            status, answer = await an_answer(reader)
            assert (status, answer["verdicts"]) == (200, {verdict: 1})
            assert lines() == [f"method=POST route={WEBHOOK} status=200  source=1  {verdict}=1"]


async def test_a_client_that_disconnects_in_mid_body_is_logged_and_nothing_is_stored(
    server: Server, engine: AsyncEngine, lines: Callable[[], list[str]]
) -> None:
    state = server.server_state
    async with connected(server) as (_, writer):
        writer.write(a_request(an_alert())[:-5])
        await until(lambda: state.tasks)
    await until(lambda: not state.connections and not state.tasks)
    assert lines() == [f"method=POST route={WEBHOOK} status=422 "]
    assert await count(engine, "SELECT count(*) FROM delivery") == 0


async def test_a_delivery_is_stored_even_if_its_client_disconnects(
    server: Server, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(server) as (_, writer):
        async with held(engine):
            writer.write(a_request(an_alert()))
            await until(lambda: server.server_state.tasks)
            await asyncio.sleep(0.2)
            writer.close()
            await asyncio.sleep(0.2)
        await until(lambda: not server.server_state.tasks and not server.server_state.connections)
    assert await count(engine, "SELECT count(*) FROM delivery") == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_shutdown_waits_for_the_answers(server: Server, engine: AsyncEngine) -> None:
    async with connected(server) as (idle, idle_writer), connected(server) as (reader, writer):
        idle_writer.write(a_request(an_alert()))
        assert (await an_answer(idle))[0] == 200
        async with held(engine):
            writer.write(a_request(an_alert()))
            await until(lambda: server.server_state.tasks)
            server.should_exit = True
            async with asyncio.timeout(30):
                assert await idle.read() == b""
        assert (await an_answer(reader))[0] == 200
        async with asyncio.timeout(30):
            assert await reader.read() == b""
