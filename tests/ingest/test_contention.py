"""Transactions that conflict with others wait or are repeated. Nobody concludes from it that the database is down."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.base import db
from app.base.http.context import Context
from app.catalog.rules import store as rules_store
from app.incidents.grouping import decide as grouping
from app.incidents.grouping.rule import Rule
from app.ingest.intake import attempts
from app.ingest.intake.flush import Delivery
from app.ingest.sender import Reading
from app.ingest.service import Ingest
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert, count

CHANGE = text("UPDATE rule SET window_seconds = window_seconds + 60 WHERE name = 'default'")


async def change_rules(engine: AsyncEngine) -> None:
    async with db.transaction(engine) as tx:
        await tx.execute(CHANGE)


async def test_rules_that_change_whenever_they_are_read_delay_nothing(
    client: httpx.AsyncClient, context: Context, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = 0

    async def load_and_change(tx: AsyncConnection) -> Sequence[Rule]:
        nonlocal loads
        loads += 1
        found = await rules_store.rules(tx)
        await change_rules(engine)
        return found

    monkeypatch.setattr(context.part(Ingest).flusher, "_load_rules", load_and_change)
    answer = await client.post(WEBHOOK, json=a_delivery(an_alert()))
    assert (answer.status_code, answer.json().get("verdicts")) == (200, {"opened": 1})
    assert loads == 2
    assert not context.monitor.is_down


async def test_rules_that_have_changed_apply_to_the_next_delivery(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(instance="a")))
    changed = await client.put("/api/v1/rules/each", json={"position": 1, "key_labels": ["instance"]})
    assert changed.status_code == 201
    answer = await client.post(WEBHOOK, json=a_delivery(an_alert(instance="b")))
    assert answer.json()["incidents"] == ["INC-2"]
    incident = (await client.get("/api/v1/incidents/INC-2")).json()
    assert incident["key"] == 'instance="b"'


async def test_a_preview_while_the_rules_are_forgotten(
    client: httpx.AsyncClient, context: Context, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    flusher = context.part(Ingest).flusher
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    read_version = grouping.rules_version

    async def meanwhile(tx: db.Transaction) -> int:
        version = await read_version(tx)
        flusher._loaded = None  # by a batch that found other rules
        return version

    monkeypatch.setattr(grouping, "rules_version", meanwhile)
    async with db.transaction(engine) as tx:
        assert await flusher.preview(tx, Delivery(1, "alertmanager", datetime.now(UTC), Reading())) == []


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
async def test_a_conflict_without_end_is_503_and_the_database_is_not_down(
    client: httpx.AsyncClient, context: Context, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(grouping, "lock", lambda _: f"DO 'BEGIN RAISE SQLSTATE ''{state}''; END'")
    answer = await client.post(WEBHOOK, json=a_delivery(an_alert()))
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:aftermath:problem:keeps-changing")
    assert not context.monitor.is_down
    assert (await context.spool.depth()).records == 0
    assert await count(engine, "SELECT count(*) FROM quarantine") == 0
    monkeypatch.undo()
    assert (await client.post(WEBHOOK, json=a_delivery(an_alert()))).json()["verdicts"] == {"opened": 1}


async def test_a_short_conflict_is_not_noticed(
    client: httpx.AsyncClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, attempts = grouping.lock, 0

    def sometimes(keys: frozenset[object]) -> str:
        nonlocal attempts
        attempts += 1
        return "DO 'BEGIN RAISE SQLSTATE ''40P01''; END'" if attempts < 4 else lock(keys)  # type: ignore[arg-type]

    monkeypatch.setattr(grouping, "lock", sometimes)
    answers = await asyncio.gather(
        *(client.post(WEBHOOK, json=a_delivery(an_alert(instance=str(n)))) for n in range(5))
    )
    assert [answer.status_code for answer in answers] == [200] * 5
    assert not context.monitor.is_down


async def test_a_conflict_of_a_request_is_503_and_says_so(
    client: httpx.AsyncClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def conflicts(*_: object, **__: object) -> None:
        async with db.transaction(context.engine) as tx:
            await tx.execute(text("DO 'BEGIN RAISE SQLSTATE ''40P01''; END'"))

    monkeypatch.setattr(rules_store, "put_rule", conflicts)
    answer = await client.put("/api/v1/rules/each", json={"matchers": ["a=b"]})
    assert answer.status_code == 503
    assert "another request was changing the same data" in answer.json()["detail"]
