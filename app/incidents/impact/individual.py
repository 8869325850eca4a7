"""Downtime and cost of single incidents."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple, Protocol
from uuid import UUID

import numpy as np
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.process.threads import off_loop
from app.base.values.times import MICROSECOND, Span
from app.incidents.impact.columns import StretchColumns, impact_columns
from app.incidents.impact.intervals import Shown, shown
from app.incidents.impact.maintenance import Planned
from app.incidents.impact.rates import Rate
from app.incidents.impact.store import (
    COLUMNS,
    DURING,
    DURING_LONG,
    LONG,
    STRETCHES,
    impact_columns_of,
    planned_within,
    rates_of,
)
from app.incidents.impact.sweep import Pieces, Sweep, outside
from app.incidents.measures.measures import Facts, Weights, service
from app.incidents.measures.vectorized import Columns, moment


class _Incident(Protocol):
    """A row of `incident`, or of a query with at least `id`, `number` and FACTS."""

    @property
    def id(self) -> UUID: ...
    @property
    def number(self) -> int: ...
    @property
    def merged_into(self) -> UUID | None: ...


class Impact(NamedTuple):
    """Downtime and cost of an incident, outside planned maintenance; `cost` by currency, empty without a rate."""

    downtime: timedelta
    cost: Mapping[str, Shown]


async def impacts_of(
    tx: AsyncConnection, incidents: Iterable["_Incident"], *, now: datetime, weights: Weights
) -> Mapping[UUID, Impact]:
    """The impact of each incident, without merged ones; a test has none. Costs are rounded.

    Overlapping incidents share the cost, so they are read too; four statements at most.
    """
    rows = [incident for incident in incidents if incident.merged_into is None]
    if not rows:
        return {}
    around = await _read_around(tx, rows, now=now)
    return await off_loop(lambda: {each.id: found.impact for each, found in _impacts(around, rows, now, weights)})


class DetailedImpact(NamedTuple):
    """`parts` are the times with impact outside planned maintenance, in order, with the affected share."""

    impact: Impact
    parts: Sequence[tuple[Span, Decimal]]
    rates: Sequence[Rate]  # of the service
    planned: Sequence[Span]  # maintenance of the service around the incident


async def detailed_impact_of(
    tx: AsyncConnection, incident: "_Incident", *, now: datetime, weights: Weights
) -> DetailedImpact:
    """The impact of an incident that was not merged; four statements at most, however long it lasted."""
    around = await _read_around(tx, [incident], now=now)
    [(_, found)] = await off_loop(_impacts, around, [incident], now, weights)
    return found


class _Around(NamedTuple):
    """Some incidents, and all that share their cost."""

    columns: Columns
    stretches: StretchColumns
    rates: Sequence[Rate]
    planned: Planned


async def _read_around(tx: AsyncConnection, rows: Sequence["_Incident"], *, now: datetime) -> _Around:
    # Wider than the incidents themselves, so that those without duration are read too.
    spans = [_extent(Facts.of(row), now) for row in rows]
    starts, ends = ([*each] for each in zip(*spans, strict=True))
    within = Span(min(starts), max(ends))
    parameters = {
        "services": [service(Facts.of(row)) for row in rows],
        "start": starts,
        "end": ends,
        "earliest": within.start,
        "latest": within.end,
        "now": now,
        "settled_only": False,
    }
    query = _IMPACTING_DURING_LONG if within.start < now - LONG else _IMPACTING_DURING
    columns, stretches = await impact_columns_of(tx, (await tx.execute(query, parameters)).one())
    services = columns.service.values
    rates = await rates_of(tx, services)
    return _Around(columns, stretches, rates, await planned_within(tx, services, within))


def _extent(facts: Facts, now: datetime) -> Span:
    starts = (facts.began_at, facts.impact_started_at, facts.detected_at_stated)
    start = facts.impact_started_at_stated or min(start for start in starts if start is not None)
    end = facts.ended_at or now
    return Span(min(start, end) - MICROSECOND, max(start, end) + MICROSECOND)


def _impacts(
    around: _Around, rows: Sequence["_Incident"], now: datetime, weights: Weights
) -> list[tuple["_Incident", DetailedImpact]]:
    columns = around.columns
    impacts = impact_columns(columns, around.stretches, now=now, weights=weights)
    piece, start, end = outside(impacts, columns.service.values, around.planned)
    left = Pieces(piece, start, end, np.zeros_like(piece))
    incident = impacts.incident[piece]
    own = np.flatnonzero(np.isin(columns.number[incident], [row.number for row in rows]))
    cost = Sweep(left, impacts, columns.service.values, around.rates).shared(own, incident[own])
    own = own[(impacts.impact[piece[own]] > 0) & (start[own] < end[own])]  # those of one do not overlap
    parts: dict[int, list[tuple[Span, Decimal]]] = defaultdict(list)
    for place, first, last, impact in sorted(
        zip(*(each[own].tolist() for each in (incident, start, end, impacts.impact[piece])), strict=True)
    ):
        parts[place].append((Span(moment(first), moment(last)), Decimal(impact) / impacts.scale))
    places = {number: place for place, number in enumerate(columns.number.tolist())}
    found = []
    for row in rows:
        place = places.get(row.number)
        if place is None:  # a test
            found.append((row, DetailedImpact(Impact(timedelta(), {}), (), around.rates, ())))
            continue
        down = sum((span.end - span.start for span, _ in parts[place]), timedelta())
        planned = around.planned.get(service(Facts.of(row)), ())
        impact_of_row = Impact(down, shown(cost.total([place])))
        found.append((row, DetailedImpact(impact_of_row, parts[place], around.rates, planned)))
    return found


_IMPACTING_DURING = text(f"SELECT {COLUMNS}, {STRETCHES} {DURING}")
_IMPACTING_DURING_LONG = text(f"SELECT {COLUMNS}, {STRETCHES} {DURING_LONG}")
