"""The queue of deliveries: collects waiting deliveries into batches and decides when each batch starts.

While one batch is in the database, the next one fills, and starts in parallel once it is large enough. So the number of
commits stays small at any load. `flush.py` applies the batches. While the database is down, deliveries go to the spool.
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Self

from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.errors import Overloaded
from app.base.process.spool import Spool, SpooledDelivery, SpoolUnavailable
from app.ingest.intake.flush import Delivery, Flusher
from app.ingest.reading.envelope import encode_request
from app.ingest.sender import Receipt, SpoolReceipt

SLOW_SECONDS = 2.0  # if a batch takes longer, the database is probed
GATHER_SECONDS = 0.005  # how long a batch waits for the next requests of clients that just got a response
MIN_DELIVERIES_TO_GATHER = 8  # minimum deliveries in the previous batch for that wait
PARALLEL_BATCHES = 2  # batches in the database at once
MIN_BATCH_WEIGHT = 64  # minimum weight of a batch that starts while another is in the database
SPOOL_SECONDS = 0.5  # interval at which waiting deliveries go to the spool while the database is down


class _Waiting(NamedTuple):
    delivery: Delivery
    answer: "asyncio.Future[Receipt | SpoolReceipt]"
    since: float  # by the clock of the event loop
    weight: int  # of the delivery


class _Batch(NamedTuple):
    waiting: Sequence[_Waiting]
    weight: int


class Queue:
    """`async with Queue(…) as queue:`; leaving the block flushes all waiting deliveries.

    Once the database is back, deliveries go to it at once even if the spool is not empty yet: incidents do not depend
    on the order of arrival, and under load the spool might never become empty.
    """

    def __init__(
        self,
        flusher: Flusher,
        engine: AsyncEngine,
        *,
        monitor: db.DatabaseMonitor,
        spool: Spool,
        batch_alerts: int,
        queue_alerts: int,
        queue_seconds: float,
    ) -> None:
        self._flusher = flusher
        self._connections = [db.RawConnection(engine) for _ in range(PARALLEL_BATCHES)]
        self._monitor = monitor
        self._spool = spool
        self._batch_alerts = batch_alerts
        self._queue_alerts = queue_alerts
        self._queue_seconds = queue_seconds
        self._waiting: deque[_Waiting] = deque()
        self._weight = 0  # of all waiting deliveries
        self._in_flight: dict[db.RawConnection, _Batch] = {}  # the oldest first
        self._returning = 0  # weight expected from clients that just got a response
        self._gathering: asyncio.TimerHandle | None = None
        self._wanted = 0.0  # the weight at which the next batch starts
        self._due = asyncio.Event()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        flushing = asyncio.create_task(self._start_batches(), name="queue")
        flushing.add_done_callback(self._refuse_everything)
        self._tasks = [flushing, asyncio.create_task(self._spool_while_down(), name="queue to spool")]
        return self

    async def __aexit__(self, *_: object) -> None:
        flushing, spooling = self._tasks
        self._closing = True
        self._reconsider()
        try:
            await flushing
        finally:
            spooling.cancel()
            await asyncio.gather(spooling, return_exceptions=True)
            for connection in self._connections:
                await connection.close()

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """They run as long as the queue accepts deliveries. If one ends earlier, the process must be restarted."""
        return self._tasks

    async def take(self, delivery: Delivery) -> Receipt | SpoolReceipt:
        """Returns after the commit, or once it is in the spool. If it raises Overloaded, nothing was stored."""
        if self._closing:
            raise _overloaded("the service is shutting down")
        if self._monitor.is_down:
            return await self._add_to_spool(delivery)
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._weight > self._queue_alerts:
            raise _overloaded("too many alerts are waiting")
        oldest = next((batch.waiting for batch in self._in_flight.values()), self._waiting)
        if oldest and now - oldest[0].since > self._queue_seconds:
            raise _overloaded("alerts have been waiting for too long")
        weight = delivery.weight
        one = _Waiting(delivery, loop.create_future(), now, weight)
        self._waiting.append(one)
        self._weight += weight
        self._returning = max(0, self._returning - weight)
        if self._weight >= self._wanted:
            self._due.set()
        return await one.answer

    # — batches —

    async def _start_batches(self) -> None:
        """Starts a batch whenever one is due, until the queue is closed and empty.

        Two batches run in parallel, so that this process works on one while PostgreSQL works on the other, but none so
        small that BEGIN and COMMIT cost more than its content. Under load, senders send again as soon as they get a
        response: a short wait makes one full batch out of two half-full ones.
        """
        async with asyncio.TaskGroup() as batches:
            while not self._closing or self._waiting or self._in_flight:
                await self._due.wait()
                self._due.clear()
                while self._waiting and self._weight >= self._wanted:
                    connection = next(one for one in self._connections if one not in self._in_flight)
                    batch = self._in_flight[connection] = self._next_batch()
                    self._reconsider()
                    batches.create_task(self._flush(connection, batch))

    async def _flush(self, connection: db.RawConnection, batch: _Batch) -> None:
        # Detects a hanging database long before its connection breaks.
        suspicion = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._monitor.check_soon)
        try:
            outcomes = await self._flusher.flush(connection, [one.delivery for one in batch.waiting])
        except BaseException:
            # A bug, which ends the queue. No client may wait forever.
            for one in batch.waiting:
                _answer(one, _overloaded("the service is shutting down"))
            raise
        finally:
            suspicion.cancel()
            del self._in_flight[connection]
            if len(batch.waiting) >= MIN_DELIVERIES_TO_GATHER:
                self._gather(batch.weight)
            self._reconsider()
        to_spool = []
        for one, outcome in zip(batch.waiting, outcomes, strict=True):
            if isinstance(outcome, Exception) and db.is_unreachable(outcome):
                to_spool.append(one)
            else:
                _answer(one, outcome)
        if to_spool:
            # These may have been committed; the drain recognizes a delivery by its id.
            await self._spool_all(to_spool)

    def _next_batch(self) -> _Batch:
        share = self._share()
        batch = [self._waiting.popleft()]
        weight = batch[0].weight
        while self._waiting and weight + self._waiting[0].weight <= share:
            batch.append(self._waiting.popleft())
            weight += batch[-1].weight
        self._weight -= weight
        return _Batch(batch, weight)

    def _gather(self, weight: int) -> None:
        """For a short time, expects the clients of a batch to send about the same amount again."""
        if self._gathering:
            self._gathering.cancel()
        self._returning = weight
        self._gathering = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._end_gathering)

    def _end_gathering(self) -> None:
        self._returning = 0
        self._reconsider()

    def _reconsider(self) -> None:
        """Recomputes the weight at which the next batch starts."""
        if len(self._in_flight) == PARALLEL_BATCHES:
            self._wanted = math.inf
        elif self._closing:
            self._wanted = 0
        elif self._in_flight:
            self._wanted = self._share()
        else:
            self._wanted = min(self._share(), self._weight + self._returning) if self._returning else 0
        if self._weight >= self._wanted:
            self._due.set()

    def _share(self) -> float:
        """The weight of a batch if everything waiting, in flight or expected is divided among the lanes."""
        total = self._weight + self._returning + sum(batch.weight for batch in self._in_flight.values())
        return min(max(MIN_BATCH_WEIGHT, total / PARALLEL_BATCHES), self._batch_alerts)

    def _refuse_everything(self, _: object) -> None:
        """Rejects all waiting deliveries when flushing ends for any reason, so that no client waits forever."""
        self._closing = True
        # A batch whose task was canceled before its first step is still in flight.
        for one in [*self._waiting, *(one for batch in self._in_flight.values() for one in batch.waiting)]:
            _answer(one, _overloaded("the service is shutting down"))
        self._waiting.clear()

    # — to the spool —

    async def _spool_while_down(self) -> None:
        """While the database is down, moves waiting deliveries to the spool, so that no hanging batch delays them."""
        while True:
            await self._monitor.until_down()
            waiting, self._weight = [*self._waiting], 0
            self._waiting.clear()
            await self._spool_all(waiting)
            await asyncio.sleep(SPOOL_SECONDS)

    async def _spool_all(self, waiting: Sequence[_Waiting]) -> None:
        keeping = [self._add_to_spool(one.delivery) for one in waiting]
        try:
            outcomes = await asyncio.gather(*keeping, return_exceptions=True)
        except asyncio.CancelledError:
            for one in waiting:
                _answer(one, _overloaded("the service is shutting down"))
            raise
        for one, outcome in zip(waiting, outcomes, strict=True):
            _answer(one, outcome)

    async def _add_to_spool(self, delivery: Delivery) -> SpoolReceipt:
        """Raises Overloaded, and DatabaseDown for a delivery without facts, which is not worth keeping."""
        assert delivery.request is not None, "only what a source has sent waits here"
        if delivery.reading.ignored is not None:
            raise db.DatabaseDown
        body = encode_request(delivery.request)
        try:
            await self._spool.add(
                SpooledDelivery(delivery.id, delivery.kind, delivery.source, delivery.received_at, body)
            )
        except SpoolUnavailable as error:
            raise _overloaded(f"the database is unavailable, and {error}") from None
        return SpoolReceipt(delivery.id, len(delivery.reading.signals))


def _overloaded(why: str) -> Overloaded:
    return Overloaded(f"{why}; retry later")


def _answer(one: _Waiting, outcome: Receipt | SpoolReceipt | BaseException) -> None:
    if one.answer.done():
        return
    if isinstance(outcome, BaseException):
        one.answer.set_exception(outcome)
        # If the client has disconnected, nothing retrieves the exception, and asyncio would log a warning.
        one.answer.exception()
    else:
        one.answer.set_result(outcome)
