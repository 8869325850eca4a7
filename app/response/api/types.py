"""HTTP API of incident types."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, StringConstraints

from app.base import schema
from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import AtShown, Input, Name, Slug, Words
from app.base.http.requests.filters import Contained
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.incidents.grouping.rule import parse_matcher
from app.incidents.history.details import FIRST_RESPONDER, RoleName, Sentence
from app.response.plan import PLACEHOLDERS, ReviewRule, unknown_placeholder
from app.response.store import types

router = APIRouter(prefix="/api/v1/incident-types", tags=["response"])

USUAL_POSITION = 100

TypeName = Annotated[Slug, Path(description="Letters, digits, `.`, `_` and `-`", examples=["payments"])]
MatcherText = Annotated[Words, StringConstraints(min_length=1, max_length=1000)]


def _fillable(text: str) -> str:
    if unknown_placeholder(text) is not None:
        message = f"must have no placeholder other than {', '.join(f'`{{{name}}}`' for name in PLACEHOLDERS)}"
        raise ValueError(message)
    return text


class ChannelInput(Input):
    kind: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_-]{0,49}$")] = Field(
        description="What it depends on, for example `slack` or `phone`"
    )
    name: Annotated[Name, AfterValidator(_fillable)] = Field(
        description="May contain `{number}`, `{service}` and `{severity}` of the incident"
    )
    link: HttpUrl | None = None


def _with_backup(channels: list[ChannelInput]) -> list[ChannelInput]:
    if channels[0].kind == channels[1].kind:
        message = "the second channel must be of a different kind from the first, so that both do not fail together"
        raise ValueError(message)
    return channels


def _assigned(roles: list[str]) -> list[str]:
    if FIRST_RESPONDER in roles:
        message = f"`{FIRST_RESPONDER}` is not assigned: it is the first person who acknowledged or did a task"
        raise ValueError(message)
    return roles


class IncidentTypeInput(Input):
    position: int = Field(
        USUAL_POSITION, ge=0, le=2**31 - 1, description="Tried in ascending order, ties by name; the first match counts"
    )
    matchers: list[MatcherText] = Field(
        [],
        max_length=30,
        description="In Alertmanager's syntax, on the labels that all alerts of an incident have in common, and on its "
        "`service`, `environment`, `severity` (such as `sev1`), `owner` and `source`; all must match. If several "
        "sources reported it, all must match with one of them. Empty matches every incident",
        examples=[['service=~"checkout|payments"']],
    )
    description: Words = Field("", examples=["Users cannot pay"])
    exit_criteria: list[Sentence] = Field(
        min_length=1,
        max_length=20,
        description="What must be true before responders may leave. They do not delay the recovery",
        examples=[["Payments succeed for 10 minutes", "Stakeholders are informed"]],
    )
    roles: Annotated[list[RoleName], AfterValidator(_assigned)] = Field(
        [], max_length=20, description="The roles that the response needs", examples=[["commander", "communications"]]
    )
    channels: Annotated[list[ChannelInput], AfterValidator(_with_backup)] = Field(
        min_length=2,
        max_length=6,
        description="In order: the first is primary, the others are backups. The first backup must be of another kind",
        examples=[[{"kind": "slack", "name": "#inc-{number}"}, {"kind": "phone", "name": "Bridge 1"}]],
    )
    steps: list[Sentence] = Field(
        [], max_length=50, description="What to do first", examples=[["Look at the deployments of the last hour"]]
    )
    update_seconds: int | None = Field(
        None,
        ge=300,
        le=86_400,
        description="The longest time between two updates to stakeholders; null: that of the target for the severity",
    )
    review: ReviewRule = Field(
        ReviewRule.BY_SEVERITY,
        description="Whether such an incident must be reviewed: always, if the target for its severity has "
        "`review_seconds`, or never. An incident that burned a fifth of an error budget, or the third of its key "
        "within 30 days, is reviewed too, unless this says never",
    )


class ChannelResponse(BaseModel):
    kind: str
    name: str
    link: str | None


class IncidentTypeResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str
    position: int
    matchers: list[str]
    description: str
    exit_criteria: list[str]
    roles: list[str]
    channels: list[ChannelResponse]
    steps: list[str]
    update_seconds: int | None
    review: str
    created_at: AtShown
    updated_at: AtShown


EXAMPLE: dict[str, Any] = {
    "position": 10,
    "matchers": ['service=~"checkout|payments"'],
    "description": "Users cannot pay",
    "exit_criteria": ["Payments succeed for 10 minutes", "Stakeholders are informed"],
    "roles": ["commander", "communications", "scribe"],
    "channels": [{"kind": "slack", "name": "#inc-{number}"}, {"kind": "phone", "name": "Bridge 1"}],
    "steps": ["Look at the deployments of the last hour"],
    "update_seconds": 1800,
}


@router.get("", summary="List incident types", responses=problem_responses())
async def list_incident_types(
    session: Session,
    paging: Pages,
    _: Reader,
    q: Contained = None,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[IncidentTypeResponse]:
    """Sorted in the order in which they are tried. The first type whose matchers all match an incident applies."""
    after = paging.after(int, str)
    found = await types.list_types(session, q, after=(after[0], after[1]) if after else None, limit=paging.limit + 1)
    items, next_cursor = page_of(found, paging, lambda each: (each.position, each.name))
    return CountedPage(
        items=[IncidentTypeResponse.model_validate(each) for each in items],
        next_cursor=next_cursor,
        total=await types.count_types(session, q) if count else None,
    )


@router.get("/{name}", summary="Get an incident type", responses=problem_responses(404))
async def get_incident_type(session: Session, name: TypeName, _: Reader) -> IncidentTypeResponse:
    """Returns its matchers, and the plan for responding to such an incident."""
    return IncidentTypeResponse.model_validate(await types.find_type(session, name))


@router.put(
    "/{name}",
    summary="Create or replace an incident type",
    responses=problem_responses(409) | {201: {"model": IncidentTypeResponse}},
)
async def put_incident_type(
    session: Session,
    now: Now,
    name: TypeName,
    body: Annotated[IncidentTypeInput, Body(examples=[EXAMPLE])],
    response: Response,
    _: Writer,
) -> IncidentTypeResponse:
    """A type is advice: it changes nothing about incidents, and applies at once to those that match it. Returns 201 if
    there was none of this name.
    """
    row = type_row(name, body)
    row.created_at = row.updated_at = now
    stored, is_new = await types.put_type(session, row)
    response.status_code = 201 if is_new else 200
    return IncidentTypeResponse.model_validate(stored)


@router.delete("/{name}", summary="Delete an incident type", status_code=204, responses=problem_responses(404))
async def delete_incident_type(session: Session, name: TypeName, _: Writer) -> None:
    """Incidents of this type get the next type whose matchers match them, even if a person stated this one."""
    await types.delete_type(session, name)


def type_row(name: str, body: IncidentTypeInput) -> schema.IncidentType:
    """Without its times. Raises InvalidMatcher."""
    values = body.model_dump(mode="json") | {"matchers": [str(parse_matcher(text)) for text in body.matchers]}
    return schema.IncidentType(name=name, **values)
