"""The demo: its script, and the script played against the app."""

import io
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from rich.console import Console

from app import demo
from app.base.tokens import Scope
from app.demo import CannotPlay
from app.demo.day import Action, Declared, Delivery, Described, Step, the_day, the_morning_after
from app.demo.player import ACTIONS, Player, perform
from app.incidents.grouping.rule import DEFAULT_RULE
from tests.conftest import ADMIN_TOKEN, ClientAs

NOW = datetime(2026, 8, 20, 12, 0, tzinfo=UTC)
DEMO = {"label": "environment=demo", "limit": "500"}


# — the script —


def test_the_same_moment_gives_the_same_day() -> None:
    assert the_day(NOW) == the_day(NOW)


def test_steps_come_in_order_and_all_within_the_day() -> None:
    times = [step.at for step in the_day(NOW)]
    assert times == sorted(times)
    assert NOW - timedelta(days=1) <= times[0]
    assert times[-1] <= NOW


def test_nobody_tells_of_what_has_not_happened_yet() -> None:
    for step in deliveries(the_day(NOW)):
        for alert in step.body["alerts"]:
            times = [datetime.fromisoformat(alert[name]) for name in ("startsAt", "endsAt") if is_time(alert[name])]
            assert all(moment <= step.at for moment in times), alert


def test_a_reported_alert_is_reported_until_it_ends() -> None:
    for kind in ("alertmanager", "grafana"):
        status: dict[tuple[str, str], str] = {}
        for step in deliveries(the_day(NOW)):
            if step.kind == kind:
                status |= {(alert["fingerprint"], alert["startsAt"]): alert["status"] for alert in step.body["alerts"]}
        firing = [place for place, last in status.items() if last == "firing" and is_time(place[1])]
        assert len(firing) == (1 if kind == "alertmanager" else 0)


def test_senders_tell_the_whole_group_and_repeat_it() -> None:
    bodies = [step.body for step in deliveries(the_day(NOW))]
    statuses = [{alert["status"] for alert in body["alerts"]} for body in bodies]
    assert {"firing", "resolved"} in statuses
    assert all(
        body["status"] == ("firing" if "firing" in of else "resolved")
        for body, of in zip(bodies, statuses, strict=True)
    )
    one_peer = [str(body) for body in bodies if body["externalURL"] == "http://alertmanager-0:9093"]
    assert len(one_peer) > len(set(one_peer))


def test_a_second_peer_tells_the_same_alerts() -> None:
    delivered: dict[str, list[Any]] = {"http://alertmanager-0:9093": [], "http://alertmanager-1:9093": []}
    for step in deliveries(the_day(NOW)):
        if step.kind == "alertmanager":
            delivered[step.body["externalURL"]] += step.body["alerts"]
    first, second = delivered.values()
    assert 5 < len(second) < len(first)
    assert all(alert in first for alert in second)


def test_there_is_something_of_everything() -> None:
    steps = the_day(NOW)
    assert {type(step) for step in steps} == {Described, Delivery, Declared, Action}
    assert {step.kind for step in deliveries(steps)} == {"alertmanager", "grafana"}
    assert {step.kind for step in steps if isinstance(step, Action)} == set(ACTIONS)
    rates = {step.service: {rate["currency"] for rate in step.rates} for step in steps if isinstance(step, Described)}
    assert "reports" not in rates
    assert {"EUR"} in rates.values()
    assert {"EUR", "USD"} in rates.values()


def test_the_morning_after_ends_what_the_day_left_open() -> None:
    [step] = the_morning_after(NOW)
    assert isinstance(step, Delivery)
    assert step.at > NOW
    assert [(alert["status"], alert["endsAt"]) for alert in step.body["alerts"]] == [
        ("resolved", "2026-08-20T12:20:00Z")
    ]


# — played —


async def test_a_day_holds_all_that_a_newcomer_should_see(client: httpx.AsyncClient) -> None:
    output = await played(client)
    incidents = await incidents_of(client)
    assert [one["service"] for one in incidents if one["status"] == "open"] == ["payments"]
    assert any(one["resolved_at"] and one["acknowledged_at"] is None for one in incidents), "never acknowledged"
    acknowledged = sorted(seconds for one in incidents if (seconds := tta(one)) is not None)
    assert acknowledged[0] < 180
    assert acknowledged[-1] > 45 * 60
    assert max(one["reopened"] for one in incidents) == 2
    assert [one["end_reason"] for one in incidents].count("manual") == 2
    assert any(one["sources"] == ["alertmanager", "grafana"] for one in incidents)
    [declared] = [one for one in incidents if one["title"] == "Some card payments are refused"]
    assert declared["impact_started_at"] < declared["detected_at"]
    assert all(declared[f"{name}_at"] for name in ("acknowledged", "identified", "mitigated", "resolved"))
    assert len((await get(client, "/api/v1/quarantine"))["items"]) == 1
    assert "1 quarantined" in output


async def test_two_incidents_become_one_when_a_late_alert_is_heard_of(client: httpx.AsyncClient) -> None:
    await played(client)
    listed = {one["number"] for one in await incidents_of(client)}
    numbers = [int(number.removeprefix("INC-")) for number in listed]
    [lost] = {f"INC-{number}" for number in range(1, max(numbers) + 1)} - listed
    merged = await get(client, f"/api/v1/incidents/{lost}")
    kept = await get(client, f"/api/v1/incidents/{merged['merged_into']}")
    assert kept["service"] == "search"
    assert kept["alerts"] == 3
    assert kept["detected_at"] < kept["acknowledged_at"] < kept["resolved_at"]


async def test_the_numbers_are_those_of_the_service(client: httpx.AsyncClient) -> None:
    output = await played(client)
    period = {"from": "2026-08-19T12:00:00Z", "to": "2026-08-20T12:00:00Z"}
    total = (await get(client, "/api/v1/metrics/summary", params=period))["total"]
    measures = total["measures"]
    assert total["incidents"]["value"] == len(await incidents_of(client))
    assert total["open"]["value"] == 1
    assert all(measures[name]["n"] > 2 for name in ("time_to_detect", "time_to_acknowledge", "time_to_recover"))
    assert measures["time_to_acknowledge"]["censored"] > 0
    assert measures["time_to_acknowledge"]["pending"] == 1
    assert total["downtime"]["seconds"] > 3600
    assert set(total["cost"]["amounts"]) == {"EUR", "USD"}
    assert total["cost"]["services_without_rate"] == ["reports"]
    [last_row] = [line.split() for line in output.splitlines() if line.strip().startswith("all ")]
    assert last_row[1:3] == [str(total["incidents"]["value"]), "1"]
    [reports] = [line for line in output.splitlines() if line.strip().startswith("reports  ")]
    assert reports.rstrip().endswith("no rate")
    assert [row.split()[3] for row in output.splitlines() if row.strip().startswith(("all ", "reports  "))] == [
        "6–7",
        "median",
    ]
    assert "http://aftermath.test/docs" in output


async def test_played_again_it_changes_nothing(client: httpx.AsyncClient) -> None:
    await played(client)
    before = [facts(one) for one in await incidents_of(client)]
    timelines = [await get(client, f"/api/v1/incidents/{one['number']}/timeline") for one in before]
    output = await played(client, now=NOW + timedelta(hours=20))
    assert "nothing changes" in output
    assert "acknowledges" not in output
    assert [facts(one) for one in await incidents_of(client)] == before
    assert [await get(client, f"/api/v1/incidents/{one['number']}/timeline") for one in before] == timelines
    assert len((await get(client, "/api/v1/quarantine"))["items"]) == 1


async def test_a_day_broken_off_is_completed_by_the_next_play(client: httpx.AsyncClient) -> None:
    player = Player(client)
    for step in the_day(NOW)[:40]:
        await player.do(step)
    some = len(await incidents_of(client))
    await played(client, now=NOW + timedelta(minutes=7))
    detected = [one["detected_at"] for one in await incidents_of(client)]
    assert some < len(detected)
    assert max(detected) < "2026-08-20T12:00:00Z"


async def test_another_day_later_is_another_day(client: httpx.AsyncClient) -> None:
    await played(client)
    first = await incidents_of(client)
    await played(client, now=NOW + timedelta(days=1, minutes=30))
    both = await incidents_of(client)
    assert len(both) == 2 * len(first)
    assert [one["status"] for one in both].count("open") == 1
    [left_open] = [one for one in first if one["status"] == "open"]
    ended = await get(client, f"/api/v1/incidents/{left_open['id']}")
    assert ended["resolved_at"] == "2026-08-20T12:20:00Z"


async def test_a_service_that_somebody_described_keeps_its_rates(client: httpx.AsyncClient) -> None:
    rates = [{"currency": "CHF", "low": "1", "expected": "2", "high": "3"}]
    await client.put("/api/v1/services/checkout", json={"owner": "You"})
    await client.put("/api/v1/services/checkout/rates", json=rates)
    await played(client)
    kept = await get(client, "/api/v1/services/checkout")
    assert (kept["owner"], [rate["currency"] for rate in kept["rates"]]) == ("You", ["CHF"])


async def test_your_own_incidents_are_not_joined(client: httpx.AsyncClient) -> None:
    alert = {
        "status": "firing",
        "labels": {"alertname": "HighErrorRate", "service": "checkout", "severity": "critical"},
        "startsAt": "2026-08-20T00:00:00Z",
    }
    answer = await client.post("/webhooks/alertmanager", json={"version": "4", "alerts": [alert]})
    await played(client)
    assert (await get(client, f"/api/v1/incidents/{answer.json()['incidents'][0]}"))["alerts"] == 1


async def test_what_somebody_said_meanwhile_stands(client: httpx.AsyncClient) -> None:
    await played(client)
    [queue] = (await get(client, "/api/v1/incidents", params={"service": "orders"}))["items"]
    [sessions] = (await get(client, "/api/v1/incidents", params=[("label", "alertname=SessionStoreSlow")]))["items"]
    reopened = await client.post(f"/api/v1/incidents/{sessions['number']}/reopen")
    ended_by_you = await client.post(f"/api/v1/incidents/{sessions['number']}/resolve", json={"by": "you"})
    renamed = await client.patch(f"/api/v1/incidents/{queue['number']}", json={"title": "Mine"})
    await played(client)
    assert (reopened.status_code, ended_by_you.status_code, renamed.status_code) == (200, 200, 200)
    now = await get(client, f"/api/v1/incidents/{sessions['number']}")
    assert now["resolved_at"] == ended_by_you.json()["resolved_at"]
    assert (await get(client, f"/api/v1/incidents/{queue['number']}"))["title"] == "Mine"


async def test_a_day_takes_as_long_as_asked(client: httpx.AsyncClient) -> None:
    began = time.monotonic()
    await perform(Player(client), the_day(NOW)[:10], 2, Console(file=io.StringIO()))
    assert 2 <= time.monotonic() - began < 10


# — what to do when it cannot be played —


async def test_nobody_there() -> None:
    with pytest.raises(CannotPlay, match=r"no response from http://127.0.0.1:9 .*make run"):
        await demo.play("http://127.0.0.1:9", "any", 0, Console(file=io.StringIO()))


async def test_an_address_that_is_none() -> None:
    with pytest.raises(CannotPlay, match="--url"):
        await demo.play("127.0.0.1:8080", "any", 0, Console(file=io.StringIO()))


async def test_a_token_that_is_refused(client: httpx.AsyncClient) -> None:
    with pytest.raises(CannotPlay, match=r"unknown or revoked.*token create"):
        await played(client, token="wrong")


async def test_a_token_that_may_too_little(client_as: ClientAs) -> None:
    reader = await client_as(Scope.READ)
    with pytest.raises(CannotPlay, match="requires an admin token"):
        await played(reader, token=reader.headers["Authorization"].removeprefix("Bearer "))


async def test_somebody_else_there() -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>It works!</html>"))
    with pytest.raises(CannotPlay, match="is not Aftermath"):
        await demo.play("http://other.test", "any", 0, Console(file=io.StringIO()), transport=page)


# — what the tests ask —


async def played(client: httpx.AsyncClient, *, now: datetime = NOW, token: str = ADMIN_TOKEN) -> str:
    """What the demo prints."""
    out = Console(file=io.StringIO(), width=120)
    await demo.play("http://aftermath.test/", token, 0, out, transport=client._transport, now=now)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def deliveries(steps: list[Step]) -> list[Delivery]:
    return [step for step in steps if isinstance(step, Delivery)]


def is_time(text: str) -> bool:
    return text.startswith("2026-")


async def get(client: httpx.AsyncClient, path: str, **parts: Any) -> Any:
    answer = await client.get(path, **parts)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def incidents_of(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await get(client, "/api/v1/incidents", params={"limit": "500"}))["items"]
    return items


def tta(incident: dict[str, Any]) -> float | None:
    seconds: float | None = incident["measures"]["time_to_acknowledge"]["seconds"]
    return seconds


def facts(incident: dict[str, Any]) -> dict[str, Any]:
    """All but the cost, which grows while it is open."""
    return {name: value for name, value in incident.items() if name != "cost"}


assert DEFAULT_RULE.window == timedelta(minutes=5), "the gaps of the script are made for it"
