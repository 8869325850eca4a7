"""Quarantine: what is listed, what is kept within the quota of a source, and what is deleted when."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.base.db import DatabaseMonitor
from app.base.http.context import Context
from app.ingest import quarantine
from app.ingest.endpoints.api import RAW_CHUNK_BYTES
from app.ingest.senders import SENDERS
from app.main import serving
from app.settings import Settings
from tests.conftest import ClientAs, client_of
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert, count, repair_stored_requests

QUOTA = 20_000
FULL = "urn:aftermath:problem:quarantine-full"


def a_bad_alert(size: int = 0, **labels: str) -> dict[str, Any]:
    return an_alert(started="yesterday", **labels) | {"padding": "x" * size}


@pytest.fixture
async def small(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A service whose quarantine is soon full."""
    async with (
        serving(settings.model_copy(update={"quarantine_bytes": QUOTA})) as context,
        client_of(context) as client,
    ):
        yield client


async def items_of(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/api/v1/quarantine", params=query)).json()["items"]
    return found


async def health_of(client: httpx.AsyncClient) -> dict[str, Any]:
    health: dict[str, Any] = (await client.get("/api/v1/sources/alertmanager/health")).json()
    return health


# — what is shown —


async def test_a_list_of_large_items_is_small_and_each_is_returned_whole(client: httpx.AsyncClient) -> None:
    bad = a_bad_alert(size=3 * RAW_CHUNK_BYTES + 7)
    bodies = [json.dumps(a_delivery(an_alert(), bad)).encode(), json.dumps(a_delivery(bad | {"labels": "ä"})).encode()]
    for body in bodies:
        assert (await client.post(WEBHOOK, content=body)).status_code == 200
    page = await client.get("/api/v1/quarantine")
    assert len(page.content) < 2_000
    for item in page.json()["items"]:
        raw = await client.get(f"/api/v1/quarantine/{item['id']}/raw")
        assert raw.headers["content-type"] == "application/octet-stream"
        assert (len(raw.content), int(raw.headers["content-length"])) == (item["size_bytes"], item["size_bytes"])
        assert raw.content in bodies[item["id"] - 1]


async def test_one_item_shows_its_headers(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(a_bad_alert()), headers={"X-Tenant": "blue", "X-Secret": "hidden"})
    [listed] = await items_of(client)
    item = (await client.get("/api/v1/quarantine/1")).json()
    headers = item.pop("headers")
    assert item == listed
    assert headers["x-tenant"] == "blue"
    assert "x-secret" not in headers


@pytest.mark.parametrize("path", ["", "/raw", "/replay"])
async def test_an_unknown_item(client: httpx.AsyncClient, path: str) -> None:
    method = "POST" if path == "/replay" else "GET"
    answer = await client.request(method, f"/api/v1/quarantine/7{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:aftermath:problem:quarantined-not-found")


# — the quota —


async def test_when_quarantine_is_full_the_readable_part_is_stored_and_the_sender_keeps_the_rest(
    small: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    assert (await small.post(WEBHOOK, json=a_delivery(a_bad_alert(size=7_000)))).status_code == 200
    delivery = a_delivery(a_bad_alert(size=7_000), an_alert(instance="good"))
    for verdict in ("opened", "repeated"):  # the sender retries
        answer = await small.post(WEBHOOK, json=delivery)
        assert (answer.status_code, answer.json()["type"]) == (503, FULL)
        assert "Retry-After" in answer.headers
        assert "DELETE" not in answer.json()["detail"].split("AFTERMATH_QUARANTINE_BYTES")[1]
        assert await count(engine, f"SELECT sum(value) FROM tally WHERE label = '{verdict}'") == 1
    assert await count(engine, "SELECT count(*) FROM alert WHERE labels->>'instance' = 'good'") == 1
    assert await count(engine, "SELECT count(*) FROM quarantine") == 1
    assert await count(engine, "SELECT sum(stored_bytes) FROM stored_request") <= QUOTA
    # Once there is room, the sender gets rid of it.
    assert (await small.delete("/api/v1/quarantine/1")).status_code == 204
    answer = await small.post(WEBHOOK, json=delivery)
    assert (answer.status_code, answer.json()["verdicts"]) == (200, {"repeated": 1, "quarantined": 1})


async def test_one_source_fills_only_its_own_quarantine(small: httpx.AsyncClient) -> None:
    for status in (200, 503):
        assert (await small.post(WEBHOOK, json=a_delivery(a_bad_alert(size=7_000)))).status_code == status
    answer = await small.post("/webhooks/grafana", json=a_delivery(a_bad_alert(size=7_000)))
    assert (answer.status_code, answer.json()["verdicts"]) == (200, {"quarantined": 1})


async def test_many_small_items_fill_it_too(small: httpx.AsyncClient, engine: AsyncEngine) -> None:
    statuses = [(await small.post(WEBHOOK, json=a_delivery(a_bad_alert()))).status_code for _ in range(12)]
    assert statuses == sorted(statuses)
    assert statuses.count(503) > 2
    assert await count(engine, "SELECT count(*) FROM quarantine") == statuses.count(200)


async def test_deliveries_at_once_share_the_quota(small: httpx.AsyncClient, engine: AsyncEngine) -> None:
    sent = (small.post(WEBHOOK, json=a_delivery(a_bad_alert(size=5_000, instance=str(n)))) for n in range(20))
    statuses = [answer.status_code for answer in await asyncio.gather(*sent)]
    assert set(statuses) == {200, 503}
    # A batch does not see what the other lane is storing at that moment.
    assert await count(engine, "SELECT sum(stored_bytes) FROM stored_request") <= 2 * QUOTA


async def test_a_deployment_that_cannot_be_kept_is_503(small: httpx.AsyncClient) -> None:
    report = dict(SENDERS["gitlab"].example) | {"status_changed_at": "yesterday", "padding": "x" * QUOTA}
    answer = await small.post("/webhooks/gitlab", json=report)
    assert (answer.status_code, answer.json()["type"]) == (503, FULL)


async def test_what_cannot_be_applied_counts_too(small: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE alert ADD CHECK (labels->>'instance' <> 'poison')"))
    answer = await small.post(WEBHOOK, json=a_delivery(an_alert(instance="poison") | {"padding": "x" * QUOTA}))
    assert (answer.status_code, answer.json()["type"]) == (503, FULL)
    assert await count(engine, "SELECT count(*) FROM quarantine") == 0


async def test_what_was_acknowledged_into_the_spool_is_kept_beyond_the_quota(
    small: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await small.post(WEBHOOK, json=a_delivery(an_alert()))
    monkeypatch.setattr(DatabaseMonitor, "is_down", True)
    assert (await small.post(WEBHOOK, json=a_delivery(a_bad_alert(size=QUOTA)))).status_code == 202
    monkeypatch.undo()
    async with asyncio.timeout(30):
        while not await count(engine, "SELECT count(*) FROM quarantine"):
            await asyncio.sleep(0.1)
    assert (await small.post(WEBHOOK, json=a_delivery(a_bad_alert()))).status_code == 503


async def test_items_that_were_replayed_make_room(small: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await small.post(WEBHOOK, json=a_delivery(a_bad_alert(size=7_000)))
    await repair_stored_requests(engine)
    assert (await small.post("/api/v1/quarantine/1/replay")).json()["verdicts"] == {"opened": 1}
    assert len(await items_of(small, replayed="true")) == 1
    assert (await small.post(WEBHOOK, json=a_delivery(a_bad_alert(size=7_000)))).status_code == 200
    [item] = await items_of(small, replayed="true")
    assert item["replayed_at"] is None


async def test_source_health_reports_it(small: httpx.AsyncClient) -> None:
    await small.post(WEBHOOK, json=a_delivery(a_bad_alert(size=7_000)))
    health = await health_of(small)
    assert (health["quarantine_bytes_at_most"], 14_000 < health["quarantine_bytes"] < QUOTA) == (QUOTA, True)
    await small.post(WEBHOOK, json=a_delivery(a_bad_alert(size=7_000)))
    health = await health_of(small)
    [reason] = [each for each in health["reasons"] if each["reason"] == "quarantine_full"]
    assert (reason["status"], health["since_created"]["quarantine_refused"]) == ("failing", 1)
    assert "AFTERMATH_QUARANTINE_BYTES" in reason["remedy"]


# — deletion and retention —


async def test_deleting_everything_of_a_source(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    for door in (WEBHOOK, WEBHOOK, "/webhooks/grafana"):
        await client.post(door, json=a_delivery(a_bad_alert(), a_bad_alert(instance="b")))
    answer = await client.delete("/api/v1/quarantine", params={"source": "alertmanager"})
    assert (answer.status_code, answer.json()["items"]) == (200, 4)
    assert answer.json()["stored_bytes"] > 4 * quarantine.OVERHEAD_BYTES
    assert {item["source"] for item in await items_of(client)} == {"grafana"}
    assert await count(engine, "SELECT count(*) FROM stored_request") == 1
    assert (await client.delete("/api/v1/quarantine")).status_code == 422
    assert (await client.delete("/api/v1/quarantine", params={"source": "unknown"})).status_code == 404


async def test_the_request_goes_with_its_last_item(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await client.post(WEBHOOK, json=a_delivery(a_bad_alert(size=500), a_bad_alert(instance="b")))
    size = "SELECT coalesce(sum(stored_bytes), 0) FROM stored_request"
    before = await count(engine, size)
    assert (await client.delete("/api/v1/quarantine/1")).status_code == 204
    assert 0 < await count(engine, size) < before - 500
    assert (await client.post("/api/v1/quarantine/2/replay")).status_code == 200
    assert (await client.delete("/api/v1/quarantine/2")).status_code == 204
    assert await count(engine, size) == 0
    assert (await client.delete("/api/v1/quarantine/2")).status_code == 404


@pytest.mark.parametrize("scope", [None, Scope.INGEST, Scope.READ])
async def test_only_writers_delete(client: httpx.AsyncClient, client_as: ClientAs, scope: Scope | None) -> None:
    await client.post(WEBHOOK, json=a_delivery(a_bad_alert()))
    other = await client_as(scope)
    for path in ("/api/v1/quarantine?source=alertmanager", "/api/v1/quarantine/1"):
        assert (await other.delete(path)).status_code in {401, 403}
    assert len(await items_of(client)) == 1


async def test_old_items_are_deleted_replayed_or_not(
    client: httpx.AsyncClient, context: Context, engine: AsyncEngine
) -> None:
    for instance in "abc":
        await client.post(WEBHOOK, json=a_delivery(a_bad_alert(instance=instance)))
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE quarantine SET replayed_at = now() WHERE id = 1"))
        await connection.execute(text("UPDATE quarantine SET received_at = now() - interval '91 days' WHERE id < 3"))
    before = datetime.now(UTC) - timedelta(days=context.settings.retention_quarantine_days)
    async with db.session(engine) as session:
        assert (await quarantine.delete_old(session, before)).items == 2
    assert [item["id"] for item in await items_of(client, replayed="true")] == [3]
    assert await count(engine, "SELECT count(*) FROM stored_request") == 1
