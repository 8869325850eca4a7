"""The cost of individual incidents, and the SQL queries for harm, rates and maintenance.

The arithmetic is in `intervals.py`, `maintenance.py` and `availability.py`.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Protocol
from uuid import UUID

import numpy as np
from sqlalchemy import ARRAY, Text, any_, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.db.recordset import Columns as TableColumns
from app.base.schema import Incident, ServiceRate
from app.base.threads import off_loop
from app.base.times import Span
from app.incidents.grouping.signal import AlertClass
from app.incidents.impact.availability import Failing
from app.incidents.impact.intervals import Harm, Shown, costs, harm, shown, union
from app.incidents.impact.maintenance import Planned, Window, planned, unplanned
from app.incidents.impact.rates import Rate
from app.incidents.measures.measures import FACTS, Facts, Weights, detected_at
from app.incidents.measures.vectorized import END_REASONS, NEVER, TIMES, Columns, Ints, coded, microseconds


async def costs_of(
    tx: AsyncConnection, incidents: Iterable[Incident], *, now: datetime, weights: Weights
) -> Mapping[UUID, Mapping[str, Shown]]:
    """The rounded cost of each incident by currency, without merged incidents and services without a rate.

    Overlapping incidents share the cost, so they are read too; three statements in total.
    """
    facts = {incident.id: Facts.of(incident) for incident in incidents}
    harms = [harm(id_, each, now=now, weights=weights) for id_, each in facts.items() if not each.merged]
    rates = await rates_of(tx, {each.service for each in harms})
    priced = {rate.service for rate in rates}
    harms = [each for each in harms if each.service in priced]
    if not harms:
        return {}
    around = await harms_during(tx, harms, now=now, weights=weights)
    known = {each.incident for each in harms}
    together = [*harms, *(each for each in around if each.incident not in known)]
    found = costs(unplanned(together, await planned_during(tx, together)), rates).incidents
    return {id_: shown(cost) for id_, cost in found.items() if id_ in known}


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


async def harms_during(
    tx: AsyncConnection, harms: Iterable[Harm], *, now: datetime, weights: Weights, settled_only: bool = False
) -> Sequence[Harm]:
    """The stored harms of the same services that overlap `harms`, including `harms` themselves."""
    spans: dict[str, list[Span]] = defaultdict(list)
    for each in harms:
        spans[each.service].append(each.span)
    wanted = [(service, *span) for service in sorted(spans) for span in union(spans[service])]
    if not wanted:
        return []
    services, begins, ends = map(list, zip(*wanted, strict=True))
    rows = await tx.execute(
        _HARMS_DURING,
        {
            "services": services,
            "begins": begins,
            "ends": ends,
            "earliest": min(begins),
            "latest": max(ends),
            "now": now,
            "settled_only": settled_only,
        },
    )
    return [harm(row.id, Facts.of(row), now=now, weights=weights) for row in rows]


async def planned_during(tx: AsyncConnection, harms: Sequence[Harm]) -> Planned:
    """The maintenance of the affected services that may overlap the harm."""
    if not harms:
        return {}
    within = Span(min(each.span.begins for each in harms), max(each.span.ends for each in harms))
    return await planned_within(tx, {each.service for each in harms}, within)


async def planned_within(tx: AsyncConnection, services: Collection[str], within: Span) -> Planned:
    """The maintenance of these services that overlaps `within`."""
    parameters = {"services": sorted(services), "begins": within.begins, "ends": within.ends}
    rows = await tx.execute(_WINDOWS_WITHIN, parameters)
    return planned([Window.of(row._mapping) for row in rows], services, within)


async def failing_within(
    tx: AsyncConnection, within: Span, services: Collection[str] | None, *, now: datetime, weights: Weights
) -> Mapping[str, Sequence[Failing]]:
    """The incidents with harm in the period by service (None: all services); services without any are missing."""
    rows = await tx.execute(
        _FAILING_WITHIN,
        {
            "services": None if services is None else sorted(services),
            "begins": within.begins,
            "ends": within.ends,
            "now": now,
        },
    )
    found: dict[str, list[Failing]] = defaultdict(list)
    for row in rows:
        facts = Facts.of(row)
        harmed = harm(row.id, facts, now=now, weights=weights)
        found[harmed.service].append(Failing(row.number, detected_at(facts), harmed))
    return found


async def harming_within(tx: AsyncConnection, within: Span, services: Collection[str] | None) -> Columns:
    """The incidents of these services (None: all services) with harm in the period."""
    named = None if services is None else sorted(services)
    parameters = {"services": named, "begins": within.begins, "ends": within.ends}
    return await off_loop(columns_of, (await tx.execute(_HARMING_WITHIN, parameters)).one())


_WINDOWS_WITHIN = text("""
    SELECT name, services, reason, begins_at, ends_at,
           weekdays, start_time, duration_seconds, zone, first_date, last_date
      FROM maintenance
     WHERE (services = '{}' OR services && CAST(:services AS text[]))
       AND (begins_at IS NULL OR (begins_at < :ends AND ends_at > :begins))
     ORDER BY name
""")

FACTS_OF_INCIDENT = TableColumns(Incident.__table__, ("id", *FACTS)).selected()

# `:earliest` and `:latest` are implied by the spans and only add speed. `ended_at` has an upper bound because a generic
# plan estimates `> x` at a third of the table and reads all of it, but estimates a range to be small.
_HARMS_DURING = text(f"""
    SELECT {FACTS_OF_INCIDENT}
      FROM incident
     WHERE merged_into IS NULL
       AND coalesce(service_stated, service) = ANY(CAST(:services AS text[]))
       AND (ended_at IS NULL OR ended_at BETWEEN :earliest AND 'infinity')
       AND coalesce(impact_started_at, detected_at_stated, began_at) < :latest
       AND (settled_at IS NOT NULL OR NOT :settled_only)
       AND EXISTS (SELECT
                     FROM unnest(CAST(:services AS text[]), CAST(:begins AS timestamptz[]),
                                 CAST(:ends AS timestamptz[])) AS wanted (service, begins, ends)
                    WHERE wanted.service = coalesce(incident.service_stated, incident.service)
                      AND wanted.begins < coalesce(incident.ended_at, :now)
                      AND wanted.ends > coalesce(incident.impact_started_at, incident.detected_at_stated,
                                                 incident.began_at))
""")  # noqa: S608

# Each half of the OR has an index, so old incidents are not read. See above for the bound of `ended_at`.
_HARMS_WITHIN = """
      FROM incident
     WHERE merged_into IS NULL
       AND (ended_at IS NULL OR ended_at BETWEEN :begins AND 'infinity')
       AND coalesce(impact_started_at, detected_at_stated, began_at) < :ends
       AND (CAST(:services AS text[]) IS NULL
            OR coalesce(service_stated, service) = ANY(CAST(:services AS text[])))
"""
_FAILING_WITHIN = text(f"SELECT incident.number, {FACTS_OF_INCIDENT} {_HARMS_WITHIN}")


# — many incidents at once —

_REASONS = ", ".join(f"'{reason}'" for reason in END_REASONS)

# All rows aggregated into one: creating a hundred thousand row objects would take longer than all computations on them.
# PostgreSQL sends times as microseconds, eight bytes each. All columns have the same order. Names are sent as one
# string plus their lengths, which is faster than an array.
COLUMNS = f"""
           string_agg(int8send(number), '') AS number,
           string_agg(coalesce(service_stated, service), '') AS services,
           string_agg(int4send(char_length(coalesce(service_stated, service))), '') AS service_lengths,
           string_agg(int2send(coalesce(severity_stated, severity)), '') AS severity,
           string_agg(boolsend(alert_class = '{AlertClass.MONITORING}'), '') AS monitoring,
           string_agg(int4send(coalesce(array_position(ARRAY[{_REASONS}], end_reason), 0)), '') AS end_reason,
           string_agg(boolsend(impact_stated IS NOT NULL), '') AS has_impact_stated,
           array_agg(impact_stated) FILTER (WHERE impact_stated IS NOT NULL) AS impact_stated,
           {", ".join(f"string_agg(timestamptz_send(coalesce({name}, '-infinity')), '') AS {name}" for name in TIMES)}
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
    def severity(self) -> bytes | None: ...
    @property
    def monitoring(self) -> bytes | None: ...
    @property
    def end_reason(self) -> bytes | None: ...
    @property
    def has_impact_stated(self) -> bytes | None: ...
    @property
    def impact_stated(self) -> Sequence[Decimal] | None: ...


def columns_of(row: ColumnsRow) -> Columns:

    def times(sent: bytes | None) -> Ints:
        since = _numbers(sent, ">i8")
        return np.where(since == NEVER, NEVER, since + _EPOCH_OF_POSTGRESQL)

    stated = iter(row.impact_stated or ())
    return Columns(
        number=_numbers(row.number, ">i8"),
        service=coded(texts(row.services, row.service_lengths)),
        severity=_numbers(row.severity, ">i2"),
        monitoring=_numbers(row.monitoring, "?").astype(np.bool_),
        end_reason=_numbers(row.end_reason, ">i4") - 1,
        impact_stated=coded([next(stated) if has else None for has in row.has_impact_stated or b""]),
        **{name: times(getattr(row, name)) for name in TIMES},
    )


def texts(joined: str | None, lengths: bytes | None) -> list[str]:
    ends = np.cumsum(_numbers(lengths, ">i4")).tolist()
    return [(joined or "")[begin:end] for begin, end in pairwise([0, *ends])]


def _numbers(sent: bytes | None, kind: str) -> Ints:
    return np.frombuffer(sent or b"", kind).astype(np.int64)


_HARMING_WITHIN = text(f"SELECT {COLUMNS} {_HARMS_WITHIN}")
