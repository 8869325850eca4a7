"""Liveness and readiness: stopped parts require a restart, recoverable failures are reported as degraded."""

import asyncio
from typing import Any

import httpx
import pytest

from app.base.http.context import Context
from app.ingest.service import Ingest
from app.main import serving
from app.settings import Settings
from tests.base.test_jobs import eventually
from tests.conftest import client_of
from tests.ingest.test_webhook import DOOR, a_delivery, an_alert

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


async def test_a_service_that_runs_is_well(client: httpx.AsyncClient) -> None:
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
            assert (await client.post(DOOR, json=a_delivery(an_alert()))).status_code == 503
        await assert_stopped(client, "`queue` has stopped; restart this process")
    with pytest.raises(ExceptionGroup):  # the error of the queue
        await service.__aexit__(None, None, None)


@pytest.mark.parametrize("name", ["drain", "queue to spool", "database monitor", "settle", "watch", "reconcile"])
async def test_anything_else_that_ends_by_itself_asks_for_a_restart(client: httpx.AsyncClient, name: str) -> None:
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == name]
    task.cancel()
    await asyncio.wait({task})
    await assert_stopped(client, f"`{name}` has stopped; restart this process")


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
