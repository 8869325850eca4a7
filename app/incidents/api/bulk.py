"""Actions on many incidents at once over HTTP: acknowledge and resolve, with a result for each."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.errors import Problem
from app.base.http.access.auth import Writer
from app.base.http.context import Now, context_of
from app.base.http.requests.fields import IncidentRef
from app.base.http.responses.problems import ProblemDocument, document_of, problem_responses
from app.base.schema import Incident
from app.incidents import actions
from app.incidents.api.actions import ActionInput
from app.incidents.measures.measures import Facts, IncidentStatus, status

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])

INCIDENTS_AT_MOST = 100


class BulkInput(ActionInput):
    """One action by a person on several incidents."""

    incidents: Annotated[list[IncidentRef], Field(min_length=1, max_length=INCIDENTS_AT_MOST)] = Field(
        description="UUIDs or numbers; each is acted on once", examples=[["INC-1", "INC-2"]]
    )


class ResultModel(BaseModel):
    """The result for one incident."""

    incident: str = Field(description="The incident, as it was sent in the request", examples=["INC-1"])
    status: IncidentStatus | None = Field(description="Its status now; null if the action was refused")
    problem: ProblemDocument | None = Field(description="Why the action was refused; null if it was not")


class Results(BaseModel):
    """The results, in the order in which the incidents were sent."""

    items: list[ResultModel]
    refused: int = Field(description="For how many incidents the action was refused", examples=[0])


@router.post(
    "/acknowledge", response_model=Results, responses=problem_responses(), summary="Acknowledge several incidents"
)
async def acknowledge_all(writer: Writer, request: Request, now: Now, action: BulkInput) -> Results:
    """Acknowledges each one separately: one that is refused, for example because it is resolved, does not affect the
    others. Repeating the request changes nothing.
    """
    attribution, at_stated = action.attribution(writer, now), action.at is not None

    async def one(session: AsyncSession, ref: actions.Ref) -> Incident:
        return await actions.acknowledge(session, ref, attribution, at_stated=at_stated, via="api", now=now)

    return await _each(request, action, one)


@router.post("/resolve", response_model=Results, responses=problem_responses(), summary="Resolve several incidents")
async def resolve_all(writer: Writer, request: Request, now: Now, action: BulkInput) -> Results:
    """Resolves each one separately: one that is refused does not affect the others. Repeating the request changes
    nothing.
    """
    attribution, at_stated = action.attribution(writer, now), action.at is not None

    async def one(session: AsyncSession, ref: actions.Ref) -> Incident:
        return await actions.resolve(session, ref, attribution, at_stated=at_stated, now=now)

    return await _each(request, action, one)


async def _each(
    request: Request, action: BulkInput, act: Callable[[AsyncSession, actions.Ref], Awaitable[Incident]]
) -> Results:
    """A transaction for each, so that no incident stays locked, for deliveries too, while others are acted on."""
    results = []
    for ref in dict.fromkeys(action.incidents):
        shown = f"INC-{ref}" if isinstance(ref, int) else str(ref)
        try:
            async with db.session(context_of(request).engine) as session:
                row = await act(session, ref)
            results.append(ResultModel(incident=shown, status=status(Facts.of(row)), problem=None))
        except (Problem, SQLAlchemyError) as error:
            if not isinstance(error, Problem) and not db.is_contended(error):
                raise
            refused = ProblemDocument.model_validate(document_of(error, request.method).members)
            results.append(ResultModel(incident=shown, status=None, problem=refused))
    return Results(items=results, refused=sum(each.problem is not None for each in results))
