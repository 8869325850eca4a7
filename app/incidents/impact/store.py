"""SQL for stretches, impact, rates and maintenance; `individual.py` has the impact of single incidents.

The arithmetic is in `intervals.py`, `maintenance.py` and `availability.py`.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Protocol
from uuid import UUID

import numpy as np
from sqlalchemy import ARRAY, Text, any_, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.db.recordset import Columns as TableColumns
from app.base.process.threads import off_loop
from app.base.schema import Incident, ServiceRate
from app.base.values.times import Span
from app.base.values.vocabulary import UNKNOWN_ENVIRONMENT
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.grouping.signal import AlertClass
from app.incidents.impact.availability import FailingIncident
from app.incidents.impact.columns import StretchColumns
from app.incidents.impact.intervals import ImpactInterval, impact_intervals, union
from app.incidents.impact.maintenance import Planned, Window, planned
from app.incidents.impact.rates import Rate
from app.incidents.impact.stretches import Stretch, packed, stretches, unpacked
from app.incidents.measures.measures import FACTS, Facts, Weights, detected_at, service
from app.incidents.measures.vectorized import END_REASONS, NEVER, TIMES, Categorical, Columns, Ints, coded, microseconds


async def rates_of(tx: AsyncConnection, services: Collection[str]) -> Sequence[Rate]:
    if not services:
        return []
    rate = ServiceRate.__table__.c
    rows = await tx.execute(
        select(*(rate[each.name] for each in fields(Rate))).where(
            rate.service == any_(literal(sorted(services), ARRAY(Text)))
        )
    )
    return [Rate(*row) for row in rows]


async def intervals_during(
    tx: AsyncConnection,
    intervals: Iterable[ImpactInterval],
    *,
    now: datetime,
    weights: Weights,
    settled_only: bool = False,
) -> Sequence[ImpactInterval]:
    """The impact of all incidents (or all settled ones) of the same services that run during these intervals, including
    the incidents of the intervals themselves.
    """
    spans: dict[str, list[Span]] = defaultdict(list)
    for each in intervals:
        spans[each.service].append(each.span)
    wanted = [(service, *span) for service in sorted(spans) for span in union(spans[service])]
    if not wanted:
        return []
    services, start, end = map(list, zip(*wanted, strict=True))
    rows = await tx.execute(
        _INTERVALS_DURING,
        {
            "services": services,
            "start": start,
            "end": end,
            "earliest": min(start),
            "latest": max(end),
            "now": now,
            "settled_only": settled_only,
        },
    )
    found = await harms_of(tx, rows.all(), now=now, weights=weights)
    return [each for those in found.values() for each in those]


async def planned_during(tx: AsyncConnection, intervals: Sequence[ImpactInterval]) -> Planned:
    """The maintenance of the affected services that may overlap the impact."""
    if not intervals:
        return {}
    within = Span(min(each.span.start for each in intervals), max(each.span.end for each in intervals))
    return await planned_within(tx, {each.service for each in intervals}, within)


async def planned_within(
    tx: AsyncConnection, services: Collection[str], within: Span, *, occurrences_at_most: int | None = None
) -> Planned:
    """The maintenance of these services that overlaps `within`. Raises TooMuchMaintenance."""
    parameters = {"services": sorted(services), "start": within.start, "end": within.end}
    rows = await tx.execute(_WINDOWS_WITHIN, parameters)
    windows = [Window.of(row._mapping) for row in rows]
    return await off_loop(planned, windows, services, within, occurrences_at_most=occurrences_at_most)


async def in_service_since(tx: AsyncConnection, services: Collection[str] | None) -> Mapping[str, datetime]:
    """Since when each of these services (None: all) has been in service: as stated, else since it was first seen.

    An incident that was imported later may show that it was there before.
    """
    rows = await tx.execute(_IN_SERVICE_SINCE, {"services": None if services is None else sorted(services)})
    return {row.name: row.since for row in rows}


async def failing_within(
    tx: AsyncConnection,
    within: Span,
    services: Collection[str] | None,
    *,
    environment: str | None = None,
    now: datetime,
    weights: Weights,
) -> Mapping[str, Sequence[FailingIncident]]:
    """The incidents with impact in the period by service (None: all services); services without any are missing.

    Only those in `environment`; None: in all.
    """
    rows = await tx.execute(
        _FAILING_WITHIN,
        {
            "services": None if services is None else sorted(services),
            "environments": [] if environment is None else [environment],
            "start": within.start,
            "end": within.end,
            "now": now,
        },
    )
    incidents = rows.all()
    interval = await harms_of(tx, incidents, now=now, weights=weights)
    found: dict[str, list[FailingIncident]] = defaultdict(list)
    for row in incidents:
        facts = Facts.of(row)
        found[service(facts)].append(FailingIncident(row.number, detected_at(facts), interval[row.id]))
    return found


async def impacting_within(
    tx: AsyncConnection, within: Span, services: Collection[str] | None, *, environments: Collection[str] = ()
) -> tuple[Columns, StretchColumns]:
    """The incidents of these services (None: all services) with impact in the period, in any of the environments or,
    without environments, in all.
    """
    named = None if services is None else sorted(services)
    parameters = {"services": named, "environments": [*environments], "start": within.start, "end": within.end}
    return await impact_columns_of(tx, (await tx.execute(_IMPACTING_WITHIN, parameters)).one())


async def impacting_within_everywhere(
    tx: AsyncConnection, within: Span, services: Collection[str]
) -> tuple[Columns, StretchColumns, Categorical]:
    """The incidents of these services with impact in the period, and the environment of each."""
    parameters = {"services": sorted(services), "environments": [], "start": within.start, "end": within.end}
    row = (await tx.execute(_IMPACTING_WITHIN_EVERYWHERE, parameters)).one()
    columns, stretches = await impact_columns_of(tx, row)
    return columns, stretches, coded(texts(row.environments, row.environment_lengths))


# — stretches —


class _Row(Protocol):
    """A row of `incident`, or of a query with at least INCIDENT_WITH_STRETCHES."""

    @property
    def id(self) -> UUID: ...
    @property
    def number(self) -> int: ...
    @property
    def stretches(self) -> bytes | None: ...
    @property
    def stretches_current(self) -> bool: ...


async def harms_of(
    tx: AsyncConnection, rows: Iterable[_Row], *, now: datetime, weights: Weights
) -> dict[UUID, list[ImpactInterval]]:
    """The impact of each of these incidents, which must not be merged ones."""
    incidents = list(rows)
    from_alerts = await read_stretches(tx, [row.number for row in incidents if not row.stretches_current])
    return {
        row.id: impact_intervals(
            row.id,
            Facts.of(row),
            from_alerts[row.number] if row.number in from_alerts else unpacked(row.stretches or b""),
            now=now,
            weights=weights,
        )
        for row in incidents
    }


async def read_stretches(tx: AsyncConnection, numbers: Collection[int]) -> dict[int, list[Stretch]]:
    """The stretches of these incidents by number, from their alerts; at least one each.

    If some of its alerts have been dropped, an incident keeps the stretches stored before. If there are neither, it
    is one stretch. One statement, whose result does not grow with the number of alerts that overlap.
    """
    if not numbers:
        return {}
    rows = (await tx.execute(_ALERTS_OF_INCIDENTS, {"numbers": sorted(numbers)})).all()

    def work() -> dict[int, list[Stretch]]:
        known: dict[int, list[Stretch]] = defaultdict(list)
        for number, severity, start, end, stored in rows:
            if severity is not None:
                known[number].append(Stretch(start, end, severity))
            if stored is not None:
                known[number] += unpacked(stored)
        return {number: stretches(alerts) for number, alerts in known.items()}

    return await off_loop(work)


async def store_stretches(tx: AsyncConnection, known: Mapping[int, Sequence[Stretch]]) -> None:
    """Stores the stretches of these incidents, by number, whose keys must be locked."""
    stored = {"numbers": list(known), "stretches": [packed(each) for each in known.values()]}
    await tx.execute(_STORE_STRETCHES, stored)


# Alerts of equal severity that overlap become one range, so a storm of alerts is a few rows. A range without duration
# is empty, so the first start of each severity has a row of its own. Stored stretches count where alerts are missing:
# `alerts` is their number without those of people.
_ALERTS_OF_INCIDENTS = text(f"""
    WITH asked AS (
        SELECT *
          FROM incident
         WHERE number = ANY(CAST(:numbers AS bigint[]))
    ), fired AS (
        SELECT asked.number, alert.severity, range_agg(tstzrange(known.begins_at, alert.ended_at)) AS ranges,
               min(known.begins_at) AS first_at, count(*) FILTER (WHERE alert.source_id <> {MANUAL_SOURCE_ID}) AS alerts
          FROM asked
          JOIN alert
            ON alert.key_id = asked.key_id
           AND alert.started_at BETWEEN asked.began_at AND asked.last_start_at
           AND alert.incident_id = asked.id
         CROSS JOIN LATERAL (SELECT least(alert.started_at, alert.impact_started_at_reported) AS begins_at) AS known
         GROUP BY asked.number, alert.severity
    ), counted AS (
        SELECT number, sum(alerts) AS alerts
          FROM fired
         GROUP BY number
    ), kept AS (
        SELECT asked.*, coalesce(counted.alerts < asked.alerts, true) AS dropped, counted.number IS NULL AS unknown
          FROM asked
          LEFT JOIN counted ON counted.number = asked.number
    )
    SELECT number, severity, lower(range) AS begins_at, upper(range) AS ends_at, CAST(NULL AS bytea) AS stored
      FROM fired, unnest(ranges) AS range
     UNION ALL
    SELECT number, severity, first_at, first_at, NULL
      FROM fired
     UNION ALL
    SELECT number, NULL, NULL, NULL, stretches
      FROM kept
     WHERE dropped
       AND stretches IS NOT NULL
     UNION ALL
    SELECT number, severity, least(began_at, impact_started_at_reported), ended_at, NULL
      FROM kept
     WHERE unknown
       AND stretches IS NULL
""")  # noqa: S608

_STORE_STRETCHES = text("""
    UPDATE incident
       SET stretches = known.stretches,
           stretches_current = true
      FROM unnest(CAST(:numbers AS bigint[]), CAST(:stretches AS bytea[])) AS known (number, stretches)
     WHERE incident.number = known.number
""")


# — rates and maintenance —


# The earliest incident of each service is found by the index `incident_by_service`.
_IN_SERVICE_SINCE = text("""
    SELECT service.name, coalesce(service.in_service_since, least(service.first_seen_at, earliest.at)) AS since
      FROM service
      LEFT JOIN LATERAL (
           SELECT least(began_at, impact_started_at, detected_at_stated) AS at
             FROM incident
            WHERE merged_into IS NULL
              AND test_stated IS NOT TRUE
              AND coalesce(service_stated, incident.service) = service.name
            ORDER BY began_at
            LIMIT 1
           ) AS earliest ON service.in_service_since IS NULL
     WHERE CAST(:services AS text[]) IS NULL
        OR service.name = ANY(CAST(:services AS text[]))
""")

_WINDOWS_WITHIN = text("""
    SELECT name, services, reason, begins_at, ends_at,
           weekdays, start_time, duration_seconds, zone, first_date, last_date
      FROM maintenance
     WHERE (services = '{}' OR services && CAST(:services AS text[]))
       AND (begins_at IS NULL OR (begins_at < :end AND ends_at > :start))
     ORDER BY name
""")

FACTS_OF_INCIDENT = TableColumns(Incident.__table__, ("id", *FACTS)).selected()
_OF_STRETCHES = TableColumns(Incident.__table__, ("number", "stretches", "stretches_current")).selected()
INCIDENT_WITH_STRETCHES = f"{FACTS_OF_INCIDENT}, {_OF_STRETCHES}"

# No impact is before this time: the earliest alert, or what a person stated.
EARLIEST = "coalesce(impact_started_at_stated, least(began_at, impact_started_at_reported, detected_at_stated))"

# `:earliest` and `:latest` are implied by the spans and only add speed. `ended_at` has an upper bound because a generic
# plan estimates `> x` at a third of the table and reads all of it, but estimates a range to be small. The same estimate
# makes it read everything that ended since long ago, so without this condition it reads by service instead.
_ENDED_SINCE = "(ended_at IS NULL OR ended_at BETWEEN :earliest AND 'infinity')"
DURING = f"""
      FROM incident
     WHERE merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND coalesce(service_stated, service) = ANY(CAST(:services AS text[]))
       AND {_ENDED_SINCE}
       AND {EARLIEST} < :latest
       AND (settled_at IS NOT NULL OR NOT :settled_only)
       AND EXISTS (SELECT
                     FROM unnest(CAST(:services AS text[]), CAST(:start AS timestamptz[]),
                                 CAST(:end AS timestamptz[])) AS wanted (service, starts_at, ends_at)
                    WHERE wanted.service = coalesce(incident.service_stated, incident.service)
                      AND wanted.starts_at < coalesce(incident.ended_at, :now)
                      AND wanted.ends_at > {EARLIEST})
"""  # noqa: S608
DURING_LONG = DURING.replace(f"AND {_ENDED_SINCE}", "")
LONG = timedelta(days=60)  # ago
_INTERVALS_DURING = text(f"SELECT {INCIDENT_WITH_STRETCHES} {DURING}")

# Each half of the OR has an index, so old incidents are not read. See above for the bound of `ended_at`.
_WITH_IMPACT_WITHIN = f"""
      FROM incident
     WHERE merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND (ended_at IS NULL OR ended_at BETWEEN :start AND 'infinity')
       AND {EARLIEST} < :end
       AND (CAST(:services AS text[]) IS NULL
            OR coalesce(service_stated, service) = ANY(CAST(:services AS text[])))
       AND (CAST(:environments AS text[]) = '{{}}'
            OR coalesce(environment, '{UNKNOWN_ENVIRONMENT}') = ANY(CAST(:environments AS text[])))
"""
_FAILING_WITHIN = text(f"SELECT {INCIDENT_WITH_STRETCHES} {_WITH_IMPACT_WITHIN}")


# — many incidents at once —

_REASONS = ", ".join(f"'{reason}'" for reason in END_REASONS)

# All rows aggregated into one: creating a hundred thousand row objects would take longer than all computations on them.
# PostgreSQL sends times as microseconds, eight bytes each. All columns have the same order. Names are sent as one
# string plus their lengths, which is faster than an array; severity, end reason and flags as one number.
_SEVERITIES = 0b111
_SEVERITY_STATED, _HARMED_THROUGHOUT, _MONITORING, _IMPACT_STATED, _IMPACT_START_STATED, _REVIEW_PLANNED = (
    1 << bit for bit in range(3, 9)
)
_END_REASON = 1 << 9
_TIMES = tuple(name for name in TIMES if name != "impact_started_at_stated")  # if stated, it is `impact_started_at`
COLUMNS = f"""
           string_agg(int8send(number), '') AS number,
           string_agg(coalesce(service_stated, service), '') AS services,
           string_agg(int4send(char_length(coalesce(service_stated, service))), '') AS service_lengths,
           string_agg(int4send(
               coalesce(severity_stated, severity)
             + {_SEVERITY_STATED} * CAST(severity_stated IS NOT NULL AS integer)
             + {_HARMED_THROUGHOUT} * CAST(harmed_throughout_stated IS TRUE AS integer)
             + {_MONITORING} * CAST(alert_class = '{AlertClass.MONITORING}' AS integer)
             + {_IMPACT_STATED} * CAST(impact_stated IS NOT NULL AS integer)
             + {_IMPACT_START_STATED} * CAST(impact_started_at_stated IS NOT NULL AS integer)
             + {_REVIEW_PLANNED} * CAST(review_planned AS integer)
             + {_END_REASON} * coalesce(array_position(ARRAY[{_REASONS}], end_reason), 0)), '') AS flags,
           array_agg(impact_stated) FILTER (WHERE impact_stated IS NOT NULL) AS impact_stated,
           {", ".join(f"string_agg(timestamptz_send(coalesce({name}, '-infinity')), '') AS {name}" for name in _TIMES)}
"""
STRETCHES = """
           string_agg(stretches, '') FILTER (WHERE stretches_current) AS stretches,
           string_agg(int4send(CASE WHEN stretches_current THEN octet_length(stretches) ELSE 0 END), '')
               AS stretch_lengths
"""
_EPOCH_OF_POSTGRESQL = microseconds(datetime(2000, 1, 1, tzinfo=UTC))


class ColumnsRow(Protocol):
    """The single row of a query for COLUMNS, plus the times; all None if there are no incidents."""

    @property
    def number(self) -> bytes | None: ...
    @property
    def services(self) -> str | None: ...
    @property
    def service_lengths(self) -> bytes | None: ...
    @property
    def flags(self) -> bytes | None: ...
    @property
    def impact_stated(self) -> Sequence[Decimal] | None: ...


class ImpactRow(ColumnsRow, Protocol):
    """The same of a query for COLUMNS and STRETCHES."""

    @property
    def stretches(self) -> bytes | None: ...
    @property
    def stretch_lengths(self) -> bytes | None: ...


async def impact_columns_of(tx: AsyncConnection, row: ImpactRow) -> tuple[Columns, StretchColumns]:
    """Reads the alerts of incidents without current stretches, with one more statement if there are any."""

    def stored() -> tuple[Columns, StretchColumns]:
        columns, lengths = columns_of(row), _numbers(row.stretch_lengths, ">i4")
        return columns, StretchColumns.joined(np.arange(len(columns)), lengths, row.stretches or b"")

    columns, known = await off_loop(stored)
    missing = np.flatnonzero(np.bincount(known.incident, minlength=len(columns)) == 0)
    numbers = columns.number[missing].tolist()
    from_alerts = await read_stretches(tx, numbers)
    if not from_alerts:
        return columns, known
    records = [packed(from_alerts[number]) for number in numbers]
    lengths = np.array([len(each) for each in records], np.int64)
    return columns, known.plus(StretchColumns.joined(missing, lengths, b"".join(records)))


def columns_of(row: ColumnsRow) -> Columns:
    """Decodes the row of a query for COLUMNS."""

    def times(sent: bytes | None) -> Ints:
        since = _numbers(sent, ">i8")
        return np.where(since == NEVER, NEVER, since + _EPOCH_OF_POSTGRESQL)

    stated, flags = iter(row.impact_stated or ()), _numbers(row.flags, ">i4")
    found = {name: times(getattr(row, name)) for name in _TIMES}
    return Columns(
        number=_numbers(row.number, ">i8"),
        service=coded(texts(row.services, row.service_lengths)),
        severity=flags & _SEVERITIES,
        has_severity_stated=flags & _SEVERITY_STATED > 0,
        harmed_throughout=flags & _HARMED_THROUGHOUT > 0,
        monitoring=flags & _MONITORING > 0,
        review_planned=flags & _REVIEW_PLANNED > 0,
        end_reason=flags // _END_REASON - 1,
        impact_stated=coded([next(stated) if has else None for has in (flags & _IMPACT_STATED > 0).tolist()]),
        impact_started_at_stated=np.where(flags & _IMPACT_START_STATED > 0, found["impact_started_at"], NEVER),
        **found,
    )


def texts(joined: str | None, lengths: bytes | None) -> list[str]:
    ends = np.cumsum(_numbers(lengths, ">i4")).tolist()
    return [(joined or "")[begin:end] for begin, end in pairwise([0, *ends])]


def _numbers(sent: bytes | None, kind: str) -> Ints:
    return np.frombuffer(sent or b"", kind).astype(np.int64)


ENVIRONMENT = f"coalesce(environment, '{UNKNOWN_ENVIRONMENT}')"
ENVIRONMENTS = f"""
           string_agg({ENVIRONMENT}, '') AS environments,
           string_agg(int4send(char_length({ENVIRONMENT})), '') AS environment_lengths
"""
_IMPACTING_WITHIN = text(f"SELECT {COLUMNS}, {STRETCHES} {_WITH_IMPACT_WITHIN}")
_IMPACTING_WITHIN_EVERYWHERE = text(f"SELECT {COLUMNS}, {STRETCHES}, {ENVIRONMENTS} {_WITH_IMPACT_WITHIN}")
