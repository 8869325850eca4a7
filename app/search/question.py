"""What someone searches for: words, and numbers such as INC-12.

Pure: no clock, no I/O, no settings.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.base.errors import Invalid

QUESTION_AT_MOST = 200  # characters
WORDS_AT_MOST = 10  # further ones do not count


class ResultKind(StrEnum):
    SERVICE = "service"
    INCIDENT = "incident"
    REVIEW = "review"
    FINDING = "finding"
    ACTION_ITEM = "action_item"


PREFIXES: Mapping[ResultKind, str] = {
    ResultKind.INCIDENT: "INC",
    ResultKind.REVIEW: "REV",
    ResultKind.ACTION_ITEM: "AI",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A result has all the words, each perhaps as the beginning of a longer one, or one of the numbers.

    `phrase` and `words` are in lower case; a word has no ASCII punctuation. `is_number`: it is nothing but the number
    of one thing, such as `INC-12`.
    """

    phrase: str
    words: tuple[str, ...]
    numbers: Mapping[ResultKind, tuple[int, ...]]
    is_number: bool = False

    @property
    def is_empty(self) -> bool:
        return not self.words and not any(self.numbers.values())


def question(text: str) -> Question:
    """Raises Invalid."""
    if len(text) > QUESTION_AT_MOST:
        message = f"search for at most {QUESTION_AT_MOST} characters"
        raise Invalid(message)
    text = " ".join(text.lower().split())
    if _DIGITS.fullmatch(text):
        return Question(text, (text,), dict.fromkeys(PREFIXES, (int(text),)))
    found = [(_KINDS[prefix], int(number)) for prefix, number in _NUMBER.findall(text)]
    numbers = {kind: tuple(number for one, number in found if one is kind) for kind in PREFIXES}
    words = tuple(dict.fromkeys(_WORD.findall(_NUMBER.sub(" ", text))))[:WORDS_AT_MOST]
    return Question(text, words, numbers, is_number=len(found) == 1 and not words)


_KINDS = {prefix.lower(): kind for kind, prefix in PREFIXES.items()}
# The largest number of the database has 19 digits.
_DIGITS = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_NUMBER = re.compile(r"(?<![^\W_])(inc|rev|ai)[- ]?([1-9][0-9]{0,17})(?![^\W_])")
# As `search_words` of the database splits them, which also knows other punctuation.
_WORD = re.compile(r"[^\s\x00-/:-@\[-`{-\x9f]+")
