"""Search over HTTP."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader
from app.base.http.context import Tx
from app.base.http.limits.turns import IN_TURN
from app.base.http.requests.fields import AtShown, Name
from app.base.http.responses.problems import problem_responses
from app.base.values.severity import SeverityName, severity_name
from app.search import store
from app.search.question import PREFIXES, QUESTION_AT_MOST, ResultKind, question
from app.search.result import Result
from app.search.store import RESULTS_AT_MOST

router = APIRouter(prefix="/api/v1/search", tags=["search"], dependencies=[IN_TURN])


class SearchResultModel(BaseModel):
    """Something that was found."""

    kind: ResultKind
    number: str | None = Field(description="Null for services and findings", examples=["INC-1"])
    title: str = Field(description="Its title; for a service its name, for a finding the beginning of its text")
    snippet: str | None = Field(
        description="An excerpt of its other text with one of the words, as plain text of at most 200 characters"
    )
    service: str | None = Field(description="The service of an incident; null for other kinds")
    severity: SeverityName | None = Field(description="The severity of an incident; null for other kinds")
    state: str | None = Field(
        description="The status of an incident, the state of a review or an action item, or the kind of a finding",
        examples=["resolved"],
    )
    review: str | None = Field(description="The review that it is, or that it belongs to", examples=["REV-1"])
    incident: str | None = Field(
        description="The incident that it is, or that an action item belongs to", examples=["INC-1"]
    )
    at: AtShown = Field(description="When an incident began, when a service was first seen, or when it was created")
    path: str = Field(description="Its address in this API", examples=["/api/v1/incidents/INC-1"])


class SearchModel(BaseModel):
    items: list[SearchResultModel] = Field(description="Best match first")
    more: bool = Field(description="Whether there are more than `limit`; add words to narrow the search")
    incidents_since: AtShown | None = Field(
        description="Titles that alerts gave are searched only in incidents that began after this time, the newest "
        f"{store.INCIDENTS_READ:,}. Null: all were searched"
    )


@router.get("", response_model=SearchModel, responses=problem_responses(), summary="Search")
async def search(
    _: Reader,
    tx: Tx,
    q: Annotated[
        Annotated[Name, Field(max_length=QUESTION_AT_MOST)],
        Query(description="Words, numbers such as `INC-12`, or both", examples=["checkout timeout"]),
    ],
    kind: Annotated[
        list[ResultKind], Query(description="May be repeated; all if omitted", examples=[["incident"]])
    ] = [],  # noqa: B006  fastapi copies it
    limit: Annotated[int, Query(ge=1, le=RESULTS_AT_MOST)] = 20,
) -> SearchModel:
    """Searches incidents (by title and service), reviews, findings, action items, and services (by name and owner).

    A result contains all the words (the beginning of a word is enough), or has one of the numbers. Results found
    by number come first, then titles that equal the query, begin with it, or contain all its words; ties are ordered
    services first, then newest first. Case does not matter, ASCII punctuation separates words, and only the first ten
    words count.
    """
    found = await store.search(tx, question(q), kind, limit=limit)
    return SearchModel(items=list(map(_model, found.results)), more=found.more, incidents_since=found.incidents_since)


def _model(one: Result) -> SearchResultModel:
    return SearchResultModel(
        kind=one.kind,
        number=None if one.number is None else f"{PREFIXES[one.kind]}-{one.number}",
        title=one.title,
        snippet=one.snippet,
        service=one.service,
        severity=None if one.severity is None else severity_name(one.severity),
        state=one.state,
        review=None if one.review is None else f"REV-{one.review}",
        incident=_incident(one),
        at=one.at,
        path=_path(one),
    )


def _incident(one: Result) -> str | None:
    number = one.number if one.kind is ResultKind.INCIDENT else one.incident
    return None if number is None else f"INC-{number}"


def _path(one: Result) -> str:
    match one.kind:
        case ResultKind.SERVICE:
            return f"/api/v1/services/{quote(one.name or '', safe='')}"
        case ResultKind.INCIDENT:
            return f"/api/v1/incidents/INC-{one.number}"
        case ResultKind.ACTION_ITEM:
            return f"/api/v1/action-items/AI-{one.number}"
        case ResultKind.REVIEW | ResultKind.FINDING:
            return f"/api/v1/reviews/REV-{one.review}"
