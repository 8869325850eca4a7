"""Liveness and readiness: stopped parts require a restart, recoverable failures are reported as degraded."""

import asyncio
from typing import Any

import httpx
import pytest

from app.base.db import DatabaseMonitor
from app.base.http.context import Context
from app.base.process import spool
from app.ingest.service import Ingest
from app.main import serving
from app.settings import Settings
from tests.base.test_jobs import eventually
from tests.conftest import client_of
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert

PROBES = ("/healthz", "/readyz")


async def assert_stopped(client: httpx.AsyncClient, detail: str) -> None:
    for probe in PROBES:
        answer = await client.get(probe)
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert answer.json() == {
            "type": "urn:aftermath:problem:stopped",
            "title": "Restart this process",
            "status": 503,
            "detail": detail,
        }


async def test_a_running_service_is_healthy(client: httpx.AsyncClient) -> None:
    for probe in PROBES:
        answer = await client.get(probe)
        assert (answer.status_code, answer.json()["status"], answer.json()["detail"]) == (200, "ok", None)


async def test_a_queue_that_has_died_asks_for_a_restart(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise LookupError

    service = serving(settings)
    context = await service.__aenter__()
    monkeypatch.setattr(context.part(Ingest).flusher, "flush", fails)
    async with client_of(context) as client:
        assert (await client.get("/healthz")).status_code == 200
        for _ in ("in the batch", "after it"):
            assert (await client.post(WEBHOOK, json=a_delivery(an_alert()))).status_code == 503
        await assert_stopped(client, "`queue` has stopped; restart this process")
    with pytest.raises(ExceptionGroup):  # the error of the queue
        await service.__aexit__(None, None, None)


@pytest.mark.parametrize("name", ["drain", "queue to spool", "database monitor", "settle", "watch", "reconcile"])
async def test_anything_else_that_ends_by_itself_asks_for_a_restart(client: httpx.AsyncClient, name: str) -> None:
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == name]
    task.cancel()
    await asyncio.wait({task})
    await assert_stopped(client, f"`{name}` has stopped; restart this process")


@pytest.mark.parametrize("number", [1, 3])
async def test_deliveries_in_the_spool_are_counted_until_they_are_applied(
    client: httpx.AsyncClient, context: Context, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def later(_: object) -> None:
        pass

    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    monkeypatch.setattr(context.spool, "drain", later)
    monkeypatch.setattr(spool, "RECENT_SECONDS", 0)
    monkeypatch.setattr(DatabaseMonitor, "is_down", True)
    for _ in range(number):
        assert (await client.post(WEBHOOK, json=a_delivery(an_alert()))).status_code == 202
    count = "1 delivery in it is" if number == 1 else "3 deliveries in it are"
    missing = f"{count} not yet applied, and missing from all numbers"
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["detail"] == f"the database is unavailable; deliveries go to the spool; {missing}"
    monkeypatch.setattr(DatabaseMonitor, "is_down", False)
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["detail"] == f"the spool is being applied; {missing}"
    monkeypatch.undo()
    while (await client.get("/readyz")).json()["status"] != "ok":
        await asyncio.sleep(0.05)


async def test_probes_do_not_read_the_disk_each_time(
    client: httpx.AsyncClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "RECENT_SECONDS", 3600)
    await client.get("/readyz")
    looks = 0

    async def depth() -> spool.Depth:
        nonlocal looks
        looks += 1
        return spool.Depth()

    monkeypatch.setattr(context.spool, "depth", depth)
    await asyncio.gather(*(client.get("/readyz") for _ in range(100)))
    assert looks <= 5, "only the drain looks, twice a second"


async def test_a_job_that_fails_is_degraded_until_it_succeeds(client: httpx.AsyncClient, context: Context) -> None:
    fails = True

    async def work() -> None:
        if fails:
            raise LookupError

    async def health() -> dict[str, Any]:
        answer = await client.get("/healthz")
        assert answer.status_code == 200
        shown: dict[str, Any] = answer.json()
        return shown

    context.jobs.every(0.2, "report", work)
    await eventually(lambda: context.jobs.failing)
    shown = await health()
    assert shown["status"] == "degraded"
    assert shown["detail"] in {
        f"report has failed {times} (LookupError); see the log for the error" for times in ("once", "2 times in a row")
    }
    fails = False
    await eventually(lambda: not context.jobs.failing)
    assert (await health())["status"] == "ok"
