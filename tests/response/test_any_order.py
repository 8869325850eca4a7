"""The response to an incident follows from its facts alone: not from the order in which people recorded them, and not
from merges and splits meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import httpx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.schema import Incident
from app.demo import bodies
from app.demo.chapter_six import the_outage
from app.demo.facts import Action
from app.incidents import actions
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import notes
from app.incidents.history.details import DETAILS
from app.incidents.history.notes import TaskDetails
from app.incidents.history.path import Effect, path_of
from app.incidents.history.timeline import Attribution
from app.incidents.measures.measures import Facts, Weights
from app.response.store import response as store
from tests.incidents.grouping.test_store import apply_batch, at, forget
from tests.incidents.test_actions import NOW
from tests.incidents.test_corrections_property import APART, BRIDGE, LONG, SHORT, SPAN, _covers, _living
from tests.test_chapter_six import FOUR

WEIGHTS: Weights = dict.fromkeys(("sev1", "sev2", "sev3", "sev4", "sev5"), Decimal(1))


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one person records, at a minute of its own."""

    kind: TimelineKind
    minute: int
    person: str
    detail: tuple[tuple[str, Any], ...] = ()


def of(kind: TimelineKind, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Recorded]:
    minutes = st.integers(0, 10) | st.integers(60, 70)
    return st.builds(
        lambda minute, person, detail: Recorded(kind, minute, person, tuple(detail.items())),
        minutes,
        st.sampled_from(["ada", "ben", "cy"]),
        st.fixed_dictionaries(fields),
    )


recorded = st.one_of(
    of(TimelineKind.ROLE, role=st.sampled_from(["commander", "commander", "scribe", "responder"])),
    of(TimelineKind.JOINED, how=st.sampled_from(["alerted", "asked", "came"])),
    of(TimelineKind.UPDATE, status=st.just("investigating")),
    of(TimelineKind.CRITERION, criterion=st.sampled_from(["Users can pay", "It is calm"]), met=st.booleans()),
    of(TimelineKind.ROOM, channel=st.sampled_from(["chat", "phone"])),
    of(TimelineKind.IMPACT, customers=st.integers(0, 9)),
    of(TimelineKind.TASK, effect=st.sampled_from(Effect)),
    of(TimelineKind.ACKNOWLEDGED),
)
facts = st.lists(recorded, min_size=3, max_size=9, unique_by=lambda each: each.minute).flatmap(
    lambda found: st.tuples(st.just(found), st.permutations(found))
)
ADA, BEN, ADA_AGAIN = (
    Recorded(TimelineKind.ROLE, minute, person, (("role", "commander"),))
    for minute, person in ((3, "ada"), (4, "ben"), (5, "ada"))
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn=facts, ending=st.sampled_from([None, SHORT, LONG]), place=st.integers(0, 9))
@example(drawn=([ADA, BEN, ADA_AGAIN], [ADA, ADA_AGAIN, BEN]), ending=None, place=0)
async def test_the_response_is_as_if_recorded_in_order_of_time_in_the_final_incidents(
    engine: AsyncEngine, drawn: tuple[list[Recorded], Sequence[Recorded]], ending: Any, place: int
) -> None:
    """`ending`: how the alert that merges two incidents ends, after `place` facts: they stay one, or are split."""
    found, in_any_order = drawn
    ended = [ending] if ending else []

    await forget(engine)
    await apply_batch(engine, [one.incoming(max_span=SPAN) for one in (*APART, BRIDGE)])
    await record(engine, in_any_order[:place])
    await apply_batch(engine, [one.incoming(max_span=SPAN) for one in ended])
    await record(engine, in_any_order[place:])
    after = await outcomes(engine)

    await forget(engine)
    await apply_batch(engine, [one.incoming(max_span=SPAN) for one in (*APART, BRIDGE, *ended)])
    await record(engine, sorted(found, key=lambda each: each.minute))
    assert after == await outcomes(engine)


async def record(engine: AsyncEngine, facts_in_order: Sequence[Recorded]) -> None:
    for each in facts_in_order:
        async with db.session(engine) as session:
            when = Attribution(at(each.minute), each.person, "n")
            [row] = [one for one in await _living(session) if one.began_at <= when.at and _covers(one, when.at)]
            await _record(session, row, each, when)


async def _record(session: AsyncSession, row: Incident, each: Recorded, when: Attribution) -> None:
    detail = dict(each.detail)
    match each.kind:
        case TimelineKind.ROLE:
            await store.assign(
                session, row.id, detail["role"], each.person, when, holds=True, instead_of=None, at_stated=True, now=NOW
            )
        case TimelineKind.TASK:
            await notes.add_task(session, row.id, when, TaskDetails(detail["effect"]), now=NOW)
        case TimelineKind.ACKNOWLEDGED:
            await actions.acknowledge(session, row.id, when, at_stated=True, now=NOW)
        case TimelineKind.JOINED:
            await notes.add_fact(session, row.id, each.kind, when, _whole(each, person=each.person), now=NOW)
        case _:
            await notes.add_fact(session, row.id, each.kind, when, _whole(each), now=NOW)


def _whole(each: Recorded, **more: str) -> dict[str, Any]:
    return DETAILS[each.kind].model_validate(dict(each.detail) | more).model_dump(mode="json")


async def outcomes(engine: AsyncEngine) -> list[Any]:
    """Of each incident, the earliest first."""
    found = []
    async with db.session(engine) as session:
        rows = sorted(await _living(session), key=lambda row: row.began_at)
        tasks = await notes.tasks_of(await session.connection(), [row.id for row in rows])
        for row in rows:
            shown = await store.read_response(session, row, now=NOW, weights=WEIGHTS)
            path = path_of(Facts.of(row), tasks.get(row.id, ()), now=NOW)
            found.append(
                (
                    *(row.began_at, row.ended_at, row.acknowledged_at, path.points, path.counts, path.longest_silence),
                    *(shown.history, shown.handovers, shown.people, shown.first_alerted, shown.first_responder),
                    *(shown.room, shown.exit, shown.updates, shown.impact, shown.verdicts),
                )
            )
    return found


# — the story —

STORY = the_outage(FOUR)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(in_any_order=st.permutations(STORY.actions))
async def test_the_story_of_chapter_6_has_the_same_outcome_in_any_order(
    client: httpx.AsyncClient, in_any_order: Sequence[Action]
) -> None:
    assert await outcome_of(client, in_any_order) == await outcome_of(client, STORY.actions)


async def outcome_of(client: httpx.AsyncClient, story: Sequence[Action]) -> list[dict[str, Any]]:
    """What follows from an incident of its own in which this was recorded."""
    declaration = bodies.declaration_of(replace(STORY, actions=story))
    number = (await client.post("/api/v1/incidents", json=declaration)).json()["number"]
    for action in story:
        method, path, body = bodies.request_of(action, number)
        answer = await client.request(method, path, json=body)
        assert answer.is_success, answer.text
    shown = (await client.get(f"/api/v1/incidents/{number}")).json()
    path = (await client.get(f"/api/v1/incidents/{number}/path")).json()
    response = (await client.get(f"/api/v1/incidents/{number}/response")).json()
    for task in path["tasks"]:
        del task["entry"]
    del response["definition"]["similar_lasted_longer"]  # of the other examples
    return [{name: shown[name] for name in ("measures", "status", "acknowledged_by")}, path, response]
