"""The law of incidents, and an incremental shortcut.

Pure: no clock, no I/O, no settings. `incidents_of` is the law: it groups alerts into incidents. `IncidentState`
summarizes one incident, so that a new or changed alert in the newest incident of a key can be applied without reading
its other alerts: `joined` and `changed` return the new state, or None if only the law can decide. The properties in
`tests/incidents/grouping/test_law.py` check that the shortcut always agrees with the law.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec.structs import replace

from app.incidents.grouping.law.episode import End, last
from app.incidents.grouping.signal import EndReason


class Alert(msgspec.Struct, frozen=True, gc=False):
    """One episode, as input to the law. `by_people` marks alerts that a person declared or holds open.

    `fired_after_end_at` is its latest report that it fires, if it has ended and that report is later than those of its
    end.
    """

    series: UUID
    started_at: datetime
    end: End | None
    window: timedelta
    max_span: timedelta
    severity: int = 3
    by_people: bool = False
    impact_started_at_reported: datetime | None = None  # when users were first affected, if the alert states it
    fired_after_end_at: datetime | None = None

    @property
    def ended_at(self) -> datetime | None:
        return self.end.at if self.end else None


def incidents_of(alerts: Iterable[Alert]) -> list[list[Alert]]:
    """Groups the alerts of one key into incidents, in order of start.

    Incidents are the connected components of the intervals `[started_at, ended_at + window]`, which are unbounded for
    open alerts. `max_span` limits chains of separate alerts: an alert that starts after all previous ones have ended,
    and more than `max_span` after the start of the incident, starts a new incident. Overlapping alerts always stay
    together.
    """
    groups: list[list[Alert]] = []
    open_end = False
    end = reach = datetime.min.replace(tzinfo=UTC)  # of the newest group
    for alert in sorted(alerts, key=lambda alert: (alert.started_at, alert.series)):
        overlaps = bool(groups) and (open_end or alert.started_at <= end)
        chained = (
            bool(groups)
            and not overlaps
            and alert.started_at <= reach
            and alert.started_at - groups[-1][0].started_at <= alert.max_span
        )
        if overlaps or chained:
            groups[-1].append(alert)
        else:
            groups.append([alert])
            open_end, end, reach = False, alert.started_at, alert.started_at
        if alert.end is None:
            open_end = True
        else:
            end, reach = max(end, alert.end.at), max(reach, alert.end.at + alert.window)
    return groups


class IncidentState(msgspec.Struct, frozen=True, gc=False):
    """The history of one incident, derived from its alerts.

    `last_end` and `reach_at` (the latest end plus window) only consider alerts that have ended. The last stretch
    without a recovery started at `stretch_began_at`, after `reopened` recoveries, the first of which was at
    `first_ended_at`.
    """

    last_end: End | None  # stored as `last_end_at` and `end_reason`; the other fields are columns of `incident`
    began_at: datetime
    last_start_at: datetime
    stretch_began_at: datetime
    first_ended_at: datetime | None
    reach_at: datetime | None
    reopened: int
    alerts: int
    open_alerts: int
    severity: int
    impact_started_at_reported: datetime | None = None
    fired_after_end_at: datetime | None = None  # the latest of its alerts

    @property
    def ended_at(self) -> datetime | None:
        return self.last_end.at if self.open_alerts == 0 and self.last_end else None

    @property
    def end_reason(self) -> EndReason | None:
        return self.last_end.reason if self.open_alerts == 0 and self.last_end else None


def incident_state(group: Sequence[Alert]) -> IncidentState:
    """The state of one group returned by `incidents_of`."""
    state = _first(group[0])
    for alert in group[1:]:
        state = _append(state, alert)
    return state


def _first(alert: Alert) -> IncidentState:
    return IncidentState(
        began_at=alert.started_at,
        last_start_at=alert.started_at,
        stretch_began_at=alert.started_at,
        first_ended_at=alert.ended_at,
        last_end=alert.end,
        reach_at=alert.end.at + alert.window if alert.end else None,
        reopened=0,
        alerts=int(not alert.by_people),
        open_alerts=int(alert.end is None),
        severity=alert.severity,
        impact_started_at_reported=alert.impact_started_at_reported,
        fired_after_end_at=alert.fired_after_end_at,
    )


def _append(state: IncidentState, alert: Alert) -> IncidentState:
    """The state with one more alert, which starts at or after `stretch_began_at`."""
    before, end = state.ended_at, alert.end
    gap = before is not None and alert.started_at > before
    reopened = state.reopened + gap
    open_alerts = state.open_alerts + (end is None)
    last_end, reach_at = state.last_end, state.reach_at
    if end is not None:
        last_end, reach_at = last(last_end, end), _later(reach_at, end.at + alert.window)
    impact_started_at, fired_after_end_at = state.impact_started_at_reported, state.fired_after_end_at
    if alert.impact_started_at_reported is not None:
        impact_started_at = _earlier(impact_started_at, alert.impact_started_at_reported)
    if alert.fired_after_end_at is not None:
        fired_after_end_at = _later(fired_after_end_at, alert.fired_after_end_at)
    return IncidentState(
        began_at=state.began_at,
        last_start_at=max(state.last_start_at, alert.started_at),
        stretch_began_at=alert.started_at if gap else state.stretch_began_at,
        first_ended_at=_first_ended_at(state, reopened, open_alerts, last_end),
        last_end=last_end,
        reach_at=reach_at,
        reopened=reopened,
        alerts=state.alerts + (not alert.by_people),
        open_alerts=open_alerts,
        severity=min(state.severity, alert.severity),
        impact_started_at_reported=impact_started_at,
        fired_after_end_at=fired_after_end_at,
    )


def _first_ended_at(before: IncidentState, reopened: int, open_alerts: int, last_end: End | None) -> datetime | None:
    """Until the incident is reopened, the first recovery is also the last one."""
    if reopened:
        return before.first_ended_at
    return last_end.at if last_end and open_alerts == 0 else None


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max(one, other) if one and other else one or other


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(one, other) if one and other else one or other


class Placement(StrEnum):
    """Where a new alert belongs, judged only by the newest incident of its key."""

    OPENS = "opens"  # it opens a new incident after the newest
    JOINS = "joins"  # it joins the newest incident and affects no other
    UNCLEAR = "unclear"  # only the law can decide


def classify(newest: IncidentState | None, alert: Alert) -> Placement:
    if newest is None:
        return Placement.OPENS
    if alert.started_at < newest.stretch_began_at:
        return Placement.UNCLEAR
    ended_at = newest.ended_at
    if ended_at is None or alert.started_at <= ended_at:
        return Placement.JOINS
    if newest.reach_at is not None and alert.started_at > newest.reach_at:
        return Placement.OPENS
    return Placement.JOINS if alert.started_at - newest.began_at <= alert.max_span else Placement.OPENS


def opened(alert: Alert) -> IncidentState:
    return _first(alert)


def joined(newest: IncidentState, alert: Alert) -> IncidentState:
    """The state with a new alert, for which `classify` returned JOINS."""
    return _append(newest, alert)


def changed(newest: IncidentState, before: Alert, after: Alert) -> IncidentState | None:
    """The state after one of its alerts has changed; None if only the law can decide.

    The law has to decide if the alert is open again; if another alert started after its end, which may now be separate;
    if the end moved back, which may open a gap; if the alert started before the last stretch, because it may close a
    gap; or if the alert no longer has the latest report after its end.
    """
    fired_after_end_at = _later(newest.fired_after_end_at, after.fired_after_end_at)
    if before.fired_after_end_at == fired_after_end_at != after.fired_after_end_at:
        return None
    state = replace(newest, severity=min(newest.severity, after.severity), fired_after_end_at=fired_after_end_at)
    end = after.end
    if end == before.end:
        return state
    if end is None:
        return None
    if before.end is None and end.at >= newest.last_start_at:
        open_alerts = newest.open_alerts - 1
    elif before.end is not None and end.at > before.end.at and before.started_at >= newest.stretch_began_at:
        open_alerts = newest.open_alerts
    else:
        return None
    last_end = last(newest.last_end, end)
    return replace(
        state,
        open_alerts=open_alerts,
        first_ended_at=_first_ended_at(newest, newest.reopened, open_alerts, last_end),
        last_end=last_end,
        reach_at=_later(newest.reach_at, end.at + before.window),
    )


@dataclass(frozen=True, slots=True)
class Succession:
    """The incident that each group continues. `heirs[i]` is the existing incident that group i keeps, None if it is
    new; `merged` maps existing incidents that end here to the group that received their alerts.
    """

    heirs: tuple[UUID | None, ...]
    merged: Mapping[UUID, int]


def succession(
    groups: Sequence[Sequence[tuple[UUID, datetime]]],
    known: Mapping[tuple[UUID, datetime], UUID],
    age: Mapping[UUID, int],
) -> Succession:
    """Decides which incidents keep their id when incidents are merged or split.

    `groups` lists the alerts of each group by (series, start), groups in order of start; `known` maps alerts to their
    previous incident, and `age` maps incidents to their number. When an incident is split, its earliest part keeps the
    id; when several are merged, the oldest one (lowest number) remains.
    """
    home: dict[UUID, int] = {}
    for index, group in enumerate(groups):
        for alert in group:
            incident = known.get(alert)
            if incident is not None:
                home.setdefault(incident, index)
    heirs: list[UUID | None] = [None] * len(groups)
    for incident in sorted(home, key=lambda incident: age[incident], reverse=True):
        heirs[home[incident]] = incident
    merged = {incident: index for incident, index in home.items() if heirs[index] != incident}
    return Succession(tuple(heirs), merged)
