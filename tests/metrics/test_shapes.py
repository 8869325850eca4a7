"""The shape of numbers over HTTP: short, rounded, each with the name of its definition, and with repeated filters."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.schema import Service, Source
from app.incidents.definitions import DEFINED
from tests.metrics.prometheus.test_exposition import DAY, an_incident, at, price, store

METRICS = "/api/v1/metrics"
MONTH = {"from": "2024-08-20T00:00:00Z", "to": "2024-09-19T00:00:00Z"}
# Bytes of the timeseries below when each number had its formula, its links and all its fields.
BEFORE = {"day": 543_998, "week": 103_063, "month": 44_576}


async def asked(client: httpx.AsyncClient, route: str, **parameters: object) -> Any:
    answer = await client.get(f"{METRICS}/{route}", params=MONTH | parameters)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return answer.json()


async def a_month(engine: AsyncEngine) -> None:
    """Seventy incidents of eight services, most of them alone on their day."""
    began = [at("00:00") + timedelta(hours=10 * n, milliseconds=7 * n) for n in range(70)]
    await store(
        engine,
        *(
            an_incident(
                "00:00",
                "01:00",
                began_at=each,
                ended_at=each + timedelta(minutes=20 + 7 * n % 100, microseconds=123_456),
                acknowledged_at=each + timedelta(minutes=n % 9, microseconds=n) if n % 4 else None,
                service=f"service-{n % 8}",
                severity=1 + n % 3,
                environment=("production", "staging", None)[n % 3],
                source_ids=[1 + n % 3],
            )
            for n, each in enumerate(began)
        ),
    )
    async with db.transaction(engine) as tx:
        sources = [{"id": n, "name": f"prod-{n}", "kind": "alertmanager", "created_at": DAY} for n in (1, 2, 3)]
        await tx.execute(insert(Source.__table__), sources)
        for n in range(8):
            named = Service.__table__.c.name == f"service-{n}"
            await tx.execute(update(Service.__table__).where(named).values(owner=f"Team {n % 3}"))
    for n in range(8):
        await price(engine, "60", f"service-{n}")


@pytest.mark.parametrize(("interval", "points"), [("day", 30), ("week", 5), ("month", 2)])
async def test_a_timeseries_by_service_has_at_most_a_fifth_of_its_former_size(
    client: httpx.AsyncClient, engine: AsyncEngine, interval: str, points: int
) -> None:
    await a_month(engine)
    asked = MONTH | {"group_by": "service", "interval": interval}
    answer = await client.get(f"{METRICS}/timeseries", params=asked)
    series = answer.json()["series"]
    assert [each["group"] for each in series] == [f"service-{n}" for n in range(8)]
    assert len(answer.json()["periods"]) == points
    assert {len(each["points"]) for each in series} == {points}
    assert sum(point["incidents"] for each in series for point in each["points"]) == 70
    assert len(answer.content) <= BEFORE[interval] / 5


async def test_the_groups_of_a_timeseries_are_named_as_their_filter(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_month(engine)
    for name in ("severity", "environment", "source", "owner", "hour_of_week"):
        found = await asked(client, "timeseries", interval="month", group_by=name)
        assert found["series"]
        for series in found["series"]:
            alone = await asked(client, "timeseries", interval="month", **{name: series["group"]})
            assert (alone["filters"][name], alone["series"][0]["group"]) == ([series["group"]], None)
            counts = [[point["incidents"] for point in each["points"]] for each in (series, alone["series"][0])]
            assert counts[0] == counts[1]
            assert sum(counts[0]) > 0


async def test_the_summary_of_one_incident_has_at_most_3_kb(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00", acknowledged_at=at("10:10")))
    await price(engine, "60")
    answer = await client.get(f"{METRICS}/summary", params=MONTH | {"service": "checkout"})
    assert answer.json()["total"]["incidents"]["value"] == 1
    assert len(answer.content) <= 3000
    assert len((await client.get(f"{METRICS}/summary")).content) <= 3000


async def test_a_bucket_without_incidents_is_short_and_still_shows_what_is_unknown(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await store(engine, an_incident("10:00", "11:00"), an_incident("24:00", "48:00", service="search"))
    day = {"to": "2024-08-22T00:00:00Z"}
    found = await asked(client, "timeseries", service="checkout", **day)
    [one, empty] = found["series"][0]["points"]
    assert found["periods"] == [
        {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"},
        {"from": "2024-08-21T00:00:00Z", "to": "2024-08-22T00:00:00Z"},
    ]
    assert empty == {
        "incidents": 0,
        "open": 0,
        "measures": {},
        "downtime": {"seconds": 0.0},
        "cost": {"amounts": None},
    }
    assert one["cost"] == {"amounts": None, "services_without_rate": ["checkout"]}
    assert one["measures"]["time_to_acknowledge"] == {"n": 0, "values": [], "censored": 1}
    assert one["measures"]["time_to_recover"] == {"n": 1, "values": [3600.0]}


ROUTES: dict[str, dict[str, object]] = {
    "summary": {"group_by": "service"},
    "timeseries": {"interval": "month"},
    "downtime": {},
    "availability": {},
    "whatif": {"time_to_recover": "-33%"},
    "dora": {},
    "action-items": {},
    "targets": {},
    "tasks": {},
    "compare": {
        "from": None,
        "to": None,
        "measure": "time_to_recover",
        "a_from": "2024-08-20T00:00:00Z",
        "a_to": "2024-09-04T00:00:00Z",
        "b_from": "2024-09-04T00:00:00Z",
        "b_to": "2024-09-19T00:00:00Z",
    },
}


@pytest.mark.parametrize("route", ROUTES)
async def test_durations_have_milliseconds_and_other_numbers_nine_digits(
    client: httpx.AsyncClient, engine: AsyncEngine, route: str
) -> None:
    await a_month(engine)
    parameters = {name: value for name, value in (MONTH | ROUTES[route]).items() if value is not None}
    answer = await client.get(f"{METRICS}/{route}", params=parameters)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    numbers = list(numbers_in(answer.json()))
    assert [found for found in numbers if found[1] != float(f"{found[1]:.9g}") and found[1] != round(found[1], 3)] == []
    seconds = [found for found in numbers if found[0].endswith("seconds") or found[0] in IN_SECONDS]
    assert [found for found in seconds if found[1] != round(found[1], 3)] == []
    assert route not in {"summary", "timeseries", "downtime", "whatif", "dora", "compare", "availability"} or any(
        value % 1 for _, value in seconds
    )


IN_SECONDS = {"median", "p90", "p95", "mean", "geometric_mean", "values"}


def numbers_in(answer: Any, name: str = "") -> Iterator[tuple[str, float]]:
    match answer:
        case dict():
            for key, value in answer.items():
                yield from numbers_in(value, key)
        case list():
            for value in answer:
                yield from numbers_in(value, name)
        case float():
            yield name, answer


async def test_definitions_are_returned_by_name(client: httpx.AsyncClient) -> None:
    names = {"name": ["time_to_recover", "downtime"]}
    found = (await client.get(f"{METRICS}/definitions", params=names)).json()
    assert {each["name"]: each["formula"] for each in found["definitions"]} == {
        name: DEFINED[name].formula for name in names["name"]
    }
    assert {each["shows"] for each in found["families"]} == {*names["name"]}
    unknown = await client.get(f"{METRICS}/definitions", params={"name": "time_to_guess"})
    assert (unknown.status_code, "'time_to_guess'" in unknown.json()["detail"]) == (422, True)


# — repeated filters —


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("service", ["service-1", "service-4"]),
        ("severity", ["sev1", "sev3"]),
        ("environment", ["stg", "unknown"]),
        ("source", ["prod-1", "prod-3"]),
        ("owner", ["Team 0", "Team 2"]),
        ("hour_of_week", ["24", "34"]),
    ],
)
async def test_values_of_one_filter_are_alternatives_for_every_number(
    client: httpx.AsyncClient, engine: AsyncEngine, name: str, values: list[str]
) -> None:
    await a_month(engine)
    both = (await asked(client, "summary", **{name: values}))["total"]
    one, other = [(await asked(client, "summary", **{name: value}))["total"] for value in values]
    count = both["incidents"]["value"]
    assert 0 < one["incidents"]["value"] < count == one["incidents"]["value"] + other["incidents"]["value"] < 70
    assert both["filters"][name] == one["filters"][name] + other["filters"][name]
    listed = [(await client.get(link)).json()["items"] for link in both["incidents"]["links"]]
    assert sum(map(len, listed)) == count
    [series] = (await asked(client, "timeseries", interval="month", **{name: values}))["series"]
    assert sum(point["incidents"] for point in series["points"]) == count
    assert (await asked(client, "downtime", **{name: values}))["downtime"]["seconds"] == both["downtime"]["seconds"]
    sides = {each: value for each, value in ROUTES["compare"].items() if value is not None}
    compared = (await client.get(f"{METRICS}/compare", params=sides | {name: values})).json()  # type: ignore[arg-type]
    assert sum(compared["incidents"][side]["value"] for side in "ab") == count
    assert compared["filters"] == both["filters"]


async def test_the_other_metrics_take_several_services_and_severities_too(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_month(engine)
    services, severities = ["service-1", "service-4"], ["sev1", "sev3"]
    of_both = await asked(client, "summary", service=services)
    count = of_both["total"]["incidents"]["value"]
    whatif = await asked(client, "whatif", service=services, time_to_recover="-50%")
    assert (whatif["incidents"], [each["service"] for each in whatif["services"]]) == (count, services)
    changed = await asked(client, "whatif", severity=severities, time_to_recover="-50%")
    some = await asked(client, "summary", severity=severities)
    assert changed["applied"] == {"time_to_recover": some["total"]["incidents"]["value"]}
    dora = await asked(client, "dora", service=services, environment=["prod", "staging"])
    assert dora["unlinked"]["n"] == count
    assert dora["filters"] | {"service": services, "environment": ["production", "staging"]} == dora["filters"]
    for link in (*dora["unlinked"]["links"], *dora["change_fail_rate"]["links"]):
        assert (await client.get(link)).status_code == 200
    assert "one service" in dora["cost"]["why_none"]
    targets = await asked(client, "targets", service=services, severity=severities)
    narrowed = await asked(client, "summary", service=services, severity=severities)
    judged = sum(value for value in targets["total"]["resolve"].values() if isinstance(value, int))
    assert judged == narrowed["total"]["incidents"]["value"] < count
    assert targets["filters"] == {"service": services, "severity": severities}
    items = await asked(client, "action-items", service=services)
    assert items["filters"] == {"service": services}


@pytest.mark.parametrize("route", ["summary", "timeseries", "downtime", "dora", "whatif", "action-items", "targets"])
async def test_a_filter_takes_at_most_fifty_values(client: httpx.AsyncClient, route: str) -> None:
    many = {"service": [f"service-{n}" for n in range(51)]}
    assert (await client.get(f"{METRICS}/{route}", params=many)).status_code == 422
