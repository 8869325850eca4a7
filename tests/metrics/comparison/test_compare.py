"""Comparison of two periods: what is compared, how, and how often the verdict is wrong."""

import csv
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.base.schema import Service, Source
from app.incidents.measures.measures import Measured, MeasureStatus
from app.incidents.measures.vectorized import OUTCOMES, MeasuredMany
from app.metrics.comparison.compare import Comparison, Sample, Trend, compare, sample
from tests.conftest import ClientAs
from tests.metrics.comparison.samples import independent
from tests.metrics.prometheus.test_exposition import an_incident, at, store

seconds = st.one_of(st.just(0.0), st.floats(1e-6, 1e8), st.integers(0, 20).map(lambda minutes: 60.0 * minutes))
samples = st.builds(independent, st.lists(seconds, min_size=10, max_size=40), st.lists(seconds, max_size=20))
Random = np.random.Generator


def lognormal(random: Random, n: int, *, times: float = 1.0, censored: bool = False) -> Sample:
    """Median 45 min, σ 1.5; `censored`: about one in five is still pending, after any time."""
    lasted = random.lognormal(math.log(2700 * times), 1.5, n)
    if not censored:
        return independent(lasted.tolist())
    watched = random.lognormal(math.log(2700 * 6), 1.5, n)
    return independent(lasted[lasted <= watched].tolist(), watched[lasted > watched].tolist())


# — calibration; with storms in test_storms.py —


def cut(random: Random, n: int, times: float, watched: str) -> Sample:
    """As `lognormal`, complete or censored at `watched`."""
    lasted = random.lognormal(math.log(2700 * times), 1.5, n)
    limit = {
        "all of it": np.full(n, np.inf),
        "a fifth pending": random.lognormal(math.log(2700 * 6), 1.5, n),
        "half pending, after any time": random.lognormal(math.log(2700), 1.5, n),
        "half pending, after the same time": np.full(n, 2700.0),
    }[watched]
    return independent(lasted[lasted <= limit].tolist(), limit[lasted > limit].tolist())


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 300])
@pytest.mark.parametrize(
    "watched",
    ["all of it", "a fifth pending", "half pending, after any time", "half pending, after the same time"],
)
def test_the_smallest_detectable_change_is_detected_in_four_of_five(n: int, watched: str) -> None:
    random = np.random.default_rng([n, len(watched)])
    detectable = [compare(cut(random, n, 1, watched), cut(random, n, 1, watched)).smallest_change for _ in range(100)]
    shorter = float(np.median([smallest.shorter for smallest in detectable if smallest]))
    longer = float(np.median([smallest.longer or math.inf for smallest in detectable if smallest]))
    changes = {Trend.BETTER: shorter}
    if n == 300 or watched == "all of it":  # otherwise too few longer durations would be recorded for a verdict
        changes[Trend.WORSE] = longer
    for verdict, times in changes.items():
        found = [compare(cut(random, n, 1, watched), cut(random, n, times, watched)).verdict for _ in range(600)]
        assert 0.75 < found.count(verdict) / len(found) < 0.94


def test_with_short_observation_no_increase_is_detectable() -> None:
    """Eleven of forty ended within the minute of observation."""
    side = independent([30.0 + n for n in range(11)], [60.0] * 29)
    smallest = compare(side, side).smallest_change
    assert smallest
    assert (smallest.shorter < 1, smallest.longer) == (True, None)


@pytest.mark.slow
@pytest.mark.parametrize("censored", [False, True])
def test_the_interval_contains_the_true_change_as_often_as_stated(censored: bool) -> None:
    random, held = np.random.default_rng(7), 0
    for _ in range(1000):
        a, b = lognormal(random, 100, censored=censored), lognormal(random, 100, times=0.5, censored=censored)
        effect = compare(a, b).effect
        assert effect
        held += effect.low <= 0.5 <= effect.high
    assert 0.92 < held / 1000 < 0.98


def test_ignoring_censored_values_would_be_wrong() -> None:
    """The same incidents, the second time observed for half an hour: the longer ones are pending."""
    lasted = lognormal(np.random.default_rng(3), 300).recorded
    now = independent([each for each in lasted if each <= 1800], [1800.0] * sum(each > 1800 for each in lasted))
    assert compare(independent(lasted), now).verdict is Trend.CANNOT_TELL
    assert (
        compare(independent(lasted), replace(now, censored=[], began=now.began[: len(now.recorded)])).verdict
        is Trend.BETTER
    )


# — the numbers —


@given(st.lists(st.floats(1, 1e8), min_size=10, max_size=40), st.lists(st.floats(1, 1e8), min_size=10, max_size=40))
def test_without_censored_values_the_interval_is_welchs(a: list[float], b: list[float]) -> None:
    if len(set(a)) == 1 or len(set(b)) == 1:
        return  # scipy warns that it loses precision
    effect = compare(independent(a), independent(b)).effect
    theirs = stats.ttest_ind(np.log(b), np.log(a), equal_var=False).confidence_interval()
    assert effect
    assert effect.ratio == pytest.approx(stats.gmean(b) / stats.gmean(a), rel=1e-6)
    assert np.log([effect.low, effect.high]) == pytest.approx([theirs.low, theirs.high], abs=1e-6)


def test_with_censored_values_the_typical_duration_is_the_area_under_the_curve() -> None:
    """By hand: e, e², e³ … e¹⁰ are recorded, and as many were censored at e^5.5."""
    side = independent([math.exp(power) for power in range(1, 11)], [math.exp(5.5)] * 10)
    # 5 of 20 are recorded before e^5.5; the 5 later ones share the remaining probability evenly
    expected = 1 + sum(1 - k / 20 for k in range(1, 6)) + 0.75 * sum(1 - k / 5 for k in range(1, 5))
    found = compare(side, side)
    assert found.typical_a == pytest.approx(math.exp(expected))
    assert found.horizon is None


def test_durations_beyond_the_range_observed_on_both_sides_are_not_compared() -> None:
    a = independent([600.0] * 10 + [6000.0] * 10)
    b = independent([600.0] * 10, [1200.0] * 10)
    found = compare(a, b)
    assert found.horizon == pytest.approx(1200)
    assert found.typical_a == pytest.approx(math.sqrt(600 * 1200))
    assert found.effect
    assert found.effect.ratio == pytest.approx(1)


def test_a_wait_as_long_as_the_longest_value_is_taken_for_longer() -> None:
    """A was observed only until then: half of it takes longer, by an unknown time."""
    a = independent([600.0] * 9 + [1200.0], [1200.0] * 10)
    b = independent([600.0] * 10 + [120_000.0] * 10)
    found = compare(a, b)
    assert found.horizon == pytest.approx(1200)
    assert found.typical_a == pytest.approx(600**0.45 * 1200**0.55)
    assert found.typical_b == pytest.approx(math.sqrt(600 * 1200))
    alike = compare(independent([600.0] * 10, [600.0]), independent([600.0] * 10))
    assert alike.effect == (1, 1, 1)
    assert alike.horizon == pytest.approx(600)
    assert alike.verdict is Trend.CANNOT_TELL


@given(samples, samples)
def test_swapping_the_periods_swaps_the_result(a: Sample, b: Sample) -> None:
    there, back = compare(a, b), compare(b, a)
    opposite = {Trend.BETTER: Trend.WORSE, Trend.WORSE: Trend.BETTER}
    assert back.verdict is opposite.get(there.verdict, there.verdict)
    assert there.effect
    assert back.effect
    assert back.effect.ratio == pytest.approx(1 / there.effect.ratio)
    assert (back.effect.low, back.effect.high) == pytest.approx((1 / there.effect.high, 1 / there.effect.low))
    assert back.p_value == pytest.approx(there.p_value)


@given(samples, samples)
def test_any_answer_is_a_number_and_agrees_with_itself(a: Sample, b: Sample) -> None:
    found = compare(a, b)
    assert found == compare(a, b)
    assert found.effect
    assert found.smallest_change
    assert found.p_value is not None
    numbers = (
        *found.effect,
        found.smallest_change.shorter,
        found.smallest_change.longer or 1,
        found.p_value,
        found.typical_a,
        found.typical_b,
        found.horizon or 0,
    )
    assert all(number is not None and math.isfinite(number) for number in numbers)
    assert 0 <= found.p_value <= 1
    assert found.smallest_change.shorter <= 1
    assert found.smallest_change.longer is None or found.smallest_change.longer >= 1
    assert found.effect.low <= found.effect.ratio <= found.effect.high
    if found.verdict is not Trend.CANNOT_TELL:
        assert found.p_value < 0.05
        assert not found.effect.low <= 1 <= found.effect.high
    assert (found.verdict is Trend.BETTER) <= (found.effect.high < 1)


@given(samples)
def test_the_same_is_never_better_than_itself(side: Sample) -> None:
    assert compare(side, side).verdict is Trend.CANNOT_TELL


@given(samples, samples, st.floats(1.5, 100))
def test_the_unit_does_not_matter(a: Sample, b: Sample, times: float) -> None:
    def scaled(side: Sample, factor: float) -> Sample:
        recorded, censored = ([factor * max(1.0, each) for each in of] for of in (side.recorded, side.censored))
        return independent(recorded, censored)

    before, after = compare(scaled(a, 1), scaled(b, 1)), compare(scaled(a, times), scaled(b, times))
    assert before.effect
    assert after.effect
    assert after.effect == pytest.approx(before.effect, rel=1e-6)


def test_below_ten_recorded_values_there_is_no_verdict() -> None:
    enough, few = independent([1.0] * 10), independent([1000.0] * 9, [5.0] * 50)
    assert compare(enough, few) == Comparison(
        Trend.CANNOT_TELL, "B has 9 recorded values; below 10 no verdict is given"
    )
    assert (
        compare(few, few).reason == "A has 9 recorded values and B has 9 recorded values; below 10 no verdict is given"
    )
    assert compare(independent([]), enough).verdict is Trend.CANNOT_TELL


def test_durations_without_length_count_as_a_second() -> None:
    zero, one = independent([0.0] * 20), independent([1.0] * 20)
    found = compare(zero, one)
    assert (found.typical_a, found.typical_b, found.verdict) == (1, 1, Trend.CANNOT_TELL)
    assert compare(zero, zero).p_value == 1
    assert compare(one, independent([0.0] * 10 + [3600.0] * 30)).verdict is Trend.WORSE


def test_identical_values_that_are_twice_as_long_are_worse() -> None:
    found = compare(independent([300.0] * 10), independent([600.0] * 10))
    assert found.verdict is Trend.WORSE
    assert found.effect == pytest.approx((2, 2, 2))


def test_a_verdict_needs_both() -> None:
    """The same center, but one side varies far more: ranks differ late, the typical duration does not."""
    random = np.random.default_rng(5)
    steady, wild = random.lognormal(8, 0.5, 200), random.lognormal(8, 2.5, 200)
    found = compare(independent(steady.tolist()), independent(wild.tolist()))
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert (found.verdict, "although" in found.reason) == (Trend.CANNOT_TELL, True)


def test_where_the_interval_alone_finds_a_change_there_is_no_verdict() -> None:
    random = np.random.default_rng(11)
    found = [compare(lognormal(random, 60), lognormal(random, 60, times=0.6)) for _ in range(200)]
    alone = [each for each in found if each.effect and each.effect.high < 1 and (each.p_value or 0) >= 0.05]
    assert alone
    assert {each.verdict for each in alone} == {Trend.CANNOT_TELL}
    assert all("but the log-rank test finds no change" in each.reason for each in alone)


# — included incidents —


def test_each_incident_is_recorded_censored_or_left_out_by_reason() -> None:
    measured = [
        Measured(5.0, MeasureStatus.RECORDED),
        Measured(None, MeasureStatus.PENDING, "not resolved yet", 7.0),
        Measured(None, MeasureStatus.PENDING, "not identified yet"),
        Measured(None, MeasureStatus.NOT_APPLICABLE, "resolved without acknowledgement", 60.0),
        Measured(None, MeasureStatus.NOT_APPLICABLE, "ended by timeout"),
        Measured(None, MeasureStatus.INVALID, "resolved_at is before the incident began"),
        Measured(0.0, MeasureStatus.RECORDED),
    ]
    nowhere = float("nan")
    reasons = [each.reason for each in OUTCOMES]
    many = MeasuredMany(
        np.array([nowhere if each.seconds is None else each.seconds for each in measured]),
        np.array([nowhere if each.censored_seconds is None else each.censored_seconds for each in measured]),
        np.array([reasons.index(each.reason) for each in measured]),
        np.zeros(len(measured), np.int64),
    )
    assert sample(many, np.arange(7) * 10**6, observed=timedelta(days=7)) == Sample(
        [5.0, 0.0],
        [7.0, 60.0],
        {"ended by timeout": 1, "not identified yet": 1, "resolved_at is before the incident began": 1},
        began=[0.0, 6.0, 1.0, 3.0],
        observed=timedelta(days=7),
    )


# — over HTTP —

PERIODS = {
    "a_from": "2024-08-20T00:00:00Z",
    "a_to": "2024-08-21T00:00:00Z",
    "b_from": "2024-08-21T00:00:00Z",
    "b_to": "2024-08-22T00:00:00Z",
}


async def asked(client: httpx.AsyncClient, **parameters: str) -> dict[str, Any]:
    answer = await client.get("/api/v1/metrics/compare", params={"measure": "time_to_recover", **PERIODS, **parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def two_days(engine: AsyncEngine) -> None:
    """20 incidents on the first day of about 5 h; 20 on the second of about an hour, one of them still open."""
    await store(
        engine,
        *(an_incident("01:00", f"{5 + n % 4}:{n:02}", acknowledged_at=at("01:05")) for n in range(20)),
        *(an_incident("25:00", f"25:{40 + n:02}", severity=2, service="search") for n in range(19)),
        an_incident("25:00", severity=2, service="search"),
    )


async def forty_days(engine: AsyncEngine) -> None:
    """20 days with an incident of about 5 h each; 20 with one of about an hour, the last of them still open."""
    await store(
        engine,
        *(an_incident(f"{24 * n + 1}:00", f"{24 * n + 5 + n % 4}:{n:02}") for n in range(20)),
        *(an_incident(f"{24 * n + 1}:00", f"{24 * n + 1}:{20 + n:02}") for n in range(20, 39)),
        an_incident(f"{24 * 39 + 1}:00"),
    )


LONG_PERIODS = {
    "a_from": "2024-08-20T00:00:00Z",
    "a_to": "2024-09-09T00:00:00Z",
    "b_from": "2024-09-09T00:00:00Z",
    "b_to": "2024-09-29T00:00:00Z",
}


async def test_two_periods_are_compared(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await forty_days(engine)
    answer = await asked(client, **LONG_PERIODS)
    assert (answer["verdict"], answer["a"]["n"], answer["a"]["censored"]) == ("better", 20, 0)
    assert (answer["b"]["n"], answer["b"]["censored"], answer["b"]["left_out"]) == (19, 1, {})
    assert answer["effect"]["low"] < answer["effect"]["ratio"] < answer["effect"]["high"] < 1
    assert answer["effect"]["ratio"] == pytest.approx(answer["b"]["typical_seconds"] / answer["a"]["typical_seconds"])
    assert answer["smallest_change"]["shorter"] < 1 < answer["smallest_change"]["longer"]
    assert (answer["p_value"] < 0.01, answer["test"]) == (True, "cluster-robust log-rank test, two-sided")
    assert answer["definitions"].keys() >= {"measure", "effect", "interval", "verdict", "smallest_change"}
    swapped = {"a_from": LONG_PERIODS["b_from"], "a_to": LONG_PERIODS["b_to"], "b_from": LONG_PERIODS["a_from"]}
    assert (await asked(client, **swapped, b_to=LONG_PERIODS["a_to"]))["verdict"] == "worse"


async def test_the_answer_shows_how_much_the_incidents_tell(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """A has two incidents in each of its 20 storms, which last equally long; B has one in each."""
    twice = [an_incident(f"{24 * n + 1}:00", f"{24 * n + 5 + n % 4}:{n:02}") for n in range(20) for _ in range(2)]
    once = [an_incident(f"{24 * n + 1}:00", f"{24 * n + 5 + n % 4}:{n:02}") for n in range(20, 40)]
    await store(engine, *twice, *once)
    answer = await asked(client, **LONG_PERIODS)
    a, b = answer["a"], answer["b"]
    assert (a["storms"]["clusters"], b["storms"]["clusters"], a["weeks"], answer["by_weeks"]) == (20, 20, None, None)
    assert a["storms"]["effective_n"] == pytest.approx(19)
    assert b["storms"]["effective_n"] == pytest.approx(19)
    assert a["storms"]["largest_share"] == pytest.approx(0.05)
    assert a["evidence"] == "40 incidents in 20 storms, worth about 19 independent ones"
    assert (answer["effect"]["low"], answer["effect"]["high"], answer["p_value"]) == tuple(
        answer["by_storms"][name] for name in ("low", "high", "p_value")
    )
    assert answer["definitions"].keys() >= {"clusters", "effective_n", "incidents"}
    incidents = answer["incidents"]
    assert (incidents["a"]["value"], incidents["a"]["storms"], incidents["a"]["per_day"]["value"]) == (40, 20, 2)
    assert (incidents["b"]["value"], incidents["ratio"], incidents["verdict"]) == (20, 0.5, "fewer")
    assert incidents["low"] < 0.5 < incidents["high"] < 1
    sheet = await client.get(
        "/api/v1/metrics/compare", params={"measure": "time_to_recover", "format": "csv", **LONG_PERIODS}
    )
    [cells] = csv.DictReader(StringIO(sheet.text))
    assert (cells["a_storms_clusters"], cells["incidents_verdict"]) == ("20", "fewer")
    assert float(cells["by_storms_low"]) == answer["effect"]["low"]


async def test_from_eight_weeks_on_weeks_count_too(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """Five incidents on the same days of each week: as many storms, a fifth as many weeks."""
    hours = [24 * (7 * week + day) + 1 for week in range(20) for day in range(5)]
    await store(
        engine,
        *(
            an_incident(f"{hour}:00", f"{hour + (2 if place < 50 else 1)}:{place % 50:02}")
            for place, hour in enumerate(hours)
        ),
    )
    eleven_weeks = {
        "a_from": "2024-08-20T00:00:00Z",
        "a_to": "2024-10-29T00:00:00Z",
        "b_from": "2024-10-29T00:00:00Z",
        "b_to": "2025-01-07T00:00:00Z",
    }
    answer = await asked(client, **eleven_weeks)
    assert (answer["a"]["storms"]["clusters"], answer["a"]["weeks"]["clusters"]) == (50, 10)
    assert (answer["by_storms"]["finds_change"], answer["by_weeks"]["finds_change"]) == (True, True)
    assert answer["effect"]["low"] == min(answer[by]["low"] for by in ("by_storms", "by_weeks"))
    assert answer["effect"]["high"] == max(answer[by]["high"] for by in ("by_storms", "by_weeks"))
    assert answer["p_value"] == max(answer[by]["p_value"] for by in ("by_storms", "by_weeks"))
    answer = await asked(client, **eleven_weeks | {"b_to": "2024-12-23T00:00:00Z"})
    assert (answer["a"]["weeks"], answer["by_weeks"]) == (None, None)


async def test_one_bad_day_against_another_gets_no_verdict(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await two_days(engine)
    answer = await asked(client)
    assert (answer["verdict"], answer["effect"], answer["p_value"]) == ("cannot_tell", None, None)
    assert answer["reason"].startswith("too few independent occasions: A has recorded values from only 1 storm")
    assert (answer["a"]["storms"]["clusters"], answer["by_storms"]["low"]) == (1, None)
    assert answer["b"]["evidence"] == "20 incidents in 1 storm, worth about 1 independent one"
    assert answer["a"]["typical_seconds"] > answer["b"]["typical_seconds"]


async def test_periods_without_incidents_compare_as_unknown(client: httpx.AsyncClient) -> None:
    answer = await asked(client)
    incidents = answer["incidents"]
    assert (incidents["verdict"], incidents["ratio"], incidents["low"]) == ("cannot_tell", None, None)
    assert incidents["reason"] == "no incidents in A and B"
    assert (incidents["a"]["value"], incidents["a"]["per_day"]["value"], incidents["a"]["storms"]) == (0, 0, 0)
    assert (answer["a"]["storms"], answer["a"]["evidence"]) == (None, None)


async def test_links_lead_to_the_incidents_of_both_sides(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await two_days(engine)
    answer = await asked(client, service="search", severity="sev2")
    listed = {side: [(await client.get(link)).json()["items"] for link in answer[side]["links"]] for side in "ab"}
    assert {side: sum(map(len, items)) for side, items in listed.items()} == {"a": 0, "b": 20}
    assert (answer["verdict"], answer["effect"], answer["p_value"]) == ("cannot_tell", None, None)
    assert answer["reason"] == "A has 0 recorded values; below 10 no verdict is given"
    others = await asked(client, service="search", severity="sev1")
    assert [others[side]["n"] + others[side]["censored"] for side in "ab"] == [0, 0]


async def test_an_incident_detected_at_the_border_belongs_to_the_second_period(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await store(
        engine,
        an_incident("24:00", "25:00"),
        an_incident("23:00", "25:00", detected_at_stated=at("24:00")),
        an_incident("25:00", "26:00", detected_at_stated=at("24:00") - timedelta(microseconds=1)),
        an_incident("48:00", "49:00"),
    )
    answer = await asked(client)
    assert [answer[side]["n"] for side in "ab"] == [1, 2]


async def test_an_hour_of_the_week_is_linked_to_its_last_twelve_weeks(client: httpx.AsyncClient) -> None:
    answer = await asked(client, a_from="2023-08-20T00:00:00Z", hour_of_week="25")
    assert [len(answer[side]["links"]) for side in "ab"] == [12, 0]
    assert "from=2024-08-20T01%3A00%3A00Z" in answer["a"]["links"][-1]


async def test_each_filter_is_that_of_the_summary(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async with db.transaction(engine) as tx:
        for id_, name in ((71, "prod"), (72, "grafana")):
            await tx.execute(
                insert(Source.__table__).values(id=id_, name=name, kind="alertmanager", created_at=at("00:00"))
            )
    hours = ("01:00", "02:00", "25:00", "26:00")
    await store(
        engine,
        *(
            an_incident(
                hours[n % 4],
                "30:00",
                service=("checkout", "search", "payments")[n % 3],
                source_ids=([], [0, 71], [71, 72], [0])[n // 4 % 4],
                detected_at_stated=at("01:30") if n % 11 == 0 else None,
            )
            for n in range(48)
        ),
    )
    async with db.transaction(engine) as tx:
        await tx.execute(update(Service.__table__).where(Service.__table__.c.name == "search").values(owner="Finders"))
    filters: list[dict[str, str]] = [
        {"source": "prod"},
        {"source": "grafana"},
        {"source": "people"},
        {"source": "nobody"},
        {"owner": "Finders"},
        {"owner": ""},
        {"hour_of_week": "25"},
        {"hour_of_week": "26"},
        {"owner": "", "source": "prod", "hour_of_week": "49"},
    ]
    sizes = set()
    for each in filters:
        answer = await asked(client, **each)
        assert {name: str(*answer["filters"][name]) for name in each} == each
        for side in "ab":
            period = {"from": PERIODS[f"{side}_from"], "to": PERIODS[f"{side}_to"]}
            summary = (await client.get("/api/v1/metrics/summary", params=period | each)).json()["total"]
            assert answer[side]["n"] == summary["measures"]["time_to_recover"]["n"], each
            listed = [(await client.get(link)).json()["items"] for link in answer[side]["links"]]
            assert sum(map(len, listed)) == answer[side]["n"]
            sizes.add(answer[side]["n"])
    assert len(sizes - {0, 24}) > 4, "filters that match everything or nothing would pass unused"


async def test_resolved_without_acknowledgement_is_censored(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await two_days(engine)
    answer = await asked(client, measure="time_to_acknowledge")
    assert [(answer[side]["n"], answer[side]["censored"]) for side in "ab"] == [(20, 0), (0, 20)]
    detected = await asked(client, measure="time_to_detect")
    assert detected["a"]["left_out"] == {"impact start not stated": 20}


async def test_ends_that_are_not_recoveries_count_on_request(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, *(an_incident("01:00", "02:00", end_reason="rule_paused") for _ in range(12)))
    assert (await asked(client))["a"] | {"n": 0, "left_out": {"ended by rule_paused": 12}} == (await asked(client))["a"]
    assert (await asked(client, include_non_recoveries="true"))["a"]["n"] == 12


async def test_the_second_period_may_go_on_until_now(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await forty_days(engine)
    answer = await client.get(
        "/api/v1/metrics/compare",
        params={"measure": "time_to_recover"} | {name: LONG_PERIODS[name] for name in ("a_from", "a_to", "b_from")},
    )
    assert answer.json()["verdict"] == "better"


@pytest.mark.parametrize(
    "parameters",
    [
        {"measure": "time_to_panic"},
        {"measure": ""},
        {"a_from": "2024-08-21T00:00:01Z"},
        {"b_to": "2024-08-20T00:00:00Z"},
        {"a_to": "2024-08-21T00:00:01Z"},
        {"a_from": "yesterday"},
        {"severity": "sev6"},
        {"hour_of_week": "168"},
        {"service": "\x00"},
    ],
)
async def test_invalid_parameters_are_rejected(client: httpx.AsyncClient, parameters: Mapping[str, str]) -> None:
    answer = await client.get("/api/v1/metrics/compare", params={"measure": "time_to_recover", **PERIODS, **parameters})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_comparison_needs_a_token_that_reads(client_as: ClientAs) -> None:
    statuses = {
        scope: (
            await (await client_as(scope)).get(
                "/api/v1/metrics/compare", params={"measure": "time_to_recover", **PERIODS}
            )
        ).status_code
        for scope in (None, Scope.INGEST, Scope.READ)
    }
    assert statuses == {None: 401, Scope.INGEST: 403, Scope.READ: 200}
