"""Marks of many incidents: of those that would cover each other, the tallest of each kind is drawn."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.pages.plots.marks import ACKNOWLEDGED, BASE, COLUMNS, OPEN, RESOLVED, TOPS, paths

MARKS = st.lists(
    st.tuples(st.floats(0, 100), st.integers(1, 5), st.sampled_from([RESOLVED, ACKNOWLEDGED, OPEN])),
    min_size=1,
    max_size=60,
)


def drawn(line: str) -> dict[int, int]:
    """The height of the line in each column."""
    found = {}
    at, height = 0.0, 0
    for command, rest in re.findall(r"([Mmv])([^Mmv]*)", line):
        numbers = [float(each) for each in re.findall(r"-?[\d.]+", rest)]
        if command == "v":
            height = -int(numbers[0])
            found[int(at)] = height
        elif command == "M":
            at = numbers[0]
            assert numbers[1] == BASE
        else:
            at += numbers[0]
            assert numbers[1] == height  # back to the base
    return found


@given(MARKS)
def test_every_mark_is_drawn_or_covered_by_a_taller_one(marks: list[tuple[float, int, int]]) -> None:
    found, heads = paths(*(np.array(column) for column in zip(*marks, strict=True)))
    lines = {path.kind: drawn(path.line) for path in found}
    expected: dict[str, dict[int, int]] = {}
    for place, severity, status in marks:
        kind = {ACKNOWLEDGED: "acknowledged", OPEN: "open"}.get(status, "severe" if severity <= 2 else "")
        column, of_kind = min(int(place * COLUMNS / 100), COLUMNS - 1), expected.setdefault(kind, {})
        of_kind[column] = max(of_kind.get(column, 0), BASE - TOPS[severity - 1])
    assert lines == expected
    assert {(int(head.x * COLUMNS / 100), head.y, head.is_open) for head in heads} == {
        (column, max(4, BASE - height), kind == "open")
        for kind in ("acknowledged", "open")
        for column, height in expected.get(kind, {}).items()
    }
