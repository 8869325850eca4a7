"""SQL for the entries of timelines that findings of a review may be about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.reviews.report.entries import entry_of

CHOICES_AT_MOST = 100
# Chats are long, and what was withdrawn or only changed a field is seldom worth a finding.
_NO_CHOICE = [TimelineKind.SAID, TimelineKind.WITHDRAWN, TimelineKind.CHANGED]


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of the timeline, as last corrected. `incident` is the number of its incident."""

    id: int
    incident: int
    at: datetime
    kind: TimelineKind
    by: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Entries:
    """`choices` are those of the review's incidents, the earliest; `of_findings` what each finding is about."""

    choices: Sequence[Entry]
    of_findings: Mapping[UUID, Entry]


async def entries_of(session: AsyncSession, review_id: UUID) -> Entries:
    """One statement."""
    choices, of_findings = [], {}
    parameters = {"review": review_id, "no_choice": _NO_CHOICE, "at_most": CHOICES_AT_MOST}
    for row in await (await session.connection()).execute(_ENTRIES, parameters):
        said = entry_of(row.at, row.kind, row.by, row.note, row.detail, None).text
        entry = Entry(row.id, row.incident, row.at, TimelineKind(row.kind), row.by, said)
        if row.finding_id is None:
            choices.append(entry)
        else:
            of_findings[row.finding_id] = entry
    return Entries(choices, of_findings)


_ENTRIES = text(f"""
    WITH about AS (
        SELECT DISTINCT coalesce(named.merged_into, named.id) AS id
          FROM review_incident
          JOIN incident AS named ON named.id = review_incident.incident_id
         WHERE review_incident.review_id = :review
    ), choice AS (
        SELECT timeline.id
          FROM timeline
          JOIN about ON about.id = timeline.incident_id
         WHERE NOT timeline.kind = ANY(CAST(:no_choice AS text[]))
           AND {IS_CURRENT}
         ORDER BY timeline.at, timeline.id
         LIMIT :at_most
    ), linked AS (
        SELECT finding.id AS finding_id, coalesce(named.corrects, named.id) AS fact
          FROM finding
          JOIN timeline AS named ON named.id = finding.timeline_id
         WHERE finding.review_id = :review
    ), shown AS (
        SELECT id, CAST(NULL AS uuid) AS finding_id
          FROM choice
         UNION ALL
        SELECT timeline.id, linked.finding_id
          FROM linked
          JOIN timeline ON timeline.id = linked.fact OR timeline.corrects = linked.fact
         WHERE {IS_CURRENT}
    )
    SELECT shown.finding_id, timeline.id, timeline.at, timeline.kind, timeline.by, timeline.note, timeline.detail,
           incident.number AS incident
      FROM shown
      JOIN timeline ON timeline.id = shown.id
      JOIN incident ON incident.id = timeline.incident_id
     ORDER BY timeline.at, timeline.id
""")  # noqa: S608
