"""Query parameters of the metrics routes and their limits; turns a request into a `MetricsQuery`."""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Query
from pydantic import Field

from app.base.errors import Invalid
from app.base.http.context import SettingsDep, Tx
from app.base.http.requests.fields import Name, PeriodDep
from app.base.http.requests.filters import Environments, Owners, Services, Severities, Sources, severity_numbers
from app.incidents.impact.maintenance import Bounds
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.measures import MEASURES
from app.incidents.measures.store import read_business_hours
from app.metrics.query import Filters, GroupBy, MetricsQuery
from app.settings import Settings

BUCKETS_AT_MOST = 1000
POINTS_AT_MOST = 10_000
GROUPS_AT_MOST = 500
OF_SERIES = ("time_to_acknowledge", "time_to_recover")  # the measures of a time series that names none
HORIZON_AT_MOST = 10 * 365 * 86_400.0

NonRecoveries = Annotated[
    bool,
    Query(description="Also count ends that are not recoveries (rule paused, …) and failures of the monitoring itself"),
]


def _filters(
    service: Services = [],  # noqa: B006  fastapi copies it, as the other lists
    environment: Environments = [],  # noqa: B006
    severity: Severities = [],  # noqa: B006
    source: Sources = [],  # noqa: B006
    owner: Owners = [],  # noqa: B006
    hour_of_week: Annotated[
        list[Annotated[int, Field(ge=0, le=167)]],
        Query(
            description="Hour of detection within the week, in UTC: 0 is Monday from 00:00 to 01:00; may be repeated",
            max_length=168,
        ),
    ] = [],  # noqa: B006
) -> Filters:
    return Filters(
        service=tuple(service),
        severity=severity_numbers(severity),
        source=tuple(source),
        owner=tuple(owner),
        hour_of_week=tuple(hour_of_week),
        environment=tuple(environment),
    )


FiltersDep = Annotated[Filters, Depends(_filters)]


def _query(
    period: PeriodDep,
    filters: FiltersDep,
    settings: SettingsDep,
    include_non_recoveries: NonRecoveries = False,  # noqa: FBT002  a query parameter has a name
) -> MetricsQuery:
    return MetricsQuery(period, filters, include_non_recoveries=include_non_recoveries, bounds=bounds_in(settings))


def bounds_in(settings: Settings) -> Bounds:
    return Bounds(settings.query_occurrences, settings.query_parts)


QueryDep = Annotated[MetricsQuery, Depends(_query)]

_NAMES = tuple(sorted(each.name for each in MEASURES))


def _measures(
    measure: Annotated[
        list[Annotated[str, Field(json_schema_extra={"enum": list(_NAMES)})]] | None,
        Query(
            description="Return only this measure; may be repeated. Defaults to all, in time series to "
            f"{' and '.join(f'`{name}`' for name in OF_SERIES)}",
            examples=[["time_to_recover"]],
        ),
    ] = None,
) -> frozenset[str] | None:
    if measure is None:
        return None
    if unknown := set(measure) - {*_NAMES}:
        message = f"`measure` {min(unknown)!r} is not known; use one or several of {', '.join(_NAMES)}"
        raise Invalid(message)
    return frozenset(measure)


async def _calendar(
    tx: Tx,
    calendar: Annotated[
        Name | None,
        Query(
            description="Also measure durations in the business hours of this calendar, in addition to elapsed time",
            examples=["berlin-office"],
        ),
    ] = None,
) -> BusinessHours | None:
    return None if calendar is None else await read_business_hours(tx, calendar)


CalendarDep = Annotated[BusinessHours | None, Depends(_calendar, scope="function")]


def _grouped(
    query: QueryDep,
    calendar: CalendarDep,
    measures: Annotated[frozenset[str] | None, Depends(_measures)],
    group_by: Annotated[
        GroupBy | None,
        Query(
            description="Also return the numbers of each service, severity, …; an incident reported by two sources "
            "counts in both groups"
        ),
    ] = None,
) -> MetricsQuery:
    return replace(query, group_by=group_by, calendar=calendar, measures=measures)


GroupedQueryDep = Annotated[MetricsQuery, Depends(_grouped, scope="function")]
