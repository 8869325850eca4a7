"""Periods within a period: days, weeks, months, and the hours of a week. Pure."""

from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice, pairwise

from app.base.errors import Invalid
from app.base.values.times import Span
from app.incidents.impact.intervals import clipped


def hours_of_week(period: Span, hour: int, *, last: int) -> list[Span]:
    """At most the `last` latest occurrences of this hour of the week in the period, cut at its ends."""
    monday = period.start.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=period.start.weekday())
    weeks = range((period.end - monday) // timedelta(days=7), -1, -1)
    start = (monday + timedelta(days=7 * week, hours=hour) for week in weeks)
    spans = (clipped(Span(each, each + timedelta(hours=1)), period) for each in start)
    return list(islice((span for span in spans if span.start < span.end), last))[::-1]


class Interval(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class TooManyBuckets(Invalid):
    title = "Too many buckets"


def buckets(period: Span, interval: Interval, *, at_most: int) -> list[Span]:
    """The UTC days, weeks (from Monday) or calendar months in the period, cut at its ends. Raises TooManyBuckets."""
    borders = [period.start]
    while borders[-1] < period.end:
        if len(borders) > at_most:
            message = f"the period has more than {at_most} buckets; use a shorter period or a longer interval"
            raise TooManyBuckets(message)
        borders.append(min(_next_border(borders[-1], interval), period.end))
    return [Span(*pair) for pair in pairwise(borders)]


def _next_border(after: datetime, interval: Interval) -> datetime:
    midnight = after.replace(hour=0, minute=0, second=0, microsecond=0)
    match interval:
        case Interval.DAY:
            return midnight + timedelta(days=1)
        case Interval.WEEK:
            return midnight + timedelta(days=7 - midnight.weekday())
        case Interval.MONTH:
            return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
