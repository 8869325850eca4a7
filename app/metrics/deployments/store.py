"""SQL for deployments and their reports."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, literal, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.errors import Conflict, Invalid, NotFound
from app.base.schema import Deployment, DeploymentReport, Service, Source
from app.base.values.facts import Outcome, Report
from app.incidents.grouping.write import count
from app.metrics.deployments.deployment import (
    as_columns,
    as_json,
    contradiction,
    deployment_of,
    digest_of,
    environment_of,
    from_json,
    unchanged,
)


class DeploymentNotFound(NotFound):
    title = "Deployment not found"


class AmbiguousDeployment(Conflict):
    title = "Several deployments have this id"


class DeploymentConflict(Conflict):
    title = "Report contradicts another one"


# — reports —


async def report(
    session: AsyncSession, new: Report, *, source_id: int, now: datetime, strict: bool = False
) -> tuple[Deployment, bool]:
    """Stores the report; returns the deployment combined from all its reports, and whether the report was new.

    If `strict`, raises DeploymentConflict for a report that cannot be about the same deployment as those before.
    """
    known = upsert(Service).values(name=new.service, first_seen_at=now, updated_at=now)
    await session.exec(known.on_conflict_do_nothing())
    source = (await session.exec(select(Source.name).where(Source.id == source_id))).one()
    row = await _locked(session, new, source, now=now)
    reports = (await session.exec(select(DeploymentReport).where(DeploymentReport.deployment_id == row.id))).all()
    if digest_of(new) in {each.digest for each in reports}:
        return row, False
    received = [(from_json(each.report), each.received_at) for each in reports]
    if strict and (why := contradiction(new, (each for each, _ in received))):
        message = f"{why} for the deployment {row.id!r}; use another `id` for another deployment"
        raise DeploymentConflict(message)
    session.add(
        DeploymentReport(
            deployment_id=row.id, digest=digest_of(new), source_id=source_id, received_at=now, report=as_json(new)
        )
    )
    whole = deployment_of([*received, (new, now)], source=source)
    before = _Before(row.outcome, row.happened_at, row.rolled_back, row.counted)
    row.sqlmodel_update(as_columns(whole) | {"id": row.id, "updated_at": now})
    session.add(row)
    await session.flush()
    await _update_neighbors(session, row, before)
    return row, True


class _Before(NamedTuple):
    """Values of the row that the report may have changed."""

    outcome: str
    happened_at: datetime
    rolled_back: str | None
    counted: bool


async def _locked(session: AsyncSession, new: Report, source: str, *, now: datetime) -> Deployment:
    """The row of the deployment; concurrent reports of its service and environment wait, because each may change what
    the others are compared with.
    """
    environment = environment_of(new.environment)
    await session.exec(
        select(func.pg_advisory_xact_lock(func.hashtextextended(f"deployment {new.service} {environment}", 0)))
    )
    earlier = col(Deployment.reported_id).is_(None) & col(Deployment.id).in_([new.id, f"{source}:{new.id}"])
    query = (
        select(Deployment)
        .where(Deployment.service == new.service, Deployment.environment == environment)
        # The latter: from before migration 0010.
        .where((col(Deployment.reported_id) == new.id) & (col(Deployment.source) == source) | earlier)
        .order_by(col(Deployment.reported_id))
    )
    row = (await session.exec(query.with_for_update())).first()
    if row is None:
        whole = deployment_of([(new, now)], source=source)
        row = Deployment(**as_columns(whole), first_seen_at=now, updated_at=now)
        session.add(row)
        await session.flush()
        await session.refresh(row)
    return row


async def _update_neighbors(session: AsyncSession, row: Deployment, before: _Before) -> None:
    """Derives anew what depends on more than one deployment of the service and environment, and counts those that have
    an outcome and deployed something, each once.
    """
    tx = await session.connection()
    place = {"service": row.service, "environment": row.environment}
    since = min(row.happened_at, before.happened_at)
    ordered = (await tx.execute(_RUNNING_SINCE, place | {"since": since})).all()
    same = sorted(unchanged(ordered))
    marked = await tx.execute(_MARK_UNCHANGED, {"ids": [each.id for each in ordered], "unchanged": same})
    corrected = sum(each.counted for each in marked)
    names = {row.id, row.reported_id, row.rolled_back, before.rolled_back} - {None}
    await tx.execute(_MARK_ROLLED_BACK, place | {"names": sorted(map(str, names))})
    new = Counter(each.outcome for each in await tx.execute(_COUNTED, {"ids": [row.id, *(one.id for one in ordered)]}))
    if before.counted and before.outcome != row.outcome:
        corrected += 1
    tallies = [("deployments", row.service, outcome, number) for outcome, number in sorted(new.items())]
    if corrected:
        tallies.append(("history_corrections", "", "", corrected))
    if tallies:
        await count(tx, tallies)
    await session.refresh(row)


# From the last one before that certainly deployed something.
_RUNNING_SINCE = text("""
    SELECT id, outcome, version, sha
      FROM deployment
     WHERE service = :service
       AND environment = :environment
       AND happened_at >= coalesce((SELECT max(happened_at)
                                      FROM deployment
                                     WHERE service = :service
                                       AND environment = :environment
                                       AND outcome = 'succeeded'
                                       AND NOT unchanged
                                       AND happened_at < :since),
                                   :since)
     ORDER BY happened_at, id
""")

_MARK_UNCHANGED = text("""
    UPDATE deployment
       SET unchanged = NOT unchanged
     WHERE id = ANY(CAST(:ids AS text[]))
       AND unchanged <> (id = ANY(CAST(:unchanged AS text[])))
 RETURNING counted
""")

# An id means a deployment of the same source, if there is one.
_MARK_ROLLED_BACK = text("""
    UPDATE deployment
       SET rolled_back_by = (
               SELECT other.id
                 FROM deployment AS other
                WHERE other.service = :service
                  AND other.environment = :environment
                  AND other.id <> deployment.id
                  AND other.outcome NOT IN ('pending', 'canceled')
                  AND (   other.rolled_back = deployment.id
                       OR other.rolled_back = deployment.reported_id
                      AND (   other.source = deployment.source
                           OR NOT EXISTS (SELECT
                                            FROM deployment AS own
                                           WHERE own.service = :service
                                             AND own.environment = :environment
                                             AND own.reported_id = other.rolled_back
                                             AND own.source = other.source)))
                ORDER BY other.happened_at, other.id
                LIMIT 1)
     WHERE service = :service
       AND environment = :environment
       AND (id = ANY(CAST(:names AS text[])) OR reported_id = ANY(CAST(:names AS text[])))
""")


_COUNTED = text("""
    UPDATE deployment
       SET counted = true
     WHERE id = ANY(CAST(:ids AS text[]))
       AND NOT counted
       AND NOT unchanged
       AND finished_at IS NOT NULL
 RETURNING outcome
""")


async def handle_report(tx: AsyncConnection, new: Report, *, source_id: int, now: datetime) -> tuple[str, str]:
    """Takes a report from a webhook in the caller's transaction: the key of its deployment, and the verdict."""
    async with db.session_within(tx) as session:
        row, is_new = await report(session, new, source_id=source_id, now=now)
    return row.id, "recorded" if is_new else "repeated"


async def source_named(session: AsyncSession, name: str) -> int:
    """Raises Invalid."""
    found = (await session.exec(select(Source.id).where(Source.name == name))).first()
    if found is None:
        message = f"there is no source {name!r}; GET /api/v1/sources lists them"
        raise Invalid(message)
    return found


# — deployments —


@dataclass(frozen=True, slots=True)
class Filters:
    """Any of the services, environments and outcomes; none means all. Times refer to `happened_at`, half-open."""

    service: Sequence[str] = ()
    environment: Sequence[str] = ()  # a word that names none stands for those without one
    outcome: Sequence[Outcome] = ()
    start: datetime | None = None
    end: datetime | None = None
    text: str | None = None  # in the id, the version or the hash, whatever the case


async def deployments(
    session: AsyncSession, filters: Filters, *, after: Sequence[Any] | None, oldest_first: bool = False, limit: int
) -> Sequence[Deployment]:
    """Newest or oldest first. `after` is the time and the key of the last one before."""
    place = tuple_(col(Deployment.happened_at), col(Deployment.id))
    query = select(Deployment).where(*_matching(filters)).limit(limit)
    query = query.order_by(*(each if oldest_first else each.desc() for each in place))
    if after is not None:
        from_there = tuple_(*map(literal, after))
        query = query.where(place > from_there if oldest_first else place < from_there)
    return (await session.exec(query)).all()


async def count_deployments(session: AsyncSession, filters: Filters) -> int:
    return await db.total(session, select(Deployment.id).where(*_matching(filters)))


def _matching(filters: Filters) -> list[ColumnElement[bool]]:
    happened_at = col(Deployment.happened_at)
    texts = (Deployment.reported_id, Deployment.version, Deployment.sha)
    conditions = [~col(Deployment.unchanged), db.containing(filters.text, *texts)]
    if filters.service:
        conditions.append(col(Deployment.service).in_(filters.service))
    if filters.environment:
        environments = [environment_of(word) or "" for word in filters.environment]
        conditions.append(func.coalesce(col(Deployment.environment), "").in_(environments))
    if filters.outcome:
        conditions.append(col(Deployment.outcome).in_(filters.outcome))
    if filters.start is not None:
        conditions.append(happened_at >= filters.start)
    if filters.end is not None:
        conditions.append(happened_at < filters.end)
    return conditions


async def find(session: AsyncSession, key: str) -> Deployment:
    """By its key, or by the id in its reports if only one deployment has it.

    Raises DeploymentNotFound and AmbiguousDeployment.
    """
    row = await session.get(Deployment, key)
    if row is not None:
        return row
    found = (await session.exec(select(Deployment).where(col(Deployment.reported_id) == key).limit(4))).all()
    if not found:
        message = "no deployment has this key; GET /api/v1/deployments lists all deployments"
        raise DeploymentNotFound(message)
    if len(found) > 1:
        keys = ", ".join(sorted(each.id for each in found))
        message = f"several deployments have the id {key!r}; use the key of one, such as {keys}"
        raise AmbiguousDeployment(message)
    return found[0]
