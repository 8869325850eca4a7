"""Actions by people: declare, acknowledge, set milestones, resolve, reopen, correct and comment on incidents.

Each action has its own time and is recorded in the timeline. Actions that change alerts (resolve, reopen, declare) are
grouped by the same rules as signals. Every action returns the updated incident.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Literal
from uuid import UUID, uuid4

from msgspec.structs import replace
from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import PreconditionFailed
from app.base.schema import Incident, IncidentType, TimelineEntry
from app.base.values.ids import new_id
from app.incidents.grouping.batch import MANUAL_SOURCE_ID, AlertRow, Batch, Incoming
from app.incidents.grouping.decide import (
    change_manual_ends,
    lock_keys,
    place,
    read_ended_by_hand,
    read_open_alerts,
    series_of,
)
from app.incidents.grouping.facts import derive_facts
from app.incidents.grouping.law.episode import End, Episode, minute
from app.incidents.grouping.rule import Decision
from app.incidents.grouping.signal import EndReason, Signal, Status
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.grouping.write import count, count_corrections, write
from app.incidents.history import timeline
from app.incidents.history.timeline import Attribution, Correction
from app.incidents.refusals import (
    AlreadyResolved,
    BeforeDetection,
    IncidentNotFound,
    InTheFuture,
    LaterAlertExists,
    MergedAway,
    NewerIncidentExists,
    UnknownType,
)
from app.incidents.services import add_service

CLOCK_SKEW = timedelta(minutes=5)
DECLARED_WINDOW, DECLARED_MAX_SPAN = timedelta(minutes=5), timedelta(hours=24)


Ref = UUID | int  # the id, or the number after `INC-`


async def find(session: AsyncSession, ref: Ref) -> Incident:
    """Raises IncidentNotFound."""
    column = col(Incident.id) if isinstance(ref, UUID) else col(Incident.number)
    # Reload a row that the session already holds: raw statements may have changed it since.
    query = select(Incident).where(column == ref).execution_options(populate_existing=True)
    found = (await session.exec(query)).one_or_none()
    if found is None:
        raise IncidentNotFound("no incident has this id or number; GET /api/v1/incidents lists all incidents")
    return found


async def hold(session: AsyncSession, ref: Ref, if_match: str | None = None) -> Incident:
    """Locks the incident's key and reads its row. Raises IncidentNotFound, MergedAway or PreconditionFailed."""
    [row] = await hold_all(session, [ref])
    wanted = {one.strip() for one in if_match.split(",")} if if_match is not None else {"*"}
    if wanted.isdisjoint({"*", etag(row.version)}):
        raise PreconditionFailed(f"the incident is at version {etag(row.version)}; fetch it again and retry")
    return row


async def hold_all(session: AsyncSession, refs: Sequence[Ref]) -> list[Incident]:
    """Locks the keys of the incidents and reads their rows. Raises IncidentNotFound or MergedAway."""
    rows = [await find(session, ref) for ref in refs]
    await lock_keys(await session.connection(), [row.key_id for row in rows])
    for row in sorted(rows, key=lambda row: row.id):
        await session.refresh(row, with_for_update=True)
    for row in rows:
        if row.merged_into is not None:
            winner = await find(session, row.merged_into)
            message = f"INC-{row.number} was merged into INC-{winner.number}; use INC-{winner.number} instead"
            raise MergedAway(message)
    return rows


def etag(version: int) -> str:
    return f'"{version}"'


async def declare(
    session: AsyncSession,
    *,
    title: str,
    service: str,
    environment: str | None = None,
    severity: int,
    labels: Mapping[str, str] | None = None,
    impact_started_at: datetime | None,
    harmed_throughout: bool | None = None,
    attribution: Attribution,
    now: datetime,
) -> Incident:
    """Opens an incident without alerts at `attribution.at`; it ends when a person resolves it. Raises InTheFuture."""
    not_in_the_future(attribution.at, now, field="detected_at")
    if impact_started_at is not None:
        not_in_the_future(impact_started_at, now, field="impact_started_at")
    declared_id = uuid4()
    decision = Decision(
        rule="declared",
        service=service,
        severity=severity,
        key="declared",
        key_id=declared_id,
        window=DECLARED_WINDOW,
        max_span=DECLARED_MAX_SPAN,
        environment=environment,
    )
    signal = Signal(f"declared:{declared_id}", Status.FIRING, attribution.at, labels=labels or {})
    batch = Batch(now, new_id)
    tx = await session.connection()
    incoming = Incoming(signal, MANUAL_SOURCE_ID, decision, now, minute(attribution.at))
    await place(tx, batch, [_held_open(batch, declared_id, incoming)])
    [opened] = batch.incidents.values()
    opened.title, opened.declared = title, True
    await write(tx, batch)
    row = await find(session, opened.id)
    row.impact_started_at_stated, row.harmed_throughout_stated = impact_started_at, harmed_throughout
    row.declared_at = attribution.at
    await session.flush()
    await session.refresh(row)
    await timeline.append(session, row.id, TimelineKind.DECLARED, attribution, now=now)
    return row


async def declare_response(
    session: AsyncSession, ref: Ref, attribution: Attribution, *, at_stated: bool, now: datetime
) -> Incident:
    """Records that a person has begun the response to an incident. The earliest declaration counts; the same person
    declares only once. It acknowledges nothing.

    Raises IncidentNotFound, MergedAway, InTheFuture, BeforeDetection or AlreadyResolved.
    """
    kind = TimelineKind.DECLARED
    return await _record_response(session, ref, kind, attribution, _OF_RESPONSE, at_stated=at_stated, now=now)


_OF_RESPONSE = {"response": True}  # distinguishes it from the declaration that opened an incident


def is_declared_response(entry: TimelineEntry) -> bool:
    """Whether the entry declares the response to an incident that was known; otherwise it opened the incident."""
    return entry.kind == TimelineKind.DECLARED and entry.detail == _OF_RESPONSE


async def acknowledge(
    session: AsyncSession,
    ref: Ref,
    attribution: Attribution,
    *,
    at_stated: bool,
    via: Literal["api", "page"] | None = None,
    now: datetime,
) -> Incident:
    """The earliest acknowledgement counts; later ones by other people are recorded too. Repeating one changes nothing.

    Raises IncidentNotFound, MergedAway, InTheFuture, BeforeDetection or AlreadyResolved.
    """
    kind, detail = TimelineKind.ACKNOWLEDGED, None if via is None else {"via": via}
    return await _record_response(session, ref, kind, attribution, detail, at_stated=at_stated, now=now)


async def _record_response(
    session: AsyncSession,
    ref: Ref,
    kind: TimelineKind,
    attribution: Attribution,
    detail: Mapping[str, Any] | None,
    *,
    at_stated: bool,
    now: datetime,
) -> Incident:
    """Records an acknowledgement or a declaration of the response."""
    row = await hold(session, ref)
    not_in_the_future(attribution.at, now)
    if not at_stated:
        # The clock of a sender may be ahead, but no one acknowledges what has not been detected.
        attribution = Attribution(max(attribution.at, detected_at(row)), attribution.by, attribution.note)
    if attribution.at < detected_at(row):
        raise before_detection(row, kind)
    if row.ended_at is not None and attribution.at > row.ended_at:
        if getattr(row, f"{kind}_at") is not None:
            return row
        raise resolved_before(row, kind)
    if not await _has_responded(session, row, kind, attribution):
        await timeline.append(session, row.id, kind, attribution, detail=detail, now=now)
        await derive(session, [row], now=now)
    return row


async def _has_responded(session: AsyncSession, row: Incident, kind: TimelineKind, attribution: Attribution) -> bool:
    """Whether the same person has acknowledged or declared the incident by then."""
    by = {"since": detected_at(row), "until": attribution.at, "by": attribution.by}
    found = await (await session.connection()).execute(_ANSWERED, {"id": row.id, "kind": kind, **by})
    return found.first() is not None


_ANSWERED = text(f"""
    SELECT 1
      FROM timeline
     WHERE incident_id = :id
       AND kind = :kind
       AND at BETWEEN :since AND :until
       AND by IS NOT DISTINCT FROM CAST(:by AS text)
       AND {IS_CURRENT}
     LIMIT 1
""")  # noqa: S608  IS_CURRENT is a constant


def detected_at(row: Incident) -> datetime:
    return row.detected_at_stated or row.began_at


_VERB = {TimelineKind.ACKNOWLEDGED: "acknowledge", TimelineKind.DECLARED: "declare"}


def before_detection(row: Incident, kind: TimelineKind) -> BeforeDetection:
    message = (
        f"the incident was detected at {detected_at(row).isoformat()}; {_VERB[kind]} it at or after that time, or "
        "first correct `detected_at`"
    )
    return BeforeDetection(message)


def resolved_before(row: Incident, kind: TimelineKind) -> AlreadyResolved:
    assert row.ended_at is not None, "the incident has ended"
    message = (
        f"the incident was resolved at {row.ended_at.isoformat()}; {_VERB[kind]} it with an earlier `at`, or reopen it"
    )
    return AlreadyResolved(message)


async def milestone(
    session: AsyncSession, ref: Ref, kind: TimelineKind, attribution: Attribution, *, now: datetime
) -> Incident:
    """Sets when the incident was IDENTIFIED or MITIGATED; a later call corrects the time.

    Raises IncidentNotFound, MergedAway or InTheFuture.
    """
    row = await hold(session, ref)
    not_in_the_future(attribution.at, now)
    if getattr(row, f"{kind}_at") != attribution.at:
        known = await timeline.latest(session, row.id, kind)
        correction = Correction(timeline.fact_of(known), attribution.by) if known is not None else None
        await timeline.append(session, row.id, kind, attribution, correction=correction, now=now)
        await derive(session, [row], now=now)
    return row


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
    row = await hold(session, ref)
    not_in_the_future(attribution.at, now)
    await timeline.append(session, row.id, kind, attribution, detail=detail, now=now)
    return row


async def resolve(
    session: AsyncSession, ref: Ref, attribution: Attribution, *, at_stated: bool, now: datetime
) -> Incident:
    """Ends the open alerts at `attribution.at`. Repeats of those alerts do not reopen the incident; a new alert within
    the window does.

    Raises IncidentNotFound, MergedAway, InTheFuture, AlreadyResolved (at another time) or LaterAlertExists.
    """
    row = await hold(session, ref)
    not_in_the_future(attribution.at, now)
    if row.ended_at is not None:
        if at_stated and attribution.at != row.ended_at:
            message = (
                f"the incident was resolved at {row.ended_at.isoformat()}; to change that, correct the entry in its "
                "timeline, or reopen the incident"
            )
            raise AlreadyResolved(message)
        return row
    if attribution.at < row.last_start_at:
        began_at = row.last_start_at.isoformat()
        message = f"the newest alert began at {began_at}; resolve the incident at or after that time"
        raise LaterAlertExists(message)
    batch = Batch(now, new_id)
    open_alerts = await read_open_alerts(await session.connection(), batch, row.id)
    for alert in open_alerts:
        alert.episode = replace(alert.episode, manual_at=attribution.at)
        alert.end, alert.end_reported_at = End(attribution.at, EndReason.MANUAL), minute(attribution.at)
    return await _place(session, row, batch, open_alerts, TimelineKind.RESOLVED, attribution)


async def reopen(session: AsyncSession, ref: Ref, attribution: Attribution, *, now: datetime) -> Incident:
    """Undoes a manual resolve, or holds the incident open if its alerts have ended.

    The incident continues without a gap. It must be the newest of its key, because otherwise it would absorb the later
    ones. Raises IncidentNotFound, MergedAway, InTheFuture or NewerIncidentExists.
    """
    row = await hold(session, ref)
    not_in_the_future(attribution.at, now)
    if row.ended_at is None:
        return row
    await require_newest(session, row)
    batch = Batch(now, new_id)
    tx = await session.connection()
    changed = await change_manual_ends(tx, batch, await read_ended_by_hand(tx, batch, row.id), None)
    if not any(alert.end is None for alert in changed):
        changed.append(_held_open(batch, row.key_id, _hold_of(row, now)))
    return await _place(session, row, batch, changed, TimelineKind.REOPENED, attribution)


async def require_newest(session: AsyncSession, row: Incident) -> None:
    """Raises NewerIncidentExists."""
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

    Raises IncidentNotFound, MergedAway, PreconditionFailed, InTheFuture or UnknownType.
    """
    row = await hold(session, ref, if_match)
    for name, value in changes.items():
        if isinstance(value, datetime):
            not_in_the_future(value, now, field=name)
    different = {name: value for name, value in changes.items() if getattr(row, f"{name}_stated") != value}
    if different:
        if different.get("type"):
            await require_type(session, different["type"])
        if different.get("service"):
            await add_service(session, different["service"], now=now)
        await _change(session, row, {f"{name}_stated": value for name, value in different.items()}, now)
        if "detected_at" in different:
            await derive_facts(await session.connection(), [row.id])
            await session.refresh(row)
        detail = {name: _plain(value) for name, value in different.items()}
        await timeline.append(session, row.id, TimelineKind.CHANGED, Attribution(now, by), detail=detail, now=now)
    return row


async def require_type(session: AsyncSession, name: str) -> None:
    """Raises UnknownType."""
    known = (await session.exec(select(IncidentType.name).order_by(col(IncidentType.name)))).all()
    if name not in known:
        message = f"there is no such incident type; the types are: {', '.join(known[:20]) or 'none'}"
        raise UnknownType(message)


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, int | str) else str(value)


def not_in_the_future(at: datetime, now: datetime, *, field: str = "at") -> None:
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
        environment=row.environment,
    )
    signal = Signal(f"held:{row.id}", Status.FIRING, row.ended_at, labels=row.labels)
    return Incoming(signal, MANUAL_SOURCE_ID, decision, now, minute(row.ended_at or now))


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
        episode=Episode(started_at, incoming.reported_at),
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


async def derive(session: AsyncSession, rows: Sequence[Incident], *, corrected: bool = False, now: datetime) -> None:
    """Derives acknowledgement, declaration and milestones from the timelines. A row that changes, or whose timeline was
    `corrected`, gets a new version.
    """
    await session.flush()
    before = [_facts(row) for row in rows]
    await derive_facts(await session.connection(), [row.id for row in rows])
    corrections = 0
    for row, was in zip(rows, before, strict=True):
        await session.refresh(row)
        changed = _facts(row) != was
        corrections += changed and row.settled_at is not None
        if changed or corrected:
            row.version += 1
            row.updated_at = now
            await session.flush()
            await session.refresh(row)
    await count_corrections(await session.connection(), corrections)


_facts = attrgetter(
    "acknowledged_at",
    "acknowledged_by",
    "acknowledged_via",
    "declared_at",
    "first_public_at",
    "identified_at",
    "mitigated_at",
)


async def _change(session: AsyncSession, row: Incident, values: Mapping[str, Any], now: datetime) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.version += 1
    row.updated_at = now
    await session.flush()
    await session.refresh(row)  # to read the column computed by the database
    if row.settled_at is not None:
        await count(await session.connection(), [("history_corrections", "", "", 1)])
