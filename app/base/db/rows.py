"""Inserting or updating one row, and searching and counting the rows of a list, for the stores of CRUD slices."""

from collections.abc import Collection
from typing import Any, TypeVar

from sqlalchemy import Boolean, ColumnElement, Select, func, literal_column, or_, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Row

RowT = TypeVar("RowT", bound=Row)


async def upsert(
    session: AsyncSession, row: RowT, *, key: Collection[str] = (), keep: Collection[str] = ("created_at",)
) -> tuple[RowT, bool]:
    """Inserts the row, or updates the one with the same `key`; returns the stored row, and whether it is new.

    `key` names the columns of a unique constraint; without any it is the primary key. An update sets every column to
    the value in `row`, including null, except those in `keep`. It locks the stored row, which serializes concurrent
    changes to dependent rows.
    """
    table = type(row).__table__
    primary_key = table.primary_key.columns.keys()
    # Omit columns that the database fills in.
    values = {name: value for name, value in row if value is not None or table.c[name].server_default is None}
    statement = insert(type(row)).values(values)
    changed = {name: statement.excluded[name] for name in values if name not in {*primary_key, *key, *keep}}
    # PostgreSQL sets `xmax` when it locks or updates a row: it is 0 only in one that has just been inserted.
    is_new = literal_column("xmax = 0", Boolean)
    result = await session.exec(
        statement.on_conflict_do_update(index_elements=key or primary_key, set_=changed).returning(type(row), is_new),
        execution_options={"populate_existing": True},
    )
    stored, inserted = result.one()
    return stored, inserted


def containing(text: str | None, *columns: Any) -> ColumnElement[bool]:
    """Whether any of the columns has this text, ignoring case. Without a text all rows do."""
    return or_(*(col(each).icontains(text, autoescape=True) for each in columns)) if text else true()


async def total(session: AsyncSession, query: Select[Any]) -> int:
    """How many rows the query has."""
    counted = select(func.count()).select_from(query.subquery())
    return int((await (await session.connection()).execute(counted)).scalar_one())
