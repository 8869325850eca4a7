"""Months are created in advance and dropped when old. Incidents, and alerts that grouping may need, are kept."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.db import partitions
from app.incidents.grouping import decide as store
from app.incidents.grouping.batch import Incoming
from app.incidents.grouping.law.episode import minute
from app.incidents.grouping.rule import DEFAULT_RULE, decide
from app.incidents.grouping.signal import AlertClass, EndReason, Signal, Status
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert
from tests.metrics.prometheus.test_exposition import settled

NOW = datetime.now(UTC)
KEEP = {"alert": timedelta(days=400), "delivery": timedelta(days=90)}


async def maintain(engine: AsyncEngine, now: datetime) -> list[str]:
    async with db.transaction(engine) as tx:
        return await partitions.maintain(tx, now=now, keep=KEEP)


async def known(engine: AsyncEngine, table: str) -> list[partitions.Partition]:
    async with db.transaction(engine) as tx:
        return await partitions.partitions(tx, table)


async def ask(engine: AsyncEngine, question: str) -> list[Any]:
    async with db.transaction(engine) as tx:
        return [row[0] for row in await tx.execute(text(question))]


async def test_months_are_made_ahead_without_gaps_and_once(engine: AsyncEngine) -> None:
    await maintain(engine, NOW)
    assert await maintain(engine, NOW) == []
    # As if the service had been stopped for half a year.
    made = await maintain(engine, later := NOW + timedelta(days=180))
    assert len([one for one in made if one.startswith("created alert_")]) == len(
        [one for one in made if one.startswith("created delivery_")]
    )
    for table in partitions.PARTITIONED:
        past, *months = await known(engine, table)
        assert past.is_past
        assert months[-1].until > later + timedelta(days=31 * partitions.MONTHS_AHEAD - 31)
        expected = past.until
        for month in months:
            assert month.name == f"{table}_{expected:%Y%m}"
            expected = (expected + timedelta(days=31)).replace(day=1)
            assert month.until == expected


def ago(**since: float) -> str:
    return (NOW - timedelta(**since)).isoformat()


async def incidents(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    shown = ("number", "service", "status", "alerts", "detected_at", "resolved_at")
    return [{name: one[name] for name in shown} for one in (await client.get("/api/v1/incidents")).json()["items"]]


async def test_old_months_are_dropped_except_alerts_that_grouping_may_need(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """A settled incident, an ended one whose stretches are not stored, and an open one, more than a year later."""
    for service in ("over", "unsettled", "still"):
        await client.post(WEBHOOK, json=a_delivery(an_alert(ago(days=3), service=service)))
    await client.post(WEBHOOK, json=a_delivery(an_alert(ago(days=3), ago(days=2), service="over")))
    assert await settled(engine, NOW) == 1
    await client.post(WEBHOOK, json=a_delivery(an_alert(ago(days=3), ago(days=2), service="unsettled")))
    before = await incidents(client)
    statuses = {"over": "resolved", "unsettled": "resolved", "still": "open"}
    assert {one["service"]: one["status"] for one in before} == statuses

    [past, *_] = await known(engine, "alert")
    done = await maintain(engine, past.until + timedelta(days=500))
    assert {one.rsplit("_", 1)[0] for one in done} >= {"dropped alert", "dropped delivery"}
    assert await ask(engine, "SELECT labels ->> 'service' FROM alert ORDER BY 1") == ["still", "unsettled"]
    assert await ask(engine, "SELECT count(*) FROM delivery") == [0]
    assert await incidents(client) == before
    # Kept incidents continue normally.
    resolved = await client.post(WEBHOOK, json=a_delivery(an_alert(ago(days=3), ago(days=1), service="still")))
    assert resolved.json()["verdicts"] == {"resolved": 1}
    assert {one["status"] for one in await incidents(client)} == {"resolved"}


async def test_an_incident_over_shortly_before_keeps_its_alerts(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """The next alert may still belong to it."""
    await maintain(engine, NOW)
    [_, month, *_] = await known(engine, "alert")
    ends = {name: month.until - timedelta(days=days) for name, days in (("near", 1), ("far", 3))}
    async with db.transaction(engine) as tx:
        for name, end in ends.items():
            started = end - timedelta(minutes=30)
            decision = decide(DEFAULT_RULE, {"service": name}, AlertClass.SERVICE)
            signal = Signal(name, Status.RESOLVED, started, end, {"service": name}, end_reason=EndReason.RECOVERED)
            await store.apply(tx, [Incoming(signal, 1, decision, end, minute(end))], now=end)
    assert await settled(engine, month.until) == 2
    await maintain(engine, month.until + KEEP["alert"] + timedelta(days=1))
    assert await ask(engine, "SELECT fingerprint FROM alert") == ["near"]


async def test_a_late_signal_about_dropped_months_finds_a_place(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    [past, *_] = await known(engine, "alert")
    await maintain(engine, past.until + timedelta(days=500))
    reported = await client.post(WEBHOOK, json=a_delivery(an_alert(ago(days=700), ago(days=699))))
    assert reported.json()["verdicts"] == {"opened": 1}
    assert await ask(engine, "SELECT count(*) FROM alert_past") == [1]


async def test_busy_webhooks_are_not_blocked(engine: AsyncEngine) -> None:
    await maintain(engine, NOW)
    [past, *_] = await known(engine, "alert")
    async with db.transaction(engine) as webhook:
        await webhook.execute(text("LOCK TABLE alert IN ROW EXCLUSIVE MODE"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            await maintain(engine, past.until + timedelta(days=500))
    assert await maintain(engine, past.until + timedelta(days=500))
