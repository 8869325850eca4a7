"""Turns signals into incidents: many deliveries form one batch in one transaction.

The number of statements does not depend on the number of signals. The steps are always the same:

    lock the keys     in sorted order, so that concurrent batches with the same keys wait instead of deadlocking
    read the series   of every signal (`read.py`) and compute the end of each alert (`law/series.py`)
    place by key      new and newly ended alerts: with only the newest incident of their key if that is enough,
                      otherwise with the whole chain of incidents and alerts around them (`law/placement.py`)
    write             new alerts by COPY, all other changes in one statement (`write.py`)

Each step takes one or a few statements, because a round trip costs as much as ten alerts. The decisions themselves are
pure; this file calls them and does the I/O around them.

Actions by people (`incidents/actions.py`) change alerts too and go through the same steps, starting with `place`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from hashlib import blake2b
from uuid import UUID

from msgspec.structs import replace
from sqlalchemy import text

from app.base.db import Transaction
from app.base.process.threads import give_way
from app.base.values.ids import new_id, uuid_of
from app.incidents.grouping.batch import AlertRow, Batch, Incoming, KnownSeries, SignalOutcome, outcome_of
from app.incidents.grouping.law.placement import place_by_newest, regroup, touched_span
from app.incidents.grouping.law.series import apply_signals, compute_ends
from app.incidents.grouping.read import read_alerts_of, read_chains, read_newest, read_refire, read_series
from app.incidents.grouping.write import RULES_VERSION, BatchConflict, write


async def apply(
    tx: Transaction, incoming: Sequence[Incoming], *, now: datetime, also_lock: Iterable[UUID] = ()
) -> list[SignalOutcome]:
    """Applies the signals and returns the outcome of each, in the same order. Raises BatchConflict."""
    keys = keys_of(incoming) | set(also_lock)
    await lock_keys(tx, keys)
    batch = await decide(tx, incoming, keys, now=now)
    await write(tx, batch)
    return [outcome_of(batch, index) for index in range(len(incoming))]


def keys_of(incoming: Sequence[Incoming]) -> set[UUID]:
    """The grouping keys to lock for these signals."""
    return {one.decision.key_id for one in incoming if not one.signal.test}


async def decide(tx: Transaction, incoming: Sequence[Incoming], keys: AbstractSet[UUID], *, now: datetime) -> Batch:
    """Computes the changes to alerts and incidents without writing them. `keys` must be locked.

    Raises BatchConflict.
    """
    batch = Batch(now, new_id)
    by_series: dict[UUID, list[int]] = defaultdict(list)
    first_at: dict[UUID, datetime] = {}
    for index, one in enumerate(incoming):
        if not one.signal.test:
            series = series_of(one.source_id, one.signal.fingerprint)
            by_series[series].append(index)
            at = one.signal.started_at or one.signal.ended_at or one.signal.happened_at or one.received_at
            first_at[series] = min(at, first_at.get(series, at))
    if not by_series:
        return batch
    known = await _known_series(tx, batch, first_at)
    done = 0
    for series, indices in by_series.items():
        apply_signals(batch, series, known.get(series) or KnownSeries(), incoming, indices)
        done = await give_way(done, len(indices))
    # If the rule has changed since, the alert keeps its old key, which is not locked. Even a repeat writes the row.
    if strangers := {row.key_id for row in batch.rows if row.dirty} - keys:
        raise BatchConflict(frozenset(strangers))
    await place(tx, batch, [row for row in batch.rows if row.new or row.before is not None])
    return batch


async def place(tx: Transaction, batch: Batch, changed: Sequence[AlertRow], *, whole_chains: bool = False) -> None:
    """Assigns every new or changed alert to an incident. The keys must be locked. `whole_chains` skips the shortcut
    that uses only the newest incident.
    """
    if not changed:
        return
    by_key: dict[UUID, list[AlertRow]] = defaultdict(list)
    for row in changed:
        by_key[row.key_id].append(row)
    keys = list(by_key)
    if not whole_chains:
        newest = {incident.key_id: incident for incident in await read_newest(tx, keys)}
        batch.add_incidents(newest.values())
        keys, done = [], 0
        for key, rows in by_key.items():
            if not place_by_newest(batch, newest.get(key), rows):
                keys.append(key)
            done = await give_way(done, len(rows))
    if not keys:
        return
    incidents = await read_chains(tx, {key: touched_span(by_key[key]) for key in keys})
    batch.add_incidents(incidents)
    alerts = {key: {(row.series, row.started_at): row for row in by_key[key]} for key in keys}
    for row in batch.adopt(await read_alerts_of(tx, [incident.id for incident in incidents])):
        alerts[row.key_id][row.series, row.started_at] = row
    for key in keys:
        known = [incident for incident in incidents if incident.key_id == key]
        regroup(batch, known, list(alerts[key].values()), by_key[key])


async def _known_series(tx: Transaction, batch: Batch, first_at: dict[UUID, datetime]) -> dict[UUID, KnownSeries]:
    known = await read_series(tx, first_at)
    adopted = iter(batch.adopt([row for one in known.values() for row in one.alerts]))
    for one in known.values():
        one.alerts = [next(adopted) for _ in one.alerts]
    return known


def series_of(source_id: int, fingerprint: str) -> UUID:
    """The id of a series."""
    return uuid_of(blake2b(b"%d\0" % source_id + fingerprint.encode(), digest_size=16).digest())


# — changes by people —


async def read_open_alerts(tx: Transaction, batch: Batch, incident_id: UUID) -> list[AlertRow]:
    """The open alerts of an incident, whose key must be locked."""
    return [row for row in batch.adopt(await read_alerts_of(tx, [incident_id])) if row.end is None]


async def read_ended_by_hand(tx: Transaction, batch: Batch, incident_id: UUID) -> list[AlertRow]:
    """The alerts of an incident, whose key must be locked, that a person ended."""
    return [row for row in batch.adopt(await read_alerts_of(tx, [incident_id])) if row.episode.manual_at is not None]


async def read_ended_by_resolve(tx: Transaction, batch: Batch, key_id: UUID, at: datetime) -> list[AlertRow]:
    """The alerts of a key, which must be locked, that a person's resolve at this time ended."""
    incidents = [row[0] for row in await tx.execute(_ENDED_BY_RESOLVE, {"key_id": key_id, "at": at})]
    return [row for row in batch.adopt(await read_alerts_of(tx, incidents)) if row.episode.manual_at == at]


# They may belong to several incidents by now.
_ENDED_BY_RESOLVE = text("""
    SELECT DISTINCT incident_id
      FROM alert
     WHERE key_id = :key_id
       AND started_at <= :at
       AND manual_end_at = :at
""")


async def change_manual_ends(
    tx: Transaction, batch: Batch, alerts: Sequence[AlertRow], at: datetime | None
) -> list[AlertRow]:
    """Moves the manual ends of these alerts to `at`, or removes them; returns the alerts whose end has changed."""
    if not alerts:
        return []
    first_at: dict[UUID, datetime] = {}
    for row in alerts:
        first_at[row.series] = min(first_at.get(row.series, row.started_at), row.started_at)
        row.episode = replace(row.episode, manual_at=at)
    refire = await read_refire(tx, {row.source_id for row in alerts})
    for known in (await _known_series(tx, batch, first_at)).values():
        compute_ends(known, refire=refire[known.alerts[0].source_id])
    return [row for row in alerts if row.before is not None]


# — locks, and the version of the rules —

_LOCK_CLASS = 0x616D  # of Aftermath's advisory locks: "am"
_LOCK_BUCKETS = 4096
_RULES_BUCKET = _LOCK_BUCKETS  # shared by all batches; the trigger that counts changes of rules takes it alone


def lock(keys: Iterable[UUID]) -> str:
    """SQL that locks the alerts and incidents of these keys until the transaction ends, and the rules against changes.

    A series whose rule changes gets another key, so batches decided by different rules must not run at the same time.
    The rules come first, so that a batch that waits for them holds no key.

    It uses advisory locks, because the first delivery of a key finds no row to lock. Keys share a fixed number of
    buckets, because PostgreSQL's lock table is bounded, and buckets are locked in sorted order. The SQL has no
    parameters, so that it can be sent together with the preceding BEGIN.
    """
    buckets = ",".join(map(str, sorted({key.int % _LOCK_BUCKETS for key in keys})))
    return f"""
          WITH rules AS MATERIALIZED (
               SELECT pg_advisory_xact_lock_shared({_LOCK_CLASS}, {_RULES_BUCKET})
               )
        SELECT count(pg_advisory_xact_lock({_LOCK_CLASS}, bucket))
          FROM rules, unnest('{{{buckets}}}'::integer[]) AS bucket"""


async def lock_keys(tx: Transaction, keys: Iterable[UUID]) -> None:
    """Requires a transaction that has begun."""
    await tx.execute(text(lock(keys)), {})


# The same lock without waiting, for queries on `incident`. The bucket is the last 12 bits of the key.
TRY_LOCK_KEY = f"pg_try_advisory_xact_lock({_LOCK_CLASS}, ('x' || right(incident.key_id::text, 3))::bit(12)::integer)"


async def rules_version(tx: Transaction) -> int:
    """The current version of the rules. Decisions made with another version must be repeated."""
    version: int = (await tx.execute(_VERSION, {})).one()[0]
    return version


_VERSION = text(f"SELECT {RULES_VERSION}")
