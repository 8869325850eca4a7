"""Shared by the senders of alerts: reading each alert of a body, limiting its size, and parsing its times.

A body is read in three steps: `json.parse_envelope` finds its alerts, `read_each` iterates over them, and the sender's
own file reads one alert. It uses `json.sanitize`, `parse_time` and `normalize_times` for malformed input, and
`within_limits` for oversized input.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from heapq import nsmallest

import msgspec

from app.base.values.times import EARLIEST
from app.incidents.grouping.signal import Signal, Status
from app.ingest.sender import Part, Reading, Rejected, Unreadable

ALERTS_AT_MOST = 10_000
LABELS_AT_MOST = 100
NAME_BYTES = 1024
LABEL_BYTES = 4 * 1024
ANNOTATION_BYTES = 16 * 1024
CLOCK_SKEW = timedelta(minutes=5)


Flags = tuple[str, ...]
NULL = msgspec.Raw(b"null")


class Message(msgspec.Struct, kw_only=True, gc=False):
    """A body whose alerts are still raw. A sender with more fields extends it; unknown fields are skipped."""

    alerts: list[msgspec.Raw] | None
    left_out: msgspec.Raw = msgspec.field(default=NULL, name="truncatedAlerts")
    external_url: msgspec.Raw = msgspec.field(default=NULL, name="externalURL")
    group_key: msgspec.Raw = msgspec.field(default=NULL, name="groupKey")


def truncated(left_out: msgspec.Raw) -> int:
    """Number of alerts that the sender reports as left out; 0 if the value is not a plausible number."""
    digits = bytes(left_out)
    return int(digits) if digits.isdigit() and len(digits) < len("1000000000") else 0


def read_each(message: Message, signal_in: Callable[[bytes], Signal], part: Part | None) -> Reading:
    """Reads each alert of `message`, or only those in `part`, as a signal or a rejected part. Alerts beyond the limit
    become one rejected part.
    """
    signals: list[Signal] = []
    rejected: list[Rejected] = []
    alerts = message.alerts or []
    first, end = (0, len(alerts)) if part is None else (part.start, min(part.start + part.length, len(alerts)))
    limit = min(first + ALERTS_AT_MOST, end)
    for position in range(first, limit):
        raw = bytes(alerts[position])
        try:
            signals.append(signal_in(raw))
        except Unreadable as bad:
            rejected.append(Rejected(bad.reason, bad.detail, raw, Part(position)))
        except RecursionError:
            detail = "the alert is nested too deeply to be read"
            rejected.append(Rejected("too_deep", detail, raw, Part(position)))
        except msgspec.DecodeError:
            # Only a value that `json._shallow` took out unread can be invalid here; the rest was checked with the body.
            rejected.append(Rejected("bad_json", "the alert is not valid JSON", raw, Part(position)))
    read: Sequence[int] = range(first, limit)
    if rejected:
        unread = {one.part.start for one in rejected if one.part}
        read = [position for position in read if position not in unread]
    if beyond := alerts[limit:end]:
        raw = msgspec.json.encode(beyond)
        detail = f"{len(beyond)} alerts beyond the {ALERTS_AT_MOST} a delivery may hold"
        rejected.append(Rejected("too_many_alerts", detail, raw, Part(limit, len(beyond))))
    return Reading(
        tuple(signals),
        tuple(rejected),
        truncated(message.left_out) if part is None else 0,
        alerts=[alerts[position] for position in read],
        positions=read,
    )


def require_few_texts(json: bytes) -> None:
    """Raises Unreadable for an alert with so many labels or annotations that decoding them would take long."""
    # Nearly exact: an escaped quote ends no text, unless its backslash is escaped.
    if len(json) > _QUOTES_AT_MOST and json.count(b'"') - json.count(rb"\"") > _QUOTES_AT_MOST:
        raise Unreadable("too_many_labels", f"the alert has more than {_QUOTES_AT_MOST // 4} labels and annotations")


def within_limits(
    labels: dict[str, str], annotations: dict[str, str], link: str, *, json_bytes: int
) -> tuple[dict[str, str], dict[str, str], str, Flags]:
    """Labels, annotations and link, truncated to the limits, and flags for what was truncated. `json_bytes` is the size
    of the alert as received.
    """
    flags: Flags = ()
    if json_bytes > NAME_BYTES:  # otherwise nothing in it can be too long
        labels, long_labels = _cut_each(labels, LABEL_BYTES, json_bytes)
        annotations, long_annotations = _cut_each(annotations, ANNOTATION_BYTES, json_bytes)
        short_link = _cut(link, ANNOTATION_BYTES)
        if long_labels or long_annotations or short_link != link:
            link, flags = short_link, ("value_truncated",)
    if len(labels) > LABELS_AT_MOST:
        labels, flags = dict(nsmallest(LABELS_AT_MOST, labels.items())), (*flags, "labels_truncated")
    return labels, annotations, link, flags


def parse_time(text: str | None) -> tuple[datetime | None, Flags]:
    """Parses RFC 3339 into UTC with whole microseconds. None if there is no text, or for a zero time: anything too
    early to be stored (see `app.base.values.times`), such as Go's year 1.

    A time without an offset is read as UTC and flagged. Raises Unreadable.
    """
    if not text:
        return None, ()
    # The length also keeps the cache small: a fraction may have any number of digits.
    if len(text) > _LONGEST_TIME:
        raise Unreadable("bad_time", "a time is too long to be RFC 3339")
    return _parse_time(text)


def normalize_times(
    status: Status, started_at: datetime | None, ended_at: datetime | None, received_at: datetime
) -> tuple[datetime | None, datetime | None, Flags]:
    """Start and end as far as they are possible for an alert received at `received_at`, and flags for what was changed.

    A firing has no end; a resolve always has one. An end before the start is kept and flagged.
    """
    flags: Flags = ()
    if started_at is not None and started_at > received_at + CLOCK_SKEW:
        # No start, rather than the time of arrival: otherwise each repeat before that time would begin a new alert.
        started_at, flags = None, ("future_time",)
    if status is _FIRING:
        return started_at, None, flags
    if ended_at is None:
        ended_at, flags = received_at, (*flags, "ends_unknown")
    elif ended_at > received_at + CLOCK_SKEW:
        ended_at, flags = received_at, (*flags, "ends_clamped")
    if started_at is not None and ended_at < started_at:
        flags = (*flags, "ends_before_start")
    return started_at, ended_at, flags


_FIRING = Status.FIRING  # looked up once, because tens of thousands of alerts per second are read
_QUOTES_AT_MOST = 4 * 5_000
_NAIVE: Flags = ("naive_time",)
_CHARACTER_BYTES = 4  # at most, in UTF-8
_LONGEST_TIME = 64
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d++)?+(?:[Zz]|[+-]\d\d:?\d\d)?+", re.ASCII)
_LAST_ZERO_YEAR = "1970"  # that of Unix; one offset can make it another year


def _cut_each(texts: dict[str, str], value_bytes: int, json_bytes: int) -> tuple[dict[str, str], bool]:
    # No text is longer than the JSON that contains it.
    values_fit = json_bytes <= value_bytes or max(map(len, texts.values()), default=0) * _CHARACTER_BYTES <= value_bytes
    # A cheap check of all names together, which most alerts pass.
    names_fit = len("".join(texts)) * _CHARACTER_BYTES <= NAME_BYTES
    if values_fit and names_fit:
        return texts, False
    short = {_cut(name, NAME_BYTES): _cut(value, value_bytes) for name, value in texts.items()}
    return short, short != texts


def _cut(text: str, at_most: int) -> str:
    if len(text) * _CHARACTER_BYTES <= at_most:
        return text
    return text[:at_most].encode()[:at_most].decode(errors="ignore")


# Few times are distinct: they repeat within a batch and in repeats, and every firing has the zero time.
@lru_cache(maxsize=4096)
def _parse_time(text: str) -> tuple[datetime | None, Flags]:
    if _RFC_3339.fullmatch(text) is None:
        raise Unreadable("bad_time", "a time is not RFC 3339")
    # Go's zero time is in year 1, or in year 0 in zones west of UTC. The first may overflow when converted to UTC, and
    # Python has no year 0. So check the year first.
    if text < _LAST_ZERO_YEAR:
        return None, ()
    try:
        time = datetime.fromisoformat(text.upper())  # truncates to microseconds; does not accept a lower-case z
        if time.tzinfo is UTC:  # most senders', and `astimezone` takes as long as parsing
            flags: Flags = ()
        elif time.tzinfo is None:
            time, flags = time.replace(tzinfo=UTC), _NAIVE
        else:
            time, flags = time.astimezone(UTC), ()
    except (ValueError, OverflowError):
        raise Unreadable("bad_time", "a time does not exist in the calendar") from None
    return (time, flags) if time >= EARLIEST else (None, ())
