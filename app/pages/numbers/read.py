"""What the page of numbers reads, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Invalid
from app.base.process.threads import off_loop
from app.incidents.impact.columns import impact_columns
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.measures import Weights
from app.incidents.measures.store import CalendarNotFound, read_business_hours
from app.metrics.api.query import bounds_in
from app.metrics.comparison.periods import Periods, Wanted, read_periods
from app.metrics.deployments.causes import read_dora
from app.metrics.deployments.dora import Dora
from app.metrics.query import HORIZON, MetricsQuery
from app.metrics.summary.store import Incidents
from app.metrics.whatif.scenario import Adjustment, Adjustments, WhatIf, move, what_if
from app.pages.numbers.query import NumbersQuery
from app.settings import Settings

MEASURES = ("time_to_detect", "time_to_acknowledge", "time_to_recover")
FASTER = Adjustment(factor=Fraction(8, 10))


@dataclass(frozen=True, slots=True)
class Choices:
    """The names that filters offer."""

    services: Sequence[str]
    calendars: Sequence[str]


@dataclass(frozen=True, slots=True)
class Read:
    choices: Choices
    periods: Periods
    delivery: Dora
    faster: WhatIf | None  # None: it cannot be computed for one environment


async def read_choices(session: AsyncSession) -> Choices:
    rows = (await (await session.connection()).execute(_NAMES)).all()
    return Choices(
        [name for kind, name in rows if kind == "service"], [name for kind, name in rows if kind == "calendar"]
    )


async def read_numbers(session: AsyncSession, asked: NumbersQuery, *, now: datetime, settings: Settings) -> Read:
    """Raises Invalid, also for an unknown calendar, TooMuchMaintenance and TooManyHours."""
    tx = await session.connection()
    choices = await read_choices(session)
    query = MetricsQuery(
        asked.period,
        asked.filters,
        measures=frozenset(MEASURES),
        bounds=bounds_in(settings),
        calendar=None if asked.calendar is None else await _hours(session, asked.calendar),
    )
    wanted = Wanted(dots=MEASURES, horizon=HORIZON, measures_of_services=("time_to_recover",))
    periods = await read_periods(tx, query, asked.previous, wanted, now=now, weights=settings.impact)
    delivery, _ = await read_dora(
        tx, asked.period, services=asked.filters.service, environments=asked.filters.environment
    )
    faster = None
    if asked.environment is None:
        faster = await off_loop(_faster, periods.read, query, now=now, weights=settings.impact)
    return Read(choices, periods, delivery, faster)


def _faster(read: Incidents, query: MetricsQuery, *, now: datetime, weights: Weights) -> WhatIf:
    """As REST computes it, for incidents of the severity that was asked for, at the cost of all."""
    changes = Adjustments(time_to_recover=FASTER, severity=query.filters.severity)
    impacts = impact_columns(read.columns, read.stretches, now=now, weights=weights)
    moved = move(read.columns, impacts, changes, query.period, now=now)
    # Ends move to earlier times only, so the maintenance that was read covers them.
    return what_if(moved, changes, read.rates, read.planned, query.period, parts_at_most=query.bounds.parts)


async def _hours(session: AsyncSession, calendar: str) -> BusinessHours:
    try:
        return await read_business_hours(await session.connection(), calendar)
    except CalendarNotFound:
        message = f"no calendar is named {calendar!r}"
        raise Invalid(message) from None


_NAMES = text("""
    SELECT 'service' AS kind, name
      FROM service
     UNION ALL
    SELECT 'calendar', name
      FROM calendar
     ORDER BY 1, 2
""")
