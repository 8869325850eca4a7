"""Reviews that are required: drafted once per incident, with any number of processes, and corrected with the facts."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.http.context import Context
from app.reviews.store.required import draft_required
from tests.incidents.test_api import act, deliver, firing, resolved
from tests.reviews.test_reviews import REVIEWS, send, step

NOON = datetime(2026, 8, 20, 12, tzinfo=UTC)  # a Thursday


async def draft(context: Context, *, now: datetime = NOON) -> int:
    async with db.session(context.engine) as session:
        return await draft_required(session, now=now, weights=context.settings.impact)


async def listed(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get(REVIEWS)).json()["items"]
    return items


async def test_an_ended_sev2_gets_one_draft(client: httpx.AsyncClient, context: Context) -> None:
    await deliver(client, firing("10:00", severity="sev2"))
    await deliver(client, resolved("10:00", "10:30", service="cart", severity="sev3"))
    await act(client, "acknowledge", at="2026-08-20T10:02:00Z", by="ada")
    await act(client, "tasks", status=201, text="t", at="2026-08-20T10:03:00Z", by="bob")
    assert await draft(context) == 0
    await deliver(client, resolved("10:00", "10:30", severity="sev2"))
    assert [await draft(context) for _ in range(3)] == [1, 0, 0]
    [review] = await listed(client)
    assert (review["incidents"], review["required_because"], review["state"]) == (["INC-1"], ["severity"], "draft")
    assert review["due_at"] == "2026-08-25T00:00:00Z"  # two business days
    shown = await send(client, "GET", f"{REVIEWS}/REV-1")
    assert [(one["person"], one["part"]) for one in shown["participants"]] == [
        ("ada", "first_responder"),
        ("bob", "escalation"),
    ]
    assert (await client.get("/api/v1/incidents/INC-1")).json()["measures"]["analysis"]["status"] == "pending"


async def test_several_processes_and_restarts_make_exactly_one_draft_each(
    client: httpx.AsyncClient, context: Context, engine: AsyncEngine
) -> None:
    for number in range(5):
        await deliver(client, resolved("10:00", "10:30", service=f"s{number}", severity="sev1"))

    async def round_of_another_process() -> None:
        async with db.session(engine) as session:
            await draft_required(session, now=NOON, weights=context.settings.impact)

    for _ in range(2):
        await asyncio.gather(*(round_of_another_process() for _ in range(4)))
    assert sorted(one["incidents"][0] for one in await listed(client)) == [f"INC-{n}" for n in range(1, 6)]


async def test_a_dropped_or_existing_review_is_not_drafted_again(client: httpx.AsyncClient, context: Context) -> None:
    await deliver(client, resolved("10:00", "10:30", severity="sev1"))
    assert await draft(context) == 1
    await step(client, "drop", because="a duplicate")
    assert await draft(context) == 0
    await deliver(client, resolved("10:00", "10:30", service="cart", severity="sev1"))
    await send(client, "POST", REVIEWS, 201, title="t", incidents=["INC-2"])
    assert await draft(context) == 0
    assert (await listed(client))[0]["required_because"] == ["severity"]


async def test_a_required_review_is_dropped_only_by_an_admin(
    client: httpx.AsyncClient, context: Context, client_as: Any
) -> None:
    await deliver(client, resolved("10:00", "10:30", severity="sev1"))
    await draft(context)
    writer = await client_as("write")
    answer = await writer.post(f"{REVIEWS}/REV-1/drop", json={"because": "no time"})
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:aftermath:problem:review-is-required")
    await step(client, "drop", because="covered elsewhere")


async def test_a_corrected_severity_changes_whether_it_is_required(client: httpx.AsyncClient, context: Context) -> None:
    await deliver(client, resolved("10:00", "10:30", severity="sev2"))
    await draft(context)
    await send(client, "PATCH", "/api/v1/incidents/INC-1", severity="sev3")
    await draft(context)
    [review] = await listed(client)
    assert (review["required"], review["state"]) == (False, "draft")


async def test_an_incident_that_recurs_gets_one_review_for_all(client: httpx.AsyncClient, context: Context) -> None:
    for day in (18, 19, 20):
        assert await draft(context) == 0
        start, end = (f"2026-08-{day}T10:{minute}:00Z" for minute in ("00", "30"))
        await deliver(client, resolved("10:00", "10:30", severity="sev3") | {"startsAt": start, "endsAt": end})
    assert [await draft(context) for _ in range(2)] == [1, 0]
    [review] = await listed(client)
    assert (review["incidents"], review["required_because"]) == (["INC-1", "INC-2", "INC-3"], ["recurrence"])
    await deliver(client, resolved("11:30", "11:40", severity="sev3"))
    assert await draft(context) == 0


async def test_an_incident_that_burns_a_fifth_of_its_budget_is_reviewed(
    client: httpx.AsyncClient, context: Context
) -> None:
    """0.1 % of 30 days are 43 minutes; 9 minutes are 21 % of them."""
    for service, end in (("shop", "10:09"), ("cart", "10:08")):
        await deliver(client, resolved("10:00", end, service=service, severity="sev3"))
        await send(client, "PUT", f"/api/v1/services/{service}", in_service_since="2026-01-01T00:00:00Z")
        objective = {"target": "0.999", "window": {"rolling_days": 30}, "weighted": False}
        await send(client, "PUT", f"/api/v1/services/{service}/objective", 201, **objective)
    assert await draft(context) == 1
    [review] = await listed(client)
    assert (review["incidents"], review["required_because"]) == (["INC-1"], ["budget"])


async def test_the_past_gets_no_drafts(client: httpx.AsyncClient, context: Context) -> None:
    await deliver(client, resolved("10:00", "10:30", severity="sev1"))
    assert await draft(context, now=NOON + timedelta(days=8)) == 0
    assert await draft(context, now=NOON + timedelta(days=6)) == 1


async def test_required_reviews_are_counted_by_outcome(client: httpx.AsyncClient, context: Context) -> None:
    for service in ("a", "b", "c"):
        await deliver(client, resolved("10:00", "10:30", service=service, severity="sev1"))
    await draft(context)
    numbers = {one["incidents"][0]: one["number"] for one in await listed(client)}
    await step(client, "hold", numbers["INC-1"], facilitator=None, held_at="2026-08-21T09:00:00Z")
    await step(client, "hold", numbers["INC-2"], facilitator=None, held_at="2026-08-22T09:00:00Z")
    await step(client, "drop", numbers["INC-3"], because="r")
    page = (await client.get("/metrics")).text
    for outcome in ("held", "late", "dropped"):
        assert f'aftermath_reviews_required_total{{outcome="{outcome}"}} 1.0' in page
