"""The page of one action item, and what people do on it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Finding
from app.incidents.actions import Ref
from app.incidents.history.path import Phase
from app.pages.plots.forest import Forest, forest
from app.pages.reviews.fields import address_of, changed_time, if_match, review_number, text, when
from app.pages.reviews.page import in_words
from app.pages.reviews.words import EFFECTIVE, PRIORITIES, QUESTIONS, TERMS
from app.pages.web.forms import Form, parsed
from app.pages.web.frame import PageRequest, PageRoute, Refusal, SignedIn
from app.reviews.api.action_items import ActionItemAmendment
from app.reviews.api.answer import item_model
from app.reviews.api.fields import ItemInPath
from app.reviews.effect import RateRatio
from app.reviews.store import action_items, effects
from app.reviews.store.action_items import ListedActionItem
from app.reviews.store.effects import Effect

router = APIRouter(prefix="/action-items/{item}", route_class=PageRoute, include_in_schema=False)


@router.get("")
async def show(asked: SignedIn, ref: ItemInPath) -> Response:
    return await item_page(asked, ref)


async def item_page(asked: PageRequest, ref: Ref, *, refused: Refusal | None = None, action: str = "") -> Response:
    """The page; with `refused`, the form of this `action` is open and shows what was entered."""
    async with asked.reading() as session:
        listed = await action_items.find(session, ref)
        row = listed.row
        effect = await effects.effect_of(session, row, now=asked.now)
        finding = await session.get(Finding, row.finding_id) if row.finding_id else None
    return asked.page(
        "action_item.html",
        status=refused.status if refused else 200,
        item=item_model(listed, now=asked.now),
        version=row.version,
        finding=finding,
        effect=effect,
        plot=_plot(effect),
        phases=list(Phase),
        priorities=PRIORITIES,
        questions=QUESTIONS,
        terms=TERMS,
        effective=EFFECTIVE,
        refused=in_words(refused) if refused else None,
        refused_action=action,
    )


# — its effect —

BEYOND = 16.0  # what no axis reaches


@dataclass(frozen=True, slots=True)
class Drawn:
    """A ratio with its interval, without infinities."""

    ratio: float
    low: float
    high: float


def drawn(found: RateRatio | None) -> Drawn | None:
    """None if there was no incident in either period."""
    if found is None or not found.before + found.after:
        return None

    def within(value: float | None) -> float:
        return BEYOND if value is None else min(max(value, 1 / BEYOND), BEYOND)

    return Drawn(within(found.ratio), within(found.low), within(found.high))


def _plot(effect: Effect | None) -> Forest | None:
    """The rows are the same grouping key, and the same factor."""
    return None if effect is None else forest([drawn(effect.key), drawn(effect.factor)])


# — what people do —

Act = Callable[[AsyncSession, Form], Awaitable[object]]


async def _done(asked: PageRequest, ref: Ref, action: str, act: Act) -> Response:
    """Reads the form and acts. Then the browser opens the page on which the form was."""
    form = await asked.form()

    async def refused(refusal: Refusal) -> Response:
        return await item_page(asked, ref, refused=refusal, action=action)

    then = f"/action-items/AI-{ref}" if isinstance(ref, int) else f"/action-items/{ref}"
    if review := review_number(form.get("review", "")):
        then = f"{address_of(review)}#follow-up"
    return await asked.change(lambda session: act(session, form), form, then=then, refused=refused)


async def _amend(
    asked: PageRequest, session: AsyncSession, ref: Ref, values: dict[str, Any], version: str | None = None
) -> ListedActionItem:
    body = parsed(ActionItemAmendment, values)
    sent = body.model_dump(exclude_unset=True, exclude={"closed_at"})
    if sent.get("link") is not None:
        sent["link"] = str(sent["link"])
    return await action_items.amend(session, ref, sent, closed_at=body.closed_at, if_match=version, now=asked.now)


@router.post("/edit")
async def edit(asked: SignedIn, ref: ItemInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        row = (await action_items.find(session, ref)).row
        values: dict[str, Any] = {
            "title": form.get("title", "").strip(),
            "phase": form.get("phase", ""),
            "term": form.get("term", ""),
            "done_when": text(form, "done_when"),
            "priority": text(form, "priority"),
            "owner": text(form, "owner"),
            "link": text(form, "link"),
        }
        values |= changed_time(asked, form, "due_at", row.due_at)
        await _amend(asked, session, ref, values, if_match(form))

    return await _done(asked, ref, "edit", act)


@router.post("/state")
async def state(asked: SignedIn, ref: ItemInPath) -> Response:
    """Starts it, closes it or opens it again."""

    async def act(session: AsyncSession, form: Form) -> None:
        values: dict[str, Any] = {"state": form.get("state", "")}
        closed_at = when(asked, form, "closed_at")
        values |= {"closed_at": closed_at} if closed_at is not None else {}
        because = text(form, "dropped_because")
        values |= {"dropped_because": because} if because is not None else {}
        await _amend(asked, session, ref, values)

    return await _done(asked, ref, "state", act)


@router.post("/effect")
async def effect(asked: SignedIn, ref: ItemInPath) -> Response:
    """Records whether it helped, in the judgment of people."""

    async def act(session: AsyncSession, form: Form) -> None:
        values: dict[str, Any] = {"effective": text(form, "effective")}
        values |= {"effective_note": text(form, "effective_note")} if "effective_note" in form else {}
        await _amend(asked, session, ref, values)

    return await _done(asked, ref, "effect", act)
