"""Availability, failure counts and error budgets of services.

Pure: no clock, no I/O, no settings. Planned maintenance counts neither as downtime nor as time in service, so it
neither burns nor earns error budget.
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
from scipy import stats

from app.base.times import Span
from app.incidents.impact.intervals import Harm, clipped, downtime, weighted
from app.incidents.impact.maintenance import Planned, unplanned
from app.incidents.impact.sweep import Pieces, Sweep, outside, pieces, union
from app.incidents.measures.measures import CONFIDENCE
from app.incidents.measures.vectorized import Columns, Harms, Ints, microseconds


class Failing(NamedTuple):
    """An incident, as input to the computation of availability."""

    number: int
    detected_at: datetime
    harm: Harm


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Availability:
    """One service in the elapsed part of `period`. `carried_in`: incidents with impact in it, detected outside it."""

    service: str
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
    def failures_interval(self) -> Interval:
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
    service: str, failing: Iterable[Failing], maintenance: Sequence[Span], period: Span, *, now: datetime
) -> Availability:
    """`failing` must include all incidents of the service with impact in the period, or detected in it.

    `maintenance` must be as returned by `union`.
    """
    passed = Span(period.begins, max(period.begins, min(period.ends, now)))
    planned = {service: maintenance}
    around = [each for each in failing if each.harm.impact > 0]
    left = unplanned((each.harm for each in around), planned)
    down = downtime((each.span for each in left), passed)
    out_of_service = downtime(maintenance, passed)
    unplanned_ones = {each.incident for each in left if each.span.begins < each.span.ends}
    harming = {each.incident for each in left if _overlap(each.span, passed)}
    detected = {each.number for each in around if period.begins <= each.detected_at < period.ends}
    return Availability(
        service=service,
        period=passed,
        maintenance=out_of_service,
        in_service=passed.ends - passed.begins - out_of_service,
        downtime=down,
        downtime_weighted=weighted(left, passed, shares=False).seconds,
        planned=downtime((each.harm.span for each in around), passed) - down,
        failures=sum(
            each.number in detected
            and (each.harm.incident in unplanned_ones or each.harm.span.begins == each.harm.span.ends)
            for each in around
        ),
        carried_in=sorted(
            each.number for each in around if each.harm.incident in harming and each.number not in detected
        ),
    )


def availabilities(
    columns: Columns, harms: Harms, services: Iterable[str], planned: Planned, period: Span, *, now: datetime
) -> list[Availability]:
    """`availability` of many services; `columns` must include all incidents with impact or detection in the period."""
    passed = Span(period.begins, max(period.begins, min(period.ends, now)))
    borders = np.array([microseconds(at) for at in passed])
    names, size = columns.service.values, len(columns.service.values)
    detected = columns.detected_at()
    is_detected = (detected >= microseconds(period.begins)) & (detected < microseconds(period.ends))
    incident, begins, ends = outside(harms, names, planned)
    cut = pieces(begins, ends, borders)
    left = Pieces(incident[cut.incident], *cut[1:])
    left = left.where((left.begins < left.ends) & (harms.impact[left.incident] > 0))
    harm = pieces(harms.begins, harms.ends, borders)
    harm = harm.where((harm.begins < harm.ends) & (harms.impact[harm.incident] > 0))
    down, down_too = (_down(each, harms, size) for each in (left, harm))
    sweep = Sweep(left, harms, names, [])
    weights = np.zeros(size, sweep.running[0].dtype)
    np.add.at(weights, sweep.moment_service, sweep.running[0])
    fails = is_detected & (harms.impact > 0) & (harms.begins == harms.ends)
    unplanned_ones = incident[begins < ends]
    fails[unplanned_ones] |= (is_detected & (harms.impact > 0))[unplanned_ones]
    failures = np.bincount(harms.service[fails], minlength=size)
    carried_in: dict[str, list[int]] = defaultdict(list)
    for each in np.unique(left.incident[~is_detected[left.incident]]).tolist():
        carried_in[names[harms.service[each]]].append(int(columns.number[each]))
    codes = {name: code for code, name in enumerate(names)}
    found = []
    for name in services:
        out_of_service, code = downtime(planned.get(name, ()), passed), codes.get(name)
        known = (0, 0, 0, 0) if code is None else (down[code], weights[code], down_too[code], failures[code])
        lasted, weight, lasted_too, count = map(int, known)
        found.append(
            Availability(
                service=name,
                period=passed,
                maintenance=out_of_service,
                in_service=passed.ends - passed.begins - out_of_service,
                downtime=timedelta(microseconds=lasted),
                downtime_weighted=Fraction(weight, harms.scale * 10**6),
                planned=timedelta(microseconds=lasted_too - lasted),
                failures=count,
                carried_in=sorted(carried_in[name]),
            )
        )
    return found


def _down(harmful: Pieces, harms: Harms, size: int) -> Ints:
    down = np.zeros(size, np.int64)
    services, lasted = union(harms.service[harmful.incident], harmful.begins, harmful.ends)
    down[services] = lasted
    return down


def poisson_interval(count: int) -> Interval:
    """The exact (Garwood) confidence interval of the mean, given `count` events."""
    tail = (1 - CONFIDENCE) / 2
    low = float(stats.gamma.ppf(tail, count)) if count else 0.0
    return Interval(low, float(stats.gamma.ppf(1 - tail, count + 1)))


# — objectives —


class Calendar(StrEnum):
    """In UTC."""

    MONTH = "month"
    QUARTER = "quarter"


@dataclass(frozen=True, slots=True)
class Objective:
    """The target availability (0 < `target` < 1) over a rolling number of days, a calendar month or a quarter."""

    service: str
    target: Decimal
    window: timedelta | Calendar
    weighted: bool

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Objective":
        """Creates an objective from a row of `objective`."""
        rolling = row["rolling_days"]
        window = Calendar(row["calendar"]) if rolling is None else timedelta(days=rolling)
        return cls(row["service"], row["target"], window, row["weighted"])

    def period(self, now: datetime) -> Span:
        """The window that contains `now`."""
        if isinstance(self.window, timedelta):
            return Span(now - self.window, now)
        months = 1 if self.window is Calendar.MONTH else 3
        month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        begins = month.replace(month=(month.month - 1) // months * months + 1)
        ends = begins
        for _ in range(months):
            ends = (ends + timedelta(days=32)).replace(day=1)
        return Span(begins, ends)


LOOKED_BACK = (timedelta(hours=1), timedelta(hours=6), timedelta(days=3))


def reach(objective: Objective, now: datetime) -> Span:
    """The time that `budget` depends on: the window, and the look-back periods of burn rates."""
    period = objective.period(now)
    return Span(min(period.begins, now - max(LOOKED_BACK)), max(period.ends, now))


@dataclass(frozen=True, slots=True)
class Budget:
    """All amounts are in seconds. `incidents` is by number, largest first, and sums exactly to `burned`."""

    objective: Objective
    period: Span
    seconds: Fraction
    burned: Fraction
    incidents: Sequence[tuple[int, Fraction]]
    burn_rates: Mapping[timedelta, Fraction | None]  # None if all of it was maintenance

    @property
    def left(self) -> Fraction:
        return self.seconds - self.burned

    @property
    def left_ratio(self) -> Fraction | None:
        """None if all of the window is maintenance, so there is no budget."""
        return self.left / self.seconds if self.seconds else None


def budget(objective: Objective, failing: Iterable[Failing], maintenance: Sequence[Span], *, now: datetime) -> Budget:
    """`failing` and `maintenance` must include everything of the service that overlaps `reach`."""
    period = objective.period(now)
    around = [each for each in failing if each.harm.impact > 0]
    numbers = {each.harm.incident: each.number for each in around}
    harms = [each.harm if objective.weighted else replace(each.harm, impact=Decimal(1)) for each in around]
    left = unplanned(harms, {objective.service: maintenance})
    burned = weighted(left, clipped(period, Span(period.begins, now)))
    spare = 1 - Fraction(objective.target)
    parts = [(numbers[incident], seconds) for incident, seconds in burned.incidents.items() if seconds]
    rates: dict[timedelta, Fraction | None] = {}
    for lookback in LOOKED_BACK:
        lately = Span(now - lookback, now)
        ratio = _available(weighted(left, lately, shares=False).seconds, _in_service(lately, maintenance))
        rates[lookback] = None if ratio is None else (1 - ratio) / spare
    return Budget(
        objective,
        period,
        spare * _seconds(_in_service(period, maintenance)),
        burned.seconds,
        sorted(parts, key=lambda part: (-part[1], part[0])),
        rates,
    )


def left_ratio(
    objective: Objective, burned: Availability, maintenance: Sequence[Span], *, now: datetime
) -> Fraction | None:
    """`Budget.left_ratio` from `burned`, the result of `availabilities` for the period of the objective."""
    seconds = (1 - Fraction(objective.target)) * _seconds(_in_service(objective.period(now), maintenance))
    down = burned.downtime_weighted if objective.weighted else _seconds(burned.downtime)
    return (seconds - down) / seconds if seconds else None


def _in_service(period: Span, maintenance: Iterable[Span]) -> timedelta:
    return period.ends - period.begins - downtime(maintenance, period)


def _available(down_seconds: Fraction, in_service: timedelta) -> Fraction | None:
    return 1 - down_seconds / _seconds(in_service) if in_service else None


def _seconds(duration: timedelta) -> Fraction:
    return Fraction(duration // timedelta(microseconds=1), 10**6)


def _overlap(span: Span, other: Span) -> bool:
    return max(span.begins, other.begins) < min(span.ends, other.ends)
