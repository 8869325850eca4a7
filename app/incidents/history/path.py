"""Tasks and the path to recovery: what people did to restore service, and where that led over time.

Pure: no clock, no I/O, no settings. The path is that of figure 10-1 in "Post-Incident Reviews" (O'Reilly, 2017): each
task that helped moves it down by one, each that harmed moves it up, and nothing else does. It has no scale.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from app.incidents.measures.measures import (
    Facts,
    Measured,
    MeasureStatus,
    detected_at,
    measures,
)


class Effect(StrEnum):
    """What a task did for the recovery."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    NONE = "none"
    UNKNOWN = "unknown"


class Stage(StrEnum):
    """The stage of diagnosis to which a task belongs."""

    TRIAGE = "triage"
    INVESTIGATION = "investigation"
    IDENTIFICATION = "identification"


class Phase(StrEnum):
    """The phases of an incident, in order."""

    DETECTION = "detection"
    RESPONSE = "response"
    REMEDIATION = "remediation"
    ANALYSIS = "analysis"
    READINESS = "readiness"


@dataclass(frozen=True, slots=True)
class PlaybookVersion:
    """A version of a playbook of a service."""

    service: str
    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Task:
    """Something that a person did to restore service. `entry` is the id of its first entry in the timeline, `command`
    what they typed or ran, `playbook` what they followed.
    """

    entry: int
    at: datetime
    effect: Effect
    ended_at: datetime | None = None
    by: str | None = None
    text: str = ""
    stage: Stage | None = None
    link: str | None = None
    command: str | None = None
    playbook: PlaybookVersion | None = None

    @property
    def takes_effect_at(self) -> datetime:
        return self.ended_at or self.at


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """`seconds` is set if and only if `status` is recorded, `reason` if and only if it is not. A time that is not known
    is None.
    """

    phase: Phase
    begins_at: datetime | None
    ends_at: datetime | None
    seconds: float | None
    status: MeasureStatus
    reason: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """A task, its phase (None: unknown), and the level that the path reaches with it."""

    task: Task
    phase: Phase | None
    level: int


@dataclass(frozen=True, slots=True)
class Point:
    at: datetime
    level: int


@dataclass(frozen=True, slots=True)
class Silence:
    begins_at: datetime
    ends_at: datetime

    @property
    def seconds(self) -> float:
        return (self.ends_at - self.begins_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Path:
    """The five phases in order, the marks by name, and the path, whose first point has level 0.

    `points` has the beginning, a point for each step, and the end of the incident or, while it is open, now; without
    the last one if a task took effect later than that. All numbers of seconds are exact to the microsecond.
    """

    phases: Sequence[PhaseSpan]
    marks: Mapping[str, datetime | None]
    steps: Sequence[Step]
    points: Sequence[Point]
    counts: Mapping[Effect, int]
    seconds_in_tasks: Mapping[Effect, float]  # of the tasks with a stated end; overlapping ones count each
    seconds_without_positive_effect: float  # from the first point until then, else until the last point
    first_positive_at: datetime | None
    longest_silence: Silence | None  # the first of the longest; None if the incident ended when it was detected


def path_of(facts: Facts, tasks: Iterable[Task], *, now: datetime) -> Path:
    """The path of one incident. The order of `tasks` does not matter.

    Tasks are ordered by when they took effect (their end if stated, else their beginning), then by entry. The path
    begins at detection, or with the first task if that began earlier.
    """
    ordered = sorted(tasks, key=lambda task: (task.takes_effect_at, task.entry))
    until = facts.ended_at or max(now, detected_at(facts))
    steps = list(_steps(facts, ordered))
    began_at = min([detected_at(facts), *(task.at for task in ordered)])
    points = [Point(began_at, 0), *(Point(step.task.takes_effect_at, step.level) for step in steps)]
    if points[-1].at <= until:
        points.append(Point(until, points[-1].level))
    first_positive_at = next((task.takes_effect_at for task in ordered if task.effect is Effect.POSITIVE), None)
    counts = Counter(task.effect for task in ordered)
    return Path(
        phases=_phases(facts),
        marks=_marks(facts),
        steps=steps,
        points=points,
        counts={effect: counts[effect] for effect in Effect},
        seconds_in_tasks=_seconds_in(ordered),
        seconds_without_positive_effect=((first_positive_at or points[-1].at) - began_at).total_seconds(),
        first_positive_at=first_positive_at,
        longest_silence=_longest_silence(facts, ordered, until),
    )


def phase_at(facts: Facts, at: datetime) -> Phase | None:
    """The phase during which something happened. Between detection and end it is unknown without a stated
    identification: what separates response and remediation is not guessed.
    """
    if at < detected_at(facts):
        return Phase.DETECTION
    if facts.ended_at is not None and at > facts.ended_at:
        return Phase.ANALYSIS if facts.reviewed_at is None or at <= facts.reviewed_at else Phase.READINESS
    if facts.identified_at is None:
        return None
    return Phase.RESPONSE if at < facts.identified_at else Phase.REMEDIATION


_MOVES: Mapping[Effect, int] = {Effect.POSITIVE: -1, Effect.NEGATIVE: 1, Effect.NONE: 0, Effect.UNKNOWN: 0}


def _steps(facts: Facts, ordered: Iterable[Task]) -> Iterator[Step]:
    level = 0
    for task in ordered:
        level += _MOVES[task.effect]
        yield Step(task, phase_at(facts, task.at), level)


def _phases(facts: Facts) -> list[PhaseSpan]:
    found = measures(facts)
    return [
        _span(Phase.DETECTION, facts.impact_started_at, detected_at(facts), found["detection"]),
        _span(Phase.RESPONSE, detected_at(facts), facts.identified_at, found["response"]),
        _span(Phase.REMEDIATION, facts.identified_at, facts.ended_at, found["remediation"]),
        _span(Phase.ANALYSIS, facts.ended_at, facts.reviewed_at, found["analysis"]),
        _span(Phase.READINESS, facts.reviewed_at, facts.ready_at, found["readiness"]),
    ]


def _span(phase: Phase, begins_at: datetime | None, ends_at: datetime | None, measured: Measured) -> PhaseSpan:
    return PhaseSpan(phase, begins_at, ends_at, measured.seconds, measured.status, measured.reason)


def _marks(facts: Facts) -> dict[str, datetime | None]:
    return {
        "impact_started_at": facts.impact_started_at,
        "detected_at": detected_at(facts),
        "acknowledged_at": facts.acknowledged_at,
        "identified_at": facts.identified_at,
        "mitigated_at": facts.mitigated_at,
        "resolved_at": facts.ended_at,
        "reviewed_at": facts.reviewed_at,
        "ready_at": facts.ready_at,
    }


def _seconds_in(tasks: Iterable[Task]) -> dict[Effect, float]:
    found = dict.fromkeys(Effect, timedelta())
    for task in tasks:
        if task.ended_at is not None:
            found[task.effect] += task.ended_at - task.at
    return {effect: time.total_seconds() for effect, time in found.items()}


def _longest_silence(facts: Facts, tasks: Iterable[Task], until: datetime) -> Silence | None:
    """The longest time from detection to the end in which no mark is and no task began or ended."""
    happened = {*_marks(facts).values(), until}
    happened |= {at for task in tasks for at in (task.at, task.ended_at)}
    within = sorted(at for at in happened if at is not None and detected_at(facts) <= at <= until)
    silences = [Silence(*neighbors) for neighbors in pairwise(within)]
    return max(silences, key=lambda silence: silence.seconds, default=None)
