"""Availability, failure counts and error budgets of services.

Pure: no clock, no I/O, no settings. Planned maintenance counts neither as downtime nor as time in service, so it
neither burns nor earns error budget; nor does the time before a service came into service.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from app.base.values.arrays import distinct
from app.base.values.times import Span
from app.incidents.impact.columns import ImpactColumns
from app.incidents.impact.intervals import ImpactInterval, clipped, downtime, running, weighted
from app.incidents.impact.maintenance import Planned, unplanned
from app.incidents.impact.sweep import Pieces, Sweep, outside, pieces, union
from app.incidents.measures.measures import CONFIDENCE
from app.incidents.measures.vectorized import Columns, Ints, microseconds


class FailingIncident(NamedTuple):
    """An incident, as input to the computation of availability."""

    number: int
    detected_at: datetime
    intervals: Sequence[ImpactInterval]  # as returned by `impact_intervals`


class ConfidenceInterval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Availability:
    """One service in `period`: the part of the requested one that has elapsed while it was in service.

    `carried_in`: incidents with impact in it, detected outside it.
    """

    service: str
    in_service_since: datetime | None  # None: always
    period: Span
    maintenance: timedelta
    in_service: timedelta
    downtime: timedelta
    downtime_weighted: Fraction  # seconds
    planned: timedelta
    failures: int
    carried_in: Sequence[int]

    @property
    def ratio(self) -> Fraction | None:
        return _available(_seconds(self.downtime), self.in_service)

    @property
    def ratio_weighted(self) -> Fraction | None:
        return _available(self.downtime_weighted, self.in_service)

    @property
    def exposure(self) -> timedelta:
        """Time in service without downtime."""
        return self.in_service - self.downtime

    @property
    def failures_interval(self) -> ConfidenceInterval:
        return poisson_interval(self.failures)

    @property
    def mtbf(self) -> float | None:
        """Seconds; None (not infinity) if there was no failure."""
        return self.exposure.total_seconds() / self.failures if self.failures else None

    @property
    def mtbf_interval(self) -> tuple[float, float | None]:
        """Seconds; without a failure there is no upper bound."""
        fewest, most = self.failures_interval
        seconds = self.exposure.total_seconds()
        return seconds / most, seconds / fewest if fewest else None


def availability(
    service: str,
    failing: Iterable[FailingIncident],
    maintenance: Sequence[Span],
    period: Span,
    *,
    since: datetime | None = None,
    now: datetime,
) -> Availability:
    """`failing` must include all incidents of the service with impact in the period, or detected in it.

    `maintenance` must be as returned by `union`. Before `since` the service was not in service.
    """
    counted = from_then_on(period, since)
    passed = Span(counted.start, max(counted.start, min(counted.end, now)))
    planned = {service: maintenance}
    around = [(each, one) for each in failing for one in each.intervals if one.impact > 0]
    left = [(each, part) for each, one in around for part in unplanned([one], planned)]
    down = downtime((part.span for _, part in left), passed)
    out_of_service = downtime(maintenance, passed)
    # Impact without any duration fails, unlike impact that is all in maintenance.
    failed = {each.number for each, one in around if one.span.start == one.span.end}
    failed |= {each.number for each, part in left if part.span.start < part.span.end}
    impacting = {each.number for each, part in left if _overlap(part.span, passed)}
    detected = {each.number for each in failing if counted.start <= each.detected_at < counted.end}
    return Availability(
        service=service,
        in_service_since=since,
        period=passed,
        maintenance=out_of_service,
        in_service=passed.end - passed.start - out_of_service,
        downtime=down,
        downtime_weighted=weighted((part for _, part in left), passed, shares=False).seconds,
        planned=downtime((one.span for _, one in around), passed) - down,
        failures=len(failed & detected),
        carried_in=sorted(impacting - detected),
    )


def availabilities(
    columns: Columns,
    impacts: ImpactColumns,
    services: Iterable[str],
    planned: Planned,
    period: Span,
    *,
    since: Mapping[str, datetime],
    now: datetime,
    parts_at_most: int | None = None,
) -> list[Availability]:
    """`availability` of many services; `columns` must include all incidents with impact or detection in the period.

    Raises TooMuchMaintenance.
    """
    borders = np.array([microseconds(at) for at in (period.start, max(period.start, min(period.end, now)))])
    names, size = columns.service.values, len(columns.service.values)
    starts = np.array([microseconds(from_then_on(period, since.get(name)).start) for name in names], np.int64)
    detected = columns.detected_at()
    is_detected = (detected >= starts[columns.service.codes]) & (detected < microseconds(period.end))
    rows, start, end = outside(impacts, names, planned, parts_at_most=parts_at_most)
    cut = pieces(start, end, borders)
    left = _in_service_only(Pieces(rows[cut.row], *cut[1:]), impacts, starts)
    whole = _in_service_only(pieces(impacts.start, impacts.end, borders), impacts, starts)
    down, down_too = (_down(each, impacts, size) for each in (left, whole))
    sweep = Sweep(left, impacts, names, [])
    weights = np.zeros(size, sweep.running[0].dtype)
    np.add.at(weights, sweep.moment_service, sweep.running[0])
    # Impact without any duration fails, unlike impact that is all in maintenance.
    failing = np.concatenate((np.flatnonzero(impacts.start == impacts.end), rows[start < end]))
    failed = distinct(impacts.incident[failing[impacts.impact[failing] > 0]])
    failures = np.bincount(columns.service.codes[failed[is_detected[failed]]], minlength=size)
    carried_in: dict[str, list[int]] = defaultdict(list)
    impacting = distinct(impacts.incident[left.row])
    for each in impacting[~is_detected[impacting]].tolist():
        carried_in[names[columns.service.codes[each]]].append(int(columns.number[each]))
    codes = {name: code for code, name in enumerate(names)}
    found = []
    maintained: dict[tuple[int, Span], timedelta] = {}  # many services share the same sequence
    for name in services:
        counted = from_then_on(period, since.get(name))
        passed = Span(counted.start, max(counted.start, min(counted.end, now)))
        spans, code = planned.get(name, ()), codes.get(name)
        if (id(spans), passed) not in maintained:
            maintained[id(spans), passed] = downtime(spans, passed)
        out_of_service = maintained[id(spans), passed]
        known = (0, 0, 0, 0) if code is None else (down[code], weights[code], down_too[code], failures[code])
        lasted, weight, lasted_too, count = map(int, known)
        found.append(
            Availability(
                service=name,
                in_service_since=since.get(name),
                period=passed,
                maintenance=out_of_service,
                in_service=passed.end - passed.start - out_of_service,
                downtime=timedelta(microseconds=lasted),
                downtime_weighted=Fraction(weight, impacts.scale * 10**6),
                planned=timedelta(microseconds=lasted_too - lasted),
                failures=count,
                carried_in=sorted(carried_in[name]),
            )
        )
    return found


def from_then_on(period: Span, since: datetime | None) -> Span:
    """The part of the period after the service came into service."""
    return period if since is None else Span(min(max(period.start, since), period.end), period.end)


def _in_service_only(parts: Pieces, impacts: ImpactColumns, starts: Ints) -> Pieces:
    """The parts with impact, cut at the start of their service."""
    start = np.maximum(parts.start, starts[impacts.service[parts.row]])
    return Pieces(parts.row, start, parts.end, parts.period).where(
        (start < parts.end) & (impacts.impact[parts.row] > 0)
    )


def _down(impacting: Pieces, impacts: ImpactColumns, size: int) -> Ints:
    down = np.zeros(size, np.int64)
    services, lasted = union(impacts.service[impacting.row], impacting.start, impacting.end)
    down[services] = lasted
    return down


def poisson_interval(count: int) -> ConfidenceInterval:
    """The exact (Garwood) confidence interval of the mean, given `count` events."""
    tail = (1 - CONFIDENCE) / 2
    low = float(special.gammaincinv(count, tail)) if count else 0.0
    return ConfidenceInterval(low, float(special.gammaincinv(count + 1, 1 - tail)))


# — objectives —


class CalendarPeriod(StrEnum):
    """In UTC."""

    MONTH = "month"
    QUARTER = "quarter"


@dataclass(frozen=True, slots=True)
class Objective:
    """The target availability (0 < `target` < 1) over a rolling number of days, a calendar month or a quarter.

    Only incidents in `environment` burn its budget; None: all do.
    """

    service: str
    target: Decimal
    window: timedelta | CalendarPeriod
    weighted: bool
    environment: str | None = None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Objective":
        """Creates an objective from a row of `objective`."""
        rolling = row["rolling_days"]
        window = CalendarPeriod(row["calendar"]) if rolling is None else timedelta(days=rolling)
        return cls(row["service"], row["target"], window, row["weighted"], row["environment"])

    def period(self, now: datetime) -> Span:
        """The window that contains `now`."""
        if isinstance(self.window, timedelta):
            return Span(now - self.window, now)
        months = 1 if self.window is CalendarPeriod.MONTH else 3
        month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        start = month.replace(month=(month.month - 1) // months * months + 1)
        end = start
        for _ in range(months):
            end = (end + timedelta(days=32)).replace(day=1)
        return Span(start, end)


LOOKED_BACK = (timedelta(hours=1), timedelta(hours=6), timedelta(days=3))


def reach(objective: Objective, now: datetime) -> Span:
    """The time that `budget` depends on: the window, and the look-back periods of burn rates."""
    period = objective.period(now)
    return Span(min(period.start, now - max(LOOKED_BACK)), max(period.end, now))


@dataclass(frozen=True, slots=True)
class Budget:
    """All amounts are in seconds. `incidents` is by number, largest first, and sums exactly to `burned`.

    Only the part of `period` in which the service is in service earns budget. `course` is what was burned up to each
    moment at which the pace may change; between them it grows evenly, and the last is `burned`.
    """

    objective: Objective
    in_service_since: datetime | None  # None: always
    period: Span
    seconds: Fraction
    burned: Fraction
    incidents: Sequence[tuple[int, Fraction]]
    burn_rates: Mapping[timedelta, Fraction | None]  # None if it was never in service then
    course: Sequence[tuple[datetime, Fraction]] = ()

    @property
    def left(self) -> Fraction:
        return self.seconds - self.burned

    @property
    def left_ratio(self) -> Fraction | None:
        """None if it is never in service in the window, so there is no budget."""
        return self.left / self.seconds if self.seconds else None


def budget(
    objective: Objective,
    failing: Iterable[FailingIncident],
    maintenance: Sequence[Span],
    *,
    since: datetime | None = None,
    now: datetime,
) -> Budget:
    """`failing` and `maintenance` must include everything of the service that overlaps `reach`."""
    period = objective.period(now)
    counted = from_then_on(period, since)
    around = [(each.number, one) for each in failing for one in each.intervals if one.impact > 0]
    numbers = {one.incident: number for number, one in around}
    impacts = [one if objective.weighted else replace(one, impact=Decimal(1)) for _, one in around]
    left = unplanned(impacts, {objective.service: maintenance})
    passed = clipped(counted, Span(counted.start, now))
    burned = weighted(left, passed)
    spare = 1 - Fraction(objective.target)
    parts = [(numbers[incident], seconds) for incident, seconds in burned.incidents.items() if seconds]
    rates: dict[timedelta, Fraction | None] = {}
    for lookback in LOOKED_BACK:
        lately = from_then_on(Span(now - lookback, now), since)
        ratio = _available(weighted(left, lately, shares=False).seconds, _in_service(lately, maintenance))
        rates[lookback] = None if ratio is None else (1 - ratio) / spare
    return Budget(
        objective,
        since,
        period,
        spare * _seconds(_in_service(counted, maintenance)),
        burned.seconds,
        sorted(parts, key=lambda part: (-part[1], part[0])),
        rates,
        running(left, passed),
    )


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """The part of a `Budget` that `Availability` suffices for. All amounts are in seconds."""

    objective: Objective
    in_service_since: datetime | None  # None: always
    period: Span
    seconds: Fraction
    burned: Fraction

    @property
    def left(self) -> Fraction:
        return self.seconds - self.burned

    @property
    def left_ratio(self) -> Fraction | None:
        """None if it is never in service in the window, so there is no budget."""
        return self.left / self.seconds if self.seconds else None

    @property
    def is_overspent(self) -> bool:
        return self.left < 0


def budget_left(
    objective: Objective, burned: Availability, maintenance: Sequence[Span], *, now: datetime
) -> BudgetLeft:
    """The same amounts as `budget`, from `burned`, the result of `availabilities` for the period of the objective."""
    period = objective.period(now)
    counted = from_then_on(period, burned.in_service_since)
    return BudgetLeft(
        objective,
        burned.in_service_since,
        period,
        (1 - Fraction(objective.target)) * _seconds(_in_service(counted, maintenance)),
        burned.downtime_weighted if objective.weighted else _seconds(burned.downtime),
    )


def _in_service(period: Span, maintenance: Iterable[Span]) -> timedelta:
    return period.end - period.start - downtime(maintenance, period)


def _available(down_seconds: Fraction, in_service: timedelta) -> Fraction | None:
    return 1 - down_seconds / _seconds(in_service) if in_service else None


def _seconds(duration: timedelta) -> Fraction:
    return Fraction(duration // timedelta(microseconds=1), 10**6)


def _overlap(span: Span, other: Span) -> bool:
    return max(span.start, other.start) < min(span.end, other.end)
