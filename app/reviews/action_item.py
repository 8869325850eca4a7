"""Action items: their states, default due times, age, and hints about their titles.

Pure: no clock, no I/O, no settings.
"""

import re
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit


class ItemState(StrEnum):
    OPEN = "open"
    IN_PROGRESS = "in_progress"
    DONE = "done"
    DROPPED = "dropped"


CLOSED = frozenset({ItemState.DONE, ItemState.DROPPED})


class Question(StrEnum):
    """The question of a review that an action item answers."""

    KNOW_SOONER = "know_sooner"
    RECOVER_SOONER = "recover_sooner"
    OTHER = "other"


# Priority 1 is now, 2 next, 3 later.
DUE_AFTER = {1: timedelta(days=7), 2: timedelta(days=30), 3: timedelta(days=90)}


def default_due_at(priority: int | None, *, now: datetime) -> datetime | None:
    return None if priority is None else now + DUE_AFTER[priority]


def question(phase: str) -> Question:
    if phase == "detection":
        return Question.KNOW_SOONER
    return Question.RECOVER_SOONER if phase in {"response", "remediation"} else Question.OTHER


def age(created_at: datetime, closed_at: datetime | None, *, now: datetime) -> timedelta:
    """Until it was closed, else until now."""
    return max((closed_at or now) - created_at, timedelta())


def overdue(due_at: datetime | None, closed_at: datetime | None, *, now: datetime) -> timedelta:
    """How long it was open after it was due; 0 if it was not, or has no due time."""
    return timedelta() if due_at is None else max((closed_at or now) - due_at, timedelta())


def stated_at(before: datetime | None, *, now: datetime) -> datetime:
    """The time of a person's statement about the state, always after that of a tracker, whose clock may be ahead."""
    return now if before is None else max(now, before + timedelta(microseconds=1))


def hints(title: str, done_when: str | None) -> list[str]:
    """How the title could be more specific. Never a reason to refuse it."""
    found = []
    if vague := _VAGUE.search(title):
        found.append(f"`{vague[0].lower()}` has no clear end; state the result instead")
    if _NO_ACTION.match(title):
        found.append("begin with a verb, such as `Add`, `Remove` or `Move`")
    if not done_when:
        found.append("state in `done_when` how to see that it is done")
    return found


_VAGUE = re.compile(
    r"\b(investigate|look into|make sure|ensure|improve|be more careful|try to|consider)\b", re.IGNORECASE
)
_NO_ACTION = re.compile(r"\s*(the|a|an|our|no|not|better|more|less|missing|there|it|we)\b", re.IGNORECASE)


def normalized_link(link: str) -> str:
    """The same for links that differ only in case of the host, in query, fragment or a final slash; and for the two
    addresses of an issue of GitLab, which later versions call a work item.
    """
    parts = urlsplit(link)
    path = parts.path.rstrip("/").replace("/-/work_items/", "/-/issues/")
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), path, "", ""))
