"""SQL for planned maintenance."""

from collections.abc import Sequence

from sqlalchemy import any_, literal
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.base import db, schema
from app.base.errors import NotFound


class MaintenanceNotFound(NotFound):
    title = "Maintenance not found"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no maintenance {name!r}; GET /api/v1/maintenance lists all maintenance")


async def list_maintenance(
    session: AsyncSession, containing: str | None = None, *, after: str, limit: int
) -> Sequence[schema.Maintenance]:
    """Maintenance with names greater than `after` that contain the text, sorted by name."""
    name = col(schema.Maintenance.name)
    query = _matching(containing).where(name > after).order_by(name).limit(limit)
    return (await session.exec(query)).all()


async def count_maintenance(session: AsyncSession, containing: str | None = None) -> int:
    return await db.total(session, _matching(containing))


def _matching(containing: str | None) -> SelectOfScalar[schema.Maintenance]:
    return select(schema.Maintenance).where(db.containing(containing, schema.Maintenance.name))


async def maintenance_of(session: AsyncSession, service: str, *, limit: int) -> Sequence[schema.Maintenance]:
    """Maintenance planned for this service or for all services, most recently changed first."""
    row = schema.Maintenance
    covers = (col(row.services) == []) | (literal(service) == any_(col(row.services)))
    return (await session.exec(select(row).where(covers).order_by(col(row.updated_at).desc()).limit(limit))).all()


async def find_maintenance(session: AsyncSession, name: str) -> schema.Maintenance:
    """Raises MaintenanceNotFound."""
    found = await session.get(schema.Maintenance, name)
    if found is None:
        raise MaintenanceNotFound(name)
    return found


async def put_maintenance(session: AsyncSession, maintenance: schema.Maintenance) -> tuple[schema.Maintenance, bool]:
    """The stored maintenance, and whether it is new."""
    return await db.upsert(session, maintenance)


async def delete_maintenance(session: AsyncSession, name: str) -> None:
    """Raises MaintenanceNotFound."""
    deleted = await session.exec(delete(schema.Maintenance).where(col(schema.Maintenance.name) == name))
    if deleted.rowcount == 0:
        raise MaintenanceNotFound(name)
