"""What the page of numbers is asked for: a period, the one before it, and filters."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field

from app.base.errors import Invalid
from app.base.http.requests.fields import EnvironmentFilter, Input, Name
from app.base.values.severity import SeverityName, severity_number
from app.base.values.times import EARLIEST, LATEST, Span, is_in_bounds
from app.metrics.query import Filters
from app.pages.plots.axes import DAY
from app.pages.web.forms import entered_time, parsed
from app.pages.words import plural

DAYS = (7, 30, 90)
DEFAULT_DAYS = 30


class _Fields(Input):
    """The query string."""

    days: int | None = None
    start: Annotated[str, Field(alias="from", max_length=40)] = ""
    end: Annotated[str, Field(alias="to", max_length=40)] = ""
    service: Name | None = None
    severity: SeverityName | None = None
    environment: EnvironmentFilter = None
    calendar: Name | None = None
    table: Annotated[str, Field(max_length=40)] = ""


@dataclass(frozen=True, slots=True)
class NumbersQuery:
    """`period` is compared with the equally long one before it.

    `table` is the measure whose long table was asked for. `start` and `end` are set if the period was entered; `days`
    is set otherwise.
    """

    period: Span
    previous: Span
    days: int | None
    service: str | None
    severity: SeverityName | None
    environment: str | None
    calendar: str | None
    table: str

    @property
    def filters(self) -> Filters:
        return Filters(
            service=(self.service,) if self.service else (),
            severity=(severity_number(self.severity),) if self.severity else (),
            environment=(self.environment,) if self.environment else (),
        )

    @property
    def length(self) -> str:
        """How long each of the two periods is: `30 days`, `12 h`."""
        seconds = (self.period.end - self.period.start).total_seconds()
        whole_days = seconds >= DAY and seconds % DAY == 0
        return plural(int(seconds // DAY), "day") if whole_days else _hours(seconds)


def _hours(seconds: float) -> str:
    days, hours = seconds / DAY, seconds / 3600
    return f"{days:.1f}\u00a0days" if days >= 2 else f"{hours:.1f}\u00a0hours"


def read_query(sent: Mapping[str, str], *, now: datetime, zone: ZoneInfo) -> NumbersQuery:
    """Fields of a form that were left empty do not count; `days` replaces a period that was entered. Times without an
    offset are in `zone`. Raises Invalid.
    """
    fields = parsed(_Fields, {name: value for name, value in sent.items() if value})
    if fields.days is not None and fields.days not in DAYS:
        message = f"days: choose {', '.join(map(str, DAYS[:-1]))} or {DAYS[-1]}, or enter `from` and `to`"
        raise Invalid(message)
    entered = fields.days is None and bool(fields.start or fields.end)
    days = None if entered else fields.days or DEFAULT_DAYS
    start, end = (_moment(fields.start, zone), _moment(fields.end, zone)) if entered else (None, None)
    end = end or max(now, start or now)
    start = start or max(end - timedelta(days=days or DEFAULT_DAYS), EARLIEST)
    if start > end:
        raise Invalid("the period must not end before it starts")
    return NumbersQuery(
        period=Span(start, end),
        previous=Span(max(start - (end - start), EARLIEST), start),
        days=days,
        service=fields.service,
        severity=fields.severity,
        environment=fields.environment,
        calendar=fields.calendar,
        table=fields.table,
    )


def _moment(value: str, zone: ZoneInfo) -> datetime | None:
    found = entered_time(value, zone)
    if found is not None and not is_in_bounds(found):
        message = f"enter a time in the years {EARLIEST.year} to {LATEST.year - 1}"
        raise Invalid(message)
    return found
