"""Advice on wording: counterfactuals, blame, single causes, and questions that ask people to justify themselves.

Pure: no clock, no I/O, no settings. English only. It marks places in a text and suggests what to ask instead; it never
changes a text and never prevents it from being stored.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

MARKS_AT_MOST = 50


class WordingKind(StrEnum):
    COUNTERFACTUAL = "counterfactual"
    BLAME = "blame"
    ROOT_CAUSE = "root_cause"
    JUSTIFICATION = "justification"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a text, `[start, end)` in characters."""

    start: int
    end: int
    kind: WordingKind


WHY = {
    WordingKind.COUNTERFACTUAL: "It describes what did not happen, instead of why the actions taken made sense",
    WordingKind.BLAME: "It judges a person, and people who feel judged hold back what others could learn from",
    WordingKind.ROOT_CAUSE: "Several factors contributed; naming one ends the search for the others",
    WordingKind.JUSTIFICATION: "It asks a person to justify themselves instead of describing what they saw",
}
INSTEAD = {
    WordingKind.COUNTERFACTUAL: "What did people see and know at the time, and what made their choice sensible?",
    WordingKind.BLAME: "What made this the sensible thing to do at the time?",
    WordingKind.ROOT_CAUSE: "What contributed, and what else had to be true for this to happen?",
    WordingKind.JUSTIFICATION: "How did you come to that, and what were you looking at?",
}

_SOMEONE = r"(?:i|we|you|he|she|they|someone|anyone|anybody|nobody|it|(?:the|our)\s+\w+)"
_PATTERNS = {
    WordingKind.COUNTERFACTUAL: (
        r"(?:should|could|would|ought\s+to|might|must|need(?:ed)?\s+to)(?:n['’]t|\s+not)?(?:\s+\w+)?(?:\s+have|['’]ve)\b"
        r"|if\s+only\b"
        rf"|if\s+{_SOMEONE}(?:\s+had(?:n['’]t)?|['’]d)(?:\s+(?:just|only|not))?\s+\w+"
        rf"|had\s+{_SOMEONE}\s+(?:just|only|not|known|done|seen|checked|noticed|followed)\b"
    ),
    WordingKind.BLAME: (
        r"human\s+error|operator\s+error|user\s+error|pilot\s+error"
        r"|careless\w*|negligen\w+|incompeten\w+|sloppy|sloppiness|lazy|laziness|reckless\w*|stupid\w*|inattenti\w+"
        r"|(?:to|gets?|take|took)\s+(?:the\s+)?blame|at\s+fault|(?:\w+['’]s|his|her|their|my|your)\s+fault"
        r"|screwed\s+up|messed\s+up|botched"
        r"|(?:failed|neglected|forgot|omitted)\s+to\s+(?:follow|check|notice|read|test|tell|inform|call|escalate|ask|"
        r"communicate|document|verify|do|think|pay)\b"
    ),
    WordingKind.ROOT_CAUSE: r"root[\s-]+causes?|the\s+(?:one|real|true|single|sole)\s+cause",
    WordingKind.JUSTIFICATION: (
        r"why\s+(?:did|do|didn['’]t|don['’]t|have|haven['’]t|were|weren['’]t)\s+(?:you|he|she|they)\b"
    ),
}
_MARKED = re.compile("|".join(rf"\b(?P<{kind.value}>{pattern})" for kind, pattern in _PATTERNS.items()), re.IGNORECASE)


def marks(text: str) -> list[Mark]:
    """The places worth another look, in order; at most `MARKS_AT_MOST`."""
    found = islice(_MARKED.finditer(text), MARKS_AT_MOST)
    return [Mark(one.start(), one.end(), WordingKind(one.lastgroup or "")) for one in found]
