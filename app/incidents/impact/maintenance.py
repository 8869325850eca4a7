"""Planned maintenance: when it is, and what is left of harm once it is taken out.

Pure: no clock, no I/O, no settings. What falls into maintenance is no downtime, costs nothing and burns no budget; it
is shown apart. Nothing but counters is stored with it cut out, so a window that is stated later corrects the past.
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
    """On each of `weekdays` (0 is Monday) from `first_date` to `last_date`, both included, at that local time.

    A local time that the clocks skip is taken by the offset before the change, one that they show twice is the first of
    the two, as in RFC 5545. `lasts` is time that passes, not what a clock on the wall shows.
    """

    weekdays: frozenset[int]
    start_time: time
    lasts: timedelta
    zone: str
    first_date: date
    last_date: date | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Maintenance of `services`, of all if there are none, once or again and again."""

    name: str
    services: frozenset[str]
    when: Span | Recurrence
    reason: str = ""

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Window":
        """From a row of `maintenance`."""
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
    """Those that overlap `within`, whole, in order."""
    match window.when:
        case Span() as once:
            every: Iterable[Span] = [once]
        case Recurrence() as rule:
            every = _recurring(rule, within)
    return [each for each in every if each.begins < within.ends and within.begins < each.ends]


def coming(window: Window, now: datetime) -> Span | None:
    """The one that is running or begins next."""
    match window.when:
        case Span() as once:
            return once if now < once.ends else None
        case Recurrence() as rule:
            begins = max(now, datetime.combine(rule.first_date, time(), UTC) - timedelta(days=1))
            return next(iter(occurrences(window, Span(begins, begins + timedelta(days=9)))), None)


def _recurring(rule: Recurrence, within: Span) -> Iterator[Span]:
    zone = ZoneInfo(rule.zone)
    # A day more on either side than any offset of a zone can shift it.
    first = max(rule.first_date, (within.begins - rule.lasts).date() - timedelta(days=1))
    last = min(rule.last_date or _LAST_DATE, min(within.ends.date(), _LAST_DATE) + timedelta(days=1))
    for days in range((last - first).days + 1):
        day = first + timedelta(days=days)
        if day.weekday() in rule.weekdays:
            begins = datetime.combine(day, rule.start_time, zone).astimezone(UTC)
            yield Span(begins, begins + rule.lasts)


_LAST_DATE = date(2199, 12, 31)  # times beyond it are not taken; an alert may still have one


Planned = Mapping[str, Sequence[Span]]  # by service, as `union` gives them; a service without any may be missing


def planned(windows: Iterable[Window], services: Iterable[str], within: Span) -> Planned:
    """When these services are in maintenance, as far as it overlaps `within`."""
    found = [(window, occurrences(window, within)) for window in windows]
    found = [(window, spans) for window, spans in found if spans]
    if not found:
        return {}
    return {
        service: union(span for window, spans in found if window.concerns(service) for span in spans)
        for service in services
    }


def outside(spans: Iterable[Span], maintenance: Sequence[Span]) -> list[Span]:
    """What is left of each span, empty ones where nothing is. `maintenance` is as `union` gives it."""
    if not maintenance:
        return list(spans)
    left: list[Span] = []
    for span in spans:
        pieces = list(_pieces(span, maintenance))
        left.extend(pieces or [Span(span.begins, span.begins)])
    return left


def _pieces(span: Span, maintenance: Sequence[Span]) -> Iterator[Span]:
    begins = span.begins
    for place in range(max(0, bisect_right(maintenance, (begins,)) - 1), len(maintenance)):
        break_ = maintenance[place]
        if break_.begins >= span.ends:
            break
        if begins < break_.begins:
            yield Span(begins, break_.begins)
        begins = max(begins, break_.ends)
    if begins < span.ends:
        yield Span(begins, span.ends)


def unplanned(harms: Iterable[Harm], planned: Planned) -> list[Harm]:
    """The same harm without what fell into maintenance. Each incident stays, with an empty span if nothing is left, so
    that it costs 0 rather than nothing that is known.
    """
    if not planned:
        return list(harms)
    return [
        replace(each, span=span) if span != each.span else each
        for each in harms
        for span in outside([each.span], planned.get(each.service, ()))
    ]
