"""The timeline over HTTP: its entries, notes, tasks, and corrections of what people recorded."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field, HttpUrl, JsonValue, StringConstraints

from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session, context_of
from app.base.http.requests.fields import At, IncidentInPath, Input, Name, Slug, Words
from app.base.http.requests.paging import Page, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.incidents import actions
from app.incidents.api.actions import IfMatch
from app.incidents.api.answer import Answering, IncidentModel
from app.incidents.api.entry import EntryModel, entry_models, recorded
from app.incidents.api.export import FORMATS, TimelineFormat, accepted, exported
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import corrections, notes, timeline
from app.incidents.history.notes import TaskDetails
from app.incidents.history.path import Effect, Phase, PlaybookVersion, Stage
from app.incidents.history.timeline import Attribution, EntryFilter
from app.incidents.measures.measures import Facts

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])

Link = Annotated[HttpUrl, Field(description="A page with more about it, such as the runbook or the command's output")]


@router.get(
    "/{id}/timeline",
    response_model=Page[EntryModel],
    responses=problem_responses(404) | FORMATS,
    summary="Read the timeline of an incident",
)
async def list_timeline(
    _: Reader,
    request: Request,
    session: Session,
    paging: Pages,
    ref: IncidentInPath,
    kind: Annotated[
        list[TimelineKind],
        Query(description="Only entries of this kind; may be repeated", examples=[["task"]], max_length=50),
    ] = [],  # noqa: B006  fastapi copies it
    phase: Annotated[
        list[Phase],
        Query(
            description="Only entries of this phase of the incident; may be repeated. An entry whose `phase` is null "
            "belongs to none",
            examples=[["response"]],
            max_length=20,
        ),
    ] = [],  # noqa: B006  as above
    format_: Annotated[
        TimelineFormat | None,
        Query(
            alias="format",
            description="Defaults to what the `Accept` header asks for, else `json`. `csv` and `md` return all entries "
            "that match; `limit` and `cursor` apply to `json` only",
        ),
    ] = None,
) -> Page[EntryModel] | StreamingResponse:
    """Everything that happened to the incident, earliest first."""
    incident = await actions.find(session, ref)
    chosen = EntryFilter(Facts.of(incident), frozenset(kind), frozenset(phase))
    wanted = format_ or accepted(request.headers.get("accept", ""))
    if wanted is not TimelineFormat.JSON:
        return await exported(session, context_of(request).engine, incident, chosen, wanted)
    key = paging.after(datetime, int)
    rows = await timeline.entries(session, incident.id, chosen, after=key, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row.at, row.id))
    return Page(items=await entry_models(session, items, incident), next_cursor=cursor)


IdempotencyKey = Annotated[
    Name | None,
    Header(
        alias="Idempotency-Key",
        description="Any text that is new for each entry, such as a UUID. A request repeated with the same key is not "
        "recorded again, and returns the entry that was recorded first",
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
    at: At | None = Field(
        None, description="When it was done or started; defaults to `ended_at` or, without it, to now"
    )
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
        description="Corrected values of fields in the `detail` of an entry; not for tasks",
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
    change = corrections.CorrectedValues(
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
