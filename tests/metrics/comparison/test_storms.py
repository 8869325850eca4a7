"""Verdicts about incidents that come in storms: equal to a reference, and rarely wrong.

`reference.json` has fixed inputs with the results of another implementation of the same method.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy import stats

from app.incidents.measures.vectorized import Floats, Ints
from app.metrics import clusters
from app.metrics.clusters import Clustering
from app.metrics.comparison.compare import Comparison, Sample, Trend, compare, evidence_in_words
from app.metrics.counts import CountVerdict, Events, compare_counts, dispersion, per_day, share
from tests.metrics.comparison.samples import MONDAY, independent

DAY = 24 * 3600.0
Random = np.random.Generator
REFERENCE: dict[str, list[dict[str, Any]]] = json.loads(Path(__file__).with_name("reference.json").read_text())


def a_sample(lasted: ArrayLike, recorded: ArrayLike, began: ArrayLike, days: float) -> Sample:
    """`recorded` is 1 for recorded durations, 0 for censored ones."""
    lasted, began, happened = np.asarray(lasted), np.asarray(began, np.float64), np.asarray(recorded, np.bool_)
    return Sample(
        lasted[happened].tolist(),
        lasted[~happened].tolist(),
        began=[*began[happened].tolist(), *began[~happened].tolist()],
        observed=timedelta(days=days),
    )


# — the same as the reference —


def sides(case: dict[str, Any]) -> tuple[Sample, Sample]:
    a, b = (a_sample(each["seconds"], each["recorded"], each["began"], case["days"]) for each in (case["a"], case["b"]))
    return a, b


@pytest.mark.parametrize("case", REFERENCE["durations"], ids=lambda case: case["name"])
def test_a_comparison_is_that_of_the_reference(case: dict[str, Any]) -> None:
    a, b = sides(case)
    found = compare(a, b)
    assert found.effect
    assert found.smallest_change
    assert found.verdict == case["verdict"]
    assert found.effect == pytest.approx((case["ratio"], *case["interval"]), rel=1e-9)
    assert found.p_value == pytest.approx(case["p"], rel=1e-9)
    if found.horizon is None:
        assert found.smallest_change.shorter == pytest.approx(math.exp(-case["mean_shift_seen"]), rel=1e-9)
    assert found.by.keys() == case["by"].keys()
    for clustering, expected in case["by"].items():
        each = found.by[Clustering(clustering)]
        assert (each.low, each.high) == pytest.approx(expected["interval"], rel=1e-9)
        assert each.p_value == pytest.approx(expected["p"], rel=1e-9)
        assert [each.a.clusters, each.b.clusters] == expected["clusters"]
        assert [each.a.effective_n, each.b.effective_n] == pytest.approx(expected["effective_n"], rel=1e-9)


@pytest.mark.parametrize("case", REFERENCE["counts"], ids=lambda case: case["name"])
def test_counts_compare_as_in_the_reference(case: dict[str, Any]) -> None:
    a, b = (Events(np.array(case[side]), case["days"]) for side in "ab")
    found = compare_counts(a, b)
    assert found.verdict == case["verdict"]
    assert found.ratio == pytest.approx(case["ratio"])
    if a.n and b.n:
        assert (found.low, found.high) == pytest.approx(case["interval"], rel=1e-9)
        assert (dispersion(a), dispersion(b)) == pytest.approx(case["dispersion"][1:], rel=1e-9)
    else:
        assert (found.low, found.high) == (None, None)


# — clusters —

begins = st.lists(st.floats(0, 60 * DAY), min_size=1, max_size=60)


def one_by_one(began: list[float]) -> list[int]:
    """The rule, one incident after another."""
    label, first, last = -1, -math.inf, -math.inf
    found: dict[float, int] = {}
    for at in sorted(began):
        if at - last > 6 * 3600 or at - first >= DAY:
            label, first = label + 1, at
        found[at] = label
        last = at
    return [found[at] for at in began]


@given(st.one_of(begins, st.lists(st.integers(0, 400).map(lambda hours: 3600.0 * hours), min_size=1, max_size=200)))
def test_storms_are_those_of_the_rule(began: list[float]) -> None:
    assert clusters.storms(np.array(began)).tolist() == one_by_one(began)


def test_a_storm_ends_after_six_quiet_hours_or_a_day() -> None:
    def of(*hours: float) -> list[int]:
        return list(clusters.storms(np.array(hours) * 3600.0))

    assert of(0, 6, 12.5, 18.5, 24.5, 30, 36.4, 36.5, 42.6) == [0, 0, 1, 1, 1, 1, 2, 2, 3]
    assert of(0, 5, 10, 15, 20, 24, 29, 34, 47, 48) == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert of(1, 20, 1) == [0, 1, 0]
    assert of() == []


def test_weeks_start_on_monday_in_utc() -> None:
    began = MONDAY + DAY * np.array([8, -1 / DAY, 0, 6.999, 7])
    assert clusters.weeks(began).tolist() == [2, 0, 1, 1, 2]


def test_weeks_count_from_56_days_on() -> None:
    began = np.zeros(1)
    assert clusters.clusterings(began, timedelta(days=55)).keys() == {Clustering.STORMS}
    assert clusters.clusterings(began, timedelta(days=56)).keys() == {Clustering.STORMS, Clustering.WEEKS}


# — properties —


@st.composite
def stormy(draw: st.DrawFn) -> Sample:
    """Ten to forty recorded durations and some censored ones, in storms, over 30 or 60 days."""
    recorded = draw(st.lists(st.floats(1, 1e6), min_size=10, max_size=40))
    censored = draw(st.lists(st.floats(1, 1e6), max_size=10))
    n, days = len(recorded) + len(censored), draw(st.sampled_from([30, 60]))
    storms = draw(st.lists(st.floats(0, days * DAY), min_size=n, max_size=n))
    of = draw(st.lists(st.integers(0, 11), min_size=n, max_size=n))
    return Sample(recorded, censored, began=[MONDAY + storms[place % n] for place in of], observed=timedelta(days=days))


def same(a: Comparison, b: Comparison) -> bool:
    def numbers(of: Comparison) -> list[float]:
        bounds = [math.log(max(each, 1e-300)) for each in of.effect or ()]
        return [*bounds, -1.0 if of.p_value is None else of.p_value]

    return a.verdict is b.verdict and numbers(a) == pytest.approx(numbers(b), abs=1e-6)


@given(stormy(), stormy(), st.randoms())
def test_the_order_of_incidents_does_not_matter(a: Sample, b: Sample, chance: Any) -> None:
    n, order = len(a.recorded), list(range(len(a.recorded)))
    chance.shuffle(order)
    began = [*(a.began[place] for place in order), *a.began[n:]]
    shuffled = replace(a, recorded=[a.recorded[place] for place in order], began=began)
    assert same(compare(a, b), compare(shuffled, b))


@given(stormy(), stormy(), st.integers(-500, 500))
def test_a_shift_in_time_does_not_matter(a: Sample, b: Sample, weeks: int) -> None:
    """By whole weeks, because a calendar week begins on Monday."""
    shifted = replace(a, began=[at + weeks * 7 * DAY for at in a.began])
    assert same(compare(a, b), compare(shifted, b))


@given(st.lists(st.floats(1, 1e6), min_size=10, max_size=40), st.lists(st.floats(1, 1e6), min_size=10, max_size=40))
def test_one_incident_in_each_storm_gives_the_independent_interval(a: list[float], b: list[float]) -> None:
    if len(set(a)) == 1 or len(set(b)) == 1:
        return  # scipy warns that it loses precision
    found = compare(independent(a), independent(b))
    theirs = stats.ttest_ind(np.log(b), np.log(a), equal_var=False).confidence_interval()
    assert found.effect
    assert np.log(found.effect[1:]) == pytest.approx([theirs.low, theirs.high], abs=1e-6)
    side = found.by[Clustering.STORMS].a
    assert side.clusters == len(a)
    assert side.largest_share == pytest.approx(1 / len(a))
    assert side.effective_n == pytest.approx(len(a) - 1)


@given(stormy(), stormy(), st.integers(2, 4))
def test_duplicates_of_storms_do_not_sharpen_a_verdict(a: Sample, b: Sample, times: int) -> None:
    """Each incident is reported as several that begin and end together: nothing new is known."""

    def repeated(side: Sample) -> Sample:
        n = len(side.recorded)
        began = [at for part in (side.began[:n], side.began[n:]) for at in part for _ in range(times)]
        return replace(
            side,
            recorded=[each for each in side.recorded for _ in range(times)],
            censored=[each for each in side.censored for _ in range(times)],
            began=began,
        )

    once, often = compare(a, b), compare(repeated(a), repeated(b))
    assert (once.effect is None) == (often.effect is None)
    if once.effect is None or often.effect is None:
        return
    assert often.effect.ratio == pytest.approx(once.effect.ratio, rel=1e-6)
    # Durations of one storm may now be found more alike, and its degrees of freedom fewer: never more certain.
    assert math.log(often.effect.low) <= math.log(once.effect.low) + 0.02 * abs(math.log(once.effect.low)) + 1e-9
    if once.verdict is Trend.CANNOT_TELL and not any(each.is_change for each in once.by.values()):
        assert often.verdict is Trend.CANNOT_TELL


def test_the_sentence_says_what_storms_are_worth() -> None:
    random = np.random.default_rng(2)
    which = np.repeat(np.arange(30), 5)
    lasted = np.exp(8 + random.normal(size=30)[which])
    began = MONDAY + which * 1.5 * DAY
    side = a_sample(lasted, np.ones(150), began, 50)
    found = compare(side, side).by[Clustering.STORMS].a
    assert evidence_in_words(found, 150) == "150 incidents in 30 storms, worth about 29 independent ones"
    assert found.largest_share == pytest.approx(1 / 30)


def test_too_few_independent_occasions_get_no_verdict() -> None:
    """However many incidents there are."""
    random = np.random.default_rng(3)

    def side(storms: int, times: float) -> Sample:
        lasted = times * random.lognormal(8, 0.1, 100)
        return a_sample(lasted, np.ones(100), MONDAY + np.arange(100) % storms * 2 * DAY, 50)

    few = compare(side(4, 1), side(20, 0.01))
    assert (few.verdict, few.effect, few.p_value, few.smallest_change) == (Trend.CANNOT_TELL, None, None, None)
    assert few.reason == (
        "too few independent occasions: A has recorded values from only 4 storms; below 5 no verdict is given"
    )
    assert few.typical_a is not None
    assert few.by[Clustering.STORMS].a.clusters == 4
    one = compare(side(1, 1), side(1, 0.01))
    assert "A has recorded values from only 1 storm and B has recorded values from only 1 storm" in one.reason
    assert compare(side(5, 1), side(20, 0.01)).verdict is Trend.BETTER


def test_the_clustering_that_finds_nothing_is_named() -> None:
    [case] = [case for case in REFERENCE["durations"] if case["name"] == "a change by storms, but not by weeks"]
    a, b = sides(case)
    found = compare(a, b)
    assert [each.is_change for each in found.by.values()] == [True, False]
    assert found.reason.endswith(": by storms there is a change, but by weeks the interval includes no change")


def test_a_period_of_a_few_days_takes_storms_for_the_groups_of_counts() -> None:
    storm = np.repeat([0.1, 1.5, 2.9], 10)
    assert dispersion(Events(storm, 4)) == pytest.approx(10)
    assert dispersion(Events(np.zeros(0), 4)) == 1
    assert per_day(Events(storm, 0)).per_day is None


@given(st.lists(st.floats(0, 29.99), max_size=80), st.lists(st.floats(0, 89.99), max_size=80))
def test_swapped_counts_give_the_opposite(a: list[float], b: list[float]) -> None:
    there = compare_counts(Events(np.array(a), 30), Events(np.array(b), 90))
    back = compare_counts(Events(np.array(b), 90), Events(np.array(a), 30))
    opposite = {CountVerdict.FEWER: CountVerdict.MORE, CountVerdict.MORE: CountVerdict.FEWER}
    assert back.verdict is opposite.get(there.verdict, there.verdict)
    if there.low and there.high and there.ratio:
        assert there.low <= there.ratio <= there.high
        assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low))


@given(st.integers(1, 50), st.floats(1, 20))
def test_a_share_of_fewer_independent_ones_has_a_wider_interval(n: int, effect: float) -> None:
    for k in (0, n // 3, n):
        alone, grouped = share(k, n), share(k, n, effect)
        assert grouped[0] - 1e-12 <= alone[0] <= k / n + 1e-12 <= alone[1] + 2e-12
        assert alone[1] <= grouped[1] + 1e-12
    assert share(1, n, math.inf) == (0, 1)


# — how often a verdict is wrong —


@dataclass(frozen=True, slots=True)
class Case:
    """How long incidents take, and which belong to one storm; `shared` is the σ of what those have in common."""

    durations: Callable[[Random, int], Floats]  # logarithms of seconds
    storms: Callable[[Random, int], Ints]  # the storm of each incident
    shared: float = 0.0
    censored: bool = False
    rounded: bool = False


def lognormal(random: Random, n: int) -> Floats:
    return random.normal(math.log(2700), 1.5, n)


def own(random: Random, n: int) -> Floats:
    return random.normal(math.log(2700), 1.1, n)


def pareto(random: Random, n: int) -> Floats:
    return math.log(300) - np.log1p(-random.random(n)) / 0.9


def bimodal(random: Random, n: int) -> Floats:
    return np.where(random.random(n) < 0.6, math.log(300), math.log(20_000)) + random.normal(0, 1, n)


def alone(_: Random, n: int) -> Ints:
    return np.arange(n)


def of_size(mean: int) -> Callable[[Random, int], Ints]:
    """Sizes are geometric."""

    def sized(random: Random, n: int) -> Ints:
        return np.cumsum(random.random(n) < 1 / mean)

    return sized


def half_in_storms(random: Random, n: int) -> Ints:
    return np.concatenate((of_size(4)(random, n // 2), n + np.arange(n - n // 2)))


def one_giant(_: Random, n: int) -> Ints:
    return np.maximum(0, np.arange(n) - n // 3)


INDEPENDENT, STORMS = Case(lognormal, alone), Case(own, of_size(4), shared=1.0)
CASES = {
    "independent": (INDEPENDENT, INDEPENDENT),
    "rounded to minutes": (replace(INDEPENDENT, rounded=True),) * 2,
    "Pareto": (Case(pareto, alone),) * 2,
    "bimodal": (Case(bimodal, alone),) * 2,
    "independent, censored": (replace(INDEPENDENT, censored=True),) * 2,
    "storms 1.0": (STORMS, STORMS),
    "storms 0.5": (replace(STORMS, shared=0.5),) * 2,
    "storms 1.0, censored": (replace(STORMS, censored=True),) * 2,
    "storms 0.5, censored": (replace(STORMS, shared=0.5, censored=True),) * 2,
    "A in storms, B not": (STORMS, Case(own, alone, shared=1.0)),
    "A in storms, B not, censored": (replace(STORMS, censored=True), Case(own, alone, shared=1.0, censored=True)),
    "storms of ten": (Case(own, of_size(10), shared=1.0),) * 2,
    "half in storms": (Case(own, half_in_storms, shared=1.0),) * 2,
    "one giant storm": (Case(own, one_giant, shared=1.0),) * 2,
}
DAYS = 90


def drawn(random: Random, case: Case, n: int, *, days: int = DAYS, times: float = 1.0) -> Sample:
    storm = np.unique(case.storms(random, n), return_inverse=True)[1]
    count = int(storm.max()) + 1
    began = random.uniform(0, days * DAY, count)[storm] + random.exponential(1800, n)
    logs = case.durations(random, n) + case.shared * random.normal(size=count)[storm] + math.log(times)
    lasted = np.exp(logs)
    if case.rounded:
        lasted = np.maximum(60, np.round(lasted / 60) * 60)
    watched = random.lognormal(math.log(2700 * 6), 1.5, n) if case.censored else np.full(n, np.inf)
    return a_sample(np.minimum(lasted, watched), lasted <= watched, MONDAY + began, days)


def verdicts(runs: int, n: int, a: Case, b: Case, *, times: float = 1.0) -> list[Comparison]:
    random = np.random.default_rng([runs, n, *map(ord, repr((a, b))[-20:])])
    return [compare(drawn(random, a, n), drawn(random, b, n, times=times)) for _ in range(runs)]


RUNS = 500
# With a true rate of at most 5 %, more than this occurs once in ten thousand sets of runs.
WRONG_AT_MOST = int(stats.binom.ppf(0.9999, RUNS, 0.05))


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 50, 150, 300])
@pytest.mark.parametrize("name", CASES)
def test_a_change_is_rarely_reported_when_there_is_none(name: str, n: int) -> None:
    found = verdicts(RUNS, n, *CASES[name])
    wrong = sum(each.verdict is not Trend.CANNOT_TELL for each in found)
    assert wrong <= WRONG_AT_MOST
    if name == "independent" and n >= 50:
        assert wrong  # a test that never gives a verdict would pass too


@pytest.mark.slow
@pytest.mark.parametrize("name", ["independent", "independent, censored", "rounded to minutes"])
def test_a_halving_among_100_independent_incidents_is_found(name: str) -> None:
    runs = 300
    halved, doubled = ([each.verdict for each in verdicts(runs, 100, *CASES[name], times=times)] for times in (0.5, 2))
    assert halved.count(Trend.BETTER) >= 0.7 * runs
    assert doubled.count(Trend.WORSE) >= 0.7 * runs
    assert (halved.count(Trend.WORSE), doubled.count(Trend.BETTER)) == (0, 0)


@pytest.mark.slow
def test_the_interval_holds_the_true_change_in_storms() -> None:
    held = [
        each.effect.low <= 0.5 <= each.effect.high
        for each in verdicts(RUNS, 150, STORMS, STORMS, times=0.5)
        if each.effect
    ]
    assert len(held) == RUNS
    assert 0.92 < sum(held) / RUNS <= 1


@pytest.mark.slow
def test_bad_weeks_are_seen_only_by_weeks() -> None:
    """Weeks whose level differs, σ 0.5 of the logarithm: storms alone take it for change."""
    random = np.random.default_rng(8)

    def side() -> Sample:
        began = random.uniform(0, DAYS * DAY, 300)
        logs = lognormal(random, 300) + random.normal(0, 0.5, 14)[(began / (7 * DAY)).astype(np.int64)]
        return a_sample(np.exp(logs), np.ones(300), MONDAY + began, DAYS)

    found = [compare(side(), side()) for _ in range(RUNS)]
    by_storms = sum(each.by[Clustering.STORMS].is_change for each in found)
    assert sum(each.verdict is not Trend.CANNOT_TELL for each in found) <= WRONG_AT_MOST
    assert by_storms > 0.1 * RUNS


# — how often a verdict about counts is wrong —


def occurred(random: Random, expected: float, size: int, days: float) -> Events:
    storms = random.uniform(0, days, random.poisson(expected / size))
    at = np.repeat(storms, size) + random.exponential(1 / 48, len(storms) * size)
    return Events(at[at < days], days)


@pytest.mark.slow
@pytest.mark.parametrize("days", [30, 90])
@pytest.mark.parametrize("sizes", [(1, 1), (4, 4), (10, 10), (4, 1)], ids=str)
@pytest.mark.parametrize("expected", [20, 50, 150, 300])
def test_more_incidents_are_rarely_reported_when_there_are_not(
    expected: int, sizes: tuple[int, int], days: int
) -> None:
    random = np.random.default_rng([expected, *sizes, days])
    found = [compare_counts(*(occurred(random, expected, size, days) for size in sizes)) for _ in range(RUNS)]
    assert sum(each.verdict is not CountVerdict.CANNOT_TELL for each in found) <= WRONG_AT_MOST


@pytest.mark.slow
def test_half_as_many_independent_incidents_are_found() -> None:
    random = np.random.default_rng(1)
    found = [compare_counts(occurred(random, 100, 1, DAYS), occurred(random, 50, 1, DAYS)) for _ in range(RUNS)]
    assert sum(each.verdict is CountVerdict.FEWER for each in found) > 0.9 * RUNS


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4])
def test_the_interval_of_incidents_per_day_holds_the_true_rate(size: int) -> None:
    random, held = np.random.default_rng(size), 0
    for _ in range(RUNS):
        rate = per_day(occurred(random, 150, size, DAYS))
        assert rate.low is not None
        assert rate.high is not None
        held += rate.low <= 150 / DAYS <= rate.high
    assert 0.92 < held / RUNS <= 0.995
