"""All SQL of deployments: reports, what they amount to, and what the numbers are worked out of."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import ARRAY, ColumnElement, Text, TextClause, any_, insert, literal, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.errors import NotFound
from app.base.schema import delivery, deployment, deployment_report, quarantine, service, timeline
from app.incidents import actions as people
from app.incidents.actions import Ref, Said
from app.incidents.grouping.write import count
from app.incidents.impact.rates import Rate, rate_at
from app.incidents.impact.store import COLUMNS, columns_of, rates_of, texts
from app.incidents.measures.measures import FACTS, Facts
from app.incidents.measures.vectorized import coded
from app.incidents.measures.vectorized import moment as from_microseconds
from app.metrics.deployments import dora
from app.metrics.deployments.deployment import (
    Commit,
    Deployment,
    Outcome,
    Report,
    as_json,
    deployment_of,
    digest_of,
    environment_of,
    from_json,
)
from app.metrics.deployments.dora import Dora, is_failure
from app.metrics.deployments.links import (
    DEPLOYMENT_LABEL,
    ENVIRONMENT_LABELS,
    LOOK_BACK,
    VERSION_LABELS,
    VERSION_LOOK_BACK,
    Link,
    Stated,
    Trouble,
    caused,
    links,
)
from app.metrics.deployments.source import Rejected

CAUSE = "cause"  # the kind of entry in the timeline


class DeploymentNotFound(NotFound):
    title = "No such deployment"


# — reports —


async def report(tx: AsyncConnection, said: Report, *, source_id: int, now: datetime) -> tuple[Deployment, bool]:
    """The deployment with this report among the others of it, and whether the report says anything new."""
    await tx.execute(
        upsert(service).values(name=said.service, first_seen_at=now, updated_at=now).on_conflict_do_nothing()
    )
    first = _row(deployment_of([(said, now)]))
    # The update changes nothing; it holds the row, so that of two reports at once one comes after the other.
    held = await tx.execute(
        upsert(deployment)
        .values(first_seen_at=now, updated_at=now, **first)
        .on_conflict_do_update(index_elements=["id"], set_={"id": said.id})
        .returning(deployment.c.counted, deployment.c.outcome)
    )
    was = held.one()
    added = await tx.execute(
        upsert(deployment_report)
        .values(
            deployment_id=said.id, digest=digest_of(said), source_id=source_id, received_at=now, report=as_json(said)
        )
        .on_conflict_do_nothing()
    )
    if added.rowcount == 0:
        return await find(tx, said.id), False
    rows = await tx.execute(
        select(deployment_report.c.report, deployment_report.c.received_at).where(
            deployment_report.c.deployment_id == said.id
        )
    )
    whole = deployment_of((from_json(row.report), row.received_at) for row in rows)
    await tx.execute(
        update(deployment)
        .where(deployment.c.id == said.id)
        .values(updated_at=now, counted=whole.outcome.final, **_row(whole))
    )
    if not was.counted and whole.outcome.final:
        await count(tx, [("deployments", whole.service, whole.outcome, 1)])
    elif was.counted and whole.outcome != was.outcome:
        await count(tx, [("history_corrections", "", "", 1)])
    return whole, True


async def record_delivery(
    tx: AsyncConnection,
    *,
    delivery_id: UUID,
    source_id: int,
    source: str,
    verdict: str,
    rejected: Rejected | None,
    body: bytes,
    now: datetime,
) -> None:
    """Writes the delivery down, with what could not be read, and counts it."""
    await tx.execute(
        insert(delivery).values(id=delivery_id, source_id=source_id, received_at=now, signals=0, verdicts={verdict: 1})
    )
    counts: list[tuple[str, str, str, float]] = [("last_delivery", source, "", now.timestamp())]
    if rejected is None:
        counts.append(("deliveries", source, "accepted", 1))
    else:
        await tx.execute(
            insert(quarantine).values(
                source_id=source_id,
                delivery_id=delivery_id,
                received_at=now,
                reason=rejected.reason,
                detail=rejected.detail,
                raw=body,
            )
        )
        counts += [("deliveries", source, "quarantined", 1), ("quarantined", source, rejected.reason, 1)]
    await count(tx, counts)


# — deployments —


@dataclass(frozen=True, slots=True)
class Filters:
    """None means all. Times are those at which they happened, half-open."""

    service: str | None = None
    environment: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None


async def deployments(
    tx: AsyncConnection, filters: Filters, *, before: tuple[datetime, str] | None, limit: int
) -> list[Deployment]:
    """Newest first."""
    column = deployment.c
    conditions: list[ColumnElement[bool]] = []
    if filters.service is not None:
        conditions.append(column.service == filters.service)
    if filters.environment is not None:
        conditions.append(column.environment == environment_of(filters.environment))
    if filters.outcome is not None:
        conditions.append(column.outcome == filters.outcome)
    if filters.since is not None:
        conditions.append(column.happened_at >= filters.since)
    if filters.until is not None:
        conditions.append(column.happened_at < filters.until)
    if before is not None:
        conditions.append(tuple_(column.happened_at, column.id) < tuple_(*map(literal, before)))
    query = select(deployment).where(*conditions).order_by(column.happened_at.desc(), column.id.desc()).limit(limit)
    return [_deployment(row) for row in await tx.execute(query)]


async def find(tx: AsyncConnection, id_: str) -> Deployment:
    """Raises DeploymentNotFound."""
    row = (await tx.execute(select(deployment).where(deployment.c.id == id_))).one_or_none()
    if row is None:
        message = "there is no deployment of this id; GET /api/v1/deployments lists them"
        raise DeploymentNotFound(message)
    return _deployment(row)


def _row(whole: Deployment) -> dict[str, Any]:
    return {
        "id": whole.id,
        "service": whole.service,
        "environment": whole.environment,
        "production": whole.production,
        "version": whole.version,
        "sha": whole.sha,
        "link": whole.link,
        "outcome": whole.outcome.value,
        "started_at": whole.started_at,
        "finished_at": whole.finished_at,
        "happened_at": whole.happened_at,
        "commits": [[commit.sha, commit.at.isoformat() if commit.at else None] for commit in whole.commits],
        "unplanned": whole.unplanned,
        "made_for": whole.made_for,
        "needed_intervention": whole.needed_intervention,
    }


def _deployment(row: Any) -> Deployment:
    return Deployment(
        id=row.id,
        service=row.service,
        environment=row.environment,
        production=row.production,
        version=row.version,
        sha=row.sha,
        link=row.link,
        outcome=Outcome(row.outcome),
        started_at=row.started_at,
        finished_at=row.finished_at,
        happened_at=row.happened_at,
        commits=tuple(Commit(sha, datetime.fromisoformat(at) if at else None) for sha, at in row.commits),
        unplanned=row.unplanned,
        made_for=row.made_for,
        needed_intervention=row.needed_intervention,
    )


# — causes —


@dataclass(frozen=True, slots=True)
class Cause:
    """`link` is None where no cause is known. `said` is the person's word, if one has spoken."""

    link: Link | None
    said: Said | None


async def cause(tx: AsyncConnection, ref: Ref) -> Cause:
    """What caused the incident, as far as we know. Raises people.IncidentNotFound."""
    found = await people.find(tx, ref)
    [trouble] = await _troubles(tx, _TROUBLE, {"id": found.id})
    word = (
        await tx.execute(
            select(timeline.c.at, timeline.c.by, timeline.c.note)
            .where(timeline.c.incident_id == found.id, timeline.c.kind == CAUSE)
            .order_by(timeline.c.id.desc())
            .limit(1)
        )
    ).one_or_none()
    known = await _candidates(tx, [trouble], trouble.began_at, trouble.began_at, of_service=trouble.service)
    return Cause(links([trouble], known).get(trouble.id), Said(word.at, word.by, word.note) if word else None)


async def state_cause(tx: AsyncConnection, ref: Ref, deployment_id: str | None, said: Said, *, now: datetime) -> None:
    """The last word counts. Raises DeploymentNotFound, and what people.tell raises."""
    if deployment_id is not None:
        await find(tx, deployment_id)
    await people.tell(tx, ref, CAUSE, said, detail={"deployment_id": deployment_id}, now=now)


async def _troubles(tx: AsyncConnection, query: Any, bound: dict[str, Any]) -> list[Trouble]:
    rows = (await tx.execute(query, bound)).all()
    return await asyncio.to_thread(lambda: [_trouble(row) for row in rows])


def _trouble(row: Any) -> Trouble:
    return Trouble(
        id=row.id,
        number=row.number,
        facts=Facts.of(row._mapping),
        labels=row.labels,
        deployment_ids=tuple(row.named or ()),
        stated=Stated(row.stated["deployment_id"]) if row.stated else None,
    )


async def _candidates(
    tx: AsyncConnection,
    troubles: Collection[Trouble],
    begins: datetime,
    ends: datetime,
    *,
    of_service: str | None = None,
) -> list[Deployment]:
    """Every deployment (None: of all services) that may have caused one of these, and all from `begins` to `ends`."""
    explicit = {id_ for trouble in troubles for id_ in trouble.deployment_ids}
    explicit |= {
        trouble.stated.deployment_id for trouble in troubles if trouble.stated and trouble.stated.deployment_id
    }
    # Those of which a person has spoken may lie anywhere, and are not looked for around them.
    earliest = min([begins, *(trouble.began_at for trouble in troubles if not trouble.stated)]) - VERSION_LOOK_BACK
    column = deployment.c
    # One that finished long after it began is found by its end, so the time in question is a little longer.
    around = (column.happened_at >= earliest) & (column.happened_at < ends + VERSION_LOOK_BACK + LOOK_BACK)
    query = select(deployment).where(
        (around if of_service is None else around & (column.service == of_service))
        | (column.id == any_(literal(sorted(explicit), ARRAY(Text))))
    )
    rows = (await tx.execute(query)).all()
    return await asyncio.to_thread(lambda: [_deployment(row) for row in rows])  # of a year and all services, many


_FACTS = ", ".join(f"incident.{name}" for name in FACTS)

# `named` are the deployments that the alerts name; `stated` is a person's last word.
_SELECT_TROUBLE = f"""
    SELECT incident.id, incident.number, incident.labels, {_FACTS},
           (SELECT array_agg(coalesce(alert.labels->>'{DEPLOYMENT_LABEL}', alert.annotations->>'{DEPLOYMENT_LABEL}'))
              FROM alert
             WHERE alert.key_id = incident.key_id
               AND alert.incident_id = incident.id
               AND coalesce(alert.labels->>'{DEPLOYMENT_LABEL}', alert.annotations->>'{DEPLOYMENT_LABEL}') <> '')
               AS named,
           (SELECT detail
              FROM timeline
             WHERE timeline.incident_id = incident.id
               AND timeline.kind = '{CAUSE}'
             ORDER BY timeline.id DESC
             LIMIT 1) AS stated
      FROM incident
"""  # noqa: S608

_TROUBLE = text(f"{_SELECT_TROUBLE} WHERE incident.id = :id")

_TOLD = text(f"{_SELECT_TROUBLE} WHERE incident.number = ANY(CAST(:numbers AS bigint[]))")

# Those of the period and of the week after it, whose cause may lie in it; and all that a person has spoken of. Of other
# services only those that name a deployment of the service in question. `told` are those of which
# more has to be read. Alerts that name one are few, and have an index by their text: what is not in it need not be
# looked for in its JSON. None began before the first incident in question did.
_NAMED = ", ".join(f"nullif(incident.labels->>'{name}', '')" for name in ENVIRONMENT_LABELS)
# The first condition follows from the others and is there for the indexes.
_DETECTED = """
               (   incident.began_at >= :begins AND incident.began_at < :ends
                OR incident.detected_at_stated >= :begins AND incident.detected_at_stated < :ends)
           AND coalesce(incident.detected_at_stated, incident.began_at) >= :begins
           AND coalesce(incident.detected_at_stated, incident.began_at) < :ends
"""


def _troubles_of(services: str) -> TextClause:
    return text(f"""
    WITH naming AS MATERIALIZED (
        SELECT incident_id
          FROM alert
         WHERE started_at >= least(CAST(:begins AS timestamptz),
                                   (SELECT min(began_at)
                                      FROM incident
                                     WHERE merged_into IS NULL
                                       AND detected_at_stated >= :begins
                                       AND detected_at_stated < :ends))
           AND (   CAST(labels AS text) LIKE '%{DEPLOYMENT_LABEL}%'
                OR CAST(annotations AS text) LIKE '%{DEPLOYMENT_LABEL}%')
    ), stated AS MATERIALIZED (
        SELECT incident_id
          FROM timeline
         WHERE kind = '{CAUSE}'
    )
    SELECT {COLUMNS},
           string_agg(environment, '') AS environments,
           string_agg(int4send(char_length(environment)), '') AS environment_lengths,
           string_agg(boolsend(
               incident.labels ?| CAST(:versions AS text[])
               OR incident.id IN (SELECT incident_id FROM naming)
               OR incident.id IN (SELECT incident_id FROM stated)), '') AS told
      FROM incident
     CROSS JOIN LATERAL (SELECT coalesce({_NAMED}, '') AS environment OFFSET 0) AS named
     WHERE incident.merged_into IS NULL
       AND (   {services}
            OR incident.id = ANY(ARRAY(SELECT incident_id FROM stated)))
""")  # noqa: S608


_TROUBLES = _troubles_of(_DETECTED)
_TROUBLES_OF_SERVICE = _troubles_of(
    f"""
               {_DETECTED}
           AND coalesce(incident.service_stated, incident.service) = :service
            OR incident.id = ANY(ARRAY(SELECT incident_id FROM naming))
           AND incident.labels->>'{DEPLOYMENT_LABEL}' IN (SELECT id FROM deployment WHERE service = :service)
           AND {_DETECTED}
"""  # noqa: S608
)


# — numbers —


async def numbers(
    tx: AsyncConnection, *, begins: datetime, ends: datetime, of_service: str | None, environment: str | None
) -> tuple[Dora, Sequence[Rate]]:
    """The numbers, and the hourly costs of the service at the end of the period; four statements."""
    asked = {"begins": begins, "ends": ends + VERSION_LOOK_BACK, "versions": list(VERSION_LABELS)}
    of_one = {} if of_service is None else {"service": of_service}
    row = (await tx.execute(_TROUBLES_OF_SERVICE if of_one else _TROUBLES, asked | of_one)).one()
    columns = await asyncio.to_thread(columns_of, row)
    rows = np.flatnonzero(np.frombuffer(row.told or b"", np.bool_)).tolist()
    told = await _told(tx, dict(zip(columns.number[rows].tolist(), rows, strict=True)))
    around = np.delete(columns.began(), [place for place, trouble in told.items() if trouble.stated])
    earliest = from_microseconds(int(around.min())) if len(around) else begins
    known = await _candidates(tx, told.values(), min(begins, earliest), ends, of_service=of_service)

    def work() -> Dora:
        troubles = caused(columns, coded(texts(row.environments, row.environment_lengths)), told, known)
        return dora.dora(troubles, begins=begins, ends=ends, service=of_service, environment=environment)

    worked_out = await asyncio.to_thread(work)  # tens of thousands of incidents must not keep the doors waiting
    rates = await rates_of(tx, {of_service}) if of_service is not None else []
    at_end = {rate.currency: rate_at(rates, rate.currency, ends) for rate in rates}
    return worked_out, [rate for _, rate in sorted(at_end.items()) if rate is not None]


async def _told(tx: AsyncConnection, rows: Mapping[int, int]) -> dict[int, Trouble]:
    """All that is known of the incidents of these numbers, by their row."""
    troubles = await _troubles(tx, _TOLD, {"numbers": list(rows)}) if rows else []
    return {rows[trouble.number]: trouble for trouble in troubles}


# — counted for ever —

COUNTED_WITHIN = timedelta(days=7)


async def count_failures(tx: AsyncConnection, *, now: datetime) -> int:
    """Counts deployments that failed their users into what Prometheus sees, once and for ever; how many.

    Those that happened in the last 7 days: by then their incidents have settled, or a person has spoken.
    """
    begins = now - COUNTED_WITHIN
    column = deployment.c
    is_candidate = (
        (column.happened_at >= begins)
        & column.outcome.in_([Outcome.SUCCEEDED.value, Outcome.FAILED.value])
        & ~column.failure_counted
    )
    candidates = {row.id: _deployment(row) for row in await tx.execute(select(deployment).where(is_candidate))}
    if not candidates:
        return 0
    troubles = await _troubles(tx, _SETTLED_TROUBLES, {"begins": begins - LOOK_BACK})
    found = links(troubles, await _candidates(tx, troubles, begins, now))
    caused: dict[str, list[Link]] = {}
    for trouble in troubles:
        link = found.get(trouble.id)
        if trouble.counts and link is not None and link.deployment is not None:
            caused.setdefault(link.deployment.id, []).append(link)
    failed = sorted(each.id for each in candidates.values() if is_failure(each, caused.get(each.id, ())))
    if not failed:
        return 0
    # Another process may have counted some meanwhile; those are not given back here.
    counted = await tx.execute(
        update(deployment)
        .where(column.id == any_(literal(failed, ARRAY(Text))), ~column.failure_counted)
        .values(failure_counted=True)
        .returning(column.service)
    )
    by_service = Counter(counted.scalars())
    await count(tx, [("change_failures", name, "", number) for name, number in by_service.items()])
    return by_service.total()


# Open incidents may yet turn out to be a false alarm; settled ones hardly will.
_SETTLED_TROUBLES = text(f"""
    {_SELECT_TROUBLE}
     WHERE incident.merged_into IS NULL
       AND incident.settled_at IS NOT NULL
       AND incident.ended_at >= :begins
""")
