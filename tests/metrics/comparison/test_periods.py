"""A period beside the one before it, from one read: its numbers are those of REST, one by one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.schema import Service, Source
from app.base.values.times import Span
from app.catalog.objectives import store as objectives
from app.incidents.grouping.signal import AlertClass, EndReason
from app.incidents.measures.store import read_business_hours
from app.metrics.api.answer import EstimatedSummaryModel, SummaryModel, numbers_model
from app.metrics.comparison import periods
from app.metrics.comparison.compare import Trend
from app.metrics.comparison.periods import Periods, Wanted, read_periods
from app.metrics.query import HORIZON, Filters, MetricsQuery
from tests.metrics.prometheus.test_exposition import WEIGHTS, an_incident, price, store
from tests.statements import counted

DAY = datetime(2024, 8, 20, tzinfo=UTC)
BEFORE, CURRENT = Span(DAY - timedelta(days=1), DAY), Span(DAY, DAY + timedelta(days=1))
NOW = CURRENT.end
EVERYTHING = Wanted(availability=True, dots=("time_to_recover", "time_to_acknowledge"), horizon=HORIZON)


async def two_days(engine: AsyncEngine, *, incidents: int = 120, services: int = 7) -> None:
    """Half of them on each day; some open, not acknowledged, stated, carried over midnight, or of the monitoring."""
    chance = Random(incidents)
    async with db.transaction(engine) as tx:
        sources = [{"name": name, "kind": "alertmanager", "created_at": DAY} for name in ("eu", "us")]
        ids = (await tx.execute(insert(Source.__table__).returning(Source.__table__.c.id), sources)).scalars().all()
    rows = []
    for place in range(incidents):
        began = BEFORE.start + chance.random() * timedelta(days=2)
        lasted = timedelta(minutes=chance.lognormvariate(3, 1.5))
        is_open = place % 17 == 0
        row = an_incident("00:00", None if is_open else "00:00", service=f"service-{chance.randrange(services)}") | {
            "number": place + 1,
            "title": f"Incident {place}",
            "began_at": began,
            "last_start_at": began,
            "stretch_began_at": began,
            "severity": chance.randint(1, 5),
            "source_ids": chance.sample(ids, chance.randint(1, 2)),
            "environment": chance.choice(("production", "staging", None)),
            "acknowledged_at": began + lasted / 3 if chance.random() < 0.7 else None,
            "impact_started_at_stated": began - timedelta(minutes=5) if place % 5 == 0 else None,
            "title_stated": "A better title" if place % 11 == 0 else None,
        }
        if not is_open:
            ended = began + lasted
            row |= {"ended_at": ended, "first_ended_at": ended, "last_end_at": ended, "reach_at": ended}
            row |= {"end_reason": EndReason.SUPERSEDED.value} if place % 13 == 0 else {}
        if place % 10 == 3:
            row |= {"alert_class": AlertClass.MONITORING.value}
        rows.append(row)
    await store(engine, *rows)
    async with db.transaction(engine) as tx:
        await tx.execute(
            update(Service.__table__).values(owner="Payments").where(Service.__table__.c.name < "service-3")
        )
    for number in range(0, services, 2):
        await price(engine, str(100 * (number + 1)), f"service-{number}", ("EUR", "USD")[number // 2 % 2])


async def read(engine: AsyncEngine, query: MetricsQuery, wanted: Wanted = EVERYTHING) -> Periods:
    async with db.transaction(engine) as tx:
        return await read_periods(tx, query, BEFORE, wanted, now=NOW, weights=WEIGHTS)


async def asked(client: httpx.AsyncClient, route: str, **parameters: Any) -> Any:
    answer = await client.get(f"/api/v1/metrics/{route}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def of(span: Span, prefix: str = "") -> dict[str, str]:
    return {f"{prefix}from": span.start.isoformat(), f"{prefix}to": span.end.isoformat()}


FILTERS: list[tuple[Filters, dict[str, Any]]] = [
    (Filters(), {}),
    (Filters(service=["service-2"]), {"service": "service-2"}),
    (Filters(severity=[2]), {"severity": "sev2"}),
    (Filters(environment=["production"], source=["eu"]), {"environment": "production", "source": "eu"}),
    (Filters(owner=["Payments"]), {"owner": "Payments"}),
]


@pytest.fixture
def at_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of REST stands at NOW."""

    class Clock(datetime):
        @classmethod
        def now(cls, _zone: Any = None) -> datetime:  # type: ignore[override]
            return NOW

    monkeypatch.setattr("app.base.http.context.datetime", Clock)


@pytest.mark.parametrize(("filters", "parameters"), FILTERS)
async def test_every_number_is_that_of_rest(
    client: httpx.AsyncClient, engine: AsyncEngine, at_now: None, filters: Filters, parameters: dict[str, Any]
) -> None:
    await two_days(engine)
    found = await read(engine, MetricsQuery(CURRENT, filters))
    assert found.previous is not None
    for span, numbers in ((BEFORE, found.previous), (CURRENT, found.current)):
        rest = await asked(client, "summary", group_by="service", **parameters, **of(span))
        assert numbers_model(numbers.total).model_dump(mode="json", by_alias=True) == rest["total"]
    groups = [numbers_model(each).model_dump(mode="json", by_alias=True) for each in found.services]
    assert [without_estimates(each) for each in groups] == [without_estimates(each) for each in rest["groups"]]
    for measure, compared in found.verdicts.items():
        rest = await asked(client, "compare", measure=measure, **parameters, **of(BEFORE, "a_"), **of(CURRENT, "b_"))
        assert (compared.found.verdict, compared.found.reason) == (rest["verdict"], rest["reason"])
        assert compared.found.p_value == pytest.approx(rest["p_value"])
        assert (compared.found.effect and compared.found.effect._asdict()) == pytest.approx(rest["effect"])
        for side, name in ((compared.a, "a"), (compared.b, "b")):
            assert len(side.sample.recorded) == rest[name]["n"]
            assert len(side.sample.censored) == rest[name]["censored"]
            assert side.sample.left_out == rest[name]["left_out"]
    assert set(found.verdicts) == set(found.current.total.measures)


def without_estimates(numbers: dict[str, Any]) -> dict[str, Any]:
    estimates = EstimatedSummaryModel.model_fields.keys() - SummaryModel.model_fields.keys()
    measures = {
        name: {part: value for part, value in measure.items() if part not in estimates}
        for name, measure in numbers["measures"].items()
    }
    return numbers | {"measures": measures, "incidents_per_day": None}


@pytest.mark.parametrize("filters", [Filters(), Filters(service=["service-2"]), Filters(environment=["production"])])
async def test_availability_is_that_of_the_services(engine: AsyncEngine, filters: Filters) -> None:
    await two_days(engine)
    found = await read(engine, MetricsQuery(CURRENT, filters))
    async with db.transaction(engine) as tx:
        every = await objectives.availabilities(
            tx, CURRENT, filters.service, filters.environment, now=NOW, weights=WEIGHTS
        )
    assert found.availability == {each.service: each for each in every}
    assert any(each.downtime for each in every)


async def test_in_business_hours_too(client: httpx.AsyncClient, engine: AsyncEngine, at_now: None) -> None:
    await two_days(engine)
    hours = {day: [{"from": "09:00", "to": "17:00"}] for day in ("monday", "tuesday", "wednesday")}
    answer = await client.put("/api/v1/calendars/office", json={"zone": "Europe/Berlin", "hours": hours})
    assert answer.status_code in {200, 201}, answer.text
    async with db.transaction(engine) as tx:
        calendar = await read_business_hours(tx, "office")
    query = MetricsQuery(CURRENT, calendar=calendar, measures=frozenset({"time_to_recover"}))
    found = await read(engine, query, Wanted())
    assert found.verdicts_in_hours is not None
    rest = await asked(
        client, "compare", measure="time_to_recover", calendar="office", **of(BEFORE, "a_"), **of(CURRENT, "b_")
    )
    in_hours = found.verdicts_in_hours["time_to_recover"]
    assert (in_hours.found.verdict, in_hours.found.reason, len(in_hours.b.sample.recorded)) == (
        rest["business_hours"]["verdict"],
        rest["business_hours"]["reason"],
        rest["business_hours"]["b"]["n"],
    )


async def test_dots_are_the_values_newest_first(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    await two_days(engine)
    found = await read(engine, MetricsQuery(CURRENT))
    for name in EVERYTHING.dots:
        [dots, compared] = found.current.dots[name], found.verdicts[name]
        recorded = sorted(dot.seconds for dot in dots.dots if not dot.censored)
        censored = sorted(dot.seconds for dot in dots.dots if dot.censored)
        assert (recorded, censored) == (sorted(compared.b.sample.recorded), sorted(compared.b.sample.censored))
        assert dots.total == len(dots.dots) == len(recorded) + len(censored)
        assert [dot.detected_at for dot in dots.dots] == sorted((dot.detected_at for dot in dots.dots), reverse=True)
        assert all(CURRENT.start <= dot.detected_at < CURRENT.end for dot in dots.dots)
        assert [sorted(part) for part in dots.seconds] == [recorded, censored]
    monkeypatch.setattr(periods, "DOTS_AT_MOST", 5)
    few = await read(engine, MetricsQuery(CURRENT))
    every, cut = found.current.dots["time_to_recover"], few.current.dots["time_to_recover"]
    assert (cut.dots, cut.total) == ((), every.total)
    assert [sorted(part) for part in cut.seconds] == [sorted(part) for part in every.seconds]


async def test_failures_of_the_monitoring_are_counted_separately(engine: AsyncEngine) -> None:
    await two_days(engine)
    total = (await read(engine, MetricsQuery(CURRENT))).current.total
    recovery = total.measures["time_to_recover"]
    assert 0 < total.monitoring < total.incidents
    assert recovery.excluded["monitoring failure, not a service failure"] == total.monitoring


async def test_the_number_of_statements_does_not_grow(engine: AsyncEngine) -> None:
    queries = [MetricsQuery(CURRENT), MetricsQuery(CURRENT, Filters(source=["eu"]))]
    spent = []
    for incidents, services in ((20, 3), (300, 40)):
        async with db.transaction(engine) as tx:
            await tx.execute(Source.__table__.delete().where(Source.__table__.c.name.in_(["eu", "us"])))
            for table in ("incident", "service_rate", "service"):
                await tx.exec_driver_sql(f"DELETE FROM {table}")
        await two_days(engine, incidents=incidents, services=services)
        for query in queries:
            with counted(engine) as statements:
                await read(engine, query)
            spent.append(len(statements))
    assert spent == [7, 8] * 2


async def test_without_a_previous_period_there_is_no_verdict(engine: AsyncEngine) -> None:
    await two_days(engine)
    async with db.transaction(engine) as tx:
        alone = await read_periods(tx, MetricsQuery(CURRENT), None, EVERYTHING, now=NOW, weights=WEIGHTS)
    both = await read(engine, MetricsQuery(CURRENT))
    assert (alone.previous, alone.verdicts) == (None, {})
    assert alone.current == replace(both.current)
    assert both.verdicts["time_to_recover"].found.verdict in Trend
