"""Planned maintenance: when it takes place, and how it is subtracted from harm.

Pure: no clock, no I/O, no settings. Harm during maintenance is not downtime, costs nothing and burns no budget; it is
shown separately. Apart from counters, results are not stored, so a maintenance window added later corrects the past.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.base.times import Span
from app.incidents.impact.intervals import Harm, union


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
    return [each for each in every if each.begins < within.ends and within.begins < each.ends]


def coming(window: Window, now: datetime) -> Span | None:
    """The current or next occurrence."""
    match window.when:
        case Span() as once:
            return once if now < once.ends else None
        case Recurrence() as rule:
            begins = max(now, datetime.combine(rule.first_date, time(), UTC) - timedelta(days=1))
            return next(iter(occurrences(window, Span(begins, begins + timedelta(days=9)))), None)


def _recurring(rule: Recurrence, within: Span) -> Iterator[Span]:
    zone = ZoneInfo(rule.zone)
    # One extra day on either side, more than any UTC offset.
    first = max(rule.first_date, (within.begins - rule.lasts).date() - timedelta(days=1))
    last = min(rule.last_date or _LAST_DATE, min(within.ends.date(), _LAST_DATE) + timedelta(days=1))
    for days in range((last - first).days + 1):
        day = first + timedelta(days=days)
        if day.weekday() in rule.weekdays:
            begins = datetime.combine(day, rule.start_time, zone).astimezone(UTC)
            yield Span(begins, begins + rule.lasts)


_LAST_DATE = date(2199, 12, 31)  # later times are rejected by the API, but alerts may have them


Planned = Mapping[str, Sequence[Span]]  # by service, as returned by `union`; services may be missing


def planned(windows: Iterable[Window], services: Iterable[str], within: Span) -> Planned:
    """The maintenance of these services that overlaps `within`."""
    found = [(window, occurrences(window, within)) for window in windows]
    found = [(window, spans) for window, spans in found if spans]
    if not found:
        return {}
    return {
        service: union(span for window, spans in found if window.concerns(service) for span in spans)
        for service in services
    }


def outside(spans: Iterable[Span], maintenance: Sequence[Span]) -> list[Span]:
    """The rest of each span outside maintenance, or an empty span. `maintenance` must be as returned by `union`."""
    if not maintenance:
        return list(spans)
    left: list[Span] = []
    for span in spans:
        pieces = list(_pieces(span, maintenance))
        left.extend(pieces or [Span(span.begins, span.begins)])
    return left


def _pieces(span: Span, maintenance: Sequence[Span]) -> Iterator[Span]:
    begins = span.begins
    for index in range(max(0, bisect_right(maintenance, (begins,)) - 1), len(maintenance)):
        break_ = maintenance[index]
        if break_.begins >= span.ends:
            break
        if begins < break_.begins:
            yield Span(begins, break_.begins)
        begins = max(begins, break_.ends)
    if begins < span.ends:
        yield Span(begins, span.ends)


def unplanned(harms: Iterable[Harm], planned: Planned) -> list[Harm]:
    """The harm outside planned maintenance. An incident with nothing left keeps an empty span, so its cost is 0 rather
    than unknown.
    """
    if not planned:
        return list(harms)
    return [
        replace(each, span=span) if span != each.span else each
        for each in harms
        for span in outside([each.span], planned.get(each.service, ()))
    ]
