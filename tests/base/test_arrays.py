"""Sorting of columns: the results are those of the slower ways."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from app.base.values.arrays import ascending, by_key, distinct, in_order, indexed

LARGE = 2**62
PAIRS = st.lists(
    st.tuples(st.integers(0, 5), st.one_of(st.integers(-9, 9), st.sampled_from([-LARGE, LARGE, -(2**63)]))), max_size=30
)


@given(PAIRS)
@example([(5, LARGE), (0, -LARGE)])
def test_pairs_are_in_order(pairs: list[tuple[int, int]]) -> None:
    keys, values = np.array(pairs, np.int64).reshape(-1, 2).T
    order = in_order(keys, values)
    assert list(zip(keys[order].tolist(), values[order].tolist(), strict=True)) == sorted(pairs)
    assert by_key(keys, values, 6) == [sorted({value for key, value in pairs if key == one}) for one in range(6)]


@given(st.lists(st.one_of(st.integers(0, 9), st.integers(-LARGE, LARGE)), max_size=30))
def test_distinct_values_ascend_and_have_indexes(values: list[int]) -> None:
    column = np.array(values, np.int64)
    assert distinct(column).tolist() == sorted(set(values))
    places, index = indexed(column)
    assert (places.tolist(), places[index].tolist()) == (sorted(set(values)), values)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e9)), max_size=30))
def test_values_ascend_within_their_cells(pairs: list[tuple[int, float]]) -> None:
    cells, values = np.array([cell for cell, _ in pairs], np.int64), np.array([value for _, value in pairs])
    assert values[ascending(values, cells, 4)].tolist() == [value for _, value in sorted(pairs)]
    assert values[ascending(values, np.zeros_like(cells), 1)].tolist() == sorted(values.tolist())
