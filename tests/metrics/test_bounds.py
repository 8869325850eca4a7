"""One request for metrics causes a bounded amount of work, however long its period, and few run at once."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from app.base.errors import Overloaded
from app.base.http.context import Context
from app.base.http.limits import turns
from app.base.http.limits.turns import Turns
from app.main import serving
from app.settings import Settings
from tests.conftest import client_of
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert

EVER = {"from": "1971-01-02T00:00:00Z", "to": "2199-12-31T00:00:00Z"}
DAILY = {
    "weekdays": ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
    "duration_seconds": 3600,
    "zone": "Europe/Berlin",
    "first_date": "1971-01-02",
}
QUESTIONS = ("availability", "summary", "downtime", "timeseries?interval=month", "whatif?time_to_recover=-20%25")


async def plan(client: httpx.AsyncClient, windows: int) -> None:
    for number in range(windows):
        recurring = DAILY | {"start_time": f"{number:02}:30"}
        answer = await client.put(f"/api/v1/maintenance/m{number}", json={"reason": "patching", "recurring": recurring})
        assert answer.status_code == 201, answer.text


async def ask(client: httpx.AsyncClient, question: str, **period: str) -> httpx.Response:
    path, _, query = question.partition("?")
    parameters = {**EVER, **period} | dict(httpx.QueryParams(query))
    if "interval" in parameters and not period:
        parameters["from"] = "1990-01-02T00:00:00Z"  # within the bound for buckets
        parameters["to"] = "2070-01-02T00:00:00Z"
    return await client.get(f"/api/v1/metrics/{path}", params=parameters)


@pytest.mark.parametrize("question", QUESTIONS)
async def test_too_much_maintenance_is_refused_up_front(client: httpx.AsyncClient, question: str) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(started="1971-01-03T00:00:00Z")))
    await plan(client, 12)
    answer = await ask(client, question)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:aftermath:problem:too-much-maintenance")
    assert "AFTERMATH_QUERY_OCCURRENCES (100000); ask for a shorter period" in answer.json()["detail"]
    # As it advises.
    shorter = {"from": "2026-01-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}
    assert (await ask(client, question, **shorter)).status_code == 200
    # What nobody asked for with a period still works.
    for path in ("/api/v1/incidents", "/api/v1/incidents/INC-1", "/metrics"):
        assert (await client.get(path)).status_code == 200


@pytest.fixture
async def frugal(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    settings = settings.model_copy(update={"query_parts": 1000})
    async with serving(settings) as context, client_of(context) as client:
        yield client


@pytest.mark.parametrize("question", QUESTIONS)
async def test_impact_in_too_many_parts_is_refused(frugal: httpx.AsyncClient, question: str) -> None:
    """A few windows, but many incidents: the answer would hold each combination in memory."""
    started = [an_alert(started="2025-01-01T00:00:00Z", service=f"s{n}") for n in range(10)]
    await frugal.post(WEBHOOK, json=a_delivery(*started))
    await plan(frugal, 1)
    year = {"from": "2025-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
    answer = await ask(frugal, question, **year)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:aftermath:problem:too-much-maintenance")
    assert "AFTERMATH_QUERY_PARTS (1000) parts; ask for a shorter period" in answer.json()["detail"]
    assert (await ask(frugal, question, **year | {"to": "2025-02-01T00:00:00Z"})).status_code == 200


COMPARED = {
    "measure": "time_to_recover",
    "a_from": "2024-01-01T00:00:00Z",
    "a_to": "2024-01-09T00:00:00Z",
    "b_from": "2026-01-01T00:00:00Z",
    "b_to": "2026-01-09T00:00:00Z",
}
PERIOD = {"from": "2024-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("path", "query"), [("summary", PERIOD), ("timeseries", PERIOD | {"interval": "month"}), ("compare", COMPARED)]
)
async def test_a_calendar_that_opens_too_often_is_refused(
    frugal: httpx.AsyncClient, path: str, query: dict[str, str]
) -> None:
    hours = [{"from": f"{hour:02}:00", "to": f"{hour:02}:30"} for hour in range(24)]
    body = {"zone": "UTC", "hours": dict.fromkeys(("monday", "tuesday", "sunday"), hours)}
    assert (await frugal.put("/api/v1/calendars/each-hour", json=body)).status_code == 201
    await frugal.post(WEBHOOK, json=a_delivery(an_alert("2024-01-02T00:00:00Z", "2025-12-02T01:00:00Z")))
    answer = await frugal.get(f"/api/v1/metrics/{path}", params=query | {"calendar": "each-hour"})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:aftermath:problem:too-many-hours")
    assert "AFTERMATH_QUERY_PARTS (1000); ask for a shorter period" in answer.json()["detail"]
    assert (await frugal.get(f"/api/v1/metrics/{path}", params=query)).status_code == 200


# — turns —


async def test_only_so_many_compute_at_once_and_cheap_requests_do_not_wait(
    client: httpx.AsyncClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns_of_all = context.part(Turns)
    async with turns_of_all.one(), turns_of_all.one():
        waiting = asyncio.create_task(client.get("/api/v1/metrics/summary"))
        for path in ("/api/v1/incidents", "/metrics", "/api/v1/metrics/definitions"):
            assert (await client.get(path)).status_code == 200
        assert not waiting.done()
        monkeypatch.setattr(turns, "WAIT_SECONDS", 0.1)
        answer = await client.get("/api/v1/metrics/availability")
        assert answer.status_code == 503
        assert "AFTERMATH_CONCURRENT_QUERIES" in answer.json()["detail"]
    assert (await waiting).status_code == 200


async def test_the_token_is_checked_before_waiting(client: httpx.AsyncClient, context: Context) -> None:
    turns_of_all = context.part(Turns)
    async with turns_of_all.one(), turns_of_all.one():
        async with asyncio.timeout(5):
            answer = await client.get("/api/v1/metrics/summary", headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == 401


async def test_a_turn_ends_with_an_error_too() -> None:
    one = Turns(1)
    for _ in range(3):
        with pytest.raises(LookupError):
            async with one.one():
                raise LookupError
    async with one.one():
        pass


async def test_waiting_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT_SECONDS", 0.01)
    one = Turns(1)
    async with one.one():
        with pytest.raises(Overloaded):
            async with one.one():
                pass
    async with one.one():
        pass
