"""Reads the facts of a report."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Text, cast, func, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Incident, Review, TimelineEntry
from app.base.values.severity import severity_name
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.history import notes
from app.incidents.history.path import Phase, path_of, phase_at
from app.incidents.impact.individual import impacts_of
from app.incidents.measures.measures import Facts, Weights, detected_at, measures, service, severity
from app.reviews.lifecycle import Element, FindingKind
from app.reviews.report import facts as report
from app.reviews.report.entries import entry_of
from app.reviews.report.facts import ReportFacts
from app.reviews.store import action_items, findings, reviews

ENTRIES_AT_MOST = 500  # of each incident, the earliest
ENTRIES_BYTES = 4 * 2**20  # of the texts and details of all incidents together
_SHOWN_ELSEWHERE = (TimelineKind.WITHDRAWN, TimelineKind.TASK)  # tasks stand in the path


async def facts_of(session: AsyncSession, review: Review, *, now: datetime, weights: Weights) -> ReportFacts:
    """A fixed number of statements."""
    incidents = (await reviews.incidents_of(session, [review.id])).get(review.id, ())
    return ReportFacts(
        number=f"REV-{review.number}",
        title=review.title,
        state=review.state,
        begins_at=review.begins_at,
        ends_at=review.ends_at,
        held_at=review.held_at,
        duration_seconds=review.duration_seconds,
        published_at=review.published_at,
        follow_up_at=review.follow_up_at,
        facilitator=review.facilitator,
        participants=[
            report.Participant(one.person, one.part, one.attended)
            for one in await reviews.participants_of(session, review.id)
        ],
        summary=review.summary,
        customer_impact=review.customer_impact,
        resolution=review.resolution,
        nothing_now_because=review.nothing_now_because,
        incidents=await _incidents(session, incidents, now=now, weights=weights),
        findings=[
            report.Finding(
                FindingKind(one.kind),
                one.text,
                Phase(one.phase) if one.phase else None,
                Element(one.element) if one.element else None,
                one.factor,
            )
            for one in await findings.findings_of(session, review.id)
        ],
        action_items=[
            report.ActionItem(
                f"AI-{one.row.number}",
                one.row.title,
                one.row.done_when,
                one.row.term,
                one.row.priority,
                one.row.owner,
                one.row.due_at,
                one.row.state,
                one.row.link,
                one.row.effective,
            )
            for one in await action_items.items_of(session, review.id)
        ],
    )


async def _incidents(
    session: AsyncSession, rows: Sequence[Incident], *, now: datetime, weights: Weights
) -> list[report.Incident]:
    if not rows:
        return []
    tx = await session.connection()
    tasks = await notes.tasks_of(tx, [row.id for row in rows])
    impacts = await impacts_of(tx, rows, now=now, weights=weights)
    entries = await _entries(session, [row.id for row in rows])
    found = []
    for row in rows:
        facts, impact = Facts.of(row), impacts[row.id]
        measured = measures(facts)
        shown, left_out = entries.get(row.id, ((), 0))
        found.append(
            report.Incident(
                number=f"INC-{row.number}",
                title=row.title_stated or row.title,
                service=service(facts),
                severity=severity_name(severity(facts)),
                detected_at=detected_at(facts),
                impact_started_at=facts.impact_started_at,
                resolved_at=facts.ended_at,
                measures={name: one.seconds for name, one in measured.items() if one.seconds is not None},
                reasons={name: one.reason for name, one in measured.items() if one.reason is not None},
                downtime_seconds=impact.downtime.total_seconds(),
                cost={
                    currency: (f"{amount.low:.2f}", f"{amount.expected:.2f}", f"{amount.high:.2f}")
                    for currency, amount in impact.cost.items()
                },
                path=path_of(facts, tasks.get(row.id, ()), now=now),
                entries=[
                    entry_of(one.at, one.kind, one.by, one.note, one.detail, phase_at(facts, one.at)) for one in shown
                ],
                entries_left_out=left_out,
            )
        )
    return found


async def _entries(
    session: AsyncSession, incidents: Sequence[UUID]
) -> Mapping[UUID, tuple[Sequence[TimelineEntry], int]]:
    """As last corrected, earliest first, and how many of each incident are left out."""
    entry = TimelineEntry
    size = func.octet_length(func.coalesce(col(entry.note), "") + func.coalesce(cast(col(entry.detail), Text), ""))
    earliest_first = (col(entry.at), col(entry.id))
    ranked = (
        select(
            col(entry.id).label("id"),
            size.label("size"),
            func.row_number().over(partition_by=col(entry.incident_id), order_by=earliest_first).label("place"),
            func.count().over(partition_by=col(entry.incident_id)).label("number"),
        )
        .where(col(entry.incident_id).in_(incidents), col(entry.kind).not_in(_SHOWN_ELSEWHERE), text(IS_CURRENT))
        .subquery()
    )
    # The first entries of every incident come before the second ones.
    together = func.sum(ranked.c.size).over(order_by=(ranked.c.place, ranked.c.id))
    sized = select(ranked.c.id, ranked.c.place, ranked.c.number, together.label("together")).subquery()
    query = (
        select(entry, sized.c.number)
        .join(sized, sized.c.id == col(entry.id))
        .where(sized.c.place <= ENTRIES_AT_MOST, sized.c.together <= ENTRIES_BYTES)
        .order_by(col(entry.at), col(entry.id))
    )
    found: dict[UUID, list[TimelineEntry]] = defaultdict(list)
    numbers: dict[UUID, int] = {}
    for one, number in await session.exec(query):
        found[one.incident_id].append(one)
        numbers[one.incident_id] = number
    return {id_: (entries, numbers[id_] - len(entries)) for id_, entries in found.items()}
