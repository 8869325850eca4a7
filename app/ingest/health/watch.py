"""The watch over the feed: what the service itself looks after, round by round, in one process at a time.

What it finds out are signals, and are applied like any other: incidents stay a function of facts.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.base import db
from app.incidents.grouping.signal import EndReason, Signal
from app.ingest.flush import Delivery, Flusher
from app.ingest.health import heartbeat, reconcile, store
from app.ingest.health.heartbeat import Found, Heartbeat
from app.ingest.health.peers import Unanswered, ask
from app.ingest.health.reconcile import Answer, Listed, OpenAlert
from app.ingest.health.store import Reconciler
from app.ingest.sender import Reading

log = logging.getLogger("aftermath.feed")

# After a pause this long nobody was there to be told: the service was down, or without its database.
AWAY = timedelta(minutes=1)


async def watch_for_ever(engine: AsyncEngine, flusher: Flusher, *, interval_seconds: float) -> None:
    away = max(AWAY, 3 * timedelta(seconds=interval_seconds))
    while True:
        await asyncio.sleep(interval_seconds)
        try:
            await watch(engine, flusher, now=datetime.now(UTC), away=away)
        except Exception as error:
            if not db.is_unreachable(error):
                log.exception("watching the feed failed")


async def watch(engine: AsyncEngine, flusher: Flusher, *, now: datetime, away: timedelta = AWAY) -> bool:
    """One round; False if another process is at it."""
    async with db.transaction(engine) as tx:
        if not await store.only_one(tx, "watch"):
            return False
        listening_since = await store.listening_since(tx, now=now, away=away)
        await store.sample(tx, now=now)
        beats = await store.heartbeats(tx)
        stale = await store.stale(tx, listening_since=listening_since, now=now)
    for beat in beats:
        if found := heartbeat.judge(beat, listening_since=listening_since, now=now):
            await _alone(engine, flusher, beat, found, now=now)
    for (source_id, source), those in _by_source(stale).items():
        signals = tuple(alert.ended(EndReason.TIMEOUT) for alert in those)
        async with db.transaction(engine) as tx:
            await flusher.apply_internal(tx, Delivery(source_id, source, now, Reading(signals), b""), why="timeout")
    return True


def _by_source(alerts: Iterable[OpenAlert]) -> dict[tuple[int, str], list[OpenAlert]]:
    found: dict[tuple[int, str], list[OpenAlert]] = defaultdict(list)
    for alert in alerts:
        found[alert.source_id, alert.source].append(alert)
    return found


async def _alone(engine: AsyncEngine, flusher: Flusher, beat: Heartbeat, found: Found, *, now: datetime) -> None:
    """A transaction for each: one that fails must not keep the others from being told."""
    try:
        async with db.transaction(engine) as tx:
            await tell(tx, flusher, beat, found, now=now)
    except store.Changed:
        log.info("a heartbeat of %s came meanwhile", beat.source)
    except Exception as error:
        if db.is_unreachable(error):
            raise
        log.exception("a heartbeat of %s cannot be told of", beat.source)


async def tell(tx: AsyncConnection, flusher: Flusher, beat: Heartbeat, found: Found, *, now: datetime) -> None:
    """Raises store.Changed if it is no longer so; then nothing has happened once the transaction is rolled back."""
    # The flusher's locks come first, as in its own batches, which write beats after them.
    if found.signal is not None:
        delivery = Delivery(beat.source_id, beat.source, now, Reading((found.signal,)), b"")
        await flusher.apply_internal(tx, delivery, why=found.change)
    await store.note(tx, beat, found)


# — reconciling —

AT_ONCE = 500  # signals of one transaction, as in a batch of the doors: they wait for the same keys


async def reconcile_for_ever(engine: AsyncEngine, flusher: Flusher, *, interval_seconds: float) -> None:
    while True:
        await asyncio.sleep(interval_seconds)
        try:
            await reconcile_all(engine, flusher, now=datetime.now(UTC))
        except Exception as error:
            if not db.is_unreachable(error):
                log.exception("reconciling failed")


async def reconcile_all(engine: AsyncEngine, flusher: Flusher, *, now: datetime) -> int:
    """Asks the peers of every source that is due; how many were."""
    async with db.transaction(engine) as tx:
        due = await store.claim_polls(tx, now=now)
    # Sources are asked side by side and applied in turn: each takes two of the few connections.
    turn = asyncio.Lock()
    done = await asyncio.gather(*(_reconcile(engine, flusher, one, now, turn) for one in due), return_exceptions=True)
    for one, error in zip(due, done, strict=True):
        if isinstance(error, Exception):
            if db.is_unreachable(error):
                raise error
            log.error("%s cannot be reconciled", one.source, exc_info=error)
    return len(due)


async def _reconcile(engine: AsyncEngine, flusher: Flusher, one: Reconciler, at: datetime, turn: asyncio.Lock) -> None:
    answers, errors = await _ask_all(one, at)
    async with turn:
        await _apply(engine, flusher, one, answers, errors, at)


async def _apply(
    engine: AsyncEngine,
    flusher: Flusher,
    one: Reconciler,
    answers: Sequence[Answer],
    errors: Mapping[str, str],
    at: datetime,
) -> None:
    """A poll counts once what was found in it has been applied."""
    counted = [*one.counted_at, at] if reconcile.counts(answers, one.settings, at) else one.counted_at
    if answers:
        async with db.transaction(engine) as tx:
            if not await store.is_claimed(tx, one):
                return
            listed = await _understood(tx, flusher, one, answers, at)
            places = [place for each in listed if (place := reconcile.place_of(each.signal))]
            known = await store.starts(tx, one.source_id, places)
            opened = await store.open_alerts_of(tx, one.source_id)
        found = reconcile.compare(opened, known, listed, counted, one.settings, at)
        for why, signals in (("present", found.present), ("missed", found.missed), ("reconciled", found.gone)):
            for start in range(0, len(signals), AT_ONCE):
                await _conclude(engine, flusher, _delivery(one, signals[start : start + AT_ONCE], at), why)
    async with db.transaction(engine) as tx:
        if await store.is_claimed(tx, one):
            await store.note_poll(tx, one, answers, errors, counted)


async def _ask_all(one: Reconciler, at: datetime) -> tuple[list[Answer], dict[str, str]]:
    """What the peers say, and why the others do not."""
    said = await asyncio.gather(
        *(ask(url, username=one.username, secret=one.secret, at=at, within=one.poll) for url in one.peers),
        return_exceptions=True,
    )
    answers, errors = [], {}
    for url, answer in zip(one.peers, said, strict=True):
        match answer:
            case Answer():
                answers.append(answer)
            case Unanswered():
                errors[url] = str(answer)
            case _:
                raise answer
    return answers, errors


async def _understood(
    tx: AsyncConnection, flusher: Flusher, one: Reconciler, answers: Iterable[Answer], at: datetime
) -> list[Listed]:
    """What is listed, as the rules take it; heartbeats are no alerts, and live by what is delivered."""
    listed = [each for answer in answers for each in answer.listed]
    signals = await flusher.preview(tx, _delivery(one, [each.signal for each in listed], at))
    return [replace(each, signal=signal) for each, signal in zip(listed, signals, strict=True) if not signal.test]


async def _conclude(engine: AsyncEngine, flusher: Flusher, delivery: Delivery, why: str) -> None:
    """What cannot be applied must not keep the rest from it: halved until it stands alone."""
    signals = delivery.reading.signals
    try:
        async with db.transaction(engine) as tx:
            await flusher.apply_internal(tx, delivery, why=why)
    except Exception as error:
        if db.is_unreachable(error):
            raise
        if len(signals) == 1:
            log.exception("an alert of %s cannot be reconciled", delivery.source)
            return
        for half in (signals[: len(signals) // 2], signals[len(signals) // 2 :]):
            part = Delivery(delivery.source_id, delivery.source, delivery.received_at, Reading(half), b"")
            await _conclude(engine, flusher, part, why)


def _delivery(one: Reconciler, signals: Sequence[Signal], at: datetime) -> Delivery:
    return Delivery(one.source_id, one.source, at, Reading(tuple(signals)), b"")
