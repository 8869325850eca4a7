"""Reviews that are required: drafted once per incident, with any number of processes, and corrected with the facts."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.http.context import Context
from app.metrics.prometheus.reviews import REQUIRED_OUTCOMES as OUTCOMES
from app.reviews.store.required import Requirements
from tests.incidents.test_api import act, deliver, firing, resolved
from tests.reviews.test_reviews import REVIEWS, send, step
from tests.statements import counted

NOON = datetime(2026, 8, 20, 12, tzinfo=UTC)  # a Thursday


async def draft(context: Context, *, now: datetime = NOON) -> int:
    return await context.part(Requirements).draft(context.engine, now=now)


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
    assert review["due_at"] == "2026-08-24T10:30:00Z"  # 48 hours from Monday to Friday, as the shipped target says
    shown = await send(client, "GET", f"{REVIEWS}/REV-1")
    assert [(one["person"], one["part"]) for one in shown["participants"]] == [
        ("ada", "first_responder"),
        ("bob", "escalation"),
    ]
    assert (await client.get("/api/v1/incidents/INC-1")).json()["measures"]["analysis"]["status"] == "pending"


async def test_those_who_joined_or_held_a_role_are_proposed_as_participants(
    client: httpx.AsyncClient, context: Context
) -> None:
    await deliver(client, resolved("10:00", "10:30", severity="sev1"))
    await act(client, "acknowledge", at="2026-08-20T10:02:00Z", by="ada")
    await act(client, "facts", status=201, kind="joined", person="ben", how="asked", by="ada")
    for role, person in (("communications", "cy"), ("commander", "ben"), ("commander", "dee")):
        await act(client, "roles", status=201, role=role, person=person, by="ada", at="2026-08-20T10:05:00Z")
    assert await draft(context) == 1
    shown = await send(client, "GET", f"{REVIEWS}/REV-1")
    found = {one["person"]: (one["part"], one["involved_in"]) for one in shown["participants"]}
    assert {person: part for person, (part, _) in found.items()} == {
        "ada": "first_responder", "ben": "commander", "cy": "communications", "dee": "commander",
    }  # fmt: skip
    assert found["ben"][1] == ["role", "joined"]


async def test_several_processes_and_restarts_make_exactly_one_draft_each(
    client: httpx.AsyncClient, context: Context, engine: AsyncEngine
) -> None:
    for number in range(5):
        await deliver(client, resolved("10:00", "10:30", service=f"s{number}", severity="sev1"))

    async def round_of_another_process() -> None:
        await context.part(Requirements).draft(engine, now=NOON)

    for _ in range(2):
        await asyncio.gather(*(round_of_another_process() for _ in range(4)))
    assert sorted(one["incidents"][0] for one in await listed(client)) == [f"INC-{n}" for n in range(1, 6)]


TYPE: dict[str, Any] = {
    "exit_criteria": ["Users can pay"],
    "channels": [{"kind": "slack", "name": "#inc-{number}"}, {"kind": "phone", "name": "Bridge 1"}],
}


async def test_a_type_requires_a_review_of_every_such_incident_or_rules_it_out(
    client: httpx.AsyncClient, context: Context
) -> None:
    for name, review in (("always", "required"), ("never", "never")):
        values = {"matchers": [f"service={name}"], "review": review}
        await send(client, "PUT", f"/api/v1/incident-types/{name}", 201, **TYPE | values)
    await send(
        client, "PUT", "/api/v1/incident-types/stated", 201, **TYPE, position=200, matchers=["a=b"], review="never"
    )
    for service, severity in (("always", "sev4"), ("never", "sev1"), ("other", "sev1"), ("other", "sev4")):
        await deliver(client, resolved("10:00", "10:30", service=service, severity=severity, instance=severity))
    await deliver(client, resolved("10:00", "10:30", service="odd", severity="sev1"))
    await send(client, "PATCH", "/api/v1/incidents/INC-4", type="stated")
    assert await draft(context) == 2
    found = {one["incidents"][0]: (one["required_because"], one["due_at"]) for one in await listed(client)}
    assert found == {
        "INC-1": (["type"], "2026-08-28T00:00:00Z"),  # nothing was agreed on for sev4: five business days
        "INC-3": (["severity"], "2026-08-21T10:30:00Z"),
    }


async def test_a_target_says_whether_its_severity_requires_a_review_and_until_when(
    client: httpx.AsyncClient, context: Context
) -> None:
    hours = {"thursday": [{"from": "09:00", "to": "12:00"}], "monday": [{"from": "09:00", "to": "17:00"}]}
    await send(client, "PUT", "/api/v1/calendars/office", 201, zone="UTC", hours=hours)
    await send(client, "PUT", "/api/v1/services/shop", 201)
    targets = [
        {"severity": "sev1", "acknowledge_seconds": 300},
        {"severity": "sev3", "review_seconds": 4 * 3600, "calendar": "office"},
        {"severity": "sev4", "from": "2026-08-21T00:00:00Z", "review_seconds": 3600},
    ]
    answer = await client.put("/api/v1/targets", params={"service": "shop"}, json={"targets": targets})
    assert answer.status_code == 200, answer.text
    for number, severity in enumerate(("sev1", "sev2", "sev3", "sev4")):
        await deliver(client, resolved("10:00", "10:30", service="shop", severity=severity, environment=f"e{number}"))
    assert await draft(context) == 2
    found = {one["incidents"][0]: (one["required_because"], one["due_at"]) for one in await listed(client)}
    assert found == {
        "INC-2": (["severity"], "2026-08-24T10:30:00Z"),  # the service has no target of its own for sev2
        "INC-3": (["severity"], "2026-08-24T11:30:00Z"),  # 90 minutes on Thursday, the rest on Monday
    }


async def test_a_review_that_a_person_drafts_is_required_from_the_start(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:30", severity="sev3"))
    await deliver(client, resolved("10:00", "10:30", service="cart", severity="sev2"))
    await deliver(client, firing("10:00", service="search", severity="sev1"))
    for number, (why, due) in enumerate(
        (([], None), (["severity"], "2026-08-24T10:30:00Z"), ([], None)),  # the last has not ended
        start=1,
    ):
        made = await send(client, "POST", REVIEWS, 201, title="t", incidents=[f"INC-{number}"])
        assert (made["required_because"], made["due_at"]) == (why, due)
    stated = "2026-08-23T10:00:00Z"
    made = await send(client, "POST", REVIEWS, 201, title="t", incidents=["INC-1", "INC-2"], due_at=stated)
    assert (made["required_because"], made["due_at"]) == (["severity"], stated)


async def test_what_was_agreed_on_is_read_with_a_fixed_number_of_statements(
    client: httpx.AsyncClient, context: Context
) -> None:
    async def statements() -> int:
        with counted(context.engine) as found:
            await draft(context)
        return len(found)

    await deliver(client, resolved("10:00", "10:30", severity="sev3"))
    one = await statements()
    for number in range(9):
        await deliver(client, resolved("10:00", "10:30", service=f"s{number}", severity="sev3"))
    assert await statements() == one


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


async def recur(client: httpx.AsyncClient, *days: int, severity: str = "sev3", **labels: str) -> None:
    for day in days:
        start, end = (f"2026-08-{day}T10:{minute}:00Z" for minute in ("00", "30"))
        alert = resolved("10:00", "10:30", severity=severity, **labels)
        await deliver(client, alert | {"startsAt": start, "endsAt": end})


async def test_a_draft_is_required_by_all_its_incidents(client: httpx.AsyncClient, context: Context) -> None:
    await recur(client, 20, severity="sev1")
    assert await draft(context) == 1
    await recur(client, 26, service="cart")
    await send(client, "PATCH", f"{REVIEWS}/REV-1", incidents=["INC-1", "INC-2"])
    later = NOON + timedelta(days=8)  # the first ended too long ago for a draft
    assert await draft(context, now=later) == 0
    assert (await listed(client))[0]["required_because"] == ["severity"]
    await send(client, "PATCH", "/api/v1/incidents/INC-1", severity="sev3")
    await send(client, "POST", "/api/v1/incidents/INC-2/reopen")
    await draft(context, now=NOON + timedelta(days=6))
    assert (await listed(client))[0]["required_because"] == ["severity"], "one is open"
    await send(client, "POST", "/api/v1/incidents/INC-2/resolve")
    await draft(context, now=datetime.now(UTC))
    assert (await listed(client))[0]["required_because"] == []


async def test_no_incident_gets_several_drafts_in_one_round(client: httpx.AsyncClient, context: Context) -> None:
    await recur(client, 18, severity="sev1")
    await recur(client, 19, 20)
    assert [await draft(context) for _ in range(2)] == [1, 0]
    assert [one["incidents"] for one in await listed(client)] == [["INC-1"]]


async def test_a_dropped_review_of_a_recurrence_is_none(client: httpx.AsyncClient, context: Context) -> None:
    await recur(client, 17, 18, 19)
    assert await draft(context) == 1
    await step(client, "drop", because="a duplicate")
    assert await draft(context) == 0
    await recur(client, 20)
    assert await draft(context) == 1
    assert (await listed(client))[0]["required_because"] == ["recurrence"]


async def test_a_review_of_a_recurrence_that_a_person_drafts_is_required(client: httpx.AsyncClient) -> None:
    await recur(client, 18, 19, 20)
    made = await send(client, "POST", REVIEWS, 201, title="t", incidents=["INC-1", "INC-2", "INC-3"])
    assert made["required_because"] == ["recurrence"]


async def test_a_budget_is_judged_in_the_month_of_the_incident(client: httpx.AsyncClient, context: Context) -> None:
    await send(client, "PUT", "/api/v1/services/shop", 201, in_service_since="2026-01-01T00:00:00Z")
    objective = {"target": "0.999", "window": {"calendar": "month"}, "weighted": False}
    await send(client, "PUT", "/api/v1/services/shop/objective", 201, **objective)
    await recur(client, 31, service="shop")
    assert await draft(context, now=datetime(2026, 9, 2, tzinfo=UTC)) == 1
    assert (await listed(client))[0]["required_because"] == ["budget"]


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
    for outcome in OUTCOMES:
        assert f'aftermath_reviews_required_total{{outcome="{outcome}"}} 1.0' in page


async def test_a_required_review_is_counted_once(client: httpx.AsyncClient, context: Context) -> None:
    """Its first outcome counts: a counter never falls."""
    await deliver(client, resolved("10:00", "10:30", severity="sev1"))
    await draft(context)
    for held_at in ("2026-08-21T09:00:00Z", "2026-08-22T09:00:00Z"):
        await step(client, "hold", facilitator=None, held_at=held_at)
        await step(client, "reopen")
    await step(client, "drop", because="r")
    page = (await client.get("/metrics")).text
    counted = {outcome: f'reviews_required_total{{outcome="{outcome}"}} 1.0' in page for outcome in OUTCOMES}
    assert counted == {"held": True, "late": False, "dropped": False}
