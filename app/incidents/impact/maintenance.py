"""Planned maintenance: when it takes place, and how it is subtracted from impact.

Pure: no clock, no I/O, no settings. Impact during maintenance is not downtime, costs nothing and burns no budget; it is
shown separately. Apart from counters, results are not stored, so a maintenance window added later corrects the past.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from app.base.errors import Invalid
from app.base.values.times import Span
from app.incidents.impact.intervals import ImpactInterval, union


class Bounds(NamedTuple):
    """How much work one request may cause; None: as much as necessary."""

    occurrences: int | None = None  # of planned maintenance
    parts: int | None = None  # into which time is divided


UNBOUNDED = Bounds()


class TooMuchMaintenance(Invalid):
    """Raised before the work begins. The message names the bound and explains how to ask for less."""

    title = "Too much planned maintenance"


@dataclass(frozen=True, slots=True)
class Recurrence:
    """On each of `weekdays` (0 is Monday) from `first_date` to `last_date`, inclusive, at `start_time` in local time.

    As in RFC 5545, a local time skipped by a clock change uses the offset before the change, and a repeated one means
    its first occurrence. `lasts` is elapsed time, not a difference of local times.
    """

    weekdays: frozenset[int]
    start_time: time
    lasts: timedelta
    zone: str
    first_date: date
    last_date: date | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Maintenance of `services` (empty: all), once or recurring."""

    name: str
    services: frozenset[str]
    when: Span | Recurrence
    reason: str = ""

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Window":
        """Creates a window from a row of `maintenance`."""
        when: Span | Recurrence
        if row["begins_at"] is not None:
            when = Span(row["begins_at"], row["ends_at"])
        else:
            when = Recurrence(
                frozenset(row["weekdays"]),
                row["start_time"],
                timedelta(seconds=row["duration_seconds"]),
                row["zone"],
                row["first_date"],
                row["last_date"],
            )
        return cls(row["name"], frozenset(row["services"]), when, row["reason"])

    def concerns(self, service: str) -> bool:
        return not self.services or service in self.services


def occurrences(window: Window, within: Span) -> list[Span]:
    """The occurrences that overlap `within`, unclipped and in order."""
    match window.when:
        case Span() as once:
            every: Iterable[Span] = [once]
        case Recurrence() as rule:
            every = _recurring(rule, within)
    return [each for each in every if each.start < within.end and within.start < each.end]


def coming(window: Window, now: datetime) -> Span | None:
    """The current or next occurrence."""
    match window.when:
        case Span() as once:
            return once if now < once.end else None
        case Recurrence() as rule:
            start = max(now, datetime.combine(rule.first_date, time(), UTC) - timedelta(days=1))
            return next(iter(occurrences(window, Span(start, start + timedelta(days=9)))), None)


def _recurring(rule: Recurrence, within: Span) -> Iterator[Span]:
    zone = ZoneInfo(rule.zone)
    # One extra day on either side, more than any UTC offset.
    first = max(rule.first_date, (within.start - rule.lasts).date() - timedelta(days=1))
    last = min(rule.last_date or _LAST_DATE, min(within.end.date(), _LAST_DATE) + timedelta(days=1))
    for days in range((last - first).days + 1):
        day = first + timedelta(days=days)
        if day.weekday() in rule.weekdays:
            start = datetime.combine(day, rule.start_time, zone).astimezone(UTC)
            yield Span(start, start + rule.lasts)


_LAST_DATE = date(2199, 12, 31)  # later times are rejected by the API, but alerts may have them


Planned = Mapping[str, Sequence[Span]]  # by service, as returned by `union`; services may be missing


def planned(
    windows: Iterable[Window], services: Iterable[str], within: Span, *, occurrences_at_most: int | None = None
) -> Planned:
    """The maintenance of these services that overlaps `within`. Services with the same windows share the result.

    Raises TooMuchMaintenance.
    """
    every = list(windows)
    if occurrences_at_most is not None:
        about = sum(_number(window, within) for window in every)
        if about > occurrences_at_most:
            message = (
                f"planned maintenance occurs about {about} times from {within.start:%Y-%m-%d} to "
                f"{within.end:%Y-%m-%d}, more than AFTERMATH_QUERY_OCCURRENCES ({occurrences_at_most}); ask for a "
                "shorter period or for one service"
            )
            raise TooMuchMaintenance(message)
    found = [(window, occurrences(window, within)) for window in every]
    found = [(window, spans) for window, spans in found if spans]
    if not found:
        return {}
    # A window without services concerns all of them. Most services have the same windows.
    by_service: dict[str, list[int]] = defaultdict(list)
    for place, (window, _) in enumerate(found):
        for service in window.services:
            by_service[service].append(place)
    everyone = [place for place, (window, _) in enumerate(found) if not window.services]
    unions: dict[tuple[int, ...], Sequence[Span]] = {}
    shared: dict[str, Sequence[Span]] = {}
    for service in services:
        places = tuple(sorted([*everyone, *by_service.get(service, ())]))
        if places not in unions:
            unions[places] = union(span for place in places for span in found[place][1])
        shared[service] = unions[places]
    return shared


def _number(window: Window, within: Span) -> int:
    """About how often the window occurs in `within`, without computing its occurrences."""
    match window.when:
        case Span():
            return 1
        case Recurrence() as rule:
            first = max(rule.first_date, (within.start - rule.lasts).date())
            last = min(rule.last_date or _LAST_DATE, within.end.date())
            return max(0, (last - first).days + 1) * len(rule.weekdays) // 7


def outside(spans: Iterable[Span], maintenance: Sequence[Span]) -> list[Span]:
    """The rest of each span outside maintenance, or an empty span. `maintenance` must be as returned by `union`."""
    if not maintenance:
        return list(spans)
    left: list[Span] = []
    for span in spans:
        pieces = list(_pieces(span, maintenance))
        left.extend(pieces or [Span(span.start, span.start)])
    return left


def _pieces(span: Span, maintenance: Sequence[Span]) -> Iterator[Span]:
    start = span.start
    for index in range(max(0, bisect_right(maintenance, (start,)) - 1), len(maintenance)):
        break_ = maintenance[index]
        if break_.start >= span.end:
            break
        if start < break_.start:
            yield Span(start, break_.start)
        start = max(start, break_.end)
    if start < span.end:
        yield Span(start, span.end)


def unplanned(intervals: Iterable[ImpactInterval], planned: Planned) -> list[ImpactInterval]:
    """The impact outside planned maintenance. An incident with nothing left keeps an empty span, so its cost is 0
    rather than unknown.
    """
    if not planned:
        return list(intervals)
    return [
        replace(each, span=span) if span != each.span else each
        for each in intervals
        for span in outside([each.span], planned.get(each.service, ()))
    ]
