"""Reads what types and targets say about the reviews of incidents."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Incident, Service
from app.incidents.agreement import Agreement
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.measures import Facts, service
from app.response.plan import IncidentType, ReviewRule, type_of
from app.response.store.response import labels_of, sources_of
from app.response.store.targets import agreements, business_hours
from app.response.store.types import all_types, source_names
from app.response.targets import Target


async def review_agreements(session: AsyncSession, incidents: Collection[UUID]) -> Mapping[UUID, Agreement]:
    """By incident. Five statements, and two for each calendar that a target names, however many incidents there are."""
    if not incidents:
        return {}
    rows = (await session.exec(select(Incident).where(col(Incident.id).in_(incidents)))).all()
    owners = dict(
        (await session.exec(select(Service.name, Service.owner).where(col(Service.owner).is_not(None)))).all()
    )
    types, agreed = await all_types(session), await agreements(session)
    sources = await source_names(session)
    calendars = await business_hours(await session.connection(), agreed.calendars())
    found = {}
    for row in rows:
        facts = Facts.of(row)
        labels, own = labels_of(row, owners.get(service(facts)) or ""), sources_of(row, sources)
        type_ = type_of(types, row.type_stated, labels, own)
        found[row.id] = agreement_of(type_, agreed.of(facts), calendars)
    return found


def agreement_of(
    type_: IncidentType | None, target: Target | None, calendars: Mapping[str, BusinessHours]
) -> Agreement:
    """What the type and the target of an incident say together."""
    by_type = {ReviewRule.REQUIRED: True, ReviewRule.NEVER: False}.get(type_.review) if type_ else None
    if target is None:
        return Agreement(by_type)
    seconds = target.review_seconds
    due_after = None if seconds is None else timedelta(seconds=seconds)
    return Agreement(by_type, seconds is not None, due_after, calendars.get(target.calendar or ""))
