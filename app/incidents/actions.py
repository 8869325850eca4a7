"""Actions by people: declare, acknowledge, set milestones, resolve, reopen, correct and comment on incidents.

Each action has its own time and is recorded in the timeline. Actions that change alerts (resolve, reopen, declare) are
grouped by the same rules as signals. Every action returns the updated incident.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Conflict, Invalid, NotFound, Stale
from app.base.ids import new_id
from app.base.schema import Incident
from app.incidents import timeline
from app.incidents.grouping.batch import MANUAL_SOURCE_ID, AlertRow, Batch, Incoming
from app.incidents.grouping.decide import derive_without_manual_ends, lock_keys, place, read_open_alerts, series_of
from app.incidents.grouping.rule import Decision
from app.incidents.grouping.signal import End, EndReason, Signal, Status
from app.incidents.grouping.timeline import TimelineKind
from app.incidents.grouping.write import count, write
from app.incidents.timeline import Attribution

CLOCK_SKEW = timedelta(minutes=5)
DECLARED_WINDOW, DECLARED_MAX_SPAN = timedelta(minutes=5), timedelta(hours=24)


class IncidentNotFound(NotFound):
    title = "Incident not found"


class MergedAway(Conflict):
    title = "Incident was merged"


class AlreadyResolved(Conflict):
    title = "Incident already resolved"


class LaterAlertExists(Conflict):
    title = "Incident has a later alert"


class NewerIncidentExists(Conflict):
    title = "Newer incident with the same key"


class InTheFuture(Invalid):
    title = "Time in the future"


Ref = UUID | int  # the id, or the number after `INC-`


async def find(session: AsyncSession, ref: Ref) -> Incident:
    """Raises IncidentNotFound."""
    column = col(Incident.id) if isinstance(ref, UUID) else col(Incident.number)
    # Reload a row that the session already holds: raw statements may have changed it since.
    query = select(Incident).where(column == ref).execution_options(populate_existing=True)
    found = (await session.exec(query)).one_or_none()
    if found is None:
        message = "no incident has this id; GET /api/v1/incidents lists all incidents"
        raise IncidentNotFound(message)
    return found


async def _hold(session: AsyncSession, ref: Ref, if_match: str | None = None) -> Incident:
    """Locks the incident's key and reads its row. Raises IncidentNotFound, MergedAway or Stale."""
    row = await find(session, ref)
    await lock_keys(await session.connection(), [row.key_id])
    await session.refresh(row, with_for_update=True)
    if row.merged_into is not None:
        winner = await find(session, row.merged_into)
        message = f"this incident was merged into INC-{winner.number}; use INC-{winner.number} instead"
        raise MergedAway(message)
    wanted = {one.strip() for one in if_match.split(",")} if if_match is not None else {"*"}
    if wanted.isdisjoint({"*", etag(row.version)}):
        message = f"the incident is at version {etag(row.version)}; fetch it again and retry"
        raise Stale(message)
    return row


def etag(version: int) -> str:
    return f'"{version}"'


async def declare(
    session: AsyncSession,
    *,
    title: str,
    service: str,
    severity: int,
    impact_started_at: datetime | None,
    attribution: Attribution,
    now: datetime,
) -> Incident:
    """Opens an incident without alerts at `attribution.at`; it ends when a person resolves it. Raises InTheFuture."""
    _not_in_the_future(attribution.at, now, field="detected_at")
    if impact_started_at is not None:
        _not_in_the_future(impact_started_at, now, field="impact_started_at")
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
    signal = Signal(f"declared:{declared_id}", Status.FIRING, attribution.at)
    batch = Batch(now, new_id)
    tx = await session.connection()
    await place(tx, batch, [_held_open(batch, declared_id, Incoming(signal, MANUAL_SOURCE_ID, decision, now))])
    [opened] = batch.incidents.values()
    opened.title, opened.declared = title, True
    await write(tx, batch)
    row = await find(session, opened.id)
    if impact_started_at is not None:
        row.impact_started_at_stated = impact_started_at
        await session.flush()
        await session.refresh(row)
    if attribution.by or attribution.note:
        await timeline.append(session, row.id, TimelineKind.DECLARED, attribution, now=now)
    return row


async def acknowledge(
    session: AsyncSession, ref: Ref, attribution: Attribution | None, *, by: str | None, now: datetime
) -> Incident:
    """The first acknowledgement counts: repeating it changes nothing, unless its time is earlier.

    Raises IncidentNotFound, MergedAway, InTheFuture or AlreadyResolved.
    """
    row = await _hold(session, ref)
    attribution = attribution or Attribution(now, by)
    _not_in_the_future(attribution.at, now)
    if row.acknowledged_at is not None and attribution.at >= row.acknowledged_at:
        return row
    if row.ended_at is not None and attribution.at > row.ended_at:
        message = (
            f"the incident was resolved at {row.ended_at.isoformat()}; acknowledge it with an earlier `at`, or reopen "
            "it"
        )
        raise AlreadyResolved(message)
    await _change(session, row, {"acknowledged_at": attribution.at, "acknowledged_by": attribution.by}, now)
    await timeline.append(session, row.id, TimelineKind.ACKNOWLEDGED, attribution, now=now)
    return row


async def milestone(
    session: AsyncSession, ref: Ref, kind: TimelineKind, attribution: Attribution, *, now: datetime
) -> Incident:
    """Sets when the incident was IDENTIFIED or MITIGATED; a later call corrects the time.

    Raises IncidentNotFound, MergedAway or InTheFuture.
    """
    row = await _hold(session, ref)
    _not_in_the_future(attribution.at, now)
    column = f"{kind}_at"
    if getattr(row, column) != attribution.at:
        await _change(session, row, {column: attribution.at}, now)
        await (await session.connection()).execute(_MARK_CORRECTED, {"id": row.id, "kind": kind})
        await timeline.append(session, row.id, kind, attribution, now=now)
    return row


# A corrected entry stays in the timeline, but must not count again when a split separates it from its correction.
_MARK_CORRECTED = text("""
    UPDATE timeline
       SET detail = '{"corrected": true}'
     WHERE incident_id = :id
       AND kind = :kind
""")


async def record(
    session: AsyncSession,
    ref: Ref,
    kind: TimelineKind,
    attribution: Attribution,
    *,
    detail: Mapping[str, Any] | None = None,
    now: datetime,
) -> Incident:
    """Adds a timeline entry that leaves the incident itself unchanged: a note, or a fact of another module.

    Raises IncidentNotFound, MergedAway or InTheFuture.
    """
    row = await _hold(session, ref)
    _not_in_the_future(attribution.at, now)
    await timeline.append(session, row.id, kind, attribution, detail=detail, now=now)
    return row


async def resolve(
    session: AsyncSession, ref: Ref, attribution: Attribution, *, at_stated: bool, now: datetime
) -> Incident:
    """Ends the open alerts at `attribution.at`. Repeats of those alerts do not reopen the incident; a new alert within
    the window does.

    Raises IncidentNotFound, MergedAway, InTheFuture, AlreadyResolved (at another time) or LaterAlertExists.
    """
    row = await _hold(session, ref)
    _not_in_the_future(attribution.at, now)
    if row.ended_at is not None:
        if at_stated and attribution.at != row.ended_at:
            message = f"the incident was resolved at {row.ended_at.isoformat()}; to change that, reopen it first"
            raise AlreadyResolved(message)
        return row
    if attribution.at < row.last_start_at:
        message = f"the newest alert began at {row.last_start_at.isoformat()}; resolve the incident at or after that "
        "time"
        raise LaterAlertExists(message)
    batch = Batch(now, new_id)
    open_alerts = await read_open_alerts(await session.connection(), batch, row.id)
    for alert in open_alerts:
        alert.before = (alert.end,)
        alert.manual_end_at = attribution.at
        alert.end = End(attribution.at, EndReason.MANUAL)
    return await _place(session, row, batch, open_alerts, TimelineKind.RESOLVED, attribution)


async def reopen(session: AsyncSession, ref: Ref, attribution: Attribution, *, now: datetime) -> Incident:
    """Undoes a manual resolve, or holds the incident open if its alerts have ended.

    The incident continues without a gap. It must be the newest of its key, because otherwise it would absorb the later
    ones. Raises IncidentNotFound, MergedAway, InTheFuture or NewerIncidentExists.
    """
    row = await _hold(session, ref)
    _not_in_the_future(attribution.at, now)
    if row.ended_at is None:
        return row
    newer = (
        select(Incident.number)
        .where(col(Incident.key_id) == row.key_id)
        .where(col(Incident.merged_into).is_(None))
        .where(col(Incident.began_at) > row.began_at)
        .order_by(col(Incident.began_at).desc())
        .limit(1)
    )
    number = (await session.exec(newer)).first()
    if number is not None:
        message = f"a newer incident, INC-{number}, has the same grouping key; reopen that one"
        raise NewerIncidentExists(message)
    batch = Batch(now, new_id)
    changed = await derive_without_manual_ends(await session.connection(), batch, row.id)
    if not any(alert.end is None for alert in changed):
        changed.append(_held_open(batch, row.key_id, _hold_of(row, now)))
    return await _place(session, row, batch, changed, TimelineKind.REOPENED, attribution)


async def amend(
    session: AsyncSession,
    ref: Ref,
    changes: Mapping[str, Any],
    *,
    by: str | None,
    if_match: str | None,
    now: datetime,
) -> Incident:
    """Corrects facts of the incident. Keys are the names of the `…_stated` columns without that suffix; None removes a
    correction.

    Raises IncidentNotFound, MergedAway, Stale or InTheFuture.
    """
    row = await _hold(session, ref, if_match)
    for name, value in changes.items():
        if isinstance(value, datetime):
            _not_in_the_future(value, now, field=name)
    different = {name: value for name, value in changes.items() if getattr(row, f"{name}_stated") != value}
    if different:
        if different.get("service"):
            await (await session.connection()).execute(_ADD_SERVICE, {"name": different["service"], "now": now})
        await _change(session, row, {f"{name}_stated": value for name, value in different.items()}, now)
        detail = {name: _plain(value) for name, value in different.items()}
        await timeline.append(session, row.id, TimelineKind.CHANGED, Attribution(now, by), detail=detail, now=now)
    return row


_ADD_SERVICE = text("""
    INSERT INTO service (name, first_seen_at, updated_at)
    VALUES (:name, :now, :now)
        ON CONFLICT DO NOTHING
""")


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, int | str) else str(value)


def _not_in_the_future(at: datetime, now: datetime, *, field: str = "at") -> None:
    if at > now + CLOCK_SKEW:
        message = f"`{field}` must not be in the future"
        raise InTheFuture(message)


def _hold_of(row: Incident, now: datetime) -> Incoming:
    """The manual alert that holds an incident open, starting when the other alerts ended."""
    decision = Decision(
        rule=row.rule,
        service=row.service,
        severity=row.severity,
        key=row.key,
        key_id=row.key_id,
        window=DECLARED_WINDOW,
        max_span=DECLARED_MAX_SPAN,
    )
    return Incoming(
        Signal(f"held:{row.id}", Status.FIRING, row.ended_at, labels=row.labels), MANUAL_SOURCE_ID, decision, now
    )


def _held_open(batch: Batch, key_id: UUID, incoming: Incoming) -> AlertRow:
    started_at = incoming.signal.started_at
    assert started_at is not None, "manual alerts have a start"
    row = AlertRow(
        series=series_of(MANUAL_SOURCE_ID, incoming.signal.fingerprint),
        started_at=started_at,
        source_id=MANUAL_SOURCE_ID,
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


async def _place(
    session: AsyncSession,
    row: Incident,
    batch: Batch,
    changed: list[AlertRow],
    kind: TimelineKind,
    attribution: Attribution,
) -> Incident:
    """Groups and stores alerts that a person ended or held open. The timeline entry is attributed to the person."""
    tx = await session.connection()
    await place(tx, batch, changed, whole_chains=True)
    batch.timeline = [entry for entry in batch.timeline if (entry.incident_id, entry.kind) != (row.id, kind)]
    await write(tx, batch)
    await timeline.append(session, row.id, kind, attribution, now=batch.now)
    await session.refresh(row)
    return row


async def _change(session: AsyncSession, row: Incident, values: Mapping[str, Any], now: datetime) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.version += 1
    row.updated_at = now
    await session.flush()
    await session.refresh(row)  # to read the column computed by the database
    if row.settled_at is not None:
        await count(await session.connection(), [("history_corrections", "", "", 1)])
