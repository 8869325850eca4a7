"""One kept connection without SQLAlchemy between a statement and the driver, for the ingest path."""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any, Protocol

from asyncpg import Connection as Driver
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Rows(Protocol):
    """The rows a statement returned; columns by position."""

    def __iter__(self) -> Iterator[Any]: ...
    def one(self) -> Any: ...


class Executor(Protocol):
    """Runs a statement in a transaction: SQLAlchemy's connection, or that of a `RawConnection`."""

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any], /) -> Rows: ...


class RawConnection:
    """One connection that is kept open and runs statements without SQLAlchemy between them and the driver.

    For the ingest path, where SQLAlchemy's work around a statement costs more than most statements themselves.
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
            yield _RawTransaction(driver)
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
        # It was lost while idle: PostgreSQL was restarted.
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
    """Adds whole rows, in half the time of an INSERT. Raises what the driver raises."""
    if isinstance(tx, AsyncConnection):
        driver = (await tx.get_raw_connection()).driver_connection
        assert driver is not None, "in a transaction"
    else:
        assert isinstance(tx, _RawTransaction), "there are two kinds"
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
        raise RuntimeError(f"PostgreSQL answered {done} to COMMIT")  # it rolled back


async def _give_up(driver: Driver, error: BaseException) -> None:
    """Rolls back. Raises ConnectionError where the connection is lost."""
    if isinstance(error, TimeoutError):
        # A connection that timed out will not answer ROLLBACK either; drop it.
        driver.terminate()
    if not driver.is_closed():
        with suppress(Exception):
            await driver.execute("ROLLBACK")
    if driver.is_closed() and isinstance(error, Exception):
        message = "the connection to the database was lost"
        raise ConnectionError(message) from error


class _Fetched(list[Any]):
    def one(self) -> Any:
        [row] = self
        return row


class _RawTransaction:
    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any], /) -> Rows:
        sql, names = _as_driver_reads(statement)
        return _Fetched(await self.driver.fetch(sql, *(parameters[name] for name in names)))


_DIALECT = dialect()  # type: ignore[no-untyped-call]


@lru_cache
def _as_driver_reads(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """`:name` as `$1`, and the names in that order."""
    compiled = statement.compile(dialect=_DIALECT)
    return compiled.string, tuple(compiled.positiontup or ())
