"""What the overview needs, in a fixed number of statements."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy import func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.values.times import Span
from app.catalog.objectives.store import budgets_left
from app.incidents.impact.availability import BudgetLeft
from app.incidents.measures.measures import IncidentStatus
from app.incidents.measures.vectorized import Booleans, microseconds
from app.incidents.reading.listing import OpenNow, open_now
from app.incidents.reading.views import IS_COUNTED, IS_MONITORING, incident
from app.ingest.health.store import SourceReading, read_all
from app.metrics.api.query import bounds_in
from app.metrics.comparison.periods import Periods, Wanted, read_periods
from app.metrics.query import HORIZON, MetricsQuery
from app.metrics.summary.numbers import Numbers
from app.reviews.store.waiting import Waiting, waiting
from app.settings import Settings

MEASURES = ("time_to_recover", "time_to_acknowledge")
OPEN_AT_MOST = 20
SERVICES_AT_MOST = 25
NAMED_MARKS_AT_MOST = 400  # more are drawn without names and links, to keep the page small


@dataclass(frozen=True, slots=True)
class Mark:
    """An incident on the time axis of its service."""

    number: int
    title: str
    service: str
    severity: int
    status: IncidentStatus
    detected_at: datetime


@dataclass(frozen=True, slots=True)
class Overview:
    sources: Sequence[SourceReading]
    open_now: OpenNow
    periods: Periods
    services: Sequence[str]  # those to show, most downtime first
    services_left_out: int
    owners: Mapping[str, str]
    budgets: Mapping[str, BudgetLeft]
    learning: Waiting
    marks: Mapping[str, Sequence[Mark]] | None  # by service, in order of detection; None: too many to name each


async def has_incidents(session: AsyncSession) -> bool:
    tx = await session.connection()
    return (await tx.execute(select(incident.id).limit(1))).first() is not None


async def read_overview(session: AsyncSession, period: Span, *, now: datetime, settings: Settings) -> Overview:
    """The period is compared with the equally long one before it."""
    previous = Span(period.start - (period.end - period.start), period.start)
    query = MetricsQuery(period, measures=frozenset(MEASURES), bounds=bounds_in(settings))
    sources = await read_all(session, now=now, quarantine_quota=settings.quarantine_bytes)
    is_open = await open_now(session, limit=OPEN_AT_MOST, now=now, weights=settings.impact)
    periods = await read_periods(
        await session.connection(),
        query,
        previous,
        Wanted(availability=True, dots=MEASURES, horizon=HORIZON, measures_of_services=()),
        now=now,
        weights=settings.impact,
    )
    services = _most_downtime_first(periods)
    names = services[:SERVICES_AT_MOST]
    budgets = await budgets_left(session, names, since=periods.in_service, now=now, weights=settings.impact)
    shown = np.flatnonzero(marked(periods, names, period))
    return Overview(
        sources=sources,
        open_now=is_open,
        periods=periods,
        services=names,
        services_left_out=len(services) - len(names),
        owners=periods.read.owners,
        learning=await waiting(session, now=now),
        budgets={budget.objective.service: budget for budget in budgets},
        marks=await _marks(session, names, period) if len(shown) <= NAMED_MARKS_AT_MOST else None,
    )


def marked(periods: Periods, names: Collection[str], period: Span) -> Booleans:
    """Which of the incidents are marks of these services: not of the monitoring, and detected in the period."""
    columns = periods.read.columns
    is_shown = np.array([name in names for name in columns.service.values], np.bool_)
    detected_at = columns.detected_at()
    start, end = map(microseconds, period)
    return is_shown[columns.service.codes] & ~columns.monitoring & (start <= detected_at) & (detected_at < end)


def _most_downtime_first(periods: Periods) -> list[str]:
    """All services; those with the same downtime by number of incidents, then by name."""
    numbers = {each.query.service: each for each in periods.services}
    names = {name for name, each in numbers.items() if not _is_of_monitoring(each)}
    names |= {name for name in periods.availability if name not in numbers}

    def order(name: str) -> tuple[timedelta, int, str]:
        each = numbers.get(name)
        return (-each.downtime, -each.incidents, name) if each else (timedelta(), 0, name)

    return sorted(names, key=order)


def _is_of_monitoring(numbers: Numbers) -> bool:
    """Whether all its incidents are failures of the monitoring, such as a missing heartbeat."""
    return 0 < numbers.incidents == numbers.monitoring


async def _marks(session: AsyncSession, names: Sequence[str], period: Span) -> Mapping[str, Sequence[Mark]]:
    tx = await session.connection()
    detected_at = func.coalesce(incident.detected_at_stated, incident.began_at)
    service = func.coalesce(incident.service_stated, incident.service)
    query = (
        select(
            incident.number,
            func.coalesce(incident.title_stated, incident.title),
            service,
            func.coalesce(incident.severity_stated, incident.severity),
            detected_at,
            incident.acknowledged_at,
            incident.ended_at,
        )
        .where(
            incident.merged_into.is_(None),
            IS_COUNTED,
            ~IS_MONITORING,
            service.in_(names),
            # Implied by the last condition; lets PostgreSQL use the indexes.
            or_(incident.began_at >= period.start, incident.detected_at_stated >= period.start),
            detected_at >= period.start,
            detected_at < period.end,
        )
        .order_by(detected_at, incident.number)
    )
    marks: dict[str, list[Mark]] = {}
    for number, title, name, severity, at, acknowledged_at, ended_at in await tx.execute(query):
        status = IncidentStatus.ACKNOWLEDGED if acknowledged_at else IncidentStatus.OPEN
        status = IncidentStatus.RESOLVED if ended_at else status
        marks.setdefault(name, []).append(Mark(number, title, name, severity, status, at))
    return marks
