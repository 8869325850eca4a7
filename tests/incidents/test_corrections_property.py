"""Any order of merges, splits, corrections and withdrawals gives the same facts: those that the alerts and the current
facts alone imply.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.schema import Incident
from app.incidents import actions, refusals
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import corrections, notes
from app.incidents.history.notes import TaskDetails
from app.incidents.history.path import path_of
from app.incidents.history.timeline import Attribution
from app.incidents.measures.measures import Facts
from tests.incidents.grouping.test_store import Reported, apply_batch, at, firing, forget, resolved
from tests.incidents.test_actions import NOW
from tests.oracle import assert_consistent

ACKNOWLEDGED, IDENTIFIED, RESOLVED = TimelineKind.ACKNOWLEDGED, TimelineKind.IDENTIFIED, TimelineKind.RESOLVED
TASK = TimelineKind.TASK
SPAN = timedelta(days=1)
# Two incidents of a key; an alert between them merges them while it is open, or if it lasts, and splits them if not.
APART = (resolved(0, 0, 10), resolved(0, 60, 70))
BRIDGE = firing(1, 8)
SHORT, LONG = resolved(1, 8, 12), resolved(1, 8, 57)


@dataclass(frozen=True, slots=True)
class Record:
    kind: TimelineKind
    minute: int


@dataclass(frozen=True, slots=True)
class Correct:
    """`minute` None: withdraw. `fact` is an index."""

    fact: int
    minute: int | None


Step = Reported | Record | Correct
minutes = st.one_of(st.integers(0, 10), st.integers(60, 70))
people = st.one_of(
    st.builds(Record, st.sampled_from([ACKNOWLEDGED, IDENTIFIED, RESOLVED, TASK, TASK]), minutes),
    st.builds(Correct, st.integers(0, 9), minutes),
    st.builds(Correct, st.integers(0, 9), st.one_of(minutes, st.just(None))),
)


@st.composite
def scripts(draw: st.DrawFn) -> list[Step]:
    """The alert between the two begins and ends anywhere among the actions of people."""
    steps: list[Step] = draw(st.lists(people, min_size=2, max_size=10))
    begins = draw(st.integers(0, len(steps)))
    ends = draw(st.integers(begins, len(steps)))
    end = [draw(st.sampled_from([SHORT, LONG]))] if draw(st.booleans()) else []
    return [*steps[:begins], BRIDGE, *steps[begins:ends], *end, *steps[ends:]]


@dataclass(slots=True)
class Fact:
    """As the model expects it. A fact is identified by its order."""

    kind: TimelineKind
    at: datetime
    entry: int
    withdrawn: bool = False


CORRECTED_THEN_SPLIT: list[Step] = [BRIDGE, Record(ACKNOWLEDGED, 5), Correct(0, 65), SHORT]
SPLIT_THEN_CORRECTED: list[Step] = [BRIDGE, Record(ACKNOWLEDGED, 5), SHORT, Correct(0, 65)]
RESOLVE_CORRECTED_TO_SPLIT: list[Step] = [BRIDGE, Record(IDENTIFIED, 65), Record(RESOLVED, 70), Correct(1, 9)]
TASK_MOVED_BY_CORRECTION_AND_SPLIT: list[Step] = [BRIDGE, Record(TASK, 5), Record(TASK, 65), Correct(0, 62), SHORT]
RESOLVE_WITHDRAWN_TO_MERGE: list[Step] = [BRIDGE, Record(RESOLVED, 70), Correct(0, 9), LONG, Correct(0, None)]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=scripts())
@example(script=CORRECTED_THEN_SPLIT)
@example(script=SPLIT_THEN_CORRECTED)
@example(script=RESOLVE_CORRECTED_TO_SPLIT)
@example(script=RESOLVE_WITHDRAWN_TO_MERGE)
@example(script=TASK_MOVED_BY_CORRECTION_AND_SPLIT)
async def test_facts_follow_from_the_alerts_and_the_current_facts_in_any_order(
    engine: AsyncEngine, script: list[Step]
) -> None:
    await forget(engine)
    await apply_batch(engine, [one.incoming(max_span=SPAN) for one in APART])
    facts: list[Fact] = []
    for number, step in enumerate(script):
        match step:
            case Record():
                await _record(engine, step, facts, by=f"p{number}")
            case Correct():
                await _correct(engine, step, facts)
            case _:
                await apply_batch(engine, [step.incoming(max_span=SPAN)])
        await _assert_implied(engine, facts, script[: number + 1])


async def _record(engine: AsyncEngine, step: Record, facts: list[Fact], *, by: str) -> None:
    """On the incident during which it happened."""
    when = Attribution(at(step.minute), by)
    try:
        async with db.session(engine) as session:
            living = await _living(session)
            [row] = [one for one in living if one.began_at <= when.at and _covers(one, when.at)]
            known = [fact for fact in _of(row, living, facts) if fact.kind is step.kind]
            if step.kind is ACKNOWLEDGED:
                await actions.acknowledge(session, row.id, when, at_stated=True, now=NOW)
            elif step.kind is TASK:
                await notes.add_task(session, row.id, Attribution(when.at, by, "t"), TaskDetails(), now=NOW)
            elif step.kind is IDENTIFIED:
                await actions.milestone(session, row.id, IDENTIFIED, when, now=NOW)
            else:
                await actions.resolve(session, row.id, when, at_stated=True, now=NOW)
            entry = await _scalar(session, "SELECT id FROM timeline WHERE by = :by", by=by)
    except (refusals.LaterAlertExists, refusals.AlreadyResolved):
        assert step.kind is RESOLVED
        return
    if entry is None:
        assert step.kind is not ACKNOWLEDGED
    elif step.kind is IDENTIFIED and known:
        known[-1].at = when.at
    else:
        facts.append(Fact(step.kind, when.at, entry))


async def _correct(engine: AsyncEngine, step: Correct, facts: list[Fact]) -> None:
    if not facts:
        return
    fact = facts[step.fact % len(facts)]
    newest = "SELECT incident_id FROM timeline WHERE id = :id OR corrects = :id ORDER BY id DESC LIMIT 1"
    try:
        async with db.session(engine) as session:
            ref = await _scalar(session, newest, id=fact.entry)
            if step.minute is None:
                await corrections.withdraw(session, ref, fact.entry, by="eve", now=NOW)
            else:
                change = corrections.CorrectedValues(at=at(step.minute))
                await corrections.correct(session, ref, fact.entry, change, by="eve", now=NOW)
    except corrections.Withdrawn:
        assert fact.withdrawn
    except (refusals.LaterAlertExists, refusals.NewerIncidentExists):
        assert fact.kind is RESOLVED
    else:
        if step.minute is None:
            fact.withdrawn = True
        else:
            fact.at = at(step.minute)


async def _assert_implied(engine: AsyncEngine, facts: list[Fact], script: list[Step]) -> None:
    await assert_consistent(engine)
    async with db.session(engine) as session:
        tx = await session.connection()
        bridge = (await tx.execute(text("SELECT * FROM alert WHERE started_at = :at"), {"at": at(8)})).first()
        living = await _living(session)
        if BRIDGE in script:
            assert bridge is not None
            ends = [fact.at for fact in facts if fact.kind is RESOLVED and not fact.withdrawn]
            ends += [at(step.end) for step in script if isinstance(step, Reported) and step.end is not None]
            assert bridge.ended_at == min(ends, default=None)
            assert len(living) == 1 + (bridge.ended_at is not None and bridge.ended_at < at(55))
        tasks = await notes.tasks_of(tx, [row.id for row in living])
        for row in living:
            current = _of(row, living, facts)
            steps = path_of(Facts.of(row), tasks.get(row.id, ()), now=NOW).steps
            assert sorted((step.task.entry, step.task.at) for step in steps) == [
                (fact.entry, fact.at) for fact in current if fact.kind is TASK
            ]
            acknowledged = [fact.at for fact in current if fact.kind is ACKNOWLEDGED]
            identified = [fact.at for fact in current if fact.kind is IDENTIFIED]
            assert (row.acknowledged_at, row.identified_at) == (
                min(acknowledged, default=None),
                identified[-1] if identified else None,
            )


def _of(row: Incident, living: list[Incident], facts: list[Fact]) -> list[Fact]:
    """The facts that count for this incident: those since it began and before the next one."""
    later = min((one.began_at for one in living if one.began_at > row.began_at), default=None)
    return [
        fact for fact in facts if not fact.withdrawn and row.began_at <= fact.at and (later is None or fact.at < later)
    ]


def _covers(row: Incident, when: datetime) -> bool:
    return row.ended_at is None or when <= row.ended_at


async def _living(session: AsyncSession) -> list[Incident]:
    rows = await (await session.connection()).execute(text("SELECT id FROM incident WHERE merged_into IS NULL"))
    return [await actions.find(session, row.id) for row in rows]


async def _scalar(session: AsyncSession, query: str, **bound: object) -> Any:
    return (await (await session.connection()).execute(text(query), bound)).scalars().first()
