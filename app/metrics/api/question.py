"""What the numbers of a period may be asked for, and how much of them there may be."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Query
from pydantic import Field

from app.base.errors import Invalid
from app.base.http.context import Now, Tx
from app.base.http.fields import EARLIEST, At, Name, Words
from app.base.severity import SeverityName, severity_number
from app.base.times import Span
from app.catalog.calendars.store import find_calendar
from app.incidents.measures.business_hours import BusinessHours
from app.incidents.measures.measures import MEASURES
from app.metrics.statistics import GroupBy, Scope

DEFAULT_PERIOD = timedelta(days=30)
BUCKETS_AT_MOST = 1000
POINTS_AT_MOST = 10_000
GROUPS_AT_MOST = 500
HORIZON = 48 * 3600.0
HORIZON_AT_MOST = 10 * 365 * 86_400.0


Owner = Annotated[Words, Field(max_length=200)]
OfSource = Annotated[Name | None, Query(description="One that told of it", examples=["prod"])]
OfOwner = Annotated[
    Owner | None, Query(description="Of the service; empty: services without one", examples=["Payments"])
]
OfHour = Annotated[int | None, Query(ge=0, le=167, description="Of detection, in UTC: 0 is Monday from 00:00 to 01:00")]


@dataclass(frozen=True, slots=True)
class Question:
    scope: Scope
    include_non_recoveries: bool


def _question(
    now: Now,
    since: Annotated[At | None, Query(alias="from", description="Left out: 30 days before `to`")] = None,
    until: Annotated[At | None, Query(alias="to", description="Not included; left out: now")] = None,
    service: Annotated[Name | None, Query(examples=["checkout"])] = None,
    severity: Annotated[SeverityName | None, Query()] = None,
    source: OfSource = None,
    owner: OfOwner = None,
    hour_of_week: OfHour = None,
    include_non_recoveries: Annotated[  # noqa: FBT002  a query parameter has a name
        bool,
        Query(description="Count ends that are not recoveries (rule paused, …) and trouble of the monitoring too"),
    ] = False,
) -> Question:
    until = until or max(now, since or now)
    since = since or max(until - DEFAULT_PERIOD, EARLIEST + timedelta(seconds=1))  # EARLIEST itself is too early
    if since > until:
        message = "`from` lies after `to`"
        raise Invalid(message)
    number = severity_number(severity) if severity else None
    scope = Scope(Span(since, until), service, number, source, owner, hour_of_week)
    return Question(scope, include_non_recoveries)


Asked = Annotated[Question, Depends(_question)]
Grouping = Annotated[
    GroupBy | None,
    Query(description="Give the numbers of each service, severity, … too; what two sources told of is in both groups"),
]
Horizon = Annotated[
    float,
    Query(
        gt=0,
        le=HORIZON_AT_MOST,
        description="Seconds, of the restricted mean: what takes longer counts as this long",
        examples=[172_800],
    ),
]


_NAMES = tuple(sorted(each.name for each in MEASURES))


def _measures(
    measure: Annotated[
        list[Annotated[str, Field(json_schema_extra={"enum": list(_NAMES)})]] | None,
        Query(description="Only this one; may be given several times. Left out: all", examples=[["time_to_recover"]]),
    ] = None,
) -> frozenset[str] | None:
    if measure is None:
        return None
    if unknown := set(measure) - {*_NAMES}:
        message = f"there is no measure {min(unknown)!r}, but there are {', '.join(_NAMES)}"
        raise Invalid(message)
    return frozenset(measure)


OnlyMeasures = Annotated[frozenset[str] | None, Depends(_measures)]


async def _calendar(
    tx: Tx,
    calendar: Annotated[
        Name | None,
        Query(
            description="Measure durations in the hours of this calendar too, beside the time that passes",
            examples=["berlin-office"],
        ),
    ] = None,
) -> BusinessHours | None:
    return None if calendar is None else (await find_calendar(tx, calendar)).hours


SecondClock = Annotated[BusinessHours | None, Depends(_calendar, scope="function")]
