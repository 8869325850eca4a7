"""One periodic check of all sources: samples, overdue heartbeats, stale and expired alerts. Only one process runs it at
a time.

Its conclusions are signals and are applied like delivered ones, so incidents remain a function of facts.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.incidents.grouping.batch import LAST_SEEN_PRECISION
from app.incidents.grouping.signal import EndReason, Signal
from app.ingest.health import heartbeat, store
from app.ingest.health.heartbeat import BeatSeries, HeartbeatTransition
from app.ingest.health.reconcile.compare import OpenAlert
from app.ingest.intake.flush import Delivery, Flusher
from app.ingest.sender import Reading

log = logging.getLogger("aftermath.health")

# After a pause this long, no delivery could arrive: the service or its database was down.
AWAY = timedelta(minutes=1)
# A report may be queued before it is stored.
_QUEUED_AT_MOST = timedelta(seconds=30)


async def watch(engine: AsyncEngine, flusher: Flusher, *, now: datetime, away: timedelta = AWAY) -> bool:
    """Returns False if another process is running the check."""
    async with db.session(engine) as session:
        if not await store.only_one(session, "watch"):
            return False
        listening_since = await store.listening_since(session, now=now, away=away)
        await store.sample(session, now=now)
        heartbeats = await store.heartbeats(session)
        stale = await store.stale(session, listening_since=listening_since, now=now)
        # Of reports in one minute only the first may be stored. A pause shorter than `away` remains unnoticed.
        margin = max(LAST_SEEN_PRECISION, away) + _QUEUED_AT_MOST
        expired = await store.expired(session, listening_since=listening_since, now=now, margin=margin)
    for beats in heartbeats:
        if transition := heartbeat.judge(beats, listening_since=listening_since, now=now):
            await _apply_alone(engine, flusher, beats, transition, now=now)
    ends = [("timeout", alert, alert.ended(EndReason.TIMEOUT)) for alert in stale]
    ends += [("expired", alert, _expiry(alert, listening_since)) for alert in expired]
    for (why, source_id, source), signals in _by_source(ends).items():
        async with db.transaction(engine) as tx:
            await flusher.apply_internal(tx, Delivery(source_id, source, now, Reading(tuple(signals))), why=why)
    return True


def _expiry(alert: OpenAlert, listening_since: datetime) -> Signal:
    """What expired while no delivery could arrive may have been repeated then: when it has ended is not known."""
    if alert.expires_at is None or alert.expires_at < listening_since:
        return alert.ended(EndReason.TIMEOUT)
    return alert.ended(EndReason.EXPIRED, alert.expires_at)


def _by_source(ends: Iterable[tuple[str, OpenAlert, Signal]]) -> dict[tuple[str, int, str], list[Signal]]:
    found: dict[tuple[str, int, str], list[Signal]] = defaultdict(list)
    for why, alert, signal in ends:
        found[why, alert.source_id, alert.source].append(signal)
    return found


async def _apply_alone(
    engine: AsyncEngine, flusher: Flusher, beats: BeatSeries, transition: HeartbeatTransition, *, now: datetime
) -> None:
    """Applies it in a separate transaction, so that a failure does not affect the others."""
    try:
        async with db.session(engine) as session:
            await apply(session, flusher, beats, transition, now=now)
    except store.HeartbeatChanged:
        log.info("a heartbeat from %s arrived meanwhile", beats.source)
    except Exception as error:
        if db.is_unreachable(error) or db.is_contended(error):
            raise
        log.exception("the state of a heartbeat from %s could not be recorded", beats.source)


async def apply(
    session: AsyncSession, flusher: Flusher, beats: BeatSeries, transition: HeartbeatTransition, *, now: datetime
) -> None:
    """Raises store.HeartbeatChanged if a beat arrived meanwhile; the caller must roll back."""
    # Take the locks on grouping keys first: a batch of deliveries also takes them before it writes beats.
    if transition.signal is not None:
        delivery = Delivery(beats.source_id, beats.source, now, Reading((transition.signal,)))
        await flusher.apply_internal(await session.connection(), delivery, why=transition.event)
    await store.record(session, beats, transition)
