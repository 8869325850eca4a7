"""Words the reasons for the health of a source. Pure.

Each surface passes how it writes times, and writes the targets of a remedy as links or as requests.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from string import Formatter

from app.ingest.health.judgment import Reason


class Target(StrEnum):
    """What a remedy refers to; each value is its name in the template."""

    QUARANTINE = "quarantine"
    QUARANTINE_DELETE = "quarantine_delete"
    RULES = "rules"
    OPEN_INCIDENTS = "open_incidents"  # of the source
    HEARTBEAT = "heartbeat"  # where to stop expecting it


LINK_WORDS: Mapping[Target, str] = {
    Target.QUARANTINE: "quarantine",
    Target.QUARANTINE_DELETE: "quarantine",
    Target.RULES: "rules",
    Target.OPEN_INCIDENTS: "open incidents",
    Target.HEARTBEAT: "heartbeats",
}


def observation(reason: Reason, shown: Callable[[datetime], str]) -> str:
    """The observation as text; `shown` writes a time."""
    facts = {name: shown(fact) if isinstance(fact, datetime) else fact for name, fact in reason.facts.items()}
    return reason.observed.format_map(facts)


def remedy(reason: Reason) -> Sequence[str | Target]:
    """The remedy, as text and the targets within it, in order."""
    parts: list[str | Target] = []
    for text, name, _, _ in Formatter().parse(reason.remedy):
        parts += [*([text] if text else []), *([Target(name)] if name else [])]
    return parts
