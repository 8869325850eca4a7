"""Results: their order, and the part of a text that shows why it was found.

Pure: no clock, no I/O, no settings.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from app.search.question import ResultKind

SNIPPET_AT_MOST = 200  # characters


@dataclass(frozen=True, slots=True)
class Result:
    """Something that was found. `tier` says how well, 0 (by its number) being best.

    `number` is None for services and findings, whose `name` is a name or a UUID. A finding has its text as the title.
    """

    kind: ResultKind
    tier: int
    number: int | None
    name: str | None
    title: str
    snippet: str | None
    at: datetime
    service: str | None = None
    state: str | None = None
    severity: int | None = None
    review: int | None = None
    incident: int | None = None


def ranked(found: Iterable[Result]) -> list[Result]:
    """The best first, services before others that are as good, then the newest."""
    return sorted(
        found,
        key=lambda one: (
            one.tier,
            one.kind is not ResultKind.SERVICE,
            -one.at.timestamp(),
            one.kind,
            -(one.number or 0),
        ),
    )


def snippet(text: str, words: Sequence[str], at_most: int = SNIPPET_AT_MOST) -> str:
    """At most so many characters of the text, around the first word that is in it, with `…` where it was cut."""
    text = " ".join(text.split())
    if len(text) <= at_most:
        return text
    lower = text.lower()
    first = min((at for word in words if (at := lower.find(word)) >= 0), default=0)
    start = max(0, min(first - at_most // 4, len(text) - at_most))
    if start and (space := text.find(" ", start, first)) >= 0:
        start = space + 1
    end = start + at_most
    if end < len(text) and (space := text.rfind(" ", max(start, first + 1), end)) > 0:
        end = space
    return f"{'…' if start else ''}{text[start:end].strip()}{'…' if end < len(text) else ''}"


class Piece(NamedTuple):
    """A piece of a text; `is_match`: it is one of the words."""

    text: str
    is_match: bool


def pieces(text: str, words: Sequence[str]) -> Iterator[Piece]:
    """The text in pieces, so that the words can be marked. Together they are the text."""
    if not words:
        yield Piece(text, is_match=False)
        return
    longest_first = sorted(words, key=len, reverse=True)
    for place, piece in enumerate(re.split(f"({'|'.join(map(re.escape, longest_first))})", text, flags=re.IGNORECASE)):
        if piece:
            yield Piece(piece, is_match=place % 2 == 1)
