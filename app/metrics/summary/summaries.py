"""Computes the statistics of one measure over many incidents. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.measures.measures import NOT_ACKNOWLEDGED, MeasureStatus
from app.incidents.measures.vectorized import (
    OUTCOMES,
    Floats,
    Ints,
    MeasuredMany,
)
from app.metrics.summary import survival
from app.metrics.summary.survival import Estimates, Typical


@dataclass(frozen=True, slots=True)
class Summary:
    """`n + pending + censored + invalid + sum(excluded)` is the number of incidents. Durations in seconds.

    With fewer than `SUMMARY_FROM` recorded values, `values` lists them in ascending order and `typical` is None.
    """

    n: int
    typical: Typical | None
    values: Sequence[float] | None
    pending: int
    censored: int
    invalid: int
    excluded: Mapping[str, int]  # by reason
    estimates: Estimates | None = None
    zeros: int = 0  # of the recorded ones


def summaries(
    measured: MeasuredMany, incidents: Ints, cells: Ints, size: int, horizon: float | None = None
) -> list[Summary]:
    """The summary of the incidents in each of `size` cells.

    `typical` covers recorded values only; `estimates` include censored durations, up to `horizon`. Censored durations
    of 0 s are ignored, because they carry no information: every duration is at least 0 s.
    """
    outcome = measured.outcome[incidents]
    counts = np.bincount(cells * len(OUTCOMES) + outcome, minlength=size * len(OUTCOMES)).reshape(size, -1)
    recorded, starts = _in_order(measured.seconds[incidents], cells, size)
    all_waits = measured.waited[incidents]
    waited, waits = _in_order(np.where(all_waits > 0, all_waits, np.nan), cells, size)
    typical = survival.typicals(recorded, starts)
    found = []
    for cell, by_outcome in enumerate(counts.tolist()):
        n = by_outcome[0]
        values = recorded[starts[cell] : starts[cell + 1]]
        known = (values, waited[waits[cell] : waits[cell + 1]])
        found.append(
            Summary(
                n=n,
                typical=typical[cell],
                values=values.tolist() if n < SUMMARY_FROM else None,
                pending=sum(by_outcome[place] for place in _PENDING),
                censored=by_outcome[_CENSORED],
                invalid=sum(by_outcome[place] for place in _INVALID),
                excluded={reason: by_outcome[place] for reason, place in _EXCLUDED if by_outcome[place]},
                estimates=None if horizon is None else survival.estimates(*known, horizon),
                zeros=int(np.searchsorted(values, 0.0, "right")),
            )
        )
    return found


def _in_order(values: Floats, cells: Ints, size: int) -> tuple[Floats, Ints]:
    """The values that are numbers, ascending within each cell, and the borders of the cells."""
    known = np.isfinite(values)
    values, cells = values[known], cells[known]
    return values[np.lexsort((values, cells))], np.append(0, np.cumsum(np.bincount(cells, minlength=size)))


_CENSORED = OUTCOMES.index(NOT_ACKNOWLEDGED)
_PENDING = [place for place, each in enumerate(OUTCOMES) if each.status is MeasureStatus.PENDING]
_INVALID = [place for place, each in enumerate(OUTCOMES) if each.status is MeasureStatus.INVALID]
_EXCLUDED = sorted(
    (each.reason or "", place)
    for place, each in enumerate(OUTCOMES)
    if each.status is MeasureStatus.NOT_APPLICABLE and place != _CENSORED
)
