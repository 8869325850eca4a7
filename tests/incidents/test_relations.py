"""Related incidents over HTTP: recorded in both timelines, reversible, and kept when incidents are merged or split."""

import asyncio
from typing import Any

import httpx

from tests.incidents.test_api import deliver, firing, incident, resolved


async def mark(
    client: httpx.AsyncClient, number: int, other: int, method: str = "PUT", status: int = 200, **body: Any
) -> dict[str, Any]:
    path = f"/api/v1/incidents/INC-{number}/related/INC-{other}"
    answer = await client.request(method, path, json=body or None)
    assert answer.status_code == status, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def related(client: httpx.AsyncClient, *numbers: int) -> list[list[str]]:
    return [(await incident(client, number))["related"] for number in numbers]


async def kinds(client: httpx.AsyncClient, number: int) -> list[tuple[str, Any]]:
    items = (await client.get(f"/api/v1/incidents/INC-{number}/timeline")).json()["items"]
    return [(entry["kind"], entry["detail"]) for entry in items if entry["kind"] in {"related", "unrelated"}]


async def test_a_relation_is_shown_on_both_and_recorded_in_both_timelines(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("10:01", service="search"), firing("10:02", service="cart"))
    before = (await client.get("/api/v1/incidents/INC-2")).headers["ETag"]
    assert (await mark(client, 1, 2, by="ada", note="same database"))["related"] == ["INC-2"]
    assert (await client.get("/api/v1/incidents/INC-2")).headers["ETag"] != before
    await mark(client, 2, 1)
    await mark(client, 3, 1)
    assert await related(client, 1, 2, 3) == [["INC-2", "INC-3"], ["INC-1"], ["INC-1"]]
    assert await kinds(client, 2) == [("related", {"incident": "INC-1"})]
    listed = (await client.get("/api/v1/incidents")).json()["items"]
    assert [one["related"] for one in listed] == [["INC-1"], ["INC-1"], ["INC-2", "INC-3"]]


async def test_a_relation_is_reversible(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("10:01", service="search"))
    await mark(client, 1, 2)
    assert (await mark(client, 2, 1, "DELETE"))["related"] == []
    await mark(client, 2, 1, "DELETE")
    assert await related(client, 1, 2) == [[], []]
    assert await kinds(client, 1) == [("related", {"incident": "INC-2"}), ("unrelated", {"incident": "INC-2"})]
    assert (await mark(client, 1, 2))["related"] == ["INC-2"]


async def test_an_incident_is_not_related_to_itself(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    problem = await mark(client, 1, 1, status=422)
    assert problem["type"] == "urn:aftermath:problem:related-to-itself"
    await mark(client, 1, 9, status=404)


async def test_a_relation_survives_a_merge_and_never_points_to_itself(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:10"), resolved("10:30", "10:40", instance="b"))
    await deliver(client, firing("10:00", service="search"))
    await mark(client, 2, 3)
    await mark(client, 1, 2)
    await mark(client, 1, 3)
    await deliver(client, resolved("10:12", "10:27", instance="c"))
    assert await related(client, 1, 3) == [["INC-3"], ["INC-1"]]
    assert "INC-1" in (await mark(client, 2, 3, "DELETE", status=409))["detail"]
    await mark(client, 3, 1, "DELETE")
    assert await related(client, 1, 3) == [[], []]


async def test_a_relation_holds_for_each_part_of_a_split(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("11:00", instance="b"), firing("10:01", service="search"))
    await mark(client, 1, 2)
    await deliver(client, resolved("10:00", "10:20"))
    assert await related(client, 1, 2, 3) == [["INC-2"], ["INC-1", "INC-3"], ["INC-2"]]


async def test_concurrent_marks_neither_deadlock_nor_repeat(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("10:01", service="search"))
    await asyncio.gather(*(mark(client, *((1, 2) if turn % 2 else (2, 1))) for turn in range(8)))
    assert len(await kinds(client, 1)) == len(await kinds(client, 2)) == 1
