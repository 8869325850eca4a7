"""SQL for which deployments caused which incidents: for one incident, for the DORA metrics of a period, and for the
counter of failed deployments. `links.py` decides.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import numpy as np
from sqlalchemy import ARRAY, Text, TextClause, any_, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.process.threads import off_loop
from app.base.schema import TimelineEntry
from app.base.values.facts import Outcome
from app.base.values.times import MICROSECOND, Span
from app.base.values.vocabulary import ENVIRONMENT_LABELS
from app.incidents import actions
from app.incidents.actions import Ref
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.grouping.write import count
from app.incidents.history import timeline
from app.incidents.history.timeline import Attribution
from app.incidents.impact.rates import Rate, rate_at
from app.incidents.impact.store import COLUMNS, FACTS_OF_INCIDENT, columns_of, rates_of, texts
from app.incidents.measures.measures import Facts
from app.incidents.measures.vectorized import coded, moment
from app.metrics.deployments.changes import Filters, changes
from app.metrics.deployments.deployment import DEPLOYMENT_FIELDS, Deployment, from_columns
from app.metrics.deployments.dora import MIN_CONFIDENCE, Dora, dora, is_failure
from app.metrics.deployments.links import (
    DEPLOYMENT_LABEL,
    LOOK_BACK,
    VERSION_LABELS,
    VERSION_LOOK_BACK,
    Candidate,
    Confidence,
    Link,
    LinkedIncident,
    StatedCause,
    candidates,
    caused,
    links,
)
from app.metrics.deployments.store import find

CANDIDATES_AT_MOST = 50

# — of one incident —


@dataclass(frozen=True, slots=True)
class Cause:
    """`link` is None if no cause is known. `statement` is the latest by a person, if any."""

    link: Link | None
    statement: TimelineEntry | None


async def cause(session: AsyncSession, ref: Ref) -> Cause:
    """The cause of the incident, if known. Raises refusals.IncidentNotFound."""
    found = await actions.find(session, ref)
    tx = await session.connection()
    [incident] = await _incidents(tx, _INCIDENT, {"id": found.id})
    statement = await timeline.latest(session, found.id, TimelineKind.CAUSE)
    at = Span(incident.began_at, incident.began_at)
    known = await _candidates(tx, [incident], at, services=[incident.service])
    return Cause(links([incident], known).get(incident.id), statement)


async def cause_candidates(session: AsyncSession, ref: Ref) -> list[Candidate]:
    """Possible causes of the incident, the most likely first. Raises refusals.IncidentNotFound."""
    found = await actions.find(session, ref)
    tx = await session.connection()
    [incident] = await _incidents(tx, _INCIDENT, {"id": found.id})
    at = Span(incident.began_at, incident.began_at)
    deployed = await _candidates(tx, [incident], at, services=[incident.service])
    filters = Filters([incident.service], start=at.start - LOOK_BACK, end=at.end + MICROSECOND)
    changed = await changes(tx, filters, limit=CANDIDATES_AT_MOST)
    return candidates(incident, deployed, changed)[:CANDIDATES_AT_MOST]


async def cause_and_deployments(
    tx: AsyncConnection, incident: LinkedIncident
) -> tuple[Link | None, Sequence[Deployment], Sequence[Deployment]]:
    """The cause, if known; the deployments of a week before that may be it, the most likely first; and all deployments
    of the service from a week before until a week after the incident began. One statement.
    """
    at = Span(incident.began_at, incident.began_at)
    deployed = await _candidates(tx, [incident], at, services=[incident.service])
    likely = [each.cause for each in candidates(incident, deployed, ()) if isinstance(each.cause, Deployment)]
    known = {each.id for each in likely}
    others = [each for each in deployed if each.may_be_blamed and each.began_at <= at.start and each.id not in known]
    others.sort(key=lambda each: each.began_at, reverse=True)
    return links([incident], deployed).get(incident.id), [*likely, *others], deployed


async def state_cause(
    session: AsyncSession, ref: Ref, deployment_id: str | None, attribution: Attribution, *, now: datetime
) -> None:
    """Records the statement; the latest counts. Raises DeploymentNotFound and the errors of actions.record."""
    if deployment_id is not None:
        deployment_id = (await find(session, deployment_id)).id
    detail = {"deployment_id": deployment_id}
    await actions.record(session, ref, TimelineKind.CAUSE, attribution, detail=detail, now=now)


async def _incidents(tx: AsyncConnection, query: TextClause, bound: Mapping[str, object]) -> list[LinkedIncident]:
    rows = (await tx.execute(query, bound)).all()
    return await off_loop(lambda: [_incident(row) for row in rows])


class _Row(Protocol):
    """A row of `_SELECT_INCIDENT`, which also has the columns of `Facts`."""

    @property
    def id(self) -> UUID: ...
    @property
    def number(self) -> int: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def environment(self) -> str | None: ...
    @property
    def named(self) -> Sequence[str] | None: ...
    @property
    def stated(self) -> Mapping[str, str | None] | None: ...


def _incident(row: _Row) -> LinkedIncident:
    return LinkedIncident(
        id=row.id,
        number=row.number,
        facts=Facts.of(row),
        labels=row.labels,
        environment=row.environment,
        deployment_ids=tuple(row.named or ()),
        stated=StatedCause(row.stated["deployment_id"]) if row.stated else None,
    )


async def _candidates(
    tx: AsyncConnection, incidents: Collection[LinkedIncident], period: Span, *, services: Sequence[str] = ()
) -> list[Deployment]:
    """The deployments that may have caused one of these incidents, and those of the period: of these services, or of
    all.
    """
    explicit = {id_ for incident in incidents for id_ in incident.deployment_ids}
    explicit |= {
        incident.stated.deployment_id for incident in incidents if incident.stated and incident.stated.deployment_id
    }
    # Deployments named by a person may be of any time, so they do not widen the range around the incidents.
    began = [incident.began_at for incident in incidents if not incident.stated]
    earliest = min([period.start, *began]) - VERSION_LOOK_BACK
    # A deployment is found by when it finished, which may be long after it started, so the range is a little longer.
    around = (_DEPLOYMENT.happened_at >= earliest) & (
        _DEPLOYMENT.happened_at < period.end + VERSION_LOOK_BACK + LOOK_BACK
    )
    query = _DEPLOYMENTS.where(
        (around & _DEPLOYMENT.service.in_(services) if services else around)
        | (_DEPLOYMENT.id == any_(literal(sorted(explicit), ARRAY(Text))))
        | (_DEPLOYMENT.reported_id == any_(literal(sorted(explicit), ARRAY(Text))))
    )
    rows = (await tx.execute(query)).all()
    return await off_loop(lambda: [from_columns(row) for row in rows])  # a year of all services can be many rows


# Facts, not rows of the table: metrics read tens of thousands, which are converted off the event loop.
_DEPLOYMENT = schema.Deployment.__table__.c
_DEPLOYMENTS = select(*(_DEPLOYMENT[name] for name in DEPLOYMENT_FIELDS))

# Scalar, of a row of `incident`: the deployments that its alerts name.
NAMED_DEPLOYMENTS = f"""
           (SELECT array_agg(coalesce(alert.labels->>'{DEPLOYMENT_LABEL}', alert.annotations->>'{DEPLOYMENT_LABEL}'))
              FROM alert
             WHERE alert.key_id = incident.key_id
               AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
               AND alert.incident_id = incident.id
               AND coalesce(alert.labels->>'{DEPLOYMENT_LABEL}', alert.annotations->>'{DEPLOYMENT_LABEL}') <> '')
"""  # noqa: S608

# `named` are the deployments that the alerts name; `stated` is a person's latest statement.
_SELECT_INCIDENT = f"""
    SELECT incident.number, incident.labels, incident.environment, {FACTS_OF_INCIDENT},
           {NAMED_DEPLOYMENTS} AS named,
           (SELECT detail
              FROM timeline
             WHERE timeline.incident_id = incident.id
               AND timeline.kind = '{TimelineKind.CAUSE}'
               AND {IS_CURRENT}
             ORDER BY coalesce(timeline.corrects, timeline.id) DESC
             LIMIT 1) AS stated
      FROM incident
"""  # noqa: S608

_INCIDENT = text(f"{_SELECT_INCIDENT} WHERE incident.id = :id")

_NUMBERED = text(f"{_SELECT_INCIDENT} WHERE incident.number = ANY(CAST(:numbers AS bigint[]))")

# Incidents of the period and of the week after it (their cause may be in the period), and all with a stated cause. Of
# other services only incidents that name a deployment of the selected service. `detailed` marks incidents of which more
# has to be read. Alerts that name a deployment are few and found by an index on their text, before their JSON is
# searched. None of them began before the first of these incidents.
# Incidents from before migration 0009 have their environment only in their labels. For an incident that has none, one
# look at its labels is several times as fast as one for each name.
_NAMED = ", ".join(f"nullif(incident.labels->>'{name}', '')" for name in ENVIRONMENT_LABELS)
_ENVIRONMENT_LABELS = f"ARRAY[{', '.join(repr(name) for name in ENVIRONMENT_LABELS)}]"
# The first condition is implied by the others; it lets PostgreSQL use the indexes.
_DETECTED = """
               (   incident.began_at >= :start AND incident.began_at < :end
                OR incident.detected_at_stated >= :start AND incident.detected_at_stated < :end)
           AND coalesce(incident.detected_at_stated, incident.began_at) >= :start
           AND coalesce(incident.detected_at_stated, incident.began_at) < :end
"""


def _incidents_of(services: str) -> TextClause:
    return text(f"""
    WITH naming AS MATERIALIZED (
        SELECT incident_id
          FROM alert
         WHERE started_at >= least(CAST(:start AS timestamptz),
                                   (SELECT min(began_at)
                                      FROM incident
                                     WHERE merged_into IS NULL
                                       AND detected_at_stated >= :start
                                       AND detected_at_stated < :end))
           AND (   CAST(labels AS text) LIKE '%{DEPLOYMENT_LABEL}%'
                OR CAST(annotations AS text) LIKE '%{DEPLOYMENT_LABEL}%')
    ), stated AS MATERIALIZED (
        SELECT incident_id
          FROM timeline
         WHERE kind = '{TimelineKind.CAUSE}'
    )
    SELECT {COLUMNS},
           string_agg(named.environment, '') AS environments,
           string_agg(int4send(char_length(named.environment)), '') AS environment_lengths,
           string_agg(boolsend(
               incident.labels ?| CAST(:versions AS text[])
               OR incident.id IN (SELECT incident_id FROM naming)
               OR incident.id IN (SELECT incident_id FROM stated)), '') AS detailed
      FROM incident
     CROSS JOIN LATERAL (SELECT CASE WHEN incident.environment IS NOT NULL THEN incident.environment
                                     WHEN incident.labels ?| {_ENVIRONMENT_LABELS} THEN coalesce({_NAMED}, '')
                                     ELSE '' END AS environment OFFSET 0) AS named
     WHERE incident.merged_into IS NULL
       AND incident.test_stated IS NOT TRUE
       AND (   {services}
            OR incident.id = ANY(ARRAY(SELECT incident_id FROM stated)))
""")  # noqa: S608


_INCIDENTS = _incidents_of(_DETECTED)
_INCIDENTS_OF_SERVICES = _incidents_of(
    f"""
               {_DETECTED}
           AND coalesce(incident.service_stated, incident.service) = ANY(CAST(:services AS text[]))
            OR incident.id = ANY(ARRAY(SELECT incident_id FROM naming))
           AND incident.labels->>'{DEPLOYMENT_LABEL}' IN (SELECT unnest(ARRAY[id, reported_id])
                                                            FROM deployment
                                                           WHERE service = ANY(CAST(:services AS text[])))
           AND {_DETECTED}
"""  # noqa: S608
)


# — of a period —


async def read_dora(
    tx: AsyncConnection,
    period: Span,
    *,
    services: Sequence[str] = (),
    environments: Sequence[str] = (),
    min_confidence: Confidence = MIN_CONFIDENCE,
) -> tuple[Dora, Sequence[Rate]]:
    """The DORA metrics, and the hourly rates at the end of the period if there is one service. Four statements."""
    asked = {"start": period.start, "end": period.end + VERSION_LOOK_BACK, "versions": list(VERSION_LABELS)}
    of_some = {"services": list(services)} if services else {}
    row = (await tx.execute(_INCIDENTS_OF_SERVICES if of_some else _INCIDENTS, asked | of_some)).one()
    columns = await off_loop(columns_of, row)
    rows = np.flatnonzero(np.frombuffer(row.detailed or b"", np.bool_)).tolist()
    detailed = await _detailed(tx, dict(zip(columns.number[rows].tolist(), rows, strict=True)))
    around = np.delete(columns.began(), [place for place, incident in detailed.items() if incident.stated])
    earliest = moment(int(around.min())) if len(around) else period.start
    candidates = await _candidates(
        tx, detailed.values(), Span(min(period.start, earliest), period.end), services=services
    )

    def work() -> Dora:
        named = coded(texts(row.environments, row.environment_lengths))
        incidents = caused(columns, named, detailed, candidates)
        return dora(
            incidents,
            start=period.start,
            end=period.end,
            services=services,
            environments=environments,
            min_confidence=min_confidence,
        )

    numbers = await off_loop(work)
    rates = await rates_of(tx, set(services)) if len(services) == 1 else []
    at_end = {rate.currency: rate_at(rates, rate.currency, period.end) for rate in rates}
    return numbers, [rate for _, rate in sorted(at_end.items()) if rate is not None]


async def _detailed(tx: AsyncConnection, rows: Mapping[int, int]) -> dict[int, LinkedIncident]:
    """The incidents with all evidence of their causes, by row."""
    incidents = await _incidents(tx, _NUMBERED, {"numbers": list(rows)}) if rows else []
    return {rows[incident.number]: incident for incident in incidents}


# — counted once —

COUNTED_WITHIN = timedelta(days=7)


async def count_failures(tx: AsyncConnection, *, now: datetime) -> int:
    """Counts failed deployments into the Prometheus counters, each once; returns how many.

    Only deployments of the last 7 days: by then their incidents have settled, or a person has stated the cause.
    """
    period = Span(now - COUNTED_WITHIN, now)
    is_candidate = (
        (_DEPLOYMENT.happened_at >= period.start)
        & _DEPLOYMENT.outcome.in_([Outcome.SUCCEEDED.value, Outcome.FAILED.value])
        & ~_DEPLOYMENT.failure_counted
        & ~_DEPLOYMENT.unchanged
    )
    candidates = [from_columns(row) for row in await tx.execute(_DEPLOYMENTS.where(is_candidate))]
    if not candidates:
        return 0
    incidents = await _incidents(tx, _SETTLED_INCIDENTS, {"start": period.start - LOOK_BACK})
    found = links(incidents, await _candidates(tx, incidents, period))
    caused: dict[str, list[Link]] = {}
    for incident in incidents:
        link = found.get(incident.id)
        if incident.counts and link is not None and link.deployment is not None:
            caused.setdefault(link.deployment.id, []).append(link)
    failed = sorted(each.id for each in candidates if is_failure(each, caused.get(each.id, ())))
    if not failed:
        return 0
    # Another process may have counted some in the meantime; those are not returned here.
    counted = await tx.execute(
        update(schema.Deployment.__table__)
        .where(_DEPLOYMENT.id == any_(literal(failed, ARRAY(Text))), ~_DEPLOYMENT.failure_counted)
        .values(failure_counted=True)
        .returning(_DEPLOYMENT.service)
    )
    by_service = Counter(counted.scalars())
    await count(tx, [("change_failures", name, "", number) for name, number in by_service.items()])
    return by_service.total()


# An open incident may still turn out to be a false alarm; a settled one hardly ever does.
_SETTLED_INCIDENTS = text(f"""
    {_SELECT_INCIDENT}
     WHERE incident.merged_into IS NULL
       AND incident.test_stated IS NOT TRUE
       AND incident.settled_at IS NOT NULL
       AND incident.ended_at >= :start
""")
