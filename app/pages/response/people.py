"""People who respond to incidents, and the delegates for each role, with what depends on a single person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Response
from pydantic import StringConstraints
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.errors import Conflict, Invalid, Problem
from app.base.http.requests.fields import Input, Name, Words
from app.base.http.requests.paging import Pages, Paging, page_of
from app.base.values.times import Span
from app.incidents.history.details import RoleName
from app.pages.web import fields
from app.pages.web.forms import Form, entered_time, parsed
from app.pages.web.frame import PageRequest, Refusal, SegmentPageRoute, SignedIn, see_other
from app.response.api.people import DelegatesInput, PersonInput, PersonName, is_assigned
from app.response.roles import single_points_of_failure
from app.response.store import people as store

router = APIRouter(prefix="/response", route_class=SegmentPageRoute, include_in_schema=False)

PEOPLE_PAGE = "/response/people"
OWNERS_AT_MOST = 500  # suggested


class _NewPerson(Input):
    name: Name


class _Place(Input):
    """For what people are delegates; `owner` is empty for the services of all others."""

    role: RoleName
    owner: Annotated[Words, StringConstraints(max_length=200)]


def address_of(name: str) -> str:
    return f"{PEOPLE_PAGE}/{quote(name, safe='')}"


@dataclass(frozen=True, slots=True)
class PersonView:
    """`away` is when the person is away now or will be next."""

    row: schema.Person
    away: Span | None
    is_away: bool

    @classmethod
    def of(cls, row: schema.Person, now: datetime) -> "PersonView":
        coming = sorted(each for each in store.absences_in(row.away) if each.end > now)
        return cls(row, coming[0] if coming else None, bool(coming) and coming[0].start <= now)


@dataclass(frozen=True, slots=True)
class DelegatesView:
    """`there` are those who are not away in the next week; fewer than two make a single point of failure."""

    role: str
    owner: str
    people: Sequence[str]
    there: Sequence[str] | None

    @property
    def id(self) -> str:
        return f"delegates-{self.role}-{self.owner}"

    @property
    def lines(self) -> str:
        return fields.lines(self.people)


# — the list —


@router.get("/people")
async def show_people(asked: SignedIn, paging: Pages) -> Response:
    return await _list(asked, paging)


async def _list(asked: PageRequest, paging: Paging, refused: Refusal | None = None) -> Response:
    """`refused` belongs to the form that its field `form` names."""
    async with asked.reading() as session:
        found = await store.list_people(session, after=paging.after_name(), limit=paging.limit + 1)
        delegates, absences = await store.delegates(session), await store.absences(session)
        owner = col(schema.Service.owner)
        query = select(schema.Service.owner).where(owner.is_not(None)).distinct().order_by(owner).limit(OWNERS_AT_MOST)
        owners = (await session.exec(query)).all()
    rows, next_cursor = page_of(found, paging, lambda each: (each.name,))
    single = {
        (each.role, each.owner): each.people for each in single_points_of_failure(delegates, absences, now=asked.now)
    }
    return asked.page(
        "people.html",
        status=refused.status if refused else 200,
        people=[PersonView.of(row, asked.now) for row in rows],
        delegates=[DelegatesView(*place, names, single.get(place)) for place, names in delegates.items()],
        owners=owners,
        names=[row.name for row in rows],
        is_first_page=paging.cursor is None,
        next_cursor=next_cursor,
        refused=refused,
    )


@router.post("/people")
async def add_person(asked: SignedIn) -> Response:
    form = await asked.form()
    try:
        name = parsed(_NewPerson, {"name": form.get("name", "").strip()}).name
        async with asked.session() as session:
            person = _person(asked, name, PersonInput(zone=asked.zone.key))
            if not (await store.put_person(session, person))[1]:
                message = "there is already a person with this name"
                raise Conflict(message)
    except Problem as problem:
        return await _list(asked, Paging(), Refusal(problem, form))
    return see_other(address_of(name))


def _person(asked: PageRequest, name: str, body: PersonInput) -> schema.Person:
    values = body.model_dump(mode="json", by_alias=True)
    return schema.Person(name=name, **values, created_at=asked.now, updated_at=asked.now)


@router.post("/delegates")
async def put_delegates(asked: SignedIn) -> Response:
    """Replaces the delegates for a role; none removes them."""
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        place = parsed(_Place, {name: form.get(name, "").strip() for name in ("role", "owner")})
        try:
            role = is_assigned(place.role)
        except ValueError as error:
            raise Invalid(str(error)) from None
        body = parsed(DelegatesInput, {"people": fields.entries(form.get("people", ""))})
        await store.put_delegates(session, role, place.owner, body.people)

    refused = partial(_list, asked, Paging())
    return await asked.change(change, form, then=f"{PEOPLE_PAGE}#delegates", refused=refused)


# — one person —


@router.get("/people/{person}")
async def show_person(asked: SignedIn, name: PersonName) -> Response:
    return await _page(asked, name)


@router.post("/people/{person}")
async def change_person(asked: SignedIn, name: PersonName) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        known = await store.find_person(session, name)
        await store.put_person(session, _person(asked, name, entered_person(asked, form, known)))

    return await asked.change(change, form, then=address_of(name), refused=partial(_page, asked, name))


@router.post("/people/{person}/delete")
async def delete_person(asked: SignedIn, name: PersonName) -> Response:
    form = await asked.form()
    change = partial(store.delete_person, name=name)
    return await asked.change(change, form, then=PEOPLE_PAGE, refused=partial(_page, asked, name))


async def _page(asked: PageRequest, name: str, refused: Refusal | None = None) -> Response:
    async with asked.reading() as session:
        row = await store.find_person(session, name)
        delegates = await store.delegates(session)
    return asked.page(
        "person.html",
        status=refused.status if refused else 200,
        person=PersonView.of(row, asked.now),
        address=address_of(name),
        roles=[(role, owner) for (role, owner), people in delegates.items() if name in people],
        contacts="\n".join(map(contact_line, row.contacts)),
        away="\n".join(_away_line(asked, each) for each in store.absences_in(row.away)),
        refused=refused,
    )


# — the form —


def contact_line(contact: Mapping[str, str]) -> str:
    """`phone: +49 30 1234567`."""
    return f"{fields.part(contact['kind'], ':')}: {fields.part(contact['value'])}"


def contact_of(line: str) -> Mapping[str, str]:
    """Reads what `contact_line` writes."""
    kind, value = fields.part_of(line, ":")
    return {"kind": kind, "value": fields.part_of(value, "\n")[0]}


def _away_line(asked: PageRequest, away: Span) -> str:
    return " to ".join(asked.shown(at, "input").replace("T", " ") for at in (away.start, away.end))


def entered_person(asked: PageRequest, form: Form, known: schema.Person) -> PersonInput:
    """An absence that was not changed keeps its seconds. Raises Invalid."""
    absences = {_away_line(asked, each): each for each in store.absences_in(known.away)}

    def away(line: str) -> Mapping[str, Any]:
        if same := absences.get(line):
            return {"from": same.start, "to": same.end}
        begins, to, ends = line.partition(" to ")
        if not to:
            message = "away: write one absence per line, as start and end, for example: 2026-12-24 to 2027-01-02"
            raise Invalid(message)
        return {"from": entered_time(begins.strip(), asked.zone), "to": entered_time(ends.strip(), asked.zone)}

    lines = {name: [line.strip() for line in form.get(name, "").split("\n")] for name in ("contacts", "away")}
    return parsed(
        PersonInput,
        {
            "email": form.get("email", "").strip() or None,
            "contacts": [contact_of(line) for line in lines["contacts"] if line],
            "zone": form.get("zone", "").strip(),
            "away": [away(line) for line in lines["away"] if line],
        },
    )
