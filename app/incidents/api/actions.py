"""Actions on incidents over HTTP: declare, correct, acknowledge, resolve, reopen, milestones, notes."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Response
from pydantic import Field, StringConstraints

from app.base.http.auth import Writer
from app.base.http.context import Now, Session
from app.base.http.fields import At, Contract, IncidentInPath, Name, Words
from app.base.http.problems import problem_responses
from app.base.severity import SeverityName, severity_number
from app.incidents import actions
from app.incidents.api.answer import Answering, IncidentModel
from app.incidents.grouping.timeline import TimelineKind
from app.incidents.timeline import Attribution

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])


class Declaration(Contract):
    title: Annotated[Name, Field(examples=["Payments fail for some customers"])]
    service: Annotated[Name, Field(examples=["payments"])]
    severity: SeverityName = "sev3"
    impact_started_at: At | None = Field(None, description="When users were first affected; omit it if unknown")
    detected_at: At | None = Field(None, description="Defaults to now")
    by: Name | None = Field(None, examples=["ada"])
    note: Words | None = None


@router.post(
    "", status_code=201, response_model=IncidentModel, responses=problem_responses(), summary="Declare an incident"
)
async def declare(
    _: Writer, session: Session, now: Now, answer: Answering, response: Response, declaration: Declaration
) -> IncidentModel:
    """For incidents that monitoring did not detect. A declared incident stays open until a person resolves it."""
    declared = await actions.declare(
        session,
        title=declaration.title,
        service=declaration.service,
        severity=severity_number(declaration.severity),
        impact_started_at=declaration.impact_started_at,
        attribution=Attribution(declaration.detected_at or now, declaration.by, declaration.note),
        now=now,
    )
    response.headers["Location"] = f"/api/v1/incidents/INC-{declared.number}"
    return await answer(declared)


class Amendment(Contract):
    """Only the fields sent are changed. Null removes a correction and restores the value derived from the alerts."""

    title: Name | None = None
    severity: SeverityName | None = None
    service: Name | None = None
    impact: Annotated[Decimal, Field(ge=0, le=1, max_digits=10, decimal_places=6)] | None = Field(
        None, description="Share of the hourly cost, 0 to 1", examples=["0.25"]
    )
    impact_started_at: At | None = None
    detected_at: At | None = None
    by: Name | None = Field(None, description="The person making the correction, recorded in the timeline")


@router.patch(
    "/{id}", response_model=IncidentModel, responses=problem_responses(404, 409, 412), summary="Correct an incident"
)
async def amend(
    _: Writer,
    session: Session,
    now: Now,
    answer: Answering,
    ref: IncidentInPath,
    amendment: Amendment,
    if_match: Annotated[
        str | None, Header(max_length=100, description="Apply the correction only if the incident still has this ETag")
    ] = None,
) -> IncidentModel:
    """A correction overrides the value derived from the alerts, and is recorded in the timeline."""
    changes: dict[str, Any] = amendment.model_dump(exclude_unset=True, exclude={"by"})
    if changes.get("severity"):
        changes["severity"] = severity_number(changes["severity"])
    return await answer(await actions.amend(session, ref, changes, by=amendment.by, if_match=if_match, now=now))


class ActionIn(Contract):
    """An action by a person."""

    at: At | None = Field(None, description="When it happened; defaults to now")
    by: Name | None = Field(None, examples=["ada"])
    note: Words | None = None

    def attribution(self, now: datetime) -> Attribution:
        return Attribution(self.at or now, self.by, self.note)


@router.post(
    "/{id}/acknowledge",
    response_model=IncidentModel,
    responses=problem_responses(404, 409),
    summary="Acknowledge an incident",
)
async def acknowledge(
    _: Writer, session: Session, now: Now, answer: Answering, ref: IncidentInPath, action: ActionIn | None = None
) -> IncidentModel:
    """Only the first acknowledgement counts; repeating it changes nothing. To acknowledge a resolved incident, send an
    `at` before its end.
    """
    action = action or ActionIn()
    attribution = None if action.at is None and action.note is None else action.attribution(now)
    return await answer(await actions.acknowledge(session, ref, attribution, by=action.by, now=now))


@router.post(
    "/{id}/resolve", response_model=IncidentModel, responses=problem_responses(404, 409), summary="Resolve an incident"
)
async def resolve(
    _: Writer, session: Session, now: Now, answer: Answering, ref: IncidentInPath, action: ActionIn | None = None
) -> IncidentModel:
    """Ends the incident's open alerts at `at`. Repeats of those alerts do not reopen it (see `still_firing`); a new
    alert within the window does.
    """
    action = action or ActionIn()
    at_stated = action.at is not None
    return await answer(await actions.resolve(session, ref, action.attribution(now), at_stated=at_stated, now=now))


@router.post(
    "/{id}/reopen", response_model=IncidentModel, responses=problem_responses(404, 409), summary="Reopen an incident"
)
async def reopen(
    _: Writer, session: Session, now: Now, answer: Answering, ref: IncidentInPath, action: ActionIn | None = None
) -> IncidentModel:
    """The incident continues without a gap, until its alerts end or a person resolves it."""
    attribution = (action or ActionIn()).attribution(now)
    return await answer(await actions.reopen(session, ref, attribution, now=now))


class MilestoneIn(ActionIn):
    milestone: Literal["identified", "mitigated"]


@router.post(
    "/{id}/milestones", response_model=IncidentModel, responses=problem_responses(404, 409), summary="Set a milestone"
)
async def set_milestone(
    _: Writer, session: Session, now: Now, answer: Answering, ref: IncidentInPath, action: MilestoneIn
) -> IncidentModel:
    """`identified` (the cause is known) or `mitigated` (users are no longer affected). Both are optional."""
    kind = TimelineKind(action.milestone)
    return await answer(await actions.milestone(session, ref, kind, action.attribution(now), now=now))


class Note(Contract):
    note: Annotated[Words, StringConstraints(min_length=1), Field(examples=["Rolled back to 1.41"])]
    at: At | None = Field(None, description="The time that the note refers to; defaults to now")
    by: Name | None = None


@router.post(
    "/{id}/timeline",
    status_code=201,
    response_model=IncidentModel,
    responses=problem_responses(404, 409),
    summary="Add a note",
)
async def add_note(
    _: Writer, session: Session, now: Now, answer: Answering, ref: IncidentInPath, note: Note
) -> IncidentModel:
    """Adds a note to the timeline."""
    attribution = Attribution(note.at or now, note.by, note.note)
    return await answer(await actions.record(session, ref, TimelineKind.NOTE, attribution, now=now))
