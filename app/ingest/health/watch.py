"""One periodic check of all sources: samples, overdue heartbeats, stale alerts. Only one process runs it at a time.

Its conclusions are signals and are applied like delivered ones, so incidents remain a function of facts.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.incidents.grouping.signal import EndReason
from app.ingest.flush import Delivery, Flusher
from app.ingest.health import heartbeat, store
from app.ingest.health.heartbeat import Beats, Conclusion
from app.ingest.health.reconcile.compare import OpenAlert
from app.ingest.sender import Reading

log = logging.getLogger("aftermath.health")

# After a pause this long, no delivery could arrive: the service or its database was down.
AWAY = timedelta(minutes=1)


async def watch(engine: AsyncEngine, flusher: Flusher, *, now: datetime, away: timedelta = AWAY) -> bool:
    """Returns False if another process is running the check."""
    async with db.session(engine) as session:
        if not await store.only_one(session, "watch"):
            return False
        listening_since = await store.listening_since(session, now=now, away=away)
        await store.sample(session, now=now)
        heartbeats = await store.heartbeats(session)
        stale = await store.stale(session, listening_since=listening_since, now=now)
    for beats in heartbeats:
        if conclusion := heartbeat.judge(beats, listening_since=listening_since, now=now):
            await _apply_alone(engine, flusher, beats, conclusion, now=now)
    for (source_id, source), alerts in _by_source(stale).items():
        signals = tuple(alert.ended(EndReason.TIMEOUT) for alert in alerts)
        async with db.transaction(engine) as tx:
            await flusher.apply_internal(tx, Delivery(source_id, source, now, Reading(signals)), why="timeout")
    return True


def _by_source(alerts: Iterable[OpenAlert]) -> dict[tuple[int, str], list[OpenAlert]]:
    found: dict[tuple[int, str], list[OpenAlert]] = defaultdict(list)
    for alert in alerts:
        found[alert.source_id, alert.source].append(alert)
    return found


async def _apply_alone(
    engine: AsyncEngine, flusher: Flusher, beats: Beats, conclusion: Conclusion, *, now: datetime
) -> None:
    """Applies it in a separate transaction, so that a failure does not affect the others."""
    try:
        async with db.session(engine) as session:
            await apply(session, flusher, beats, conclusion, now=now)
    except store.HeartbeatChanged:
        log.info("a heartbeat from %s arrived meanwhile", beats.source)
    except Exception as error:
        if db.is_unreachable(error):
            raise
        log.exception("the state of a heartbeat from %s could not be recorded", beats.source)


async def apply(
    session: AsyncSession, flusher: Flusher, beats: Beats, conclusion: Conclusion, *, now: datetime
) -> None:
    """Raises store.HeartbeatChanged if a beat arrived meanwhile; the caller must roll back."""
    # Take the locks on grouping keys first: a batch of deliveries also takes them before it writes beats.
    if conclusion.signal is not None:
        delivery = Delivery(beats.source_id, beats.source, now, Reading((conclusion.signal,)))
        await flusher.apply_internal(await session.connection(), delivery, why=conclusion.event)
    await store.record(session, beats, conclusion)
