"""Routes for the causes of incidents: the known cause, candidates, and statements by people."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import AtShown, IncidentInPath, Input, Name, Words
from app.base.http.responses.problems import problem_responses
from app.incidents.history.timeline import Attribution
from app.metrics.deployments import causes
from app.metrics.deployments.api.changes import ChangeResponse
from app.metrics.deployments.api.deployments import DeploymentResponse, deployment_shown
from app.metrics.deployments.causes import Cause
from app.metrics.deployments.deployment import StoredChange
from app.metrics.deployments.links import Basis, Candidate, Confidence

router = APIRouter()


class CauseInput(Input):
    deployment_id: Name | None = Field(
        description="Key of the deployment, or its id if only one deployment has it; null states that no deployment "
        "caused the incident",
        examples=["checkout-1742"],
    )
    by: Name | None = Field(None, description="The person who states it; defaults to the name of the token")
    note: Words | None = None


class CauseResponse(BaseModel):
    """No `basis` means that the cause is unknown; `stated` without a deployment means that no deployment caused it."""

    deployment: DeploymentResponse | None
    basis: Basis | None = Field(
        description="Stated by a person; a `deployment_id` in the labels or annotations of an alert; a version in the "
        "labels that was deployed in the week before; or the last deployment of the service and environment in the 24 "
        "hours before"
    )
    confidence: Confidence | None = Field(description="`certain`, `high` (version), `medium` (within an hour) or `low`")
    stated_at: AtShown | None
    by: str | None
    note: str | None


@router.get(
    "/api/v1/incidents/{id}/cause",
    response_model=CauseResponse,
    responses=problem_responses(404),
    tags=["deployments"],
    summary="Show which deployment caused an incident",
)
async def get_cause(_: Reader, session: Session, incident: IncidentInPath) -> CauseResponse:
    """The cause, if known, and the evidence for it. It is derived on each request, so late reports count; a
    person's statement takes precedence.
    """
    return _cause_shown(await causes.cause(session, incident))


class CandidateResponse(BaseModel):
    """Either a deployment or another change."""

    deployment: DeploymentResponse | None
    change: ChangeResponse | None
    basis: Basis = Field(description="As of a cause; `recent`: deployed or changed in the 24 hours before")
    confidence: Confidence


class CandidatesResponse(BaseModel):
    items: list[CandidateResponse] = Field(description="At most 50")


@router.get(
    "/api/v1/incidents/{id}/candidates",
    response_model=CandidatesResponse,
    responses=problem_responses(404),
    tags=["deployments"],
    summary="List what may have caused an incident",
)
async def list_candidates(_: Reader, session: Session, incident: IncidentInPath) -> CandidatesResponse:
    """Deployments and changes that may have caused the incident, the most likely first: those with evidence, and all of
    the service and environment in the 24 hours before. Rollbacks are left out. State the cause with
    `PUT /api/v1/incidents/{id}/cause`.
    """
    return CandidatesResponse(items=[_candidate(each) for each in await causes.cause_candidates(session, incident)])


def _candidate(each: Candidate) -> CandidateResponse:
    is_change = isinstance(each.cause, StoredChange)
    return CandidateResponse(
        deployment=None if isinstance(each.cause, StoredChange) else deployment_shown(each.cause),
        change=ChangeResponse.model_validate(each.cause) if is_change else None,
        basis=each.basis,
        confidence=each.confidence,
    )


@router.put(
    "/api/v1/incidents/{id}/cause",
    response_model=CauseResponse,
    responses=problem_responses(404, 409),
    tags=["deployments"],
    summary="State which deployment caused an incident",
)
async def state_cause(
    writer: Writer, session: Session, now: Now, incident: IncidentInPath, statement: CauseInput
) -> CauseResponse:
    """The latest statement counts, including null; all statements are kept in the timeline."""
    attribution = Attribution(now, statement.by or writer.name, statement.note)
    await causes.state_cause(session, incident, statement.deployment_id, attribution, now=now)
    return _cause_shown(await causes.cause(session, incident))


def _cause_shown(cause: Cause) -> CauseResponse:
    link, statement = cause.link, cause.statement
    return CauseResponse(
        deployment=deployment_shown(link.deployment) if link and link.deployment else None,
        basis=link.basis if link else None,
        confidence=link.confidence if link else None,
        stated_at=statement.at if statement else None,
        by=statement.by if statement else None,
        note=statement.note if statement else None,
    )
