"""Computes the statistics of one measure over many incidents. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from app.base.values.arrays import ascending
from app.incidents.definitions.model import SUMMARY_FROM
from app.incidents.measures.measures import MeasureStatus
from app.incidents.measures.vectorized import (
    CENSORED,
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


@dataclass(frozen=True, slots=True)
class EstimateBasis:
    """The basis of estimates: a horizon in seconds, when each incident began (in microseconds since 1970), and how much
    of each period has passed. The cells go through the periods again and again.
    """

    horizon: float
    detected_at: Ints
    observed: Sequence[timedelta]


def summaries(
    measured: MeasuredMany, incidents: Ints, cells: Ints, size: int, estimate: EstimateBasis | None = None
) -> list[Summary]:
    """The summary of the incidents in each of `size` cells.

    `typical` covers recorded values only; `estimates` include censored durations, up to the horizon. Censored durations
    of 0 s are ignored, because they carry no information: every duration is at least 0 s.
    """
    outcome = measured.outcome[incidents]
    counts = np.bincount(cells * len(OUTCOMES) + outcome, minlength=size * len(OUTCOMES)).reshape(size, -1)
    recorded, starts, order = _in_order(measured.seconds[incidents], cells, size)
    all_waits = measured.waited[incidents]
    waited, waits, waiting_order = _in_order(np.where(all_waits > 0, all_waits, np.nan), cells, size)

    def estimated(cell: int, asked: EstimateBasis) -> Estimates | None:
        happened, waiting = slice(starts[cell], starts[cell + 1]), slice(waits[cell], waits[cell + 1])
        rows = incidents[np.concatenate((order[happened], waiting_order[waiting]))]
        return survival.estimates(
            recorded[happened],
            waited[waiting],
            asked.horizon,
            began=asked.detected_at[rows] / 1e6,
            observed=asked.observed[cell % len(asked.observed)],
        )

    typical = survival.typicals(recorded, starts)
    found = []
    for cell, by_outcome in enumerate(counts.tolist()):
        n = by_outcome[0]
        values = recorded[starts[cell] : starts[cell + 1]]
        found.append(
            Summary(
                n=n,
                typical=typical[cell],
                values=values.tolist() if n < SUMMARY_FROM else None,
                pending=sum(by_outcome[place] for place in _PENDING),
                censored=sum(by_outcome[place] for place in CENSORED),
                invalid=sum(by_outcome[place] for place in _INVALID),
                excluded={reason: by_outcome[place] for reason, place in _EXCLUDED if by_outcome[place]},
                estimates=None if estimate is None else estimated(cell, estimate),
                zeros=int(np.searchsorted(values, 0.0, "right")),
            )
        )
    return found


def _in_order(values: Floats, cells: Ints, size: int) -> tuple[Floats, Ints, Ints]:
    """The values that are numbers, ascending within each cell, the borders of the cells, and where they were."""
    known = np.flatnonzero(np.isfinite(values))
    cells = cells[known]
    order = known[ascending(values[known], cells, size)]
    return values[order], np.append(0, np.cumsum(np.bincount(cells, minlength=size))), order


_PENDING = [place for place, each in enumerate(OUTCOMES) if each.status is MeasureStatus.PENDING]
_INVALID = [place for place, each in enumerate(OUTCOMES) if each.status is MeasureStatus.INVALID]
_EXCLUDED = sorted(
    (each.reason or "", place)
    for place, each in enumerate(OUTCOMES)
    if each.status is MeasureStatus.NOT_APPLICABLE and place not in CENSORED
)
