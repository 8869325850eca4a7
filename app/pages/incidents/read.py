"""What the page of one incident reads, in a fixed number of statements, however many alerts it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Incident, Silence, TimelineEntry
from app.incidents.actions import Ref
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.timeline import fact_of
from app.incidents.impact.individual import DetailedImpact, detailed_impact_of
from app.incidents.measures.measures import Facts, Weights
from app.incidents.reading.views import silences
from app.incidents.refusals import IncidentNotFound
from app.metrics.deployments.causes import NAMED_DEPLOYMENTS, cause_and_deployments
from app.metrics.deployments.deployment import Deployment
from app.metrics.deployments.links import Link, LinkedIncident, StatedCause
from app.pages.plots.course import ALERTS_AT_MOST, LANES_AT_MOST
from app.response.store.response import Response, lasted, response_to
from app.reviews.store.waiting import OfIncident, of_incident

ENTRIES_AT_MOST = 1000
ALERTS_SHOWN, ALERTS_ON_A_PAGE = 50, 100
ALERT_BYTES = 256 * 1024  # labels, annotations and links of the alerts on a page
CHOICES_AT_MOST = 5

AlertKey = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True)
class FoundIncident:
    """An incident with what other tables say about it. Numbers are those after `INC-`.

    `absorbed` were merged into it, and `winner` is the one that it was merged into.
    """

    row: Incident
    sources: Sequence[str]
    related: Sequence[int]
    absorbed: Sequence[int]
    winner: int | None
    held: int  # alerts by which people hold it open
    named: Sequence[str]  # deployments that its alerts name
    acknowledged_in: str | None  # the kind of the source that reported the acknowledgement

    @property
    def alerts_firing(self) -> int:
        return self.row.open_alerts - self.held


@dataclass(frozen=True, slots=True)
class ShownAlert:
    series: UUID
    started_at: datetime
    ended_at: datetime | None
    end_reason: str | None
    severity: int
    window_seconds: int
    max_span_seconds: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    link: str
    flags: Sequence[str]
    fingerprint: str
    source: str

    @property
    def key(self) -> AlertKey:
        return self.started_at, self.series


@dataclass(frozen=True, slots=True)
class Lane:
    """The alerts of one series; `labels` are those of its first."""

    fingerprint: str
    labels: Mapping[str, str]
    spans: Sequence[tuple[datetime, datetime | None, int]]  # begin, end, severity


@dataclass(frozen=True, slots=True)
class Evidence:
    """`alerts` are one page, with the key of the next; `lanes` are the series that fired longest of `series`.

    `silences` suppressed some of the alerts; each has the name of its source.
    """

    alerts: Sequence[ShownAlert]
    next_key: AlertKey | None
    lanes: Sequence[Lane]
    series: int
    silences: Sequence[tuple[Silence, str]]


@dataclass(frozen=True, slots=True)
class Everything:
    found: FoundIncident
    facts: Facts
    impact: DetailedImpact
    evidence: Evidence
    entries: Sequence[TimelineEntry]
    more_entries: bool
    link: Link | None
    choices: Sequence[Deployment]
    deployed: Sequence[Deployment]  # around its beginning, whether they may be the cause or not
    response: Response
    reviews: Sequence[OfIncident]


async def find(session: AsyncSession, ref: Ref) -> FoundIncident:
    """One statement. Raises IncidentNotFound."""
    column = col(Incident.id) if isinstance(ref, UUID) else col(Incident.number)
    query: Any = sa.select(Incident, *map(sa.literal_column, _OF_OTHERS)).where(column == ref)
    row = (await session.exec(query.execution_options(populate_existing=True))).one_or_none()
    if row is None:
        message = "no incident has this number"
        raise IncidentNotFound(message)
    incident, sources, absorbed, winner, held, named, related, acknowledged_in = row
    return FoundIncident(incident, sources, related, absorbed, winner, held, named or (), acknowledged_in)


async def everything(
    session: AsyncSession,
    found: FoundIncident,
    *,
    all_alerts: bool = False,
    after: AlertKey | None = None,
    now: datetime,
    weights: Weights,
) -> Everything:
    """Twelve statements, and two more if its target names a calendar."""
    tx = await session.connection()
    row = found.row
    facts, row_lasted = Facts.of(row), lasted(row, now)
    entries = await _entries(session, row.id)
    linked = LinkedIncident(
        row.id, row.number, facts, row.labels, tuple(found.named), _stated_cause(entries, row.id), row.environment
    )
    link, choices, deployed = await cause_and_deployments(tx, linked)
    impact = await detailed_impact_of(tx, row, now=now, weights=weights)
    planned = any(each.start < row_lasted.end and row_lasted.start < each.end for each in impact.planned)
    return Everything(
        found=found,
        facts=facts,
        impact=impact,
        evidence=await _evidence(session, row, all_alerts=all_alerts, after=after, now=now),
        entries=entries[:ENTRIES_AT_MOST],
        more_entries=len(entries) > ENTRIES_AT_MOST,
        link=link,
        choices=choices[:CHOICES_AT_MOST],
        deployed=deployed,
        response=await response_to(tx, row, harmed=bool(impact.impact.downtime), planned=planned, now=now),
        reviews=await of_incident(session, row.id),
    )


# Related incidents as in app/incidents/relations.py: those of the incidents that were merged into this one count, and
# a merged incident stands for the one it was merged into.
_OF_OTHERS = (
    f"""ARRAY(SELECT source.name
                FROM unnest(incident.source_ids) WITH ORDINALITY AS own (id, place)
                JOIN source ON source.id = own.id
               WHERE own.id <> {MANUAL_SOURCE_ID}
               ORDER BY own.place)""",  # noqa: S608
    "ARRAY(SELECT absorbed.number FROM incident AS absorbed WHERE absorbed.merged_into = incident.id ORDER BY 1)",
    "(SELECT winner.number FROM incident AS winner WHERE winner.id = incident.merged_into)",
    f"""(SELECT count(*)
           FROM alert
          WHERE alert.key_id = incident.key_id
            AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
            AND alert.incident_id = incident.id
            AND alert.source_id = {MANUAL_SOURCE_ID}
            AND alert.ended_at IS NULL)""",  # noqa: S608
    NAMED_DEPLOYMENTS,
    """ARRAY(SELECT DISTINCT living.number
               FROM (SELECT incident.id UNION ALL
                     SELECT own.id FROM incident AS own WHERE own.merged_into = incident.id) AS member (id)
               JOIN incident_relation AS relation ON member.id IN (relation.incident_id, relation.other_id)
               JOIN incident AS other
                 ON other.id = CASE WHEN relation.incident_id = member.id
                                    THEN relation.other_id ELSE relation.incident_id END
               JOIN incident AS living ON living.id = coalesce(other.merged_into, other.id)
              WHERE living.id <> incident.id
              ORDER BY living.number)""",
    "(SELECT source.kind FROM source WHERE source.name = incident.acknowledged_via)",
)


async def _entries(session: AsyncSession, incident_id: UUID) -> Sequence[TimelineEntry]:
    """The entries of the incident, and later ones of the same facts that are elsewhere: first those from which tasks,
    the cause and the declaration follow, then the others, each earliest first.
    """
    kind = col(TimelineEntry.kind)
    counts = kind.in_([TimelineKind.TASK, TimelineKind.CAUSE, TimelineKind.DECLARED, TimelineKind.WITHDRAWN])
    order = (counts.desc(), col(TimelineEntry.at), col(TimelineEntry.id))
    query = select(TimelineEntry).where(text(_OWN_OR_LATER)).order_by(*order)
    query = query.params(incident_id=incident_id).limit(ENTRIES_AT_MOST + 1)
    return (await session.exec(query.execution_options(populate_existing=True))).all()


_OWN_OR_LATER = """
    (  timeline.incident_id = :incident_id
    OR timeline.corrects IN (SELECT coalesce(own.corrects, own.id)
                               FROM timeline AS own
                              WHERE own.incident_id = :incident_id))
"""


async def recorded(
    session: AsyncSession, incident_id: UUID, *, after: int, limit: int
) -> tuple[Sequence[int], Sequence[TimelineEntry]]:
    """The next facts of the incident in the order in which they were first recorded, and all their entries. `after` is
    the last fact before. Two statements.
    """
    entry: Any = TimelineEntry
    fact = sa.func.coalesce(entry.corrects, entry.id)
    query = sa.select(fact).distinct().where(entry.incident_id == incident_id, fact > after)
    tx = await session.connection()
    facts = (await tx.execute(query.order_by(fact).limit(limit))).scalars().all()
    of_them = sa.or_(entry.id.in_(facts), entry.corrects.in_(facts))
    return facts, (await session.exec(select(TimelineEntry).where(of_them))).all()


def _stated_cause(entries: Sequence[TimelineEntry], incident_id: UUID) -> StatedCause | None:
    """The cause that a person last stated: the newest fact counts, unless it was withdrawn."""
    causes = current_entries(entries, incident_id, TimelineKind.CAUSE)
    return StatedCause((max(causes, key=fact_of).detail or {}).get("deployment_id")) if causes else None


def current_entries(entries: Sequence[TimelineEntry], incident_id: UUID, kind: TimelineKind) -> list[TimelineEntry]:
    """The facts of this kind that the incident has now, as corrected and without withdrawn ones."""
    newest: dict[int, TimelineEntry] = {}
    for entry in sorted(entries, key=lambda entry: entry.id):
        newest[fact_of(entry)] = entry
    return [entry for entry in newest.values() if entry.kind == kind and entry.incident_id == incident_id]


# — evidence —


async def _evidence(
    session: AsyncSession, row: Incident, *, all_alerts: bool, after: AlertKey | None, now: datetime
) -> Evidence:
    tx = await session.connection()
    limit = ALERTS_ON_A_PAGE if all_alerts else ALERTS_SHOWN
    own = {
        "key_id": row.key_id,
        "began_at": row.began_at,
        "last_start_at": row.last_start_at,
        "incident_id": row.id,
    }
    after_at, after_series = after or (None, None)
    bound = {**own, "after_at": after_at, "after_series": after_series, "limit": limit + 1, "bytes": ALERT_BYTES}
    rows = (await tx.execute(_ALERTS, bound)).all()
    alerts = [ShownAlert(*each[:-1]) for each in rows if each.fits][:limit]
    lanes, series = await _lanes(tx, {**own, "now": now})
    next_key = alerts[-1].key if len(rows) > len(alerts) else None
    return Evidence(alerts, next_key, lanes, series, await silences(session, row))


async def _lanes(tx: AsyncConnection, own: Mapping[str, Any]) -> tuple[list[Lane], int]:
    lanes: dict[UUID, Lane] = {}
    series = 0
    for each in await tx.execute(_LANES, own):
        series = each.number
        lane = lanes.setdefault(each.series, Lane(each.fingerprint, each.labels, []))
        assert isinstance(lane.spans, list)
        lane.spans.append((each.started_at, each.ended_at, each.severity))
    return list(lanes.values()), series


_OWN = f"""
         WHERE alert.key_id = :key_id
           AND alert.started_at BETWEEN :began_at AND :last_start_at
           AND alert.incident_id = :incident_id
           AND alert.source_id <> {MANUAL_SOURCE_ID}
"""

# Those that fit into `bytes`, at least one. Sizes are computed for the alerts of the page only.
_ALERTS = text(f"""
    WITH page AS MATERIALIZED (
        SELECT alert.series, alert.started_at, alert.ended_at, alert.end_reason, alert.severity,
               alert.window_seconds, alert.max_span_seconds, alert.labels, alert.annotations, alert.link, alert.flags,
               alert.fingerprint, alert.source_id
          FROM alert
        {_OWN}
           AND (   CAST(:after_at AS timestamptz) IS NULL
                OR (alert.started_at, alert.series) > (CAST(:after_at AS timestamptz), CAST(:after_series AS uuid)))
         ORDER BY alert.started_at, alert.series
         LIMIT :limit
    ), sized AS (
        SELECT page.*,
               sum(octet_length(CAST(labels AS text)) + octet_length(CAST(annotations AS text)) + octet_length(link))
                   OVER (ORDER BY started_at, series) AS total,
               row_number() OVER (ORDER BY started_at, series) AS place
          FROM page
    )
    SELECT series, started_at, ended_at, end_reason, severity, window_seconds, max_span_seconds, labels, annotations,
           link, flags, fingerprint, source.name AS source, place = 1 OR total <= :bytes AS fits
      FROM sized
      JOIN source ON source.id = sized.source_id
     ORDER BY started_at, series
""")  # noqa: S608

# Without labels until the few series are known: they are much larger than anything else.
_LANES = text(f"""
    WITH own AS MATERIALIZED (
        SELECT alert.series, alert.started_at, alert.ended_at, alert.severity
          FROM alert
        {_OWN}
    ), longest AS (
        SELECT series, min(started_at) AS first_at, count(*) OVER () AS number
          FROM own
         GROUP BY series
         ORDER BY sum(coalesce(ended_at, greatest(CAST(:now AS timestamptz), started_at)) - started_at) DESC,
                  min(started_at), series
         LIMIT {LANES_AT_MOST}
    ), placed AS (
        SELECT own.*, row_number() OVER (PARTITION BY own.series ORDER BY own.started_at) AS place
          FROM own
    )
    SELECT longest.series, longest.number, first.fingerprint, first.labels,
           placed.started_at, placed.ended_at, placed.severity
      FROM longest
      JOIN placed ON placed.series = longest.series
                 AND placed.place <= {ALERTS_AT_MOST // LANES_AT_MOST}
      JOIN alert AS first ON first.series = longest.series AND first.started_at = longest.first_at
     ORDER BY longest.first_at, longest.series, placed.started_at
""")  # noqa: S608
