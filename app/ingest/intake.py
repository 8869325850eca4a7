"""One queue, one transaction: all deliveries that wait are applied and committed together.

A delivery is answered after the commit that holds it, with its own verdicts. While one batch is in the database the
next gathers, and begins beside it once it is worth a transaction of its own; so the number of commits stays small
whatever the load.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, Protocol, Self, TypeVar
from uuid import UUID

import msgspec
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.base import db
from app.base.errors import NotThisKind, Overloaded
from app.base.http.deliveries import keep
from app.base.ids import new_id, uuid_of
from app.base.spool import Damaged, Kept, Spool
from app.base.tokens import CHANGE_KINDS
from app.incidents.grouping import decide as incidents
from app.incidents.grouping.batch import Batch, Incoming, Outcome, outcome_of, verdict_of
from app.incidents.grouping.rule import Rule, Rules
from app.incidents.grouping.signal import INFERRED, Signal, Status, Verdict, fingerprint_of
from app.incidents.grouping.write import Raced, count, write
from app.ingest import store
from app.ingest.sender import Reading, Rejected
from app.ingest.senders import SOURCES

log = logging.getLogger("aftermath.intake")

SLOW_SECONDS = 2.0  # a batch that takes longer makes the database suspect
LOOK_SECONDS = 0.5  # how often there is a look at the spool
GATHER_SECONDS = 0.005  # how long a batch waits for those who have just been answered
CROWD = 8  # fewer deliveries than that are not worth the wait
LANES = 2  # batches under way at once
ENOUGH = 64  # a batch of that weight is worth a transaction while another is under way
AGAIN_SECONDS = 5.0  # until what could not be drained is tried again

_KEEP_CHANGING = "the same alerts keep changing under this batch"

T = TypeVar("T")
Known = tuple[str, Rules]  # the rules and their version
LoadRules = Callable[[AsyncConnection], Awaitable[Sequence[Rule]]]


class TakeChange(Protocol):
    """What takes a delivery that tells of a deployment, in the caller's transaction: its id, its verdict, and of what
    deployment it tells.
    """

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


NEW = UUID(int=0)  # it is given an id


@dataclass(slots=True)
class Delivery:
    source_id: int
    source: str
    received_at: datetime
    reading: Reading
    body: bytes
    kind: str = ""  # of its door; none for what the service itself has found out
    id: UUID = NEW
    spooled: bool = False  # comes from the spool, and may have been applied before

    def __post_init__(self) -> None:
        if self.id is NEW:
            self.id = new_id(self.received_at)

    @property
    def weight(self) -> int:
        return len(self.reading.signals) + len(self.reading.rejected) + 1


class Receipt(msgspec.Struct, frozen=True):
    """What the sender is told: how many signals, what they did, and the incidents they are about."""

    delivery_id: UUID
    signals: int
    verdicts: dict[str, int]
    incidents: list[str]


class Spooled(msgspec.Struct, frozen=True):
    """What the sender is told while the database is away: it is on disk, and what it does will be seen later."""

    delivery_id: UUID
    signals: int
    spooled: bool = True


# Told once what became of a delivery: it is durable, or what went wrong.
Done = Callable[[Receipt | Spooled | Exception], None]


class _Waiting(NamedTuple):
    delivery: Delivery
    done: Done
    since: float  # by the clock of the event loop


class _Batch(NamedTuple):
    """Deliveries in one transaction."""

    waiting: Sequence[_Waiting]
    weight: int


class _Decided(NamedTuple):
    """Deliveries, and what the rules of a version make of the signals of each."""

    version: str
    deliveries: Sequence[Delivery]
    signals: Sequence[Sequence[Incoming]]

    @property
    def incoming(self) -> list[Incoming]:
        return [one for signals in self.signals for one in signals]

    @property
    def keys(self) -> AbstractSet[UUID]:
        return incidents.keys_of(self.incoming)


class Intake:
    """The queue and its one flusher, and what drains the spool. `async with Intake(…) as intake:`; leaving drains what
    waits.

    While the database is away deliveries go to the spool. When it is back they go to the database again at once, though
    the spool is not empty yet: incidents do not depend on the order of arrival, and a spool that had to be empty first
    might never be under load.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        load_rules: LoadRules,
        *,
        reach: db.Reach,
        spool: Spool,
        batch_alerts: int,
        queue_alerts: int,
        queue_seconds: float,
        take_change: TakeChange,
    ) -> None:
        self._engine = engine
        self.take_change = take_change
        self._lines = [db.Line(engine) for _ in range(LANES)]
        self._line_of_spool = db.Line(engine)
        self._load_rules = load_rules
        self._reach = reach
        self._spool = spool
        self._batch_alerts = batch_alerts
        self._queue_alerts = queue_alerts
        self._queue_seconds = queue_seconds
        self._waiting: deque[_Waiting] = deque()
        self._weight = 0  # of what waits
        self._under_way: dict[db.Line, _Batch] = {}  # the oldest first
        self._returning = 0  # the weight that those who have just been answered may send again
        self._gathering: asyncio.TimerHandle | None = None
        self._wanted = 0.0  # the weight at which the next batch begins
        self._due = asyncio.Event()
        self._closing = False
        self._flusher: asyncio.Task[None] | None = None
        self._beside: list[asyncio.Task[None]] = []
        self._spooling: set[asyncio.Task[None]] = set()
        self._rules: Known | None = None

    async def __aenter__(self) -> Self:
        self._flusher = asyncio.create_task(self._flush_for_ever(), name="intake")
        self._flusher.add_done_callback(self._refuse_what_waits)
        self._beside = [
            asyncio.create_task(self._drain_for_ever(), name="drain"),
            asyncio.create_task(self._spool_what_waits_for_ever(), name="to the spool"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._look()
        if self._flusher:
            await self._flusher
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, *self._spooling, return_exceptions=True)
        for line in (*self._lines, self._line_of_spool):
            await line.close()

    def _refuse_what_waits(self, _: object) -> None:
        """However the flusher ends, nobody waits for ever."""
        self._closing = True
        for one in self._waiting:
            _answer(one, _overloaded("the service is shutting down"))
        self._waiting.clear()

    async def take(self, delivery: Delivery) -> Receipt | Spooled:
        """Returns after the commit, or once it is in the spool. Raises Overloaded; then nothing of it has been kept."""
        answer: asyncio.Future[Receipt | Spooled] = asyncio.get_running_loop().create_future()
        self.offer(delivery, partial(_settle, answer))
        return await answer

    def offer(self, delivery: Delivery, done: Done) -> None:
        """As `take`, for who does not wait: `done` is told later. Raises Overloaded; then `done` is told nothing."""
        if self._closing:
            raise _overloaded("the service is shutting down")
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._reach.away:
            spooling = loop.create_task(self._spool_one(_Waiting(delivery, done, now)))
            self._spooling.add(spooling)
            spooling.add_done_callback(self._spooling.discard)
            return
        if self._weight > self._queue_alerts:
            raise _overloaded("too many alerts are waiting")
        oldest = next((batch.waiting for batch in self._under_way.values()), self._waiting)
        if oldest and now - oldest[0].since > self._queue_seconds:
            raise _overloaded("alerts have been waiting for too long")
        self._waiting.append(_Waiting(delivery, done, now))
        self._weight += delivery.weight
        self._returning = max(0, self._returning - delivery.weight)
        if self._weight >= self._wanted:
            self._due.set()

    # — to the database —

    async def _flush_for_ever(self) -> None:
        """Begins a batch whenever one is due, until nothing is left when we close.

        Two at once, so that one is worked on here while PostgreSQL works on the other; but none so small that to begin
        and commit it costs more than what is in it. Senders under load send again as soon as they are answered: to wait
        for them a moment makes one full batch of two half ones.
        """
        async with asyncio.TaskGroup() as flushes:
            while not self._closing or self._waiting or self._under_way:
                await self._due.wait()
                self._due.clear()
                while self._waiting and self._weight >= self._wanted:
                    line = next(line for line in self._lines if line not in self._under_way)
                    self._under_way[line] = self._next_batch()
                    self._look()
                    flushes.create_task(self._flush_on(line))

    async def _flush_on(self, line: db.Line) -> None:
        batch = self._under_way[line]
        try:
            await self._flush(line, batch.waiting)
        finally:
            del self._under_way[line]
            if len(batch.waiting) >= CROWD:
                self._await_return_of(batch)
            self._look()

    def _await_return_of(self, batch: _Batch) -> None:
        if self._gathering:
            self._gathering.cancel()
        self._returning = batch.weight
        self._gathering = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._end_gathering)

    def _end_gathering(self) -> None:
        self._returning = 0
        self._look()

    def _look(self) -> None:
        """How much must wait for the next batch to begin, now that something has changed."""
        if len(self._under_way) == LANES:
            self._wanted = math.inf
        elif self._closing:
            self._wanted = 0
        elif self._under_way:
            self._wanted = self._share()
        else:
            self._wanted = min(self._share(), self._weight + self._returning) if self._returning else 0
        if self._weight >= self._wanted:
            self._due.set()

    def _share(self) -> float:
        """The weight of a batch if all that is on its way is shared by the lanes."""
        on_its_way = self._weight + self._returning + sum(batch.weight for batch in self._under_way.values())
        return min(max(ENOUGH, on_its_way / LANES), self._batch_alerts)

    def _next_batch(self) -> _Batch:
        share = self._share()
        batch = [self._waiting.popleft()]
        weight = batch[0].delivery.weight
        while self._waiting and weight + self._waiting[0].delivery.weight <= share:
            batch.append(self._waiting.popleft())
            weight += batch[-1].delivery.weight
        self._weight -= weight
        return _Batch(batch, weight)

    async def _flush(self, line: db.Line, batch: Sequence[_Waiting]) -> None:
        # A database that hangs is noticed long before its connection breaks.
        suspicion = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._reach.suspect)
        try:
            outcomes = await self._settled(line, [one.delivery for one in batch])
        except BaseException:
            # A mistake of ours, and the end of the flusher. Nobody waits for ever.
            for one in batch:
                _answer(one, _overloaded("the service is shutting down"))
            raise
        finally:
            suspicion.cancel()
        to_spool = []
        for one, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception) and db.is_unreachable(outcome):
                to_spool.append(one)
            else:
                _answer(one, outcome)
        # Whether its commit came through or not is unknown; the drain knows it again by its id.
        await asyncio.gather(*map(self._spool_one, to_spool))

    async def _settled(self, line: db.Line, deliveries: Sequence[Delivery]) -> list[Receipt | Exception]:
        """What became of each. Poison in one delivery does not fail its neighbours; it goes to quarantine whole."""
        if self._reach.away:
            return [db.Away()] * len(deliveries)
        try:
            return [*await self._apply(line, deliveries)]
        except Exception as error:
            if db.is_unreachable(error):
                log.warning("database unreachable for %d deliveries: %s", len(deliveries), type(error).__name__)
                self._reach.lost()
                return [error] * len(deliveries)
            if len(deliveries) > 1:
                log.warning("a batch of %d failed (%s); one by one", len(deliveries), type(error).__name__)
                return [outcome for one in deliveries for outcome in await self._settled(line, [one])]
            [delivery] = deliveries
            if not delivery.reading.signals:
                log.exception("a delivery cannot even be quarantined")
                return [error]
            log.exception("a delivery cannot be applied and goes to quarantine")
            whole = Rejected(delivery.body, "cannot_apply", type(error).__name__)
            delivery.reading = Reading((), (whole,), delivery.reading.truncated)
            return await self._settled(line, [delivery])

    async def _apply(self, line: db.Line, deliveries: Sequence[Delivery]) -> list[Receipt]:
        also_lock: frozenset[UUID] = frozenset()
        for attempt in range(5):
            try:
                decided = await self._decide(deliveries)  # before the transaction begins: rules are read on another
                keys = decided.keys | also_lock
                async with line.transaction(incidents.lock(keys)) as tx:
                    return await self._apply_locked(tx, decided, keys)
            except Raced as raced:
                also_lock |= raced.keys
            except Exception as error:
                state = db.state_of(error)
                # Of the spool: committed at this very moment by a connection that was given up for lost.
                came_through = state == "23505" and any(one.spooled for one in deliveries)
                if not (state in _TRY_AGAIN or came_through) or attempt == 4:
                    raise
        raise TimeoutError(_KEEP_CHANGING)

    # — to the spool, and from it —

    async def _kept(self, delivery: Delivery) -> Spooled:
        """Raises Overloaded."""
        kept = Kept(delivery.id, delivery.kind, delivery.source, delivery.received_at, delivery.body)
        await keep(self._spool, kept)
        return Spooled(delivery.id, len(delivery.reading.signals))

    async def _spool_one(self, one: _Waiting) -> None:
        try:
            outcome: Spooled | Exception = await self._kept(one.delivery)
        except Exception as error:  # noqa: BLE001  whatever it is, the sender is told
            outcome = error
        _answer(one, outcome)

    async def _spool_what_waits_for_ever(self) -> None:
        """The flusher may hang in a batch; those behind it need not wait for that."""
        while True:
            await self._reach.until_lost()
            waiting, self._weight = [*self._waiting], 0
            self._waiting.clear()
            await asyncio.gather(*map(self._spool_one, waiting))
            await asyncio.sleep(LOOK_SECONDS)

    async def _drain_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                depth = await self._spool.depth()
                if depth.bytes and not self._reach.away:
                    await self._spool.drain(self._absorb)
            except Exception as error:
                if not db.is_unreachable(error):
                    log.exception("the spool cannot be drained")
                await asyncio.sleep(AGAIN_SECONDS)

    async def _absorb(self, found: Sequence[Kept | Damaged]) -> bool:
        """Whether all of it has been applied, or quarantined. Raises what the database raises when it is away."""
        senders = {(one.source, one.kind) if isinstance(one, Kept) else _OF_DAMAGE for one in found}
        async with db.transaction(self._engine) as tx:
            ids = await store.ensure_sources(tx, senders, now=datetime.now(UTC))
        left = [
            one
            for one in found
            if isinstance(one, Damaged)
            or one.kind not in CHANGE_KINDS
            or not await self._absorb_change(one, ids[one.source, one.kind])
        ]
        whole = True
        for batch in self._batches(_restored(one, ids) for one in left):
            for outcome in await self._settled(self._line_of_spool, batch):
                if isinstance(outcome, Exception) and db.is_unreachable(outcome):
                    raise outcome
                whole = whole and isinstance(outcome, Receipt)
        return whole

    async def _absorb_change(self, one: Kept, source_id: int) -> bool:
        """Whether it could be applied. Raises what the database raises when it is away."""
        try:
            async with db.transaction(self._engine) as tx:
                if one.id not in await store.those_there(tx, [one.id]):
                    await self.take_change(
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
            log.exception("a report of a change cannot be applied and goes to quarantine")
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

    # — in a transaction —

    async def replay(self, tx: AsyncConnection, delivery: Delivery) -> Receipt:
        """One delivery in the caller's transaction."""
        [receipt] = await _nested(tx, lambda also_lock: self._apply_in(tx, [delivery], also_lock))
        return receipt

    async def understood(self, tx: AsyncConnection, delivery: Delivery) -> list[Signal]:
        """Its signals as the rules take them now; nothing is applied."""
        if self._rules is not None and await incidents.rules_version(tx) != self._rules[0]:
            self._rules = None
        return [one.signal for one in (await self._decide([delivery])).incoming]

    async def conclude(self, tx: AsyncConnection, delivery: Delivery, *, why: str) -> list[Outcome]:
        """What the service itself has found out about a source, in the caller's transaction.

        It goes the way of all signals, but nothing has been delivered: it is counted under `why` and nowhere else.
        """

        async def work(also_lock: frozenset[UUID]) -> list[Outcome]:
            decided = await self._decide([delivery])
            keys = decided.keys | also_lock
            await incidents.lock_keys(tx, keys)
            batch = await incidents.decide(tx, decided.incoming, keys, now=datetime.now(UTC))
            self._check(decided.version, await write(tx, batch))
            return [outcome_of(batch, index) for index in range(len(decided.incoming))]

        outcomes = await _nested(tx, work)
        if news := sum(outcome.verdict not in _NO_NEWS for outcome in outcomes):
            await count(tx, [("concluded", delivery.source, why, news)])
        return outcomes

    async def _apply_in(
        self, tx: db.Executor, deliveries: Sequence[Delivery], also_lock: frozenset[UUID]
    ) -> list[Receipt]:
        decided = await self._decide(deliveries)
        keys = decided.keys | also_lock
        await incidents.lock_keys(tx, keys)
        return await self._apply_locked(tx, decided, keys)

    async def _apply_locked(self, tx: db.Executor, decided: _Decided, keys: AbstractSet[UUID]) -> list[Receipt]:
        """In the caller's transaction, which has locked `keys`. Raises Raced, as well where the rules have changed.

        A delivery from the spool may have been applied before; then it does nothing, and its receipt says so.
        """
        spooled = [one.id for one in decided.deliveries if one.spooled]
        there = await store.those_there(tx, spooled) if spooled else frozenset()
        incoming: list[Incoming] = []
        indices: dict[UUID, range] = {}
        for delivery, signals in zip(decided.deliveries, decided.signals, strict=True):
            if delivery.id not in there:
                indices[delivery.id] = range(len(incoming), len(incoming) + len(signals))
                incoming += signals
        batch = await incidents.decide(tx, incoming, keys, now=datetime.now(UTC))
        recorded = {
            one.id: _recorded(one, [verdict_of(batch, index) for index in indices[one.id]])
            for one in decided.deliveries
            if one.id in indices
        }
        if beats := [one for one in incoming if one.decision.heartbeat and one.signal.status is Status.FIRING]:
            await store.record_beats(tx, beats)
        if recorded:
            self._check(decided.version, await write(tx, batch, *store.record([*recorded.values()])))
        return [
            _receipt(batch, recorded[one.id], indices[one.id]) if one.id in indices else Receipt(one.id, 0, {}, [])
            for one in decided.deliveries
        ]

    async def _decide(self, deliveries: Sequence[Delivery]) -> _Decided:
        version, rules = await self._current_rules()
        signals = [[_incoming(rules, signal, one) for signal in one.reading.signals] for one in deliveries]
        return _Decided(version, deliveries, signals)

    def _check(self, version: str, written: str | None) -> None:
        """Raises Raced where what was decided by the rules of one version was written under those of another."""
        if written is not None and written != version:
            self._rules = None
            raise Raced

    async def _current_rules(self) -> Known:
        """Whether they still hold shows when something is written by them."""
        if self._rules is None:
            async with db.transaction(self._engine) as tx:
                # The version first: rules that change in between are newer than it says, and are loaded once more.
                version = await incidents.rules_version(tx)
                self._rules = version, Rules(await self._load_rules(tx), uuid_of=uuid_of)
        return self._rules


_TRY_AGAIN = frozenset({"40001", "40P01"})  # serialisation failure, deadlock


def _overloaded(why: str) -> Overloaded:
    return Overloaded(f"{why}; send again")


def _answer(one: _Waiting, outcome: Receipt | Spooled | Exception) -> None:
    try:
        one.done(outcome)
    except Exception:  # its neighbours have answers coming too
        log.exception("a delivery cannot be answered")


def _settle(answer: "asyncio.Future[Receipt | Spooled]", outcome: Receipt | Spooled | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
        # The client may have gone: then nobody asks for the exception, and asyncio would complain.
        answer.exception()
    else:
        answer.set_result(outcome)


def _restored(one: Kept | Damaged, source_ids: Mapping[tuple[str, str], int]) -> Delivery:
    """As the door made it of the same body, at the same time."""
    if isinstance(one, Damaged):
        rejected = Rejected(one.raw, "damaged_in_spool", "a stretch of the spool that has changed on its disk")
        name, kind, reading, body = *_OF_DAMAGE, Reading((), (rejected,)), one.raw
    else:
        name, kind, reading, body = one.source, one.kind, _reading_of(one), one.body
    return Delivery(source_ids[name, kind], name, one.received_at, reading, body, kind, one.id, spooled=True)


_OF_DAMAGE = ("spool", "spool")  # the source, and its kind, of what can no longer tell where it came from


def _reading_of(kept: Kept) -> Reading:
    if kept.kind in CHANGE_KINDS:
        return Reading((), (Rejected(kept.body, "cannot_apply", "the log says why"),))
    try:
        return SOURCES[kept.kind].read(kept.body, received_at=kept.received_at)
    except (KeyError, NotThisKind) as error:  # another version took it
        return Reading((), (Rejected(kept.body, "not_this_kind", type(error).__name__),))


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


def _incoming(rules: Rules, signal: Signal, delivery: Delivery) -> Incoming:
    decision = rules.decide(signal.labels, signal.alert_class)
    if signal.end_reason in INFERRED:
        return Incoming(signal, delivery.source_id, decision, delivery.received_at)  # of the alert as it was told
    if (identity := decision.identity(signal.labels)) is not signal.labels:
        signal = replace(signal, fingerprint=fingerprint_of(identity))
    if decision.heartbeat:
        signal = replace(signal, test=True)  # it opens nothing
    return Incoming(signal, delivery.source_id, decision, delivery.received_at)


_BEGAN = frozenset({Verdict.OPENED, Verdict.JOINED, Verdict.REOPENED})  # an alert that nobody had told of


def _receipt(batch: Batch, recorded: store.Recorded, indices: Iterable[int]) -> Receipt:
    outcomes = [outcome_of(batch, index) for index in indices]
    numbers = sorted({one.incident for one in outcomes if one.incident is not None})
    return Receipt(recorded.id, len(outcomes), recorded.verdicts, [f"INC-{number}" for number in numbers])


def _recorded(delivery: Delivery, told: Sequence[Verdict]) -> store.Recorded:
    recorded = store.Recorded(
        delivery.id,
        delivery.source_id,
        delivery.source,
        delivery.received_at,
        delivery.reading.truncated,
        delivery.reading.rejected,
    )
    verdicts = recorded.verdicts
    for signal, verdict in zip(delivery.reading.signals, told, strict=True):
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
