"""SQL shared by several queries: bind parameters for the period and filters, and the hour of the week."""

from dataclasses import asdict

from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.metrics.query import MetricsQuery


def bound(query: MetricsQuery) -> dict[str, object]:
    """The bind parameters `begins`, `ends`, `people` (never counted as a source) and one per filter."""
    return {
        "start": query.period.start,
        "end": query.period.end,
        "people": MANUAL_SOURCE_ID,
        **asdict(query.filters),
    }


def hour_of_week(at: str) -> str:
    """An SQL expression for the hour of the week (`Filters.hour_of_week`) of the SQL expression `at`."""
    utc = f"{at} AT TIME ZONE 'UTC'"
    return f"(extract(isodow FROM {utc})::int - 1) * 24 + extract(hour FROM {utc})::int"
