"""The results are scipy's."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from app.metrics.summary.kaplan_meier import band, survival

DURATIONS = st.lists(st.one_of(st.integers(0, 20).map(float), st.floats(0, 1e7)), max_size=40)


@given(DURATIONS, DURATIONS)
@example([1.0, 2.0, 2.0], [])
@example([1.0, 2.0, 2.0], [2.0, 3.0])
@example([], [2.0, 3.0])
@pytest.mark.filterwarnings("ignore:The confidence interval is undefined at some observations:RuntimeWarning")
def test_the_curve_and_its_band_are_those_of_scipy(recorded: list[float], censored: list[float]) -> None:
    if not recorded and not censored:
        return
    found = survival(np.array(recorded), np.array(censored))
    known = stats.ecdf(stats.CensoredData(uncensored=recorded, right=censored))
    assert found.seconds.tolist() == known.sf.quantiles.tolist()
    assert found.waiting.tolist() == known.sf.probabilities.tolist()
    assert found.passed.tolist() == known.cdf.probabilities.tolist()
    assert found.at_risk.tolist() == [sum(each >= at for each in recorded + censored) for at in found.seconds]
    assert found.happened.tolist() == [recorded.count(at) for at in found.seconds]
    limits = known.sf.confidence_interval(0.95, method="log-log")
    for ours, theirs in zip(band(found, 0.95), (limits.low, limits.high), strict=True):
        np.testing.assert_array_equal(ours, theirs.probabilities)  # type: ignore[attr-defined]
