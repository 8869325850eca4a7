"""SQL for what Alertmanager's API lists."""

from typing import NamedTuple

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.ingest.alertmanager.listing import Filter, ListedAlert

LISTED_AT_MOST = 5_000
BYTES_AT_MOST = 8 * 2**20  # of labels and annotations
_AT_ONCE = 500  # rows


class Listing(NamedTuple):
    """Open alerts in order of their fingerprints. `is_whole`: there are no others."""

    alerts: list[ListedAlert]
    is_whole: bool


async def open_alerts(tx: AsyncConnection, source_id: int | None, wanted: Filter) -> Listing:
    """The open alerts that are wanted, of one source or of all, the newest if there are too many to list."""
    found: list[ListedAlert] = []
    size = 0
    if not wanted.active:
        return Listing([], is_whole=True)
    # In parts, so that a hundred thousand rows neither block the event loop nor fill the memory.
    async with tx.stream(_OPEN, {"source_id": source_id}) as rows:
        async for some in rows.partitions(_AT_ONCE):
            for row in some:
                labels, annotations = row[_TEXTS_AT:]
                alert = ListedAlert(*row[:_TEXTS_AT], *map(_TEXTS.decode, (labels, annotations)))
                if wanted.admits(alert):
                    size += len(labels) + len(annotations) + len(alert.link)
                    if len(found) == LISTED_AT_MOST or size > BYTES_AT_MOST:
                        return Listing(sorted(found, key=_fingerprint), is_whole=False)
                    found.append(alert)
    return Listing(sorted(found, key=_fingerprint), is_whole=True)


def _fingerprint(alert: ListedAlert) -> tuple[str, str]:
    return alert.fingerprint, alert.source


_TEXTS_AT = 8  # where labels and annotations are, among the columns of `_OPEN`
_TEXTS = msgspec.json.Decoder(dict[str, str])

_OPEN = text(f"""
    SELECT alert.fingerprint, alert.started_at, alert.last_seen_at, alert.expires_at, alert.link,
           source.name AS source, incident.number, coalesce(incident.service_stated, incident.service) AS service,
           alert.labels::text, alert.annotations::text
      FROM incident
      JOIN alert
        ON alert.key_id = incident.key_id
       AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
       AND alert.incident_id = incident.id
      JOIN source
        ON source.id = alert.source_id
     WHERE incident.ended_at IS NULL
       AND incident.merged_into IS NULL
       AND alert.ended_at IS NULL
       AND alert.source_id <> {MANUAL_SOURCE_ID}
       AND (CAST(:source_id AS integer) IS NULL OR alert.source_id = :source_id)
     ORDER BY alert.started_at DESC, alert.series
""")  # noqa: S608  a constant


async def sources(tx: AsyncConnection, source_id: int | None) -> list[str]:
    """The names of the sources of alerts, or of this one."""
    return [row[0] for row in await tx.execute(_SOURCES, {"source_id": source_id})]


_SOURCES = text(f"""
    SELECT name
      FROM source
     WHERE id <> {MANUAL_SOURCE_ID}
       AND (CAST(:source_id AS integer) IS NULL OR id = :source_id)
     ORDER BY name
     LIMIT 1000
""")  # noqa: S608  a constant
