"""Numbers over many incidents: outcomes of targets, and what tasks did.

Pure: no clock, no I/O, no settings.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

import numpy as np

from app.base.values.severity import severity_name
from app.incidents.definitions.shares import Share, share
from app.incidents.history.path import Effect, Task, phase_at
from app.incidents.measures.measures import Facts, service
from app.incidents.measures.vectorized import Columns, Ints
from app.response.judgment import OUTCOMES
from app.response.targets import Judged, TargetOutcome


class TargetGroup(StrEnum):
    SERVICE = "service"
    SEVERITY = "severity"


class TaskGroup(StrEnum):
    SERVICE = "service"
    PHASE = "phase"


UNKNOWN_PHASE = "unknown"  # between detection and end without a stated identification


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many incidents had each outcome; `met` is the share of those that met it or missed it."""

    counts: Mapping[TargetOutcome, int]
    met: Share


def outcomes_by_group(
    columns: Columns, judged: Mapping[Judged, Ints], group: TargetGroup | None
) -> tuple[Mapping[Judged, Outcomes], Mapping[str, Mapping[Judged, Outcomes]]]:
    """In total, and for each service or severity, by name. Without failures of the monitoring."""
    counted = np.flatnonzero(~columns.monitoring)
    total = {what: _outcomes(codes[counted]) for what, codes in judged.items()}
    groups: dict[str, Mapping[Judged, Outcomes]] = {}
    if group is not None:
        keys = columns.service.codes if group is TargetGroup.SERVICE else columns.severity
        for key in np.unique(keys[counted]).tolist():
            rows = counted[keys[counted] == key]
            name = columns.service.values[key] if group is TargetGroup.SERVICE else severity_name(key)
            groups[name] = {what: _outcomes(codes[rows]) for what, codes in judged.items()}
    return total, dict(sorted(groups.items()))


def _outcomes(codes: Ints) -> Outcomes:
    found = np.bincount(codes, minlength=len(OUTCOMES)).tolist()
    counts = dict(zip(OUTCOMES, found, strict=True))
    return Outcomes(counts, share(counts[TargetOutcome.MET], counts[TargetOutcome.MET] + counts[TargetOutcome.MISSED]))


@dataclass(slots=True)
class TaskTally:
    """`time` is that of tasks with a stated end, overlapping ones each."""

    counts: Counter[Effect] = field(default_factory=Counter)
    time: dict[Effect, timedelta] = field(default_factory=lambda: dict.fromkeys(Effect, timedelta()))

    def add(self, task: Task) -> None:
        self.counts[task.effect] += 1
        if task.ended_at is not None:
            self.time[task.effect] += task.ended_at - task.at

    @property
    def tasks(self) -> int:
        return self.counts.total()

    def without_positive_effect(self) -> Share:
        """The share without a positive effect, of the tasks whose effect is known."""
        known = self.tasks - self.counts[Effect.UNKNOWN]
        return share(known - self.counts[Effect.POSITIVE], known)

    def unknown(self) -> Share:
        return share(self.counts[Effect.UNKNOWN], self.tasks)


def tasks_by_group(
    tasks: Iterable[tuple[Facts, Task]], group: TaskGroup | None
) -> tuple[TaskTally, Mapping[str, TaskTally]]:
    """In total, and for each service or phase, by name. `tasks` are those of incidents with these facts."""
    total = TaskTally()
    groups: dict[str, TaskTally] = defaultdict(TaskTally)
    for facts, task in tasks:
        total.add(task)
        if group is TaskGroup.SERVICE:
            groups[service(facts)].add(task)
        elif group is TaskGroup.PHASE:
            groups[phase_at(facts, task.at) or UNKNOWN_PHASE].add(task)
    return total, dict(sorted(groups.items()))
