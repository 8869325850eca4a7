"""Updates to stakeholders: how often they are due, and whether one is overdue.

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.fact import Fact, of_kind

USUAL_CADENCE = timedelta(minutes=30)  # of sev1 and sev2, if neither the type nor the target states one


def cadence(of_type: int | None, of_target: int | None, severity: int) -> timedelta | None:
    """The longest time between two updates: that of the type in seconds, else that of the target, else the usual one.

    None: none is due.
    """
    seconds = of_type or of_target
    if seconds is not None:
        return timedelta(seconds=seconds)
    return USUAL_CADENCE if severity <= 2 else None


@dataclass(frozen=True, slots=True)
class Updates:
    """`next_due_at` is None if none is due, as after the end. `longest_gap` is the longest time without an update
    between detection and the end or, while the incident is open, now.
    """

    cadence: timedelta | None
    last_at: datetime | None
    next_due_at: datetime | None
    overdue: timedelta
    longest_gap: timedelta


def updates_of(
    facts: Iterable[Fact],
    cadence: timedelta | None,
    *,
    detected_at: datetime,
    ended_at: datetime | None,
    now: datetime,
) -> Updates:
    """Only updates to stakeholders count. A promised time replaces the one that the cadence implies."""
    given = stakeholder_updates(facts)
    last = given[-1] if given else None
    due = None
    if ended_at is None:
        due = (last.at if last else detected_at) + cadence if cadence else None
        if last is not None and last["next_at"] is not None:
            due = datetime.fromisoformat(last["next_at"])
    gaps = gaps_between((fact.at for fact in given), detected_at, ended_at or now)
    return Updates(
        cadence=cadence,
        last_at=last.at if last else None,
        next_due_at=due,
        overdue=max(now - due, timedelta()) if due else timedelta(),
        longest_gap=max((end - start for start, end in gaps), default=timedelta()),
    )


def stakeholder_updates(facts: Iterable[Fact]) -> list[Fact]:
    return [fact for fact in of_kind(facts, TimelineKind.UPDATE) if fact["audience"] == "stakeholders"]


def gaps_between(
    updates: Iterable[datetime], detected_at: datetime, until: datetime
) -> list[tuple[datetime, datetime]]:
    """The times without an update from detection on; empty if `until` is before it."""
    if until < detected_at:
        return []
    return list(pairwise([detected_at, *sorted(at for at in updates if detected_at < at < until), until]))
