"""Incidents as rows of a list: what one line shows, with its measures and cost, and what is open now."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, func, literal, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from app.incidents.impact.individual import Impact, impacts_of
from app.incidents.impact.intervals import Shown
from app.incidents.measures.measures import (
    FACTS,
    Facts,
    IncidentStatus,
    Measured,
    Weights,
    detected_at,
    measures,
    service,
    severity,
    status,
)
from app.incidents.reading.views import IS_COUNTED, IS_MONITORING, Filters, conditions_of, incident

TITLE_AT_MOST = 300  # characters
Key = tuple[datetime, int]  # `began_at` and number


@dataclass(frozen=True, slots=True)
class ListedIncident:
    """`end_reason` is None while it is open. Pending measures have `censored_seconds`: how long they have lasted."""

    number: int
    title: str  # at most TITLE_AT_MOST characters
    service: str
    environment: str | None
    severity: int
    status: IncidentStatus
    declared: bool
    monitoring: bool
    test: bool
    began_at: datetime
    detected_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    resolved_at: datetime | None
    end_reason: str | None
    reopened: int
    alerts: int
    measures: Mapping[str, Measured]
    downtime: timedelta
    cost: Mapping[str, Shown]  # by currency; empty: no rate

    @property
    def key(self) -> Key:
        return self.began_at, self.number


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a list, newest first. `older` and `newer` are the keys of the pages beside it, or None."""

    rows: Sequence[ListedIncident]
    older: Key | None
    newer: Key | None


async def listed(
    session: AsyncSession,
    filters: Filters,
    *,
    before: Key | None = None,
    after: Key | None = None,
    limit: int,
    now: datetime,
    weights: Weights,
) -> Listing:
    """The newest incidents older than `before`, or the oldest ones newer than `after`. Without merged ones.

    At most five statements.
    """
    key = tuple_(incident.began_at, incident.number)
    conditions = [incident.merged_into.is_(None), *conditions_of(filters)]
    order: Sequence[ColumnElement[Any]] = (incident.began_at.desc(), incident.number.desc())
    if after is not None:
        conditions.append(key > tuple_(*map(literal, after)))
        order = (incident.began_at, incident.number)
    elif before is not None:
        conditions.append(key < tuple_(*map(literal, before)))
    query = select(*_COLUMNS).where(*conditions).order_by(*order).limit(limit + 1)
    found = (await (await session.connection()).execute(query)).all()
    has_more, found = len(found) > limit, found[:limit]
    rows = await _with_impact(session, found[::-1] if after is not None else found, now=now, weights=weights)
    if not rows:
        return Listing([], None, None)
    has_older, has_newer = (True, has_more) if after is not None else (has_more, before is not None)
    return Listing(rows, rows[-1].key if has_older else None, rows[0].key if has_newer else None)


async def count(session: AsyncSession, filters: Filters) -> int:
    """How many incidents there are, without merged ones."""
    query = select(func.count()).where(incident.merged_into.is_(None), *conditions_of(filters))
    return int((await (await session.connection()).execute(query)).scalar_one())


@dataclass(frozen=True, slots=True)
class OpenNow:
    """Open incidents: those of services, and failures of the monitoring; not acknowledged first, then the worst,
    then the oldest. The counts are of all incidents of services. Tests are left out.
    """

    rows: Sequence[ListedIncident]
    not_acknowledged: int
    acknowledged: int
    monitoring: Sequence[ListedIncident]


async def open_now(session: AsyncSession, *, limit: int = 20, now: datetime, weights: Weights) -> OpenNow:
    """At most `limit` incidents of each kind. At most five statements."""
    worst_first = (
        incident.acknowledged_at.is_not(None),
        func.coalesce(incident.severity_stated, incident.severity),
        incident.began_at,
        incident.number,
    )
    ranked = (
        select(
            *_COLUMNS,
            func.row_number().over(partition_by=IS_MONITORING, order_by=worst_first).label("place"),
            func.count().over(partition_by=IS_MONITORING).label("of_kind"),
            func.count(incident.acknowledged_at).over(partition_by=IS_MONITORING).label("acknowledged_of_kind"),
        )
        .where(incident.merged_into.is_(None), IS_COUNTED, incident.ended_at.is_(None))
        .subquery()
    )
    query = select(ranked).where(ranked.c.place <= limit).order_by(ranked.c.place)
    found = (await (await session.connection()).execute(query)).all()
    counts = {row.is_monitoring: (row.of_kind, row.acknowledged_of_kind) for row in found}
    total, acknowledged = counts.get(False, (0, 0))
    rows = await _with_impact(session, found, now=now, weights=weights)
    return OpenNow(
        [row for row in rows if not row.monitoring],
        total - acknowledged,
        acknowledged,
        [row for row in rows if row.monitoring],
    )


_SHOWN = ("id", "number", "environment", "acknowledged_by", "reopened", "alerts", "test_stated", *FACTS)
_COLUMNS = (
    *(incident[name] for name in dict.fromkeys(_SHOWN)),
    func.left(func.coalesce(incident.title_stated, incident.title), TITLE_AT_MOST).label("shown_title"),
    IS_MONITORING.label("is_monitoring"),
)


async def _with_impact(
    session: AsyncSession, rows: Iterable[Row[Any]], *, now: datetime, weights: Weights
) -> list[ListedIncident]:
    found = list(rows)
    impacts = await impacts_of(await session.connection(), found, now=now, weights=weights)
    return [_listed(row, impacts[row.id], now) for row in found]


def _listed(row: Row[Any], impact: Impact, now: datetime) -> ListedIncident:
    facts = Facts.of(row)
    return ListedIncident(
        number=row.number,
        title=row.shown_title,
        service=service(facts),
        environment=row.environment,
        severity=severity(facts),
        status=status(facts),
        declared=row.declared,
        monitoring=row.is_monitoring,
        test=bool(row.test_stated),
        began_at=row.began_at,
        detected_at=detected_at(facts),
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        resolved_at=row.ended_at,
        end_reason=row.end_reason if row.ended_at else None,
        reopened=row.reopened,
        alerts=row.alerts,
        measures=measures(facts, now=now),
        downtime=impact.downtime,
        cost=impact.cost,
    )
