"""SQL for public incidents and their updates. Each update of an incident is also an entry of its timeline."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import literal, text, tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.base import db, schema
from app.base.errors import Conflict, Invalid, NotFound
from app.base.http.requests.fields import rfc3339
from app.base.schema import Incident
from app.base.values.ids import new_id
from app.incidents import actions
from app.incidents.actions import Ref, not_in_the_future
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import timeline
from app.incidents.history.timeline import Attribution, Correction
from app.status_page.component import Status
from app.status_page.public_incident import OVER, STAGES, PublicIncident, PublicKind, PublicStage, status_of
from app.status_page.published import newest_incidents, public_incident_of, update_of
from app.status_page.store.following import follow

UPDATES_AT_MOST = 200  # of one public incident
AUTOMATIC_AT_MOST = 500


class PublicIncidentNotFound(NotFound):
    title = "Public incident not found"


class UnknownComponent(Invalid):
    title = "Unknown component"


class WrongStage(Invalid):
    title = "Status of another kind"


class WrongTimes(Invalid):
    title = "Times contradict each other"


class AlreadyPublished(Conflict):
    title = "Already published differently"


class NoLongerPublic(Conflict):
    title = "No longer public"


class TooManyUpdates(Conflict):
    title = "Too many updates"


@dataclass(frozen=True, slots=True)
class NewUpdate:
    """`id` is given by clients that may repeat a request. `at` is None for now."""

    stage: PublicStage
    body: str
    components: Mapping[str, Status]
    by: str | None
    token: str | None
    at: datetime | None = None
    id: UUID | None = None


@dataclass(frozen=True, slots=True)
class NewIncident:
    """`begins_at` is None if it follows the incident or, without one, the first update."""

    kind: PublicKind
    title: str
    first: NewUpdate
    incident: Ref | None = None
    begins_at: datetime | None = None
    scheduled_to: datetime | None = None
    automatic: bool = False
    id: UUID | None = None


@dataclass(frozen=True, slots=True)
class PublicIncidentRows:
    """A public incident with its rows. `number` is that of the incident. `updates` are in order of time."""

    row: schema.PublicIncident
    updates: Sequence[schema.PublicUpdate]
    number: int | None
    set_operational: Sequence[str] = ()

    def public(self) -> PublicIncident:
        return public_incident_of(self.row, [update_of(each) for each in self.updates])


# — reading —


async def find_public(session: AsyncSession, id_: UUID, *, lock: bool = False) -> PublicIncidentRows:
    """Raises PublicIncidentNotFound."""
    query = select(schema.PublicIncident).where(col(schema.PublicIncident.id) == id_)
    query = query.execution_options(populate_existing=True)
    row = (await session.exec(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        message = "no public incident has this id; GET /api/v1/status-page/incidents lists all of them"
        raise PublicIncidentNotFound(message)
    return (await _with_updates(session, [row]))[0]


async def list_public(
    session: AsyncSession,
    containing: str | None = None,
    *,
    after: tuple[datetime, UUID] | None = None,
    oldest_first: bool = False,
    limit: int,
) -> Sequence[PublicIncidentRows]:
    """Newest or oldest first, also those no longer public; with the text in the title. Three statements."""
    place = tuple_(col(schema.PublicIncident.begins_at), col(schema.PublicIncident.id))
    query = _titled(containing).order_by(*(each if oldest_first else each.desc() for each in place)).limit(limit)
    if after is not None:
        from_there = tuple_(*map(literal, after))
        query = query.where(place > from_there if oldest_first else place < from_there)
    return await _with_updates(session, (await session.exec(query)).all())


async def count_public(session: AsyncSession, containing: str | None = None) -> int:
    return await db.total(session, _titled(containing))


def _titled(containing: str | None) -> SelectOfScalar[schema.PublicIncident]:
    return select(schema.PublicIncident).where(db.containing(containing, schema.PublicIncident.title))


async def list_automatic(session: AsyncSession) -> list[tuple[PublicIncidentRows, bool]]:
    """Public incidents to which no person has written, newest first, and whether the incident of each is over. Without
    those that ended together with it.
    """
    row = schema.PublicIncident
    query = (
        select(row, col(Incident.ended_at).is_not(None))
        .join(Incident, col(Incident.id) == col(row.incident_id))
        .where(
            col(row.automatic),
            col(row.withdrawn_at).is_(None),
            col(row.ends_at).is_(None) | col(Incident.ended_at).is_(None),
        )
        .order_by(col(row.begins_at).desc())
        .limit(AUTOMATIC_AT_MOST)
        .execution_options(populate_existing=True)
    )
    found = (await session.exec(query)).all()
    with_updates = await _with_updates(session, [each for each, _ in found])
    return [(each, is_over) for each, (_, is_over) in zip(with_updates, found, strict=True)]


async def everything_public(session: AsyncSession) -> list[PublicIncident]:
    """As the page shows it, newest first. Three statements."""
    row = schema.PublicIncident
    query = (
        select(row).where(col(row.id).in_(newest_incidents())).order_by(col(row.begins_at).desc(), col(row.id).desc())
    )
    return [each.public() for each in await _with_updates(session, (await session.exec(query)).all())]


async def _with_updates(session: AsyncSession, rows: Sequence[schema.PublicIncident]) -> list[PublicIncidentRows]:
    update = schema.PublicUpdate
    query = (
        select(update)
        .where(col(update.public_incident_id).in_([row.id for row in rows]))
        .order_by(col(update.at), col(update.recorded_at), col(update.id))
        .execution_options(populate_existing=True)
    )
    updates: dict[UUID, list[schema.PublicUpdate]] = defaultdict(list)
    for each in await session.exec(query):
        updates[each.public_incident_id].append(each)
    ids = [row.incident_id for row in rows if row.incident_id]
    numbers: dict[UUID, int] = {}
    if ids:
        known = select(Incident.id, Incident.number).where(col(Incident.id).in_(ids))
        numbers = dict((await session.exec(known)).all())
    return [
        PublicIncidentRows(row, updates[row.id], numbers.get(row.incident_id) if row.incident_id else None)
        for row in rows
    ]


# — writing —


async def publish(session: AsyncSession, new: NewIncident, *, now: datetime) -> tuple[PublicIncidentRows, bool]:
    """Publishes an incident or maintenance with its first update; returns it, and whether it is new: the same id and
    content again change nothing.

    Raises AlreadyPublished, UnknownComponent, WrongStage, WrongTimes, InTheFuture, IncidentNotFound or MergedAway.
    """
    id_ = new.id or new_id(now)
    if new.id is not None and await session.get(schema.PublicIncident, new.id) is not None:
        return _repeated(await find_public(session, new.id), new), False
    _check_times(new, now)
    held = None if new.incident is None else await actions.hold(session, new.incident)
    begins_at = new.begins_at or new.first.at or now
    row = schema.PublicIncident(
        id=id_,
        incident_id=held.id if held else None,
        kind=new.kind,
        title=new.title,
        begins_at=begins_at,
        begins_at_stated=new.begins_at is not None,
        ends_at_stated=False,
        scheduled_to=new.scheduled_to,
        automatic=new.automatic,
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    await session.flush()
    set_operational = await _add(session, PublicIncidentRows(row, (), None), held, new.first, now=now)
    return await _stored(session, id_, held, set_operational, now=now), True


def _repeated(known: PublicIncidentRows, new: NewIncident) -> PublicIncidentRows:
    first = known.updates[0]
    before = (known.row.kind, known.row.title, first.status, first.body)
    if before != (new.kind, new.title, new.first.stage, new.first.body):
        message = "a public incident with this id has already been published with different content; use a new id"
        raise AlreadyPublished(message)
    return known


def _check_times(new: NewIncident, now: datetime) -> None:
    if new.kind is PublicKind.MAINTENANCE:
        if new.begins_at is None or new.scheduled_to is None or new.scheduled_to <= new.begins_at:
            message = "maintenance needs `begins_at`, and `scheduled_to` after it"
            raise WrongTimes(message)
        if new.incident is not None:
            message = "maintenance has no `incident`"
            raise WrongTimes(message)
        return
    if new.scheduled_to is not None:
        message = "only maintenance has `scheduled_to`"
        raise WrongTimes(message)
    if new.begins_at is not None:
        not_in_the_future(new.begins_at, now, field="begins_at")


async def add_update(
    session: AsyncSession, id_: UUID, new: NewUpdate, *, now: datetime
) -> tuple[PublicIncidentRows, bool]:
    """Publishes an update; the same id and content again change nothing. When the problem is over, components that
    were left in another status are set operational.

    Raises PublicIncidentNotFound, NoLongerPublic, AlreadyPublished, TooManyUpdates, UnknownComponent, WrongStage or
    InTheFuture.
    """
    found, held = await _hold(session, id_)
    if new.id is not None and (known := await session.get(schema.PublicUpdate, new.id)) is not None:
        if (known.public_incident_id, known.status, known.body) != (id_, new.stage, new.body):
            message = "an update with this id has already been published with different content; use a new id"
            raise AlreadyPublished(message)
        return found, False
    if len(found.updates) >= UPDATES_AT_MOST:
        raise TooManyUpdates(f"a public incident may have at most {UPDATES_AT_MOST} updates; publish a new incident")
    if new.token is not None:
        found.row.automatic = False
    set_operational = await _add(session, found, held, new, now=now)
    return await _stored(session, id_, held, set_operational, now=now), True


async def amend(session: AsyncSession, id_: UUID, changes: Mapping[str, Any], *, now: datetime) -> PublicIncidentRows:
    """Changes `title`, `begins_at`, `ends_at` or `scheduled_to`. A time that is None follows the facts again.

    Raises PublicIncidentNotFound, NoLongerPublic, WrongTimes or InTheFuture.
    """
    found, held = await _hold(session, id_)
    row = found.row
    _check_amendment(found, changes, now)
    if "title" in changes:
        row.title = changes["title"]
    if "begins_at" in changes:
        row.begins_at_stated = changes["begins_at"] is not None
        row.begins_at = changes["begins_at"] or row.begins_at
    if "scheduled_to" in changes:
        row.scheduled_to = changes["scheduled_to"]
    if "ends_at" in changes:
        row.ends_at, row.ends_at_stated = changes["ends_at"], changes["ends_at"] is not None
    if row.ends_at is not None and row.ends_at < row.begins_at and not row.ends_at_stated:
        row.ends_at = None  # follows
    return await _stored(session, id_, held, (), now=now)


def _check_amendment(found: PublicIncidentRows, changes: Mapping[str, Any], now: datetime) -> None:
    begins_at = changes.get("begins_at", found.row.begins_at)
    if found.row.kind == PublicKind.MAINTENANCE:
        scheduled_to = changes.get("scheduled_to", found.row.scheduled_to)
        if begins_at is None or scheduled_to is None or scheduled_to <= begins_at:
            message = "maintenance needs `begins_at`, and `scheduled_to` after it"
            raise WrongTimes(message)
    else:
        if changes.get("scheduled_to") is not None:
            message = "only maintenance has `scheduled_to`"
            raise WrongTimes(message)
        if begins_at is not None:
            not_in_the_future(begins_at, now, field="begins_at")
    ends_at = changes.get("ends_at")
    if ends_at is not None:
        not_in_the_future(ends_at, now, field="ends_at")
        if PublicStage(found.updates[-1].status) not in OVER:
            message = "it has not ended: publish a final update first, then correct `ends_at`"
            raise WrongTimes(message)
    until = ends_at or (found.row.ends_at if found.row.ends_at_stated and "ends_at" not in changes else None)
    if until is not None and begins_at is not None and until < begins_at:
        message = "`ends_at` must not be before `begins_at`"
        raise WrongTimes(message)


async def correct_update(
    session: AsyncSession, id_: UUID, update_id: UUID, changes: Mapping[str, Any], *, by: str, now: datetime
) -> PublicIncidentRows:
    """Corrects `body`, `components` or `at` of an update, each None or missing if it stays. What it was before is kept,
    inside.

    Raises PublicIncidentNotFound, NoLongerPublic, UnknownComponent or InTheFuture.
    """
    found, held = await _hold(session, id_)
    update = next((each for each in found.updates if each.id == update_id), None)
    if update is None:
        message = (
            "no update of this public incident has this id; GET /api/v1/status-page/incidents/{id} lists its updates"
        )
        raise PublicIncidentNotFound(message)
    changes = {name: value for name, value in changes.items() if value is not None}
    before = {"body": update.body, "components": update.components, "at": rfc3339(update.at)}
    if "components" in changes:
        await _require_components(session, changes["components"])
    if "at" in changes:
        not_in_the_future(changes["at"], now)
    for name, value in changes.items():
        setattr(update, name, value)
    if before == {"body": update.body, "components": update.components, "at": rfc3339(update.at)}:
        return found
    update.corrected_at = now
    update.earlier = [*update.earlier, {**before, "corrected_at": rfc3339(now), "corrected_by": by}]
    if held is not None and update.entry is not None:
        await timeline.append(
            session,
            held.id,
            TimelineKind.PUBLISHED,
            Attribution(update.at, update.by, update.body),
            detail=_detail(id_, update.status),
            correction=Correction(update.entry, by),
            now=now,
        )
    return await _stored(session, id_, held, (), now=now)


async def withdraw(session: AsyncSession, id_: UUID, *, by: str, now: datetime) -> PublicIncidentRows:
    """Takes it off the page. Its entries in the timeline are withdrawn, so that it no longer counts as published.
    Repeating it changes nothing. Raises PublicIncidentNotFound.
    """
    found, held = await _hold(session, id_, also_withdrawn=True)
    if found.row.withdrawn_at is not None:
        return found
    found.row.withdrawn_at = now
    for update in found.updates:
        if held is not None and update.entry is not None:
            await timeline.append(
                session,
                held.id,
                TimelineKind.WITHDRAWN,
                Attribution(update.at, by),
                correction=Correction(update.entry, by, "withdrawn from the status page"),
                now=now,
            )
    return await _stored(session, id_, held, (), now=now)


async def _hold(
    session: AsyncSession, id_: UUID, *, also_withdrawn: bool = False
) -> tuple[PublicIncidentRows, Incident | None]:
    """Locks the incident, if there is one, then the public incident."""
    found = await find_public(session, id_)
    held = None
    if found.row.incident_id is not None:
        known = await actions.find(session, found.row.incident_id)
        held = await actions.hold(session, known.merged_into or known.id)
    found = await find_public(session, id_, lock=True)
    if found.row.withdrawn_at is not None and not also_withdrawn:
        message = "this public incident was withdrawn; publish a new one"
        raise NoLongerPublic(message)
    return found, held


async def _add(
    session: AsyncSession, found: PublicIncidentRows, held: Incident | None, new: NewUpdate, *, now: datetime
) -> list[str]:
    """Returns the components that were left in another status although the problem is over."""
    kind = PublicKind(found.row.kind)
    if new.stage not in STAGES[kind]:
        message = f"`status` of {kind} is one of {', '.join(STAGES[kind])}"
        raise WrongStage(message)
    at = new.at or now
    not_in_the_future(at, now)
    await _require_components(session, new.components)
    components, left = dict(new.components), list[str]()
    if new.stage in OVER:
        before = dict[str, Status]()
        if found.updates and kind is PublicKind.INCIDENT:
            before = status_of(found.public(), now)
        left = sorted(name for name, status in {**before, **components}.items() if status is not Status.OPERATIONAL)
        components = dict.fromkeys({**before, **components}, Status.OPERATIONAL)
    if kind is PublicKind.MAINTENANCE:
        components, left = dict.fromkeys(new.components, Status.UNDER_MAINTENANCE), []
    entry = None
    if held is not None:
        entry = await timeline.append(
            session,
            held.id,
            TimelineKind.PUBLISHED,
            Attribution(at, new.by, new.body),
            detail=_detail(found.row.id, new.stage),
            now=now,
        )
    session.add(
        schema.PublicUpdate(
            id=new.id or new_id(now),
            public_incident_id=found.row.id,
            at=at,
            status=new.stage,
            body=new.body,
            components={name: str(status) for name, status in components.items()},
            by=new.by,
            token=new.token,
            recorded_at=now,
            earlier=[],
            entry=entry.id if entry else None,
        )
    )
    return left


def _detail(id_: UUID, status: str) -> Mapping[str, Any]:
    return {"public_incident": str(id_), "status": status}


async def _require_components(session: AsyncSession, components: Mapping[str, Any]) -> None:
    """Raises UnknownComponent."""
    known = set(await session.exec(select(schema.Component.name).where(col(schema.Component.name).in_(components))))
    if missing := [name for name in components if name not in known]:
        message = f"there is no component {missing[0]!r}; GET /api/v1/status-page/components lists all components"
        raise UnknownComponent(message)


async def _stored(
    session: AsyncSession, id_: UUID, held: Incident | None, set_operational: Sequence[str], *, now: datetime
) -> PublicIncidentRows:
    await session.flush()
    if held is not None:
        await actions.derive(session, [held], now=now)
    tx = await session.connection()
    await tx.execute(text("UPDATE public_incident SET updated_at = :now WHERE id = :id"), {"now": now, "id": id_})
    await follow(tx, now=now, id_=id_)
    found = await find_public(session, id_)
    return PublicIncidentRows(found.row, found.updates, found.number, set_operational)
