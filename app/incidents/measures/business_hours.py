"""Business hours: a second clock, which runs only while people are at work.

Pure: no clock of its own, no I/O, no settings. One rule decides: a moment is within business hours if a clock on the
wall there shows, at that moment, a time within the hours of that weekday, on a date that is no holiday. So changes of
the clocks need no rules of their own. What the clocks skip is not there; what they show twice counts twice; where hours
end within what is shown twice (until 02:30, when 03:00 becomes 02:00), they end at 02:30 and go on from the second
02:00 to the second 02:30.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from app.incidents.measures.vectorized import Booleans, Floats, Ints

DAY_MINUTES = 24 * 60


class Hours(NamedTuple):
    """Within a day, in minutes after midnight: half-open, `ends` is `DAY_MINUTES` at most."""

    begins: int
    ends: int


@dataclass(frozen=True, slots=True)
class BusinessHours:
    """`week` has the hours of Monday to Sunday, those of a day in order and without overlap."""

    name: str
    zone: str
    week: tuple[tuple[Hours, ...], ...]
    holidays: frozenset[date] = frozenset()


@dataclass(frozen=True, slots=True)
class Clock:
    """When it runs, in order, and how long it had run before each of these times; in microseconds since 1970."""

    begins: Ints
    ends: Ints
    ran_before: Ints
    known: tuple[int, int]  # it can tell of the moments from here to there, both included


def clock(hours: BusinessHours, every: Ints) -> Clock:
    """One that can tell of these moments and all between them.

    O(days) once, so that `seconds` need not walk them: half a second for two centuries, milliseconds for a year.
    """
    known = (int(every.min()), int(every.max())) if every.size else (0, 0)
    begins, ends = (min(at, _LAST) for at in (known[0] // _SECOND, known[1] // _SECOND + 1))
    pieces = [_open_while(hours, *piece) for piece in _unchanged(ZoneInfo(hours.zone), begins, ends)]
    opens, closes = np.concatenate([_NEVER, *pieces], axis=1) * _SECOND
    return Clock(opens, closes, np.concatenate([[0], np.cumsum(closes - opens)]), known)


def seconds(clock: Clock, begins: Ints, ends: Ints) -> Floats:
    """How long the clock ran in each `[begins, ends)`; 0 where all of it was out of hours.

    O(n log days). Cutting a span in two cuts its seconds, to the microsecond.
    """
    ran: Floats = (_ran_until(clock, ends) - _ran_until(clock, begins)) / _SECOND
    return ran


def runs(clock: Clock, at: Ints) -> Booleans:
    """Whether it runs from each of these moments on."""
    return np.greater(_runs_on_for(clock, at), 0)


_EPOCH = date(1970, 1, 1)
_SECOND = 10**6
_DAY = 24 * 3600
_LAST = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())  # times beyond it are not taken; an alert may still have one
_THURSDAY = 3  # what the epoch was
_NEVER: Ints = np.empty((2, 0), np.int64)  # opens, closes


def _ran_until(clock: Clock, at: Ints) -> Ints:
    opened = np.searchsorted(clock.begins, at, "right")
    return np.subtract(clock.ran_before[opened], _runs_on_for(clock, at))


def _runs_on_for(clock: Clock, at: Ints) -> Ints:
    """Until it stops next; 0 where it does not run."""
    assert not at.size or clock.known[0] <= at.min() <= at.max() <= clock.known[1]
    opened = np.searchsorted(clock.begins, at, "right")
    return np.maximum(np.concatenate([[_BEFORE_ALL], clock.ends])[opened] - at, 0)


_BEFORE_ALL = -(2**62)


# — the wall clock, in whole seconds since the epoch —


def _unchanged(zone: ZoneInfo, begins: int, ends: int) -> Iterator[tuple[int, int, int]]:
    """`[begins, ends)` in pieces in which the zone has one offset from UTC, and that offset.

    Looked at once a day: since 1971 no zone has changed its clocks twice within six days, nor will by today's rules.
    """
    since, offset = begins, _offset(zone, begins)
    for day in range(begins, ends, _DAY):
        following = min(day + _DAY, ends)
        if _offset(zone, following) != offset:
            changed = day + bisect_left(range(day, following), True, key=lambda at: _offset(zone, at) != offset)
            yield since, changed, offset
            since, offset = changed, _offset(zone, following)
    if since < ends:
        yield since, ends, offset


def _offset(zone: ZoneInfo, at: int) -> int:
    offset = datetime.fromtimestamp(at, zone).utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)


def _open_while(hours: BusinessHours, begins: int, ends: int, offset: int) -> Ints:
    """When it opens and when it closes, within a time that has one offset from UTC."""
    days = np.arange((begins + offset) // _DAY, (ends - 1 + offset) // _DAY + 1)
    days = days[~np.isin(days, [(day - _EPOCH).days for day in hours.holidays])]
    weekdays = (days + _THURSDAY) % 7
    on_the_wall = [
        days[weekdays == weekday] * _DAY + np.array([[each.begins * 60], [each.ends * 60]])
        for weekday, of_day in enumerate(hours.week)
        for each in of_day
    ]
    # Hours do not overlap, so that each row in order is both in order.
    openings: Ints = np.clip(np.sort(np.concatenate([_NEVER, *on_the_wall], axis=1)) - offset, begins, ends)
    return openings[:, openings[0] < openings[1]]
