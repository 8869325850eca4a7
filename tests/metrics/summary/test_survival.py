"""Estimators of durations, against published examples, another implementation, and known true values."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.utils import restricted_mean_survival_time
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from app.incidents.grouping.signal import EndReason
from app.incidents.measures import measures
from app.incidents.measures.measures import Facts
from app.metrics.summary import survival
from app.metrics.summary.survival import (
    Bin,
    Estimate,
    Estimates,
    curve,
    histogram,
    median,
    restricted_mean,
    steps,
    typical,
)

# Freireich and others, Blood 1963: weeks in remission of children with leukaemia. The textbook case since Gehan 1965.
SIX_MP = [6, 6, 6, 7, 10, 13, 16, 22, 23]
SIX_MP_CENSORED = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]

HOURS = 3600.0


def test_curves_in_several_threads_leave_the_warning_filters_as_they_were() -> None:
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: curve(SIX_MP, SIX_MP_CENSORED), range(200)))
    assert warnings.filters == before


def test_remission_under_6_mp_as_published() -> None:
    found = curve(SIX_MP, SIX_MP_CENSORED)
    happened = found.happened > 0
    assert dict(zip(found.seconds[happened], found.waiting[happened].round(4), strict=True)) == {
        6: 0.8571,
        7: 0.8067,
        10: 0.7529,
        13: 0.6902,
        16: 0.6275,
        22: 0.5378,
        23: 0.4482,
    }
    assert found.at_risk[happened].tolist() == [21, 17, 15, 12, 11, 7, 6]
    assert median(found) == Estimate(23, 13, None)  # the band does not fall to one half again


def test_remission_under_placebo_as_published() -> None:
    found = curve(PLACEBO)
    assert median(found) == Estimate(8, 4, 11)
    assert restricted_mean(found, 1000).seconds == pytest.approx(np.mean(PLACEBO))


def test_the_restricted_mean_of_6_mp_is_the_area_of_its_rectangles() -> None:
    shares = [1, 18 / 21, 18 / 21 * 16 / 17, 18 / 21 * 16 / 17 * 14 / 15]
    found = restricted_mean(curve(SIX_MP, SIX_MP_CENSORED), 12)
    assert found.seconds == pytest.approx(6 * shares[0] + 1 * shares[1] + 3 * shares[2] + 2 * shares[3])
    assert found.low < found.seconds < found.high <= found.horizon == 12


def test_exactly_one_half_is_the_median_despite_rounding() -> None:
    assert median(curve([*range(1, 7), *range(7, 13)])).seconds == 6
    assert median(curve([1.0] * 7 + [2.0] * 6, [3.0])).seconds == 1


def test_a_horizon_beyond_the_observed_time_is_lowered_and_reported() -> None:
    assert restricted_mean(curve(SIX_MP, SIX_MP_CENSORED), 1000).horizon == 35
    assert restricted_mean(curve(PLACEBO), 1000).horizon == 1000


def apart(recorded: ArrayLike, censored: ArrayLike, horizon: float) -> Estimates | None:
    """The estimates of incidents that began a day apart, in a period too short for weeks."""
    n = np.size(recorded) + np.size(censored)
    return survival.estimates(recorded, censored, horizon, began=np.arange(n) * 24 * HOURS, observed=timedelta(days=50))


durations = st.lists(st.floats(0.5, 1e6), min_size=12, max_size=60)


@given(durations, st.lists(st.floats(0.5, 1e6), max_size=30), st.floats(1, 1e6))
def test_curve_median_and_restricted_mean_are_those_of_lifelines(
    recorded: list[float], censored: list[float], horizon: float
) -> None:
    theirs = KaplanMeierFitter().fit(recorded + censored, [True] * len(recorded) + [False] * len(censored))
    ours = curve(recorded, censored)
    assert ours.waiting == pytest.approx(np.atleast_1d(theirs.predict(ours.seconds)), abs=1e-9)
    if not np.isclose(ours.waiting, 0.5, rtol=1e-9).any():  # rounding may make it miss one half and use the next step
        found = median(ours).seconds
        assert (np.inf if found is None else found) == theirs.median_survival_time_
    area = restricted_mean(ours, horizon)
    assert area.seconds == pytest.approx(restricted_mean_survival_time(theirs, t=area.horizon))


@given(durations, st.lists(st.floats(0.5, 1e6), max_size=30))
def test_the_band_is_that_of_lifelines_where_its_formula_holds(recorded: list[float], censored: list[float]) -> None:
    theirs = KaplanMeierFitter().fit(recorded + censored, [True] * len(recorded) + [False] * len(censored))
    ours = curve(recorded, censored)
    inside = (ours.waiting > 1e-9) & (ours.waiting < 1)
    band = theirs.confidence_interval_.loc[ours.seconds[inside]].to_numpy()
    assert ours.low[inside] == pytest.approx(band[:, 0], abs=1e-6)
    assert ours.high[inside] == pytest.approx(band[:, 1], abs=1e-6)


@given(durations, st.lists(st.floats(0.5, 1e6), max_size=30), st.floats(1, 1e6))
def test_shares_rise_and_intervals_hold_their_estimates(
    recorded: list[float], censored: list[float], horizon: float
) -> None:
    found = apart(recorded, censored, horizon)
    assert found is not None
    assert all(a.seconds < b.seconds and a.share <= b.share for a, b in pairwise(found.ecdf))
    assert all(step.low <= step.share <= step.high for step in found.ecdf)
    mean = found.restricted_mean
    assert 0 < mean.low <= mean.seconds <= mean.high <= mean.horizon <= horizon
    if found.median.seconds is not None:
        assert found.median.low is not None
        assert found.median.low <= found.median.seconds <= (found.median.high or np.inf)
    assert sum(each.incidents for each in found.histogram) == len(recorded)


@given(st.lists(st.floats(1, 1e6), min_size=10, max_size=40))
def test_without_censoring_the_restricted_mean_is_the_mean_and_its_error_the_usual_one(recorded: list[float]) -> None:
    found = restricted_mean(curve(recorded), 1e9)
    assert found.seconds == pytest.approx(np.mean(recorded))
    usual = np.std(recorded, ddof=1) / np.sqrt(len(recorded)) / np.mean(recorded) * 2.262
    if len(recorded) == 10:  # 2.262 is Student's t with 9 degrees of freedom
        assert np.log(found.seconds / found.low) == pytest.approx(usual, rel=1e-3, abs=1e-6)


def test_zero_is_a_duration() -> None:
    assert restricted_mean(curve([0.0] * 10), 60) == (0, 0, 0, 60)
    assert median(curve([0.0] * 6 + [60.0] * 6)).seconds == 0
    found = typical([0.0, *[60.0] * 9])
    assert found is not None
    assert (found.geometric_mean, found.median) == (None, 60)


def test_below_ten_there_are_no_estimates_and_below_sixty_no_p95() -> None:
    nine, ten, sixty = ([60.0 + place for place in range(n)] for n in (9, 10, 60))
    assert (typical(nine), apart(nine, [60.0] * 100, 3600)) == (None, None)
    of_ten, of_sixty = typical(ten), typical(sixty)
    assert of_ten is not None
    assert of_sixty is not None
    assert (of_ten.median, of_ten.p90, of_ten.p95, of_ten.mean) == (64.5, 68.1, None, 64.5)
    assert of_ten.geometric_mean == pytest.approx(np.exp(np.log(ten).mean()))
    assert of_sixty.p95 == pytest.approx(np.quantile(sixty, 0.95))


def test_bins_double_and_hold_their_lower_bound() -> None:
    assert histogram([]) == []
    assert histogram([60, 119.9, 120, 500]) == [Bin(60, 120, 2), Bin(120, 240, 1), Bin(240, 480, 0), Bin(480, 960, 1)]
    assert histogram([0, 1.8, 1.875]) == [Bin(0, 1.875, 2), Bin(1.875, 3.75, 1)]


def test_of_many_steps_those_near_equal_shares_are_shown() -> None:
    found = steps(curve(np.arange(1.0, 10_001)), 50)
    assert len(found) <= 50
    assert (found[0].seconds, found[-1].seconds, found[-1].share) == (1, 10_000, 1)
    assert max(b.share - a.share for a, b in pairwise(found)) < 0.025


# — bias of the mean of closed incidents —


def test_closed_incidents_alone_are_far_off_and_the_restricted_mean_is_not() -> None:
    """Incidents of one week, observed at its end: a few percent are still open."""
    random = np.random.default_rng(20260820)
    start = datetime(2026, 8, 10, tzinfo=UTC)
    now = start + timedelta(days=7)
    recorded, censored = [], []
    truth = random.lognormal(np.log(2 * HOURS), 1.8, 20_000)
    for since, lasts in zip(random.uniform(0, 7 * 24 * HOURS, truth.size), truth, strict=True):
        began_at = start + timedelta(seconds=since)
        ended_at = began_at + timedelta(seconds=lasts)
        facts = Facts(
            began_at,
            "checkout",
            2,
            ended_at if ended_at <= now else None,
            EndReason.RECOVERED if ended_at <= now else None,
        )
        found = measures.measures(facts, now=now)["time_to_recover"]
        if found.seconds is not None:
            recorded.append(found.seconds)
        elif found.censored_seconds is not None:
            censored.append(found.censored_seconds)
    assert len(recorded) + len(censored) == truth.size
    assert 0.03 < len(censored) / truth.size < 0.07
    found_by_us = apart(recorded, censored, 48 * HOURS)
    assert found_by_us is not None
    true_mean = 2 * HOURS * np.exp(1.8**2 / 2)  # 10.1 h
    assert np.mean(recorded) < 0.65 * true_mean  # far off
    assert np.median(recorded) < 0.97 * 2 * HOURS
    assert found_by_us.median.seconds == pytest.approx(2 * HOURS, rel=0.05)
    area = found_by_us.restricted_mean
    assert area.horizon == 48 * HOURS
    assert area.seconds == pytest.approx(TRUE_TO_48_HOURS, rel=0.04)
    assert area.low < TRUE_TO_48_HOURS < area.high


TRUE_TO_48_HOURS = 24_370.0  # the mean of min(duration, 48 h) over that distribution, by integration: 6.77 h


def test_that_truth_is_true() -> None:
    hours = np.linspace(0, 48, 200_001)
    from scipy.stats import lognorm

    assert np.trapezoid(lognorm.sf(hours, 1.8, scale=2), hours) * HOURS == pytest.approx(TRUE_TO_48_HOURS, rel=1e-3)


def test_intervals_of_95_percent_contain_the_true_value_about_95_percent_of_the_time() -> None:
    random = np.random.default_rng(3)
    held = {"median": 0, "restricted mean": 0}
    trials, n = 400, 100
    for _ in range(trials):
        takes, watched = random.lognormal(np.log(2 * HOURS), 1.8, n), random.uniform(0, 7 * 24 * HOURS, n)
        seen = takes <= watched
        found = apart(takes[seen], watched[~seen], 48 * HOURS)
        assert found is not None
        half, area = found.median, found.restricted_mean
        held["median"] += (half.low or 0) <= 2 * HOURS <= (half.high or np.inf)
        held["restricted mean"] += area.low <= TRUE_TO_48_HOURS <= area.high
    assert {name: 0.91 <= count / trials <= 0.98 for name, count in held.items()} == dict.fromkeys(held, True)


# — storms —


def in_storms(random: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Durations and begins of incidents that come in storms of four and are much alike in each."""
    storm = np.cumsum(random.random(n) < 0.25)
    lasted = np.exp(np.log(2 * HOURS) + random.normal(0, 1, n + 1)[storm] + random.normal(0, 1, n))
    return lasted, random.uniform(0, 50 * 24 * HOURS, n + 1)[storm] + random.exponential(900, n)


@given(st.lists(st.floats(1, 1e6), min_size=30, max_size=60, unique=True))
def test_reporting_each_incident_twice_does_not_narrow_an_interval(recorded: list[float]) -> None:
    once = apart(recorded, [], 1e7)
    twice = survival.estimates(
        np.repeat(recorded, 2),
        [],
        1e7,
        began=np.repeat(np.arange(len(recorded)) * 24 * HOURS, 2),
        observed=timedelta(days=50),
    )
    assert once is not None
    assert twice is not None
    assert [step.share for step in twice.ecdf] == pytest.approx([step.share for step in once.ecdf])
    assert [step.low for step in twice.ecdf] == pytest.approx([step.low for step in once.ecdf], abs=0.02)
    assert [step.high for step in twice.ecdf] == pytest.approx([step.high for step in once.ecdf], abs=0.02)
    assert twice.restricted_mean.seconds == pytest.approx(once.restricted_mean.seconds)
    width, before = (np.log(each.restricted_mean.high / each.restricted_mean.low) for each in (twice, once))
    assert width == pytest.approx(before, rel=0.05)


def test_the_order_of_equal_durations_changes_no_digit() -> None:
    chance = np.random.default_rng(1)
    lasted, began = chance.integers(1, 20, 400) * 60.0, chance.integers(0, 200, 400) * 3 * HOURS
    found = set()
    for _ in range(20):
        order = chance.permutation(400)
        order = order[np.argsort(lasted[order], kind="stable")]
        estimates = survival.estimates(lasted[order], [], 3600, began=began[order], observed=timedelta(days=70))
        assert estimates is not None
        found.add((estimates.median, estimates.restricted_mean, *estimates.ecdf))
    assert len(found) == 1


def test_what_began_in_one_storm_says_nothing_about_chance() -> None:
    recorded = [60.0 + place for place in range(20)]
    found = survival.estimates(recorded, [], 3600, began=np.zeros(20), observed=timedelta(days=50))
    assert found is not None
    assert found.median == Estimate(69, None, None)
    assert (found.restricted_mean.low, found.restricted_mean.high) == (0, 3600)
    assert {(step.low, step.high) for step in found.ecdf} == {(0, 1)}


def test_in_storms_intervals_contain_the_true_value_as_often_as_stated() -> None:
    random = np.random.default_rng(12)
    truth = float(np.minimum(np.exp(np.log(2 * HOURS) + random.normal(0, 2**0.5, 10**6)), 48 * HOURS).mean())
    held: dict[str, list[bool]] = {}
    for _ in range(300):
        lasted, began = in_storms(random, 150)
        for name, found in (
            ("storms", survival.estimates(lasted, [], 48 * HOURS, began=began, observed=timedelta(days=50))),
            ("apart", apart(lasted, [], 48 * HOURS)),
        ):
            assert found is not None
            [middle] = [step for step in found.ecdf if step.share > 0.5][:1]
            assert found.median.low is not None
            assert found.median.high is not None
            true_share = stats.norm.cdf(np.log(middle.seconds / (2 * HOURS)) / 2**0.5)
            held.setdefault(f"{name}: median", []).append(found.median.low <= 2 * HOURS <= found.median.high)
            held.setdefault(f"{name}: band", []).append(bool(middle.low <= true_share <= middle.high))
            mean = found.restricted_mean
            held.setdefault(f"{name}: mean", []).append(mean.low <= truth <= mean.high)
    share = {name: sum(each) / len(each) for name, each in held.items()}
    assert all(each >= 0.9 for name, each in share.items() if name.startswith("storms")), share
    assert all(each < 0.88 for name, each in share.items() if name.startswith("apart")), share
