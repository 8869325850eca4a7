"""SQL for reading incidents and their alerts, for the HTTP API."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, func, literal, or_, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Alert, Incident, ServiceRate, Silence, Source
from app.base.vocabulary import UNKNOWN_ENVIRONMENT
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.grouping.signal import AlertClass
from app.incidents.measures.measures import IncidentStatus

Row = TypeVar("Row")

incident, alert = Incident.__table__.c, Alert.__table__.c


@dataclass(frozen=True, slots=True)
class Filters:
    """Selects incidents; None or empty matches all. The times are a half-open interval of detection times."""

    status: frozenset[IncidentStatus] = frozenset()  # any of these
    service: str | None = None
    environment: str | None = None  # UNKNOWN_ENVIRONMENT: those without one
    severity: int | None = None
    source: str | None = None
    detected_from: datetime | None = None
    detected_to: datetime | None = None
    labels: Sequence[tuple[str, str]] = ()
    monitoring: bool | None = None  # whether they are failures of the monitoring


class Rows(NamedTuple, Generic[Row]):
    """`cut`: there are more, which would have been too large together."""

    rows: Sequence[Row]
    cut: bool


async def incidents(
    session: AsyncSession, filters: Filters, *, before: tuple[datetime, int] | None, limit: int, bytes_at_most: int
) -> Rows[Incident]:
    """Newest first, without merged incidents."""
    query = (
        select(Incident)
        .where(incident.merged_into.is_(None), *conditions_of(filters))
        .order_by(incident.began_at.desc(), incident.number.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(tuple_(incident.began_at, incident.number) < tuple_(*map(literal, before)))
    size = _size(incident.labels, incident.title, incident.key)
    fitting, cut = await _fitting(session, query.with_only_columns(size), bytes_at_most)
    return Rows((await session.exec(query.limit(fitting))).all(), cut)


def _size(*columns: ColumnElement[Any]) -> ColumnElement[int]:
    return sum((func.octet_length(column.cast(Text)) for column in columns), literal(0))


async def _fitting(session: AsyncSession, sizes: Select[Any], bytes_at_most: int) -> tuple[int, bool]:
    """How many of the rows fit, at least one, and whether any do not. Labels are far larger than anything else."""
    tx = await session.connection()
    totals = list(accumulate((await tx.execute(sizes)).scalars()))
    fitting = max(1, bisect_right(totals, bytes_at_most))
    return fitting, fitting < len(totals)


def conditions_of(filters: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    detected_at = func.coalesce(incident.detected_at_stated, incident.began_at)
    if filters.status:
        conditions.append(or_(*(_OF_STATUS[status] for status in sorted(filters.status))))
    if filters.monitoring is not None:
        conditions.append(IS_MONITORING if filters.monitoring else ~IS_MONITORING)
    properties = (
        (func.coalesce(incident.service_stated, incident.service), filters.service),
        (func.coalesce(incident.environment, UNKNOWN_ENVIRONMENT), filters.environment),
        (func.coalesce(incident.severity_stated, incident.severity), filters.severity),
    )
    conditions += [value == wanted for value, wanted in properties if wanted is not None]
    if filters.source is not None:
        # Declared incidents have no source, here as in every metric.
        named = (col(Source.name) == filters.source) & (col(Source.id) != MANUAL_SOURCE_ID)
        of_source = select(Source.id).where(named).scalar_subquery()
        conditions.append(of_source == incident.source_ids.any_())
    if filters.detected_from is not None:
        conditions.append(detected_at >= filters.detected_from)
    if filters.detected_to is not None:
        conditions.append(detected_at < filters.detected_to)
    for name, value in filters.labels:
        has_label = (
            select(1)
            .where(_belongs_to_incident(), alert.labels.cast(JSONB).contains({name: value}))
            .correlate(Incident)
            .exists()
        )
        conditions.append(has_label)
    return conditions


IS_MONITORING: ColumnElement[bool] = incident.alert_class == AlertClass.MONITORING.value
_IS_OPEN = incident.ended_at.is_(None)
_OF_STATUS = {
    IncidentStatus.OPEN: _IS_OPEN & incident.acknowledged_at.is_(None),
    IncidentStatus.ACKNOWLEDGED: _IS_OPEN & incident.acknowledged_at.is_not(None),
    IncidentStatus.RESOLVED: incident.ended_at.is_not(None),
}


def _belongs_to_incident() -> ColumnElement[bool]:
    """Joins `alert` to its incident, using the index on key and start."""
    return (
        (alert.key_id == incident.key_id)
        & alert.started_at.between(incident.began_at, incident.last_start_at)
        & (alert.incident_id == incident.id)
        & (alert.source_id != MANUAL_SOURCE_ID)
    )


async def alerts(
    session: AsyncSession, incident_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int, bytes_at_most: int
) -> Rows[tuple[Alert, str]]:
    """The alerts of an incident, earliest first, each with the name of its source."""
    query = (
        select(Alert, Source.name)
        .join_from(Incident, Alert, _belongs_to_incident())
        .join(Source, col(Source.id) == alert.source_id)
        .where(incident.id == incident_id)
        .order_by(alert.started_at, alert.series)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(alert.started_at, alert.series) > tuple_(*map(literal, after)))
    size = _size(alert.labels, alert.annotations, alert.link)
    fitting, cut = await _fitting(session, query.with_only_columns(size), bytes_at_most)
    return Rows((await session.exec(query.limit(fitting))).all(), cut)


async def silences(session: AsyncSession, row: Incident) -> Sequence[tuple[Silence, str]]:
    """The silences that suppressed alerts of the incident, earliest first, each with the name of its source."""
    query = (
        select(Silence, Source.name)
        .join(Source, col(Source.id) == col(Silence.source_id))
        .where(col(Silence.key_id) == row.key_id, col(Silence.last_seen_at) >= row.began_at)
        .order_by(col(Silence.first_seen_at), col(Silence.id))
        .limit(SILENCES_AT_MOST)
    )
    if row.ended_at is not None:
        query = query.where(col(Silence.first_seen_at) <= row.ended_at)
    return (await session.exec(query)).all()


SILENCES_AT_MOST = 20


async def held_alerts(session: AsyncSession, rows: Sequence[Incident]) -> Mapping[UUID, int]:
    """How many alerts by which people hold these incidents open; those without any are missing."""
    is_open = [row for row in rows if row.ended_at is None]
    if not is_open:
        return {}
    query = (
        select(alert.incident_id, func.count())
        .where(
            alert.key_id.in_([row.key_id for row in is_open]),
            alert.started_at >= min(row.began_at for row in is_open),
            alert.incident_id.in_([row.id for row in is_open]),
            alert.source_id == MANUAL_SOURCE_ID,
            alert.ended_at.is_(None),
        )
        .group_by(alert.incident_id)
    )
    return dict((await session.exec(query)).all())


async def source_names(session: AsyncSession) -> Mapping[int, str]:
    return dict((await session.exec(select(Source.id, Source.name))).all())


async def currencies(session: AsyncSession) -> Sequence[str]:
    """All currencies in which a service has a rate, sorted."""
    return (await session.exec(select(ServiceRate.currency).distinct().order_by(ServiceRate.currency))).all()


async def numbers(session: AsyncSession, ids: Sequence[UUID]) -> Mapping[UUID, int]:
    if not ids:
        return {}
    return dict((await session.exec(select(Incident.id, Incident.number).where(incident.id.in_(ids)))).all())
