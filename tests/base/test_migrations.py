"""Migrations produce the schema of app/base/schema, can be reversed, and several processes may start at once."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from alembic import command
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.base import db
from app.base.access.tokens import ensure_source
from app.base.db.partitions import PARTITION_NAME
from app.base.schema import metadata
from app.base.values.facts import Reaction as Fact
from app.base.values.facts import ReactionKind
from app.incidents.grouping.decide import series_of
from app.incidents.history.reactions import record_reactions
from tests.base.test_schema import an_incident


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
    """No column of its tables is removed, and no new one is required: both versions run side by side for a while."""
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
    """By table and name: whether the column may be omitted from an INSERT."""
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


async def test_stored_names_are_renamed_and_restored(engine: AsyncEngine) -> None:
    report = {"id": "1", "service": "checkout", "outcome": "succeeded"}
    at = {"now": datetime(2026, 8, 20, 10, tzinfo=UTC)}
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: command.downgrade(db.alembic_config(sync), "0001"))
        await connection.execute(
            text("INSERT INTO source (name, kind, created_at) VALUES ('gitlab', 'gitlab', :now)"), at
        )
        await connection.execute(_ADD_DEPLOYMENT, at)
        for digest, time in (("a", {"told_at": "2026-08-20T10:00:00+00:00"}), ("b", {})):
            values = at | {"digest": digest, "report": json.dumps(report | time)}
            await connection.execute(_ADD_REPORT, values)
        await connection.execute(text("INSERT INTO tally VALUES ('concluded', 'gitlab', 'missed', 0, 2)"))
        await connection.commit()
        await connection.run_sync(lambda sync: command.upgrade(db.alembic_config(sync), "0002"))
        await connection.commit()
        assert await _stored_names(connection) == ({"reported_at"}, ["inferred"])
        await connection.run_sync(lambda sync: command.downgrade(db.alembic_config(sync), "0001"))
        assert await _stored_names(connection) == ({"told_at"}, ["concluded"])
        renamed = (await connection.execute(text("SELECT report FROM deployment_report ORDER BY digest"))).scalars()
        assert list(renamed) == [report | {"told_at": "2026-08-20T10:00:00+00:00"}, report]


_ADD_DEPLOYMENT = text("""
    INSERT INTO deployment (id, service, environment, production, outcome, finished_at, happened_at, commits, unplanned,
                            needed_intervention, first_seen_at, updated_at)
    VALUES ('1', 'checkout', 'production', true, 'succeeded', :now, :now, '[]', false, false, :now, :now)
""")

_ADD_REPORT = text("""
    INSERT INTO deployment_report (deployment_id, digest, source_id, received_at, report)
    SELECT '1', :digest, id, :now, CAST(:report AS jsonb)
      FROM source
     WHERE name = 'gitlab'
""")


async def _stored_names(connection: AsyncConnection) -> tuple[set[str], list[str]]:
    """The keys of times in reports of deployments, and the names of tallies."""
    keys = (await connection.execute(text("SELECT jsonb_object_keys(report) FROM deployment_report"))).scalars()
    tallies = (await connection.execute(text("SELECT DISTINCT name FROM tally"))).scalars()
    return {key for key in keys if key.endswith("_at")}, list(tallies)


async def test_marks_of_corrected_milestones_become_corrections_and_back(engine: AsyncEngine) -> None:
    """The second incident has a corrected milestone whose correction a split has moved to the first."""
    first, second = an_incident(), an_incident()
    marked: list[bool | None] = [True, True, None, True, None]
    async with db.session(engine) as session:
        session.add_all([first, second])
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: command.downgrade(db.alembic_config(sync), "0010"))
        for place, mark in enumerate(marked):
            values = {"id": (second if place == 3 else first).id, "detail": mark and '{"corrected": true}'}
            await connection.execute(_ADD_MILESTONE, values | {"now": datetime(2026, 8, 20, 10, tzinfo=UTC)})
        await connection.commit()
        await connection.run_sync(lambda sync: command.upgrade(db.alembic_config(sync), "0011"))
        rows = await connection.execute(text("SELECT id, kind, corrects, detail FROM timeline ORDER BY id"))
        assert [tuple(row) for row in rows] == [
            (1, "mitigated", None, None),
            (2, "mitigated", 1, None),
            (3, "mitigated", 1, None),
            (4, "mitigated", None, None),
            (5, "mitigated", None, None),
            (6, "withdrawn", 4, None),
        ]
        await connection.commit()
        await connection.run_sync(lambda sync: command.downgrade(db.alembic_config(sync), "0010"))
        details = (await connection.execute(text("SELECT detail FROM timeline ORDER BY id"))).scalars()
        assert list(details) == [mark and {"corrected": True} for mark in marked]


_ADD_MILESTONE = text("""
    INSERT INTO timeline (incident_id, at, recorded_at, kind, by, detail)
    VALUES (:id, :now, :now, 'mitigated', 'ada', CAST(:detail AS jsonb))
""")


async def test_reported_acknowledgements_become_reactions_that_are_not_stored_again(engine: AsyncEngine) -> None:
    """One is in a timeline and has been corrected, one waits."""
    at = datetime(2026, 8, 20, 10, tzinfo=UTC)
    async with db.session(engine) as session:
        session.add(incident := an_incident())
        incident.acknowledged_at, incident.acknowledged_by = at, "eve"
        source_id = (await ensure_source(session, "pager", "alertmanager", now=at)).id
    known = Fact(ReactionKind.ACKNOWLEDGED, at, "a", by="ada")
    waiting = Fact(ReactionKind.ACKNOWLEDGED, at, "b")
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: command.downgrade(db.alembic_config(sync), "0016"))
        for fingerprint, by, entry in (("a", "ada", 1), ("b", "", None)):
            values = {"series": series_of(source_id, fingerprint), "by": by, "entry": entry, "source": source_id}
            await connection.execute(_ADD_ACKNOWLEDGEMENT, values | {"now": at})
        for by, corrects in (("ada", None), ("eve", 1)):
            values = {"id": incident.id, "by": by, "corrects": corrects, "now": at}
            await connection.execute(_ADD_ENTRY, values)
        await connection.commit()
        await connection.run_sync(lambda sync: command.upgrade(db.alembic_config(sync), "0017"))
        await connection.commit()
        await record_reactions(connection, [known, waiting], source_id=source_id, now=at)
        reactions = await connection.execute(text("SELECT kind, at, by, at_arrival, waits FROM reaction ORDER BY by"))
        assert [tuple(row) for row in reactions] == [
            ("acknowledged", at, "ada", False, False),
            ("acknowledged", at, None, False, True),
        ]
        entries = await connection.execute(text("SELECT by, detail, reaction_id FROM timeline ORDER BY id"))
        of_known = (await connection.execute(text("SELECT id FROM reaction WHERE by = 'ada'"))).scalar_one()
        assert [tuple(row) for row in entries] == [
            ("ada", {"source": "pager"}, of_known),
            ("eve", {"source": "pager"}, None),
        ]
        via = await connection.execute(text("SELECT acknowledged_via FROM incident"))
        assert via.scalars().all() == ["pager"]


_ADD_ACKNOWLEDGEMENT = text("""
    INSERT INTO acknowledgement (series, at, by, source_id, received_at, timeline_id)
    VALUES (:series, :now, :by, :source, :now, :entry)
""")
_ADD_ENTRY = text("""
    INSERT INTO timeline (incident_id, at, recorded_at, kind, by, corrects)
    VALUES (:id, :now, :now, 'acknowledged', :by, :corrects)
""")


async def test_processes_that_start_at_once_migrate_once(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: command.downgrade(db.alembic_config(sync), "base"))
        await connection.commit()
    await asyncio.gather(*(db.migrate(engine) for _ in range(5)))
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM rule"))).scalar_one() == 9


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
