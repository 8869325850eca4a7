"""Stores the changes of a batch: new alerts by COPY, all other changes in one combined statement."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from asyncpg.exceptions import UniqueViolationError
from msgspec.structs import astuple, replace
from sqlalchemy import TextClause, text

from app.base import db
from app.base.db import Transaction
from app.base.db.recordset import Columns, as_json
from app.base.process.threads import give_way
from app.base.schema import Alert, Incident, TimelineEntry, UnmatchedResolve
from app.incidents.grouping.batch import AlertRow, Batch, Entry, IncidentRow
from app.incidents.grouping.facts import move_facts
from app.incidents.grouping.law.episode import End, ReportedEnd
from app.incidents.grouping.law.lifecycle import IncidentState
from app.incidents.grouping.reaction_placement import Affected, place_affected


class BatchConflict(Exception):
    """Another process changed data that this batch depends on but had not locked. Roll back and retry with `keys`
    locked as well.
    """

    def __init__(self, keys: frozenset[UUID] = frozenset()) -> None:
        super().__init__("batch conflicts with another process")
        self.keys = keys


# Not based on `updated_at`, because the clocks of replicas differ.
RULES_VERSION = "(SELECT version FROM rule_version)"


class StatementPart(NamedTuple):
    """An INSERT or UPDATE that is combined with others into one statement."""

    name: str
    sql: str
    parameters: Mapping[str, Any]  # names must be unique among combined changes, except `now`


_NOTHING = Affected()

Count = tuple[str, str, str, float]  # name, source and label of a tally, and the increment


async def write(
    tx: Transaction, batch: Batch, also: Sequence[StatementPart] = (), counts: Sequence[Count] = ()
) -> int | None:
    """Stores all changes of the batch, and `also`. Returns the version of the rules, None if nothing was written.

    Raises BatchConflict if another process stored one of the new alerts first.
    """
    await _add_alerts(tx, [row for row in batch.rows if row.new])
    if batch.corrections:
        counts = [*counts, ("history_corrections", "", "", batch.corrections)]
    changes = [*_changes_of(batch), *also, *_counted(counts)]
    affected = _affected(batch)
    version: int | None = None
    reacted = bool(affected.series or affected.correlations)
    if changes:
        version, numbers, reacted = await _write_together(tx, changes, affected)
        for id_, number in _numbers.decode(numbers or "{}").items():
            batch.incidents[id_].number = number
    if batch.merged or batch.split:
        # Move facts first, so that the new entries stay with the incident they name.
        await move_facts(tx, batch)
        await _write_together(tx, [_timeline(batch)])
    if reacted or affected.incidents:
        keys = {row.key_id for row in batch.rows if row.dirty} | {one.key_id for one in batch.incidents.values()}
        await count_corrections(tx, await place_affected(tx, affected, keys, now=batch.now))
    return version


async def _add_alerts(tx: Transaction, new: Sequence[AlertRow]) -> None:
    """Raises BatchConflict."""
    if not new:
        return
    # Nearly all are open, and a third of the columns describe ends.
    columns, columns_of = (_NEW_ALERT, _new_alert) if any(map(_has_ends, new)) else (_NEW_OPEN_ALERT, _new_open_alert)
    rows: list[tuple[Any, ...]] = []
    done = 0
    for row in new:
        rows.append(columns_of(row))
        done = await give_way(done)
    try:
        await db.copy(tx, "alert", columns.names, rows)
    except UniqueViolationError as error:
        raise BatchConflict from error


def _affected(batch: Batch) -> Affected:
    """The changes of the batch that decide to which incidents the reactions of people belong."""
    started: list[UUID] = []
    correlations: set[UUID] = set()
    for row in batch.rows:
        if row.new:
            started.append(row.series)
        if row.correlations is not None and row.correlated_otherwise:
            correlations.update(row.correlations, row.stored[-1] or () if row.stored else ())
    moved = {*batch.merged.values(), *batch.split, *(part.id for parts in batch.split.values() for part in parts)}
    return Affected(started, list(correlations), list(moved))


async def count_corrections(tx: Transaction, corrections: int) -> None:
    """Counts changes of incidents that have settled."""
    if corrections:
        await count(tx, [("history_corrections", "", "", corrections)])


async def count(tx: Transaction, counts: Sequence[Count]) -> None:
    """Increments tallies. Call it last in a transaction, because the rows are highly contended."""
    for change in _counted(counts):
        await _write_together(tx, [change])


class _Written(NamedTuple):
    rules_version: int
    numbers: str | None  # of new incidents by id, as JSON
    reacted: bool  # whether a person has reacted to one of the affected series or correlations


async def _write_together(tx: Transaction, changes: Sequence[StatementPart], affected: Affected = _NOTHING) -> _Written:
    parameters: dict[str, Any] = {}
    for change in changes:
        if clash := parameters.keys() & change.parameters.keys() - {"now"}:
            raise ValueError(f"several changes use the same parameter name: {', '.join(clash)}")
        parameters |= change.parameters
    reactions = []
    if affected.series:
        parameters["started"] = affected.series
        reactions.append("series = ANY(CAST(:started AS uuid[]))")
    if affected.correlations:
        parameters["correlated"] = affected.correlations
        reactions.append("correlation = ANY(CAST(:correlated AS uuid[]))")
    statement = _as_one(tuple(change[:2] for change in changes), tuple(reactions))
    return _Written(*(await tx.execute(statement, parameters)).one())


@lru_cache
def _as_one(changes: tuple[tuple[str, str], ...], reactions: tuple[str, ...]) -> TextClause:
    """Combines only the changes present, because PostgreSQL plans every part of a statement, even without rows."""
    parts = ", ".join(f"{name} AS ({sql})" for name, sql in changes)
    numbers = "NULL"
    if any(name == "added_incident" for name, _ in changes):
        numbers = "(SELECT json_object_agg(id, number)::text FROM added_incident)"
    reacted = " OR ".join(f"EXISTS (SELECT FROM reaction WHERE {condition})" for condition in reactions) or "false"
    return text(f"WITH {parts} SELECT {RULES_VERSION}, {numbers}, {reacted}")


def _changes_of(batch: Batch) -> Iterator[StatementPart]:
    """All changes except new alerts and, if facts must be moved first, the timeline."""
    touched = _settled_with_other_alerts(batch)
    incidents = [one for one in batch.incidents.values() if one.dirty or one.id in touched]
    incidents = [one for one in incidents if one.id not in batch.merged]
    now = {"now": batch.now}
    if new := [_new_incident(one, batch.now) for one in incidents if one.new]:
        services = sorted({one.service for one in incidents if one.new})
        yield StatementPart("added_service", _ADD_SERVICES, {"services": services, **now})
        yield StatementPart(
            "added_incident",
            _ADD_INCIDENTS,
            {"new_incidents": as_json(new), **now},
        )
    if known := [_changed_incident(one, batch.now) for one in incidents if not one.new]:
        yield StatementPart("changed_incident", _CHANGE_INCIDENTS, {"changed_incidents": as_json(known), **now})
    if alerts := [_changed_alert(row) for row in batch.rows if not row.new and row.dirty]:
        yield StatementPart("changed_alert", _CHANGE_ALERTS, {"changed_alerts": as_json(alerts)})
    if batch.unmatched_resolves:
        ends = [
            _UNMATCHED_RESOLVE.record(series, end.at, end.reason, end.reported_at)
            for (series, _), end in batch.unmatched_resolves.items()
        ]
        yield StatementPart("added_unmatched_resolve", _ADD_UNMATCHED_RESOLVES, {"unmatched_resolves": as_json(ends)})
    if batch.timeline and not (batch.merged or batch.split):
        yield _timeline(batch)


def _settled_with_other_alerts(batch: Batch) -> set[UUID]:
    """Settled incidents whose alerts have changed: even if their state has not, their stretches are not current."""
    settled = {one.id for one in batch.incidents.values() if one.settled}
    if not settled:
        return settled
    changed = (row.incident_id for row in batch.rows if row.new or row.stored != row.changeable())
    return {incident for incident in changed if incident in settled}


def _timeline(batch: Batch) -> StatementPart:
    entries = [
        replace(entry, incident_id=batch.merged.get(entry.incident_id, entry.incident_id)) for entry in batch.timeline
    ]
    return StatementPart("added_entry", _ADD_TIMELINE, {"timeline": as_json(entries), "now": batch.now})


def _counted(counts: Sequence[Count]) -> Iterator[StatementPart]:
    if counts:
        rows = [
            {"name": name, "source": source, "label": label, "value": value}
            for name, source, label, value in sorted(counts)
        ]
        yield StatementPart("counted", _COUNT, {"tallies": as_json(rows)})


_numbers = msgspec.json.Decoder(dict[UUID, int])


# — incidents as rows —

# The columns of a state and its end; those that change when alerts join; and those set only on new incidents.
_STATE_FIELDS = IncidentState.__struct_fields__[1:]  # all but `last_end`, which is two columns
_CHANGED = ("id", *_STATE_FIELDS, "last_end_at", "end_reason", "ended_at", "settled_at")
_COMMON = ("labels", "source_ids")
_ONLY_NEW = ("key_id", "key", "rule", "title", "service", "environment", "alert_class", "declared")
_NEW_INCIDENT = Columns(Incident.__table__, (*_CHANGED, *_COMMON, *_ONLY_NEW))
_CHANGED_INCIDENT = Columns(Incident.__table__, (*_CHANGED, *_COMMON))
_only_new = attrgetter(*_ONLY_NEW)


def _new_incident(incident: IncidentRow, now: datetime) -> object:
    return _NEW_INCIDENT.record(*_changed(incident, now), *_common(incident), *_only_new(incident))


def _changed_incident(incident: IncidentRow, now: datetime) -> object:
    common = _common(incident) if incident.common_changed else ()
    return _CHANGED_INCIDENT.record(*_changed(incident, now), *common)


def _changed(incident: IncidentRow, now: datetime) -> tuple[Any, ...]:
    state = incident.state
    last_end, *rest = astuple(state)
    return (
        incident.id,
        *rest,
        last_end.at if last_end else None,
        last_end.reason if last_end else None,
        state.ended_at,
        now if incident.settled else None,
    )


def _common(incident: IncidentRow) -> tuple[Any, ...]:
    return incident.labels, sorted(incident.source_ids)


# — alerts as rows —

_KEPT = (
    "series",
    "started_at",
    "incident_id",
    "severity",
    "last_seen_at",
    "sender_ended",
    "end_reported_at",
    "covered",
    "correlations",
)
_FIRING = ("fired_at", "listed_since", "expires_at")
_ENDS = (
    "ended_at",
    "end_reason",
    "real_end_at",
    "real_end_reason",
    "real_end_reported_at",
    "guessed_end_at",
    "guessed_end_reason",
    "guessed_end_reported_at",
    "inferred_end_at",
    "inferred_end_reason",
    "manual_end_at",
)
_NEW = ("source_id", "key_id", "impact_started_at_reported")
_OF_SIGNAL = ("fingerprint", "alert_class", "link", "flags")
_OTHER = ("environment", "window_seconds", "max_span_seconds", "labels", "annotations", "first_seen_at")
_CHANGED_ALERT = Columns(Alert.__table__, (*_KEPT, *_FIRING, *_ENDS))
_NEW_OPEN_ALERT = Columns(Alert.__table__, (*_KEPT, *_FIRING, *_NEW, *_OF_SIGNAL, *_OTHER))
_NEW_ALERT = Columns(Alert.__table__, (*_NEW_OPEN_ALERT.names, *_ENDS))
_kept, _firing, _new, _of_signal = (attrgetter(*names) for names in (_KEPT, _FIRING, _NEW, _OF_SIGNAL))


def _changed_alert(row: AlertRow) -> object:
    return _CHANGED_ALERT.record(*_kept(row), *_firing(row.episode), *_ends(row))


def _new_alert(row: AlertRow) -> tuple[Any, ...]:
    return (*_new_open_alert(row), *_ends(row))


def _new_open_alert(row: AlertRow) -> tuple[Any, ...]:
    incoming = row.incoming
    assert incoming is not None, "only new rows are inserted"
    signal = incoming.signal
    return (
        *_kept(row),
        *_firing(row.episode),
        *_new(row),
        *_of_signal(signal),
        incoming.decision.environment,
        row.window // _SECOND,
        row.max_span // _SECOND,
        as_json(signal.labels),
        as_json(signal.annotations),
        incoming.received_at,
    )


def _ends(row: AlertRow) -> tuple[Any, ...]:
    end, episode = row.end, row.episode
    return (
        *_pair(end),
        *_triple(episode.real),
        *_triple(episode.guessed),
        *_pair(episode.inferred),
        episode.manual_at,
    )


def _has_ends(row: AlertRow) -> bool:
    """Whether any end of it is known, even a void one."""
    episode = row.episode
    return row.end is not None or any((episode.real, episode.guessed, episode.inferred, episode.manual_at))


def _pair(end: End | None) -> tuple[Any, ...]:
    return _NO_PAIR if end is None else (end.at, end.reason)


def _triple(end: ReportedEnd | None) -> tuple[Any, ...]:
    return _NO_TRIPLE if end is None else (end.at, end.reason, end.reported_at)


_NO_PAIR, _NO_TRIPLE = (None, None), (None, None, None)
_SECOND = timedelta(seconds=1)


# — statements —

_ADD_SERVICES = """
    INSERT INTO service (name, first_seen_at, updated_at)
    SELECT name, CAST(:now AS timestamptz), CAST(:now AS timestamptz)
      FROM unnest(CAST(:services AS text[])) AS name
        ON CONFLICT DO NOTHING"""

_ADD_INCIDENTS = f"""
    INSERT INTO incident ({_NEW_INCIDENT}, version, created_at, updated_at)
    SELECT {_NEW_INCIDENT}, 1, CAST(:now AS timestamptz), CAST(:now AS timestamptz)
      FROM json_to_recordset(CAST(:new_incidents AS json)) AS new ({_NEW_INCIDENT.types()})
     ORDER BY began_at, id
    RETURNING id, number"""

_CHANGE_INCIDENTS = f"""
    UPDATE incident
       SET {_CHANGED_INCIDENT.assigned("changed", but={"id", "settled_at", *_COMMON})},
           settled_at = coalesce(incident.settled_at, changed.settled_at),
           labels = coalesce(changed.labels, incident.labels),
           source_ids = coalesce(changed.source_ids, incident.source_ids),
           stretches_current = false,
           version = incident.version + 1,
           updated_at = CAST(:now AS timestamptz)
      FROM json_to_recordset(CAST(:changed_incidents AS json)) AS changed ({_CHANGED_INCIDENT.types()})
     WHERE incident.id = changed.id"""

_CHANGE_ALERTS = f"""
    UPDATE alert
       SET {_CHANGED_ALERT.assigned("changed", but={"series", "started_at"})}
      FROM json_to_recordset(CAST(:changed_alerts AS json)) AS changed ({_CHANGED_ALERT.types()})
     WHERE alert.series = changed.series
       AND alert.started_at = changed.started_at"""

_UNMATCHED_RESOLVE = Columns(UnmatchedResolve.__table__, ("series", "ended_at", "end_reason", "reported_at"))

_ADD_UNMATCHED_RESOLVES = f"""
    INSERT INTO unmatched_resolve ({_UNMATCHED_RESOLVE})
    SELECT {_UNMATCHED_RESOLVE}
      FROM json_to_recordset(CAST(:unmatched_resolves AS json)) AS new ({_UNMATCHED_RESOLVE.types()})
        ON CONFLICT (series, ended_at)
        DO UPDATE SET {_UNMATCHED_RESOLVE.assigned("excluded", but={"series", "ended_at"})}"""

_ENTRY = Columns(TimelineEntry.__table__, Entry.__struct_fields__)

_ADD_TIMELINE = f"""
    INSERT INTO timeline ({_ENTRY}, recorded_at)
    SELECT {_ENTRY}, CAST(:now AS timestamptz)
      FROM json_to_recordset(CAST(:timeline AS json)) AS new ({_ENTRY.types()})"""

_COUNT = """
    INSERT INTO tally (name, source, label, shard, value)
    SELECT name, source, label, pg_backend_pid() % 16, value
      FROM json_to_recordset(CAST(:tallies AS json))
        AS new (name text, source text, label text, value double precision)
        ON CONFLICT (name, source, label, shard)
        DO UPDATE SET value = CASE WHEN tally.name = 'last_delivery' THEN greatest(tally.value, excluded.value)
                                   ELSE tally.value + excluded.value END"""
