"""Sorting of columns of integers. Pure.

numpy sorts one array of integers several times as fast as it sorts by two, so two are combined where they fit.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_LARGEST = 2**62
_SPARSE = 8  # values up to so many times their number are counted instead of sorted


def in_order(keys: Ints, values: Ints) -> Ints:
    """The indexes that sort by key, then by value; equal pairs in any order."""
    combined = _combined(keys, values)
    return np.lexsort((values, keys)) if combined is None else np.argsort(combined[0])


def _combined(keys: Ints, values: Ints) -> tuple[Ints, int, int] | None:
    """One integer for each pair, in the same order, with the number and the least of values; None if too large."""
    if not len(keys):
        return keys, 1, 0
    least = int(values.min())
    width = int(values.max()) - least + 1
    if max(abs(int(keys.min())), abs(int(keys.max())) + 1) * width >= _LARGEST:
        return None
    return keys * width + (values - least), width, least


def by_key(keys: Ints, values: Ints, size: int) -> list[list[int]]:
    """The distinct values of each key from 0 to `size`, ascending."""
    combined = _combined(keys, values)
    if combined is None:
        order = np.lexsort((values, keys))
        keys, values = keys[order], values[order]
        is_new = np.append(True, (keys[1:] != keys[:-1]) | (values[1:] != values[:-1]))[: len(keys)]
        keys, values = keys[is_new], values[is_new]
    else:
        pairs, width, least = combined
        keys, values = np.divmod(distinct(pairs), width)
        values += least
    borders, found = np.searchsorted(keys, np.arange(size + 1)).tolist(), values.tolist()
    return [found[first:last] for first, last in pairwise(borders)]


def distinct(values: Ints) -> Ints:
    """The distinct values, ascending."""
    if _is_dense(values):
        return np.flatnonzero(np.bincount(values))
    in_turn: Ints = np.sort(values)
    found: Ints = in_turn[np.append(True, in_turn[1:] != in_turn[:-1])[: len(in_turn)]]
    return found


def indexed(values: Ints) -> tuple[Ints, Ints]:
    """The distinct values, ascending, and the index of each value."""
    if not _is_dense(values):
        places, index = np.unique(values, return_inverse=True)
        return places, index
    known = np.bincount(values) > 0
    return np.flatnonzero(known), (np.cumsum(known) - 1)[values]


def _is_dense(values: Ints) -> bool:
    if values.dtype == object or not len(values) or values.min() < 0:
        return False
    return bool(values.max() <= _SPARSE * len(values))


def ascending(values: Floats, cells: Ints, size: int) -> Ints:
    """The indexes that sort the values within each cell, one cell after the other; equal values in any order."""
    order = np.argsort(values)
    if size == 1:
        return order
    # For integers of two bytes, numpy's stable sort counts instead of comparing.
    sorted_cells = cells[order].astype(np.uint16 if size < 2**16 else np.int64)
    return order[np.argsort(sorted_cells, kind="stable")]
