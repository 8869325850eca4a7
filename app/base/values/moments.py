"""Parses times as CI systems, Git hosts and chat tools write them. Pure.

Only what is unambiguous is accepted: RFC 3339, RFC 2822, and Unix times in seconds, milli-, micro- or nanoseconds, also
as text.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from app.base.values.times import EARLIEST, EPOCH, LATEST, is_in_bounds


class NotAMoment(ValueError):
    """The message contains no text from the value."""


def moment_of(value: str | float, *, utc_by_default: bool = True) -> datetime | None:
    """The time in UTC; None for a zero time. Raises NotAMoment, also for RFC 3339 without an offset, unless that is
    read as UTC.
    """
    at: datetime | None
    text = value.strip() if isinstance(value, str) else ""
    if isinstance(value, int | float):
        at = _of_number(value)
    elif _NUMBER.fullmatch(text):
        # A date without separators (20260820, 20260820095530) would be read as a number of seconds.
        if _COMPACT_DATE.fullmatch(text):
            message = "a time is a date without separators; use RFC 3339"
            raise NotAMoment(message)
        at = _of_number(float(text) if "." in text else int(text))
    else:
        at = _of_text(text, utc_by_default=utc_by_default)
    if at is None or at < EARLIEST:  # a zero time, as Go, databases and templates write it
        return None
    if not is_in_bounds(at):
        message = f"a time is after the year {LATEST.year - 1}"
        raise NotAMoment(message)
    return at


_NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,9})?", re.ASCII)
_COMPACT_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\d{4}|\d{6})?", re.ASCII)
_RFC_3339 = re.compile(
    r"(?P<date>(?P<year>\d{4})-\d\d-\d\d)[Tt ](?P<time>\d\d:\d\d:\d\d)(?P<fraction>\.\d+)? ?"
    r"(?P<offset>[Zz]|UTC|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
# `Thu, 20 Aug 2026 09:55:30 +0000`. The zone is required, and names other than UTC's are not: CST is three zones.
_RFC_2822 = re.compile(
    r"([A-Z][a-z]{2}, )?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d(:\d\d)? ([+-]\d{4}|GMT|UTC|UT|Z)( \([A-Z]{1,5}\))?",
    re.ASCII,
)


def _of_number(number: float) -> datetime:
    """A Unix time; its unit is recognized by magnitude."""
    try:
        whole = int(number)
        for per_second in (1, 10**3, 10**6, 10**9):
            if abs(whole) < 10**11 * per_second:
                return EPOCH + timedelta(microseconds=int(number * 10**6) // per_second)
    except (ValueError, OverflowError):
        pass
    message = "a time is a number but not a valid Unix time"
    raise NotAMoment(message)


def _of_text(text: str, *, utc_by_default: bool) -> datetime | None:
    if _RFC_2822.fullmatch(text):
        return _in_calendar(lambda: parsedate_to_datetime(text.replace(" Z", " +0000")))
    shape = _RFC_3339.fullmatch(text)
    if shape is None:
        message = "a time is neither RFC 3339, RFC 2822 nor a Unix time"
        raise NotAMoment(message)
    if int(shape["year"]) < EARLIEST.year - 1:  # year 1 may overflow when converted to UTC
        return None
    if shape["offset"] is None and not utc_by_default:
        message = "a time has no offset from UTC; add `Z` if it is in UTC"
        raise NotAMoment(message)
    offset = shape["offset"] or "+00:00"
    offset = "+00:00" if offset.upper() in {"Z", "UTC"} else offset
    return _in_calendar(
        lambda: datetime.fromisoformat(f"{shape['date']}T{shape['time']}{shape['fraction'] or ''}{offset}")
    )


def _in_calendar(parsed: Callable[[], datetime]) -> datetime:
    try:
        at = parsed()
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        message = "a time does not exist in the calendar"
        raise NotAMoment(message) from None
