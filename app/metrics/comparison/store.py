"""SQL for a comparison: the incidents detected in each of the two periods."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.threads import off_loop
from app.incidents.impact.store import COLUMNS, columns_of
from app.incidents.measures.business_durations import begins_in_business_hours, in_business_hours
from app.incidents.measures.vectorized import measured
from app.metrics.comparison.compare import Compared, Sample, Side, compare, sample
from app.metrics.query import MetricsQuery
from app.metrics.sql import bound, hour_of_week


async def compare_periods(
    tx: AsyncConnection, measure: str, a: MetricsQuery, b: MetricsQuery, *, now: datetime
) -> tuple[Compared, Compared | None]:
    """Compares B with A by elapsed time and, if the queries have a calendar, in business hours too.

    The queries may differ only in their periods.
    """
    rows = [(await tx.execute(_DETECTED_IN_PERIOD, bound(query))).one() for query in (a, b)]

    def work() -> tuple[Compared, Compared | None]:
        incidents = [columns_of(row) for row in rows]
        services = [each.service.values for each in incidents]
        sides = [
            measured(each, include_non_recoveries=a.include_non_recoveries, now=now)[measure] for each in incidents
        ]
        by_time = _compared([sample(side) for side in sides], services)
        if a.calendar is None:
            return by_time, None
        by_hours = [in_business_hours({measure: side}, a.calendar)[measure] for side in sides]
        in_hours = [begins_in_business_hours(side, a.calendar) for side in sides]
        pairs = zip(by_hours, in_hours, strict=True)
        return by_time, _compared([sample(side, in_hours=those) for side, those in pairs], services)

    return await off_loop(work)


def _compared(samples: Sequence[Sample], services: Sequence[Sequence[str]]) -> Compared:
    a, b = (Side(*each) for each in zip(samples, services, strict=True))
    return Compared(compare(a.sample, b.sample), a, b)


# The first condition on times is implied by the others; it lets PostgreSQL use the indexes.
_DETECTED_IN_PERIOD = text(f"""
    SELECT {COLUMNS}
      FROM incident
     WHERE merged_into IS NULL
       AND (CAST(:service AS text) IS NULL OR coalesce(service_stated, service) = :service)
       AND (CAST(:severity AS smallint) IS NULL OR coalesce(severity_stated, severity) = :severity)
       AND (CAST(:owner AS text) IS NULL
            OR coalesce(service_stated, service)
               = ANY(ARRAY(SELECT known.name FROM service AS known WHERE coalesce(known.owner, '') = :owner)))
       AND (CAST(:source AS text) IS NULL
            OR (SELECT id FROM source WHERE name = :source AND id <> :people) = ANY(source_ids))
       AND (CAST(:hour_of_week AS integer) IS NULL
            OR {hour_of_week("coalesce(detected_at_stated, began_at)")} = :hour_of_week)
       AND (   began_at >= :begins AND began_at < :ends
            OR detected_at_stated >= :begins AND detected_at_stated < :ends)
       AND coalesce(detected_at_stated, began_at) >= :begins
       AND coalesce(detected_at_stated, began_at) < :ends
""")  # noqa: S608
