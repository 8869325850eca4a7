"""The watch over the feed: what the service itself looks after, round by round, in one process at a time.

What it finds out are signals, and go through the intake like any other: incidents stay a function of facts.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import db
from app.feed import heartbeat, store
from app.feed.heartbeat import Found, Heartbeat
from app.feed.store import OpenAlert
from app.incidents.signal import EndReason
from app.webhooks.intake import Delivery, Intake
from app.webhooks.source import Reading

log = logging.getLogger("aftermath.feed")

# After a pause this long nobody was there to be told: the service was down, or without its database.
AWAY = timedelta(minutes=1)


async def watch_for_ever(engine: AsyncEngine, intake: Intake, *, interval_seconds: float) -> None:
    away = max(AWAY, 3 * timedelta(seconds=interval_seconds))
    while True:
        await asyncio.sleep(interval_seconds)
        try:
            await watch(engine, intake, now=datetime.now(UTC), away=away)
        except Exception as error:
            if not db.is_unreachable(error):
                log.exception("watching the feed failed")


async def watch(engine: AsyncEngine, intake: Intake, *, now: datetime, away: timedelta = AWAY) -> bool:
    """One round; False if another process is at it."""
    async with db.transaction(engine) as tx:
        if not await store.only_one(tx, "watch"):
            return False
        listening_since = await store.listening_since(tx, now=now, away=away)
        await store.sample(tx, now=now)
        beats = await store.heartbeats(tx)
        stale = await store.stale(tx, listening_since=listening_since, now=now)
    for beat in beats:
        if found := heartbeat.judge(beat, listening_since=listening_since, now=now):
            await _alone(engine, intake, beat, found, now=now)
    for (source_id, source), those in _by_source(stale).items():
        signals = tuple(alert.ended(alert.last_seen_at, EndReason.TIMEOUT) for alert in those)
        async with db.transaction(engine) as tx:
            await intake.conclude(tx, Delivery(source_id, source, now, Reading(signals), b""), why="timeout")
    return True


def _by_source(alerts: Iterable[OpenAlert]) -> dict[tuple[int, str], list[OpenAlert]]:
    found: dict[tuple[int, str], list[OpenAlert]] = defaultdict(list)
    for alert in alerts:
        found[alert.source_id, alert.source].append(alert)
    return found


async def _alone(engine: AsyncEngine, intake: Intake, beat: Heartbeat, found: Found, *, now: datetime) -> None:
    """A transaction for each: one that fails must not keep the others from being told."""
    try:
        async with db.transaction(engine) as tx:
            await tell(tx, intake, beat, found, now=now)
    except store.Changed:
        log.info("a heartbeat of %s came meanwhile", beat.source)
    except Exception as error:
        if db.is_unreachable(error):
            raise
        log.exception("a heartbeat of %s cannot be told of", beat.source)


async def tell(tx: AsyncConnection, intake: Intake, beat: Heartbeat, found: Found, *, now: datetime) -> None:
    """Raises store.Changed if it is no longer so; then nothing has happened once the transaction is rolled back."""
    # The locks of the intake come first, as in its own batches, which write beats after them.
    if found.signal is not None:
        delivery = Delivery(beat.source_id, beat.source, now, Reading((found.signal,)), b"")
        await intake.conclude(tx, delivery, why=found.change)
    await store.note(tx, beat, found)
