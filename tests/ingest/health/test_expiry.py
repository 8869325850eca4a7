"""Alerts that end unless they are repeated: what expires while the service can receive reports, and while it cannot."""

import json
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import ensure_source
from app.ingest.health.watch import AWAY, watch
from app.ingest.intake.flush import Delivery, Flusher
from app.ingest.sender import Receipt, Request
from app.ingest.senders import alertmanager_api
from tests.ingest.health.test_health import DAY, a_flusher, alerts, incidents
from tests.oracle import assert_lawful

KIND = "alertmanager-api"
ROUND = timedelta(seconds=30)
PROMETHEUS = timedelta(minutes=4)  # how far ahead it announces an end if it repeats alerts every minute


@pytest.fixture
def flusher(engine: AsyncEngine) -> Flusher:
    return a_flusher(engine)


def at(clock: str) -> datetime:
    """`10:05` or `10:05:30`."""
    parts = [int(part) for part in clock.split(":")]
    return DAY + timedelta(hours=parts[0], minutes=parts[1], seconds=parts[2] if len(parts) > 2 else 0)


async def post(
    engine: AsyncEngine, flusher: Flusher, moment: datetime, ends_at: datetime | None = None, **alert: Any
) -> dict[str, int]:
    """An alert that has been firing since 10:00, received at that time; returns the verdicts."""
    alert = {"labels": {"alertname": "Down", "service": "shop"}, "startsAt": "2026-08-20T10:00:00Z", **alert}
    if ends_at is not None:
        alert["endsAt"] = ends_at.isoformat()
    async with db.session(engine) as session:
        source = await ensure_source(session, KIND, KIND, now=moment)
        reading = alertmanager_api.read(Request(json.dumps([alert]).encode(), moment, KIND))
        receipt = await flusher.apply(await session.connection(), Delivery(source.id, KIND, moment, reading))
        assert isinstance(receipt, Receipt)
        return receipt.verdicts


async def repeat(engine: AsyncEngine, flusher: Flusher, since: datetime, until: datetime) -> None:
    """Every minute, as Prometheus does, while the service runs."""
    while since <= until:
        await post(engine, flusher, since, since + PROMETHEUS)
        await run(engine, flusher, since, since + timedelta(seconds=59))
        since += timedelta(minutes=1)


async def run(engine: AsyncEngine, flusher: Flusher, since: datetime, until: datetime) -> None:
    """The service runs all that time."""
    while since < until:
        assert await watch(engine, flusher, now=since, away=AWAY)
        since += ROUND
    assert await watch(engine, flusher, now=until, away=AWAY)


async def test_an_alert_that_is_not_repeated_ends_when_its_sender_announced(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    await repeat(engine, flusher, at("10:00:07"), at("10:20:07"))
    assert await alerts(engine) == [(at("10:00"), None, None)]
    await run(engine, flusher, at("10:21"), at("10:25"))
    assert await alerts(engine) == [(at("10:00"), None, None)]
    await run(engine, flusher, at("10:25"), at("10:26"))
    assert await alerts(engine) == [(at("10:00"), at("10:24:07"), "expired")]
    [incident] = await incidents(client)
    assert incident["measures"]["time_to_recover"] == {"seconds": 24 * 60 + 7, "status": "recorded", "reason": None}
    await assert_lawful(engine)


async def test_an_alert_that_is_repeated_after_all_has_not_ended(engine: AsyncEngine, flusher: Flusher) -> None:
    """Prometheus was stopped for a while."""
    await repeat(engine, flusher, at("10:00:07"), at("10:05:07"))
    await run(engine, flusher, at("10:06"), at("10:12"))
    assert await alerts(engine) == [(at("10:00"), at("10:09:07"), "expired")]
    assert await post(engine, flusher, at("10:12:07"), at("10:16:07")) == {"reopened": 1}
    assert await alerts(engine) == [(at("10:00"), None, None)]
    # And again; now the end that Prometheus reports arrives late, as one of those that it repeats for 15 minutes.
    await run(engine, flusher, at("10:13"), at("10:20"))
    assert await alerts(engine) == [(at("10:00"), at("10:16:07"), "expired")]
    assert await post(engine, flusher, at("10:21"), at("10:14")) == {"resolved": 1}
    assert await alerts(engine) == [(at("10:00"), at("10:14"), "recovered")]
    await assert_lawful(engine)


async def test_what_expired_while_nothing_could_arrive_is_not_called_a_recovery(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    """The service is down from 10:05 to 12:00: every sender gets the time that it announced to repeat an alert."""
    await repeat(engine, flusher, at("10:00:07"), at("10:04:07"))
    await run(engine, flusher, at("12:00"), at("12:05"))
    assert await alerts(engine) == [(at("10:00"), None, None)]
    await run(engine, flusher, at("12:05"), at("12:06"))
    assert await alerts(engine) == [(at("10:00"), at("10:04:07"), "timeout")]
    [incident] = await incidents(client)
    assert incident["measures"]["time_to_recover"]["status"] == "not_applicable"


async def test_an_alert_that_fires_throughout_an_outage_of_the_service_never_ends(
    engine: AsyncEngine, flusher: Flusher
) -> None:
    await repeat(engine, flusher, at("10:00:07"), at("10:04:07"))
    await run(engine, flusher, at("12:00"), at("12:00"))
    await repeat(engine, flusher, at("12:00:40"), at("12:10:40"))
    assert await alerts(engine) == [(at("10:00"), None, None)]
    async with engine.connect() as connection:
        kinds = (await connection.execute(text("SELECT DISTINCT kind FROM timeline"))).scalars().all()
    assert not {"resolved", "reopened"} & {*kinds}


async def test_a_restart_shorter_than_the_announced_time_ends_nothing(engine: AsyncEngine, flusher: Flusher) -> None:
    """Not even for a sender that announces four seconds, and is repeated every second."""
    await run(engine, flusher, at("10:00"), at("10:00"))
    for second in range(3):
        moment = at("10:00") + timedelta(seconds=second)
        await post(engine, flusher, moment, moment + timedelta(seconds=4))
    await run(engine, flusher, at("10:00:59"), at("10:01:05"))
    for second in range(65, 90, 5):
        moment = at("10:00") + timedelta(seconds=second)
        await post(engine, flusher, moment, moment + timedelta(seconds=4))
    await run(engine, flusher, at("10:01:30"), at("10:02:30"))
    assert await alerts(engine) == [(at("10:00"), None, None)]


async def test_a_delivery_from_the_spool_counts_from_when_it_was_received(
    engine: AsyncEngine, flusher: Flusher
) -> None:
    await repeat(engine, flusher, at("10:00:07"), at("10:05:07"))
    await run(engine, flusher, at("10:06"), at("10:15"))
    assert await alerts(engine) == [(at("10:00"), at("10:09:07"), "expired")]
    # Another process had spooled these. The last one was received in the minute of that end, after it.
    for clock in ("10:06:07", "10:09:50"):
        await post(engine, flusher, at(clock), at(clock) + PROMETHEUS)
    assert await alerts(engine) == [(at("10:00"), None, None)]
    await run(engine, flusher, at("10:15:30"), at("10:16:30"))
    assert await alerts(engine) == [(at("10:00"), at("10:13:50"), "expired")]
    await assert_lawful(engine)


async def test_without_an_end_an_alert_lasts_as_long_as_in_alertmanager(engine: AsyncEngine, flusher: Flusher) -> None:
    await run(engine, flusher, at("10:00"), at("10:00"))
    await post(engine, flusher, at("10:00:30"), None, endsAt="0001-01-01T00:00:00Z")
    await run(engine, flusher, at("10:01"), at("10:08"))
    assert await alerts(engine) == [(at("10:00"), at("10:05:30"), "expired")]


async def test_an_alert_without_a_start_that_returns_after_its_expiry_is_a_new_one(
    engine: AsyncEngine, flusher: Flusher
) -> None:
    """As `amtool alert add` posts it. While it is repeated, it goes on."""
    await run(engine, flusher, at("10:00"), at("10:00"))
    never = "0001-01-01T00:00:00Z"
    for clock in ("10:00:30", "10:04:00"):
        await post(engine, flusher, at(clock), None, startsAt=never, endsAt=never)
    await run(engine, flusher, at("10:04:30"), at("10:12"))
    assert await post(engine, flusher, at("22:00"), None, startsAt=never, endsAt=never) == {"opened": 1}
    assert await alerts(engine) == [(at("10:00:30"), at("10:09"), "expired"), (at("22:00"), None, None)]


async def test_the_clock_of_a_sender_that_is_ahead_moves_the_end_only_until_it_is_repeated(
    engine: AsyncEngine, flusher: Flusher
) -> None:
    """By a minute: what it reports as ended just now is an end to come."""
    await run(engine, flusher, at("10:00"), at("10:01"))
    await post(engine, flusher, at("10:00:30"), at("10:05:30"))
    await post(engine, flusher, at("10:01:00"), at("10:02:00"))
    await run(engine, flusher, at("10:01:30"), at("10:03:50"))
    assert await alerts(engine) == [(at("10:00"), at("10:02:00"), "expired")]
    await post(engine, flusher, at("10:04:00"), at("10:02:00"))
    assert await alerts(engine) == [(at("10:00"), at("10:02:00"), "recovered")]


async def test_repeats_within_a_minute_change_nothing_in_the_database(engine: AsyncEngine, flusher: Flusher) -> None:
    async def version() -> tuple[str, datetime]:
        async with engine.connect() as connection:
            row = (await connection.execute(text("SELECT xmin::text, expires_at FROM alert"))).one()
        return row[0], row[1]

    await post(engine, flusher, at("10:00:01"), at("10:04:01"))
    first = await version()
    for second in range(2, 60, 7):
        await post(engine, flusher, at("10:00") + timedelta(seconds=second), at("10:04") + timedelta(seconds=second))
    assert await version() == first
    await post(engine, flusher, at("10:01"), at("10:05"))
    assert (await version())[1] == at("10:05")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    interval=st.sampled_from([1, 10, 17, 60, 90, 240]),
    stored_after=st.integers(0, 25),
    phase=st.integers(0, 59),
    outages=st.lists(st.tuples(st.integers(60, 900), st.integers(10, 600)), max_size=2),
)
async def test_an_alert_that_is_repeated_never_ends(
    engine: AsyncEngine, flusher: Flusher, interval: int, stored_after: int, phase: int, outages: list[tuple[int, int]]
) -> None:
    """At any interval, announcing four, however long it takes to store a report, with outages of the service."""
    async with db.transaction(engine) as tx:
        await tx.execute(text("TRUNCATE incident, alert, timeline, tally, feed_watch CASCADE"))
    down = [(start, start + length) for start, length in outages]
    announced = timedelta(seconds=4 * interval)
    received = [
        second
        for second in range(phase, 1200, interval)
        if not any(start <= second < end or start <= second + stored_after < end for start, end in down)
    ]
    # Of those in one minute only the first changes the row.
    firsts = [second for before, second in pairwise([-60, *received]) if before // 60 != second // 60]
    stored = {second + stored_after: at("10:00") + timedelta(seconds=second) for second in firsts}
    for second in range(1200):
        if moment := stored.get(second):
            await post(engine, flusher, moment, moment + announced)
        if second % 30 == 0 and not any(start <= second < end for start, end in down):
            assert await watch(engine, flusher, now=at("10:00") + timedelta(seconds=second), away=AWAY)
            assert [ended for _, ended, _ in await alerts(engine)] in ([None], [])
