"""What people write into the timeline of an incident, recorded once for each idempotency key: notes, tasks and other
facts.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Invalid
from app.base.http.requests.fields import rfc3339
from app.base.schema import Playbook, TimelineEntry
from app.base.text.redaction import redact
from app.incidents.actions import Ref, find, hold, not_in_the_future
from app.incidents.grouping.decide import lock_keys
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.history import timeline
from app.incidents.history.path import Effect, PlaybookVersion, Stage, Task
from app.incidents.history.timeline import Attribution


class NoteIsEmpty(Invalid):
    title = "No text"


class EndsBeforeItBegan(Invalid):
    title = "Task ends before it began"


class UnknownPlaybook(Invalid):
    title = "Unknown playbook"


class IdempotencyKeyReused(Invalid):
    title = "Idempotency key was used for another request"


@dataclass(frozen=True, slots=True)
class TaskDetails:
    """The details of a task: everything but its text, its beginning and the person."""

    effect: Effect = Effect.UNKNOWN
    ended_at: datetime | None = None
    stage: Stage | None = None
    link: str | None = None
    command: str | None = None
    playbook: PlaybookVersion | None = None

    @classmethod
    def of(cls, detail: Mapping[str, Any]) -> "TaskDetails":
        """The details in the `detail` of an entry."""
        stage, ended_at, playbook = (detail.get(name) for name in ("stage", "ended_at", "playbook"))
        return cls(
            Effect(detail["effect"]),
            datetime.fromisoformat(ended_at) if ended_at else None,
            Stage(stage) if stage else None,
            detail.get("link"),
            detail.get("command"),
            PlaybookVersion(**playbook) if playbook else None,
        )

    def stored(self) -> Mapping[str, Any]:
        """As `detail` of an entry, without the secrets in the command."""
        return {
            "effect": self.effect,
            "ended_at": rfc3339(self.ended_at) if self.ended_at else None,
            "stage": self.stage,
            "link": self.link,
            "command": None if self.command is None else redact(self.command).text,
            "playbook": asdict(self.playbook) if self.playbook else None,
        }

    def check(self, began_at: datetime, now: datetime) -> None:
        """Raises EndsBeforeItBegan or InTheFuture."""
        if self.ended_at is None:
            return
        if self.ended_at < began_at:
            message = f"the task began at {rfc3339(began_at)}; it must not end before that"
            raise EndsBeforeItBegan(message)
        not_in_the_future(self.ended_at, now, field="ended_at")


NEED_TEXT = frozenset({TimelineKind.NOTE, TimelineKind.TASK, TimelineKind.UPDATE, TimelineKind.SAID})
_BOTH = ("at", "by")


async def add_note(
    session: AsyncSession,
    ref: Ref,
    attribution: Attribution,
    *,
    key: str | None = None,
    stated: Collection[str] = _BOTH,
    now: datetime,
) -> TimelineEntry:
    """Records a note, once for each idempotency key; repeating it returns the same entry.

    `stated`: which of `at` and `by` the client stated; the others do not distinguish requests with the same key.
    Raises IncidentNotFound, MergedAway, NoteIsEmpty, InTheFuture or IdempotencyKeyReused.
    """
    return await add_fact(session, ref, TimelineKind.NOTE, attribution, None, key=key, stated=stated, now=now)


async def add_task(
    session: AsyncSession,
    ref: Ref,
    attribution: Attribution,
    details: TaskDetails,
    *,
    key: str | None = None,
    stated: Collection[str] = _BOTH,
    now: datetime,
) -> TimelineEntry:
    """Records a task that began at `attribution.at`; `key` and `stated` as for a note.

    Raises IncidentNotFound, MergedAway, NoteIsEmpty, InTheFuture, EndsBeforeItBegan, UnknownPlaybook or
    IdempotencyKeyReused.
    """
    details.check(attribution.at, now)
    await require_playbook(session, details.playbook)
    detail = details.stored()
    return await add_fact(session, ref, TimelineKind.TASK, attribution, detail, key=key, stated=stated, now=now)


async def add_fact(
    session: AsyncSession,
    ref: Ref,
    kind: TimelineKind,
    attribution: Attribution,
    detail: Mapping[str, Any] | None,
    *,
    key: str | None = None,
    stated: Collection[str] = _BOTH,
    now: datetime,
) -> TimelineEntry:
    """Records a fact from which others are derived when they are read; `key` and `stated` as for a note.

    Raises IncidentNotFound, MergedAway, NoteIsEmpty, InTheFuture or IdempotencyKeyReused.
    """
    if kind in NEED_TEXT and not attribution.note:
        message = f"an entry of kind `{kind}` requires text"
        raise NoteIsEmpty(message)
    if key is not None:
        # The same lock as for every change of the incident: of two equal requests at once, the second finds the entry.
        await lock_keys(await session.connection(), [(await find(session, ref)).key_id])
        known = await timeline.sent_before(session, await find(session, ref), key)
        if known is not None:
            sent = (kind, attribution.note, detail, *(getattr(attribution, name) for name in stated))
            recorded = (known.kind, known.note, whole(known.detail, detail))
            if sent != (*recorded, *(getattr(known, name) for name in stated)):
                message = "this `Idempotency-Key` was used for another entry; send a new key with each of them"
                raise IdempotencyKeyReused(message)
            return known
    row = await hold(session, ref)
    not_in_the_future(attribution.at, now)
    return await timeline.append(session, row.id, kind, attribution, detail=detail, idempotency_key=key, now=now)


def whole(detail: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A stored detail, with null for those fields of `other` that an earlier version of the service did not store."""
    return detail and {**dict.fromkeys(other or ()), **detail}


# — tasks —


async def require_playbook(session: AsyncSession, playbook: PlaybookVersion | None) -> None:
    """Raises UnknownPlaybook."""
    if playbook is None:
        return
    query = select(Playbook.__table__.c.version).where(
        col(Playbook.service) == playbook.service,
        col(Playbook.name) == playbook.name,
        col(Playbook.version) == playbook.version,
    )
    # The lock keeps it from being deleted meanwhile.
    query = query.with_for_update(read=True, key_share=True)
    if (await (await session.connection()).execute(query)).first() is None:
        message = "the service has no such version of a playbook; GET /api/v1/services/{name}/playbooks lists them"
        raise UnknownPlaybook(message)


class _Entry(Protocol):
    """An entry, or a row of the same columns."""

    @property
    def id(self) -> int: ...
    @property
    def corrects(self) -> int | None: ...
    @property
    def at(self) -> datetime: ...
    @property
    def by(self) -> str | None: ...
    @property
    def note(self) -> str | None: ...
    @property
    def detail(self) -> Mapping[str, Any] | None: ...


async def tasks_of(tx: AsyncConnection, incidents: Collection[UUID]) -> Mapping[UUID, Sequence[Task]]:
    """The tasks of these incidents, as corrected and without withdrawn ones; incidents without tasks are missing."""
    query = select(TimelineEntry.__table__).where(
        col(TimelineEntry.incident_id).in_(incidents),
        col(TimelineEntry.kind) == TimelineKind.TASK,
        text(IS_CURRENT),
    )
    found: dict[UUID, list[Task]] = defaultdict(list)
    for row in await tx.execute(query):
        found[row.incident_id].append(task_of(row))
    return found


def task_of(entry: _Entry) -> Task:
    """The task in an entry of kind `task`."""
    details = TaskDetails.of(entry.detail or {})
    return Task(
        entry=entry.id if entry.corrects is None else entry.corrects,
        at=entry.at,
        effect=details.effect,
        ended_at=details.ended_at,
        by=entry.by,
        text=entry.note or "",
        stage=details.stage,
        link=details.link,
        command=details.command,
        playbook=details.playbook,
    )
