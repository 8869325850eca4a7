"""The facts of a report, and people by name or by what they did.

Pure: no clock, no I/O, no settings.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from app.incidents.history.path import Path, Phase
from app.reviews.lifecycle import Element, FindingKind, Part

T = TypeVar("T")


class People(StrEnum):
    """How a report refers to people."""

    NAMED = "named"
    ROLES = "roles"


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of the timeline, as last corrected. `people`: those whom its text names, besides `by`."""

    at: datetime
    kind: str
    by: str | None
    text: str
    phase: Phase | None
    people: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Incident:
    """`measures` has the recorded ones in seconds, `reasons` why others are missing; `cost` is by currency. So many
    later entries were left out.
    """

    number: str
    title: str
    service: str
    severity: str
    detected_at: datetime
    impact_started_at: datetime | None
    resolved_at: datetime | None
    measures: Mapping[str, float]
    reasons: Mapping[str, str]
    downtime_seconds: float | None
    cost: Mapping[str, tuple[str, str, str]]  # low, expected and high
    path: Path
    entries: Sequence[Entry]
    entries_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    kind: FindingKind
    text: str
    phase: Phase | None
    element: Element | None
    factor: str | None


@dataclass(frozen=True, slots=True)
class ActionItem:
    number: str
    title: str
    done_when: str | None
    term: str
    priority: int | None
    owner: str | None
    due_at: datetime | None
    state: str
    link: str | None
    effective: str | None


@dataclass(frozen=True, slots=True)
class Participant:
    person: str
    part: Part
    attended: bool | None


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """Everything that a report is made of."""

    number: str
    title: str
    state: str
    begins_at: datetime | None
    ends_at: datetime | None
    held_at: datetime | None
    duration_seconds: int | None
    published_at: datetime | None
    follow_up_at: datetime | None
    facilitator: str | None
    participants: Sequence[Participant]
    summary: str
    customer_impact: str
    resolution: str
    nothing_now_because: str | None
    incidents: Sequence[Incident]
    findings: Sequence[Finding]
    action_items: Sequence[ActionItem]


_ROLES = {
    Part.NOTE_TAKER: "the note taker",
    Part.FIRST_RESPONDER: "the first responder",
    Part.ESCALATION: "a responder",
    Part.COMMANDER: "the commander",
    Part.COMMUNICATIONS: "the person for communications",
    Part.SUPPORT: "a person from support",
    Part.MANAGEMENT: "a manager",
    Part.AFFECTED: "a person affected",
    Part.CURIOUS: "a participant",
}


def by_role(facts: ReportFacts) -> ReportFacts:
    """The same facts with people called by what they did, wherever their whole name stands, also within texts and with
    a capital letter.

    Only names that are known: of participants, owners, the facilitator, and of those in the timelines.
    """
    roles = _roles(facts)
    if not roles:
        return facts
    return _changed(facts, replacing(roles))


def replacing(words: Mapping[str, str]) -> Callable[[str], str]:
    """A function that replaces these words, of which the longest at a place counts, in a text.

    Takes time in proportion to the length of the text, however many words there are: for each place it looks up as
    many words as have different lengths and begin alike. A regular expression would try each word at each place.
    """
    lengths: dict[str, set[int]] = defaultdict(set)
    for word in words:
        lengths[_beginning(word, 0)].add(len(word))
    longest_first = {beginning: sorted(those, reverse=True) for beginning, those in lengths.items()}

    def replaced(text: str) -> str:
        parts, done = [], 0
        for found in _BEGINNING.finditer(text):
            start = found.start()
            if start < done:
                continue
            for length in longest_first.get(found[0], ()):
                end = start + length
                if text[start:end] in words and not _IN_A_WORD.match(text, end):
                    parts += [text[done:start], words[text[start:end]]]
                    done = end
                    break
        return "".join([*parts, text[done:]])

    return replaced


def _beginning(text: str, start: int) -> str:
    found = _BEGINNING.match(text, start)
    return found[0] if found else ""


# A word, or a sign that follows none.
_BEGINNING = re.compile(r"(?<!\w)(?:\w+|\W)")
_IN_A_WORD = re.compile(r"\w")


def _roles(facts: ReportFacts) -> dict[str, str]:
    found: dict[str, str] = {}
    for participant in facts.participants:
        found.setdefault(participant.person, _ROLES[participant.part])
    if facts.facilitator:
        found.setdefault(facts.facilitator, "the facilitator")
    for person in _in_timelines(facts.incidents):
        found.setdefault(person, "a responder")
    for item in facts.action_items:
        if item.owner:
            found.setdefault(item.owner, "the owner")
    named = {name: role for name, role in found.items() if name.strip()}
    return {name[0].upper() + name[1:]: role for name, role in named.items()} | named


def _in_timelines(incidents: Iterable[Incident]) -> Iterable[str]:
    for incident in incidents:
        for entry in incident.entries:
            yield from (person for person in (entry.by, *entry.people) if person)
        yield from (step.task.by for step in incident.path.steps if step.task.by)


def _changed(value: T, change: Any) -> T:
    """The same value with every free text in it changed; words of the product stay."""
    if isinstance(value, str) and not isinstance(value, StrEnum):
        return change(value)  # type: ignore[no-any-return]
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_changed(one, change) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in fields(value) if one.name not in _NO_TEXT]
        return replace(value, **{name: _changed(getattr(value, name), change) for name in names})
    return value


_NO_TEXT = frozenset({"number", "state", "service", "severity", "measures", "reasons", "cost", "kind", "term", "link"})
