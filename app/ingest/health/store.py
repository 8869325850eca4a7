"""What is known of each source, in SQL: readings of its tallies, its open alerts, what waits in quarantine."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import delete, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.errors import NotFound
from app.base.schema import peer, reconciler, source
from app.base.tokens import SourceRow
from app.incidents.grouping.decide import series_of
from app.incidents.grouping.signal import AlertClass
from app.ingest.health.heartbeat import FINGERPRINT_PREFIX, Change, Found, Heartbeat
from app.ingest.health.judgment import UNREFRESHED_AFTER, Seen, Tallies, counts
from app.ingest.health.reconcile import Answer, OpenAlert, Place, Settings, to_the_millisecond

SAMPLED_EVERY = timedelta(minutes=5)
_SAMPLES_KEPT = timedelta(hours=26)  # more than the longest stretch that is asked for
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def only_one(tx: AsyncConnection, what: str) -> bool:
    """Whether this transaction alone does `what` now; the others try again later."""
    return bool((await tx.execute(_TRY_LOCK, {"what": f"aftermath.{what}"})).scalar_one())


_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext(:what))")


# — samples —


async def sample(tx: AsyncConnection, *, now: datetime) -> bool:
    """Writes down the tallies and the open alerts of all sources, if the last time is long enough ago."""
    latest = (await tx.execute(text("SELECT max(at) FROM feed_sample"))).scalar_one()
    if latest is not None and latest > now - SAMPLED_EVERY:
        return False
    await tx.execute(_SAMPLE, {"now": now, "seen_before": now - UNREFRESHED_AFTER})
    await tx.execute(text("DELETE FROM feed_sample WHERE at < :before"), {"before": now - _SAMPLES_KEPT})
    return True


# By way of open incidents, which are few and have an index: an index on the alerts themselves would cost every alert.
_OPEN_ALERTS = """
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
    WITH open AS ({_OPEN_ALERTS})
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


class Changed(Exception):
    """A heartbeat is no longer as it was read. Roll back, and look again later."""


class HeartbeatNotFound(NotFound):
    title = "No such heartbeat"


async def listening_since(tx: AsyncConnection, *, now: datetime, away: timedelta) -> datetime:
    """Since when somebody has been there for deliveries to reach; from now on, if the last round was too long ago."""
    since: datetime = (await tx.execute(_LISTEN, {"now": now, "away_before": now - away})).scalar_one()
    return since


async def heartbeats(tx: AsyncConnection, source_id: int | None = None) -> list[Heartbeat]:
    """All, or those of one source; the silent ones first."""
    return [
        Heartbeat(
            source_id=row.source_id,
            source=row.source,
            fingerprint=row.fingerprint,
            rule=row.rule,
            labels=row.labels,
            first_at=row.first_at,
            last_at=row.last_at,
            timeout=None if row.heartbeat_seconds is None else timedelta(seconds=row.heartbeat_seconds),
            missing_since=row.missing_since,
            returned_at=row.returned_at,
        )
        for row in await tx.execute(_HEARTBEATS, {"source_id": source_id})
    ]


async def heartbeat_of(tx: AsyncConnection, source: SourceRow, fingerprint: str) -> Heartbeat:
    """Raises HeartbeatNotFound."""
    for beat in await heartbeats(tx, source.id):
        if beat.fingerprint == fingerprint:
            return beat
    message = f"the source {source.name!r} has no heartbeat {fingerprint!r}; its health lists them"
    raise HeartbeatNotFound(message)


async def note(tx: AsyncConnection, beat: Heartbeat, found: Found) -> None:
    """Writes down what has become of a heartbeat. Raises Changed if it is not as it was read."""
    statement = _FORGET if found.change is Change.FORGOTTEN else _NOTE
    since = found.signal.started_at if found.change is Change.MISSING and found.signal else None
    values = {
        "source_id": beat.source_id,
        "fingerprint": beat.fingerprint,
        "rule": beat.rule,
        "last_at": beat.last_at,
        "was_missing_since": beat.missing_since,
        "was_returned_at": beat.returned_at,
        "missing_since": since,
    }
    changed = await tx.execute(statement, values)
    if changed.rowcount != 1:
        raise Changed


_LISTEN = text("""
    INSERT INTO feed_watch (round_at, listening_since)
    VALUES (:now, :now)
        ON CONFLICT (single)
        DO UPDATE SET round_at = greatest(feed_watch.round_at, excluded.round_at),
                      listening_since = CASE WHEN feed_watch.round_at < :away_before THEN excluded.listening_since
                                             ELSE feed_watch.listening_since END
    RETURNING listening_since
""")

_HEARTBEATS = text("""
    SELECT heartbeat.*, source.name AS source, rule.heartbeat_seconds
      FROM heartbeat
      JOIN source ON source.id = heartbeat.source_id
      LEFT JOIN rule ON rule.name = heartbeat.rule
     WHERE CAST(:source_id AS integer) IS NULL
        OR heartbeat.source_id = :source_id
     ORDER BY heartbeat.last_at, heartbeat.fingerprint
""")

_AS_READ = """
     WHERE source_id = :source_id
       AND fingerprint = :fingerprint
       AND rule = :rule
       AND last_at = :last_at
       AND missing_since IS NOT DISTINCT FROM :was_missing_since
       AND returned_at IS NOT DISTINCT FROM :was_returned_at
"""

_NOTE = text(f"""
    UPDATE heartbeat
       SET missing_since = :missing_since,
           returned_at = NULL
    {_AS_READ}
""")  # noqa: S608  a constant of this file

_FORGET = text(f"""
    DELETE FROM heartbeat
    {_AS_READ}
""")  # noqa: S608  a constant of this file


# — what is no longer told of —

STALE_AT_ONCE = 500  # alerts that one round ends at most


async def stale(tx: AsyncConnection, *, listening_since: datetime, now: datetime) -> list[OpenAlert]:
    """Open alerts that their source has not told of for longer than it may, while somebody was there to be told."""
    found = await tx.execute(_STALE, {"listening_since": listening_since, "now": now, "at_most": STALE_AT_ONCE})
    return [_open_alert(row) for row in found]


def _open_alert(row: Any) -> OpenAlert:
    return OpenAlert(
        source_id=row.source_id,
        source=row.source,
        fingerprint=row.fingerprint,
        started_at=row.started_at,
        last_seen_at=row.last_seen_at,
        labels=row.labels,
        alert_class=AlertClass(row.alert_class),
    )


# What the service itself tells of a source, its sender never does.
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


# — reconciling —


@dataclass(frozen=True, slots=True)
class Reconciler:
    source_id: int
    source: str
    peers: Sequence[str]
    poll: timedelta
    settings: Settings
    username: str | None
    secret: str | None = field(repr=False)
    began_at: datetime | None = None  # of the latest poll: whoever set it polls
    counted_at: Sequence[datetime] = ()  # of the latest polls that count, as many as it takes


@dataclass(frozen=True, slots=True)
class Peer:
    """What it said last; `error` if it did not the last time."""

    url: str
    polled_at: datetime
    answered_at: datetime | None
    error: str | None
    version: str | None
    cluster: str | None
    up_since: datetime | None
    alerts: int | None
    suppressed: int | None
    silences: int | None


class NotReconciled(NotFound):
    title = "The source is not reconciled"


async def put_reconciler(tx: AsyncConnection, stated: Reconciler) -> None:
    """A poll that is under way comes to nothing, and those before it no longer count: others may have been asked."""
    values = {
        "peers": list(stated.peers),
        "poll_seconds": int(stated.poll.total_seconds()),
        "absences": stated.settings.absences,
        "grace_seconds": int(stated.settings.grace.total_seconds()),
        "receiver": stated.settings.receiver,
        "username": stated.username,
        "secret": stated.secret,
        "began_at": None,
        "counted_at": [],
    }
    query = upsert(reconciler).values(source_id=stated.source_id, **values)
    await tx.execute(query.on_conflict_do_update(index_elements=["source_id"], set_=values))
    await tx.execute(delete(peer).where(peer.c.source_id == stated.source_id, peer.c.url.not_in(list(stated.peers))))


async def reconciler_of(tx: AsyncConnection, source: SourceRow) -> Reconciler:
    """Raises NotReconciled."""
    for found in await _reconcilers(tx, [source.id]):
        return found
    message = f"the source {source.name!r} is not reconciled; PUT /api/v1/sources/{{name}}/reconciler says where to ask"
    raise NotReconciled(message)


async def delete_reconciler(tx: AsyncConnection, source: SourceRow) -> None:
    """Raises NotReconciled."""
    await reconciler_of(tx, source)
    await tx.execute(delete(reconciler).where(reconciler.c.source_id == source.id))


async def claim_polls(tx: AsyncConnection, *, now: datetime) -> list[Reconciler]:
    """Those that are due: who gets one polls it, and nobody else until it is due again."""
    claimed = await tx.execute(_CLAIM, {"now": now})
    return await _reconcilers(tx, [row.source_id for row in claimed])


async def is_claimed(tx: AsyncConnection, one: Reconciler) -> bool:
    """Whether it still is as it was claimed; if so, nobody else changes it until the end of the transaction."""
    query = select(reconciler.c.source_id).where(
        reconciler.c.source_id == one.source_id, reconciler.c.began_at == one.began_at
    )
    return (await tx.execute(query.with_for_update())).one_or_none() is not None


async def open_alerts_of(tx: AsyncConnection, source_id: int) -> list[OpenAlert]:
    return [_open_alert(row) for row in await tx.execute(_OPEN_OF, {"source_id": source_id})]


async def starts(tx: AsyncConnection, source_id: int, places: Iterable[Place]) -> dict[Place, datetime]:
    """Of these places those that alerts are known of, and their whole starts."""
    wanted = sorted(set(places))
    found = await tx.execute(
        _STARTS,
        {
            "series": [series_of(source_id, fingerprint) for fingerprint, _ in wanted],
            "since": [started_at for _, started_at in wanted],
        },
    )
    return {(row.fingerprint, to_the_millisecond(row.started_at)): row.started_at for row in found}


async def note_poll(
    tx: AsyncConnection,
    one: Reconciler,
    answers: Sequence[Answer],
    errors: Mapping[str, str],
    counted: Sequence[datetime],
) -> None:
    """What the peers said, and which polls count. It is claimed."""
    latest = list(counted)[-one.settings.absences :]
    await tx.execute(update(reconciler).where(reconciler.c.source_id == one.source_id).values(counted_at=latest))
    said: list[dict[str, Any]] = [
        {
            "url": answer.url,
            "answered_at": one.began_at,
            "error": None,
            "version": answer.version,
            "cluster": answer.cluster,
            "up_since": answer.up_since,
            "alerts": len(answer.listed),
            "suppressed": sum(not listed.active for listed in answer.listed),
            "silences": answer.silences,
        }
        for answer in answers
    ]
    for values in [*said, *({"url": url, "error": error} for url, error in errors.items())]:
        told = values | {"polled_at": one.began_at}
        query = upsert(peer).values(source_id=one.source_id, **told)
        await tx.execute(query.on_conflict_do_update(index_elements=["source_id", "url"], set_=told))


async def peers_of(tx: AsyncConnection, source_id: int) -> list[Peer]:
    rows = await tx.execute(select(peer).where(peer.c.source_id == source_id).order_by(peer.c.url))
    return [Peer(**{name: value for name, value in row._mapping.items() if name != "source_id"}) for row in rows]


async def _reconcilers(tx: AsyncConnection, source_ids: Sequence[int]) -> list[Reconciler]:
    query = (
        select(reconciler, source.c.name)
        .join_from(reconciler, source, source.c.id == reconciler.c.source_id)
        .where(reconciler.c.source_id.in_(source_ids))
        .order_by(reconciler.c.source_id)
    )
    return [
        Reconciler(
            source_id=row.source_id,
            source=row.name,
            peers=row.peers,
            poll=timedelta(seconds=row.poll_seconds),
            settings=Settings(row.absences, timedelta(seconds=row.grace_seconds), row.receiver),
            username=row.username,
            secret=row.secret,
            began_at=row.began_at,
            counted_at=row.counted_at,
        )
        for row in await tx.execute(query)
    ]


_CLAIM = text("""
    UPDATE reconciler
       SET began_at = :now
     WHERE began_at IS NULL
        OR began_at <= CAST(:now AS timestamptz) - make_interval(secs => poll_seconds)
    RETURNING source_id
""")

_OPEN_OF = text(f"""
    {_OPEN}
       AND source.id = :source_id
""")

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
class Known:
    """A source as it is now, and its tallies then and now."""

    now: Tallies
    samples: Mapping[timedelta, tuple[float, Tallies]]  # for the last hour and day: how many seconds ago, and what
    seen: Seen
    oldest_open_at: datetime | None
    heartbeats: Sequence[Heartbeat]
    peers: Sequence[Peer]


async def known(tx: AsyncConnection, source: SourceRow, *, now: datetime) -> Known:
    tallies = {
        (row.name, row.label): float(row.value) for row in await tx.execute(_TALLIES_OF, {"source": source.name})
    }
    samples = {}
    for length in (HOUR, DAY):
        found = (await tx.execute(_SAMPLE_BEFORE, {"source_id": source.id, "at": now - length})).one_or_none()
        if found is not None:
            samples[length] = ((now - found.at).total_seconds(), _tallies(found.tallies))
    opened = (
        await tx.execute(_OPEN_ALERTS_OF, {"source_id": source.id, "seen_before": now - UNREFRESHED_AFTER})
    ).one_or_none()
    beats = await heartbeats(tx, source.id)
    peers = await peers_of(tx, source.id)
    waiting: dict[str, int] = defaultdict(int)
    for row in await tx.execute(_WAITING_OF, {"source_id": source.id}):
        waiting[row.reason] = row.waiting
    last = next((value for (name, _), value in tallies.items() if name == "last_delivery"), None)
    # Without a sample a day old there is less than a day to speak of.
    seconds, then = samples.get(DAY, ((now - source.created_at).total_seconds(), {}))
    return Known(
        now=tallies,
        samples=samples,
        seen=Seen(
            last_delivery_at=None if last is None else datetime.fromtimestamp(last, tz=now.tzinfo),
            recent=counts(tallies, then, seconds=seconds),
            open_alerts=opened.open_alerts if opened else 0,
            unrefreshed=opened.unrefreshed if opened else 0,
            waiting=waiting,
            peers=len(peers),
            peers_silent={peer.url: peer.error for peer in peers if peer.error},
            missing=[beat for beat in beats if beat.missing_since is not None and beat.returned_at is None],
        ),
        oldest_open_at=opened.oldest_open_at if opened else None,
        heartbeats=beats,
        peers=peers,
    )


def _tallies(stored: Any) -> Tallies:
    return {(name, label): value for name, label, value in msgspec.convert(stored, list[tuple[str, str, float]])}


_TALLIES_OF = text("""
    SELECT name, label, CASE WHEN name = 'last_delivery' THEN max(value) ELSE sum(value) END AS value
      FROM tally
     WHERE source = :source
     GROUP BY name, label
""")

_SAMPLE_BEFORE = text("""
    SELECT at, tallies
      FROM feed_sample
     WHERE source_id = :source_id
       AND at <= :at
     ORDER BY at DESC
     LIMIT 1
""")

_OPEN_ALERTS_OF = text(f"""
    SELECT *
      FROM ({_OPEN_ALERTS}) AS open
     WHERE source_id = :source_id
""")  # noqa: S608  a constant of this file

_WAITING_OF = text("""
    SELECT reason, count(*) AS waiting
      FROM quarantine
     WHERE source_id = :source_id
       AND replayed_at IS NULL
     GROUP BY reason
""")
