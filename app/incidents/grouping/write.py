"""What a batch has made of alerts and incidents, written down: new alerts by COPY, everything else in one statement put
together of what there is.

After a merge or a split what people have said goes where it belongs, in statements of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from asyncpg.exceptions import UniqueViolationError
from sqlalchemy import TextClause, text

from app.base import db
from app.base.db import Executor
from app.incidents.grouping.batch import AlertRow, Batch, IncidentRow


class Raced(Exception):
    """Another process changed what this batch rests on in a way its locks did not cover. Roll back, and try again
    with `keys` locked as well.
    """

    def __init__(self, keys: frozenset[UUID] = frozenset()) -> None:
        super().__init__("raced")
        self.keys = keys


# Not `updated_at`: the clocks of replicas differ.
RULES_VERSION = "(SELECT version::text FROM rule_version)"


class Change(NamedTuple):
    """An INSERT or UPDATE that goes to the server in one statement with others."""

    name: str
    sql: str
    parameters: Mapping[str, Any]  # no two changes share a name of one, but `now`


Count = tuple[str, str, str, float]  # name, source and label of a tally, and how many more


async def write(tx: Executor, batch: Batch, also: Sequence[Change] = (), counts: Sequence[Count] = ()) -> str | None:
    """Everything that has changed, and `also`. Gives the version of the rules, None where nothing was written.

    Raises Raced where another process has told of one of the new alerts first.
    """
    if new_alerts := [_new_alert(row) for row in batch.rows if row.new]:
        try:
            await db.copy(tx, "alert", _NEW_ALERT_COLUMNS, new_alerts)
        except UniqueViolationError as error:
            raise Raced from error
    if batch.corrections:
        counts = [*counts, ("history_corrections", "", "", batch.corrections)]
    changes = [*_changes_of(batch), *also, *_counted(counts)]
    version: str | None = None
    if changes:
        version, numbers = await _write_together(tx, changes)
        for id_, number in _numbers.decode(numbers or "{}").items():
            batch.incidents[id_].number = number
    if batch.merged or batch.torn:
        # What is told now stays where it is told: facts move before it.
        await _move_facts(tx, batch)
        await _write_together(tx, [_timeline(batch)])
    return version


async def count(tx: Executor, counts: Sequence[Count]) -> None:
    """Adds to the tallies. Last in a transaction: the rows are hot."""
    for change in _counted(counts):
        await _write_together(tx, [change])


async def _write_together(tx: Executor, changes: Sequence[Change]) -> tuple[str, str | None]:
    """The version of the rules, and the numbers of new incidents by id, as JSON."""
    parameters: dict[str, Any] = {}
    for change in changes:
        if clash := parameters.keys() & change.parameters.keys() - {"now"}:
            raise ValueError(f"two changes have a parameter of the same name: {', '.join(clash)}")
        parameters |= change.parameters
    version, numbers = (await tx.execute(_as_one(tuple(change[:2] for change in changes)), parameters)).one()
    return version, numbers


@lru_cache
def _as_one(changes: tuple[tuple[str, str], ...]) -> TextClause:
    """Of those there are: PostgreSQL makes ready for every part of a statement, also for one that has nothing to do."""
    parts = ", ".join(f"{name} AS ({sql})" for name, sql in changes)
    numbers = "NULL"
    if any(name == "added_incident" for name, _ in changes):
        numbers = "(SELECT json_object_agg(id, number)::text FROM added_incident)"
    return text(f"WITH {parts} SELECT {RULES_VERSION}, {numbers}")


def _changes_of(batch: Batch) -> Iterator[Change]:
    """All but new alerts and, where facts have to move first, the timeline."""
    incidents = [one for one in batch.incidents.values() if one.dirty and one.id not in batch.merged]
    now = {"now": batch.now}
    if new := [_incident_json(one, batch.now) for one in incidents if one.new]:
        services = sorted({one.service for one in new})
        yield Change("added_service", _ADD_SERVICES, {"services": services, **now})
        yield Change("added_incident", _ADD_INCIDENTS, {"new_incidents": _rows(new), **now})
    if known := [_incident_json(one, batch.now) for one in incidents if not one.new]:
        yield Change("changed_incident", _CHANGE_INCIDENTS, {"changed_incidents": _rows(known), **now})
    if alerts := [_alert_json(row) for row in batch.rows if not row.new and row.dirty]:
        yield Change("changed_alert", _CHANGE_ALERTS, {"changed_alerts": _rows(alerts)})
    if batch.loose_ends:
        ends = [{"series": series, "ended_at": end.at, "end_reason": end.reason} for series, end in batch.loose_ends]
        yield Change("added_loose_end", _ADD_LOOSE_ENDS, {"loose_ends": _rows(ends)})
    if batch.timeline and not (batch.merged or batch.torn):
        yield _timeline(batch)


def _timeline(batch: Batch) -> Change:
    entries = [
        {"incident_id": batch.merged.get(incident, incident), "at": at, "kind": kind, "detail": detail}
        for incident, at, kind, detail in batch.timeline
    ]
    return Change("told", _ADD_TIMELINE, {"timeline": _rows(entries), "now": batch.now})


def _counted(counts: Sequence[Count]) -> Iterator[Change]:
    if counts:
        rows = [
            {"name": name, "source": source, "label": label, "value": value}
            for name, source, label, value in sorted(counts)
        ]
        yield Change("counted", _COUNT, {"tallies": _rows(rows)})


def _rows(rows: Sequence[object]) -> str:
    return _json.encode(rows).decode()


class _IncidentJson(msgspec.Struct, omit_defaults=True):
    """A row of `incident` as `_INCIDENT_TYPES` reads it; of one that is known, what may change."""

    id: UUID
    severity: int
    began_at: datetime
    last_start_at: datetime
    island_at: datetime
    reopened: int
    alerts: int
    open_alerts: int
    still_firing: bool
    ended_at: datetime | None = None
    first_ended_at: datetime | None = None
    last_end_at: datetime | None = None
    reach_at: datetime | None = None
    end_reason: str | None = None
    settled_at: datetime | None = None
    impact_told_at: datetime | None = None
    labels: Mapping[str, str] | None = None
    source_ids: list[int] | None = None
    key_id: UUID | None = None
    key: str | None = None
    rule: str | None = None
    title: str | None = None
    service: str = ""
    alert_class: str | None = None
    declared: bool | None = None


def _incident_json(incident: IncidentRow, now: datetime) -> _IncidentJson:
    course = incident.course
    known, end = not incident.new, course.last_end
    json = _IncidentJson(
        id=incident.id,
        severity=course.severity,
        began_at=course.began_at,
        last_start_at=course.last_start_at,
        island_at=course.island_at,
        reopened=course.reopened,
        alerts=course.alerts,
        open_alerts=course.open_alerts,
        still_firing=incident.still_firing,
        ended_at=course.ended_at,
        first_ended_at=course.first_ended_at,
        last_end_at=end.at if end else None,
        reach_at=course.reach_at,
        end_reason=end.reason if end else None,
        settled_at=now if incident.settled else None,
        impact_told_at=course.impact_told_at,
    )
    if incident.common_changed or not known:
        json.labels = incident.labels
        json.source_ids = sorted(incident.source_ids)
    if not known:
        json.key_id = incident.key_id
        json.key = incident.key
        json.rule = incident.rule
        json.title = incident.title
        json.service = incident.service
        json.alert_class = incident.alert_class
        json.declared = incident.declared
    return json


class _AlertJson(msgspec.Struct, omit_defaults=True):
    """A row of `alert` as `_ALERT_TYPES` reads it: what may change."""

    series: UUID
    started_at: datetime
    incident_id: UUID | None
    last_seen_at: datetime | None
    real_end_guessed: bool
    sender_ended: bool
    real_end_at: datetime | None = None
    real_end_reason: str | None = None
    manual_end_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None


def _changeable(row: AlertRow) -> tuple[Any, ...]:
    """The fields of `_AlertJson`, in its order."""
    real_end, end = row.real_end, row.end
    return (
        row.series,
        row.started_at,
        row.incident_id,
        row.last_seen_at,
        real_end is not None and real_end.guessed,
        row.sender_ended,
        real_end.at if real_end else None,
        real_end.reason if real_end else None,
        row.manual_end_at,
        end.at if end else None,
        end.reason if end else None,
    )


def _alert_json(row: AlertRow) -> _AlertJson:
    return _AlertJson(*_changeable(row))


def _new_alert(row: AlertRow) -> tuple[Any, ...]:
    """A whole row of `alert`: its `_NEW_ALERT_COLUMNS`."""
    incoming = row.incoming
    assert incoming is not None, "only new rows are inserted"
    signal = incoming.signal
    return (
        *_changeable(row),
        row.source_id,
        signal.fingerprint,
        row.key_id,
        int(row.window.total_seconds()),
        int(row.max_span.total_seconds()),
        row.severity,
        signal.alert_class,
        _json.encode(signal.labels).decode(),
        _json.encode(signal.annotations).decode(),
        signal.link,
        signal.flags,
        incoming.received_at,
        row.impact_told_at,
    )


_NEW_ALERT_COLUMNS = (
    "series",
    "started_at",
    "incident_id",
    "last_seen_at",
    "real_end_guessed",
    "sender_ended",
    "real_end_at",
    "real_end_reason",
    "manual_end_at",
    "ended_at",
    "end_reason",
    "source_id",
    "fingerprint",
    "key_id",
    "window_seconds",
    "max_span_seconds",
    "severity",
    "alert_class",
    "labels",
    "annotations",
    "link",
    "flags",
    "first_seen_at",
    "impact_told_at",
)

_json = msgspec.json.Encoder(enc_hook=dict)  # a mapping that is none: `NO_LABELS`
_numbers = msgspec.json.Decoder(dict[UUID, int])

_INCIDENT_TYPES = """id uuid, key_id uuid, key text, rule text, title text, service text, severity smallint,
    alert_class text, labels jsonb, source_ids integer[], began_at timestamptz, ended_at timestamptz,
    first_ended_at timestamptz, last_end_at timestamptz, last_start_at timestamptz, island_at timestamptz,
    reach_at timestamptz, reopened integer, alerts integer, open_alerts integer, end_reason text, still_firing boolean,
    settled_at timestamptz, declared boolean, impact_told_at timestamptz"""
_INCIDENT_NAMES = ", ".join(part.split()[0] for part in _INCIDENT_TYPES.split(","))

_CHANGE_TYPES = """id uuid, severity smallint, labels json, source_ids integer[], began_at timestamptz,
    ended_at timestamptz, first_ended_at timestamptz, last_end_at timestamptz, last_start_at timestamptz,
    island_at timestamptz, reach_at timestamptz, reopened integer, alerts integer, open_alerts integer,
    end_reason text, still_firing boolean, settled_at timestamptz, impact_told_at timestamptz"""

_ALERT_TYPES = """series uuid, started_at timestamptz, incident_id uuid, real_end_at timestamptz, real_end_reason text,
    real_end_guessed boolean, sender_ended boolean, manual_end_at timestamptz, ended_at timestamptz, end_reason text,
    last_seen_at timestamptz"""

_ADD_SERVICES = """
    INSERT INTO service (name, first_seen_at, updated_at)
    SELECT name, CAST(:now AS timestamptz), CAST(:now AS timestamptz)
      FROM unnest(CAST(:services AS text[])) AS name
        ON CONFLICT DO NOTHING"""

_ADD_INCIDENTS = f"""
    INSERT INTO incident ({_INCIDENT_NAMES}, version, created_at, updated_at)
    SELECT {_INCIDENT_NAMES}, 1, CAST(:now AS timestamptz), CAST(:now AS timestamptz)
      FROM json_to_recordset(CAST(:new_incidents AS json)) AS new ({_INCIDENT_TYPES})
     ORDER BY began_at, id
    RETURNING id, number"""

_CHANGE_INCIDENTS = f"""
    UPDATE incident
       SET labels = coalesce(changed.labels::jsonb, incident.labels),
           source_ids = coalesce(changed.source_ids, incident.source_ids),
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
           updated_at = CAST(:now AS timestamptz)
      FROM json_to_recordset(CAST(:changed_incidents AS json)) AS changed ({_CHANGE_TYPES})
     WHERE incident.id = changed.id"""

_CHANGE_ALERTS = f"""
    UPDATE alert
       SET incident_id = changed.incident_id,
           real_end_at = changed.real_end_at,
           real_end_reason = changed.real_end_reason,
           real_end_guessed = changed.real_end_guessed,
           sender_ended = changed.sender_ended,
           manual_end_at = changed.manual_end_at,
           ended_at = changed.ended_at,
           end_reason = changed.end_reason,
           last_seen_at = changed.last_seen_at
      FROM json_to_recordset(CAST(:changed_alerts AS json)) AS changed ({_ALERT_TYPES})
     WHERE alert.series = changed.series
       AND alert.started_at = changed.started_at"""

_ADD_LOOSE_ENDS = """
    INSERT INTO loose_end (series, ended_at, end_reason)
    SELECT series, ended_at, end_reason
      FROM json_to_recordset(CAST(:loose_ends AS json)) AS new (series uuid, ended_at timestamptz, end_reason text)
        ON CONFLICT DO NOTHING"""

_ADD_TIMELINE = """
    INSERT INTO timeline (incident_id, at, recorded_at, kind, detail)
    SELECT incident_id, at, CAST(:now AS timestamptz), kind, detail
      FROM json_to_recordset(CAST(:timeline AS json))
        AS new (incident_id uuid, at timestamptz, kind text, detail jsonb)"""

_COUNT = """
    INSERT INTO tally (name, source, label, shard, value)
    SELECT name, source, label, pg_backend_pid() % 16, value
      FROM json_to_recordset(CAST(:tallies AS json))
        AS new (name text, source text, label text, value double precision)
        ON CONFLICT (name, source, label, shard)
        DO UPDATE SET value = CASE WHEN tally.name = 'last_delivery' THEN greatest(tally.value, excluded.value)
                                   ELSE tally.value + excluded.value END"""


# — people's facts, when incidents are joined or torn apart —


async def _move_facts(tx: Executor, batch: Batch) -> None:
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
               updated_at = CAST(:now AS timestamptz)
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
