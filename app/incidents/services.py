"""Adding services: the first mention of a name, by an alert or a person, adds the service."""

from datetime import datetime

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession


async def add_service(session: AsyncSession, name: str, *, now: datetime) -> None:
    """Adds the service if it is not known."""
    await (await session.connection()).execute(_ADD, {"name": name, "now": now})


_ADD = text("""
    INSERT INTO service (name, first_seen_at, updated_at)
    VALUES (:name, :now, :now)
        ON CONFLICT DO NOTHING
""")
