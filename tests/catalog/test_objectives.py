"""Availability, objectives and their error budgets."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse_text
from scipy import stats
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db, schema
from app.base.access.tokens import Scope
from app.base.values.times import Span
from app.catalog.objectives import store as objectives
from app.incidents.impact.availability import (
    LOOKED_BACK,
    BudgetLeft,
    CalendarPeriod,
    FailingIncident,
    Objective,
    availability,
    budget,
    poisson_interval,
    reach,
)
from app.incidents.impact.intervals import ImpactInterval, downtime, weighted
from app.metrics.prometheus import exposition
from app.metrics.prometheus.ratios import RecentRatios, read_ratios
from app.metrics.prometheus.snapshot import read_snapshot
from tests.conftest import ClientAs
from tests.incidents.impact.test_intervals import WHOLE, a_span, an_impact, at, many_impacts
from tests.incidents.impact.test_maintenance import breaks
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert
from tests.metrics.prometheus.test_exposition import DAY, WEIGHTS, an_incident, store
from tests.statements import counted

MAINTENANCE, SERVICES = "/api/v1/maintenance", "/api/v1/services"
NIGHT = {"reason": "Patching", "once": {"from": "2024-08-20T10:30:00Z", "to": "2024-08-20T11:00:00Z"}}
THREE_NINES = {"target": "0.999", "window": {"rolling_days": 30}}
PERIOD = {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"}


def failing(number: int, start: str, end: str, impact: str = "1") -> FailingIncident:
    return FailingIncident(number, at(start), [an_impact(number, start, end, impact)])


def an_objective(target: str = "0.99", **changes: object) -> Objective:
    stated = Objective("checkout", Decimal(target), timedelta(days=1), weighted=True)
    return replace(stated, **changes)  # type: ignore[arg-type]


# — availability —


def test_a_day_worked_by_hand() -> None:
    found = availability(
        "checkout",
        [
            failing(1, "10:00", "12:00"),
            failing(2, "11:00", "13:00", "0.5"),
            failing(3, "20:00", "20:30"),
            failing(4, "15:00", "16:00", "0"),
            failing(5, "-1:00", "01:00"),
        ],
        [a_span("12:30", "14:30"), a_span("20:00", "21:00")],
        WHOLE,
        now=at("36:00"),
    )
    # 00-01 of the day before, 10-12:30; half an hour of the second and the whole third fall into maintenance
    assert found.downtime == timedelta(hours=3, minutes=30)
    assert found.planned == timedelta(hours=1)
    assert found.downtime_weighted == 3600 * (1 + 2 + Fraction(1, 4))
    assert (found.maintenance, found.in_service) == (timedelta(hours=3), timedelta(hours=21))
    assert found.ratio == 1 - Fraction(35, 210)
    assert found.ratio_weighted == 1 - Fraction(13, 84)
    assert (found.failures, found.carried_in) == (2, [5])
    assert found.mtbf == 3600 * 17.5 / 2


def test_future_time_is_neither_in_service_nor_available() -> None:
    half = availability("checkout", [], [a_span("06:00", "18:00")], WHOLE, now=at("12:00"))
    assert (half.in_service, half.ratio, half.mtbf) == (timedelta(hours=6), Fraction(1), None)
    later = availability("checkout", [], [], WHOLE, now=at("-1:00"))
    assert (later.in_service, later.ratio, later.failures) == (timedelta(), None, 0)
    always = availability("checkout", [failing(1, "10:00", "11:00")], [WHOLE], WHOLE, now=at("36:00"))
    assert (always.ratio, always.ratio_weighted, always.failures) == (None, None, 0)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(0, 0.0, 3.689), (1, 0.02532, 5.572), (3, 0.6187, 8.767), (10, 4.795, 18.39), (100, 81.36, 121.6)],
)
def test_the_poisson_interval_is_the_tabulated_one(count: int, low: float, high: float) -> None:
    assert poisson_interval(count) == pytest.approx((low, high), rel=5e-4)


@pytest.mark.parametrize("count", [0, 1, 4, 50, 2000])
def test_at_the_ends_of_the_interval_the_count_is_just_likely_enough(count: int) -> None:
    low, high = poisson_interval(count)
    assert stats.poisson.cdf(count, high) == pytest.approx(0.025)
    assert count == 0 or stats.poisson.sf(count - 1, low) == pytest.approx(0.025)


def of_checkout(intervals: Sequence[ImpactInterval]) -> list[FailingIncident]:
    return [
        FailingIncident(each.incident.int, each.span.start, [each]) for each in intervals if each.service == "checkout"
    ]


@given(many_impacts(), breaks)
def test_downtime_and_planned_are_unchanged(intervals: list[ImpactInterval], maintenance: list[Span]) -> None:
    around = of_checkout(intervals)
    before = availability("checkout", around, [], WHOLE, now=WHOLE.end)
    after = availability("checkout", around, maintenance, WHOLE, now=WHOLE.end)
    assert before.planned == timedelta()
    assert after.downtime + after.planned == before.downtime
    assert after.in_service + after.maintenance == before.in_service
    assert after.failures <= before.failures
    assert 0 <= after.downtime_weighted <= Fraction(after.downtime // timedelta(microseconds=1), 10**6)
    if after.ratio is None or after.ratio_weighted is None:
        assert after.in_service == timedelta()
    else:
        assert 0 <= after.ratio <= after.ratio_weighted <= 1


@given(many_impacts())
def test_weighted_downtime_is_shared_exactly_and_unweighted_it_is_the_union(intervals: list[ImpactInterval]) -> None:
    own = [interval for each in of_checkout(intervals) for interval in each.intervals]
    found = weighted(own, WHOLE)
    assert sum(found.incidents.values()) == found.seconds
    full = weighted((replace(each, impact=Decimal(1)) for each in own), WHOLE)
    assert full.seconds == Fraction(downtime((each.span for each in own), WHOLE) // timedelta(microseconds=1), 10**6)


# — budgets —


def test_a_budget_worked_by_hand() -> None:
    around = [failing(1, "10:00", "10:06"), failing(2, "10:03", "10:09", "0.5"), failing(3, "23:54", "24:00")]
    found = budget(an_objective(), around, [a_span("12:00", "16:00")], now=at("24:00"))
    assert found.period == WHOLE
    assert found.seconds == Fraction(1, 100) * 20 * 3600
    # 10:00-10:06 in full, shared two to one from 10:03 on; 10:06-10:09 half; 23:54-24:00 in full
    assert found.incidents == [(3, Fraction(360)), (1, Fraction(180 + 120)), (2, Fraction(60 + 90))]
    assert (found.burned, found.left) == (Fraction(810), Fraction(720 - 810))
    assert found.left_ratio == Fraction(-1, 8)
    hour, six_hours, three_days = (found.burn_rates[lookback] for lookback in LOOKED_BACK)
    assert (hour, six_hours) == (Fraction(10), Fraction(10, 6))
    assert three_days == Fraction(810, (72 - 4) * 36)


def test_unweighted_every_impact_counts_in_full_and_none_does_not() -> None:
    around = [failing(1, "10:00", "11:00", "0.1"), failing(2, "12:00", "13:00", "0")]
    found = budget(an_objective(weighted=False), around, [], now=at("24:00"))
    assert found.incidents == [(1, Fraction(3600))]


def test_a_burn_rate_of_1_spends_the_budget_at_the_end_of_the_window() -> None:
    steady = [failing(1000 - hour, f"{hour}:00", f"{hour}:36") for hour in range(-48, 24)]
    found = budget(an_objective("0.4"), steady, [], now=at("24:00"))
    assert (found.left, set(found.burn_rates.values())) == (Fraction(0), {Fraction(1)})


@pytest.mark.parametrize(
    ("window", "now", "start", "end"),
    [
        (CalendarPeriod.MONTH, "2026-02-28T23:59:59+00:00", "2026-02-01", "2026-03-01"),
        (CalendarPeriod.MONTH, "2026-12-01T00:00:00+00:00", "2026-12-01", "2027-01-01"),
        (CalendarPeriod.MONTH, "2027-01-01T00:30:00+01:00", "2026-12-01", "2027-01-01"),
        (CalendarPeriod.QUARTER, "2024-03-31T12:00:00+00:00", "2024-01-01", "2024-04-01"),
        (CalendarPeriod.QUARTER, "2026-11-30T12:00:00+00:00", "2026-10-01", "2027-01-01"),
        (timedelta(days=7), "2026-11-30T00:00:00+00:00", "2026-11-23", "2026-11-30"),
    ],
)
def test_the_window_of_an_objective(window: timedelta | CalendarPeriod, now: str, start: str, end: str) -> None:
    expected = Span(*(datetime.fromisoformat(border).replace(tzinfo=UTC) for border in (start, end)))
    assert an_objective(window=window).period(datetime.fromisoformat(now)) == expected


def test_the_budget_of_a_calendar_window_reaches_to_its_end_and_burns_until_now() -> None:
    stated = an_objective(window=CalendarPeriod.MONTH)
    now = at("12:00")
    ahead = [Span(now + timedelta(days=1), now + timedelta(days=2))]
    found = budget(stated, [failing(1, "11:00", "14:00")], ahead, now=now)
    assert found.seconds == Fraction(30 * 24 * 3600, 100)
    assert found.burned == 3600
    assert reach(stated, now).end == found.period.end


@given(many_impacts(), breaks, st.booleans())
def test_incidents_burn_all_of_it_and_maintenance_none(
    intervals: list[ImpactInterval], maintenance: list[Span], in_full: bool
) -> None:
    stated = an_objective(weighted=not in_full)
    found = budget(stated, of_checkout(intervals), maintenance, now=WHOLE.end)
    amounts = [seconds for _number, seconds in found.incidents]
    assert sum(amounts) == found.burned == found.seconds - found.left
    assert amounts == sorted(amounts, reverse=True)
    assert budget(stated, of_checkout(intervals), [], now=WHOLE.end).burned >= found.burned
    idle = budget(stated, of_checkout(intervals), [WHOLE], now=WHOLE.end)
    assert (idle.burned, idle.seconds, idle.left_ratio) == (Fraction(0), Fraction(0), None)


# — over HTTP: availability —


async def test_availability_in_one_environment(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(
        engine,
        an_incident("10:00", "12:00", environment="production"),
        an_incident("13:00", "16:00", environment="staging"),
        an_incident("20:00", "21:00"),
    )
    down: dict[str, float] = {}
    for environment in ("prod", "staging", "unknown", "test", ""):
        params = PERIOD | ({"environment": environment} if environment else {})
        [found] = (await client.get("/api/v1/metrics/availability", params=params)).json()["services"]
        down[environment] = found["downtime_seconds"]
        assert ("environment=" in found["links"][0]) is bool(environment)
    assert down == {"prod": 7200, "staging": 10800, "unknown": 3600, "test": 0, "": 21600}
    several = PERIOD | {"environment": ["prod", "unknown"], "service": ["checkout", "search"]}
    answer = (await client.get("/api/v1/metrics/availability", params=several)).json()
    assert [each["downtime_seconds"] for each in answer["services"]] == [10800]
    assert answer["filters"] == {"service": ["checkout", "search"], "environment": ["production", "unknown"]}
    [link, *_] = answer["services"][0]["links"]
    assert "environment=production&environment=unknown" in link
    assert len((await client.get(link)).json()["items"]) == 2


async def test_only_incidents_in_its_environment_burn_the_budget_of_an_objective(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    now = datetime.now(UTC)
    hours = {name: now - timedelta(hours=hours) for name, hours in (("production", 10), ("staging", 20), (None, 30))}
    rows = [
        an_incident("10:00", "11:00", environment=name)
        | {"began_at": at, "last_start_at": at, "stretch_began_at": at, "ended_at": at + timedelta(hours=1)}
        for name, at in hours.items()
    ]
    await store(engine, *rows)
    path, body = "/api/v1/services/checkout/objective", {"target": "0.9", "window": {"rolling_days": 30}}
    burned = {}
    for environment in ("prod", "staging", None):
        shown = (await client.put(path, json=body | {"environment": environment})).json()
        burned[shown["environment"]] = shown["error_budget"]["burned_seconds"]
        async with db.transaction(engine) as tx:
            ratios = await read_ratios(tx, ["checkout"], now=now, weights=WEIGHTS)
        assert ratios.budget_left["checkout"] == pytest.approx(shown["error_budget"]["left_ratio"], abs=1e-3)
    assert burned == {"production": 3600, "staging": 3600, None: 10800}


async def test_availability_of_all_services(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(
        engine,
        an_incident("10:00", "12:00", severity=2),
        an_incident("00:00", "00:30", service="search", detected_at_stated=datetime(2024, 8, 19, 23, tzinfo=UTC)),
        an_incident("10:00", "12:00", service="quiet", severity=5),
    )
    await client.put(f"{MAINTENANCE}/night", json=NIGHT)
    answer = (await client.get("/api/v1/metrics/availability", params=PERIOD)).json()
    assert answer["from"] == PERIOD["from"]
    assert answer["definitions"].keys() >= {"availability", "mtbf", "failures", "planned"}
    by_name = {each["service"]: each for each in answer["services"]}
    assert list(by_name) == ["checkout", "search", "quiet"]
    checkout = by_name["checkout"]
    assert (checkout["downtime_seconds"], checkout["downtime_weighted_seconds"]) == (5400, 2700)
    assert (checkout["planned_seconds"], checkout["maintenance_seconds"]) == (1800, 1800)
    assert checkout["availability"] == 0.936170213  # 1 - 5400 / 84600, rounded
    assert checkout["availability_weighted"] == pytest.approx(1 - 2700 / 84600)
    assert checkout["failures"] == {
        "value": 1,
        "low": pytest.approx(0.0253, rel=1e-2),
        "high": pytest.approx(5.572, rel=1e-3),
    }
    assert checkout["mtbf"]["seconds"] == checkout["mtbf"]["exposure_seconds"] == 84600 - 5400
    assert (by_name["search"]["failures"]["value"], len(by_name["search"]["links"])) == (0, 2)
    assert (by_name["quiet"]["availability"], by_name["quiet"]["mtbf"]["seconds"]) == (1, None)
    for each in answer["services"]:
        for link in each["links"]:
            assert (await client.get(link)).status_code == 200
    alone = (await client.get("/api/v1/metrics/availability", params=PERIOD | {"service": "search"})).json()
    assert alone["services"] == [by_name["search"]]
    unowned = (await client.get("/api/v1/metrics/availability", params=PERIOD | {"service": "nobody"})).json()
    assert unowned["services"] == []


async def test_availability_takes_four_statements_for_any_number_of_services(engine: AsyncEngine) -> None:
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    period = Span(*(datetime.fromisoformat(border) for border in PERIOD.values()))
    spent = []
    for services in (1, 40):
        await store(engine, *(an_incident("10:00", "11:00", service=f"service-{n}") for n in range(services)))
        async with db.transaction(engine) as tx:
            statements.clear()
            await objectives.availabilities(tx, period, now=period.end, weights=WEIGHTS)
            spent.append(len(statements))
    assert spent == [4, 4]


async def test_failures_in_a_period_are_found_by_an_index(engine: AsyncEngine) -> None:
    from app.incidents.impact.store import _FAILING_WITHIN

    hours = range(-3000, 24)
    await store(engine, *(an_incident(f"{hour}:00", f"{hour}:30") for hour in hours))
    period = {"start": DAY, "end": DAY + timedelta(days=1), "now": DAY + timedelta(days=1)}
    async with db.transaction(engine) as tx:
        await tx.execute(text("ANALYZE incident"))
        plan = await tx.execute(
            text(f"EXPLAIN ANALYZE {_FAILING_WITHIN.text}"), period | {"services": None, "environments": []}
        )
        lines = "\n".join(plan.scalars())
    assert "incident_by_end" in lines, lines
    assert "Seq Scan" not in lines, lines
    assert "Rows Removed" not in lines, lines


# — for Prometheus —


async def gauges(engine: AsyncEngine, now: datetime) -> dict[tuple[str, ...], float]:
    """The ratios in a scrape, by name and labels."""
    async with db.transaction(engine) as tx:
        known = await read_snapshot(tx, services_at_most=2)
        found = await read_ratios(tx, known.services, now=now, weights=WEIGHTS)
    body, _ = exposition.text(known, "", found)
    names = ("aftermath_availability_ratio", "aftermath_error_budget_remaining_ratio")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
        if sample.name in names
    }


async def test_prometheus_reads_ratios_over_stated_windows(engine: AsyncEngine) -> None:
    now = DAY + timedelta(days=1)
    await store(
        engine,
        an_incident("10:00", "12:00", severity=2),
        an_incident("-240:00", "-235:00"),
        an_incident("10:00", "11:00", service="search"),
        an_incident("10:00", "11:00", service="folded"),
    )
    async with db.session(engine) as session:
        stated = schema.Objective(
            service="checkout", target=Decimal("0.99"), rolling_days=30, weighted=True, created_at=now, updated_at=now
        )
        await objectives.put_objective(session, stated)
        await (await session.connection()).execute(text("UPDATE service SET in_service_since = '2020-01-01Z'"))
    found = await gauges(engine, now)
    assert found == {
        ("aftermath_availability_ratio", "checkout", "7d"): pytest.approx(1 - 1 / 168),
        ("aftermath_availability_ratio", "checkout", "30d"): pytest.approx(1 - 6 / 720),
        ("aftermath_availability_ratio", "search", "7d"): pytest.approx(1 - 1 / 168),
        ("aftermath_availability_ratio", "search", "30d"): pytest.approx(1 - 1 / 720),
        ("aftermath_error_budget_remaining_ratio", "checkout"): pytest.approx(1 - 6 / 7.2),
    }
    await store(engine, *(an_incident(f"-{hours}:00", f"-{hours}:00") for hours in range(1000, 1100)))
    assert await gauges(engine, now) == found


async def test_ratios_are_remembered_for_a_while(engine: AsyncEngine) -> None:
    now = DAY + timedelta(days=1)
    recent = RecentRatios()
    seen = []
    async with db.transaction(engine) as tx:
        for later, services in (
            (0, ["checkout"]),
            (29, ["checkout"]),
            (31, ["checkout"]),
            (31, ["search"]),
            (-60, ["search"]),
        ):
            seen.append(await recent.of(tx, services, now=now + timedelta(seconds=later), weights=WEIGHTS))
    assert [seen[place] is seen[place - 1] for place in range(1, len(seen))] == [True, False, False, False]


async def test_a_scrape_has_ratios(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00"))
    body = (await client.get("/metrics")).text
    assert 'aftermath_availability_ratio{service="checkout",window="7d"} 1.0' in body


# — over HTTP: objectives —


async def test_an_objective_creates_an_unknown_service(client: httpx.AsyncClient) -> None:
    assert (await client.put(f"{SERVICES}/new/objective", json=THREE_NINES)).status_code == 201
    assert [each["name"] for each in (await client.get(SERVICES)).json()["items"]] == ["new"]
    assert (await client.delete(f"{SERVICES}/new")).status_code == 409
    await client.delete(f"{SERVICES}/new/objective")
    assert (await client.delete(f"{SERVICES}/new")).status_code == 204


async def test_an_objective_is_stated_shown_changed_and_deleted(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    name = "payments/api ü"
    path = f"{SERVICES}/{quote(name, safe='')}/objective"
    unknown = await client.get(path)
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:aftermath:problem:service-not-found")
    await store(engine, an_incident("10:00", "11:00", service=name))
    missing = [await client.get(path), await client.delete(path)]
    assert {(answer.status_code, answer.json()["type"]) for answer in missing} == {
        (404, "urn:aftermath:problem:objective-not-found")
    }
    made = await client.put(path, json=THREE_NINES)
    assert made.status_code == 201, made.text
    assert (made.json()["service"], made.json()["target"], made.json()["weighted"]) == (name, "0.999", True)
    assert made.json()["window"] == {"rolling_days": 30}
    shown = (await client.get(path)).json()
    assert shown["error_budget"]["seconds"] == shown["error_budget"]["left_seconds"] == 2592
    assert shown["error_budget"]["left_ratio"] == 1
    changed = await client.put(path, json={"target": "0.90", "window": {"calendar": "quarter"}, "weighted": False})
    assert (changed.status_code, changed.json()["window"]) == (200, {"calendar": "quarter"})
    assert (changed.json()["target"], changed.json()["created_at"]) == ("0.90", shown["created_at"])
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_a_budget_lists_its_incidents_and_burn_rates(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    now = datetime.now(UTC)

    def lately(hours: float, lasted: timedelta | None, **columns: object) -> dict[str, object]:
        began = now - timedelta(hours=hours)
        ended = began + lasted if lasted else None
        moments = {"began_at": began, "ended_at": ended, "last_start_at": began, "reach_at": ended}
        return an_incident("10:00", "11:00" if ended else None, **moments | columns)

    await store(
        engine,
        lately(30, timedelta(seconds=500)),
        lately(2, timedelta(seconds=1000), severity=2),
        lately(24 * 40, timedelta(hours=1)),
    )
    await client.put(f"{SERVICES}/checkout/objective", json=THREE_NINES)
    found = (await client.get(f"{SERVICES}/checkout/objective")).json()["error_budget"]
    assert [each["seconds"] for each in found["incidents"]] == [500, 500]
    assert (found["seconds"], found["burned_seconds"], found["left_seconds"]) == (2592, 1000, 1592)
    assert found["left_ratio"] == pytest.approx(1592 / 2592)
    rates = {each["hours"]: each["rate"] for each in found["burn_rates"]}
    assert rates == {1: 0, 6: pytest.approx(500 / 21.6), 72: pytest.approx(1000 / 259.2)}
    assert all([(await client.get(each["link"])).status_code == 200 for each in found["incidents"]])


@pytest.mark.parametrize(
    "body",
    [
        {},
        THREE_NINES | {"target": "1"},
        THREE_NINES | {"target": "0.000"},
        THREE_NINES | {"target": 0.999},
        THREE_NINES | {"target": "0.99999999999"},
        THREE_NINES | {"window": {}},
        THREE_NINES | {"window": {"rolling_days": 0}},
        THREE_NINES | {"window": {"rolling_days": 367}},
        THREE_NINES | {"window": {"calendar": "year"}},
        THREE_NINES | {"window": {"rolling_days": 30, "calendar": "month"}},
        THREE_NINES | {"owner": "me"},
    ],
)
async def test_an_objective_that_is_not_acceptable_is_refused(
    client: httpx.AsyncClient, engine: AsyncEngine, body: dict[str, Any]
) -> None:
    await store(engine, an_incident("10:00", "11:00"))
    answer = await client.put(f"{SERVICES}/checkout/objective", json=body)
    assert answer.status_code == 422, answer.text


async def test_readers_read_and_writers_change_objectives(client_as: ClientAs, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00"))
    statuses = {}
    for scope in (None, Scope.INGEST, Scope.READ, Scope.WRITE):
        with_scope = await client_as(scope)
        answers = [
            await with_scope.get("/api/v1/metrics/availability"),
            await with_scope.get(f"{SERVICES}/checkout/objective"),
            await with_scope.put(f"{SERVICES}/checkout/objective", json=THREE_NINES),
            await with_scope.delete(f"{SERVICES}/checkout/objective"),
        ]
        statuses[scope] = [answer.status_code for answer in answers]
    assert statuses == {
        None: [401] * 4,
        Scope.INGEST: [403] * 4,
        Scope.READ: [200, 404, 403, 403],
        Scope.WRITE: [200, 404, 201, 204],
    }


# — since when —


def test_only_time_in_service_counts() -> None:
    around = [failing(1, "08:00", "11:00"), failing(2, "12:00", "12:06")]
    found = availability("checkout", around, [a_span("13:00", "14:00")], WHOLE, since=at("10:00"), now=at("16:00"))
    assert (found.period, found.in_service) == (Span(at("10:00"), at("16:00")), timedelta(hours=5))
    assert (found.downtime, found.failures, found.carried_in) == (timedelta(minutes=66), 1, [1])
    new = availability("checkout", [], [], WHOLE, since=at("16:00"), now=at("16:00"))
    assert (new.ratio, new.ratio_weighted, new.mtbf) == (None, None, None)
    burned = budget(an_objective(), around, [], since=at("10:00"), now=at("20:00"))
    assert burned.seconds == Fraction(10 * 3600, 100), "ten hours in service, and the window ends now"
    assert (burned.burned, burned.in_service_since) == (Fraction(66 * 60), at("10:00"))
    hour, six_hours, three_days = (burned.burn_rates[lookback] for lookback in LOOKED_BACK)
    assert (hour, six_hours, three_days) == (Fraction(0), Fraction(0), Fraction(66 * 100, 600))


async def test_a_service_first_seen_eight_minutes_ago_is_not_available_for_thirty_days(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    now = datetime.now(UTC)
    began, ended = now - timedelta(minutes=8), now - timedelta(minutes=7, seconds=24)
    alert = an_alert(began.isoformat(), ended.isoformat())
    assert (await client.post(WEBHOOK, json=a_delivery(alert))).status_code == 200
    period = {"from": (now - timedelta(days=30)).isoformat(), "to": now.isoformat()}
    [shown] = (await client.get("/api/v1/metrics/availability", params=period)).json()["services"]
    assert shown["availability"] == pytest.approx(1 - 36 / 480, abs=1e-6)
    assert shown["in_service_since"] == shown["counted_from"]
    assert datetime.fromisoformat(shown["counted_from"]) == began
    await client.put(f"{SERVICES}/checkout/objective", json=THREE_NINES)
    since = now - timedelta(days=10)
    service = await client.put(f"{SERVICES}/checkout", json={"in_service_since": since.isoformat()})
    assert datetime.fromisoformat(service.json()["in_service_since"]) == since
    [shown] = (await client.get("/api/v1/metrics/availability", params=period)).json()["services"]
    assert shown["availability"] == pytest.approx(1 - 36 / 864_000, abs=1e-9)
    found = (await client.get(f"{SERVICES}/checkout/objective")).json()["error_budget"]
    assert datetime.fromisoformat(found["in_service_since"]) == since
    assert found["seconds"] == pytest.approx(864, abs=1)
    assert found["from"] < found["in_service_since"]
    [family] = [
        family
        for family in parse_text((await client.get("/metrics")).text)
        if family.name == "aftermath_service_in_service_since_timestamp_seconds"
    ]
    assert [(each.labels, each.value) for each in family.samples] == [({"service": "checkout"}, since.timestamp())]


async def test_history_that_is_imported_counts_from_its_first_incident(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert("2026-08-20T12:00:00Z", "2026-08-20T13:12:00Z")))
    await client.post(WEBHOOK, json=a_delivery(an_alert("2026-08-21T12:00:00Z", "2026-08-21T13:12:00Z")))
    period = {"from": "2026-08-01T00:00:00Z", "to": "2026-08-23T12:00:00Z"}
    [shown] = (await client.get("/api/v1/metrics/availability", params=period)).json()["services"]
    assert shown["in_service_since"] == "2026-08-20T12:00:00Z"
    assert shown["availability"] == pytest.approx(1 - 2 * 72 / (3 * 24 * 60))


# — all services at once —


async def test_what_is_left_of_all_budgets_is_that_of_each(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    windows: list[dict[str, Any]] = [{"rolling_days": 1}, {"rolling_days": 30}, {"calendar": "quarter"}]
    now = datetime(2024, 8, 20, 12, tzinfo=UTC)

    async def left() -> list[BudgetLeft]:
        async with db.session(engine) as session:
            return await objectives.budgets_left(session, now=now, weights=WEIGHTS)

    assert await left() == []
    spent = []
    for services in (1, 12):
        names = [f"service-{n:02}" for n in range(services)]
        incidents = [
            an_incident(f"0{n % 9}:0{part}", f"1{n % 3}:1{part}" if n % 4 else None, service=name, severity=1 + n % 3)
            | {"environment": ("staging", "production", None)[part]}
            for n, name in enumerate(names)
            for part in range(3)
        ]
        await store(engine, *incidents)
        for n, name in enumerate(names):
            body = {
                "target": "0.99",
                "window": windows[n % 3],
                "weighted": n % 2 == 0,
                "environment": "production" if n % 5 == 1 else None,
            }
            assert (await client.put(f"{SERVICES}/{name}/objective", json=body)).status_code in {200, 201}
        await client.put(f"{MAINTENANCE}/night", json=NIGHT)
        with counted(engine) as statements:
            found = await left()
        spent.append(len(statements))
        assert [each.objective.service for each in found] == names
        for each in found:
            async with db.session(engine) as session:
                row = await objectives.find_objective(session, each.objective.service)
                alone = await objectives.budget(session, row, now=now, weights=WEIGHTS)
            assert (each.objective, each.in_service_since, each.period) == (
                alone.objective,
                alone.in_service_since,
                alone.period,
            )
            assert (each.seconds, each.burned, each.left_ratio) == (alone.seconds, alone.burned, alone.left_ratio)
    assert spent == [5, 5]
    assert any(each.is_overspent for each in found)
    assert len({each.burned for each in found}) > 5
