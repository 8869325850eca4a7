"""Intervals of shares, compared with scipy.stats."""

import pytest
from scipy import stats

from app.incidents.definitions.shares import exact_interval, wilson_interval
from app.metrics.deployments.dora import quantile_of_tosses

CASES = [(k, n) for n in (1, 2, 5, 20, 144, 100_000) for k in sorted({0, 1, n // 3, n - 1, n})]


@pytest.mark.parametrize(("k", "n"), CASES)
def test_the_intervals_of_a_share_are_those_of_scipy(k: int, n: int) -> None:
    test = stats.binomtest(k, n)
    wilson, exact = test.proportion_ci(0.95, method="wilson"), test.proportion_ci(0.95, method="exact")
    assert wilson_interval(k, n) == pytest.approx((wilson.low, wilson.high), rel=1e-9, abs=1e-11)
    assert exact_interval(k, n) == pytest.approx((exact.low, exact.high), rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 20, 999, 100_000])
def test_the_quantiles_of_tosses_of_a_coin_are_those_of_scipy(n: int) -> None:
    for share in (0.025, 0.16, 0.84, 0.975):
        assert quantile_of_tosses(share, n) == stats.binom.ppf(share, n, 0.5), share
