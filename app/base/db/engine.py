"""Connections to PostgreSQL: engine, transactions and classification of errors."""

import errno
import logging
import math
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy import Dialect, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from app.settings import database_address

log = logging.getLogger("aftermath.db")

OLDEST_SERVER = 15
CONNECT_SECONDS = 5
PING_AFTER_SECONDS = 30.0  # for which a connection was idle


class UnsupportedServer(Exception):
    """The database is not PostgreSQL 15 or later."""


def connect(
    url: str, *, pool_size: int = 8, statement_seconds: float | None = 30, few_rows: bool = False
) -> AsyncEngine:
    """An engine for `postgresql://…` (or `postgres://…`). It connects on first use.

    With several hosts (`host:port,host:port`), each new connection goes to a host that responds and satisfies the
    `target_session_attrs` in the URL, by default `read-write`. Statements fail after `statement_seconds`, so that a
    network that drops packets does not block all later deliveries.
    `few_rows` makes PostgreSQL plan each statement once and use indexes. Otherwise it would reuse, for minutes, plans
    made while the tables were empty: full table scans.
    """
    engine = create_async_engine(
        database_address(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        # Keep payloads and secrets out of logged errors.
        hide_parameters=True,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": statement_seconds,
            "server_settings": {
                "application_name": "aftermath",
                "timezone": "UTC",
                # Batches are short statements on few rows: compiling them takes longer than running them.
                "jit": "off",
                # A forgotten lock must not block ingest forever.
                "idle_in_transaction_session_timeout": "60s",
                **(_BY_INDEX if few_rows else {}),
            },
        },
    )
    event.listen(engine.sync_engine, "do_connect", _Hosts().connect)
    event.listen(engine.sync_engine, "checkin", _note_return)
    event.listen(engine.sync_engine, "checkout", partial(_require_alive, engine.dialect))
    return engine


def _note_return(_connection: object, entry: ConnectionPoolEntry) -> None:
    entry.info["returned"] = time.monotonic()


def _require_alive(
    dialect: Dialect, connection: PoolProxiedConnection, entry: ConnectionPoolEntry, _proxy: object
) -> None:
    """Makes the pool replace a connection that was lost while it was idle: a restarted PostgreSQL fails no request.

    asyncpg notices when the server closes a connection. A network may forget one without a word, so after a while a
    ping is sent; before every use, as the pool would do it, its three round trips would cost more than most questions.
    """
    driver = connection.driver_connection
    if driver is None or driver.is_closed():
        raise DisconnectionError
    if time.monotonic() - entry.info.get("returned", math.inf) > PING_AFTER_SECONDS:
        try:
            dialect.do_ping(connection)
        except Exception as error:  # whatever it is, a new connection may work
            raise DisconnectionError from error


class _Hosts:
    """The hosts of a database with failover, tried one by one, starting with the last successful one.

    asyncpg applies one time limit to all hosts and stops at one that is starting up, so an unresponsive host would
    prevent connections to the host that is serving.
    """

    def __init__(self) -> None:
        self._served: object = None

    def connect(self, dialect: Dialect, _record: object, _arguments: object, parameters: dict[str, Any]) -> Any:
        """A connection, or None with a single host, which the driver handles."""
        if not isinstance(parameters.get("host"), list):
            return None
        ports = parameters.get("port") or [5432] * len(parameters["host"])
        failed: list[str] = []
        for host, port in sorted(zip(parameters["host"], ports, strict=True), key=lambda one: one != self._served):
            chosen = {"target_session_attrs": "read-write", **parameters, "host": host, "port": port}
            try:
                connection = dialect.loaded_dbapi.connect(**chosen)
            except Exception as error:  # noqa: BLE001  whatever the error, the next host may work
                failed.append(f"{host}:{port} ({why_not_connected(error)})")
            else:
                self._served = (host, port)
                return connection
        raise ConnectionError("no host accepts connections for writing: " + ", ".join(failed))


_BY_INDEX = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


async def require_supported(engine: AsyncEngine) -> None:
    """Raises UnsupportedServer."""
    async with engine.connect() as connection:
        number = int((await connection.execute(text("SHOW server_version_num"))).scalar_one())
    if number < OLDEST_SERVER * 10_000:
        message = f"PostgreSQL {number // 10_000} is too old; Aftermath needs {OLDEST_SERVER} or later"
        raise UnsupportedServer(message)


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that commits if the block succeeds."""
    async with engine.begin() as connection:
        yield connection


@asynccontextmanager
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """Rows as objects, in one transaction that commits if the block succeeds.

    Changed rows are written before the next query of the session and at the end (`autoflush`), and remain readable
    after the commit. See app/base/schema for how to use it.
    """
    async with AsyncSession(engine, expire_on_commit=False) as rows, rows.begin():
        yield rows


@asynccontextmanager
async def read_transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that only reads. All its statements see the same state of the database."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        async with connection.begin():
            yield connection


@asynccontextmanager
async def read_session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """Rows as objects in a `read_transaction`."""
    async with read_transaction(engine) as tx, AsyncSession(tx, expire_on_commit=False) as rows:
        yield rows


@asynccontextmanager
async def session_within(tx: AsyncConnection) -> AsyncIterator[AsyncSession]:
    """Rows as objects in the caller's transaction. Changes are written if the block succeeds; the caller commits."""
    if not tx.in_transaction():  # otherwise the session begins it and rolls it back
        await tx.begin()
    async with AsyncSession(tx, expire_on_commit=False, join_transaction_mode="rollback_only") as rows:
        yield rows
        await rows.flush()


def is_contended(error: BaseException) -> bool:
    """Whether the transaction conflicted with another one. The database is well, and a retry may succeed."""
    # 40 serialization failure and deadlock, 55P03 lock not available
    state = state_of(error)
    return state[:2] == "40" or state == "55P03"


def is_unreachable(error: BaseException) -> bool:
    """Whether the error means that the database is unavailable or overloaded, so that a later retry may succeed."""
    # 08 connection, 53 out of resources, 57P0x shutting down or starting up, 25006 read-only: a standby that has not
    # been promoted yet
    state = state_of(error)
    if state[:2] in {"08", "53"} or state[:4] == "57P0" or state == "25006":
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated
    return isinstance(error, OSError | TimeoutError | PoolTimeout)


def state_of(error: BaseException) -> str:
    """The SQLSTATE of a PostgreSQL error, empty for any other error."""
    known = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(known, "sqlstate", None) or "")


def why_not_connected(error: BaseException) -> str:
    """Describes the cause of a failed connection."""
    if isinstance(error, socket.gaierror):
        return f"the host name cannot be resolved ({error.strerror})"
    if isinstance(error, TimeoutError):
        return f"no response within {CONNECT_SECONDS} seconds"
    numbers = {error.errno} if isinstance(error, OSError) and error.errno else set()
    # For a name with several addresses, asyncio gives the errors as text.
    numbers |= {int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))}
    if numbers and numbers <= {errno.ECONNREFUSED}:
        return "the connection was refused"
    if numbers and numbers <= {errno.ENOENT, errno.ECONNREFUSED}:
        return "the socket does not exist"
    if type(error) is ConnectionError:
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
