"""SQL for a comparison: the incidents detected in each of the two periods."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.process.threads import off_loop
from app.base.values.times import Span
from app.base.values.vocabulary import UNKNOWN_ENVIRONMENT
from app.incidents.impact.store import COLUMNS, columns_of
from app.incidents.measures.business_durations import in_business_hours, starts_in_business_hours
from app.incidents.measures.vectorized import Booleans, MeasuredMany, measured
from app.metrics.comparison.compare import Compared, Sample, Side, compare, sample
from app.metrics.counts import CountsCompared, both_counted, events
from app.metrics.query import MetricsQuery
from app.metrics.sql import FROM_SOURCE, bound, chosen, hour_of_week


class PeriodsCompared(NamedTuple):
    by_time: Compared
    in_hours: Compared | None  # without a calendar
    incidents: CountsCompared


async def compare_periods(
    tx: AsyncConnection, measure: str, a: MetricsQuery, b: MetricsQuery, *, now: datetime
) -> PeriodsCompared:
    """Compares B with A by elapsed time and, if the queries have a calendar, in business hours too.

    The queries may differ only in their periods.
    """
    rows = [(await tx.execute(_DETECTED_IN_PERIOD, bound(query))).one() for query in (a, b)]

    def work() -> PeriodsCompared:
        incidents = [columns_of(row) for row in rows]
        services = [each.service.values for each in incidents]
        sides = [
            measured(each, include_non_recoveries=a.include_non_recoveries, now=now)[measure] for each in incidents
        ]
        spans = [(query.period.start, observed(query.period, now)) for query in (a, b)]
        times = [each.detected_at() for each in incidents]
        counts = both_counted(*(events(at, *span) for at, span in zip(times, spans, strict=True)))

        def verdict(sides: Sequence[MeasuredMany], in_hours: Sequence[Booleans | None] = (None, None)) -> Compared:
            samples = [
                sample(side, at, observed=lasted, in_hours=those)
                for side, at, (_, lasted), those in zip(sides, times, spans, in_hours, strict=True)
            ]
            return compared(samples, services)

        if a.calendar is None:
            return PeriodsCompared(verdict(sides), None, counts)
        by_hours = [
            in_business_hours({measure: side}, a.calendar, parts_at_most=a.bounds.parts)[measure] for side in sides
        ]
        in_hours = [starts_in_business_hours(side, a.calendar) for side in sides]
        return PeriodsCompared(verdict(sides), verdict(by_hours, in_hours), counts)

    return await off_loop(work)


def observed(period: Span, now: datetime) -> timedelta:
    """How much of the period has passed."""
    return max(timedelta(0), min(period.end, now) - period.start)


def compared(samples: Sequence[Sample], services: Sequence[Sequence[str]]) -> Compared:
    a, b = (Side(*each) for each in zip(samples, services, strict=True))
    return Compared(compare(a.sample, b.sample), a, b)


# The first condition on times is implied by the others; it lets PostgreSQL use the indexes.
_DETECTED_IN_PERIOD = text(f"""
    SELECT {COLUMNS}
      FROM incident
     WHERE merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND {chosen("service", "text", "coalesce(service_stated, service)")}
       AND {chosen("environment", "text", f"coalesce(environment, '{UNKNOWN_ENVIRONMENT}')")}
       AND {chosen("severity", "smallint", "coalesce(severity_stated, severity)")}
       AND (CAST(:owner AS text[]) = '{{}}'
            OR coalesce(service_stated, service)
               = ANY(ARRAY(SELECT known.name
                             FROM service AS known
                            WHERE coalesce(known.owner, '') = ANY(CAST(:owner AS text[])))))
       AND {FROM_SOURCE}
       AND {chosen("hour_of_week", "integer", hour_of_week("coalesce(detected_at_stated, began_at)"))}
       AND (   began_at >= :start AND began_at < :end
            OR detected_at_stated >= :start AND detected_at_stated < :end)
       AND coalesce(detected_at_stated, began_at) >= :start
       AND coalesce(detected_at_stated, began_at) < :end
""")  # noqa: S608
