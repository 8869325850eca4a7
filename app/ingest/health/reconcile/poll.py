"""Reconciliation: polls the peers of every source that is due, and applies the differences.

The differences are signals and are applied like delivered ones, so incidents remain a function of facts.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.outgoing import OutgoingClient
from app.base.process.threads import off_loop
from app.incidents.grouping.signal import Signal
from app.ingest.health import store as alerts
from app.ingest.health.reconcile import peers, store
from app.ingest.health.reconcile.compare import (
    Difference,
    Episode,
    ListedAlert,
    PeerState,
    StoredAlert,
    compare,
    episodes,
    is_conclusive,
)
from app.ingest.health.reconcile.silences import SilenceOfKey, silences_of_keys
from app.ingest.health.reconcile.store import Poll
from app.ingest.intake.flush import Delivery, Flusher
from app.ingest.sender import Reading

log = logging.getLogger("aftermath.health")

AT_ONCE = 500  # signals per transaction, as in a batch of deliveries: both lock the same keys

T = TypeVar("T")


async def reconcile_all(engine: AsyncEngine, flusher: Flusher, outgoing: OutgoingClient, *, now: datetime) -> int:
    """Reconciles every source that is due and returns their number."""
    async with db.session(engine) as session:
        due = await store.claim_polls(session, now=now)
    # Sources are polled concurrently but applied one at a time, because applying takes two of few connections.
    turn = asyncio.Lock()
    done = await asyncio.gather(
        *(_reconcile(engine, flusher, outgoing, poll, turn) for poll in due), return_exceptions=True
    )
    for poll, error in zip(due, done, strict=True):
        if isinstance(error, Exception):
            if db.is_unreachable(error) or db.is_contended(error):
                raise error
            log.error("source %s could not be reconciled", poll.source, exc_info=error)
    return len(due)


async def _reconcile(
    engine: AsyncEngine, flusher: Flusher, outgoing: OutgoingClient, poll: Poll, turn: asyncio.Lock
) -> None:
    states, errors = await _fetch_all(outgoing, poll)
    async with turn:
        await _apply(engine, flusher, poll, states, errors)


async def _fetch_all(outgoing: OutgoingClient, poll: Poll) -> tuple[list[PeerState], dict[str, str]]:
    """The states of the peers that answered, and the errors of the others by address."""
    one = poll.reconciler
    answers = await asyncio.gather(
        *(
            peers.fetch(outgoing, url, username=one.username, secret=one.secret, at=poll.at, within=poll.within)
            for url in one.peers
        ),
        return_exceptions=True,
    )
    states, errors = [], {}
    for url, answer in zip(one.peers, answers, strict=True):
        match answer:
            case PeerState():
                states.append(answer)
            case peers.PeerUnavailable():
                errors[url] = str(answer)
            case _:
                raise answer
    return states, errors


async def _apply(
    engine: AsyncEngine, flusher: Flusher, poll: Poll, states: Sequence[PeerState], errors: Mapping[str, str]
) -> None:
    """Applies the differences. Only after that the poll becomes conclusive."""
    settings = poll.settings
    conclusive = [*poll.reconciler.counted_at, *([poll.at] if is_conclusive(states, settings, poll.at) else [])]
    found, silences = Difference(), list[SilenceOfKey]()
    if states:
        async with db.session(engine) as session:
            if not await store.is_claimed(session, poll):
                return
            listed_by = [await _as_rules_decide(session, flusher, poll, state) for state in states]
            stored: dict[Episode, StoredAlert] = {}
            for some in _slices(await off_loop(episodes, [one for listed in listed_by for one in listed])):
                stored |= await store.stored(session, poll.source_id, some)
            open_alerts = await alerts.open_alerts_of(session, poll.source_id)
        before = poll.contradicted
        silences = await off_loop(silences_of_keys, states, stored)
        found = await off_loop(compare, open_alerts, stored, listed_by, conclusive, settings, poll.at, before)
        for why, signals in (("present", found.present), ("missed", found.missed), ("reconciled", found.gone)):
            for batch in _slices(signals):
                await _apply_signals(engine, flusher, poll, batch, why)
    async with db.session(engine) as session:
        if await store.is_claimed(session, poll):
            await store.record_poll(session, poll, states, errors, conclusive, found.contradicted)
            await store.record_silences(session, poll, silences)


async def _as_rules_decide(session: AsyncSession, flusher: Flusher, poll: Poll, state: PeerState) -> list[ListedAlert]:
    """The alerts that the peer listed, with the fingerprints that the rules give them. Heartbeats are left out: only a
    delivery is a beat.
    """
    tx = await session.connection()
    kept: list[ListedAlert] = []
    # In slices, so as not to block the event loop: a peer may list a hundred thousand alerts.
    for some in _slices(state.listed):
        signals = await flusher.preview(tx, _delivery(poll, [one.signal for one in some]))
        await asyncio.sleep(0)
        kept += [replace(one, signal=signal) for one, signal in zip(some, signals, strict=True) if not signal.test]
    return kept


async def _apply_signals(
    engine: AsyncEngine, flusher: Flusher, poll: Poll, signals: Sequence[Signal], why: str
) -> None:
    """Applies as many signals as possible: on failure it retries each half, down to a single signal."""
    try:
        async with db.transaction(engine) as tx:
            await flusher.apply_internal(tx, _delivery(poll, signals), why=why)
    except Exception as error:
        if db.is_unreachable(error) or db.is_contended(error):
            raise
        if len(signals) == 1:
            log.exception("an alert from %s could not be reconciled", poll.source)
            return
        for half in (signals[: len(signals) // 2], signals[len(signals) // 2 :]):
            await _apply_signals(engine, flusher, poll, half, why)


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))


def _delivery(poll: Poll, signals: Sequence[Signal]) -> Delivery:
    return Delivery(poll.source_id, poll.source, poll.at, Reading(tuple(signals)))
