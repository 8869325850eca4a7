"""Tries rules on past alerts: groups them by the present rules and by proposed ones, and compares the incidents. Pure.

Alerts are taken as they are stored. So a rule that ignores other labels does not turn several alerts into one here, and
alerts that opened no incident are missing, because they are not stored.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from app.incidents.grouping.law import lifecycle
from app.incidents.grouping.law.episode import End
from app.incidents.grouping.rule import Decision, Rules
from app.incidents.grouping.signal import AlertClass, EndReason


class PastAlert(msgspec.Struct, frozen=True, gc=False):
    """A stored alert. `incident` is the number of its incident; `by_people`: a person held that incident open."""

    series: UUID
    started_at: datetime
    ended_at: datetime | None
    alert_class: AlertClass
    labels: Mapping[str, str]
    incident: int
    by_people: bool = False


@dataclass(frozen=True, slots=True)
class Grouped:
    """An incident as some rules form it. `numbers` are the stored incidents of its alerts."""

    numbers: tuple[int, ...]
    rule: str
    key: str
    service: str
    environment: str | None
    severity: int
    began_at: datetime
    ended_at: datetime | None
    alerts: int  # from senders


class TrialOutcome(StrEnum):
    MERGED = "merged"  # several incidents would be one
    SPLIT = "split"  # one would be several
    REGROUPED = "regrouped"  # several would be several others
    CHANGED = "changed"  # its key, service, environment, severity or alerts would differ
    NOT_OPENED = "not_opened"  # its alerts would be ignored
    OPENED = "opened"  # the present rules would ignore its alerts


@dataclass(frozen=True, slots=True)
class Difference:
    """Incidents that share alerts, as the present rules and as the proposed ones form them, each in order of start."""

    outcome: TrialOutcome
    before: tuple[Grouped, ...]
    after: tuple[Grouped, ...]

    @property
    def began_at(self) -> datetime:
        return min(each.began_at for each in (*self.before, *self.after))


@dataclass(frozen=True, slots=True)
class Comparison:
    """`differences` are newest first. `alerts_by_rule`: to how many alerts the present and the proposed rules apply.

    `grouped_otherwise`: how many incidents of the present rules are stored differently, because the rules have changed
    since.
    """

    alerts: int
    before: int
    after: int
    unchanged: int
    differences: tuple[Difference, ...]
    alerts_by_rule: Mapping[str, tuple[int, int]]
    grouped_otherwise: int


def compare(alerts: Iterable[PastAlert], present: Rules, proposed: Rules) -> Comparison:
    """`alerts` is read once and its labels are not kept, because they may be large."""
    kept: list[PastAlert] = []
    decisions: tuple[list[Decision], list[Decision]] = ([], [])
    for alert in alerts:
        kept.append(msgspec.structs.replace(alert, labels={}))
        for rules, decided in zip((present, proposed), decisions, strict=True):
            decided.append(rules.decide(alert.labels, alert.alert_class))
    before, after = (_grouped(kept, decided) for decided in decisions)
    differences, unchanged = _differences(before, after)
    return Comparison(
        alerts=sum(not alert.by_people for alert in kept),
        before=len(before),
        after=len(after),
        unchanged=unchanged,
        differences=tuple(sorted(differences, key=lambda each: each.began_at, reverse=True)),
        alerts_by_rule=_alerts_by_rule(kept, *decisions),
        grouped_otherwise=_grouped_otherwise(kept, before),
    )


class _Group(msgspec.Struct, frozen=True):
    """An incident with the positions of its alerts."""

    incident: Grouped
    members: frozenset[int]


def _grouped(alerts: Sequence[PastAlert], decisions: Sequence[Decision]) -> list[_Group]:
    """The incidents of alerts with these decisions, in order of start."""
    of_incident = _first_of_incident(alerts)
    by_key: dict[UUID, list[int]] = defaultdict(list)
    decided: dict[int, Decision] = {}
    for place, alert in enumerate(alerts):
        # What a person holds open follows the first alert of its incident; without any, no rule has a part in it.
        origin = of_incident.get(alert.incident) if alert.by_people else place
        if origin is None:
            continue
        decision = decisions[origin]
        if decision.opens_incidents and not decision.heartbeat:
            decided[place] = decision
            by_key[decision.key_id].append(place)
    groups = [group for places in by_key.values() for group in _by_law(alerts, decided, places)]
    return sorted(groups, key=lambda group: (group.incident.began_at, group.incident.numbers))


def _first_of_incident(alerts: Sequence[PastAlert]) -> dict[int, int]:
    """The position of the earliest alert from a sender, by incident."""
    found: dict[int, int] = {}
    for place, alert in enumerate(alerts):
        if not alert.by_people:
            known = found.setdefault(alert.incident, place)
            if alert.started_at < alerts[known].started_at:
                found[alert.incident] = place
    return found


def _by_law(alerts: Sequence[PastAlert], decided: Mapping[int, Decision], places: Sequence[int]) -> Iterable[_Group]:
    """The incidents of one key."""
    place_of = {(alerts[place].series, alerts[place].started_at): place for place in places}
    as_law = (
        lifecycle.Alert(
            alerts[place].series,
            alerts[place].started_at,
            # The law reads only the time of an end.
            End(end, EndReason.RECOVERED) if (end := alerts[place].ended_at) else None,
            decided[place].window,
            decided[place].max_span,
            decided[place].severity,
            alerts[place].by_people,
        )
        for place in places
    )
    for group in lifecycle.incidents_of(as_law):
        state = lifecycle.incident_state(group)
        members = [place_of[alert.series, alert.started_at] for alert in group]
        first = decided[members[0]]
        yield _Group(
            Grouped(
                numbers=tuple(sorted({alerts[place].incident for place in members})),
                rule=first.rule,
                key=first.key,
                service=first.service,
                environment=first.environment,
                severity=state.severity,
                began_at=state.began_at,
                ended_at=state.ended_at,
                alerts=state.alerts,
            ),
            frozenset(members),
        )


def _differences(before: Sequence[_Group], after: Sequence[_Group]) -> tuple[list[Difference], int]:
    """The differences, and how many incidents stay as they are."""
    differences: list[Difference] = []
    unchanged = 0
    for befores, afters in _connected(before, after):
        if len(befores) == len(afters) == 1 and _is_same(befores[0], afters[0]):
            unchanged += 1
        else:
            outcome = _outcome(len(befores), len(afters))
            differences.append(
                Difference(
                    outcome, tuple(group.incident for group in befores), tuple(group.incident for group in afters)
                )
            )
    return differences, unchanged


def _connected(before: Sequence[_Group], after: Sequence[_Group]) -> Iterable[tuple[list[_Group], list[_Group]]]:
    """The incidents of both sides that share alerts, directly or through others."""
    parent = list(range(len(before) + len(after)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    at = {place: index for index, group in enumerate(before) for place in group.members}
    for index, group in enumerate(after, len(before)):
        for place in group.members:
            if place in at:
                parent[root(at[place])] = root(index)
    found: dict[int, tuple[list[_Group], list[_Group]]] = defaultdict(lambda: ([], []))
    for index, group in enumerate((*before, *after)):
        found[root(index)][index >= len(before)].append(group)
    return found.values()


def _is_same(before: _Group, after: _Group) -> bool:
    if before.members != after.members:
        return False
    one, other = before.incident, after.incident  # the same result by another rule does not count as a difference
    return (one.key, one.service, one.environment, one.severity) == (
        other.key,
        other.service,
        other.environment,
        other.severity,
    )


def _outcome(before: int, after: int) -> TrialOutcome:
    match before, after:
        case 0, _:
            return TrialOutcome.OPENED
        case _, 0:
            return TrialOutcome.NOT_OPENED
        case 1, 1:
            return TrialOutcome.CHANGED
        case _, 1:
            return TrialOutcome.MERGED
        case 1, _:
            return TrialOutcome.SPLIT
    return TrialOutcome.REGROUPED


def _alerts_by_rule(
    alerts: Sequence[PastAlert], before: Sequence[Decision], after: Sequence[Decision]
) -> dict[str, tuple[int, int]]:
    sides = [
        Counter(decision.rule for alert, decision in zip(alerts, decisions, strict=True) if not alert.by_people)
        for decisions in (before, after)
    ]
    return {name: (sides[0][name], sides[1][name]) for name in sorted(sides[0].keys() | sides[1].keys())}


def _grouped_otherwise(alerts: Sequence[PastAlert], before: Sequence[_Group]) -> int:
    stored = Counter(alert.incident for alert in alerts)
    return sum(
        len(group.incident.numbers) != 1 or stored[group.incident.numbers[0]] != len(group.members) for group in before
    )
