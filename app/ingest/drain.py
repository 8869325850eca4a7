"""From the spool to the database, once it is back: each delivery is applied once, as if it had just arrived."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol, Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.base import db
from app.base.errors import NotThisKind
from app.base.spool import Damaged, Kept, Spool
from app.base.tokens import CHANGE_KINDS
from app.ingest import store
from app.ingest.flush import Delivery, Flusher, Receipt
from app.ingest.sender import Reading, Rejected
from app.ingest.senders import SOURCES

log = logging.getLogger("aftermath.ingest")

LOOK_SECONDS = 0.5  # pause between two looks at the spool
RETRY_SECONDS = 5.0  # pause after a failure


class TakeDeployment(Protocol):
    """Applies a delivery about a deployment in the caller's transaction: its id, its verdict and the deployment."""

    async def __call__(
        self,
        tx: AsyncConnection,
        kind: str,
        body: bytes,
        *,
        source_id: int,
        source: str,
        received_at: datetime,
        delivery_id: UUID | None = None,
    ) -> tuple[UUID, str, str | None]: ...


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
        take_deployment: TakeDeployment,
    ) -> None:
        self._flusher = flusher
        self._engine = engine
        self._connection = db.RawConnection(engine)
        self._monitor = monitor
        self._spool = spool
        self._batch_alerts = batch_alerts
        self._take_deployment = take_deployment
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
        """They run as long as the drain does; if one ends earlier, only a restart helps."""
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
                    log.exception("the spool cannot be drained")
                await asyncio.sleep(RETRY_SECONDS)

    async def _apply(self, found: Sequence[Kept | Damaged]) -> bool:
        """Whether all of it has been applied or quarantined. Raises the database's errors while it is down."""
        senders = {(one.source, one.kind) if isinstance(one, Kept) else _SOURCE_OF_DAMAGED for one in found}
        async with db.transaction(self._engine) as tx:
            ids = await store.ensure_sources(tx, senders, now=datetime.now(UTC))
        left = [
            one
            for one in found
            if isinstance(one, Damaged)
            or one.kind not in CHANGE_KINDS
            or not await self._apply_deployment(one, ids[one.source, one.kind])
        ]
        all_applied = True
        for batch in self._batches(_delivery(one, ids) for one in left):
            for outcome in await self._flusher.flush(self._connection, batch):
                if isinstance(outcome, Exception) and db.is_unreachable(outcome):
                    raise outcome
                all_applied = all_applied and isinstance(outcome, Receipt)
        return all_applied

    async def _apply_deployment(self, one: Kept, source_id: int) -> bool:
        """Whether it could be applied. Raises the database's errors while it is down."""
        try:
            async with db.transaction(self._engine) as tx:
                if one.id not in await store.known_deliveries(tx, [one.id]):
                    await self._take_deployment(
                        tx,
                        one.kind,
                        one.body,
                        source_id=source_id,
                        source=one.source,
                        received_at=one.received_at,
                        delivery_id=one.id,
                    )
        except Exception as error:
            if db.is_unreachable(error):
                raise
            log.exception("a report of a deployment cannot be applied and goes to quarantine")
            return False
        return True

    def _batches(self, deliveries: Iterable[Delivery]) -> Iterator[list[Delivery]]:
        batch: list[Delivery] = []
        weight = 0
        for one in deliveries:
            if batch and weight + one.weight > self._batch_alerts:
                yield batch
                batch, weight = [], 0
            batch.append(one)
            weight += one.weight
        if batch:
            yield batch


_SOURCE_OF_DAMAGED = ("spool", "spool")  # name and kind of the source for records whose own source cannot be read


def _delivery(one: Kept | Damaged, source_ids: Mapping[tuple[str, str], int]) -> Delivery:
    """As the webhook read it from the same body at the same time."""
    if isinstance(one, Damaged):
        rejected = Rejected(one.raw, "damaged_in_spool", "a stretch of the spool that has changed on its disk")
        name, kind, reading, body = *_SOURCE_OF_DAMAGED, Reading((), (rejected,)), one.raw
    else:
        name, kind, reading, body = one.source, one.kind, _reading(one), one.body
    return Delivery(source_ids[name, kind], name, one.received_at, reading, body, kind, one.id, spooled=True)


def _reading(kept: Kept) -> Reading:
    if kept.kind in CHANGE_KINDS:
        return Reading((), (Rejected(kept.body, "cannot_apply", "the log says why"),))
    try:
        return SOURCES[kept.kind].read(kept.body, received_at=kept.received_at)
    except (KeyError, NotThisKind) as error:  # another version accepted it
        return Reading((), (Rejected(kept.body, "not_this_kind", type(error).__name__),))
