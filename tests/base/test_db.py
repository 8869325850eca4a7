"""Parsing of database URLs, and when a connection is dropped."""

import asyncio

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.settings import Settings, database_address


@pytest.mark.parametrize(
    ("written", "hosts", "database"),
    [
        ("postgresql://me:secret@one/x", ["one"], "x"),
        ("postgres://me:secret@one:5433/x", ["one:5433"], "x"),
        ("postgresql+asyncpg://me:secret@one/x", ["one"], "x"),
        ("postgresql://me:secret@one:5433,two:5434/x", ["one:5433", "two:5434"], "x"),
        ("postgres://me:secret@one,two,three/x?target_session_attrs=read-write", ["one", "two", "three"], "x"),
        ("postgresql://me:a%40b%2Cc@one,two/x", ["one", "two"], "x"),
        ("postgresql://one,two/x", ["one", "two"], "x"),
    ],
)
def test_one_host_or_several(written: str, hosts: list[str], database: str) -> None:
    address = database_address(written)
    several = address.query.get("host", ())
    port = f":{address.port}" if address.port else ""
    assert ([f"{address.host}{port}"] if address.host else list(several), address.database) == (hosts, database)
    assert address.drivername == "postgresql+asyncpg"
    if "@" in written:
        assert (address.username, address.password) == ("me", "a@b,c" if "%" in written else "secret")
    assert address.query.get("target_session_attrs") == ("read-write" if "?" in written else None)


def test_a_directory_of_a_socket_is_a_host_too() -> None:
    address = database_address("postgresql://me@/x?host=/run/postgresql")
    assert (address.host, address.query["host"], address.database) == (None, "/run/postgresql", "x")


@pytest.mark.parametrize(
    "wrong",
    ["mysql://me@one/x", "mysql://me@one,two/x", "postgresql+psycopg://me@one/x", "one", "", "postgresql://me@one:x/y"],
)
def test_a_url_of_another_database_is_rejected(wrong: str) -> None:
    with pytest.raises(ValidationError, match="must be the URL of a PostgreSQL database"):
        Settings.model_validate({"database_url": wrong})


async def test_a_raw_connection_that_timed_out_is_not_used_again(database_url: str) -> None:
    engine = db.connect(database_url, pool_size=1, statement_seconds=0.5)
    connection = db.RawConnection(engine)

    async def server_process(statement: str) -> int:
        async with connection.transaction() as tx:
            return int((await tx.execute(text(statement), {})).one()[0])

    try:
        first = await server_process("SELECT pg_backend_pid()")
        assert await server_process("SELECT pg_backend_pid()") == first
        with pytest.raises(ConnectionError):
            await server_process("SELECT pg_backend_pid() FROM pg_sleep(60)")
        assert await server_process("SELECT pg_backend_pid()") != first
    finally:
        await connection.close()
        await engine.dispose()


@pytest.mark.parametrize("meanwhile", [False, True], ids=["first", "anew"])
async def test_begin_can_be_canceled_even_if_the_connection_is_lost(database_url: str, *, meanwhile: bool) -> None:
    engine, observer = db.connect(database_url, pool_size=1), db.connect(database_url, pool_size=1)
    connection = db.RawConnection(engine)

    async def hold() -> None:
        async with connection.transaction("SELECT pg_sleep(60)"):
            raise AssertionError("it must not wait here")

    async def sleeping(other_than: int = 0) -> int:
        async with asyncio.timeout(30):
            while True:
                async with db.transaction(observer) as looking:
                    for (process,) in await looking.execute(_SLEEPING):
                        if process != other_than:
                            return int(process)
                await asyncio.sleep(0.02)

    holding = asyncio.create_task(hold())
    try:
        first = await sleeping()
        if meanwhile:
            async with db.transaction(observer) as killer:
                await killer.execute(text("SELECT pg_terminate_backend(:process)"), {"process": first})
            await sleeping(other_than=first)
        assert connection._kept is not None
        connection._kept[1].terminate()
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(30):
                await holding
        async with connection.transaction() as tx:
            assert (await tx.execute(text("SELECT 1"), {})).one()[0] == 1
    finally:
        holding.cancel()
        await connection.close()
        await engine.dispose()
        await observer.dispose()


_SLEEPING = text("""
    SELECT pid
      FROM pg_stat_activity
     WHERE datname = current_database()
       AND state = 'active'
       AND query LIKE 'BEGIN; SELECT pg_sleep%'
""")


async def test_a_connection_that_the_server_ended_while_it_was_idle_fails_no_request(database_url: str) -> None:
    engine, other = (db.connect(database_url, pool_size=1) for _ in range(2))
    try:
        first = await _server_process(engine)
        assert await _server_process(engine) == first
        async with db.transaction(other) as tx:
            await tx.execute(text(f"SELECT pg_terminate_backend({first}, 5000)"))
        await asyncio.sleep(0.1)
        assert await _server_process(engine) != first
    finally:
        await engine.dispose()
        await other.dispose()


async def test_a_connection_that_the_network_forgot_is_found_by_a_ping_after_a_while(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = db.connect(database_url, pool_size=1)
    pings = []

    def ping(connection: object) -> bool:
        pings.append(connection)
        raise TimeoutError

    try:
        first = await _server_process(engine)
        monkeypatch.setattr(engine.dialect, "do_ping", ping)
        assert (await _server_process(engine), len(pings)) == (first, 0)
        monkeypatch.setattr("app.base.db.engine.PING_AFTER_SECONDS", -1.0)
        assert await _server_process(engine) != first
        assert len(pings) == 1
    finally:
        await engine.dispose()


async def _server_process(engine: AsyncEngine) -> int:
    async with db.transaction(engine) as tx:
        return int((await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one())
