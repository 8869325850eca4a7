"""SQL shared by several queries: bind parameters for the period and filters, and the hour of the week."""

from dataclasses import asdict

from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.metrics.query import MetricsQuery


def bound(query: MetricsQuery) -> dict[str, object]:
    """The bind parameters `begins`, `ends`, `people` (never counted as a source) and one array per filter."""
    return {
        "start": query.period.start,
        "end": query.period.end,
        "people": MANUAL_SOURCE_ID,
        **{name: list(values) for name, values in asdict(query.filters).items()},
    }


def chosen(filter_name: str, kind: str, value: str) -> str:
    """An SQL condition: the filter has no values, or one is that of the SQL expression `value`, which has this type."""
    return f"(CAST(:{filter_name} AS {kind}[]) = '{{}}' OR {value} = ANY(CAST(:{filter_name} AS {kind}[])))"


# An SQL condition: the filter `source` has no values, or one of them reported the incident.
FROM_SOURCE = """(CAST(:source AS text[]) = '{}'
            OR source_ids && ARRAY(SELECT id
                                     FROM source
                                    WHERE name = ANY(CAST(:source AS text[]))
                                      AND id <> :people))"""


def hour_of_week(at: str) -> str:
    """An SQL expression for the hour of the week (`Filters.hour_of_week`) of the SQL expression `at`."""
    utc = f"{at} AT TIME ZONE 'UTC'"
    return f"(extract(isodow FROM {utc})::int - 1) * 24 + extract(hour FROM {utc})::int"
