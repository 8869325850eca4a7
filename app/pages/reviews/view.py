"""What the page of a review shows, made from what REST shows. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.pages.reviews.words import KINDS, PARKING_LOT, MissingLine, missing_line
from app.reviews.api.answer import ActionItemModel, FindingModel, ReviewContent, WordingModel
from app.reviews.lifecycle import FindingKind, ReviewState


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text; `marked` if its wording may be worth another look."""

    text: str
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Advice:
    """Why some words may be worth another look, and a question to ask instead."""

    words: Sequence[str]
    why: str
    instead: str


def pieces(text: str, marks: Sequence[WordingModel]) -> list[Piece]:
    """The text, divided at its marks."""
    found, at = [], 0
    for mark in marks:
        found += [Piece(text[at : mark.begin]), Piece(text[mark.begin : mark.end], marked=True)]
        at = mark.end
    return [piece for piece in [*found, Piece(text[at:])] if piece.text]


def advice(text: str, marks: Sequence[WordingModel]) -> list[Advice]:
    """Once for each kind."""
    words: dict[tuple[str, str], list[str]] = {}
    for mark in marks:
        words.setdefault((mark.why, mark.instead), []).append(text[mark.begin : mark.end])
    return [Advice(list(dict.fromkeys(named)), why, instead) for (why, instead), named in words.items()]


@dataclass(frozen=True, slots=True)
class Words:
    """A text with advice on its wording."""

    pieces: Sequence[Piece]
    advice: Sequence[Advice]


def words_with_advice(text: str, marks: Sequence[WordingModel]) -> Words:
    return Words(pieces(text, marks), advice(text, marks))


@dataclass(frozen=True, slots=True)
class ShownFinding:
    finding: FindingModel
    words: Words
    items: Sequence[ActionItemModel]  # that follow from it


@dataclass(frozen=True, slots=True)
class Group:
    """Findings of one kind."""

    kind: FindingKind
    heading: str
    findings: Sequence[ShownFinding]


@dataclass(frozen=True, slots=True)
class Step:
    """A state in the life of a review."""

    state: ReviewState
    is_reached: bool
    is_current: bool


LIFE = (ReviewState.DRAFT, ReviewState.HELD, ReviewState.PUBLISHED, ReviewState.CLOSED)


@dataclass(frozen=True, slots=True)
class View:
    review: ReviewContent
    steps: Sequence[Step]
    missing: Sequence[MissingLine]
    groups: Sequence[Group]
    parked: Sequence[Group]
    to_judge: Sequence[ActionItemModel]  # done, and no one has stated whether it helped
    summary: Words
    customer_impact: Words
    resolution: Words

    @property
    def has_texts(self) -> bool:
        return any(each.pieces for each in (self.summary, self.customer_impact, self.resolution))


def view(review: ReviewContent) -> View:
    reached = LIFE.index(review.state) if review.state in LIFE else -1
    groups = [_group(kind, review) for kind in KINDS]
    wording = review.wording
    return View(
        review=review,
        steps=[Step(state, place <= reached, place == reached) for place, state in enumerate(LIFE)],
        missing=[missing_line(each) for each in review.missing],
        groups=[each for each in groups if each.findings and each.kind not in PARKING_LOT],
        parked=[each for each in groups if each.findings and each.kind in PARKING_LOT],
        to_judge=[item for item in review.action_items if item.state == "done" and item.effective is None],
        summary=words_with_advice(review.summary, wording.summary),
        customer_impact=words_with_advice(review.customer_impact, wording.customer_impact),
        resolution=words_with_advice(review.resolution, wording.resolution),
    )


def _group(kind: FindingKind, review: ReviewContent) -> Group:
    return Group(
        kind,
        KINDS[kind].heading,
        [
            ShownFinding(
                each,
                words_with_advice(each.text, each.wording),
                [item for item in review.action_items if item.finding == each.id],
            )
            for each in review.findings
            if each.kind is kind
        ],
    )
