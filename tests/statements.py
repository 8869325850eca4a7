"""Counts the SQL statements of a block, for tests that they do not grow with the data."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine


@contextmanager
def counted(engine: AsyncEngine) -> Iterator[list[str]]:
    """The statements sent through this engine by the block and the tasks it starts, without BEGIN and COMMIT.

    For requests through the fixture `client`, pass the engine of the fixture `context`.
    """
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if _COUNTING.get() is statements:
            statements.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    token = _COUNTING.set(statements)
    try:
        yield statements
    finally:
        _COUNTING.reset(token)
        event.remove(engine.sync_engine, "before_cursor_execute", note)


# Background jobs use the same engine, but not this context.
_COUNTING: ContextVar[list[str] | None] = ContextVar("counting", default=None)
