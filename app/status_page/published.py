"""What one process has read and rendered of the public pages. It serves them from memory, whatever the database does.

The public side reads nothing but public columns, in transactions of a database role that may read nothing else.
"""

import asyncio
import gzip
import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, Select, any_, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import Uuid

from app.base import db, schema
from app.base.process.threads import off_loop
from app.base.schema import PUBLIC_COLUMNS, Row
from app.base.text.public_words import clean
from app.settings import Settings
from app.status_page.component import Component, Status, Uptime
from app.status_page.content import (
    INCIDENTS_AT_MOST,
    REPORTS_AT_MOST,
    UPDATES_BYTES,
    Content,
    Months,
    Report,
    Site,
    months_of,
)
from app.status_page.public_incident import PublicIncident, PublicKind, PublicStage, Update
from app.status_page.rendering import feed, page
from app.status_page.rendering.statuspage import documents
from app.status_page.uptime import DAYS, MeasuredDay, days_until

log = logging.getLogger("aftermath.status_page")

REFRESH_SECONDS = 5.0
READ_SECONDS = 5.0  # a database that takes longer counts as away
GZIP_FROM_BYTES = 1000

HTML, JSON = "text/html; charset=utf-8", "application/json"
ATOM, RSS, CSS = "application/atom+xml; charset=utf-8", "application/rss+xml; charset=utf-8", "text/css; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A response that only has to be sent. `compressed` is None if it is too small for that."""

    content: bytes
    compressed: bytes | None
    etag: str
    media_type: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "Rendered":
        compressed = gzip.compress(content, 6, mtime=0) if len(content) >= GZIP_FROM_BYTES else None
        # Weak, because it is the same for both forms.
        return cls(content, compressed, f'W/"{hashlib.sha256(content).hexdigest()[:16]}"', media_type)

    @classmethod
    def as_approved(cls, content: bytes, digest: bytes) -> "Rendered":
        """A report, sent as it is stored; its digest is its ETag."""
        return cls(content, None, f'"{digest.hex()}"', HTML)


STYLE = Rendered.of(page.STYLE, CSS)


@dataclass(frozen=True, slots=True)
class Incidents:
    """The public incidents last read. They are read again when `mark` changes."""

    mark: tuple[Any, ...] | None = None
    found: Sequence[PublicIncident] = ()


@dataclass(frozen=True, slots=True)
class Reports:
    """The reports last read. Their pages are read again when anything else of them changes."""

    mark: tuple[Any, ...] | None = None
    found: Sequence[Report] = ()


class Gone(Exception):
    """The report was withdrawn."""


class StatusPage:
    """Refreshed every REFRESH_SECONDS; a request only looks up what is there."""

    def __init__(self, engine: AsyncEngine, site: Site) -> None:
        self._engine = engine
        self._site = site
        self._incidents = Incidents()
        self._reports = Reports()
        self._content: Content | None = None
        self._read_at: datetime | None = None
        self._rendered_for: tuple[object, ...] | None = None
        self._rendered_at: datetime | None = None
        self._as_of: datetime | None = None
        self._months: Months = {}
        self._pages: dict[str, Rendered] = {}
        self._warned = False
        self.not_found = Rendered.of(page.not_found(site).encode(), HTML)
        self.gone = Rendered.of(page.gone(site).encode(), HTML)

    @classmethod
    def of(cls, settings: Settings, engine: AsyncEngine) -> "StatusPage":
        # Not `public_url`: senders may reach the service at a name that only exists inside.
        return cls(engine, Site(settings.status_page_name, (settings.status_page_url or "").rstrip("/")))

    async def refresh(self, now: datetime) -> None:
        """Reads what is public and renders it if it has changed. If it cannot be read, the pages show the last state,
        say as of when, and the error is raised.
        """
        as_of: datetime | None = self._read_at
        try:
            async with asyncio.timeout(READ_SECONDS):
                self._content = await self._read(now)
            self._read_at, as_of = now, None
        finally:
            if self._content is not None:
                await self._render(self._content, now, as_of)

    def find(self, path: str) -> Rendered | None:
        """A page or document that always exists, by its path; None before the first reading."""
        return self._pages.get(path)

    async def incident(self, id_: UUID) -> Rendered | None:
        """None if there is no such public incident."""
        content, now, as_of = self._shown()
        found = content.find(id_)
        if found is None:
            return None
        reports = content.shown_reports(id_)
        return await self._kept(
            f"/status/incidents/{id_}", lambda: page.incident(self._site, found, now, reports, as_of=as_of)
        )

    async def reports(self) -> Rendered:
        """The list of reports."""
        content, _, as_of = self._shown()
        shown = content.shown_reports()
        return await self._kept("/status/reports", lambda: page.reports(self._site, shown, as_of=as_of))

    def report(self, id_: UUID) -> Rendered | None:
        """The bytes that were approved; None if there is no such report. Raises Gone."""
        content, _, _ = self._shown()
        found = content.find_report(id_)
        if found is None:
            return None
        if found.page is None:
            raise Gone
        return Rendered.as_approved(found.page, found.digest)

    async def history(self, month: str | None) -> Rendered | None:
        """The page of a month such as `2026-11` (None: the current one); None if it has no public incident."""
        _, now, as_of = self._shown()
        months, current = self._months, f"{now:%Y-%m}"
        name = month or current
        if name not in months and name != current:
            return None
        return await self._kept(
            f"/status/history?month={name}", lambda: page.history(self._site, months, name, now, as_of=as_of)
        )

    @property
    def has_been_read(self) -> bool:
        """Read and rendered."""
        return self._rendered_at is not None

    def not_read_yet(self) -> Rendered:
        return Rendered.of(page.not_read_yet(self._site).encode(), HTML)

    def _shown(self) -> tuple[Content, datetime, datetime | None]:
        assert self._content is not None
        assert self._rendered_at is not None
        return self._content, self._rendered_at, self._as_of

    async def _kept(self, key: str, render: Callable[[], str]) -> Rendered:
        """Rendered when first asked for, and kept until the next rendering. There are not more than months and public
        incidents.
        """
        pages = self._pages  # another rendering may replace them meanwhile
        if key not in pages:
            pages[key] = await off_loop(lambda: Rendered.of(render().encode(), HTML))
        return pages[key]

    async def _render(self, content: Content, now: datetime, as_of: datetime | None) -> None:
        # Maintenance begins, and days pass, without any change.
        wanted = (content, as_of, now.replace(second=0, microsecond=0))
        if wanted == self._rendered_for:
            return
        pages, months = await off_loop(lambda: (_rendered(self._site, content, now, as_of), months_of(content)))
        self._pages, self._months, self._rendered_for = pages, months, wanted
        self._rendered_at, self._as_of = now, as_of

    async def _read(self, now: datetime) -> Content:
        async with db.public_transaction(self._engine) as (tx, is_confined):
            if not is_confined and not self._warned:
                log.warning(
                    "the public status page is read with the privileges of the service, because the database role %s "
                    "does not exist, cannot be used, or cannot read everything that is public. Restart the service, "
                    "which grants what is missing if it is allowed to; otherwise, have an administrator create the "
                    "role first: %s",
                    db.PUBLIC_ROLE,
                    db.HOW_TO_CREATE_IT,
                )
            self._warned = not is_confined
            components = await _components(tx)
            measured = await _measured(tx, now)
            self._incidents = await _incidents(tx, self._incidents)
            self._reports = await _reports(tx, self._reports)
        return Content(components, self._incidents.found, measured, self._reports.found)


def _rendered(site: Site, content: Content, now: datetime, as_of: datetime | None) -> dict[str, Rendered]:
    found = {
        "/status": Rendered.of(page.overview(site, content, now, as_of=as_of).encode(), HTML),
        "/status/history.atom": Rendered.of(feed.atom(site, content, now), ATOM),
        "/status/history.rss": Rendered.of(feed.rss(site, content, now), RSS),
    }
    for name, document in documents(site, content, now, as_of=as_of).items():
        written = Rendered.of(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), JSON)
        found[f"/status/api/v2/{name}.json"] = written
    return found | {"/status.json": found["/status/api/v2/summary.json"]}


# — reading —


def _columns(table: type[Row]) -> list[ColumnElement[Any]]:
    return [table.__table__.c[name] for name in PUBLIC_COLUMNS[table]]


class ComponentRow(Protocol):
    """A row of `component`, or its public columns."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def section(self) -> str | None: ...
    @property
    def position(self) -> int: ...
    @property
    def uptime(self) -> str: ...
    @property
    def since(self) -> date: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def updated_at(self) -> datetime: ...


class UpdateRow(Protocol):
    """A row of `public_update`, or its public columns."""

    @property
    def id(self) -> UUID: ...
    @property
    def at(self) -> datetime: ...
    @property
    def status(self) -> str: ...
    @property
    def body(self) -> str: ...
    @property
    def components(self) -> Mapping[str, str]: ...
    @property
    def recorded_at(self) -> datetime: ...
    @property
    def corrected_at(self) -> datetime | None: ...


class PublicIncidentRow(Protocol):
    """A row of `public_incident`, or its public columns."""

    @property
    def id(self) -> UUID: ...
    @property
    def kind(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def begins_at(self) -> datetime: ...
    @property
    def ends_at(self) -> datetime | None: ...
    @property
    def scheduled_to(self) -> datetime | None: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def updated_at(self) -> datetime: ...


class _ReportRow(Protocol):
    """A row of `public_report`, without its page."""

    @property
    def id(self) -> UUID: ...
    @property
    def public_incident_id(self) -> UUID: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def published_at(self) -> datetime: ...


async def _components(tx: AsyncConnection) -> list[Component]:
    component = schema.Component.__table__.c
    rows = await tx.execute(select(*_columns(schema.Component)).order_by(component.position, component.name))
    return [component_of(row) for row in rows]


def component_of(row: ComponentRow) -> Component:
    return Component(
        clean(row.name),
        clean(row.description),
        None if row.section is None else clean(row.section),
        row.position,
        Uptime(row.uptime),
        row.since,
        row.created_at,
        row.updated_at,
    )


async def _measured(tx: AsyncConnection, now: datetime) -> Mapping[str, Mapping[date, MeasuredDay]]:
    day = schema.ComponentDay.__table__.c
    rows = await tx.execute(select(*_columns(schema.ComponentDay)).where(day.day >= days_until(now, DAYS)[0]))
    found: dict[str, dict[date, MeasuredDay]] = defaultdict(dict)
    for row in rows:
        watched, down = timedelta(seconds=row.watched_seconds), timedelta(seconds=row.down_seconds)
        found[clean(row.component)][row.day] = MeasuredDay(row.day, watched, down)
    return dict(found)


async def _incidents(tx: AsyncConnection, before: Incidents) -> Incidents:
    """Each change sets `updated_at`. A sum notices those too that were committed in another order."""
    incident, update = schema.PublicIncident.__table__.c, schema.PublicUpdate.__table__.c
    is_public = incident.withdrawn_at.is_(None)
    changed = func.sum(func.extract("epoch", incident.updated_at))
    mark = tuple((await tx.execute(select(func.count(incident.id), changed).where(is_public))).one())
    if mark == before.mark:
        return before
    rows = (
        await tx.execute(
            select(*_columns(schema.PublicIncident))
            .where(incident.id.in_(newest_incidents()))
            .order_by(incident.begins_at.desc(), incident.id.desc())
        )
    ).all()
    updates: dict[UUID, list[Update]] = defaultdict(list)
    for each in await tx.execute(
        select(*_columns(schema.PublicUpdate))
        .where(update.public_incident_id == any_(literal([row.id for row in rows], ARRAY(Uuid))))
        .order_by(update.at, update.recorded_at, update.id)
    ):
        updates[each.public_incident_id].append(update_of(each))
    return Incidents(mark, [public_incident_of(row, updates[row.id]) for row in rows if updates[row.id]])


def newest_incidents() -> Select[tuple[UUID]]:
    """The ids of those that are shown: INCIDENTS_AT_MOST, and as many as have updates of UPDATES_BYTES together."""
    incident, update = schema.PublicIncident.__table__.c, schema.PublicUpdate.__table__.c
    newest_first = (incident.begins_at.desc(), incident.id.desc())
    size = (
        select(update.public_incident_id.label("id"), func.sum(func.octet_length(update.body)).label("size"))
        .group_by(update.public_incident_id)
        .subquery()
    )
    newest = (
        select(incident.id.label("id"), func.sum(size.c.size).over(order_by=newest_first).label("together"))
        .join(size, size.c.id == incident.id)
        .where(incident.withdrawn_at.is_(None))
        .order_by(*newest_first)
        .limit(INCIDENTS_AT_MOST)
        .subquery()
    )
    return select(newest.c.id).where(newest.c.together <= UPDATES_BYTES)


async def _reports(tx: AsyncConnection, before: Reports) -> Reports:
    """If the public incident was withdrawn, its reports count as withdrawn too."""
    report, incident = schema.PublicReport.__table__.c, schema.PublicIncident.__table__.c
    is_shown = report.withdrawn_at.is_(None) & incident.withdrawn_at.is_(None)
    both = schema.PublicReport.__table__.join(schema.PublicIncident.__table__, incident.id == report.public_incident_id)
    rows = await tx.execute(
        select(report.id, report.public_incident_id, report.digest, report.published_at, is_shown.label("is_shown"))
        .select_from(both)
        .order_by(report.published_at.desc(), report.id.desc())
        .limit(REPORTS_AT_MOST)
    )
    mark = tuple(rows.all())
    if mark == before.mark:
        return before
    shown = literal([row.id for row in mark if row.is_shown], ARRAY(Uuid))
    pages = await tx.execute(
        select(report.id, report.title, report.page, report.digest).where(
            (report.id == any_(shown)) & report.page.is_not(None)
        )
    )
    known = {row.id: row for row in pages}

    def report_of(row: _ReportRow) -> Report:
        if row.id not in known:
            return Report(row.id, row.public_incident_id, None, None, row.digest, row.published_at)
        # With the digest of its page: another version may have been published since the first statement.
        read = known[row.id]
        return Report(row.id, row.public_incident_id, clean(read.title), read.page, read.digest, row.published_at)

    return Reports(mark, [report_of(row) for row in mark])


def update_of(row: UpdateRow) -> Update:
    return Update(
        row.id,
        row.at,
        PublicStage(row.status),
        clean(row.body),
        {clean(name): Status(status) for name, status in row.components.items()},
        row.recorded_at,
        row.corrected_at,
    )


def public_incident_of(row: PublicIncidentRow, updates: Sequence[Update]) -> PublicIncident:
    return PublicIncident(
        row.id,
        PublicKind(row.kind),
        clean(row.title),
        row.begins_at,
        row.ends_at,
        row.scheduled_to,
        row.created_at,
        row.updated_at,
        updates,
    )
