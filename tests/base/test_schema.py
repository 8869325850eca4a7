"""Rows as objects, written and read by a session."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select

from app.base import db
from app.base.schema import Incident, Row, Service, TimelineEntry, metadata

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)


async def test_a_session_commits_when_its_block_ends_well(engine: AsyncEngine) -> None:
    async with db.session(engine) as session:
        session.add(Service(name="shop", first_seen_at=NOON, updated_at=NOON))
    async with db.session(engine) as session:
        service = (await session.exec(select(Service))).one()
    assert (service.name, service.owner, service.links, service.first_seen_at) == ("shop", None, [], NOON)


async def test_a_session_rolls_back_when_its_block_fails(engine: AsyncEngine) -> None:
    async def add_and_fail() -> None:
        async with db.session(engine) as session:
            session.add(Service(name="shop", first_seen_at=NOON, updated_at=NOON))
            await session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await add_and_fail()
    async with db.session(engine) as session:
        assert (await session.exec(select(Service))).all() == []


async def test_columns_that_the_database_fills_in_can_be_omitted(engine: AsyncEngine) -> None:
    async with db.session(engine) as session:
        session.add(incident := an_incident())
        await session.flush()
        await session.refresh(incident)
        assert (incident.number, incident.impact_started_at) == (1, NOON)


async def test_an_absent_document_is_null(engine: AsyncEngine) -> None:
    """Not JSON's `null`, which `IS NULL` does not find."""
    async with db.session(engine) as session:
        session.add(incident := an_incident())
        session.add(TimelineEntry(incident_id=incident.id, at=NOON, recorded_at=NOON, kind="note"))
        await session.flush()
        found = await (await session.connection()).execute(text("SELECT detail IS NULL FROM timeline"))
        assert found.scalar_one()


async def test_every_table_can_be_read_as_rows(engine: AsyncEngine) -> None:
    models = Row.__subclasses__()
    assert {model.__table__ for model in models} == set(metadata.tables.values())
    async with db.session(engine) as session:
        for model in models:
            await session.exec(select(model))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE rule SET position = 1 WHERE name = 'watchdog'",
        "DELETE FROM rule WHERE name = 'watchdog'",
        'INSERT INTO rule SELECT (jsonb_populate_record(rule, \'{"name": "copy"}\')).* FROM rule LIMIT 1',
        "TRUNCATE rule",
    ],
)
async def test_every_change_of_the_rules_is_a_new_version(engine: AsyncEngine, change: str) -> None:
    async with db.transaction(engine) as tx:
        before = (await tx.execute(text("SELECT version FROM rule_version"))).scalar_one()
        await tx.execute(text(change))
        assert (await tx.execute(text("SELECT version FROM rule_version"))).scalar_one() > before


async def test_changes_of_several_rules_never_deadlock(engine: AsyncEngine) -> None:
    """In any order: the first locks the version, and the second waits before it locks a rule."""
    change = text("UPDATE rule SET position = position + 1 WHERE name = :name")

    async def change_both(first: str, second: str, *, pause: float) -> None:
        async with db.transaction(engine) as tx:
            await tx.execute(change, {"name": first})
            await asyncio.sleep(pause)
            await tx.execute(change, {"name": second})

    await asyncio.gather(
        change_both("watchdog", "aftermath-heartbeat", pause=0.3),
        change_both("aftermath-heartbeat", "watchdog", pause=0.3),
    )


def an_incident() -> Incident:
    return Incident(
        id=uuid4(),
        key_id=uuid4(),
        key="shop",
        rule="default",
        title="down",
        service="shop",
        severity=1,
        alert_class="service",
        labels={},
        source_ids=[],
        began_at=NOON,
        last_start_at=NOON,
        stretch_began_at=NOON,
        reopened=0,
        alerts=1,
        open_alerts=1,
        declared=False,
        impact_started_at_reported=NOON,
        version=1,
        created_at=NOON,
        updated_at=NOON,
    )
