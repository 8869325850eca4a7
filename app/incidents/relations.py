"""Incidents that a person marked as related: recorded in the timelines of both, and reversible.

A relation is stored between the incidents as they were. It follows merges when it is read: a merged incident stands for
the one it was merged into, and no incident is related to itself.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Invalid
from app.base.schema import Incident, IncidentRelation
from app.incidents.actions import Ref, hold_all
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import timeline
from app.incidents.history.timeline import Attribution


class RelatedToItself(Invalid):
    title = "An incident is not related to itself"


async def relate(
    session: AsyncSession, ref: Ref, other_ref: Ref, attribution: Attribution, *, now: datetime
) -> Incident:
    """Marks two incidents as related. Repeating it changes nothing.

    Raises IncidentNotFound, MergedAway or RelatedToItself.
    """
    row, other = await _hold_both(session, ref, other_ref)
    if other.number not in (await related(session, [row.id])).get(row.id, ()):
        first, second = sorted((row.id, other.id))
        session.add(IncidentRelation(incident_id=first, other_id=second))
        await _record(session, row, other, TimelineKind.RELATED, attribution, now=now)
    return row


async def unrelate(
    session: AsyncSession, ref: Ref, other_ref: Ref, attribution: Attribution, *, now: datetime
) -> Incident:
    """Removes the mark. Repeating it changes nothing. Raises IncidentNotFound, MergedAway or RelatedToItself."""
    row, other = await _hold_both(session, ref, other_ref)
    deleted = await (await session.connection()).execute(_DELETE, {"ids": [row.id, other.id]})
    if deleted.rowcount:
        await _record(session, row, other, TimelineKind.UNRELATED, attribution, now=now)
    return row


async def related(session: AsyncSession, ids: Sequence[UUID]) -> Mapping[UUID, Sequence[int]]:
    """The numbers of the incidents that are related to each of these, in order."""
    found: dict[UUID, list[int]] = defaultdict(list)
    for id_, number in await (await session.connection()).execute(_RELATED, {"ids": list(ids)}):
        found[id_].append(number)
    return found


async def _hold_both(session: AsyncSession, ref: Ref, other_ref: Ref) -> tuple[Incident, Incident]:
    row, other = await hold_all(session, [ref, other_ref])
    if row.id == other.id:
        message = "an incident cannot be related to itself; name another one"
        raise RelatedToItself(message)
    return row, other


async def _record(
    session: AsyncSession,
    row: Incident,
    other: Incident,
    kind: TimelineKind,
    attribution: Attribution,
    *,
    now: datetime,
) -> None:
    for one, two in ((row, other), (other, row)):
        await timeline.append(session, one.id, kind, attribution, detail={"incident": f"INC-{two.number}"}, now=now)
        one.version += 1
        one.updated_at = now
        await session.flush()
        await session.refresh(one)


# The incidents among these that were not merged away, and those merged into them.
_MEMBERS = """
    SELECT id, coalesce(merged_into, id) AS living
      FROM incident
     WHERE id = ANY(CAST(:ids AS uuid[])) AND merged_into IS NULL
        OR merged_into = ANY(CAST(:ids AS uuid[]))
"""

_RELATED = text(f"""
    WITH member AS MATERIALIZED ({_MEMBERS}), relation AS (
        SELECT member.living, incident_relation.other_id
          FROM member
          JOIN incident_relation ON incident_relation.incident_id = member.id
         UNION ALL
        SELECT member.living, incident_relation.incident_id
          FROM member
          JOIN incident_relation ON incident_relation.other_id = member.id
    )
    SELECT DISTINCT relation.living, living.number
      FROM relation
      JOIN incident AS other ON other.id = relation.other_id
      JOIN incident AS living ON living.id = coalesce(other.merged_into, other.id)
     WHERE living.id <> relation.living
     ORDER BY relation.living, living.number
""")  # noqa: S608

_DELETE = text(f"""
    WITH member AS MATERIALIZED ({_MEMBERS})
    DELETE FROM incident_relation
     USING member AS one, member AS two
     WHERE incident_relation.incident_id = one.id
       AND incident_relation.other_id = two.id
       AND one.living <> two.living
""")  # noqa: S608
