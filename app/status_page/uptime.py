"""The arithmetic of days: how long a component was down, and how long no one knows.

Pure: no clock, no I/O, no settings. Days are in UTC. Time that was not watched is neither up nor down.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction

from app.base.values.times import Span
from app.incidents.impact.intervals import downtime, union
from app.incidents.impact.maintenance import outside
from app.status_page.component import WEIGHTS, Status
from app.status_page.public_incident import Spell

DAYS = 90


@dataclass(frozen=True, slots=True)
class Day:
    """How much of a day has `elapsed`, how much of that was `watched`, and how much of that counts as down (`lost`).

    `down` has how long each status lasted; overlapping ones count as the worst.
    """

    day: date
    elapsed: timedelta
    watched: timedelta
    lost: Fraction  # seconds
    down: Mapping[Status, timedelta]

    @property
    def ratio(self) -> Fraction | None:
        """None if nothing of it is known."""
        return 1 - self.lost / _seconds(self.watched) if self.watched else None


def days_until(now: datetime, count: int = DAYS) -> list[date]:
    today = now.astimezone(UTC).date()
    return [today - timedelta(days=back) for back in range(count - 1, -1, -1)]


def span_of(day: date) -> Span:
    start = datetime.combine(day, time(), UTC)
    return Span(start, start + timedelta(days=1))


def availability(days: Iterable[Day]) -> Fraction | None:
    """The share of the watched time that was up; None if nothing was watched."""
    known = list(days)
    watched = sum((_seconds(day.watched) for day in known), Fraction(0))
    return 1 - sum((day.lost for day in known), Fraction(0)) / watched if watched else None


def published(spells: Iterable[Spell], since: date, *, now: datetime, count: int = DAYS) -> list[Day]:
    """By the published statuses of one component. Each moment counts with its worst status; before `since` nothing is
    known.
    """
    days = days_until(now, count)
    first = span_of(days[0]).start
    clip = [
        (max(each.start, first), min(each.end or now, now), each.status)
        for each in spells
        if each.status is not Status.OPERATIONAL
    ]
    lasted = _by_day([(start, end, status) for start, end, status in clip if start < end])
    found = []
    for day in days:
        start, end = span_of(day)
        elapsed = min(end, now) - start
        watched = elapsed if day >= since else timedelta()
        down = lasted.get(day, {}) if watched else {}
        lost = sum((WEIGHTS[status] * _seconds(time) for status, time in down.items()), Fraction(0))
        found.append(Day(day, elapsed, watched, lost, down))
    return found


def _by_day(spells: Sequence[tuple[datetime, datetime, Status]]) -> dict[date, dict[Status, timedelta]]:
    """How long the worst status of each moment lasted on each day."""
    changes: list[tuple[datetime, int, Status]] = []
    for start, end, status in spells:
        changes += [(start, 1, status), (end, -1, status)]
        midnight = span_of(start.date()).end
        while midnight < end:
            changes.append((midnight, 0, status))
            midnight += timedelta(days=1)
    running: Counter[Status] = Counter()
    found: dict[date, dict[Status, timedelta]] = {}
    last: datetime | None = None
    for at, step, status in sorted(changes, key=lambda change: change[0]):
        active = [each for each, number in running.items() if number > 0]
        if last is not None and active and last < at:
            worst = max(active, key=lambda each: (WEIGHTS[each], each.rank))
            of_day = found.setdefault(last.date(), {})
            of_day[worst] = of_day.get(worst, timedelta()) + (at - last)
        running[status] += step
        last = at
    return found


@dataclass(frozen=True, slots=True)
class MeasuredDay:
    """Measured on one day. `down` is a part of `watched`."""

    day: date
    watched: timedelta
    down: timedelta


@dataclass(frozen=True, slots=True)
class Watched:
    """When a service of a component was failing, and when it was in planned maintenance."""

    failing: Iterable[Span]
    maintenance: Iterable[Span] = ()


def measured(
    services: Iterable[Watched], blind: Iterable[Span], days: Iterable[date], *, now: datetime
) -> list[MeasuredDay]:
    """By the services of a component. `blind` are times in which no one would have noticed a failure; one that was
    noticed counts nevertheless.

    A failure of a service in its own maintenance does not count. While one is in maintenance, and no other is failing,
    the component is neither up nor down.
    """
    down, unknown = list[Span](), list(blind)
    for each in services:
        planned = union(each.maintenance)
        down += outside(each.failing, planned)
        unknown += planned
    down = union(down)
    unknown = union(outside(unknown, down))
    found = []
    for day in days:
        start, end = span_of(day)
        passed = Span(start, max(start, min(end, now)))
        of_day = downtime(down, passed)
        watched = passed.end - passed.start - downtime(unknown, passed)
        found.append(MeasuredDay(day, watched, min(of_day, watched)))
    return found


def of_measured(known: Mapping[date, MeasuredDay], since: date, *, now: datetime, count: int = DAYS) -> list[Day]:
    """The days as they were stored. A day that was never measured was not watched."""
    found = []
    for day in days_until(now, count):
        start, end = span_of(day)
        elapsed = min(end, now) - start
        each = known.get(day)
        if each is None or day < since:
            found.append(Day(day, elapsed, timedelta(), Fraction(0), {}))
            continue
        watched = min(each.watched, elapsed)
        down = min(each.down, watched)
        found.append(Day(day, elapsed, watched, _seconds(down), {Status.MAJOR_OUTAGE: down} if down else {}))
    return found


def _seconds(duration: timedelta) -> Fraction:
    return Fraction(duration // timedelta(microseconds=1), 10**6)
