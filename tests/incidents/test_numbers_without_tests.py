"""Numbers beside those of the metrics: an incident marked as a test leaves them, and returns without the mark."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db, schema
from app.base.http.context import Context
from app.incidents.impact.store import in_service_since
from app.response.store.prometheus import read_gauges
from app.settings import Settings
from app.status_page.store.measured import measured_days
from tests.incidents.test_api import deliver, firing, resolved
from tests.incidents.test_marked_as_test import PERIOD, mark
from tests.metrics.prometheus.test_exposition import an_incident, at, store
from tests.metrics.summary.test_labor import paying
from tests.reviews.test_action_items import change
from tests.reviews.test_required import draft, listed, recur
from tests.reviews.test_reviews import ITEMS, new_item, new_review, send

__all__ = ["paying"]


async def unmark(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE incident SET test_stated = NULL"))


async def test_a_test_costs_no_labor(paying: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async def labor() -> Any:
        return (await paying.get(f"/api/v1/metrics/summary?{PERIOD}")).json()["total"]["labor"]

    await store(engine, an_incident("10:00", "11:00", acknowledged_at=at("10:30")))
    before = await labor()
    await store(engine, an_incident("12:00", "13:00", acknowledged_at=at("12:10"), test_stated=True))
    assert await labor() == before
    await unmark(engine)
    assert (await labor())["n"] == before["n"] + 1


async def test_a_test_proposes_nothing_for_the_status_page(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async def proposed() -> Any:
        [found] = (await client.get("/api/v1/status-page/components")).json()["items"]
        return found["proposal"]["incidents"]

    await store(engine, an_incident("10:00", service="shop", severity=1, test_stated=True))
    answer = await client.put("/api/v1/status-page/components/Payments", json={"services": ["shop"]})
    assert answer.status_code == 201, answer.text
    assert await proposed() == []
    await unmark(engine)
    assert await proposed() == ["INC-1"]


MONITORING = {"alert_class": "monitoring", "service": "", "severity": 3}


@pytest.mark.parametrize(
    "test",
    [
        an_incident("08:00", "14:00", **MONITORING, source_ids=[2], test_stated=True),
        # Otherwise the third source would report the service, and its failure would hide the afternoon.
        an_incident("01:00", "02:00", service="shop", source_ids=[3], test_stated=True),
    ],
)
async def test_a_test_changes_no_day_of_a_component(engine: AsyncEngine, test: dict[str, Any]) -> None:
    day, now = at("00:00").date(), at("00:00") + timedelta(days=1)
    component = schema.Component(
        name="Payments",
        description="",
        services=["shop"],
        position=1,
        automatic=False,
        uptime="measured",
        since=day,
        created_at=now,
        updated_at=now,
    )

    async def watched() -> Any:
        async with db.session(engine) as session:
            return await measured_days(session, [component], [day], now=now, weights=Settings().impact)

    earlier = at("00:00") - timedelta(days=1)
    known = {"began_at": earlier, "last_start_at": earlier, "stretch_began_at": earlier}
    await store(
        engine,
        an_incident("00:00", "00:01", service="shop", source_ids=[2]) | known,
        an_incident("15:00", "20:00", **MONITORING, source_ids=[3]),
    )
    before = await watched()
    await store(engine, test)
    assert await watched() == before
    await unmark(engine)
    assert await watched() != before


async def test_a_test_does_not_count_in_the_effect_of_an_action_item(client: httpx.AsyncClient) -> None:
    async def before() -> Any:
        return (await send(client, "GET", f"{ITEMS}/AI-1"))["effect"]["key"]["before"]

    for day in range(10, 17):
        start, end = (f"2026-08-{day}T10:{minute}:00Z" for minute in ("00", "10"))
        await deliver(client, resolved("10:00", "10:10") | {"startsAt": start, "endsAt": end})
    await new_review(client, incidents=["INC-4"])
    await new_item(client, review="REV-1")
    await change(client, state="done", closed_at="2026-08-20T00:00:00Z")
    assert await before() == 6
    await mark(client, 2)
    assert await before() == 5


async def test_a_test_is_not_similar(client: httpx.AsyncClient) -> None:
    async def similar() -> Any:
        found = (await client.get("/api/v1/incidents/INC-1/response")).json()
        return found["definition"]["similar_lasted_longer"]["n"]

    await deliver(client, firing("10:00"))
    for number in range(3):
        await deliver(client, resolved("11:00", "13:00", environment=f"e{number}"))
    assert await similar() == 3
    await mark(client, 2)
    assert await similar() == 2


async def test_a_test_is_not_proposed_for_a_review(client: httpx.AsyncClient) -> None:
    async def proposed() -> Any:
        return (await send(client, "GET", "/api/v1/reviews/REV-1"))["proposed_incidents"]

    await deliver(client, resolved("10:00", "10:30"), resolved("10:05", "10:20", environment="other"))
    await new_review(client, incidents=["INC-1"])
    assert await proposed() == ["INC-2"]
    await mark(client, 2)
    assert await proposed() == []


async def test_a_test_does_not_recur(client: httpx.AsyncClient, context: Context) -> None:
    await recur(client, 18, 19, 20)
    await mark(client, 2)
    assert await draft(context) == 0
    await mark(client, 2, test=None)
    assert await draft(context) == 1


async def test_a_test_joins_no_review_of_incidents_that_recur(client: httpx.AsyncClient, context: Context) -> None:
    await recur(client, 17, 18, 19, 20)
    await mark(client, 2)
    assert await draft(context) == 1
    assert [one["incidents"] for one in await listed(client)] == [["INC-1", "INC-3", "INC-4"]]


async def test_the_response_to_a_test_is_in_no_gauge(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async def gauges() -> Any:
        async with db.transaction(engine) as tx:
            return await read_gauges(tx, ["mail"], datetime.now(UTC))

    before = await gauges()
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    drill = {"title": "t", "service": "mail", "severity": "sev1", "detected_at": since, "test": True}
    assert (await client.post("/api/v1/incidents", json=drill)).status_code == 201
    assert await gauges() == before
    await unmark(engine)
    changed = {name for name, found in (await gauges()).items() if found != before[name]}
    assert changed >= {"updates_overdue", "services_without_playbook"}


async def test_a_service_is_not_in_service_since_a_test(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async def since() -> Any:
        async with db.transaction(engine) as tx:
            return await in_service_since(tx, None)

    assert (await client.put("/api/v1/services/checkout", json={})).status_code == 201
    await store(engine, an_incident("10:00", "11:00"))
    await store(engine, an_incident("08:00", "09:00", test_stated=True))
    assert await since() == {"checkout": at("10:00")}
    await unmark(engine)
    assert await since() == {"checkout": at("08:00")}
