"""What happens on the status page without a person: times that follow incidents and, for components that ask
for it, a first word about a problem.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.status_page.component import Proposal, Status
from app.status_page.public_incident import OVER as STAGES_OVER
from app.status_page.public_incident import Kind, Stage, statuses
from app.status_page.store.components import all_components, proposed
from app.status_page.store.following import follow
from app.status_page.store.incidents import (
    Found,
    NewIncident,
    NewUpdate,
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
UPDATES_AT_MOST = 20  # of one that comes and goes; more would tell nobody anything


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
    proposals = await proposed(session, asking, now=now)
    for each, incident_is_over in running:
        await _continue(session, each, proposals, incident_is_over=incident_is_over, now=now)
    shown = statuses(await everything_public(session), now)
    for row in asking:
        if row.name not in shown:
            await _begin(session, row, proposals[row.name], delay=delay, now=now)
    return True


async def _begin(
    session: AsyncSession, row: schema.Component, proposal: Proposal, *, delay: timedelta, now: datetime
) -> None:
    """Its worst incident, unless that was published before: a person may have ended it, or withdrawn it."""
    lasting = [each for each in proposal.incidents if each.detected_at <= now - delay]
    if not lasting or proposal.status is Status.UNDER_MAINTENANCE:
        return
    worst = lasting[0]
    known = await session.connection()
    if (await known.execute(_WAS_PUBLISHED, {"number": worst.number})).first() is not None:
        return
    first = NewUpdate(Stage.INVESTIGATING, BEGUN, {row.name: proposal.status}, by=None, token=None)
    await publish(session, NewIncident(Kind.INCIDENT, TITLE, first, incident=worst.number, automatic=True), now=now)


async def _continue(
    session: AsyncSession, each: Found, proposals: Mapping[str, Proposal], *, incident_is_over: bool, now: datetime
) -> None:
    """Ends it with its incident, and publishes that it became worse or came back. A component that recovers before the
    others waits for the end.
    """
    is_over = Stage(each.updates[-1].status) in STAGES_OVER
    if incident_is_over:
        if not is_over:
            update = NewUpdate(Stage.RESOLVED, OVER, {}, by=None, token=None)
            await add_update(session, each.row.id, update, now=now)
        return
    if len(each.updates) >= UPDATES_AT_MOST:
        return
    shown = statuses([each.public()], now)
    worse = {
        name: proposal.status
        for name in each.public().components
        if (proposal := proposals.get(name)) is not None
        and proposal.status.rank > shown.get(name, Status.OPERATIONAL).rank
        and proposal.status is not Status.UNDER_MAINTENANCE
    }
    if worse:
        update = NewUpdate(Stage.INVESTIGATING, BACK if is_over else WORSE, worse, by=None, token=None)
        await add_update(session, each.row.id, update, now=now)


_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('aftermath.status page'))")

_WAS_PUBLISHED = text("""
    SELECT 1
      FROM public_incident
      JOIN incident AS told ON told.id = public_incident.incident_id
      JOIN incident ON incident.id = coalesce(told.merged_into, told.id)
     WHERE incident.number = :number
""")
