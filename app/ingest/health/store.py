"""SQL for the health of sources: samples of tallies, heartbeats, open alerts, quarantine."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import column, delete, func, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.access.tokens import list_sources
from app.base.errors import Conflict, NotFound
from app.base.schema import Heartbeat, Peer, Rule, Source, SourceSample
from app.incidents.grouping.signal import AlertClass
from app.ingest.health.heartbeat import FINGERPRINT_PREFIX, BeatSeries, HeartbeatEvent, HeartbeatTransition
from app.ingest.health.judgment import (
    OVERDUE_AFTER,
    UNREFRESHED_AFTER,
    Counts,
    Observations,
    Reactions,
    Tallies,
    counts,
)
from app.ingest.health.reconcile.compare import OpenAlert
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
    latest = (await session.exec(select(func.max(SourceSample.at)))).one()
    if latest is not None and latest > now - SAMPLE_EVERY:
        return False
    tx = await session.connection()
    await tx.execute(_SAMPLE, {"now": now, "seen_before": now - UNREFRESHED_AFTER})
    await session.exec(delete(SourceSample).where(col(SourceSample.at) < now - _SAMPLES_KEPT))
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


# The pause is kept: no one knows what happened meanwhile.
_LISTEN = text("""
    WITH gap AS (
        INSERT INTO watch_gap (begins_at, ends_at)
        SELECT round_at, :now
          FROM feed_watch
         WHERE round_at < :away_before
            ON CONFLICT DO NOTHING
    )
    INSERT INTO feed_watch (round_at, listening_since)
    VALUES (:now, :now)
        ON CONFLICT (single)
        DO UPDATE SET round_at = greatest(feed_watch.round_at, excluded.round_at),
                      listening_since = CASE WHEN feed_watch.round_at < :away_before THEN excluded.listening_since
                                             ELSE feed_watch.listening_since END
    RETURNING listening_since
""")


async def heartbeats(session: AsyncSession, source_id: int | None = None) -> list[BeatSeries]:
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
        BeatSeries(**row.model_dump(), source=source, timeout=None if seconds is None else timedelta(seconds=seconds))
        for row, source, seconds in await session.exec(query)
    ]


async def heartbeat_of(session: AsyncSession, source: Source, fingerprint: str) -> BeatSeries:
    """Raises HeartbeatNotFound."""
    for beats in await heartbeats(session, source.id):
        if beats.fingerprint == fingerprint:
            return beats
    message = f"the source {source.name!r} has no heartbeat {fingerprint!r}; the health of the source lists them"
    raise HeartbeatNotFound(message)


async def record(session: AsyncSession, beats: BeatSeries, transition: HeartbeatTransition) -> None:
    """Records the new state of a heartbeat. Raises HeartbeatChanged if it has changed since it was read."""
    as_read = (
        col(Heartbeat.source_id) == beats.source_id,
        col(Heartbeat.fingerprint) == beats.fingerprint,
        col(Heartbeat.rule) == beats.rule,
        col(Heartbeat.last_at) == beats.last_at,
        col(Heartbeat.missing_since).is_not_distinct_from(beats.missing_since),
        col(Heartbeat.returned_at).is_not_distinct_from(beats.returned_at),
    )
    if transition.event is HeartbeatEvent.FORGOTTEN:
        changed = await session.exec(delete(Heartbeat).where(*as_read), execution_options=_ROWS_AS_THEY_ARE)
    else:
        changed = await session.exec(
            update(Heartbeat).where(*as_read).values(missing_since=transition.missing_since, returned_at=None),
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
    found: list[OpenAlert] = []
    # In parts, so that a hundred thousand rows do not block the event loop.
    async with tx.stream(_OPEN_OF, {"source_id": source_id}) as rows:
        async for some in rows.partitions(_AT_ONCE):
            found += [_Open(*row).as_fact() for row in some]
    return found


_AT_ONCE = 500  # rows


class _Open(NamedTuple):
    source_id: int
    source: str
    fingerprint: str
    started_at: datetime
    last_seen_at: datetime
    labels: Mapping[str, str]
    alert_class: str
    expires_at: datetime | None

    def as_fact(self) -> OpenAlert:
        return OpenAlert(*self[:-2], AlertClass(self.alert_class), self.expires_at)


# Alerts opened by the service itself are excluded: no sender resends them.
_OPEN = f"""
    SELECT alert.source_id, source.name AS source, alert.fingerprint, alert.started_at, alert.last_seen_at,
           alert.labels, alert.alert_class, alert.expires_at
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

# After a time in which no delivery could arrive, each sender gets as long as it announced to repeat an alert, but no
# longer than this: no one repeats an alert less often. Prometheus repeats it four times as often as it announces.
_REPEATED_WITHIN = timedelta(hours=1)


async def expired(
    session: AsyncSession, *, listening_since: datetime, now: datetime, margin: timedelta
) -> list[OpenAlert]:
    """Open alerts that were not repeated before they expired, although the service could receive deliveries. `margin`:
    how much later than announced a report may still be stored.
    """
    tx = await session.connection()
    values = {
        "listening_since": listening_since,
        "due_before": now - margin,
        "at_most": STALE_AT_ONCE,
        "repeated_within": _REPEATED_WITHIN,
    }
    return [_Open(*row).as_fact() for row in await tx.execute(_EXPIRED, values)]


_EXPIRED = text(f"""
    {_OPEN}
       AND alert.expires_at < :due_before
       AND CAST(:listening_since AS timestamptz)
           + least(greatest(alert.expires_at - alert.last_seen_at, interval '0'), CAST(:repeated_within AS interval))
           < :due_before
     ORDER BY alert.expires_at
     LIMIT :at_most
""")

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


# — sources —


@dataclass(frozen=True, slots=True)
class SourceReading:
    """A source at one moment. `last_hour` and `last_day` are None until a sample of that age exists."""

    source: Source
    observed: Observations
    last_hour: Counts | None
    last_day: Counts | None
    since_created: Counts
    oldest_open_at: datetime | None
    heartbeats: Sequence[BeatSeries]
    peers: Sequence[Peer]


async def read(session: AsyncSession, source: Source, *, now: datetime, quarantine_quota: int) -> SourceReading:
    """Three statements."""
    [reading] = await _read(session, [source], now=now, quarantine_quota=quarantine_quota)
    return reading


async def read_all(session: AsyncSession, *, now: datetime, quarantine_quota: int) -> list[SourceReading]:
    """All sources of alerts and deployments, by name. Four statements, however many sources there are."""
    return await _read(session, await list_sources(session), now=now, quarantine_quota=quarantine_quota)


async def _read(
    session: AsyncSession, sources: Sequence[Source], *, now: datetime, quarantine_quota: int
) -> list[SourceReading]:
    tx = await session.connection()
    parameters = {
        "ids": [source.id for source in sources],
        "names": [source.name for source in sources],
        "seen_before": now - UNREFRESHED_AFTER,
        "hour_ago": now - HOUR,
        "day_ago": now - DAY,
        "overdue_before": now - OVERDUE_AFTER,
    }
    counted = {row[0]: _Counted(*row) for row in await tx.execute(_COUNTED, parameters)}
    of_one = sources[0].id if len(sources) == 1 else None
    beats: dict[int, list[BeatSeries]] = defaultdict(list)
    for each in await heartbeats(session, of_one):
        beats[each.source_id].append(each)
    peers: dict[int, list[Peer]] = defaultdict(list)
    for peer in await peers_of(session, [source.id for source in sources]):
        peers[peer.source_id].append(peer)
    return [
        _reading(source, counted[source.id], beats[source.id], peers[source.id], now, quarantine_quota)
        for source in sources
    ]


def _reading(
    source: Source, row: "_Counted", beats: Sequence[BeatSeries], peers: Sequence[Peer], now: datetime, quota: int
) -> SourceReading:
    tallies = _tallies(row.tallies)

    def since(at: datetime | None, then: "_StoredTallies | None") -> Counts | None:
        return None if at is None else counts(tallies, _tallies(then), seconds=(now - at).total_seconds())

    last_hour, last_day = since(row.hour_at, row.hour_tallies), since(row.day_at, row.day_tallies)
    since_created = counts(tallies, {}, seconds=(now - source.created_at).total_seconds())
    latest = tallies.get(("last_delivery", ""))
    return SourceReading(
        source=source,
        observed=Observations(
            last_delivery_at=None if latest is None else datetime.fromtimestamp(latest, UTC),
            recent=last_day or since_created,
            open_alerts=row.open_alerts,
            unrefreshed=row.unrefreshed,
            quarantined=row.waiting or {},
            quarantine_bytes=row.quarantine_bytes,
            quarantine_quota=quota,
            missing=[one for one in beats if one.missing_since is not None and one.returned_at is None],
            peers=len(peers),
            silent_peers={peer.url: peer.error for peer in peers if peer.error},
            reactions=Reactions(
                waiting=row.reactions_waiting,
                recent=row.reactions_recent,
                overdue=row.reactions_overdue,
                last_kind=row.last_reaction,
                last_at=row.last_reaction_at,
                last_by=row.last_reaction_by,
            ),
        ),
        last_hour=last_hour,
        last_day=last_day,
        since_created=since_created,
        oldest_open_at=row.oldest_open_at,
        heartbeats=beats,
        peers=peers,
    )


_StoredTallies = Sequence[tuple[str, str, float]]


def _tallies(stored: "_StoredTallies | None") -> Tallies:
    return {(name, label): float(value) for name, label, value in stored or ()}


class _Counted(NamedTuple):
    id: int
    tallies: _StoredTallies | None
    hour_at: datetime | None
    hour_tallies: _StoredTallies | None
    day_at: datetime | None
    day_tallies: _StoredTallies | None
    open_alerts: int
    oldest_open_at: datetime | None
    unrefreshed: int
    waiting: Mapping[str, int] | None
    quarantine_bytes: int
    reactions_waiting: int
    reactions_recent: int
    reactions_overdue: int
    last_reaction: str | None
    last_reaction_at: datetime | None
    last_reaction_by: str | None


# Counts since an hour or a day ago are differences to the latest sample before.
_COUNTED = text(f"""
    WITH open AS ({_OPEN_COUNTS}
    ), counted AS (
        SELECT source, jsonb_agg(jsonb_build_array(name, label, value)) AS tallies
          FROM (SELECT source, name, label, CASE name WHEN 'last_delivery' THEN max(value) ELSE sum(value) END AS value
                  FROM tally
                 WHERE source = ANY(CAST(:names AS text[]))
                 GROUP BY source, name, label) AS summed
         GROUP BY source
    ), waiting AS (
        SELECT source_id, jsonb_object_agg(reason, number) AS by_reason
          FROM (SELECT source_id, reason, count(*) AS number
                  FROM quarantine
                 WHERE source_id = ANY(CAST(:ids AS integer[]))
                   AND replayed_at IS NULL
                 GROUP BY source_id, reason) AS grouped
         GROUP BY source_id
    ), used AS (
        SELECT source_id, sum(stored_bytes) AS bytes
          FROM stored_request
         WHERE source_id = ANY(CAST(:ids AS integer[]))
         GROUP BY source_id
    ), reacted AS (
        SELECT source_id, count(*) FILTER (WHERE waits) AS waiting,
               count(*) FILTER (WHERE received_at > :day_ago) AS recent,
               count(*) FILTER (WHERE waits AND received_at > :day_ago AND received_at < :overdue_before) AS overdue,
               (array_agg(kind ORDER BY at DESC, id DESC))[1] AS last_kind, max(at) AS last_at,
               (array_agg(by ORDER BY at DESC, id DESC))[1] AS last_by
          FROM reaction
         WHERE source_id = ANY(CAST(:ids AS integer[]))
         GROUP BY source_id
    )
    SELECT source.id, counted.tallies,
           hour.at AS hour_at, hour.tallies AS hour_tallies, day.at AS day_at, day.tallies AS day_tallies,
           coalesce(open.open_alerts, 0) AS open_alerts, open.oldest_open_at,
           coalesce(open.unrefreshed, 0) AS unrefreshed,
           waiting.by_reason, CAST(coalesce(used.bytes, 0) AS bigint) AS bytes,
           coalesce(reacted.waiting, 0) AS reactions_waiting, coalesce(reacted.recent, 0) AS reactions_recent,
           coalesce(reacted.overdue, 0) AS reactions_overdue, reacted.last_kind AS last_reaction,
           reacted.last_at AS last_reaction_at, reacted.last_by AS last_reaction_by
      FROM source
      LEFT JOIN counted ON counted.source = source.name
      LEFT JOIN open ON open.source_id = source.id
      LEFT JOIN waiting ON waiting.source_id = source.id
      LEFT JOIN used ON used.source_id = source.id
      LEFT JOIN reacted ON reacted.source_id = source.id
      LEFT JOIN LATERAL (
           SELECT at, tallies
             FROM feed_sample
            WHERE source_id = source.id
              AND at <= :hour_ago
            ORDER BY at DESC
            LIMIT 1
           ) AS hour ON true
      LEFT JOIN LATERAL (
           SELECT at, tallies
             FROM feed_sample
            WHERE source_id = source.id
              AND at <= :day_ago
            ORDER BY at DESC
            LIMIT 1
           ) AS day ON true
     WHERE source.id = ANY(CAST(:ids AS integer[]))
""").columns(  # noqa: S608  a constant of this file
    column("id"),
    column("tallies", JSONB),
    column("hour_at"),
    column("hour_tallies", JSONB),
    column("day_at"),
    column("day_tallies", JSONB),
    column("open_alerts"),
    column("oldest_open_at"),
    column("unrefreshed"),
    column("by_reason", JSONB),
    column("bytes"),
    column("reactions_waiting"),
    column("reactions_recent"),
    column("reactions_overdue"),
    column("last_reaction"),
    column("last_reaction_at"),
    column("last_reaction_by"),
)
