"""One queue, one transaction: all deliveries that wait are applied and committed together.

A delivery is answered after the commit that holds it, with its own verdicts. While one batch is in the database the
next gathers, so that the number of commits stays small whatever the load.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self, TypeVar
from uuid import UUID, uuid4

import msgspec
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import db
from app.errors import Overloaded
from app.incidents import store as incidents
from app.incidents.batch import Incoming, Outcome
from app.incidents.rule import Rule, Rules
from app.incidents.signal import INFERRED, Signal, Status, Verdict, fingerprint_of
from app.incidents.store import Raced
from app.webhooks import store
from app.webhooks.source import Reading, Rejected

log = logging.getLogger("aftermath.intake")

_KEEP_CHANGING = "the same alerts keep changing under this batch"

T = TypeVar("T")
Known = tuple[str | None, Rules]  # the rules and their version
LoadRules = Callable[[AsyncConnection], Awaitable[Sequence[Rule]]]


@dataclass(slots=True)
class Delivery:
    source_id: int
    source: str
    received_at: datetime
    reading: Reading
    body: bytes
    id: UUID = field(default_factory=uuid4)

    @property
    def weight(self) -> int:
        return len(self.reading.signals) + len(self.reading.rejected) + 1


class Receipt(msgspec.Struct, frozen=True):
    """What the sender is told: how many signals, what they did, and the incidents they are about."""

    delivery_id: UUID
    signals: int
    verdicts: dict[str, int]
    incidents: list[str]


class Intake:
    """The queue and its one flusher. `async with Intake(…) as intake:`; leaving drains what waits."""

    def __init__(self, engine: AsyncEngine, load_rules: LoadRules, *, batch_alerts: int, queue_alerts: int) -> None:
        self._engine = engine
        self._line = db.Line(engine)
        self._load_rules = load_rules
        self._batch_alerts = batch_alerts
        self._queue_alerts = queue_alerts
        self._waiting: deque[tuple[Delivery, asyncio.Future[Receipt]]] = deque()
        self._weight = 0
        self._work = asyncio.Event()
        self._closing = False
        self._flusher: asyncio.Task[None] | None = None
        self._rules: Known | None = None

    async def __aenter__(self) -> Self:
        self._flusher = asyncio.create_task(self._flush_for_ever(), name="intake")
        self._flusher.add_done_callback(self._refuse_what_waits)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._work.set()
        if self._flusher:
            await self._flusher
        await self._line.close()

    def _refuse_what_waits(self, _: object) -> None:
        """However the flusher ends, nobody waits for ever."""
        self._closing = True
        _refuse(
            list(self._waiting), Overloaded("the service is shutting down; send again", headers={"Retry-After": "5"})
        )
        self._waiting.clear()

    async def take(self, delivery: Delivery) -> Receipt:
        """Returns after the commit. Raises Overloaded; then nothing of the delivery has been kept."""
        if self._closing or self._weight > self._queue_alerts:
            why = "the service is shutting down" if self._closing else "too many alerts are waiting"
            raise Overloaded(f"{why}; send again", headers={"Retry-After": "5"})
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, receipt))
        self._weight += delivery.weight
        self._work.set()
        return await receipt

    async def _flush_for_ever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                await self._flush(self._next_batch())
            if self._closing:
                return

    def _next_batch(self) -> list[tuple[Delivery, asyncio.Future[Receipt]]]:
        batch = [self._waiting.popleft()]
        weight = batch[0][0].weight
        while self._waiting and weight + self._waiting[0][0].weight <= self._batch_alerts:
            batch.append(self._waiting.popleft())
            weight += batch[-1][0].weight
        self._weight -= weight
        return batch

    async def _flush(self, batch: list[tuple[Delivery, asyncio.Future[Receipt]]]) -> None:
        deliveries = [delivery for delivery, _ in batch]
        try:
            receipts = await self._apply(deliveries)
        except Exception as error:
            if db.is_unreachable(error):
                log.warning("database unreachable, %d deliveries refused: %s", len(batch), type(error).__name__)
                overloaded = Overloaded("the database does not answer; send again", headers={"Retry-After": "5"})
                _refuse(batch, overloaded)
            elif len(batch) > 1:
                # Poison in one delivery must not fail its neighbours.
                log.warning("a batch of %d failed (%s); one by one", len(batch), type(error).__name__)
                for one in batch:
                    await self._flush([one])
            elif not batch[0][0].reading.signals:
                log.exception("a delivery cannot even be quarantined")
                _refuse(batch, error)
            else:
                log.exception("a delivery cannot be applied and goes to quarantine")
                (delivery, receipt) = batch[0]
                whole = Rejected(delivery.body, "cannot_apply", type(error).__name__)
                delivery.reading = Reading((), (whole,), delivery.reading.truncated)
                await self._flush([(delivery, receipt)])
            return
        for (_, waiting), done in zip(batch, receipts, strict=True):
            if not waiting.done():
                waiting.set_result(done)

    async def _apply(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        also_lock: frozenset[UUID] = frozenset()
        for attempt in range(5):
            try:
                rules = await self._current_rules()  # before the line is busy: they are read on another
                async with self._line.transaction() as tx:
                    return await self._apply_by(rules, tx, deliveries, also_lock)
            except Raced as raced:
                also_lock |= raced.keys
            except Exception as error:
                if db.state_of(error) not in _TRY_AGAIN or attempt == 4:
                    raise
        raise TimeoutError(_KEEP_CHANGING)

    async def replay(self, tx: AsyncConnection, delivery: Delivery) -> Receipt:
        """One delivery in the caller's transaction."""
        [receipt] = await _nested(tx, lambda also_lock: self._apply_in(tx, [delivery], also_lock))
        return receipt

    async def conclude(self, tx: AsyncConnection, delivery: Delivery, *, why: str) -> list[Outcome]:
        """What the service itself has found out about a source, in the caller's transaction.

        It goes the way of all signals, but nothing has been delivered: it is counted under `why` and nowhere else.
        """

        async def work(also_lock: frozenset[UUID]) -> list[Outcome]:
            _, outcomes = await self._outcomes(tx, [delivery], await self._current_rules(), also_lock)
            return outcomes

        outcomes = await _nested(tx, work)
        if news := sum(outcome.verdict not in _NO_NEWS for outcome in outcomes):
            await incidents.count(tx, [("concluded", delivery.source, why, news)])
        return outcomes

    async def _apply_in(
        self, tx: db.Executor, deliveries: Sequence[Delivery], also_lock: frozenset[UUID]
    ) -> list[Receipt]:
        return await self._apply_by(await self._current_rules(), tx, deliveries, also_lock)

    async def _apply_by(
        self, known: Known, tx: db.Executor, deliveries: Sequence[Delivery], also_lock: frozenset[UUID]
    ) -> list[Receipt]:
        """All of these deliveries in the caller's transaction. Raises Raced, as well where the rules have changed."""
        incoming, applied = await self._outcomes(tx, deliveries, known, also_lock)
        outcomes = iter(applied)
        receipts, recorded = [], []
        for delivery in deliveries:
            mine = [next(outcomes) for _ in delivery.reading.signals]
            record = _recorded(delivery, mine)
            recorded.append(record)
            numbers = sorted({one.incident for one in mine if one.incident is not None})
            receipts.append(Receipt(delivery.id, len(mine), record.verdicts, [f"INC-{number}" for number in numbers]))
        if beats := [one for one in incoming if one.decision.heartbeat and one.signal.status is Status.FIRING]:
            await store.record_beats(tx, beats)
        await store.record(tx, recorded)
        return receipts

    async def _outcomes(
        self, tx: db.Executor, deliveries: Sequence[Delivery], known: Known, also_lock: frozenset[UUID]
    ) -> tuple[list[Incoming], list[Outcome]]:
        """What their signals are, and did. Raises Raced."""
        now = datetime.now(UTC)
        version, rules = known
        incoming = [_decided(rules, signal, delivery) for delivery in deliveries for signal in delivery.reading.signals]
        keys = incidents.keys_of(incoming) | also_lock
        if incoming and await incidents.lock_keys(tx, keys) != version:
            self._rules = None
            raise Raced
        return incoming, await incidents.apply_locked(tx, incoming, keys, now=now)

    async def _current_rules(self) -> Known:
        """Whether they still hold shows when the keys they give are locked."""
        if self._rules is None:
            async with db.transaction(self._engine) as tx:
                # The version first: rules that change in between are newer than it says, and are loaded once more.
                version = await incidents.lock_keys(tx, ())
                self._rules = version, Rules(await self._load_rules(tx))
        return self._rules


_TRY_AGAIN = frozenset({"40001", "40P01"})  # serialisation failure, deadlock


def _refuse(batch: Sequence[tuple[Delivery, asyncio.Future[Receipt]]], error: Exception) -> None:
    for _, waiting in batch:
        if not waiting.done():
            waiting.set_exception(error)
            # The client may have gone: then nobody asks for the exception, and asyncio would complain.
            with contextlib.suppress(Exception):
                waiting.exception()


async def _nested(tx: AsyncConnection, work: Callable[[frozenset[UUID]], Awaitable[T]]) -> T:
    """In a savepoint, again where it was raced."""
    also_lock: frozenset[UUID] = frozenset()
    for _ in range(5):
        try:
            async with tx.begin_nested():
                return await work(also_lock)
        except Raced as raced:
            also_lock |= raced.keys
    raise TimeoutError(_KEEP_CHANGING)


def _decided(rules: Rules, signal: Signal, delivery: Delivery) -> Incoming:
    decision = rules.decide(signal.labels, signal.alert_class)
    if signal.end_reason in INFERRED:
        return Incoming(signal, delivery.source_id, decision, delivery.received_at)  # of the alert as it was told
    if decision.identity is not signal.labels:
        signal = replace(signal, fingerprint=fingerprint_of(decision.identity))
    if decision.heartbeat:
        signal = replace(signal, test=True)  # it opens nothing
    return Incoming(signal, delivery.source_id, decision, delivery.received_at)


_BEGAN = frozenset({Verdict.OPENED, Verdict.JOINED, Verdict.REOPENED})  # an alert that nobody had told of


def _recorded(delivery: Delivery, outcomes: Sequence[Outcome]) -> store.Recorded:
    recorded = store.Recorded(
        delivery.id,
        delivery.source_id,
        delivery.source,
        delivery.received_at,
        delivery.reading.truncated,
        delivery.reading.rejected,
    )
    verdicts = recorded.verdicts
    for signal, outcome in zip(delivery.reading.signals, outcomes, strict=True):
        verdict = outcome.verdict
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        if signal.ended_at is not None and verdict in _BEGAN:
            recorded.resolved_without_firing += 1
        event_at = signal.ended_at or signal.started_at
        if event_at and verdict not in _NO_NEWS:
            recorded.lags.append((delivery.received_at - event_at).total_seconds())
    if delivery.reading.rejected:
        verdicts[Verdict.QUARANTINED] = len(delivery.reading.rejected)
    return recorded


_NO_NEWS = frozenset({Verdict.REPEATED, Verdict.IGNORED})
