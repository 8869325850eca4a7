"""What follows from the updates of a public incident: its stage, and the status of its components over time.

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from app.status_page.component import Status, worst


class PublicKind(StrEnum):
    INCIDENT = "incident"
    MAINTENANCE = "maintenance"


class PublicStage(StrEnum):
    """The first four are for incidents, the others for maintenance. Any order is possible: a problem may return."""

    INVESTIGATING = "investigating"
    IDENTIFIED = "identified"
    MONITORING = "monitoring"
    RESOLVED = "resolved"
    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"

    @property
    def words(self) -> str:
        return self.replace("_", " ").capitalize()


STAGES: Mapping[PublicKind, Sequence[PublicStage]] = {
    PublicKind.INCIDENT: (
        PublicStage.INVESTIGATING,
        PublicStage.IDENTIFIED,
        PublicStage.MONITORING,
        PublicStage.RESOLVED,
    ),
    PublicKind.MAINTENANCE: (PublicStage.SCHEDULED, PublicStage.IN_PROGRESS, PublicStage.COMPLETED),
}
OVER = frozenset({PublicStage.RESOLVED, PublicStage.COMPLETED})


@dataclass(frozen=True, slots=True)
class Update:
    """`components` have this status from `at` on; others stay as they were."""

    id: UUID
    at: datetime
    stage: PublicStage
    body: str
    components: Mapping[str, Status]
    recorded_at: datetime
    corrected_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PublicIncident:
    """`updates` are in order of time, at least one. `ends_at` is set once it is over."""

    id: UUID
    kind: PublicKind
    title: str
    begins_at: datetime
    ends_at: datetime | None
    scheduled_to: datetime | None
    created_at: datetime
    updated_at: datetime
    updates: Sequence[Update]

    @property
    def components(self) -> list[str]:
        """All that its updates name, in that order."""
        return list(dict.fromkeys(name for update in self.updates for name in update.components))


def stage(incident: PublicIncident, now: datetime) -> PublicStage:
    """The stage of the last update. Maintenance begins and ends by its schedule, unless people published otherwise."""
    last = incident.updates[-1].stage
    if last is not PublicStage.SCHEDULED or now < incident.begins_at:
        return last
    assert incident.scheduled_to is not None, "maintenance is scheduled"
    return PublicStage.IN_PROGRESS if now < incident.scheduled_to else PublicStage.COMPLETED


def is_over(incident: PublicIncident, now: datetime) -> bool:
    return stage(incident, now) in OVER


def ended(incident: PublicIncident, now: datetime) -> datetime | None:
    """When it ended; None while it goes on."""
    if not is_over(incident, now):
        return None
    return incident.ends_at or incident.scheduled_to or incident.updates[-1].at


def next_update_due(incident: PublicIncident) -> datetime | None:
    """While a problem is young, customers want to hear every twenty minutes, even that there is nothing new."""
    first, last = incident.updates[0].at, incident.updates[-1]
    if last.stage in OVER or last.at >= first + YOUNG:
        return None
    return last.at + CADENCE


CADENCE, YOUNG = timedelta(minutes=20), timedelta(hours=2)


class Spell(NamedTuple):
    """A time in which a component had a status other than operational; `end` is None while it goes on."""

    component: str
    start: datetime
    end: datetime | None
    status: Status


def spells(incident: PublicIncident, now: datetime) -> list[Spell]:
    """They begin with the problem, not with the first update about it, and end with it, not with the last."""
    if incident.kind is PublicKind.MAINTENANCE:
        if stage(incident, now) is PublicStage.SCHEDULED:
            return []
        until = ended(incident, now)
        return [
            Spell(name, incident.begins_at, until, Status.UNDER_MAINTENANCE)
            for name in incident.components
            if until is None or incident.begins_at < until
        ]
    over_at = ended(incident, now)
    going_on = [place for place, update in enumerate(incident.updates) if update.stage not in OVER]
    stays_over = max(going_on, default=-1) + 1
    found: list[Spell] = []
    current: dict[str, tuple[datetime, Status]] = {}
    for place, update in enumerate(incident.updates):
        is_over = update.stage in OVER
        at = incident.begins_at if place == 0 else max(update.at, incident.begins_at)
        if over_at is not None:
            at = over_at if place >= stays_over else min(at, over_at)
        changes = dict.fromkeys(current, Status.OPERATIONAL) if is_over else update.components
        for name, status in changes.items():
            since, before = current.get(name, (at, Status.OPERATIONAL))
            if before is not Status.OPERATIONAL and since < at:
                found.append(Spell(name, since, at, before))
            current[name] = (at, status)
    found += [
        Spell(name, at, None, status) for name, (at, status) in current.items() if status is not Status.OPERATIONAL
    ]
    return found


def spells_by_component(incidents: Iterable[PublicIncident], now: datetime) -> dict[str, list[Spell]]:
    found: dict[str, list[Spell]] = {}
    for incident in incidents:
        for spell in spells(incident, now):
            found.setdefault(spell.component, []).append(spell)
    return found


def status_of(incident: PublicIncident, now: datetime) -> dict[str, Status]:
    """The status that it gives each of its components now."""
    found = dict.fromkeys(incident.components, Status.OPERATIONAL)
    for spell in spells(incident, now):
        if spell.end is None or spell.end > now:
            found[spell.component] = spell.status
    return found


def worst_of(incident: PublicIncident, now: datetime) -> Status:
    """The worst status that it has given a component."""
    return worst(spell.status for spell in spells(incident, now))


def statuses(incidents: Iterable[PublicIncident], now: datetime) -> dict[str, Status]:
    """The published status of each component that has one other than operational."""
    found: dict[str, list[Status]] = {}
    for incident in incidents:
        if not is_over(incident, now):
            for name, status in status_of(incident, now).items():
                found.setdefault(name, []).append(status)
    worsts = {name: worst(each) for name, each in found.items()}
    return {name: status for name, status in worsts.items() if status is not Status.OPERATIONAL}
