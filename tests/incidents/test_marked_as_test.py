"""Incidents that a person marked as tests: they leave every number, stay visible, and the mark can be removed."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.http.context import Context
from tests.incidents.test_api import act, clock, deliver, firing, incident, resolved
from tests.metrics.prometheus.test_exposition import an_incident, at, price, scrape, settled, store
from tests.reviews.test_required import draft, listed

PERIOD = "from=2024-08-20&to=2024-08-21"
NUMBERS = (
    *(f"/metrics/{name}?{PERIOD}" for name in ("summary", "downtime", "targets", "tasks", "dora", "availability")),
    f"/metrics/summary?{PERIOD}&group_by=source",
    f"/metrics/timeseries?{PERIOD}&interval=day",
    f"/metrics/whatif?{PERIOD}&time_to_detect=-20%25",
    "/metrics/compare?measure=time_to_recover&a_from=2024-08-19&a_to=2024-08-20&b_from=2024-08-20&b_to=2024-08-21",
    "/playbooks/coverage",
)
PATCHED = "/api/v1/incidents/INC-{}"


async def numbers(client: httpx.AsyncClient, engine: AsyncEngine) -> Mapping[str, Any]:
    """Every number that is computed from incidents, of one day."""
    found: dict[str, Any] = {}
    for path in NUMBERS:
        answer = await client.get(f"/api/v1{path}")
        assert answer.status_code == 200, f"{path}: {answer.text}"
        found[path] = {name: each for name, each in answer.json().items() if name != "as_of"}
    found["prometheus"] = {
        series: value for series, value in (await scrape(engine)).items() if "correction" not in str(series)
    }
    found["INC-1"] = (await client.get("/api/v1/incidents/INC-1")).json()
    return found


async def mark(client: httpx.AsyncClient, number: int = 1, *, test: bool | None = True) -> dict[str, Any]:
    answer = await client.patch(PATCHED.format(number), json={"test": test, "by": "ada"})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def a_day(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """An outage of checkout that has been settled, with what its numbers depend on."""
    known = an_incident("10:00", "11:00", acknowledged_at=at("10:10"))
    await store(engine, known, an_incident("08:00", "08:01", service="cart"))
    await price(engine, "100")
    goal = {"target": "0.999", "window": {"rolling_days": 30}}
    answer = await client.put("/api/v1/services/checkout/objective", json=goal)
    assert answer.status_code == 201, answer.text
    deployment = {"service": "checkout", "outcome": "succeeded", "finished_at": "2024-08-20T14:55:00Z", "id": "d2"}
    answer = await client.post("/api/v1/deployments", json=deployment | {"environment": "production"})
    assert answer.status_code == 201, answer.text
    assert await settled(engine, at("23:00")) == 2


TESTS = (
    an_incident("10:30", "12:00", severity=1, test_stated=True, acknowledged_at=at("10:31")),  # shares the cost
    an_incident("09:00", severity=1, test_stated=True, service="cart", environment="drill"),
    an_incident("15:00", severity=2, test_stated=True),
)


async def test_numbers_are_the_same_with_and_without_tests(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(client, engine)
    before = await numbers(client, engine)
    await store(engine, *TESTS)
    assert await settled(engine, at("23:30")) == 0
    assert await numbers(client, engine) == before
    for number in (3, 4, 5):
        await mark(client, number, test=None)
    assert await settled(engine, at("23:30")) == 1
    after = await numbers(client, engine)
    assert {path for path in before if after[path] != before[path]} >= {
        *(path for path in NUMBERS if not path.startswith(("/metrics/tasks", "/playbooks"))),
        "prometheus",
        "INC-1",
    }


async def test_a_mark_is_recorded_and_can_be_removed(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    await client.put("/api/v1/services/checkout/rates", json={"rates": []})
    marked = await mark(client)
    assert (marked["test"], marked["downtime_seconds"], marked["cost"]) == (True, 0, None)
    assert marked["measures"]["time_to_recover"]["seconds"] == 1800
    again = await mark(client)
    assert again == marked
    unmarked = await mark(client, test=None)
    assert (unmarked["test"], unmarked["downtime_seconds"]) == (False, 1800)
    timeline = (await client.get("/api/v1/incidents/INC-1/timeline")).json()["items"]
    found = [(each["detail"], each["by"]) for each in timeline if each["kind"] == "changed"]
    assert found == [({"test": True}, "ada"), ({"test": None}, "ada")]


async def test_a_test_is_declared_in_one_request(client: httpx.AsyncClient) -> None:
    drill = {"title": "Game day", "service": "checkout", "by": "ada", "test": True}
    declared = await client.post("/api/v1/incidents", json=drill)
    assert (declared.status_code, declared.json()["test"]) == (201, True)
    summary = (await client.get("/api/v1/metrics/summary?period=1d")).json()
    assert summary["total"]["incidents"]["value"] == 0
    timeline = (await client.get("/api/v1/incidents/INC-1/timeline?kind=changed")).json()["items"]
    assert [(each["detail"], each["by"]) for each in timeline] == [({"test": True}, "ada")]
    other = await client.post("/api/v1/incidents", json=drill | {"test": False})
    assert other.json()["test"] is False


async def test_tests_stay_visible_and_can_be_filtered(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00", service="shop"), firing("10:00", service="cart"))
    await mark(client, 2)

    async def numbers_of(query: str) -> list[str]:
        answer = await client.get(f"/api/v1/incidents?{query}&count=true&sort=oldest")
        assert answer.json()["total"] == len(answer.json()["items"])
        return [each["number"] for each in answer.json()["items"]]

    assert await numbers_of("") == ["INC-1", "INC-2"]
    assert await numbers_of("test=true") == ["INC-2"]
    assert await numbers_of("test=false") == ["INC-1"]


@pytest.mark.parametrize(("marked", "whole"), [((1,), False), ((2,), False), ((1, 2), True)])
async def test_a_merged_incident_is_a_test_only_if_all_its_parts_are(
    client: httpx.AsyncClient, marked: tuple[int, ...], whole: bool
) -> None:
    await deliver(client, resolved("10:00", "10:10"))
    await deliver(client, resolved("11:00", "11:10"))
    for number in marked:
        await mark(client, number)
    await deliver(client, resolved("10:10", "10:58", instance="b"))
    assert (await incident(client, 2))["merged_into"] == "INC-1"
    assert (await incident(client))["test"] is whole


async def test_the_parts_of_a_test_are_tests(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await mark(client)
    await deliver(client, firing("11:00", instance="b"))
    await deliver(client, resolved("10:00", "10:10"))
    assert [(await incident(client, number))["test"] for number in (1, 2)] == [True, True]


async def test_a_test_requires_no_review(client: httpx.AsyncClient, context: Context) -> None:
    await deliver(client, resolved("10:00", "10:30", severity="sev1"))
    await mark(client)
    assert await draft(context) == 0
    await mark(client, test=None)
    assert await draft(context) == 1
    await mark(client)
    assert await draft(context) == 0
    assert [each["required_because"] for each in await listed(client)] == [[]]


async def test_marking_what_has_settled_is_a_correction_of_history(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await store(engine, an_incident("10:00", "11:00"))
    assert await settled(engine, at("23:00")) == 1
    before = await scrape(engine)
    await mark(client)
    assert {key: value for key, value in (await scrape(engine)).items() if value < before.get(key, 0)} == {}
    async with engine.begin() as tx:
        counted = await tx.execute(text("SELECT sum(value) FROM tally WHERE name = 'history_corrections'"))
        assert counted.scalar_one() == 1


async def test_alerts_that_join_a_test_belong_to_it(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await mark(client)
    await deliver(client, firing("10:02", instance="b"))
    await act(client, "acknowledge", at=clock("10:04"), by="ada")
    shown = await incident(client)
    assert (shown["test"], shown["alerts"], shown["status"]) == (True, 2, "acknowledged")
