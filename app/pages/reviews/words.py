"""How pages write the words of reviews and action items. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from app.reviews.lifecycle import FindingKind, Part, Perspective, Reason, ReviewState


class Kind(NamedTuple):
    """A kind of finding: in a heading of several, in a list of choices, and what belongs there."""

    heading: str
    choice: str
    hint: str


# In the order in which a page shows them; the last two stand in the parking lot.
KINDS: Mapping[FindingKind, Kind] = {
    FindingKind.LEARNING: Kind("Learnings", "learning", "what someone learned about the system"),
    FindingKind.FACTOR: Kind("Contributing factors", "contributing factor", "something that contributed"),
    FindingKind.HUMAN_FACTOR: Kind("Why it made sense", "why it made sense", "what made a decision sensible then"),
    FindingKind.GAP: Kind(
        "Work as designed and as done", "work as done", "how the work as done differs from the work as designed"
    ),
    FindingKind.WENT_WELL: Kind("What went well", "went well", "what helped"),
    FindingKind.WENT_BADLY: Kind("What went badly", "went badly", "what hindered"),
    FindingKind.LUCK: Kind("Where we were lucky", "luck", "what helped only by luck"),
    FindingKind.MITIGATOR: Kind("What limited the harm", "mitigator", "what limited the harm"),
    FindingKind.RISK: Kind("Remaining risks", "risk", "a risk that remains"),
    FindingKind.QUESTION: Kind("Open questions", "open question", "a question that no one could answer"),
    FindingKind.PARKED: Kind("Parked", "parked idea", "an idea for later"),
}
PARKING_LOT = (FindingKind.QUESTION, FindingKind.PARKED)

STATES: Mapping[ReviewState, str] = {
    ReviewState.DRAFT: "Draft",
    ReviewState.HELD: "Held",
    ReviewState.PUBLISHED: "Published",
    ReviewState.CLOSED: "Closed",
    ReviewState.DROPPED: "Dropped",
}
REASONS: Mapping[Reason, str] = {
    Reason.SEVERITY: "its severity",
    Reason.BUDGET: "the error budget that it burned",
    Reason.RECURRENCE: "its recurrence",
    Reason.TYPE: "its type",
}
PARTS: Mapping[Part, str] = {
    Part.FIRST_RESPONDER: "first responder",
    Part.ESCALATION: "responder",
    Part.COMMANDER: "commander",
    Part.COMMUNICATIONS: "communications",
    Part.SUPPORT: "support",
    Part.MANAGEMENT: "management",
    Part.AFFECTED: "affected",
    Part.NOTE_TAKER: "note taker",
    Part.CURIOUS: "curious",
}
PERSPECTIVES: Mapping[Perspective, str] = {
    Perspective.RESPONDERS: "someone who responded",
    Perspective.CUSTOMERS: "someone who talks to customers",
    Perspective.MANAGEMENT: "a manager",
    Perspective.AFFECTED: "someone who was affected",
}
PRIORITIES: Mapping[int, str] = {1: "now", 2: "next", 3: "later"}
TERMS: Mapping[str, str] = {"short": "a fix now", "long": "an improvement that takes longer"}
QUESTIONS: Mapping[str, str] = {
    "know_sooner": "know sooner",
    "recover_sooner": "recover sooner",
    "other": "improve",
}
EFFECTIVE: Mapping[str, str] = {"yes": "it helped", "no": "it did not help", "cannot_tell": "cannot tell"}

_INVOLVED: Mapping[str, str] = {
    "acknowledged": "acknowledged",
    "task": "did a task",
    "note": "wrote a note",
    "declared": "declared it",
    "identified": "found the cause",
    "mitigated": "mitigated it",
    "resolved": "resolved it",
    "role": "had a role",
    "joined": "joined",
    "said": "took part in the chat",
    "cause": "named a cause",
    "changed": "corrected facts",
    "update": "wrote an update",
}


def involvement(kind: str) -> str:
    """The part of a person whom an entry of this kind names."""
    return _INVOLVED.get(kind, kind.replace("_", " "))


class MissingLine(NamedTuple):
    """What is missing for the next step, in words, and the address where it can be added."""

    text: str
    address: str


_PLACES: Mapping[str, MissingLine] = {
    "facilitator": MissingLine("No facilitator is named", "#people"),
    "summary": MissingLine("The summary is empty", "#summary"),
    "findings": MissingLine("No finding is recorded yet", "#add-finding"),
    "action items": MissingLine(
        "No action item has priority 1: add one, or state why nothing has to be done now", "#action-items"
    ),
}


def missing_line(missing: str) -> MissingLine:
    """The message of REST about what is missing, in words for people."""
    place = next((place for place in _PLACES if missing.startswith(place)), None)
    if place is not None:
        return _PLACES[place]
    item = missing.partition(" ")[0]
    return MissingLine(missing.replace("`effective`", "effective"), f"/action-items/{item}")
