"""Reviews over HTTP: their life, their incidents, participants and findings."""

from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.base import db
from app.base.access.tokens import Scope
from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session, context_of
from app.base.http.requests.fields import SEVERAL_AT_MOST, TIME, At, IncidentRef, Input, Name, When, Words
from app.base.http.requests.filters import Contained, Services, times_between
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.incidents.history.path import Phase
from app.reviews.api.answer import (
    FindingModel,
    ReviewAnswering,
    ReviewModel,
    ReviewSummaryModel,
    finding_model,
    summary_model,
)
from app.reviews.api.fields import IfMatch, ReviewInPath
from app.reviews.lifecycle import Element, FindingKind, Part, Participant, ReviewState
from app.reviews.prompts import PROMPT_IDS, PROMPTS, PromptAudience
from app.reviews.store import findings, reviews
from app.reviews.store.required import Requirements

router = APIRouter(prefix="/api/v1/reviews", tags=["reviews"])


# — reviews —


@router.get(
    "", response_model=CountedPage[ReviewSummaryModel], responses=problem_responses(404), summary="List reviews"
)
async def list_reviews(
    _: Reader,
    session: Session,
    now: Now,
    paging: Pages,
    state: Annotated[list[ReviewState], Query(description="May be repeated", examples=[["draft", "held"]])] = [],  # noqa: B006  fastapi copies it
    required: Annotated[bool | None, Query(description="Only those that are required, or only others")] = None,
    overdue: Annotated[bool | None, Query(description="Only drafts whose `due_at` has passed, or only others")] = None,
    facilitator: Annotated[
        list[Name], Query(description="May be repeated", max_length=SEVERAL_AT_MOST, examples=[["ada"]])
    ] = [],  # noqa: B006
    service: Services = [],  # noqa: B006
    incident: Annotated[IncidentRef | None, Query(description="About this incident", examples=["INC-1"])] = None,
    since: Annotated[
        When | None,
        Query(alias="from", description=f"Only reviews held (or, if not held yet, due) at or after this time. {TIME}"),
    ] = None,
    until: Annotated[
        When | None,
        Query(alias="to", description=f"Only reviews held (or, if not held yet, due) before this time. {TIME}"),
    ] = None,
    q: Contained = None,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[ReviewSummaryModel]:
    """Newest first."""
    begin, end = times_between(since, until, now=now)
    filters = reviews.Filters(frozenset(state), required, overdue, facilitator, service, incident, begin, end, q)
    key = paging.after(int)
    rows = await reviews.list_reviews(session, filters, before=key[0] if key else None, limit=paging.limit + 1, now=now)
    items, cursor = page_of(rows, paging, lambda row: (row.number,))
    incidents = await reviews.incidents_of(session, [row.id for row in items])
    return CountedPage(
        items=[summary_model(row, incidents.get(row.id, ()), now=now) for row in items],
        next_cursor=cursor,
        total=await db.total(session, await reviews.matching(session, filters, now=now)) if count else None,
    )


class ParticipantInput(Input):
    person: Name = Field(examples=["ada"])
    part: Part = Field(examples=["first_responder"])
    attended: bool | None = Field(None, description="Whether they came; null: not recorded")


class _Content(Input):
    facilitator: Name | None = Field(None, description="The person who leads the conversation", examples=["grace"])
    begins_at: At | None = Field(
        None, description="Start of the time frame, if it is about one", examples=["2026-08-20T09:00:00Z"]
    )
    ends_at: At | None = Field(
        None, description="End of the time frame, at most 30 days later", examples=["2026-08-20T11:00:00Z"]
    )
    due_at: At | None = Field(None, description="Until when it should be held")
    scheduled_at: At | None = Field(None, description="When the meeting begins")
    follow_up_at: At | None = Field(None, description="Defaults to 30 days after it was held")
    customer_impact: Words | None = Field(None, description="What customers experienced")
    resolution: Words | None = Field(None, description="How the service was restored")
    nothing_now_because: Words | None = Field(None, description="Why no action item has priority 1")


Participants = Annotated[list[ParticipantInput], Field(max_length=reviews.PARTICIPANTS_AT_MOST)]
Incidents = Annotated[list[IncidentRef], Field(max_length=reviews.INCIDENTS_AT_MOST, examples=[["INC-1"]])]


class ReviewInput(_Content):
    """A review of some incidents, of a time frame, or of a near miss without either."""

    title: Name = Field(examples=["Login unavailable for 20 minutes"])
    summary: Words = Field("", description="What happened, in a few sentences for people who were not there")
    incidents: Incidents = Field([], description="A merged incident is replaced by the one it was merged into")
    participants: Participants = Field([], description="The people to invite")


@router.post(
    "", status_code=201, response_model=ReviewModel, responses=problem_responses(404), summary="Create a review"
)
async def create_review(
    _: Writer,
    request: Request,
    session: Session,
    now: Now,
    answer: ReviewAnswering,
    response: Response,
    body: ReviewInput,
) -> ReviewModel:
    """A new review is a draft. The service drafts those that are required by itself when the incident has ended. If
    one of the incidents requires a review, this one is required too, and due as agreed unless you send `due_at`.
    """
    reviews.require_time_frame(body.begins_at, body.ends_at)
    review = await reviews.create(session, _columns(body), body.incidents, now=now)
    await context_of(request).part(Requirements).explain(session, review, now=now)
    await reviews.set_participants(session, review.id, _participants(body.participants))
    response.headers["Location"] = f"/api/v1/reviews/REV-{review.number}"
    return await answer(review)


_OF_OTHER_TABLES = {"incidents", "participants"}
_NEVER_NULL = ("title", "summary", "customer_impact", "resolution")


def _columns(body: _Content) -> dict[str, Any]:
    """The columns that were sent; texts that cannot be null are empty instead."""
    sent = body.model_dump(exclude_unset=True, exclude=_OF_OTHER_TABLES)
    return {name: "" if value is None and name in _NEVER_NULL else value for name, value in sent.items()}


def _participants(sent: list[ParticipantInput]) -> list[Participant]:
    return [Participant(one.person, one.part, one.attended) for one in sent]


class PromptModel(BaseModel):
    """A question that opens a conversation."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=["know_sooner"])
    audience: PromptAudience
    phase: Phase | None = Field(description="Null: about the whole incident")
    text: str


class PromptsResponse(BaseModel):
    items: list[PromptModel]


@router.get("/prompts", response_model=PromptsResponse, responses=problem_responses(), summary="List prompts")
async def list_prompts(
    _: Reader,
    phase: Annotated[Phase | None, Query(description="Only those about this phase")] = None,
    audience: Annotated[PromptAudience | None, Query(description="Only those for this audience")] = None,
) -> PromptsResponse:
    """Questions for a review, in the order of the phases. None of them is required."""
    return PromptsResponse(
        items=[
            PromptModel.model_validate(one)
            for one in PROMPTS
            if phase in {None, one.phase} and audience in {None, one.audience}
        ]
    )


@router.get("/{review}", response_model=ReviewModel, responses=problem_responses(404), summary="Get a review")
async def get_review(_: Reader, session: Session, answer: ReviewAnswering, ref: ReviewInPath) -> ReviewModel:
    """With its findings, its action items, the numbers of its incidents, and what is missing for its next step. Send
    the ETag as `If-Match` with a PATCH.
    """
    return await answer(await reviews.find(session, ref))


class ReviewAmendment(_Content):
    """Only the fields sent are changed. Null removes a value; a list replaces the whole list."""

    title: Name | None = Field(None, examples=["Login unavailable for 20 minutes"])
    summary: Words | None = Field(None, description="What happened, for people who were not there")
    duration_seconds: Annotated[int, Field(ge=60, le=86_400)] | None = Field(None, description="How long it took")
    incidents: Incidents | None = None
    participants: Participants | None = None

    @model_validator(mode="after")
    def _titled(self) -> Self:
        if "title" in self.model_fields_set and self.title is None:
            message = "`title` must not be null"
            raise ValueError(message)
        return self


@router.patch(
    "/{review}", response_model=ReviewModel, responses=problem_responses(404, 409, 412), summary="Change a review"
)
async def amend_review(
    _: Writer,
    session: Session,
    now: Now,
    answer: ReviewAnswering,
    ref: ReviewInPath,
    body: ReviewAmendment,
    if_match: IfMatch = None,
) -> ReviewModel:
    """Possible in any state: a published review can still be corrected."""
    review = await reviews.hold_row(session, ref, if_match)
    await reviews.amend(session, review, _columns(body), now=now)
    if body.participants is not None:
        await reviews.set_participants(session, review.id, _participants(body.participants))
    if body.incidents is not None:
        await reviews.set_incidents(session, review, body.incidents)
    return await answer(review)


# — the steps of its life —

STEP = problem_responses(404, 409)


class HoldInput(Input):
    held_at: At | None = Field(None, description="When it took place; defaults to now")
    duration_seconds: Annotated[int, Field(ge=60, le=86_400)] | None = Field(None, examples=[1800])
    attended: Annotated[list[Name], Field(max_length=reviews.PARTICIPANTS_AT_MOST)] | None = Field(
        None, description="The participants who came; all others did not. Omit it if not known", examples=[["ada"]]
    )
    facilitator: Name | None = Field(
        None,
        description="The person who led the conversation. Send null if no one did; without it, the facilitator of the "
        "review is required",
        examples=["grace"],
    )


@router.post("/{review}/hold", response_model=ReviewModel, responses=STEP, summary="Record that a review was held")
async def hold_review(
    _: Writer, session: Session, now: Now, answer: ReviewAnswering, ref: ReviewInPath, body: HoldInput
) -> ReviewModel:
    """Only for drafts. The time ends the analysis phase of its incidents."""
    review = await reviews.hold_row(session, ref)
    if "facilitator" in body.model_fields_set:
        review.facilitator = body.facilitator
    await reviews.hold(
        session,
        review,
        held_at=body.held_at or now,
        duration_seconds=body.duration_seconds,
        attended=body.attended,
        without_facilitator="facilitator" in body.model_fields_set,
        now=now,
    )
    return await answer(review)


@router.post("/{review}/publish", response_model=ReviewModel, responses=STEP, summary="Publish a review")
async def publish_review(
    _: Writer, session: Session, now: Now, answer: ReviewAnswering, ref: ReviewInPath
) -> ReviewModel:
    """Needs a summary, a finding, an owner and a priority for each action item, and an action item of priority 1 or
    the reason why there is none. A problem lists everything that is missing.
    """
    review = await reviews.hold_row(session, ref)
    await reviews.publish(session, review, now=now)
    return await answer(review)


@router.post("/{review}/close", response_model=ReviewModel, responses=STEP, summary="Close a review")
async def close_review(
    _: Writer, session: Session, now: Now, answer: ReviewAnswering, ref: ReviewInPath
) -> ReviewModel:
    """Needs every action item done or dropped, and for each that is done whether it was `effective`. A problem lists
    everything that is missing.
    """
    review = await reviews.hold_row(session, ref)
    await reviews.close(session, review, now=now)
    return await answer(review)


class DropInput(Input):
    because: Annotated[Words, StringConstraints(min_length=1), Field(examples=["Covered by REV-2"])]


@router.post("/{review}/drop", response_model=ReviewModel, responses=STEP, summary="Drop a review")
async def drop_review(
    writer: Writer, session: Session, now: Now, answer: ReviewAnswering, ref: ReviewInPath, body: DropInput
) -> ReviewModel:
    """Records that a draft will not be held, and why. One that is required needs a token with scope `admin`."""
    review = await reviews.hold_row(session, ref)
    admin = writer.scope.includes(Scope.ADMIN)
    await reviews.drop(session, review, because=body.because, admin=admin, now=now)
    return await answer(review)


@router.post("/{review}/reopen", response_model=ReviewModel, responses=STEP, summary="Take a review one step back")
async def reopen_review(
    _: Writer, session: Session, now: Now, answer: ReviewAnswering, ref: ReviewInPath
) -> ReviewModel:
    """From closed to published, from published to held, from held or dropped to draft. A draft does not change."""
    review = await reviews.hold_row(session, ref)
    await reviews.reopen(session, review, now=now)
    return await answer(review)


# — findings —


class _FindingContent(Input):
    phase: Phase | None = Field(None, description="The phase of the incident that it is about")
    element: Element | None = None
    factor: Name | None = Field(
        None,
        description="The contributing factor, from `GET /api/v1/factors`; required for the kind `factor`, and only "
        "for it",
        examples=["documentation hard to find"],
    )
    prompt: Name | None = Field(
        None,
        description="Id of the question that it answers, from `GET /api/v1/reviews/prompts`",
        examples=["know_sooner"],
    )
    timeline_entry: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = Field(
        None, description="Id of an entry in the timeline of one of the incidents", examples=[None]
    )
    new_to: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        None, description="How many of the participants did not know it before", examples=[4]
    )
    by: Name | None = Field(None, description="Who found it; defaults to the name of the token", examples=["ada"])

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.prompt is not None and self.prompt not in PROMPT_IDS:
            message = "`prompt` must be the id of a prompt; GET /api/v1/reviews/prompts lists them all"
            raise ValueError(message)
        return self


class FindingInput(_FindingContent):
    kind: FindingKind = Field(examples=["factor"])
    text: Annotated[Words, StringConstraints(min_length=1), Field(examples=["The list of servers was out of date"])]

    @model_validator(mode="after")
    def _with_factor(self) -> Self:
        if (self.kind is FindingKind.FACTOR) != (self.factor is not None):
            message = "a finding of kind `factor` needs a `factor`, and other kinds must not have one"
            raise ValueError(message)
        return self


FindingInPath = Annotated[
    UUID, Path(alias="finding", description="Id of a finding", examples=["01990a52-5c1e-7000-8000-000000000001"])
]


@router.post(
    "/{review}/findings",
    status_code=201,
    response_model=FindingModel,
    responses=problem_responses(404, 409),
    summary="Add a finding",
)
async def add_finding(
    writer: Writer, session: Session, now: Now, ref: ReviewInPath, body: FindingInput
) -> FindingModel:
    """Adds it at the end of the review. Several factors contribute to an incident, so there is no kind for a single
    cause. Ideas for later are `parked`. The response contains advice on the wording; it never blocks the request.
    """
    review = await reviews.hold_row(session, ref)
    values = finding_columns(body) | {"by": body.by or writer.name}
    found = await findings.add(session, review, values, now=now)
    await reviews.touch(session, review, now=now)
    return finding_model(found)


class FindingAmendment(_FindingContent):
    """Only the fields sent are changed; null removes a value."""

    kind: FindingKind | None = Field(None, examples=["learning"])
    text: Annotated[Words, StringConstraints(min_length=1)] | None = Field(
        None, examples=["The list of servers was two years old"]
    )
    position: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="Its place among the findings")

    @model_validator(mode="after")
    def _never_null(self) -> Self:
        if any(getattr(self, name) is None for name in self.model_fields_set & {"kind", "text", "position"}):
            message = "`kind`, `text` and `position` must not be null"
            raise ValueError(message)
        return self


@router.patch(
    "/{review}/findings/{finding}",
    response_model=FindingModel,
    responses=problem_responses(404),
    summary="Change a finding",
)
async def amend_finding(
    _: Writer, session: Session, now: Now, ref: ReviewInPath, id_: FindingInPath, body: FindingAmendment
) -> FindingModel:
    """In any state of the review."""
    review = await reviews.hold_row(session, ref)
    found = await findings.find(session, review, id_)
    await findings.amend(session, review, found, finding_columns(body), now=now)
    await reviews.touch(session, review, now=now)
    return finding_model(found)


@router.delete(
    "/{review}/findings/{finding}", status_code=204, responses=problem_responses(404), summary="Delete a finding"
)
async def delete_finding(_: Writer, session: Session, now: Now, ref: ReviewInPath, id_: FindingInPath) -> None:
    """Its action items stay."""
    review = await reviews.hold_row(session, ref)
    await findings.remove(session, await findings.find(session, review, id_))
    await reviews.touch(session, review, now=now)


def finding_columns(body: _FindingContent) -> dict[str, Any]:
    sent = body.model_dump(exclude_unset=True)
    return {"timeline_id" if name == "timeline_entry" else name: value for name, value in sent.items()}
