"""Places what people did in other tools, as their sources report it, in the timelines of incidents.

A reaction belongs to these incidents, whatever the order of arrival:

    that of the newest alert of its series that began at or before it, if there is one; otherwise
    every one with an alert of its correlation that was open at its time; otherwise
    every one with an alert of its correlation that ended before its time, by at most the window of that alert

It has one entry in the timeline of each, and waits while there is none. As alerts begin, end, move, or get a
correlation, entries are added, moved to another incident, or removed. An entry that a person has corrected or withdrawn
stays: it moves only with the series of its reaction, and in merges and splits.

`place_reactions` changes the timelines of incidents only if their key is locked. What remains is left to the next run
of `app/incidents/history/reactions.py`, which locks all keys it needs. That run also places every reaction once more,
because transactions that run at the same time do not see each other's alerts.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from app.base.db import Transaction
from app.base.db.recordset import as_json
from app.incidents.grouping.facts import derive_facts
from app.incidents.grouping.timeline_kind import TimelineKind

LONGEST_WINDOW = "interval '48 hours'"  # of the rules: `rule_window_is_60s_to_48h`


# — the decision —


class PlacedEntry(NamedTuple):
    """An entry of a reaction. `fact` is the id of its first entry; `own` is the incident of the newest alert of the
    reaction's series that began at or before the time of this entry, if any.
    """

    id: int
    fact: int
    incident: UUID
    own: UUID | None = None


class Steps(NamedTuple):
    """The changes that make the entries of one reaction right. `moved` has the new incident by the id of the entry."""

    added: Sequence[UUID]
    moved: Mapping[int, UUID]
    removed: Sequence[int]


def steps_to(
    targets: Collection[UUID],
    entries: Sequence[PlacedEntry],
    *,
    by_series: bool,
    locked: AbstractSet[UUID] | None = None,
) -> tuple[Steps, bool]:
    """The steps after which the reaction has one entry in each target, and whether these are all that are needed: only
    incidents in `locked` may change (None: all).

    A corrected fact stands for the entry of the incident where it was first recorded, and if the targets are
    `by_series`, for the only one.
    """
    facts: dict[int, list[PlacedEntry]] = defaultdict(list)
    for entry in sorted(entries):
        facts[entry.fact].append(entry)
    corrected = [those for those in facts.values() if len(those) > 1]
    moves: dict[PlacedEntry, UUID] = {}
    if by_series:
        for entry in (one for those in corrected for one in those):
            if entry.own is not None and entry.own != entry.incident:
                moves[entry] = entry.own
        missing = set() if corrected else set(targets)
    else:
        missing = set(targets) - {those[0].incident for those in corrected}
    surplus: list[PlacedEntry] = []
    for those in facts.values():
        if len(those) == 1 and those[0].incident in missing:
            missing.remove(those[0].incident)
        elif len(those) == 1:
            surplus += those
    return _allowed(moves, sorted(missing), surplus, locked)


def _allowed(
    moves: Mapping[PlacedEntry, UUID],
    missing: Sequence[UUID],
    surplus: Sequence[PlacedEntry],
    locked: AbstractSet[UUID] | None,
) -> tuple[Steps, bool]:
    """The steps within `locked`, and whether that is all."""

    def may(incident: UUID) -> bool:
        return locked is None or incident in locked

    moved = {entry.id: target for entry, target in moves.items() if may(entry.incident) and may(target)}
    targets = [target for target in missing if may(target)]
    movable = [entry.id for entry in surplus if may(entry.incident)]
    complete = (len(moved), len(targets), len(movable)) == (len(moves), len(missing), len(surplus))
    instead = dict(zip(movable, targets, strict=False))
    return Steps(targets[len(movable) :], moved | instead, movable[len(targets) :]), complete


# — around it —


class Affected(NamedTuple):
    """The series in which alerts have begun; the correlations of alerts that have begun, ended, moved or got one; and
    the incidents that were merged or split.
    """

    series: Collection[UUID] = ()
    correlations: Collection[UUID] = ()
    incidents: Collection[UUID] = ()


async def place_affected(tx: Transaction, affected: Affected, keys: Collection[UUID], *, now: datetime) -> int:
    """Places the reactions that these changes of alerts may concern. Only incidents of `keys` change, which must be
    locked. Returns how many settled incidents have changed.
    """
    series, correlations, incidents = map(list, affected)
    parameters = {"series": series, "correlations": correlations, "incidents": incidents}
    ids = [row[0] for row in await tx.execute(_AFFECTED, parameters)]
    return await place_reactions(tx, ids, keys, now=now) if ids else 0


async def keys_of_reactions(tx: Transaction, ids: Collection[int]) -> set[UUID]:
    """The grouping keys of the incidents to which these reactions belong, and in which they have entries."""
    targets = [*await tx.execute(_TARGETS, {"ids": list(ids)})]
    entries = [*await tx.execute(_ENTRIES, {"ids": list(ids)})]
    return {row[2] for row in targets} | {key for row in entries for key in (row[4], row[6]) if key is not None}


async def place_reactions(
    tx: Transaction,
    ids: Collection[int],
    keys: Collection[UUID],
    *,
    now: datetime,
    due: Mapping[int, datetime] | None = None,
) -> int:
    """Places these reactions. Only incidents of `keys` change, which must be locked.

    They are due once more in a minute, unless they were `due` since then (by id): then they are where they belong.
    Returns how many settled incidents have changed.
    """
    parameters = {"ids": list(ids)}
    reactions = {row[0]: row for row in await tx.execute(_REACTIONS, parameters)}
    targets: dict[int, set[UUID]] = defaultdict(set)
    entries: dict[int, list[PlacedEntry]] = defaultdict(list)
    by_series: set[int] = set()
    key_of: dict[UUID, UUID] = {}
    for id_, incident, key, is_own in await tx.execute(_TARGETS, parameters):
        key_of[incident] = key
        targets[id_].add(incident)
        if is_own:
            by_series.add(id_)
    for id_, entry_id, fact, incident, key, own, own_key in await tx.execute(_ENTRIES, parameters):
        key_of[incident] = key
        if own is not None:
            key_of[own] = own_key
        entries[id_].append(PlacedEntry(entry_id, fact, incident, own))
    locked = {incident for incident, key in key_of.items() if key in set(keys)}
    changes = _Changes()
    for id_, reaction in reactions.items():
        steps, complete = steps_to(targets[id_], entries[id_], by_series=id_ in by_series, locked=locked)
        changes.take(reaction, steps, {entry.id: entry.incident for entry in entries[id_]})
        waits = len(entries[id_]) + len(steps.added) == len(steps.removed)
        changes.states.append({"id": id_, "waits": waits, "complete": complete, "seen": due and due[id_]})
    return await changes.store(tx, now=now)


class _Changes:
    def __init__(self) -> None:
        self.added: list[Mapping[str, object]] = []
        self.moved: list[Mapping[str, object]] = []
        self.removed: list[int] = []
        self.states: list[Mapping[str, object]] = []
        self.acknowledged: set[UUID] = set()  # incidents whose acknowledgement may have changed

    def take(self, reaction: "_Reaction", steps: Steps, incident_of: Mapping[int, UUID]) -> None:
        id_, kind, at, by, note, at_arrival, source = reaction
        detail = {"source": source, "at_arrival": True} if at_arrival else {"source": source}
        for incident in steps.added:
            entry = {"incident_id": incident, "at": at, "kind": kind, "by": by, "note": note, "detail": detail}
            self.added.append(entry | {"reaction_id": id_})
        self.moved += [{"id": entry, "incident_id": incident} for entry, incident in steps.moved.items()]
        self.removed += steps.removed
        if kind == TimelineKind.ACKNOWLEDGED:
            left = {incident_of[entry] for entry in (*steps.moved, *steps.removed)}
            self.acknowledged |= {*steps.added, *steps.moved.values(), *left}

    async def store(self, tx: Transaction, *, now: datetime) -> int:
        if self.removed:
            await tx.execute(_REMOVE_ENTRIES, {"ids": self.removed})
        if self.moved:
            await tx.execute(_MOVE_ENTRIES, {"rows": as_json(self.moved)})
        if self.added:
            await tx.execute(_ADD_ENTRIES, {"rows": as_json(self.added), "now": now})
        settled = []
        if self.acknowledged:
            await derive_facts(tx, self.acknowledged)
            parameters = {"ids": list(self.acknowledged), "now": now}
            settled = [row[0] for row in await tx.execute(_MARK_CHANGED, parameters)]
        await tx.execute(_KEEP_STATES, {"rows": as_json(self.states)})
        return sum(settled)


_Reaction = tuple[int, str, datetime, str | None, str | None, bool, str]

_AFFECTED = text("""
    SELECT id
      FROM reaction
     WHERE series = ANY(CAST(:series AS uuid[]))
     UNION
    SELECT id
      FROM reaction
     WHERE correlation = ANY(CAST(:correlations AS uuid[]))
     UNION
    SELECT reaction.id
      FROM timeline
      JOIN timeline AS first ON first.id = coalesce(timeline.corrects, timeline.id)
      JOIN reaction ON reaction.id = first.reaction_id
     WHERE timeline.incident_id = ANY(CAST(:incidents AS uuid[]))
""")

_REACTIONS = text("""
    SELECT reaction.id, reaction.kind, reaction.at, reaction.by, reaction.note, reaction.at_arrival, source.name
      FROM reaction
      JOIN source ON source.id = reaction.source_id
     WHERE reaction.id = ANY(CAST(:ids AS bigint[]))
     ORDER BY reaction.id
""")

# By correlation: only alerts of incidents that were open then, or ended within the longest window before.
_TARGETS = text(f"""
    WITH wanted AS MATERIALIZED (
        SELECT id, at, series, correlation
          FROM reaction
         WHERE id = ANY(CAST(:ids AS bigint[]))
    ), own AS MATERIALIZED (
        SELECT wanted.id, newest.incident_id
          FROM wanted
         CROSS JOIN LATERAL (
               SELECT alert.incident_id
                 FROM alert
                WHERE alert.series = wanted.series
                  AND alert.started_at <= wanted.at
                ORDER BY alert.started_at DESC
                LIMIT 1
               ) AS newest
    ), correlated AS (
        SELECT wanted.id, alert.incident_id, alert.ended_at IS NULL OR alert.ended_at > wanted.at AS was_open
          FROM wanted
         CROSS JOIN LATERAL (
               SELECT id, key_id, began_at, last_start_at
                 FROM incident
                WHERE ended_at IS NULL
                  AND merged_into IS NULL
                  AND began_at <= wanted.at
                UNION ALL
               SELECT id, key_id, began_at, last_start_at
                 FROM incident
                WHERE ended_at >= wanted.at - {LONGEST_WINDOW}
                  AND merged_into IS NULL
                  AND began_at <= wanted.at
                  AND reach_at >= wanted.at
               ) AS near
          JOIN alert
            ON alert.key_id = near.key_id
           AND alert.started_at BETWEEN near.began_at AND least(near.last_start_at, wanted.at)
           AND alert.incident_id = near.id
         WHERE wanted.correlation = ANY(alert.correlations)
           AND (alert.ended_at IS NULL OR alert.ended_at + alert.window_seconds * interval '1 second' >= wanted.at)
           AND wanted.id NOT IN (SELECT id FROM own)
    ), found AS (
        SELECT id, incident_id, true AS is_own
          FROM own
         UNION
        SELECT id, incident_id, false
          FROM (SELECT *, bool_or(was_open) OVER (PARTITION BY id) AS one_was_open
                  FROM correlated) AS correlated
         WHERE was_open = one_was_open
    )
    SELECT found.id, found.incident_id, incident.key_id, found.is_own
      FROM found
      JOIN incident ON incident.id = found.incident_id
""")  # noqa: S608  a constant of this file

# With the incident of the newest alert of the series at the time of each entry, which a correction may have changed.
_ENTRIES = text("""
    SELECT first.reaction_id, entry.id, first.id, entry.incident_id, incident.key_id, newest.incident_id, newest.key_id
      FROM timeline AS first
      JOIN reaction ON reaction.id = first.reaction_id
      JOIN timeline AS entry
        ON entry.id = first.id
        OR entry.corrects = first.id
      JOIN incident ON incident.id = entry.incident_id
      LEFT JOIN LATERAL (
           SELECT alert.incident_id, alert.key_id
             FROM alert
            WHERE alert.series = reaction.series
              AND alert.started_at <= entry.at
            ORDER BY alert.started_at DESC
            LIMIT 1
           ) AS newest ON true
     WHERE first.reaction_id = ANY(CAST(:ids AS bigint[]))
""")

_ADD_ENTRIES = text("""
    INSERT INTO timeline (incident_id, at, recorded_at, kind, by, note, detail, reaction_id)
    SELECT incident_id, at, CAST(:now AS timestamptz), kind, by, note, detail, reaction_id
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (
           incident_id uuid, at timestamptz, kind text, by text, note text, detail jsonb, reaction_id bigint)
""")

_MOVE_ENTRIES = text("""
    UPDATE timeline
       SET incident_id = moved.incident_id
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS moved (id bigint, incident_id uuid)
     WHERE timeline.id = moved.id
""")

_REMOVE_ENTRIES = text("""
    WITH removed AS (
        DELETE FROM timeline
         WHERE id = ANY(CAST(:ids AS bigint[]))
        RETURNING id, transaction_id
    )
    INSERT INTO removed_entry (id, transaction_id)
    SELECT id, transaction_id
      FROM removed
""")

_MARK_CHANGED = text("""
    UPDATE incident
       SET version = version + 1,
           updated_at = CAST(:now AS timestamptz)
     WHERE id = ANY(CAST(:ids AS uuid[]))
    RETURNING settled_at IS NOT NULL
""")

# In a minute, all transactions that have missed it are over. A reaction that will be placed soon anyway is not written
# again, and one that has become due meanwhile stays due. In order, so that two batches do not wait for each other.
_KEEP_STATES = text("""
    UPDATE reaction
       SET waits = state.waits,
           due_at = CASE WHEN NOT state.complete THEN clock_timestamp()
                         WHEN state.seen IS NULL THEN clock_timestamp() + interval '1 minute'
                         WHEN reaction.due_at <> state.seen THEN reaction.due_at END
      FROM (SELECT state.*
              FROM jsonb_to_recordset(CAST(:rows AS jsonb))
                AS state (id bigint, waits boolean, complete boolean, seen timestamptz)
              JOIN reaction USING (id)
             WHERE state.seen IS NOT NULL
                OR reaction.waits <> state.waits
                OR NOT state.complete
                OR reaction.due_at IS NULL
                OR reaction.due_at < clock_timestamp() + interval '30 seconds'
             ORDER BY reaction.id
               FOR UPDATE OF reaction) AS state
     WHERE reaction.id = state.id
""")
