"""What the stores of CRUD slices share."""

from collections.abc import Collection
from typing import TypeVar

from sqlalchemy import Boolean, literal_column
from sqlalchemy.dialects.postgresql import insert
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Row

RowT = TypeVar("RowT", bound=Row)


async def upsert(session: AsyncSession, row: RowT, *, keep: Collection[str] = ("created_at",)) -> tuple[RowT, bool]:
    """Inserts the row, or updates the one with its primary key; returns the stored row, and whether it is new.

    An update sets every column to the value in `row`, null included, except those in `keep`. It locks the stored row,
    so concurrent changes to what belongs to it are made one after the other.
    """
    model = type(row)
    key = model.__table__.primary_key
    values = dict(row)
    statement = insert(model).values(values)
    changed = {name: statement.excluded[name] for name in values if name not in key.columns and name not in keep}
    # PostgreSQL sets `xmax` when it locks or updates a row: it is 0 only in one that has just been inserted.
    is_new = literal_column("xmax = 0", Boolean)
    result = await session.exec(
        statement.on_conflict_do_update(index_elements=key, set_=changed).returning(model, is_new),
        execution_options={"populate_existing": True},
    )
    stored, inserted = result.one()
    return stored, inserted
