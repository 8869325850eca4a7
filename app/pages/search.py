"""The page of search results. The number of an incident, a review or an action item leads straight to its page."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import APIRouter, Response

from app.base.errors import Invalid
from app.base.http.requests.fields import UNSTORABLE
from app.pages import words
from app.pages.web.frame import PageRequest, SegmentPageRoute, SignedIn, see_other
from app.search import store
from app.search.question import PREFIXES, QUESTION_AT_MOST, Question, ResultKind, question
from app.search.result import Piece, Result, pieces
from app.search.store import SearchResults

router = APIRouter(route_class=SegmentPageRoute, include_in_schema=False)

RESULTS = 50
KINDS: Mapping[str, str] = {
    "": "Everything",
    ResultKind.INCIDENT: "Incidents",
    ResultKind.SERVICE: "Services",
    ResultKind.REVIEW: "Reviews",
    ResultKind.FINDING: "Findings",
    ResultKind.ACTION_ITEM: "Action items",
}
NOTHING = SearchResults([], more=False, incidents_since=None)


@dataclass(frozen=True, slots=True)
class Row:
    """A result with the page that shows it; `number` as people write it."""

    result: Result
    address: str
    number: str | None
    title: list[Piece]
    snippet: list[Piece]


@router.get("/search")
async def show(asked: SignedIn, q: str = "", kind: str = "") -> Response:
    """Any text is a question; a kind that is not known means all."""
    text = UNSTORABLE.sub("", q).strip()
    try:
        wanted, problem = question(text), None
    except Invalid as invalid:
        wanted, problem = question(""), invalid
    chosen = kind if kind in KINDS else ""
    found = NOTHING if wanted.is_empty else await _found(asked, wanted, chosen)
    if wanted.is_number and not chosen and (numbered := [one for one in found.results if one.tier == 0]):
        return see_other(address_of(numbered[0]))
    return asked.page(
        "search.html",
        status=problem.status if problem else 200,
        problem=problem,
        searched=text[:QUESTION_AT_MOST],
        wanted=wanted,
        kinds=KINDS,
        chosen=chosen,
        found=found,
        rows=[_row(one, wanted) for one in found.results],
        incidents_read=store.INCIDENTS_READ,
    )


async def _found(asked: PageRequest, wanted: Question, kind: str) -> SearchResults:
    async with asked.turn(), asked.reading() as session:
        kinds = [ResultKind(kind)] if kind else []
        return await store.search(await session.connection(), wanted, kinds, limit=RESULTS)


def _row(one: Result, wanted: Question) -> Row:
    return Row(
        one,
        address_of(one),
        None if one.number is None else f"{PREFIXES[one.kind]}-{one.number}",
        list(pieces(words.cut(one.title), wanted.words)),
        list(pieces(one.snippet or "", wanted.words)),
    )


def address_of(one: Result) -> str:
    """A finding is shown on the page of its review."""
    if one.kind is ResultKind.SERVICE:
        return f"/services/{quote(one.name or '', safe='')}"
    if one.kind is ResultKind.ACTION_ITEM:
        return f"/action-items/AI-{one.number}"
    if one.kind is ResultKind.FINDING:
        return f"/reviews/REV-{one.review}#finding-{one.name}"
    return f"/reviews/REV-{one.number}" if one.kind is ResultKind.REVIEW else f"/incidents/INC-{one.number}"
