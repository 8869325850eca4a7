"""What a team has agreed on that may apply to one incident, and who is free to respond, in one statement."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.schema import Playbook
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.history.fact import Fact
from app.response.plan import IncidentType
from app.response.roles import Absences, Delegates
from app.response.store.people import absences_in
from app.response.store.types import type_of_row
from app.response.targets import Agreements, Target


@dataclass(frozen=True, slots=True)
class Agreed:
    """`owner` is that of the service, empty if there is none. `sources` are the names of those that were given, without
    people. `delegates` are those of this owner and of all.

    `roles_of_open` has the facts about roles of all open incidents. Playbooks are those of the service, without their
    bodies: all versions of each, newest first.
    """

    owner: str
    sources: Sequence[str]
    types: Sequence[IncidentType]
    targets: Agreements
    delegates: Delegates
    absences: Absences
    roles_of_open: Mapping[UUID, Sequence[Fact]]
    playbooks: Mapping[str, Sequence[Playbook]]


async def read_agreed(tx: AsyncConnection, service: str, sources: Collection[int]) -> Agreed:
    """One statement."""
    row = (await tx.execute(_AGREED, {"service": service, "sources": [*sources], "people": MANUAL_SOURCE_ID})).one()
    delegates: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in row.delegates:
        delegates[each["role"], each["owner"]].append(each["person"])
    playbooks: dict[str, list[Playbook]] = defaultdict(list)
    for each in row.playbooks:
        playbooks[each["name"]].append(Playbook.model_validate(each))
    return Agreed(
        owner=row.owner,
        sources=row.sources,
        types=[type_of_row(each) for each in row.types],
        targets=Agreements(_target(each) for each in row.targets),
        delegates=delegates,
        absences={each["name"]: absences_in(each["away"]) for each in row.people},
        roles_of_open=_roles(row.roles),
        playbooks=playbooks,
    )


def _target(values: Mapping[str, Any]) -> Target:
    return Target(**{**values, "valid_from": datetime.fromisoformat(values["valid_from"])})


def _roles(facts: Sequence[Mapping[str, Any]]) -> Mapping[UUID, Sequence[Fact]]:
    found: dict[UUID, list[Fact]] = defaultdict(list)
    for each in facts:
        at = datetime.fromisoformat(each["at"])
        found[UUID(each["incident"])].append(Fact(each["entry"], at, TimelineKind.ROLE, detail=each["detail"]))
    return found


# Each table becomes one array, so that a page costs one round trip.
_AGREED = text(f"""
    WITH own AS (
        SELECT coalesce((SELECT owner FROM service WHERE name = :service), '') AS owner
    )
    SELECT own.owner,
           ARRAY(SELECT source.name
                   FROM source
                  WHERE source.id = ANY(CAST(:sources AS integer[]))
                    AND source.id <> :people
                  ORDER BY source.name) AS sources,
           coalesce((SELECT jsonb_agg(to_jsonb(incident_type)) FROM incident_type), '[]') AS types,
           coalesce((SELECT jsonb_agg(to_jsonb(target))
                       FROM target
                      WHERE target.service IN ('', :service)), '[]') AS targets,
           coalesce((SELECT jsonb_agg(to_jsonb(delegate) ORDER BY role, owner, position)
                       FROM delegate
                      WHERE delegate.owner IN ('', own.owner)), '[]') AS delegates,
           coalesce((SELECT jsonb_agg(jsonb_build_object('name', person.name, 'away', person.away))
                       FROM person
                      WHERE person.name IN (SELECT delegate.person FROM delegate)), '[]') AS people,
           coalesce((SELECT jsonb_agg(jsonb_build_object('incident', incident.id,
                                                         'entry', coalesce(timeline.corrects, timeline.id),
                                                         'at', timeline.at,
                                                         'detail', timeline.detail))
                       FROM incident
                       JOIN timeline ON timeline.incident_id = incident.id
                      WHERE incident.ended_at IS NULL
                        AND incident.merged_into IS NULL
                        AND timeline.kind = '{TimelineKind.ROLE}'
                        AND {IS_CURRENT}), '[]') AS roles,
           coalesce((SELECT jsonb_agg(to_jsonb(playbook) - 'body' ORDER BY name, version DESC)
                       FROM playbook
                      WHERE playbook.service = :service), '[]') AS playbooks
      FROM own
""")  # noqa: S608  constants
