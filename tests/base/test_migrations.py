"""Migrations produce the schema of app/base/schema, can be reversed, and several processes may start at once."""

import asyncio

import pytest
from alembic import command
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.db.partitions import PARTITION_NAME
from app.base.schema import metadata


async def test_the_migrated_schema_is_that_of_the_tables(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: command.check(db.alembic_config(sync)))


async def test_every_constraint_is_in_the_database(engine: AsyncEngine) -> None:
    """`alembic check` does not compare CHECK and EXCLUDE constraints, with which the database defends itself."""
    declared = {str(one.name) for table in metadata.tables.values() for one in table.constraints if one.name}
    async with engine.connect() as connection:
        known = {row.conname for row in await connection.execute(text("SELECT conname FROM pg_constraint"))}
    assert len(declared) > 20
    assert declared - known == set()


async def test_every_index_is_valid_in_all_partitions(engine: AsyncEngine) -> None:
    """One that was built CONCURRENTLY and interrupted, or lacks a partition, exists but is not used."""
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"))
        assert list(found.scalars()) == []


async def test_migrations_can_be_reversed_and_repeated(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: command.downgrade(db.alembic_config(sync), "base"))
        await connection.commit()
        assert await connection.run_sync(_tables) == ["alembic_version"]
    await db.migrate(engine)
    async with engine.connect() as connection:
        assert set(metadata.tables) <= set(await connection.run_sync(_tables))


async def test_the_first_released_version_can_go_on_writing(engine: AsyncEngine) -> None:
    """No column of its tables is gone, and no new one must be filled in: it serves beside the new version for a while.

    While the baseline is the only migration, this compares the baseline with itself.
    """
    async with engine.connect() as connection:
        new = await connection.run_sync(_columns)
        await connection.run_sync(lambda sync: command.downgrade(db.alembic_config(sync), "0001"))
        await connection.commit()
        old = await connection.run_sync(_columns)
    assert old.keys() <= new.keys()
    for table, columns in old.items():
        assert columns.keys() <= new[table].keys(), table
        must_fill_in = {name for name, optional in new[table].items() if not optional}
        assert must_fill_in <= columns.keys(), table


def _columns(connection: Connection) -> dict[str, dict[str, bool]]:
    """By table and name: whether it may be left out of an INSERT."""
    found = inspect(connection)
    return {
        table: {
            one["name"]: one["nullable"] or one["default"] is not None or "identity" in one or "computed" in one
            for one in found.get_columns(table)
        }
        for table in found.get_table_names()
        if not PARTITION_NAME.fullmatch(table)
    }


def _tables(connection: Connection) -> list[str]:
    return inspect(connection).get_table_names()


async def test_processes_that_start_at_once_migrate_once(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: command.downgrade(db.alembic_config(sync), "base"))
        await connection.commit()
    await asyncio.gather(*(db.migrate(engine) for _ in range(5)))
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM rule"))).scalar_one() == 3


async def test_the_schema_of_a_newer_version_stays_as_it_is(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await db.migrate(engine)
    assert "the schema belongs to a newer version (9999)" in caplog.text
    async with engine.connect() as connection:
        versions = await connection.execute(text("SELECT version_num FROM alembic_version"))
        assert versions.scalars().all() == ["9999"]
