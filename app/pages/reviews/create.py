"""Creating a review: of incidents, of a time frame, or of a near miss."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.access.tokens import Scope
from app.base.errors import Invalid
from app.base.schema import Review
from app.incidents import actions
from app.incidents.refusals import IncidentNotFound
from app.pages.reviews.fields import address_of, incident_numbers, text, when
from app.pages.reviews.page import in_words
from app.pages.web.forms import Form, parsed
from app.pages.web.frame import PageRequest, PageRoute, Refusal, SignedIn, see_other
from app.reviews.api.reviews import ReviewInput
from app.reviews.store import reviews
from app.reviews.store.required import Requirements

router = APIRouter(prefix="/reviews", route_class=PageRoute, include_in_schema=False)

LONGEST_TITLE = 200


@router.get("/new")
async def empty(asked: SignedIn, incident: Annotated[str, Query(max_length=30)] = "") -> Response:
    asked.person.require(Scope.WRITE)
    return await _form(asked, None, incident)


@router.post("")
async def submit(asked: SignedIn) -> Response:
    """Also the button on the page of an incident, which has only the number of the incident."""
    form = await asked.form()
    try:
        async with asked.session() as session:
            review = await _created(session, asked, form)
            address = address_of(review.number)
    except (Invalid, IncidentNotFound) as problem:
        return await _form(asked, Refusal(problem, form), "")
    return see_other(address)


async def _created(session: AsyncSession, asked: PageRequest, form: Form) -> Review:
    numbers = incident_numbers(form.get("incidents", ""))
    title = text(form, "title")
    if title is None and numbers:
        row = await actions.find(session, numbers[0])
        title = (row.title_stated or row.title)[:LONGEST_TITLE]
    body = parsed(
        ReviewInput,
        {
            "title": title or "",
            "incidents": [f"INC-{number}" for number in numbers],
            "facilitator": text(form, "facilitator"),
            "begins_at": when(asked, form, "begins_at"),
            "ends_at": when(asked, form, "ends_at"),
            "due_at": when(asked, form, "due_at"),
            "scheduled_at": when(asked, form, "scheduled_at"),
        },
    )
    reviews.require_time_frame(body.begins_at, body.ends_at)
    values = body.model_dump(exclude_unset=True, exclude={"incidents", "participants"})
    review = await reviews.create(session, values, body.incidents, now=asked.now)
    await asked.context.part(Requirements).explain(session, review, now=asked.now)
    return review


async def _form(asked: PageRequest, refused: Refusal | None, incident: str) -> Response:
    title = ""
    if refused is None and re.fullmatch("INC-[1-9][0-9]{0,17}", incident):
        async with asked.reading() as session:
            row = await actions.find(session, int(incident.removeprefix("INC-")))
            title = (row.title_stated or row.title)[:LONGEST_TITLE]
    return asked.page(
        "review_new.html",
        status=refused.status if refused else 200,
        refused=in_words(refused) if refused else None,
        incident=incident if title else "",
        title=title,
    )
