"""The tables that grow for ever, cut by months: made ahead of time, and dropped as a whole once they are old enough.

A table `alert` has one partition a calendar month of UTC (`alert_202611`) and `alert_past` for all that is older. What
is dropped are alerts and deliveries, evidence; incidents, their timeline and their measures stay. Alerts that may still
matter to the law, because their incident is not over or ended within what is kept, move to `alert_past` instead.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

MONTHS_AHEAD = 2
PARTITIONED: Mapping[str, str] = {"alert": "started_at", "delivery": "received_at"}  # and by what
PARTITION_NAME = re.compile(rf"({'|'.join(PARTITIONED)})_(past|\d{{6}})")


@dataclass(frozen=True, slots=True)
class Partition:
    """One month, or the past: all before `until`."""

    name: str
    until: datetime

    @property
    def is_past(self) -> bool:
        return self.name.endswith("_past")


async def tend(tx: AsyncConnection, *, now: datetime, keep: Mapping[str, timedelta]) -> list[str]:
    """Makes the partitions of the months to come and drops those older than `keep` says, by table; says what it did.

    Processes take turns; a lock that the doors do not give at once is an error, and the next time will do.
    """
    await tx.execute(text("SET LOCAL lock_timeout = '2s'"))
    await tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TENDING})
    done = []
    for table in PARTITIONED:
        known = await partitions(tx, table)
        newest = max(one.until for one in known)
        for month in _months(newest, _month_of(now), MONTHS_AHEAD):
            await _add(tx, table, name := f"{table}_{month:%Y%m}", month, _next(month))
            done.append(f"made {name}")
        if table in keep:
            done += [f"dropped {name}" for name in await _retire(tx, table, known, _month_of(now - keep[table]))]
    return done


async def partitions(tx: AsyncConnection, table: str) -> list[Partition]:
    """Oldest first."""
    found = await tx.execute(_PARTITIONS, {"table": table})
    return sorted(
        (Partition(name, datetime.fromisoformat(until).astimezone(UTC)) for name, until in found),
        key=lambda one: one.until,
    )


async def _add(tx: AsyncConnection, table: str, name: str, since: datetime, until: datetime) -> None:
    # Made apart and attached: `PARTITION OF` would lock out every reader.
    await _make(tx, table, name)
    await tx.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{since}') TO ('{until}')"))


async def _make(tx: AsyncConnection, table: str, name: str) -> None:
    room = "WITH (fillfactor = 85)" if table == "alert" else ""  # for the next version of a row beside it
    await tx.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL) {room}"))


async def _retire(tx: AsyncConnection, table: str, known: list[Partition], before: datetime) -> list[str]:
    old = [one for one in known if one.until <= before]
    months = [one.name for one in old if not one.is_past]
    if not months:
        return []
    until, past = old[-1].until, f"{table}_past"
    for one in old:
        await tx.execute(text(f"ALTER TABLE {table} DETACH PARTITION {one.name}"))
    await tx.execute(text(f"ALTER TABLE {past} RENAME TO {past}_dropped"))
    await _make(tx, table, past)
    for name in (f"{past}_dropped", *months):
        if table == "alert":
            await tx.execute(text(_KEPT_BY_THE_LAW.format(past=past, name=name)), {"until": until})
        await tx.execute(text(f"DROP TABLE {name}"))
    await tx.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {past} FOR VALUES FROM (MINVALUE) TO ('{until}')"))
    if table == "alert":
        await tx.execute(text("DELETE FROM loose_end WHERE ended_at < :until"), {"until": until})
    return months


def _months(since: datetime, now: datetime, ahead: int) -> Iterator[datetime]:
    """Months that have no partition yet, which ends at `since`, up to so many ahead of now."""
    last = now
    for _ in range(ahead):
        last = _next(last)
    while since <= last:
        yield since
        since = _next(since)


def _month_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next(month: datetime) -> datetime:
    return _month_of(month + timedelta(days=31))


_TENDING = 0x6D6F6E746873  # of our advisory locks, "months"

_PARTITIONS = text("""
    SELECT child.relname, substring(pg_get_expr(child.relpartbound, child.oid) FROM $$ TO \\('([^']+)'\\)$$)
      FROM pg_inherits
      JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
     WHERE pg_inherits.inhparent = CAST(:table AS regclass)
""")

# The longest window of a rule is two days.
_KEPT_BY_THE_LAW = """
    INSERT INTO {past}
    SELECT old.*
      FROM incident
      JOIN {name} AS old
        ON old.key_id = incident.key_id
       AND old.started_at BETWEEN incident.began_at AND incident.last_start_at
       AND old.incident_id = incident.id
     WHERE incident.merged_into IS NULL
       AND incident.began_at < :until
       AND (incident.ended_at IS NULL OR incident.ended_at >= CAST(:until AS timestamptz) - interval '2 days')
"""
