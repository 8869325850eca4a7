"""HTTP API of calendars: business hours in which durations can be measured."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime
from itertools import pairwise
from typing import Annotated

from fastapi import APIRouter, Body, Path, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from app.base import schema
from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import WEEKDAYS, AtShown, Date, Input, LocalTime, Slug, Weekday, Zone
from app.base.http.requests.filters import Contained
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.catalog.calendars import store

router = APIRouter(prefix="/api/v1/calendars", tags=["calendars"])


# — the contract —

CalendarName = Annotated[
    Slug,
    Path(description="Letters, digits, `.`, `_` and `-`", examples=["berlin-office"]),
]
EndTime = Annotated[str, StringConstraints(pattern="^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]


class HoursInput(Input):
    """Local times within one day. Split hours that span midnight between the two days."""

    start: LocalTime = Field(alias="from", examples=["09:00"])
    end: EndTime = Field(alias="to", description="Exclusive; 24:00 is the end of the day", examples=["18:00"])

    @model_validator(mode="after")
    def _ordered(self) -> "HoursInput":
        if self.start >= self.end:
            message = "`from` must be before `to`; split hours that span midnight between the two days"
            raise ValueError(message)
        return self


def _apart(of_day: list[HoursInput]) -> list[HoursInput]:
    in_order = sorted(of_day, key=lambda each: each.start)
    if any(later.start < earlier.end for earlier, later in pairwise(in_order)):
        message = "the hours of a day overlap"
        raise ValueError(message)
    return in_order


HoursOfDay = Annotated[list[HoursInput], Field(max_length=48), AfterValidator(_apart)]


def _at_least_one(week: dict[Weekday, list[HoursInput]]) -> dict[Weekday, list[HoursInput]]:
    if not any(week.values()):
        message = "at least one day must have hours; without any, every duration would be 0"
        raise ValueError(message)
    return week


class BusinessHoursInput(Input):
    """When clocks change, skipped local times do not count and repeated ones count twice."""

    zone: Zone
    hours: Annotated[dict[Weekday, HoursOfDay], AfterValidator(_at_least_one)] = Field(
        description="By weekday; omitted days have no business hours"
    )
    holidays: list[Date] = Field([], max_length=5000, description="Local dates without business hours")


class HoursResponse(BaseModel):
    begins: str = Field(serialization_alias="from", examples=["09:00"])
    ends: str = Field(
        serialization_alias="to", description="Exclusive; 24:00 is the end of the day", examples=["18:00"]
    )


class CalendarResponse(BaseModel):
    name: str
    zone: str
    hours: dict[Weekday, list[HoursResponse]] = Field(description="By weekday; days without hours are omitted")
    holidays: list[date]
    created_at: AtShown
    updated_at: AtShown


# — the routes —


@router.get("", summary="List calendars", responses=problem_responses())
async def list_calendars(
    session: Session,
    paging: Pages,
    _: Reader,
    q: Contained = None,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[CalendarResponse]:
    """Sorted by name."""
    found = await store.list_calendars(session, q, after=paging.after_name(), limit=paging.limit + 1)
    page, next_cursor = page_of(found, paging, lambda each: (each[0].name,))
    return CountedPage(
        items=[_shown(*each) for each in page],
        next_cursor=next_cursor,
        total=await store.count_calendars(session, q) if count else None,
    )


@router.get("/{name}", summary="Get a calendar", responses=problem_responses(404))
async def get_calendar(session: Session, name: CalendarName, _: Reader) -> CalendarResponse:
    """Returns its business hours and holidays."""
    return _shown(*await store.find_calendar(session, name))


@router.put(
    "/{name}",
    summary="Create or replace a calendar",
    responses=problem_responses() | {201: {"model": CalendarResponse}},
)
async def put_calendar(
    session: Session,
    now: Now,
    name: CalendarName,
    body: Annotated[
        BusinessHoursInput,
        Body(
            examples=[
                {
                    "zone": "Europe/Berlin",
                    "hours": {
                        "monday": [{"from": "09:00", "to": "12:00"}, {"from": "13:00", "to": "18:00"}],
                        "friday": [{"from": "09:00", "to": "15:00"}],
                    },
                    "holidays": ["2026-12-25"],
                }
            ]
        ),
    ],
    response: Response,
    _: Writer,
) -> CalendarResponse:
    """Replaces the whole calendar, also for past incidents: durations are recomputed on each request. Select a calendar
    for metrics with `?calendar=`. Returns 201 if the calendar is new.
    """
    calendar, is_new = await store.put_calendar(session, *calendar_rows(name, body, now))
    response.status_code = 201 if is_new else 200
    return _shown(*calendar)


@router.delete("/{name}", summary="Delete a calendar", status_code=204, responses=problem_responses(404, 409))
async def delete_calendar(session: Session, name: CalendarName, _: Writer) -> None:
    """No stored number depends on a calendar."""
    await store.delete_calendar(session, name)


def calendar_rows(
    name: str, body: BusinessHoursInput, now: datetime
) -> tuple[schema.Calendar, list[schema.CalendarHours]]:
    """The rows of a calendar with this name and these hours."""
    calendar = schema.Calendar(
        name=name, zone=body.zone, holidays=sorted(set(body.holidays)), created_at=now, updated_at=now
    )
    return calendar, [
        schema.CalendarHours(
            calendar=name,
            weekday=WEEKDAYS.index(day),
            begins_minute=_minutes(each.start),
            ends_minute=_minutes(each.end),
        )
        for day, of_day in body.hours.items()
        for each in of_day
    ]


def _shown(calendar: schema.Calendar, hours: Sequence[schema.CalendarHours]) -> CalendarResponse:
    week = defaultdict[Weekday, list[dict[str, str]]](list)
    for each in hours:
        week[WEEKDAYS[each.weekday]].append({"begins": clock(each.begins_minute), "ends": clock(each.ends_minute)})
    return CalendarResponse.model_validate(calendar.model_dump() | {"hours": week})


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
