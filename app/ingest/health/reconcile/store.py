"""SQL for reconcilers, their polls, and the peers as last polled."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import delete, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import NotFound
from app.base.schema import Peer, Reconciler, Silence, Source
from app.incidents.grouping.decide import series_of
from app.incidents.grouping.signal import EndReason
from app.ingest.health.reconcile.compare import (
    Contradicted,
    Episode,
    PeerState,
    ReconcileSettings,
    StoredAlert,
    to_the_millisecond,
)
from app.ingest.health.reconcile.silences import SilenceOfKey


class NotReconciled(NotFound):
    title = "The source is not reconciled"


async def put(session: AsyncSession, reconciler: Reconciler) -> None:
    """Discards a poll in progress and the results of earlier polls, because the peers may have changed."""
    values = reconciler.model_dump() | {"began_at": None, "counted_at": [], "contradicted": None}
    query = upsert(Reconciler).values(values)
    await session.exec(query.on_conflict_do_update(index_elements=["source_id"], set_=values))
    await session.exec(
        delete(Peer).where(col(Peer.source_id) == reconciler.source_id, col(Peer.url).not_in(reconciler.peers))
    )


async def get(session: AsyncSession, source: Source) -> Reconciler:
    """Raises NotReconciled."""
    row = await session.get(Reconciler, source.id)
    if row is None:
        raise _not_reconciled(source)
    return row


async def remove(session: AsyncSession, source: Source) -> None:
    """Raises NotReconciled."""
    removed = await session.exec(delete(Reconciler).where(col(Reconciler.source_id) == source.id))
    if not removed.rowcount:
        raise _not_reconciled(source)


def _not_reconciled(source: Source) -> NotReconciled:
    return NotReconciled(
        f"the source {source.name!r} is not reconciled; create one with PUT /api/v1/sources/{source.name}/reconciler"
    )


# — polls —


@dataclass(frozen=True, slots=True)
class Poll:
    """A poll of the peers of one source, claimed by this process."""

    reconciler: Reconciler
    source: str
    at: datetime

    @property
    def source_id(self) -> int:
        return self.reconciler.source_id

    @property
    def contradicted(self) -> Contradicted | None:
        stored = self.reconciler.contradicted
        if stored is None:
            return None
        return Contradicted(
            datetime.fromisoformat(stored["at"]),
            {(fingerprint, datetime.fromisoformat(started_at)) for fingerprint, started_at in stored["alerts"]},
        )

    @property
    def within(self) -> timedelta:
        return timedelta(seconds=self.reconciler.poll_seconds)

    @property
    def settings(self) -> ReconcileSettings:
        grace = timedelta(seconds=self.reconciler.grace_seconds)
        return ReconcileSettings(self.reconciler.absences, grace, self.reconciler.receiver)


async def claim_polls(session: AsyncSession, *, now: datetime) -> list[Poll]:
    """Claims all polls that are due. No other process can claim them until they are due again."""
    tx = await session.connection()
    claimed: Sequence[int] = (await tx.execute(_CLAIM, {"now": now})).scalars().all()
    query = (
        select(Reconciler, Source.name)
        .join(Source, col(Source.id) == Reconciler.source_id)
        .where(col(Reconciler.source_id).in_(claimed))
        .order_by(col(Reconciler.source_id))
    )
    return [Poll(reconciler, source, now) for reconciler, source in await session.exec(query)]


_CLAIM = text("""
    UPDATE reconciler
       SET began_at = :now
     WHERE began_at IS NULL
        OR began_at <= CAST(:now AS timestamptz) - make_interval(secs => poll_seconds)
    RETURNING source_id
""")


async def is_claimed(session: AsyncSession, poll: Poll) -> bool:
    """Whether the poll is still claimed by this process. If so, locks the reconciler until the transaction ends."""
    query = select(Reconciler.source_id).where(Reconciler.source_id == poll.source_id, Reconciler.began_at == poll.at)
    return (await session.exec(query.with_for_update())).one_or_none() is not None


async def record_poll(
    session: AsyncSession,
    poll: Poll,
    states: Sequence[PeerState],
    errors: Mapping[str, str],
    conclusive: Sequence[datetime],
    contradicted: Contradicted | None,
) -> None:
    """Records the responses of the peers and the conclusive polls. Requires the lock taken by `is_claimed`."""
    values: dict[str, Any] = {"counted_at": list(conclusive)[-poll.reconciler.absences :]}
    if contradicted is not None:
        alerts = [(fingerprint, started_at.isoformat()) for fingerprint, started_at in sorted(contradicted.episodes)]
        values["contradicted"] = {"at": contradicted.at.isoformat(), "alerts": alerts} if alerts else None
    await session.exec(update(Reconciler).where(col(Reconciler.source_id) == poll.source_id).values(values))
    peers = {peer.url: peer for peer in await peers_of(session, [poll.source_id])}
    for state in states:
        peer = peers.get(state.url) or Peer(source_id=poll.source_id, url=state.url, polled_at=poll.at)
        peer.polled_at = peer.answered_at = poll.at
        peer.error = None
        peer.version, peer.cluster, peer.up_since = state.version, state.cluster, state.up_since
        peer.alerts = len(state.listed)
        peer.suppressed = sum(not listed.active for listed in state.listed)
        peer.silences = state.silences
        session.add(peer)
    for url, error in errors.items():
        peer = peers.get(url) or Peer(source_id=poll.source_id, url=url, polled_at=poll.at)
        peer.polled_at, peer.error = poll.at, error
        session.add(peer)


async def record_silences(session: AsyncSession, poll: Poll, found: Sequence[SilenceOfKey]) -> None:
    """Records the silences that suppressed alerts in this poll."""
    if not found:
        return
    seen = {"source_id": poll.source_id, "first_seen_at": poll.at, "last_seen_at": poll.at}
    query = upsert(Silence).values([asdict(one) | seen for one in found])
    changed = {name: query.excluded[name] for name in _CHANGING}
    await session.exec(query.on_conflict_do_update(index_elements=["source_id", "id", "key_id"], set_=changed))


async def delete_old_silences(session: AsyncSession, before: datetime) -> None:
    """Deletes those that suppressed nothing since then."""
    await session.exec(delete(Silence).where(col(Silence.last_seen_at) < before))


_CHANGING = ("by", "comment", "matchers", "starts_at", "ends_at", "last_seen_at")


async def peers_of(session: AsyncSession, source_ids: Collection[int]) -> Sequence[Peer]:
    query = select(Peer).where(col(Peer.source_id).in_(source_ids)).order_by(col(Peer.source_id), col(Peer.url))
    return (await session.exec(query)).all()


# — alerts —


async def stored(session: AsyncSession, source_id: int, episodes: Sequence[Episode]) -> dict[Episode, StoredAlert]:
    """The episodes that are stored as alerts."""
    tx = await session.connection()
    found = await tx.execute(
        _STORED,
        {
            "series": [series_of(source_id, fingerprint) for fingerprint, _ in episodes],
            "since": [started_at for _, started_at in episodes],
        },
    )
    rows = (_Stored(*row) for row in found)
    return {(one.fingerprint, to_the_millisecond(one.started_at)): one.as_fact() for one in rows}


class _Stored(NamedTuple):
    fingerprint: str
    started_at: datetime
    end_reason: str | None
    key_id: UUID

    def as_fact(self) -> StoredAlert:
        reason = None if self.end_reason is None else EndReason(self.end_reason)
        return StoredAlert(self.started_at, reason, self.key_id)


_STORED = text("""
    SELECT alert.fingerprint, alert.started_at, alert.end_reason, alert.key_id
      FROM unnest(CAST(:series AS uuid[]), CAST(:since AS timestamptz[])) AS wanted (series, since)
      JOIN alert
        ON alert.series = wanted.series
       AND alert.started_at >= wanted.since
       AND alert.started_at < wanted.since + interval '1 millisecond'
""")
