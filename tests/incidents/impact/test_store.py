"""Through the service: impact follows the alerts before and after it is stored, and after the alerts are dropped."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.db import partitions
from app.incidents.impact.intervals import rounded
from app.incidents.impact.stretches import Stretch, unpacked
from tests.incidents.impact.test_stretches import by_brute_force, facts_of
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert
from tests.metrics.prometheus.test_exposition import of, scrape
from tests.metrics.prometheus.test_exposition import settled as settle

DAY = datetime(2026, 8, 20, tzinfo=UTC)
METRICS = "/api/v1/metrics"
PERIOD = {"from": "2026-08-01T00:00:00Z", "to": "2026-09-01T00:00:00Z"}
LATER = datetime(2026, 9, 10, tzinfo=UTC)
KEEP = {"alert": timedelta(days=400), "delivery": timedelta(days=400)}
WORDS = ("critical", "error", "warning", "minor", "info")


def clock(at: str | int) -> str:
    if isinstance(at, int):
        at = f"{at // 60:02}:{at % 60:02}"
    return f"2026-08-20T{at}:00Z"


async def deliver(client: httpx.AsyncClient, *alerts: dict[str, Any]) -> dict[str, int]:
    answer = await client.post(WEBHOOK, json=a_delivery(*alerts))
    assert answer.status_code == 200, answer.text
    return answer.json()["verdicts"]  # type: ignore[no-any-return]


def fired(began: str | int, ended: str | int | None, severity: str = "critical", **labels: str) -> dict[str, Any]:
    return an_alert(clock(began), None if ended is None else clock(ended), severity=severity, **labels)


FLAPPING = [fired(600 + 6 * number, 601 + 6 * number, pod=str(number)) for number in range(20)]


async def price(client: httpx.AsyncClient, hour: str = "1200", service: str = "checkout") -> None:
    rates = [{"currency": "EUR", "low": "0", "expected": hour, "high": hour}]
    assert (await client.put(f"/api/v1/services/{service}/rates", json=rates)).status_code == 200


async def incident(client: httpx.AsyncClient, number: int = 1) -> dict[str, Any]:
    return (await client.get(f"/api/v1/incidents/INC-{number}")).json()  # type: ignore[no-any-return]


async def cost(client: httpx.AsyncClient, number: int = 1) -> tuple[float, str]:
    shown = await incident(client, number)
    return shown["downtime_seconds"], shown["cost"]["EUR"]["expected"]


async def everywhere(client: httpx.AsyncClient) -> dict[str, Any]:
    """Every number that depends on impact."""
    summary, whatif, availability = [
        (await client.get(f"{METRICS}/{path}", params=PERIOD)).json() for path in ("summary", "whatif", "availability")
    ]
    of_services = (await client.get(f"{METRICS}/downtime", params=PERIOD)).json()["services"]
    budget = (await client.get("/api/v1/services/checkout/objective")).json()["error_budget"]
    return {
        "incidents": [
            (each["number"], each["downtime_seconds"], each["cost"])
            for each in (await client.get("/api/v1/incidents")).json()["items"]
        ],
        "summary": (summary["total"]["downtime"]["seconds"], summary["total"]["cost"]["amounts"]),
        "whatif": (whatif["total"]["downtime_before_seconds"], whatif["total"]["before"]),
        "downtime": [(each["downtime"]["seconds"], each["cost"]["amounts"]) for each in of_services],
        "availability": [
            {name: each[name] for name in ("downtime_seconds", "downtime_weighted_seconds", "failures")}
            for each in availability["services"]
        ],
        "budget": budget["incidents"],
    }


async def stored(engine: AsyncEngine) -> dict[int, tuple[bool, list[Stretch]]]:
    query = "SELECT number, stretches_current, stretches FROM incident WHERE merged_into IS NULL ORDER BY number"
    async with engine.connect() as connection:
        return {row.number: (row[1], unpacked(row[2] or b"")) for row in await connection.execute(text(query))}


async def drop_alerts(engine: AsyncEngine) -> int:
    """Retention, as if a year and a half had passed; returns how many alerts are left."""
    async with db.transaction(engine) as tx:
        [past, *_] = await partitions.partitions(tx, "alert")
        await partitions.maintain(tx, now=past.until + timedelta(days=500), keep=KEEP)
        return int((await tx.execute(text("SELECT count(*) FROM alert"))).scalar_one())


# — the two examples of the issue —


async def test_five_critical_minutes_in_a_ten_hour_warning(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await deliver(client, fired("00:00", "10:00", "warning"), fired("03:00", "03:05", pod="b"))
    await price(client)
    shown = await incident(client)
    assert (shown["severity"], shown["measures"]["time_to_recover"]["seconds"]) == ("sev1", 36_000)
    # Five minutes in full, and the rest of the ten hours at a tenth.
    assert await cost(client) == (36_000, "1290.00")
    await settle(engine, LATER)
    assert await cost(client) == (36_000, "1290.00")


async def test_an_alert_that_flaps_is_down_while_it_fires(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await deliver(client, *FLAPPING)
    await price(client)
    shown = await incident(client)
    assert (shown["measures"]["time_to_recover"]["seconds"], shown["downtime_seconds"]) == (6900, 1200)
    assert shown["cost"]["EUR"]["expected"] == "400.00"
    changed = await client.patch("/api/v1/incidents/INC-1", json={"harmed_throughout": True, "by": "ada"})
    assert (changed.json()["harmed_throughout"], changed.json()["downtime_seconds"]) == (True, 6900)
    assert changed.json()["cost"]["EUR"]["expected"] == "2300.00"
    timeline = (await client.get("/api/v1/incidents/INC-1/timeline")).json()["items"]
    assert {"harmed_throughout": True} in [each["detail"] for each in timeline]
    await settle(engine, LATER)
    assert of(await scrape(engine), "downtime_seconds_total", service="checkout") == 6900
    withdrawn = await client.patch("/api/v1/incidents/INC-1", json={"harmed_throughout": None})
    assert (withdrawn.json()["harmed_throughout"], withdrawn.json()["downtime_seconds"]) == (False, 1200)
    # Counters never follow corrections.
    await settle(engine, LATER)
    assert of(await scrape(engine), "downtime_seconds_total", service="checkout") == 6900


# — stored, changed, dropped —


@pytest.mark.parametrize("seed", range(4))
async def test_numbers_are_those_of_the_alerts_before_settling_after_it_and_without_alerts(
    client: httpx.AsyncClient, engine: AsyncEngine, seed: int
) -> None:
    chance = Random(seed)
    alerts = []
    for number in range(30):
        began = chance.randrange(1200)
        alerts.append((began, began + chance.randrange(90), chance.choice((1, 2, 3)), str(number)))
    severity = {1: "critical", 2: "error", 3: "warning"}
    await deliver(client, *[fired(a, b, severity[worst], pod=pod) for a, b, worst, pod in alerts])
    await price(client, "3600")
    await client.put("/api/v1/services/checkout/objective", json={"target": "0.9", "window": {"rolling_days": 366}})
    before = await everywhere(client)
    as_stretches = [Stretch(at_minute(a), at_minute(b), worst) for a, b, worst, _ in alerts]
    expected = by_brute_force(as_stretches, facts_of(as_stretches))
    assert before["summary"][1]["EUR"]["expected"] == str(rounded(expected))
    assert await settle(engine, LATER) == len(before["incidents"]) > 1
    assert all(is_current for is_current, _ in (await stored(engine)).values())
    assert await everywhere(client) == before
    assert await drop_alerts(engine) == 0
    assert await everywhere(client) == before
    assert of(await scrape(engine), "downtime_cost_total", service="checkout", currency="EUR") == pytest.approx(
        float(expected)
    )


def at_minute(minute: int) -> datetime:
    return DAY + timedelta(minutes=minute)


async def test_a_settled_incident_stores_its_stretches_again_when_an_alert_changes(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """The second end changes neither begin nor end of the incident, nor how many alerts it has."""
    await deliver(client, fired("10:00", "11:00", "warning"), fired("10:10", "10:20", pod="b"))
    await price(client)
    await settle(engine, LATER)
    before = await cost(client)
    await deliver(client, fired("10:10", "10:40", pod="b"))
    [(is_current, _)] = (await stored(engine)).values()
    assert not is_current
    changed = await cost(client)
    assert (before, changed) == ((3600, "300.00"), (3600, "660.00"))
    await settle(engine, LATER)
    assert (await stored(engine))[1] == (
        True,
        [
            Stretch(at_minute(600), at_minute(610), 3),
            Stretch(at_minute(610), at_minute(640), 1),
            Stretch(at_minute(640), at_minute(660), 3),
        ],
    )
    assert await cost(client) == changed
    # The counter has what was known when it settled.
    assert of(await scrape(engine), "downtime_cost_total", service="checkout", currency="EUR") == 300


async def test_merging_and_splitting_settled_incidents_changes_no_total(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await deliver(client, fired("10:00", "10:10", "warning"), fired("10:20", "10:30", pod="b"))
    await price(client)
    await settle(engine, LATER)
    assert [await cost(client, number) for number in (1, 2)] == [(600, "20.00"), (600, "200.00")]
    await deliver(client, fired("10:12", "10:18", pod="c"))
    assert (await incident(client, 2))["merged_into"] == "INC-1"
    assert await cost(client) == (600 + 360 + 600, "340.00")
    await settle(engine, LATER)
    assert len((await stored(engine))[1][1]) == 3
    assert await cost(client) == (600 + 360 + 600, "340.00")


async def test_retention_drops_no_alert_of_an_incident_whose_stretches_are_not_stored(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await deliver(client, *FLAPPING)
    assert await drop_alerts(engine) == 20
    await settle(engine, LATER)
    await deliver(client, fired("11:54", "11:56", pod="19"))  # the last one fired longer
    async with db.transaction(engine) as tx:  # another month, or there is nothing to drop
        await partitions.maintain(tx, now=datetime.now(UTC) + timedelta(days=1000), keep=KEEP)
    assert (await incident(client))["downtime_seconds"] == 1260
    await settle(engine, LATER)
    async with db.transaction(engine) as tx:
        await partitions.maintain(tx, now=datetime.now(UTC) + timedelta(days=1500), keep=KEEP)
        assert (await tx.execute(text("SELECT count(*) FROM alert"))).scalar_one() == 0
    assert (await incident(client))["downtime_seconds"] == 1260


async def test_a_late_alert_of_an_incident_without_alerts_adds_to_what_is_stored(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await deliver(client, fired("10:00", "10:10"), fired("10:12", "10:20", pod="b"))
    await settle(engine, LATER)
    assert await drop_alerts(engine) == 0
    assert await deliver(client, fired("10:23", "10:30", pod="c")) == {"late": 1}
    assert (await incident(client))["downtime_seconds"] == 600 + 480 + 420
    await settle(engine, LATER)
    assert (await incident(client))["downtime_seconds"] == 600 + 480 + 420


async def test_an_incident_with_neither_alerts_nor_stretches_counts_from_begin_to_end(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """It settled with the version before, and its alerts have been dropped since."""
    await deliver(client, *FLAPPING)
    async with db.transaction(engine) as tx:
        await tx.execute(text("DELETE FROM alert"))
    assert (await incident(client))["downtime_seconds"] == 6900
    await settle(engine, LATER)
    assert (await incident(client))["downtime_seconds"] == 6900


# — people —


async def test_a_sender_that_states_since_when_counts_from_then(client: httpx.AsyncClient) -> None:
    waited = {**fired("10:26", "10:40", pod="b"), "annotations": {"for": "3m"}}
    await deliver(client, fired("10:20", "10:22"), waited)
    await client.patch("/api/v1/incidents/INC-1", json={"impact_started_at": clock("10:00")})
    assert (await incident(client))["downtime_seconds"] == (20 + 2 + 17) * 60
    await client.patch("/api/v1/incidents/INC-1", json={"impact_started_at": None})
    assert (await incident(client))["downtime_seconds"] == (2 + 17) * 60


async def test_what_a_person_declares_holds_open_or_resolves(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    declared = await client.post(
        "/api/v1/incidents",
        json={"title": "Refunds fail", "service": "checkout", "severity": "sev2", "detected_at": clock("10:00")},
    )
    assert {name: declared.json()[name] for name in ("alerts", "alerts_firing", "held_open")} == {
        "alerts": 0,
        "alerts_firing": 0,
        "held_open": True,
    }
    await client.post("/api/v1/incidents/INC-1/resolve", json={"at": clock("10:30")})
    await price(client)
    assert await cost(client) == (1800, "300.00")
    await deliver(client, fired("12:00", None, service="search"), fired("12:05", "12:10", service="search", pod="b"))
    shown = await incident(client, 2)
    assert (shown["alerts"], shown["alerts_firing"], shown["held_open"]) == (2, 1, False)
    await client.post("/api/v1/incidents/INC-2/resolve", json={"at": clock("12:30")})
    await deliver(client, fired("12:00", "13:00", service="search"))
    assert (await incident(client, 2))["downtime_seconds"] == 1800
    await deliver(client, fired("14:00", "14:10", "warning", service="held"))
    reopened = (await client.post("/api/v1/incidents/INC-3/reopen")).json()
    assert (reopened["alerts"], reopened["alerts_firing"], reopened["held_open"]) == (1, 0, True)
    await client.post("/api/v1/incidents/INC-3/resolve", json={"at": clock("14:40")})
    await price(client, service="held")
    assert await cost(client, 3) == (2400, "80.00")
    assert not (await incident(client, 3))["held_open"]
    before = [await cost(client, number) for number in (1, 3)]
    await settle(engine, LATER)
    assert [await cost(client, number) for number in (1, 3)] == before


async def test_maintenance_is_cut_out(client: httpx.AsyncClient) -> None:
    await deliver(client, fired("10:00", "10:30"), fired("10:33", "10:50", pod="b"))
    await price(client)
    window = {"reason": "Patching", "once": {"from": clock("10:20"), "to": clock("10:40")}}
    assert (await client.put("/api/v1/maintenance/patching", json=window)).status_code == 201
    assert await cost(client) == (20 * 60 + 10 * 60, "600.00")


async def test_what_if_cuts_the_last_alert_or_extends_it(client: httpx.AsyncClient) -> None:
    await deliver(client, fired("10:00", "10:10", "warning"), fired("10:12", "10:20", pod="b"))
    await price(client)
    for change, expected in (("-25%", 10 + 3), ("-45%", 10), ("-60%", 8), ("+10m", 10 + 18)):
        params = {**PERIOD, "time_to_recover": change}
        answer = (await client.get(f"{METRICS}/whatif", params=params)).json()
        assert answer["total"]["downtime_before_seconds"] == 18 * 60
        assert answer["total"]["downtime_after_seconds"] == expected * 60, change
