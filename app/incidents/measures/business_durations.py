"""Measures in business hours: the same durations, measured by a clock that runs only in business hours.

Pure. A duration keeps its start, end, status and reason; only its length changes. A duration entirely outside business
hours is 0, which is an ordinary value: no one at work had to wait. A pending wait of 0 so far, however, carries no
information, because it only means "0 or more" (see `app/metrics/summary/summaries.py`).
"""

from collections.abc import Mapping

import numpy as np

from app.incidents.measures.business_hours import BusinessHours, Clock, clock, runs, seconds
from app.incidents.measures.vectorized import Booleans, Floats, Ints, MeasuredMany

_SECOND = 1e6


def in_business_hours(
    measured: Mapping[str, MeasuredMany], hours: BusinessHours, *, parts_at_most: int | None = None
) -> dict[str, MeasuredMany]:
    """Has the same keys as `measured`; values shared there are shared here. Raises TooManyHours."""
    distinct = {id(each): each for each in measured.values()}
    spans = {key: _span(each) for key, each in distinct.items()}
    moments = [np.zeros(0, np.int64), *(side for _, *both in spans.values() for side in both)]
    known = clock(hours, np.concatenate(moments), parts_at_most=parts_at_most)
    found = {key: _by(known, each, *spans[key]) for key, each in distinct.items()}
    return {name: found[id(each)] for name, each in measured.items()}


def starts_in_business_hours(each: MeasuredMany, hours: BusinessHours) -> Booleans:
    """Whether each duration or wait starts in business hours; False if there is neither."""
    places, start, _ = _span(each)
    found = np.zeros(len(each.seconds), np.bool_)
    found[places] = runs(clock(hours, start), start)
    return found


def _span(each: MeasuredMany) -> tuple[Ints, Ints, Ints]:
    """The indices of incidents with a duration or a wait, and when these start and end."""
    lasted = np.where(np.isfinite(each.seconds), each.seconds, each.waited)
    places = np.flatnonzero(np.isfinite(lasted))
    start = each.since[places]
    return places, start, start + np.rint(lasted[places] * _SECOND).astype(np.int64)


def _by(clock: Clock, each: MeasuredMany, places: Ints, start: Ints, end: Ints) -> MeasuredMany:
    ran = np.full(len(each.seconds), np.nan)
    ran[places] = seconds(clock, start, end)
    return MeasuredMany(_where(each.seconds, ran), _where(each.waited, ran), each.outcome, each.since)


def _where(known: Floats, ran: Floats) -> Floats:
    return np.where(np.isfinite(known), ran, np.nan)
