"""Factors over HTTP: the words for what contributes to incidents."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Response
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import AtShown, Input, Name, SingleSegmentRoute, Words
from app.base.http.requests.filters import Contained
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.base.schema import Factor
from app.incidents.api.answer import columns_of
from app.reviews.lifecycle import Element
from app.reviews.store import findings

router = APIRouter(prefix="/api/v1/factors", tags=["reviews"], route_class=SingleSegmentRoute)

FactorName = Annotated[Name, Path(description="Percent-encoded", examples=["documentation hard to find"])]


class FactorModel(BaseModel):
    """A word for something that contributes to incidents."""

    name: str
    element: Element
    description: str
    replaced_by: str | None = Field(description="The factor to use instead; null: this one")
    findings: int = Field(description="The number of findings with it")
    created_at: AtShown
    updated_at: AtShown


@router.get("", response_model=CountedPage[FactorModel], responses=problem_responses(), summary="List factors")
async def list_factors(
    _: Reader,
    session: Session,
    paging: Pages,
    q: Contained = None,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[FactorModel]:
    """Sorted by name. The service comes with an initial list."""
    rows = await findings.list_factors(session, q, after=paging.after_name(), limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row[0].name,))
    return CountedPage(
        items=[_model(*row) for row in items],
        next_cursor=cursor,
        total=await findings.count_factors(session, q) if count else None,
    )


def _model(factor: Factor, count: int) -> FactorModel:
    return FactorModel.model_validate(columns_of(factor, FactorModel) | {"findings": count})


class FactorInput(Input):
    element: Element
    description: Words = ""
    replaced_by: Name | None = Field(
        None,
        description="Another factor to use instead; all findings with this one move to it, for good",
        examples=[None],
    )


@router.put(
    "/{name}",
    response_model=FactorModel,
    responses=problem_responses(409) | {201: {"model": FactorModel}},
    summary="Create or replace a factor",
)
async def put_factor(
    _: Writer,
    session: Session,
    now: Now,
    response: Response,
    name: FactorName,
    body: Annotated[
        FactorInput,
        Body(examples=[{"element": "process", "description": "What is needed exists, but could not be found"}]),
    ],
) -> FactorModel:
    """To merge two factors, set `replaced_by` of one to the other. Returns 201 if it is new."""
    row = Factor(name=name, **body.model_dump(), created_at=now, updated_at=now)
    factor, count, is_new = await findings.put_factor(session, row)
    response.status_code = 201 if is_new else 200
    return _model(factor, count)


@router.delete("/{name}", status_code=204, responses=problem_responses(404, 409), summary="Delete a factor")
async def delete_factor(_: Writer, session: Session, name: FactorName) -> None:
    """Only one that no finding uses and that replaces no other."""
    await findings.delete_factor(session, name)
