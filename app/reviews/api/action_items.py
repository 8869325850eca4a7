"""Action items over HTTP: one list over all incidents, and the effect of each."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, StringConstraints, model_validator

from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import SEVERAL_AT_MOST, At, IncidentRef, Input, Name, PeriodModel, Words, storable
from app.base.http.requests.filters import Contained, Services
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.incidents.actions import etag
from app.incidents.history.path import Phase
from app.reviews.action_item import ItemState
from app.reviews.api.answer import ActionItemModel, item_model
from app.reviews.api.fields import IfMatch, ItemInPath, ReviewRef
from app.reviews.effect import EffectVerdict, RateRatio
from app.reviews.store import action_items, effects
from app.reviews.store.action_items import ListedActionItem
from app.reviews.store.effects import Effect

router = APIRouter(prefix="/api/v1/action-items", tags=["reviews"])


class ItemSort(StrEnum):
    NEWEST = "newest"
    DUE = "due"


Priority = Annotated[int, Field(ge=1, le=3, description="1 now, 2 next, 3 later", examples=[1])]


@router.get(
    "", response_model=CountedPage[ActionItemModel], responses=problem_responses(404), summary="List action items"
)
async def list_action_items(
    _: Reader,
    session: Session,
    now: Now,
    paging: Pages,
    state: Annotated[list[ItemState], Query(description="May be repeated", examples=[["open", "in_progress"]])] = [],  # noqa: B006  fastapi copies it
    owner: Annotated[
        list[Annotated[str, StringConstraints(max_length=200), AfterValidator(storable)]],
        Query(
            description="Empty selects those without an owner; may be repeated",
            max_length=SEVERAL_AT_MOST,
            examples=[["cathy"]],
        ),
    ] = [],  # noqa: B006
    priority: Annotated[list[Priority], Query(description="May be repeated", examples=[[1]])] = [],  # noqa: B006
    phase: Annotated[list[Phase], Query(description="May be repeated", examples=[["response"]])] = [],  # noqa: B006
    overdue: Annotated[bool | None, Query(description="Only those overdue now, or only others")] = None,
    service: Services = [],  # noqa: B006
    review: Annotated[ReviewRef | None, Query(examples=["REV-1"])] = None,
    incident: Annotated[
        IncidentRef | None, Query(description="From this incident or its reviews", examples=["INC-1"])
    ] = None,
    q: Contained = None,
    sort: Annotated[
        ItemSort, Query(description="`due`: the earliest due time first, those without one last")
    ] = ItemSort.NEWEST,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[ActionItemModel]:
    """Action items of all reviews and incidents, newest first by default; see `sort`."""
    filters = action_items.Filters(frozenset(state), owner, priority, phase, overdue, service, review, incident, q)
    limit = paging.limit + 1
    if sort is ItemSort.DUE:
        due = paging.after(datetime, int)
        rows = await action_items.list_by_due_time(
            session, filters, after=(due[0], due[1]) if due else None, limit=limit, now=now
        )
        items, cursor = page_of(rows, paging, lambda listed: action_items.due_key(listed.row))
    else:
        key = paging.after(int)
        rows = await action_items.list_items(session, filters, before=key[0] if key else None, limit=limit, now=now)
        items, cursor = page_of(rows, paging, lambda listed: (listed.row.number,))
    return CountedPage(
        items=[item_model(one, now=now) for one in items],
        next_cursor=cursor,
        total=await action_items.count_items(session, filters, now=now) if count else None,
    )


class _Content(Input):
    done_when: Words | None = Field(
        None, description="How to see that it is done", examples=["A new colleague finds it within a minute"]
    )
    priority: Priority | None = None
    owner: Name | None = Field(None, examples=["cathy"])
    due_at: At | None = Field(None, description="Defaults to 7, 30 or 90 days from now, by priority")
    link: Annotated[HttpUrl, Field(max_length=2000)] | None = Field(
        None, description="The issue in a tracker", examples=["https://github.com/acme/web/issues/7"]
    )
    finding: UUID | None = Field(
        None, description="Id of the finding of the same review that it follows from", examples=[None]
    )


class ActionItemInput(_Content):
    title: Name = Field(examples=["Move the list of servers to the runbook"])
    review: ReviewRef | None = Field(None, description="The review that it follows from", examples=["REV-1"])
    incident: IncidentRef | None = Field(
        None, description="The incident that it follows from, if there is no review", examples=["INC-1"]
    )
    phase: Phase = Field(description="The phase of later incidents that it improves", examples=["response"])
    term: Literal["short", "long"] = Field("short", description="A fix now, or an improvement that takes longer")

    @model_validator(mode="after")
    def _with_origin(self) -> Self:
        if self.review is None and self.incident is None:
            message = "name the `review` or the `incident` that it follows from"
            raise ValueError(message)
        return self


@router.post(
    "",
    status_code=201,
    response_model=ActionItemModel,
    responses=problem_responses(404, 409),
    summary="Create an action item",
)
async def create_action_item(
    _: Writer, session: Session, now: Now, response: Response, body: ActionItemInput
) -> ActionItemModel:
    """For a review, or for an incident itself."""
    values = _columns(body) | {"phase": body.phase, "term": body.term}
    made = await action_items.create(session, values, review=body.review, incident=body.incident, now=now)
    response.headers["Location"] = f"/api/v1/action-items/AI-{made.row.number}"
    return _answer(response, made, now=now)


def _columns(body: _Content) -> dict[str, Any]:
    sent = body.model_dump(exclude_unset=True, exclude={"review", "incident", "closed_at"})
    if sent.get("link") is not None:
        sent["link"] = str(sent["link"])
    return {"finding_id" if name == "finding" else name: value for name, value in sent.items()}


def _answer(response: Response, listed: ListedActionItem, *, now: datetime) -> ActionItemModel:
    response.headers["ETag"] = etag(listed.row.version)
    return item_model(listed, now=now)


class RateRatioModel(BaseModel):
    """Incidents before and after it was done, in two periods of the same length."""

    model_config = ConfigDict(from_attributes=True)

    before: int
    after: int
    ratio: float | None = Field(description="`after` divided by `before`; null if there were none before")
    low: float = Field(description="Lower end of the 95 % interval of the ratio of the rates")
    high: float | None = Field(description="Upper end; null: unbounded")
    verdict: EffectVerdict = Field(description="`fewer` or `more` only if the interval excludes 1")


class ActionItemEffectModel(BaseModel):
    """Whether there were fewer incidents of the same kind after it was done. Other changes may be the reason."""

    before: PeriodModel
    after: PeriodModel
    key: RateRatioModel = Field(description="Incidents with the grouping keys of those it comes from")
    factor: RateRatioModel | None = Field(
        description="Reviewed incidents with the factor of its finding; null if it has none"
    )
    reviewed_before: float | None = Field(
        description="Share of all incidents before that were reviewed: factors are known only of these. Null: there "
        "were none"
    )
    reviewed_after: float | None
    left_out: list[str] = Field(
        description="The incidents it comes from. They would make every action item look effective, because it was "
        "created when they had just happened",
        examples=[["INC-7"]],
    )


class ActionItemWithEffectModel(ActionItemModel):
    effect: ActionItemEffectModel | None = Field(description="Null unless it is done")


@router.get(
    "/{item}",
    response_model=ActionItemWithEffectModel,
    responses=problem_responses(404),
    summary="Get an action item",
)
async def get_action_item(
    _: Reader, session: Session, now: Now, response: Response, ref: ItemInPath
) -> ActionItemWithEffectModel:
    """With its effect, if it is done. Send the ETag as `If-Match` with a PATCH."""
    listed = await action_items.find(session, ref)
    effect = await effects.effect_of(session, listed.row, now=now)
    shown = _answer(response, listed, now=now)
    return ActionItemWithEffectModel.model_validate(shown.model_dump() | {"effect": effect and _effect(effect)})


def _effect(effect: Effect) -> Mapping[str, Any]:
    def ratio(one: RateRatio) -> Mapping[str, Any]:
        return asdict(one)

    return {
        "before": {"start": effect.before.start, "end": effect.before.end},
        "after": {"start": effect.after.start, "end": effect.after.end},
        "key": ratio(effect.key),
        "factor": effect.factor and ratio(effect.factor),
        "reviewed_before": effect.reviewed_before,
        "reviewed_after": effect.reviewed_after,
        "left_out": [f"INC-{number}" for number in effect.left_out],
    }


class ActionItemAmendment(_Content):
    """Only the fields sent are changed; null removes a value."""

    title: Name | None = Field(None, examples=["Move the list of servers to the runbook"])
    phase: Phase | None = Field(None, description="The phase of later incidents that it improves")
    term: Literal["short", "long"] | None = None
    state: ItemState | None = Field(None, examples=["done"])
    closed_at: At | None = Field(None, description="When it was done or dropped; defaults to now")
    dropped_because: Annotated[Words, StringConstraints(min_length=1)] | None = Field(
        None, description="Required when it is dropped"
    )
    effective: Literal["yes", "no", "cannot_tell"] | None = Field(
        None, description="Whether it helped, as judged at the follow-up"
    )
    effective_note: Words | None = None

    @model_validator(mode="after")
    def _never_null(self) -> Self:
        if any(getattr(self, name) is None for name in self.model_fields_set & {"title", "phase", "term", "state"}):
            message = "`title`, `phase`, `term` and `state` must not be null"
            raise ValueError(message)
        return self


@router.patch(
    "/{item}",
    response_model=ActionItemModel,
    responses=problem_responses(404, 409, 412),
    summary="Change an action item",
)
async def amend_action_item(
    _: Writer,
    session: Session,
    now: Now,
    response: Response,
    ref: ItemInPath,
    body: ActionItemAmendment,
    if_match: IfMatch = None,
) -> ActionItemModel:
    """Also its state: `done`, `dropped` with `dropped_because`, or back to `open`, which counts as reopened."""
    changed = await action_items.amend(
        session, ref, _columns(body), closed_at=body.closed_at, if_match=if_match, now=now
    )
    return _answer(response, changed, now=now)
