"""Calendars over HTTP: the hours in which people are at work, as a second clock for durations."""

from itertools import pairwise
from typing import Annotated

from fastapi import APIRouter, Body, Path, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from app.base.http.auth import Reader, Writer
from app.base.http.context import Now, Tx
from app.base.http.fields import WEEKDAYS, At, Contract, Date, LocalTime, Slug, Weekday, Zone
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.catalog.calendars import store
from app.catalog.calendars.store import KnownCalendar
from app.incidents.measures.business_hours import BusinessHours, Hours

router = APIRouter(prefix="/api/v1/calendars", tags=["calendars"])


# — the contract —

CalendarName = Annotated[
    Slug,
    Path(description="Letters, digits, `.`, `_` and `-`", examples=["berlin-office"]),
]
EndTime = Annotated[str, StringConstraints(pattern="^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]


class HoursContract(Contract):
    """As a clock on the wall shows them; over midnight they are stated as the hours of two days."""

    begins: LocalTime = Field(alias="from", examples=["09:00"])
    ends: EndTime = Field(alias="to", description="Not included; 24:00 is the end of the day", examples=["18:00"])

    @model_validator(mode="after")
    def _ordered(self) -> "HoursContract":
        if self.begins >= self.ends:
            message = "`from` must lie before `to`; state hours over midnight as the hours of two days"
            raise ValueError(message)
        return self


def _apart(of_day: list[HoursContract]) -> list[HoursContract]:
    in_order = sorted(of_day, key=lambda each: each.begins)
    if any(later.begins < earlier.ends for earlier, later in pairwise(in_order)):
        message = "the hours of a day overlap"
        raise ValueError(message)
    return in_order


HoursOfDay = Annotated[list[HoursContract], Field(max_length=48), AfterValidator(_apart)]


def _at_least_one(week: dict[Weekday, list[HoursContract]]) -> dict[Weekday, list[HoursContract]]:
    if not any(week.values()):
        message = "there are no hours at all, so that every duration would be 0"
        raise ValueError(message)
    return week


class BusinessHoursContract(Contract):
    """Changes of the clocks need no care: what they skip is no working time, what they show twice is twice."""

    zone: Zone
    hours: Annotated[dict[Weekday, HoursOfDay], AfterValidator(_at_least_one)] = Field(
        description="By weekday; a day that is left out is off"
    )
    holidays: list[Date] = Field([], max_length=5000, description="Dates in the zone that are off as a whole")


class CalendarShown(BaseModel):
    name: str
    zone: str
    hours: dict[Weekday, list[HoursContract]] = Field(description="Of the days that have any")
    holidays: list[Date]
    created_at: At
    updated_at: At


# — the routes —


@router.get("", summary="List calendars", responses=problem_responses())
async def list_calendars(tx: Tx, paging: Pages, _: Reader) -> Page[CalendarShown]:
    """By name."""
    after = paging.after(str)
    found = await store.calendars(tx, after=after[0] if after else "", limit=paging.limit + 1)
    known, next_cursor = page_of(found, paging, lambda each: (each.hours.name,))
    return Page(items=[_shown(each) for each in known], next_cursor=next_cursor)


@router.get("/{name}", summary="Show a calendar", responses=problem_responses(404))
async def show_calendar(tx: Tx, name: CalendarName, _: Reader) -> CalendarShown:
    """In which hours people are at work."""
    return _shown(await store.find_calendar(tx, name))


@router.put("/{name}", summary="State a calendar", responses=problem_responses() | {201: {"model": CalendarShown}})
async def put_calendar(
    tx: Tx,
    now: Now,
    name: CalendarName,
    stated: Annotated[
        BusinessHoursContract,
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
) -> CalendarShown:
    """It becomes exactly what the body says, for the past too: durations are measured anew whenever they are asked for.
    `?calendar=` of the metrics shows them by it. 201 if it is new.
    """
    known, is_new = await store.put_calendar(tx, _hours(name, stated), now=now)
    response.status_code = 201 if is_new else 200
    return _shown(known)


@router.delete("/{name}", summary="Delete a calendar", status_code=204, responses=problem_responses(404))
async def delete_calendar(tx: Tx, name: CalendarName, _: Writer) -> None:
    """No stored number depends on it."""
    await store.delete_calendar(tx, name)


def _hours(name: str, stated: BusinessHoursContract) -> BusinessHours:
    week = tuple(
        tuple(Hours(_minutes(each.begins), _minutes(each.ends)) for each in stated.hours.get(day, ()))
        for day in WEEKDAYS
    )
    return BusinessHours(name, stated.zone, week, frozenset(stated.holidays))


def _shown(known: KnownCalendar) -> CalendarShown:
    return CalendarShown(
        name=known.hours.name,
        zone=known.hours.zone,
        hours={
            day: [HoursContract(**{"from": _clock(each.begins), "to": _clock(each.ends)}) for each in of_day]
            for day, of_day in zip(WEEKDAYS, known.hours.week, strict=True)
            if of_day
        },
        holidays=sorted(known.hours.holidays),
        created_at=known.created_at,
        updated_at=known.updated_at,
    )


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
