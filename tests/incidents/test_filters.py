"""Filters, order and total of the list of incidents over HTTP."""

from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.metrics.prometheus.test_exposition import an_incident, store

PATH = "/api/v1/incidents"


@pytest.fixture
async def filled(client: httpx.AsyncClient, engine: AsyncEngine) -> httpx.AsyncClient:
    """Four incidents, all on 2024-08-20; the last one is open."""
    for each in (
        an_incident("10:00", "11:00", service="shop", severity=1, title="Checkout times out"),
        an_incident(
            "12:00", "12:10", service="search", severity=3, title="100% of searches fail", environment="staging"
        ),
        an_incident("13:00", "16:00", service="mail", severity=5, title="Mail is late", environment="production"),
        an_incident("14:00", service="shop", severity=2, title="Checkout is slow"),
    ):
        await store(engine, each)
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE incident SET acknowledged_at = began_at WHERE severity = 1"))
        await tx.execute(text("UPDATE service SET owner = 'Payments' WHERE name = 'shop'"))
        await tx.execute(text("UPDATE service SET owner = 'Find' WHERE name = 'search'"))
    return client


async def numbers(client: httpx.AsyncClient, query: str) -> str:
    answer = await client.get(f"{PATH}?{query}")
    assert answer.status_code == 200, answer.text
    return "".join(each["number"].removeprefix("INC-") for each in answer.json()["items"])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "4321"),
        ("service=shop", "41"),
        ("service=shop&service=mail", "431"),
        ("severity=sev1&severity=sev5", "31"),
        ("priority=critical", "41"),
        ("priority=info&priority=warning", "32"),
        ("priority=critical&severity=sev2", "4"),
        ("environment=stage", "2"),
        ("environment=staging&environment=prod", "32"),
        ("environment=unknown", "41"),
        ("owner=Payments", "41"),
        ("owner=Payments&owner=Find", "421"),
        ("owner=", "3"),
        ("acknowledged=true", "1"),
        ("acknowledged=false", "432"),
        ("min_duration=1h", "431"),
        ("max_duration=1h", "21"),
        ("min_duration=30m&max_duration=90m", "1"),
        ("q=CHECKOUT", "41"),
        ("q=0%25", "2"),
        ("q=_", ""),
        ("status=open&status=resolved&service=shop", "41"),
        ("service=shop&source=nowhere", ""),
    ],
)
async def test_filters(filled: httpx.AsyncClient, query: str, expected: str) -> None:
    assert await numbers(filled, query) == expected


@pytest.mark.parametrize(
    ("sort", "expected"), [("newest", "4321"), ("oldest", "1234"), ("severity", "1423"), ("duration", "4312")]
)
async def test_each_order_is_that_of_its_pages(filled: httpx.AsyncClient, sort: str, expected: str) -> None:
    assert await numbers(filled, f"sort={sort}") == expected
    for limit in (1, 2, 3):
        found, cursor = "", ""
        while True:
            page: Any = (await filled.get(f"{PATH}?sort={sort}&limit={limit}{cursor}")).json()
            found += "".join(each["number"].removeprefix("INC-") for each in page["items"])
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert found == expected


async def test_incidents_that_are_alike_are_newest_first_on_all_pages(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await store(engine, *(an_incident("10:00", "11:00", service=name) for name in "abcde"))
    for sort in ("severity", "duration"):
        first: Any = (await client.get(f"{PATH}?sort={sort}&limit=2")).json()
        assert [each["number"] for each in first["items"]] == ["INC-5", "INC-4"]
        assert await numbers(client, f"sort={sort}&cursor={first['next_cursor']}") == "321"


async def test_a_cursor_belongs_to_its_order(filled: httpx.AsyncClient) -> None:
    cursor = (await filled.get(f"{PATH}?limit=1")).json()["next_cursor"]
    answer = await filled.get(f"{PATH}?limit=1&sort=severity&cursor={cursor}")
    assert answer.status_code == 422
    assert answer.json()["detail"] == "this cursor was issued for another `sort`; omit it to start at the first page"


async def test_the_total_is_counted_on_request(filled: httpx.AsyncClient) -> None:
    assert (await filled.get(PATH)).json()["total"] is None
    page = (await filled.get(f"{PATH}?count=true&limit=1&service=shop")).json()
    assert (len(page["items"]), page["total"]) == (1, 2)


@pytest.mark.parametrize(
    "query",
    [
        *("sort=title", "priority=high", "acknowledged=maybe", "min_duration=long", "max_duration=-1h", "q=", "q=%00"),
        "&".join(f"service=s{number}" for number in range(51)),
    ],
)
async def test_values_that_are_none_are_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"{PATH}?{query}")
    assert answer.status_code == 422, answer.text
