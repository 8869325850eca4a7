"""HTTP API for importing a chat."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from app.base.errors import Invalid
from app.base.http.access.auth import Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import TIME, IncidentInPath, Name, When, time_of
from app.base.http.responses.problems import problem_responses
from app.base.process.threads import off_loop_if_large
from app.response.chat import MESSAGES_AT_MOST, ChatFormat, Skipped, read
from app.response.store import chat

router = APIRouter(prefix="/api/v1/incidents", tags=["response"])

BAD_AT_MOST = 100


class BadModel(BaseModel):
    line: int = Field(description="Number of the message or line, from 1")
    why: str


class ImportResponse(BaseModel):
    taken: int = Field(description="Messages that were added to the timeline, as entries of kind `said`")
    known: int = Field(description="Messages that were in the timeline already")
    elsewhere: int = Field(description="Messages that are in the timeline of another incident, and stay there")
    redacted: int = Field(description="Messages of this period from which secrets were removed; they are not stored")
    skipped: dict[Skipped, int] = Field(
        description="Messages left out: of the system (`join`), `empty`, `deleted`, `outside` the period, or `other`"
    )
    bad: list[BadModel] = Field(description="Messages that could not be read; at most 100")
    bad_left_out: int


_BODY = {
    "required": True,
    "description": f"At most 4 MiB and {MESSAGES_AT_MOST:,} messages; larger chats can be sent in parts",
    "content": {
        "application/octet-stream": {
            "schema": {"type": "string", "format": "binary"},
            "example": '{"at": "2026-08-20T10:05:00Z", "by": "ada", "text": "Rolling back"}',
        }
    },
}


@router.post(
    "/{id}/chat",
    response_model=ImportResponse,
    responses=problem_responses(400, 404, 409, 413),
    summary="Import a chat",
    openapi_extra={"requestBody": _BODY},
)
async def import_chat(
    _: Writer,
    session: Session,
    now: Now,
    request: Request,
    ref: IncidentInPath,
    format_: Annotated[
        ChatFormat,
        Query(
            alias="format",
            description="`slack`: a file of an export or a page of `conversations.history`, with or without `users`; "
            "`mattermost`: lines of a bulk export, or a page of posts; `teams`: a page of messages of Microsoft Graph; "
            '`lines`: lines such as `{"at": …, "by": …, "text": …}`, each with an `id` if it has one',
        ),
    ],
    room: Annotated[
        Name | None,
        Query(
            description="The channel of the messages, if the body does not name it. It is part of the identity of a "
            "message, so use the same name each time",
            examples=["#inc-7"],
        ),
    ] = None,
    since: Annotated[
        When | None,
        Query(
            alias="from",
            description="Only messages from this time on. Without `from` and `to`: from one hour before the incident "
            "until "
            f"one hour after it. {TIME}",
        ),
    ] = None,
    until: Annotated[When | None, Query(alias="to", description=f"Only messages before this time. {TIME}")] = None,
) -> ImportResponse:
    """Adds messages to the timeline. A message that was imported before, even from another file, is skipped. Tokens,
    keys and passwords are removed first.
    """
    begin, end = time_of(since, now), time_of(until, now)
    if begin and end and begin > end:
        message = "`from` must not be after `to`"
        raise Invalid(message)
    body = await request.body()
    reading = await off_loop_if_large(len(body), read, format_, body, room=room, now=now)
    found = await chat.import_chat(session, ref, format_, reading, since=begin, until=end, now=now)
    return ImportResponse(
        taken=found.taken,
        known=found.known,
        elsewhere=found.elsewhere,
        redacted=found.redacted,
        skipped=dict(found.skipped),
        bad=[BadModel(line=each.line, why=each.why) for each in reading.bad[:BAD_AT_MOST]],
        bad_left_out=max(0, len(reading.bad) - BAD_AT_MOST),
    )
