"""Runs ingest in one process: starts and stops the queue, the flusher and the drain, with their own connections."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request

from app.base import db
from app.base.http.context import context_of
from app.base.process.spool import Spool
from app.ingest.handlers import Handlers
from app.ingest.intake.drain import Drain
from app.ingest.intake.flush import Flusher, LoadRules
from app.ingest.intake.queue import Queue
from app.settings import Settings

CONNECTIONS = 7  # at most: two each for both lanes and the drain (one is for handlers), and one to load rules


@dataclass(frozen=True, slots=True)
class Ingest:
    queue: Queue
    flusher: Flusher
    tasks: Sequence[asyncio.Task[None]]  # if one ends before the service does, the process must be restarted


def ingest_of(request: Request) -> Ingest:
    return context_of(request).part(Ingest)


@asynccontextmanager
async def ingesting(
    settings: Settings,
    url: str,
    load_rules: LoadRules,
    handlers: Handlers,
    *,
    monitor: db.DatabaseMonitor,
    spool: Spool,
) -> AsyncIterator[Ingest]:
    """Accepts deliveries during the block. It has its own connections, so that slow queries do not delay alerts."""
    engine = db.connect(url, pool_size=CONNECTIONS, few_rows=True)
    flusher = Flusher(engine, load_rules, handlers, monitor, quarantine_bytes=settings.quarantine_bytes)
    try:
        async with (
            Queue(
                flusher,
                engine,
                monitor=monitor,
                spool=spool,
                batch_alerts=settings.batch_alerts,
                queue_alerts=settings.queue_alerts,
                queue_seconds=settings.queue_seconds,
            ) as queue,
            Drain(
                flusher,
                engine,
                monitor=monitor,
                spool=spool,
                batch_alerts=settings.batch_alerts,
            ) as drain,
        ):
            yield Ingest(queue, flusher, [*queue.tasks, *drain.tasks])
    finally:
        await engine.dispose()
