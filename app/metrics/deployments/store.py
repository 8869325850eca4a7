"""SQL for deployments and their reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, literal, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.errors import NotFound
from app.base.facts import Outcome, Report
from app.base.schema import Deployment, DeploymentReport, Service
from app.incidents.grouping.write import count
from app.metrics.deployments.deployment import (
    as_columns,
    as_json,
    deployment_of,
    digest_of,
    environment_of,
    from_json,
)


class DeploymentNotFound(NotFound):
    title = "Deployment not found"


# — reports —


async def report(session: AsyncSession, new: Report, *, source_id: int, now: datetime) -> tuple[Deployment, bool]:
    """Stores the report; returns the deployment combined from all its reports, and whether the report was new."""
    known = upsert(Service).values(name=new.service, first_seen_at=now, updated_at=now)
    await session.exec(known.on_conflict_do_nothing())
    first = as_columns(deployment_of([(new, now)]))
    await session.exec(upsert(Deployment).values(first_seen_at=now, updated_at=now, **first).on_conflict_do_nothing())
    # Locked, so that concurrent reports are applied one after the other.
    row = (await session.exec(select(Deployment).where(Deployment.id == new.id).with_for_update())).one()
    added = await session.exec(
        upsert(DeploymentReport)
        .values(deployment_id=new.id, digest=digest_of(new), source_id=source_id, received_at=now, report=as_json(new))
        .on_conflict_do_nothing()
    )
    if added.rowcount == 0:
        return row, False
    reports = await session.exec(select(DeploymentReport).where(DeploymentReport.deployment_id == new.id))
    whole = deployment_of((from_json(each.report), each.received_at) for each in reports)
    was_counted, was_outcome = row.counted, row.outcome
    row.sqlmodel_update(as_columns(whole) | {"updated_at": now, "counted": whole.outcome.final})
    session.add(row)
    await session.flush()
    if not was_counted and whole.outcome.final:
        await count(await session.connection(), [("deployments", whole.service, whole.outcome, 1)])
    elif was_counted and whole.outcome != was_outcome:
        await count(await session.connection(), [("history_corrections", "", "", 1)])
    return row, True


async def handle_report(tx: AsyncConnection, new: Report, *, source_id: int, now: datetime) -> tuple[str, str]:
    """Takes a report from a webhook in the caller's transaction: the id of its deployment, and the verdict."""
    async with db.session_within(tx) as session:
        row, is_new = await report(session, new, source_id=source_id, now=now)
    return row.id, "recorded" if is_new else "repeated"


# — deployments —


@dataclass(frozen=True, slots=True)
class Filters:
    """None means all. Times refer to `happened_at`, half-open."""

    service: str | None = None
    environment: str | None = None
    outcome: Outcome | None = None
    begins: datetime | None = None
    ends: datetime | None = None


async def deployments(
    session: AsyncSession, filters: Filters, *, before: tuple[datetime, str] | None, limit: int
) -> Sequence[Deployment]:
    """Newest first."""
    happened_at, id_ = col(Deployment.happened_at), col(Deployment.id)
    conditions: list[ColumnElement[bool]] = []
    if filters.service is not None:
        conditions.append(col(Deployment.service) == filters.service)
    if filters.environment is not None:
        conditions.append(col(Deployment.environment) == environment_of(filters.environment))
    if filters.outcome is not None:
        conditions.append(col(Deployment.outcome) == filters.outcome)
    if filters.begins is not None:
        conditions.append(happened_at >= filters.begins)
    if filters.ends is not None:
        conditions.append(happened_at < filters.ends)
    if before is not None:
        conditions.append(tuple_(happened_at, id_) < tuple_(*map(literal, before)))
    query = select(Deployment).where(*conditions).order_by(happened_at.desc(), id_.desc()).limit(limit)
    return (await session.exec(query)).all()


async def find(session: AsyncSession, id_: str) -> Deployment:
    """Raises DeploymentNotFound."""
    row = await session.get(Deployment, id_)
    if row is None:
        message = "no deployment has this id; GET /api/v1/deployments lists all deployments"
        raise DeploymentNotFound(message)
    return row
