"""Reads series of alerts, and incidents with their alerts, as input to the law.

The column lists are derived from the structs in `batch.py`.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from app.base.db import Transaction
from app.base.db.recordset import Columns
from app.base.process.threads import give_way
from app.base.schema import Alert, Incident
from app.incidents.grouping.batch import AlertColumns, AlertRow, IncidentColumns, IncidentRow, KnownSeries
from app.incidents.grouping.law.episode import End, Episode, ReportedEnd
from app.incidents.grouping.law.lifecycle import IncidentState
from app.incidents.grouping.signal import EndReason

_END_REASONS = {str(reason): reason for reason in EndReason}
_labels = msgspec.json.Decoder(dict[str, str])


# — alerts —

_ALERT = Columns(
    Alert.__table__,
    (
        *AlertColumns.__struct_fields__,
        "window_seconds",
        "max_span_seconds",
        "ended_at",
        "end_reason",
        "fired_at",
        "listed_since",
        "real_end_at",
        "real_end_reason",
        "real_end_reported_at",
        "guessed_end_at",
        "guessed_end_reason",
        "guessed_end_reported_at",
        "inferred_end_at",
        "inferred_end_reason",
        "manual_end_at",
        "expires_at",
    ),
)
_PLAIN = len(AlertColumns.__struct_fields__)
_WIDTH = len(_ALERT.names)
_SERIES_ID, _STARTED_AT, _ENDED_AT, _END_REASON, _END_REPORTED_AT, _COVERED = map(
    _ALERT.place, ("series", "started_at", "ended_at", "end_reason", "end_reported_at", "covered")
)
_start_of = itemgetter(_STARTED_AT)


def _alert_row(found: Sequence[Any]) -> AlertRow:
    """From the columns of `_ALERT`, by position for speed: thousands of rows per second are read here."""
    (
        window,
        max_span,
        ended_at,
        end_reason,
        fired_at,
        listed_since,
        real_at,
        real_reason,
        real_reported_at,
        guessed_at,
        guessed_reason,
        guessed_reported_at,
        inferred_at,
        inferred_reason,
        manual_at,
        expires_at,
    ) = found[_PLAIN:_WIDTH]
    row = AlertRow(
        *found[:_PLAIN],
        window=_seconds(window),
        max_span=_seconds(max_span),
        end=End(ended_at, _END_REASONS[end_reason]) if ended_at else None,
        episode=Episode(
            found[_STARTED_AT],
            fired_at,
            _reported(real_at, real_reason, real_reported_at) if real_at else None,
            _reported(guessed_at, guessed_reason, guessed_reported_at) if guessed_at else None,
            End(inferred_at, _END_REASONS[inferred_reason]) if inferred_at else None,
            manual_at,
            listed_since,
            expires_at,
        ),
    )
    row.stored = row.changeable()
    return row


def _reported(at: datetime, reason: str, reported_at: datetime | None) -> ReportedEnd:
    """Rows from before report times were stored have none; the end itself stands in, as for imported facts."""
    return ReportedEnd(at, _END_REASONS[reason], reported_at or at)


@lru_cache
def _seconds(number: int) -> timedelta:
    return timedelta(seconds=number)


async def read_alerts_of(tx: Transaction, incidents: Collection[UUID]) -> list[AlertRow]:
    """The alerts of these incidents, with their labels."""
    rows = []
    for found in await tx.execute(_ALERTS_OF, {"ids": list(incidents)}):
        row = _alert_row(found)
        row.labels = _labels.decode(found[_WIDTH])
        rows.append(row)
    return rows


_ALERTS_OF = text(f"""
    SELECT {_ALERT.selected()}, alert.labels::text
      FROM incident
      JOIN alert
        ON alert.key_id = incident.key_id
       AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
       AND alert.incident_id = incident.id
     WHERE incident.id = ANY(CAST(:ids AS uuid[]))
""")


# — series —

# One series as read: rows of alerts in order of start, and rows of unmatched resolves.
_Found = tuple[list[Any], list[Any]]


async def read_series(tx: Transaction, first_at: Mapping[UUID, datetime]) -> dict[UUID, KnownSeries]:
    """The alerts and unmatched resolves of each series since `first_at`, plus the alert before that, or, if that one is
    covered by earlier ones, those as far back as one that is not.

    First reads only the newest few of each series, which takes less than half the time and is nearly always enough.
    """
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
    known, done = {}, 0
    for series, rows in found.items():
        known[series] = _known(*rows)
        done = await give_way(done, len(rows[0]))
    return known


def _known(alerts: Iterable[Any], unmatched: Iterable[Any]) -> KnownSeries:
    rows = []
    for found in alerts:
        row = _alert_row(found)
        row.number = found[_WIDTH]
        rows.append(row)
    return KnownSeries(
        rows, [_reported(found[_ENDED_AT], found[_END_REASON], found[_END_REPORTED_AT]) for found in unmatched]
    )


def _by_series(found: Iterable[Any]) -> dict[UUID, _Found]:
    by_series: dict[UUID, _Found] = {}
    for row in found:
        alerts, unmatched = by_series.get(row[_SERIES_ID]) or by_series.setdefault(row[_SERIES_ID], ([], []))
        (unmatched if row[_STARTED_AT] is None else alerts).append(row)
    for alerts, _ in by_series.values():
        if len(alerts) > 1:
            alerts.sort(key=_start_of)
    return by_series


def _needed(few: _Found, first_at: datetime) -> _Found | None:
    """The part of the series that `read_series` promises; None if the newest few may not include all of it."""
    alerts, unmatched = few
    before = bisect_left(alerts, first_at, key=_start_of) - 1
    while before >= 0 and alerts[before][_COVERED]:
        before -= 1
    if before < 0:
        return None if FEW in {len(alerts), len(unmatched)} else few
    since = alerts[before][_STARTED_AT]
    ends = [end for end in unmatched if end[_ENDED_AT] >= since]
    return None if len(ends) == FEW else (alerts[before:], ends)


FEW = 4

# An unmatched resolve has the columns of `_ALERT`, without a start.
_UNMATCHED_RESOLVE = _ALERT.padded(
    series="found.series",
    ended_at="found.ended_at",
    end_reason="found.end_reason",
    end_reported_at="found.reported_at",
)

# The newest alerts of each series, and its newest unmatched resolves.
_NEWEST_OF_SERIES = text(f"""
    SELECT found.*, (SELECT incident.number FROM incident WHERE incident.id = found.incident_id) AS number
      FROM unnest(CAST(:series AS uuid[])) AS wanted (series)
     CROSS JOIN LATERAL (
           SELECT {_ALERT.selected()}
             FROM alert
            WHERE alert.series = wanted.series
            ORDER BY alert.started_at DESC
            LIMIT :few
           ) AS found
     UNION ALL
    SELECT {_UNMATCHED_RESOLVE}, NULL
      FROM unnest(CAST(:series AS uuid[])) AS wanted (series)
     CROSS JOIN LATERAL (
           SELECT *
             FROM unmatched_resolve
            WHERE unmatched_resolve.series = wanted.series
            ORDER BY unmatched_resolve.ended_at DESC
            LIMIT :few
           ) AS found
""")

# The alerts of each series since its first signal, those before that back to one that none covers, and the unmatched
# resolves since that one.
_SERIES = text(f"""
    SELECT found.*, (SELECT incident.number FROM incident WHERE incident.id = found.incident_id) AS number
      FROM unnest(CAST(:series AS uuid[]), CAST(:first_at AS timestamptz[])) AS wanted (series, first_at)
      LEFT JOIN LATERAL (
           SELECT alert.started_at
             FROM alert
            WHERE alert.series = wanted.series
              AND alert.started_at < wanted.first_at
              AND NOT alert.covered
            ORDER BY alert.started_at DESC
            LIMIT 1
           ) AS before ON true
     CROSS JOIN LATERAL (
           (SELECT {_ALERT.selected()}
              FROM alert
             WHERE alert.series = wanted.series
               AND alert.started_at >= coalesce(before.started_at, '-infinity')
             ORDER BY alert.started_at)
            UNION ALL
           SELECT {_UNMATCHED_RESOLVE}
             FROM unmatched_resolve AS found
            WHERE found.series = wanted.series
              AND found.ended_at >= coalesce(before.started_at, '-infinity')
           ) AS found
""")


async def read_refire(tx: Transaction, sources: Collection[int]) -> Mapping[int, timedelta]:
    """`Source.refire_seconds` by the id of the source."""
    return {id_: _seconds(number) for id_, number in await tx.execute(_REFIRE, {"ids": list(sources)})}


_REFIRE = text("""
    SELECT id, refire_seconds
      FROM source
     WHERE id = ANY(CAST(:ids AS integer[]))
""")


# — incidents —

_STATE_FIELDS = IncidentState.__struct_fields__[1:]  # all but `last_end`, which is two columns
_INCIDENT = Columns(
    Incident.__table__,
    (
        *IncidentColumns.__struct_fields__,
        *_STATE_FIELDS,
        "last_end_at",
        "end_reason",
        "settled_at",
        "source_ids",
        "labels",
    ),
)
_STATE = slice(len(IncidentColumns.__struct_fields__), len(IncidentColumns.__struct_fields__) + len(_STATE_FIELDS))
_INCIDENT_COLUMNS = _INCIDENT.selected(as_text={"labels"})


def _incident_row(found: Sequence[Any]) -> IncidentRow:
    """From the columns of `_INCIDENT`, by position for speed."""
    last_end_at, end_reason, settled_at, source_ids, labels = found[_STATE.stop :]
    last_end = End(last_end_at, _END_REASONS[end_reason]) if last_end_at else None
    return IncidentRow(
        *found[: _STATE.start],
        labels=_labels.decode(labels),
        source_ids=set(source_ids),
        state=IncidentState(last_end, *found[_STATE]),
        settled=settled_at is not None,
    )


async def read_newest(tx: Transaction, keys: Collection[UUID]) -> list[IncidentRow]:
    """The newest incident of each key, if any."""
    return [_incident_row(found) for found in await tx.execute(_NEWEST, {"keys": list(keys)})]


async def read_chains(tx: Transaction, touched: Mapping[UUID, tuple[datetime, datetime | None]]) -> list[IncidentRow]:
    """The incidents of each key that may be connected to this time, in order of start. None means no upper bound."""
    since, until = zip(*touched.values(), strict=True)
    parameters = {"keys": list(touched), "since": list(since), "until": list(until)}
    return [_incident_row(found) for found in await tx.execute(_CHAINS, parameters)]


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

# The chains of incidents (each within reach of the previous one) that overlap the time from `since` to `until`. Whole
# chains, because `max_span` is measured from the start of a chain.
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
