"""What people say of an incident: declare, acknowledge, milestones, resolve, reopen, correct, note.

Each is a fact with a time of its own, kept in the timeline. What changes alerts (resolve, reopen, declare) goes the way
of the law afterwards, as signals do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.errors import Conflict, Invalid, NotFound, Stale
from app.base.ids import new_id
from app.base.schema import incident, timeline
from app.incidents.grouping.batch import PEOPLE, AlertRow, Batch, Incoming
from app.incidents.grouping.decide import derive_without_manual_ends, lock_keys, place, read_open_alerts, series_of
from app.incidents.grouping.rule import Decision
from app.incidents.grouping.signal import End, EndReason, Signal, Status
from app.incidents.grouping.timeline import TimelineKind
from app.incidents.grouping.write import count, write

CLOCK_SKEW = timedelta(minutes=5)
DECLARED_WINDOW, DECLARED_MAX_SPAN = timedelta(minutes=5), timedelta(hours=24)


class IncidentNotFound(NotFound):
    title = "No such incident"


class MergedAway(Conflict):
    title = "The incident is part of another one"


class AlreadyResolved(Conflict):
    title = "The incident is resolved"


class AlertBeganLater(Conflict):
    title = "An alert of the incident began later"


class BeganAnew(Conflict):
    title = "A later incident of the same trouble has begun"


class InTheFuture(Invalid):
    title = "The time lies in the future"


@dataclass(frozen=True, slots=True)
class Said:
    """Who says when it happened, and what they add."""

    at: datetime
    by: str | None = None
    note: str | None = None


Ref = UUID | int  # id, or the number behind `INC-`


async def find(tx: AsyncConnection, ref: Ref) -> Any:
    """The row of `incident`. Raises IncidentNotFound."""
    column = incident.c.id if isinstance(ref, UUID) else incident.c.number
    found = (await tx.execute(select(incident).where(column == ref))).one_or_none()
    if found is None:
        message = "there is no incident of this id; GET /api/v1/incidents lists them"
        raise IncidentNotFound(message)
    return found


async def _hold(tx: AsyncConnection, ref: Ref, if_match: str | None = None) -> Any:
    """The row, with its key locked. Raises IncidentNotFound, MergedAway or Stale."""
    found = await find(tx, ref)
    await lock_keys(tx, [found.key_id])
    row = (await tx.execute(select(incident).where(incident.c.id == found.id).with_for_update())).one()
    if row.merged_into is not None:
        winner = await find(tx, row.merged_into)
        message = f"it was merged into INC-{winner.number}: say it there"
        raise MergedAway(message)
    wanted = {one.strip() for one in if_match.split(",")} if if_match is not None else {"*"}
    if wanted.isdisjoint({"*", etag(row.version)}):
        message = f"the incident is at version {etag(row.version)}; get it again and decide anew"
        raise Stale(message)
    return row


def etag(version: int) -> str:
    return f'"{version}"'


async def declare(
    tx: AsyncConnection,
    *,
    title: str,
    service: str,
    severity: int,
    impact_started_at: datetime | None,
    said: Said,
    now: datetime,
) -> UUID:
    """An incident without alerts: open from `said.at` until a person resolves it."""
    _not_in_the_future(said.at, now)
    if impact_started_at is not None:
        _not_in_the_future(impact_started_at, now)
    declared_id = uuid4()
    decision = Decision(
        rule="declared",
        service=service,
        severity=severity,
        key="declared",
        key_id=declared_id,
        window=DECLARED_WINDOW,
        max_span=DECLARED_MAX_SPAN,
    )
    signal = Signal(f"declared:{declared_id}", Status.FIRING, said.at)
    batch = Batch(now, new_id)
    row = _held_open(batch, declared_id, Incoming(signal, PEOPLE, decision, now))
    await place(tx, batch, [row])
    [opened] = batch.incidents.values()
    opened.title, opened.declared = title, True
    await write(tx, batch)
    if impact_started_at is not None:
        await tx.execute(
            update(incident).where(incident.c.id == opened.id).values(impact_started_at_stated=impact_started_at)
        )
    if said.by or said.note:
        await _tell(tx, opened.id, "declared", said, now)
    return opened.id


async def acknowledge(tx: AsyncConnection, ref: Ref, said: Said | None, *, by: str | None, now: datetime) -> UUID:
    """The first acknowledgement counts. Telling it again changes nothing, an earlier time does.

    Raises IncidentNotFound, MergedAway, InTheFuture or AlreadyResolved.
    """
    row = await _hold(tx, ref)
    said = said or Said(now, by)
    _not_in_the_future(said.at, now)
    if row.acknowledged_at is not None and said.at >= row.acknowledged_at:
        return row.id  # type: ignore[no-any-return]
    if row.ended_at is not None and said.at > row.ended_at:
        message = (
            f"it was resolved at {row.ended_at.isoformat()}; acknowledge with an `at` before that, or reopen it first"
        )
        raise AlreadyResolved(message)
    await _state(tx, row, {"acknowledged_at": said.at, "acknowledged_by": said.by}, now)
    await _tell(tx, row.id, "acknowledged", said, now)
    return row.id  # type: ignore[no-any-return]


async def milestone(tx: AsyncConnection, ref: Ref, name: str, said: Said, *, now: datetime) -> UUID:
    """`identified` or `mitigated`; the last word on its time counts.

    Raises IncidentNotFound, MergedAway or InTheFuture.
    """
    row = await _hold(tx, ref)
    _not_in_the_future(said.at, now)
    column = f"{name}_at"
    if row._mapping[column] != said.at:
        await _state(tx, row, {column: said.at}, now)
        await tx.execute(_MARK_CORRECTED, {"id": row.id, "kind": name})
        await _tell(tx, row.id, name, said, now)
    return row.id  # type: ignore[no-any-return]


# What was said before stays to be read, but must not come back where a split parts it from its correction.
_MARK_CORRECTED = text("""
    UPDATE timeline
       SET detail = '{"corrected": true}'
     WHERE incident_id = :id
       AND kind = :kind
""")


async def note(tx: AsyncConnection, ref: Ref, said: Said, *, now: datetime) -> UUID:
    """Raises IncidentNotFound, MergedAway or InTheFuture."""
    row = await _hold(tx, ref)
    _not_in_the_future(said.at, now)
    await _tell(tx, row.id, "note", said, now)
    return row.id  # type: ignore[no-any-return]


async def tell(
    tx: AsyncConnection, ref: Ref, kind: str, said: Said, *, detail: dict[str, object], now: datetime
) -> UUID:
    """Keeps in the timeline what a person says of the incident to another slice, which reads it there.

    Raises IncidentNotFound, MergedAway or InTheFuture.
    """
    row = await _hold(tx, ref)
    _not_in_the_future(said.at, now)
    await _tell(tx, row.id, kind, said, now, detail)
    return row.id  # type: ignore[no-any-return]


async def resolve(tx: AsyncConnection, ref: Ref, said: Said, *, at_stated: bool, now: datetime) -> UUID:
    """Ends the open alerts there and then. Repeats of those alerts do not reopen it; a new one within the window does.

    Raises IncidentNotFound, MergedAway, InTheFuture, AlreadyResolved (at another time) or AlertBeganLater.
    """
    row = await _hold(tx, ref)
    _not_in_the_future(said.at, now)
    if row.ended_at is not None:
        if at_stated and said.at != row.ended_at:
            message = f"it was resolved at {row.ended_at.isoformat()}; reopen it first to resolve it at another time"
            raise AlreadyResolved(message)
        return row.id  # type: ignore[no-any-return]
    if said.at < row.last_start_at:
        message = f"its newest alert began at {row.last_start_at.isoformat()}; resolve it at or after that"
        raise AlertBeganLater(message)
    batch = Batch(now, new_id)
    open_alerts = await read_open_alerts(tx, batch, row.id)
    for alert in open_alerts:
        alert.before = (alert.end,)
        alert.manual_end_at = said.at
        alert.end = End(said.at, EndReason.MANUAL)
    await place(tx, batch, open_alerts, whole_chains=True)
    batch.timeline = [
        entry for entry in batch.timeline if (entry.incident_id, entry.kind) != (row.id, TimelineKind.RESOLVED)
    ]
    await write(tx, batch)
    await _tell(tx, row.id, "resolved", said, now)
    return row.id  # type: ignore[no-any-return]


async def reopen(tx: AsyncConnection, ref: Ref, said: Said, *, now: datetime) -> UUID:
    """It is not over: takes a person's resolve back, or holds the incident open where its alerts have really ended.

    The outage then lasts from before, without a gap: it must be the newest of its trouble, or it would swallow those
    after it. Raises IncidentNotFound, MergedAway, InTheFuture or BeganAnew.
    """
    row = await _hold(tx, ref)
    _not_in_the_future(said.at, now)
    if row.ended_at is None:
        return row.id  # type: ignore[no-any-return]
    later = (await tx.execute(_LATER, {"key_id": row.key_id, "began_at": row.began_at})).scalar()
    if later is not None:
        message = f"the same trouble began anew as INC-{later}; speak of that one"
        raise BeganAnew(message)
    batch = Batch(now, new_id)
    changed = await derive_without_manual_ends(tx, batch, row.id)
    if not any(alert.end is None for alert in changed):
        changed.append(_held_open(batch, row.key_id, _hold_of(row, now)))
    await place(tx, batch, changed, whole_chains=True)
    batch.timeline = [
        entry for entry in batch.timeline if (entry.incident_id, entry.kind) != (row.id, TimelineKind.REOPENED)
    ]
    await write(tx, batch)
    await _tell(tx, row.id, "reopened", said, now)
    return row.id  # type: ignore[no-any-return]


_LATER = text("""
    SELECT number
      FROM incident
     WHERE key_id = :key_id
       AND merged_into IS NULL
       AND began_at > :began_at
     ORDER BY began_at DESC
     LIMIT 1
""")


async def amend(
    tx: AsyncConnection, ref: Ref, changes: Mapping[str, Any], *, by: str | None, if_match: str | None, now: datetime
) -> UUID:
    """Corrects what a person may state; `changes` maps columns of `incident` to values, None takes a word back.

    Raises IncidentNotFound, MergedAway, Stale or InTheFuture.
    """
    row = await _hold(tx, ref, if_match)
    for value in changes.values():
        if isinstance(value, datetime):
            _not_in_the_future(value, now)
    different = {name: value for name, value in changes.items() if row._mapping[name] != value}
    if different:
        if different.get("service_stated"):
            await tx.execute(_ADD_SERVICE, {"name": different["service_stated"], "now": now})
        await _state(tx, row, different, now)
        shown = {name.removesuffix("_stated"): _plain(value) for name, value in different.items()}
        await _tell(tx, row.id, "changed", Said(now, by), now, detail=shown)
    return row.id  # type: ignore[no-any-return]


_ADD_SERVICE = text("""
    INSERT INTO service (name, first_seen_at, updated_at)
    VALUES (:name, :now, :now)
        ON CONFLICT DO NOTHING
""")


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, int | str) else str(value)


def _not_in_the_future(at: datetime, now: datetime) -> None:
    if at > now + CLOCK_SKEW:
        message = f"{at.isoformat()} is still to come; facts have happened"
        raise InTheFuture(message)


def _hold_of(row: Any, now: datetime) -> Incoming:
    """What a person's word to hold an incident open amounts to: an alert of `people` from where the others ended."""
    decision = Decision(
        rule=row.rule,
        service=row.service,
        severity=row.severity,
        key=row.key,
        key_id=row.key_id,
        window=DECLARED_WINDOW,
        max_span=DECLARED_MAX_SPAN,
    )
    return Incoming(Signal(f"held:{row.id}", Status.FIRING, row.ended_at, labels=row.labels), PEOPLE, decision, now)


def _held_open(batch: Batch, key_id: UUID, incoming: Incoming) -> AlertRow:
    started_at = incoming.signal.started_at
    assert started_at is not None, "people state when"
    row = AlertRow(
        series=series_of(PEOPLE, incoming.signal.fingerprint),
        started_at=started_at,
        source_id=PEOPLE,
        key_id=key_id,
        incident_id=None,
        window=incoming.decision.window,
        max_span=incoming.decision.max_span,
        severity=incoming.decision.severity,
        labels=incoming.signal.labels,
        incoming=incoming,
        last_seen_at=incoming.received_at,
    )
    batch.rows.append(row)
    return row


async def _state(tx: AsyncConnection, row: Any, values: Mapping[str, Any], now: datetime) -> None:
    await tx.execute(
        update(incident).where(incident.c.id == row.id).values(**values, version=incident.c.version + 1, updated_at=now)
    )
    if row.settled_at is not None:
        await count(tx, [("history_corrections", "", "", 1)])


async def _tell(
    tx: AsyncConnection,
    incident_id: UUID,
    kind: str,
    said: Said,
    now: datetime,
    detail: dict[str, object] | None = None,
) -> None:
    await tx.execute(
        insert(timeline).values(
            incident_id=incident_id,
            at=said.at,
            recorded_at=now,
            kind=kind,
            by=said.by,
            note=said.note,
            detail=detail,
        )
    )
