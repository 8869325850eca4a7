"""What people record about the response, over HTTP: facts that change nothing but the timeline."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body
from pydantic import Field, StringConstraints

from app.base.http.access.auth import Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import At, IncidentInPath, Input, Name, Words
from app.base.http.responses.problems import problem_responses
from app.incidents.api.entry import EntryModel, recorded
from app.incidents.api.timeline import IdempotencyKey, stated
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import notes
from app.incidents.history.details import Criterion, CustomerImpact, Evidence, Joined, Room, Update, detail_in
from app.incidents.history.timeline import Attribution

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])


class _Attributed(Input):
    at: At | None = Field(None, description="When it happened; defaults to now")
    by: Name | None = Field(None, description="Who records it; defaults to the name of the token", examples=["ada"])


class _Noted(_Attributed):
    note: Words | None = None


class JoinedFact(_Noted, Joined):
    """A person came to the incident."""

    kind: Literal["joined"]


class UpdateFact(_Attributed, Update):
    """An update for stakeholders or responders."""

    kind: Literal["update"]
    note: Annotated[Words, StringConstraints(min_length=1), Field(examples=["Some payments fail. We are on it."])]


class CriterionFact(_Noted, Criterion):
    """An exit criterion is met, or is no longer met. This does not resolve the incident."""

    kind: Literal["criterion"]


class RoomFact(_Noted, Room):
    """The channel in use changed."""

    kind: Literal["room"]


class ImpactFact(_Noted, CustomerImpact):
    """What customers noticed. Of each field, the value with the latest time counts."""

    kind: Literal["impact"]


class EvidenceFact(_Noted, Evidence):
    """A graph or a query that was used."""

    kind: Literal["evidence"]


FactInput = JoinedFact | UpdateFact | CriterionFact | RoomFact | ImpactFact | EvidenceFact


@router.post(
    "/{id}/facts",
    status_code=201,
    response_model=EntryModel,
    responses=problem_responses(404, 409),
    summary="Record a fact about the response",
)
async def add_fact(
    writer: Writer,
    session: Session,
    now: Now,
    ref: IncidentInPath,
    fact: Annotated[
        FactInput,
        Body(
            discriminator="kind",
            examples=[
                {"kind": "joined", "person": "cathy", "how": "asked"},
                {"kind": "update", "status": "identified", "note": "Some payments fail. A fix is on its way."},
                {"kind": "criterion", "criterion": "Payments succeed for 10 minutes", "met": True},
                {"kind": "room", "channel": "Bridge", "why": "Slack is down"},
                {"kind": "impact", "customers": 1200, "support_requests": 50},
                {"kind": "evidence", "link": "https://grafana.example.org/d/1", "query": "rate(errors[5m])"},
            ],
        ),
    ],
    idempotency_key: IdempotencyKey = None,
) -> EntryModel:
    """Adds an entry of this kind to the timeline. Facts may be recorded in any order, and can be corrected and
    withdrawn there. Who holds which role has a route of its own.
    """
    kind = TimelineKind(fact.kind)
    attribution = Attribution(fact.at or now, fact.by or writer.name, fact.note)
    detail = detail_in(kind, fact)
    entry = await notes.add_fact(
        session, ref, kind, attribution, detail, key=idempotency_key, stated=stated(fact), now=now
    )
    return await recorded(session, entry)
