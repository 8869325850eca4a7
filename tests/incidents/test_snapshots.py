"""A response needs several statements. Deliveries between them do not show in it."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.incidents.reading import views
from tests.incidents.test_api import deliver, resolved


@pytest.fixture
def merging(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Two incidents. After the first statement about the incidents of a response, a delivery merges them."""
    names, merged = views.source_names, False

    async def then_merge(*args: Any) -> Any:
        nonlocal merged
        found = await names(*args)
        if not merged:
            merged = True
            receipt = await deliver(client, resolved("10:12", "10:27", instance="c"))
            assert receipt["verdicts"] == {"merged": 1}
        return found

    async def two() -> None:
        await deliver(client, resolved("10:30", "10:40"))
        await deliver(client, resolved("10:00", "10:10", instance="b"))
        monkeypatch.setattr(views, "source_names", then_merge)

    return two


async def test_a_list_shows_incidents_as_they_were_before_a_merge(
    client: httpx.AsyncClient, merging: Callable[[], Awaitable[None]]
) -> None:
    await merging()
    items = (await client.get("/api/v1/incidents")).raise_for_status().json()["items"]
    assert {one["number"]: one["downtime_seconds"] for one in items} == {"INC-1": 600, "INC-2": 600}
    items = (await client.get("/api/v1/incidents")).raise_for_status().json()["items"]
    assert {one["number"]: one["downtime_seconds"] for one in items} == {"INC-1": 2100}


async def test_an_incident_is_shown_as_it_was_before_a_merge(
    client: httpx.AsyncClient, merging: Callable[[], Awaitable[None]]
) -> None:
    await merging()
    shown = (await client.get("/api/v1/incidents/INC-2")).raise_for_status().json()
    assert (shown["merged_into"], shown["downtime_seconds"]) == (None, 600)


async def test_an_export_shows_incidents_as_they_were_before_a_merge(
    client: httpx.AsyncClient, merging: Callable[[], Awaitable[None]]
) -> None:
    await merging()
    _, *lines = (await client.get("/api/v1/incidents?format=csv")).raise_for_status().text.splitlines()
    assert [line.partition(",")[0] for line in lines[:2]] == ["INC-1", "INC-2"]


async def test_a_transaction_that_reads_sees_one_state_and_cannot_write(engine: AsyncEngine) -> None:
    count = text("SELECT count(*) FROM service")
    insert = text("INSERT INTO service (name, links, first_seen_at, updated_at) VALUES ('x', '[]', now(), now())")
    async with db.read_session(engine) as rows:
        tx = await rows.connection()
        assert (await tx.execute(count)).scalar_one() == 0
        async with db.transaction(engine) as other:
            await other.execute(insert)
        assert (await tx.execute(count)).scalar_one() == 0
        with pytest.raises(DBAPIError, match="read-only"):
            await tx.execute(insert)
    async with db.transaction(engine) as tx:  # the pooled connection is an ordinary one again
        await tx.execute(text("DELETE FROM service"))
        assert (await tx.execute(text("SHOW transaction_isolation"))).scalar_one() == "read committed"
