"""SQL for the health of sources: samples of tallies, heartbeats, open alerts, quarantine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import case, delete, func, text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Conflict, NotFound
from app.base.schema import FeedSample, Heartbeat, Peer, Quarantine, Rule, Source, Tally
from app.incidents.grouping.decide import series_of
from app.incidents.grouping.signal import AlertClass
from app.ingest.health.heartbeat import FINGERPRINT_PREFIX, Beats, Conclusion, HeartbeatEvent
from app.ingest.health.judgment import UNREFRESHED_AFTER, Counts, Observations, Tallies, counts
from app.ingest.health.reconcile.compare import Episode, OpenAlert, to_the_millisecond
from app.ingest.health.reconcile.store import peers_of

SAMPLE_EVERY = timedelta(minutes=5)
_SAMPLES_KEPT = timedelta(hours=26)  # more than the longest reported span
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def only_one(session: AsyncSession, work: str) -> bool:
    """Whether this transaction has the exclusive right to do `work`. If not, try again later."""
    tx = await session.connection()
    return bool((await tx.execute(_TRY_LOCK, {"work": f"aftermath.{work}"})).scalar_one())


_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext(:work))")


# — samples —


async def sample(session: AsyncSession, *, now: datetime) -> bool:
    """Stores the tallies and open alerts of all sources, unless the last sample is recent enough."""
    latest = (await session.exec(select(func.max(FeedSample.at)))).one()
    if latest is not None and latest > now - SAMPLE_EVERY:
        return False
    tx = await session.connection()
    await tx.execute(_SAMPLE, {"now": now, "seen_before": now - UNREFRESHED_AFTER})
    await session.exec(delete(FeedSample).where(col(FeedSample.at) < now - _SAMPLES_KEPT))
    return True


# Starts from open incidents, which are few and indexed. An index on open alerts would slow down every alert.
_OPEN_COUNTS = """
    SELECT alert.source_id, count(*) AS open_alerts, min(alert.started_at) AS oldest_open_at,
           count(*) FILTER (WHERE alert.last_seen_at < :seen_before) AS unrefreshed
      FROM incident
      JOIN alert
        ON alert.key_id = incident.key_id
       AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
       AND alert.incident_id = incident.id
     WHERE incident.ended_at IS NULL
       AND incident.merged_into IS NULL
       AND alert.ended_at IS NULL
     GROUP BY alert.source_id
"""

_SAMPLE = text(f"""
    WITH open AS ({_OPEN_COUNTS})
    INSERT INTO feed_sample (source_id, at, tallies, open_alerts, oldest_open_at, unrefreshed)
    SELECT source.id, :now,
           coalesce((SELECT jsonb_agg(jsonb_build_array(name, label, value))
                       FROM (SELECT name, label, sum(value) AS value
                               FROM tally
                              WHERE tally.source = source.name
                              GROUP BY name, label) AS counted), '[]'),
           coalesce(open.open_alerts, 0), open.oldest_open_at, coalesce(open.unrefreshed, 0)
      FROM source
      LEFT JOIN open ON open.source_id = source.id
     WHERE source.kind <> 'person'
""")  # noqa: S608  a constant of this file


# — heartbeats —


class HeartbeatChanged(Conflict):
    title = "The heartbeat has changed"


class HeartbeatNotFound(NotFound):
    title = "Heartbeat not found"


async def listening_since(session: AsyncSession, *, now: datetime, away: timedelta) -> datetime:
    """Start of the time in which deliveries could be received; `now` if the last check is older than `away`."""
    tx = await session.connection()
    since: datetime = (await tx.execute(_LISTEN, {"now": now, "away_before": now - away})).scalar_one()
    return since


_LISTEN = text("""
    INSERT INTO feed_watch (round_at, listening_since)
    VALUES (:now, :now)
        ON CONFLICT (single)
        DO UPDATE SET round_at = greatest(feed_watch.round_at, excluded.round_at),
                      listening_since = CASE WHEN feed_watch.round_at < :away_before THEN excluded.listening_since
                                             ELSE feed_watch.listening_since END
    RETURNING listening_since
""")


async def heartbeats(session: AsyncSession, source_id: int | None = None) -> list[Beats]:
    """Heartbeats of all sources or of one, longest silence first."""
    query = (
        select(Heartbeat, Source.name, Rule.heartbeat_seconds)
        .join(Source, col(Source.id) == Heartbeat.source_id)
        .outerjoin(Rule, col(Rule.name) == Heartbeat.rule)
        .order_by(col(Heartbeat.last_at), col(Heartbeat.fingerprint))
        .execution_options(populate_existing=True)
    )
    if source_id is not None:
        query = query.where(Heartbeat.source_id == source_id)
    return [
        Beats(**row.model_dump(), source=source, timeout=None if seconds is None else timedelta(seconds=seconds))
        for row, source, seconds in await session.exec(query)
    ]


async def heartbeat_of(session: AsyncSession, source: Source, fingerprint: str) -> Beats:
    """Raises HeartbeatNotFound."""
    for beats in await heartbeats(session, source.id):
        if beats.fingerprint == fingerprint:
            return beats
    message = f"the source {source.name!r} has no heartbeat {fingerprint!r}; the health of the source lists them"
    raise HeartbeatNotFound(message)


async def record(session: AsyncSession, beats: Beats, conclusion: Conclusion) -> None:
    """Records the new state of a heartbeat. Raises HeartbeatChanged if it has changed since it was read."""
    as_read = (
        col(Heartbeat.source_id) == beats.source_id,
        col(Heartbeat.fingerprint) == beats.fingerprint,
        col(Heartbeat.rule) == beats.rule,
        col(Heartbeat.last_at) == beats.last_at,
        col(Heartbeat.missing_since).is_not_distinct_from(beats.missing_since),
        col(Heartbeat.returned_at).is_not_distinct_from(beats.returned_at),
    )
    if conclusion.event is HeartbeatEvent.FORGOTTEN:
        changed = await session.exec(delete(Heartbeat).where(*as_read), execution_options=_ROWS_AS_THEY_ARE)
    else:
        changed = await session.exec(
            update(Heartbeat).where(*as_read).values(missing_since=conclusion.missing_since, returned_at=None),
            execution_options=_ROWS_AS_THEY_ARE,
        )
    if changed.rowcount != 1:
        raise HeartbeatChanged("the heartbeat changed in the meantime; get the health of the source again and retry")


_ROWS_AS_THEY_ARE = {"synchronize_session": False}  # do not reload rows


# — open alerts —

STALE_AT_ONCE = 500  # maximum number of alerts ended by one check


async def stale(session: AsyncSession, *, listening_since: datetime, now: datetime) -> list[OpenAlert]:
    """Open alerts not resent for longer than the `stale_seconds` of their source, while the service was up."""
    tx = await session.connection()
    values = {"listening_since": listening_since, "now": now, "at_most": STALE_AT_ONCE}
    return [_Open(*row).as_fact() for row in await tx.execute(_STALE, values)]


async def open_alerts_of(session: AsyncSession, source_id: int) -> list[OpenAlert]:
    tx = await session.connection()
    return [_Open(*row).as_fact() for row in await tx.execute(_OPEN_OF, {"source_id": source_id})]


class _Open(NamedTuple):
    source_id: int
    source: str
    fingerprint: str
    started_at: datetime
    last_seen_at: datetime
    labels: Mapping[str, str]
    alert_class: str

    def as_fact(self) -> OpenAlert:
        return OpenAlert(*self[:-1], AlertClass(self.alert_class))


# Alerts opened by the service itself are excluded: no sender resends them.
_OPEN = f"""
    SELECT alert.source_id, source.name AS source, alert.fingerprint, alert.started_at, alert.last_seen_at,
           alert.labels, alert.alert_class
      FROM source
      JOIN incident
        ON source.id = ANY(incident.source_ids)
      JOIN alert
        ON alert.key_id = incident.key_id
       AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
       AND alert.incident_id = incident.id
       AND alert.source_id = source.id
     WHERE incident.ended_at IS NULL
       AND incident.merged_into IS NULL
       AND alert.ended_at IS NULL
       AND NOT starts_with(alert.fingerprint, '{FINGERPRINT_PREFIX}')
"""  # noqa: S608  a constant

_STALE = text(f"""
    {_OPEN}
       AND source.stale_seconds IS NOT NULL
       AND greatest(alert.last_seen_at, :listening_since) < CAST(:now AS timestamptz)
                                                            - make_interval(secs => source.stale_seconds)
     ORDER BY alert.last_seen_at
     LIMIT :at_most
""")

_OPEN_OF = text(f"""
    {_OPEN}
       AND source.id = :source_id
""")


async def starts(session: AsyncSession, source_id: int, episodes: Sequence[Episode]) -> dict[Episode, datetime]:
    """The exact starts of the episodes that are stored as alerts."""
    tx = await session.connection()
    found = await tx.execute(
        _STARTS,
        {
            "series": [series_of(source_id, fingerprint) for fingerprint, _ in episodes],
            "since": [started_at for _, started_at in episodes],
        },
    )
    stored = (_Start(*row) for row in found)
    return {(one.fingerprint, to_the_millisecond(one.started_at)): one.started_at for one in stored}


class _Start(NamedTuple):
    fingerprint: str
    started_at: datetime


_STARTS = text("""
    SELECT alert.fingerprint, alert.started_at
      FROM unnest(CAST(:series AS uuid[]), CAST(:since AS timestamptz[])) AS wanted (series, since)
      JOIN alert
        ON alert.series = wanted.series
       AND alert.started_at >= wanted.since
       AND alert.started_at < wanted.since + interval '1 millisecond'
""")


# — one source —


@dataclass(frozen=True, slots=True)
class SourceReading:
    """A source at one moment. `last_hour` and `last_day` are None until a sample of that age exists."""

    observed: Observations
    last_hour: Counts | None
    last_day: Counts | None
    since_created: Counts
    oldest_open_at: datetime | None
    heartbeats: Sequence[Beats]
    peers: Sequence[Peer]


async def read(session: AsyncSession, source: Source, *, now: datetime) -> SourceReading:
    tallies = await _tallies_of(session, source.name)
    last_hour, last_day = [await _counts_since(session, source, tallies, now - span, now) for span in (HOUR, DAY)]
    since_created = counts(tallies, {}, seconds=(now - source.created_at).total_seconds())
    tx = await session.connection()
    row = (await tx.execute(_OPEN_COUNTS_OF, {"source_id": source.id, "seen_before": now - UNREFRESHED_AFTER})).first()
    opened = _OpenCounts(*row) if row else _OpenCounts(0, None, 0)
    beats, peers = await heartbeats(session, source.id), await peers_of(session, source.id)
    return SourceReading(
        observed=Observations(
            last_delivery_at=_last_delivery_at(tallies),
            recent=last_day or since_created,
            open_alerts=opened.open_alerts,
            unrefreshed=opened.unrefreshed,
            quarantined=await _quarantined(session, source.id),
            missing=[one for one in beats if one.missing_since is not None and one.returned_at is None],
            peers=len(peers),
            silent_peers={peer.url: peer.error for peer in peers if peer.error},
        ),
        last_hour=last_hour,
        last_day=last_day,
        since_created=since_created,
        oldest_open_at=opened.oldest_open_at,
        heartbeats=beats,
        peers=peers,
    )


def _last_delivery_at(tallies: Tallies) -> datetime | None:
    latest = next((value for (name, _), value in tallies.items() if name == "last_delivery"), None)
    return None if latest is None else datetime.fromtimestamp(latest, UTC)


async def _tallies_of(session: AsyncSession, source: str) -> Tallies:
    value = case((col(Tally.name) == "last_delivery", func.max(Tally.value)), else_=func.sum(Tally.value))
    query = select(Tally.name, Tally.label, value).where(Tally.source == source).group_by(Tally.name, Tally.label)
    return {(name, label): value for name, label, value in await session.exec(query)}


async def _counts_since(
    session: AsyncSession, source: Source, tallies: Tallies, since: datetime, now: datetime
) -> Counts | None:
    """Counts since the latest sample before `since`."""
    query = (
        select(FeedSample)
        .where(FeedSample.source_id == source.id, FeedSample.at <= since)
        .order_by(col(FeedSample.at).desc())
        .limit(1)
    )
    found = (await session.exec(query)).first()
    if found is None:
        return None
    then = {(name, label): value for name, label, value in found.tallies}
    return counts(tallies, then, seconds=(now - found.at).total_seconds())


async def _quarantined(session: AsyncSession, source_id: int) -> dict[str, int]:
    """Number of items waiting to be replayed, by reason."""
    query = (
        select(Quarantine.reason, func.count())
        .where(Quarantine.source_id == source_id, col(Quarantine.replayed_at).is_(None))
        .group_by(Quarantine.reason)
    )
    return dict((await session.exec(query)).all())


class _OpenCounts(NamedTuple):
    open_alerts: int
    oldest_open_at: datetime | None
    unrefreshed: int


_OPEN_COUNTS_OF = text(f"""
    SELECT open_alerts, oldest_open_at, unrefreshed
      FROM ({_OPEN_COUNTS}) AS open
     WHERE source_id = :source_id
""")  # noqa: S608  a constant of this file
