"""Time arithmetic: half-open spans, whole microseconds, which are exact and fast to compare, and the bounds of all
times that the service takes.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HOUR_MICROSECONDS = 3600 * 10**6


# Every time that comes from outside is at or after EARLIEST and before LATEST, in UTC: that of an alert as well as that
# of a query. So a zero time is never taken for a real one, and no sum or difference of times and durations overflows.
EARLIEST, LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def is_in_bounds(at: datetime) -> bool:
    return EARLIEST <= at < LATEST


class Span(NamedTuple):
    """`[start, end)`; empty unless it begins before it ends."""

    start: datetime
    end: datetime
