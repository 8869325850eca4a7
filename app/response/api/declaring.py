"""Declaring over HTTP: an incident that monitoring did not detect, and the response to one that is known."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field, StringConstraints

from app.base.http.access.auth import Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import IncidentInPath, Input, Name, Slug, Words
from app.base.http.responses.problems import problem_responses
from app.base.values.severity import severity_number
from app.incidents import actions
from app.incidents.api.actions import ActionInput, Declaration
from app.incidents.api.answer import IS_TEST, Answering, IncidentModel
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import timeline
from app.incidents.history.details import CustomerImpact, Person, Update, detail_in
from app.incidents.history.timeline import Attribution
from app.response.store import response as store

router = APIRouter(prefix="/api/v1/incidents")


class _Team(Input):
    """Who responds, and how."""

    type: Slug | None = Field(None, description="An incident type; null: the first whose matchers match")
    commander: Person | None = Field(None, description="Takes the role `commander`")
    responders: list[Person] = Field([], max_length=50, description="Take the role `responder`")


class FirstUpdate(Update):
    """The first update for stakeholders or responders."""

    note: Annotated[Words, StringConstraints(min_length=1), Field(examples=["Some payments fail. We are on it."])]


class IncidentDeclaration(_Team, Declaration):
    """An incident, and everything about its response that is known when it is declared."""

    region: Name | None = Field(None, description="Becomes the label `region`", examples=["eu-1"])
    test: bool = Field(False, description=f"{IS_TEST}. As PATCH marks it")
    impact: CustomerImpact | None = Field(
        None, description="What customers notice", examples=[{"what": "Pay by card", "support_requests": 3}]
    )
    update: FirstUpdate | None = Field(
        None,
        description="The first update, as of the declaration",
        examples=[{"status": "investigating", "note": "Some payments fail. We are on it."}],
    )


@router.post(
    "",
    tags=["incidents"],
    status_code=201,
    response_model=IncidentModel,
    responses=problem_responses(),
    summary="Declare an incident",
)
async def declare_incident(
    writer: Writer, session: Session, now: Now, answer: Answering, response: Response, declaration: IncidentDeclaration
) -> IncidentModel:
    """For incidents that monitoring did not detect. A declared incident stays open until a person resolves it.
    Everything else that you send, such as the commander or the first update, becomes an entry in its timeline.
    """
    attribution = Attribution(declaration.detected_at or now, declaration.by or writer.name, declaration.note)
    declared = await actions.declare(
        session,
        title=declaration.title,
        service=declaration.service,
        environment=declaration.environment,
        severity=severity_number(declaration.severity),
        labels={} if declaration.region is None else {"region": declaration.region},
        impact_started_at=declaration.impact_started_at,
        harmed_throughout=declaration.harmed_throughout,
        attribution=attribution,
        now=now,
    )
    if declaration.test:
        mark = {"test": True}
        declared = await actions.amend(session, declared.id, mark, by=attribution.by, if_match=None, now=now)
    for kind, fact in ((TimelineKind.IMPACT, declaration.impact), (TimelineKind.UPDATE, declaration.update)):
        if fact is not None:
            stated = Attribution(attribution.at, attribution.by, getattr(fact, "note", None))
            await timeline.append(session, declared.id, kind, stated, detail=detail_in(kind, fact), now=now)
    response.headers["Location"] = f"/api/v1/incidents/INC-{declared.number}"
    at_stated = declaration.detected_at is not None
    row = await store.assemble(
        session,
        declared,
        attribution,
        at_stated=at_stated,
        type_name=declaration.type,
        commander=declaration.commander,
        responders=declaration.responders,
        now=now,
    )
    return await answer(row)


class ResponseDeclaration(_Team, ActionInput):
    """Who begins the response, and who responds."""


@router.post(
    "/{id}/declare",
    tags=["response"],
    response_model=IncidentModel,
    responses=problem_responses(404, 409),
    summary="Declare the response to an incident",
)
async def declare_response(
    writer: Writer,
    session: Session,
    now: Now,
    answer: Answering,
    ref: IncidentInPath,
    declaration: ResponseDeclaration | None = None,
) -> IncidentModel:
    """A person begins the response to an incident that is already known. The first declaration counts, and repeating
    one changes nothing. If someone else is commander, they remain commander. Declaring does not acknowledge the
    incident. `at` must not be before detection; to declare the response to a resolved incident, send an `at` before its
    end.
    """
    declaration = declaration or ResponseDeclaration()
    row = await store.declare(
        session,
        ref,
        declaration.attribution(writer, now),
        at_stated=declaration.at is not None,
        type_name=declaration.type,
        commander=declaration.commander,
        responders=declaration.responders,
        now=now,
    )
    return await answer(row)
