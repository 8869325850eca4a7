"""The type of an incident, which is the plan for responding to it, and what of the plan is done.

Pure: no clock, no I/O, no settings.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.incidents.grouping.rule import AnyOf, Matcher
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.fact import Fact, of_kind


@dataclass(frozen=True, slots=True)
class Channel:
    """Where responders meet."""

    kind: str
    name: str
    link: str | None = None


class ReviewRule(StrEnum):
    """Whether incidents of a type must be reviewed."""

    REQUIRED = "required"
    BY_SEVERITY = "by_severity"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class IncidentType:
    """Types are tried by ascending position, then by name. The first channel is primary, the others are backups."""

    name: str
    position: int
    matchers: tuple[Matcher | AnyOf, ...]
    exit_criteria: tuple[str, ...]
    roles: tuple[str, ...] = ()
    channels: tuple[Channel, ...] = ()
    steps: tuple[str, ...] = ()
    update_seconds: int | None = None
    review: ReviewRule = ReviewRule.BY_SEVERITY


def type_of(
    types: Iterable[IncidentType], stated: str | None, labels: Mapping[str, str], sources: Sequence[str] = ()
) -> IncidentType | None:
    """The stated type if there still is one of that name, else the first whose matchers all match the labels, with one
    of the sources as the label `source`.
    """
    known: Sequence[Mapping[str, str]] = [{**labels, "source": each} for each in sources] or [labels]
    ordered = sorted(types, key=lambda each: (each.position, each.name))
    named = next((each for each in ordered if each.name == stated), None)
    matching = (
        each for each in ordered if any(all(matcher.matches(own) for matcher in each.matchers) for own in known)
    )
    return named or next(matching, None)


PLACEHOLDERS = ("number", "service", "severity")


def unknown_placeholder(text: str) -> str | None:
    """The first `{…}` in a channel that is not one of PLACEHOLDERS."""
    found = (part for part in re.findall(r"\{([^{}]*)\}", text) if part not in PLACEHOLDERS)
    return next(found, None)


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced, once: a value is not searched for placeholders."""
    return re.sub(r"\{(number|service|severity)\}", lambda found: values[found[1]], text)


@dataclass(frozen=True, slots=True)
class ExitState:
    """An exit criterion; `by` and `at` are those of the latest statement about it, None if there is none."""

    criterion: str
    met: bool
    by: str | None = None
    at: datetime | None = None


def exit_states(criteria: Sequence[str], facts: Iterable[Fact]) -> list[ExitState]:
    """The criteria in order, then others that people stated. The latest statement about each counts."""
    latest = {fact["criterion"]: fact for fact in of_kind(facts, TimelineKind.CRITERION)}
    states = []
    for criterion in dict.fromkeys([*criteria, *latest]):
        fact = latest.get(criterion)
        states.append(ExitState(criterion, fact["met"], fact.by, fact.at) if fact else ExitState(criterion, met=False))
    return states


def room_in_use(facts: Iterable[Fact]) -> str | None:
    """The channel stated last."""
    return next((str(fact["channel"]) for fact in reversed(of_kind(facts, TimelineKind.ROOM))), None)


@dataclass(frozen=True, slots=True)
class CustomerImpact:
    """What customers noticed; None if no one stated it."""

    customers: int | None = None
    support_requests: int | None = None
    share: str | None = None
    what: str | None = None


def customer_impact(facts: Iterable[Fact]) -> CustomerImpact:
    """The impact as stated: for each field, the value with the latest time counts."""
    values: dict[str, int | str] = {}
    for fact in of_kind(facts, TimelineKind.IMPACT):
        values |= {name: value for name, value in (fact.detail or {}).items() if value is not None}
    return CustomerImpact(**values)  # type: ignore[arg-type]  # as they were checked when they were recorded
