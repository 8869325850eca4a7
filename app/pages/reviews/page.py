"""The page of one review."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from app.base.schema import Factor, Review
from app.incidents.actions import Ref
from app.incidents.history.path import Phase
from app.pages import words
from app.pages.reviews.entries import EntryWords
from app.pages.reviews.view import View, view
from app.pages.reviews.words import (
    EFFECTIVE,
    KINDS,
    PARTS,
    PERSPECTIVES,
    PRIORITIES,
    REASONS,
    STATES,
    TERMS,
    involvement,
)
from app.pages.web.frame import PageRequest, PageRoute, Refusal, SignedIn
from app.reviews.api.answer import review_content
from app.reviews.api.fields import ReviewInPath
from app.reviews.api.meeting import event
from app.reviews.lifecycle import Element, ReviewState
from app.reviews.prompts import PROMPTS, Prompt
from app.reviews.store import findings, reviews
from app.reviews.store.entries import Entries, entries_of

router = APIRouter(prefix="/reviews", route_class=PageRoute, include_in_schema=False)

FACTORS_SHOWN = 300

# What the next step is, for the heading above what is missing.
NEXT = {
    ReviewState.DRAFT: "Before it can be held",
    ReviewState.HELD: "Before it can be published",
    ReviewState.PUBLISHED: "Before it can be closed",
}


@dataclass(frozen=True, slots=True)
class PageSelection:
    """The selection in the address: a finding that is being changed, or from which an action item follows, and a
    question that a new finding answers.
    """

    finding: UUID | None = None
    follows_from: UUID | None = None
    prompt: str = ""


@router.get("/{review}")
async def show(
    asked: SignedIn,
    ref: ReviewInPath,
    finding: Annotated[UUID | None, Query()] = None,
    follows_from: Annotated[UUID | None, Query(alias="from")] = None,
    prompt: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    return await review_page(asked, ref, PageSelection(finding, follows_from, prompt))


@router.get("/{review}/meeting.ics")
async def meeting(asked: SignedIn, ref: ReviewInPath) -> Response:
    """The same as REST's, for the session of a browser."""
    async with asked.reading() as session:
        return event(await reviews.find(session, ref), asked.context.settings)


async def review_page(
    asked: PageRequest, ref: Ref, looking: PageSelection, *, refused: Refusal | None = None, action: str = ""
) -> Response:
    """The page; with `refused`, the form of this `action` is open and shows what was entered."""
    async with asked.reading() as session:
        row = await reviews.find(session, ref)
        model = await review_content(session, row, settings=asked.context.settings, now=asked.now)
        factors = [each for each, _ in await findings.list_factors(session, after="", limit=FACTORS_SHOWN)]
        entries = await entries_of(session, row.id)
    return _rendered(asked, row, view(model), factors, entries, looking, refused, action)


def _rendered(
    asked: PageRequest,
    row: Review,
    it: View,
    factors: Sequence[Factor],
    entries: Entries,
    looking: PageSelection,
    refused: Refusal | None,
    action: str,
) -> Response:
    named = next((each for each in PROMPTS if each.id == looking.prompt), None)
    source = next((each for each in it.review.findings if each.id == looking.follows_from), None)
    return asked.page(
        "review.html",
        status=refused.status if refused else 200,
        it=it,
        review=it.review,
        version=row.version,
        next_step=NEXT.get(it.review.state),
        states=STATES,
        kinds=KINDS,
        phases=list(Phase),
        elements=list(Element),
        factors=_by_element(factors),
        entries=EntryWords(entries, lambda at: asked.shown(at, "clock")),
        parts=PARTS,
        perspectives=PERSPECTIVES,
        reasons=REASONS,
        priorities=PRIORITIES,
        terms=TERMS,
        effective=EFFECTIVE,
        involvement=involvement,
        prompts=_by_phase(),
        prompt=named,
        prompt_texts={each.id: each.text for each in PROMPTS},
        source=source,
        editing=_editing(action) or looking.finding,
        refused=in_words(refused) if refused else None,
        refused_action=action,
        shorten=words.cut,
    )


def _editing(action: str) -> UUID | None:
    """The finding of a form that was refused."""
    name, _, rest = action.partition("/")
    return UUID(rest.partition("/")[0]) if name == "findings" and rest else None


def _by_element(factors: Sequence[Factor]) -> Mapping[str, Sequence[str]]:
    """The names to choose from; words that another one has replaced are left out."""
    return {
        element.value: [each.name for each in factors if each.element == element and each.replaced_by is None]
        for element in Element
    }


def _by_phase() -> list[tuple[str, Sequence[Prompt]]]:
    """Prompts about phases first, then those for the facilitator."""
    found: list[tuple[str, Sequence[Prompt]]] = [
        (phase.value.capitalize(), [each for each in PROMPTS if each.phase is phase]) for phase in Phase
    ]
    return [*found, ("For the facilitator", [each for each in PROMPTS if each.phase is None])]


# — refusals —

_ON_PAGES = {
    "PreconditionFailed": "someone changed this in the meantime; review the current values, then save again",
    "ReviewIsRequired": "this review is required, so only someone who has signed in with an admin token can drop it",
}


@dataclass(frozen=True, slots=True)
class InWords(Refusal):
    """For people instead of clients of REST."""

    text: str

    @property
    def detail(self) -> str:
        return self.text


def in_words(refused: Refusal) -> Refusal:
    text = _ON_PAGES.get(type(refused.problem).__name__, refused.detail)
    for rest, page in _WORDS:
        text = text.replace(rest, page)
    return InWords(refused.problem, refused.form, text.replace("`", ""))


_WORDS = (
    ("; create it with PUT /api/v1/factors/{name}", "; enter it as a new word"),
    (
        "a finding of kind `factor` needs a `factor`, and other kinds must not have one",
        "a contributing factor needs a factor, and other kinds of findings must not have one",
    ),
    ("add one, or state why in `nothing_now_because`", "add one, or state why nothing has to be done now"),
    (
        "`timeline_entry` must be an entry in the timeline of one of the review's incidents",
        "choose an entry in the timeline of one of the incidents; open the page again",
    ),
    ("needs both `begins_at` and `ends_at`", "needs both its beginning and its end"),
    ("send it as `dropped_because`", "enter it"),
)
