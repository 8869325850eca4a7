"""Search, order and total of the lists of services, sources, reviews and action items, over HTTP."""

from typing import Any

import httpx
import pytest

NAMES = ("checkout", "Check_in", "search")
PATHS = ("services", "sources", "reviews", "action-items")


@pytest.fixture
async def filled(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Of each kind one with each of the names."""
    for place, name in enumerate(NAMES):
        await made(await client.put(f"/api/v1/services/{name}", json={"owner": "Payments" if place else None}))
        await made(await client.put(f"/api/v1/sources/{name}", json={"kind": "grafana"}))
        await made(await client.post("/api/v1/reviews", json={"title": name}))
        item = {"title": name, "review": "REV-1", "phase": "response", "due_at": f"2030-01-0{3 - place}T00:00:00Z"}
        await made(await client.post("/api/v1/action-items", json=item))
    return client


async def made(answer: httpx.Response) -> None:
    assert answer.status_code in {200, 201}, answer.text


async def page(client: httpx.AsyncClient, path: str, **query: Any) -> tuple[set[str], int | None]:
    answer = await client.get(f"/api/v1/{path}", params=query)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return {each.get("name") or each["title"] for each in found["items"]}, found["total"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_list_is_counted_on_request_over_all_pages(filled: httpx.AsyncClient, path: str) -> None:
    before = len((await page(filled, path))[0])
    assert before == 3
    assert (await page(filled, path))[1] is None
    names, total = await page(filled, path, limit=1, count="true")
    assert (len(names), total) == (1, 3)


@pytest.mark.parametrize("path", PATHS)
async def test_a_list_is_searched_whatever_the_case(filled: httpx.AsyncClient, path: str) -> None:
    assert await page(filled, path, q="CHECK", count="true") == ({"checkout", "Check_in"}, 2)
    assert await page(filled, path, q="k_i", count="true") == ({"Check_in"}, 1)  # an underscore is no placeholder
    assert await page(filled, path, q="%", count="true") == (set(), 0)


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
