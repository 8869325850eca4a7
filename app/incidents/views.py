"""SQL for reading incidents and their alerts, for the HTTP API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, literal, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Alert, Incident, ServiceRate, Source
from app.incidents.grouping.batch import MANUAL_SOURCE_ID

incident, alert = Incident.__table__.c, Alert.__table__.c


@dataclass(frozen=True, slots=True)
class Filters:
    """Selects incidents; None or empty matches all. The times are a half-open interval of detection times."""

    status: str | None = None
    service: str | None = None
    severity: int | None = None
    source: str | None = None
    detected_from: datetime | None = None
    detected_to: datetime | None = None
    labels: Sequence[tuple[str, str]] = ()


async def incidents(
    session: AsyncSession, filters: Filters, *, before: tuple[datetime, int] | None, limit: int
) -> Sequence[Incident]:
    """Newest first, without merged incidents."""
    query = (
        select(Incident)
        .where(incident.merged_into.is_(None), *_conditions(filters))
        .order_by(incident.began_at.desc(), incident.number.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(tuple_(incident.began_at, incident.number) < tuple_(*map(literal, before)))
    return (await session.exec(query)).all()


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    detected_at = func.coalesce(incident.detected_at_stated, incident.began_at)
    match filters.status:
        case "open":
            conditions += [incident.ended_at.is_(None), incident.acknowledged_at.is_(None)]
        case "acknowledged":
            conditions += [incident.ended_at.is_(None), incident.acknowledged_at.is_not(None)]
        case "resolved":
            conditions += [incident.ended_at.is_not(None)]
    if filters.service is not None:
        conditions.append(func.coalesce(incident.service_stated, incident.service) == filters.service)
    if filters.severity is not None:
        conditions.append(func.coalesce(incident.severity_stated, incident.severity) == filters.severity)
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


def _belongs_to_incident() -> ColumnElement[bool]:
    """Joins `alert` to its incident, using the index on key and start."""
    return (
        (alert.key_id == incident.key_id)
        & alert.started_at.between(incident.began_at, incident.last_start_at)
        & (alert.incident_id == incident.id)
        & (alert.source_id != MANUAL_SOURCE_ID)
    )


async def alerts(
    session: AsyncSession, incident_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int
) -> Sequence[tuple[Alert, str]]:
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
    return (await session.exec(query)).all()


async def source_names(session: AsyncSession) -> Mapping[int, str]:
    return dict((await session.exec(select(Source.id, Source.name))).all())


async def currencies(session: AsyncSession) -> Sequence[str]:
    """All currencies in which a service has a rate, sorted."""
    return (await session.exec(select(ServiceRate.currency).distinct().order_by(ServiceRate.currency))).all()


async def numbers(session: AsyncSession, ids: Sequence[UUID]) -> Mapping[UUID, int]:
    if not ids:
        return {}
    return dict((await session.exec(select(Incident.id, Incident.number).where(incident.id.in_(ids)))).all())
