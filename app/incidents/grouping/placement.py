"""Assigns every new or changed alert to an incident, and a verdict to each signal. Pure.

`apply_incrementally` needs only the newest incident of a key. Where that is not enough, `regroup` applies the law to
all incidents and alerts around the change.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from app.incidents.grouping import lifecycle
from app.incidents.grouping.batch import AlertRow, Batch, IncidentRow
from app.incidents.grouping.lifecycle import Course, Placement
from app.incidents.grouping.signal import End, Signal, Verdict
from app.incidents.grouping.timeline import TimelineKind

# Looked up once: access to an enum member costs as much as a small function call.
_OPENED, _JOINED = Verdict.OPENED, Verdict.JOINED
_OPENS, _UNCLEAR = Placement.OPENS, Placement.UNCLEAR


def place_by_newest(
    batch: Batch, newest: Sequence[IncidentRow], by_key: Mapping[UUID, Sequence[AlertRow]]
) -> list[UUID]:
    """Places the changed alerts of each key by its newest incident; returns the keys for which that is insufficient."""
    batch.add_incidents(newest)
    of_key = {incident.key_id: incident for incident in newest}
    return [key for key, rows in by_key.items() if not apply_incrementally(batch, of_key.get(key), rows)]


def apply_incrementally(batch: Batch, newest: IncidentRow | None, rows: Sequence[AlertRow]) -> bool:
    """Applies the changed alerts of one key to its newest incident; returns False, without changes, if insufficient."""
    ending = [row for row in rows if row.incoming is None]
    starting = [row for row in rows if row.incoming is not None]
    if len(rows) > 1:
        ending.sort(key=lambda row: (row.end is None, row.end and row.end.at))
        starting.sort(key=lambda row: (row.started_at, row.series))
    course = newest.course if newest else None
    for row in ending:
        before = row.before[0] if row.before else None
        if newest is None or course is None or row.incident_id != newest.id or row.end is None:
            return False
        course = lifecycle.ended(course, row.as_law(before), row.end)
        if course is None:
            return False
    ended = course
    steps: list[tuple[AlertRow, bool, Course]] = []
    for row in starting:
        alert = row.as_law(row.end)
        placement = lifecycle.classify(course, alert)
        if placement is _UNCLEAR:
            return False
        opens = course is None or placement is _OPENS
        course = lifecycle.opened(alert) if course is None or opens else lifecycle.joined(course, alert)
        steps.append((row, opens, course))
    began = newest.course if newest else None
    if newest is not None and ended is not None and ending:
        newest.course = ended
        _verdict_of_changes(batch, newest, ending, Verdict.RESOLVED)
    _take_steps(batch, newest, began, steps)
    return True


def _take_steps(
    batch: Batch, incident: IncidentRow | None, before: Course | None, steps: Sequence[tuple[AlertRow, bool, Course]]
) -> None:
    """`before` is the course of the incident before this batch."""
    for row, opens, after in steps:
        if opens or incident is None:
            if incident is not None and before is not None:
                _note_move(batch, incident, before)
            incident = _new_incident(batch, row, after)
            before = replace(after, open_alerts=1)  # so that an end is recorded
            batch.record(incident.id, row.started_at, TimelineKind.OPENED)
            verdict = _OPENED
        else:
            assert before is not None, "an incident has a course"
            verdict = _JOINED
            if after.reopened > incident.course.reopened or (before.ended_at and not after.ended_at):
                verdict = Verdict.REOPENED
                _note_move(batch, incident, before)
                before = incident.course
            _take_in(incident, row)
            incident.course = after
        row.incident_id = incident.id
        _verdict_of_changes(batch, incident, [row], verdict)
    if incident is not None and before is not None:
        _note_move(batch, incident, before)


def _new_incident(batch: Batch, row: AlertRow, course: Course) -> IncidentRow:
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
        labels=dict(incoming.signal.labels),
        source_ids={row.source_id},
        course=course,
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
    labels = row.labels or {}
    if not incident.labels.items() <= labels.items():
        incident.labels = {name: value for name, value in incident.labels.items() if labels.get(name) == value}
        incident.common_changed = True
    if row.source_id not in incident.source_ids:
        incident.source_ids.add(row.source_id)
        incident.common_changed = True


def _note_move(batch: Batch, incident: IncidentRow, before: Course) -> None:
    """Records the consequences of a changed course: timeline entries and corrections of settled history."""
    course = incident.course
    if course == before:
        return
    incident.dirty = True
    had_ended_at, ended_at = before.ended_at, course.ended_at
    if course.reopened > before.reopened or (had_ended_at is not None and ended_at is None):
        batch.record(incident.id, course.stretch_began_at, TimelineKind.REOPENED)
    if ended_at is not None and ended_at != had_ended_at:
        batch.record(incident.id, ended_at, TimelineKind.RESOLVED, {"reason": str(course.end_reason)})
    if incident.settled and (
        (before.began_at, had_ended_at, before.reopened) != (course.began_at, ended_at, course.reopened)
    ):
        batch.corrections += 1


def _verdict_of_changes(batch: Batch, incident: IncidentRow, rows: Sequence[AlertRow], verdict: Verdict) -> None:
    """Sets the verdict of the signals that changed these alerts. The first signal of a new alert created it, later ones
    ended it.
    """
    for row in rows:
        for position, index in enumerate(row.caused):
            if incident.settled:
                batch.verdicts[index] = Verdict.LATE
            elif position == 0 or not row.new:
                batch.verdicts[index] = verdict


# — regrouping by the law —


def touched_span(rows: Sequence[AlertRow]) -> tuple[datetime, datetime | None]:
    """The time in which these alerts, as they are or were, may connect others; an end of None means unbounded."""
    ends = [end for row in rows for end in _reaches(row)]
    return min(row.started_at for row in rows), None if None in ends else max(end for end in ends if end)


def _reaches(row: AlertRow) -> list[datetime | None]:
    ends: tuple[End | None, ...] = (row.end, *(row.before or (row.end,)))
    return [end.at + row.window if end else None for end in ends]


def regroup(batch: Batch, known: Sequence[IncidentRow], rows: Sequence[AlertRow], changed: Sequence[AlertRow]) -> None:
    """Applies the law to the chains of one key: updates alerts, courses and ids."""
    by_id = {(row.series, row.started_at): row for row in rows}
    groups = lifecycle.incidents_of(row.as_law(row.end) for row in rows)
    was_in = {member: row.incident_id for member, row in by_id.items() if row.incident_id is not None}
    age = {incident.id: incident.number or 0 for incident in known}
    members_of = [[(alert.series, alert.started_at) for alert in group] for group in groups]
    heirs = lifecycle.succession(members_of, was_in, age)
    touched = {(row.series, row.started_at): row for row in changed}
    kept: list[IncidentRow] = []
    for group, members, heir in zip(groups, members_of, heirs.heirs, strict=True):
        course = lifecycle.course_of(group)
        member_rows = [by_id[member] for member in members]
        # Changes to settled history count as corrections; settled incidents are never counted twice.
        settled = any(batch.incidents[was_in[m]].settled for m in members if m in was_in)
        if heir is not None:
            incident = batch.incidents[heir]
            before, incident.course = incident.course, course
            _note_move(batch, incident, before)
        elif any(member in was_in for member in members):
            origin = batch.incidents[next(was_in[member] for member in members if member in was_in)]
            incident = _split_off(batch, origin, course)
            batch.split[origin.id].append(incident)
            batch.record(origin.id, course.began_at, TimelineKind.SPLIT, {"into": str(incident.id)})
            batch.record(incident.id, course.began_at, TimelineKind.SPLIT, {"from": str(origin.id)})
            batch.corrections += settled
        else:
            incident = _new_incident(batch, member_rows[0], course)
            batch.record(incident.id, course.began_at, TimelineKind.OPENED)
            if course.ended_at is not None:
                batch.record(incident.id, course.ended_at, TimelineKind.RESOLVED, {"reason": str(course.end_reason)})
        incident.settled = settled
        incident.dirty = True
        incident.still_firing = any(
            row.manual_end_at and not row.sender_ended and row.seen_again and not row.new for row in member_rows
        ) or (incident.still_firing and any(row.manual_end_at and not row.sender_ended for row in member_rows))
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
        batch.record(winner.id, winner.course.began_at, TimelineKind.MERGED, {"from": str(loser)})
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


def _split_off(batch: Batch, origin: IncidentRow, course: Course) -> IncidentRow:
    incident = replace(
        origin,
        id=batch.new_id(batch.now),
        number=None,
        labels=dict(origin.labels),
        source_ids=set(origin.source_ids),
        course=course,
        still_firing=False,
        settled=False,
        declared=False,
        new=True,
        dirty=True,
        common_changed=False,
    )
    batch.incidents[incident.id] = incident
    return incident


def note_still_firing(batch: Batch) -> None:
    """Marks incidents with repeats of manually ended alerts as still firing; such repeats do not reopen them."""
    for row in batch.shown.values():
        if row.manual_end_at and not row.sender_ended and row.seen_again and row.incident_id:
            incident = batch.incidents[row.incident_id]
            incident.dirty |= not incident.still_firing
            incident.still_firing = True
