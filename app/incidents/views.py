"""Incidents as they are asked for: lists, evidence, timelines. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.schema import alert, incident, service_rate, source, timeline
from app.incidents.grouping.batch import PEOPLE


@dataclass(frozen=True, slots=True)
class Filters:
    """Which incidents; None or empty means all. Times are those of detection, half-open."""

    status: str | None = None
    service: str | None = None
    severity: int | None = None
    source: str | None = None
    detected_from: datetime | None = None
    detected_to: datetime | None = None
    labels: Sequence[tuple[str, str]] = ()


async def incidents(
    tx: AsyncConnection, filters: Filters, *, before: tuple[datetime, int] | None, limit: int
) -> Sequence[Any]:
    """Rows of `incident`, newest first; merged ones have left."""
    query = (
        select(incident)
        .where(incident.c.merged_into.is_(None), *_conditions(filters))
        .order_by(incident.c.began_at.desc(), incident.c.number.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(tuple_(incident.c.began_at, incident.c.number) < tuple_(*map(literal, before)))
    return (await tx.execute(query)).all()


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    detected_at = func.coalesce(incident.c.detected_at_stated, incident.c.began_at)
    match filters.status:
        case "open":
            conditions += [incident.c.ended_at.is_(None), incident.c.acknowledged_at.is_(None)]
        case "acknowledged":
            conditions += [incident.c.ended_at.is_(None), incident.c.acknowledged_at.is_not(None)]
        case "resolved":
            conditions += [incident.c.ended_at.is_not(None)]
    if filters.service is not None:
        conditions.append(func.coalesce(incident.c.service_stated, incident.c.service) == filters.service)
    if filters.severity is not None:
        conditions.append(func.coalesce(incident.c.severity_stated, incident.c.severity) == filters.severity)
    if filters.source is not None:
        # What persons declare has no source, here as in every number.
        named = (source.c.name == filters.source) & (source.c.id != PEOPLE)
        of_source = select(source.c.id).where(named).scalar_subquery()
        conditions.append(of_source == incident.c.source_ids.any_())
    if filters.detected_from is not None:
        conditions.append(detected_at >= filters.detected_from)
    if filters.detected_to is not None:
        conditions.append(detected_at < filters.detected_to)
    for name, value in filters.labels:
        evidence = (
            select(1)
            .where(_is_evidence(), alert.c.labels.cast(JSONB).contains({name: value}))
            .correlate(incident)
            .exists()
        )
        conditions.append(evidence)
    return conditions


def _is_evidence() -> ColumnElement[bool]:
    """Joins `alert` to its incident by the index on key and start."""
    return (
        (alert.c.key_id == incident.c.key_id)
        & alert.c.started_at.between(incident.c.began_at, incident.c.last_start_at)
        & (alert.c.incident_id == incident.c.id)
        & (alert.c.source_id != PEOPLE)
    )


async def alerts(
    tx: AsyncConnection, incident_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int
) -> Sequence[Any]:
    """The evidence, earliest first."""
    query = (
        select(alert, source.c.name.label("source"))
        .join_from(incident, alert, _is_evidence())
        .join(source, source.c.id == alert.c.source_id)
        .where(incident.c.id == incident_id)
        .order_by(alert.c.started_at, alert.c.series)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(alert.c.started_at, alert.c.series) > tuple_(*map(literal, after)))
    return (await tx.execute(query)).all()


async def entries(
    tx: AsyncConnection, incident_id: UUID, *, after: tuple[datetime, int] | None, limit: int
) -> Sequence[Any]:
    """The timeline, earliest first."""
    query = (
        select(timeline)
        .where(timeline.c.incident_id == incident_id)
        .order_by(timeline.c.at, timeline.c.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(timeline.c.at, timeline.c.id) > tuple_(*map(literal, after)))
    return (await tx.execute(query)).all()


async def source_names(tx: AsyncConnection) -> Mapping[int, str]:
    return {row.id: row.name for row in await tx.execute(select(source.c.id, source.c.name))}


async def currencies(tx: AsyncConnection) -> Sequence[str]:
    """In which any service has a rate, in order."""
    columns = select(service_rate.c.currency).distinct().order_by(service_rate.c.currency)
    return (await tx.execute(columns)).scalars().all()


async def numbers(tx: AsyncConnection, ids: Sequence[UUID]) -> Mapping[UUID, int]:
    if not ids:
        return {}
    rows = await tx.execute(select(incident.c.id, incident.c.number).where(incident.c.id.in_(ids)))
    return {row.id: row.number for row in rows}
