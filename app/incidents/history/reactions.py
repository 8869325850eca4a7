"""Stores what people did in other tools, as sources report it; places it once more after a minute; and drops it after
seven days.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.db.recordset import as_json
from app.base.values.facts import Reaction, ReactionKind
from app.incidents.grouping.decide import lock_keys, series_of
from app.incidents.grouping.reaction_placement import keys_of_reactions, place_reactions
from app.incidents.grouping.signal import correlation_id
from app.incidents.grouping.write import count, count_corrections

KEPT = timedelta(days=7)
DUE_AT_ONCE = 500


async def record_reactions(tx: AsyncConnection, new: Sequence[Reaction], *, source_id: int, now: datetime) -> None:
    """Stores them, and places those whose incident exists; the rest wait for it. A repeat changes nothing."""
    rows = [
        {
            "kind": one.kind,
            "at": one.at,
            "by": one.by or None,
            "note": one.note or None,
            "at_arrival": one.at_arrival,
            "series": None if one.fingerprint is None else series_of(source_id, one.fingerprint),
            "correlation": correlation_id(one.correlation) if one.correlation else None,
        }
        for one in new
        if (one.fingerprint is not None or one.correlation) and (one.note or one.kind is not ReactionKind.NOTE)
    ]
    parameters = {"rows": as_json(rows), "source_id": source_id, "now": now}
    ids = [row[0] for row in await tx.execute(_RECORD, parameters)] if rows else []
    if ids:
        keys = await keys_of_reactions(tx, ids)
        await lock_keys(tx, keys)
        await count_corrections(tx, await place_reactions(tx, ids, keys, now=now))


async def retry_and_drop_reactions(tx: AsyncConnection, *, now: datetime) -> None:
    """Places those that are due once more, and drops those received more than 7 days ago.

    Counts acknowledgements that are dropped without ever having had an incident.
    """
    due = {row[0]: row[1] for row in await tx.execute(_DUE, {"at_most": DUE_AT_ONCE})}
    if due:
        keys = await keys_of_reactions(tx, due)
        await lock_keys(tx, keys)
        await count_corrections(tx, await place_reactions(tx, due, keys, now=now, due=due))
    dropped = Counter(row[0] for row in await tx.execute(_DROP, {"before": now - KEPT}) if row[1])
    await count(tx, [("acknowledgements_dropped", source, "", number) for source, number in dropped.items()])


# As in migration 0017.
_DIGEST = (
    "sha256(convert_to(jsonb_build_array(kind, extract(epoch FROM at), by, note, series, correlation)::text, 'UTF8'))"
)

_RECORD = text(f"""
    INSERT INTO reaction (digest, kind, at, by, note, at_arrival, series, correlation, source_id, received_at)
    SELECT {_DIGEST}, kind, at, by, note, at_arrival, series, correlation, :source_id, CAST(:now AS timestamptz)
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (
           kind text, at timestamptz, by text, note text, at_arrival boolean, series uuid, correlation uuid)
        ON CONFLICT DO NOTHING
    RETURNING id
""")  # noqa: S608  a constant of this file

# The clock is the database's, because several processes set `due_at`.
_DUE = text("""
    SELECT id, due_at
      FROM reaction
     WHERE due_at <= clock_timestamp()
     ORDER BY due_at
     LIMIT :at_most
""")

_DROP = text("""
    DELETE FROM reaction
     USING source
     WHERE source.id = reaction.source_id
       AND reaction.received_at < :before
    RETURNING source.name, reaction.waits AND reaction.kind = 'acknowledged'
""")
