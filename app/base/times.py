"""Time arithmetic: half-open spans, and whole microseconds, which are exact and fast to compare."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HOUR_MICROSECONDS = 3600 * 10**6


class Span(NamedTuple):
    """`[begins, ends)`; empty unless it begins before it ends."""

    begins: datetime
    ends: datetime
