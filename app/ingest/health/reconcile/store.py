"""SQL for reconcilers, their polls, and the peers as last polled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import NotFound
from app.base.schema import Peer, Reconciler, Source
from app.ingest.health.reconcile.compare import PeerState, Settings


class NotReconciled(NotFound):
    title = "The source is not reconciled"


async def put(session: AsyncSession, reconciler: Reconciler) -> None:
    """Discards a poll in progress and the results of earlier polls, because the peers may have changed."""
    values = reconciler.model_dump() | {"began_at": None, "counted_at": []}
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
    def within(self) -> timedelta:
        return timedelta(seconds=self.reconciler.poll_seconds)

    @property
    def settings(self) -> Settings:
        grace = timedelta(seconds=self.reconciler.grace_seconds)
        return Settings(self.reconciler.absences, grace, self.reconciler.receiver)


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
) -> None:
    """Records the responses of the peers and the conclusive polls. Requires the lock taken by `is_claimed`."""
    latest = list(conclusive)[-poll.reconciler.absences :]
    await session.exec(update(Reconciler).where(col(Reconciler.source_id) == poll.source_id).values(counted_at=latest))
    peers = {peer.url: peer for peer in await peers_of(session, poll.source_id)}
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


async def peers_of(session: AsyncSession, source_id: int) -> Sequence[Peer]:
    query = select(Peer).where(Peer.source_id == source_id).order_by(col(Peer.url))
    return (await session.exec(query)).all()
