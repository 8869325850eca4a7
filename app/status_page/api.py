"""The status page over REST, for those who write it. The public routes are in `public.py`."""

from collections.abc import Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Body, Path, Response
from pydantic import BaseModel, Field, StringConstraints, model_validator

from app.base import schema
from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session, SettingsDep
from app.base.http.requests.fields import At, AtShown, Date, IncidentRef, Input, Name, SingleSegmentRoute, Words
from app.base.http.requests.filters import Contained, Sorted, TimeSort
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.status_page.component import Status, Uptime
from app.status_page.public_incident import PublicKind, PublicStage, ended, stage, status_of
from app.status_page.store import components, incidents
from app.status_page.store.components import ComponentOverview
from app.status_page.store.incidents import NewIncident, NewUpdate, PublicIncidentRows
from app.status_page.store.measured import measured_days
from app.status_page.uptime import DAYS, availability, days_until, of_measured, published

router = APIRouter(prefix="/api/v1/status-page", tags=["status page"], route_class=SingleSegmentRoute)

USUAL_POSITION = 100

# — components —

ComponentName = Annotated[Name, Path(description="As customers see it, percent-encoded", examples=["Payments"])]


class ComponentInput(Input):
    description: Annotated[Words, StringConstraints(max_length=500)] = Field(
        "", description="Public description", examples=["Cards, invoices and refunds"]
    )
    section: Name | None = Field(None, description="Public heading under which it is shown", examples=["API"])
    position: int = Field(USUAL_POSITION, ge=0, le=2**31 - 1, description="Lower is shown first; ties by name")
    services: Annotated[list[Name], Field(max_length=100)] = Field(
        [], description="The services behind it, which are never public. Their incidents suggest its status"
    )
    automatic: bool = Field(
        False,
        description="Publish a problem of its services automatically once it has lasted for "
        "`AFTERMATH_STATUS_DELAY_SECONDS`, as “We are looking into a problem”. It ends with the incident unless a "
        "person publishes an update",
    )
    uptime: Uptime = Field(
        Uptime.PUBLISHED,
        description="What its last 90 days show: downtime by `published` status, downtime `measured` from incidents of "
        "its services, or nothing (`hidden`)",
    )
    since: Date | None = Field(
        None,
        description="First day, in UTC, for which its status is known; earlier days are not shown as up. Null: today "
        "for a new component, else unchanged",
    )

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        if self.uptime is Uptime.MEASURED and not self.services:
            message = "measured `uptime` needs `services`"
            raise ValueError(message)
        return self


class ProposalModel(BaseModel):
    """The status that the open incidents and the planned maintenance of its services suggest."""

    status: Status
    incidents: list[str] = Field(description="The open incidents that suggest it, worst first", examples=[["INC-7"]])
    maintenance: bool = Field(description="Whether one of its services is in planned maintenance now")


class UptimeModel(BaseModel):
    """Share of the last 90 days that was up, 0 to 1; null if nothing is known."""

    published: float | None = Field(description="By published status: a partial outage counts 30 %", examples=[0.9986])
    measured: float | None = Field(description="By incidents of its services", examples=[0.9979])
    difference: float | None = Field(description="`published` - `measured`", examples=[0.0007])


class ComponentModel(BaseModel):
    name: str = Field(examples=["Payments"])
    description: str
    section: str | None
    position: int
    services: list[str] = Field(examples=[["checkout"]])
    automatic: bool
    uptime: Uptime
    since: date
    created_at: AtShown
    updated_at: AtShown


class OverseenModel(ComponentModel):
    status: Status = Field(description="Its published status")
    proposal: ProposalModel
    differs: bool = Field(description="Whether the proposal differs from the published status")
    last_90_days: UptimeModel


class ComponentsModel(BaseModel):
    items: list[OverseenModel]


@router.get("/components", responses=problem_responses(), summary="List components and what to publish")
async def list_components(_: Reader, session: Session, now: Now, settings: SettingsDep) -> ComponentsModel:
    """Sorted as on the page. A proposal is not public, unless the component is `automatic`."""
    found = await components.component_overviews(session, now=now)
    known = await measured_days(
        session, [each.row for each in found], days_until(now, DAYS), now=now, weights=settings.impact
    )
    return ComponentsModel(
        items=[
            _overseen(
                each,
                availability(published(each.spells, each.row.since, now=now)),
                availability(
                    of_measured({day.day: day for day in known[each.row.name]}, each.row.since, now=now)
                    if each.row.services
                    else ()
                ),
            )
            for each in found
        ]
    )


def _overseen(each: ComponentOverview, published: Fraction | None, measured: Fraction | None) -> OverseenModel:
    return OverseenModel.model_validate(
        each.row.model_dump()
        | {
            "status": each.published,
            "differs": each.differs,
            "proposal": ProposalModel(
                status=each.proposal.status,
                incidents=[f"INC-{one.number}" for one in each.proposal.incidents],
                maintenance=each.proposal.maintenance,
            ),
            "last_90_days": UptimeModel(
                published=None if published is None else float(published),
                measured=None if measured is None else float(measured),
                difference=None if published is None or measured is None else float(published - measured),
            ),
        }
    )


@router.put(
    "/components/{name}",
    responses=problem_responses(409) | {201: {"model": ComponentModel}},
    summary="Create or change a component",
)
async def put_component(
    _: Writer,
    session: Session,
    now: Now,
    name: ComponentName,
    body: Annotated[
        ComponentInput,
        Body(
            examples=[
                {
                    "description": "Cards, invoices and refunds",
                    "services": ["shop"],
                    "uptime": "published",
                    "since": "2026-01-01",
                }
            ]
        ),
    ],
    response: Response,
) -> ComponentModel:
    """Its status is not set here: it follows from the public incidents that name it. Returns 201 if it is new."""
    since = body.since
    if since is None:
        before = await session.get(schema.Component, name)
        since = before.since if before else now.date()
        if before:
            session.expunge(before)
    row, is_new = await components.put_component(session, component_row(name, body, since, now))
    response.status_code = 201 if is_new else 200
    return ComponentModel.model_validate(row.model_dump())


def component_row(name: str, body: ComponentInput, since: date, now: datetime) -> schema.Component:
    return schema.Component(
        name=name,
        description=body.description,
        section=body.section,
        position=body.position,
        services=sorted(set(body.services)),
        automatic=body.automatic,
        uptime=body.uptime,
        since=since,
        created_at=now,
        updated_at=now,
    )


@router.delete("/components/{name}", status_code=204, responses=problem_responses(404), summary="Delete a component")
async def delete_component(_: Writer, session: Session, name: ComponentName) -> None:
    """Public incidents keep its name."""
    await components.delete_component(session, name)


# — public incidents —

PublicId = Annotated[
    UUID,
    Path(alias="public_id", description="Id of a public incident", examples=["0198c9b4-3f0a-7c11-8d52-6a1f6b2c9d01"]),
]
UpdateId = Annotated[
    UUID, Path(alias="update_id", description="Id of an update", examples=["0198c9b4-3f0a-7c11-8d52-6a1f6b2c9d02"])
]
Text = Annotated[Words, StringConstraints(min_length=1, strip_whitespace=True)]
Affected = Annotated[
    dict[Name, Status],
    Field(
        max_length=200,
        description="Status of components from `at` on; others stay as they were. For maintenance, only the names "
        "count",
        examples=[{"Payments": "partial_outage"}],
    ),
]


class UpdateInput(Input):
    id: UUID | None = Field(
        None, description="Chosen by the client, so that a repeated request publishes nothing twice", examples=[None]
    )
    status: PublicStage = Field(
        description="`investigating`, `identified`, `monitoring` or `resolved`, in any order; for maintenance: "
        "`scheduled`, `in_progress` or `completed`",
        examples=["investigating"],
    )
    body: Text = Field(description="Public text", examples=["Some card payments fail. We are looking into it."])
    components: Affected = Field({})
    at: At | None = Field(None, description="When customers were informed; defaults to now, must not be in the future")
    by: Name | None = Field(None, description="Never public; defaults to the name of the token", examples=["ada"])

    def new(self, token_name: str, token: str) -> NewUpdate:
        return NewUpdate(
            stage=self.status,
            body=self.body,
            components=self.components,
            by=self.by or token_name,
            token=token,
            at=self.at,
            id=self.id,
        )


class PublicIncidentInput(Input):
    id: UUID | None = Field(
        None, description="Chosen by the client, so that a repeated request publishes nothing twice", examples=[None]
    )
    kind: PublicKind = PublicKind.INCIDENT
    title: Annotated[Name, StringConstraints(strip_whitespace=True)] = Field(
        description="Public title", examples=["Card payments fail"]
    )
    incident: IncidentRef | None = Field(
        None,
        description="The incident it is about, which is never public. Its times are followed, and each update is "
        "recorded in its timeline",
        examples=["INC-1"],
    )
    begins_at: At | None = Field(
        None,
        description="When the problem began; null: when the incident began (its impact start if stated, else its "
        "detection) or, without an incident, the time of the first update. For maintenance: the planned start",
        examples=[None],
    )
    scheduled_to: At | None = Field(None, description="Planned end of maintenance", examples=[None])
    first: UpdateInput = Field(description="The first update")


class PublicIncidentAmendment(Input):
    """Omitted fields stay as they are."""

    title: Annotated[Name, StringConstraints(strip_whitespace=True)] = Field("", examples=["Card payments fail"])
    begins_at: At | None = Field(
        None, description="Null: derive it from the incident again", examples=["2026-08-20T10:00:00Z"]
    )
    ends_at: At | None = Field(
        None, description="Only if it is over; null: derive it from the incident again", examples=[None]
    )
    scheduled_to: At | None = Field(None, description="Planned end of maintenance", examples=[None])


class UpdateCorrection(Input):
    """Omitted fields stay as they are. The earlier text is kept, but is not public."""

    body: Text = Field("", examples=["Some card payments fail."])
    components: Affected = Field({})
    at: At | None = Field(None, description="When customers were informed", examples=["2026-08-20T10:05:00Z"])


class UpdateModel(BaseModel):
    id: UUID
    at: AtShown
    status: PublicStage
    body: str
    components: dict[str, Status]
    by: str | None = Field(description="The person who published it; null: published automatically. Never public")
    recorded_at: AtShown
    corrected_at: AtShown | None
    earlier: list[dict[str, Any]] = Field(description="Its content before each correction. Never public")


class PublicIncidentModel(BaseModel):
    id: UUID
    kind: PublicKind
    title: str = Field(examples=["Card payments fail"])
    incident: str | None = Field(description="The incident it is about; never public", examples=["INC-1"])
    status: PublicStage = Field(description="The status shown now; maintenance begins and ends as scheduled")
    begins_at: AtShown
    begins_at_stated: bool = Field(description="Whether a person stated `begins_at`; otherwise it follows the incident")
    ends_at: AtShown | None = Field(description="When it ended; null while it lasts")
    ends_at_stated: bool = Field(description="Whether a person stated `ends_at`; otherwise it follows the incident")
    scheduled_to: AtShown | None
    automatic: bool = Field(description="Whether it was published automatically and no person has updated it since")
    withdrawn_at: AtShown | None = Field(description="When it was withdrawn and is no longer public; null: it was not")
    components: dict[str, Status] = Field(description="The current status of each component that it affects")
    set_operational: list[str] = Field(
        description="Components that were left in another status when it was resolved, and were set operational"
    )
    updates: list[UpdateModel] = Field(description="Earliest first")
    created_at: AtShown
    updated_at: AtShown


def public_model(found: PublicIncidentRows, now: datetime) -> PublicIncidentModel:
    public = found.public()
    return PublicIncidentModel.model_validate(
        found.row.model_dump()
        | {
            "incident": None if found.number is None else f"INC-{found.number}",
            "status": stage(public, now),
            "ends_at": ended(public, now),
            "components": status_of(public, now),
            "set_operational": list(found.set_operational),
            "updates": [each.model_dump() for each in found.updates],
        }
    )


@router.get("/incidents", responses=problem_responses(), summary="List public incidents")
async def list_public_incidents(
    _: Reader,
    session: Session,
    now: Now,
    paging: Pages,
    q: Contained = None,
    sort: Sorted = TimeSort.NEWEST,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[PublicIncidentModel]:
    """Problems and maintenance, also those that are no longer public."""
    key, oldest_first = paging.after_in(sort, datetime, UUID), sort is TimeSort.OLDEST
    rows = await incidents.list_public(
        session, q, after=key and (key[0], key[1]), oldest_first=oldest_first, limit=paging.limit + 1
    )
    items, cursor = page_of(rows, paging, lambda found: (sort.value, found.row.begins_at, found.row.id))
    return CountedPage(
        items=[public_model(each, now) for each in items],
        next_cursor=cursor,
        total=await incidents.count_public(session, q) if count else None,
    )


@router.post(
    "/incidents",
    status_code=201,
    responses=problem_responses(404, 409) | {200: {"model": PublicIncidentModel}},
    summary="Publish an incident or maintenance",
)
async def publish_incident(
    writer: Writer,
    session: Session,
    now: Now,
    body: Annotated[
        PublicIncidentInput,
        Body(
            examples=[
                {
                    "title": "Card payments fail",
                    "incident": "INC-1",
                    "first": {
                        "status": "investigating",
                        "body": "Some card payments fail. We are looking into it.",
                        "components": {"Payments": "partial_outage"},
                    },
                }
            ]
        ),
    ],
    response: Response,
) -> PublicIncidentModel:
    """It is on the page a few seconds later, if the page is on. Any number may be open at once. For past incidents,
    state `begins_at` and the `at` of each update. Returns 200 if a request with this `id` has been carried out before.
    """
    new = NewIncident(
        body.kind,
        body.title,
        body.first.new(writer.name, writer.id),
        incident=body.incident,
        begins_at=body.begins_at,
        scheduled_to=body.scheduled_to,
        id=body.id,
    )
    found, is_new = await incidents.publish(session, new, now=now)
    response.status_code = 201 if is_new else 200
    return public_model(found, now)


@router.get("/incidents/{public_id}", responses=problem_responses(404), summary="Get a public incident")
async def get_public_incident(_: Reader, session: Session, now: Now, id_: PublicId) -> PublicIncidentModel:
    """Returns its updates, including the parts that are never public."""
    return public_model(await incidents.find_public(session, id_), now)


@router.patch("/incidents/{public_id}", responses=problem_responses(404, 409), summary="Correct a public incident")
async def amend_public_incident(
    _: Writer, session: Session, now: Now, id_: PublicId, body: PublicIncidentAmendment
) -> PublicIncidentModel:
    """Its title and times. Times that no person has stated follow the incident and its corrections."""
    return public_model(await incidents.amend(session, id_, stated(body), now=now), now)


@router.post(
    "/incidents/{public_id}/updates",
    status_code=201,
    responses=problem_responses(404, 409) | {200: {"model": PublicIncidentModel}},
    summary="Publish an update",
)
async def publish_update(
    writer: Writer,
    session: Session,
    now: Now,
    id_: PublicId,
    body: Annotated[
        UpdateInput,
        Body(
            examples=[
                {
                    "status": "monitoring",
                    "body": ("Payments work again. We are monitoring the situation."),
                    "components": {},
                },
            ]
        ),
    ],
    response: Response,
) -> PublicIncidentModel:
    """When the problem is `resolved`, all its components become operational; `set_operational` lists those that had
    another status. Returns 200 if a request with this `id` has been carried out before.
    """
    found, is_new = await incidents.add_update(session, id_, body.new(writer.name, writer.id), now=now)
    response.status_code = 201 if is_new else 200
    return public_model(found, now)


@router.patch(
    "/incidents/{public_id}/updates/{update_id}", responses=problem_responses(404, 409), summary="Correct an update"
)
async def correct_update(
    writer: Writer, session: Session, now: Now, id_: PublicId, update_id: UpdateId, body: UpdateCorrection
) -> PublicIncidentModel:
    """The page shows that it was corrected, and when; its ids and those of the feeds stay the same."""
    found = await incidents.correct_update(session, id_, update_id, stated(body), by=writer.name, now=now)
    return public_model(found, now)


@router.post(
    "/incidents/{public_id}/withdraw", responses=problem_responses(404, 409), summary="Withdraw a public incident"
)
async def withdraw_public_incident(writer: Writer, session: Session, now: Now, id_: PublicId) -> PublicIncidentModel:
    """Removes it from the page and the feeds, for incidents that were published by mistake. It stays readable here."""
    return public_model(await incidents.withdraw(session, id_, by=writer.name, now=now), now)


def stated(body: Input) -> Mapping[str, Any]:
    """The fields that were sent."""
    return {name: getattr(body, name) for name in body.model_fields_set}
