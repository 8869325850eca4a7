"""Signals in, incidents out: a batch of many deliveries in one transaction.

The number of statements does not grow with the number of signals, and the way is always the same:

    lock the keys     in sorted order, so that batches of other processes on the same keys wait instead of deadlocking
    read the series   of every signal: the alerts around it; the law of the series gives each alert its end
    place by key      new and newly ended alerts, by the newest incident of their key alone where that is enough,
                      else by the whole chain of incidents and alerts around them
    write             new alerts by COPY, everything else that has changed in one statement (`writing.py`)

One statement each: a way to the server and back costs as much as ten alerts.

The decisions are in `batch.py`, pure. What people say (`people.py`) changes alerts too, and goes the same way from
`place` on.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import text

from app.base.db import Executor
from app.incidents.grouping.batch import (
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
from app.incidents.grouping.lifecycle import Course
from app.incidents.grouping.signal import End, EndReason
from app.incidents.grouping.write import RULES_VERSION, Raced, write


async def apply(
    tx: Executor, incoming: Sequence[Incoming], *, now: datetime, also_lock: Iterable[UUID] = ()
) -> list[Outcome]:
    """What each signal did, in the order given. Raises Raced."""
    keys = keys_of(incoming) | set(also_lock)
    await lock_keys(tx, keys)
    batch = await decide(tx, incoming, keys, now=now)
    await write(tx, batch)
    return [outcome_of(batch, index) for index in range(len(incoming))]


def keys_of(incoming: Sequence[Incoming]) -> set[UUID]:
    """What to lock for these signals."""
    return {one.decision.key_id for one in incoming if not one.signal.test}


async def decide(tx: Executor, incoming: Sequence[Incoming], keys: AbstractSet[UUID], *, now: datetime) -> Batch:
    """What these signals make of alerts and incidents, to be written. Their keys are locked; `keys` are all that are.
    Raises Raced.
    """
    wanted = [index for index, one in enumerate(incoming) if not one.signal.test]
    batch = Batch(now)
    if wanted:
        await _read_and_fold(tx, batch, incoming, wanted)
        changed = [row for row in batch.rows if row.new or row.before is not None]
        # Of a rule that has changed the alert keeps the key; also a mere repeat writes the row.
        if strangers := {row.key_id for row in batch.rows if row.dirty} - keys:
            raise Raced(frozenset(strangers))
        await place(tx, batch, changed)
        await _read_ended_by_hand(tx, batch)
        note_still_firing(batch)
    return batch


# — locks —

_LOCK_CLASS = 0x616D  # of our advisory locks, "am"
_LOCK_BUCKETS = 4096


def lock(keys: Iterable[UUID]) -> str:
    """SQL after which, until the end of its transaction, nobody else changes alerts or incidents of these keys.

    Advisory locks, because the first delivery of a key finds no row to lock; in buckets, because PostgreSQL's lock
    table is bounded; in sorted order, because everybody takes them so. Without parameters, so that it can go to the
    server together with the BEGIN before it.
    """
    buckets = ",".join(map(str, sorted({key.int % _LOCK_BUCKETS for key in keys})))
    return f"""
        SELECT count(pg_advisory_xact_lock({_LOCK_CLASS}, bucket))
          FROM unnest('{{{buckets}}}'::integer[]) AS bucket"""


async def lock_keys(tx: Executor, keys: Iterable[UUID]) -> None:
    """In a transaction that has begun."""
    await tx.execute(text(lock(keys)), {})


async def rules_version(tx: Executor) -> str:
    """Who has decided by rules of another version must decide again; `write` tells it too."""
    version: str = (await tx.execute(_VERSION, {})).one()[0]
    return version


# The same lock in SQL, on rows of `incident`, where waiting is not wanted: a bucket is the last 12 bits of the key.
TRY_LOCK_KEY = f"pg_try_advisory_xact_lock({_LOCK_CLASS}, ('x' || right(incident.key_id::text, 3))::bit(12)::integer)"

_VERSION = text(f"SELECT {RULES_VERSION}")


# — the series of the signals —


class _Series(NamedTuple):
    """What was found of a series, as rows of `_SERIES`: alerts in order of start, and loose ends."""

    alerts: list[Any]
    loose: list[Any]


async def _read_and_fold(tx: Executor, batch: Batch, incoming: Sequence[Incoming], wanted: Sequence[int]) -> None:
    """Finds or makes the alert of every signal, and gives each alert of those series its end."""
    by_series: dict[UUID, list[int]] = defaultdict(list)
    first_at: dict[UUID, datetime] = {}
    for index in wanted:
        one = incoming[index]
        series = series_of(one.source_id, one.signal.fingerprint)
        by_series[series].append(index)
        at = one.signal.started_at or one.signal.ended_at or one.received_at
        if series not in first_at or at < first_at[series]:
            first_at[series] = at
    rows, loose = await _read_series(tx, batch, first_at)
    for series, indices in by_series.items():
        fold(batch, series, rows[series], loose[series], incoming, indices)


async def _read_series(
    tx: Executor, batch: Batch, first_at: Mapping[UUID, datetime]
) -> tuple[dict[UUID, list[AlertRow]], dict[UUID, list[End]]]:
    """The alerts (also in `batch`) and the loose ends of each series, from that time on and what it needs of before."""
    rows: dict[UUID, list[AlertRow]] = defaultdict(list)
    loose: dict[UUID, list[End]] = defaultdict(list)
    known = batch.rows_by_start()
    for series, (alerts, ends) in (await _found_of(tx, first_at)).items():
        for found in alerts:
            row = _known_or_kept(batch, known, _alert_row(found))
            row.number = found[-1]
            rows[series].append(row)
        loose[series] = [End(found[_ENDED_AT], _END_REASONS[found[_END_REASON]]) for found in ends]
    return rows, loose


async def _found_of(tx: Executor, first_at: Mapping[UUID, datetime]) -> dict[UUID, _Series]:
    """Of nearly every series the newest few are all that is needed, and to find those takes a third of the time."""
    newest = _by_series(await tx.execute(_NEWEST_OF_SERIES, {"series": list(first_at), "few": FEW}))
    found, unsure = {}, {}
    for series, few in newest.items():
        if needed := _needed(few, first_at[series]):
            found[series] = needed
        else:
            unsure[series] = first_at[series]
    if unsure:
        all_ = await tx.execute(_SERIES, {"series": list(unsure), "first_at": list(unsure.values())})
        found |= _by_series(all_)
    return found


def _by_series(found: Iterable[Any]) -> dict[UUID, _Series]:
    by_series: dict[UUID, _Series] = {}
    for row in found:
        series = by_series.get(row[_SERIES_ID]) or by_series.setdefault(row[_SERIES_ID], _Series([], []))
        (series.loose if row[_STARTED_AT] is None else series.alerts).append(row)
    for series in by_series.values():
        if len(series.alerts) > 1:
            series.alerts.sort(key=_start_of)
    return by_series


def _needed(few: _Series, first_at: datetime) -> _Series | None:
    """Of the newest few the alert before `first_at`, and what came since; None where there may be more of that."""
    alerts, loose = few
    before = bisect_left(alerts, first_at, key=_start_of) - 1
    if before < 0:
        return None if FEW in {len(alerts), len(loose)} else few
    since = alerts[before][_STARTED_AT]
    ends = [end for end in loose if end[_ENDED_AT] >= since]
    return None if len(ends) == FEW else _Series(alerts[before:], ends)


# — the incidents of their keys —


async def place(tx: Executor, batch: Batch, changed: Sequence[AlertRow], *, whole_chains: bool = False) -> None:
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


async def _place_by_law(tx: Executor, batch: Batch, by_key: Mapping[UUID, Sequence[AlertRow]]) -> None:
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
    in_batch = batch.rows_by_start()
    for found in await tx.execute(_ALERTS_OF, {"ids": ids}):
        row = _known_or_kept(batch, in_batch, _alert_row(found))
        row.labels = _labels.decode(found[-1]) if row.labels is None else row.labels
        alerts[row.key_id][row.series, row.started_at] = row
    for key, rows in by_key.items():
        for row in rows:
            alerts[key][row.series, row.started_at] = row
        by_law(batch, known[key], list(alerts[key].values()), rows)


# — what people change —


async def read_open_alerts(tx: Executor, batch: Batch, incident_id: UUID) -> list[AlertRow]:
    """The alerts of an incident that have not ended. Its key is locked."""
    return [row for row in await _read_alerts_of(tx, batch, incident_id) if row.end is None]


async def derive_without_manual_ends(tx: Executor, batch: Batch, incident_id: UUID) -> list[AlertRow]:
    """Takes back the ends that people gave the alerts of an incident; returns those whose end has changed by that."""
    ended_by_hand = [row for row in await _read_alerts_of(tx, batch, incident_id) if row.manual_end_at is not None]
    if not ended_by_hand:
        return []
    first_at: dict[UUID, datetime] = {}
    for row in ended_by_hand:
        first_at[row.series] = min(first_at.get(row.series, row.started_at), row.started_at)
        row.manual_end_at = None
    rows, loose = await _read_series(tx, batch, first_at)
    for series, episodes in rows.items():
        derive(episodes, loose[series])
    return [row for row in ended_by_hand if row.before is not None]


async def _read_alerts_of(tx: Executor, batch: Batch, incident_id: UUID) -> list[AlertRow]:
    rows = []
    known = batch.rows_by_start()
    for found in await tx.execute(_ALERTS_OF, {"ids": [incident_id]}):
        row = _known_or_kept(batch, known, _alert_row(found))
        row.labels = _labels.decode(found[-1])
        rows.append(row)
    return rows


# — reading —


async def _read_ended_by_hand(tx: Executor, batch: Batch) -> None:
    """The incidents of repeated alerts that a person has ended: they may change."""
    by_hand = {row.incident_id for row in batch.shown.values() if row.manual_end_at and row.incident_id}
    if unknown := list(by_hand - batch.incidents.keys()):
        for found in await tx.execute(_INCIDENTS, {"ids": unknown}):
            incident = _incident_row(found)
            batch.incidents[incident.id] = incident


def _known_or_kept(batch: Batch, known: Mapping[tuple[UUID, datetime], AlertRow], row: AlertRow) -> AlertRow:
    """The row that the batch has of this alert already; else this one, from now on. `known`: those it had."""
    if known and (had := known.get((row.series, row.started_at))):
        return had
    batch.rows.append(row)
    return row


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
        _,
    ) = found
    real_end = End(real_end_at, _END_REASONS[real_end_reason], real_end_guessed) if real_end_at else None
    end = End(ended_at, _END_REASONS[end_reason]) if ended_at else None
    return AlertRow(
        series=series,
        started_at=started_at,
        source_id=source_id,
        key_id=key_id,
        incident_id=incident_id,
        window=_seconds(window_seconds),
        max_span=_seconds(max_span_seconds),
        severity=severity,
        real_end=real_end,
        manual_end_at=manual_end_at,
        end=end,
        named_end=real_end,
        last_seen_at=last_seen_at,
        impact_told_at=impact_told_at,
        sender_ended=sender_ended,
        stored=(incident_id, real_end, manual_end_at, end, sender_ended),
        seen_before_at=last_seen_at,
    )


def _incident_row(found: Sequence[Any]) -> IncidentRow:
    """From the columns in `_INCIDENT_COLUMNS`, by position."""
    (
        id_,
        number,
        key_id,
        key,
        rule,
        title,
        service,
        alert_class,
        labels,
        source_ids,
        began_at,
        last_start_at,
        island_at,
        first_ended_at,
        last_end_at,
        end_reason,
        reach_at,
        reopened,
        alerts,
        open_alerts,
        severity,
        still_firing,
        settled_at,
        declared,
        impact_told_at,
    ) = found
    return IncidentRow(
        id=id_,
        number=number,
        key_id=key_id,
        key=key,
        rule=rule,
        title=title,
        service=service,
        alert_class=alert_class,
        labels=_labels.decode(labels),
        source_ids=set(source_ids),
        course=Course(
            began_at=began_at,
            last_start_at=last_start_at,
            island_at=island_at,
            first_ended_at=first_ended_at,
            last_end=End(last_end_at, _END_REASONS[end_reason]) if last_end_at else None,
            reach_at=reach_at,
            reopened=reopened,
            alerts=alerts,
            open_alerts=open_alerts,
            severity=severity,
            impact_told_at=impact_told_at,
        ),
        still_firing=still_firing,
        settled=settled_at is not None,
        declared=declared,
    )


@lru_cache
def _seconds(number: int) -> timedelta:
    return timedelta(seconds=number)


_labels = msgspec.json.Decoder(dict[str, str])
_END_REASONS = {str(reason): reason for reason in EndReason}

_ALERT_COLUMNS = """alert.series, alert.started_at, alert.source_id, alert.key_id, alert.incident_id,
    alert.window_seconds, alert.max_span_seconds, alert.severity, alert.real_end_at, alert.real_end_reason,
    alert.manual_end_at, alert.ended_at, alert.end_reason, alert.last_seen_at, alert.impact_told_at,
    alert.real_end_guessed, alert.sender_ended"""

_SERIES_ID, _STARTED_AT, _ENDED_AT, _END_REASON = 0, 1, 11, 12
_start_of = itemgetter(_STARTED_AT)

FEW = 4

# The newest alerts of each series and, as rows without a start, its newest loose ends.
_NEWEST_OF_SERIES = text(f"""
    SELECT found.*, (SELECT incident.number FROM incident WHERE incident.id = found.incident_id) AS number
      FROM unnest(CAST(:series AS uuid[])) AS wanted (series)
     CROSS JOIN LATERAL (
           SELECT {_ALERT_COLUMNS}
             FROM alert
            WHERE alert.series = wanted.series
            ORDER BY alert.started_at DESC
            LIMIT :few
           ) AS found
     UNION ALL
    SELECT found.series, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, found.ended_at, found.end_reason,
           NULL, NULL, NULL, NULL, NULL
      FROM unnest(CAST(:series AS uuid[])) AS wanted (series)
     CROSS JOIN LATERAL (
           SELECT *
             FROM loose_end
            WHERE loose_end.series = wanted.series
            ORDER BY loose_end.ended_at DESC
            LIMIT :few
           ) AS found
""")

# The alerts of each series from the first signal on, the one before it, and, as rows without a start, the loose ends
# since then.
_SERIES = text(f"""
    SELECT found.*, (SELECT incident.number FROM incident WHERE incident.id = found.incident_id) AS number
      FROM unnest(CAST(:series AS uuid[]), CAST(:first_at AS timestamptz[])) AS wanted (series, first_at)
      LEFT JOIN LATERAL (
           SELECT {_ALERT_COLUMNS}
             FROM alert
            WHERE alert.series = wanted.series
              AND alert.started_at < wanted.first_at
            ORDER BY alert.started_at DESC
            LIMIT 1
           ) AS before ON true
     CROSS JOIN LATERAL (
           SELECT before.*
            WHERE before.series IS NOT NULL
            UNION ALL
           (SELECT {_ALERT_COLUMNS}
              FROM alert
             WHERE alert.series = wanted.series
               AND alert.started_at >= wanted.first_at
             ORDER BY alert.started_at)
            UNION ALL
           SELECT loose_end.series, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, loose_end.ended_at,
                  loose_end.end_reason, NULL, NULL, NULL, NULL
             FROM loose_end
            WHERE loose_end.series = wanted.series
              AND loose_end.ended_at >= coalesce(before.started_at, '-infinity')
           ) AS found
""")

_INCIDENT_COLUMNS = """incident.id, incident.number, incident.key_id, incident.key, incident.rule, incident.title,
    incident.service, incident.alert_class, incident.labels::text, incident.source_ids, incident.began_at,
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
            ORDER BY incident.began_at DESC NULLS LAST
            LIMIT 1
           ) AS newest
""")

_INCIDENTS = text(f"""
    SELECT {_INCIDENT_COLUMNS}
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
    SELECT {_ALERT_COLUMNS}, alert.labels::text
      FROM incident
      JOIN alert
        ON alert.key_id = incident.key_id
       AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
       AND alert.incident_id = incident.id
     WHERE incident.id = ANY(CAST(:ids AS uuid[]))
""")
