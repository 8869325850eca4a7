"""Response models of reviews, findings and action items."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.http.context import Now, Session, SettingsDep, context_of
from app.base.http.requests.fields import AtShown
from app.base.process.threads import off_loop_if_large
from app.base.schema import Finding, Incident, Review
from app.base.values.severity import SeverityName
from app.incidents.actions import etag
from app.incidents.api.answer import CostModel, MeasureModel, columns_of, models_of
from app.incidents.api.path import PathModel, path_model
from app.incidents.history import notes
from app.incidents.history.path import Phase, path_of
from app.incidents.measures.measures import Facts, IncidentStatus
from app.reviews import lifecycle
from app.reviews.action_item import ItemState, Question, age, hints, overdue, question
from app.reviews.lifecycle import Element, FindingKind, Part, Participant, Perspective, Reason, ReviewState
from app.reviews.store import action_items, findings, reviews
from app.reviews.store.action_items import ListedActionItem
from app.reviews.store.responses import Responses
from app.reviews.wording import INSTEAD, WHY, WordingKind, marks
from app.settings import Settings

_SHOWN = ConfigDict(from_attributes=True)


class WordingModel(BaseModel):
    """A place in a text that may be worth another look. Advice: nothing depends on it."""

    begin: int = Field(description="Index of its first character", examples=[2])
    end: int = Field(description="Index after its last character", examples=[13])
    kind: WordingKind
    why: str
    instead: str = Field(description="A question to ask instead")


def wording_of(text: str) -> list[WordingModel]:
    return [
        WordingModel(begin=one.start, end=one.end, kind=one.kind, why=WHY[one.kind], instead=INSTEAD[one.kind])
        for one in marks(text)
    ]


class FindingModel(BaseModel):
    """Something that the review found."""

    id: UUID
    position: int
    kind: FindingKind
    text: str
    wording: list[WordingModel] = Field(description="Advice on the wording of `text`")
    phase: Phase | None = Field(description="The phase of the incident that it is about")
    element: Element | None
    factor: str | None = Field(description="What contributed; set if and only if the kind is `factor`")
    prompt: str | None = Field(description="Id of the question that it answers, from `GET /api/v1/reviews/prompts`")
    timeline_entry: int | None = Field(description="The entry of the timeline that it is about")
    new_to: int | None = Field(description="How many of the participants did not know it before")
    by: str | None
    created_at: AtShown
    updated_at: AtShown


def finding_model(finding: Finding, wording: Sequence[WordingModel] | None = None) -> FindingModel:
    """`wording` is the advice on its text if that is known already."""
    wording = wording_of(finding.text) if wording is None else wording
    derived = {"wording": wording, "timeline_entry": finding.timeline_id}
    return FindingModel.model_validate(columns_of(finding, FindingModel) | derived)


class IssueModel(BaseModel):
    """An issue as its tracker last reported it."""

    model_config = _SHOWN

    state: ItemState = Field(description="`dropped`: closed without having been done")
    at: AtShown = Field(description="When the tracker changed it")
    by: str | None = Field(description="Who changed it; null: the tracker does not report it", examples=["cathy"])


class ActionItemModel(BaseModel):
    """A task that follows from a review or an incident."""

    id: UUID
    number: str = Field(examples=["AI-1"])
    title: str
    hints: list[str] = Field(description="How the title could be more specific. Advice: nothing depends on it")
    done_when: str | None = Field(description="How to see that it is done")
    phase: Phase = Field(description="The phase of later incidents that it improves")
    question: Question = Field(description="The question of a review that it answers, derived from the phase")
    term: str = Field(description="`short` or `long`")
    priority: int | None = Field(description="1 now, 2 next, 3 later")
    owner: str | None
    due_at: AtShown | None
    state: ItemState
    dropped_because: str | None
    closed_at: AtShown | None = Field(description="When it was done or dropped")
    reopened: int = Field(description="How often it was reopened after it was done or dropped")
    age_seconds: float = Field(description="Until it was done or dropped, else until now")
    overdue_seconds: float = Field(
        description="How long it was open after it was due, until now if it still is; 0 if it was not"
    )
    link: str | None = Field(description="The issue in a tracker, without query and fragment")
    issue: IssueModel | None = Field(description="Null: no webhook of a tracker has reported the issue at `link`")
    review: str | None = Field(examples=["REV-1"])
    incident: str | None = Field(description="Set if it was recorded for an incident itself", examples=["INC-1"])
    finding: UUID | None
    effective: str | None = Field(description="Whether it helped, as judged by a person: `yes`, `no`, `cannot_tell`")
    effective_note: str | None
    created_at: AtShown
    updated_at: AtShown


def item_model(listed: ListedActionItem, *, now: datetime) -> ActionItemModel:
    row = listed.row
    derived = {
        "number": f"AI-{row.number}",
        "hints": hints(row.title, row.done_when),
        "question": question(row.phase),
        "age_seconds": age(row.created_at, row.closed_at, now=now).total_seconds(),
        "overdue_seconds": overdue(row.due_at, row.closed_at, now=now).total_seconds(),
        "review": None if listed.review is None else f"REV-{listed.review}",
        "incident": None if listed.incident is None else f"INC-{listed.incident}",
        "finding": row.finding_id,
        "issue": listed.issue,
    }
    return ActionItemModel.model_validate(columns_of(row, ActionItemModel) | derived)


class ParticipantModel(BaseModel):
    model_config = _SHOWN

    person: str
    part: Part
    attended: bool | None = Field(description="Null: not recorded")
    involved_in: list[str] = Field(
        description="The kinds of entries with their name in the timelines of the incidents; empty: none",
        examples=[["acknowledged", "task"]],
    )


class InvitationModel(BaseModel):
    """Someone who appears in the timelines and is not a participant yet."""

    person: str
    involved_in: list[str]


class ReviewedIncidentModel(BaseModel):
    """The numbers of one incident, beside its review."""

    number: str = Field(examples=["INC-1"])
    title: str
    service: str
    environment: str | None
    severity: SeverityName
    status: IncidentStatus
    detected_at: AtShown
    resolved_at: AtShown | None
    measures: dict[str, MeasureModel]
    downtime_seconds: float | None
    cost: dict[str, CostModel] | None


class ReviewedResponseModel(ReviewedIncidentModel):
    """The numbers of one incident of the review, and of the response to it."""

    targets: dict[str, str] = Field(
        description="The outcome of each target, as in `GET /api/v1/incidents/{id}/response`",
        examples=[{"acknowledge": "met", "update": "not_agreed", "resolve": "missed"}],
    )
    exit_open: list[str] = Field(description="Exit criteria that are not met", examples=[["Stakeholders are informed"]])
    path: PathModel = Field(description="What was done, and whether it helped")


class ReviewSummaryModel(BaseModel):
    """A review in a list."""

    id: UUID
    number: str = Field(examples=["REV-1"])
    title: str
    state: ReviewState
    required: bool
    required_because: list[Reason] = Field(description="Why it is required; empty if it is not")
    overdue: bool = Field(description="It is a draft, and `due_at` has passed")
    facilitator: str | None
    incidents: list[str] = Field(
        description="Merged incidents are replaced by those they were merged into", examples=[["INC-1"]]
    )
    begins_at: AtShown | None = Field(
        description="Start of the time frame that it is about; null: that of its incidents"
    )
    ends_at: AtShown | None
    due_at: AtShown | None
    scheduled_at: AtShown | None
    held_at: AtShown | None
    duration_seconds: int | None
    published_at: AtShown | None
    closed_at: AtShown | None
    follow_up_at: AtShown | None = Field(description="When to ask whether the action items helped")
    created_at: AtShown
    updated_at: AtShown


class TextWordingModel(BaseModel):
    """Advice on the wording of the review's texts."""

    summary: list[WordingModel]
    customer_impact: list[WordingModel]
    resolution: list[WordingModel]


class ReviewContent(ReviewSummaryModel):
    """A review with what belongs to it."""

    summary: str
    customer_impact: str
    resolution: str
    wording: TextWordingModel
    nothing_now_because: str | None = Field(description="Why no action item has priority 1")
    dropped_because: str | None
    facilitator_involved_in: list[str] = Field(
        description="The kinds of timeline entries with the facilitator's name; someone who was not involved finds it "
        "easier to ask"
    )
    participants: list[ParticipantModel]
    missing_perspectives: list[Perspective] = Field(
        description="Points of view that are missing among those invited to a draft, or those who attended"
    )
    invite: list[InvitationModel] = Field(
        description="People to consider inviting, because they appear in the timelines"
    )
    numbers: Sequence[ReviewedIncidentModel] = Field(description="The numbers of its incidents")
    proposed_incidents: list[str] = Field(
        description="Other incidents within the time frame, or of the same services at the same time; at most 20"
    )
    findings: list[FindingModel]
    learned: int = Field(description="The sum of `new_to` of its findings")
    action_items: list[ActionItemModel]
    person_seconds: int | None = Field(
        description="`duration_seconds` times the number of those who attended, facilitator included; null: not known"
    )
    missing: list[str] = Field(description="What is missing for the next step", examples=[["AI-12 has no owner"]])


class ReviewModel(ReviewContent):
    """A review with everything that belongs to it."""

    numbers: Sequence[ReviewedResponseModel] = Field(
        description="The numbers of its incidents, and of the response to them"
    )


def summary_model(review: Review, incidents: Sequence[Incident], *, now: datetime) -> ReviewSummaryModel:
    return ReviewSummaryModel.model_validate(
        columns_of(review, ReviewSummaryModel) | _derived(review, incidents, now=now)
    )


def _derived(review: Review, incidents: Sequence[Incident], *, now: datetime) -> dict[str, Any]:
    return {
        "number": f"REV-{review.number}",
        "required": bool(review.required_because),
        "overdue": review.state == ReviewState.DRAFT and review.due_at is not None and review.due_at < now,
        "incidents": [f"INC-{one.number}" for one in incidents],
    }


async def review_content(session: AsyncSession, review: Review, *, settings: Settings, now: datetime) -> ReviewContent:
    """A fixed number of statements."""
    await session.refresh(review)
    incidents = (await reviews.incidents_of(session, [review.id])).get(review.id, [])
    people = await reviews.people_in(session, [one.id for one in incidents])
    participants = await reviews.participants_of(session, review.id)
    found = await findings.findings_of(session, review.id)
    step = await reviews.for_next_step(session, review)
    models = await models_of(session, incidents, settings=settings, now=now)
    present = {one.person for one in participants} | {review.facilitator}
    texts = [review.summary, review.customer_impact, review.resolution, *(one.text for one in found)]
    advice = await off_loop_if_large(sum(map(len, texts)), lambda: [wording_of(one) for one in texts])
    derived = {
        "wording": TextWordingModel(summary=advice[0], customer_impact=advice[1], resolution=advice[2]),
        "facilitator_involved_in": people.get(review.facilitator or "", []),
        "participants": [_participant(one, people) for one in participants],
        "missing_perspectives": lifecycle.missing_perspectives(step.state, participants),
        "invite": [
            InvitationModel(person=person, involved_in=list(kinds))
            for person, kinds in people.items()
            if person not in present
        ],
        "numbers": [ReviewedIncidentModel.model_validate(one.model_dump()) for one in models],
        "proposed_incidents": [
            f"INC-{number}" for number in await reviews.proposed_incidents(session, review, incidents)
        ],
        "findings": [finding_model(one, wording) for one, wording in zip(found, advice[3:], strict=True)],
        "learned": sum(one.new_to or 0 for one in found),
        "action_items": [item_model(one, now=now) for one in await action_items.items_of(session, review.id)],
        "person_seconds": _person_seconds(review, participants),
        "missing": [str(one) for one in lifecycle.missing(step)],
    }
    known = columns_of(review, ReviewContent) | _derived(review, incidents, now=now)
    return ReviewContent.model_validate(known | derived)


async def review_model(
    session: AsyncSession, review: Review, *, settings: Settings, responses: Responses, now: datetime
) -> ReviewModel:
    """A fixed number of statements, and two for each calendar that a target names."""
    content = await review_content(session, review, settings=settings, now=now)
    incidents = (await reviews.incidents_of(session, [review.id])).get(review.id, [])
    kept = await responses.outcomes_of(session, incidents, now)
    tasks = await notes.tasks_of(await session.connection(), [row.id for row in incidents])
    numbers = []
    for row, beside in zip(incidents, content.numbers, strict=True):
        path = path_model(path_of(Facts.of(row), tasks.get(row.id, ()), now=now))
        more = {"targets": kept[row.id].targets, "exit_open": kept[row.id].open_criteria, "path": path}
        numbers.append(ReviewedResponseModel.model_validate(dict(beside) | more))
    return ReviewModel.model_validate(dict(content) | {"numbers": numbers})


def _participant(one: Participant, people: Mapping[str, Sequence[str]]) -> ParticipantModel:
    return ParticipantModel(
        person=one.person, part=one.part, attended=one.attended, involved_in=list(people.get(one.person, ()))
    )


def _person_seconds(review: Review, participants: Sequence[Participant]) -> int | None:
    attended = {one.person for one in participants if one.attended} | ({review.facilitator} - {None})
    return review.duration_seconds * len(attended) if review.duration_seconds and review.held_at else None


class ReviewAnswer:
    """Builds the response for one review and sets its ETag."""

    def __init__(self, request: Request, session: Session, settings: SettingsDep, now: Now, response: Response) -> None:
        self._session, self._settings, self._now, self._response = session, settings, now, response
        self._responses = context_of(request).part(Responses)

    async def __call__(self, review: Review) -> ReviewModel:
        model = await review_model(
            self._session, review, settings=self._settings, responses=self._responses, now=self._now
        )
        self._response.headers["ETag"] = etag(review.version)
        return model


ReviewAnswering = Annotated[ReviewAnswer, Depends()]
