"""Applies a batch of deliveries in one transaction: decides by the rules, changes alerts and incidents, records each
delivery, commits, and returns a receipt for each. A delivery that cannot be applied goes to quarantine as a whole.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.base import db
from app.base.process.threads import off_loop
from app.base.values.ids import new_id, uuid_of
from app.incidents.grouping import decide as grouping
from app.incidents.grouping.batch import Batch, Incoming, SignalOutcome, contradictions, outcome_of, verdict_of
from app.incidents.grouping.law.episode import minute
from app.incidents.grouping.rule import Rule, Rules
from app.incidents.grouping.signal import Signal, Status, Verdict
from app.incidents.grouping.write import BatchConflict, count, write
from app.ingest.handlers import Handlers
from app.ingest.intake import store
from app.ingest.intake.attempts import ATTEMPTS, KeepsChanging, in_savepoint, pause_before
from app.ingest.intake.contradictions import Contradictions
from app.ingest.intake.decisions import SEVERITY_UNRECOGNIZED, Loaded, incoming_of
from app.ingest.intake.poison import without_poison
from app.ingest.intake.words import Words
from app.ingest.quarantine import keep_rejected
from app.ingest.sender import Reading, Receipt, Rejected, Request

log = logging.getLogger("aftermath.ingest")

ALONE_SECONDS = 5.0  # time limit for a delivery in a transaction of its own, in case the database hangs
TRY_SECONDS = 30.0  # the same for half of a large delivery that cannot be applied as a whole
MANY, LARGE = 500, 2**20  # signals or bytes of one delivery, whose decisions then leave the event loop
CONTRADICTIONS = "contradictions"  # the tally, by pair of senders

NEW = UUID(int=0)  # replaced by a new id

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
LoadRules = Callable[[AsyncConnection], Awaitable[Sequence[Rule]]]


@dataclass(slots=True)
class Delivery:
    """What a source reported in one request. `received_at` is when it was first received: a delivery from the spool or
    from quarantine keeps that time. `imported`: its facts are history, and each counts as reported when it happened.
    """

    source_id: int
    source: str
    received_at: datetime
    reading: Reading
    request: Request | None = None  # None for what the service itself has inferred
    kind: str = ""  # of its sender
    id: UUID = NEW
    was_spooled: bool = False  # from the spool; may have been applied before
    imported: bool = False
    reported_at: datetime = field(init=False)  # of its facts, unless it is imported

    def __post_init__(self) -> None:
        if self.id is NEW:
            self.id = new_id(self.received_at)
        self.reported_at = minute(self.received_at)

    @property
    def weight(self) -> int:
        """Its contribution to the size of a batch."""
        return len(self.reading.signals) + len(self.reading.rejected) + 1


class _Decided(NamedTuple):
    """Deliveries, and the signals of each as decided by this version of the rules.

    `afresh`: the rules were read after the deliveries had arrived.
    """

    rules_version: int
    afresh: bool
    deliveries: Sequence[Delivery]
    signals: Sequence[Sequence[Incoming]]

    @property
    def incoming(self) -> list[Incoming]:
        return [one for signals in self.signals for one in signals]

    @property
    def keys(self) -> AbstractSet[UUID]:
        return grouping.keys_of(self.incoming)


class _Handled(NamedTuple):
    """What the handlers stored: deployments, changes, action items with a new state of their issue, how many facts got
    each verdict, and acknowledgements.
    """

    verdicts: Mapping[str, int]
    deployments: Sequence[str]
    changes: Sequence[str]
    action_items: Sequence[str]
    acknowledged: int


class Flusher:
    """Applies deliveries. Keeps the rules in memory, and reloads them when a write finds that they have changed."""

    def __init__(
        self,
        engine: AsyncEngine,
        load_rules: LoadRules,
        handlers: Handlers,
        monitor: db.DatabaseMonitor,
        *,
        quarantine_bytes: int,
    ) -> None:
        self._engine = engine
        self._quarantine_bytes = quarantine_bytes
        self._handlers = handlers
        self._load_rules = load_rules
        self._monitor = monitor
        self._loaded: Loaded | None = None
        self._contradictions = Contradictions()
        self._words = Words()

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
            return await self._commit(connection, deliveries)
        except Exception as error:  # noqa: BLE001  it is logged where it is handled
            if db.is_unreachable(error):
                return self._unreachable(deliveries, error)
            if len(deliveries) > 1:
                log.warning(
                    "a batch of %d deliveries failed (%s); applying them one by one",
                    len(deliveries),
                    type(error).__name__,
                )
                return [outcome for one in deliveries for outcome in await self._flush_together(connection, [one])]
            return [await self._flush_without_poison(connection, deliveries[0], error)]

    async def _flush_alone(self, connection: db.RawConnection, delivery: Delivery) -> Receipt | Exception:
        """Commits one delivery with facts that other areas store, on a SQLAlchemy connection that they can use."""
        if self._monitor.is_down:
            return db.DatabaseDown()
        try:
            return await self._commit_alone(delivery)
        except Exception as error:  # noqa: BLE001  it is logged where it is handled
            if db.is_unreachable(error):
                return self._unreachable([delivery], error)[0]
            return await self._flush_without_poison(connection, delivery, error)

    async def _flush_without_poison(
        self, connection: db.RawConnection, delivery: Delivery, error: Exception
    ) -> Receipt | Exception:
        """Quarantines what causes the error: single facts if possible, otherwise the whole delivery."""
        if isinstance(error, KeepsChanging) or not (delivery.reading.signals or delivery.reading.needs_handlers):
            log.error("a delivery cannot be stored, not even in quarantine", exc_info=error)
            return error
        detail = type(error).__name__
        log.error("a delivery cannot be applied; quarantining the facts that cause the error", exc_info=error)
        try:
            harmless = await without_poison(delivery.reading, partial(self.can_apply, delivery), detail=detail)
            if harmless is not None:
                rest = replace(delivery, reading=harmless)
                if harmless.needs_handlers:
                    return await self._commit_alone(rest)
                return (await self._commit(connection, [rest]))[0]
        except Exception as again:
            if db.is_unreachable(again):
                return self._unreachable([delivery], again)[0]
            if isinstance(again, KeepsChanging):
                return again
            log.exception("the other facts of the delivery cannot be applied either")
        whole = Reading(rejected=(Rejected("cannot_apply", detail),), truncated=delivery.reading.truncated)
        [outcome] = await self._flush_together(connection, [replace(delivery, reading=whole)])
        return outcome

    async def can_apply(self, delivery: Delivery, reading: Reading) -> bool:
        """Whether the delivery could be applied if it had these facts. Applies nothing."""
        try:
            await self._commit_alone(replace(delivery, reading=reading), dry_run=True)
        except Exception as error:
            if db.is_unreachable(error) or isinstance(error, KeepsChanging):
                raise
            return False
        return True

    async def _commit_alone(self, delivery: Delivery, *, dry_run: bool = False) -> Receipt | Exception:
        """Applies one delivery in a transaction of its own; with `dry_run`, rolls it back."""
        for attempt in range(ATTEMPTS):
            await pause_before(attempt)
            try:
                within = TRY_SECONDS if dry_run else ALONE_SECONDS
                async with asyncio.timeout(within), db.transaction(self._engine) as tx:
                    receipt = await self.apply(tx, delivery)
                    if dry_run:
                        await tx.rollback()
                    return receipt
            except Exception as error:
                if not db.is_contended(error):
                    raise
        raise KeepsChanging

    def _unreachable(self, deliveries: Sequence[Delivery], error: Exception) -> list[Receipt | Exception]:
        log.warning("database unreachable for %d deliveries: %s", len(deliveries), type(error).__name__)
        self._monitor.mark_down()
        return [error] * len(deliveries)

    async def _commit(self, connection: db.RawConnection, deliveries: Sequence[Delivery]) -> list[Receipt | Exception]:
        also_lock: frozenset[UUID] = frozenset()
        for attempt in range(ATTEMPTS):
            await pause_before(attempt)
            try:
                # Before the transaction: rules load on another connection.
                decided = await self._decide(deliveries, afresh=attempt > 0)
                keys = decided.keys | also_lock
                async with connection.transaction(grouping.lock(keys)) as tx:
                    return await self._apply(tx, decided, keys)
            except BatchConflict as conflict:
                also_lock |= conflict.keys
            except Exception as error:
                # A connection that was considered lost may be committing a spooled delivery at this moment.
                was_committed = db.state_of(error) == "23505" and any(one.was_spooled for one in deliveries)
                if not (db.is_contended(error) or was_committed):
                    raise
        raise KeepsChanging

    async def _apply(
        self, tx: db.Transaction, decided: _Decided, keys: AbstractSet[UUID], handled: _Handled | None = None
    ) -> list[Receipt | Exception]:
        """Requires a transaction that has locked `keys`. Raises BatchConflict, also if the rules have changed.

        Returns QuarantineFull for a delivery with parts that could not be kept; the others are stored.

        `handled` is what the handlers did with the other facts, if this is a single delivery.

        A delivery from the spool that has been applied before changes nothing and gets an empty receipt.
        """
        spooled = [one.id for one in decided.deliveries if one.was_spooled]
        known = await store.known_deliveries(tx, spooled) if spooled else frozenset()
        incoming: list[Incoming] = []
        indices: dict[UUID, range] = {}
        for delivery, signals in zip(decided.deliveries, decided.signals, strict=True):
            if delivery.id not in known:
                indices[delivery.id] = range(len(incoming), len(incoming) + len(signals))
                incoming += signals
        batch = await grouping.decide(tx, incoming, keys, now=datetime.now(UTC))
        records = self._records(batch, decided, indices, handled)
        for recorded in records.values():
            if recorded.words:
                recorded.words = await self._words.bound(tx, recorded.source, recorded.words)
        if beats := [one for one in incoming if one.decision.heartbeat and one.signal.status is Status.FIRING]:
            await store.record_beats(tx, beats)
        if rejected := [one for one in records.values() if one.reading.rejected]:
            await keep_rejected(tx, rejected, quota=self._quarantine_bytes)
        if records:
            self._check_rules(decided, await write(tx, batch, *store.record([*records.values()])))
        return [
            _receipt(batch, records[one.id], indices[one.id]) if one.id in indices else Receipt(one.id, 0, {}, [])
            for one in decided.deliveries
        ]

    def _records(
        self, batch: Batch, decided: _Decided, indices: Mapping[UUID, range], handled: _Handled | None
    ) -> dict[UUID, store.DeliveryRecord]:
        records: dict[UUID, store.DeliveryRecord] = {}
        contradicting = contradictions(batch)
        for delivery, signals in zip(decided.deliveries, decided.signals, strict=True):
            if (those := indices.get(delivery.id)) is not None:
                recorded = _record(delivery, signals, [verdict_of(batch, index) for index in those], handled)
                self._note_contradictions(delivery, signals, recorded)
                if contradicting:
                    recorded.contradicted_ends = len(contradicting.intersection(those))
                records[delivery.id] = recorded
        return records

    def _note_contradictions(
        self, delivery: Delivery, signals: Sequence[Incoming], recorded: store.DeliveryRecord
    ) -> None:
        if not delivery.was_spooled:  # their order is not that of their arrival
            found = self._contradictions.in_delivery(
                delivery.source_id, delivery.reading.sender, (one.signal for one in signals), delivery.received_at
            )
            for pair in found:
                recorded.count_word(CONTRADICTIONS, pair)

    # — in the caller's transaction —

    async def apply(self, tx: AsyncConnection, delivery: Delivery) -> Receipt | Exception:
        """Applies one delivery in the caller's transaction, a new one or one from quarantine.

        Returns QuarantineFull if parts of it could not be kept; commit the others.
        """

        async def work(also_lock: frozenset[UUID], *, again: bool) -> Receipt | Exception:
            if delivery.was_spooled and await store.known_deliveries(tx, [delivery.id]):
                return Receipt(delivery.id, 0, {}, [])
            handled = await self._handle(tx, delivery)
            decided = await self._decide([delivery], afresh=again)
            keys = decided.keys | also_lock
            await grouping.lock_keys(tx, keys)
            [receipt] = await self._apply(tx, decided, keys, handled)
            return receipt

        return await in_savepoint(tx, work)

    async def _handle(self, tx: AsyncConnection, delivery: Delivery) -> _Handled:
        verdicts: dict[str, int] = {}
        deployments, changes, action_items = [], [], []
        for report in delivery.reading.deployments:
            key, verdict = await self._handlers.deployments(
                tx, report, source_id=delivery.source_id, now=delivery.received_at
            )
            deployments.append(key)
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
        for change in delivery.reading.changes:
            key, verdict = await self._handlers.changes(
                tx, change, source_id=delivery.source_id, now=delivery.received_at
            )
            changes.append(key)
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
        for issue in delivery.reading.issues:
            item, verdict = await self._handlers.issues(tx, issue, now=delivery.received_at)
            action_items += [] if item is None else [item]
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
        if reactions := delivery.reading.reactions:
            await self._handlers.reactions(tx, reactions, source_id=delivery.source_id, now=delivery.received_at)
        kinds = Counter(one.kind.value for one in reactions)
        acknowledged = kinds.pop(Verdict.ACKNOWLEDGED.value, 0)
        return _Handled(verdicts | kinds, deployments, changes, action_items, acknowledged)

    async def apply_internal(self, tx: AsyncConnection, delivery: Delivery, *, why: str) -> list[SignalOutcome]:
        """Applies signals that the service itself inferred about a source, in the caller's transaction.

        There is no delivery to record. Only the number of signals that changed something is counted, under `why`.
        """

        async def work(also_lock: frozenset[UUID], *, again: bool) -> list[SignalOutcome]:
            decided = await self._decide([delivery], afresh=again)
            keys = decided.keys | also_lock
            await grouping.lock_keys(tx, keys)
            batch = await grouping.decide(tx, decided.incoming, keys, now=datetime.now(UTC))
            self._check_rules(decided, await write(tx, batch))
            return [outcome_of(batch, index) for index in range(len(decided.incoming))]

        outcomes = await in_savepoint(tx, work)
        if news := sum(outcome.verdict not in _NO_NEWS for outcome in outcomes):
            await count(tx, [("inferred", delivery.source, why, news)])
        return outcomes

    async def preview(self, tx: AsyncConnection, delivery: Delivery) -> list[Signal]:
        """The signals of a delivery as the current rules decide them. Applies nothing."""
        known = self._loaded
        changed = known is not None and await grouping.rules_version(tx) != known.version
        return [one.signal for one in (await self._decide([delivery], afresh=changed)).incoming]

    # — rules —

    async def _decide(self, deliveries: Sequence[Delivery], *, afresh: bool = False) -> _Decided:
        loaded = await self._current_rules(afresh=afresh)
        decide = partial(_decided, loaded, deliveries)
        is_long = any(
            len(one.reading.signals) > MANY or (one.request and len(one.request.body) > LARGE) for one in deliveries
        )
        return _Decided(loaded.version, afresh, deliveries, await off_loop(decide) if is_long else decide())

    async def _current_rules(self, *, afresh: bool) -> Loaded:
        """`self._loaded` may change during any `await`, so it is read once."""
        known = self._loaded
        if known is None or afresh:
            async with db.transaction(self._engine) as tx:
                # Version first: if the rules change in between, the write finds another version and they are reloaded.
                version = await grouping.rules_version(tx)
                rules = Rules(await self._load_rules(tx), uuid_of=uuid_of)
                known = Loaded(
                    version,
                    rules,
                    await store.recoveries_of_sources(tx),
                    await store.refire_of_sources(tx),
                    await store.correlation_label_of_sources(tx),
                )
            self._loaded = known
        return known

    def _check_rules(self, decided: _Decided, version_at_write: int | None) -> None:
        """Raises BatchConflict if the rules changed between the decision and the write (None: nothing was written).

        Rules read after the deliveries had arrived may be used even if they have changed once more: the deliveries
        then count as applied before that change. Otherwise rules that keep changing would delay deliveries without end.
        """
        if version_at_write is None or version_at_write == decided.rules_version:
            return
        self._loaded = None
        if not decided.afresh:
            raise BatchConflict


def _decided(loaded: Loaded, deliveries: Sequence[Delivery]) -> list[list[Incoming]]:
    return [
        incoming_of(
            loaded,
            one.reading.signals,
            one.source_id,
            one.received_at,
            reported_at=None if one.imported else one.reported_at,
        )
        for one in deliveries
    ]


def _record(
    delivery: Delivery, signals: Sequence[Incoming], signal_verdicts: Sequence[Verdict], handled: _Handled | None
) -> store.DeliveryRecord:
    recorded = store.DeliveryRecord(
        delivery.id,
        delivery.source_id,
        delivery.source,
        delivery.received_at,
        delivery.reading,
        delivery.request,
        spooled=delivery.was_spooled,
    )
    if handled is not None:
        recorded.other_verdicts = handled.verdicts
        recorded.deployments, recorded.changes = handled.deployments, handled.changes
        recorded.action_items = handled.action_items
        if handled.acknowledged:
            recorded.verdicts[Verdict.ACKNOWLEDGED] = handled.acknowledged
    elif delivery.reading.ignored is not None:
        recorded.other_verdicts = _IGNORED
    verdicts = recorded.verdicts
    for one, verdict in zip(signals, signal_verdicts, strict=True):
        signal, word = one.signal, one.decision.unrecognized
        if word is not None and not signal.test:
            recorded.count_word(SEVERITY_UNRECOGNIZED, word)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        if signal.ended_at is not None and verdict in _STARTED:
            recorded.resolved_without_firing += 1
        event_at = signal.ended_at or signal.started_at or signal.happened_at
        if event_at and verdict not in _NO_NEWS:
            recorded.lags.append((delivery.received_at - event_at).total_seconds())
    if delivery.reading.rejected:
        verdicts[Verdict.QUARANTINED] = len(delivery.reading.rejected)
    return recorded


_IGNORED: Mapping[str, int] = MappingProxyType({Verdict.IGNORED.value: 1})
_STARTED = frozenset({Verdict.OPENED, Verdict.JOINED, Verdict.REOPENED})  # verdicts on an alert not known before
_NO_NEWS = frozenset({Verdict.REPEATED, Verdict.IGNORED})


def _receipt(batch: Batch, recorded: store.DeliveryRecord, indices: Iterable[int]) -> Receipt | Exception:
    if recorded.refusal:
        return recorded.refusal
    outcomes = [outcome_of(batch, index) for index in indices]
    numbers = sorted({one.incident for one in outcomes if one.incident is not None})
    reading = recorded.reading
    return Receipt(
        recorded.id,
        len(outcomes),
        recorded.all_verdicts,
        [f"INC-{number}" for number in numbers],
        [*recorded.deployments],
        [*recorded.changes],
        [*recorded.action_items],
        reading.rejected[0].reason if reading.rejected else reading.ignored,
    )
