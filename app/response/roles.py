"""Who held which role when, who is in an incident, and who fills a vacant role.

Pure: no clock, no I/O, no settings. Everything follows from the times of the facts, whatever the order in which they
were recorded; of facts at the same time, the one recorded later comes later.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from app.base.values.times import Span
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.fact import Fact, of_kind

HELD_BY_MANY = frozenset({"responder", "expert", "observer"})
AWAY_SOON = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Holding:
    """A person held a role in `[begins_at, ends_at)`; `ends_at` is None while they hold it."""

    role: str
    person: str
    begins_at: datetime
    ends_at: datetime | None = None


def holdings(facts: Iterable[Fact]) -> list[Holding]:
    """By beginning. Holdings of a role that one person holds at a time never overlap: taking it ends the one before."""
    held: dict[tuple[str, str], Holding] = {}
    ended: list[Holding] = []

    def end(key: tuple[str, str], at: datetime) -> None:
        before = held.pop(key)
        if before.begins_at < at:
            ended.append(replace(before, ends_at=at))

    for fact in of_kind(facts, TimelineKind.ROLE):
        role, person = fact["role"], fact["person"]
        if not fact["holds"]:
            if (role, person) in held:
                end((role, person), fact.at)
        elif (role, person) not in held:
            if role not in HELD_BY_MANY:
                for key in [key for key in held if key[0] == role]:
                    end(key, fact.at)
            held[role, person] = Holding(role, person, fact.at)
    return sorted([*ended, *held.values()], key=lambda each: (each.begins_at, each.role, each.person))


def holders(found: Iterable[Holding], role: str, *, at: datetime | None = None) -> list[str]:
    """The people who hold the role now, or held it at a time, in the order in which they took it."""
    of_role = (each for each in found if each.role == role)
    if at is None:
        return [each.person for each in of_role if each.ends_at is None]
    return [each.person for each in of_role if each.begins_at <= at and (each.ends_at is None or at < each.ends_at)]


def handovers(found: Sequence[Holding]) -> int:
    """How often a role passed from one person directly to another."""
    return sum(
        before.ends_at == after.begins_at
        for role in {each.role for each in found} - HELD_BY_MANY
        for before, after in pairwise(each for each in found if each.role == role)
    )


# — participants —


@dataclass(frozen=True, slots=True)
class Participant:
    """`how`: as stated when the person joined, None if only known from what they did."""

    person: str
    first_seen_at: datetime
    how: str | None


def participants(facts: Iterable[Fact]) -> list[Participant]:
    """Everyone who joined, took a role, acknowledged or did a task; by when they were first seen."""
    found: dict[str, Participant] = {}
    for fact in of_kind(facts, *_SEEN_BY):
        if fact.kind is TimelineKind.ROLE and not fact["holds"]:
            continue
        person = fact["person"] if fact.kind in _OF_A_PERSON else fact.by
        if person is None:
            continue
        known = found.setdefault(person, Participant(person, fact.at, None))
        if fact.kind is TimelineKind.JOINED and known.how is None:
            found[person] = replace(known, how=fact["how"])
    return list(found.values())


_OF_A_PERSON = frozenset({TimelineKind.JOINED, TimelineKind.ROLE})
_ACTED = (TimelineKind.ACKNOWLEDGED, TimelineKind.TASK)
_SEEN_BY = (*_OF_A_PERSON, *_ACTED)


def first_alerted(facts: Iterable[Fact]) -> str | None:
    """The person whom a tool alerted first."""
    alerted = (fact for fact in of_kind(facts, TimelineKind.JOINED) if fact["how"] == "alerted")
    return next((fact["person"] for fact in alerted), None)


def first_responder(facts: Iterable[Fact]) -> str | None:
    """The first person who acknowledged or did a task."""
    return next((fact.by for fact in of_kind(facts, *_ACTED) if fact.by is not None), None)


# — delegates —

Delegates = Mapping[tuple[str, str], Sequence[str]]  # by role and owner of the service (empty: of all), in order
Absences = Mapping[str, Sequence[Span]]  # by person


def delegates_of(delegates: Delegates, role: str, owner: str) -> Sequence[str]:
    """The delegates for the services of the owner, else those for all services."""
    return delegates.get((role, owner)) or delegates.get((role, ""), ())


def suggested(delegates: Sequence[str], absences: Absences, busy: Collection[str], *, now: datetime) -> str | None:
    """The first who is neither away nor busy."""
    free = (each for each in delegates if each not in busy and not _is_away(absences.get(each, ()), now))
    return next(free, None)


def _is_away(absences: Iterable[Span], at: datetime) -> bool:
    return any(each.start <= at < each.end for each in absences)


@dataclass(frozen=True, slots=True)
class SinglePoint:
    """A role that fewer than two people can fill; `people` are those who can."""

    role: str
    owner: str
    people: Sequence[str]


def single_points_of_failure(delegates: Delegates, absences: Absences, *, now: datetime) -> list[SinglePoint]:
    """Roles with fewer than two delegates who are there for all of the next week; by role and owner."""
    soon = Span(now, now + AWAY_SOON)
    found = []
    for (role, owner), people in sorted(delegates.items()):
        there = [each for each in people if not any(_overlap(away, soon) for away in absences.get(each, ()))]
        if len(there) < 2:
            found.append(SinglePoint(role, owner, there))
    return found


def _overlap(a: Span, b: Span) -> bool:
    return a.start < b.end and b.start < a.end
