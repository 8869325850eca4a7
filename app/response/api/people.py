"""HTTP API of people and delegates."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.base import schema
from app.base.access.tokens import Bearer, Scope
from app.base.http.access.auth import Admin, Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import At, AtShown, Input, Name, SingleSegmentRoute, Words, Zone
from app.base.http.requests.filters import Contained
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.incidents.history.details import FIRST_RESPONDER, RoleName
from app.response.roles import single_points_of_failure
from app.response.store import forgetting, people

_people = APIRouter(prefix="/api/v1/people", tags=["response"], route_class=SingleSegmentRoute)
_delegates = APIRouter(prefix="/api/v1/delegates", tags=["response"])

PersonName = Annotated[
    Name, Path(alias="person", description="As `by` in the timeline; percent-encoded", examples=["ada"])
]


# — people —


class ContactInput(Input):
    kind: Annotated[Name, Field(examples=["phone"])]
    value: Annotated[Name, Field(examples=["+49 30 1234567"])]


class AwayInput(Input):
    begins_at: At = Field(alias="from")
    ends_at: At = Field(alias="to", description="Not included")

    @model_validator(mode="after")
    def _ordered(self) -> "AwayInput":
        if self.begins_at >= self.ends_at:
            message = "`from` must be before `to`"
            raise ValueError(message)
        return self


class PersonInput(Input):
    email: Annotated[Name, StringConstraints(pattern="^[^@\\s]+@[^@\\s]+$")] | None = Field(
        None, examples=["ada@example.org"]
    )
    contacts: list[ContactInput] = Field([], max_length=20, description="Shown only to tokens with scope `write`")
    zone: Zone = "UTC"
    away: list[AwayInput] = Field([], max_length=100, description="When the person cannot respond")


class ContactResponse(BaseModel):
    kind: str
    value: str


class AwayResponse(BaseModel):
    begins_at: AtShown = Field(alias="from")
    ends_at: AtShown = Field(alias="to", description="Not included")


class PersonResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str
    email: str | None = Field(description="Null for tokens without scope `write`, as if there were none")
    contacts: list[ContactResponse] = Field(description="Empty for tokens without scope `write`")
    zone: str
    away: list[AwayResponse]
    created_at: AtShown
    updated_at: AtShown


@_people.get("", summary="List people", responses=problem_responses())
async def list_people(
    session: Session,
    paging: Pages,
    reader: Reader,
    q: Contained = None,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[PersonResponse]:
    """Sorted by name. Only people who were added here; others may act on incidents too."""
    found = await people.list_people(session, q, after=paging.after_name(), limit=paging.limit + 1)
    items, next_cursor = page_of(found, paging, lambda each: (each.name,))
    return CountedPage(
        items=[_shown(each, reader) for each in items],
        next_cursor=next_cursor,
        total=await people.count_people(session, q) if count else None,
    )


@_people.get("/{person}", summary="Get a person", responses=problem_responses(404))
async def get_person(session: Session, name: PersonName, reader: Reader) -> PersonResponse:
    """Returns how to reach them, and when they are away."""
    return _shown(await people.find_person(session, name), reader)


@_people.put(
    "/{person}", summary="Add or replace a person", responses=problem_responses() | {201: {"model": PersonResponse}}
)
async def put_person(
    session: Session,
    now: Now,
    name: PersonName,
    body: Annotated[
        PersonInput,
        Body(
            examples=[
                {
                    "email": "ada@example.org",
                    "contacts": [{"kind": "phone", "value": "+49 30 1234567"}],
                    "zone": "Europe/Berlin",
                    "away": [{"from": "2026-12-24T00:00:00Z", "to": "2027-01-02T00:00:00Z"}],
                }
            ]
        ),
    ],
    response: Response,
    writer: Writer,
) -> PersonResponse:
    """People can act on incidents without being added here, but only people who were added can be delegates. Returns
    201 if the person is new.
    """
    values = body.model_dump(mode="json", by_alias=True)
    person, is_new = await people.put_person(
        session, schema.Person(name=name, **values, created_at=now, updated_at=now)
    )
    response.status_code = 201 if is_new else 200
    return _shown(person, writer)


@_people.delete("/{person}", summary="Remove a person", status_code=204, responses=problem_responses(404, 409))
async def delete_person(session: Session, name: PersonName, _: Writer) -> None:
    """What they did stays in the timelines, under their name."""
    await people.delete_person(session, name)


class ForgottenResponse(BaseModel):
    name: str = Field(description="The placeholder that replaces the name of the person", examples=["someone-1"])


@_people.post("/{person}/forget", summary="Forget a person", responses=problem_responses(404))
async def forget_person(session: Session, name: PersonName, _: Admin) -> ForgottenResponse:
    """Deletes their contacts, absences and sessions, and removes them from the delegates. Where their name is stored as
    author, responder, participant or owner, it is replaced with a placeholder; times and numbers stay. Free text is not
    searched for the name. This cannot be undone.
    """
    return ForgottenResponse(name=await forgetting.forget(session, name))


def _shown(person: schema.Person, reader: Bearer) -> PersonResponse:
    hidden: dict[str, Any] = {} if reader.scope.includes(Scope.WRITE) else {"email": None, "contacts": []}
    return PersonResponse.model_validate(person.model_dump() | hidden)


# — delegates —


def _once_each(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        message = "a person is named twice; name each once"
        raise ValueError(message)
    return names


class DelegatesInput(Input):
    people: Annotated[list[Name], AfterValidator(_once_each)] = Field(
        max_length=20,
        description="The people who can fill the role, in order of preference. Empty: remove the delegates",
        examples=[["ada"]],
    )


class DelegatesResponse(BaseModel):
    role: str
    owner: str = Field(description="The owner whose services' incidents this applies to; empty: all other services")
    people: list[str]


class SinglePointResponse(BaseModel):
    """A role that fewer than two people can fill at any time in the next seven days."""

    model_config = ConfigDict(from_attributes=True)

    role: str
    owner: str
    people: list[str] = Field(description="The people who can fill it")


class AllDelegatesResponse(BaseModel):
    items: list[DelegatesResponse] = Field(description="By role and owner")
    single_points_of_failure: list[SinglePointResponse] = Field(
        description="Roles with fewer than two delegates who are there for all of the next seven days"
    )


def is_assigned(role: str) -> str:
    if role == FIRST_RESPONDER:
        message = f"`{FIRST_RESPONDER}` is not assigned: it is the first person who acknowledged or did a task"
        raise ValueError(message)
    return role


@_delegates.get("", summary="List delegates", responses=problem_responses())
async def list_delegates(session: Session, now: Now, _: Reader) -> AllDelegatesResponse:
    """For each role, who fills it and who stands in for them, and the roles that depend on a single person."""
    return _all(await people.delegates(session), await people.absences(session), now)


@_delegates.put("/{role}", summary="Replace the delegates for a role", responses=problem_responses(409))
async def put_delegates(
    session: Session,
    now: Now,
    role: Annotated[RoleName, AfterValidator(is_assigned), Path(examples=["commander"])],
    body: Annotated[DelegatesInput, Body(examples=[{"people": ["ada", "ben"]}])],
    _: Writer,
    owner: Annotated[
        Annotated[Words, StringConstraints(max_length=200)],
        Query(description="Only in incidents of this owner's services; empty: in all others", examples=["Payments"]),
    ] = "",
) -> AllDelegatesResponse:
    """The people must have been added before. A role needs at least two who are not away."""
    await people.put_delegates(session, role, owner, body.people)
    return _all(await people.delegates(session), await people.absences(session), now)


def _all(delegates: Mapping[tuple[str, str], Any], absences: Mapping[str, Any], now: datetime) -> AllDelegatesResponse:
    return AllDelegatesResponse(
        items=[
            DelegatesResponse(role=role, owner=owner, people=list(names)) for (role, owner), names in delegates.items()
        ],
        single_points_of_failure=[
            SinglePointResponse.model_validate(each) for each in single_points_of_failure(delegates, absences, now=now)
        ],
    )


router = APIRouter()
for _each in (_people, _delegates):
    router.include_router(_each)
