"""Applies spooled deliveries once the database is back, each exactly once and with its original time of arrival."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.process.spool import DamagedRecord, Spool, SpooledDelivery
from app.base.process.threads import off_loop_if_large
from app.ingest.intake import store
from app.ingest.intake.flush import Delivery, Flusher
from app.ingest.reading.envelope import decode_request
from app.ingest.replay import read_again
from app.ingest.sender import Reading, Receipt, Rejected, Request

log = logging.getLogger("aftermath.ingest")

LOOK_SECONDS = 0.5  # interval between checks of the spool
RETRY_SECONDS = 5.0  # pause after a failure


class Drain:
    """Drains the spool whenever the database is up. `async with Drain(…):`"""

    def __init__(
        self,
        flusher: Flusher,
        engine: AsyncEngine,
        *,
        monitor: db.DatabaseMonitor,
        spool: Spool,
        batch_alerts: int,
    ) -> None:
        self._flusher = flusher
        self._engine = engine
        self._connection = db.RawConnection(engine)
        self._monitor = monitor
        self._spool = spool
        self._batch_alerts = batch_alerts
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._drain_for_ever(), name="drain")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._connection.close()

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """They run as long as the drain. If one ends earlier, the process must be restarted."""
        return [self._task] if self._task else []

    async def _drain_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                depth = await self._spool.depth()
                if depth.bytes and not self._monitor.is_down:
                    await self._spool.drain(self._apply)
            except Exception as error:
                if not db.is_unreachable(error):
                    log.exception("the deliveries in the spool cannot be applied")
                await asyncio.sleep(RETRY_SECONDS)

    async def _apply(self, found: Sequence[SpooledDelivery | DamagedRecord]) -> bool:
        """Returns whether everything has been applied or quarantined. Raises the database's errors while it is down."""
        senders = {(one.source, one.kind) if isinstance(one, SpooledDelivery) else _SOURCE_OF_DAMAGED for one in found}
        async with db.transaction(self._engine) as tx:
            ids = await store.ensure_sources(tx, senders, now=datetime.now(UTC))
        all_applied = True
        async for batch in self._batches(found, ids):
            for outcome in await self._flusher.flush(self._connection, batch):
                if isinstance(outcome, Exception) and db.is_unreachable(outcome):
                    raise outcome
                all_applied = all_applied and isinstance(outcome, Receipt)
        return all_applied

    async def _batches(
        self, found: Sequence[SpooledDelivery | DamagedRecord], source_ids: Mapping[tuple[str, str], int]
    ) -> AsyncIterator[list[Delivery]]:
        batch: list[Delivery] = []
        weight = 0
        for kept in found:
            size = len(kept.raw if isinstance(kept, DamagedRecord) else kept.body)
            one = await off_loop_if_large(size, _delivery, kept, source_ids)
            if batch and weight + one.weight > self._batch_alerts:
                yield batch
                batch, weight = [], 0
            batch.append(one)
            weight += one.weight
        if batch:
            yield batch


_SOURCE_OF_DAMAGED = ("spool", "spool")  # name and kind of the source for records whose own source cannot be read


def _delivery(one: SpooledDelivery | DamagedRecord, source_ids: Mapping[tuple[str, str], int]) -> Delivery:
    """The delivery, with the id, time and reading that it had or would have had when it arrived."""
    if isinstance(one, DamagedRecord):
        rejected = Rejected("damaged_in_spool", "a stretch of the spool that has changed on its disk")
        name, kind = _SOURCE_OF_DAMAGED
        request, reading = Request(one.raw, one.received_at, name), Reading(rejected=(rejected,))
    else:
        name, kind = one.source, one.kind
        request, reading = _read(one)
    return Delivery(source_ids[name, kind], name, one.received_at, reading, request, kind, one.id, was_spooled=True)


def _read(spooled: SpooledDelivery) -> tuple[Request, Reading]:
    try:
        request = decode_request(spooled.body, source=spooled.source, received_at=spooled.received_at)
    except ValueError:
        rejected = Rejected("damaged_in_spool", "it does not begin with an envelope")
        return Request(spooled.body, spooled.received_at, spooled.source), Reading(rejected=(rejected,))
    return request, read_again(spooled.kind, request)
