"""Bringing the schema up to date."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

MIGRATIONS = Path(__file__).parent / "alembic"


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
