"""Signals in, incidents out: a batch of many deliveries in one transaction.

The number of statements does not grow with the number of signals, and the way is always the same:

    lock the keys     in sorted order, so that batches of other processes on the same keys wait instead of deadlocking
    read the series   of every signal: the alerts around it; the law of the series gives each alert its end
    place by key      new and newly ended alerts, by the newest incident of their key alone where that is enough,
                      else by the whole chain of incidents and alerts around them
    write             what has changed

The decisions are in `batch.py`, pure. What people say (`people.py`) changes alerts too, and goes the same way from
`place` on.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.incidents.batch import (
    AlertRow,
    Batch,
    IncidentRow,
    Incoming,
    Outcome,
    by_law,
    by_short_cut,
    derive,
    fold,
    note_still_firing,
    outcome_of,
    reach,
    series_of,
)
from app.incidents.lifecycle import Course
from app.incidents.signal import End, EndReason


class Raced(Exception):
    """Another process changed what this batch rests on in a way its locks did not cover. Roll back, and try again
    with `keys` locked as well.
    """

    def __init__(self, keys: frozenset[UUID] = frozenset()) -> None:
        super().__init__("raced")
        self.keys = keys


async def apply(
    tx: AsyncConnection, incoming: Sequence[Incoming], *, now: datetime, also_lock: Iterable[UUID] = ()
) -> list[Outcome]:
    """What each signal did, in the order given. Raises Raced."""
    wanted = [index for index, one in enumerate(incoming) if not one.signal.test]
    batch = Batch(now)
    keys = {incoming[index].decision.key_id for index in wanted} | set(also_lock)
    if wanted:
        await lock_keys(tx, keys)
        await _read_and_fold(tx, batch, incoming, wanted)
        changed = [row for row in batch.rows.values() if row.new or row.before is not None]
        # Of a rule that has changed the alert keeps the key; also a mere repeat writes the row.
        if strangers := {row.key_id for row in batch.rows.values() if row.dirty} - keys:
            raise Raced(frozenset(strangers))
        await place(tx, batch, changed)
        await _read_shown_incidents(tx, batch)
        note_still_firing(batch)
        await write(tx, batch)
    return [outcome_of(batch, index) for index in range(len(incoming))]


# — locks —

_LOCK_CLASS = 0x616D  # of our advisory locks, "am"
_LOCK_BUCKETS = 4096


async def lock_keys(tx: AsyncConnection, keys: Iterable[UUID]) -> None:
    """Until the end of the transaction nobody else changes alerts or incidents of these keys.

    Advisory locks, because the first delivery of a key finds no row to lock; in buckets, because PostgreSQL's lock
    table is bounded; in sorted order, because everybody takes them so.
    """
    buckets = sorted({key.int % _LOCK_BUCKETS for key in keys})
    await tx.execute(_LOCK, {"class": _LOCK_CLASS, "buckets": buckets})


# The same lock in SQL, on rows of `incident`, where waiting is not wanted: a bucket is the last 12 bits of the key.
TRY_LOCK_KEY = f"pg_try_advisory_xact_lock({_LOCK_CLASS}, ('x' || right(incident.key_id::text, 3))::bit(12)::integer)"

_LOCK = text("SELECT pg_advisory_xact_lock(:class, bucket) FROM unnest(CAST(:buckets AS integer[])) AS bucket")


# — the series of the signals —


async def _read_and_fold(
    tx: AsyncConnection, batch: Batch, incoming: Sequence[Incoming], wanted: Sequence[int]
) -> None:
    """Finds or makes the alert of every signal, and gives each alert of those series its end."""
    by_series: dict[UUID, list[int]] = defaultdict(list)
    first_at: dict[UUID, datetime] = {}
    for index in wanted:
        one = incoming[index]
        series = series_of(one.source_id, one.signal.fingerprint)
        by_series[series].append(index)
        at = one.signal.started_at or one.signal.ended_at or one.received_at
        first_at[series] = min(first_at.get(series, at), at)
    wanted_series = {"series": list(first_at), "first_at": list(first_at.values())}

    rows: dict[UUID, list[AlertRow]] = defaultdict(list)
    for found in await tx.execute(_SERIES, wanted_series):
        row = _alert_row(found)
        rows[row.series].append(row)
        batch.rows[row.series, row.started_at] = row
    loose: dict[UUID, list[End]] = defaultdict(list)
    for series, ended_at, reason in await tx.execute(_LOOSE_ENDS, wanted_series):
        loose[series].append(End(ended_at, EndReason(reason)))
    for series, indices in by_series.items():
        fold(batch, series, rows[series], loose[series], incoming, indices)


# — the incidents of their keys —


async def place(tx: AsyncConnection, batch: Batch, changed: Sequence[AlertRow], *, whole_chains: bool = False) -> None:
    """Gives every new or changed alert its incident. Keys are locked. `whole_chains`: no short cuts."""
    if not changed:
        return
    by_key: dict[UUID, list[AlertRow]] = defaultdict(list)
    for row in changed:
        by_key[row.key_id].append(row)
    unclear: list[UUID] = list(by_key) if whole_chains else []
    if not whole_chains:
        for found in await tx.execute(_NEWEST, {"keys": list(by_key)}):
            incident = _incident_row(found)
            batch.incidents[incident.id] = batch.newest[incident.key_id] = incident
        unclear = [key for key, rows in by_key.items() if not by_short_cut(batch, batch.newest.get(key), rows)]
    if unclear:
        await _place_by_law(tx, batch, {key: by_key[key] for key in unclear})


async def _place_by_law(tx: AsyncConnection, batch: Batch, by_key: Mapping[UUID, Sequence[AlertRow]]) -> None:
    since, until = [], []
    for rows in by_key.values():
        since.append(min(row.started_at for row in rows))
        reaches = [reach(row, end) for row in rows for end in (row.end, *(row.before or (row.end,)))]
        until.append(None if None in reaches else max(reach for reach in reaches if reach))
    known: dict[UUID, list[IncidentRow]] = defaultdict(list)
    for found in await tx.execute(_CHAINS, {"keys": list(by_key), "since": since, "until": until}):
        incident = _incident_row(found)
        batch.incidents[incident.id] = incident
        known[incident.key_id].append(incident)
    ids = [incident.id for incidents in known.values() for incident in incidents]
    alerts: dict[UUID, dict[tuple[UUID, datetime], AlertRow]] = defaultdict(dict)
    for found in await tx.execute(_ALERTS_OF, {"ids": ids}):
        row = _alert_row(found)
        row = batch.rows.setdefault((row.series, row.started_at), row)
        row.labels = found.labels if row.labels is None else row.labels
        alerts[row.key_id][row.series, row.started_at] = row
    for key, rows in by_key.items():
        for row in rows:
            alerts[key][row.series, row.started_at] = row
        by_law(batch, known[key], list(alerts[key].values()), rows)


# — what people change —


async def read_open_alerts(tx: AsyncConnection, batch: Batch, incident_id: UUID) -> list[AlertRow]:
    """The alerts of an incident that have not ended. Its key is locked."""
    return [row for row in await _read_alerts_of(tx, batch, incident_id) if row.end is None]


async def derive_without_manual_ends(tx: AsyncConnection, batch: Batch, incident_id: UUID) -> list[AlertRow]:
    """Takes back the ends that people gave the alerts of an incident; returns those whose end has changed by that."""
    ended_by_hand = [row for row in await _read_alerts_of(tx, batch, incident_id) if row.manual_end_at is not None]
    if not ended_by_hand:
        return []
    first_at: dict[UUID, datetime] = {}
    for row in ended_by_hand:
        first_at[row.series] = min(first_at.get(row.series, row.started_at), row.started_at)
        row.manual_end_at = None
    wanted = {"series": list(first_at), "first_at": list(first_at.values())}
    rows: dict[UUID, list[AlertRow]] = defaultdict(list)
    for found in await tx.execute(_SERIES, wanted):
        row = _alert_row(found)
        rows[row.series].append(batch.rows.setdefault((row.series, row.started_at), row))
    loose: dict[UUID, list[End]] = defaultdict(list)
    for series, ended_at, reason in await tx.execute(_LOOSE_ENDS, wanted):
        loose[series].append(End(ended_at, EndReason(reason)))
    for series, episodes in rows.items():
        derive(episodes, {row.started_at: row.real_end for row in episodes}, loose[series])
    return [row for row in ended_by_hand if row.before is not None]


async def _read_alerts_of(tx: AsyncConnection, batch: Batch, incident_id: UUID) -> list[AlertRow]:
    rows = []
    for found in await tx.execute(_ALERTS_OF, {"ids": [incident_id]}):
        row = _alert_row(found)
        row.labels = found.labels
        rows.append(batch.rows.setdefault((row.series, row.started_at), row))
    return rows


# — reading —


async def _read_shown_incidents(tx: AsyncConnection, batch: Batch) -> None:
    """Of alerts that were only repeated the answer names the incident; where a person has ended them, it may change."""
    ids = {row.incident_id for row in batch.shown.values() if row.incident_id} - batch.incidents.keys()
    by_hand = {row.incident_id for row in batch.shown.values() if row.manual_end_at and row.incident_id} & ids
    if by_hand:
        for found in await tx.execute(_INCIDENTS, {"ids": list(by_hand)}):
            incident = _incident_row(found)
            batch.incidents[incident.id] = incident
    if ids:
        for id_, number in await tx.execute(_NUMBERS, {"ids": list(ids)}):
            batch.numbers[id_] = number


def _alert_row(found: Sequence[Any]) -> AlertRow:
    """From the columns in `_ALERT_COLUMNS`, by position: thousands of rows a second come this way."""
    (
        series,
        started_at,
        source_id,
        key_id,
        incident_id,
        window_seconds,
        max_span_seconds,
        severity,
        real_end_at,
        real_end_reason,
        manual_end_at,
        ended_at,
        end_reason,
        last_seen_at,
        impact_told_at,
        real_end_guessed,
        sender_ended,
        *_,
    ) = found
    real_end = End(real_end_at, EndReason(real_end_reason), real_end_guessed) if real_end_at else None
    end = End(ended_at, EndReason(end_reason)) if ended_at else None
    return AlertRow(
        series=series,
        started_at=started_at,
        source_id=source_id,
        key_id=key_id,
        incident_id=incident_id,
        window=timedelta(seconds=window_seconds),
        max_span=timedelta(seconds=max_span_seconds),
        severity=severity,
        real_end=real_end,
        manual_end_at=manual_end_at,
        end=end,
        last_seen_at=last_seen_at,
        impact_told_at=impact_told_at,
        sender_ended=sender_ended,
        stored=(incident_id, real_end, manual_end_at, end, sender_ended),
    )


def _incident_row(found: Row[tuple[object, ...]]) -> IncidentRow:
    return IncidentRow(
        id=found.id,
        number=found.number,
        key_id=found.key_id,
        key=found.key,
        rule=found.rule,
        title=found.title,
        service=found.service,
        alert_class=found.alert_class,
        labels=found.labels,
        source_ids=set(found.source_ids),
        course=Course(
            began_at=found.began_at,
            last_start_at=found.last_start_at,
            island_at=found.island_at,
            first_ended_at=found.first_ended_at,
            last_end=End(found.last_end_at, EndReason(found.end_reason)) if found.last_end_at else None,
            reach_at=found.reach_at,
            reopened=found.reopened,
            alerts=found.alerts,
            open_alerts=found.open_alerts,
            severity=found.severity,
            impact_told_at=found.impact_told_at,
        ),
        still_firing=found.still_firing,
        settled=found.settled_at is not None,
        declared=found.declared,
    )


_ALERT_COLUMNS = """alert.series, alert.started_at, alert.source_id, alert.key_id, alert.incident_id,
    alert.window_seconds, alert.max_span_seconds, alert.severity, alert.real_end_at, alert.real_end_reason,
    alert.manual_end_at, alert.ended_at, alert.end_reason, alert.last_seen_at, alert.impact_told_at,
    alert.real_end_guessed, alert.sender_ended"""

# The alerts of each series from the first signal on, and the one before it.
_SERIES = text(f"""
    SELECT found.*
      FROM unnest(CAST(:series AS uuid[]), CAST(:first_at AS timestamptz[])) AS wanted (series, first_at)
     CROSS JOIN LATERAL (
           (SELECT {_ALERT_COLUMNS}
              FROM alert
             WHERE alert.series = wanted.series
               AND alert.started_at < wanted.first_at
             ORDER BY alert.started_at DESC
             LIMIT 1)
            UNION ALL
            SELECT {_ALERT_COLUMNS}
              FROM alert
             WHERE alert.series = wanted.series
               AND alert.started_at >= wanted.first_at
           ) AS found
     ORDER BY found.series, found.started_at
""")

_LOOSE_ENDS = text("""
    SELECT loose_end.series, loose_end.ended_at, loose_end.end_reason
      FROM unnest(CAST(:series AS uuid[]), CAST(:first_at AS timestamptz[])) AS wanted (series, first_at)
      JOIN loose_end
        ON loose_end.series = wanted.series
       AND loose_end.ended_at >= coalesce(
           (SELECT max(alert.started_at)
              FROM alert
             WHERE alert.series = wanted.series
               AND alert.started_at < wanted.first_at),
           '-infinity')
""")

_INCIDENT_COLUMNS = """incident.id, incident.number, incident.key_id, incident.key, incident.rule, incident.title,
    incident.service, incident.alert_class, incident.labels, incident.source_ids, incident.began_at,
    incident.last_start_at, incident.island_at, incident.first_ended_at, incident.last_end_at, incident.end_reason,
    incident.reach_at, incident.reopened, incident.alerts, incident.open_alerts, incident.severity,
    incident.still_firing, incident.settled_at, incident.declared, incident.impact_told_at"""

_NEWEST = text(f"""
    SELECT newest.*
      FROM unnest(CAST(:keys AS uuid[])) AS wanted (key_id)
     CROSS JOIN LATERAL (
           SELECT {_INCIDENT_COLUMNS}
             FROM incident
            WHERE incident.key_id = wanted.key_id
              AND incident.merged_into IS NULL
            ORDER BY incident.began_at DESC
            LIMIT 1
           ) AS newest
""")

_INCIDENTS = text(f"""
    SELECT {_INCIDENT_COLUMNS}
      FROM incident
     WHERE incident.id = ANY(CAST(:ids AS uuid[]))
""")

_NUMBERS = text("""
    SELECT incident.id, incident.number
      FROM incident
     WHERE incident.id = ANY(CAST(:ids AS uuid[]))
""")

# The chains of incidents, each within reach of the one before, that the time from `since` to `until` touches. Whole
# chains, because `max_span` cuts a chain from its beginning.
_CHAINS = text(f"""
    WITH wanted AS (
        SELECT *
          FROM unnest(CAST(:keys AS uuid[]), CAST(:since AS timestamptz[]), CAST(:until AS timestamptz[]))
            AS wanted (key_id, since, until)
    ), span AS (
        SELECT incident.id, incident.key_id, incident.began_at,
               CASE WHEN incident.ended_at IS NULL THEN 'infinity' ELSE incident.reach_at END AS reach_at
          FROM incident
          JOIN wanted USING (key_id)
         WHERE incident.merged_into IS NULL
    ), link AS (
        SELECT span.*,
               span.began_at > max(span.reach_at) OVER (
                   PARTITION BY key_id ORDER BY began_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
               ) AS apart
          FROM span
    ), chain AS (
        SELECT link.*, count(*) FILTER (WHERE apart) OVER (PARTITION BY key_id ORDER BY began_at) AS number
          FROM link
    ), touched AS (
        SELECT chain.key_id, chain.number
          FROM chain
          JOIN wanted USING (key_id)
         WHERE chain.began_at <= coalesce(wanted.until, 'infinity')
           AND chain.reach_at >= wanted.since
         GROUP BY chain.key_id, chain.number
    )
    SELECT {_INCIDENT_COLUMNS}
      FROM touched
      JOIN chain USING (key_id, number)
      JOIN incident USING (id)
     ORDER BY incident.key_id, incident.began_at
""")

_ALERTS_OF = text(f"""
    SELECT {_ALERT_COLUMNS}, alert.labels
      FROM incident
      JOIN alert
        ON alert.key_id = incident.key_id
       AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
       AND alert.incident_id = incident.id
     WHERE incident.id = ANY(CAST(:ids AS uuid[]))
""")


# — writing —

_json = msgspec.json.Encoder()


async def write(tx: AsyncConnection, batch: Batch) -> None:
    """Everything that has changed; at most one statement a table and kind of change. Raises Raced."""
    await _write_incidents(tx, batch)
    await _write_alerts(tx, batch)
    if batch.merged or batch.torn:
        await _move_facts(tx, batch)
    if batch.timeline:
        entries = [
            {"incident_id": batch.merged.get(incident, incident), "at": at, "kind": kind, "detail": detail}
            for incident, at, kind, detail in batch.timeline
        ]
        await tx.execute(_ADD_TIMELINE, {"rows": _rows(entries), "now": batch.now})
    if batch.corrections:
        await count(tx, [("history_corrections", "", "", batch.corrections)])


async def _write_incidents(tx: AsyncConnection, batch: Batch) -> None:
    now = {"now": batch.now}
    changed = [one for one in batch.incidents.values() if one.dirty and one.id not in batch.merged]
    if new := [_incident_values(incident, batch.now) for incident in changed if incident.new]:
        await tx.execute(_ADD_SERVICES, {"names": sorted({str(values["service"]) for values in new}), **now})
        for found in await tx.execute(_ADD_INCIDENTS, {"rows": _rows(new), **now}):
            batch.incidents[found.id].number = found.number
    if old := [_incident_values(incident, batch.now) for incident in changed if not incident.new]:
        await tx.execute(_CHANGE_INCIDENTS, {"rows": _rows(old), **now})


async def _write_alerts(tx: AsyncConnection, batch: Batch) -> None:
    """Raises Raced where another process has told of one of the new alerts first."""
    alerts = batch.rows.values()
    if new := [_new_alert_values(row) for row in alerts if row.new]:
        added = await tx.execute(_ADD_ALERTS, {"rows": _rows(new)})
        if added.rowcount != len(new):
            raise Raced
    if old := [_alert_values(row) for row in alerts if not row.new and row.dirty]:
        await tx.execute(_CHANGE_ALERTS, {"rows": _rows(old)})
    if batch.loose_ends:
        ends = [{"series": series, "ended_at": end.at, "end_reason": end.reason} for series, end in batch.loose_ends]
        await tx.execute(_ADD_LOOSE_ENDS, {"rows": _rows(ends)})


async def count(tx: AsyncConnection, counts: Iterable[tuple[str, str, str, float]]) -> None:
    """Adds to the tallies: (name, source, label, how many). Last in a transaction: the rows are hot."""
    rows = [
        {"name": name, "source": source, "label": label, "value": value}
        for name, source, label, value in sorted(counts)
    ]
    if rows:
        await tx.execute(_COUNT, {"rows": _rows(rows), "shard": os.getpid() % 16})


def _rows(rows: Sequence[object]) -> str:
    return _json.encode(rows).decode()


def _incident_values(incident: IncidentRow, now: datetime) -> dict[str, object]:
    course = incident.course
    return {
        "id": incident.id,
        "key_id": incident.key_id,
        "key": incident.key,
        "rule": incident.rule,
        "title": incident.title,
        "service": incident.service,
        "severity": course.severity,
        "alert_class": incident.alert_class,
        "labels": incident.labels,
        "source_ids": sorted(incident.source_ids),
        "began_at": course.began_at,
        "ended_at": course.ended_at,
        "first_ended_at": course.first_ended_at,
        "last_end_at": course.last_end.at if course.last_end else None,
        "last_start_at": course.last_start_at,
        "island_at": course.island_at,
        "reach_at": course.reach_at,
        "reopened": course.reopened,
        "alerts": course.alerts,
        "open_alerts": course.open_alerts,
        "end_reason": course.last_end.reason if course.last_end else None,
        "still_firing": incident.still_firing,
        "settled_at": now if incident.settled else None,
        "declared": incident.declared,
        "impact_told_at": course.impact_told_at,
    }


def _new_alert_values(row: AlertRow) -> dict[str, object]:
    incoming = row.incoming
    assert incoming is not None, "only new rows are inserted"
    signal = incoming.signal
    return _alert_values(row) | {
        "source_id": row.source_id,
        "fingerprint": signal.fingerprint,
        "key_id": row.key_id,
        "window_seconds": int(row.window.total_seconds()),
        "max_span_seconds": int(row.max_span.total_seconds()),
        "severity": row.severity,
        "alert_class": signal.alert_class,
        "labels": dict(signal.labels),
        "annotations": dict(signal.annotations),
        "link": signal.link,
        "flags": signal.flags,
        "first_seen_at": incoming.received_at,
        "impact_told_at": row.impact_told_at,
    }


def _alert_values(row: AlertRow) -> dict[str, object]:
    return {
        "series": row.series,
        "started_at": row.started_at,
        "incident_id": row.incident_id,
        "real_end_at": row.real_end.at if row.real_end else None,
        "real_end_reason": row.real_end.reason if row.real_end else None,
        "real_end_guessed": row.real_end is not None and row.real_end.guessed,
        "sender_ended": row.sender_ended,
        "manual_end_at": row.manual_end_at,
        "ended_at": row.end.at if row.end else None,
        "end_reason": row.end.reason if row.end else None,
        "repeats": row.repeats,
        "last_seen_at": row.last_seen_at,
    }


_INCIDENT_TYPES = """id uuid, key_id uuid, key text, rule text, title text, service text, severity smallint,
    alert_class text, labels jsonb, source_ids integer[], began_at timestamptz, ended_at timestamptz,
    first_ended_at timestamptz, last_end_at timestamptz, last_start_at timestamptz, island_at timestamptz,
    reach_at timestamptz, reopened integer, alerts integer, open_alerts integer, end_reason text, still_firing boolean,
    settled_at timestamptz, declared boolean, impact_told_at timestamptz"""
_INCIDENT_NAMES = ", ".join(part.split()[0] for part in _INCIDENT_TYPES.split(","))

_ADD_SERVICES = text("""
    INSERT INTO service (name, first_seen_at, updated_at)
    SELECT name, :now, :now
      FROM unnest(CAST(:names AS text[])) AS name
        ON CONFLICT DO NOTHING
""")

_ADD_INCIDENTS = text(f"""
    INSERT INTO incident ({_INCIDENT_NAMES}, version, created_at, updated_at)
    SELECT {_INCIDENT_NAMES}, 1, :now, :now
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new ({_INCIDENT_TYPES})
     ORDER BY began_at, id
    RETURNING id, number
""")

_CHANGE_INCIDENTS = text(f"""
    UPDATE incident
       SET labels = changed.labels,
           source_ids = changed.source_ids,
           severity = changed.severity,
           began_at = changed.began_at,
           ended_at = changed.ended_at,
           first_ended_at = changed.first_ended_at,
           last_end_at = changed.last_end_at,
           last_start_at = changed.last_start_at,
           island_at = changed.island_at,
           reach_at = changed.reach_at,
           reopened = changed.reopened,
           alerts = changed.alerts,
           open_alerts = changed.open_alerts,
           end_reason = changed.end_reason,
           still_firing = changed.still_firing,
           settled_at = coalesce(incident.settled_at, changed.settled_at),
           impact_told_at = changed.impact_told_at,
           version = incident.version + 1,
           updated_at = :now
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS changed ({_INCIDENT_TYPES})
     WHERE incident.id = changed.id
""")

_ALERT_TYPES = """series uuid, started_at timestamptz, incident_id uuid, real_end_at timestamptz, real_end_reason text,
    real_end_guessed boolean, sender_ended boolean, manual_end_at timestamptz, ended_at timestamptz, end_reason text,
    repeats integer, last_seen_at timestamptz"""
_NEW_ALERT_TYPES = f"""{_ALERT_TYPES}, source_id integer, fingerprint text, key_id uuid, window_seconds integer,
    max_span_seconds integer, severity smallint, alert_class text, labels json, annotations json, link text,
    flags text[], first_seen_at timestamptz, impact_told_at timestamptz"""
_NEW_ALERT_NAMES = ", ".join(part.split()[0] for part in _NEW_ALERT_TYPES.split(","))

_ADD_ALERTS = text(f"""
    INSERT INTO alert ({_NEW_ALERT_NAMES})
    SELECT {_NEW_ALERT_NAMES}
      FROM json_to_recordset(CAST(:rows AS json)) AS new ({_NEW_ALERT_TYPES})
        ON CONFLICT (series, started_at) DO NOTHING
""")

_CHANGE_ALERTS = text(f"""
    UPDATE alert
       SET incident_id = changed.incident_id,
           real_end_at = changed.real_end_at,
           real_end_reason = changed.real_end_reason,
           real_end_guessed = changed.real_end_guessed,
           sender_ended = changed.sender_ended,
           manual_end_at = changed.manual_end_at,
           ended_at = changed.ended_at,
           end_reason = changed.end_reason,
           repeats = alert.repeats + changed.repeats,
           last_seen_at = changed.last_seen_at
      FROM json_to_recordset(CAST(:rows AS json)) AS changed ({_ALERT_TYPES})
     WHERE alert.series = changed.series
       AND alert.started_at = changed.started_at
""")

_ADD_LOOSE_ENDS = text("""
    INSERT INTO loose_end (series, ended_at, end_reason)
    SELECT series, ended_at, end_reason
      FROM json_to_recordset(CAST(:rows AS json)) AS new (series uuid, ended_at timestamptz, end_reason text)
        ON CONFLICT DO NOTHING
""")

_ADD_TIMELINE = text("""
    INSERT INTO timeline (incident_id, at, recorded_at, kind, detail)
    SELECT incident_id, at, :now, kind, detail
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (incident_id uuid, at timestamptz, kind text, detail jsonb)
""")

_COUNT = text("""
    INSERT INTO tally (name, source, label, shard, value)
    SELECT name, source, label, :shard, value
      FROM json_to_recordset(CAST(:rows AS json)) AS new (name text, source text, label text, value double precision)
        ON CONFLICT (name, source, label, shard)
        DO UPDATE SET value = CASE WHEN tally.name = 'last_delivery' THEN greatest(tally.value, excluded.value)
                                   ELSE tally.value + excluded.value END
""")


# — people's facts, when incidents are joined or torn apart —


async def _move_facts(tx: AsyncConnection, batch: Batch) -> None:
    """After a merge all facts are the winner's; after a split each stays with the part whose time holds it."""
    # What is torn off an incident that is merged away takes its facts along, so it goes first.
    if batch.torn:
        parts = [
            {"origin": origin, "part": part.id, "began_at": part.course.began_at}
            for origin, torn in batch.torn.items()
            for part in torn
        ]
        await tx.execute(_SPLIT_FACTS, {"rows": _rows(parts)})
        whole = [
            {"origin": origin, "part": part.id, "ended_at": part.course.ended_at}
            for origin, torn in batch.torn.items()
            for part in (batch.incidents[origin], *torn)
        ]
        await tx.execute(_SPLIT_STATED, {"rows": _rows(whole)})
    merged = [{"loser": loser, "winner": winner} for loser, winner in batch.merged.items()]
    if merged:
        await tx.execute(_MERGE_FACTS, {"rows": _rows(merged)})
        await tx.execute(_MERGE_INCIDENTS, {"rows": _rows(merged), "now": batch.now})
    survivors = set(batch.merged.values()) | set(batch.torn) | {p.id for torn in batch.torn.values() for p in torn}
    await tx.execute(_DERIVE_FACTS, {"ids": list(survivors - batch.merged.keys())})


_MERGE_FACTS = text("""
    UPDATE timeline
       SET incident_id = merged.winner
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS merged (loser uuid, winner uuid)
     WHERE timeline.incident_id = merged.loser
""")

# What a person stated of the winner stands; where they said nothing, what they stated of the loser does.
_MERGE_INCIDENTS = text("""
    WITH merged AS (
        SELECT *
          FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS merged (loser uuid, winner uuid)
    ), stated AS (
        SELECT merged.winner,
               (array_agg(title_stated ORDER BY number) FILTER (WHERE title_stated IS NOT NULL))[1] AS title_stated,
               (array_agg(service_stated ORDER BY number) FILTER (WHERE service_stated IS NOT NULL))[1]
                   AS service_stated,
               min(severity_stated) AS severity_stated,
               max(impact_stated) AS impact_stated,
               min(impact_started_at_stated) AS impact_started_at_stated,
               min(detected_at_stated) AS detected_at_stated,
               bool_or(declared) AS declared
          FROM merged
          JOIN incident ON incident.id = merged.loser
         GROUP BY merged.winner
    ), gone AS (
        UPDATE incident
           SET merged_into = merged.winner,
               version = version + 1,
               updated_at = :now
          FROM merged
         WHERE incident.id = merged.loser
            OR incident.merged_into = merged.loser
    )
    UPDATE incident
       SET title_stated = coalesce(incident.title_stated, stated.title_stated),
           service_stated = coalesce(incident.service_stated, stated.service_stated),
           severity_stated = coalesce(incident.severity_stated, stated.severity_stated),
           impact_stated = coalesce(incident.impact_stated, stated.impact_stated),
           -- A detection later than what is now the first alert corrects nothing.
           detected_at_stated = CASE WHEN incident.detected_at_stated IS NOT NULL
                                       OR stated.detected_at_stated > incident.began_at
                                     THEN incident.detected_at_stated
                                     ELSE stated.detected_at_stated END,
           impact_started_at_stated = least(incident.impact_started_at_stated, stated.impact_started_at_stated),
           declared = incident.declared OR stated.declared
      FROM stated
     WHERE incident.id = stated.winner
""")

_SPLIT_FACTS = text("""
    WITH part AS (
        SELECT *
          FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS part (origin uuid, part uuid, began_at timestamptz)
    )
    UPDATE timeline
       SET incident_id = (SELECT part.part
                            FROM part
                           WHERE part.origin = timeline.incident_id
                             AND part.began_at <= timeline.at
                           ORDER BY part.began_at DESC
                           LIMIT 1)
     WHERE timeline.incident_id IN (SELECT origin FROM part)
       AND timeline.at >= (SELECT min(part.began_at) FROM part WHERE part.origin = timeline.incident_id)
""")

# What a person stated of the whole holds for each part; a stated time belongs to the first part that it does not come
# after, or to the last.
_SPLIT_STATED = text("""
    WITH part AS (
        SELECT *
          FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS part (origin uuid, part uuid, ended_at timestamptz)
    ), ranked AS (
        SELECT part.*, coalesce(ended_at, 'infinity') AS until,
               lead(part) OVER (PARTITION BY origin ORDER BY ended_at NULLS LAST) IS NULL AS last,
               coalesce(lag(ended_at) OVER (PARTITION BY origin ORDER BY ended_at NULLS LAST), '-infinity') AS since
          FROM part
    ), stated AS (
        SELECT ranked.part, origin.title_stated, origin.service_stated, origin.severity_stated, origin.impact_stated,
               CASE WHEN origin.impact_started_at_stated > since
                     AND (origin.impact_started_at_stated <= until OR last)
                    THEN origin.impact_started_at_stated END AS impact_started_at_stated,
               CASE WHEN origin.detected_at_stated > since
                     AND (origin.detected_at_stated <= until OR last)
                    THEN origin.detected_at_stated END AS detected_at_stated
          FROM ranked
          JOIN incident AS origin ON origin.id = ranked.origin
    )
    UPDATE incident
       SET title_stated = stated.title_stated,
           service_stated = stated.service_stated,
           severity_stated = stated.severity_stated,
           impact_stated = stated.impact_stated,
           impact_started_at_stated = stated.impact_started_at_stated,
           detected_at_stated = stated.detected_at_stated
      FROM stated
     WHERE incident.id = stated.part
""")

# The first acknowledgement counts; of a milestone told twice the last word does. One that a person has corrected is out
# even where the correction went to another part.
_DERIVE_FACTS = text("""
    UPDATE incident
       SET acknowledged_at = fact.acknowledged_at,
           acknowledged_by = fact.acknowledged_by,
           identified_at = fact.identified_at,
           mitigated_at = fact.mitigated_at
      FROM (SELECT wanted.id,
                   min(timeline.at) FILTER (WHERE kind = 'acknowledged') AS acknowledged_at,
                   (array_agg(timeline.by ORDER BY timeline.at, timeline.id)
                       FILTER (WHERE kind = 'acknowledged'))[1] AS acknowledged_by,
                   (array_agg(timeline.at ORDER BY timeline.id DESC)
                       FILTER (WHERE kind = 'identified'))[1] AS identified_at,
                   (array_agg(timeline.at ORDER BY timeline.id DESC)
                       FILTER (WHERE kind = 'mitigated'))[1] AS mitigated_at
              FROM unnest(CAST(:ids AS uuid[])) AS wanted (id)
              LEFT JOIN timeline
                ON timeline.incident_id = wanted.id
               AND timeline.kind IN ('acknowledged', 'identified', 'mitigated')
               AND NOT coalesce(timeline.detail @> '{"corrected": true}', false)
             GROUP BY wanted.id) AS fact
     WHERE incident.id = fact.id
""")
