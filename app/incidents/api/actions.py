"""Actions on incidents over HTTP: declare, correct, acknowledge, resolve, reopen, milestones, related incidents."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path
from pydantic import Field

from app.base.access.tokens import Bearer
from app.base.http.access.auth import Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import At, EnvironmentName, IncidentInPath, IncidentRef, Input, Name, Slug, Words
from app.base.http.responses.problems import problem_responses
from app.base.values.severity import SeverityName, severity_number
from app.incidents import actions, relations
from app.incidents.api.answer import EXPECTED_TO_LAST, HARMED_THROUGHOUT, IS_TEST, Answering, IncidentModel
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.timeline import Attribution

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])

BY = "The person who did it, recorded in the timeline; defaults to the name of the token"
IfMatch = Annotated[
    str | None, Header(max_length=100, description="Apply the correction only if the incident still has this ETag")
]


class Declaration(Input):
    """An incident that monitoring did not detect; `app/response/api/declaring.py` adds who responds."""

    title: Annotated[Name, Field(examples=["Payments fail for some customers"])]
    service: Annotated[Name, Field(examples=["payments"])]
    environment: EnvironmentName | None = Field(None, description="Omit it if unknown", examples=["production"])
    severity: SeverityName = "sev3"
    impact_started_at: At | None = Field(None, description="When users were first affected; omit it if unknown")
    detected_at: At | None = Field(None, description="Defaults to now")
    harmed_throughout: bool | None = Field(None, description=HARMED_THROUGHOUT)
    by: Name | None = Field(None, description=BY, examples=["ada"])
    note: Words | None = None


class IncidentAmendment(Input):
    """Only the fields sent are changed. Null removes a correction and restores the value derived from the alerts."""

    title: Name | None = None
    severity: SeverityName | None = None
    service: Name | None = None
    impact: Annotated[Decimal, Field(ge=0, le=1, max_digits=10, decimal_places=6)] | None = Field(
        None, description="Share of the hourly cost, 0 to 1", examples=["0.25"]
    )
    impact_started_at: At | None = None
    detected_at: At | None = None
    harmed_throughout: bool | None = Field(None, description=HARMED_THROUGHOUT)
    type: Slug | None = Field(None, description="An incident type; null: the first whose matchers match")
    expected_to_last: bool | None = Field(None, description=EXPECTED_TO_LAST)
    test: bool | None = Field(None, description=IS_TEST)
    by: Name | None = Field(None, description=BY, examples=["ada"])


@router.patch(
    "/{id}", response_model=IncidentModel, responses=problem_responses(404, 409, 412), summary="Correct an incident"
)
async def amend_incident(
    writer: Writer,
    session: Session,
    now: Now,
    answer: Answering,
    ref: IncidentInPath,
    amendment: IncidentAmendment,
    if_match: IfMatch = None,
) -> IncidentModel:
    """A correction overrides the value derived from the alerts, and is recorded in the timeline. To correct an
    acknowledgement, a milestone, a resolve or a note, correct its entry in the timeline.
    """
    changes: dict[str, Any] = amendment.model_dump(exclude_unset=True, exclude={"by"})
    if changes.get("severity"):
        changes["severity"] = severity_number(changes["severity"])
    return await answer(
        await actions.amend(session, ref, changes, by=amendment.by or writer.name, if_match=if_match, now=now)
    )


class ActionInput(Input):
    """An action by a person."""

    at: At | None = Field(None, description="When it happened; defaults to now")
    by: Name | None = Field(None, description=BY, examples=["ada"])
    note: Words | None = None

    def attribution(self, writer: Bearer, now: datetime) -> Attribution:
        return Attribution(self.at or now, self.by or writer.name, self.note)


@router.post(
    "/{id}/acknowledge",
    response_model=IncidentModel,
    responses=problem_responses(404, 409),
    summary="Acknowledge an incident",
)
async def acknowledge_incident(
    writer: Writer,
    session: Session,
    now: Now,
    answer: Answering,
    ref: IncidentInPath,
    action: ActionInput | None = None,
) -> IncidentModel:
    """The first acknowledgement counts; those of other people are recorded too, and repeating one changes nothing. `at`
    must not be before detection. To acknowledge a resolved incident, send an `at` before its end.
    """
    action = action or ActionInput()
    at_stated = action.at is not None
    return await answer(
        await actions.acknowledge(
            session, ref, action.attribution(writer, now), at_stated=at_stated, via="api", now=now
        )
    )


@router.post(
    "/{id}/resolve", response_model=IncidentModel, responses=problem_responses(404, 409), summary="Resolve an incident"
)
async def resolve_incident(
    writer: Writer,
    session: Session,
    now: Now,
    answer: Answering,
    ref: IncidentInPath,
    action: ActionInput | None = None,
) -> IncidentModel:
    """Ends the incident's open alerts at `at`. Repeats of those alerts do not reopen it (see `firing_after_resolve`);
    a new alert within the window does.
    """
    action = action or ActionInput()
    at_stated = action.at is not None
    return await answer(
        await actions.resolve(session, ref, action.attribution(writer, now), at_stated=at_stated, now=now)
    )


@router.post(
    "/{id}/reopen", response_model=IncidentModel, responses=problem_responses(404, 409), summary="Reopen an incident"
)
async def reopen_incident(
    writer: Writer,
    session: Session,
    now: Now,
    answer: Answering,
    ref: IncidentInPath,
    action: ActionInput | None = None,
) -> IncidentModel:
    """The incident continues without a gap, until its alerts end or a person resolves it."""
    attribution = (action or ActionInput()).attribution(writer, now)
    return await answer(await actions.reopen(session, ref, attribution, now=now))


class MilestoneInput(ActionInput):
    milestone: Literal["identified", "mitigated"]


@router.post(
    "/{id}/milestones", response_model=IncidentModel, responses=problem_responses(404, 409), summary="Set a milestone"
)
async def set_milestone(
    writer: Writer, session: Session, now: Now, answer: Answering, ref: IncidentInPath, action: MilestoneInput
) -> IncidentModel:
    """`identified` (the cause is known) or `mitigated` (users are no longer affected). Both are optional."""
    kind = TimelineKind(action.milestone)
    return await answer(await actions.milestone(session, ref, kind, action.attribution(writer, now), now=now))


class RelationInput(Input):
    by: Name | None = Field(None, description=BY, examples=["ada"])
    note: Words | None = Field(None, examples=["The same database was slow"])


OtherIncidentInPath = Annotated[
    IncidentRef,
    Path(alias="other", description="UUID of the other incident, or its number such as `INC-2`", examples=["INC-2"]),
]


@router.put(
    "/{id}/related/{other}",
    response_model=IncidentModel,
    responses=problem_responses(404, 409),
    summary="Mark two incidents as related",
)
async def relate_incidents(
    writer: Writer,
    session: Session,
    now: Now,
    answer: Answering,
    ref: IncidentInPath,
    other: OtherIncidentInPath,
    relation: RelationInput | None = None,
) -> IncidentModel:
    """Recorded in the timelines of both. It changes no times and no numbers. Repeating it changes nothing."""
    relation = relation or RelationInput()
    attribution = Attribution(now, relation.by or writer.name, relation.note)
    return await answer(await relations.relate(session, ref, other, attribution, now=now))


@router.delete(
    "/{id}/related/{other}",
    response_model=IncidentModel,
    responses=problem_responses(404, 409),
    summary="Remove the mark that two incidents are related",
)
async def unrelate_incidents(
    writer: Writer, session: Session, now: Now, answer: Answering, ref: IncidentInPath, other: OtherIncidentInPath
) -> IncidentModel:
    """Recorded in the timelines of both. Repeating it changes nothing."""
    return await answer(await relations.unrelate(session, ref, other, Attribution(now, writer.name), now=now))
