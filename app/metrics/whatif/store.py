"""SQL for what-if scenarios: the period's incidents, with rates and maintenance up to their moved ends."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.process.threads import off_loop
from app.base.values.times import Span
from app.incidents.impact.columns import impact_columns
from app.incidents.impact.store import planned_within, rates_of
from app.incidents.measures.measures import Weights
from app.metrics.query import MetricsQuery
from app.metrics.summary.store import read_columns
from app.metrics.whatif.scenario import Adjustments, Moved, WhatIf, affected_span, move, what_if


async def read_what_if(
    tx: AsyncConnection, query: MetricsQuery, changes: Adjustments, *, now: datetime, weights: Weights
) -> WhatIf:
    """The cost that the period would have had, including incidents of all severities."""
    columns, stretches = await read_columns(tx, query, now=now)

    def move_all() -> tuple[Moved, Span]:
        moved = move(
            columns, impact_columns(columns, stretches, now=now, weights=weights), changes, query.period, now=now
        )
        return moved, affected_span(moved, query.period)

    moved, reached = await off_loop(move_all)
    services = columns.service.values
    rates = await rates_of(tx, services)
    planned = await planned_within(tx, services, reached, occurrences_at_most=query.bounds.occurrences)
    return await off_loop(what_if, moved, changes, rates, planned, query.period, parts_at_most=query.bounds.parts)
