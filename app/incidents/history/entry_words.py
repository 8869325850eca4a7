"""What the detail of a timeline entry says, in words.

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from app.incidents.grouping.timeline_kind import TimelineKind

Detail = Mapping[str, Any]


def words_of(kind: str, detail: Detail) -> Iterator[str]:
    """For the kinds with which people record the response; none for others."""
    match kind:
        case TimelineKind.JOINED:
            yield f"{detail['person']} {_HOW[detail['how']]}"
            yield from _named(detail, channel="by")
        case TimelineKind.ROLE:
            verb = "took" if detail["holds"] else "laid down"
            yield f"{detail['person']} {verb} the role {detail['role'].replace('_', ' ')}"
        case TimelineKind.UPDATE:
            yield f"to {detail['audience']}: {detail['status']}"
            yield from _named(detail, conditions="conditions:", actions="actions:", needs="needs:")
        case TimelineKind.CRITERION:
            yield f"{'met' if detail['met'] else 'not met'}: {detail['criterion']}"
        case TimelineKind.ROOM:
            yield str(detail["channel"])
            yield from _named(detail, why="because:")
        case TimelineKind.IMPACT:
            yield from _impact(detail)
        case TimelineKind.EVIDENCE:
            yield from _named(detail, title="", query="query:", link="")
        case TimelineKind.SAID:
            yield from _named(detail, room="in")


_HOW = {"alerted": "was alerted", "asked": "was asked to help", "came": "came"}


def _named(detail: Detail, **words: str) -> Iterator[str]:
    """The fields that have a value, after their word."""
    for name, word in words.items():
        if detail.get(name):
            yield f"{word} {detail[name]}".strip()


def _impact(detail: Detail) -> Iterator[str]:
    """One statement about what customers noticed."""
    for name, words in (("customers", "customers"), ("support_requests", "support requests")):
        if detail.get(name) is not None:
            yield f"{detail[name]} {words}"
    if detail.get("share") is not None:
        yield f"share of all customers: {detail['share']}"
    if detail.get("what"):
        yield f"not possible: {detail['what']}"
