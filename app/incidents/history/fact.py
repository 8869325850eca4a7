"""What people recorded about incidents, as last corrected. Pure: no clock, no I/O, no settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.incidents.grouping.timeline_kind import TimelineKind


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact that still counts. `entry` is the id of its first entry, whatever has been corrected since.

    `detail` has the fields of its kind, see details.py.
    """

    entry: int
    at: datetime
    kind: TimelineKind
    by: str | None = None
    text: str = ""
    detail: Mapping[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        """A field of `detail`; None if it has none of that name."""
        return (self.detail or {}).get(name)


def of_kind(facts: Iterable[Fact], *kinds: TimelineKind) -> list[Fact]:
    """The facts of these kinds, by time, then in the order in which they were recorded."""
    return sorted((fact for fact in facts if fact.kind in kinds), key=lambda fact: (fact.at, fact.entry))
