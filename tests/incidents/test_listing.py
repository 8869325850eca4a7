"""Rows of lists: the same facts as REST, in a fixed number of statements."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.values.severity import severity_name
from app.incidents.grouping.signal import AlertClass
from app.incidents.measures.measures import IncidentStatus
from app.incidents.reading import listing, views
from app.incidents.reading.listing import Key, ListedIncident, Listing, OpenNow
from tests.metrics.prometheus.test_exposition import WEIGHTS, an_incident, price, store
from tests.statements import counted

EVERYTHING = views.Filters()


async def some_incidents(engine: AsyncEngine, number: int, *, since: datetime, services: int = 3) -> None:
    """A few per hour until now, in turn open, acknowledged, resolved, of the monitoring, and with stated facts."""
    chance = Random(number)
    rows = []
    for place in range(number):
        began = since + chance.random() * timedelta(hours=12)
        is_open = place % 3 == 0
        ended = None if is_open else began + timedelta(minutes=0 if place % 9 == 1 else chance.randint(1, 200))
        rows.append(
            an_incident("00:00", None if is_open else "00:00", service=f"service-{place % services}")
            | {
                "number": place + 1,
                "title": f"Incident {place} {'x' * 400}",
                "began_at": began,
                "last_start_at": began,
                "stretch_began_at": began,
                "ended_at": ended,
                "first_ended_at": ended,
                "last_end_at": ended,
                "reach_at": ended,
                "severity": chance.randint(1, 5),
                "reopened": chance.randint(0, 2),
                "alerts": chance.randint(1, 50),
                "acknowledged_at": began + timedelta(minutes=1) if place % 2 else None,
                "acknowledged_by": "ada" if place % 2 else None,
                "service_stated": "service-0" if place % 7 == 0 else None,
                "detected_at_stated": began - timedelta(minutes=9) if place % 5 == 0 else None,
                "impact_started_at_stated": began - timedelta(minutes=20) if place % 11 == 0 else None,
                "alert_class": AlertClass.MONITORING.value if place % 8 == 0 else AlertClass.SERVICE.value,
            }
        )
    await store(engine, *rows)
    await price(engine, "60", "service-0")
    await price(engine, "10", "service-0", "USD")


async def listed(
    engine: AsyncEngine,
    filters: views.Filters = EVERYTHING,
    *,
    before: Key | None = None,
    after: Key | None = None,
    limit: int = 200,
    now: datetime | None = None,
) -> Listing:
    async with db.session(engine) as session:
        return await listing.listed(
            session,
            filters,
            before=before,
            after=after,
            limit=limit,
            now=now or datetime.now(UTC),
            weights=WEIGHTS,
        )


async def test_each_row_has_the_facts_of_rest(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await some_incidents(engine, 60, since=datetime(2024, 8, 20, tzinfo=UTC))
    # The cost of what is open grows with time, so only that of resolved incidents can be compared exactly.
    found = await listed(engine)
    answer = await client.get("/api/v1/incidents", params={"limit": 100})
    items = answer.json()["items"]
    assert [as_rest(row) for row in found.rows] == [
        {name: item[name] for name in as_rest(found.rows[0])} for item in items
    ]
    is_resolved = [item for item in items if item["status"] == "resolved"]
    rows = [row for row in found.rows if row.status is IncidentStatus.RESOLVED]
    assert [row.downtime.total_seconds() for row in rows] == [item["downtime_seconds"] for item in is_resolved]
    assert [cost_of(row) or None for row in rows] == [item["cost"] for item in is_resolved]
    assert any(row.cost for row in rows)
    assert any(row.measures["time_to_recover"].censored_seconds for row in found.rows)


def as_rest(row: ListedIncident) -> dict[str, Any]:
    """The facts of a row that do not depend on the clock, as REST shows them."""
    moments = ("detected_at", "acknowledged_at", "resolved_at")
    return {
        "number": f"INC-{row.number}",
        "service": row.service,
        "environment": row.environment,
        "severity": severity_name(row.severity),
        "status": row.status,
        "end_reason": row.end_reason,
        "acknowledged_by": row.acknowledged_by,
        "reopened": row.reopened,
        "alerts": row.alerts,
        "measures": {
            name: {"seconds": each.seconds, "status": each.status, "reason": each.reason}
            for name, each in row.measures.items()
        },
        **{name: shown(getattr(row, name)) for name in moments},
    }


def shown(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def cost_of(row: ListedIncident) -> dict[str, dict[str, str]]:
    return {
        currency: {name: f"{amount:.2f}" for name, amount in amounts._asdict().items()}
        for currency, amounts in row.cost.items()
    }


async def test_pages_lead_back_and_forth(engine: AsyncEngine) -> None:
    await some_incidents(engine, 23, since=datetime(2024, 8, 20, tzinfo=UTC))
    every = [row.number for row in (await listed(engine)).rows]
    pages = [await listed(engine, limit=10)]
    while pages[-1].older:
        pages.append(await listed(engine, limit=10, before=pages[-1].older))
    assert [[row.number for row in page.rows] for page in pages] == [every[:10], every[10:20], every[20:]]
    assert (pages[0].newer, pages[-1].older) == (None, None)
    back = await listed(engine, limit=10, after=pages[2].newer)
    assert ([row.number for row in back.rows], back.older) == (every[10:20], (back.rows[-1].began_at, every[19]))
    first = await listed(engine, limit=10, after=back.newer)
    assert ([row.number for row in first.rows], first.newer) == (every[:10], None)
    assert await listed(engine, views.Filters(service=["nowhere"])) == Listing([], None, None)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ({"open"}, {"open"}),
        ({"open", "acknowledged"}, {"open", "acknowledged"}),
        ({"resolved", "open"}, {"open", "resolved"}),
        (set(), {"open", "acknowledged", "resolved"}),
    ],
)
async def test_several_statuses_are_a_union(
    client: httpx.AsyncClient, engine: AsyncEngine, statuses: set[str], expected: set[str]
) -> None:
    await some_incidents(engine, 24, since=datetime(2024, 8, 20, tzinfo=UTC))
    filters = views.Filters(status=frozenset(map(IncidentStatus, statuses)))
    found = await listed(engine, filters)
    answer = await client.get("/api/v1/incidents", params={"status": sorted(statuses), "limit": 100})
    assert [f"INC-{row.number}" for row in found.rows] == [item["number"] for item in answer.json()["items"]]
    assert {row.status for row in found.rows} == expected
    async with db.session(engine) as session:
        assert await listing.count(session, filters) == len(found.rows)


async def test_failures_of_the_monitoring_are_listed_separately(engine: AsyncEngine) -> None:
    await some_incidents(engine, 24, since=datetime(2024, 8, 20, tzinfo=UTC))
    of_monitoring = {row.number for row in (await listed(engine, views.Filters(monitoring=True))).rows}
    of_services = {row.number for row in (await listed(engine, views.Filters(monitoring=False))).rows}
    assert (len(of_monitoring), len(of_services)) == (3, 21)
    assert of_monitoring == {row.number for row in (await listed(engine)).rows if row.monitoring}


async def opened(engine: AsyncEngine, *, limit: int = 20, now: datetime | None = None) -> OpenNow:
    async with db.session(engine) as session:
        return await listing.open_now(session, limit=limit, now=now or datetime.now(UTC), weights=WEIGHTS)


async def test_what_is_open_begins_with_what_nobody_has(engine: AsyncEngine) -> None:
    assert await opened(engine) == OpenNow([], 0, 0, [])
    await some_incidents(engine, 60, since=datetime(2024, 8, 20, tzinfo=UTC))
    now = datetime.now(UTC)
    is_open = frozenset({IncidentStatus.OPEN, IncidentStatus.ACKNOWLEDGED})
    every = (await listed(engine, views.Filters(status=is_open), now=now)).rows
    ordered = sorted(every, key=lambda row: (row.acknowledged_at is not None, row.severity, row.began_at))
    found = await opened(engine, now=now)
    assert found.rows == [row for row in ordered if not row.monitoring][:20]
    assert found.monitoring == [row for row in ordered if row.monitoring]
    counts = (found.not_acknowledged, found.acknowledged)
    assert counts == (
        sum(row.acknowledged_at is None and not row.monitoring for row in every),
        sum(row.acknowledged_at is not None and not row.monitoring for row in every),
    )
    few = await opened(engine, limit=2, now=now)
    assert (few.rows, few.monitoring) == (found.rows[:2], found.monitoring[:2])
    assert (few.not_acknowledged, few.acknowledged) == counts


async def test_the_number_of_statements_does_not_grow(engine: AsyncEngine) -> None:
    spent = []
    for number, services in ((6, 1), (150, 30)):
        async with db.transaction(engine) as tx:
            for table in ("incident", "service_rate", "service"):
                await tx.exec_driver_sql(f"DELETE FROM {table}")
        await some_incidents(engine, number, since=datetime(2024, 8, 20, tzinfo=UTC), services=services)
        with counted(engine) as listing_them:
            await listed(engine)
        with counted(engine) as opening:
            await opened(engine)
        spent.append((len(listing_them), len(opening)))
    assert spent == [(5, 5)] * 2
