"""Settling: counts each resolved incident once into the Prometheus counters and histograms."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.times import Span
from app.incidents.grouping.decide import TRY_LOCK_KEY
from app.incidents.impact.intervals import Harm, costs, downtime, harm, rounded
from app.incidents.impact.maintenance import unplanned
from app.incidents.impact.rates import Rate
from app.incidents.impact.store import (
    FACTS_OF_INCIDENT,
    harms_during,
    planned_during,
    rates_of,
)
from app.incidents.measures import measures
from app.incidents.measures.measures import DURATION_BOUNDS, MEASURES, Facts, MeasureStatus, Weights

SETTLED_AT_ONCE = 500
_INCIDENTS = "incidents"  # the measure under which settled incidents are counted
_PLACES = 12  # decimal places of the cumulative sums, in units of the currency


async def settle(
    tx: AsyncConnection,
    *,
    now: datetime,
    allowed_lateness: timedelta,
    weights: Weights,
    at_most: int = SETTLED_AT_ONCE,
) -> int:
    """Counts incidents that have been resolved for long enough, each once; returns how many.

    Oldest first, `at_most` at a time; 0 while another process is settling. Downtime and cost increase by the time not
    covered by incidents settled earlier, minus planned maintenance as known now. Ten statements for any number of
    incidents.
    """
    if not (await tx.execute(_SETTLE_ALONE)).scalar_one():
        return 0
    await tx.execute(_REMEMBER_PLACES)
    ripe = (await tx.execute(_RIPE, {"ripe_at": now - allowed_lateness, "at_most": at_most})).all()
    if not ripe:
        return 0
    facts: dict[UUID, Facts] = {row.id: Facts.of(row) for row in ripe}
    await tx.execute(_MARK_SETTLED, {"ids": list(facts), "now": now})
    harms = [harm(id_, each, now=now, weights=weights) for id_, each in facts.items()]
    before = [
        each
        for each in await harms_during(tx, harms, now=now, weights=weights, settled_only=True)
        if each.incident not in facts
    ]
    planned = await planned_during(tx, [*before, *harms])
    before, harms = unplanned(before, planned), unplanned(harms, planned)
    rates = await rates_of(tx, {each.service for each in harms})
    await tx.execute(_ADD_MEASURES, {"rows": _json(_measured(facts.values()))})
    await tx.execute(_ADD_DOWNTIME, {"rows": _json(_more_downtime(before, harms))})
    await tx.execute(_ADD_COST, {"rows": _json(_more_cost(before, harms, rates))})
    return len(facts)


def _measured(settled: Iterable[Facts]) -> list[dict[str, object]]:
    counts: Counter[tuple[str, str, int, int]] = Counter()
    seconds: dict[tuple[str, str, int, int], float] = defaultdict(float)
    for facts in settled:
        of = (measures.service(facts), measures.severity(facts))
        counts[_INCIDENTS, *of, 0] += 1
        found = measures.measures(facts)
        for measure in MEASURES:
            measured = found[measure.name]
            if measure.histogram and measured.status is MeasureStatus.RECORDED and measured.seconds is not None:
                place = (measure.name, *of, bisect_left(DURATION_BOUNDS, measured.seconds))
                counts[place] += 1
                seconds[place] += measured.seconds
    names = ("measure", "service", "severity", "bucket")
    return [
        {**dict(zip(names, place, strict=True)), "count": count, "seconds": seconds[place]}
        for place, count in sorted(counts.items())
    ]


def _more_downtime(before: Sequence[Harm], harms: Sequence[Harm]) -> list[dict[str, object]]:
    whole = Span(min(each.span.begins for each in harms), max(each.span.ends for each in harms))

    def of(service: str, those: Iterable[Harm]) -> timedelta:
        return downtime((each.span for each in those if each.service == service and each.impact > 0), whole)

    more = {
        service: of(service, [*before, *harms]) - of(service, before) for service in {each.service for each in harms}
    }
    return [
        {"service": service, "seconds": Decimal(time // timedelta(microseconds=1)).scaleb(-6)}
        for service, time in sorted(more.items())
    ]


def _more_cost(before: Sequence[Harm], harms: Sequence[Harm], rates: Sequence[Rate]) -> list[dict[str, object]]:
    """The expected cost, at the rates known now."""
    without = costs(before, rates, shares=False).services
    with_ = costs([*before, *harms], rates, shares=False).services
    more = {
        (service, currency): amount.expected - without[service][currency].expected
        if currency in without.get(service, {})
        else amount.expected
        for service, cost in with_.items()
        for currency, amount in cost.items()
    }
    return [
        {"service": service, "currency": currency, "amount": rounded(amount, _PLACES)}
        for (service, currency), amount in sorted(more.items())
    ]


def _json(rows: Sequence[object]) -> str:
    return msgspec.json.encode(rows).decode()


_SETTLE_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtext('aftermath.settle'))")

# Their keys are locked, because a batch that has read an incident as not settled must not find it settled when it
# writes. Keys in use are left to the next round. The conditions are checked again under the lock.
_RIPE = text(f"""
    WITH ripe AS MATERIALIZED (
        SELECT id
          FROM incident
         WHERE settled_at IS NULL
           AND merged_into IS NULL
           AND ended_at IS NOT NULL
           AND reach_at <= :ripe_at
         ORDER BY began_at, id
         LIMIT :at_most
    ), free AS MATERIALIZED (
        SELECT incident.id
          FROM ripe
          JOIN incident USING (id)
         WHERE {TRY_LOCK_KEY}
    )
    SELECT {FACTS_OF_INCIDENT}
      FROM free
      JOIN incident USING (id)
     WHERE settled_at IS NULL
       AND merged_into IS NULL
       AND ended_at IS NOT NULL
       AND reach_at <= :ripe_at
     ORDER BY began_at, incident.id
       FOR UPDATE OF incident SKIP LOCKED
""")  # noqa: S608

# A series exported at 0 stays, even if the incident that introduced it is merged or changes its severity.
_REMEMBER_PLACES = text(f"""
    INSERT INTO settled_measure (measure, service, severity, bucket, count, seconds)
    SELECT DISTINCT '{_INCIDENTS}', coalesce(service_stated, service), coalesce(severity_stated, severity), 0, 0, 0
      FROM incident
     WHERE merged_into IS NULL
       AND (ended_at IS NULL OR settled_at IS NULL)
        ON CONFLICT DO NOTHING
""")  # noqa: S608

_MARK_SETTLED = text("""
    UPDATE incident
       SET settled_at = :now
     WHERE id = ANY(CAST(:ids AS uuid[]))
""")

_ADD_MEASURES = text("""
    INSERT INTO settled_measure (measure, service, severity, bucket, count, seconds)
    SELECT measure, service, severity, bucket, count, seconds
      FROM json_to_recordset(CAST(:rows AS json)) AS new (
           measure text, service text, severity smallint, bucket smallint, count bigint, seconds double precision)
        ON CONFLICT (measure, service, severity, bucket)
        DO UPDATE SET count = settled_measure.count + excluded.count,
                      seconds = settled_measure.seconds + excluded.seconds
""")

_ADD_DOWNTIME = text("""
    INSERT INTO settled_downtime (service, seconds)
    SELECT service, seconds
      FROM json_to_recordset(CAST(:rows AS json)) AS new (service text, seconds numeric)
        ON CONFLICT (service)
        DO UPDATE SET seconds = settled_downtime.seconds + excluded.seconds
""")

_ADD_COST = text("""
    INSERT INTO settled_cost (service, currency, amount)
    SELECT service, currency, amount
      FROM json_to_recordset(CAST(:rows AS json)) AS new (service text, currency text, amount numeric)
        ON CONFLICT (service, currency)
        DO UPDATE SET amount = settled_cost.amount + excluded.amount
""")
