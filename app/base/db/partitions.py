"""Monthly partitions of the tables that keep growing: created in advance, and dropped after the retention period.

The table `alert` has one partition per calendar month in UTC (`alert_202611`), and `alert_past` for everything older.
Only alerts and deliveries are dropped; incidents, their timelines and measures stay. Some alerts move to `alert_past`
instead: those that grouping may still need, because their incident is open or ended less than two days before the cut,
and those of incidents whose stretches, from which downtime and cost are computed, are not stored yet.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

MONTHS_AHEAD = 2
PARTITIONED: Mapping[str, str] = {
    "alert": "started_at",
    "delivery": "received_at",
}  # by this column
PARTITION_NAME = re.compile(rf"({'|'.join(PARTITIONED)})_(past|\d{{6}})")


@dataclass(frozen=True, slots=True)
class Partition:
    """A month, or everything before it; `until` is exclusive."""

    name: str
    until: datetime

    @property
    def is_past(self) -> bool:
        return self.name.endswith("_past")


async def maintain(tx: AsyncConnection, *, now: datetime, keep: Mapping[str, timedelta]) -> list[str]:
    """Creates the partitions of the next months and drops those older than the retention `keep` of their table.

    Returns a description of each change. Concurrent runs are serialized. Fails with SQLSTATE 55P03 if a table is
    locked; retry later.
    """
    await tx.execute(text("SET LOCAL lock_timeout = '2s'"))
    await tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    done = []
    for table in PARTITIONED:
        known = await partitions(tx, table)
        newest = max(partition.until for partition in known)
        for month in _months(newest, _month_of(now), MONTHS_AHEAD):
            await _add(tx, table, name := f"{table}_{month:%Y%m}", month, _next(month))
            done.append(f"created {name}")
        if table in keep:
            retired = await _retire(tx, table, known, _month_of(now - keep[table]))
            done += [f"dropped {name}" for name in retired]
    return done


class _Bound(NamedTuple):
    name: str
    until: str


async def partitions(tx: AsyncConnection, table: str) -> list[Partition]:
    """Oldest first."""
    bounds = [_Bound(*row) for row in await tx.execute(_PARTITIONS, {"table": table})]
    return sorted(
        (Partition(bound.name, datetime.fromisoformat(bound.until).astimezone(UTC)) for bound in bounds),
        key=lambda partition: partition.until,
    )


async def _add(tx: AsyncConnection, table: str, name: str, since: datetime, until: datetime) -> None:
    # Created separately and then attached, because `PARTITION OF` would lock out all readers.
    await _create(tx, table, name)
    await tx.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{since}') TO ('{until}')"))


async def _create(tx: AsyncConnection, table: str, name: str) -> None:
    # Leave room for the next version of a row on the same page.
    storage = "WITH (fillfactor = 85)" if table == "alert" else ""
    await tx.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL) {storage}"))


async def _retire(tx: AsyncConnection, table: str, known: list[Partition], before: datetime) -> list[str]:
    old = [partition for partition in known if partition.until <= before]
    months = [partition.name for partition in old if not partition.is_past]
    if not months:
        return []
    until, past = old[-1].until, f"{table}_past"
    for partition in old:
        await tx.execute(text(f"ALTER TABLE {table} DETACH PARTITION {partition.name}"))
    await tx.execute(text(f"ALTER TABLE {past} RENAME TO {past}_dropped"))
    await _create(tx, table, past)
    for name in (f"{past}_dropped", *months):
        if table == "alert":
            await tx.execute(text(_KEEP_NEEDED.format(past=past, name=name)), {"until": until})
        await tx.execute(text(f"DROP TABLE {name}"))
    await tx.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {past} FOR VALUES FROM (MINVALUE) TO ('{until}')"))
    if table == "alert":
        await tx.execute(text("DELETE FROM unmatched_resolve WHERE ended_at < :until"), {"until": until})
    return months


def _months(since: datetime, now: datetime, ahead: int) -> Iterator[datetime]:
    """The months from `since` up to `ahead` months after `now`."""
    last = now
    for _ in range(ahead):
        last = _next(last)
    while since <= last:
        yield since
        since = _next(since)


def _month_of(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next(month: datetime) -> datetime:
    return _month_of(month + timedelta(days=31))


_LOCK = 0x6D6F6E746873  # the key of an advisory lock, "months"

_PARTITIONS = text("""
    SELECT child.relname, substring(pg_get_expr(child.relpartbound, child.oid) FROM $$ TO \\('([^']+)'\\)$$)
      FROM pg_inherits
      JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
     WHERE pg_inherits.inhparent = CAST(:table AS regclass)
""")

# The longest window of a rule is two days.
_KEEP_NEEDED = """
    INSERT INTO {past}
    SELECT old.*
      FROM incident
      JOIN {name} AS old
        ON old.key_id = incident.key_id
       AND old.started_at BETWEEN incident.began_at AND incident.last_start_at
       AND old.incident_id = incident.id
     WHERE incident.merged_into IS NULL
       AND incident.began_at < :until
       AND (   incident.ended_at IS NULL
            OR incident.ended_at >= CAST(:until AS timestamptz) - interval '2 days'
            OR NOT incident.stretches_current)
"""
