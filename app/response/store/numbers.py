"""SQL for numbers over many incidents: outcomes of targets, and tasks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.process.threads import off_loop
from app.base.values.times import Span
from app.incidents.grouping.signal import AlertClass
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.history.notes import task_of
from app.incidents.history.path import Task
from app.incidents.impact.store import COLUMNS, FACTS_OF_INCIDENT, columns_of
from app.incidents.measures.measures import Facts
from app.response.judgment import judge_many
from app.response.store.targets import agreements, business_hours
from app.response.tallies import (
    Outcomes,
    TargetGroup,
    TaskGroup,
    TaskTally,
    outcomes_by_group,
    tasks_by_group,
)
from app.response.targets import Judged


@dataclass(frozen=True, slots=True)
class IncidentFilter:
    """Incidents detected in the period; without services of all, without severities of every one."""

    period: Span
    services: Sequence[str] = ()
    severities: Sequence[int] = ()

    def bound(self) -> Mapping[str, object]:
        begins, ends = self.period
        return {"begins": begins, "ends": ends, "services": list(self.services), "severities": list(self.severities)}


async def read_outcomes(
    session: AsyncSession,
    chosen: IncidentFilter,
    group: TargetGroup | None,
    *,
    now: datetime,
    parts_at_most: int | None = None,
) -> tuple[Mapping[Judged, Outcomes], Mapping[str, Mapping[Judged, Outcomes]]]:
    """The outcomes of each target in total, and by group. Raises TooManyHours.

    Three statements, and two for each calendar that a target names.
    """
    tx = await session.connection()
    row = (await tx.execute(_COLUMNS, chosen.bound())).one()
    updates: dict[int, list[datetime]] = defaultdict(list)
    for number, at in await tx.execute(_UPDATES, chosen.bound()):
        updates[number].append(at)
    agreed = await agreements(session)
    calendars = await business_hours(tx, agreed.calendars())

    def work() -> tuple[Mapping[Judged, Outcomes], Mapping[str, Mapping[Judged, Outcomes]]]:
        columns = columns_of(row)
        judged = judge_many(columns, agreed, updates, calendars, now=now, parts_at_most=parts_at_most)
        return outcomes_by_group(columns, judged, group)

    return await off_loop(work)


async def read_tasks(
    session: AsyncSession, chosen: IncidentFilter, group: TaskGroup | None
) -> tuple[TaskTally, Mapping[str, TaskTally]]:
    """Tasks by their effect, in total and by group. Two statements."""
    tx = await session.connection()
    tasks: dict[UUID, list[Task]] = defaultdict(list)
    for row in await tx.execute(_TASKS, chosen.bound()):
        tasks[row.incident_id].append(task_of(row))
    incidents = await tx.execute(_FACTS, {"ids": list(tasks)})
    found: Sequence[tuple[Facts, Task]] = [(Facts.of(row), task) for row in incidents for task in tasks[row.id]]
    return await off_loop(tasks_by_group, found, group)


# Each half of the OR has an index.
_DETECTED = f"""
       incident.merged_into IS NULL
   AND incident.test_stated IS NOT TRUE
   AND incident.alert_class <> '{AlertClass.MONITORING}'
   AND (   (    incident.detected_at_stated IS NULL
            AND incident.began_at >= :begins
            AND incident.began_at < :ends)
        OR (    incident.detected_at_stated >= :begins
            AND incident.detected_at_stated < :ends))
   AND (CAST(:services AS text[]) = '{{}}'
        OR coalesce(incident.service_stated, incident.service) = ANY(CAST(:services AS text[])))
   AND (CAST(:severities AS smallint[]) = '{{}}'
        OR coalesce(incident.severity_stated, incident.severity) = ANY(CAST(:severities AS smallint[])))
"""

_COLUMNS = text(f"SELECT {COLUMNS} FROM incident WHERE {_DETECTED}")  # noqa: S608

# The kind is literal, so that the partial index applies.
_UPDATES = text(f"""
    SELECT incident.number, timeline.at
      FROM timeline
      JOIN incident ON incident.id = timeline.incident_id
     WHERE timeline.kind = '{TimelineKind.UPDATE}'
       AND timeline.detail ->> 'audience' = 'stakeholders'
       AND {IS_CURRENT}
       AND {_DETECTED}
""")  # noqa: S608

_TASKS = text(f"""
    SELECT timeline.*
      FROM timeline
      JOIN incident ON incident.id = timeline.incident_id
     WHERE timeline.kind = '{TimelineKind.TASK}'
       AND {IS_CURRENT}
       AND {_DETECTED}
""")  # noqa: S608

_FACTS = text(f"""
    SELECT {FACTS_OF_INCIDENT}
      FROM incident
     WHERE id = ANY(CAST(:ids AS uuid[]))
""")  # noqa: S608
