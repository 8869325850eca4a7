"""Business hours: a second clock, which runs only while people are at work.

Pure: no clock of its own, no I/O, no settings. One rule decides: a moment is within business hours if a clock on the
wall there shows, at that moment, a time within the hours of that weekday, on a date that is no holiday. So changes of
the clocks need no rules of their own. What the clocks skip is not there; what they show twice counts twice; where hours
end within what is shown twice (until 02:30, when 03:00 becomes 02:00), they end at 02:30 and go on from the second
02:00 to the second 02:30.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from app.incidents.downtime import Span

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


Moments = NDArray[np.int64]  # microseconds since the epoch: exact


@dataclass(frozen=True, slots=True)
class Clock:
    """When it runs, in order, and how long it had run before each of these times."""

    begins: Moments
    ends: Moments
    ran_before: Moments
    within: Span  # it knows nothing of other times


def clock(hours: BusinessHours, within: Span) -> Clock:
    """O(days) once, so that `seconds` need not walk them: half a second for two centuries."""
    begins, ends = _microseconds(within.begins) // _SECOND, _microseconds(within.ends) // _SECOND + 1
    pieces = [_open_while(hours, *piece) for piece in _unchanged(ZoneInfo(hours.zone), begins, min(ends, _LAST))]
    opens, closes = np.concatenate([_NEVER, *pieces], axis=1) * _SECOND
    return Clock(opens, closes, np.concatenate([[0], np.cumsum(closes - opens)]), within)


def seconds(clock: Clock, spans: Sequence[Span]) -> list[float]:
    """How long the clock ran in each, which must lie within what it knows; 0 where all of it was out of hours.

    O(n log days). Cutting a span in two cuts its seconds, to the microsecond.
    """
    assert all(clock.within.begins <= each.begins and each.ends <= clock.within.ends for each in spans)
    begun, ended = (_ran_until(clock, [span[side] for span in spans]) for side in (0, 1))
    return [float(each) for each in (ended - begun) / _SECOND]


def runs(clock: Clock, moments: Sequence[datetime]) -> list[bool]:
    """Whether it runs from each of these moments on, which must lie within what it knows."""
    assert all(clock.within.begins <= each <= clock.within.ends for each in moments)
    return [bool(each) for each in _left(clock, _array(moments)) > 0]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = 10**6
_DAY = 24 * 3600
_LAST = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())  # times beyond it are not taken; an alert may still have one
_THURSDAY = 3  # what the epoch was
_NEVER: Moments = np.empty((2, 0), np.int64)  # opens, closes


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _array(moments: Iterable[datetime]) -> Moments:
    return np.array([_microseconds(at) for at in moments], np.int64)


def _ran_until(clock: Clock, moments: Iterable[datetime]) -> Moments:
    at = _array(moments)
    return np.subtract(clock.ran_before[np.searchsorted(clock.begins, at, "right")], _left(clock, at))


def _left(clock: Clock, at: Moments) -> Moments:
    """How long it still runs on without a break, 0 where it does not."""
    begun = np.searchsorted(clock.begins, at, "right")
    return np.maximum(np.concatenate([[0], clock.ends])[begun] - at, 0)


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


def _open_while(hours: BusinessHours, begins: int, ends: int, offset: int) -> Moments:
    """When it opens and when it closes, within a time that has one offset from UTC."""
    days = np.arange((begins + offset) // _DAY, (ends - 1 + offset) // _DAY + 1)
    days = days[~np.isin(days, [(day - _EPOCH.date()).days for day in hours.holidays])]
    weekdays = (days + _THURSDAY) % 7
    on_the_wall = [
        days[weekdays == weekday] * _DAY + np.array([[each.begins * 60], [each.ends * 60]])
        for weekday, of_day in enumerate(hours.week)
        for each in of_day
    ]
    # Hours do not overlap, so that each row in order is both in order.
    openings: Moments = np.clip(np.sort(np.concatenate([_NEVER, *on_the_wall], axis=1)) - offset, begins, ends)
    return openings[:, openings[0] < openings[1]]
