"""Applies a batch of deliveries in one transaction: decides by the rules, changes alerts and incidents, records each
delivery, commits, and returns a receipt for each. A delivery that cannot be applied goes to quarantine as a whole.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.base import db
from app.base.ids import new_id, uuid_of
from app.incidents.grouping import decide as grouping
from app.incidents.grouping.batch import Batch, Incoming, Outcome, outcome_of, verdict_of
from app.incidents.grouping.rule import Rule, Rules
from app.incidents.grouping.signal import INFERRED, Signal, Status, Verdict, fingerprint_of
from app.incidents.grouping.write import BatchConflict, count, write
from app.ingest import store
from app.ingest.handlers import Handlers
from app.ingest.sender import Reading, Receipt, Rejected, Request

log = logging.getLogger("aftermath.ingest")

ALONE_SECONDS = 5.0  # time limit for a delivery in a transaction of its own, in case the database hangs
ATTEMPTS = 5  # for a transaction that conflicts with other processes

NEW = UUID(int=0)  # replaced by a new id

T = TypeVar("T")
LoadRules = Callable[[AsyncConnection], Awaitable[Sequence[Rule]]]


@dataclass(slots=True)
class Delivery:
    source_id: int
    source: str
    received_at: datetime
    reading: Reading
    request: Request | None = None  # None for what the service itself has inferred
    kind: str = ""  # of its sender
    id: UUID = NEW
    spooled: bool = False  # from the spool; may have been applied before

    def __post_init__(self) -> None:
        if self.id is NEW:
            self.id = new_id(self.received_at)

    @property
    def weight(self) -> int:
        """Its contribution to the size of a batch."""
        return len(self.reading.signals) + len(self.reading.rejected) + 1


class _Decided(NamedTuple):
    """Deliveries, and the signals of each as decided by this version of the rules."""

    rules_version: int
    deliveries: Sequence[Delivery]
    signals: Sequence[Sequence[Incoming]]

    @property
    def incoming(self) -> list[Incoming]:
        return [one for signals in self.signals for one in signals]

    @property
    def keys(self) -> AbstractSet[UUID]:
        return grouping.keys_of(self.incoming)


class _Handled(NamedTuple):
    """What the handlers stored: deployments, how many got each verdict, and the number of acknowledgements."""

    verdicts: Mapping[str, int]
    deployments: Sequence[str]
    acknowledged: int


class Flusher:
    """Applies deliveries. Keeps the rules in memory, and reloads them when a write finds that they have changed."""

    def __init__(
        self, engine: AsyncEngine, load_rules: LoadRules, handlers: Handlers, monitor: db.DatabaseMonitor
    ) -> None:
        self._engine = engine
        self._handlers = handlers
        self._load_rules = load_rules
        self._monitor = monitor
        self._rules: tuple[int, Rules] | None = None  # with their version

    async def flush(self, connection: db.RawConnection, deliveries: Sequence[Delivery]) -> list[Receipt | Exception]:
        """Commits the deliveries and returns the outcome of each. Those that have only signals share a transaction.

        An outcome for which `db.is_unreachable` holds means that it is unknown whether the delivery was committed.
        """
        alone = [one for one in deliveries if one.reading.needs_handlers]
        if not alone:
            return await self._flush_together(connection, deliveries)
        together = [one for one in deliveries if not one.reading.needs_handlers]
        found = dict(zip((one.id for one in together), await self._flush_together(connection, together), strict=True))
        for one in alone:
            found[one.id] = await self._flush_alone(connection, one)
        return [found[one.id] for one in deliveries]

    async def _flush_together(
        self, connection: db.RawConnection, deliveries: Sequence[Delivery]
    ) -> list[Receipt | Exception]:
        """If the batch fails, each delivery is tried alone, so that one bad delivery does not affect the others."""
        if self._monitor.is_down or not deliveries:
            return [db.DatabaseDown()] * len(deliveries)
        try:
            return [*await self._commit(connection, deliveries)]
        except Exception as error:
            if db.is_unreachable(error):
                return self._unreachable(deliveries, error)
            if len(deliveries) > 1:
                log.warning("a batch of %d failed (%s); one by one", len(deliveries), type(error).__name__)
                return [outcome for one in deliveries for outcome in await self._flush_together(connection, [one])]
            [delivery] = deliveries
            if not delivery.reading.signals:
                log.exception("a delivery cannot even be quarantined")
                return [error]
            log.exception("a delivery cannot be applied and goes to quarantine")
            return await self._flush_together(connection, [_as_rejected(delivery, error)])

    async def _flush_alone(self, connection: db.RawConnection, delivery: Delivery) -> Receipt | Exception:
        """Commits one delivery with facts that other areas store, on a SQLAlchemy connection that they can use."""
        if self._monitor.is_down:
            return db.DatabaseDown()
        try:
            return await self._commit_alone(delivery)
        except Exception as error:
            if db.is_unreachable(error):
                return self._unreachable([delivery], error)[0]
            log.exception("a delivery cannot be applied and goes to quarantine")
            [outcome] = await self._flush_together(connection, [_as_rejected(delivery, error)])
            return outcome

    async def _commit_alone(self, delivery: Delivery) -> Receipt:
        for attempt in range(ATTEMPTS):
            try:
                async with asyncio.timeout(ALONE_SECONDS), db.transaction(self._engine) as tx:
                    return await self.replay(tx, delivery)
            except Exception as error:
                if db.state_of(error) not in _TRY_AGAIN or attempt == ATTEMPTS - 1:
                    raise
        raise TimeoutError(_KEEP_CHANGING)

    def _unreachable(self, deliveries: Sequence[Delivery], error: Exception) -> list[Receipt | Exception]:
        log.warning("database unreachable for %d deliveries: %s", len(deliveries), type(error).__name__)
        self._monitor.mark_down()
        return [error] * len(deliveries)

    async def _commit(self, connection: db.RawConnection, deliveries: Sequence[Delivery]) -> list[Receipt]:
        also_lock: frozenset[UUID] = frozenset()
        for attempt in range(ATTEMPTS):
            try:
                decided = await self._decide(deliveries)  # before the transaction: rules load on another connection
                keys = decided.keys | also_lock
                async with connection.transaction(grouping.lock(keys)) as tx:
                    return await self._apply(tx, decided, keys)
            except BatchConflict as conflict:
                also_lock |= conflict.keys
            except Exception as error:
                state = db.state_of(error)
                # A connection that was considered lost may be committing a spooled delivery at this moment.
                came_through = state == "23505" and any(one.spooled for one in deliveries)
                if not (state in _TRY_AGAIN or came_through) or attempt == ATTEMPTS - 1:
                    raise
        raise TimeoutError(_KEEP_CHANGING)

    async def _apply(
        self, tx: db.Executor, decided: _Decided, keys: AbstractSet[UUID], handled: _Handled | None = None
    ) -> list[Receipt]:
        """Requires a transaction that has locked `keys`. Raises BatchConflict, also if the rules have changed.

        `handled` is what the handlers did with the other facts, if this is a single delivery.

        A delivery from the spool that has been applied before changes nothing and gets an empty receipt.
        """
        spooled = [one.id for one in decided.deliveries if one.spooled]
        known = await store.known_deliveries(tx, spooled) if spooled else frozenset()
        incoming: list[Incoming] = []
        indices: dict[UUID, range] = {}
        for delivery, signals in zip(decided.deliveries, decided.signals, strict=True):
            if delivery.id not in known:
                indices[delivery.id] = range(len(incoming), len(incoming) + len(signals))
                incoming += signals
        batch = await grouping.decide(tx, incoming, keys, now=datetime.now(UTC))
        records = {
            one.id: _record(one, [verdict_of(batch, index) for index in indices[one.id]], handled)
            for one in decided.deliveries
            if one.id in indices
        }
        if beats := [one for one in incoming if one.decision.heartbeat and one.signal.status is Status.FIRING]:
            await store.record_beats(tx, beats)
        if records:
            self._check_rules(decided, await write(tx, batch, *store.record([*records.values()])))
        return [
            _receipt(batch, records[one.id], indices[one.id]) if one.id in indices else Receipt(one.id, 0, {}, [])
            for one in decided.deliveries
        ]

    # — in the caller's transaction —

    async def replay(self, tx: AsyncConnection, delivery: Delivery) -> Receipt:
        """Applies one delivery in the caller's transaction, a new one or one from quarantine."""

        async def work(also_lock: frozenset[UUID]) -> Receipt:
            if delivery.spooled and await store.known_deliveries(tx, [delivery.id]):
                return Receipt(delivery.id, 0, {}, [])
            handled = await self._handle(tx, delivery)
            decided = await self._decide([delivery])
            keys = decided.keys | also_lock
            await grouping.lock_keys(tx, keys)
            [receipt] = await self._apply(tx, decided, keys, handled)
            return receipt

        return await _in_savepoint(tx, work)

    async def _handle(self, tx: AsyncConnection, delivery: Delivery) -> _Handled:
        verdicts: dict[str, int] = {}
        ids = []
        for report in delivery.reading.deployments:
            id_, verdict = await self._handlers.deployments(
                tx, report, source_id=delivery.source_id, now=delivery.received_at
            )
            ids.append(id_)
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
        if acknowledgements := delivery.reading.acknowledgements:
            await self._handlers.acknowledgements(
                tx, acknowledgements, source_id=delivery.source_id, now=delivery.received_at
            )
        return _Handled(verdicts, ids, len(delivery.reading.acknowledgements))

    async def apply_internal(self, tx: AsyncConnection, delivery: Delivery, *, why: str) -> list[Outcome]:
        """Applies signals that the service itself inferred about a source, in the caller's transaction.

        There is no delivery to record. Only the number of signals that changed something is counted, under `why`.
        """

        async def work(also_lock: frozenset[UUID]) -> list[Outcome]:
            decided = await self._decide([delivery])
            keys = decided.keys | also_lock
            await grouping.lock_keys(tx, keys)
            batch = await grouping.decide(tx, decided.incoming, keys, now=datetime.now(UTC))
            self._check_rules(decided, await write(tx, batch))
            return [outcome_of(batch, index) for index in range(len(decided.incoming))]

        outcomes = await _in_savepoint(tx, work)
        if news := sum(outcome.verdict not in _NO_NEWS for outcome in outcomes):
            await count(tx, [("concluded", delivery.source, why, news)])
        return outcomes

    async def preview(self, tx: AsyncConnection, delivery: Delivery) -> list[Signal]:
        """The signals of a delivery as the current rules decide them. Applies nothing."""
        if self._rules is not None and await grouping.rules_version(tx) != self._rules[0]:
            self._rules = None
        return [one.signal for one in (await self._decide([delivery])).incoming]

    # — rules —

    async def _decide(self, deliveries: Sequence[Delivery]) -> _Decided:
        if self._rules is None:
            async with db.transaction(self._engine) as tx:
                # Version first: if the rules change in between, the write finds another version and they are reloaded.
                version = await grouping.rules_version(tx)
                self._rules = version, Rules(await self._load_rules(tx), uuid_of=uuid_of)
        version, rules = self._rules
        signals = [[_incoming(rules, signal, one) for signal in one.reading.signals] for one in deliveries]
        return _Decided(version, deliveries, signals)

    def _check_rules(self, decided: _Decided, version_at_write: int | None) -> None:
        """Raises BatchConflict if the rules changed between the decision and the write (None: nothing was written)."""
        if version_at_write is not None and version_at_write != decided.rules_version:
            self._rules = None
            raise BatchConflict


_KEEP_CHANGING = "the same alerts keep changing under this batch"
_TRY_AGAIN = frozenset({"40001", "40P01"})  # serialization failure, deadlock


async def _in_savepoint(tx: AsyncConnection, work: Callable[[frozenset[UUID]], Awaitable[T]]) -> T:
    """Repeats the batch after a BatchConflict."""
    also_lock: frozenset[UUID] = frozenset()
    for _ in range(ATTEMPTS):
        try:
            async with tx.begin_nested():
                return await work(also_lock)
        except BatchConflict as conflict:
            also_lock |= conflict.keys
    raise TimeoutError(_KEEP_CHANGING)


def _incoming(rules: Rules, signal: Signal, delivery: Delivery) -> Incoming:
    decision = rules.decide(signal.labels, signal.alert_class)
    if signal.end_reason in INFERRED:
        return Incoming(signal, delivery.source_id, decision, delivery.received_at)  # has the alert's fingerprint
    if (identity := decision.identity(signal.labels)) is not signal.labels:
        signal = msgspec.structs.replace(signal, fingerprint=fingerprint_of(identity))
    if decision.heartbeat:
        signal = msgspec.structs.replace(signal, test=True)  # it opens nothing
    return Incoming(signal, delivery.source_id, decision, delivery.received_at)


def _as_rejected(delivery: Delivery, error: Exception) -> Delivery:
    whole = Rejected("cannot_apply", type(error).__name__)
    return replace(delivery, reading=Reading(rejected=(whole,), truncated=delivery.reading.truncated))


def _record(delivery: Delivery, signal_verdicts: Sequence[Verdict], handled: _Handled | None) -> store.Recorded:
    recorded = store.Recorded(
        delivery.id, delivery.source_id, delivery.source, delivery.received_at, delivery.reading, delivery.request
    )
    if handled is not None:
        recorded.other_verdicts, recorded.deployments = handled.verdicts, handled.deployments
        if handled.acknowledged:
            recorded.verdicts[Verdict.ACKNOWLEDGED] = handled.acknowledged
    elif delivery.reading.ignored is not None:
        recorded.other_verdicts = _IGNORED
    verdicts = recorded.verdicts
    for signal, verdict in zip(delivery.reading.signals, signal_verdicts, strict=True):
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        if signal.ended_at is not None and verdict in _STARTED:
            recorded.resolved_without_firing += 1
        event_at = signal.ended_at or signal.started_at
        if event_at and verdict not in _NO_NEWS:
            recorded.lags.append((delivery.received_at - event_at).total_seconds())
    if delivery.reading.rejected:
        verdicts[Verdict.QUARANTINED] = len(delivery.reading.rejected)
    return recorded


_IGNORED: Mapping[str, int] = MappingProxyType({Verdict.IGNORED.value: 1})
_STARTED = frozenset({Verdict.OPENED, Verdict.JOINED, Verdict.REOPENED})  # verdicts on an alert not known before
_NO_NEWS = frozenset({Verdict.REPEATED, Verdict.IGNORED})


def _receipt(batch: Batch, recorded: store.Recorded, indices: Iterable[int]) -> Receipt:
    outcomes = [outcome_of(batch, index) for index in indices]
    numbers = sorted({one.incident for one in outcomes if one.incident is not None})
    reading = recorded.reading
    return Receipt(
        recorded.id,
        len(outcomes),
        recorded.all_verdicts,
        [f"INC-{number}" for number in numbers],
        [*recorded.deployments],
        reading.rejected[0].reason if reading.rejected else reading.ignored,
    )
