"""Invariants after any fault."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base import postgres as embedded
from app.base.db import DATABASE
from tests.load import OURS, Load, Plan, Report, episodes_of, under_load
from tests.oracle import assert_lawful
from tests.processes import RunningService, Service, a_delivery, an_alert, until

TOKEN = "admin-token-of-the-faults"

# The queue may be full of alerts, and Python does not return memory; unbounded growth exceeds this within minutes.
MEMORY_RATIO = 1.5
MEMORY_BYTES = 150 * 2**20


def a_service(directory: Path, **environment: str) -> Service:
    return Service(directory, {"AFTERMATH_ADMIN_TOKEN": TOKEN, **environment})


@contextmanager
def loaded(services: Service | Sequence[Service], plan: Plan, **how: Any) -> Iterator[Load]:
    services = [services] if isinstance(services, Service) else services
    with under_load([service.url for service in services], TOKEN, plan, **how) as load:
        yield load


def assert_all_is_well(
    load: Load,
    running: RunningService,
    *,
    began_with: int,
    database_url: str | None = None,
    quarantined: int = 0,
    times_are_true: bool = True,
) -> None:
    """After `load.finish()`: every delivery has finally been answered 2xx.

    `began_with` is the memory at the start, `quarantined` the number of quarantined items from other senders.
    """
    assert load.statuses.keys() <= {200, 202, 503}, load
    assert_it_serves(running)
    assert_memory_is_bounded(running, began_with)
    asyncio.run(_look(load, database_url or url_of(running.service), quarantined, times_are_true=times_are_true))


async def _look(load: Load, database_url: str, quarantined: int, *, times_are_true: bool) -> None:
    engine = db.connect(database_url, statement_seconds=None)
    try:
        await _assert_delivered_once(engine, load, quarantined)
        await _assert_counted_once(engine)
        reported, stored = episodes_of(load.reports), await _stored(engine)
        if times_are_true:
            # Exactly the result of all deliveries.
            assert {
                one for one in reported.keys() | stored.keys() if reported.get(one, ...) != stored.get(one, ...)
            } == set()
        else:
            assert {fingerprint for fingerprint, _ in stored} == {fingerprint for fingerprint, _ in reported}
        await assert_lawful(engine)
    finally:
        await engine.dispose()


def assert_has(reported: Sequence[Report], database_url: str) -> None:
    """The database has at least these reports, and is consistent."""

    async def look() -> None:
        engine = db.connect(database_url, statement_seconds=None)
        try:
            assert {(one.fingerprint, one.started_at) for one in reported} - (await _stored(engine)).keys() == set()
            await _assert_counted_once(engine)
            await assert_lawful(engine)
        finally:
            await engine.dispose()

    asyncio.run(look())


async def _assert_delivered_once(engine: AsyncEngine, load: Load, quarantined: int) -> None:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT id, count(*) AS copies FROM delivery GROUP BY id"))
        copies = {row.id: row.copies for row in rows}
        ids = [delivery_id for _, delivery_id in load.answered if delivery_id]
        assert [one for one in ids if copies.get(one) != 1] == []
        assert len(set(ids)) == len(ids)
        assert (await connection.execute(text("SELECT count(*) FROM quarantine"))).scalar_one() == quarantined


async def _stored(engine: AsyncEngine) -> dict[tuple[str, datetime], datetime | None]:
    stored: dict[tuple[str, datetime], datetime | None] = {}
    async with engine.connect() as connection:
        for row in await connection.execute(_ALERTS, {"ours": OURS}):
            assert (row.fingerprint, row.started_at) not in stored
            stored[row.fingerprint, row.started_at] = row.ended_at
    return stored


_ALERTS = text("""
    SELECT fingerprint, started_at, ended_at
      FROM alert
     WHERE starts_with(fingerprint, :ours)
""")


async def _assert_counted_once(engine: AsyncEngine) -> None:
    """The Prometheus counters match the stored deliveries."""
    async with engine.connect() as connection:
        counted = {row.name: int(row.total) for row in await connection.execute(_COUNTED)}
        assert counted == (await connection.execute(_THERE)).one()._mapping


_COUNTED = text("""
    SELECT name, sum(value) AS total
      FROM tally
     WHERE name IN ('deliveries', 'signals')
     GROUP BY name
""")

_THERE = text("""
    SELECT count(*) AS deliveries, sum(signals) AS signals
      FROM delivery
""")


# — whether it serves —

AFTER = "after-the-fault"


def assert_it_serves(running: RunningService) -> None:
    """It accepts a delivery and responds with the result."""
    with running.client(TOKEN) as client:
        until(lambda: client.get("/readyz").json().get("status") == "ok", "the service is ready again", within=60)
        body = a_delivery(an_alert(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), service=AFTER))

        def taken() -> httpx.Response | None:
            # One worker may notice a second later than another that the database is back, and use the spool until then.
            answer = client.post("/webhooks/alertmanager", json=body)
            assert answer.status_code in {200, 202}, answer.text
            return answer if answer.status_code == 200 else None

        [number] = until(taken, "the database accepts deliveries").json()["incidents"]
        assert client.get(f"/api/v1/incidents/{number}").json()["service"] == AFTER
        assert "aftermath_deliveries_total{" in client.get("/metrics").text
        until(lambda: "\naftermath_spool_records 0.0\n" in client.get("/metrics").text, "the spool is drained")


def url_of(service: Service) -> str:
    """Of the database in the built-in PostgreSQL."""
    address = embedded.running(service.data_dir)
    assert address is not None
    return address.url(DATABASE)


# — memory and files —


def assert_memory_is_bounded(running: RunningService, began_with: int) -> None:
    holds = memory_of(running)
    assert holds < MEMORY_RATIO * began_with + MEMORY_BYTES, f"{holds / 2**20:.0f} MiB of {began_with / 2**20:.0f}"


def memory_of(running: RunningService) -> int:
    """Resident bytes of the service and its workers, without PostgreSQL."""
    return sum(process.memory_info().rss for process in processes_of(running))


def files_of(running: RunningService) -> int:
    return sum(process.num_fds() for process in processes_of(running))


def processes_of(running: RunningService) -> list[Any]:
    service = psutil.Process(running.process.pid)
    found = [service]
    for child in service.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.name() != "postgres":
                found.append(child)
    return found
