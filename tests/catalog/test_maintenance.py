"""Planned maintenance over HTTP, and its effect on the numbers."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.access.tokens import Scope
from tests.conftest import ClientAs
from tests.metrics.prometheus.test_exposition import an_incident, of, price, scrape, settled, store

MAINTENANCE = "/api/v1/maintenance"
NIGHT = {"reason": "Patching", "once": {"from": "2024-08-20T10:30:00Z", "to": "2024-08-20T11:00:00Z"}}
SUNDAYS = {
    "services": ["checkout"],
    "reason": "Patching",
    "recurring": {
        "weekdays": ["sunday", "monday"],
        "start_time": "02:30",
        "duration_seconds": 7200,
        "zone": "Europe/Berlin",
        "first_date": "2026-01-01",
    },
}
PERIOD = {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"}


async def test_maintenance_is_planned_shown_changed_and_deleted(client: httpx.AsyncClient) -> None:
    made = await client.put(f"{MAINTENANCE}/sundays", json=SUNDAYS)
    assert made.status_code == 201, made.text
    shown = made.json()
    assert shown["services"] == ["checkout"]
    assert shown["recurring"] == SUNDAYS["recurring"] | {"weekdays": ["monday", "sunday"], "last_date": None}  # type: ignore[operator]
    assert (shown["once"], shown["next"] is None) == (None, False)
    assert (await client.get(f"{MAINTENANCE}/sundays")).json() == shown
    changed = await client.put(f"{MAINTENANCE}/sundays", json=NIGHT)
    assert (changed.status_code, changed.json()["once"], changed.json()["recurring"]) == (200, NIGHT["once"], None)
    assert (changed.json()["services"], changed.json()["next"]) == ([], None)
    assert changed.json()["created_at"] == shown["created_at"]
    assert (await client.delete(f"{MAINTENANCE}/sundays")).status_code == 204
    gone = [await client.get(f"{MAINTENANCE}/sundays"), await client.delete(f"{MAINTENANCE}/sundays")]
    assert {(answer.status_code, answer.json()["type"]) for answer in gone} == {
        (404, "urn:aftermath:problem:maintenance-not-found")
    }


async def test_maintenance_is_listed_in_pages(client: httpx.AsyncClient) -> None:
    for name in ("c", "a", "b"):
        await client.put(f"{MAINTENANCE}/{name}", json=NIGHT)
    first = (await client.get(MAINTENANCE, params={"limit": 2})).json()
    rest = (await client.get(MAINTENANCE, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [[each["name"] for each in page["items"]] for page in (first, rest)] == [["a", "b"], ["c"]]
    assert rest["next_cursor"] is None


async def test_names_and_weekdays_are_kept_once_each_and_times_in_utc(client: httpx.AsyncClient) -> None:
    doubled = changed(weekdays=["sunday", "monday", "sunday"]) | {"services": ["search", "checkout", "search"]}
    shown = (await client.put(f"{MAINTENANCE}/sundays", json=doubled)).json()
    assert (shown["services"], shown["recurring"]["weekdays"]) == (["checkout", "search"], ["monday", "sunday"])
    local = {"from": "2024-08-20T12:30:00.000001+02:00", "to": "2024-08-20T11:00:00+00:00"}
    await client.put(f"{MAINTENANCE}/night", json={"reason": "Patching", "once": local})
    shown = (await client.get(f"{MAINTENANCE}/night")).json()
    assert shown["once"] == {"from": "2024-08-20T10:30:00.000001Z", "to": "2024-08-20T11:00:00Z"}


async def test_readers_read_and_writers_change_maintenance(client_as: ClientAs) -> None:
    allowed = {}
    for scope in (None, Scope.INGEST, Scope.READ, Scope.WRITE):
        caller = await client_as(scope)
        answers = [
            await caller.get(MAINTENANCE),
            await caller.put(f"{MAINTENANCE}/x", json=NIGHT),
            await caller.get(f"{MAINTENANCE}/x"),
            await caller.delete(f"{MAINTENANCE}/x"),
        ]
        allowed[scope] = [answer.status_code for answer in answers]
    assert allowed == {
        None: [401] * 4,
        Scope.INGEST: [403] * 4,
        Scope.READ: [200, 403, 404, 403],
        Scope.WRITE: [200, 201, 200, 204],
    }


def changed(**changes: object) -> dict[str, Any]:
    return SUNDAYS | {"recurring": SUNDAYS["recurring"] | changes}  # type: ignore[operator]


@pytest.mark.parametrize(
    "body",
    [
        {"reason": "neither"},
        NIGHT | {"recurring": SUNDAYS["recurring"]},
        NIGHT | {"reason": ""},
        NIGHT | {"reason": "\x00"},
        {"reason": "r", "once": {"from": "2026-08-20T10:00:00Z", "to": "2026-08-20T10:00:00Z"}},
        {"reason": "r", "once": {"from": "0001-01-01T00:00:00+14:00", "to": "2026-08-20T10:00:00Z"}},
        *(changed(zone=zone) for zone in ("Europe", "Mars/Olympus", "../etc/passwd", "", "x" * 300, "a\x00b")),
        changed(weekdays=[]),
        changed(weekdays=["funday"]),
        changed(start_time="24:00"),
        changed(start_time="2:30"),
        changed(duration_seconds=59),
        changed(duration_seconds=8 * 24 * 3600),
        changed(first_date="0001-01-01"),
        changed(last_date="2025-12-31"),
        changed(last_date="9999-12-31"),
        changed(every="week"),
    ],
)
async def test_maintenance_that_is_not_acceptable_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await client.put(f"{MAINTENANCE}/x", json=body)
    assert answer.status_code == 422, answer.text
    assert (await client.get(MAINTENANCE)).json()["items"] == []


# — effect on downtime and cost —


async def test_maintenance_leaves_downtime_cost_and_counters_and_is_shown_apart(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    [checkout, search] = await store(
        engine, an_incident("10:00", "12:00"), an_incident("10:00", "11:00", service="search")
    )
    await price(engine, "60")
    await price(engine, "60", "search")
    await client.put(f"{MAINTENANCE}/night", json=NIGHT | {"services": ["checkout"]})
    answer = (await client.get("/api/v1/metrics/downtime", params=PERIOD)).json()
    assert [
        (each["service"], each["downtime"]["seconds"], each["downtime"]["planned_seconds"])
        for each in answer["services"]
    ] == [("checkout", 5400, 1800), ("search", 3600, 0)]
    assert [each["cost"]["amounts"]["EUR"]["expected"] for each in answer["services"]] == ["90.00", "60.00"]
    shown = {each["id"]: each["cost"] for each in (await client.get("/api/v1/incidents")).json()["items"]}
    assert shown[str(checkout)]["EUR"]["expected"] == "90.00"
    assert shown[str(search)]["EUR"]["expected"] == "60.00"
    series = (await client.get("/api/v1/metrics/timeseries", params=PERIOD | {"service": "checkout"})).json()["series"]
    assert [point["downtime"] for point in series[0]["points"]] == [{"seconds": 5400, "planned_seconds": 1800}]


async def test_maintenance_during_an_open_incident_counts_too(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("01:00", "02:00"), an_incident("12:00"))
    for name, start in (("before", "05"), ("late", "14")):
        body = {
            "reason": "moving",
            "once": {"from": f"2024-08-20T{start}:00:00Z", "to": f"2024-08-20T{start}:30:00Z"},
        }
        await client.put(f"{MAINTENANCE}/{name}", json=body)
    found = (await client.get("/api/v1/metrics/downtime", params=PERIOD)).json()["downtime"]
    assert (found["seconds"], found["planned_seconds"]) == (12.5 * 3600, 1800)


async def test_settled_numbers_exclude_planned_maintenance(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await client.put(f"{MAINTENANCE}/night", json=NIGHT)
    await store(engine, an_incident("10:00", "12:00"), an_incident("10:15", "10:45"))
    await price(engine, "60")
    assert await settled(engine, datetime(2024, 8, 21, tzinfo=UTC)) == 2
    found = await scrape(engine)
    assert of(found, "downtime_seconds_total", service="checkout") == 5400
    assert of(found, "downtime_cost_total", service="checkout", currency="EUR") == 90
