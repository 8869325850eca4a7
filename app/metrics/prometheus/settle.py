"""Settling: counts each resolved incident once into the Prometheus counters and histograms."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.values.times import Span
from app.incidents.grouping.decide import TRY_LOCK_KEY
from app.incidents.grouping.write import Count, count
from app.incidents.history.notes import tasks_of
from app.incidents.history.path import Task, phase_at
from app.incidents.impact.intervals import ImpactInterval, costs, downtime, impact_intervals, rounded
from app.incidents.impact.maintenance import unplanned
from app.incidents.impact.rates import Rate
from app.incidents.impact.store import (
    FACTS_OF_INCIDENT,
    intervals_during,
    planned_during,
    rates_of,
    read_stretches,
    store_stretches,
)
from app.incidents.measures import measures
from app.incidents.measures.measures import DURATION_BOUNDS, MEASURES, Facts, MeasureStatus, Weights
from app.metrics.prometheus.snapshot import (
    ENVIRONMENT,
    OTHER,
    TASKS,
    UNKNOWN_PHASE,
    exported_environments,
    shown_environment,
)

SETTLED_AT_ONCE = 500
# Settling waits this long after an alert that has ended was reported as firing: it may turn out not to have ended.
CONTRADICTED_FOR = timedelta(hours=24)
_INCIDENTS = "incidents"  # the measure under which settled incidents are counted
_PLACES = 12  # decimal places of the cumulative sums, in units of the currency


# What another area counts of the incidents that settle.
CountMore = Callable[[AsyncConnection, Mapping[UUID, Facts], datetime], Awaitable[list[Count]]]


async def settle(
    tx: AsyncConnection,
    *,
    now: datetime,
    allowed_lateness: timedelta,
    weights: Weights,
    at_most: int = SETTLED_AT_ONCE,
    also: CountMore | None = None,
) -> int:
    """Counts incidents that have been resolved for long enough, each once; returns how many.

    Oldest first, `at_most` at a time; 0 while another process is settling. Downtime and cost increase by the time not
    covered by incidents settled earlier, minus planned maintenance as known now. Stores the stretches of these
    incidents, and those of settled ones that have changed. A fixed number of statements for any number of incidents.
    """
    if not (await tx.execute(_SETTLE_ALONE)).scalar_one():
        return 0
    changed = (await tx.execute(_WITHOUT_STRETCHES, {"at_most": at_most})).scalars().all()
    if changed:
        await store_stretches(tx, await read_stretches(tx, changed))
    environments = await exported_environments(tx)
    await tx.execute(_REMEMBER_PLACES, {"environments": environments})
    parameters = {"ripe_at": now - allowed_lateness, "quiet_since": now - CONTRADICTED_FOR, "at_most": at_most}
    ripe = (await tx.execute(_RIPE, parameters)).all()
    if not ripe:
        return 0
    facts: dict[UUID, Facts] = {row.id: Facts.of(row) for row in ripe}
    await tx.execute(_MARK_SETTLED, {"ids": list(facts), "now": now})
    stretches = await read_stretches(tx, [row.number for row in ripe])
    await store_stretches(tx, stretches)
    intervals = [
        each
        for row in ripe
        for each in impact_intervals(
            row.id,
            facts[row.id],
            stretches[row.number],
            now=now,
            weights=weights,
        )
    ]
    before = [
        each
        for each in await intervals_during(tx, intervals, now=now, weights=weights, settled_only=True)
        if each.incident not in facts
    ]
    planned = await planned_during(tx, [*before, *intervals])
    before, intervals = unplanned(before, planned), unplanned(intervals, planned)
    rates = await rates_of(tx, {each.service for each in intervals})
    places = [(row.environment if row.environment in environments else OTHER, facts[row.id]) for row in ripe]
    await tx.execute(_ADD_MEASURES, {"rows": _json(_measured(places))})
    await tx.execute(_ADD_DOWNTIME, {"rows": _json(_more_downtime(before, intervals))})
    await tx.execute(_ADD_COST, {"rows": _json(_more_cost(before, intervals, rates))})
    counts = _tasks(facts, await tasks_of(tx, facts.keys()))
    if also is not None:
        counts += await also(tx, facts, now)
    await count(tx, counts)
    return len(facts)


def _tasks(facts: Mapping[UUID, Facts], tasks: Mapping[UUID, Sequence[Task]]) -> list[Count]:
    counts = Counter((phase_at(facts[id_], task.at), task.effect) for id_, each in tasks.items() for task in each)
    return [(TASKS, phase or UNKNOWN_PHASE, effect, number) for (phase, effect), number in counts.items()]


def _measured(settled: Iterable[tuple[str, Facts]]) -> list[dict[str, object]]:
    """`settled`: environments and facts of the incidents."""
    counts: Counter[tuple[str, str, str, int, int]] = Counter()
    seconds: dict[tuple[str, str, str, int, int], float] = defaultdict(float)
    for environment, facts in settled:
        of = (measures.service(facts), environment, measures.severity(facts))
        counts[_INCIDENTS, *of, 0] += 1
        found = measures.measures(facts)
        for measure in MEASURES:
            measured = found[measure.name]
            if measure.histogram and measured.status is MeasureStatus.RECORDED and measured.seconds is not None:
                place = (measure.name, *of, bisect_left(DURATION_BOUNDS, measured.seconds))
                counts[place] += 1
                seconds[place] += measured.seconds
    names = ("measure", "service", "environment", "severity", "bucket")
    return [
        {**dict(zip(names, place, strict=True)), "count": count, "seconds": seconds[place]}
        for place, count in sorted(counts.items())
    ]


def _more_downtime(before: Sequence[ImpactInterval], intervals: Sequence[ImpactInterval]) -> list[dict[str, object]]:
    whole = Span(min(each.span.start for each in intervals), max(each.span.end for each in intervals))

    def of(service: str, those: Iterable[ImpactInterval]) -> timedelta:
        return downtime((each.span for each in those if each.service == service and each.impact > 0), whole)

    more = {
        service: of(service, [*before, *intervals]) - of(service, before)
        for service in {each.service for each in intervals}
    }
    return [
        {"service": service, "seconds": Decimal(time // timedelta(microseconds=1)).scaleb(-6)}
        for service, time in sorted(more.items())
    ]


def _more_cost(
    before: Sequence[ImpactInterval], intervals: Sequence[ImpactInterval], rates: Sequence[Rate]
) -> list[dict[str, object]]:
    """The expected cost, at the rates known now."""
    without = costs(before, rates, shares=False).services
    with_ = costs([*before, *intervals], rates, shares=False).services
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
           AND test_stated IS NOT TRUE
           AND ended_at IS NOT NULL
           AND reach_at <= :ripe_at
           AND (fired_after_end_at IS NULL OR fired_after_end_at <= :quiet_since)
         ORDER BY began_at, id
         LIMIT :at_most
    ), free AS MATERIALIZED (
        SELECT incident.id
          FROM ripe
          JOIN incident USING (id)
         WHERE {TRY_LOCK_KEY}
    )
    SELECT incident.number, {FACTS_OF_INCIDENT}, {ENVIRONMENT} AS environment
      FROM free
      JOIN incident USING (id)
     WHERE settled_at IS NULL
       AND merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND ended_at IS NOT NULL
       AND reach_at <= :ripe_at
       AND (fired_after_end_at IS NULL OR fired_after_end_at <= :quiet_since)
     ORDER BY began_at, incident.id
       FOR UPDATE OF incident SKIP LOCKED
""")  # noqa: S608

_WITHOUT_STRETCHES = text(f"""
    WITH changed AS MATERIALIZED (
        SELECT id
          FROM incident
         WHERE settled_at IS NOT NULL
           AND NOT stretches_current
           AND merged_into IS NULL
         ORDER BY began_at
         LIMIT :at_most
    ), free AS MATERIALIZED (
        SELECT incident.id
          FROM changed
          JOIN incident USING (id)
         WHERE {TRY_LOCK_KEY}
    )
    SELECT incident.number
      FROM free
      JOIN incident USING (id)
     WHERE settled_at IS NOT NULL
       AND NOT stretches_current
       AND merged_into IS NULL
       FOR UPDATE OF incident SKIP LOCKED
""")  # noqa: S608

# A series exported at 0 stays, even if the incident that introduced it is merged or changes its severity.
_REMEMBER_PLACES = text(f"""
    INSERT INTO settled_in_environment (measure, service, environment, severity, bucket, count, seconds)
    SELECT DISTINCT '{_INCIDENTS}', coalesce(service_stated, service), {shown_environment(ENVIRONMENT)},
           coalesce(severity_stated, severity), 0, 0, 0
      FROM incident
     WHERE merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND (ended_at IS NULL OR settled_at IS NULL)
        ON CONFLICT DO NOTHING
""")  # noqa: S608

_MARK_SETTLED = text("""
    UPDATE incident
       SET settled_at = :now
     WHERE id = ANY(CAST(:ids AS uuid[]))
""")

_ADD_MEASURES = text("""
    INSERT INTO settled_in_environment (measure, service, environment, severity, bucket, count, seconds)
    SELECT measure, service, environment, severity, bucket, count, seconds
      FROM json_to_recordset(CAST(:rows AS json)) AS new (
           measure text, service text, environment text, severity smallint, bucket smallint, count bigint,
           seconds double precision)
        ON CONFLICT (measure, service, environment, severity, bucket)
        DO UPDATE SET count = settled_in_environment.count + excluded.count,
                      seconds = settled_in_environment.seconds + excluded.seconds
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
