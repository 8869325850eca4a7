"""SQL for the response to one incident: its facts, who takes which role, and everything that follows from them."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Conflict
from app.base.schema import Incident, Playbook, Service, TimelineEntry
from app.base.severity import severity_name
from app.base.times import Span
from app.incidents import timeline
from app.incidents.actions import Ref, hold, not_in_the_future
from app.incidents.fact import Fact
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.impact.individual import impacts_of
from app.incidents.impact.store import planned_within
from app.incidents.measures.business_hours import BusinessHours, clock, seconds
from app.incidents.measures.measures import Facts, Weights, detected_at, service, severity
from app.incidents.measures.vectorized import microseconds
from app.incidents.timeline import Attribution, facts_of
from app.response import targets as judging
from app.response.definition import Definition, beyond_an_hour
from app.response.plan import (
    CustomerImpact,
    ExitState,
    IncidentType,
    customer_impact,
    exit_states,
    room_in_use,
    type_of,
)
from app.response.roles import (
    Holding,
    Participant,
    delegates_of,
    first_alerted,
    first_responder,
    handovers,
    holders,
    holdings,
    participants,
    suggested,
)
from app.response.store import people
from app.response.store.playbooks import versions_of
from app.response.store.targets import agreements, business_hours
from app.response.store.types import all_types
from app.response.targets import Elapsed, Judged, Target, Verdict
from app.response.updates import Updates, cadence, stakeholder_updates, updates_of


class NotTheHolder(Conflict):
    title = "Role is held by someone else"


async def assign(
    session: AsyncSession,
    ref: Ref,
    role: str,
    person: str,
    attribution: Attribution,
    *,
    holds: bool,
    instead_of: str | None,
    at_stated: bool,
    now: datetime,
) -> TimelineEntry:
    """Records that a person takes a role or (`holds` is false) lays it down, and returns the entry.

    With `instead_of`, only if that person holds it now: of two who take over at once, one succeeds. Taking what they
    already hold records nothing, unless a time is stated: it then counts whatever is recorded about the time between.
    Raises IncidentNotFound, MergedAway, InTheFuture or NotTheHolder.
    """
    row = await hold(session, ref)
    not_in_the_future(attribution.at, now)
    facts = (await facts_of(await session.connection(), [row.id], [TimelineKind.ROLE])).get(row.id, ())
    found = holdings(facts)
    if instead_of is not None and instead_of not in holders(found, role):
        raise _not_the_holder(holders(found, role))
    then = holders(found, role, at=attribution.at if at_stated else None)
    if not holds and person not in then:
        raise _not_the_holder(then, at_stated=at_stated)
    if holds:
        for fact in facts:
            known = (fact["role"], fact["person"], fact["holds"]) == (role, person, True)
            if known and (fact.at == attribution.at if at_stated else _is_held_since(fact, found, attribution.at)):
                return (await timeline.entries_of_facts(session, [fact.entry]))[-1]
    detail = {"role": role, "person": person, "holds": holds}
    return await timeline.append(session, row.id, TimelineKind.ROLE, attribution, detail=detail, now=now)


def _not_the_holder(people: Sequence[str], *, at_stated: bool = False) -> NotTheHolder:
    names = ", ".join(people)
    if at_stated:
        message = f"the role was held by {names} at that time" if names else "nobody held the role at that time"
    else:
        message = f"the role is now held by {names}" if names else "nobody holds the role now"
    return NotTheHolder(f"{message}; fetch the response again")


def _is_held_since(fact: Fact, found: Sequence[Holding], at: datetime) -> bool:
    """Whether the person who took the role with this fact still holds it, and did at that time."""
    return fact.at <= at and Holding(fact["role"], fact["person"], fact.at) in found


# — what follows from the facts —


@dataclass(frozen=True, slots=True)
class RoleState:
    """A role that the type needs or somebody holds. `suggested`: who could fill it while it is vacant."""

    role: str
    holders: Sequence[Holding]
    delegates: Sequence[str]
    suggested: str | None


@dataclass(frozen=True, slots=True)
class Response:
    """The response to one incident."""

    incident: Incident
    type: IncidentType | None
    facts: Sequence[Fact]
    room: str | None
    exit: Sequence[ExitState]
    roles: Sequence[RoleState]
    history: Sequence[Holding]
    people: Sequence[Participant]
    first_alerted: str | None
    first_responder: str | None
    handovers: int
    updates: Updates
    target: Target | None
    verdicts: Mapping[Judged, Verdict]
    playbooks: Sequence[Sequence[Playbook]]
    impact: CustomerImpact
    definition: Definition


OF_RESPONSE = (
    TimelineKind.JOINED,
    TimelineKind.ROLE,
    TimelineKind.UPDATE,
    TimelineKind.CRITERION,
    TimelineKind.ROOM,
    TimelineKind.IMPACT,
    TimelineKind.ACKNOWLEDGED,
    TimelineKind.TASK,
)


async def read_response(session: AsyncSession, row: Incident, *, now: datetime, weights: Weights) -> Response:
    """A fixed number of statements, however much was recorded."""
    tx = await session.connection()
    known = Facts.of(row)
    facts = (await facts_of(tx, [row.id], OF_RESPONSE)).get(row.id, [])
    owner = (await session.exec(select(Service.owner).where(Service.name == service(known)))).first() or ""
    type_ = type_of(await all_types(session), row.type_stated, labels_of(row, owner))
    history = holdings(facts)
    target = (await agreements(session, service(known))).of(known)
    calendars = await business_hours(tx, [target.calendar] if target and target.calendar else [])
    updates = updates_of(
        facts,
        cadence(type_.update_seconds if type_ else None, target.update_seconds if target else None, severity(known)),
        detected_at=detected_at(known),
        ended_at=row.ended_at,
        now=now,
    )
    impact = customer_impact(facts)
    return Response(
        incident=row,
        type=type_,
        facts=facts,
        room=room_in_use(facts),
        exit=exit_states(type_.exit_criteria if type_ else (), facts),
        roles=await _roles(session, row, type_, history, owner, now=now),
        history=history,
        people=participants(facts),
        first_alerted=first_alerted(facts),
        first_responder=first_responder(facts),
        handovers=handovers(history),
        updates=updates,
        target=target,
        verdicts=judging.judge(
            known,
            target,
            [fact.at for fact in stakeholder_updates(facts)],
            now=now,
            elapsed=_elapsed(calendars, target, known, now),
        ),
        playbooks=[*(await versions_of(session, service(known))).values()],
        impact=impact,
        definition=await _definition(tx, row, impact, now=now, weights=weights),
    )


def labels_of(row: Incident, owner: str) -> Mapping[str, str]:
    """On which the matchers of types are applied."""
    facts = Facts.of(row)
    own = {"service": service(facts), "severity": severity_name(severity(facts)), "owner": owner}
    return row.labels | own | ({"environment": row.environment} if row.environment else {})


async def _roles(
    session: AsyncSession,
    row: Incident,
    type_: IncidentType | None,
    history: Sequence[Holding],
    owner: str,
    *,
    now: datetime,
) -> list[RoleState]:
    current = [each for each in history if each.ends_at is None]
    names = dict.fromkeys([*(type_.roles if type_ else ()), *(each.role for each in current)])
    delegates, absences = await people.delegates(session), await people.absences(session)
    elsewhere = await facts_of_open(await session.connection(), [TimelineKind.ROLE])
    busy = {
        each.person
        for incident, facts in elsewhere.items()
        if incident != row.id
        for each in holdings(facts)
        if each.ends_at is None
    }
    found = []
    for role in names:
        held = [each for each in current if each.role == role]
        ordered = delegates_of(delegates, role, owner)
        vacant = not held and row.ended_at is None
        found.append(RoleState(role, held, ordered, suggested(ordered, absences, busy, now=now) if vacant else None))
    return found


async def facts_of_open(tx: AsyncConnection, kinds: Collection[TimelineKind]) -> Mapping[UUID, Sequence[Fact]]:
    """The facts of these kinds of all open incidents. One statement."""
    found: dict[UUID, list[Fact]] = defaultdict(list)
    for each in await tx.execute(_FACTS_OF_OPEN, {"kinds": list(kinds)}):
        fact = Fact(each.corrects or each.id, each.at, TimelineKind(each.kind), each.by, each.note or "", each.detail)
        found[each.incident_id].append(fact)
    return found


_FACTS_OF_OPEN = text(f"""
    SELECT timeline.*
      FROM incident
      JOIN timeline ON timeline.incident_id = incident.id
     WHERE incident.ended_at IS NULL
       AND incident.merged_into IS NULL
       AND timeline.kind = ANY(:kinds)
       AND {IS_CURRENT}
""")  # noqa: S608  IS_CURRENT is a constant


def _elapsed(calendars: Mapping[str, BusinessHours], target: Target | None, facts: Facts, now: datetime) -> Elapsed:
    hours = calendars.get(target.calendar) if target and target.calendar else None
    if hours is None:
        return judging.elapsed
    times = (detected_at(facts), facts.ended_at, facts.acknowledged_at, now)
    known = clock(hours, np.array([microseconds(at) for at in times if at is not None], np.int64))

    def in_hours(begins_at: datetime, ends_at: datetime) -> float:
        begin, end = (np.array([microseconds(at)], np.int64) for at in (begins_at, ends_at))
        return float(seconds(known, begin, end)[0])

    return in_hours


async def _definition(
    tx: AsyncConnection, row: Incident, impact: CustomerImpact, *, now: datetime, weights: Weights
) -> Definition:
    facts = Facts.of(row)
    harm = (await impacts_of(tx, [row], now=now, weights=weights)).get(row.id)
    span = Span(row.began_at, max(row.began_at, row.ended_at or now))
    planned = (await planned_within(tx, [service(facts)], span)).get(service(facts), ())
    return Definition(
        affects_customers=bool(harm and harm.downtime) or bool(impact.customers),
        unplanned=not planned,
        beyond_an_hour=beyond_an_hour(facts, row.expected_to_last_stated, now=now),
    )
