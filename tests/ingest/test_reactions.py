"""What people did in other tools, as sources report it, in any order, with a sender that exists only here. Also the
choices of a sender: its paths, the place of its token, and its responses.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import ensure_source
from app.base.http.context import Context
from app.base.values.facts import Reaction, ReactionKind
from app.catalog.rules import store as rules_store
from app.incidents import actions
from app.incidents.grouping.reaction_placement import PlacedEntry, steps_to
from app.incidents.grouping.signal import CORRELATIONS_AT_MOST, EndReason, Signal, Status, correlation_id
from app.incidents.history import corrections, timeline
from app.incidents.history.reactions import KEPT, retry_and_drop_reactions
from app.ingest.endpoints.webhook import WebhookApp
from app.ingest.intake.flush import Delivery, Flusher
from app.ingest.sender import Answer, Credential, Endpoint, Reading, Receipt, Request, Sender, SpoolReceipt
from app.main import HANDLERS
from tests.conftest import ADMIN_TOKEN, in_state
from tests.incidents.grouping.test_store import forget

DAY = datetime(2026, 8, 20, tzinfo=UTC)
Message = dict[str, Any]


def at(minute: float) -> datetime:
    return DAY + timedelta(minutes=minute)


def read(request: Request) -> Reading:
    body = json.loads(request.body)
    return Reading(
        tuple(_signal(one) for one in body.get("alerts", [])),
        reactions=tuple(_reaction(one) for one in body.get("reactions", [])),
    )


def _signal(one: dict[str, Any]) -> Signal:
    end = one.get("end")
    return Signal(
        fingerprint=one["fingerprint"],
        status=Status.FIRING if end is None else Status.RESOLVED,
        started_at=at(one["start"]),
        ended_at=None if end is None else at(end),
        labels={"alertname": one["fingerprint"], "service": one.get("service", "checkout")} | one.get("labels", {}),
        end_reason=None if end is None else EndReason.RECOVERED,
        correlation=one.get("correlation", ""),
    )


def _reaction(one: dict[str, Any]) -> Reaction:
    return Reaction(**one | {"kind": ReactionKind(one["kind"]), "at": at(one["at"])})


def token_in_body(body: bytes) -> tuple[str | None, bytes]:
    message = json.loads(body)
    return message.pop("routing_key", None), json.dumps(message).encode()


def answer(outcome: Receipt | SpoolReceipt, request: Request) -> Answer:
    assert isinstance(outcome, Receipt)
    return Answer(201, msgspec.json.encode({"did": outcome.verdicts}), ((b"x-sender", b"test"),))


SENDER = Sender(
    kind="test",
    name="a test",
    describes="",
    read=read,
    example={},
    credential=Credential(query=("apiKey",), body=token_in_body),
    answer=answer,
    endpoints=(Endpoint("/webhooks/test"), Endpoint("/v2/alerts/{team}/ack")),
)


def alert(fingerprint: str, start: int, end: int | None = None, *, source: str = "test", **fields: Any) -> Message:
    return {"source": source, "alerts": [{"fingerprint": fingerprint, "start": start, "end": end, **fields}]}


def reaction(
    kind: str,
    minute: int,
    by: str | None = "ada",
    *,
    fingerprint: str | None = None,
    correlation: str | None = None,
    source: str = "test",
    **fields: Any,
) -> Message:
    concerns = {"fingerprint": fingerprint, "correlation": correlation}
    return {"source": source, "reactions": [{"kind": kind, "at": minute, "by": by, **concerns, **fields}]}


def acknowledgement(fingerprint: str, minute: int, by: str = "ada") -> Message:
    return reaction("acknowledged", minute, by, fingerprint=fingerprint)


def acknowledged(correlation: str, minute: int, by: str = "ada") -> Message:
    """By a feed, which knows no fingerprint."""
    return reaction("acknowledged", minute, by, correlation=correlation, source="pager")


async def deliver(engine: AsyncEngine, messages: Sequence[Message], *, at_once: int = 1) -> None:
    """In this order, on `at_once` connections."""
    names = sorted({"test", *(message.get("source", "test") for message in messages)})
    async with db.session(engine) as session:
        sources = {name: (await ensure_source(session, name, "test", now=DAY)).id for name in names}
    flusher = Flusher(engine, rules_store.rules, HANDLERS, db.DatabaseMonitor(""), quarantine_bytes=2**20)
    left = list(reversed(messages))

    async def deliver_some() -> None:
        connection = db.RawConnection(engine)
        try:
            while left:
                message = left.pop()
                source = message.get("source", "test")
                request = Request(json.dumps(message).encode(), at(1000), source)
                delivery = Delivery(sources[source], source, at(1000), SENDER.read(request), request, "test")
                [outcome] = await flusher.flush(connection, [delivery])
                assert isinstance(outcome, Receipt), outcome
        finally:
            await connection.close()

    await asyncio.gather(*(deliver_some() for _ in range(at_once)))


async def place_once_more(engine: AsyncEngine) -> None:
    """As the service does after a minute."""
    async with db.transaction(engine) as tx:
        await tx.execute(text("UPDATE reaction SET due_at = least(due_at, now())"))
    await place_due(engine)


async def place_due(engine: AsyncEngine) -> None:
    """As the service does every few seconds: those that concern an incident whose key was not locked."""
    while (await all_(engine, "SELECT count(*) FROM reaction WHERE due_at <= clock_timestamp()")) != [(0,)]:
        async with db.transaction(engine) as tx:
            await retry_and_drop_reactions(tx, now=at(1001))


async def all_(engine: AsyncEngine, query: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


# — whatever the order —

INCIDENTS = """
    SELECT key, began_at, ended_at, acknowledged_at, acknowledged_by, acknowledged_via
      FROM incident
     WHERE merged_into IS NULL
     ORDER BY key, began_at
"""
ENTRIES = """
    SELECT incident.key, incident.began_at, kind, at, by, note, detail ->> 'source', detail ->> 'at_arrival'
      FROM timeline
      JOIN incident ON incident.id = timeline.incident_id
     WHERE reaction_id IS NOT NULL
     ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
"""
# From the definition, without a thought for time: every reaction with every alert.
TARGETS = """
    WITH pair AS (
        SELECT reaction.*, alert.incident_id, alert.series = reaction.series AS is_own, alert.started_at,
               alert.started_at <= reaction.at AND coalesce(alert.ended_at, 'infinity') > reaction.at AS is_open,
               alert.ended_at + make_interval(secs => alert.window_seconds) >= reaction.at AS is_near,
               reaction.correlation = ANY(alert.correlations) AS is_correlated
          FROM reaction
          JOIN alert ON alert.started_at <= reaction.at
    ), ranked AS (
        SELECT pair.*,
               CASE WHEN is_own THEN 1
                    WHEN is_correlated AND is_open THEN 2
                    WHEN is_correlated AND is_near THEN 3 END AS way,
               row_number() OVER (PARTITION BY id, is_own ORDER BY started_at DESC) AS recent
          FROM pair
    )
    SELECT DISTINCT id, incident_id
      FROM ranked
     WHERE way = (SELECT min(other.way) FROM ranked AS other WHERE other.id = ranked.id)
       AND (way > 1 OR recent = 1)
"""
ENTRIES_BY_DEFINITION = f"""
    SELECT incident.key, incident.began_at, reaction.kind, at, by, note, source.name,
           CASE WHEN at_arrival THEN 'true' END
      FROM ({TARGETS}) AS target
      JOIN reaction ON reaction.id = target.id
      JOIN incident ON incident.id = target.incident_id
      JOIN source ON source.id = reaction.source_id
     ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
"""
INCIDENTS_BY_DEFINITION = f"""
    SELECT key, began_at, ended_at, found.at, found.by, found.name
      FROM incident
      LEFT JOIN LATERAL (
           SELECT reaction.at, reaction.by, source.name
             FROM ({TARGETS}) AS target
             JOIN reaction ON reaction.id = target.id
             JOIN source ON source.id = reaction.source_id
            WHERE target.incident_id = incident.id
              AND reaction.kind = 'acknowledged'
              AND reaction.at >= incident.began_at
            ORDER BY reaction.at, reaction.by, source.name
            LIMIT 1) AS found ON true
     WHERE merged_into IS NULL
     ORDER BY key, began_at
"""
WAIT = "SELECT kind, at, by FROM reaction WHERE waits ORDER BY 1, 2, 3"
WAIT_BY_DEFINITION = f"""
    SELECT kind, at, by FROM reaction WHERE id NOT IN (SELECT id FROM ({TARGETS}) AS target) ORDER BY 1, 2, 3
"""
CORRELATIONS = "SELECT fingerprint, started_at, correlations FROM alert ORDER BY 1, 2, 3"


async def everything(engine: AsyncEngine) -> list[Any]:
    """Asserts what the definition demands."""
    incidents, entries = await all_(engine, INCIDENTS), await all_(engine, ENTRIES)
    assert entries == await all_(engine, ENTRIES_BY_DEFINITION)
    assert incidents == await all_(engine, INCIDENTS_BY_DEFINITION)
    waiting = await all_(engine, WAIT)
    assert waiting == await all_(engine, WAIT_BY_DEFINITION)
    return [incidents, entries, waiting, await all_(engine, CORRELATIONS)]


async def forget_all(engine: AsyncEngine) -> None:
    await forget(engine)
    async with db.transaction(engine) as tx:
        await tx.execute(text("TRUNCATE reaction, removed_entry"))


minutes = st.integers(0, 40)
names = st.sampled_from(["ax", "ay", "bx"])
groups = st.sampled_from(["one", "two"])
alerts = st.builds(
    lambda name, start, length, group, source: alert(
        name, start, None if length is None else start + length, service=name[0], correlation=group, source=source
    ),
    names,
    minutes,
    st.none() | st.integers(0, 10),
    groups | st.just(""),
    st.sampled_from(["test", "other"]),
)
kinds = st.sampled_from(["acknowledged", "acknowledged", "unacknowledged", "closed", "note"])
reactions = st.builds(
    lambda kind, minute, by, name, group, source, arrived: reaction(
        kind,
        minute,
        by,
        fingerprint=name,
        correlation="one" if name is None and group is None else group,
        source=source,
        at_arrival=arrived,
        note="it burns" if kind == "note" else None,
    ),
    kinds,
    minutes,
    st.sampled_from(["ada", "bob", None]),
    st.none() | names,
    st.none() | groups,
    st.sampled_from(["test", "pager"]),
    st.booleans(),
)
by_chance = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(by_chance, max_examples=40)
@given(data=st.data(), sent=st.lists(alerts | reactions, min_size=3, max_size=12))
async def test_the_order_of_alerts_and_reactions_does_not_matter(
    engine: AsyncEngine, data: st.DataObject, sent: list[Message]
) -> None:
    found = []
    for messages in (sent, data.draw(st.permutations(sent))):
        await forget_all(engine)
        await deliver(engine, messages)
        await place_due(engine)
        found.append(await everything(engine))
    assert found[0] == found[1]


@settings(by_chance, max_examples=15)
@given(sent=st.lists(alerts | reactions, min_size=6, max_size=16))
async def test_alerts_and_reactions_that_arrive_at_the_same_time(engine: AsyncEngine, sent: list[Message]) -> None:
    await forget_all(engine)
    await deliver(engine, sent, at_once=4)
    await place_once_more(engine)
    concurrently = await everything(engine)
    await forget_all(engine)
    await deliver(engine, sent)
    await place_due(engine)
    assert concurrently == await everything(engine)


@settings(by_chance, max_examples=25)
@given(data=st.data(), before=st.lists(alerts | reactions, min_size=3, max_size=8), after=st.lists(alerts, max_size=6))
async def test_what_a_person_corrected_or_withdrew_stays(
    engine: AsyncEngine, data: st.DataObject, before: list[Message], after: list[Message]
) -> None:
    await forget_all(engine)
    await deliver(engine, before)
    entries = await all_(engine, "SELECT id, incident_id FROM timeline WHERE reaction_id IS NOT NULL ORDER BY id")
    touched: set[int] = set()
    if entries:
        entry, incident = data.draw(st.sampled_from(entries))
        touched.add(entry)
        async with db.session(engine) as session:
            if data.draw(st.booleans()):
                await corrections.withdraw(session, incident, entry, by="eve", now=at(1000))
            else:
                change = corrections.CorrectedValues(author="eve", note="it was me")
                await corrections.correct(session, incident, entry, change, by="eve", now=at(1000))
    await deliver(engine, after)
    await place_once_more(engine)
    facts = await all_(
        engine,
        """
        SELECT first.reaction_id, first.id, first.incident_id, count(entry.id)
          FROM timeline AS first
          JOIN timeline AS entry ON first.id = coalesce(entry.corrects, entry.id)
         WHERE first.reaction_id IS NOT NULL
         GROUP BY first.id
        """,
    )
    assert {fact: entries for _, fact, _, entries in facts if fact in touched} == dict.fromkeys(touched, 2)
    plain = Counter((one, incident) for one, fact, incident, _ in facts if fact not in touched)
    by_person = {(one, incident) for one, fact, incident, _ in facts if fact in touched}
    targets = {(one, incident) for one, incident in await all_(engine, TARGETS)}
    # The one entry by its series is the corrected one, although a correction may have moved elsewhere.
    series = {row[0] for row in await all_(engine, _PLACED_BY_SERIES)} & {one for one, _ in by_person}
    assert plain == Counter({pair for pair in targets - by_person if pair[0] not in series})


_PLACED_BY_SERIES = """
    SELECT DISTINCT reaction.id
      FROM reaction
      JOIN alert ON alert.series = reaction.series AND alert.started_at <= reaction.at
"""


@given(
    data=st.data(),
    targets=st.sets(st.integers(0, 4)),
    facts=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=6),
)
def test_the_steps_lead_to_one_entry_in_each_target(
    data: st.DataObject, targets: set[int], facts: list[tuple[int, bool]]
) -> None:
    entries = [PlacedEntry(2 * place, 2 * place, UUID(int=incident)) for place, (incident, _) in enumerate(facts)]
    entries += [
        PlacedEntry(2 * place + 1, 2 * place, UUID(int=incident))
        for place, (incident, fixed) in enumerate(facts)
        if fixed
    ]
    wanted = {UUID(int=target) for target in targets}
    locked = {UUID(int=one) for one in data.draw(st.sets(st.integers(0, 4)))}
    for held in (None, locked):
        steps, complete = steps_to(wanted, data.draw(st.permutations(entries)), by_series=False, locked=held)
        changed = {*steps.added, *steps.moved.values()}
        changed |= {one.incident for one in entries if one.id in steps.moved or one.id in steps.removed}
        assert held is None or changed <= held
        after = [
            replace_incident(one, steps.moved.get(one.id, one.incident))
            for one in entries
            if one.id not in steps.removed
        ]
        fixed = {one.fact for one in after if one.id != one.fact}
        assert fixed == {one.fact for one in entries if one.id != one.fact}
        plain = [one.incident for one in after if one.fact not in fixed] + [*steps.added]
        standing = {one.incident for one in after if one.id in fixed}
        assert (sorted(plain) == sorted(wanted - standing)) is complete
        assert complete or held is not None


def replace_incident(known: PlacedEntry, incident: UUID) -> PlacedEntry:
    return known._replace(incident=incident)


# — one by one —


async def test_a_reaction_finds_the_alerts_of_its_group_whoever_sent_them(engine: AsyncEngine) -> None:
    sent = [
        alert("a", 0, service="a", correlation="g"),
        alert("b", 5, service="b", correlation="g", source="other"),
        alert("c", 5, service="c", correlation="h"),
        alert("d", 5, 11, service="d", correlation="g"),
    ]
    await deliver(engine, [*sent, acknowledged("g", 12)])
    assert [row[3:] for row in await all_(engine, INCIDENTS)] == [
        (at(12), "ada", "pager"),
        (at(12), "ada", "pager"),
        (None, None, None),
        (None, None, None),
    ]
    assert await everything(engine)


async def test_a_reaction_to_a_series_belongs_to_its_newest_alert_and_to_no_other_of_the_group(
    engine: AsyncEngine,
) -> None:
    sent = [alert("a", start, end, correlation="g") for start, end in ((0, 5), (15, 20), (32, None))]
    sent += [alert("b", 0, service="b", correlation="g")]
    await deliver(engine, [*sent, reaction("acknowledged", 30, fingerprint="a", correlation="g")])
    assert [row[1:4:2] for row in await all_(engine, INCIDENTS)] == [
        (at(0), None),  # of b
        (at(0), None),
        (at(15), at(30)),
        (at(32), None),
    ]


async def test_without_an_open_alert_the_one_that_has_just_ended_counts(engine: AsyncEngine) -> None:
    ended = [alert("a", 0, 10, service="a", correlation="g"), alert("b", 0, 6, service="b", correlation="g")]
    await deliver(engine, [*ended, acknowledged("g", 15), acknowledged("g", 16, "bob")])
    assert [row[3:5] for row in await all_(engine, INCIDENTS)] == [(at(15), "ada"), (None, None)]
    assert await all_(engine, WAIT) == [("acknowledged", at(16), "bob")]
    # The alert was still open at that time.
    await deliver(engine, [alert("a", 0, 30, service="a", correlation="g")])
    assert [row[2:5] for row in await all_(engine, ENTRIES)] == [
        ("acknowledged", at(15), "ada"),
        ("acknowledged", at(16), "bob"),
    ]
    assert await all_(engine, WAIT) == []
    assert await everything(engine)


async def test_an_entry_is_removed_when_its_alert_was_not_open_then(engine: AsyncEngine) -> None:
    """A reader of all entries goes on after it."""
    await deliver(engine, [alert("a", 0, service="a", correlation="g"), acknowledged("g", 20)])
    async with db.session(engine) as session:
        [*_, last] = await timeline.read_after(session, None, limit=10)
    assert last.kind == "acknowledged"
    await deliver(engine, [alert("a", 0, 5, service="a", correlation="g")])
    assert await all_(engine, ENTRIES) == []
    assert [row[3] for row in await all_(engine, INCIDENTS)] == [None]
    assert await all_(engine, WAIT) == [("acknowledged", at(20), "ada")]
    async with db.session(engine) as session:
        assert [entry.kind for entry in await timeline.read_after(session, last.id, limit=10)] == ["resolved"]
    async with db.session(engine) as session:
        with pytest.raises(timeline.UnknownEntry):
            await timeline.read_after(session, last.id + 1000, limit=10)


async def test_an_alert_keeps_the_smallest_of_its_correlations(engine: AsyncEngine) -> None:
    texts = [f"group {place}" for place in range(CORRELATIONS_AT_MOST + 3)]
    smallest = sorted(UUID(bytes=sha256(one.encode()).digest()[:16]) for one in texts)[:CORRELATIONS_AT_MOST]
    for order in (texts, texts[::-1]):
        await forget_all(engine)
        await deliver(engine, [alert("a", 0, correlation=one) for one in [*order, order[0]]])
        assert await all_(engine, "SELECT correlations FROM alert") == [(smallest,)]
    await deliver(engine, [acknowledged(next(one for one in texts if correlation_id(one) in smallest), 5)])
    assert [row[3] for row in await all_(engine, INCIDENTS)] == [at(5)]


async def test_the_label_of_a_source_replaces_the_correlation_of_its_sender(engine: AsyncEngine) -> None:
    async with db.session(engine) as session:
        (await ensure_source(session, "test", "test", now=DAY)).correlation_label = "incident_key"
    labeled = alert("a", 0, service="a", correlation="g", labels={"incident_key": "k"})
    await deliver(engine, [labeled, alert("b", 0, service="b", correlation="g")])
    assert await all_(engine, CORRELATIONS) == [
        ("a", at(0), [correlation_id("k")]),
        ("b", at(0), [correlation_id("g")]),
    ]


async def test_what_a_person_took_back_or_closed_elsewhere_is_shown_and_ends_nothing(engine: AsyncEngine) -> None:
    sent = [
        reaction(kind, minute, fingerprint="a", note=note)
        for kind, minute, note in (
            ("acknowledged", 2, None),
            ("unacknowledged", 3, "wrong team"),
            ("closed", 4, None),
            ("note", 5, "it burns"),
            ("note", 6, ""),
        )
    ]
    await deliver(engine, [alert("a", 0), *sent])
    assert [row[2:6] for row in await all_(engine, ENTRIES)] == [
        ("acknowledged", at(2), "ada", None),
        ("closed", at(4), "ada", None),
        ("note", at(5), "ada", "it burns"),
        ("unacknowledged", at(3), "ada", "wrong team"),
    ]
    verdicts = Counter(word for (one,) in await all_(engine, "SELECT verdicts FROM delivery") for word in one)
    assert verdicts == {"opened": 1, "acknowledged": 1, "unacknowledged": 1, "closed": 1, "note": 2}
    # The first acknowledgement counts, even if it was taken back.
    assert [row[2:5] for row in await all_(engine, INCIDENTS)] == [(None, at(2), "ada")]


async def test_a_reaction_opens_no_incident_and_waits_for_its_alert(engine: AsyncEngine) -> None:
    await deliver(engine, [acknowledgement("a", 12), acknowledgement("other", 12), acknowledged("g", 13)])
    assert await all_(engine, "SELECT 1 FROM incident") == []
    await deliver(engine, [alert("a", 10)])
    assert [row[3:] for row in await all_(engine, INCIDENTS)] == [(at(12), "ada", "test")]
    # A correlation that comes later, even with an alert that has ended since.
    await deliver(engine, [alert("a", 10, 14, correlation="g")])
    assert [row[2:5] for row in await all_(engine, ENTRIES)] == [
        ("acknowledged", at(12), "ada"),
        ("acknowledged", at(13), "ada"),
    ]


async def test_the_earliest_acknowledgement_counts_and_repeats_are_ignored(engine: AsyncEngine) -> None:
    await deliver(engine, [alert("a", 10), acknowledgement("a", 14, "bob"), acknowledgement("a", 12)])
    [[version]] = await all_(engine, "SELECT version FROM incident")
    await deliver(engine, [acknowledgement("a", 12)])
    assert [row[3:5] for row in await all_(engine, INCIDENTS)] == [(at(12), "ada")]
    assert await all_(engine, "SELECT version FROM incident") == [(version,)]


async def test_of_two_ways_at_the_same_time_the_order_of_arrival_does_not_decide(engine: AsyncEngine) -> None:
    both = [acknowledgement("a", 12), reaction("acknowledged", 12, fingerprint="a", correlation="g", source="pager")]
    for order in (both, both[::-1]):
        await forget_all(engine)
        await deliver(engine, [alert("a", 10, correlation="g"), *order])
        assert [row[3:] for row in await all_(engine, INCIDENTS)] == [(at(12), "ada", "pager")]


async def test_a_reaction_follows_its_alert_through_merges_and_splits(engine: AsyncEngine) -> None:
    # b joins a to c; its end then splits them again.
    sent = [alert("a", 0, 10), alert("c", 30), acknowledgement("a", 40), acknowledgement("c", 35, "bob")]
    await deliver(engine, [*sent, alert("b", 12)])
    assert [row[3:5] for row in await all_(engine, INCIDENTS)] == [(at(35), "bob")]
    await deliver(engine, [alert("b", 12, 20)])
    assert [row[3:5] for row in await all_(engine, INCIDENTS)] == [(at(40), "ada"), (at(35), "bob")]


async def test_of_two_entries_that_a_merge_brings_together_one_is_left(engine: AsyncEngine) -> None:
    sent = [alert("a", 0, 10, correlation="g"), alert("c", 16, 20, correlation="g"), alert("x", 0, service="x")]
    await deliver(engine, [*sent, alert("z", 17, 21, service="x", correlation="g"), acknowledged("g", 15)])
    async with db.transaction(engine) as tx:
        # Both incidents have one, although only the first should: as if the second alert had begun before.
        await tx.execute(
            text("""
                INSERT INTO timeline (incident_id, at, recorded_at, kind, by, detail, reaction_id)
                SELECT (SELECT id FROM incident ORDER BY number DESC LIMIT 1), at, recorded_at, kind, by, detail,
                       reaction_id
                  FROM timeline
                 WHERE reaction_id IS NOT NULL
            """)
        )
    await deliver(engine, [alert("b", 9, 17)])
    await place_once_more(engine)
    assert await everything(engine)


async def test_a_corrected_acknowledgement_follows_its_alert_and_a_withdrawn_one_stays_withdrawn(
    engine: AsyncEngine,
) -> None:
    sent = acknowledgement("a", 20)
    await deliver(engine, [alert("a", 0, 5), sent])
    [(entry,)] = await all_(engine, "SELECT id FROM timeline WHERE kind = 'acknowledged'")
    async with db.session(engine) as session:
        await corrections.correct(session, 1, entry, corrections.CorrectedValues(author="eve"), by="bob", now=at(1000))
    await deliver(engine, [sent])
    assert [row[3:] for row in await all_(engine, INCIDENTS)] == [(at(20), "eve", "test")]
    # The series began again before the acknowledgement.
    await deliver(engine, [alert("a", 15, 25)])
    assert [row[3:5] for row in await all_(engine, INCIDENTS)] == [(None, None), (at(20), "eve")]
    async with db.session(engine) as session:
        await corrections.withdraw(session, 2, entry, by="bob", now=at(1000))
    await deliver(engine, [sent, alert("a", 15, 26)])
    assert [row[3:5] for row in await all_(engine, INCIDENTS)] == [(None, None), (None, None)]


async def test_the_incident_shows_whether_it_was_acknowledged_here(engine: AsyncEngine) -> None:
    await deliver(engine, [alert("a", 10), acknowledgement("a", 14, "bob")])
    for via, minute in (("page", 13), ("api", 12), (None, 11)):
        async with db.session(engine) as session:
            attribution = timeline.Attribution(at(minute), f"eve {minute}")
            row = await actions.acknowledge(session, 1, attribution, at_stated=True, via=via, now=at(1000))  # type: ignore[arg-type]
            assert (row.acknowledged_at, row.acknowledged_via) == (at(minute), via)


async def test_an_unplaced_acknowledgement_is_dropped_after_seven_days_and_counted(engine: AsyncEngine) -> None:
    await deliver(engine, [alert("a", 10), acknowledgement("a", 12), acknowledgement("never", 12)])
    await deliver(engine, [reaction("closed", 12, correlation="never")])
    for now, left in ((at(1000) + KEPT, 3), (at(1001) + KEPT, 0)):
        async with db.transaction(engine) as tx:
            await retry_and_drop_reactions(tx, now=now)
        assert await all_(engine, "SELECT count(*) FROM reaction") == [(left,)]
    assert await all_(engine, "SELECT source, value FROM tally WHERE name = 'acknowledgements_dropped'") == [
        ("test", 1)
    ]
    assert [row[3:5] for row in await all_(engine, INCIDENTS)] == [(at(12), "ada")]


async def test_a_reaction_that_missed_its_alert_is_placed_later(engine: AsyncEngine) -> None:
    """Two transactions that do not see each other store an alert and a reaction to it."""
    await deliver(engine, [alert("a", 10), acknowledgement("a", 12)])
    async with db.transaction(engine) as tx:
        await tx.execute(text("DELETE FROM timeline WHERE kind = 'acknowledged'"))
        await tx.execute(text("UPDATE incident SET acknowledged_at = NULL"))
        await tx.execute(text("UPDATE reaction SET waits = true"))
        await retry_and_drop_reactions(tx, now=at(1001))
    assert [row[3] for row in await all_(engine, INCIDENTS)] == [None]  # not due yet
    await place_once_more(engine)
    assert [row[3:5] for row in await all_(engine, INCIDENTS)] == [(at(12), "ada")]


async def test_a_reaction_that_becomes_due_while_it_is_placed_stays_due(engine: AsyncEngine) -> None:
    await deliver(engine, [alert("a", 10), acknowledgement("a", 12)])
    async with engine.connect() as tx:
        await tx.execute(text("UPDATE reaction SET due_at = now() - interval '1 hour'"))
        await tx.commit()
        await tx.execute(text("UPDATE reaction SET due_at = now() - interval '1 minute'"))
        async with engine.connect() as job:
            placing = asyncio.create_task(retry_and_drop_reactions(job, now=at(1001)))
            await asyncio.sleep(0.3)
            assert not placing.done()
            await tx.commit()
            await placing
            await job.commit()
    assert await all_(engine, "SELECT count(due_at) FROM reaction") == [(1,)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/webhooks/test?apiKey={ADMIN_TOKEN}", {}),
        ("/webhooks/test", {"routing_key": ADMIN_TOKEN}),
        (f"/v2/alerts/blue/ack?apiKey={ADMIN_TOKEN}&x=1", {}),
    ],
)
async def test_a_sender_decides_its_paths_its_credential_and_its_answer(
    context: Context, path: str, body: Message
) -> None:
    async with client_of_sender(context) as client:
        both = alert("a", 10) | acknowledgement("a", 12)
        taken = await client.post(path, json=both | body)
        assert (taken.status_code, taken.headers["x-sender"]) == (201, "test")
        assert taken.json() == {"did": {"opened": 1, "acknowledged": 1}}
        assert (await client.post(path.partition("?")[0], json=both)).status_code == 401
        assert (await client.post("/v2/alerts/blue", json=both)).status_code == 404
        assert (await client.post("/v2/alerts/blue/other", json=both)).status_code == 404
    assert [row[3:5] for row in await all_(context.engine, INCIDENTS)] == [(at(12), "ada")]


async def test_a_token_in_query_or_body_is_not_stored(context: Context) -> None:
    bad = {"alerts": [{"fingerprint": "a", "start": 0, "service": "poison"}]}
    async with db.transaction(context.engine) as tx:
        await tx.execute(text("ALTER TABLE alert ADD CHECK (labels->>'service' <> 'poison')"))
    async with client_of_sender(context) as client:
        await client.post("/v2/alerts/blue/ack", params={"apiKey": ADMIN_TOKEN, "x": "1"}, json=bad)
        await client.post("/webhooks/test", json=bad | {"routing_key": ADMIN_TOKEN})
    rows = await all_(context.engine, "SELECT query, path, body FROM stored_request ORDER BY path DESC")
    sent = json.dumps(bad).encode()
    assert [(query, path, json.loads(body)) for query, path, body in rows] == [
        ({"x": "1"}, {"team": "blue"}, json.loads(sent)),
        ({}, {}, json.loads(sent)),
    ]


def client_of_sender(context: Context) -> httpx.AsyncClient:
    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = in_state(WebhookApp(nothing, [SENDER]), context)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://aftermath.test")
