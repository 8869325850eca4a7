"""The entries of timelines that findings are about: as choices in a form, and beside a finding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.pages import words
from app.reviews.api.answer import FindingModel
from app.reviews.store.entries import CHOICES_AT_MOST, Entries, Entry

LONGEST = 80


@dataclass(frozen=True, slots=True)
class EntryWords:
    """`shown` writes a time."""

    entries: Entries
    shown: Callable[[datetime], str]

    def choices(self, finding: FindingModel | None) -> Sequence[tuple[int, str]]:
        """Ids and words. That of the finding keeps the id that it has, whatever was corrected since."""
        about = self.entries.of_findings.get(finding.id) if finding else None
        found = [(each.id, self._words(each)) for each in self.entries.choices if about is None or each.id != about.id]
        if about is None or finding is None or finding.timeline_entry is None:
            return found
        return [(finding.timeline_entry, self._words(about)), *found]

    @property
    def are_cut(self) -> bool:
        return len(self.entries.choices) >= CHOICES_AT_MOST

    def about(self, finding: FindingModel) -> tuple[str, str] | None:
        """The address of the timeline, and the entry in words; None if the finding is about none."""
        entry = self.entries.of_findings.get(finding.id)
        return None if entry is None else (f"/incidents/INC-{entry.incident}#timeline", self._words(entry))

    def _words(self, entry: Entry) -> str:
        several = len({each.incident for each in self.entries.choices}) > 1
        parts = [f"INC-{entry.incident}" if several else "", self.shown(entry.at), entry.kind.replace("_", " ")]
        return words.cut(" ".join(filter(None, parts)) + (f": {entry.text}" if entry.text else ""), LONGEST)
