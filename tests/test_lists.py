"""Search, order and total of lists over HTTP."""

from typing import Any

import httpx
import pytest

from tests.catalog.test_maintenance import NIGHT
from tests.catalog.test_put import CALENDAR
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert
from tests.response.test_configuration import PAYMENTS

NAMES = ("checkout", "Check_in", "search")
BY_NAME: dict[str, dict[str, Any]] = {
    "calendars": CALENDAR,
    "maintenance": NIGHT,
    "rules": {"matchers": ["job=batch"]},
    "incident-types": PAYMENTS,
    "people": {},
    "factors": {"element": "process"},
}
BY_TIME = ("deployments", "changes", "status-page/incidents")
PATHS = ("services", "sources", "reviews", "action-items", "tokens", *BY_NAME, *BY_TIME)


@pytest.fixture
async def filled(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Of each kind one with each of the names."""
    for place, name in enumerate(NAMES):
        await made(await client.put(f"/api/v1/services/{name}", json={"owner": "Payments" if place else None}))
        await made(await client.put(f"/api/v1/sources/{name}", json={"kind": "grafana"}))
        await made(await client.post("/api/v1/reviews", json={"title": name}))
        item = {"title": name, "review": "REV-1", "phase": "response", "due_at": f"2030-01-0{3 - place}T00:00:00Z"}
        await made(await client.post("/api/v1/action-items", json=item))
        for path, body in BY_NAME.items():
            await made(await client.put(f"/api/v1/{path}/{name}", json=body))
        await made(await client.post("/api/v1/tokens", json={"name": name}))
        at = f"2026-08-20T10:0{place}:00Z"
        reported = {"id": name, "service": "checkout"}
        ended = {"outcome": "succeeded", "finished_at": at}
        await made(await client.post("/api/v1/deployments", json=reported | ended))
        await made(await client.post("/api/v1/changes", json=reported | {"at": at}))
        first = {"status": "investigating", "body": "We look into it.", "at": at}
        public = {"title": name, "begins_at": at, "first": first}
        await made(await client.post("/api/v1/status-page/incidents", json=public))
    return client


async def made(answer: httpx.Response) -> None:
    assert answer.status_code in {200, 201}, answer.text


async def page(client: httpx.AsyncClient, path: str, **query: Any) -> tuple[set[str], int | None]:
    answer = await client.get(f"/api/v1/{path}", params=query)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    names = {each.get("name") or each.get("title") or each["id"] for each in found["items"]}
    assert len(names) == len(found["items"])
    return names, found["total"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_list_is_counted_on_request_over_all_pages(filled: httpx.AsyncClient, path: str) -> None:
    every, uncounted = await page(filled, path, limit=500)
    assert every >= {*NAMES}
    assert uncounted is None
    names, total = await page(filled, path, limit=1, count="true")
    assert (len(names), total) == (1, len(every))
    if path not in {"rules", "factors"}:  # which the service comes with
        assert every == {*NAMES}


@pytest.mark.parametrize("path", PATHS)
async def test_a_list_is_searched_whatever_the_case(filled: httpx.AsyncClient, path: str) -> None:
    assert await page(filled, path, q="CHECK", count="true") == ({"checkout", "Check_in"}, 2)
    assert await page(filled, path, q="k_i", count="true") == ({"Check_in"}, 1)  # an underscore is no placeholder
    assert await page(filled, path, q="%", count="true") == (set(), 0)


@pytest.mark.parametrize("path", BY_TIME)
async def test_a_list_by_time_is_read_in_both_directions(filled: httpx.AsyncClient, path: str) -> None:
    async def names(sort: str) -> list[str]:
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await filled.get(f"/api/v1/{path}", params={"sort": sort, "limit": "1"} | cursor)
            found += [each.get("title") or each["id"] for each in answer.json()["items"]]
            if answer.json()["next_cursor"] is None:
                return found
            cursor = {"cursor": answer.json()["next_cursor"]}

    assert (await names("newest"), await names("oldest")) == ([*reversed(NAMES)], [*NAMES])
    answer = await filled.get(f"/api/v1/{path}?limit=1")
    wrong = await filled.get(f"/api/v1/{path}", params={"sort": "oldest", "cursor": answer.json()["next_cursor"]})
    assert wrong.status_code == 422
    assert "another `sort`" in wrong.json()["detail"]


async def test_quarantine_is_searched_sorted_and_counted(client: httpx.AsyncClient) -> None:
    for bad in (an_alert(started="yesterday"), an_alert() | {"labels": "none"}):
        await client.post(WEBHOOK, json=a_delivery(bad))

    async def found(**query: str) -> tuple[list[int], int | None]:
        shown = (await client.get("/api/v1/quarantine", params=query)).json()
        return [each["id"] for each in shown["items"]], shown["total"]

    newest, _ = await found()
    assert len(newest) == 2
    assert await found(sort="oldest", count="true") == (newest[::-1], 2)
    assert await found(q="BAD_TIME", count="true") == (newest[1:], 1)
    assert await found(q="no such text", count="true") == ([], 0)
    assert await found(source="alertmanager", limit="1", count="true") == (newest[:1], 2)
    assert await found(source="grafana", count="true") == ([], 0)


async def test_services_are_found_by_their_owner(filled: httpx.AsyncClient) -> None:
    assert await page(filled, "services", owner="Payments", count="true") == ({"Check_in", "search"}, 2)
    assert await page(filled, "services", owner="", count="true") == ({"checkout"}, 1)
    assert await page(filled, "services", owner=["", "Payments"], q="search", count="true") == ({"search"}, 1)


async def test_action_items_are_sorted_by_due_time_over_pages(filled: httpx.AsyncClient) -> None:
    await made(await filled.post("/api/v1/action-items", json={"title": "4", "review": "REV-1", "phase": "response"}))
    titles: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        query = {"sort": "due", "limit": "1"} | cursor
        found = (await filled.get("/api/v1/action-items", params=query)).json()
        titles += [each["title"] for each in found["items"]]
        if found["next_cursor"] is None:
            break
        cursor = {"cursor": found["next_cursor"]}
    assert titles == ["search", "Check_in", "checkout", "4"]
    wrong = await filled.get("/api/v1/action-items", params={"sort": "newest"} | cursor)
    assert wrong.status_code == 422
