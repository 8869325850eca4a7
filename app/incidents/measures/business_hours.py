"""Business hours: a clock that runs only during the hours of a calendar.

Pure: no system clock, no I/O, no settings. A moment is within business hours if the local time at that moment is within
the hours of that weekday, and the date is not a holiday. Clock changes need no extra rules: skipped local times do not
exist, repeated ones count twice. If hours end within a repeated time (until 02:30, when 03:00 becomes 02:00), they run
until the first 02:30 and again from the second 02:00 to the second 02:30.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from app.base.errors import Invalid
from app.incidents.measures.vectorized import Booleans, Floats, Ints

DAY_MINUTES = 24 * 60


class Hours(NamedTuple):
    """Half-open hours within a day, in minutes after midnight; `end` is at most `DAY_MINUTES`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class BusinessHours:
    """`week` lists the hours of Monday to Sunday, each day's in order and without overlap."""

    name: str
    zone: str
    week: tuple[tuple[Hours, ...], ...]
    holidays: frozenset[date] = frozenset()


@dataclass(frozen=True, slots=True)
class Clock:
    """The times at which it runs, in order, and how long it ran before each; in microseconds (since 1970)."""

    start: Ints
    end: Ints
    ran_before: Ints
    known: tuple[int, int]  # the moments that it covers, inclusive


class TooManyHours(Invalid):
    title = "Too many business hours"


def clock(hours: BusinessHours, every: Ints, *, parts_at_most: int | None = None) -> Clock:
    """A clock that covers these moments and all between them. Raises TooManyHours.

    O(days), so that `seconds` need not iterate over days: half a second for two centuries, milliseconds for a year.
    """
    known = (int(every.min()), int(every.max())) if every.size else (0, 0)
    start, end = (min(at, _LAST) for at in (known[0] // _SECOND, known[1] // _SECOND + 1))
    openings = (end - start) // _DAY * sum(map(len, hours.week)) // 7
    if parts_at_most is not None and openings > parts_at_most:
        message = (
            f"the calendar {hours.name!r} opens about {openings} times between the earliest and the latest of these "
            f"incidents, more than AFTERMATH_QUERY_PARTS ({parts_at_most}); ask for a shorter period"
        )
        raise TooManyHours(message)
    pieces = [_open_while(hours, *piece) for piece in _unchanged(ZoneInfo(hours.zone), start, end)]
    opens, closes = np.concatenate([_NEVER, *pieces], axis=1) * _SECOND
    return Clock(opens, closes, np.concatenate([[0], np.cumsum(closes - opens)]), known)


def seconds(clock: Clock, start: Ints, end: Ints) -> Floats:
    """How long the clock ran in each `[start, end)`; 0 if all of it is outside business hours.

    O(n log days). Results are additive: the seconds of the parts of a span sum to those of the span, to the
    microsecond.
    """
    ran: Floats = (_ran_until(clock, end) - _ran_until(clock, start)) / _SECOND
    return ran


def runs(clock: Clock, at: Ints) -> Booleans:
    """Whether the clock is running at each of these moments."""
    return np.greater(_runs_on_for(clock, at), 0)


def moment_after(hours: BusinessHours, at: datetime, duration: timedelta) -> datetime | None:
    """The first moment at which the clock has run for `duration`, which is positive, since `at`.

    None if it does not run that long within the next two years.
    """
    since = (at - _UNIX) // timedelta(microseconds=1)
    known = clock(hours, np.array([since, min(since + _TWO_YEARS, _LAST * _SECOND)], np.int64))
    wanted = int(_ran_until(known, np.array([since]))[0]) + duration // timedelta(microseconds=1)
    place = int(np.searchsorted(known.ran_before, wanted)) - 1
    if place == len(known.start):
        return None
    runs_for = wanted - int(known.ran_before[place])
    return _UNIX + timedelta(microseconds=int(known.start[place]) + runs_for)


_EPOCH = date(1970, 1, 1)
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 10**6
_DAY = 24 * 3600
_TWO_YEARS = 2 * 366 * _DAY * _SECOND
# Later times are rejected by the API, but alerts may have them.
_LAST = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())
_THURSDAY = 3  # weekday of the epoch
_NEVER: Ints = np.empty((2, 0), np.int64)  # opens, closes


def _ran_until(clock: Clock, at: Ints) -> Ints:
    opened = np.searchsorted(clock.start, at, "right")
    return np.subtract(clock.ran_before[opened], _runs_on_for(clock, at))


def _runs_on_for(clock: Clock, at: Ints) -> Ints:
    """The time until the clock next stops; 0 where it is not running."""
    assert not at.size or clock.known[0] <= at.min() <= at.max() <= clock.known[1]
    opened = np.searchsorted(clock.start, at, "right")
    return np.maximum(np.concatenate([[_BEFORE_ALL], clock.end])[opened] - at, 0)


_BEFORE_ALL = -(2**62)


# — local time, in whole seconds since the epoch —


def _unchanged(zone: ZoneInfo, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Splits `[start, end)` into pieces with a constant UTC offset; yields begin, end and offset.

    Checks one moment per day: since 1971 no zone has changed its offset twice within six days, and none will under
    current rules.
    """
    since, offset = start, _offset(zone, start)
    for day in range(start, end, _DAY):
        following = min(day + _DAY, end)
        if _offset(zone, following) != offset:
            changed = day + bisect_left(range(day, following), True, key=lambda at: _offset(zone, at) != offset)
            yield since, changed, offset
            since, offset = changed, _offset(zone, following)
    if since < end:
        yield since, end, offset


def _offset(zone: ZoneInfo, at: int) -> int:
    offset = datetime.fromtimestamp(at, zone).utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)


def _open_while(hours: BusinessHours, start: int, end: int, offset: int) -> Ints:
    """The opening and closing times within a time with a constant UTC offset."""
    days = np.arange((start + offset) // _DAY, (end - 1 + offset) // _DAY + 1)
    days = days[~np.isin(days, [(day - _EPOCH).days for day in hours.holidays])]
    weekdays = (days + _THURSDAY) % 7
    on_the_wall = [
        days[weekdays == weekday] * _DAY + np.array([[each.start * 60], [each.end * 60]])
        for weekday, of_day in enumerate(hours.week)
        for each in of_day
    ]
    # Hours do not overlap, so sorting each row separately keeps pairs together.
    openings: Ints = np.clip(np.sort(np.concatenate([_NEVER, *on_the_wall], axis=1)) - offset, start, end)
    return openings[:, openings[0] < openings[1]]
