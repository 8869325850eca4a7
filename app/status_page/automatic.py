"""What happens on the status page without a person: times that follow incidents and, for components that ask
for it, a first word about a problem.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.status_page.component import OF_SEVERITY, Proposal, Status, only
from app.status_page.public_incident import OVER as STAGES_OVER
from app.status_page.public_incident import PublicKind, PublicStage, statuses
from app.status_page.store.components import all_components, proposed
from app.status_page.store.following import follow
from app.status_page.store.incidents import (
    NewIncident,
    NewUpdate,
    PublicIncidentRows,
    add_update,
    everything_public,
    list_automatic,
    publish,
)

TITLE = "We are looking into a problem"
BEGUN = "We have noticed a problem and are looking into it."
WORSE = "The problem has become worse. We are looking into it."
BACK = "The problem is back. We are looking into it."
OVER = "The problem is over."
UPDATES_AT_MOST = 20  # of one that comes and goes; more would inform no one


async def keep_up(session: AsyncSession, *, publishes: bool = True, delay: timedelta, now: datetime) -> bool:
    """Follows incidents and publishes automatically. Only one process does it at a time; returns False if another does.

    What lasts for `delay` is published for components that ask for it. It ends with the incident, unless a person has
    written to it.
    """
    tx = await session.connection()
    if not (await tx.execute(_TRY_LOCK)).scalar_one():
        return False
    await follow(tx, now=now)
    if not publishes:
        return True
    running = await list_automatic(session)
    asking = [row for row in await all_components(session) if row.automatic]
    if not asking and not running:
        return True
    found = await proposed(session, asking, now=now)
    known = await _published(session, {each.number for proposal in found.values() for each in proposal.incidents})
    suppressed = known - {each.number for each, _ in running}  # people have taken over, ended or withdrawn them
    proposals = {
        name: only(proposal, lambda each: each.detected_at <= now - delay and each.number not in suppressed)
        for name, proposal in found.items()
    }
    for each, incident_is_over in running:
        await _continue(session, each, proposals, incident_is_over=incident_is_over, now=now)
    shown = statuses(await everything_public(session), now)
    missing = {name: proposal for name, proposal in proposals.items() if name not in shown}
    for number, components in _beginning(missing, known).items():
        first = NewUpdate(PublicStage.INVESTIGATING, BEGUN, components, by=None, token=None)
        await publish(session, NewIncident(PublicKind.INCIDENT, TITLE, first, incident=number, automatic=True), now=now)
    return True


def _beginning(proposals: Mapping[str, Proposal], published: Collection[int]) -> Mapping[int, Mapping[str, Status]]:
    """The worst incident of each component that was never published, by number, with all components that share it."""
    found: dict[int, dict[str, Status]] = defaultdict(dict)
    for name, proposal in proposals.items():
        new = next((each for each in proposal.incidents if each.number not in published), None)
        if new is not None:
            found[new.number][name] = OF_SEVERITY[new.severity]
    return found


async def _published(session: AsyncSession, numbers: Collection[int]) -> set[int]:
    """The incidents that were ever published."""
    tx = await session.connection()
    return set((await tx.execute(_PUBLISHED, {"numbers": sorted(numbers)})).scalars())


async def _continue(
    session: AsyncSession,
    each: PublicIncidentRows,
    proposals: Mapping[str, Proposal],
    *,
    incident_is_over: bool,
    now: datetime,
) -> None:
    """Ends it with its incident, and publishes that it became worse, came back or concerns another component that asks
    for it. A component that recovers before the others waits for the end.
    """
    is_over = PublicStage(each.updates[-1].status) in STAGES_OVER
    if incident_is_over:
        if not is_over:
            update = NewUpdate(PublicStage.RESOLVED, OVER, {}, by=None, token=None)
            await add_update(session, each.row.id, update, now=now)
        return
    if len(each.updates) >= UPDATES_AT_MOST:
        return
    shown = statuses([each.public()], now)
    named = set(each.public().components)
    worse = {
        name: proposal.status
        for name, proposal in proposals.items()
        if (name in named or any(one.number == each.number for one in proposal.incidents))
        and proposal.status.rank > shown.get(name, Status.OPERATIONAL).rank
        and proposal.status is not Status.UNDER_MAINTENANCE
    }
    if worse:
        update = NewUpdate(PublicStage.INVESTIGATING, BACK if is_over else WORSE, worse, by=None, token=None)
        await add_update(session, each.row.id, update, now=now)


_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('aftermath.status page'))")

_PUBLISHED = text("""
    SELECT DISTINCT incident.number
      FROM public_incident
      JOIN incident AS named ON named.id = public_incident.incident_id
      JOIN incident ON incident.id = coalesce(named.merged_into, named.id)
     WHERE incident.number = ANY(CAST(:numbers AS bigint[]))
""")
