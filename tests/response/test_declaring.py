"""Declaring the response to an incident, and how long that took."""

from typing import Any

import httpx

from app.base.access.tokens import Scope
from tests.conftest import ClientAs
from tests.incidents.test_api import act, clock, deliver, firing, incident, resolved
from tests.incidents.test_corrections import revise, timeline


def declared(shown: dict[str, Any]) -> tuple[str | None, float | None, str | None]:
    measure = shown["measures"]["time_to_declare"]
    return shown["declared_at"], measure["seconds"], measure["reason"]


async def test_a_person_declares_the_response_to_a_detected_incident(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    assert declared(await incident(client)) == (None, None, "not declared yet")
    shown = await act(client, "declare", at=clock("10:04"), by="ada", note="Checkout is down")
    assert declared(shown) == (clock("10:04"), 240, None)
    assert (shown["status"], shown["acknowledged_at"]) == ("open", None), "it acknowledges nothing"
    [entry] = await timeline(client, kind="declared")
    assert (entry["at"], entry["by"], entry["note"]) == (clock("10:04"), "ada", "Checkout is down")


async def test_the_first_declaration_counts_and_repeating_it_changes_nothing(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "declare", at=clock("10:04"), by="ada")
    again = await act(client, "declare", at=clock("10:09"), by="ada")
    assert len(await timeline(client, kind="declared")) == 1
    assert again["declared_at"] == clock("10:04")
    await act(client, "declare", at=clock("10:09"), by="ben")
    assert declared(await act(client, "declare", at=clock("10:02"), by="eve"))[:2] == (clock("10:02"), 120)


async def test_nothing_is_declared_before_detection_or_after_the_end(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:20"))
    assert declared(await incident(client)) == (None, None, "resolved without declaration")
    assert (await act(client, "declare", status=422, at=clock("09:59")))["type"].endswith("before-detection")
    assert (await act(client, "declare", status=409))["type"].endswith("already-resolved")
    assert (await act(client, "declare", status=422, at="2199-01-01T00:00:00Z"))["type"].endswith("in-the-future")
    assert declared(await act(client, "declare", at=clock("10:20")))[1] == 1200


async def test_an_incident_that_a_person_opened_was_detected_by_its_declaration(client: httpx.AsyncClient) -> None:
    body = {"title": "t", "service": "payments", "detected_at": clock("10:00")}
    answer = await client.post("/api/v1/incidents", json=body)
    assert declared(answer.json()) == (clock("10:00"), None, "detected by its declaration")
    await client.patch("/api/v1/incidents/INC-1", json={"detected_at": clock("09:50")})
    assert declared(await incident(client))[1] == 600, "the alert that nobody saw was earlier"


async def declare(client: httpx.AsyncClient, status: int = 201, **body: Any) -> dict[str, Any]:
    known = {"title": "Some cards are refused", "service": "payments", "detected_at": clock("10:00"), "by": "ada"}
    answer = await client.post("/api/v1/incidents", json=known | body)
    assert answer.status_code == status, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_everything_that_is_known_is_declared_at_once(client: httpx.AsyncClient) -> None:
    plan = {
        "matchers": ["region=eu-1"],
        "exit_criteria": ["Cards are accepted"],
        "channels": [{"kind": "slack", "name": "#inc-{number}"}, {"kind": "phone", "name": "Bridge 1"}],
        "roles": ["commander"],
    }
    for name, more in (("cards", {}), ("banks", {"matchers": ["region=us-1"]})):
        assert (await client.put(f"/api/v1/incident-types/{name}", json=plan | more)).status_code == 201
    impact = {"what": "Pay by card", "support_requests": 3}
    update = {"status": "investigating", "note": "Some cards are refused. We are on it."}
    team: dict[str, Any] = {"commander": "ben", "responders": ["cy", "dee"]}
    shown = await declare(client, region="eu-1", impact=impact, update=update, **team)
    assert (shown["labels"], shown["type"]) == ({"region": "eu-1"}, None)
    found = (await client.get("/api/v1/incidents/INC-1/response")).json()
    assert found["type"] == "cards", "the first whose matchers match"
    assert {one["role"]: one["people"] for one in found["roles"]} == {"commander": ["ben"], "responder": ["cy", "dee"]}
    assert {one["from"] for one in found["history"]} == {clock("10:00")}
    assert (found["impact"]["what"], found["impact"]["support_requests"]) == ("Pay by card", 3)
    assert found["updates"]["last_at"] == clock("10:00")
    kinds = ["opened", "declared", "impact", "update", "role", "role", "role"]
    assert [one["kind"] for one in await timeline(client)] == kinds
    stated = await declare(client, region="eu-1", type="banks")
    assert stated["type"] == "banks"


async def test_a_declaration_with_anything_wrong_opens_nothing(client: httpx.AsyncClient) -> None:
    refused: list[dict[str, Any]] = [
        {"type": "unknown"},
        {"commander": ""},
        {"responders": ["a"] * 51},
        {"region": "a\0"},
        {"impact": {}},
        {"update": {"status": "investigating"}},
        {"update": {"note": "n"}},
        {"first_update": {}},
    ]
    for body in refused:
        assert (await declare(client, 422, **body))["status"] == 422
    assert (await client.get("/api/v1/incidents")).json()["items"] == []


async def test_a_declaration_is_corrected_and_withdrawn(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "declare", at=clock("10:04"), by="ada")
    [entry] = await timeline(client, kind="declared")
    assert declared(await revise(client, entry, at=clock("10:06")))[1] == 360
    await revise(client, entry, status=422, at=clock("09:59"))
    assert declared(await revise(client, entry, "withdraw")) == (None, None, "not declared yet")


async def test_the_declaration_that_opened_an_incident_stays(client: httpx.AsyncClient) -> None:
    await client.post("/api/v1/incidents", json={"title": "t", "service": "payments", "detected_at": clock("10:00")})
    [entry] = await timeline(client, kind="declared")
    await revise(client, entry, status=409, at=clock("10:06"))
    await revise(client, entry, "withdraw", status=409)


async def test_a_declaration_follows_a_split_and_a_merge(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), resolved("10:30", "10:40", instance="b"))
    await act(client, "declare", at=clock("10:33"), by="ada")
    await deliver(client, resolved("10:00", "10:10"))
    assert declared(await incident(client, 1)) == (None, None, "resolved without declaration")
    assert declared(await incident(client, 2))[1] == 180
    await deliver(client, resolved("10:08", "10:33", instance="c"))
    assert declared(await incident(client, 1))[1] == 33 * 60
    assert declared(await incident(client, 2))[2] == "merged into another incident"


async def test_readers_declare_nothing(client: httpx.AsyncClient, client_as: ClientAs) -> None:
    await deliver(client, firing("10:00"))
    await act(await client_as(Scope.READ), "declare", status=403)
