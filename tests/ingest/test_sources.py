"""Sources over REST: one that has never delivered anything can be deleted."""

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.access.tokens import Scope
from tests.conftest import ClientAs
from tests.incidents.test_api import deliver, firing

PATH = "/api/v1/sources/prdo"


@pytest.fixture
async def misspelled(client: httpx.AsyncClient, engine: AsyncEngine) -> str:
    """The name of its token, which was revoked an hour ago."""
    wanted = {"name": "of-prdo", "scope": "ingest", "source": "prdo", "kind": "grafana"}
    created = await client.post("/api/v1/tokens", json=wanted)
    assert created.status_code == 201, created.text
    await client.delete("/api/v1/tokens/of-prdo")
    await revoked(engine, "1 hour")
    return "of-prdo"


async def revoked(engine: AsyncEngine, ago: str) -> None:
    async with engine.begin() as tx:
        await tx.execute(text(f"UPDATE token SET revoked_at = now() - interval '{ago}' WHERE name = 'of-prdo'"))


async def test_a_source_that_has_not_delivered_is_deleted_with_its_revoked_tokens(
    client: httpx.AsyncClient, misspelled: str
) -> None:
    tokens = (await client.get("/api/v1/tokens?revoked=true")).json()["items"]
    assert [each["name"] for each in tokens] == [misspelled]
    assert (await client.delete(PATH)).status_code == 204
    assert [(await client.get(PATH)).status_code, (await client.delete(PATH)).status_code] == [404, 404]
    assert (await client.get("/api/v1/tokens?revoked=true")).json()["items"] == []


IN_USE = {
    "tokens": "UPDATE token SET revoked_at = now() - interval '50 s'",
    "deliveries": "INSERT INTO tally VALUES ('deliveries', 'prdo', 'accepted', 0, 1)",
    "a reconciler": "INSERT INTO reconciler (source_id, peers, poll_seconds, absences, grace_seconds, counted_at) "
    "SELECT id, '{http://am}', 30, 3, 60, '{}' FROM source WHERE name = 'prdo'",
    "heartbeats": "INSERT INTO heartbeat (source_id, fingerprint, rule, labels, first_at, last_at) "
    "SELECT id, 'f', 'r', '{}', now(), now() FROM source WHERE name = 'prdo'",
    "changes": "INSERT INTO change (id, reported_id, source, service, happened_at, clock_ahead, received_at) "
    "VALUES ('prdo:1', '1', 'prdo', 'shop', now(), false, now())",
}


@pytest.mark.parametrize("what", IN_USE)
async def test_a_source_that_is_in_use_stays(
    client: httpx.AsyncClient, engine: AsyncEngine, misspelled: str, what: str
) -> None:
    async with engine.begin() as tx:
        await tx.execute(text(IN_USE[what]))
    refused = await client.delete(PATH)
    assert (refused.status_code, refused.json()["title"]) == (409, "The source is in use")
    assert refused.json()["detail"].startswith(f"it has {what}")
    assert "revoke its tokens" in refused.json()["detail"]
    assert (await client.get(PATH)).status_code == 200
    assert [each["name"] for each in (await client.get("/api/v1/tokens?revoked=true")).json()["items"]] == [misspelled]


async def test_alerts_keep_their_source(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    [source] = (await client.get("/api/v1/sources")).json()["items"]
    assert (await client.delete(f"/api/v1/sources/{source['name']}")).status_code == 409


async def test_the_source_of_the_admin_token_stays(client: httpx.AsyncClient) -> None:
    assert (await client.put("/api/v1/sources/grafana", json={"kind": "grafana"})).status_code == 200
    refused = await client.delete("/api/v1/sources/grafana")
    assert refused.status_code == 409
    assert "admin token" in refused.json()["detail"]


async def test_only_an_admin_deletes_a_source(client_as: ClientAs, misspelled: str) -> None:
    writer = await client_as(Scope.WRITE)
    assert (await writer.delete(PATH)).status_code == 403
