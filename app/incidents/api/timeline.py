"""The timeline over HTTP: its entries, notes, tasks, and corrections of what people recorded."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query
from pydantic import BaseModel, Field, HttpUrl, JsonValue, StringConstraints
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.http.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.fields import At, AtShown, IncidentInPath, Input, Name, Slug, Words
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.base.schema import Incident, TimelineEntry
from app.incidents import actions, corrections, notes, timeline
from app.incidents.api.actions import IfMatch
from app.incidents.api.answer import Answering, IncidentModel, columns_of
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.measures.measures import Facts
from app.incidents.notes import TaskDetails
from app.incidents.path import Effect, Phase, PlaybookVersion, Stage, phase_at
from app.incidents.timeline import Attribution

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])

Link = Annotated[HttpUrl, Field(description="A page with more about it, such as the runbook or the command's output")]


class RevisionModel(BaseModel):
    """Why an entry does not count any more."""

    status: Literal["corrected", "withdrawn"]
    entry: int = Field(description="Id of the entry that corrects or withdraws it")
    at: AtShown = Field(description="When it was corrected or withdrawn")
    by: str | None = Field(description="The person who corrected or withdrew it")
    why: str | None


class EntryModel(BaseModel):
    """One event. An entry that was corrected or withdrawn stays in the timeline, with a `revision`."""

    id: int
    at: AtShown = Field(description="When it happened")
    recorded_at: AtShown = Field(description="When it was recorded")
    kind: str = Field(examples=["acknowledged"])
    by: str | None
    note: str | None
    detail: dict[str, Any] | None = Field(
        description="What an entry of its kind has besides: a task its `effect`, `ended_at`, `stage`, `link`, `command`"
        " and `playbook`; other kinds the fields with which they are recorded. What a source reported about another "
        "tool has `source`, its name, and `at_arrival` if the tool reports no time, so that `at` is when the request "
        "was received. An acknowledgement recorded here has `via`: `api` or `page`",
        examples=[
            {
                "effect": "positive",
                "ended_at": "2026-08-20T10:20:00Z",
                "stage": None,
                "link": None,
                "command": "systemctl restart workers",
                "playbook": {"service": "checkout", "name": "restart-workers", "version": 3},
            }
        ],
    )
    phase: Phase | None = Field(
        description="The phase of the incident in which it happened; null between detection and end while the "
        "identification of the cause is not stated"
    )
    corrects: int | None = Field(
        description="If it corrects or withdraws what a person recorded: the id of the first entry of that"
    )
    revision: RevisionModel | None = Field(description="Null: nothing has replaced the entry")
    flags: list[str] = Field(
        description="`before_detection`: an acknowledgement before the incident was detected, which does not count"
    )


@router.get(
    "/{id}/timeline",
    response_model=Page[EntryModel],
    responses=problem_responses(404),
    summary="Read the timeline of an incident",
)
async def list_timeline(
    _: Reader,
    session: Session,
    paging: Pages,
    ref: IncidentInPath,
    kind: Annotated[
        list[TimelineKind],
        Query(description="Only entries of this kind; may be repeated", examples=[["task"]], max_length=50),
    ] = [],  # noqa: B006  fastapi copies it
) -> Page[EntryModel]:
    """Everything that happened to the incident, earliest first."""
    incident = await actions.find(session, ref)
    key = paging.after(datetime, int)
    rows = await timeline.entries(session, incident.id, kinds=kind, after=key, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row.at, row.id))
    return Page(items=await _entries(session, items, incident), next_cursor=cursor)


async def _entries(session: AsyncSession, items: Sequence[TimelineEntry], incident: Incident) -> list[EntryModel]:
    """Two statements at most. All entries are of this incident."""
    entries_of: dict[int, list[TimelineEntry]] = defaultdict(list)
    for entry in await timeline.entries_of_facts(session, {timeline.fact_of(entry) for entry in items}):
        entries_of[timeline.fact_of(entry)].append(entry)
    facts = Facts.of(incident)
    return [_entry(entry, entries_of[timeline.fact_of(entry)], incident, facts) for entry in items]


def _entry(entry: TimelineEntry, fact: Sequence[TimelineEntry], incident: Incident, facts: Facts) -> EntryModel:
    """`fact` has all entries of the same fact, in the order in which they were recorded."""
    later = next((one for one in fact if one.id > entry.id), None)
    revision = later and RevisionModel(
        status="withdrawn" if later.kind == TimelineKind.WITHDRAWN else "corrected",
        entry=later.id,
        at=later.recorded_at,
        by=later.corrected_by,
        why=later.why,
    )
    early = entry.kind == TimelineKind.ACKNOWLEDGED and entry.at < actions.detected_at(incident)
    flags = ["before_detection"] if early else []
    derived = {"phase": phase_at(facts, entry.at), "revision": revision, "flags": flags}
    return EntryModel.model_validate(columns_of(entry, EntryModel) | derived)


IdempotencyKey = Annotated[
    Name | None,
    Header(
        alias="Idempotency-Key",
        description="Any text that is new for each entry, such as a UUID. A request repeated with the same key "
        "is not recorded again, and is answered with the entry recorded first",
        examples=["7c4e4d0a-9f0b-4a55-8f3e-0e1a5d2b7c11"],
    ),
]


class Note(Input):
    note: Annotated[Words, StringConstraints(min_length=1), Field(examples=["Rolled back to 1.41"])]
    at: At | None = Field(None, description="The time that the note refers to; defaults to now")
    by: Name | None = Field(None, description="Defaults to the name of the token")


@router.post(
    "/{id}/timeline",
    status_code=201,
    response_model=EntryModel,
    responses=problem_responses(404, 409),
    summary="Add a note",
)
async def add_note(
    writer: Writer, session: Session, now: Now, ref: IncidentInPath, note: Note, idempotency_key: IdempotencyKey = None
) -> EntryModel:
    """Adds a note to the timeline."""
    attribution = Attribution(note.at or now, note.by or writer.name, note.note)
    entry = await notes.add_note(session, ref, attribution, key=idempotency_key, stated=stated(note), now=now)
    return await recorded(session, entry)


Command = Annotated[
    Words,
    StringConstraints(min_length=1, max_length=4000),
    Field(
        description="What was typed or run. Passwords, tokens and keys in it are replaced by `[redacted]`, not stored"
    ),
]


class PlaybookFollowed(Input):
    """A version of a playbook of a service, which must exist."""

    service: Name = Field(examples=["checkout"])
    name: Slug = Field(examples=["restart-workers"])
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(examples=[3])

    def fact(self) -> PlaybookVersion:
        return PlaybookVersion(self.service, self.name, self.version)


class TaskInput(Input):
    text: Annotated[Words, StringConstraints(min_length=1), Field(examples=["Restarted the workers of the queue"])]
    effect: Effect = Field(
        Effect.UNKNOWN,
        description="`positive` moved the incident towards recovery, `negative` away from it, `none` neither",
        examples=["positive"],
    )
    at: At | None = Field(None, description="When it was done, or begun; defaults to `ended_at` or, without it, to now")
    ended_at: At | None = Field(None, description="When it was finished; omit it if it took no time worth stating")
    stage: Stage | None = Field(None, description="The stage of diagnosis to which it belongs")
    link: Link | None = Field(None, examples=["https://wiki.example.org/restart-workers"])
    command: Command | None = Field(None, examples=["systemctl restart workers"])
    playbook: PlaybookFollowed | None = Field(None, description="The playbook that was followed", examples=[None])
    by: Name | None = Field(None, description="Who did it; defaults to the name of the token", examples=["ada"])

    def details(self) -> TaskDetails:
        return TaskDetails(
            self.effect,
            self.ended_at,
            self.stage,
            str(self.link) if self.link else None,
            self.command,
            self.playbook.fact() if self.playbook else None,
        )


@router.post(
    "/{id}/tasks",
    status_code=201,
    response_model=EntryModel,
    responses=problem_responses(404, 409),
    summary="Add a task",
)
async def add_task(
    writer: Writer,
    session: Session,
    now: Now,
    ref: IncidentInPath,
    task: TaskInput,
    idempotency_key: IdempotencyKey = None,
) -> EntryModel:
    """Records in the timeline what someone did to restore service. Tasks make up the path to recovery."""
    attribution = Attribution(task.at or task.ended_at or now, task.by or writer.name, task.text)
    entry = await notes.add_task(
        session, ref, attribution, task.details(), key=idempotency_key, stated=stated(task), now=now
    )
    return await recorded(session, entry)


def stated(sent: Input) -> list[str]:
    """Which of `at` and `by` the client stated."""
    return [name for name in ("at", "by") if getattr(sent, name) is not None]


async def recorded(session: AsyncSession, entry: TimelineEntry) -> EntryModel:
    """An entry that a merge or split may have moved since it was recorded."""
    [model] = await _entries(session, [entry], await actions.find(session, entry.incident_id))
    return model


EntryInPath = Annotated[
    int, Path(alias="entry", ge=1, le=2**63 - 1, description="Id of an entry in the timeline", examples=[41])
]


class CorrectionInput(Input):
    """The corrected values. What is omitted or null stays as it is."""

    at: At | None = Field(None, description="When it really happened")
    author: Name | None = Field(None, description="The person who really did it: `by` of the entry", examples=["ada"])
    note: Words | None = Field(None, description="The corrected text; empty text removes the comment of an action")
    detail: dict[Name, JsonValue] | None = Field(
        None,
        max_length=20,
        description="Fields of the `detail` of an entry that is no task, with their corrected values",
        examples=[{"person": "ben"}],
    )
    effect: Effect | None = Field(None, description="What a task did for the recovery", examples=["negative"])
    ended_at: At | None = Field(None, description="When a task was really finished")
    stage: Stage | None = Field(None, description="The stage of diagnosis to which a task belongs")
    link: Link | None = Field(None, description="The link of a task", examples=["https://wiki.example.org/restart"])
    command: Command | None = Field(None, examples=["systemctl restart workers"])
    playbook: PlaybookFollowed | None = Field(
        None, description="The playbook that was followed in a task", examples=[None]
    )
    by: Name | None = Field(
        None, description="The person making the correction; defaults to the name of the token", examples=["bob"]
    )
    why: Words | None = Field(None, description="The reason for the correction", examples=["Wrong time zone"])


@router.post(
    "/{id}/timeline/{entry}/correct",
    response_model=IncidentModel,
    responses=problem_responses(404, 409, 412),
    summary="Correct what a person recorded",
)
async def correct_entry(
    writer: Writer,
    session: Session,
    now: Now,
    answer: Answering,
    ref: IncidentInPath,
    entry: EntryInPath,
    correction: CorrectionInput,
    if_match: IfMatch = None,
) -> IncidentModel:
    """For acknowledgements, milestones, resolves, notes, tasks and every other entry that a person recorded. The entry
    stays in the timeline, marked as corrected, and the numbers follow the correction. Correcting the time of a resolve
    moves the ends of the alerts that it ended. A time within another incident of the same grouping key moves the entry
    there.
    """
    change = corrections.Change(
        at=correction.at,
        author=correction.author,
        note=correction.note,
        detail=correction.detail,
        effect=correction.effect,
        ended_at=correction.ended_at,
        stage=correction.stage,
        link=str(correction.link) if correction.link else None,
        command=correction.command,
        playbook=correction.playbook.fact() if correction.playbook else None,
    )
    by = correction.by or writer.name
    return await answer(
        await corrections.correct(session, ref, entry, change, by=by, why=correction.why, if_match=if_match, now=now)
    )


class WithdrawalInput(Input):
    by: Name | None = Field(
        None, description="The person withdrawing it; defaults to the name of the token", examples=["bob"]
    )
    why: Words | None = Field(None, description="The reason", examples=["Clicked on the wrong incident"])


@router.post(
    "/{id}/timeline/{entry}/withdraw",
    response_model=IncidentModel,
    responses=problem_responses(404, 409, 412),
    summary="Withdraw what a person recorded",
)
async def withdraw_entry(
    writer: Writer,
    session: Session,
    now: Now,
    answer: Answering,
    ref: IncidentInPath,
    entry: EntryInPath,
    withdrawal: WithdrawalInput | None = None,
    if_match: IfMatch = None,
) -> IncidentModel:
    """For acknowledgements, milestones, resolves, notes, tasks and stated causes. The entry stays in the timeline,
    marked as withdrawn, but no longer counts. Withdrawing a resolve restores the ends that the sources report.
    """
    withdrawal = withdrawal or WithdrawalInput()
    by = withdrawal.by or writer.name
    return await answer(
        await corrections.withdraw(session, ref, entry, by=by, why=withdrawal.why, if_match=if_match, now=now)
    )
