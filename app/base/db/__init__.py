"""The only maker of connections, and what is known of the database being there."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, Self

from alembic import command
from alembic.config import Config
from asyncpg import Connection as Driver
from sqlalchemy import Connection, Dialect, TextClause, event, text
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.settings import database_address

log = logging.getLogger("aftermath.db")

OLDEST_SERVER = 15
PROBE_SECONDS = 1.0  # how often a database that is away is asked for
HANGS_SECONDS = 2.0  # a server that takes longer to answer a probe is away too
PROBE_AT_MOST_SECONDS = 20.0  # of several hosts some may say nothing at all


class UnsupportedServer(Exception):
    """The database is not PostgreSQL 15 or later."""


def connect(
    url: str, *, pool_size: int = 8, statement_seconds: float | None = 30, few_rows: bool = False
) -> AsyncEngine:
    """An engine for `postgresql://…` (or `postgres://…`); nothing is opened before the first use.

    Of several hosts (`host:port,host:port`) each new connection goes to one that answers and has the
    `target_session_attrs` of the address, `read-write` if it names none. A statement that takes longer than
    `statement_seconds` fails: a network that swallows packets must not hold up all deliveries behind one.
    `few_rows`: every statement looks up what it names by an index, and is planned once. Left to itself PostgreSQL keeps
    for minutes the plan it made while the tables were empty: to read all of them.
    """
    engine = create_async_engine(
        database_address(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        # A restarted PostgreSQL costs one failed ping, not one failed request.
        pool_pre_ping=True,
        # Errors are logged, payloads and secrets are not.
        hide_parameters=True,
        connect_args={
            "timeout": 5,
            "command_timeout": statement_seconds,
            "server_settings": {
                "application_name": "aftermath",
                "timezone": "UTC",
                # Batches are short statements over few rows: compiling them costs more than running them.
                "jit": "off",
                # A forgotten lock must not stop the doors for ever.
                "idle_in_transaction_session_timeout": "60s",
                **(_BY_INDEX if few_rows else {}),
            },
        },
    )
    event.listen(engine.sync_engine, "do_connect", _Hosts().connect)
    return engine


class _Hosts:
    """The hosts of a database that fails over, tried one by one, the one that served last first.

    asyncpg has one time limit for all of them, and tries no other after one that is starting up: a host that says
    nothing, or not yet, would keep us from the one that serves.
    """

    def __init__(self) -> None:
        self._served: object = None

    def connect(self, dialect: Dialect, _record: object, _arguments: object, parameters: dict[str, Any]) -> Any:
        """A connection; None with a single host, which is the driver's own affair."""
        if not isinstance(parameters.get("host"), list):
            return None
        ports = parameters.get("port") or [5432] * len(parameters["host"])
        failed: list[str] = []
        for host, port in sorted(zip(parameters["host"], ports, strict=True), key=lambda one: one != self._served):
            chosen = {"target_session_attrs": "read-write", **parameters, "host": host, "port": port}
            try:
                connection = dialect.loaded_dbapi.connect(**chosen)
            except Exception as error:  # noqa: BLE001  whatever it is, the next may be well
                failed.append(f"{host}:{port} ({type(error).__name__})")
            else:
                self._served = (host, port)
                return connection
        raise ConnectionError("no host of the database takes connections for writing: " + ", ".join(failed))


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
    """A connection in a transaction that commits when the block ends well."""
    async with engine.begin() as connection:
        yield connection


class Rows(Protocol):
    """What a statement found; columns by position."""

    def __iter__(self) -> Iterator[Any]: ...
    def one(self) -> Any: ...


class Executor(Protocol):
    """Runs a statement in a transaction: SQLAlchemy's connection, or a `Line`."""

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any], /) -> Rows: ...


class Line:
    """One connection that is kept, and on it statements without SQLAlchemy between them and the driver.

    For the doors: what SQLAlchemy does around a statement costs more than most of theirs do.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._kept: tuple[AsyncConnection, Driver] | None = None

    @asynccontextmanager
    async def transaction(self, first: str = "SELECT") -> AsyncIterator[Executor]:
        """Commits when the block ends well. Raises ConnectionError where the connection is lost.

        `first` is SQL without parameters, which goes to the server together with the BEGIN.
        """
        driver = await self._begun(f"BEGIN; {first}")
        try:
            yield _Direct(driver)
            await _commit(driver)
        except BaseException as error:
            await _give_up(driver, error)
            raise

    async def _begun(self, begin: str) -> Driver:
        try:
            return await _begin(await self._connected(), begin)
        except ConnectionError as lost:
            if isinstance(lost.__cause__, TimeoutError):
                raise
        # It was lost while nobody used it: PostgreSQL was restarted.
        return await _begin(await self._connected(), begin)

    async def close(self) -> None:
        if self._kept is not None:
            connection, driver = self._kept
            self._kept = None
            if driver.is_closed():
                await connection.invalidate()
            await connection.close()

    async def _connected(self) -> Driver:
        if self._kept is not None and self._kept[1].is_closed():
            await self.close()
        if self._kept is None:
            connection = await self._engine.connect()
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None, "just connected"
            self._kept = (connection, driver)
        return self._kept[1]


async def copy(tx: Executor, table: str, columns: Sequence[str], records: Collection[Sequence[Any]]) -> None:
    """Adds whole rows, in half the time that PostgreSQL takes for an INSERT of them. Raises what the driver raises."""
    if isinstance(tx, AsyncConnection):
        driver = (await tx.get_raw_connection()).driver_connection
        assert driver is not None, "in a transaction"
    else:
        assert isinstance(tx, _Direct), "there are two kinds"
        driver = tx.driver
    await driver.copy_records_to_table(table, records=records, columns=columns)


async def _begin(driver: Driver, begin: str) -> Driver:
    try:
        await driver.execute(begin)
    except BaseException as error:
        await _give_up(driver, error)
        raise
    return driver


async def _commit(driver: Driver) -> None:
    if (done := await driver.execute("COMMIT")) != "COMMIT":
        raise RuntimeError(f"PostgreSQL answered {done} to COMMIT")  # nothing that failed may be answered as done


async def _give_up(driver: Driver, error: BaseException) -> None:
    """Rolls back. Raises ConnectionError where the connection is lost."""
    if isinstance(error, TimeoutError):
        # Who does not answer a statement will not answer a rollback, nor the next statement.
        driver.terminate()
    if not driver.is_closed():
        with suppress(Exception):
            await driver.execute("ROLLBACK")
    if driver.is_closed() and isinstance(error, Exception):
        message = "the connection to the database was lost"
        raise ConnectionError(message) from error


class _Found(list[Any]):
    def one(self) -> Any:
        [row] = self
        return row


class _Direct:
    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any], /) -> Rows:
        sql, names = _as_driver_reads(statement)
        return _Found(await self.driver.fetch(sql, *(parameters[name] for name in names)))


_DIALECT = dialect()  # type: ignore[no-untyped-call]


@lru_cache
def _as_driver_reads(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """`:name` as `$1`, and the names in that order."""
    compiled = statement.compile(dialect=_DIALECT)
    return compiled.string, tuple(compiled.positiontup or ())


def is_unreachable(error: BaseException) -> bool:
    """Whether the error says that the database is away or overloaded, so that trying again later may help."""
    # 08 connection, 53 out of resources, 57P0x shutting down or starting up, 40 serialisation and deadlock,
    # 25006 read-only: a standby that has not been promoted yet
    state = state_of(error)
    if state[:2] in {"08", "53", "40"} or state[:4] == "57P0" or state == "25006":
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated
    return isinstance(error, OSError | TimeoutError | PoolTimeout)


def state_of(error: BaseException) -> str:
    """The SQLSTATE of an error of PostgreSQL, empty for any other."""
    known = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(known, "sqlstate", None) or "")


class Away(ConnectionError):
    """The database is known to be away; nobody waited to learn it again."""


class Reach:
    """Whether the database answers and can be written to, as this process last saw it. `async with Reach(url):`

    Who fails to reach it says so, and everybody goes by it until a probe of our own succeeds. Probes have a connection
    of their own: a pool that is busy with slow questions is no database that is away.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lost = asyncio.Event()
        self._suspected = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self._watch_for_ever(), name="reach")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch

    @property
    def away(self) -> bool:
        return self._lost.is_set()

    def lost(self) -> None:
        """A connection broke or was refused: away, until a probe succeeds."""
        if not self.away:
            log.warning("the database does not answer")
        self._lost.set()
        self._suspected.set()

    def suspect(self) -> None:
        """Something took too long: away only if a probe fails."""
        self._suspected.set()

    async def until_lost(self) -> None:
        await self._lost.wait()

    async def _watch_for_ever(self) -> None:
        while True:
            await self._suspected.wait()
            while not await self._probed():
                self.lost()
                await asyncio.sleep(PROBE_SECONDS)
            self._suspected.clear()
            if self.away:
                log.warning("the database answers again")
                self._lost.clear()

    async def _probed(self) -> bool:
        probe = asyncio.create_task(self._answers(), name="probe")
        try:
            await asyncio.wait({probe}, timeout=HANGS_SECONDS)
            if not probe.done():
                self.lost()
            return await probe
        finally:
            probe.cancel()

    async def _answers(self) -> bool:
        engine = connect(self._url, pool_size=1)
        try:
            async with asyncio.timeout(PROBE_AT_MOST_SECONDS), engine.connect() as connection:
                # A standby answers too, but takes nothing.
                read_only = (await connection.execute(text("SHOW transaction_read_only"))).scalar_one()
                return str(read_only) == "off"
        except Exception as error:
            if not is_unreachable(error):
                log.exception("the database cannot be probed")
            return False
        finally:
            await engine.dispose()


MIGRATIONS = Path(__file__).resolve().parents[3] / "alembic"


async def migrate(engine: AsyncEngine, revision: str = "head") -> None:
    """Brings the schema to `revision`; safe when several processes start at once."""
    async with engine.connect() as connection:
        # One migrator at a time; the others find nothing left to do. They do not wait within a statement: an index that
        # is made CONCURRENTLY waits for every statement that is under way.
        while not (
            await connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _MIGRATING})
        ).scalar_one():
            await connection.rollback()
            await asyncio.sleep(0.1)
        try:
            await connection.commit()
            await connection.run_sync(_upgrade, revision)
            await connection.commit()
        finally:
            await connection.rollback()
            await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATING})
            await connection.commit()


_MIGRATING = 0x61667465726D6174  # "aftermat", so that it collides with nobody by chance


def _upgrade(connection: Connection, revision: str) -> None:
    command.upgrade(alembic_config(connection), revision)


def alembic_config(connection: Connection) -> Config:
    """For `alembic.command` functions, which then run on `connection`."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config
