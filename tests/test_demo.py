"""The demo: the quarter as a function of seed and end, the quarter played against the app, and its removal."""

import io
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from rich.console import Console
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import demo
from app.base import db, schema
from app.base.access.tokens import Scope, create_token
from app.base.commands import PLAY_DEMO, REMOVE_DEMO
from app.base.http.context import Context
from app.cli import cli
from app.demo import bodies
from app.demo.catalog import LABEL, MAINTENANCE, SERVICES, SOURCES
from app.demo.chapter_six import the_outage
from app.demo.facts import Incident, Quarter
from app.demo.player import Player
from app.demo.presence import enter
from app.demo.quarter import SEED, quarter
from app.demo.report import compared
from app.incidents.grouping.rule import DEFAULT_RULE
from app.ingest.health.watch import watch
from app.ingest.service import Ingest
from app.metrics.comparison.compare import Sample, Trend, compare
from app.metrics.prometheus import settle
from tests.test_chapter_six import assert_recorded

END = datetime.now(UTC).replace(second=0, microsecond=0)
MONTH = timedelta(days=30)
KEPT = ["tasks", "reviews_required", "action_items_completed"]
SHORTENED = 21  # days of the quarter that tests play if they do not need all of it


# — the quarter —


def test_the_same_seed_and_end_give_the_same_quarter() -> None:
    assert quarter(END) == quarter(END)
    assert quarter(END, 2) == quarter(END, 2) != quarter(END)


@pytest.mark.parametrize("seed", [SEED, *range(12)])
def test_the_true_improvement_is_found_and_the_apparent_one_is_not(seed: int) -> None:
    for end in (END, END - timedelta(days=2, hours=7), END + timedelta(days=3, hours=15)):
        played = quarter(end, seed)
        before, after = (
            [one for one in played.incidents if end - days <= one.began_at < end - days + MONTH]
            for days in (2 * MONTH, MONTH)
        )
        assert compare(acknowledged(before), acknowledged(after)).verdict is Trend.BETTER
        recovery = recovered(before, end), recovered(after, end)
        assert compare(*recovery).verdict is Trend.CANNOT_TELL
        means = [sum(side.recorded) / len(side.recorded) for side in recovery]
        assert means[1] < 0.75 * means[0], "it looks better"


def test_a_quarter_is_believable() -> None:
    played = quarter(END)
    incidents = played.incidents
    assert 150 <= len(incidents) <= 250
    assert 150 <= len(played.deployments) <= 300
    assert {one.service for one in incidents} == {service.name for service in SERVICES}
    assert all(END - timedelta(days=90) <= one.began_at < END for one in incidents)
    assert all(one.finished_at <= END for one in played.deployments)
    still_open = [one for one in incidents if one.ended_at is None]
    assert [one.service for one in still_open] == ["demo-checkout", "demo-search", "demo-payments"]
    assert [one.acknowledged_at is None for one in still_open] == [True, False, True]
    ended = [one for one in incidents if one.ended_at]
    assert 0.1 < sum(one.acknowledged_at is None for one in ended) / len(ended) < 0.4
    assert sum(len(one.alerts) > 1 for one in incidents) > 80
    assert sum(any(len(alert.episodes) > 1 for alert in one.alerts) for one in incidents) > 8
    assert sum(one.remedy is not None for one in incidents) > 8
    kinds = Counter(action.kind for one in incidents for action in one.actions)
    assert all(kinds[kind] > 20 for kind in ("acknowledge", "identified", "mitigated", "note", "task", "correct"))
    effects = Counter(a.detail["effect"] for one in incidents for a in one.actions if a.kind == "task")
    assert set(effects) == {"positive", "negative", "none", "unknown"}


def test_people_act_in_order_and_only_on_what_was_detected() -> None:
    for one in quarter(END).incidents:
        times = [action.at for action in one.actions]
        assert times == sorted(times)
        assert all(one.began_at <= at <= END for at in times)
        if one.ended_at is not None and one.acknowledged_at is not None:
            assert one.acknowledged_at <= one.ended_at


@pytest.mark.parametrize("seed", [SEED, *range(8)])
def test_incidents_of_a_service_and_environment_stay_apart(seed: int) -> None:
    of: dict[tuple[str, str], list[Incident]] = {}
    for one in quarter(END, seed).incidents:
        of.setdefault((one.service, one.environment), []).append(one)
    for those in of.values():
        for before, after in pairwise(those):
            assert before.ended_at is not None
            assert after.began_at - before.ended_at > DEFAULT_RULE.window


def test_an_alert_that_comes_back_does_so_within_the_window() -> None:
    for one in quarter(END).incidents:
        for alert in one.alerts:
            for before, after in pairwise(alert.episodes):
                assert before.ended_at is not None
                assert timedelta() < after.started_at - before.ended_at < DEFAULT_RULE.window


def test_no_delivery_reports_the_future() -> None:
    for one in quarter(END).incidents:
        for body in (bodies.first_delivery(one), *bodies.later_deliveries(one)) if one.alerts else ():
            for alert in body["alerts"]:
                assert all(datetime.fromisoformat(alert[name]) <= END for name in ("startsAt", "endsAt"))


# — played —


async def test_a_quarter_shows_what_a_newcomer_should_see(
    client: httpx.AsyncClient, context: Context, engine: AsyncEngine
) -> None:
    output = await played(client, engine)
    expected = quarter(END)
    incidents = await incidents_of(client)
    assert len(incidents) == len(expected.incidents)
    # Newest first; their numbers are in order of time.
    assert [one["number"] for one in incidents] == [f"INC-{number}" for number in range(len(incidents), 0, -1)]
    assert [(one["service"], one["environment"], at(one["detected_at"])) for one in reversed(incidents)] == [
        (one.service, one.environment, one.began_at) for one in expected.incidents
    ]
    assert [at(one["resolved_at"]) for one in reversed(incidents)] == [one.ended_at for one in expected.incidents]
    assert [at(one["acknowledged_at"]) for one in reversed(incidents)] == [
        one.acknowledged_at for one in expected.incidents
    ]
    assert {one["severity"] for one in incidents} == {"sev1", "sev2", "sev3", "sev4", "sev5"}
    assert not any(one["firing_after_resolve"] or one["merged_into"] for one in incidents)
    assert sum(one["reopened"] > 0 for one in incidents) > 8
    assert sum(one["resolved_at"] is None for one in incidents) == 3

    named = [one["number"] for one in incidents if "version" in one["labels"]]
    assert len(named) > 5
    causes = [(await get(client, f"/api/v1/incidents/{number}/cause"))["basis"] for number in named]
    assert set(causes) == {"version"}
    dora = await get(client, "/api/v1/metrics/dora", params=period(expected))
    assert 0.05 < dora["change_fail_rate"]["value"] < 0.3
    assert dora["change_fail_rate"]["k"] > len(named) + 5, "others are found by the last deployment"
    assert dora["rework_rate"]["k"] > 5

    better = await compared(asking(client), "time_to_acknowledge", expected)
    unsure = await compared(asking(client), "time_to_recover", expected)
    assert (better["verdict"], unsure["verdict"]) == ("better", "cannot_tell")
    for found in (better, unsure):
        assert f"{found['measure']}: {found['verdict']} ({found['reason']})" in output
    summary = (await get(client, "/api/v1/metrics/summary", params=period(expected)))["total"]
    assert set(summary["cost"]["amounts"]) == {"EUR", "USD"}
    assert summary["cost"]["services_without_rate"] == ["demo-reports"]
    [last_row] = [line.split() for line in output.splitlines() if line.strip().startswith("all ")]
    assert last_row[1:3] == [str(summary["incidents"]["value"]), "3"]
    assert REMOVE_DEMO in output

    [outage] = [one for one in incidents if one["title"] == "Nobody can sign in"]
    await assert_recorded(client, outage["number"], "REV-1", the_outage(at(outage["impact_started_at"]) or END))
    health = {name: await get(client, f"/api/v1/sources/{name}/health") for name in SOURCES}
    assert [health[name]["status"] for name in SOURCES] == ["degraded", "degraded", "healthy", "healthy"]
    assert len((await get(client, "/api/v1/quarantine"))["items"]) == 1
    budget = (await get(client, "/api/v1/services/demo-checkout/objective"))["error_budget"]
    assert budget["burned_seconds"] > 0
    assert (await get(client, f"/api/v1/maintenance/{MAINTENANCE}"))["next"] is not None
    assert await history_corrections(engine) == 0
    await settle_all(context, engine)
    assert await history_corrections(engine) == 0


async def test_settling_meanwhile_counts_incidents_as_they_are(
    client: httpx.AsyncClient, context: Context, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An incident ends only when everything about it is recorded."""
    deliver = Player.deliver

    async def and_settle(self: Player, source: str, body: dict[str, Any]) -> Any:
        receipt = await deliver(self, source, body)
        await settle_all(context, engine)
        return receipt

    monkeypatch.setattr(Player, "deliver", and_settle)
    shorten(monkeypatch)
    await played(client, engine)
    assert await history_corrections(engine) == 0
    incidents = await incidents_of(client)
    assert sum(one["settled"] for one in incidents) > 20
    async with engine.connect() as tx:
        counted = (
            await tx.execute(
                text("SELECT sum(count) FROM settled_in_environment WHERE measure = 'time_to_acknowledge'")
            )
        ).scalar_one()
    assert counted == sum(one["settled"] and one["acknowledged_at"] is not None for one in incidents)


# — beside other data, and removed —


async def test_removal_leaves_everything_else_as_it_was(
    client: httpx.AsyncClient, context: Context, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch)
    mine = await some_data(client)
    await settle_all(context, engine)
    before = await contents(engine)
    await played(client, engine)
    await settle_all(context, engine)
    await watch(engine, context.part(Ingest).flusher, now=datetime.now(UTC), away=timedelta(minutes=5))
    # Whoever tries the demo also acts on it.
    [some, *_] = [one for one in await incidents_of(client) if one["service"] == "demo-payments"]
    await client.put(f"/api/v1/incidents/{some['number']}/related/{mine}")
    await client.post(f"/api/v1/incidents/{some['number']}/acknowledge", json={"by": "you"})
    public_incident = {"title": "t", "incident": some["number"], "first": {"status": "investigating", "body": "b"}}
    assert (await client.post("/api/v1/status-page/incidents", json=public_incident)).status_code == 201
    assert await contents(engine) != before
    removed = await demo.remove(engine)
    after = await contents(engine)
    # The relation was recorded in the timeline of the other incident, which changed it.
    related = after["timeline"] - before["timeline"]
    assert [entry for entry in related if "related" not in entry] == []
    for table, rows in before.items():
        if table not in {"timeline", "incident"}:
            assert after[table] == rows, table
    assert len(after["incident"]) == len(before["incident"])
    assert removed.incidents > 20
    assert removed.deployments > 20
    await played(client, engine)


async def test_a_play_that_was_broken_off_can_be_removed(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    before = await contents(engine)
    access = await enter(engine, now=datetime.now(UTC))
    player = Player(client, access)
    deployments = quarter(END).deployments[:3]
    for deployment in deployments:
        await player.deploy(deployment)
    with pytest.raises(demo.AlreadyPlayed, match=f"remove it first with `{REMOVE_DEMO}`"):
        await played(client, engine)
    await demo.remove(engine)
    assert await contents(engine) == before
    with pytest.raises(demo.NotPlayed, match="nothing to remove"):
        await demo.remove(engine)


async def test_a_name_in_use_is_left_alone(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await client.put("/api/v1/services/demo-checkout", json={"owner": "You"})
    async with db.session(engine) as session:
        await create_token(
            session, "edge", Scope.INGEST, now=datetime.now(UTC), source_name="demo-edge", kind="alertmanager"
        )
    before = await contents(engine)
    with pytest.raises(demo.NameInUse, match="source 'demo-edge', service 'demo-checkout'"):
        await played(client, engine)
    with pytest.raises(demo.NotPlayed):
        await demo.remove(engine)
    assert await contents(engine) == before


async def test_alerts_of_others_about_a_service_of_the_demo_stay(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch)
    await played(client, engine)
    labels = {"alertname": "Real", "service": "demo-checkout", "environment": "production"}
    alert = {"status": "firing", "labels": labels, "startsAt": f"{END - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"}
    answer = await client.post("/webhooks/alertmanager", json={"version": "4", "alerts": [alert]})
    [number] = answer.json()["incidents"]
    found = await get(client, f"/api/v1/incidents/{number}")
    assert (found["alerts"], LABEL in found["labels"]) == (1, False)
    await demo.remove(engine)
    assert [one["number"] for one in await incidents_of(client)] == [number]
    services = await get(client, "/api/v1/services")
    assert [one["name"] for one in services["items"]] == ["demo-checkout"]


async def test_no_token_of_the_demo_stays_valid(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch)
    await played(client, engine)
    async with engine.connect() as tx:
        rows = (await tx.execute(text("SELECT scope, revoked_at IS NOT NULL FROM token"))).all()
    assert {tuple(row) for row in rows} == {("ingest", True)}


# — errors —


async def test_nobody_there(engine: AsyncEngine) -> None:
    before = await contents(engine)
    with pytest.raises(demo.CannotPlay, match=r"no response from http://127.0.0.1:9 .*make run"):
        await demo.play(engine, "http://127.0.0.1:9", quiet())
    assert await contents(engine) == before


async def test_an_invalid_address_is_rejected(engine: AsyncEngine) -> None:
    with pytest.raises(demo.CannotPlay, match="--url"):
        await demo.play(engine, "127.0.0.1:8080", quiet())


async def test_another_server_at_the_address_is_named(engine: AsyncEngine) -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>It works!</html>"))
    with pytest.raises(demo.CannotPlay, match="is not Aftermath"):
        await demo.play(engine, "http://other.test", quiet(), transport=page)


async def test_a_service_with_another_database_is_recognized(engine: AsyncEngine) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if request.url.path == "/healthz" else 401, json={"detail": "unknown or revoked"})

    with pytest.raises(demo.CannotPlay, match="uses a different database from this command"):
        await demo.play(engine, "http://other.test", quiet(), transport=httpx.MockTransport(answer))


def test_the_commands_that_pages_show_exist() -> None:
    [command] = [one for one in cli.registered_commands if one.callback and one.callback.__name__ == "demo"]
    assert command.name is None
    assert (PLAY_DEMO, REMOVE_DEMO) == ("aftermath demo", "aftermath demo --remove")


# — helpers —


def acknowledged(incidents: list[Incident]) -> Sample:
    times = [(one, one.acknowledged_at - one.began_at) for one in incidents if one.acknowledged_at]
    never = [(one, one.ended_at - one.began_at) for one in incidents if one.ended_at and not one.acknowledged_at]
    return a_sample(times, never)


def recovered(incidents: list[Incident], end: datetime) -> Sample:
    times = [(one, one.ended_at - one.began_at) for one in incidents if one.ended_at]
    still = [(one, end - one.began_at) for one in incidents if not one.ended_at]
    return a_sample(times, still)


def a_sample(times: list[tuple[Incident, timedelta]], cut_short: list[tuple[Incident, timedelta]]) -> Sample:
    return Sample(
        [each.total_seconds() for _, each in times],
        [each.total_seconds() for _, each in cut_short],
        began=[one.began_at.timestamp() for one, _ in (*times, *cut_short)],
        observed=MONTH,
    )


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plays the last weeks only."""

    def last_weeks(ends_at: datetime, seed: int = SEED) -> Quarter:
        whole = quarter(ends_at, seed)
        since = ends_at - timedelta(days=SHORTENED)
        return Quarter(
            whole.begins_at,
            ends_at,
            [one for one in whole.deployments if one.started_at >= since],
            [one for one in whole.incidents if one.began_at >= since],
        )

    monkeypatch.setattr("app.demo.player.quarter", last_weeks)


async def played(client: httpx.AsyncClient, engine: AsyncEngine) -> str:
    """The output of the demo."""
    out = Console(file=io.StringIO(), width=200)
    await demo.play(engine, "http://aftermath.test/", out, transport=client._transport, now=END)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def quiet() -> Console:
    return Console(file=io.StringIO())


def at(shown: str | None) -> datetime | None:
    return None if shown is None else datetime.fromisoformat(shown)


def period(of: Quarter) -> dict[str, str]:
    return {"from": f"{of.begins_at:%Y-%m-%dT%H:%M:%SZ}", "to": f"{of.ends_at:%Y-%m-%dT%H:%M:%SZ}"}


async def get(client: httpx.AsyncClient, path: str, **parts: Any) -> Any:
    answer = await client.get(path, **parts)
    assert answer.status_code == 200, answer.text
    return answer.json()


def asking(client: httpx.AsyncClient) -> Any:
    async def ask(method: str, path: str, **parts: Any) -> Any:
        return (await client.request(method, path, **parts)).json()

    return ask


async def incidents_of(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await get(client, "/api/v1/incidents", params={"limit": "500"}))["items"]
    return items


async def settle_all(context: Context, engine: AsyncEngine) -> None:
    async with db.transaction(engine) as tx:
        while await settle.settle(
            tx, now=datetime.now(UTC), allowed_lateness=timedelta(), weights=context.settings.impact
        ):
            pass


async def history_corrections(engine: AsyncEngine) -> float:
    async with engine.connect() as tx:
        query = text("SELECT coalesce(sum(value), 0) FROM tally WHERE name = 'history_corrections'")
        return float((await tx.execute(query)).scalar_one())


async def some_data(client: httpx.AsyncClient) -> str:
    """A little of everything that is not the demo's. Returns the number of an incident."""
    await client.put("/api/v1/services/shop", json={"owner": "You"})
    rate = {"currency": "EUR", "low": "1", "expected": "2", "high": "3"}
    await client.put("/api/v1/services/shop/rates", json=[rate])
    await client.put("/api/v1/services/shop/objective", json={"target": "0.99", "window": {"rolling_days": 30}})
    await client.put("/api/v1/rules/mine", json={"matchers": ["team=shop"]})
    await client.put(
        "/api/v1/calendars/mine", json={"zone": "UTC", "hours": {"monday": [{"from": "09:00", "to": "18:00"}]}}
    )
    report = {"id": "shop-1", "service": "shop", "outcome": "succeeded", "version": "1"}
    await client.post("/api/v1/deployments", json=report)
    labels = {"alertname": "HighErrorRate", "service": "shop", "environment": "production", "severity": "critical"}
    alert = {"labels": labels, "startsAt": "2026-08-01T00:00:00Z"}
    for status, more in (("firing", {}), ("resolved", {"endsAt": "2026-08-01T00:10:00Z"})):
        body = {"version": "4", "alerts": [{**alert, **more, "status": status}]}
        answer = await client.post("/webhooks/alertmanager", json=body)
    await client.post("/webhooks/alertmanager", json={"version": "4", "alerts": [{**alert, "status": "odd"}]})
    declared = await client.post("/api/v1/incidents", json={"title": "Mine", "service": "shop"})
    assert declared.status_code == 201, declared.text
    number: str = answer.json()["incidents"][0]
    return number


async def contents(engine: AsyncEngine) -> Mapping[str, Counter[str]]:
    """The rows of every table, apart from what any start and any settling of the service changes."""
    found: dict[str, Counter[str]] = {}
    async with engine.connect() as tx:
        for name in schema.metadata.tables:
            if name in {"rule_version", "feed_watch", "feed_sample"}:
                continue
            # Counters without service or source never fall, so they keep what the demo has counted.
            kept = f" WHERE name <> ALL(ARRAY{KEPT})" if name == "tally" else ""
            rows = await tx.execute(text(f"SELECT CAST(to_jsonb(one) AS text) FROM {name} AS one{kept}"))
            found[name] = Counter(row[0] for row in rows)
    return found
