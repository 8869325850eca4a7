"""The watch over the feed: how each source is doing, and that one process at a time looks after it."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.access import ensure_source
from app.feed import store
from app.feed.health import Counts, Lag, Reason, Seen, SourceStatus, counts, judge
from app.feed.watch import watch
from tests.test_doors import DOOR, a_delivery, an_alert, count
from tests.test_exposition import of, scrape

HEALTH = "/api/v1/sources/alertmanager/health"


def just_now(*, minutes: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()


async def health(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get(HEALTH)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def reasons(told: Mapping[str, Any]) -> list[str]:
    return [one["reason"] for one in told["reasons"]]


# — what is told of a source —


async def test_a_source_that_has_delivered_nothing_is_unheard(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    assert (await client.get(HEALTH)).status_code == 404
    async with db.transaction(engine) as tx:
        await ensure_source(tx, "alertmanager", "alertmanager", now=datetime.now(UTC))
    told = await health(client)
    assert (told["status"], reasons(told), told["last_delivery_at"]) == ("unheard", ["never_delivered"], None)


async def test_a_source_that_delivers_is_healthy_and_counted(client: httpx.AsyncClient) -> None:
    firing = an_alert(started=just_now(minutes=1))
    for _ in range(3):
        assert (await client.post(DOOR, json=a_delivery(firing))).status_code == 200
    await client.post(DOOR, json=a_delivery(firing | {"status": "resolved", "endsAt": just_now()}))
    told = await health(client)
    assert (told["status"], told["reasons"]) == ("healthy", [])
    assert datetime.now(UTC) - datetime.fromisoformat(told["last_delivery_at"]) < timedelta(minutes=5)
    assert told["open_alerts"] == {"count": 0, "oldest_started_at": None, "unrefreshed": 0}
    counted = told["since_created"]
    assert (counted["deliveries"], counted["signals"], counted["repeated"]) == (4, 4, 2)
    assert counted["verdicts"] == {"opened": 1, "repeated": 2, "resolved": 1}
    assert counted["resolved_without_firing"] == 0
    lag = counted["lag"]
    assert lag["signals"] == 2
    assert lag["mean_seconds"] == pytest.approx(30, abs=20)
    assert (lag["median_at_most_seconds"] < 60, lag["p95_at_most_seconds"] > 59) == (True, True)
    assert (told["last_hour"], told["last_day"]) == (None, None)  # there is no sample yet: no data is not 0


async def test_rates_are_what_came_since_the_sample(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await client.post(DOOR, json=a_delivery(an_alert(), an_alert(instance="b")))
    now = datetime.now(UTC)
    assert await watch(engine, now=now - timedelta(hours=25))
    await client.post(DOOR, json=a_delivery(an_alert(instance="c")))
    assert await watch(engine, now=now - timedelta(hours=2))
    for _ in range(6):
        await client.post(DOOR, json=a_delivery(an_alert()))
    told = await health(client)
    assert [told[span]["deliveries"] for span in ("last_hour", "last_day", "since_created")] == [6, 7, 8]
    assert told["last_hour"]["verdicts"] == {"repeated": 6}
    assert told["last_hour"]["seconds"] == pytest.approx(7200, abs=60)
    assert told["last_hour"]["deliveries_per_minute"] == pytest.approx(6 / 120, rel=0.02)


async def test_samples_are_taken_every_five_minutes_and_kept_for_a_day(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await client.post(DOOR, json=a_delivery(an_alert()))
    begin = datetime(2026, 8, 20, tzinfo=UTC)
    for minute in range(0, 21, 2):
        await watch(engine, now=begin + timedelta(minutes=minute))
    assert await count(engine, "SELECT count(*) FROM feed_sample") == 4  # after 0, 6, 12 and 18 minutes
    await watch(engine, now=begin + timedelta(hours=26, minutes=13))
    assert await count(engine, "SELECT count(*) FROM feed_sample") == 2


async def test_what_a_sender_gets_wrong_is_a_reason(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    bad = an_alert(started="yesterday")
    await client.post(DOOR, json=a_delivery(an_alert(), an_alert(instance="b"), bad) | {"truncatedAlerts": 3})
    async with db.transaction(engine) as tx:
        await tx.execute(
            text("UPDATE alert SET last_seen_at = now() - interval '25 hours' WHERE labels->>'instance' = 'b'")
        )
    told = await health(client)
    assert (told["status"], reasons(told)) == ("degraded", ["quarantine_waiting", "truncated", "unrefreshed"])
    assert told["quarantine_waiting"] == {"bad_time": 1}
    assert told["since_created"]["quarantined"] == {"bad_time": 1}
    truncated = {"truncated_deliveries": 1, "truncated_alerts": 3}
    assert truncated.items() <= told["since_created"].items()
    assert told["open_alerts"] == {"count": 2, "oldest_started_at": "2026-08-20T10:00:00Z", "unrefreshed": 1}
    for one in told["reasons"]:
        assert one["detail"]
        assert one["remedy"]


async def test_an_alert_first_told_of_by_its_resolve_is_counted(client: httpx.AsyncClient) -> None:
    both = [an_alert(), an_alert(ended="2026-08-20T10:05:00Z")]
    await client.post(DOOR, json=a_delivery(*both))
    assert (await health(client))["since_created"]["resolved_without_firing"] == 0
    await client.post(DOOR, json=a_delivery(an_alert(ended="2026-08-20T10:05:00Z", instance="b")))
    await client.post(DOOR, json=a_delivery(an_alert(ended="2026-08-20T10:06:00Z", instance="b")))
    assert (await health(client))["since_created"]["resolved_without_firing"] == 1


async def test_prometheus_reads_the_same(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    body = a_delivery(an_alert(), an_alert(started="yesterday"), an_alert(ended="2026-08-20T10:05:00Z", instance="b"))
    await client.post(DOOR, json=body | {"truncatedAlerts": 3})
    source = {"source": "alertmanager"}
    before = await scrape(engine)
    assert of(before, "truncated_deliveries_total", **source) == 1
    assert of(before, "quarantined_total", **source, reason="bad_time") == 1
    assert of(before, "resolved_without_firing_total", **source) == 1
    assert of(before, "alerts_open", **source) is None
    await watch(engine, now=datetime.now(UTC) + timedelta(days=2))
    after = await scrape(engine)
    assert (of(after, "alerts_open", **source), of(after, "alerts_unrefreshed", **source)) == (1, 1)


# — the judgement —

YESTERDAY = datetime(2026, 8, 20, tzinfo=UTC)


def judged(**counted: Any) -> tuple[SourceStatus, list[str]]:
    status, found = judge(Seen(YESTERDAY, Counts(seconds=86400, **counted)))
    assert all(isinstance(one, Reason) for one in found)
    return status, [one.reason for one in found]


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ({}, []),
        ({"verdicts": {"opened": 4, "joined": 5}}, []),
        ({"verdicts": {"opened": 4, "joined": 6}}, ["resolves_missing"]),
        ({"verdicts": {"opened": 4, "joined": 6, "resolved": 1}}, []),
        ({"verdicts": {"opened": 19}, "resolved_without_firing": 9}, []),
        ({"verdicts": {"opened": 19}, "resolved_without_firing": 10}, ["firings_missing"]),
        ({"verdicts": {"opened": 20}, "resolved_without_firing": 10}, []),
        ({"lag": Lag(9, 4000, None, None)}, []),
        ({"lag": Lag(10, 1000, 900, 3600)}, []),
        ({"lag": Lag(10, 1000, 3600, 3600)}, ["late"]),
        ({"lag": Lag(10, 9000, None, None)}, ["late"]),
    ],
)
def test_a_pattern_is_a_reason_once_there_is_enough_of_it(counted: dict[str, Any], expected: list[str]) -> None:
    assert judged(**counted) == (SourceStatus.DEGRADED if expected else SourceStatus.HEALTHY, expected)


def test_lag_is_told_by_the_buckets_that_hold_it() -> None:
    now = {("ingest_lag_bucket", "0.5"): 6.0, ("ingest_lag_bucket", "60"): 14.0, ("ingest_lag_bucket", "+Inf"): 1.0}
    then = {("ingest_lag_bucket", "0.5"): 1.0}
    found = counts(now | {("ingest_lag_sum", ""): 2000.0}, then, seconds=60)
    assert found.lag == Lag(20, 100.0, 60, 60)
    assert counts({("ingest_lag_bucket", "+Inf"): 1.0}, {}, seconds=60).lag == Lag(1, 0.0, None, None)


# — one process at a time —


async def test_one_process_at_a_time_watches_and_another_takes_over(engine: AsyncEngine) -> None:
    now = datetime.now(UTC)
    async with db.transaction(engine) as elsewhere:
        assert await store.only_one(elsewhere, "watch")
        assert not await watch(engine, now=now)
    assert await watch(engine, now=now)


async def test_processes_at_once_take_one_sample(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await client.post(DOOR, json=a_delivery(an_alert()))
    now = datetime.now(UTC)
    await asyncio.gather(*(watch(engine, now=now) for _ in range(8)))
    assert await count(engine, "SELECT count(*) FROM feed_sample") == 1
