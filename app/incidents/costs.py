"""What single incidents cost, with the SQL for it; the arithmetic is in `downtime.py`."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Text, any_, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.incidents.downtime import Harm, Shown, Span, costs, harm, shown, union
from app.incidents.measures import FACTS, Facts, Weights
from app.incidents.money import Rate
from app.tables import service_rate


async def costs_of(
    tx: AsyncConnection, rows: Iterable[Any], *, now: datetime, weights: Weights
) -> Mapping[UUID, Mapping[str, Shown]]:
    """The cost of each incident by currency, as shown; those of services without a rate, and merged ones, are missing.

    `rows` are of `incident`. Incidents that overlap them share the cost, so these are read too: two statements in all.
    """
    facts = {row.id: Facts.of(row._mapping) for row in rows}
    harms = [harm(id_, each, now=now, weights=weights) for id_, each in facts.items() if not each.merged]
    rates = await rates_of(tx, {each.service for each in harms})
    priced = {rate.service for rate in rates}
    harms = [each for each in harms if each.service in priced]
    if not harms:
        return {}
    around = await harms_during(tx, harms, now=now, weights=weights)
    known = {each.incident for each in harms}
    incidents = costs([*harms, *(each for each in around if each.incident not in known)], rates).incidents
    return {id_: shown(cost) for id_, cost in incidents.items() if id_ in known}


async def rates_of(tx: AsyncConnection, services: Collection[str]) -> Sequence[Rate]:
    if not services:
        return []
    columns = service_rate.c
    rows = await tx.execute(
        select(
            columns.service, columns.valid_from, columns.currency, columns.low, columns.expected, columns.high
        ).where(columns.service == any_(literal(sorted(services), ARRAY(Text))))
    )
    return [Rate(*row) for row in rows]


async def harms_during(
    tx: AsyncConnection, harms: Iterable[Harm], *, now: datetime, weights: Weights, settled_only: bool = False
) -> Sequence[Harm]:
    """What harmed the same services at the same time, `harms` themselves included if they are stored."""
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
    return [harm(row.id, Facts.of(row._mapping), now=now, weights=weights) for row in rows]


FACTS_OF_INCIDENT = ", ".join(f"incident.{name}" for name in ("id", *FACTS))

# The spans decide; `:earliest` and `:latest` follow from them, for speed. `ended_at` has an upper bound because a plan
# for any value takes `> x` to be a third of the table and reads all of it, but a range to be little.
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
