"""Cost of responders' time: separate from every other cost."""

import csv
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from io import StringIO
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.schema import Incident, Service, Source
from app.base.values.severity import SEVERITIES, SeverityName
from app.base.values.times import Span
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.impact.labor import of_incident, priced, worked
from app.incidents.measures import measures
from app.incidents.measures.measures import Facts
from app.main import serving
from app.metrics.query import Filters, GroupBy, MetricsQuery
from app.metrics.summary.labor import NO_LABOR, NOT_ACKNOWLEDGED, Labor
from app.metrics.summary.store import read_labor
from app.settings import Labor as Pay
from app.settings import Settings
from tests.conftest import client_of
from tests.metrics.prometheus.test_exposition import an_incident, at, price, store

PERIOD = {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"}
TOTALS = {"format": "csv", "table": "totals"}
DAY = Span(at("00:00"), at("24:00"))
PAY = Pay.model_validate(
    {"currency": "EUR", "low": "60", "expected": "90", "high": "120.5", "responders": {"sev1": 4, "sev2": "1.5"}}
)


def facts(began: str, ended: str | None = None, acknowledged: str | None = None, **more: Any) -> Facts:
    return Facts(
        at(began),
        "checkout",
        more.pop("severity", 1),
        at(ended) if ended else None,
        acknowledged_at=at(acknowledged) if acknowledged else None,
        **more,
    )


# — one incident —


def test_work_is_from_the_acknowledgement_to_the_end() -> None:
    found = of_incident(facts("10:00", "12:00", "10:30"), PAY, now=at("20:00"))
    assert found == {"EUR": (4 * 60 * Fraction(3, 2), 4 * 90 * Fraction(3, 2), 4 * Fraction("120.5") * Fraction(3, 2))}


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (facts("10:00", None, "10:30"), Span(at("10:30"), at("20:00"))),
        (facts("10:00", "12:00"), None),
        (facts("10:00", "12:00", "12:00"), None),
        (facts("10:00", "12:00", "13:00"), None),  # acknowledged after its end
        (facts("10:00", "12:00", "10:30", merged=True), None),
        (facts("10:00", "12:00", "10:30", detected_at_stated=at("11:00")), Span(at("11:00"), at("12:00"))),
        (facts("10:00", "12:00", "10:30", detected_at_stated=at("12:30")), None),
    ],
)
def test_no_work_is_known_without_an_acknowledgement_while_it_ran(known: Facts, expected: Span | None) -> None:
    assert worked(known, now=at("20:00")) == expected
    assert bool(of_incident(known, PAY, now=at("20:00"))) == (expected is not None)


seconds = st.decimals(0, 10**8, places=6)
times = st.dictionaries(st.sampled_from(SEVERITIES), seconds, min_size=1)


@given(times, times)
def test_parts_sum_to_the_whole_exactly(one: dict[SeverityName, Decimal], other: dict[SeverityName, Decimal]) -> None:
    both = {name: one.get(name, Decimal(0)) + other.get(name, Decimal(0)) for name in one | other}
    assert priced(one, PAY)["EUR"].plus(priced(other, PAY)["EUR"]) == priced(both, PAY)["EUR"]


@given(times)
def test_no_float_is_on_the_way(each: dict[SeverityName, Decimal]) -> None:
    amount = priced(each, PAY)["EUR"]
    assert all(isinstance(part, Fraction) for part in amount)
    assert 0 <= amount.low <= amount.expected <= amount.high


@pytest.mark.parametrize(
    "wrong",
    [
        {"low": "91"},
        {"high": "-1"},
        {"currency": "eur"},
        {"responders": {"sev9": 1}},
        {"responders": {"sev1": -1}},
        {"low": "NaN"},
        {"hourly": 1},
    ],
)
def test_absurd_pay_stops_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"labor": PAY.model_dump() | wrong})


def test_the_acknowledging_responder_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERMATH_LABOR", '{"currency": "EUR", "low": 1, "expected": 2.5, "high": "3"}')
    pay = Settings().labor
    assert pay is not None
    assert (pay.expected, pay.responders) == (Decimal("2.5"), dict.fromkeys(SEVERITIES, Decimal(1)))


# — many incidents, in PostgreSQL —


def many(seed: int) -> list[dict[str, Any]]:
    """Two days of incidents of every kind, in and around the day."""
    random_ = random.Random(seed)

    def moment(after: datetime, hours: float) -> datetime:
        return after + timedelta(microseconds=random_.randrange(int(hours * 3600 * 10**6)))

    found = []
    for _ in range(120):
        began = moment(at("-12:00"), 40)
        ended = moment(began, 20) if random_.random() < 0.9 else None
        found.append(
            an_incident("00:00", "01:00" if ended else None)
            | {
                "began_at": began,
                "ended_at": ended,
                "service": random_.choice(["checkout", "search", "payments"]),
                "severity": random_.randint(1, 5),
                "severity_stated": random_.choice([None, None, 1, 2]),
                "service_stated": random_.choice([None, None, "search"]),
                "detected_at_stated": random_.choice([None, None, moment(began, 5)]),
                "acknowledged_at": random_.choice([None, moment(began, 10), moment(began, 10)]),
                "source_ids": random_.choice([[], [0], [0, 71], [71, 72]]),
            }
        )
    return found


@pytest.fixture
async def stored(engine: AsyncEngine) -> list[Facts]:
    incidents = many(20240820)
    await store(engine, *incidents)
    async with db.transaction(engine) as tx:
        for id_, name in ((71, "prod"), (72, "grafana")):
            values = {"id": id_, "name": name, "kind": "alertmanager", "created_at": DAY.start}
            await tx.execute(insert(Source.__table__).values(**values))
        await tx.execute(update(Service.__table__).where(Service.__table__.c.name == "search").values(owner="Finders"))
    return [Facts.of(Incident(**row)) for row in incidents]


NOW, AROUND = at("30:00"), Span(at("-24:00"), at("90:00"))


async def asked(engine: AsyncEngine, period: Span, group_by: GroupBy | None = None, **filters: Any) -> Any:
    """Of the whole, and of each group."""
    async with db.transaction(engine) as tx:
        query = MetricsQuery(period, Filters(**filters))
        whole = await read_labor(tx, query, [period], now=NOW, pay=PAY)
        by_group = replace(query, group_by=group_by)
        groups = await read_labor(tx, by_group, [period], now=NOW, pay=PAY) if group_by else {}
    return whole[None][0] if whole else NO_LABOR, {key: each for key, [each] in groups.items()}


def amount(found: Labor) -> tuple[Fraction, ...]:
    return tuple(found.cost.get("EUR", (Fraction(0),) * 3))


def summed(every: list[tuple[Fraction, ...]]) -> tuple[Fraction, ...]:
    return tuple(map(sum, zip(*every, strict=True)))  # type: ignore[arg-type]


async def test_the_whole_is_the_sum_of_its_incidents(engine: AsyncEngine, stored: list[Facts]) -> None:
    found, _ = await asked(engine, AROUND)
    each = [cost["EUR"] for one in stored if (cost := of_incident(one, PAY, now=NOW))]
    assert amount(found) == summed([tuple(cost) for cost in each])
    assert found.n == len(each)
    assert found.left_out == {NOT_ACKNOWLEDGED: len(stored) - len(each)}
    assert min(found.n, len(stored) - found.n) > 20


async def test_periods_sum_to_the_whole_wherever_they_are_cut(engine: AsyncEngine, stored: list[Facts]) -> None:
    borders = [at("-24:00"), at("01:00"), at("01:00") + timedelta(microseconds=1), at("13:30"), at("90:00")]
    parts = [(await asked(engine, Span(*pair)))[0] for pair in pairwise(borders)]
    whole, _ = await asked(engine, Span(borders[0], borders[-1]))
    assert summed([amount(part) for part in parts]) == amount(whole)
    assert sum(part.left_out.get(NOT_ACKNOWLEDGED, 0) for part in parts) == whole.left_out[NOT_ACKNOWLEDGED]
    assert all(amount(part)[1] for part in parts if part.n)


@pytest.mark.parametrize("group_by", [each for each in GroupBy if each is not GroupBy.SOURCE])
async def test_each_labor_group_equals_the_result_of_its_filter(
    engine: AsyncEngine, stored: list[Facts], group_by: GroupBy
) -> None:
    def key(of: Facts) -> str | int:
        detected = measures.detected_at(of)
        keys: dict[GroupBy, str | int] = {
            GroupBy.SERVICE: measures.service(of),
            GroupBy.SEVERITY: measures.severity(of),
            GroupBy.OWNER: "Finders" if measures.service(of) == "search" else "",
            GroupBy.ENVIRONMENT: "unknown",
            GroupBy.HOUR_OF_WEEK: detected.weekday() * 24 + detected.hour,
        }
        return keys[group_by]

    _, groups = await asked(engine, AROUND, group_by)
    assert set(groups) == {key(each) for each in stored}
    for name, group in groups.items():
        own = [of_incident(each, PAY, now=NOW) for each in stored if key(each) == name]
        assert amount(group) == summed([(Fraction(0),) * 3, *(tuple(cost["EUR"]) for cost in own if cost)])
        assert group.n + group.left_out.get(NOT_ACKNOWLEDGED, 0) == len(own)
    _, groups = await asked(engine, DAY, group_by)
    for name in list(groups)[:4]:
        of_one: Any = {group_by.value: [name]}
        assert (await asked(engine, DAY, **of_one))[0] == groups[name]


async def test_an_incident_reported_by_two_sources_is_in_both_groups(engine: AsyncEngine, stored: list[Facts]) -> None:
    _, groups = await asked(engine, DAY, GroupBy.SOURCE)
    assert set(groups) == {"prod", "grafana"}
    assert groups["prod"].n > groups["grafana"].n > 0
    for key, group in groups.items():
        assert (await asked(engine, DAY, source=[key]))[0] == group


async def test_an_incident_over_before_the_period_of_its_detection_is_left_out(engine: AsyncEngine) -> None:
    await store(engine, an_incident("-3:00", "-2:00", acknowledged_at=at("-2:30"), detected_at_stated=at("01:00")))
    found, _ = await asked(engine, DAY)
    assert (found.n, found.left_out) == (0, {NOT_ACKNOWLEDGED: 1})


@pytest.mark.parametrize("group_by", [None, *GroupBy])
async def test_each_bucket_equals_the_result_for_its_period_alone(
    engine: AsyncEngine, stored: list[Facts], group_by: GroupBy | None
) -> None:
    borders = [
        at("-24:00"),
        at("00:00"),
        at("01:00"),
        at("01:00") + timedelta(microseconds=1),
        at("13:30"),
        at("90:00"),
    ]
    periods = [Span(*pair) for pair in pairwise(borders)]
    async with db.transaction(engine) as tx:
        found = await read_labor(tx, MetricsQuery(AROUND, group_by=group_by), periods, now=NOW, pay=PAY)
    assert sum(each.n > 1 for row in found.values() for each in row) > 3
    for place, period in enumerate(periods):
        whole, groups = await asked(engine, period, group_by)
        alone = groups if group_by else {None: whole}
        assert {key: row[place] for key, row in found.items() if row[place] != NO_LABOR} == alone


async def test_work_that_ends_at_a_border_is_none_behind_it(engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "12:00", acknowledged_at=at("11:00")))
    periods = [Span(at(start), at(end)) for start, end in pairwise(("09:00", "11:00", "12:00", "13:00"))]
    async with db.transaction(engine) as tx:
        found = await read_labor(tx, MetricsQuery(Span(at("09:00"), at("13:00"))), periods, now=NOW, pay=PAY)
    assert [each.n for each in found[None]] == [0, 1, 0]
    assert [amount(each)[0] for each in found[None]] == [0, 240, 0]


async def test_a_merged_incident_has_left_this_number_too(engine: AsyncEngine) -> None:
    [winner] = await store(engine, an_incident("10:00", "12:00", acknowledged_at=at("11:00")))
    for acknowledged_at in (None, at("11:00")):
        await store(engine, an_incident("10:00", "12:00", acknowledged_at=acknowledged_at, merged_into=winner))
    found, _ = await asked(engine, DAY)
    assert (found.n, found.left_out) == (1, {})


async def test_declared_incidents_have_no_source(engine: AsyncEngine, stored: list[Facts]) -> None:
    async with db.transaction(engine) as tx:
        name = (
            await tx.execute(select(Source.__table__.c.name).where(Source.__table__.c.id == MANUAL_SOURCE_ID))
        ).scalar_one()
    assert (await asked(engine, DAY, source=name))[0] == NO_LABOR


async def test_without_periods_there_is_no_labor(engine: AsyncEngine, stored: list[Facts]) -> None:
    async with db.transaction(engine) as tx:
        assert await read_labor(tx, MetricsQuery(Span(DAY.start, DAY.start)), [], now=NOW, pay=PAY) == {}


# — over HTTP —


@pytest.fixture
async def paying(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same database, with a setting for the cost of an hour."""
    paid = settings.model_copy(update={"labor": PAY})
    async with serving(paid) as context, client_of(context) as client:
        yield client


async def a_day(engine: AsyncEngine) -> None:
    await store(
        engine,
        an_incident("10:00", "12:00", acknowledged_at=at("10:30")),
        an_incident("11:00", "13:00", acknowledged_at=at("11:00"), severity=2),
        an_incident("14:00", "15:00"),
        an_incident("22:00", "26:00", service="search", acknowledged_at=at("23:00")),
    )
    await price(engine, "60")


async def test_labor_stands_beside_the_cost(paying: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    answer = (await paying.get("/api/v1/metrics/summary", params=PERIOD | {"group_by": "service"})).json()
    found = [each["labor"] for each in (answer["total"], *answer["groups"])]
    # 1.5 h of 4, 2 h of 1.5, and of search, cut at the end of the day, 1 h of 4
    assert [each["amounts"]["EUR"]["expected"] for each in found] == ["1170.00", "810.00", "360.00"]
    assert [(each["n"], each["left_out"]) for each in found] == [
        (3, {NOT_ACKNOWLEDGED: 1}),
        (2, {NOT_ACKNOWLEDGED: 1}),
        (1, {}),
    ]
    shown = {each["detected_at"]: each["labor"] for each in (await paying.get("/api/v1/incidents")).json()["items"]}
    assert shown["2024-08-20T10:00:00Z"] == {"EUR": {"low": "360.00", "expected": "540.00", "high": "723.00"}}
    assert shown["2024-08-20T14:00:00Z"] is None


async def test_each_day_has_its_labor(paying: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    days = {"from": "2024-08-19T00:00:00Z", "to": "2024-08-22T00:00:00Z"}
    answer = (await paying.get("/api/v1/metrics/timeseries", params=days)).json()
    assert answer["definitions"]["labor"] == "labor"
    [points] = [series["points"] for series in answer["series"]]
    assert [each["labor"]["n"] for each in points] == [0, 3, 1]
    assert [each["labor"]["amounts"] and each["labor"]["amounts"]["EUR"]["expected"] for each in points] == [
        None,
        "1170.00",
        "720.00",
    ]
    assert [each["labor"]["left_out"] for each in points] == [{}, {NOT_ACKNOWLEDGED: 1}, {}]
    grouped = (await paying.get("/api/v1/metrics/timeseries", params=days | {"group_by": "service"})).json()["series"]
    assert [(each["group"], [point["labor"]["n"] for point in each["points"]]) for each in grouped] == [
        ("checkout", [0, 2, 0]),
        ("search", [0, 1, 1]),
    ]
    nothing = (await paying.get("/api/v1/metrics/timeseries", params=days | {"to": days["from"]})).json()
    assert nothing["series"][0]["points"] == []
    sheet = await paying.get("/api/v1/metrics/timeseries", params=days | TOTALS)
    lines = list(csv.DictReader(StringIO(sheet.text)))
    assert [line["labor_eur_expected"] for line in lines] == ["", "1170.00", "720.00"]


async def test_every_other_number_is_as_it_was(
    paying: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_day(engine)
    for path in (*(f"/api/v1/metrics/{route}" for route in ("summary", "timeseries", "downtime")), "/api/v1/incidents"):
        with_, without = [(await one.get(path, params=PERIOD)).json() for one in (paying, client)]
        assert ("labor" in str(with_)) == (path != "/api/v1/metrics/downtime")
        assert less_labor(with_) == less_labor(without)
    summary = (await client.get("/api/v1/metrics/summary", params=PERIOD)).json()
    assert summary["total"]["labor"] is None


def less_labor(answer: Any) -> Any:
    match answer:
        case dict():
            return {name: less_labor(part) for name, part in answer.items() if name != "labor"}
        case list():
            return [less_labor(part) for part in answer]
    return answer


async def test_sheets_have_the_line_too(
    paying: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_day(engine)
    [line] = csv.DictReader(StringIO((await paying.get("/api/v1/metrics/summary", params=PERIOD | TOTALS)).text))
    assert [line[f"labor_{name}"] for name in ("eur_low", "eur_expected", "eur_high", "n")] == [
        "780.00",
        "1170.00",
        "1566.50",
        "3",
    ]
    cells = list(csv.DictReader(StringIO((await paying.get("/api/v1/incidents?format=csv")).text)))
    assert sorted(row["labor_eur_expected"] for row in cells) == ["", "1080.00", "270.00", "540.00"]
    assert "labor" not in (await client.get("/api/v1/incidents?format=csv")).text


async def test_a_group_without_any_work_has_no_labor_which_is_not_0(
    paying: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await store(engine, an_incident("14:00", "15:00"))
    [group] = (await paying.get("/api/v1/metrics/summary", params=PERIOD | {"group_by": "service"})).json()["groups"]
    assert (group["labor"]["amounts"], group["labor"]["n"]) == (None, 0)
    assert group["labor"]["left_out"] == {NOT_ACKNOWLEDGED: 1}
