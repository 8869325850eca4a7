"""Acknowledging and resolving many incidents with one request."""

from typing import Any

import httpx
import pytest

from app.base.access.tokens import Scope
from app.incidents.api.bulk import INCIDENTS_AT_MOST
from tests.conftest import ClientAs
from tests.incidents.test_api import act, clock, deliver, firing, incident, resolved

PATH = "/api/v1/incidents"


async def all_of(client: httpx.AsyncClient, action: str, *incidents: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{PATH}/{action}", json={"incidents": incidents, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def kinds(client: httpx.AsyncClient, number: int) -> list[str]:
    entries = (await client.get(f"{PATH}/INC-{number}/timeline")).json()["items"]
    return [entry["kind"] for entry in entries]


async def test_each_is_acknowledged_and_resolved_once(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("10:00", service="b"), firing("10:00", service="c"))
    uuid = (await incident(client, 2))["id"]
    for _ in range(2):
        found = await all_of(client, "acknowledge", "INC-1", uuid, "inc-1", at=clock("10:05"), by="ada", note="mine")
        assert found == {
            "items": [
                {"incident": name, "status": "acknowledged", "problem": None} for name in ("INC-1", uuid)
            ],
            "refused": 0,
        }  # fmt: skip
    shown = await incident(client)
    assert (shown["acknowledged_by"], shown["acknowledged_at"], shown["acknowledged_via"]) == (
        "ada", clock("10:05"), "api",
    )  # fmt: skip
    assert (await incident(client, 3))["status"] == "open"
    for _ in range(2):
        found = await all_of(client, "resolve", "INC-1", "INC-2")
        assert [each["status"] for each in found["items"]] == ["resolved", "resolved"]
    assert [
        (await kinds(client, number)).count(kind) for number in (1, 2) for kind in ("acknowledged", "resolved")
    ] == [1] * 4


async def test_one_that_is_refused_does_not_affect_the_others(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    await deliver(client, firing("10:00", service="b"))
    found = await all_of(client, "acknowledge", "INC-1", "INC-9", "INC-2", at=clock("10:45"))
    assert [(each["incident"], each["status"]) for each in found["items"]] == [
        ("INC-1", None), ("INC-9", None), ("INC-2", "acknowledged"),
    ]  # fmt: skip
    assert found["refused"] == 2
    problems = [each["problem"] for each in found["items"]]
    assert [problem and (problem["status"], problem["type"]) for problem in problems] == [
        (409, "urn:aftermath:problem:already-resolved"),
        (404, "urn:aftermath:problem:incident-not-found"),
        None,
    ]
    alone = await act(client, "acknowledge", 1, status=409, at=clock("10:45"))
    assert problems[0]["detail"] == alone["detail"]
    assert (await incident(client, 2))["status"] == "acknowledged"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"incidents": []},
        {"incidents": ["INC-0"]},
        {"incidents": ["INC-1"] * (INCIDENTS_AT_MOST + 1)},
        {"incidents": ["INC-1"], "surprise": 1},
        {"incidents": "INC-1"},
    ],
)
async def test_a_request_that_is_wrong_changes_nothing(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await deliver(client, firing("10:00"))
    for action in ("acknowledge", "resolve"):
        assert (await client.post(f"{PATH}/{action}", json=body)).status_code == 422
    assert (await incident(client))["status"] == "open"


async def test_it_takes_a_token_that_writes(client_as: ClientAs) -> None:
    for scope, status in ((None, 401), (Scope.READ, 403), (Scope.WRITE, 200)):
        client = await client_as(scope)
        for action in ("acknowledge", "resolve"):
            assert (await client.post(f"{PATH}/{action}", json={"incidents": ["INC-1"]})).status_code == status
