"""What Prometheus exports about the response: outcomes of targets, counted when incidents settle, and gauges."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.schema import Incident, Playbook, Service
from app.base.values.severity import severity_name
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.grouping.write import Count
from app.incidents.history.fact import Fact
from app.incidents.history.timeline import facts_of
from app.incidents.measures.measures import Facts, detected_at, service, severity
from app.incidents.measures.vectorized import Columns
from app.response.judgment import OUTCOMES, judge_many
from app.response.plan import IncidentType, exit_states, type_of
from app.response.playbooks import PlaybookState, state_of, version_in_use
from app.response.roles import holders, holdings, single_points_of_failure
from app.response.store import people
from app.response.store.playbooks import coverage, every_playbook
from app.response.store.response import facts_of_open, labels_of, sources_of
from app.response.store.targets import agreements, business_hours
from app.response.store.types import all_types, source_names
from app.response.targets import Agreements, TargetOutcome
from app.response.updates import cadence, stakeholder_updates, updates_of

TARGET_OUTCOMES = "target_outcomes"  # a tally: the target, and severity and outcome
OTHER = "other"
ROLES_AT_MOST = 20
VACANT_AFTER = timedelta(minutes=5)

Samples = Mapping[tuple[str, ...], float]


async def count_outcomes(tx: AsyncConnection, facts: Mapping[UUID, Facts], now: datetime) -> list[Count]:
    """The outcomes of the targets of these incidents, where something was agreed on."""
    async with db.session_within(tx) as session:
        agreed = await agreements(session)
    calendars = await business_hours(tx, agreed.calendars())
    recorded = await facts_of(tx, facts.keys(), [TimelineKind.UPDATE])
    updates = {
        place: [fact.at for fact in stakeholder_updates(recorded.get(id_, ()))] for place, id_ in enumerate(facts)
    }
    columns = Columns.of(range(len(facts)), facts.values())
    judged = judge_many(columns, agreed, updates, calendars, now=now)
    counts = Counter(
        (str(what), f"{severity_name(level)} {OUTCOMES[code]}")
        for what, codes in judged.items()
        for code, level, monitoring in zip(
            codes.tolist(), columns.severity.tolist(), columns.monitoring.tolist(), strict=True
        )
        if OUTCOMES[code] is not TargetOutcome.NOT_AGREED and not monitoring
    )
    return [(TARGET_OUTCOMES, what, label, number) for (what, label), number in sorted(counts.items())]


async def read_gauges(tx: AsyncConnection, services: Sequence[str], now: datetime) -> Mapping[str, Samples]:
    """A fixed number of statements; reads only open incidents, playbooks, and the services of the last weeks.

    `services` are those exported separately.
    """
    async with db.session_within(tx) as session:
        is_open = col(Incident.ended_at).is_(None), col(Incident.merged_into).is_(None)
        query = select(Incident).where(*is_open, col(Incident.test_stated).is_not(True))
        rows = (await session.exec(query)).all()
        types, agreed = await all_types(session), await agreements(session)
        sources = await source_names(session)
        names = {service(Facts.of(row)) for row in rows}
        owned = await session.exec(select(Service.name, Service.owner).where(col(Service.name).in_(names)))
        owners: dict[str, str] = {name: owner or "" for name, owner in owned}
        kinds = [TimelineKind.UPDATE, TimelineKind.ROLE, TimelineKind.CRITERION]
        facts = await facts_of_open(await session.connection(), kinds)
        delegates, absences = await people.delegates(session), await people.absences(session)
        states = await _playbook_states(session, now)
        uncovered = await coverage(session, await every_playbook(session), now=now)
    overdue: Counter[tuple[str, ...]] = Counter()
    vacant: Counter[str] = Counter({role: 0 for type_ in types for role in type_.roles})
    criteria = 0
    for row in rows:
        labels, own = labels_of(row, owners.get(service(Facts.of(row)), "")), sources_of(row, sources)
        type_ = type_of(types, row.type_stated, labels, own)
        of_row = facts.get(row.id, ())
        if _is_overdue(row, type_, agreed, of_row, now):
            known = service(Facts.of(row))
            overdue[known if known in services else OTHER, severity_name(severity(Facts.of(row)))] += 1
        if type_ is not None:
            criteria += sum(not each.met for each in exit_states(type_.exit_criteria, of_row))
            if now - detected_at(Facts.of(row)) > VACANT_AFTER:
                held = holdings(of_row)
                vacant.update(role for role in type_.roles if not holders(held, role))
    missing = Counter({role: 0 for role, _ in delegates})
    missing.update(each.role for each in single_points_of_failure(delegates, absences, now=now))
    return {
        "updates_overdue": {labels: float(number) for labels, number in overdue.items()},
        "roles_vacant": _bounded(vacant),
        "exit_criteria_open": {(): float(criteria)},
        "playbooks": {(str(state),): float(states[state]) for state in PlaybookState},
        "services_without_playbook": {(): float(len(uncovered.without))},
        "delegates_missing": _bounded(missing),
    }


def _is_overdue(
    row: Incident, type_: IncidentType | None, agreed: Agreements, facts: Sequence[Fact], now: datetime
) -> bool:
    known = Facts.of(row)
    target = agreed.of(known)
    due = cadence(type_.update_seconds if type_ else None, target.update_seconds if target else None, severity(known))
    found = updates_of(facts, due, detected_at=detected_at(known), ended_at=None, now=now)
    return found.overdue > timedelta()


async def _playbook_states(session: AsyncSession, now: datetime) -> Counter[PlaybookState]:
    """How many playbooks are in each state: that of the version in use, else of the newest."""
    found: dict[tuple[str, str], list[Playbook]] = defaultdict(list)
    query = select(Playbook).options(defer(col(Playbook.body)))  # type: ignore[arg-type]  # the mapped attribute
    for each in await session.exec(query.order_by(col(Playbook.version).desc())):
        found[each.service, each.name].append(each)
    shown = (version_in_use(versions, now=now) or versions[0] for versions in found.values())
    return Counter(state_of(each, now=now) for each in shown)


def _bounded(roles: Mapping[str, int]) -> Samples:
    """By name; roles beyond the limit together."""
    names = sorted(roles)
    found: dict[tuple[str, ...], float] = {(name,): float(roles[name]) for name in names[:ROLES_AT_MOST]}
    if rest := names[ROLES_AT_MOST:]:
        found[OTHER,] = found.get((OTHER,), 0.0) + sum(roles[name] for name in rest)
    return found
