"""The outlines of a public report: its facts arranged as sections.

Pure: no clock, no I/O, no settings. Every text stands in each outline once. Sections without anything are left out.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from app.base.text.public_words import at, between, lasting
from app.reviews.public_report.facts import PublicFacts
from app.reviews.report.outline import Block, Bullets, Paragraph, Report, Section


class PublicOutline(StrEnum):
    """`full`: the sections of the external summary in chapter 10 of "Post-Incident Reviews" (O'Reilly, 2017).
    `short`: what happened, and what follows from it.
    """

    FULL = "full"
    SHORT = "short"


def public_report(facts: PublicFacts, outline: PublicOutline) -> Report:
    arranged = _full if outline is PublicOutline.FULL else _short
    return Report(facts.text.title, [], [section for section in arranged(facts) if section.blocks])


def _full(facts: PublicFacts) -> Iterator[Section]:
    text = facts.text
    yield Section("Summary", _paragraph(text.summary))
    yield Section("Services impacted", _bullets(facts.components))
    yield Section("Duration", [Paragraph(_duration(facts))])
    yield Section("Severity", _paragraph(text.severity))
    yield Section("Customer impact", _paragraph(text.customer_impact))
    yield Section("Proximate cause", _paragraph(text.proximate_cause))
    yield Section("Resolution", _paragraph(text.resolution))
    yield Section("What we learned", _bullets(text.learnings))
    yield Section("Countermeasures", _bullets(text.countermeasures))


def _short(facts: PublicFacts) -> Iterator[Section]:
    text = facts.text
    affected = [f"Services impacted: {', '.join(facts.components)}"] if facts.components else []
    severity = [f"Severity: {text.severity}"] if text.severity else []
    key_facts = Bullets([f"Duration: {_duration(facts)}", *affected, *severity])
    yield Section("Summary", [*_paragraph(text.summary), key_facts])
    told = (text.customer_impact, text.proximate_cause, text.resolution)
    yield Section("What happened", [block for each in told for block in _paragraph(each)])
    yield Section("What we are doing about it", [*_bullets(text.learnings), *_bullets(text.countermeasures)])


def _duration(facts: PublicFacts) -> str:
    if facts.ends_at is None:
        return f"since {at(facts.begins_at)}"
    return f"{lasting(facts.ends_at - facts.begins_at)} ({between(facts.begins_at, facts.ends_at)})"


def _paragraph(text: str) -> list[Block]:
    return [Paragraph(text)] if text else []


def _bullets(items: Sequence[str]) -> list[Block]:
    return [Bullets(items)] if items else []
