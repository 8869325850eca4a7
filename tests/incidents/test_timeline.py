"""The event log: every entry is read exactly once, whatever order transactions commit in, also after a restore."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col, select

from app import cli
from app.base import db
from app.base.schema import TimelineEntry
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import timeline
from app.incidents.history.timeline import Attribution, UnknownEntry
from app.settings import Settings
from tests.base.test_schema import an_incident

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)


@pytest.fixture
async def incident_id(engine: AsyncEngine) -> UUID:
    incident = an_incident()
    async with db.session(engine) as session:
        session.add(incident)
    return incident.id


async def append(engine: AsyncEngine, incident_id: UUID, *notes: str) -> None:
    for note in notes:
        async with db.session(engine) as session:
            await timeline.append(session, incident_id, TimelineKind.NOTE, Attribution(NOON, note=note), now=NOON)


async def insert(tx: AsyncConnection, incident_id: UUID, note: str) -> None:
    """As the ingest path does: a raw statement that does not name the transaction."""
    statement = "INSERT INTO timeline (incident_id, at, recorded_at, kind, note) VALUES (:id, :at, :at, 'note', :note)"
    await tx.execute(text(statement), {"id": incident_id, "at": NOON, "note": note})


async def read(engine: AsyncEngine, after: int | None, *, at_least: int = 0, limit: int = 100) -> list[TimelineEntry]:
    """All entries; waits for `at_least`, because any open transaction of the cluster delays the reader."""
    found: list[TimelineEntry] = []
    async with asyncio.timeout(60):
        while True:
            async with db.session(engine) as session:
                page = await timeline.read_after(session, after, limit=limit)
            found += page
            if page:
                after = page[-1].id
            elif len(found) >= at_least:
                return found
            else:
                await asyncio.sleep(0.05)


def notes(entries: Sequence[TimelineEntry]) -> list[str | None]:
    return [entry.note for entry in entries]


async def test_an_entry_committed_out_of_order_is_not_lost(engine: AsyncEngine, incident_id: UUID) -> None:
    async def by_id(after: int) -> Sequence[TimelineEntry]:
        async with db.session(engine) as session:
            query = select(TimelineEntry).where(col(TimelineEntry.id) > after).order_by(col(TimelineEntry.id))
            return (await session.exec(query)).all()

    async with db.transaction(engine) as slow:
        await insert(slow, incident_id, "first")
        await append(engine, incident_id, "second")
        naive = await by_id(0)
        assert notes(naive) == ["second"]
        assert await read(engine, None) == []
    assert notes(await by_id(naive[-1].id)) == [], "a cursor by id alone has lost the first entry"
    assert notes(await read(engine, None, at_least=2)) == ["first", "second"]


WRITERS = 3
steps = st.lists(
    st.tuples(
        st.sampled_from(["append", "commit", "append", "read", "commit", "roll back"]), st.integers(0, WRITERS - 1)
    ),
    min_size=10,
    max_size=40,
)


@examples(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, limit=st.integers(1, 4))
async def test_every_entry_is_read_exactly_once(
    engine: AsyncEngine, incident_id: UUID, steps: list[tuple[str, int]], limit: int
) -> None:
    async with db.transaction(engine) as tx:
        await tx.execute(text("DELETE FROM timeline"))
    committed: list[str] = []
    found: list[TimelineEntry] = []

    async def read_on(*, at_least: int = 0) -> None:
        after = found[-1].id if found else None
        found.extend(await read(engine, after, at_least=at_least - len(found), limit=limit))

    async with AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(engine.connect()) for _ in range(WRITERS)]
        waiting: list[list[str]] = [[] for _ in range(WRITERS)]
        for number, (step, writer) in enumerate(steps):
            match step:
                case "append":
                    await insert(writers[writer], incident_id, f"{number}")
                    waiting[writer].append(f"{number}")
                case "commit":
                    await writers[writer].commit()
                    committed += waiting[writer]
                    waiting[writer] = []
                case "roll back":
                    await writers[writer].rollback()
                    waiting[writer] = []
                case _:
                    await read_on()
    await read_on(at_least=len(committed))
    assert sorted(map(str, notes(found))) == sorted(committed)


async def test_after_a_restore_nothing_is_repeated_or_withheld(engine: AsyncEngine, incident_id: UUID) -> None:
    await append(engine, incident_id, "read", "read too", "not yet read")
    [_, last, _] = await read(engine, None, at_least=3)
    # The contents of a dump from a cluster with many more transactions.
    async with db.transaction(engine) as tx:
        await tx.execute(text("UPDATE timeline SET transaction_id = transaction_id + 1000000000"))
    await append(engine, incident_id, "new")
    assert notes(await read(engine, None, at_least=1)) == ["new"], "without renumbering, earlier entries cannot be read"
    async with db.transaction(engine) as tx:
        await tx.execute(text("DELETE FROM timeline WHERE note = 'new'"))

    async def renumber() -> int:
        async with db.transaction(engine) as tx:
            return await timeline.renumber_after_restore(tx)

    at_once = await asyncio.gather(*(renumber() for _ in range(3)))
    assert sorted(at_once) == [0, 0, 3]
    await append(engine, incident_id, "new")
    assert notes(await read(engine, last.id, at_least=2)) == ["not yet read", "new"]
    assert notes(await read(engine, None, at_least=4)) == ["read", "read too", "not yet read", "new"]
    assert await renumber() == 0


async def test_a_timeline_of_this_cluster_is_left_alone(engine: AsyncEngine, incident_id: UUID) -> None:
    async with db.transaction(engine) as tx:
        assert await timeline.renumber_after_restore(tx) == 0
    await append(engine, incident_id, "one")
    async with db.transaction(engine) as running:
        await insert(running, incident_id, "two")
        async with db.transaction(engine) as tx:
            assert await timeline.renumber_after_restore(tx) == 0


async def test_a_cursor_that_names_no_entry_is_an_error(engine: AsyncEngine, incident_id: UUID) -> None:
    await append(engine, incident_id, "one")
    async with db.session(engine) as session:
        with pytest.raises(UnknownEntry):
            await timeline.read_after(session, 99, limit=10)


async def test_the_service_renumbers_a_restored_timeline_before_it_serves(
    engine: AsyncEngine, incident_id: UUID, database_url: str, settings: Settings
) -> None:
    await append(engine, incident_id, "one")
    async with db.transaction(engine) as tx:
        await tx.execute(text("UPDATE timeline SET transaction_id = transaction_id + 1000000000"))
    await cli._prepare(settings, database_url)
    assert notes(await read(engine, None, at_least=1)) == ["one"]
