"""Action items over HTTP: states, due times, filters, and the measured effect."""

from typing import Any

import httpx
import pytest

from tests.incidents.test_api import clock, deliver, firing, resolved
from tests.reviews.test_reviews import ITEMS, REVIEWS, find, new_item, new_review, published, send, step


async def change(client: httpx.AsyncClient, item: str = "AI-1", status: int = 200, **body: Any) -> dict[str, Any]:
    return await send(client, "PATCH", f"{ITEMS}/{item}", status, **body)


async def test_an_action_item_is_done_reopened_and_dropped(client: httpx.AsyncClient) -> None:
    await new_review(client)
    made = await new_item(client, done_when="It fires in a test")
    assert (made["number"], made["state"], made["review"], made["incident"]) == ("AI-1", "open", "REV-1", None)
    assert (made["question"], made["due_at"], made["hints"], made["term"]) == ("know_sooner", None, [], "short")
    assert (await change(client, state="in_progress"))["closed_at"] is None
    done = await change(client, state="done", closed_at=clock("12:00"))
    assert (done["closed_at"], done["reopened"]) == (clock("12:00"), 0)
    assert (await change(client, effective="no", effective_note="it fired too late"))["effective"] == "no"
    again = await change(client, state="open")
    assert (again["closed_at"], again["reopened"], again["effective"]) == (None, 1, None)
    await change(client, status=422, state="dropped")
    dropped = await change(client, state="dropped", dropped_because="the service is gone")
    assert (dropped["state"], dropped["dropped_because"]) == ("dropped", "the service is gone")
    assert (await change(client, state="open"))["dropped_because"] is None


async def test_the_due_time_follows_from_the_priority(client: httpx.AsyncClient) -> None:
    await new_review(client)
    first, stated, none = (
        await new_item(client, priority=1),
        await new_item(client, priority=1, due_at=clock("10:00")),
        await new_item(client, priority=3, due_at=None),
    )
    assert first["due_at"] > first["created_at"]
    assert (stated["due_at"], none["due_at"]) == (clock("10:00"), None)
    assert stated["overdue_seconds"] > 0
    assert first["overdue_seconds"] == none["overdue_seconds"] == 0
    await new_item(client)
    assert (await change(client, "AI-4", priority=2))["due_at"] is not None


@pytest.mark.parametrize(
    "body",
    [
        {"review": None},
        {"review": "REV-0"},
        {"title": ""},
        {"phase": "cause"},
        {"priority": 4},
        {"priority": 0},
        {"term": "middle"},
        {"link": "javascript:alert(1)"},
        {"link": "not a link"},
        {"state": "done"},
        {"finding": "01990a52-5c1e-7000-8000-000000000001"},
    ],
)
async def test_an_action_item_that_is_not_acceptable_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    await new_review(client)
    await new_item(client, 422, **body)
    assert (await client.get(ITEMS)).json()["items"] == []


async def test_changes_that_contradict_the_state_are_refused(client: httpx.AsyncClient) -> None:
    await new_review(client)
    await new_item(client)
    for wrong in (
        {"effective": "yes"},
        {"closed_at": clock("12:00")},
        {"state": "done", "closed_at": "2199-01-01T00:00:00Z"},
        {"title": None},
        {"state": None},
        {"dropped_because": ""},
    ):
        await change(client, status=422, **wrong)
    assert (await send(client, "GET", f"{ITEMS}/AI-1"))["state"] == "open"


async def test_an_issue_belongs_to_one_action_item(client: httpx.AsyncClient) -> None:
    await new_review(client)
    made = await new_item(client, link="https://GitHub.com/acme/web/issues/7/?x=1#c")
    assert made["link"] == "https://github.com/acme/web/issues/7"
    assert "AI-1" in (await new_item(client, 409, link="https://github.com/acme/web/issues/7"))["detail"]


async def test_a_finding_has_action_items_of_its_review(client: httpx.AsyncClient) -> None:
    await new_review(client)
    await new_review(client)
    finding = (await find(client, text="t"))["id"]
    assert (await new_item(client, finding=finding))["finding"] == finding
    await new_item(client, 422, finding=finding, review="REV-2")
    await send(client, "DELETE", f"{REVIEWS}/REV-1/findings/{finding}", 204)
    assert (await send(client, "GET", f"{ITEMS}/AI-1"))["finding"] is None


async def test_one_list_has_the_action_items_of_all_incidents(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("10:01", service="search"))
    await new_review(client, incidents=["INC-1"])
    await new_item(client, owner="ada", priority=1, due_at=clock("10:00"))
    await new_item(client, review=None, incident="INC-2", phase="response")
    await new_item(client, owner="bob", priority=2)
    await change(client, "AI-3", state="done")

    async def listed(**query: Any) -> list[str]:
        answer = await client.get(ITEMS, params=query)
        assert answer.status_code == 200, answer.text
        return [one["number"] for one in answer.json()["items"]]

    assert await listed() == ["AI-3", "AI-2", "AI-1"]
    assert await listed(state=["open", "in_progress"]) == ["AI-2", "AI-1"]
    assert (await listed(owner="ada"), await listed(owner="")) == (["AI-1"], ["AI-2"])
    assert (await listed(priority=2), await listed(phase="response")) == (["AI-3"], ["AI-2"])
    assert (await listed(owner=["ada", ""]), await listed(priority=[1, 2])) == (["AI-2", "AI-1"], ["AI-3", "AI-1"])
    assert await listed(service=["search", "checkout"]) == ["AI-3", "AI-2", "AI-1"]
    assert (await listed(overdue=True), await listed(overdue=False)) == (["AI-1"], ["AI-3", "AI-2"])
    assert (await listed(review="REV-1"), await listed(incident="INC-2")) == (["AI-3", "AI-1"], ["AI-2"])
    assert (await listed(incident="INC-1"), await listed(service="search")) == (["AI-3", "AI-1"], ["AI-2"])
    first = (await client.get(ITEMS, params={"limit": 2})).json()
    rest = (await client.get(ITEMS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [one["number"] for one in rest["items"]] == ["AI-1"]


async def test_an_action_item_of_an_incident_itself_delays_its_readiness(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    await published(client)
    await new_item(client, review=None, incident="INC-1")

    async def readiness() -> Any:
        return (await client.get("/api/v1/incidents/INC-1")).json()["measures"]["readiness"]["status"]

    assert await readiness() == "pending"
    await change(client, state="dropped", dropped_because="r")
    assert await readiness() == "recorded"


async def test_the_effect_leaves_out_the_incidents_it_comes_from(client: httpx.AsyncClient) -> None:
    """Before it was done: seven incidents of the key, of which one is the origin; after it: none."""
    for day in range(10, 17):
        start, end = (f"2026-08-{day}T10:{minute}:00Z" for minute in ("00", "10"))
        await deliver(client, resolved("10:00", "10:10") | {"startsAt": start, "endsAt": end})
    await new_review(client, incidents=["INC-4"])
    factor = (await find(client, kind="factor", factor="capacity", text="t"))["id"]
    await step(client, "hold", facilitator=None)
    await new_item(client, finding=factor)
    assert (await send(client, "GET", f"{ITEMS}/AI-1"))["effect"] is None
    await change(client, state="done", closed_at="2026-08-20T00:00:00Z")
    effect = (await send(client, "GET", f"{ITEMS}/AI-1"))["effect"]
    assert effect["left_out"] == ["INC-4"]
    assert effect["key"] | {"high": round(effect["key"]["high"], 3)} == {
        "before": 6, "after": 0, "ratio": 0.0, "low": 0.0, "high": 0.849, "verdict": "fewer",
    }  # fmt: skip
    assert (effect["factor"]["before"], effect["factor"]["verdict"]) == (0, "cannot_tell")
    assert (effect["reviewed_before"], effect["reviewed_after"]) == (0.0, None)
    assert effect["before"]["to"] == effect["after"]["from"] == "2026-08-20T00:00:00Z"
