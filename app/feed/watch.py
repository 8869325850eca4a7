"""The watch over the feed: what the service itself looks after, round by round, in one process at a time."""

import asyncio
import logging
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from app import db
from app.feed import store

log = logging.getLogger("aftermath.feed")


async def watch_for_ever(engine: AsyncEngine, *, interval_seconds: float) -> None:
    while True:
        await asyncio.sleep(interval_seconds)
        try:
            await watch(engine, now=datetime.now(UTC))
        except Exception as error:
            if not db.is_unreachable(error):
                log.exception("watching the feed failed")


async def watch(engine: AsyncEngine, *, now: datetime) -> bool:
    """One round; False if another process is at it."""
    async with db.transaction(engine) as tx:
        if not await store.only_one(tx, "watch"):
            return False
        await store.sample(tx, now=now)
    return True
