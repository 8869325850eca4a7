"""What people record about incidents and learn from them costs the ingest of alerts nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.base import db
from app.incidents.grouping.decide import apply
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import notes
from app.incidents.history.details import DETAILS
from app.incidents.history.notes import TaskDetails
from app.incidents.history.timeline import Attribution
from app.response.store import response
from app.reviews.store import action_items, findings, reviews
from tests.conftest import OTHER_SERVER
from tests.incidents.grouping.test_store import Reported, at, firing, resolved
from tests.incidents.test_actions import NOW
from tests.statements import counted

SPAN = timedelta(days=1)
KEYS = 16


class Cost(NamedTuple):
    """Of a delivery. `rows`: how many were inserted, updated and deleted, by table and by that."""

    statements: Sequence[str]
    rows: Mapping[tuple[str, str], int]
    wal_bytes: int


async def test_an_alert_costs_no_statement_and_no_row_more_when_people_have_recorded_much(engine: AsyncEngine) -> None:
    """The same deliveries to an empty service, and to one in which people have recorded something of every kind, also
    about the incidents that these deliveries continue.
    """
    await deliveries(engine, hour=0)  # pages are allocated
    without = await deliveries(engine, hour=1)
    await record_much(engine)
    with_ = await deliveries(engine, hour=2, between=record_much)
    assert [(one.statements, one.rows) for one in with_] == [(one.statements, one.rows) for one in without]
    assert {table for one in with_ for table, _ in one.rows} == {"alert", "incident", "timeline"}
    if not OTHER_SERVER:  # there, other tests write at the same time
        # Splits of pages make a few percent of difference.
        assert sum(one.wal_bytes for one in with_) < 1.1 * sum(one.wal_bytes for one in without)


async def deliveries(engine: AsyncEngine, *, hour: int, between: Any = None) -> list[Cost]:
    """Of several incidents: each opens, is reported again, gets a second alert, and resolves."""
    start = 60 * hour
    opened = await cost_of(engine, [firing(2 * key, start) for key in range(KEYS)])
    if between is not None:
        await between(engine)
    later = (
        [firing(2 * key, start, start + 2) for key in range(KEYS)],
        [firing(2 * key + 1, start + 3) for key in range(KEYS)],
        [resolved(series, start + 3 * (series % 2), start + 10) for series in range(2 * KEYS)],
    )
    return [opened, *[await cost_of(engine, batch) for batch in later]]


async def cost_of(engine: AsyncEngine, batch: Sequence[Reported]) -> Cost:
    incoming = [one.incoming(max_span=SPAN) for one in batch]
    before = await logged(engine)
    async with db.transaction(engine) as tx:
        written = await rows(tx)
        with counted(engine) as statements:
            await apply(tx, incoming, now=at(2000))
        changed = await rows(tx) - written
    return Cost(statements, changed, await logged(engine) - before)


async def rows(tx: AsyncConnection) -> Counter[tuple[str, str]]:
    """Written by this connection, which has not reported all of them to the statistics yet."""
    found = Counter[tuple[str, str]]()
    for name, *numbers in await tx.execute(_ROWS):
        table = "alert" if name.startswith("alert_") else name  # its partitions
        found.update(
            {(table, what): number for what, number in zip(("insert", "update", "delete"), numbers, strict=True)}
        )
    return found


async def logged(engine: AsyncEngine) -> int:
    """Bytes of write-ahead log since the server was created. On a server of our own, nothing else writes meanwhile."""
    async with engine.connect() as tx:
        return int((await tx.execute(text("SELECT pg_current_wal_insert_lsn() - '0/0'"))).scalar_one())


_WRITES = ("insert", "update", "delete")
_ROWS = text("SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables")


async def record_much(engine: AsyncEngine) -> None:
    """Something of every kind about each incident, and a review of it with a finding and an action item."""
    async with db.session(engine) as session:
        rows = (await (await session.connection()).execute(text("SELECT id FROM incident"))).scalars().all()
    async with db.session(engine) as session:
        for id_ in rows:
            await _record(session, id_)


async def _record(session: Any, incident: UUID) -> None:
    who = Attribution(at(1), "ada", "n")
    facts: dict[TimelineKind, dict[str, Any]] = {
        TimelineKind.JOINED: {"person": "ada", "how": "asked"},
        TimelineKind.UPDATE: {"status": "investigating"},
        TimelineKind.CRITERION: {"criterion": "Users can pay"},
        TimelineKind.ROOM: {"channel": "chat"},
        TimelineKind.IMPACT: {"customers": 9},
        TimelineKind.EVIDENCE: {"link": "https://example.org/d"},
    }
    for kind, values in facts.items():
        detail = DETAILS[kind].model_validate(values).model_dump(mode="json")
        await notes.add_fact(session, incident, kind, who, detail, now=NOW)
    await notes.add_task(session, incident, who, TaskDetails(command="top"), now=NOW)
    await response.assign(session, incident, "scribe", "ada", who, holds=True, instead_of=None, at_stated=True, now=NOW)
    review = await reviews.create(session, {"title": "t"}, [incident], now=NOW)
    finding = await findings.add(session, review, {"kind": "learning", "text": "t", "by": "ada"}, now=NOW)
    values = {"title": "t", "phase": "response", "term": "short", "finding_id": finding.id}
    await action_items.create(session, values, review=review.id, incident=None, now=NOW)
