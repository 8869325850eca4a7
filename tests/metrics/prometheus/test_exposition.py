"""The Prometheus exposition, and that settling counts every incident once."""

import asyncio
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from sqlalchemy import event, insert, text, update
from sqlalchemy.exc import InterfaceError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.schema import Incident, Quarantine, Service, ServiceRate, SettledMeasure, Source, StoredRequest
from app.incidents.grouping.decide import lock_keys
from app.incidents.grouping.write import count
from app.incidents.history import corrections, notes
from app.incidents.history.notes import TaskDetails
from app.incidents.history.path import Effect
from app.incidents.history.timeline import Attribution
from app.incidents.measures.measures import Weights
from app.metrics.prometheus import api, exposition
from app.metrics.prometheus.settle import settle
from app.metrics.prometheus.snapshot import read_snapshot
from tests.ingest.test_webhook import a_delivery, an_alert

DAY = datetime(2024, 8, 20, tzinfo=UTC)
WEIGHTS: Weights = {
    "sev1": Decimal(1),
    "sev2": Decimal("0.5"),
    "sev3": Decimal("0.1"),
    "sev4": Decimal(0),
    "sev5": Decimal(0),
}
WINDOW, LATENESS = timedelta(minutes=5), timedelta(minutes=10)
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"}
PROMTOOL = "/usr/bin/promtool"

Series = tuple[str, frozenset[tuple[str, str]]]


def at(clock: str) -> datetime:
    hours, _, minutes = clock.partition(":")
    return DAY + timedelta(hours=int(hours), minutes=int(minutes))


def an_incident(began: str, ended: str | None = None, **columns: object) -> dict[str, object]:
    """A row of `incident` as the store would write it, resolved if `ended` is given."""
    began_at, ended_at = at(began), at(ended) if ended else None
    return {
        "id": uuid4(),
        "key_id": uuid4(),
        "key": 'service="checkout"',
        "rule": "default",
        "title": "Checkout is down",
        "service": "checkout",
        "environment": None,
        "severity": 1,
        "alert_class": "service",
        "labels": {},
        "source_ids": [],
        "began_at": began_at,
        "ended_at": ended_at,
        "first_ended_at": ended_at,
        "last_end_at": ended_at,
        "last_start_at": began_at,
        "stretch_began_at": began_at,
        "reach_at": ended_at + WINDOW if ended_at else None,
        "reopened": 0,
        "alerts": 1,
        "open_alerts": 0 if ended else 1,
        "end_reason": "recovered" if ended else None,
        "merged_into": None,
        "settled_at": None,
        "declared": False,
        "service_stated": None,
        "severity_stated": None,
        "impact_stated": None,
        "detected_at_stated": None,
        "impact_started_at_stated": None,
        "acknowledged_at": None,
        "identified_at": None,
        "version": 1,
        "created_at": began_at,
        "updated_at": began_at,
    } | columns


async def store(engine: AsyncEngine, *incidents: dict[str, object]) -> list[UUID]:
    """Stores the incidents and returns their ids. Unknown services are created in order of first use."""
    async with db.transaction(engine) as tx:
        known = {row.name for row in await tx.execute(text("SELECT name FROM service"))}
        names = dict.fromkeys(str(row["service_stated"] or row["service"]) for row in incidents)
        new = [
            {"name": name, "first_seen_at": DAY + timedelta(seconds=len(known) + place), "updated_at": DAY}
            for place, name in enumerate(name for name in names if name not in known)
        ]
        if new:
            await tx.execute(insert(Service.__table__), new)
        if incidents:
            await tx.execute(insert(Incident.__table__), list(incidents))
    return [UUID(str(row["id"])) for row in incidents]


async def price(engine: AsyncEngine, expected: str, name: str = "checkout", currency: str = "EUR") -> None:
    amount = Decimal(expected)
    row = {"low": amount / 2, "expected": amount, "high": amount * 2}
    async with db.transaction(engine) as tx:
        await tx.execute(insert(ServiceRate.__table__).values(service=name, currency=currency, valid_from=DAY, **row))


async def settled(engine: AsyncEngine, now: datetime, **options: Any) -> int:
    async with db.transaction(engine) as tx:
        return await settle(tx, now=now, allowed_lateness=LATENESS, weights=WEIGHTS, **options)


async def scrape(engine: AsyncEngine, *, services_at_most: int = 200) -> dict[Series, float]:
    """The series from the database by name and labels, including buckets."""
    async with db.transaction(engine) as tx:
        found = await read_snapshot(tx, services_at_most=services_at_most)
    body, _ = exposition.text(found)
    return series_of(parse_text(body.decode()))


def series_of(families: Any) -> dict[Series, float]:
    samples = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in families
        for sample in family.samples
        if sample.name.startswith("aftermath_")
    ]
    assert len(samples) == len(dict(samples)), "no series occurs twice"
    return dict(samples)


def of(found: Mapping[Series, float], name: str, **labels: str) -> float | None:
    """Incidents are in an unknown environment unless another one is given."""
    if "severity" in labels:
        labels = {"environment": "unknown"} | labels
    return found.get((f"aftermath_{name}", frozenset(labels.items())))


CHECKOUT = {"service": "checkout", "severity": "sev1"}


# — settling —


async def test_an_incident_settles_once_its_window_and_the_lateness_are_over(engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00", acknowledged_at=at("10:04")), an_incident("11:30"))
    await price(engine, "120")
    before = await scrape(engine)
    assert (of(before, "incidents_total", **CHECKOUT), of(before, "incidents_open", **CHECKOUT)) == (0, 1)
    assert await settled(engine, at("11:14")) == 0
    assert await settled(engine, at("11:15")) == 1
    assert await settled(engine, at("11:16")) == 0
    after = await scrape(engine)
    assert {
        name: of(after, name, **CHECKOUT)
        for name in (
            "incidents_total",
            "incidents_open",
            "incidents_unacknowledged",
            "time_to_recover_seconds_count",
            "time_to_recover_seconds_sum",
            "time_to_acknowledge_seconds_sum",
            "time_to_detect_seconds_count",
        )
    } == {
        "incidents_total": 1,
        "incidents_open": 1,
        "incidents_unacknowledged": 1,
        "time_to_recover_seconds_count": 1,
        "time_to_recover_seconds_sum": 3600,
        "time_to_acknowledge_seconds_sum": 240,
        "time_to_detect_seconds_count": 0,
    }
    buckets = {
        le: of(after, "time_to_acknowledge_seconds_bucket", le=le, **CHECKOUT) for le in ("120.0", "300.0", "+Inf")
    }
    assert buckets == {"120.0": 0, "300.0": 1, "+Inf": 1}
    assert of(after, "downtime_seconds_total", service="checkout") == 3600
    assert of(after, "downtime_cost_total", service="checkout", currency="EUR") == 120
    assert of(after, "oldest_open_incident_start_timestamp_seconds", service="checkout") == at("11:30").timestamp()


async def test_downtime_and_cost_grow_only_by_newly_covered_time(engine: AsyncEngine) -> None:
    await store(
        engine,
        an_incident("10:00", "11:00", severity=2),
        an_incident("10:30", "11:30", severity=1),
        an_incident("10:00", "12:00", severity=4),
        an_incident("09:00", "13:00", alert_class="monitoring"),
    )
    await price(engine, "100")
    for now in ("11:15", "11:45", "12:15", "13:15"):
        await settled(engine, at(now))
    found = await scrape(engine)
    assert of(found, "downtime_seconds_total", service="checkout") == 90 * 60
    # half an hour at 50, then the greater impact counts: an hour at 100
    assert of(found, "downtime_cost_total", service="checkout", currency="EUR") == 125


async def test_a_bucket_holds_its_upper_bound(engine: AsyncEngine) -> None:
    """`le` is less or equal, to the microsecond."""
    for micros in (-1, 0, 1):
        ended_at = at("11:00") + timedelta(microseconds=micros)
        await store(engine, an_incident("10:00", "11:00", ended_at=ended_at, reach_at=ended_at))
    assert await settled(engine, at("23:00")) == 3
    found = await scrape(engine)
    counts = [of(found, "time_to_recover_seconds_bucket", le=le, **CHECKOUT) for le in ("1800.0", "3600.0", "7200.0")]
    assert counts == [0, 2, 3]


async def test_settling_one_by_one_or_at_once_gives_the_same(engine: AsyncEngine) -> None:
    rows = [an_incident(f"{hour}:00", f"{hour + 1}:{20 + hour}", severity=1 + hour % 3) for hour in range(8, 16)]
    await store(engine, *rows)
    await price(engine, "100")
    while await settled(engine, at("23:00"), at_most=1):
        pass
    one_by_one = await scrape(engine)
    async with db.transaction(engine) as tx:
        for table in ("settled_in_environment", "settled_downtime", "settled_cost"):
            await tx.execute(text(f"DELETE FROM {table}"))
        await tx.execute(update(Incident.__table__).values(settled_at=None))
    assert await settled(engine, at("23:00")) == 8
    assert await scrape(engine) == pytest.approx(one_by_one)


async def test_merged_open_and_settled_incidents_do_not_settle(engine: AsyncEngine) -> None:
    [winner] = await store(engine, an_incident("10:00"))
    await store(
        engine, an_incident("10:00", "11:00", merged_into=winner), an_incident("10:00", "11:00", settled_at=DAY)
    )
    assert await settled(engine, at("23:00")) == 0


async def test_tasks_are_counted_by_phase_and_effect_when_their_incident_settles(engine: AsyncEngine) -> None:
    first, second, open_ = await store(
        engine,
        an_incident("16:05", "16:20", identified_at=at("16:17")),
        an_incident("17:00", "17:20"),
        an_incident("18:00"),
    )
    tasks = [
        (first, "16:06", Effect.NONE),
        (first, "16:07", Effect.NONE),
        (first, "16:17", Effect.POSITIVE),
        (first, "16:21", Effect.NEGATIVE),
        (second, "17:05", Effect.UNKNOWN),
        (open_, "18:05", Effect.POSITIVE),
    ]
    async with db.session(engine) as session:
        for incident_id, clock, effect in tasks:
            details, when = TaskDetails(effect), Attribution(at(clock), "ada", "t")
            entry = await notes.add_task(session, incident_id, when, details, now=at("19:00"))
        await corrections.withdraw(session, open_, entry.id, by="ada", now=at("19:00"))
    assert sum(value for (name, _), value in (await scrape(engine)).items() if name == "aftermath_tasks_total") == 0
    assert await settled(engine, at("19:00")) == 2
    for round_ in range(2):
        found = await scrape(engine)
        counted = {
            (dict(labels)["phase"], dict(labels)["effect"]): value
            for (name, labels), value in found.items()
            if name == "aftermath_tasks_total" and value
        }
        assert counted == {
            ("response", "none"): 2,
            ("remediation", "positive"): 1,
            ("analysis", "negative"): 1,
            ("unknown", "unknown"): 1,
        }, round_
        await settled(engine, at("20:00"))


async def test_many_processes_settle_each_incident_once(engine: AsyncEngine) -> None:
    await store(engine, *(an_incident("10:00", "11:00") for _ in range(40)))

    async def rounds() -> int:
        return sum([await settled(engine, at("12:00"), at_most=3) for _ in range(5)])

    at_once = sum(await asyncio.gather(*(rounds() for _ in range(4))))
    assert at_once + await settled(engine, at("12:00")) == 40
    assert of(await scrape(engine), "incidents_total", **CHECKOUT) == 40


async def test_the_number_of_statements_does_not_grow(engine: AsyncEngine) -> None:
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    spent = []
    for many in (1, 30):
        await store(engine, *(an_incident("10:00", "11:00", service=f"service-{n}") for n in range(many)))
        statements.clear()
        assert await settled(engine, at("12:00")) == many
        settling = len(statements)
        await scrape(engine)
        spent.append((settling, len(statements) - settling))
    assert spent[0] == spent[1]
    assert spent[0] <= (15, 15)


@pytest.mark.parametrize("change", [{"severity_stated": 3}, {"service_stated": "search"}, {"merged_into": True}])
async def test_a_counter_that_is_still_0_does_not_go_away(engine: AsyncEngine, change: dict[str, object]) -> None:
    winner, id_ = await store(engine, an_incident("09:00", service="search", severity=4), an_incident("10:00", "11:00"))
    await settled(engine, at("11:05"))
    before = await scrape(engine)
    values = change if "merged_into" not in change else {"merged_into": winner}
    async with db.transaction(engine) as tx:
        await tx.execute(update(Incident.__table__).where(Incident.__table__.c.id == id_).values(**values))
    assert of(before, "incidents_total", **CHECKOUT) == 0
    names = {"aftermath_incidents_total", *(f"aftermath_time_to_{end}_seconds_count" for end in ("detect", "recover"))}
    counters = {series: value for series, value in before.items() if series[0] in names}
    after = await scrape(engine)
    assert {series: after.get(series) for series in counters} == counters


async def test_changes_to_settled_incidents_never_lower_a_counter(engine: AsyncEngine) -> None:
    [id_] = await store(engine, an_incident("10:00", "11:00", acknowledged_at=at("10:04")))
    await price(engine, "100")
    await settled(engine, at("12:00"))
    before = await scrape(engine)
    for change in (
        {"severity_stated": 3},
        {"service_stated": "search"},
        {"impact_stated": Decimal(0)},
        {"impact_started_at_stated": at("09:00")},
        {"ended_at": None, "open_alerts": 1},
        {"ended_at": at("10:30"), "open_alerts": 0, "reach_at": at("10:35")},
    ):
        async with db.transaction(engine) as tx:
            await tx.execute(update(Incident.__table__).where(Incident.__table__.c.id == id_).values(**change))
        await store(engine, an_incident("10:10", "10:50"))
        await settled(engine, at("23:00"))
        after = await scrape(engine)
        fallen = {
            name: (value, after.get((name, labels)))
            for (name, labels), value in before.items()
            if name.endswith(("_total", "_bucket", "_count", "_sum")) and after.get((name, labels), 0.0) < value
        }
        assert fallen == {}
        before = after


async def test_an_incident_that_a_late_alert_reopened_counts_as_open(engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", settled_at=at("09:59")))
    assert of(await scrape(engine), "incidents_open", **CHECKOUT) == 1


# — exported families —


async def test_a_new_database_has_no_complaints(client: httpx.AsyncClient) -> None:
    assert_promtool_is_content((await client.get("/metrics")).content)


async def some_sources(engine: AsyncEngine) -> None:
    async with db.transaction(engine) as tx:
        await tx.execute(insert(Source.__table__).values(name="prod", kind="alertmanager", created_at=DAY))
        await count(
            tx,
            [
                ("deliveries", "prod", "accepted", 3),
                ("signals", "prod", "opened", 2),
                ("ingest_lag_bucket", "prod", "0.5", 2),
                ("ingest_lag_bucket", "prod", "+Inf", 1),
                ("ingest_lag_sum", "prod", "", 4000.7),
                ("last_delivery", "prod", "", DAY.timestamp()),
                ("truncated_alerts", "prod", "", 5),
                ("history_corrections", "", "", 7),
            ],
        )
        source_id = (await tx.execute(text("SELECT id FROM source WHERE name = 'prod'"))).scalar_one()
        stored = {"delivery_id": uuid4(), "headers": {}, "query": {}, "path": {}, "body": b"{}"}
        await tx.execute(insert(StoredRequest.__table__).values(stored))
        waiting = {"delivery_id": stored["delivery_id"], "received_at": DAY, "reason": "r", "detail": "d"}
        await tx.execute(insert(Quarantine.__table__).values(source_id=source_id, **waiting))


async def test_source_counters_are_exported_and_known_sources_begin_at_0(engine: AsyncEngine) -> None:
    await some_sources(engine)
    found = await scrape(engine)
    assert {
        "accepted": of(found, "deliveries_total", source="prod", outcome="accepted"),
        "quarantined": of(found, "deliveries_total", source="prod", outcome="quarantined"),
        "opened": of(found, "signals_total", source="prod", verdict="opened"),
        "late": of(found, "signals_total", source="prod", verdict="late"),
        "0.25": of(found, "ingest_lag_seconds_bucket", source="prod", le="0.25"),
        "0.5": of(found, "ingest_lag_seconds_bucket", source="prod", le="0.5"),
        "3600": of(found, "ingest_lag_seconds_bucket", source="prod", le="3600.0"),
        "+Inf": of(found, "ingest_lag_seconds_bucket", source="prod", le="+Inf"),
        "sum": of(found, "ingest_lag_seconds_sum", source="prod"),
        "last": of(found, "source_last_delivery_timestamp_seconds", source="prod"),
        "truncated": of(found, "truncated_alerts_total", source="prod"),
        "quarantine": of(found, "quarantine_size", source="prod"),
        "corrections": of(found, "history_corrections_total"),
    } == {
        "accepted": 3,
        "quarantined": 0,
        "opened": 2,
        "late": 0,
        "0.25": 0,
        "0.5": 2,
        "3600": 2,
        "+Inf": 3,
        "sum": 4000.7,
        "last": DAY.timestamp(),
        "truncated": 5,
        "quarantine": 1,
        "corrections": 7,
    }
    assert not [series for series in found if ("source", "people") in series[1]]


async def test_a_source_that_never_delivered_has_no_time_of_it(engine: AsyncEngine) -> None:
    async with db.transaction(engine) as tx:
        await tx.execute(insert(Source.__table__).values(name="new", kind="grafana", created_at=DAY))
    assert of(await scrape(engine), "source_last_delivery_timestamp_seconds", source="new") is None


NASTY = ['a"b', "a\\b", "a\nb", "a\rb", "ümlaut 🙂", "{}", 'x",evil="1', "a\u2028b", " ", "other"]


async def test_services_may_be_called_anything(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await some_sources(engine)
    await store(engine, *(an_incident("10:00", "11:00", service=name, acknowledged_at=at("10:01")) for name in NASTY))
    for name in NASTY:
        await price(engine, "1", name)
    await settled(engine, at("12:00"))
    plain = await client.get("/metrics")
    assert (plain.status_code, plain.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert_promtool_is_content(plain.content)
    strict = await client.get("/metrics", headers=OPENMETRICS)
    assert strict.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert strict.text.endswith("# EOF\n")
    found = series_of(parse_openmetrics(strict.text))  # type: ignore[no-untyped-call]
    assert [of(found, "incidents_total", service=name, severity="sev1") for name in NASTY] == [1] * len(NASTY)
    assert found == series_of(parse_text(plain.text))


def assert_promtool_is_content(body: bytes) -> None:
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=body, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout.decode(), checked.stderr.decode()) == (0, "", "")


@pytest.mark.parametrize(
    ("accept", "strict"),
    [
        ("", False),
        ("*/*", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=nonsense.x; q=0.9, text/plain", False),
        ("application/openmetrics-text;version=9.9.9;q=0.5,text/plain;q=0.3", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nan, ;;;,,=", False),
        ("application/openmetrics-text;q=²", False),
    ],
)
async def test_accept_decides_the_format(client: httpx.AsyncClient, accept: str, strict: bool) -> None:
    answer = await client.get("/metrics", headers={b"Accept": accept.encode()})
    assert (answer.status_code, answer.headers["content-type"].startswith("application/openmetrics")) == (200, strict)


async def test_services_beyond_the_bound_are_other_and_a_new_one_displaces_none(engine: AsyncEngine) -> None:
    await store(engine, *(an_incident("10:00", "11:00", service=f"service-{n}") for n in range(10)))
    await settled(engine, at("12:00"))
    before = await scrape(engine, services_at_most=3)
    assert of(before, "incidents_total", service="service-2", severity="sev1") == 1
    assert of(before, "incidents_total", service="service-3", severity="sev1") is None
    assert of(before, "incidents_total", service="other", severity="sev1") == 7
    assert of(before, "downtime_seconds_total", service="other") == 7 * 3600
    assert of(before, "services_folded") == 7
    await store(engine, an_incident("13:00", "14:00", service="a-new-one"), an_incident("13:00", service="service-9"))
    await settled(engine, at("23:00"))
    after = await scrape(engine, services_at_most=3)
    assert of(after, "incidents_total", service="other", severity="sev1") == 8
    assert of(after, "incidents_open", service="other", severity="sev1") == 1
    assert {labels for _, labels in after} == {labels for _, labels in before}


async def test_incidents_are_exported_by_environment(engine: AsyncEngine) -> None:
    await store(
        engine,
        an_incident("10:00", "11:00", environment="production"),
        an_incident("10:00", "12:00", environment="staging"),
        an_incident("10:00", "11:00"),
        an_incident("10:00", environment="staging"),
    )
    assert await settled(engine, at("23:00")) == 3
    found = await scrape(engine)
    numbers = {
        environment: [
            of(found, name, environment=environment, **CHECKOUT)
            for name in ("incidents_total", "incidents_open", "time_to_recover_seconds_sum")
        ]
        for environment in ("production", "staging", "unknown")
    }
    assert numbers == {"production": [1, 0, 3600], "staging": [1, 1, 7200], "unknown": [1, 0, 3600]}
    assert of(found, "downtime_seconds_total", service="checkout") == 2 * 3600  # settled ones, once


async def test_environments_beyond_the_bound_are_other_and_a_new_one_displaces_none(engine: AsyncEngine) -> None:
    await store(engine, *(an_incident("10:00", "11:00", environment=f"pr-{n}") for n in range(10, 40)))
    await settled(engine, at("12:00"))
    before = await scrape(engine)
    assert of(before, "incidents_total", environment="pr-29", **CHECKOUT) == 1
    assert of(before, "incidents_total", environment="other", **CHECKOUT) == 10
    await store(engine, an_incident("13:00", "14:00", environment="a-new-one"))
    await settled(engine, at("23:00"))
    after = await scrape(engine)
    assert of(after, "incidents_total", environment="other", **CHECKOUT) == 11
    assert {labels for _, labels in after} == {labels for _, labels in before}


async def test_what_the_version_before_has_counted_is_still_counted(engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00", settled_at=at("11:20")))
    async with db.transaction(engine) as tx:
        row = {"measure": "incidents", "service": "checkout", "severity": 1, "bucket": 0, "count": 7, "seconds": 0}
        await tx.execute(insert(SettledMeasure.__table__).values(**row))
    await store(engine, an_incident("12:00", "13:00"))
    await settled(engine, at("23:00"))
    assert of(await scrape(engine), "incidents_total", **CHECKOUT) == 8


async def test_the_number_of_series_is_bounded(engine: AsyncEngine) -> None:
    await store(engine, *(an_incident("10:00", "11:00", service=f"service-{n}") for n in range(300)))
    await settled(engine, at("12:00"))
    assert len(await scrape(engine, services_at_most=5)) < 6 * 4 * 17 + 200


async def test_metrics_need_a_token(client: httpx.AsyncClient) -> None:
    assert (await client.get("/metrics", headers={"Authorization": ""})).status_code == 401


async def test_incidents_locked_by_a_batch_settle_in_a_later_round(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """A batch reads incidents before it writes them: one that settled in between would be counted, then merged away."""
    await client.post("/webhooks/alertmanager", json=a_delivery(an_alert(ended="2026-08-20T10:30:00Z")))
    async with engine.connect() as connection:
        [key] = (await connection.execute(text("SELECT key_id FROM incident"))).scalars()

    async def settled() -> int:
        async with db.transaction(engine) as tx:
            return await settle(tx, now=datetime.now(UTC), allowed_lateness=timedelta(0), weights=WEIGHTS)

    async with db.transaction(engine) as working:
        await lock_keys(working, [key])
        assert await settled() == 0
    assert await settled() == 1


async def test_a_scrape_whose_reading_fails_when_it_is_canceled_has_what_needs_no_database(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reading(*_: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise InterfaceError("ROLLBACK", {}, Exception("another operation is in progress")) from None

    monkeypatch.setattr(api, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(api, "_of_database", reading)
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert "aftermath_spool_bytes" in response.text
    assert "aftermath_incidents_open" not in response.text
