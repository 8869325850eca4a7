"""Stores acknowledgements that sources report, retries those without an incident, and drops them after seven days."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.facts import Acknowledgement
from app.incidents.grouping.acknowledgements import place_acknowledgements
from app.incidents.grouping.decide import lock_keys, series_of
from app.incidents.grouping.write import count, count_corrections

KEPT = timedelta(days=7)


async def record_acknowledgements(
    tx: AsyncConnection, new: Sequence[Acknowledgement], *, source_id: int, now: datetime
) -> None:
    """Stores them, and places those whose incident exists; the rest wait for it. The earliest one counts."""
    all_series = [series_of(source_id, one.fingerprint) for one in new]
    rows = [
        {"series": series, "at": one.at, "by": one.by or "", "source_id": source_id}
        for series, one in zip(all_series, new, strict=True)
    ]
    series = sorted(set(all_series))
    await tx.execute(_RECORD, {"rows": msgspec.json.encode(rows).decode(), "now": now})
    keys = [row[0] for row in await tx.execute(_KEYS, {"series": series})]
    await lock_keys(tx, keys)
    await count_corrections(tx, await place_acknowledgements(tx, series, (), now=now))


async def retry_and_drop_acknowledgements(tx: AsyncConnection, *, now: datetime) -> None:
    """Places those that missed an alert stored at the same moment, and drops those received more than 7 days ago.

    Counts those that are dropped without ever having had an incident.
    """
    waiting = [(row[0], row[1]) for row in await tx.execute(_WAITING)]
    await lock_keys(tx, {key for _, key in waiting})
    await count_corrections(tx, await place_acknowledgements(tx, {series for series, _ in waiting}, (), now=now))
    dropped = Counter(row[0] for row in await tx.execute(_DROP, {"before": now - KEPT}) if row[1])
    await count(tx, [("acknowledgements_dropped", source, "", number) for source, number in dropped.items()])


_RECORD = text("""
    INSERT INTO acknowledgement (series, at, by, source_id, received_at)
    SELECT series, at, by, source_id, CAST(:now AS timestamptz)
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (series uuid, at timestamptz, by text, source_id integer)
        ON CONFLICT DO NOTHING
""")

_KEYS = text("""
    SELECT DISTINCT key_id
      FROM alert
     WHERE series = ANY(CAST(:series AS uuid[]))
""")

_WAITING = text("""
    SELECT DISTINCT acknowledgement.series, alert.key_id
      FROM acknowledgement
      JOIN alert ON alert.series = acknowledgement.series
     WHERE acknowledgement.timeline_id IS NULL
       AND alert.started_at <= acknowledgement.at
""")

_DROP = text("""
    DELETE FROM acknowledgement
     USING source
     WHERE source.id = acknowledgement.source_id
       AND acknowledgement.received_at < :before
    RETURNING source.name, acknowledgement.timeline_id IS NULL
""")
