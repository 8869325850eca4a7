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

from app.base.db import Executor
from app.base.db.recordset import Columns
from app.base.schema import Alert, Incident
from app.incidents.grouping.batch import AlertColumns, AlertRow, IncidentColumns, IncidentRow, KnownSeries
from app.incidents.grouping.lifecycle import Course
from app.incidents.grouping.signal import End, EndReason

_END_REASONS = {str(reason): reason for reason in EndReason}
_labels = msgspec.json.Decoder(dict[str, str])


# — alerts —

_ALERT = Columns(
    Alert.__table__,
    (
        *AlertColumns.__struct_fields__,
        "window_seconds",
        "max_span_seconds",
        "real_end_at",
        "real_end_reason",
        "real_end_guessed",
        "ended_at",
        "end_reason",
    ),
)
_PLAIN = len(AlertColumns.__struct_fields__)
_WIDTH = len(_ALERT.names)
_SERIES_ID, _STARTED_AT, _ENDED_AT, _END_REASON = map(_ALERT.place, ("series", "started_at", "ended_at", "end_reason"))
_start_of = itemgetter(_STARTED_AT)


def _alert_row(found: Sequence[Any]) -> AlertRow:
    """From the columns of `_ALERT`, by position for speed: thousands of rows per second are read here."""
    window, max_span, real_end_at, real_end_reason, guessed, ended_at, end_reason = found[_PLAIN:_WIDTH]
    real_end = End(real_end_at, _END_REASONS[real_end_reason], guessed) if real_end_at else None
    row = AlertRow(
        *found[:_PLAIN],
        window=_seconds(window),
        max_span=_seconds(max_span),
        real_end=real_end,
        end=End(ended_at, _END_REASONS[end_reason]) if ended_at else None,
        named_end=real_end,
    )
    row.stored = row.changeable()
    row.seen_before_at = row.last_seen_at
    return row


@lru_cache
def _seconds(number: int) -> timedelta:
    return timedelta(seconds=number)


async def read_alerts_of(tx: Executor, incidents: Collection[UUID]) -> list[AlertRow]:
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


async def read_series(tx: Executor, first_at: Mapping[UUID, datetime]) -> dict[UUID, KnownSeries]:
    """The alerts and unmatched resolves of each series since `first_at`, plus the alert before that.

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
    return {series: _known(*rows) for series, rows in found.items()}


def _known(alerts: Iterable[Any], unmatched: Iterable[Any]) -> KnownSeries:
    rows = []
    for found in alerts:
        row = _alert_row(found)
        row.number = found[_WIDTH]
        rows.append(row)
    return KnownSeries(rows, [End(found[_ENDED_AT], _END_REASONS[found[_END_REASON]]) for found in unmatched])


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
    """The alert before `first_at` and everything since; None if the newest few may not include all of that."""
    alerts, unmatched = few
    before = bisect_left(alerts, first_at, key=_start_of) - 1
    if before < 0:
        return None if FEW in {len(alerts), len(unmatched)} else few
    since = alerts[before][_STARTED_AT]
    ends = [end for end in unmatched if end[_ENDED_AT] >= since]
    return None if len(ends) == FEW else (alerts[before:], ends)


FEW = 4

# An unmatched resolve has the columns of `_ALERT`, without a start.
_UNMATCHED_RESOLVE = _ALERT.padded(series="found.series", ended_at="found.ended_at", end_reason="found.end_reason")

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

# The alerts of each series since its first signal, the alert before that, and the unmatched resolves since that alert.
_SERIES = text(f"""
    SELECT found.*, (SELECT incident.number FROM incident WHERE incident.id = found.incident_id) AS number
      FROM unnest(CAST(:series AS uuid[]), CAST(:first_at AS timestamptz[])) AS wanted (series, first_at)
      LEFT JOIN LATERAL (
           SELECT {_ALERT.selected()}
             FROM alert
            WHERE alert.series = wanted.series
              AND alert.started_at < wanted.first_at
            ORDER BY alert.started_at DESC
            LIMIT 1
           ) AS before ON true
     CROSS JOIN LATERAL (
           SELECT before.*
            WHERE before.series IS NOT NULL
            UNION ALL
           (SELECT {_ALERT.selected()}
              FROM alert
             WHERE alert.series = wanted.series
               AND alert.started_at >= wanted.first_at
             ORDER BY alert.started_at)
            UNION ALL
           SELECT {_UNMATCHED_RESOLVE}
             FROM unmatched_resolve AS found
            WHERE found.series = wanted.series
              AND found.ended_at >= coalesce(before.started_at, '-infinity')
           ) AS found
""")


# — incidents —

_COURSE_OF = Course.__struct_fields__[1:]  # all but `last_end`, which is two columns
_INCIDENT = Columns(
    Incident.__table__,
    (
        *IncidentColumns.__struct_fields__,
        *_COURSE_OF,
        "last_end_at",
        "end_reason",
        "settled_at",
        "source_ids",
        "labels",
    ),
)
_COURSE = slice(len(IncidentColumns.__struct_fields__), len(IncidentColumns.__struct_fields__) + len(_COURSE_OF))
_INCIDENT_COLUMNS = _INCIDENT.selected(as_text={"labels"})


def _incident_row(found: Sequence[Any]) -> IncidentRow:
    """From the columns of `_INCIDENT`, by position for speed."""
    last_end_at, end_reason, settled_at, source_ids, labels = found[_COURSE.stop :]
    last_end = End(last_end_at, _END_REASONS[end_reason]) if last_end_at else None
    return IncidentRow(
        *found[: _COURSE.start],
        labels=_labels.decode(labels),
        source_ids=set(source_ids),
        course=Course(last_end, *found[_COURSE]),
        settled=settled_at is not None,
    )


async def read_newest(tx: Executor, keys: Collection[UUID]) -> list[IncidentRow]:
    """The newest incident of each key, if any."""
    return [_incident_row(found) for found in await tx.execute(_NEWEST, {"keys": list(keys)})]


async def read_incidents(tx: Executor, ids: Collection[UUID]) -> list[IncidentRow]:
    return [_incident_row(found) for found in await tx.execute(_INCIDENTS, {"ids": list(ids)})]


async def read_chains(tx: Executor, touched: Mapping[UUID, tuple[datetime, datetime | None]]) -> list[IncidentRow]:
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

_INCIDENTS = text(f"""
    SELECT {_INCIDENT_COLUMNS}
      FROM incident
     WHERE incident.id = ANY(CAST(:ids AS uuid[]))
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
