"""A persistent connection that passes statements directly to the driver, for the ingest path."""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any, Protocol

from asyncpg import Connection as Driver
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Rows(Protocol):
    """Rows returned by a statement, with columns by position."""

    def __iter__(self) -> Iterator[Any]: ...
    def one(self) -> Any: ...


class Transaction(Protocol):
    """Runs a statement in a transaction: SQLAlchemy's connection, or that of a `RawConnection`."""

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any], /) -> Rows: ...


class RawConnection:
    """A persistent connection that bypasses SQLAlchemy when it runs statements.

    Used by the ingest path, where SQLAlchemy's overhead costs more than most statements.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._kept: tuple[AsyncConnection, Driver] | None = None

    @asynccontextmanager
    async def transaction(self, first: str = "SELECT") -> AsyncIterator[Transaction]:
        """Commits if the block succeeds. Raises ConnectionError if the connection is lost.

        `first` is SQL without parameters that is sent to the server together with the BEGIN.
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


async def copy(tx: Transaction, table: str, columns: Sequence[str], records: Collection[Sequence[Any]]) -> None:
    """Inserts complete rows in half the time of an INSERT. Raises the exceptions of the driver."""
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
    """Rolls back. Raises ConnectionError if the connection is lost."""
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
    """The SQL with `:name` replaced by `$1`, and the names in that order."""
    compiled = statement.compile(dialect=_DIALECT)
    return compiled.string, tuple(compiled.positiontup or ())
