"""Actions of people and signals in any order: the rows equal the law, and no fact is lost."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid5

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.errors import Problem
from app.base.schema import Incident
from app.incidents import actions
from app.incidents.grouping.batch import Incoming
from app.incidents.grouping.decide import apply, keys_of, lock_keys
from app.incidents.grouping.law import lifecycle
from app.incidents.grouping.law.episode import REFIRE, End, Ending, Episode, ReportedEnd, endings_of, fired_after_end
from app.incidents.grouping.signal import EndReason
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.grouping.write import BatchConflict
from app.incidents.history.timeline import Attribution
from tests.incidents.grouping.test_store import KEYS, Reported, apply_batch, at, firing, forget, resolved, signals
from tests.oracle import assert_consistent, states_in

NOW = at(500)


@dataclass(frozen=True, slots=True)
class Action:
    """An action of a person at this minute on the incident at this index."""

    verb: str
    place: int
    minute: int


@dataclass(frozen=True, slots=True)
class Settle:
    """All ended incidents are counted in the histograms."""


Step = tuple[Reported, ...] | Action | Settle
people = st.builds(
    Action,
    st.sampled_from(["acknowledge", "identified", "note", "resolve", "resolve", "reopen", "title", "declare"]),
    st.integers(0, 5),
    st.integers(0, 80),
)
steps = st.lists(
    st.one_of(st.lists(signals, min_size=1, max_size=3).map(tuple), people, st.just(Settle())), min_size=2, max_size=12
)
SPAN = timedelta(minutes=40)
# The older of two incidents starts later; the newer one, held open by a person, is merged into it.
REOPENED_INTO_ANOTHER: list[Step] = [
    (resolved(1, 50, 55),),
    (resolved(0, 0, 10),),
    Action("reopen", 1, 20),
]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=steps)
@example(script=REOPENED_INTO_ANOTHER)
async def test_rows_equal_the_law_and_no_fact_is_lost(engine: AsyncEngine, script: list[Step]) -> None:
    await forget(engine)
    expected: Counter[str] = Counter()
    before: dict[UUID, Any] = {}
    for step in script:
        if isinstance(step, Action):
            await _act(engine, step, list(before.values()), expected)
        elif isinstance(step, Settle):
            await _run(engine, "UPDATE incident SET settled_at = now() WHERE ended_at IS NOT NULL")
        else:
            await apply_batch(engine, [one.incoming(max_span=SPAN) for one in step])
            states = await states_in(engine)
            await apply_batch(engine, [one.incoming(max_span=SPAN) for one in step])
            assert await states_in(engine) == states, "redelivery changes nothing"
        before = await _assert_lawful(engine, before, expected)


async def _act(
    engine: AsyncEngine, action: Action, known: Sequence[Any], expected: Counter[str], *, seen: bool = True
) -> None:
    """`seen`: no other action runs at the same time, so that the effect can be checked."""
    now, when = NOW, Attribution(at(action.minute), "ada")
    act: Callable[[AsyncSession], Awaitable[Incident]]
    if action.verb == "declare" or not known:
        what, service = TimelineKind.DECLARED, "key-0"
        act = lambda session: actions.declare(  # noqa: E731
            session, title="t", service=service, severity=2, impact_started_at=None, attribution=when, now=now
        )
    else:
        ref = known[action.place % len(known)].id
        title = {"title": f"t{action.minute}"}
        identified = TimelineKind.IDENTIFIED
        what, act = {
            "acknowledge": (
                TimelineKind.ACKNOWLEDGED,
                lambda session: actions.acknowledge(session, ref, when, at_stated=True, now=now),
            ),
            "identified": (identified, lambda session: actions.milestone(session, ref, identified, when, now=now)),
            "note": (TimelineKind.NOTE, lambda session: actions.record(session, ref, TimelineKind.NOTE, when, now=now)),
            "resolve": (
                TimelineKind.RESOLVED,
                lambda session: actions.resolve(session, ref, when, at_stated=True, now=now),
            ),
            "reopen": (TimelineKind.REOPENED, lambda session: actions.reopen(session, ref, when, now=now)),
            "title": (
                TimelineKind.CHANGED,
                lambda session: actions.amend(session, ref, title, by="ada", if_match=None, now=now),
            ),
        }[action.verb]
    recorded = text("SELECT count(*) FROM timeline WHERE by = 'ada' AND kind = :kind")
    try:
        async with db.session(engine) as session:
            tx = await session.connection()
            count = (await tx.execute(recorded, {"kind": what})).scalar_one()
            row = await act(session)
            expected[what] += (await tx.execute(recorded, {"kind": what})).scalar_one() - count
    except Problem as problem:
        assert problem.status in {409, 422}, problem  # noqa: PT017
        return
    if not seen:
        return
    async with db.session(engine) as session:
        assert row == await actions.find(session, row.id), "an action returns the row as it is stored"
        if row.merged_into is not None:
            row = await actions.find(session, row.merged_into)
        assert (row.ended_at is None) if what == "reopened" else True
        assert (row.ended_at is not None) if what == "resolved" else True
        assert (row.title_stated == f"t{action.minute}") if what == "changed" else True
        if what == "acknowledged":
            assert row.acknowledged_at is not None
            assert row.acknowledged_at <= when.at


async def _assert_lawful(
    engine: AsyncEngine, before: dict[UUID, Any], expected: Counter[str] | None
) -> dict[UUID, Any]:
    async with engine.connect() as connection:
        alerts = (await connection.execute(text("SELECT * FROM alert ORDER BY series, started_at"))).all()
        unmatched = (await connection.execute(text("SELECT * FROM unmatched_resolve"))).all()
        rows = {row.id: row for row in await connection.execute(text("SELECT * FROM incident ORDER BY number"))}
        entries = (await connection.execute(text("SELECT * FROM timeline WHERE by = 'ada' ORDER BY id"))).all()
    _assert_series(alerts, unmatched)
    by_key: dict[UUID, list[lifecycle.Alert]] = defaultdict(list)
    for row in alerts:
        by_key[row.key_id].append(_as_law(row))
    lawful = {key: list(map(lifecycle.incident_state, lifecycle.incidents_of(found))) for key, found in by_key.items()}
    assert await states_in(engine) == lawful
    await assert_consistent(engine)

    living = {id_: row for id_, row in rows.items() if row.merged_into is None}
    for id_, row in before.items():
        assert rows[id_].number == row.number
        assert rows[id_].settled_at is not None or row.settled_at is None
        if id_ in living and row.title_stated is not None:
            assert rows[id_].title_stated is not None
    assert expected is None or Counter(entry.kind for entry in entries) == expected, "no fact is lost or duplicated"
    assert {entry.incident_id for entry in entries} <= living.keys(), "no fact stays with a merged incident"
    for id_, row in living.items():
        acknowledged = [entry.at for entry in entries if entry.incident_id == id_ and entry.kind == "acknowledged"]
        assert row.acknowledged_at == min(acknowledged, default=None)
    return rows


def _as_law(row: Any) -> lifecycle.Alert:
    end = End(row.ended_at, EndReason(row.end_reason)) if row.ended_at else None
    window, span = timedelta(seconds=row.window_seconds), timedelta(seconds=row.max_span_seconds)
    by_people = row.source_id == 0
    fired_after = fired_after_end(row.fired_at, row.end_reported_at)
    impact = row.impact_started_at_reported
    return lifecycle.Alert(row.series, row.started_at, end, window, span, row.severity, by_people, impact, fired_after)


def _assert_series(alerts: Sequence[Any], unmatched: Sequence[Any]) -> None:
    by_series: dict[UUID, list[Any]] = defaultdict(list)
    for row in alerts:
        by_series[row.series].append(row)
    for series, rows in by_series.items():
        episodes = [
            Episode(
                row.started_at,
                row.fired_at,
                _reported(row.real_end_at, row.real_end_reason, row.real_end_reported_at),
                _reported(row.guessed_end_at, row.guessed_end_reason, row.guessed_end_reported_at),
                End(row.inferred_end_at, EndReason(row.inferred_end_reason)) if row.inferred_end_at else None,
                row.manual_end_at,
                row.listed_since,
            )
            for row in rows
        ]
        unnamed = [
            _reported(one.ended_at, one.end_reason, one.reported_at) for one in unmatched if one.series == series
        ]
        expected = endings_of(episodes, [end for end in unnamed if end], refire=REFIRE)
        stored = [Ending(_as_law(row).end, row.end_reported_at, row.sender_ended, row.covered) for row in rows]
        assert stored == expected


def _reported(at: datetime | None, reason: str, reported_at: datetime) -> ReportedEnd | None:
    return None if at is None else ReportedEnd(at, EndReason(reason), reported_at)


async def test_a_part_split_off_a_merged_incident_keeps_its_facts(engine: AsyncEngine) -> None:
    expected: Counter[str] = Counter()
    await apply_batch(engine, [resolved(1, 0, 5).incoming(max_span=SPAN)])
    await apply_batch(engine, [firing(0, 20).incoming(max_span=SPAN), resolved(1, 60, 70).incoming(max_span=SPAN)])
    known = await _assert_lawful(engine, {}, expected)
    await _act(engine, Action("acknowledge", 1, 61), list(known.values()), expected)
    # An earlier start of the series that is still open: it reaches back to the older incident and ends before the rest.
    await apply_batch(engine, [resolved(0, 8, 30).incoming(max_span=SPAN)])
    rows = (await _assert_lawful(engine, known, expected)).values()
    assert [(row.began_at, row.acknowledged_at) for row in rows if row.merged_into is None] == [
        (at(0), None),
        (at(60), at(61)),
    ]


async def test_people_and_senders_at_once_leave_lawful_rows(engine: AsyncEngine, database_url: str) -> None:
    """Two processes; a rule changes in between, so that the same series gets another key."""
    await forget(engine)
    engines = [engine, db.connect(database_url, pool_size=10)]
    expected: Counter[str] = Counter()
    random = Random(2)
    await apply_batch(engine, [firing(series, 0).incoming(max_span=SPAN) for series in range(4)])

    has_changed = False

    async def change_rules() -> None:
        nonlocal has_changed
        await asyncio.sleep(0.3)
        async with db.transaction(engine) as tx:
            await tx.execute(text("UPDATE rule SET updated_at = now()"))
            has_changed = True

    async def send(number: int, batch: Sequence[Incoming]) -> None:
        """Decides again if the rules have changed before the batch had its locks, as `Flusher` does."""
        also_lock: frozenset[UUID] = frozenset()
        while True:
            decided_by_new = has_changed
            decided = [_of_new_rule(one) for one in batch] if decided_by_new else batch
            try:
                async with db.transaction(engines[number % 2]) as tx:
                    await lock_keys(tx, keys_of(decided) | also_lock)
                    if decided_by_new == has_changed:
                        await apply(tx, decided, now=NOW, also_lock=also_lock)
                        return
            except BatchConflict as conflict:
                also_lock |= conflict.keys

    async def sender(number: int) -> None:
        for step in range(15):
            reported = [
                resolved(series, start, start + random.randrange(9)) if random.random() < 0.5 else firing(series, start)
                for series, start in ((random.randrange(4), random.randrange(0, 70, 10)) for _ in range(3))
            ]
            await send(number, [one.incoming(max_span=SPAN, seen=step) for one in reported])

    async def person(number: int) -> None:
        for _ in range(10):
            async with engines[number % 2].connect() as connection:
                known = (await connection.execute(text("SELECT id FROM incident ORDER BY number"))).all()
            what = random.choice(["acknowledge", "note", "resolve", "reopen", "title", "identified"])
            await _act(
                engines[number % 2],
                Action(what, random.randrange(6), random.randrange(80)),
                known,
                expected,
                seen=False,
            )

    await asyncio.gather(change_rules(), *map(sender, range(4)), *map(person, range(4)))
    await engines[1].dispose()
    await _assert_lawful(engine, {}, None)


def _of_new_rule(one: Incoming) -> Incoming:
    key = f"new {one.decision.key}"
    return replace(one, decision=replace(one.decision, rule="new", key=key, key_id=uuid5(KEYS, key)))


async def test_a_repeat_under_a_new_rule_does_not_undo_a_resolve_at_the_same_time(engine: AsyncEngine) -> None:
    reported = firing(0, 0).incoming(max_span=SPAN)
    await apply_batch(engine, [reported])
    async with db.session(engine) as session:
        await actions.resolve(session, 1, Attribution(at(30), "ada"), at_stated=True, now=NOW)
        repeat = asyncio.create_task(apply_batch(engine, [_of_new_rule(reported)]))
        await asyncio.sleep(0.2)
    await repeat
    await _assert_lawful(engine, {}, Counter(resolved=1))


async def test_a_change_of_rules_waits_for_running_batches_and_the_next_batch_for_the_change(
    engine: AsyncEngine,
) -> None:
    order: list[str] = []

    async def change_rules() -> None:
        async with db.transaction(engine) as tx:
            await tx.execute(text("UPDATE rule SET updated_at = now()"))
            order.append("changed")
            await asyncio.sleep(0.2)

    async def next_batch() -> None:
        await asyncio.sleep(0.1)
        await apply_batch(engine, [firing(1, 0).incoming(max_span=SPAN)])
        order.append("next batch")

    async with db.transaction(engine) as tx:
        await apply(tx, [firing(0, 0).incoming(max_span=SPAN)], now=NOW)
        waiting = [asyncio.create_task(change_rules()), asyncio.create_task(next_batch())]
        await asyncio.sleep(0.3)
        order.append("first batch")
    await asyncio.gather(*waiting)
    assert order == ["first batch", "changed", "next batch"]


async def _run(engine: AsyncEngine, statement: str) -> None:
    async with db.transaction(engine) as tx:
        await tx.execute(text(statement))
