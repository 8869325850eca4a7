"""What people do on the page of a review. Each form does what the REST route of the same name does."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Invalid
from app.base.schema import Factor, Review
from app.incidents.actions import Ref
from app.pages.reviews.fields import address_of, changed_time, id_of, if_match, incident_numbers, text, when
from app.pages.reviews.page import PageSelection, review_page
from app.pages.web.forms import Form, parsed
from app.pages.web.frame import PageRequest, PageRoute, Refusal, SignedIn
from app.reviews.api.action_items import ActionItemInput
from app.reviews.api.fields import ReviewInPath
from app.reviews.api.reviews import (
    DropInput,
    FindingAmendment,
    FindingInput,
    HoldInput,
    ParticipantInput,
    ReviewAmendment,
    finding_columns,
)
from app.reviews.lifecycle import Element, FindingKind, Participant
from app.reviews.store import action_items, findings, reviews

router = APIRouter(prefix="/reviews/{review}", route_class=PageRoute, include_in_schema=False)

Act = Callable[[AsyncSession, Form], Awaitable[object]]
FindingInPath = Annotated[UUID, Path(alias="finding")]


async def _done(asked: PageRequest, ref: Ref, action: str, act: Act, *, show: str = "") -> Response:
    """Reads the form and acts. Then the browser opens the page again, at `show`; if the form was refused, the page
    comes at once, with the reason and what was entered.
    """
    form = await asked.form()

    async def refused(refusal: Refusal) -> Response:
        return await review_page(asked, ref, PageSelection(), refused=refusal, action=action)

    place = address_of(ref) if isinstance(ref, int) else f"/reviews/{ref}"
    return await asked.change(lambda session: act(session, form), form, then=place + show, refused=refused)


# — the review itself —


async def _amend(session: AsyncSession, ref: Ref, form: Form, values: dict[str, Any], asked: PageRequest) -> None:
    review = await reviews.hold_row(session, ref, if_match(form))
    sent = parsed(ReviewAmendment, values).model_dump(exclude_unset=True)
    await reviews.amend(session, review, sent, now=asked.now)


@router.post("/plan")
async def plan(asked: SignedIn, ref: ReviewInPath) -> Response:
    """When, and about which time."""

    async def act(session: AsyncSession, form: Form) -> None:
        row = await reviews.find(session, ref)
        values: dict[str, Any] = {"title": form.get("title", "").strip()}
        for name in ("scheduled_at", "due_at", "follow_up_at", "begins_at", "ends_at"):
            values |= changed_time(asked, form, name, getattr(row, name))
        await _amend(session, ref, form, values, asked)

    return await _done(asked, ref, "plan", act)


@router.post("/facilitator")
async def facilitator(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        sent = parsed(ReviewAmendment, {"facilitator": text(form, "facilitator")})
        review = await reviews.hold_row(session, ref)
        await reviews.amend(session, review, {"facilitator": sent.facilitator}, now=asked.now)

    return await _done(asked, ref, "facilitator", act, show="#people")


@router.post("/texts")
async def texts(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        values: dict[str, Any] = {
            name: form.get(name, "").strip() for name in ("summary", "customer_impact", "resolution")
        }
        await _amend(session, ref, form, values, asked)

    return await _done(asked, ref, "texts", act, show="#summary")


@router.post("/nothing-now")
async def nothing_now(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        await _amend(session, ref, form, {"nothing_now_because": text(form, "nothing_now_because")}, asked)

    return await _done(asked, ref, "nothing-now", act, show="#action-items")


# — its incidents and participants —


@router.post("/incidents")
async def add_incidents(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        numbers = incident_numbers(form.get("incidents", ""))
        if not numbers:
            raise Invalid("enter the number of an incident, for example INC-7")
        review = await reviews.hold_row(session, ref)
        known = (await reviews.incidents_of(session, [review.id])).get(review.id, ())
        sent = parsed(
            ReviewAmendment, {"incidents": [*(str(one.id) for one in known), *(f"INC-{one}" for one in numbers)]}
        )
        await reviews.set_incidents(session, review, sent.incidents or [])
        await reviews.touch(session, review, now=asked.now)

    return await _done(asked, ref, "incidents", act, show="#incidents")


@router.post("/incidents/remove")
async def remove_incident(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        numbers = incident_numbers(form.get("incident", ""))
        review = await reviews.hold_row(session, ref)
        known = (await reviews.incidents_of(session, [review.id])).get(review.id, ())
        await reviews.set_incidents(session, review, [one.id for one in known if one.number not in numbers])
        await reviews.touch(session, review, now=asked.now)

    return await _done(asked, ref, "incidents/remove", act, show="#incidents")


_CAME = {"yes": True, "no": False, "": None}


@router.post("/participants")
async def put_participant(asked: SignedIn, ref: ReviewInPath) -> Response:
    """Adds one, or changes the part or the attendance of one."""

    async def act(session: AsyncSession, form: Form) -> None:
        if form.get("attended", "") not in _CAME:
            raise Invalid("attended: choose yes, no or not recorded")
        values = {"person": form.get("person", "").strip(), "part": form.get("part", "")}
        one = parsed(ParticipantInput, values | {"attended": _CAME[form.get("attended", "")]})
        review = await reviews.hold_row(session, ref)
        known = await reviews.participants_of(session, review.id)
        changed = [*known, Participant(one.person, one.part, one.attended)]
        if len({each.person for each in changed}) > reviews.PARTICIPANTS_AT_MOST:
            message = f"a review has at most {reviews.PARTICIPANTS_AT_MOST} participants; remove one first"
            raise Invalid(message)
        await reviews.set_participants(session, review.id, changed)
        await reviews.touch(session, review, now=asked.now)

    return await _done(asked, ref, "participants", act, show="#people")


@router.post("/participants/remove")
async def remove_participant(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        review = await reviews.hold_row(session, ref)
        known = await reviews.participants_of(session, review.id)
        kept = [each for each in known if each.person != form.get("person", "")]
        await reviews.set_participants(session, review.id, kept)
        await reviews.touch(session, review, now=asked.now)

    return await _done(asked, ref, "participants/remove", act, show="#people")


# — the steps of its life —


@router.post("/hold")
async def hold(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        review = await reviews.hold_row(session, ref)
        minutes = text(form, "minutes")
        if minutes is not None and not (minutes.isascii() and minutes.isdigit() and 1 <= int(minutes[:5]) <= 1440):
            raise Invalid("duration: enter whole minutes from 1 to 1440")
        nobody = "nobody" in form
        if nobody and text(form, "facilitator"):
            raise Invalid("name the facilitator, or choose that no one led it, but not both")
        named = {"facilitator": text(form, "facilitator")} if nobody or text(form, "facilitator") else {}
        known = await reviews.participants_of(session, review.id)
        came = {value for name, value in form.items() if name.startswith("attended-")}
        body = parsed(
            HoldInput,
            {
                "held_at": when(asked, form, "held_at"),
                "duration_seconds": int(minutes) * 60 if minutes else None,
                "attended": sorted(came) if known and "attendance" in form else None,
                **named,
            },
        )
        if named:
            review.facilitator = body.facilitator
        await reviews.hold(
            session,
            review,
            held_at=body.held_at or asked.now,
            duration_seconds=body.duration_seconds,
            attended=body.attended,
            without_facilitator=nobody,
            now=asked.now,
        )

    return await _done(asked, ref, "hold", act)


@router.post("/publish")
async def publish(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, _: Form) -> None:
        await reviews.publish(session, await reviews.hold_row(session, ref), now=asked.now)

    return await _done(asked, ref, "publish", act)


@router.post("/close")
async def close(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, _: Form) -> None:
        await reviews.close(session, await reviews.hold_row(session, ref), now=asked.now)

    return await _done(asked, ref, "close", act)


@router.post("/drop")
async def drop(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        because = parsed(DropInput, {"because": form.get("because", "").strip()}).because
        review = await reviews.hold_row(session, ref)
        await reviews.drop(session, review, because=because, admin=asked.person.is_admin, now=asked.now)

    return await _done(asked, ref, "drop", act)


@router.post("/reopen")
async def reopen(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, _: Form) -> None:
        await reviews.reopen(session, await reviews.hold_row(session, ref), now=asked.now)

    return await _done(asked, ref, "reopen", act)


# — findings —


def _finding_values(form: Form) -> dict[str, Any]:
    new_to = text(form, "new_to")
    return {
        "kind": form.get("kind", ""),
        "text": form.get("text", "").strip(),
        "phase": text(form, "phase"),
        "element": text(form, "element"),
        "factor": text(form, "new_factor") or text(form, "factor"),
        "prompt": text(form, "prompt"),
        "new_to": new_to,
        "timeline_entry": text(form, "timeline_entry"),
    }


async def _know_factor(session: AsyncSession, form: Form, asked: PageRequest) -> None:
    """Adds the word that was entered to the list of factors, unless it is there. Raises Invalid."""
    name = text(form, "new_factor")
    if name is None or await session.get(Factor, name) is not None:
        return
    if form.get("element", "") not in set(Element):
        raise Invalid("choose the element to which the new factor belongs: people, process or technology")
    row = Factor(name=name, element=form["element"], description="", created_at=asked.now, updated_at=asked.now)
    await findings.put_factor(session, row)


async def _touched(session: AsyncSession, ref: Ref, asked: PageRequest) -> Review:
    review = await reviews.hold_row(session, ref)
    await reviews.touch(session, review, now=asked.now)
    return review


@router.post("/findings")
async def add_finding(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        body = parsed(FindingInput, _finding_values(form) | {"by": asked.person.name})
        await _know_factor(session, form, asked)
        review = await _touched(session, ref, asked)
        await findings.add(session, review, finding_columns(body), now=asked.now)

    return await _done(asked, ref, "findings", act, show="#findings")


@router.post("/findings/{finding}")
async def amend_finding(asked: SignedIn, ref: ReviewInPath, id_: FindingInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        body = parsed(FindingAmendment, _finding_values(form))
        if (body.kind is FindingKind.FACTOR) != (body.factor is not None):
            raise Invalid("a finding of kind `factor` needs a `factor`, and other kinds must not have one")
        await _know_factor(session, form, asked)
        review = await _touched(session, ref, asked)
        found = await findings.find(session, review, id_)
        values = finding_columns(body)
        if values["timeline_id"] == found.timeline_id:  # it may be of an incident that was removed from the review
            del values["timeline_id"]
        await findings.amend(session, review, found, values, now=asked.now)

    return await _done(asked, ref, f"findings/{id_}", act, show=f"#finding-{id_}")


@router.post("/findings/{finding}/remove")
async def remove_finding(asked: SignedIn, ref: ReviewInPath, id_: FindingInPath) -> Response:
    """Its action items stay."""

    async def act(session: AsyncSession, _: Form) -> None:
        review = await _touched(session, ref, asked)
        await findings.remove(session, await findings.find(session, review, id_))

    return await _done(asked, ref, f"findings/{id_}/remove", act, show="#findings")


# — action items —


@router.post("/action-items")
async def add_item(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        values: dict[str, Any] = {
            "title": form.get("title", "").strip(),
            "phase": form.get("phase", ""),
            "term": form.get("term", "short"),
            "done_when": text(form, "done_when"),
            "priority": text(form, "priority"),
            "owner": text(form, "owner"),
            "link": text(form, "link"),
            "finding": id_of(form, "finding"),
        }
        due_at = when(asked, form, "due_at")
        values |= {"due_at": due_at} if due_at is not None else {}
        body = parsed(ActionItemInput, values | {"review": str(ref) if isinstance(ref, UUID) else f"REV-{ref}"})
        await action_items.create(session, item_columns(body), review=ref, incident=None, now=asked.now)

    return await _done(asked, ref, "action-items", act, show="#action-items")


def item_columns(body: ActionItemInput) -> dict[str, Any]:
    """The columns that were entered."""
    sent = body.model_dump(exclude_unset=True, exclude={"review", "incident"})
    sent["link"] = str(body.link) if body.link is not None else None
    return {"finding_id" if name == "finding" else name: value for name, value in sent.items()}
