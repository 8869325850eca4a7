"""Finds the facts that keep a delivery from being applied, so that only those go to quarantine."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from app.base.values.facts import Change, IssueEvent, Reaction, Report
from app.incidents.grouping.signal import Signal
from app.ingest.sender import Part, Reading, Rejected

TRIES = 100  # enough for several of 10,000 facts; if there are more, facts that were not tried are rejected with them

Fact = Signal | Report | Change | Reaction | IssueEvent
F = TypeVar("F")


async def without_poison(
    reading: Reading, can_apply: Callable[[Reading], Awaitable[bool]], *, detail: str
) -> Reading | None:
    """The reading with poisonous facts as rejected parts; None if no fact is to blame, or none would remain.

    `can_apply` tries a reading without applying it.
    """
    facts: list[Fact] = [
        *reading.signals,
        *reading.deployments,
        *reading.changes,
        *reading.reactions,
        *reading.issues,
    ]
    tries_left = TRIES
    poison: list[int] = []
    suspects = deque([range(len(facts))])
    while suspects:
        some = suspects.popleft()
        if len(some) == 1 or tries_left < 2:
            poison.extend(some)
            continue
        middle = len(some) // 2
        for half in (some[:middle], some[middle:]):
            tries_left -= 1
            if not await can_apply(_with(reading, facts[half.start : half.stop])):
                suspects.append(half)
    if not poison or len(poison) == len(facts):
        return None
    bad = set(poison)
    kept = _with(reading, [fact for index, fact in enumerate(facts) if index not in bad])
    return replace(kept, rejected=reading.rejected + _rejected(reading, poison, detail), truncated=reading.truncated)


def _with(reading: Reading, facts: Sequence[Fact]) -> Reading:
    return Reading(
        signals=_all(facts, Signal),
        deployments=_all(facts, Report),
        changes=_all(facts, Change),
        reactions=_all(facts, Reaction),
        issues=_all(facts, IssueEvent),
        ignored=reading.ignored,
    )


def _all(facts: Sequence[Fact], kind: type[F]) -> tuple[F, ...]:
    return tuple(fact for fact in facts if isinstance(fact, kind))


def _rejected(reading: Reading, poison: Sequence[int], detail: str) -> tuple[Rejected, ...]:
    """One for each alert; facts that are not parts of the request share one, for the whole request."""
    alerts = {
        index: Rejected("cannot_apply", detail, bytes(reading.alerts[index]), Part(reading.positions[index]))
        for index in poison
        if index < len(reading.alerts)
    }
    others = len(poison) - len(alerts)
    return (*alerts.values(), *([Rejected("cannot_apply", detail)] if others else []))
