"""The timeline in words: one line per fact, with what was corrected kept beside it. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any
from uuid import UUID

from app.base.schema import TimelineEntry
from app.base.values.facts import ReactionKind
from app.base.values.severity import severity_name
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.corrections import recorded_by_a_person
from app.incidents.history.details import DETAILS
from app.incidents.history.path import Effect, Stage
from app.incidents.history.timeline import fact_of
from app.pages import words
from app.pages.incidents.panel import fact_words

Shown = Callable[[datetime], str]

EFFECTS = {
    Effect.POSITIVE: ("+", "helped"),
    Effect.NEGATIVE: ("\u2212", "harmed"),
    Effect.NONE: ("\u25cb", "changed nothing"),
    Effect.UNKNOWN: ("?", "not known whether it helped"),
}

END_REASONS = {
    "recovered": "all alerts ended",
    "manual": "a person resolved it",
    "reconciled": "the source no longer lists its alerts",
    "expired": "its alerts expired",
    "rule_paused": "the alerting rule was paused",
    "rule_updated": "the alerting rule was changed",
    "rule_deleted": "the alerting rule was deleted",
    "missing_series": "the measured series disappeared",
    "no_data": "there was no longer any data",
    "timeout": "its alerts were not reported again",
    "superseded": "a later alert of the same series took its place",
    "ends_before_start": "the reported end is before the start",
}

_TITLES = {
    TimelineKind.OPENED: "Detected",
    TimelineKind.DECLARED: "Declared",
    TimelineKind.ACKNOWLEDGED: "Acknowledged",
    TimelineKind.IDENTIFIED: "Cause found",
    TimelineKind.MITIGATED: "Mitigated (impact reduced)",
    TimelineKind.REOPENED: "Reopened",
    TimelineKind.MERGED: "Merged with another incident",
    TimelineKind.SPLIT: "Split into two incidents",
    TimelineKind.UNACKNOWLEDGED: "Acknowledgement taken back",
    TimelineKind.CLOSED: "Closed in another tool",
    TimelineKind.CHANGED: "Changed",
    TimelineKind.JOINED: "Joined",
    TimelineKind.ROLE: "Role",
    TimelineKind.UPDATE: "Update",
    TimelineKind.CRITERION: "Exit criterion",
    TimelineKind.ROOM: "Channel in use",
    TimelineKind.IMPACT: "Impact on customers",
    TimelineKind.EVIDENCE: "Evidence",
    TimelineKind.SAID: "Chat",
    TimelineKind.PUBLISHED: "Published on the status page",
    TimelineKind.CAUSE: "Cause",
    TimelineKind.RELATED: "Marked as related",
    TimelineKind.UNRELATED: "No longer marked as related",
}
_FACTS = {
    "title": "title",
    "severity": "severity",
    "service": "service",
    "impact": "affected share",
    "impact_started_at": "impact start",
    "detected_at": "detection",
    "harmed_throughout": "harm between alerts",
    "type": "type",
    "expected_to_last": "expected to last for more than an hour:",
    "test": "a test:",
}
_WITH_ANOTHER_TIME = frozenset(
    {
        TimelineKind.ACKNOWLEDGED,
        TimelineKind.UNACKNOWLEDGED,
        TimelineKind.CLOSED,
        TimelineKind.IDENTIFIED,
        TimelineKind.MITIGATED,
        TimelineKind.RESOLVED,
        TimelineKind.NOTE,
        TimelineKind.TASK,
        TimelineKind.CAUSE,
        *DETAILS,
    }
)
_REPORTED = frozenset(map(TimelineKind, ReactionKind))
_RECORDS_OF_CHANGES = frozenset({TimelineKind.CHANGED, TimelineKind.RELATED, TimelineKind.UNRELATED})


@dataclass(frozen=True, slots=True)
class Revision:
    """What an entry said before it was corrected."""

    at: datetime
    recorded_at: datetime
    author: str | None
    note: str | None
    corrected_by: str | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """`fact` is the id of the first entry; it names the fact in addresses. `withdrawn` has who withdrew it and why.

    `number`, `effect`, `ended_at`, `stage`, `link`, `command` and `playbook` only of tasks. `source` reported it, and
    not its time if it is `at_arrival`. `elsewhere`: a correction moved the fact to another incident.
    """

    fact: int
    at: datetime
    ended_at: datetime | None
    kind: TimelineKind
    title: str
    detail: str
    note: str | None
    by: str | None
    source: str | None
    at_arrival: bool
    number: int | None
    effect: Effect | None
    stage: Stage | None
    link: str | None
    command: str | None
    playbook: str | None
    before: Sequence[Revision]
    withdrawn: Revision | None
    elsewhere: bool
    too_early: bool
    correctable: bool
    withdrawable: bool


def lines(
    entries: Iterable[TimelineEntry],
    incident_id: UUID,
    *,
    numbers: Mapping[int, int],
    detected_at: datetime,
    shown: Shown,
) -> list[Line]:
    """Earliest first. `entries` are those of the incident and all later ones of the same facts; `numbers` has those of
    tasks by the id of their fact.
    """
    facts = defaultdict[int, list[TimelineEntry]](list)
    for entry in sorted(entries, key=lambda entry: entry.id):
        facts[fact_of(entry)].append(entry)
    found = []
    for fact, versions in facts.items():
        current = versions[-1]
        withdrawal = current if current.kind == TimelineKind.WITHDRAWN else None
        spoken = [each for each in versions if each.kind != TimelineKind.WITHDRAWN]
        if spoken:  # else the fact itself belongs to another incident
            found.append(
                _line(fact, spoken, withdrawal, incident_id, numbers=numbers, detected_at=detected_at, shown=shown)
            )
    return sorted(found, key=lambda line: (line.at, line.fact))


def _line(
    fact: int,
    versions: Sequence[TimelineEntry],
    withdrawal: TimelineEntry | None,
    incident_id: UUID,
    *,
    numbers: Mapping[int, int],
    detected_at: datetime,
    shown: Shown,
) -> Line:
    entry = versions[-1]
    kind = TimelineKind(entry.kind)
    title, detail = _words(entry, kind, shown)
    here = (withdrawal or entry).incident_id == incident_id
    by_person = recorded_by_a_person(entry) and withdrawal is None and here
    task = (entry.detail or {}) if kind is TimelineKind.TASK else {}
    return Line(
        fact=fact,
        at=entry.at,
        ended_at=datetime.fromisoformat(task["ended_at"]) if task.get("ended_at") else None,
        kind=kind,
        title=title,
        detail=detail,
        note=entry.note,
        by=entry.by,
        source=(entry.detail or {}).get("source") if kind in _REPORTED else None,
        at_arrival=kind in _REPORTED and "at_arrival" in (entry.detail or {}),
        number=numbers.get(fact),
        effect=Effect(task["effect"]) if task else None,
        stage=Stage(task["stage"]) if task.get("stage") else None,
        link=task.get("link"),
        command=task.get("command"),
        playbook=_playbook(task.get("playbook")),
        before=[_revision(old, new) for old, new in pairwise(versions)],
        withdrawn=_revision(entry, withdrawal) if withdrawal else None,
        elsewhere=not here,
        too_early=kind is TimelineKind.ACKNOWLEDGED and entry.at < detected_at,
        correctable=by_person and kind not in _RECORDS_OF_CHANGES,
        withdrawable=by_person and kind in _WITH_ANOTHER_TIME,
    )


def _playbook(followed: Mapping[str, Any] | None) -> str | None:
    return f"{followed['name']} v{followed['version']} of {followed['service']}" if followed else None


def _revision(old: TimelineEntry, new: TimelineEntry) -> Revision:
    return Revision(old.at, new.recorded_at, old.by, old.note, new.corrected_by, new.why)


def _words(entry: TimelineEntry, kind: TimelineKind, shown: Shown) -> tuple[str, str]:
    """The title and details of an entry."""
    detail = entry.detail or {}
    title, found = _TITLES.get(kind, kind.replace("_", " ").capitalize()), ""
    match kind:
        case TimelineKind.NOTE | TimelineKind.TASK:
            title = ""
        case TimelineKind.RESOLVED:
            title, found = _end(detail.get("reason"))
        case TimelineKind.CHANGED:
            found = ", ".join(_change(name, value, shown) for name, value in detail.items())
        case TimelineKind.CAUSE:
            deployment = detail.get("deployment_id")
            found = f"deployment {deployment}" if deployment else "no deployment caused it"
        case TimelineKind.RELATED | TimelineKind.UNRELATED:
            found = str(detail.get("incident", ""))
        case _ if kind in DETAILS:
            found = fact_words(kind, detail)
    return title, found


def _end(reason: str | None) -> tuple[str, str]:
    match reason:
        case None | "manual":
            return "Resolved", ""
        case "recovered":
            return "Recovered", ""
        case _:
            return "Ended", END_REASONS.get(reason, reason)


def _change(name: str, value: Any, shown: Shown) -> str:
    fact = _FACTS.get(name, name.replace("_", " "))
    if value is None and name == "test":
        return f"{fact} no"
    if value is None:
        return f"{fact} as derived from the alerts"
    return f"{fact} {_value(name, value, shown)}"


def _value(name: str, value: Any, shown: Shown) -> str:
    try:
        match name:
            case "severity":
                return severity_name(int(value))
            case "harmed_throughout" | "expected_to_last" | "test":
                return "yes" if value in {True, "True"} else "no"
            case "impact":
                return words.share(float(Decimal(str(value))))
            case "impact_started_at" | "detected_at":
                return shown(datetime.fromisoformat(str(value)))
    except (ValueError, IndexError, InvalidOperation):
        pass
    return f"\u201c{words.cut(str(value), 120)}\u201d"
