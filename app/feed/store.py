"""What is known of each source, in SQL: readings of its tallies, its open alerts, what waits in quarantine."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.access import SourceRow
from app.errors import NotFound
from app.feed.health import UNREFRESHED_AFTER, Seen, Tallies, counts
from app.feed.heartbeat import FINGERPRINT_PREFIX, Change, Found, Heartbeat
from app.incidents.signal import AlertClass, EndReason, Signal, Status

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


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that has not ended, as it was told."""

    source_id: int
    source: str
    fingerprint: str
    started_at: datetime
    last_seen_at: datetime
    labels: Mapping[str, str]
    alert_class: AlertClass

    def ended(self, at: datetime, reason: EndReason) -> Signal:
        """Inferred: nobody has told of it after `at`."""
        return Signal(
            fingerprint=self.fingerprint,
            status=Status.RESOLVED,
            started_at=self.started_at,
            ended_at=max(at, self.started_at),
            labels=self.labels,
            end_reason=reason,
            alert_class=self.alert_class,
        )


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


# — one source —


@dataclass(frozen=True, slots=True)
class Known:
    """A source as it is now, and its tallies then and now."""

    now: Tallies
    samples: Mapping[timedelta, tuple[float, Tallies]]  # for the last hour and day: how many seconds ago, and what
    seen: Seen
    oldest_open_at: datetime | None
    heartbeats: Sequence[Heartbeat]


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
            missing=[beat for beat in beats if beat.missing_since is not None and beat.returned_at is None],
        ),
        oldest_open_at=opened.oldest_open_at if opened else None,
        heartbeats=beats,
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
