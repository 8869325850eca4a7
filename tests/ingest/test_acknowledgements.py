"""People's facts from a sender, by a sender that exists only here: acknowledgements, whatever order they come in. And
what a sender may decide for itself: its paths, where its token is, and how it answers.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.facts import Acknowledgement
from app.base.http.context import Context
from app.base.tokens import ensure_source
from app.catalog.rules import store as rules_store
from app.incidents.acknowledgements import KEPT, retry_and_drop_acknowledgements
from app.incidents.grouping.signal import EndReason, Signal, Status
from app.ingest.flush import Delivery, Flusher
from app.ingest.sender import Answer, Credential, Reading, Receipt, Request, Sender, Spooled
from app.ingest.webhook import WebhookApp
from app.main import HANDLERS
from tests.conftest import ADMIN_TOKEN, in_state
from tests.incidents.grouping.test_store import forget

DAY = datetime(2026, 8, 20, tzinfo=UTC)
Message = dict[str, list[dict[str, Any]]]


def at(minute: float) -> datetime:
    return DAY + timedelta(minutes=minute)


def read(request: Request) -> Reading:
    body = json.loads(request.body)
    signals = [_signal(one) for one in body.get("alerts", [])]
    acknowledged = [
        Acknowledgement(one["fingerprint"], at(one["at"]), one["by"]) for one in body.get("acknowledgements", [])
    ]
    return Reading(tuple(signals), acknowledgements=tuple(acknowledged))


def _signal(one: dict[str, Any]) -> Signal:
    end = one.get("end")
    return Signal(
        fingerprint=one["fingerprint"],
        status=Status.FIRING if end is None else Status.RESOLVED,
        started_at=at(one["start"]),
        ended_at=None if end is None else at(end),
        labels={"alertname": one["fingerprint"], "service": one.get("service", "checkout")},
        end_reason=None if end is None else EndReason.RECOVERED,
    )


def token_in_body(body: bytes) -> tuple[str | None, bytes]:
    message = json.loads(body)
    return message.pop("routing_key", None), json.dumps(message).encode()


def answer(outcome: Receipt | Spooled) -> Answer:
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
    paths=("/webhooks/test", "/v2/alerts/{team}/ack"),
)


def alert(fingerprint: str, start: int, end: int | None = None, **fields: str) -> Message:
    return {"alerts": [{"fingerprint": fingerprint, "start": start, "end": end, **fields}]}


def acknowledgement(fingerprint: str, minute: int, by: str = "ada") -> Message:
    return {"acknowledgements": [{"fingerprint": fingerprint, "at": minute, "by": by}]}


async def deliver(engine: AsyncEngine, messages: Sequence[Message]) -> None:
    async with db.session(engine) as session:
        source = await ensure_source(session, "test", "test", now=DAY)
    flusher = Flusher(engine, rules_store.rules, HANDLERS, db.DatabaseMonitor(""))
    connection = db.RawConnection(engine)
    try:
        for message in messages:
            request = Request(json.dumps(message).encode(), at(1000), "test")
            delivery = Delivery(source.id, "test", at(1000), SENDER.read(request), request, "test")
            [outcome] = await flusher.flush(connection, [delivery])
            assert isinstance(outcome, Receipt), outcome
    finally:
        await connection.close()


async def all_(engine: AsyncEngine, query: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


INCIDENTS = """
    SELECT key, began_at, ended_at, acknowledged_at, acknowledged_by
      FROM incident
     WHERE merged_into IS NULL
     ORDER BY key, began_at
"""
# The same from the definition: of each incident the earliest acknowledgement whose alert is part of it.
BY_DEFINITION = """
    SELECT key, began_at, ended_at, found.at, found.by
      FROM incident
      LEFT JOIN LATERAL (
           SELECT ack.at, ack.by
             FROM acknowledgement AS ack
            WHERE incident.id = (SELECT alert.incident_id
                                   FROM alert
                                  WHERE alert.series = ack.series
                                    AND alert.started_at <= ack.at
                                  ORDER BY alert.started_at DESC
                                  LIMIT 1)
            ORDER BY ack.at, ack.by
            LIMIT 1) AS found ON true
     WHERE merged_into IS NULL
     ORDER BY key, began_at
"""


async def forget_all(engine: AsyncEngine) -> None:
    await forget(engine)
    async with db.transaction(engine) as tx:
        await tx.execute(text("TRUNCATE acknowledgement"))


minutes = st.integers(0, 40)
facts = st.one_of(
    st.builds(
        lambda name, start, length: alert(name, start, None if length is None else start + length, service=name[0]),
        st.sampled_from(["ax", "ay", "bx"]),
        minutes,
        st.none() | st.integers(0, 10),
    ),
    st.builds(acknowledgement, st.sampled_from(["ax", "ay", "bx"]), minutes, st.sampled_from(["ada", "bob"])),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), told=st.lists(facts, min_size=2, max_size=10))
async def test_the_order_of_alerts_and_acknowledgements_decides_nothing(
    engine: AsyncEngine, data: st.DataObject, told: list[Message]
) -> None:
    found = []
    for messages in (told, data.draw(st.permutations(told))):
        await forget_all(engine)
        await deliver(engine, messages)
        found.append(await all_(engine, INCIDENTS))
        assert found[-1] == await all_(engine, BY_DEFINITION)
    assert found[0] == found[1]


async def test_an_acknowledgement_opens_no_incident_and_waits_for_its_alert(engine: AsyncEngine) -> None:
    await deliver(engine, [acknowledgement("a", 12), acknowledgement("other", 12)])
    assert await all_(engine, "SELECT 1 FROM incident") == []
    await deliver(engine, [alert("a", 10)])
    assert [row[3:] for row in await all_(engine, INCIDENTS)] == [(at(12), "ada")]
    assert await all_(engine, "SELECT kind, at, by FROM timeline WHERE kind = 'acknowledged'") == [
        ("acknowledged", at(12), "ada")
    ]


async def test_the_earliest_acknowledgement_counts_and_a_repeat_changes_nothing(engine: AsyncEngine) -> None:
    await deliver(engine, [alert("a", 10), acknowledgement("a", 14, "bob"), acknowledgement("a", 12)])
    [[version]] = await all_(engine, "SELECT version FROM incident")
    await deliver(engine, [acknowledgement("a", 12)])
    assert [row[3:] for row in await all_(engine, INCIDENTS)] == [(at(12), "ada")]
    assert await all_(engine, "SELECT version FROM incident") == [(version,)]


async def test_an_acknowledgement_follows_its_alert_through_merges_and_splits(engine: AsyncEngine) -> None:
    # b joins a to c; its end then parts them again.
    told = [alert("a", 0, 10), alert("c", 30), acknowledgement("a", 40), acknowledgement("c", 35, "bob")]
    await deliver(engine, [*told, alert("b", 12)])
    assert [row[3:] for row in await all_(engine, INCIDENTS)] == [(at(35), "bob")]
    await deliver(engine, [alert("b", 12, 20)])
    assert [row[3:] for row in await all_(engine, INCIDENTS)] == [(at(40), "ada"), (at(35), "bob")]


async def test_what_waits_in_vain_is_dropped_after_seven_days_and_counted(engine: AsyncEngine) -> None:
    await deliver(engine, [alert("a", 10), acknowledgement("a", 12), acknowledgement("never", 12)])
    for now, left in ((at(1000) + KEPT, 2), (at(1001) + KEPT, 0)):
        async with db.transaction(engine) as tx:
            await retry_and_drop_acknowledgements(tx, now=now)
        assert await all_(engine, "SELECT count(*) FROM acknowledgement") == [(left,)]
    assert await all_(engine, "SELECT source, value FROM tally WHERE name = 'acknowledgements_dropped'") == [
        ("test", 1)
    ]
    assert [row[3:] for row in await all_(engine, INCIDENTS)] == [(at(12), "ada")]


async def test_one_that_missed_its_alert_is_placed_later(engine: AsyncEngine) -> None:
    """Two transactions that do not see each other store an alert and its acknowledgement."""
    await deliver(engine, [alert("a", 10), acknowledgement("a", 12)])
    async with db.transaction(engine) as tx:
        await tx.execute(text("UPDATE acknowledgement SET timeline_id = NULL"))
        await tx.execute(text("DELETE FROM timeline WHERE kind = 'acknowledged'"))
        await tx.execute(text("UPDATE incident SET acknowledged_at = NULL"))
    async with db.transaction(engine) as tx:
        await retry_and_drop_acknowledgements(tx, now=at(1001))
    assert [row[3:] for row in await all_(engine, INCIDENTS)] == [(at(12), "ada")]


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
    assert [row[3:] for row in await all_(context.engine, INCIDENTS)] == [(at(12), "ada")]


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
