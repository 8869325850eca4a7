"""What-if scenarios."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.base.schema import Maintenance
from app.base.values.times import Span
from app.incidents.grouping.signal import AlertClass
from app.incidents.impact import intervals as downtime
from app.incidents.impact.columns import ImpactColumns, StretchColumns, impact_columns
from app.incidents.impact.rates import THE_BEGINNING, Rate
from app.incidents.measures.measures import Facts
from app.incidents.measures.vectorized import Columns, moment
from app.metrics.whatif import scenario as whatif
from app.metrics.whatif.scenario import (
    Adjustment,
    Adjustments,
    BeforeAndAfter,
    InvalidChange,
    WhatIf,
    change,
    move,
    shown,
)
from tests.conftest import ClientAs
from tests.incidents.impact.test_stretches import whole
from tests.metrics.prometheus.test_exposition import DAY, WEIGHTS, an_incident, at, price, store

PERIOD = Span(DAY, DAY + timedelta(days=1))
NOW = DAY + timedelta(days=2)
RATES = [
    Rate("a", THE_BEGINNING, "EUR", Decimal(30), Decimal(60), Decimal(120)),
    Rate("a", at("12:00"), "EUR", Decimal("0.1"), Decimal(7), Decimal(7)),
    Rate("b", at("06:00"), "USD", Decimal(1), Decimal(2), Decimal(3)),
    Rate("b", at("06:00"), "EUR", Decimal(1), Decimal(2), Decimal(3)),
]


def facts_of(**facts: Any) -> Facts:
    """Impact 10:00-11:00, detected 10:20, acknowledged 10:30."""
    known: dict[str, Any] = {"began_at": at("10:20"), "service": "a", "severity": 1, "ended_at": at("11:00")}
    stated = {"impact_started_at": at("10:00"), "acknowledged_at": at("10:30")}
    return Facts(**{**known, **stated, **facts})


def ends_at(facts: Facts, **changes: str) -> datetime:
    each: dict[str, Any] = {name: change(text) for name, text in changes.items()}
    asked = Adjustments(**each)
    [end] = move(*of([facts]), asked, PERIOD, now=NOW).would_end
    return moment(int(end))


def of(every: Iterable[Facts]) -> tuple[Columns, ImpactColumns]:
    known = list(every)
    columns = Columns.of(range(len(known)), known)
    return columns, impact_columns(columns, StretchColumns.of(map(whole, known)), now=NOW, weights=WEIGHTS)


def what_if(
    every: Iterable[Facts], asked: Adjustments, planned: Mapping[str, Sequence[Span]], within: Span = PERIOD
) -> WhatIf:
    return whatif.what_if(move(*of(every), asked, within, now=NOW), asked, RATES, planned, within)


def affected_span(every: Iterable[Facts], asked: Adjustments, within: Span = PERIOD) -> Span:
    return whatif.affected_span(move(*of(every), asked, within, now=NOW), within)


# — moved impact —


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, "11:00"),
        ({"time_to_recover": "-20%"}, "10:48"),
        ({"time_to_recover": "+50%"}, "11:30"),
        ({"time_to_recover": "-100%"}, "10:00"),
        ({"time_to_recover": "-5m"}, "10:55"),
        ({"time_to_recover": "-2h"}, "10:00"),
        ({"time_to_detect": "-50%"}, "10:50"),
        ({"time_to_detect": "-100%"}, "10:40"),
        ({"time_to_detect": "+5m"}, "11:05"),
        ({"time_to_acknowledge": "-50%"}, "10:55"),
        ({"time_to_acknowledge": "-1h"}, "10:50"),  # at most the actual duration
        ({"time_to_detect": "-50%", "time_to_acknowledge": "-50%", "time_to_recover": "-40%"}, "10:27"),
    ],
)
def test_the_values_that_a_change_affects(changes: Mapping[str, str], end: str) -> None:
    assert ends_at(facts_of(), **changes) == at(end)


def test_the_values_that_a_change_does_not_affect() -> None:
    everything = dict.fromkeys(("time_to_detect", "time_to_acknowledge"), "-100%")
    alone = facts_of(impact_started_at=None, acknowledged_at=None)
    assert ends_at(alone, **everything) == at("11:00")
    assert ends_at(facts_of(ended_at=None), **everything, time_to_recover="-50%") == NOW
    seen_late = facts_of(detected_at_stated=at("11:30"), acknowledged_at=at("11:40"))
    assert ends_at(seen_late, **everything) == at("11:00")
    contradicting = facts_of(impact_started_at=at("10:30"), acknowledged_at=at("10:10"))
    assert ends_at(contradicting, **everything) == at("11:00")


def test_incidents_without_impact_are_not_counted() -> None:
    """WEIGHTS give sev5 an impact of 0; monitoring failures have none, with any severity."""
    every = [facts_of(), facts_of(severity=5), facts_of(alert_class=AlertClass.MONITORING), facts_of(ended_at=None)]
    asked = Adjustments(time_to_recover=change("-20%"), incidents=change("-20%"))
    found = what_if(every, asked, {})
    assert (found.incidents, found.applied) == (2, {"time_to_recover": 1, "incidents": 2})


# — parameters —


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-20%", Adjustment(Fraction(4, 5))),
        ("+12.5%", Adjustment(Fraction(9, 8))),
        (" 10%", Adjustment(Fraction(11, 10))),  # a plus sign in a URL is a space
        ("0%", Adjustment()),
        ("-5m", Adjustment(more=timedelta(minutes=-5))),
        ("90s", Adjustment(more=timedelta(seconds=90))),
        ("-1.5h", Adjustment(more=timedelta(minutes=-90))),
    ],
)
def test_changes_are_read_exactly(text: str, expected: Adjustment) -> None:
    assert change(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "20", "-101%", "1001%", "--5%", "-5d", "9999h", "1e3%", "nan%", "-5 %", "-20%%", "٣%", "1" * 400 + "%", "%"],
)
def test_other_changes_are_rejected(text: str) -> None:
    with pytest.raises(InvalidChange):
        change(text)


def test_a_number_of_incidents_changes_in_percent_only() -> None:
    assert change("-10%", absolute=False) == Adjustment(Fraction(9, 10))
    with pytest.raises(InvalidChange):
        change("-5m", absolute=False)


@given(st.integers(0, 10**17), st.integers(-100_000_000, 1_000_000_000), st.integers(-400, 400))
def test_many_change_as_one_does(lasted: int, millionths: int, days: int) -> None:
    asked = Adjustment(1 + Fraction(millionths, 100_000_000), timedelta(days=days))
    lasted = min(lasted, 10**15)
    [many] = whatif._changed(np.array([lasted]), asked)
    assert timedelta(microseconds=int(many)) == asked.of(timedelta(microseconds=lasted))


# — properties —

moments = st.integers(-600, 2000).map(lambda minutes: DAY + timedelta(minutes=minutes))
percents = st.integers(-100, 300).map(lambda percent: Adjustment(Fraction(100 + percent, 100)))
durations = st.integers(-300, 300).map(lambda minutes: Adjustment(more=timedelta(minutes=minutes)))
changes = st.builds(
    Adjustments,
    *[st.none() | percents | durations for _ in range(3)],
    incidents=st.none() | percents,
    severity=st.lists(st.integers(1, 4), max_size=2),
)
NAMES = ("time_to_detect", "time_to_acknowledge", "time_to_recover", "incidents")


@st.composite
def an_incident_known(draw: st.DrawFn) -> Facts:
    began, lasted = draw(moments), draw(st.none() | st.integers(0, 900))
    return Facts(
        began,
        draw(st.sampled_from("abc")),
        draw(st.integers(1, 4)),
        None if lasted is None else began + timedelta(minutes=lasted),
        impact_started_at=draw(st.none() | moments),
        acknowledged_at=draw(st.none() | moments),
    )


incidents = st.lists(an_incident_known(), max_size=6)
planned = st.dictionaries(
    st.sampled_from("ab"), st.tuples(moments, moments).map(lambda two: [Span(*sorted(two))]), max_size=2
)


@given(incidents, planned)
def test_without_changes_the_result_is_the_same(known: list[Facts], planned: dict[str, list[Span]]) -> None:
    none = Adjustment()
    for asked in (
        Adjustments(none, none, none, none),
        Adjustments(none, none, none, none, severity=[1]),
        Adjustments(),
    ):
        found = what_if(known, asked, planned)
        assert found.whole.after == found.whole.before
        assert found.whole.downtime_after == found.whole.downtime_before
        assert all(each.after == each.before for each in found.services.values())
        assert all(not any(amount) for amount in found.whole.difference.values())


@given(incidents, planned, changes, st.sampled_from(NAMES), st.integers(0, 100), st.integers(0, 60))
def test_a_longer_time_never_costs_less(
    known: list[Facts],
    planned: dict[str, list[Span]],
    asked: Adjustments,
    name: str,
    percent: int,
    minutes: int,
) -> None:
    before: Adjustment = getattr(asked, name) or Adjustment()
    longer = Adjustment(before.factor + Fraction(percent, 100), before.more + timedelta(minutes=minutes))
    if name == "incidents":
        longer = replace(longer, more=timedelta())
    less, more = (
        what_if(known, replace(asked, **dict[str, Any]({name: each})), planned).whole for each in (before, longer)
    )
    assert less.downtime_after <= more.downtime_after
    for currency, amount in less.after.items():
        assert all(a <= b for a, b in zip(amount, more.after[currency], strict=True))


@given(incidents, planned, changes)
def test_services_add_up(known: list[Facts], planned: dict[str, list[Span]], asked: Adjustments) -> None:
    whole = what_if(known, asked, planned)
    parts = {service: what_if([each for each in known if each.service == service], asked, planned) for service in "abc"}
    assert whole.services == {service: part.services[service] for service, part in parts.items() if part.services}
    assert whole.incidents == sum(part.incidents for part in parts.values())
    for outcome in ("before", "after", "difference"):
        assert getattr(whole.whole, outcome) == downtime.total(getattr(part.whole, outcome) for part in parts.values())
    assert whole.whole.downtime_after == sum((each.whole.downtime_after for each in parts.values()), timedelta())


@given(incidents, changes)
def test_all_impact_lies_within_reach(known: list[Facts], asked: Adjustments) -> None:
    whole = affected_span(known, asked)
    in_period, in_reach = (what_if(known, asked, {}, within).whole for within in (PERIOD, whole))
    assert in_period.downtime_before == in_reach.downtime_before
    assert in_period.downtime_after == in_reach.downtime_after
    assert PERIOD.start <= whole.start <= whole.end <= PERIOD.end


def test_a_chain_of_extreme_changes_stays_in_the_calendar() -> None:
    most = change("1000%")
    facts = facts_of(
        impact_started_at=datetime(1971, 1, 2, tzinfo=UTC),
        began_at=datetime(2100, 1, 1, tzinfo=UTC),
        acknowledged_at=datetime(2150, 1, 1, tzinfo=UTC),
        ended_at=datetime(2199, 1, 1, tzinfo=UTC),
    )
    found = what_if([facts], Adjustments(most, most, most, most), {})
    assert found.whole.downtime_after == timedelta(days=11)  # the whole day, eleven times


def test_incidents_that_ended_before_the_period_stay_out_of_it() -> None:
    facts = facts_of(ended_at=at("10:40"))
    late = Span(at("10:50"), at("12:00"))
    assert what_if([facts], Adjustments(time_to_recover=change("+100%")), {}, late).whole.downtime_after == timedelta()
    assert affected_span([facts], Adjustments(time_to_recover=change("+100%")), late) == Span(at("10:50"), at("10:50"))


def test_a_longer_incident_reaches_further() -> None:
    facts = facts_of()
    assert affected_span([facts], Adjustments()) == Span(at("10:00"), at("11:00"))
    assert affected_span([facts], Adjustments(time_to_recover=change("+100%"))) == Span(at("10:00"), at("12:00"))
    assert affected_span([facts], Adjustments(time_to_recover=change("-50%"))) == Span(at("10:00"), at("11:00"))


def test_differences_are_rounded_by_their_size() -> None:
    third = Fraction(1, 3)
    outcome = BeforeAndAfter(
        {"EUR": downtime.Amount(third, third, third)},
        {"EUR": downtime.Amount(Fraction(0), third, 10**30 * third)},
        timedelta(),
        timedelta(),
    )
    [amount] = shown(outcome.difference).values()
    assert [str(each) for each in amount[:2]] == ["-0.33", "0.00"]
    assert str(amount.high) == "3" * 30 + ".00"


# — over HTTP —

DAY_ASKED = {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"}


async def asked(client: httpx.AsyncClient, **parameters: str) -> dict[str, Any]:
    answer = await client.get("/api/v1/metrics/whatif", params={**DAY_ASKED, **parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def a_day(engine: AsyncEngine) -> None:
    await store(
        engine,
        an_incident("10:00", "12:00", acknowledged_at=at("10:30")),
        an_incident("11:00", "12:00", severity=2),
        an_incident("10:00", "11:00", service="search"),
        an_incident("23:00", "24:30"),
    )
    await price(engine, "60")


async def test_a_day_with_changes_is_priced(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    answer = await asked(client, time_to_recover="-50%")
    # 10-12 and 23-24 at 60; 10-11, 11-11:30 at half, and 23-23:45
    assert answer["total"]["before"]["EUR"]["expected"] == "180.00"
    assert answer["total"]["after"] == {"EUR": {"low": "60.00", "expected": "120.00", "high": "240.00"}}
    assert answer["total"]["difference"] == {"EUR": {"low": "-30.00", "expected": "-60.00", "high": "-120.00"}}
    assert [(each["service"], each["downtime_after_seconds"]) for each in answer["services"]] == [
        ("checkout", 5400 + 2700),
        ("search", 1800),
    ]
    assert (answer["services"][1]["before"], answer["services"][1]["difference"]) == (None, None)
    assert (answer["incidents"], answer["applied"]) == (4, {"time_to_recover": 4})
    assert answer["changes"] == {"time_to_recover": "-50%"}
    assert answer["assumptions"]
    assert answer["definition"] == "whatif"


async def test_before_equals_the_summary(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    summary = (await client.get("/api/v1/metrics/summary", params=DAY_ASKED)).json()["total"]
    answer = await asked(client, time_to_recover="+0%")
    assert answer["total"]["before"] == answer["total"]["after"] == summary["cost"]["amounts"]
    assert answer["total"]["downtime_before_seconds"] == summary["downtime"]["seconds"]


async def test_planned_maintenance_costs_nothing_before_and_after(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_day(engine)
    window = {"name": "upgrade", "services": ["checkout"], "begins_at": at("11:30"), "ends_at": at("13:00")}
    async with db.transaction(engine) as tx:
        await tx.execute(insert(Maintenance.__table__).values(**window, reason="", created_at=DAY, updated_at=DAY))
    answer = await asked(client, service="checkout", time_to_recover="+100%")
    # 10-11:30 and 23-24; then 10-14 without 11:30-13 too
    assert answer["total"]["before"]["EUR"]["expected"] == "150.00"
    assert answer["total"]["after"]["EUR"]["expected"] == "210.00"


async def test_one_service_and_fewer_incidents(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    answer = await asked(client, service="checkout", incidents="-10%", time_to_acknowledge="-10m")
    # 10-11:50 and 23-24 at 60, and the second still half from 11:50
    assert answer["total"]["after"]["EUR"]["expected"] == "157.50"
    assert [each["service"] for each in answer["services"]] == ["checkout"]
    assert answer["applied"] == {"incidents": 3, "time_to_acknowledge": 1}


async def test_incidents_of_one_severity_change_and_the_others_stay(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_day(engine)
    faster = await asked(client, severity="sev1", time_to_recover="-50%")
    # Before 10-12 and 23-24 at 60; after 10-11 and 23-23:45, and the other one at half from 11 to 12.
    assert (faster["total"]["before"]["EUR"]["expected"], faster["total"]["after"]["EUR"]["expected"]) == (
        "180.00",
        "135.00",
    )
    assert (faster["filters"]["severity"], faster["incidents"], faster["applied"]) == (
        ["sev1"],
        3,
        {"time_to_recover": 3},
    )
    assert faster["links"][0].endswith("severity=sev1")
    # Of 180 the other one would cost 30 alone.
    fewer = await asked(client, severity="sev1", service="checkout", incidents="-10%")
    assert fewer["total"]["after"]["EUR"]["expected"] == "165.00"
    assert fewer["total"]["downtime_after_seconds"] == 3600 + 0.9 * 7200
    assert (await asked(client, severity="sev4", time_to_recover="-50%"))["total"]["difference"]["EUR"][
        "expected"
    ] == "0.00"


async def test_without_incidents_nothing_changes(client: httpx.AsyncClient) -> None:
    answer = await asked(client, time_to_detect="-20%")
    assert (answer["total"]["before"], answer["total"]["after"], answer["incidents"]) == (None, None, 0)
    assert answer["services"] == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"time_to_recover": "much"},
        {"incidents": "-5m"},
        {"time_to_detect": "-200%"},
        {"from": "2024-08-22T00:00:00Z"},
        {"service": ""},
    ],
)
async def test_invalid_parameters_are_rejected(client: httpx.AsyncClient, parameters: Mapping[str, str]) -> None:
    answer = await client.get("/api/v1/metrics/whatif", params={**DAY_ASKED, **parameters})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_address_may_be_typed_as_it_reads(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    period = "from=2024-08-20T00:00:00Z&to=2024-08-21T00:00:00Z"
    for typed, read in (("-20%", "-20%"), ("-20%25", "-20%"), ("+20%", "+20%"), ("%2B20%25", "+20%")):
        answer = await client.get(f"http://aftermath.test/api/v1/metrics/whatif?{period}&time_to_recover={typed}")
        assert answer.json()["changes"] == {"time_to_recover": read}


async def test_what_if_needs_a_token_that_reads(client_as: ClientAs) -> None:
    statuses = {
        scope: (await (await client_as(scope)).get("/api/v1/metrics/whatif")).status_code
        for scope in (None, Scope.INGEST, Scope.READ)
    }
    assert statuses == {None: 401, Scope.INGEST: 403, Scope.READ: 200}
