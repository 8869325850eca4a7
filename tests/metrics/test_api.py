"""Numbers over many incidents, over HTTP."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.base.schema import Service, Source
from app.base.values.times import Span
from app.incidents.definitions import DEFINED
from app.incidents.impact.columns import StretchColumns
from app.incidents.measures.measures import MEASURES, Facts
from app.incidents.measures.vectorized import OUTCOMES, Columns, MeasuredMany
from app.metrics.query import GroupBy, MetricsQuery
from app.metrics.summary.numbers import Prepared, prepare, summarize, summarize_buckets
from app.metrics.summary.periods import Interval, TooManyBuckets, buckets
from app.metrics.summary.summaries import EstimateBasis, Summary, summaries
from tests.conftest import ClientAs
from tests.incidents.impact.test_stretches import whole
from tests.metrics.prometheus.test_exposition import DAY, WEIGHTS, an_incident, at, price, store

PERIOD = {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"}
METRICS = "/api/v1/metrics"


NO_FILTERS: Mapping[str, object] = {
    "service": [],
    "environment": [],
    "severity": [],
    "source": [],
    "owner": [],
    "hour_of_week": [],
    "include_non_recoveries": False,
}


async def asked(client: httpx.AsyncClient, route: str, **parameters: object) -> dict[str, Any]:
    answer = await client.get(f"{METRICS}/{route}", params={**PERIOD, **parameters})  # type: ignore[dict-item]
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def a_day(engine: AsyncEngine) -> list[UUID]:
    """Checkout: 10-11 sev1, 10:30-12 sev2, and one open since 22:00; search: 10-10:30, never acknowledged, no rate."""
    ids = await store(
        engine,
        an_incident("10:00", "11:00", acknowledged_at=at("10:10")),
        an_incident("10:30", "12:00", severity=2, acknowledged_at=at("10:50")),
        an_incident("22:00"),
        an_incident("10:00", "10:30", service="search", severity=1),
    )
    await price(engine, "60")
    return ids


async def test_a_summary_counts_measures_prices_and_links(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    total = (await asked(client, "summary"))["total"]
    assert total["filters"] == NO_FILTERS
    assert {name: total[name] for name in PERIOD} == PERIOD
    assert (total["incidents"]["value"], total["open"]["value"]) == (4, 1)
    acknowledged = total["measures"]["time_to_acknowledge"]
    assert {name: acknowledged[name] for name in ("n", "values", "statistics", "pending", "censored", "excluded")} == {
        "n": 2,
        "values": [600, 1200],
        "statistics": None,
        "pending": 1,
        "censored": 1,
        "excluded": {},
    }
    detected = total["measures"]["time_to_detect"]
    assert (detected["n"], detected["values"], detected["statistics"], detected["estimates"]) == (0, [], None, None)
    assert detected["excluded"] == {"impact start not stated": 4}
    # checkout 10-12 and 22-24, search half an hour
    assert total["downtime"]["seconds"] == 4.5 * 3600
    # 60 for 10-11, 30 for 11-12, 120 for 22-24
    assert total["cost"]["amounts"] == {"EUR": {"low": "105.00", "expected": "210.00", "high": "420.00"}}
    assert total["cost"]["services_without_rate"] == ["search"]


@pytest.mark.parametrize("question", ["summary", "timeseries"])
async def test_one_measure_has_the_same_numbers_as_all(
    client: httpx.AsyncClient, engine: AsyncEngine, question: str
) -> None:
    await a_day(engine)
    every = await asked(client, question, measure=[measure.name for measure in MEASURES])
    only = await asked(client, question, measure=MEASURE)

    def cut(part: Any) -> Any:
        if isinstance(part, list):
            return [cut(one) for one in part]
        if not isinstance(part, dict):
            return part
        kept = {name: one for name, one in part.items() if name not in ALL_MEASURES or name == MEASURE}
        return {name: cut(one) for name, one in kept.items()}

    if question == "timeseries":
        assert (every.pop("measures"), only.pop("measures")) == ([measure.name for measure in MEASURES], [MEASURE])
    assert cut(every) == cut(only) == only
    answer = await client.get(f"/api/v1/metrics/{question}", params={"measure": ["time_to_guess", MEASURE]})
    assert (answer.status_code, "time_to_guess" in answer.json()["detail"]) == (422, True)


MEASURE = "time_to_acknowledge"
ALL_MEASURES = {measure.name for measure in MEASURES}


async def test_every_number_names_its_definition_and_what_it_counts_is_linked(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_day(engine)
    answer = await asked(client, "summary", group_by="service")
    for each in (answer["total"], *answer["groups"]):
        numbers = ("incidents", "incidents_per_day", "open", "downtime", "cost")
        assert {each[name]["definition"] for name in numbers} == {*numbers}
        assert each["measures"].keys() <= DEFINED.keys()
        assert all(each[name]["links"] for name in ("incidents", "open", "downtime"))


async def test_links_lead_to_the_incidents_behind_the_number(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    await store(engine, an_incident("10:00", "11:00", service="a&b=c d/ü"))
    answer = await asked(client, "summary", group_by="service")
    for each in (answer["total"], *answer["groups"]):
        for name in ("incidents", "open"):
            listed = [(await client.get(link)).json()["items"] for link in each[name]["links"]]
            assert sum(len(items) for items in listed) == each[name]["value"], each["filters"]


async def test_an_incident_carried_into_the_period_has_impact_and_is_linked(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_day(engine)
    answer = await asked(client, "summary", **{"from": "2024-08-20T10:45:00Z", "to": "2024-08-20T11:30:00Z"})
    total = answer["total"]
    assert (total["incidents"]["value"], total["downtime"]["seconds"]) == (0, 45 * 60)
    assert total["cost"]["amounts"]["EUR"]["expected"] == "30.00"  # 15 minutes at 60, 30 minutes at 30
    assert total["measures"]["time_to_recover"]["statistics"] is None
    behind = [link for link in total["downtime"]["links"] if "?" not in link]
    assert [(await client.get(link)).json()["severity"] for link in behind] == ["sev1", "sev2"]


async def test_groups_by_service_sum_to_the_whole(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    answer = await asked(client, "summary", group_by="service")
    groups = {each["filters"]["service"][0]: each for each in answer["groups"]}
    assert {name: each["incidents"]["value"] for name, each in groups.items()} == {"checkout": 3, "search": 1}
    assert groups["checkout"]["cost"]["amounts"] == answer["total"]["cost"]["amounts"]
    assert (groups["search"]["cost"]["amounts"], groups["search"]["cost"]["services_without_rate"]) == (
        None,
        ["search"],
    )
    assert groups["checkout"] == (await asked(client, "summary", service="checkout"))["total"]


async def test_groups_by_severity_share_the_cost_of_overlapping_incidents(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_day(engine)
    answer = await asked(client, "summary", group_by="severity", service="checkout")
    groups = {each["filters"]["severity"][0]: each for each in answer["groups"]}
    # 10:30-11 at 60 is shared two to one
    assert {name: each["cost"]["amounts"]["EUR"]["expected"] for name, each in groups.items()} == {
        "sev1": "170.00",
        "sev2": "40.00",
    }
    assert {name: each["downtime"]["seconds"] for name, each in groups.items()} == {"sev1": 10800, "sev2": 5400}
    alone = await asked(client, "summary", severity="sev2", service="checkout")
    assert groups["sev2"] == alone["total"]


async def test_the_cost_of_an_incident_is_its_share(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    ids = await a_day(engine)
    shown = {item["id"]: item["cost"] for item in (await client.get("/api/v1/incidents")).json()["items"]}
    assert shown[str(ids[0])] == {"EUR": {"low": "25.00", "expected": "50.00", "high": "100.00"}}
    assert shown[str(ids[1])] == {"EUR": {"low": "20.00", "expected": "40.00", "high": "80.00"}}
    assert shown[str(ids[3])] is None
    alone = (await client.get(f"/api/v1/incidents/{ids[1]}")).json()
    assert alone["cost"] == shown[str(ids[1])]


async def test_a_page_of_incidents_is_priced_in_a_fixed_number_of_statements(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    from app.base import db
    from app.incidents.impact import individual as costs
    from app.incidents.reading import views

    await store(engine, *(an_incident("10:00", "11:00", service=f"service-{n % 7}") for n in range(40)))
    await price(engine, "60", "service-1")
    async with db.session(engine) as session:
        rows, _ = await views.incidents(session, views.Filters(), after=None, limit=50, bytes_at_most=2**20)
        tx = await session.connection()
        statements: list[str] = []
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        found = await costs.impacts_of(tx, rows, now=at("23:00"), weights=WEIGHTS)
    assert len(statements) == 4  # they and those around them, their alerts, rates, maintenance
    priced = [str(each.cost["EUR"].expected) for each in found.values() if each.cost]
    assert priced == ["10.00"] * 6
    assert {each.downtime for each in found.values()} == {timedelta(hours=1)}


async def test_merged_incidents_are_in_no_number(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    ids = await a_day(engine)
    before = await asked(client, "summary", group_by="severity")
    [merged] = await store(engine, an_incident("03:00", "09:00", merged_into=ids[0]))
    assert await asked(client, "summary", group_by="severity") == before
    shown = (await client.get(f"/api/v1/incidents/{merged}")).json()
    assert (shown["cost"], {each["status"] for each in shown["measures"].values()}) == (None, {"not_applicable"})


async def test_ends_that_are_no_recovery_are_left_out_counted_and_includable(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await store(
        engine,
        an_incident("10:00", "11:00"),
        an_incident("10:00", "12:00", end_reason="rule_paused"),
        an_incident("10:00", "13:00", alert_class="monitoring"),
    )
    left_out = (await asked(client, "summary"))["total"]["measures"]["time_to_recover"]
    assert (left_out["n"], left_out["excluded"]) == (
        1,
        {"ended by rule_paused": 1, "monitoring failure, not a service failure": 1},
    )
    included = (await asked(client, "summary", include_non_recoveries=True))["total"]["measures"]["time_to_recover"]
    assert (included["n"], included["values"], included["excluded"]) == (3, [3600, 7200, 10800], {})


async def test_contradictions_are_counted_and_detection_as_stated_decides_the_period(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await store(
        engine,
        an_incident("10:00", "11:00", detected_at_stated=at("11:30")),
        an_incident("10:00", "11:00", detected_at_stated=DAY - timedelta(hours=1)),
    )
    total = (await asked(client, "summary"))["total"]
    assert total["incidents"]["value"] == 1
    assert total["measures"]["time_to_recover"] | {"n": 0, "invalid": 1} == total["measures"]["time_to_recover"]
    late = await asked(client, "summary", **{"from": "2024-08-20T11:15:00Z"})
    assert late["total"]["incidents"]["value"] == 1


async def test_no_incidents_have_no_numbers(client: httpx.AsyncClient) -> None:
    total = (await asked(client, "summary"))["total"]
    assert (total["incidents"]["value"], total["downtime"]["seconds"]) == (0, 0)
    assert (total["cost"]["amounts"], total["cost"]["services_without_rate"]) == (None, [])
    assert {(each["n"], each["statistics"]) for each in total["measures"].values()} == {(0, None)}


async def test_the_default_is_the_last_30_days(client: httpx.AsyncClient) -> None:
    total = (await client.get(f"{METRICS}/summary")).json()["total"]
    since, until = (datetime.fromisoformat(total[name]) for name in ("from", "to"))
    assert until - since == timedelta(days=30)
    assert abs(until - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_timeseries_counts_by_detection_and_cuts_downtime_and_cost(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_day(engine)
    await store(engine, an_incident("20:00", "26:00", severity=2))
    period = {"from": "2024-08-19T12:00:00Z", "to": "2024-08-21T01:00:00Z"}
    answer = await asked(client, "timeseries", interval="day", service="checkout", severity="sev2", **period)
    [series] = answer["series"]
    assert answer["filters"] == {**NO_FILTERS, "service": ["checkout"], "severity": ["sev2"]}
    assert answer | period == answer
    assert answer["measures"] == ["time_to_acknowledge", "time_to_recover"]
    assert [(each["from"], each["to"]) for each in answer["periods"]] == [
        ("2024-08-19T12:00:00Z", "2024-08-20T00:00:00Z"),
        ("2024-08-20T00:00:00Z", "2024-08-21T00:00:00Z"),
        ("2024-08-21T00:00:00Z", "2024-08-21T01:00:00Z"),
    ]
    assert [point["incidents"] for point in series["points"]] == [0, 2, 0]
    assert [point["downtime"]["seconds"] for point in series["points"]] == [0, 5400 + 4 * 3600, 3600]
    # 40 as above; 20-22 alone 60, then a third of 60 an hour beside the open one
    assert [each and each["EUR"]["expected"] for each in (point["cost"]["amounts"] for point in series["points"])] == [
        None,
        "140.00",
        "20.00",
    ]
    assert series["points"][1]["measures"]["time_to_recover"]["n"] == 2
    assert answer["definitions"] == {name: name for name in ("incidents", "open", "downtime", "cost")}
    assert [len(point.get("carried_in", [])) for point in series["points"]] == [0, 0, 1]


async def test_a_timeseries_by_service_has_every_bucket_for_each(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_day(engine)
    answer = await asked(client, "timeseries", interval="month", group_by="service", **{"from": "2024-06-10T00:00:00Z"})
    assert {series["group"]: [point["incidents"] for point in series["points"]] for series in answer["series"]} == {
        "checkout": [0, 0, 3],
        "search": [0, 0, 1],
    }


async def test_downtime_by_service_longest_first(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    await store(engine, an_incident("01:00", "09:00", service="redundant", severity=4))
    answer = await asked(client, "downtime")
    assert [(each["service"], each["downtime"]["seconds"]) for each in answer["services"]] == [
        ("checkout", 4 * 3600),
        ("search", 1800),
    ]
    assert answer["downtime"]["seconds"] == 4.5 * 3600
    assert answer["services"][0]["cost"]["amounts"]["EUR"]["expected"] == "210.00"
    assert answer["services"][1]["cost"]["amounts"] is None


@pytest.mark.parametrize(
    "parameters",
    [
        {"from": "2024-08-21T00:00:00Z", "to": "2024-08-20T00:00:00Z"},
        {"from": "0001-01-01T00:00:00+14:00"},
        {"to": "9999-12-31T23:59:59-14:00"},
        {"from": "2024-08-20T10:00:00"},
        {"from": "yesterday"},
        {"severity": "sev6"},
        {"service": ""},
        {"service": "x" * 201},
        {"service": "\x00"},
        {"group_by": "color"},
        {"include_non_recoveries": "perhaps"},
    ],
)
@pytest.mark.parametrize("route", ["summary", "timeseries", "downtime"])
async def test_invalid_parameters_are_rejected(
    client: httpx.AsyncClient, route: str, parameters: Mapping[str, str]
) -> None:
    if route == "downtime" and "group_by" in parameters:
        return
    answer = await client.get(f"{METRICS}/{route}", params={**PERIOD, **parameters})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_too_many_buckets_are_rejected(client: httpx.AsyncClient) -> None:
    long = {"from": "1971-01-02T00:00:00Z", "to": "2199-12-31T00:00:00Z"}
    answers = [
        await client.get(f"{METRICS}/timeseries", params={**long, "interval": interval})
        for interval in ("day", "week", "month")
    ]
    assert [answer.status_code for answer in answers] == [422, 422, 422]
    assert answers[0].json()["type"] == "urn:aftermath:problem:too-many-buckets"
    assert (await client.get(f"{METRICS}/summary", params=long)).status_code == 200


async def test_an_early_end_has_a_period_before_it(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{METRICS}/summary", params={"to": "1971-01-02T00:00:00Z"})
    assert answer.status_code == 200, answer.text
    later = await client.get(f"{METRICS}/summary", params={"from": "2199-01-01T00:00:00Z"})
    assert later.status_code == 200, later.text


async def test_numbers_need_a_token_that_reads(client_as: ClientAs) -> None:
    statuses = {}
    for scope in (None, Scope.INGEST, Scope.READ):
        with_scope = await client_as(scope)
        statuses[scope] = {
            (await with_scope.get(path)).status_code
            for path in (f"{METRICS}/summary", f"{METRICS}/timeseries", f"{METRICS}/downtime", "/metrics")
        }
    assert statuses == {None: {401}, Scope.INGEST: {403}, Scope.READ: {200}}


async def test_a_name_with_odd_characters_is_a_filter(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    name = 'ü"\\\n&=?#'
    await store(engine, an_incident("10:00", "11:00", service=name))
    answer = await client.get(f"{METRICS}/summary?service={quote(name)}&from={PERIOD['from']}&to={PERIOD['to']}")
    assert answer.json()["total"]["incidents"]["value"] == 1


# — many values of one measure —


async def twelve(engine: AsyncEngine) -> None:
    """Checkout: 11 that took 10 to 110 minutes, and one that is open since 20:00; the odd ones acknowledged at once."""
    known = [
        an_incident(
            f"{place}:00",
            f"{place}:{10 * place:02}",
            source_ids=[1] if place % 3 else [1, 2],
            acknowledged_at=at(f"{place}:00") if place % 2 else None,
        )
        for place in range(1, 12)
    ]
    await store(engine, *known, an_incident("20:00"))
    async with db.transaction(engine) as tx:
        await tx.execute(insert(Source.__table__), [{"id": id_, "name": f"prod-{id_}", **A_SOURCE} for id_ in (1, 2)])
        await tx.execute(update(Service.__table__).values(owner="Payments"))


A_SOURCE = {"kind": "alertmanager", "created_at": DAY}


async def test_from_ten_values_on_there_are_statistics_that_include_open_incidents(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await twelve(engine)
    recovered = (await asked(client, "summary", horizon=7200))["total"]["measures"]["time_to_recover"]
    assert (recovered["n"], recovered["pending"], recovered["values"]) == (11, 1, None)
    of_values, estimates = recovered["statistics"], recovered["estimates"]
    assert (of_values["median"], of_values["p90"], of_values["p95"], of_values["mean"]) == (3600, 6000, None, 3600)
    # 12 in total: half of them have ended when the sixth has
    assert estimates["kaplan_meier_median"]["seconds"] == 3600
    # (10 + 20 + … + 110 + 120 for the open one) / 12
    assert estimates["restricted_mean"]["seconds"] == pytest.approx(65 * 60)
    assert estimates["restricted_mean"]["horizon_seconds"] == 7200
    assert [step["share"] for step in estimates["ecdf"]] == pytest.approx([place / 12 for place in range(1, 12)])
    assert [(each["from"], each["incidents"]) for each in estimates["histogram"]] == [
        (480, 1),
        (960, 2),
        (1920, 3),
        (3840, 5),
    ]
    acknowledged = (await asked(client, "summary"))["total"]["measures"]["time_to_acknowledge"]
    assert (acknowledged["n"], acknowledged["censored"], acknowledged["values"]) == (6, 5, [0.0] * 6)
    assert (acknowledged["statistics"], acknowledged["estimates"]) == (None, None)


async def test_numbers_of_one_environment_and_of_each(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(
        engine,
        an_incident("10:00", "11:00", environment="production", acknowledged_at=at("10:10")),
        an_incident("10:00", "12:30", environment="staging", acknowledged_at=at("10:20")),
        an_incident("15:00", "15:30"),
    )
    await price(engine, "60")
    answer = await asked(client, "summary", group_by="environment")
    groups = {each["filters"]["environment"][0]: each for each in answer["groups"]}
    downtime = {name: each["downtime"]["seconds"] for name, each in groups.items()}
    assert downtime == {"production": 3600, "staging": 9000, "unknown": 1800}
    for name, word in (("production", "prod"), ("staging", "STG"), ("unknown", "unknown")):
        assert (await asked(client, "summary", environment=word))["total"] == groups[name]
        [link] = groups[name]["incidents"]["links"]
        assert len((await client.get(link)).json()["items"]) == 1
    amounts = [Decimal(each["cost"]["amounts"]["EUR"]["expected"]) for each in groups.values()]
    assert sum(amounts) == Decimal(answer["total"]["cost"]["amounts"]["EUR"]["expected"])
    compared = {
        "measure": "time_to_acknowledge",
        "a_from": PERIOD["from"],
        "a_to": PERIOD["to"],
        "b_from": PERIOD["to"],
    }
    of_staging = (await client.get(f"{METRICS}/compare", params=compared | {"environment": "stg"})).json()
    assert (of_staging["filters"]["environment"], of_staging["a"]["n"]) == (["staging"], 1)


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        (
            "source",
            {"prod-1": 11, "prod-2": 3},
        ),  # reported by both sources: in both groups; declared by a person: in none
        ("owner", {"Payments": 12}),
        ("hour_of_week", dict.fromkeys([*range(25, 36), 44], 1)),  # the day is a Tuesday
    ],
)
async def test_each_group_equals_the_result_of_its_filter_and_links_to_its_incidents(
    client: httpx.AsyncClient, engine: AsyncEngine, group_by: str, expected: Mapping[str | int, int]
) -> None:
    await twelve(engine)
    await price(engine, "60")
    answer = await asked(client, "summary", group_by=group_by)
    groups = {each["filters"][group_by][0]: each for each in answer["groups"]}
    assert {key: each["incidents"]["value"] for key, each in groups.items()} == expected
    for key, each in groups.items():
        assert (await asked(client, "summary", **{group_by: key}))["total"] == each
        listed = [(await client.get(link)).json()["items"] for link in each["incidents"]["links"]]
        assert sum(len(items) for items in listed) == each["incidents"]["value"]
    if group_by != "source":
        amounts = [Decimal(each["cost"]["amounts"]["EUR"]["expected"]) for each in groups.values()]
        assert sum(amounts) == Decimal(answer["total"]["cost"]["amounts"]["EUR"]["expected"])


async def test_services_without_an_owner_are_a_group_too(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_day(engine)
    answer = await asked(client, "summary", group_by="owner")
    assert [(each["filters"]["owner"], each["incidents"]["value"]) for each in answer["groups"]] == [([""], 4)]
    assert (await asked(client, "summary", owner=""))["total"] == answer["groups"][0]
    assert (await asked(client, "summary", owner="nobody"))["total"]["incidents"]["value"] == 0


@pytest.mark.parametrize("horizon", ["0", "-1", "nan", "inf", "1e12", "long"])
async def test_an_invalid_horizon_is_rejected(client: httpx.AsyncClient, horizon: str) -> None:
    assert (await client.get(f"{METRICS}/summary", params={"horizon": horizon})).status_code == 422


# — pure functions —


def test_a_summary_without_incidents_is_null() -> None:
    nothing = MeasuredMany(np.zeros(0), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    question = EstimateBasis(3600, np.zeros(0, np.int64), [timedelta(days=7)])
    [found] = summaries(nothing, np.zeros(0, np.int64), np.zeros(0, np.int64), 1, question)
    assert found == Summary(0, None, [], 0, 0, 0, {}, None)


@given(st.lists(st.tuples(st.integers(0, len(OUTCOMES) - 1), st.floats(0, 1e7))))
def test_every_incident_is_in_exactly_one_count(drawn: list[tuple[int, float]]) -> None:
    outcome = np.array([place for place, _ in drawn], np.int64)
    seconds = np.array([seconds if place == 0 else np.nan for place, seconds in drawn])
    everyone = np.arange(len(drawn))
    [found] = summaries(MeasuredMany(seconds, np.full(len(drawn), np.nan), outcome, outcome), everyone, everyone * 0, 1)
    assert found.n + found.pending + found.censored + found.invalid + sum(found.excluded.values()) == len(drawn)
    recorded = [seconds for place, seconds in drawn if place == 0]
    if len(recorded) < 10:
        assert (found.values, found.typical) == (sorted(recorded), None)
    else:
        assert found.values is None
        assert found.typical is not None
        assert found.typical.median == pytest.approx(float(np.median(recorded)))


@pytest.mark.parametrize(
    ("interval", "borders"),
    [
        (
            Interval.DAY,
            ["2026-02-26 12:00", "2026-02-27 00:00", "2026-02-28 00:00", "2026-03-01 00:00", "2026-03-01 01:00"],
        ),
        (Interval.WEEK, ["2026-02-26 12:00", "2026-03-01 01:00"]),
        (Interval.MONTH, ["2026-02-26 12:00", "2026-03-01 00:00", "2026-03-01 01:00"]),
    ],
)
def test_buckets_begin_at_midnight_on_monday_or_on_the_first(interval: Interval, borders: list[str]) -> None:
    moments = [datetime.fromisoformat(border).replace(tzinfo=UTC) for border in borders]
    assert buckets(Span(moments[0], moments[-1]), interval, at_most=10) == [
        Span(start, end) for start, end in pairwise(moments)
    ]


def test_a_week_begins_on_monday() -> None:
    [_, second] = buckets(Span(at("00:00"), at("00:00") + timedelta(days=7)), Interval.WEEK, at_most=10)
    assert second.start == datetime(2024, 8, 26, tzinfo=UTC)


@given(st.datetimes(datetime(1972, 1, 1), datetime(2190, 1, 1)), st.integers(0, 10**6), st.sampled_from(Interval))  # noqa: DTZ001
def test_buckets_follow_one_another_and_fill_the_period(start: datetime, minutes: int, interval: Interval) -> None:
    period = Span(start.replace(tzinfo=UTC), start.replace(tzinfo=UTC) + timedelta(minutes=minutes))
    try:
        found = buckets(period, interval, at_most=100)
    except TooManyBuckets:
        assert period.end - period.start > timedelta(days=99)
        return
    assert [span.end for span in found[:-1]] == [span.start for span in found[1:]]
    assert sum((span.end - span.start for span in found), timedelta()) == period.end - period.start
    assert all(span.start < span.end for span in found)


@st.composite
def many_prepared(draw: st.DrawFn) -> Prepared:
    every = []
    for _ in range(draw(st.integers(0, 8))):
        began = DAY + timedelta(minutes=draw(st.integers(-2000, 4000)))
        lasted = draw(st.none() | st.integers(0, 4000))
        ended = None if lasted is None else began + timedelta(minutes=lasted)
        stated = draw(st.none() | st.integers(-2000, 4000).map(lambda minutes: DAY + timedelta(minutes=minutes)))
        every.append(
            Facts(began, draw(st.sampled_from("ab")), draw(st.integers(1, 4)), ended, impact_started_at=stated)
        )
    columns = Columns.of(range(len(every)), every)
    known = StretchColumns.of(map(whole, every))
    return prepare(columns, known, MetricsQuery(TWO_DAYS), now=DAY + timedelta(days=3), weights=WEIGHTS)


TWO_DAYS = Span(DAY - timedelta(hours=5), DAY + timedelta(days=2, hours=7))


@given(many_prepared(), st.sampled_from([None, *GroupBy]))
def test_a_timeseries_sums_to_the_summary(prepared: Prepared, group_by: GroupBy | None) -> None:
    query = MetricsQuery(TWO_DAYS, group_by=group_by)
    periods = buckets(query.period, Interval.DAY, at_most=10)
    whole, groups = summarize(prepared, [], query)
    rows = summarize_buckets(prepared, [], query, periods, points_at_most=1000)
    for row, expected in zip(rows, groups if group_by else [whole], strict=False):
        assert [each.query.period for each in row] == periods
        assert sum(each.incidents for each in row) == expected.incidents
        assert sum((each.downtime for each in row), timedelta()) == expected.downtime
        assert {tuple(each.query.filters.service) for each in row} == {tuple(expected.query.filters.service)}
