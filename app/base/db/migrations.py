"""Bringing the schema up to date."""

import asyncio
import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger("aftermath.db")

MIGRATIONS = Path(__file__).parent / "alembic"


async def migrate(engine: AsyncEngine, revision: str = "head") -> None:
    """Bring the schema to `revision`; safe when several processes start at once. A newer schema is left as it is."""
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
    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if newer := set(MigrationContext.configure(connection).get_current_heads()) - known:
        # After a return to the previous version, which works beside the schema of the next.
        log.warning("the schema is that of a newer version (%s); it stays as it is", ", ".join(sorted(newer)))
        return
    command.upgrade(config, revision)


def alembic_config(connection: Connection) -> Config:
    """For `alembic.command` functions, which then run on `connection`."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config
