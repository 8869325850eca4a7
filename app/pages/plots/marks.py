"""Marks: incidents on the time axis of their service, as lines that are the taller the worse.

Many are drawn as a few paths. A path is for a nested SVG with a `viewBox` of COLUMNS units by as many units as it is
pixels high, stretched to the width of the plot. Pure.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from app.base.values.arrays import Ints

COLUMNS = 200  # a line is two pixels wide, so more would cover each other
BASE = 22  # pixels
TOPS = (2, 8, 14, 17, 19)  # by severity, from sev1
SEVERE = 2  # sev1 and sev2 are darker
RESOLVED, ACKNOWLEDGED, OPEN = 0, 1, 2
_KINDS = ("", "severe", "acknowledged", "open")  # later ones are drawn above


class Path(NamedTuple):
    kind: str
    line: str


class Head(NamedTuple):
    """Marks an incident that is not resolved. x in percent, y in pixels."""

    x: float
    y: float
    is_open: bool


def paths(place: Ints, severity: Ints, status: Ints) -> tuple[Sequence[Path], Sequence[Head]]:
    """`place` is in percent of the width. Of lines of one kind in one column only the tallest is drawn: it covers the
    others.
    """
    column = np.minimum((place * COLUMNS / 100).astype(np.int64), COLUMNS - 1)
    kind = np.where(status == RESOLVED, severity <= SEVERE, status + 1).astype(np.int64)
    tallest = np.full(len(_KINDS) * COLUMNS, len(TOPS) + 1)
    np.minimum.at(tallest, kind * COLUMNS + column, severity)
    by_kind = tallest.reshape(len(_KINDS), COLUMNS)
    drawn = [Path(_KINDS[one], _line(row)) for one, row in enumerate(by_kind) if (row <= len(TOPS)).any()]
    heads = [
        Head((at + 0.5) * 100 / COLUMNS, max(4, TOPS[row[at] - 1]), one == OPEN)
        for one, row in ((ACKNOWLEDGED, by_kind[ACKNOWLEDGED + 1]), (OPEN, by_kind[OPEN + 1]))
        for at in np.flatnonzero(row <= len(TOPS)).tolist()
    ]
    return drawn, heads


def _line(severity: Ints) -> str:
    """The lines of each severity one after the other. Steps from line to line repeat, so they take few bytes."""
    parts = []
    for one, top in enumerate(TOPS, 1):
        columns = np.flatnonzero(severity == one)
        if len(columns):
            height = BASE - top
            steps = np.diff(columns).tolist()
            parts.append(f"M{columns[0]}.5 {BASE}v-{height}" + "".join(f"m{step} {height}v-{height}" for step in steps))
    return "".join(parts)
