"""Durations in business hours: the same incidents and events, measured in the hours of a calendar."""

import csv
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.values.times import Span
from app.incidents.definitions import DEFINED
from app.incidents.definitions.model import SUMMARY_FROM, DefinitionKind
from app.incidents.impact.columns import StretchColumns
from app.incidents.measures import measures
from app.incidents.measures import vectorized as columns
from app.incidents.measures.business_durations import in_business_hours, starts_in_business_hours
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.measures import MEASURES, Facts
from app.incidents.measures.vectorized import OUTCOMES, Columns, MeasuredMany, microseconds
from app.metrics.comparison.compare import OUT_OF_HOURS, Trend, compare, sample
from app.metrics.query import GroupBy, MetricsQuery
from app.metrics.summary import survival
from app.metrics.summary.numbers import Numbers, prepare, summarize
from app.metrics.summary.summaries import EstimateBasis, Summary, summaries
from tests.incidents.impact.test_stretches import whole
from tests.incidents.measures.test_business_hours import calendars, every_day, measured
from tests.incidents.measures.test_measures import DAY, WEIGHTS
from tests.incidents.measures.test_vectorized import NOW, facts, one
from tests.metrics.prometheus.test_exposition import an_incident, at, price, store

PERIOD = {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"}
ROUND_THE_CLOCK = every_day("Europe/Berlin", "00:00-24:00")


def numbers(
    every: list[Facts], calendar: BusinessHours | None, group_by: GroupBy | None = None
) -> tuple[Numbers, list[Numbers]]:
    period = Span(DAY - timedelta(days=3), DAY + timedelta(days=5))
    query = MetricsQuery(period, group_by=group_by, calendar=calendar)
    prepared = prepare(
        Columns.of(range(len(every)), every), StretchColumns.of(map(whole, every)), query, now=NOW, weights=WEIGHTS
    )
    return summarize(prepared, [], query, horizon=HORIZON)


# — one by one —


@settings(deadline=None, max_examples=50)
@given(st.lists(facts(), max_size=4), calendars)
def test_it_is_that_clock_between_the_same_events(every: list[Facts], calendar: BusinessHours) -> None:
    by_time = columns.measured(Columns.of(range(len(every)), every), now=NOW)
    by_hours = in_business_hours(by_time, calendar)
    for place, each in enumerate(every):
        for measure in MEASURES:
            expected = measures.measures(each, now=NOW)[measure.name]
            found = one(by_hours[measure.name], place)
            assert (found.status, found.reason) == (expected.status, expected.reason)
            for ran, passed in ((found.seconds, expected.seconds), (found.censored_seconds, expected.censored_seconds)):
                assert (ran is None) == (passed is None)
                if passed is not None:
                    since = measure.since(each)
                    assert since is not None
                    assert [ran] == measured(calendar, Span(since, since + timedelta(seconds=passed)))


@settings(deadline=None, max_examples=50)
@given(facts(), calendars)
def test_the_phases_still_make_up_the_whole(each: Facts, calendar: BusinessHours) -> None:
    found = in_business_hours(columns.measured(Columns.of([1], [each]), now=NOW), calendar)
    phases = [one(found[name], 0).seconds for name in ("detection", "response", "remediation")]
    if None not in phases:
        assert each.impact_started_at is not None
        assert each.ended_at is not None
        [whole] = measured(calendar, Span(each.impact_started_at, each.ended_at))
        assert sum(phases) == pytest.approx(whole, abs=1e-5)  # type: ignore[arg-type]


# — all together —


@settings(deadline=None, max_examples=10)
@given(st.lists(facts(), max_size=4))
def test_round_the_clock_gives_the_numbers_of_the_first_clock(every: list[Facts]) -> None:
    whole, groups = numbers(every * SUMMARY_FROM, ROUND_THE_CLOCK, GroupBy.SERVICE)
    for each in (whole, *groups):
        assert each.business_hours == each.measures
        assert not every or any(of.estimates or not of.n for of in each.measures.values())


@settings(deadline=None, max_examples=20)
@given(st.lists(facts(), max_size=6), calendars)
def test_nothing_but_durations_changes(every: list[Facts], calendar: BusinessHours) -> None:
    without, _ = numbers(every, None)
    with_, _ = numbers(every, calendar)
    assert without.business_hours is None
    assert with_.business_hours is not None
    assert (with_.measures, with_.downtime, with_.cost) == (without.measures, without.downtime, without.cost)
    for name, each in with_.business_hours.items():
        assert counts(each) == counts(with_.measures[name])
        assert each.zeros >= with_.measures[name].zeros


def counts(each: Summary) -> tuple[int, int, int, int, Mapping[str, int]]:
    return each.n, each.pending, each.censored, each.invalid, each.excluded


HORIZON = 48 * 3600.0
MONTH = timedelta(days=30)
DAY_MICROSECONDS = 86_400 * 10**6
RECORDED = 0
PENDING = next(place for place, each in enumerate(OUTCOMES) if each.reason == "not acknowledged yet")


def summed_up(seconds: list[float], waits: list[float]) -> Summary:
    nothing = np.nan
    many = MeasuredMany(
        np.array([*seconds, *(nothing for _ in waits)]),
        np.array([*(nothing for _ in seconds), *waits]),
        np.array([RECORDED] * len(seconds) + [PENDING] * len(waits)),
        np.zeros(len(seconds) + len(waits), np.int64),
    )
    everyone = np.arange(len(many.seconds))
    asked = EstimateBasis(HORIZON, everyone * DAY_MICROSECONDS, [timedelta(days=50)])
    [found] = summaries(many, everyone, everyone * 0, 1, asked)
    return found


def test_a_duration_entirely_outside_business_hours_is_0_and_counts() -> None:
    found = summed_up([0.0] * 4 + [600.0 * n for n in range(1, 9)], [])
    assert (found.n, found.zeros, found.pending) == (12, 4, 0)
    assert found.typical is not None
    assert (found.typical.median, found.typical.geometric_mean) == (1500, None)
    assert found.typical.mean == 1800
    assert found.estimates is not None
    assert found.estimates.median.seconds == 1200
    assert found.estimates.restricted_mean.seconds == pytest.approx(1800)
    assert found.estimates.ecdf[0].seconds == 0
    assert found.estimates.ecdf[0].share == pytest.approx(4 / 12)
    assert found.estimates.histogram[0].incidents == 4


def test_with_only_zeros_all_results_are_0() -> None:
    found = summed_up([0.0] * SUMMARY_FROM, [0.0, 0.0])
    assert found.estimates is not None
    assert (found.zeros, found.estimates.median.seconds, found.estimates.restricted_mean[:3]) == (10, 0, (0, 0, 0))


def test_single_values_are_shown_only_for_fewer_than_ten() -> None:
    assert summed_up([60.0] * (SUMMARY_FROM - 1), []).values == [60.0] * 9
    assert summed_up([60.0] * SUMMARY_FROM, []).values is None


def test_a_wait_outside_business_hours_gives_no_value() -> None:
    """Incidents that wait on a Sunday for Monday do not change the median of ten values, four of them 0."""
    seconds = [0.0] * 4 + [600.0 * n for n in range(1, 7)]
    alone, waiting = summed_up(seconds, []), summed_up(seconds, [0.0] * 30)
    assert waiting.estimates == alone.estimates
    assert (waiting.pending, alone.pending) == (30, 0)
    # Treated as "longer than 0", they would raise the typical time to the longest value.
    misled = survival.estimates(
        seconds, [0.0] * 30, HORIZON, began=np.arange(40) * 86_400.0, observed=timedelta(days=50)
    )
    assert misled is not None
    assert misled.median != waiting.estimates.median  # type: ignore[union-attr]
    assert summed_up(seconds, [60.0] * 30).estimates != alone.estimates


def test_the_registry_names_the_numbers_with_business_hours() -> None:
    names = {each.name for each in DEFINED.values() if each.second_clock}
    assert names == {measure.name for measure in MEASURES}
    assert all(DEFINED[name].kind is DefinitionKind.MEASURE for name in names)
    assert DEFINED["downtime"].second_clock is None


# — two periods —

BERLIN_OFFICE = every_day("Europe/Berlin", "09:00-18:00")


def begun(since: datetime, seconds: float, *, waits: bool) -> MeasuredMany:
    lasted, nothing = np.array([seconds]), np.array([np.nan])
    outcome = np.array([PENDING if waits else RECORDED])
    return MeasuredMany(*((nothing, lasted) if waits else (lasted, nothing)), outcome, np.array([microseconds(since)]))


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("since", "is_compared"),
    [("08:59:59.999999", False), ("09:00:00", True), ("17:59:59.999999", True), ("18:00:00", False)],
)
def test_durations_that_start_in_business_hours_are_compared(since: str, is_compared: bool, waits: bool) -> None:
    for seconds in (0.0, 0.5, 9 * 3600.0, 20 * 3600.0):
        each = begun(datetime.fromisoformat(f"2024-08-20T{since}+02:00"), seconds, waits=waits)
        found = sample(each, each.since, observed=MONTH, in_hours=starts_in_business_hours(each, BERLIN_OFFICE))
        assert len(found.censored if waits else found.recorded) == is_compared
        assert found.left_out == ({} if is_compared else {OUT_OF_HOURS: 1})


@settings(deadline=None, max_examples=50)
@given(st.lists(facts(), max_size=6), calendars)
def test_every_incident_is_compared_or_left_out_for_a_reason(every: list[Facts], calendar: BusinessHours) -> None:
    for each in columns.measured(Columns.of(range(len(every)), every), now=NOW).values():
        whole = sample(each, each.since, observed=MONTH)
        by_hours = in_business_hours({"it": each}, calendar)["it"]
        found = sample(by_hours, each.since, observed=MONTH, in_hours=starts_in_business_hours(each, calendar))
        outside = found.left_out.get(OUT_OF_HOURS, 0)
        assert len(found.recorded) + len(found.censored) + outside == len(whole.recorded) + len(whole.censored)
        assert {reason: n for reason, n in found.left_out.items() if reason != OUT_OF_HOURS} == whole.left_out
        round_the_clock = in_business_hours({"it": each}, ROUND_THE_CLOCK)["it"]
        all_of_it = np.isfinite(each.since)
        assert sample(round_the_clock, each.since, observed=MONTH, in_hours=all_of_it) == whole


def a_period(random: np.random.Generator, at_night: float) -> MeasuredMany:
    """300 incidents with a median of 2 h; `at_night` is the share that starts outside business hours."""
    n, hour = 300, 3600
    is_night = random.random(n) < at_night
    of_day = np.where(is_night, 18 * hour + random.random(n) * 15 * hour, 9 * hour + random.random(n) * 9 * hour)
    days = random.integers(0, 60, n) * 24 * hour
    since = microseconds(datetime.fromisoformat("2024-03-01T00:00:00+01:00")) + np.rint((days + of_day) * 1e6)
    lasted = np.rint(random.lognormal(np.log(2 * hour), 1.5, n) * 1e6) / 1e6
    return MeasuredMany(lasted, np.full(n, np.nan), np.zeros(n, np.int64), since.astype(np.int64))


def without_zeros(side: MeasuredMany) -> MeasuredMany:
    return side._replace(seconds=np.where(side.seconds > 0, side.seconds, np.nan))


def test_a_shift_in_start_times_is_not_mistaken_for_a_change_of_speed() -> None:
    """Twice as many start at night; the speed of response is the same."""
    random, runs = np.random.default_rng(5), 300
    spoke: Counter[str] = Counter()
    for _ in range(runs):
        sides = a_period(random, 0.3), a_period(random, 0.6)
        by_hours = [in_business_hours({"it": side}, BERLIN_OFFICE)["it"] for side in sides]
        start = [starts_in_business_hours(side, BERLIN_OFFICE) for side in sides]
        verdicts = {
            "begun in hours": compare(
                *(
                    sample(side, side.since, observed=MONTH, in_hours=those)
                    for side, those in zip(by_hours, start, strict=True)
                )
            ),
            "with zeros": compare(*(sample(side, side.since, observed=MONTH) for side in by_hours)),
            "without zeros": compare(*(sample(without_zeros(side), side.since, observed=MONTH) for side in by_hours)),
        }
        spoke.update(name for name, found in verdicts.items() if found.verdict is not Trend.CANNOT_TELL)
    # with a true rate of at most 5 %, more than this occurs once in a thousand runs
    assert spoke["begun in hours"] <= stats.binom.ppf(0.999, runs, 0.05)
    assert min(spoke["with zeros"], spoke["without zeros"]) > 0.1 * runs


# — over HTTP —

OFFICE = {"zone": "Europe/Berlin", "hours": {"tuesday": [{"from": "09:00", "to": "17:00"}]}, "holidays": []}


@pytest.fixture
async def office(client: httpx.AsyncClient) -> str:
    """Tuesdays, 07:00 to 15:00 in UTC; 2024-08-20 is one."""
    assert (await client.put("/api/v1/calendars/office", json=OFFICE)).status_code == 201
    return "office"


async def a_day(engine: AsyncEngine) -> None:
    await store(
        engine,
        an_incident("06:00", "08:00", acknowledged_at=at("06:30")),
        an_incident("10:00", "11:00", acknowledged_at=at("10:10")),
        an_incident("14:30", "16:00", service="search"),
        an_incident("22:00"),
    )
    await price(engine, "60")


async def asked(client: httpx.AsyncClient, route: str, **parameters: object) -> dict[str, Any]:
    period = {} if route == "compare" else PERIOD
    answer = await client.get(f"/api/v1/metrics/{route}", params={**period, **parameters})  # type: ignore[dict-item]
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_both_clocks_stand_side_by_side(client: httpx.AsyncClient, engine: AsyncEngine, office: str) -> None:
    await a_day(engine)
    without = await asked(client, "summary", group_by="service")
    with_ = await asked(client, "summary", group_by="service", calendar=office)
    assert without["calendar"] is None
    assert with_["calendar"] == {"name": "office", "zone": "Europe/Berlin"}
    for before, after in zip((without["total"], *without["groups"]), (with_["total"], *with_["groups"]), strict=True):
        assert before.pop("business_hours") is None
        found = after.pop("business_hours")
        assert before == after
        assert found["definition"] == "business_hours"
        assert found["measures"].keys() == after["measures"].keys()
    total = (await asked(client, "summary", calendar=office))["total"]["business_hours"]["measures"]
    acknowledged, recovered = total["time_to_acknowledge"], total["time_to_recover"]
    assert (acknowledged["values"], acknowledged["zeros"]) == ([0, 600], 1)
    assert (acknowledged["pending"], acknowledged["censored"]) == (1, 1)
    assert (recovered["values"], recovered["zeros"]) == ([1800, 3600, 3600], 0)


async def test_days_and_sheets_have_it_too(client: httpx.AsyncClient, engine: AsyncEngine, office: str) -> None:
    await a_day(engine)
    answer = await asked(client, "timeseries", calendar=office)
    [[point]] = [series["points"] for series in answer["series"]]
    assert point["business_hours"]["time_to_acknowledge"]["values"] == [0, 600]
    assert answer["calendar"]["name"] == "office"
    assert answer["definitions"]["business_hours"] == "business_hours"
    plain = await asked(client, "timeseries")
    assert ("business_hours" in plain["series"][0]["points"][0], plain["calendar"]) == (False, None)
    for route in ("summary", "timeseries"):
        parameters = {**PERIOD, "calendar": office, "format": "csv"}
        sheet = await client.get(f"/api/v1/metrics/{route}", params=parameters)
        zeros = {(line["measure"], line["calendar"]): line["zeros"] for line in csv.DictReader(StringIO(sheet.text))}
        assert (zeros["time_to_acknowledge", "office"], zeros["time_to_acknowledge", ""]) == ("1", "0")


COMPARED = {"measure": "time_to_acknowledge", "a_from": "2024-08-20T00:00:00Z", "a_to": "2024-10-01T00:00:00Z"}
COMPARED |= {"b_from": "2024-10-01T00:00:00Z", "b_to": "2024-11-12T00:00:00Z"}


async def tuesdays(engine: AsyncEngine) -> None:
    """Of A 12 begin in the hours and wait for 8 h, 7 of them in hours; of B 12 wait for 10 min, and one ends unseen.
    Some come at night. Each period has six Tuesdays, with two of the 12 on each.
    """

    def on(week: int, began: str, waited: int | None) -> dict[str, object]:
        since = at(began) + timedelta(weeks=week)
        seen = since + timedelta(minutes=waited) if waited else None
        return an_incident(
            "00:00", "01:00", began_at=since, ended_at=(seen or since) + timedelta(minutes=15), acknowledged_at=seen
        )

    await store(
        engine,
        *(on(n // 2, "08:00", 8 * 60 + n) for n in range(12)),
        *(on(0, "02:00", 10 + n) for n in range(5)),
        *(on(6 + n // 2, "08:00", 10 + n) for n in range(12)),
        on(6, "14:00", None),
        on(6, "04:00", None),
    )


async def test_two_periods_are_compared_by_both_clocks(
    client: httpx.AsyncClient, engine: AsyncEngine, office: str
) -> None:
    await tuesdays(engine)
    without = await asked(client, "compare", **COMPARED)
    with_ = await asked(client, "compare", **COMPARED, calendar=office)
    assert (without.pop("business_hours"), without.pop("calendar")) == (None, None)
    found = with_.pop("business_hours")
    assert with_.pop("calendar") == {"name": "office", "zone": "Europe/Berlin"}
    assert with_ == without
    assert (found["verdict"], found["definition"]) == ("better", "compare_business_hours")
    assert [(side["n"], side["censored"], side["left_out"]) for side in (found["a"], found["b"])] == [
        (12, 0, {OUT_OF_HOURS: 5}),
        (12, 1, {OUT_OF_HOURS: 1}),
    ]
    assert (with_["a"]["n"], with_["b"]["censored"]) == (17, 2)
    assert found["a"]["typical_seconds"] == pytest.approx(7 * 3600)
    sheet = await client.get("/api/v1/metrics/compare", params=COMPARED | {"calendar": office, "format": "csv"})
    [line] = csv.DictReader(StringIO(sheet.text))
    assert (line["business_hours_verdict"], line["business_hours_a_n"], line["a_n"]) == ("better", "12", "17")
    assert line["business_hours_b_left_out_began_outside_business_hours"] == "1"


async def test_without_values_in_business_hours_there_is_no_verdict(
    client: httpx.AsyncClient, engine: AsyncEngine, office: str
) -> None:
    await tuesdays(engine)
    tuesdays_of_a = [f"{at('00:00') + timedelta(weeks=week):%Y-%m-%d}" for week in range(6)]
    await client.put("/api/v1/calendars/office", json=OFFICE | {"holidays": tuesdays_of_a})
    found = (await asked(client, "compare", **COMPARED, calendar=office))["business_hours"]
    assert (found["verdict"], found["effect"]) == ("cannot_tell", None)
    assert found["reason"] == "A has 0 recorded values; below 10 no verdict is given"


async def test_changing_the_calendar_changes_the_past(
    client: httpx.AsyncClient, engine: AsyncEngine, office: str
) -> None:
    await a_day(engine)
    holiday = OFFICE | {"holidays": ["2024-08-20"]}
    await client.put("/api/v1/calendars/office", json=holiday)
    total = (await asked(client, "summary", calendar=office))["total"]["business_hours"]["measures"]
    assert total["time_to_recover"]["values"] == [0, 0, 0]


@pytest.mark.parametrize("form", ["json", "csv"])
@pytest.mark.parametrize("route", ["summary", "timeseries", "compare"])
async def test_an_unknown_calendar_is_reported(client: httpx.AsyncClient, route: str, form: str) -> None:
    question = (COMPARED if route == "compare" else PERIOD) | {"format": form}
    answer = await client.get(f"/api/v1/metrics/{route}", params=question | {"calendar": "=none"})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:aftermath:problem:calendar-not-found")
    empty = await client.get(f"/api/v1/metrics/{route}", params=question | {"calendar": ""})
    assert empty.status_code == 422


async def test_a_year_of_incidents_far_apart_is_no_error(
    client: httpx.AsyncClient, engine: AsyncEngine, office: str
) -> None:
    early, late = datetime.fromisoformat("1971-06-01T00:00:00Z"), datetime.fromisoformat("2199-06-04T00:00:00Z")
    await store(
        engine,
        an_incident("10:00", "11:00", began_at=early, ended_at=early + timedelta(days=1)),
        an_incident("10:00", "11:00", began_at=late, ended_at=late + timedelta(days=2)),
    )
    whole = {"from": "1971-01-02T00:00:00Z", "to": "2199-12-01T00:00:00Z", "calendar": office}
    total = (await asked(client, "summary", **whole))["total"]["business_hours"]["measures"]
    # Both begin at midnight of UTC on a Tuesday
    assert total["time_to_recover"]["values"] == [8 * 3600, 8 * 3600]
