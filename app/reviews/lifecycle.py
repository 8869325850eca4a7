"""The life of a review, and what is missing for its next step.

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.reviews.action_item import ItemState


class ReviewState(StrEnum):
    """The state of a review. States follow one another in this order; a draft may be dropped instead."""

    DRAFT = "draft"
    HELD = "held"
    PUBLISHED = "published"
    CLOSED = "closed"
    DROPPED = "dropped"


BEFORE = {
    ReviewState.HELD: ReviewState.DRAFT,
    ReviewState.PUBLISHED: ReviewState.HELD,
    ReviewState.CLOSED: ReviewState.PUBLISHED,
    ReviewState.DROPPED: ReviewState.DRAFT,
}


class Reason(StrEnum):
    """Why a review is required."""

    SEVERITY = "severity"
    BUDGET = "budget"
    RECURRENCE = "recurrence"
    TYPE = "type"


class FindingKind(StrEnum):
    """Several factors contribute to an incident; there is no kind for a single cause."""

    LEARNING = "learning"
    FACTOR = "factor"
    WENT_WELL = "went_well"
    WENT_BADLY = "went_badly"
    LUCK = "luck"
    MITIGATOR = "mitigator"
    RISK = "risk"
    HUMAN_FACTOR = "human_factor"
    GAP = "gap"
    QUESTION = "question"
    PARKED = "parked"


class Element(StrEnum):
    PEOPLE = "people"
    PROCESS = "process"
    TECHNOLOGY = "technology"


class Part(StrEnum):
    """The part of a participant in the incidents, or in the review."""

    NOTE_TAKER = "note_taker"
    FIRST_RESPONDER = "first_responder"
    ESCALATION = "escalation"
    COMMANDER = "commander"
    COMMUNICATIONS = "communications"
    SUPPORT = "support"
    MANAGEMENT = "management"
    AFFECTED = "affected"
    CURIOUS = "curious"


class Perspective(StrEnum):
    """Perspectives without which a review sees only part of an incident."""

    RESPONDERS = "responders"
    CUSTOMERS = "customers"
    MANAGEMENT = "management"
    AFFECTED = "affected"


PERSPECTIVES = {
    Perspective.RESPONDERS: {Part.FIRST_RESPONDER, Part.ESCALATION, Part.COMMANDER},
    Perspective.CUSTOMERS: {Part.SUPPORT, Part.COMMUNICATIONS},
    Perspective.MANAGEMENT: {Part.MANAGEMENT},
    Perspective.AFFECTED: {Part.AFFECTED},
}


@dataclass(frozen=True, slots=True)
class Participant:
    person: str
    part: Part
    attended: bool | None = None  # None: not recorded


@dataclass(frozen=True, slots=True)
class Item:
    """An action item, as far as the life of its review depends on it."""

    number: str
    state: ItemState
    owner: str | None = None
    priority: int | None = None
    effective: str | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """A review, as far as its next step depends on it."""

    state: ReviewState
    facilitator: str | None
    summary: str
    kinds: Sequence[FindingKind]  # of its findings
    items: Sequence[Item]
    nothing_now_because: str | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that must be there before the next step. `at` names where it belongs."""

    at: str
    why: str

    def __str__(self) -> str:
        return f"{self.at} {self.why}"


def missing(review: Review) -> list[Missing]:
    """Everything that is missing for the next step of the review, in the order in which people work."""
    match review.state:
        case ReviewState.DRAFT:
            return [] if review.facilitator else [Missing("facilitator", "is not named")]
        case ReviewState.HELD:
            return [*_missing_texts(review), *_missing_in_items(review)]
        case ReviewState.PUBLISHED:
            return list(_missing_to_close(review.items))
        case _:
            return []


def missing_perspectives(state: ReviewState, participants: Iterable[Participant]) -> list[Perspective]:
    """The points of view that no one brings: of those invited to a draft, else of those who attended."""
    drafted = state is ReviewState.DRAFT
    parts = {one.part for one in participants if one.attended or (drafted and one.attended is None)}
    return [perspective for perspective, of in PERSPECTIVES.items() if not parts & of]


def _missing_texts(review: Review) -> list[Missing]:
    found = []
    if not review.summary.strip():
        found.append(Missing("summary", "is empty"))
    if not any(kind is not FindingKind.PARKED for kind in review.kinds):
        found.append(Missing("findings", "are missing; record at least one"))
    return found


def _missing_in_items(review: Review) -> list[Missing]:
    kept = [item for item in review.items if item.state is not ItemState.DROPPED]
    found = []
    for item in kept:
        if not item.owner:
            found.append(Missing(item.number, "has no owner"))
        if item.priority is None:
            found.append(Missing(item.number, "has no priority"))
    if not review.nothing_now_because and all(item.priority != 1 for item in kept):
        found.append(Missing("action items", "have none of priority 1; add one, or state why in `nothing_now_because`"))
    return found


def _missing_to_close(items: Iterable[Item]) -> Iterable[Missing]:
    for item in items:
        if item.state in {ItemState.OPEN, ItemState.IN_PROGRESS}:
            yield Missing(item.number, "is neither done nor dropped")
        elif item.state is ItemState.DONE and item.effective is None:
            yield Missing(item.number, "does not state whether it was `effective`")
