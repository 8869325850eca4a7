"""Counts words from payloads, such as unrecognized severities, but only so many of a source separately."""

from collections.abc import Mapping

from app.base import db
from app.ingest.intake import store

WORDS_AT_MOST = 20  # of a source, in each tally
OTHER_WORDS = "(others)"


class Words:
    """The words that are counted separately, as far as this process has needed them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], set[str]] = {}  # by tally and source

    async def bound(
        self, tx: db.Transaction, source: str, counts: Mapping[tuple[str, str], int]
    ) -> dict[tuple[str, str], int]:
        """`counts` by tally and word, with the words beyond the limit added up as `OTHER_WORDS`."""
        bounded: dict[tuple[str, str], int] = {}
        for (tally, word), number in counts.items():
            place = (tally, source)
            if place not in self._known:
                self._known[place] = await store.counted_labels(tx, *place)
            known = self._known[place]
            label = word if word in known or len(known) < WORDS_AT_MOST else OTHER_WORDS
            known.add(label)
            bounded[tally, label] = bounded.get((tally, label), 0) + number
        return bounded
