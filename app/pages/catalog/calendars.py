"""Calendars of business hours: the list, and one calendar with its form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.access.tokens import Scope
from app.base.errors import Conflict, Problem
from app.base.http.requests.fields import WEEKDAYS
from app.base.http.requests.paging import Pages, page_of
from app.catalog.calendars import store
from app.catalog.calendars.api import BusinessHoursInput, CalendarName, calendar_rows, clock
from app.pages.web import fields
from app.pages.web.forms import Form, parsed
from app.pages.web.frame import PageRequest, PageRoute, Refusal, SignedIn, see_other

router = APIRouter(route_class=PageRoute, include_in_schema=False)

NEW = "_new"  # no calendar can have this name


@dataclass(frozen=True, slots=True)
class CalendarView:
    """A calendar, with its hours of each weekday as text; days without hours are missing."""

    row: schema.Calendar
    hours: Mapping[str, str]

    @classmethod
    def of(cls, row: schema.Calendar, hours: Sequence[schema.CalendarHours]) -> "CalendarView":
        spans: dict[str, list[tuple[str, str]]] = {}
        for each in hours:
            spans.setdefault(WEEKDAYS[each.weekday], []).append((clock(each.begins_minute), clock(each.ends_minute)))
        return cls(row, {day: fields.hours(of_day) for day, of_day in spans.items()})

    @property
    def week(self) -> list[tuple[str, str]]:
        """Days with equal hours that follow each other as one entry: `Mon–Fri`, `09:00–17:00`."""
        found: list[tuple[list[str], str]] = []
        for day in WEEKDAYS:
            text = self.hours.get(day, "")
            if found and found[-1][1] == text:
                found[-1][0].append(day)
            else:
                found.append(([day], text))
        return [(_days(days), text) for days, text in found if text]


def _days(days: Sequence[str]) -> str:
    first, last = days[0][:3].capitalize(), days[-1][:3].capitalize()
    return first if len(days) == 1 else f"{first}–{last}"


@router.get("/calendars")
async def show_calendars(asked: SignedIn, paging: Pages) -> Response:
    async with asked.reading() as session:
        found = await store.list_calendars(session, after=paging.after_name(), limit=paging.limit + 1)
    page, next_cursor = page_of(found, paging, lambda each: (each[0].name,))
    return asked.page(
        "calendars.html",
        calendars=[CalendarView.of(*each) for each in page],
        is_first_page=paging.cursor is None,
        next_cursor=next_cursor,
    )


@router.get(f"/calendars/{NEW}")
async def new_calendar(asked: SignedIn) -> Response:
    asked.person.require(Scope.WRITE)
    return await _page(asked, None)


@router.get("/calendars/{name}")
async def show_calendar(asked: SignedIn, name: CalendarName) -> Response:
    return await _page(asked, name)


@router.post(f"/calendars/{NEW}")
async def create_calendar(asked: SignedIn) -> Response:
    form = await asked.form()
    try:
        name = fields.new_name(form)
        async with asked.session() as session:
            _, is_new = await store.put_calendar(session, *calendar_rows(name, entered_calendar(form), asked.now))
            if not is_new:
                message = "there is already a calendar with this name"
                raise Conflict(message)
    except Problem as problem:
        return await _page(asked, None, Refusal(problem, form))
    return see_other(f"/calendars/{name}")


@router.post("/calendars/{name}")
async def change_calendar(asked: SignedIn, name: CalendarName) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        rows = calendar_rows(name, entered_calendar(form), asked.now)
        await store.find_calendar(session, name)
        await store.put_calendar(session, *rows)

    return await asked.change(change, form, then=f"/calendars/{name}", refused=partial(_page, asked, name))


@router.post("/calendars/{name}/delete")
async def delete_calendar(asked: SignedIn, name: CalendarName) -> Response:
    form = await asked.form()
    change = partial(store.delete_calendar, name=name)
    return await asked.change(change, form, then="/calendars", refused=partial(_page, asked, name))


async def _page(asked: PageRequest, name: str | None, refused: Refusal | None = None) -> Response:
    """`name` is None for a new calendar."""
    calendar = None
    if name is not None:
        async with asked.reading() as session:
            calendar = CalendarView.of(*await store.find_calendar(session, name))
    return asked.page(
        "calendar.html",
        status=refused.status if refused else 200,
        calendar=calendar,
        hours=calendar.hours if calendar else dict.fromkeys(WEEKDAYS[:5], "09:00–17:00"),
        holidays="\n".join(day.isoformat() for day in calendar.row.holidays) if calendar else "",
        weekdays=WEEKDAYS,
        refused=refused,
    )


def entered_calendar(form: Form) -> BusinessHoursInput:
    """Raises Invalid."""
    hours: dict[str, Any] = {day: fields.hours_of(form.get(day, ""), day.capitalize()) for day in WEEKDAYS}
    return parsed(
        BusinessHoursInput,
        {
            "zone": form.get("zone", "").strip(),
            "hours": {day: of_day for day, of_day in hours.items() if of_day},
            "holidays": form.get("holidays", "").split(),
        },
    )
