"""Behavior common to every PUT of the catalog."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from tests.catalog.test_maintenance import NIGHT, SUNDAYS

CALENDAR = {"zone": "UTC", "hours": {"monday": [{"from": "09:00", "to": "17:00"}], "friday": []}, "holidays": []}
BODIES: dict[str, dict[str, Any]] = {
    "/api/v1/rules/batch": {"matchers": ["job=batch"], "severities": {"blocker": "sev1"}, "heartbeat_seconds": 60},
    "/api/v1/services/checkout": {"owner": "Payments", "links": [{"title": "Wiki", "url": "https://example.org/"}]},
    "/api/v1/services/search/objective": {"target": "0.990", "window": {"calendar": "month"}},
    "/api/v1/maintenance/sundays": SUNDAYS,
    "/api/v1/maintenance/night": NIGHT,
    "/api/v1/calendars/office": CALENDAR,
}


@pytest.fixture(params=BODIES)
async def put(request: pytest.FixtureRequest, client: httpx.AsyncClient) -> tuple[str, dict[str, Any]]:
    """A path and a body for it."""
    await client.put("/api/v1/services/search", json={})
    path: str = request.param
    return path, BODIES[path]


def without_times(body: dict[str, Any]) -> dict[str, Any]:
    """The object without fields that depend on time."""
    return {name: value for name, value in body.items() if name not in {"updated_at", "next", "error_budget"}}


async def test_concurrent_creation_creates_one(client: httpx.AsyncClient, put: tuple[str, dict[str, Any]]) -> None:
    path, body = put
    answers = await asyncio.gather(*(client.put(path, json=body) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201], answers[0].text
    shown = (await client.get(path)).json()
    assert [without_times(answer.json()) for answer in answers] == [without_times(shown)] * 12


async def test_the_response_equals_a_later_read(client: httpx.AsyncClient, put: tuple[str, dict[str, Any]]) -> None:
    path, body = put
    made = (await client.put(path, json=body)).json()
    again = (await client.put(path, json=body)).json()
    shown = (await client.get(path)).json()
    assert without_times(made) == without_times(again) == without_times(shown)
    assert made["updated_at"] < again["updated_at"] == shown["updated_at"]


async def test_rates_put_at_once_are_those_of_one_body(client: httpx.AsyncClient) -> None:
    path = "/api/v1/services/search"
    await client.put(path, json={})
    bodies = [
        [{"currency": currency, "low": n, "expected": n, "high": n} for currency in ("CHF", "EUR", "USD")]
        for n in range(12)
    ]
    answers = await asyncio.gather(*(client.put(f"{path}/rates", json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    rates = (await client.get(path)).json()["rates"]
    assert [rate["currency"] for rate in rates] == ["CHF", "EUR", "USD"]
    assert len({rate["low"] for rate in rates}) == 1


async def test_omitted_fields_are_null_in_the_database_and_json_is_not_text(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await client.put("/api/v1/services/search", json={})
    for path, body in BODIES.items():
        await client.put(path, json=body)
    await client.put("/api/v1/services/checkout", json={})
    await client.put("/api/v1/rules/batch", json={})
    await client.put("/api/v1/maintenance/sundays", json=NIGHT)
    await client.put("/api/v1/services/search/objective", json={"target": "0.9", "window": {"rolling_days": 7}})
    async with db.transaction(engine) as tx:
        found = await tx.execute(
            text("""
                SELECT (SELECT owner IS NULL AND links = '[]'::jsonb FROM service WHERE name = 'checkout'),
                       (SELECT heartbeat_seconds IS NULL AND severities = '{}'::jsonb AND matchers = '{}'
                          FROM rule WHERE name = 'batch'),
                       (SELECT num_nulls(weekdays, start_time, duration_seconds, zone, first_date, last_date)
                          FROM maintenance WHERE name = 'sundays'),
                       (SELECT calendar IS NULL AND rolling_days = 7 FROM objective)
            """)
        )
    assert tuple(found.one()) == (True, True, 6, True)
