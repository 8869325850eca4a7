"""The queue with a flusher that the test controls: no delivery waits forever."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.errors import Overloaded
from app.base.process.spool import Spool
from app.ingest.intake.flush import Delivery, Flusher
from app.ingest.intake.queue import Queue
from app.ingest.sender import Reading, Receipt

Flush = Callable[[Sequence[Delivery]], Coroutine[Any, Any, list[Receipt | Exception]]]


class Flushes(Flusher):
    """A flusher without a database."""

    def __init__(self, flush: Flush) -> None:
        self._flush = flush

    async def flush(self, _: db.RawConnection, deliveries: Sequence[Delivery]) -> list[Receipt | Exception]:
        return await self._flush(deliveries)


def a_queue(flush: Flush, *, queue_alerts: int = 500) -> Queue:
    return Queue(
        Flushes(flush),
        cast("AsyncEngine", None),
        monitor=db.DatabaseMonitor(""),
        spool=Spool(None, max_bytes=0),
        batch_alerts=500,
        queue_alerts=queue_alerts,
        queue_seconds=10,
    )


def a_delivery() -> Delivery:
    return Delivery(1, "alertmanager", datetime.now(UTC), Reading())


async def test_a_bug_in_a_flush_rejects_its_batch_and_later_deliveries() -> None:
    async def fails(_: Sequence[Delivery]) -> list[Receipt | Exception]:
        raise LookupError

    queue = a_queue(fails)
    await queue.__aenter__()
    for _ in ("in the batch", "after it"):
        with pytest.raises(Overloaded):
            await asyncio.wait_for(queue.take(a_delivery()), 10)
    with pytest.raises(ExceptionGroup):
        await queue.__aexit__()


async def test_a_bug_in_a_flush_rejects_the_deliveries_waiting_behind_it() -> None:
    started = asyncio.Event()

    async def fails(_: Sequence[Delivery]) -> list[Receipt | Exception]:
        started.set()
        await asyncio.sleep(0.05)
        raise LookupError

    queue = a_queue(fails)
    await queue.__aenter__()
    first = asyncio.create_task(queue.take(a_delivery()))
    await started.wait()
    behind = asyncio.create_task(queue.take(a_delivery()))
    for waiting in (first, behind):
        with pytest.raises(Overloaded):
            await asyncio.wait_for(waiting, 10)
    with pytest.raises(ExceptionGroup):
        await queue.__aexit__()


async def test_leaving_flushes_waiting_deliveries() -> None:
    async def flush(deliveries: Sequence[Delivery]) -> list[Receipt | Exception]:
        await asyncio.sleep(0.01)
        return [Receipt(one.id, 0, {}, []) for one in deliveries]

    async with a_queue(flush) as queue:
        waiting = [asyncio.create_task(queue.take(a_delivery())) for _ in range(200)]
        await asyncio.sleep(0)
    assert len({(await one).delivery_id for one in waiting}) == 200
    with pytest.raises(Overloaded):
        await queue.take(a_delivery())


async def test_a_full_queue_refuses_and_a_disconnecting_client_does_not_affect_others() -> None:
    go_on = asyncio.Event()

    async def flush(deliveries: Sequence[Delivery]) -> list[Receipt | Exception]:
        await go_on.wait()
        return [Receipt(one.id, 0, {}, []) for one in deliveries]

    async with a_queue(flush, queue_alerts=2) as queue:
        waiting = [asyncio.create_task(queue.take(a_delivery())) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="too many"):
            await queue.take(a_delivery())
        waiting[0].cancel()
        go_on.set()
        for one in waiting[1:]:
            await asyncio.wait_for(one, 10)
