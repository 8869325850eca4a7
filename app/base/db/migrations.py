"""Migrates the schema; other processes wait until it is done."""

import asyncio
import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.db.public_role import prepare_public_role

log = logging.getLogger("aftermath.db")

MIGRATIONS = Path(__file__).parent / "alembic"


async def migrate(engine: AsyncEngine, revision: str = "head") -> None:
    """Migrates the schema to `revision`. Safe if several processes start at once. A newer schema is not changed."""
    async with engine.connect() as connection:
        # One migrator at a time; the others then find nothing to do. They poll instead of blocking in a statement,
        # because CREATE INDEX CONCURRENTLY waits for all running statements.
        while not (
            await connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _MIGRATING})
        ).scalar_one():
            await connection.rollback()
            await asyncio.sleep(0.1)
        try:
            await connection.commit()
            await connection.run_sync(_upgrade, revision)
            await connection.commit()
            await prepare_public_role(connection)
            await connection.commit()
        finally:
            await connection.rollback()
            await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATING})
            await connection.commit()


_MIGRATING = 0x61667465726D6174  # "aftermat", to avoid accidental collisions


def _upgrade(connection: Connection, revision: str) -> None:
    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if newer := set(MigrationContext.configure(connection).get_current_heads()) - known:
        # Happens after a rollback to the previous version, which works with the schema of the next one.
        log.warning("the schema belongs to a newer version (%s) and is not changed", ", ".join(sorted(newer)))
        return
    command.upgrade(config, revision)


def alembic_config(connection: Connection) -> Config:
    """Configuration for `alembic.command` functions, to run them on `connection`."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config
