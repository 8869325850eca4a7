"""Corrections of what people recorded: a fact gets another time, text or author, or is withdrawn.

The entries of a fact stay in the timeline, and what depends on it is derived anew. Correcting or withdrawing a resolve
moves the ends of the alerts that it ended, and the grouping decides what follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Conflict, Invalid, NotFound
from app.base.schema import Incident, TimelineEntry
from app.base.values.ids import new_id
from app.incidents.actions import (
    Ref,
    before_detection,
    derive,
    detected_at,
    find,
    hold,
    is_declared_response,
    not_in_the_future,
    require_newest,
    resolved_before,
)
from app.incidents.grouping.batch import AlertRow, Batch
from app.incidents.grouping.decide import change_manual_ends, place, read_ended_by_resolve
from app.incidents.grouping.signal import EndReason
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.grouping.write import write
from app.incidents.history import timeline
from app.incidents.history.details import InvalidDetail, corrected
from app.incidents.history.notes import NEED_TEXT, NoteIsEmpty, TaskDetails, require_playbook, whole
from app.incidents.history.path import Effect, PlaybookVersion, Stage
from app.incidents.history.timeline import Attribution, Correction
from app.incidents.refusals import LaterAlertExists


class EntryNotFound(NotFound):
    title = "Timeline entry not found"


class EntryElsewhere(Conflict):
    title = "Timeline entry of another incident"


class NotCorrectable(Conflict):
    title = "Entry cannot be corrected"


class Withdrawn(Conflict):
    title = "Entry was withdrawn"


class AlertsDeleted(Conflict):
    title = "Alerts were deleted"


class NotATask(Invalid):
    title = "Entry is not a task"


@dataclass(frozen=True, slots=True)
class CorrectedValues:
    """The corrected values; None leaves a value as it is. `detail` has fields of the kinds in details.py, and those
    after it are only of a task.
    """

    at: datetime | None = None
    author: str | None = None
    note: str | None = None
    detail: Mapping[str, Any] | None = None
    effect: Effect | None = None
    ended_at: datetime | None = None
    stage: Stage | None = None
    link: str | None = None
    command: str | None = None
    playbook: PlaybookVersion | None = None


async def correct(
    session: AsyncSession,
    ref: Ref,
    entry_id: int,
    change: CorrectedValues,
    *,
    by: str,
    why: str | None = None,
    if_match: str | None = None,
    now: datetime,
) -> Incident:
    """Corrects a fact; any entry of it names it. A correction that changes nothing is not recorded.

    A fact whose new time lies within another incident of the same grouping key moves there, as it would in a split.
    Raises IncidentNotFound, MergedAway, PreconditionFailed, EntryNotFound, EntryElsewhere, NotCorrectable, Withdrawn,
    InTheFuture, NoteIsEmpty, AlertsDeleted or LaterAlertExists; BeforeDetection or AlreadyResolved for an
    acknowledgement; NotATask, EndsBeforeItBegan or UnknownPlaybook for the details of a task; InvalidDetail for those
    of other kinds.
    """
    row = await hold(session, ref, if_match)
    entry = await _current(session, row, entry_id)
    kind = TimelineKind(entry.kind)
    if kind is TimelineKind.WITHDRAWN:
        message = "this entry was withdrawn; record it again instead"
        raise Withdrawn(message)
    before = Attribution(entry.at, entry.by, entry.note)
    note = entry.note if change.note is None else change.note or None
    after = Attribution(change.at or entry.at, change.author or entry.by, note)
    detail = _detail(entry, kind, change, after.at, now)
    await require_playbook(session, change.playbook)
    if (before, whole(entry.detail, detail)) == (after, detail):
        return row
    if kind in NEED_TEXT and not after.note:
        message = f"a {kind} needs text; withdraw the entry to remove it"
        raise NoteIsEmpty(message)
    moves = after.at != before.at
    target = await _incident_of(session, row, entry, after.at, now=now) if moves else row
    correction = Correction(timeline.fact_of(entry), by, why)
    await timeline.append(session, target.id, kind, after, detail=detail, correction=correction, now=now)
    if moves and kind is TimelineKind.RESOLVED:
        await _move_resolve(session, row, before.at, after.at, now=now)
    await _derive(session, {row.id: row, target.id: target}, now=now)
    return row


async def withdraw(
    session: AsyncSession,
    ref: Ref,
    entry_id: int,
    *,
    by: str,
    why: str | None = None,
    if_match: str | None = None,
    now: datetime,
) -> Incident:
    """Withdraws a fact; it stays readable, but does not count. Withdrawing it again changes nothing.

    Raises IncidentNotFound, MergedAway, PreconditionFailed, EntryNotFound, EntryElsewhere, NotCorrectable or
    AlertsDeleted; NewerIncidentExists if withdrawing a resolve would leave an older incident of the key open.
    """
    row = await hold(session, ref, if_match)
    entry = await _current(session, row, entry_id)
    kind = TimelineKind(entry.kind)
    if kind is TimelineKind.WITHDRAWN:
        return row
    if kind in _UNDONE_ELSEWHERE and not is_declared_response(entry):
        raise NotCorrectable(f"this entry cannot be withdrawn; {_UNDONE_ELSEWHERE[kind]}")
    # With the time of the fact, so that it follows it in a split.
    withdrawal = Attribution(entry.at, by)
    correction = Correction(timeline.fact_of(entry), by, why)
    await timeline.append(session, row.id, TimelineKind.WITHDRAWN, withdrawal, correction=correction, now=now)
    if kind is TimelineKind.RESOLVED:
        await _move_resolve(session, row, entry.at, None, now=now)
    await _derive(session, {row.id: row}, now=now)
    return row


_TIME_IS_ELSEWHERE: Mapping[TimelineKind, str] = {
    TimelineKind.DECLARED: "PATCH the incident's `detected_at` instead",
    TimelineKind.REOPENED: "an incident is reopened without a gap",
    TimelineKind.CHANGED: "it is when the change was recorded",
    TimelineKind.RELATED: "it is when the relation was recorded",
    TimelineKind.UNRELATED: "it is when the relation was removed",
}
_UNDONE_ELSEWHERE: Mapping[TimelineKind, str] = {
    TimelineKind.DECLARED: "resolve the incident, or correct its severity to `sev5`",
    TimelineKind.REOPENED: "resolve the incident instead",
    TimelineKind.CHANGED: "PATCH the incident again instead; null restores a value derived from the alerts",
    TimelineKind.RELATED: "DELETE the relation instead",
    TimelineKind.UNRELATED: "PUT the relation again instead",
}
_DERIVED = frozenset({TimelineKind.OPENED, TimelineKind.MERGED, TimelineKind.SPLIT, TimelineKind.PUBLISHED})


def _detail(
    entry: TimelineEntry, kind: TimelineKind, change: CorrectedValues, at: datetime, now: datetime
) -> Mapping[str, Any] | None:
    """The `detail` of an entry corrected to this time. Raises NotATask, InvalidDetail, EndsBeforeItBegan or
    InTheFuture.
    """
    changed = {name: value for name in _OF_TASKS if (value := getattr(change, name)) is not None}
    if kind is TimelineKind.TASK:
        details = replace(TaskDetails.of(entry.detail or {}), **changed)
        details.check(at, now)
        if change.detail is None:
            return details.stored()
        message = f"correct {_listed('or', _OF_TASKS)} of a task, not its `detail`"
        raise InvalidDetail(message)
    if changed:
        message = f"only a task has {_listed('and', [*changed])}; this entry is of kind `{kind}`"
        raise NotATask(message)
    return entry.detail if change.detail is None else corrected(kind, entry.detail, change.detail)


_OF_TASKS = tuple(field.name for field in fields(TaskDetails))


def _listed(word: str, names: Sequence[str]) -> str:
    *most, last = (f"`{name}`" for name in names)
    return f"{', '.join(most)} {word} {last}" if most else last


async def _current(session: AsyncSession, row: Incident, entry_id: int) -> TimelineEntry:
    """The newest entry of the fact. Raises EntryNotFound, EntryElsewhere or NotCorrectable."""
    entry = await session.get(TimelineEntry, entry_id, populate_existing=True)
    if entry is None:
        message = f"there is no timeline entry {entry_id}; GET /api/v1/incidents/{{id}}/timeline lists the entries"
        raise EntryNotFound(message)
    current = (await timeline.entries_of_facts(session, [timeline.fact_of(entry)]))[-1]
    if current.incident_id != row.id:
        other = await find(session, current.incident_id)
        message = f"the entry is in the timeline of INC-{other.number} as entry {current.id}; correct it there"
        raise EntryElsewhere(message)
    if current.kind == TimelineKind.PUBLISHED:
        message = "this entry is an update on the status page; correct it there"
        raise NotCorrectable(message)
    if not recorded_by_a_person(current):
        message = "this entry is derived from alerts; PATCH the incident's times, or resolve or reopen it instead"
        raise NotCorrectable(message)
    return current


def recorded_by_a_person(entry: TimelineEntry) -> bool:
    """Whether a person recorded the entry, or a source reported it for one; not what is recorded on the status page."""
    if entry.kind == TimelineKind.RESOLVED:
        return not (entry.detail and "reason" in entry.detail)
    if entry.kind == TimelineKind.REOPENED:
        return entry.by is not None
    return entry.kind not in _DERIVED


async def _incident_of(
    session: AsyncSession, row: Incident, entry: TimelineEntry, at: datetime, *, now: datetime
) -> Incident:
    """The incident of a fact with this new time: that of the key during which it was, else `row`.

    Raises NotCorrectable, InTheFuture, BeforeDetection or AlreadyResolved.
    """
    kind = TimelineKind(entry.kind)
    if kind in _TIME_IS_ELSEWHERE and not is_declared_response(entry):
        raise NotCorrectable(f"the time of this entry cannot be corrected: {_TIME_IS_ELSEWHERE[kind]}")
    not_in_the_future(at, now)
    if kind is TimelineKind.RESOLVED:
        return row  # with the alerts that it ended
    query = (
        select(Incident)
        .where(
            Incident.key_id == row.key_id,
            col(Incident.merged_into).is_(None),
            col(Incident.began_at) <= at,
            or_(col(Incident.ended_at).is_(None), col(Incident.ended_at) >= at),
        )
        .order_by(col(Incident.began_at).desc())
        .with_for_update()
    )
    found = (await session.exec(query)).first() or row
    if kind in {TimelineKind.ACKNOWLEDGED, TimelineKind.DECLARED}:
        if at < detected_at(found):
            raise before_detection(found, kind)
        if found.ended_at is not None and at > found.ended_at:
            raise resolved_before(found, kind)
    return found


async def _derive(session: AsyncSession, incidents: Mapping[UUID, Incident], *, now: datetime) -> None:
    """Derives what follows from the timelines, unless moving a resolve has merged the incident into another."""
    rows = [row for row in incidents.values() if row.merged_into is None]
    await derive(session, rows, corrected=True, now=now)


async def _move_resolve(
    session: AsyncSession, row: Incident, before: datetime, after: datetime | None, *, now: datetime
) -> None:
    """Moves the ends of the alerts that the resolve ended, or removes them. The incident's key must be locked."""
    batch = Batch(now, new_id)
    tx = await session.connection()
    alerts = await read_ended_by_resolve(tx, batch, row.key_id, before)
    _check_move(row, alerts, before, after)
    changed = await change_manual_ends(tx, batch, alerts, after)
    if after is None and any(alert.end is None for alert in changed):
        await require_newest(session, row)
    await place(tx, batch, changed, whole_chains=True)
    # The correction stands for this end.
    batch.timeline = [entry for entry in batch.timeline if (entry.kind, entry.at) != (TimelineKind.RESOLVED, after)]
    await write(tx, batch)
    await session.refresh(row)


def _check_move(row: Incident, alerts: list[AlertRow], before: datetime, after: datetime | None) -> None:
    if not alerts and (row.ended_at, row.end_reason) == (before, EndReason.MANUAL):
        message = "the alerts of this incident have been deleted, so its end can no longer be corrected"
        raise AlertsDeleted(message)
    latest = max((alert.started_at for alert in alerts), default=None)
    if latest is not None and after is not None and after < latest:
        message = (
            f"the newest alert that it ended began at {latest.isoformat()}; correct the resolve to that time or later"
        )
        raise LaterAlertExists(message)
