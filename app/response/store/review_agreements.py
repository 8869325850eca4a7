"""Reads what types and targets say about the reviews of incidents, and what became of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Incident, Service
from app.incidents.agreement import Agreement, AgreementOutcome
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.fact import Fact
from app.incidents.history.timeline import facts_of
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.measures import Facts, service
from app.response.plan import IncidentType, ReviewRule, exit_states, type_of
from app.response.store.response import elapsed_of, labels_of, sources_of
from app.response.store.targets import agreements, business_hours
from app.response.store.types import all_types, source_names
from app.response.targets import Agreements, Target, judge
from app.response.updates import stakeholder_updates


@dataclass(frozen=True, slots=True)
class _Agreed:
    """Types, targets and calendars that may apply to some incidents."""

    types: Sequence[IncidentType]
    targets: Agreements
    calendars: Mapping[str, BusinessHours]
    owners: Mapping[str, str | None]
    sources: Mapping[int, str]

    def type_of(self, row: Incident) -> IncidentType | None:
        labels = labels_of(row, self.owners.get(service(Facts.of(row))) or "")
        return type_of(self.types, row.type_stated, labels, sources_of(row, self.sources))


async def _agreed(session: AsyncSession) -> _Agreed:
    """Four statements, and two for each calendar that a target names."""
    owned = await session.exec(select(Service.name, Service.owner).where(col(Service.owner).is_not(None)))
    owners = dict(owned.all())
    types, targets = await all_types(session), await agreements(session)
    calendars = await business_hours(await session.connection(), targets.calendars())
    return _Agreed(types, targets, calendars, owners, await source_names(session))


async def review_agreements(session: AsyncSession, incidents: Collection[UUID]) -> Mapping[UUID, Agreement]:
    """By incident. Five statements, and two for each calendar that a target names, however many incidents there are."""
    if not incidents:
        return {}
    rows = (await session.exec(select(Incident).where(col(Incident.id).in_(incidents)))).all()
    agreed = await _agreed(session)
    return {
        row.id: agreement_of(agreed.type_of(row), agreed.targets.of(Facts.of(row)), agreed.calendars) for row in rows
    }


async def agreement_outcomes(
    session: AsyncSession, rows: Sequence[Incident], now: datetime
) -> Mapping[UUID, AgreementOutcome]:
    """By incident. Five statements, and two for each calendar that a target names, however many incidents there are."""
    if not rows:
        return {}
    agreed = await _agreed(session)
    kinds = [TimelineKind.UPDATE, TimelineKind.CRITERION]
    recorded = await facts_of(await session.connection(), [row.id for row in rows], kinds)
    return {row.id: _kept(row, agreed, recorded.get(row.id, ()), now) for row in rows}


def _kept(row: Incident, agreed: _Agreed, recorded: Sequence[Fact], now: datetime) -> AgreementOutcome:
    facts, type_ = Facts.of(row), agreed.type_of(row)
    target = agreed.targets.of(facts)
    elapsed = elapsed_of(agreed.calendars, target, facts, now)
    verdicts = judge(facts, target, [fact.at for fact in stakeholder_updates(recorded)], now=now, elapsed=elapsed)
    criteria = exit_states(type_.exit_criteria if type_ else (), recorded)
    return AgreementOutcome(
        {str(what): str(each.outcome) for what, each in verdicts.items()},
        [each.criterion for each in criteria if not each.met],
    )


def agreement_of(
    type_: IncidentType | None, target: Target | None, calendars: Mapping[str, BusinessHours]
) -> Agreement:
    """The agreement that follows from the type and the target of an incident."""
    by_type = {ReviewRule.REQUIRED: True, ReviewRule.NEVER: False}.get(type_.review) if type_ else None
    if target is None:
        return Agreement(by_type)
    seconds = target.review_seconds
    due_after = None if seconds is None else timedelta(seconds=seconds)
    return Agreement(by_type, seconds is not None, due_after, calendars.get(target.calendar or ""))
