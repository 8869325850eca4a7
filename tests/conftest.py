"""One built-in PostgreSQL per test process, and one real database per test, cloned from a migrated template.

Most tests use `engine` (the database of the test), `client` (the application, with the admin token), `client_as` (with
another token) and `context` (the parts of the application behind `client`).

`AFTERMATH_TEST_DATABASE_URL` runs the same tests against another server (its role must be allowed to create databases).
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import hypothesis
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base import postgres as embedded
from app.base.access.tokens import Scope, create_token
from app.base.db import partitions
from app.base.http.access import credentials
from app.base.http.context import Context
from app.base.process.logs import Application, Receive, Send
from app.base.process.logs import Scope as AsgiScope
from app.main import create_app, serving
from app.settings import Settings

# By default an example fails after 0.2 s, which depends on the load of the machine.
hypothesis.settings.register_profile("aftermath", deadline=None)
hypothesis.settings.load_profile("aftermath")

ADMIN_TOKEN = "admin-token-of-the-tests"
# Test files that take minutes, a group for each of three processes: the first group mostly waits for senders, while the
# others compute.
LONG = (
    ("test_end_to_end", "test_alertmanager_clients", "test_end_to_end_pagers", "test_hostile"),
    ("test_hostile_pages", "test_every_input"),
    ("test_browser", "test_service"),
)
OTHER_SERVER = os.environ.get("AFTERMATH_TEST_DATABASE_URL", "")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-database", action="store_true", help="leave out tests that use a database")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each process begins with tests that take minutes, so that none is left alone with them at the end.

    On another server, only tests that use a database run, and one case of each: only SQL can behave differently there.
    """

    def uses_database(item: pytest.Item) -> bool:
        return "server" in getattr(item, "fixturenames", ())

    left_out: list[pytest.Item] = []
    if OTHER_SERVER:
        first = {item.nodeid.partition("[")[0]: item for item in reversed(items)}
        left_out += [
            item for item in items if not uses_database(item) or first[item.nodeid.partition("[")[0]] is not item
        ]
    if config.getoption("--without-database"):
        left_out += [item for item in items if uses_database(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items[:] = _dealt(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _dealt(items: list[pytest.Item], processes: int) -> list[pytest.Item]:
    """The items in such an order that each process, which gets a consecutive part of the list from pytest-xdist, begins
    with its group of LONG.
    """
    firsts: list[list[pytest.Item]] = [[] for _ in range(processes)]
    for number, names in enumerate(LONG):
        chosen = [item for item in items if item.path.stem in names]
        firsts[number % processes] += sorted(chosen, key=lambda item: names.index(item.path.stem))
    rest = [item for item in items if not any(item.path.stem in names for names in LONG)]
    dealt: list[pytest.Item] = []
    for number, first in enumerate(firsts):
        size = (len(items) - len(dealt)) // (processes - number) - len(first)
        dealt += [*first, *rest[: max(size, 0)]]
        del rest[: max(size, 0)]
    return dealt + rest


@pytest.fixture(scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """URL of a maintenance database; a `template` with the migrated schema exists beside it."""
    async with AsyncExitStack() as stack:
        url = OTHER_SERVER
        if not url:
            data_dir: Path = tmp_path_factory.mktemp("postgres")
            # Without fsync, because these tests crash no server. Those that do use a service with its own PostgreSQL.
            unsafe = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
            built_in = await embedded.start(data_dir, settings={"max_connections": "300", **unsafe})
            stack.push_async_callback(built_in.stop)
            url = built_in.url("postgres")
        await _execute(url, f'DROP DATABASE IF EXISTS "{TEMPLATE}"', f'CREATE DATABASE "{TEMPLATE}"')
        engine = db.connect(_database(url, TEMPLATE))
        await db.migrate(engine)
        async with db.transaction(engine) as tx:  # otherwise every test would wait for it
            await partitions.maintain(tx, now=datetime.now(UTC), keep={})
        await engine.dispose()
        yield url


TEMPLATE = f"aftermath_template_{os.getpid()}"


@pytest.fixture
async def database_url(server: str) -> AsyncIterator[str]:
    """A fresh, migrated database."""
    name = f"test_{uuid4().hex}"
    # Copying files takes half as long as copying through the write-ahead log.
    await _execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}" STRATEGY FILE_COPY')
    yield _database(server, name)
    await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = db.connect(database_url, pool_size=20)
    yield engine
    await engine.dispose()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Background jobs never run by themselves, however slow the machine. Tests call them with times of their own."""
    return Settings.model_validate(
        {
            "database_url": _plain(database_url),
            "admin_token": ADMIN_TOKEN,
            "data_dir": tmp_path,
            "outbound_allow": "127.0.0.1",
            "settle_interval_seconds": 3600,
            "watch_interval_seconds": 3600,
        }
    )


@pytest.fixture
async def context(settings: Settings) -> AsyncIterator[Context]:
    """The context of `client`'s app."""
    async with serving(settings) as context:
        yield context


@pytest.fixture
async def client(context: Context, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The app, with the admin token."""
    # A slow machine must not turn answers into 503; tests/base/test_credentials.py tests the real limit.
    monkeypatch.setattr(credentials, "LOOKUP_SECONDS", 60)
    async with client_of(context) as client:
        yield client


ClientAs = Callable[[Scope | None], Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def client_as(client: httpx.AsyncClient, engine: AsyncEngine) -> AsyncIterator[ClientAs]:
    """Clients of the same app with a token of that scope (`ingest`: of source `prod`), or with none."""
    transport = client._transport
    async with AsyncExitStack() as stack:

        async def with_scope(scope: Scope | None) -> httpx.AsyncClient:
            headers = {}
            if scope is not None:
                async with db.session(engine) as session:
                    token = await create_token(
                        session,
                        f"test {scope}",
                        scope,
                        now=datetime.now(UTC),
                        source_name="prod" if scope is Scope.INGEST else None,
                        kind="alertmanager",
                    )
                headers = {"Authorization": f"Bearer {token}"}
            return await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://aftermath.test", headers=headers)
            )

        yield with_scope


def client_of(context: Context, **how: Any) -> httpx.AsyncClient:
    """A client of the app with this context and the admin token."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=in_state(_app(context.settings.status_page), context)),
        base_url="http://aftermath.test",
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        **how,
    )


@cache
def _app(status_page: bool) -> Application:
    """What the app is made from, apart from its context. Making it takes half a second."""
    return create_app(Settings.model_validate({"status_page": status_page}))


def in_state(app: Application, context: Context) -> Application:
    """Adds the state that the lifespan provides, which httpx does not run."""

    async def with_state(scope: AsgiScope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"context": context}}, receive, send)

    return with_state


async def _execute(url: str, *statements: str) -> None:
    engine = db.connect(url, pool_size=1)
    async with engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in statements:
            await autocommit.execute(text(statement))
    await engine.dispose()


def _database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
