"""Assigns every new or changed alert to an incident, and a verdict to each signal. Pure.

`place_by_newest` needs only the newest incident of a key. Where that is not enough, `regroup` applies the law to
all incidents and alerts around the change.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from app.incidents.grouping.batch import AlertRow, Batch, IncidentRow
from app.incidents.grouping.law import lifecycle
from app.incidents.grouping.law.lifecycle import IncidentState, Placement
from app.incidents.grouping.signal import Signal, Verdict
from app.incidents.grouping.timeline_kind import TimelineKind

# Looked up once: access to an enum member costs as much as a small function call.
_OPENED, _JOINED = Verdict.OPENED, Verdict.JOINED
_OPENS, _UNCLEAR = Placement.OPENS, Placement.UNCLEAR


def place_by_newest(batch: Batch, newest: IncidentRow | None, rows: Sequence[AlertRow]) -> bool:
    """Places the changed alerts of one key by its newest incident; returns False, without changes, if insufficient."""
    changing = [row for row in rows if row.incoming is None]
    starting = [row for row in rows if row.incoming is not None]
    if len(rows) > 1:
        changing.sort(key=lambda row: (row.end is None, row.end and row.end.at))
        starting.sort(key=lambda row: (row.started_at, row.series))
    # Decide about all alerts first, so that nothing has changed if the law is needed.
    state = newest.state if newest else None
    for row in changing:
        before = row.before
        if newest is None or state is None or before is None or row.incident_id != newest.id:
            return False
        state = lifecycle.changed(state, before, row.as_law())
        if state is None:
            return False
    changed = state
    steps: list[tuple[AlertRow, bool, IncidentState]] = []
    for row in starting:
        alert = row.as_law()
        placement = lifecycle.classify(state, alert)
        if placement is _UNCLEAR:
            return False
        opens = state is None or placement is _OPENS
        state = lifecycle.opened(alert) if state is None or opens else lifecycle.joined(state, alert)
        steps.append((row, opens, state))
    began = newest.state if newest else None
    if newest is not None and changed is not None and changing:
        newest.state = changed
        _verdict_of_changes(batch, newest, changing, Verdict.RESOLVED)
    _take_steps(batch, newest, began, steps)
    return True


def _take_steps(
    batch: Batch,
    incident: IncidentRow | None,
    before: IncidentState | None,
    steps: Sequence[tuple[AlertRow, bool, IncidentState]],
) -> None:
    """Places new alerts one by one: each step has the alert, whether it opens an incident, and the state after it.

    `incident` is the newest of the key, and `before` its state before this batch.
    """
    for row, opens, after in steps:
        if opens or incident is None:
            if incident is not None and before is not None:
                _note_move(batch, incident, before)
            incident = _new_incident(batch, row, after)
            before = replace(after, open_alerts=1)  # so that an end is recorded
            batch.record(incident.id, row.started_at, TimelineKind.OPENED)
            verdict = _OPENED
        else:
            assert before is not None, "an incident has a state"
            verdict = _JOINED
            if after.reopened > incident.state.reopened or (before.ended_at and not after.ended_at):
                verdict = Verdict.REOPENED
                _note_move(batch, incident, before)
                before = incident.state
            _take_in(incident, row)
            incident.state = after
        row.incident_id = incident.id
        _verdict_of_changes(batch, incident, [row], verdict)
    if incident is not None and before is not None:
        _note_move(batch, incident, before)


def _new_incident(batch: Batch, row: AlertRow, state: IncidentState) -> IncidentRow:
    incoming = row.incoming
    assert incoming is not None, "a new incident starts with a new alert, or is split off an existing one"
    decision = incoming.decision
    incident = IncidentRow(
        id=batch.new_id(batch.now),
        number=None,
        key_id=row.key_id,
        key=decision.key,
        rule=decision.rule,
        title=title_of(incoming.signal, decision.service),
        service=decision.service,
        alert_class=str(incoming.signal.alert_class),
        environment=decision.environment,
        labels=dict(incoming.signal.labels),
        source_ids={row.source_id},
        state=state,
        new=True,
        dirty=True,
    )
    batch.incidents[incident.id] = incident
    return incident


def title_of(signal: Signal, service: str) -> str:
    """The title of an incident: the name of its alert, plus the summary if that adds anything."""
    name = signal.labels.get("rulename") or signal.labels.get("alertname") or service
    summary = signal.annotations.get("summary") or signal.annotations.get("title") or ""
    return f"{name}: {summary}"[:300] if summary and summary != name else name[:300]


def _take_in(incident: IncidentRow, row: AlertRow) -> None:
    """Updates the labels that all its alerts have in common, and its sources."""
    labels = row.labels or {}
    if not incident.labels.items() <= labels.items():
        incident.labels = {name: value for name, value in incident.labels.items() if labels.get(name) == value}
        incident.common_changed = True
    if row.source_id not in incident.source_ids:
        incident.source_ids.add(row.source_id)
        incident.common_changed = True


def _note_move(batch: Batch, incident: IncidentRow, before: IncidentState) -> None:
    """Records the consequences of a changed state: timeline entries and corrections of settled history."""
    state = incident.state
    if state == before:
        return
    incident.dirty = True
    had_ended_at, ended_at = before.ended_at, state.ended_at
    if state.reopened > before.reopened or (had_ended_at is not None and ended_at is None):
        batch.record(incident.id, state.stretch_began_at, TimelineKind.REOPENED)
    if ended_at is not None and ended_at != had_ended_at:
        batch.record(incident.id, ended_at, TimelineKind.RESOLVED, {"reason": str(state.end_reason)})
    if incident.settled and (
        (before.began_at, had_ended_at, before.reopened) != (state.began_at, ended_at, state.reopened)
    ):
        batch.corrections += 1


def _verdict_of_changes(batch: Batch, incident: IncidentRow, rows: Sequence[AlertRow], verdict: Verdict) -> None:
    """Sets the verdict of the signals that began, ended or reopened these alerts. The first signal of a new alert
    created it, later ones ended it.
    """
    for row in rows:
        if not row.moved:
            continue  # only its severity or its report times have changed
        for position, index in enumerate(row.caused if row.new or row.end is not None else row.fired):
            if incident.settled:
                batch.verdicts[index] = Verdict.LATE
            elif position == 0 or not row.new:
                batch.verdicts[index] = verdict


# — regrouping by the law —


def touched_span(rows: Sequence[AlertRow]) -> tuple[datetime, datetime | None]:
    """The time in which these alerts, as they are or were, may connect others; an end of None means unbounded."""
    ends = [row.end for row in rows] + [before.end for row in rows if (before := row.before) is not None]
    longest = max(row.window for row in rows)
    return min(row.started_at for row in rows), None if None in ends else max(end.at for end in ends if end) + longest


def regroup(batch: Batch, known: Sequence[IncidentRow], rows: Sequence[AlertRow], changed: Sequence[AlertRow]) -> None:
    """Applies the law to the chains of one key: updates alerts, states and ids."""
    by_id = {(row.series, row.started_at): row for row in rows}
    groups = lifecycle.incidents_of(row.as_law() for row in rows)
    was_in = {member: row.incident_id for member, row in by_id.items() if row.incident_id is not None}
    age = {incident.id: incident.number or 0 for incident in known}
    members_of = [[(alert.series, alert.started_at) for alert in group] for group in groups]
    heirs = lifecycle.succession(members_of, was_in, age)
    touched = {(row.series, row.started_at): row for row in changed}
    kept: list[IncidentRow] = []
    for group, members, heir in zip(groups, members_of, heirs.heirs, strict=True):
        state = lifecycle.incident_state(group)
        member_rows = [by_id[member] for member in members]
        # Changes to settled history count as corrections; settled incidents are never counted twice.
        settled = any(batch.incidents[was_in[m]].settled for m in members if m in was_in)
        if heir is not None:
            incident = batch.incidents[heir]
            before, incident.state = incident.state, state
            _note_move(batch, incident, before)
        elif any(member in was_in for member in members):
            origin = batch.incidents[next(was_in[member] for member in members if member in was_in)]
            incident = _split_off(batch, origin, state)
            batch.split[origin.id].append(incident)
            batch.record(origin.id, state.began_at, TimelineKind.SPLIT, {"into": str(incident.id)})
            batch.record(incident.id, state.began_at, TimelineKind.SPLIT, {"from": str(origin.id)})
            batch.corrections += settled
        else:
            incident = _new_incident(batch, member_rows[0], state)
            batch.record(incident.id, state.began_at, TimelineKind.OPENED)
            if state.ended_at is not None:
                batch.record(incident.id, state.ended_at, TimelineKind.RESOLVED, {"reason": str(state.end_reason)})
        incident.settled = settled
        incident.dirty = True
        first, *rest = member_rows
        incident.labels = dict(first.labels or {})
        incident.source_ids = {first.source_id}
        incident.common_changed = True
        for row in rest:
            _take_in(incident, row)
        for row in member_rows:
            row.incident_id = incident.id
        kept.append(incident)
    for loser, index in heirs.merged.items():
        winner = kept[index]
        batch.merged[loser] = winner.id
        batch.record(winner.id, winner.state.began_at, TimelineKind.MERGED, {"from": str(loser)})
        batch.corrections += batch.incidents[loser].settled
    _verdicts_of_groups(batch, kept, members_of, heirs, was_in, touched)


def _verdicts_of_groups(
    batch: Batch,
    kept: Sequence[IncidentRow],
    members_of: Sequence[Sequence[tuple[UUID, datetime]]],
    heirs: lifecycle.Succession,
    was_in: Mapping[tuple[UUID, datetime], UUID],
    touched: Mapping[tuple[UUID, datetime], AlertRow],
) -> None:
    recorded = {(entry.incident_id, entry.kind) for entry in batch.timeline}
    for index, (incident, members) in enumerate(zip(kept, members_of, strict=True)):
        changed = [touched[member] for member in members if member in touched]
        came_from = {was_in[member] for member in members if member in was_in}
        if index in heirs.merged.values():
            verdict = Verdict.MERGED
        elif came_from & batch.split.keys():
            verdict = Verdict.SPLIT
        elif incident.new:
            verdict = Verdict.OPENED
        elif not any(row.new for row in changed):
            verdict = Verdict.REOPENED if any(row.end is None for row in changed) else Verdict.RESOLVED
        else:
            verdict = Verdict.REOPENED if (incident.id, TimelineKind.REOPENED) in recorded else Verdict.JOINED
        _verdict_of_changes(batch, incident, changed, verdict)


def _split_off(batch: Batch, origin: IncidentRow, state: IncidentState) -> IncidentRow:
    incident = replace(
        origin,
        id=batch.new_id(batch.now),
        number=None,
        labels=dict(origin.labels),
        source_ids=set(origin.source_ids),
        state=state,
        settled=False,
        declared=False,
        new=True,
        dirty=True,
        common_changed=False,
    )
    batch.incidents[incident.id] = incident
    return incident
