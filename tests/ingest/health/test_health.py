"""Source health: its judgment, and the watch, which runs in one process at a time."""

import asyncio
import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import ensure_source
from app.base.values.facts import Reaction, ReactionKind
from app.base.values.ids import new_id
from app.catalog.rules import store as rules_store
from app.incidents.grouping.batch import AlertRow, Batch, Incoming, KnownSeries
from app.incidents.grouping.decide import series_of
from app.incidents.grouping.law.episode import Episode
from app.incidents.grouping.law.series import apply_signals
from app.incidents.grouping.rule import DEFAULT_RULE, Rule, Rules, decide, first_match, parse_matcher
from app.incidents.grouping.signal import AlertClass, EndReason, Signal, Status, fingerprint_of
from app.incidents.history.reactions import record_reactions
from app.ingest.health import heartbeat, store
from app.ingest.health.judgment import Counts, Lag, Observations, Reason, SourceStatus, counts, judge, rank
from app.ingest.health.watch import apply, watch
from app.ingest.health.wording import Target, observation, remedy
from app.ingest.intake.flush import Delivery, Flusher
from app.ingest.sender import Receipt, Request
from app.ingest.senders import alertmanager
from app.main import HANDLERS
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert, count
from tests.metrics.prometheus.test_exposition import of, scrape
from tests.statements import counted


@pytest.fixture
def flusher(engine: AsyncEngine) -> Flusher:
    return a_flusher(engine)


def a_flusher(engine: AsyncEngine) -> Flusher:
    """A flusher like that of another process."""
    return Flusher(engine, rules_store.rules, HANDLERS, db.DatabaseMonitor(""), quarantine_bytes=2**20)


HEALTH = "/api/v1/sources/alertmanager/health"


def just_now(*, minutes: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()


async def health(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get(HEALTH)
    assert answer.status_code == 200, answer.text
    reported: dict[str, Any] = answer.json()
    return reported


def reasons(reported: Mapping[str, Any]) -> list[str]:
    return [one["reason"] for one in reported["reasons"]]


# — the health of a source —


async def test_a_source_without_deliveries_was_never_seen(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    assert (await client.get(HEALTH)).status_code == 404
    async with db.session(engine) as session:
        await ensure_source(session, "alertmanager", "alertmanager", now=datetime.now(UTC))
    reported = await health(client)
    assert (reported["status"], reasons(reported), reported["last_delivery_at"]) == (
        "never_seen",
        ["never_delivered"],
        None,
    )


async def test_a_source_that_delivers_is_healthy_and_counted(client: httpx.AsyncClient) -> None:
    firing = an_alert(started=just_now(minutes=1))
    for _ in range(3):
        assert (await client.post(WEBHOOK, json=a_delivery(firing))).status_code == 200
    await client.post(WEBHOOK, json=a_delivery(firing | {"status": "resolved", "endsAt": just_now()}))
    reported = await health(client)
    assert (reported["status"], reported["reasons"]) == ("healthy", [])
    assert datetime.now(UTC) - datetime.fromisoformat(reported["last_delivery_at"]) < timedelta(minutes=5)
    assert reported["open_alerts"] == {"count": 0, "oldest_started_at": None, "unrefreshed": 0}
    counted = reported["since_created"]
    assert (counted["deliveries"], counted["signals"], counted["repeated"]) == (4, 4, 2)
    assert counted["verdicts"] == {"opened": 1, "repeated": 2, "resolved": 1}
    assert counted["resolved_without_firing"] == 0
    lag = counted["lag"]
    assert lag["signals"] == 2
    assert lag["mean_seconds"] == pytest.approx(30, abs=20)
    assert (lag["median_at_most_seconds"] < 60, lag["p95_at_most_seconds"] > 59) == (True, True)
    assert (reported["last_hour"], reported["last_day"]) == (None, None)  # there is no sample yet: no data is not 0


async def test_rates_count_signals_since_the_sample(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(), an_alert(instance="b")))
    now = datetime.now(UTC)
    assert await watch(engine, flusher, now=now - timedelta(hours=25))
    await client.post(WEBHOOK, json=a_delivery(an_alert(instance="c")))
    assert await watch(engine, flusher, now=now - timedelta(hours=2))
    for _ in range(6):
        await client.post(WEBHOOK, json=a_delivery(an_alert()))
    reported = await health(client)
    assert [reported[span]["deliveries"] for span in ("last_hour", "last_day", "since_created")] == [6, 7, 8]
    assert reported["last_hour"]["verdicts"] == {"repeated": 6}
    assert reported["last_hour"]["seconds"] == pytest.approx(7200, abs=60)
    assert reported["last_hour"]["deliveries_per_minute"] == pytest.approx(6 / 120, rel=0.02)


async def test_samples_are_taken_every_five_minutes_and_kept_for_a_day(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    begin = datetime(2026, 8, 20, tzinfo=UTC)
    for minute in range(0, 21, 2):
        await watch(engine, flusher, now=begin + timedelta(minutes=minute))
    assert await count(engine, "SELECT count(*) FROM feed_sample") == 4  # after 0, 6, 12 and 18 minutes
    await watch(engine, flusher, now=begin + timedelta(hours=26, minutes=13))
    assert await count(engine, "SELECT count(*) FROM feed_sample") == 2


async def test_each_error_of_a_sender_is_a_reason(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    bad = an_alert(started="yesterday")
    await client.post(WEBHOOK, json=a_delivery(an_alert(), an_alert(instance="b"), bad) | {"truncatedAlerts": 3})
    async with db.transaction(engine) as tx:
        await tx.execute(
            text("UPDATE alert SET last_seen_at = now() - interval '25 hours' WHERE labels->>'instance' = 'b'")
        )
    reported = await health(client)
    assert (reported["status"], reasons(reported)) == ("degraded", ["quarantine_waiting", "truncated", "unrefreshed"])
    assert reported["quarantine_waiting"] == {"bad_time": 1}
    assert reported["since_created"]["quarantined"] == {"bad_time": 1}
    truncated = {"truncated_deliveries": 1, "truncated_alerts": 3}
    assert truncated.items() <= reported["since_created"].items()
    assert reported["open_alerts"] == {"count": 2, "oldest_started_at": "2026-08-20T10:00:00Z", "unrefreshed": 1}
    for one in reported["reasons"]:
        assert one["detail"]
        assert one["remedy"]


async def test_reactions_that_wait_for_long_are_a_reason(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """Of a group that has never been delivered here; those of the last minutes may still find their alert."""
    now = datetime.now(UTC)
    await client.post(WEBHOOK, json=a_delivery(an_alert(started=just_now(minutes=60))))
    assert (await health(client))["reactions"] == {"waiting": 0, "last": None}
    fingerprint = fingerprint_of(an_alert()["labels"])
    found = Reaction(ReactionKind.ACKNOWLEDGED, now - timedelta(minutes=30), fingerprint, by="ada")
    waiting = Reaction(ReactionKind.CLOSED, now - timedelta(minutes=20), correlation="of another route", by="bob")
    for minutes, reported in ((2, []), (20, ["reactions_waiting"]), (24 * 60 + 1, [])):
        async with db.transaction(engine) as tx:
            [source] = (await tx.execute(text("SELECT id FROM source WHERE name = 'alertmanager'"))).one()
            await tx.execute(text("DELETE FROM reaction"))
            received_at = now - timedelta(minutes=minutes)
            await record_reactions(tx, [found, waiting], source_id=source, now=received_at)
        shown = await health(client)
        last = {"kind": "closed", "at": waiting.at.isoformat().replace("+00:00", "Z"), "by": "bob"}
        assert shown["reactions"] == {"waiting": 1, "last": last}
        assert reasons(shown) == reported
        assert [one["detail"].split(" ")[:3] for one in shown["reasons"]] == [["1", "of", "2"] for _ in reported]


async def test_an_alert_first_reported_by_its_resolve_is_counted(client: httpx.AsyncClient) -> None:
    both = [an_alert(), an_alert(ended="2026-08-20T10:05:00Z")]
    await client.post(WEBHOOK, json=a_delivery(*both))
    assert (await health(client))["since_created"]["resolved_without_firing"] == 0
    await client.post(WEBHOOK, json=a_delivery(an_alert(ended="2026-08-20T10:05:00Z", instance="b")))
    await client.post(WEBHOOK, json=a_delivery(an_alert(ended="2026-08-20T10:06:00Z", instance="b")))
    assert (await health(client))["since_created"]["resolved_without_firing"] == 1


async def test_prometheus_reads_the_same(client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher) -> None:
    body = a_delivery(an_alert(), an_alert(started="yesterday"), an_alert(ended="2026-08-20T10:05:00Z", instance="b"))
    await client.post(WEBHOOK, json=body | {"truncatedAlerts": 3})
    source = {"source": "alertmanager"}
    before = await scrape(engine)
    assert of(before, "truncated_deliveries_total", **source) == 1
    assert of(before, "quarantined_total", **source, reason="bad_time") == 1
    assert of(before, "resolved_without_firing_total", **source) == 1
    assert of(before, "alerts_open", **source) is None
    await watch(engine, flusher, now=datetime.now(UTC) + timedelta(days=2))
    after = await scrape(engine)
    assert (of(after, "alerts_open", **source), of(after, "alerts_unrefreshed", **source)) == (1, 1)


# — the judgment —

YESTERDAY = datetime(2026, 8, 20, tzinfo=UTC)


def judged(**counted: Any) -> tuple[SourceStatus, list[str]]:
    status, found = judge(Observations(YESTERDAY, Counts(seconds=86400, **counted)))
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
        ({"contradicted_ends": 1}, ["contradicting_reports"]),
        ({"lag": Lag(9, 4000, None, None)}, []),
        ({"lag": Lag(10, 1000, 900, 3600)}, []),
        ({"lag": Lag(10, 1000, 3600, 3600)}, ["late"]),
        ({"lag": Lag(10, 9000, None, None)}, ["late"]),
    ],
)
def test_a_pattern_becomes_a_reason_once_there_are_enough_signals(counted: dict[str, Any], expected: list[str]) -> None:
    assert judged(**counted) == (SourceStatus.DEGRADED if expected else SourceStatus.HEALTHY, expected)


def test_quantiles_of_the_lag_are_bounds_of_buckets() -> None:
    now = {("ingest_lag_bucket", "0.5"): 6.0, ("ingest_lag_bucket", "60"): 14.0, ("ingest_lag_bucket", "+Inf"): 1.0}
    then = {("ingest_lag_bucket", "0.5"): 1.0}
    found = counts(now | {("ingest_lag_sum", ""): 2000.0}, then, seconds=60)
    assert found.lag == Lag(20, 100.0, 60, 60)
    assert counts({("ingest_lag_bucket", "+Inf"): 1.0}, {}, seconds=60).lag == Lag(1, 0.0, None, None)


# — one process at a time —


async def test_one_process_at_a_time_watches_and_another_takes_over(engine: AsyncEngine, flusher: Flusher) -> None:
    now = datetime.now(UTC)
    async with db.session(engine) as elsewhere:
        assert await store.only_one(elsewhere, "watch")
        assert not await watch(engine, flusher, now=now)
    assert await watch(engine, flusher, now=now)


async def test_processes_at_once_take_one_sample(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    now = datetime.now(UTC)
    await asyncio.gather(*(watch(engine, flusher, now=now) for _ in range(8)))
    assert await count(engine, "SELECT count(*) FROM feed_sample") == 1


# — heartbeats —

DAY = datetime(2026, 8, 20, tzinfo=UTC)
HOURS_5 = timedelta(hours=5)


def at(clock: str) -> datetime:
    hours, minutes = map(int, clock.split(":"))
    return DAY + timedelta(hours=hours, minutes=minutes)


def shown(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def a_watchdog(**labels: str) -> dict[str, Any]:
    reported = an_alert(started="2026-08-01T00:00:00Z")
    reported["labels"] = {"alertname": "Watchdog", "severity": "none", **labels}
    return reported


async def deliver(engine: AsyncEngine, flusher: Flusher, moment: datetime, *alerts: dict[str, Any]) -> dict[str, int]:
    """Delivers the signals at that time; returns the verdicts."""
    async with db.session(engine) as session:
        source = await ensure_source(session, "alertmanager", "alertmanager", now=moment)
        body = json.dumps(a_delivery(*alerts)).encode()
        reading = alertmanager.read(Request(body, moment, "alertmanager"))
        delivery = Delivery(source.id, "alertmanager", moment, reading)
        receipt = await flusher.apply(await session.connection(), delivery)
        assert isinstance(receipt, Receipt)
        return receipt.verdicts


async def rounds(engine: AsyncEngine, flusher: Flusher, since: datetime, until: datetime) -> None:
    """Rounds at both ends and in between, close enough for the service to count as running all the time."""
    step = max(timedelta(minutes=1), (until - since) / 4)
    while since < until:
        assert await watch(engine, flusher, now=since, away=step)
        since += step
    assert await watch(engine, flusher, now=until, away=step)


async def incidents(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Oldest first."""
    items: list[dict[str, Any]] = (await client.get("/api/v1/incidents", params={"limit": 100})).json()["items"]
    return items[::-1]


async def alerts(engine: AsyncEngine) -> list[tuple[datetime, datetime | None, str | None]]:
    """Start, end and reason of each."""
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT started_at, ended_at, end_reason FROM alert ORDER BY 1"))
        return [(row.started_at, row.ended_at, row.end_reason) for row in found]


@pytest.fixture
async def five_minutes(client: httpx.AsyncClient) -> None:
    """The Watchdog may be silent for five minutes."""
    body = {"position": 0, "matchers": ['alertname="Watchdog"'], "heartbeat_seconds": 300}
    assert (await client.put("/api/v1/rules/watchdog", json=body)).status_code == 200


async def test_a_heartbeat_opens_no_incident(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    answer = await client.post(WEBHOOK, json=a_delivery(a_watchdog(), a_watchdog(prometheus="b"), an_alert()))
    assert answer.json()["verdicts"] == {"ignored": 2, "opened": 1}
    assert (await incidents(client))[0]["alerts"] == 1
    reported = await health(client)
    assert reported["status"] == "healthy"
    beats = reported["heartbeats"]
    assert [(beat["rule"], beat["heartbeat_seconds"], beat["missing_since"]) for beat in beats] == [
        ("watchdog", 5 * 3600, None)
    ] * 2
    assert beats[0]["first_at"] == beats[0]["last_at"] == reported["last_delivery_at"]
    await client.post(WEBHOOK, json=a_delivery(a_watchdog() | {"status": "resolved", "endsAt": just_now()}))
    again = await health(client)
    assert sorted(beat["last_at"] for beat in again["heartbeats"]) == sorted(beat["last_at"] for beat in beats)


async def test_a_missing_heartbeat_opens_a_monitoring_incident_until_it_returns(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, five_minutes: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:00"), a_watchdog(cluster="eu"))
    await rounds(engine, flusher, at("10:01"), at("10:05"))
    assert await incidents(client) == []
    await rounds(engine, flusher, at("10:06"), at("10:20"))
    [incident] = await incidents(client)
    assert (incident["detected_at"], incident["status"], incident["severity"]) == (
        "2026-08-20T10:05:00Z",
        "open",
        "sev1",
    )
    assert incident["title"] == "HeartbeatMissing: no heartbeat from alertmanager since 2026-08-20 10:00:00 UTC"
    assert (incident["service"], incident["sources"]) == ("monitoring", ["alertmanager"])
    assert incident["labels"]["cluster"] == "eu"
    reported = await health(client)
    assert (reported["status"], reasons(reported)[0]) == ("failing", "heartbeat_missing")
    assert reported["heartbeats"][0]["missing_since"] == "2026-08-20T10:05:00Z"

    await deliver(engine, flusher, at("10:20"), a_watchdog(cluster="eu"))
    await deliver(engine, flusher, at("10:21"), a_watchdog(cluster="eu"))
    assert "heartbeat_missing" not in reasons(await health(client))
    await rounds(engine, flusher, at("10:21"), at("10:22"))
    [incident] = await incidents(client)
    assert (incident["status"], incident["resolved_at"]) == ("resolved", "2026-08-20T10:20:00Z")
    # Never a recovery or a downtime of a service.
    assert incident["measures"]["time_to_recover"]["status"] == "not_applicable"
    period = {"from": "2026-08-20T00:00:00Z", "to": "2026-08-21T00:00:00Z"}
    summary = (await client.get("/api/v1/metrics/summary", params=period)).json()
    assert summary["total"]["downtime"]["seconds"] == 0

    await rounds(engine, flusher, at("10:23"), at("10:40"))
    assert [began for began, _, _ in await alerts(engine)] == [at("10:05"), at("10:26")]
    assert await count(engine, "SELECT sum(value) FROM tally WHERE name = 'inferred'") == 3
    # This does not count as a delivery.
    assert await count(engine, "SELECT count(*) FROM delivery") == 3
    assert (await health(client))["last_delivery_at"] == "2026-08-20T10:21:00Z"


async def test_each_heartbeat_of_a_source_is_waited_for(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, five_minutes: None
) -> None:
    for minute in range(0, 20, 2):
        moment = at("10:00") + timedelta(minutes=minute)
        beats = [a_watchdog(prometheus="a"), a_watchdog(prometheus="b")][: 2 if minute < 6 else 1]
        await deliver(engine, flusher, moment, *beats)
        await rounds(engine, flusher, moment, moment + timedelta(minutes=1))
    assert await alerts(engine) == [(at("10:09"), None, None)]
    [incident] = await incidents(client)
    assert incident["labels"]["prometheus"] == "b"


async def test_concurrent_processes_report_one_absence_once(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, five_minutes: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:00"), a_watchdog())
    await rounds(engine, flusher, at("10:01"), at("10:05"))
    others = [a_flusher(engine) for _ in range(4)]
    for moment in (at("10:06"), at("10:07"), at("10:06")):
        await asyncio.gather(*(watch(engine, other, now=moment) for other in others))
    assert await alerts(engine) == [(at("10:05"), None, None)]
    await deliver(engine, flusher, at("10:08"), a_watchdog())
    await asyncio.gather(*(watch(engine, other, now=at("10:09")) for other in others))
    await rounds(engine, flusher, at("10:09"), at("10:10"))
    assert await alerts(engine) == [(at("10:05"), at("10:08"), "recovered")]
    assert await count(engine, "SELECT sum(value) FROM tally WHERE name = 'inferred'") == 2


async def test_a_beat_that_was_due_while_the_service_was_down_is_not_missing(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, five_minutes: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:00"), a_watchdog())
    # Two hours later the service is back; the wait restarts then.
    await rounds(engine, flusher, at("12:00"), at("12:05"))
    assert await alerts(engine) == []
    await rounds(engine, flusher, at("12:06"), at("12:06"))
    assert await alerts(engine) == [(at("12:05"), None, None)]


async def test_a_queued_beat_is_not_declared_missing(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, five_minutes: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:00"), a_watchdog())
    await rounds(engine, flusher, at("10:01"), at("10:06"))
    assert await alerts(engine) == [(at("10:05"), None, None)]
    await deliver(engine, flusher, at("10:04"), a_watchdog())
    await rounds(engine, flusher, at("10:07"), at("10:07"))
    assert await alerts(engine) == [(at("10:05"), at("10:05"), "recovered")]
    # Resending an old beat has no effect.
    await rounds(engine, flusher, at("10:08"), at("10:10"))
    await deliver(engine, flusher, at("10:03"), a_watchdog())
    await rounds(engine, flusher, at("10:11"), at("10:11"))
    assert await alerts(engine) == [(at("10:05"), at("10:05"), "recovered"), (at("10:09"), None, None)]


async def test_a_beat_between_the_decision_and_its_effect_wins(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, five_minutes: None
) -> None:
    await deliver(engine, flusher, at("10:00"), a_watchdog())
    async with db.session(engine) as session:
        [beats] = await store.heartbeats(session)
    transition = heartbeat.judge(beats, listening_since=at("10:00"), now=at("10:06"))
    assert transition is not None
    await deliver(engine, flusher, at("10:05"), a_watchdog())
    with pytest.raises(store.HeartbeatChanged):
        async with db.session(engine) as session:
            await apply(session, flusher, beats, transition, now=at("10:06"))
    assert await alerts(engine) == []


async def test_a_heartbeat_without_its_rule_is_no_longer_expected(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, five_minutes: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:00"), a_watchdog())
    await rounds(engine, flusher, at("10:01"), at("10:06"))
    assert (await client.delete("/api/v1/rules/watchdog")).status_code == 204
    await rounds(engine, flusher, at("10:07"), at("10:30"))
    assert await alerts(engine) == [(at("10:05"), at("10:07"), "rule_deleted")]
    assert (await health(client))["heartbeats"] == []
    # It is an alert like any other now.
    assert await deliver(engine, flusher, at("10:31"), a_watchdog()) == {"opened": 1}


async def test_a_rule_that_changes_between_two_beats_is_seen(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    assert await deliver(engine, flusher, at("10:00"), a_watchdog()) == {"ignored": 1}
    assert (await client.delete("/api/v1/rules/watchdog")).status_code == 204
    assert await deliver(engine, flusher, at("10:01"), a_watchdog()) == {"opened": 1}


async def test_a_heartbeat_that_is_gone_for_good_can_be_forgotten(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, five_minutes: None
) -> None:
    now = datetime.now(UTC)
    await rounds(engine, flusher, now - timedelta(minutes=10), now - timedelta(minutes=10))
    await deliver(engine, flusher, now - timedelta(minutes=10), a_watchdog())
    await rounds(engine, flusher, now - timedelta(minutes=9), now)
    [beat] = (await health(client))["heartbeats"]
    path = f"/api/v1/sources/alertmanager/heartbeats/{beat['fingerprint']}"
    assert (await client.delete(path)).status_code == 204
    assert (await client.delete(path)).status_code == 404
    [(began, ended, reason)] = await alerts(engine)
    assert (began, reason) == (now - timedelta(minutes=5), "rule_deleted")
    assert ended is not None
    assert (await health(client))["heartbeats"] == []


async def test_prometheus_reads_of_heartbeats(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, five_minutes: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:00"), a_watchdog(prometheus="a"), a_watchdog(prometheus="b"))
    await deliver(engine, flusher, at("10:04"), a_watchdog(prometheus="b"))
    await rounds(engine, flusher, at("10:01"), at("10:06"))
    found = await scrape(engine)
    source = {"source": "alertmanager"}
    assert of(found, "heartbeat_last_timestamp_seconds", **source) == at("10:00").timestamp()
    assert of(found, "heartbeats_missing", **source) == 1
    assert of(found, "inferred_signals_total", **source, reason="heartbeat_missing") == 1


def test_the_absence_of_a_heartbeat_is_never_a_heartbeat() -> None:
    rule = Rule("all", 0, (parse_matcher('severity=~".+"'),), heartbeat=HOURS_5)
    rules = Rules([rule])
    missing = {"alertname": "HeartbeatMissing", "severity": "critical"}
    assert rules.decide({"alertname": "X", "severity": "critical"}, AlertClass.SERVICE).heartbeat
    assert (rules.decide(missing, AlertClass.MONITORING).rule, first_match([rule], missing).name) == (
        "default",
        "default",
    )


async def test_a_rule_of_heartbeats_needs_matchers_and_a_sensible_time(client: httpx.AsyncClient) -> None:
    for body in (
        {"heartbeat_seconds": 300},
        {"matchers": ["a=b"], "heartbeat_seconds": 59},
        {"matchers": ["a=b"], "heartbeat_seconds": 700_000},
    ):
        assert (await client.put("/api/v1/rules/x", json=body)).status_code == 422
    assert (await client.put("/api/v1/rules/default", json={"heartbeat_seconds": 300})).status_code == 422
    made = await client.put("/api/v1/rules/x", json={"matchers": ["a=b"], "heartbeat_seconds": 300})
    assert (made.status_code, made.json()["heartbeat_seconds"]) == (201, 300)
    assert (await client.put("/api/v1/rules/x", json={"matchers": ["a=b"]})).json()["heartbeat_seconds"] is None


async def test_the_usual_heartbeats_are_known_from_the_start(client: httpx.AsyncClient) -> None:
    rules = (await client.get("/api/v1/rules")).json()["items"]
    heartbeats = [(rule["name"], rule["matchers"], rule["heartbeat_seconds"]) for rule in rules[:2]]
    assert heartbeats == [
        ("aftermath-heartbeat", ['alertname="AftermathHeartbeat"'], 900),
        ("watchdog", ['alertname="Watchdog"'], 5 * 3600),
    ]
    assert {rule["heartbeat_seconds"] for rule in rules[2:]} == {None}


# — stale alerts —


@pytest.fixture
async def an_hour(client: httpx.AsyncClient) -> None:
    """Alerts that the source has not resent for an hour have ended."""
    body = {"kind": "alertmanager", "stale_seconds": 3600}
    answer = await client.put("/api/v1/sources/alertmanager", json=body)
    assert (answer.status_code, answer.json()["stale_seconds"]) == (200, 3600)


FIRING = an_alert(started="2026-08-20T10:00:00Z")


async def test_an_alert_that_is_not_resent_times_out_when_it_was_last_seen(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, an_hour: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:01"), FIRING)
    await deliver(engine, flusher, at("10:30"), FIRING)
    await rounds(engine, flusher, at("10:01"), at("11:30"))
    assert await alerts(engine) == [(at("10:00"), None, None)]
    await rounds(engine, flusher, at("11:31"), at("11:33"))
    assert await alerts(engine) == [(at("10:00"), at("10:30"), "timeout")]
    [incident] = await incidents(client)
    assert (incident["status"], incident["resolved_at"]) == ("resolved", "2026-08-20T10:30:00Z")
    assert incident["measures"]["time_to_recover"] == {
        "seconds": None,
        "status": "not_applicable",
        "reason": "ended by timeout",
    }
    assert await count(engine, "SELECT sum(value) FROM tally WHERE name = 'inferred'") == 1


async def test_a_timed_out_alert_that_is_resent_has_not_ended(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, an_hour: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:01"), FIRING)
    await rounds(engine, flusher, at("10:01"), at("11:05"))
    assert await alerts(engine) == [(at("10:00"), at("10:01"), "timeout")]
    assert await deliver(engine, flusher, at("11:06"), FIRING) == {"reopened": 1}
    [incident] = await incidents(client)
    assert (incident["status"], incident["number"], incident["alerts_firing"]) == ("open", "INC-1", 1)
    # The end reported by the sender counts.
    assert await deliver(engine, flusher, at("11:10"), an_alert(ended="2026-08-20T11:08:00Z")) == {"resolved": 1}
    await rounds(engine, flusher, at("11:10"), at("13:00"))
    assert await alerts(engine) == [(at("10:00"), at("11:08"), "recovered")]
    [incident] = await incidents(client)
    assert (incident["reopened"], incident["measures"]["time_to_recover"]["seconds"]) == (0, 68 * 60)


async def test_a_real_end_beats_a_timeout_that_came_before_it(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, an_hour: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:01"), FIRING)
    await rounds(engine, flusher, at("10:01"), at("11:05"))
    assert await deliver(engine, flusher, at("11:10"), an_alert(ended="2026-08-20T10:00:30Z")) == {"resolved": 1}
    assert await alerts(engine) == [(at("10:00"), at("10:00") + timedelta(seconds=30), "recovered")]


async def test_only_sources_with_a_timeout_time_out_and_heartbeats_never(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, five_minutes: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:01"), FIRING, a_watchdog())
    await rounds(engine, flusher, at("10:01"), at("12:00"))
    assert [ended for _, ended, _ in await alerts(engine)] == [None, None]
    body = {"kind": "alertmanager", "stale_seconds": 3600}
    assert (await client.put("/api/v1/sources/alertmanager", json=body)).status_code == 200
    await rounds(engine, flusher, at("12:01"), at("12:03"))
    # The service itself reports the missing heartbeat.
    assert await alerts(engine) == [(at("10:00"), at("10:01"), "timeout"), (at("10:06"), None, None)]


async def test_nothing_times_out_while_the_service_was_down(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, an_hour: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:01"), FIRING)
    await rounds(engine, flusher, at("14:00"), at("15:00"))
    assert await alerts(engine) == [(at("10:00"), None, None)]
    await rounds(engine, flusher, at("15:01"), at("15:01"))
    assert await alerts(engine) == [(at("10:00"), at("10:01"), "timeout")]


async def test_an_alert_of_a_rule_that_has_changed_times_out_too(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, an_hour: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    await deliver(engine, flusher, at("10:01"), an_alert(pod="a"))
    rule = {"position": 1, "matchers": ['pod="a"'], "key_labels": ["pod"], "ignored_labels": ["pod"]}
    assert (await client.put("/api/v1/rules/x", json=rule)).status_code == 201
    await rounds(engine, flusher, at("10:02"), at("11:05"))
    assert await alerts(engine) == [(at("10:00"), at("10:01"), "timeout")]


@pytest.mark.parametrize("seconds", [299, 2_592_001, -1, "x"])
async def test_a_stale_timeout_is_a_sensible_time(client: httpx.AsyncClient, seconds: object) -> None:
    body = {"kind": "alertmanager", "stale_seconds": seconds}
    assert (await client.put("/api/v1/sources/alertmanager", json=body)).status_code == 422


async def test_a_firing_without_a_start_goes_on_after_a_timeout(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, an_hour: None
) -> None:
    await rounds(engine, flusher, at("10:00"), at("10:00"))
    no_start = an_alert(started="0001-01-01T00:00:00Z")
    await deliver(engine, flusher, at("10:01"), no_start)
    await rounds(engine, flusher, at("10:01"), at("11:05"))
    assert await alerts(engine) == [(at("10:01"), at("10:01"), "timeout")]
    await deliver(engine, flusher, at("11:06"), no_start)
    assert await alerts(engine) == [(at("10:01"), None, None)]


# Reports of one alert, in minutes: seen firing at, last seen at when an end is inferred, really ended at.
SEEN = st.tuples(st.just("seen"), st.integers(1, 12))
INFERRED_AT = st.tuples(st.sampled_from(["timeout", "reconciled"]), st.integers(0, 12))
ENDED = st.tuples(st.just("ended"), st.integers(0, 12))
REPORTED = st.lists(st.one_of(SEEN, SEEN, INFERRED_AT, INFERRED_AT, ENDED), max_size=8)


def expected_end(reported: list[tuple[str, int]]) -> tuple[int, str] | None:
    """The law for the set: a real end, else the last inferred one after which the alert was not seen."""
    if ended := [minute for kind, minute in reported if kind == "ended"]:
        return max(ended), "recovered"
    last_seen = max([0, *(minute for kind, minute in reported if kind == "seen")])
    inferred = [
        (minute, kind) for kind, minute in reported if kind in {"timeout", "reconciled"} and minute >= last_seen
    ]
    return max(inferred, key=lambda one: (one[0], one[1] == "reconciled"), default=None)


def as_signal(kind: str, minute: int) -> tuple[Signal, datetime]:
    """With the time of arrival: an end arrives immediately, so that it does not count as seen later."""
    firing = Signal("f", Status.FIRING, DAY, labels={"service": "x"})
    if kind == "seen":
        return firing, DAY + timedelta(minutes=minute)
    reason = EndReason.RECOVERED if kind == "ended" else EndReason(kind)
    ended_at = DAY + timedelta(minutes=minute)
    return replace(firing, status=Status.RESOLVED, ended_at=ended_at, end_reason=reason), DAY


@given(REPORTED, st.randoms(use_true_random=False))
@example([("seen", 5), ("timeout", 3)], random.Random(1))
@example([("timeout", 3), ("seen", 5)], random.Random(1))
@example([("seen", 5), ("timeout", 5), ("reconciled", 3)], random.Random(1))
def test_inferred_ends_depend_on_the_reports_and_not_on_their_order(
    reported: list[tuple[str, int]], random: random.Random
) -> None:
    order = list(reported)
    random.shuffle(order)
    decision = decide(DEFAULT_RULE, {"service": "x"}, AlertClass.SERVICE)
    series, known = (
        series_of(1, "f"),
        AlertRow(
            *(series_of(1, "f"), DAY, 1, decision.key_id, None, 3),
            window=DAY - DAY,
            max_span=DAY - DAY,
            episode=Episode(DAY, DAY),
        ),
    )
    while order:
        size = random.randint(1, len(order))
        batch, order = order[:size], order[size:]
        incoming = [
            Incoming(signal, 1, decision, arrives, arrives) for signal, arrives in (as_signal(*one) for one in batch)
        ]
        known.incoming = None
        into = Batch(DAY, new_id, rows=[known])
        apply_signals(into, series, KnownSeries([known]), incoming, range(len(incoming)))
    found = known.end and ((known.end.at - DAY) // timedelta(minutes=1), str(known.end.reason))
    assert found == expected_end(reported)


# — all sources —


async def test_all_sources_are_read_at_once_with_the_health_of_each(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher
) -> None:
    now = datetime.now(UTC)

    async def read() -> list[store.SourceReading]:
        async with db.session(engine) as session:
            return await store.read_all(session, now=now, quarantine_quota=2**20)

    await client.post(WEBHOOK, json=a_delivery(an_alert(), an_alert(started="yesterday")))
    await watch(engine, flusher, now=now - timedelta(hours=25))
    with counted(engine) as few:
        assert [reading.source.name for reading in await read()] == ["alertmanager"]
    async with db.session(engine) as session:
        for number in range(10):
            await ensure_source(session, f"prod-{number}", "alertmanager", now=now - timedelta(days=2))
    await deliver(engine, flusher, now - timedelta(hours=24), a_watchdog())
    await rounds(engine, flusher, now - timedelta(hours=24), now - timedelta(hours=2))
    await client.post(WEBHOOK, json=a_delivery(an_alert(instance="c")))
    with counted(engine) as many:
        readings = await read()
    assert (len(few), len(many)) == (4, 4)
    assert [reading.source.name for reading in readings] == ["alertmanager", *(f"prod-{n}" for n in range(10))]
    for reading in readings:
        async with db.session(engine) as session:
            assert await store.read(session, reading.source, now=now, quarantine_quota=2**20) == reading
    first, second, *_ = readings
    assert first.last_hour is not None
    assert first.last_day is not None
    assert (first.last_hour.deliveries, first.observed.quarantined) == (1, {"bad_time": 1})
    status, found = judge(first.observed)
    assert (status, found[0].reason, found[0].since) == (
        SourceStatus.FAILING,
        "heartbeat_missing",
        first.heartbeats[0].last_at,
    )
    assert observation(found[0], lambda at: f"{at.hour} o'clock").endswith(
        f"received at {first.heartbeats[0].last_at.hour} o'clock."
    )
    assert Target.HEARTBEAT in remedy(found[0])
    assert judge(second.observed)[0] is SourceStatus.NEVER_SEEN
    assert [rank(each) for each in SourceStatus] == [0, 2, 3, 1]
