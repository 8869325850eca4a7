"""SQL for the response to one incident: its facts, who takes which role, and everything that follows from them."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Conflict
from app.base.schema import Incident, Playbook, TimelineEntry
from app.base.values.severity import severity_name
from app.base.values.times import Span
from app.incidents import actions
from app.incidents.actions import Ref, hold, not_in_the_future
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.history import timeline
from app.incidents.history.fact import Fact
from app.incidents.history.timeline import Attribution, facts_of
from app.incidents.impact.individual import impacts_of
from app.incidents.impact.store import planned_within
from app.incidents.measures.business_hours import BusinessHours, clock, seconds
from app.incidents.measures.measures import Facts, Weights, detected_at, service, severity
from app.incidents.measures.vectorized import microseconds
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
    HELD_BY_MANY,
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
from app.response.store.agreed import Agreed, read_agreed
from app.response.store.targets import business_hours
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
    if_vacant: bool = False,
    now: datetime,
) -> TimelineEntry:
    """Records that a person takes a role or (`holds` is false) lays it down, and returns the entry.

    With `instead_of`, only if that person holds it now, and with `if_vacant` only if no one else does: of two who take
    over at once, one succeeds. Taking what they already held records nothing, unless a time is stated: it then counts
    whatever is recorded about the time between. Raises IncidentNotFound, MergedAway, InTheFuture or NotTheHolder.
    """
    row = await hold(session, ref)
    not_in_the_future(attribution.at, now)
    facts = (await facts_of(await session.connection(), [row.id], [TimelineKind.ROLE])).get(row.id, ())
    found = holdings(facts)
    current = holders(found, role)
    is_taken = if_vacant and bool(current) and person not in current
    if is_taken or (instead_of is not None and instead_of not in current):
        raise _not_the_holder(current)
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
        message = f"the role was held by {names} at that time" if names else "no one held the role at that time"
    else:
        message = f"the role is now held by {names}" if names else "no one holds the role now"
    return NotTheHolder(f"{message}; fetch the response again")


def _is_held_since(fact: Fact, found: Sequence[Holding], at: datetime) -> bool:
    """Whether the person who took the role with this fact still holds it, and did at that time."""
    return fact.at <= at and Holding(fact["role"], fact["person"], fact.at) in found


async def declare(
    session: AsyncSession,
    ref: Ref,
    attribution: Attribution,
    *,
    at_stated: bool,
    type_name: str | None,
    commander: str | None,
    responders: Sequence[str],
    now: datetime,
) -> Incident:
    """A person begins the response to a known incident, and states its type and who takes which role.

    A role that someone else holds stays theirs. Raises what `actions.declare_response` and `assemble` raise.
    """
    row = await actions.declare_response(session, ref, attribution, at_stated=at_stated, now=now)
    assigned = Attribution(max(attribution.at, actions.detected_at(row)), attribution.by)
    return await assemble(
        session,
        row,
        assigned,
        at_stated=at_stated,
        type_name=type_name,
        commander=commander,
        responders=responders,
        now=now,
    )


async def assemble(
    session: AsyncSession,
    row: Incident,
    attribution: Attribution,
    *,
    at_stated: bool,
    type_name: str | None,
    commander: str | None,
    responders: Sequence[str],
    now: datetime,
) -> Incident:
    """Records who responds to the incident, and states its type. Whoever commands it keeps the role.

    Raises what `actions.amend` raises.
    """
    assigned = Attribution(attribution.at, attribution.by)
    taken = [("commander", commander)] if commander else []
    for role, person in [*taken, *(("responder", person) for person in responders)]:
        with suppress(NotTheHolder):  # a declaration, perhaps a repeated one, takes no role away
            await assign(
                session,
                row.id,
                role,
                person,
                assigned,
                holds=True,
                instead_of=None,
                at_stated=at_stated,
                if_vacant=role not in HELD_BY_MANY,
                now=now,
            )
    if type_name is None:
        return row
    return await actions.amend(session, row.id, {"type": type_name}, by=attribution.by, if_match=None, now=now)


# — what follows from the facts —


@dataclass(frozen=True, slots=True)
class RoleState:
    """A role that the type needs or someone holds. `suggested`: who could fill it while it is vacant."""

    role: str
    holders: Sequence[Holding]
    delegates: Sequence[str]
    suggested: str | None


@dataclass(frozen=True, slots=True)
class Response:
    """The response to one incident. `type` applies, `types` are all there are."""

    incident: Incident
    type: IncidentType | None
    types: Sequence[IncidentType]
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
    harm = (await impacts_of(tx, [row], now=now, weights=weights)).get(row.id)
    name, span = service(Facts.of(row)), lasted(row, now)
    planned = (await planned_within(tx, [name], span)).get(name, ())
    return await response_to(tx, row, harmed=bool(harm and harm.downtime), planned=bool(planned), now=now)


def lasted(row: Incident, now: datetime) -> Span:
    return Span(row.began_at, max(row.began_at, row.ended_at or now))


async def response_to(
    tx: AsyncConnection,
    row: Incident,
    *,
    harmed: bool,
    planned: bool,
    now: datetime,
) -> Response:
    """The response, given whether the incident had impact and whether a part of it was planned maintenance.

    Two statements, and two more if the target names a calendar.
    """
    known = Facts.of(row)
    facts = (await facts_of(tx, [row.id], OF_RESPONSE)).get(row.id, [])
    agreed = await read_agreed(tx, service(known), row.source_ids)
    type_ = type_of(agreed.types, row.type_stated, labels_of(row, agreed.owner), agreed.sources)
    history = holdings(facts)
    target = agreed.targets.of(known)
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
        types=agreed.types,
        facts=facts,
        room=room_in_use(facts),
        exit=exit_states(type_.exit_criteria if type_ else (), facts),
        roles=_roles(row, type_, history, agreed, now=now),
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
            elapsed=elapsed_of(calendars, target, known, now),
        ),
        playbooks=[*agreed.playbooks.values()],
        impact=impact,
        definition=Definition(
            affects_customers=harmed or bool(impact.customers),
            unplanned=not planned,
            beyond_an_hour=beyond_an_hour(known, row.expected_to_last_stated, now=now),
        ),
    )


def labels_of(row: Incident, owner: str) -> Mapping[str, str]:
    """The labels to which the matchers of types are applied."""
    facts = Facts.of(row)
    own = {"service": service(facts), "severity": severity_name(severity(facts)), "owner": owner}
    return row.labels | own | ({"environment": row.environment} if row.environment else {})


def sources_of(row: Incident, names: Mapping[int, str]) -> list[str]:
    """The names of the sources that reported it."""
    return [names[id_] for id_ in row.source_ids if id_ in names]


def _roles(
    row: Incident, type_: IncidentType | None, history: Sequence[Holding], agreed: Agreed, *, now: datetime
) -> list[RoleState]:
    current = [each for each in history if each.ends_at is None]
    names = dict.fromkeys([*(type_.roles if type_ else ()), *(each.role for each in current)])
    busy = {
        each.person
        for incident, facts in agreed.roles_of_open.items()
        if incident != row.id
        for each in holdings(facts)
        if each.ends_at is None
    }
    found = []
    for role in names:
        held = [each for each in current if each.role == role]
        ordered = delegates_of(agreed.delegates, role, agreed.owner)
        free = None
        if not held and row.ended_at is None:
            free = suggested(ordered, agreed.absences, busy, now=now)
        found.append(RoleState(role, held, ordered, free))
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


def elapsed_of(calendars: Mapping[str, BusinessHours], target: Target | None, facts: Facts, now: datetime) -> Elapsed:
    """The clock of the target: the business hours of its calendar, if it names one, else the clock that always runs."""
    hours = calendars.get(target.calendar) if target and target.calendar else None
    if hours is None:
        return judging.elapsed
    times = (detected_at(facts), facts.ended_at, facts.acknowledged_at, now)
    known = clock(hours, np.array([microseconds(at) for at in times if at is not None], np.int64))

    def in_hours(begins_at: datetime, ends_at: datetime) -> float:
        begin, end = (np.array([microseconds(at)], np.int64) for at in (begins_at, ends_at))
        return float(seconds(known, begin, end)[0])

    return in_hours
