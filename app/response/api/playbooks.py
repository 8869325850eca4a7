"""HTTP API of playbooks."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Body, Path, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, StringConstraints, model_validator
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import (
    At,
    AtShown,
    IncidentRef,
    Input,
    Name,
    ServiceName,
    SingleSegmentRoute,
    Slug,
    storable,
)
from app.base.http.responses.problems import problem_responses
from app.incidents.api.path import CountsModel
from app.incidents.history.path import Effect
from app.response.playbooks import PlaybookState, state_of, version_in_use
from app.response.store import playbooks

_of_service = APIRouter(prefix="/api/v1/services", tags=["response"], route_class=SingleSegmentRoute)
_coverage = APIRouter(prefix="/api/v1/playbooks", tags=["response"])

PlaybookName = Annotated[
    Slug, Path(alias="playbook", description="Letters, digits, `.`, `_` and `-`", examples=["restart-workers"])
]
VersionInPath = Annotated[int, Path(ge=1, le=2**31 - 1, examples=[1])]
By = Annotated[Name, Field(examples=["ben"])]


class PlaybookInput(Input):
    body: Annotated[str, StringConstraints(min_length=1, max_length=200_000), AfterValidator(storable)] | None = Field(
        None, description="What to do, as text or Markdown", examples=["1. Drain the queue\n2. Restart the workers"]
    )
    link: HttpUrl | None = Field(
        None, description="URL of the playbook, if it is kept elsewhere", examples=["https://wiki.example.org/restart"]
    )
    author: By | None = Field(None, description="Defaults to the name of the token", examples=["ada"])

    @model_validator(mode="after")
    def _has_content(self) -> "PlaybookInput":
        if self.body is None and self.link is None:
            message = "needs `body`, `link` or both"
            raise ValueError(message)
        return self


class VersionResponse(BaseModel):
    """A version of a playbook. Its content never changes."""

    model_config = ConfigDict(from_attributes=True)

    version: int
    state: PlaybookState = Field(
        description="Someone wrote it (`draft`), someone else followed it (`verified`), and someone other than the "
        "author approved it, until it expires"
    )
    link: str | None
    author: str
    created_at: AtShown
    verified_at: AtShown | None
    verified_by: str | None
    approved_at: AtShown | None
    approved_by: str | None
    expires_at: AtShown | None
    withdrawn_at: AtShown | None
    used: CountsModel = Field(description="How many tasks name it as the playbook that was followed, by their effect")

    @classmethod
    def of(cls, row: schema.Playbook, uses: playbooks.Uses, now: datetime) -> "VersionResponse":
        return cls.model_validate(_columns(row, uses, now))


class ContentResponse(VersionResponse):
    body: str | None

    @classmethod
    def of(cls, row: schema.Playbook, uses: playbooks.Uses, now: datetime) -> "ContentResponse":
        return cls.model_validate(_columns(row, uses, now) | {"body": row.body})


_NEVER: Mapping[Effect, int] = dict.fromkeys(Effect, 0)


def _columns(row: schema.Playbook, uses: playbooks.Uses, now: datetime) -> dict[str, object]:
    derived = {"state": state_of(row, now=now), "used": uses.get((row.name, row.version), _NEVER)}
    return {name: getattr(row, name) for name in VersionResponse.model_fields.keys() - derived.keys()} | derived


class PlaybookResponse(BaseModel):
    service: str
    name: str
    in_use: int | None = Field(
        description="The newest approved version, else the newest one that has expired: in an incident, an old "
        "playbook is better than none. Null: no version has been approved"
    )
    expired: bool = Field(description="The version in use has expired, and may be wrong")
    versions: list[VersionResponse] = Field(description="Newest first, without their bodies")

    @classmethod
    def of(cls, versions: Sequence[schema.Playbook], uses: playbooks.Uses, now: datetime) -> "PlaybookResponse":
        used = version_in_use(versions, now=now)
        return cls(
            service=versions[0].service,
            name=versions[0].name,
            in_use=used and used.version,
            expired=used is not None and state_of(used, now=now) is PlaybookState.EXPIRED,
            versions=[VersionResponse.of(each, uses, now) for each in versions],
        )


class PlaybooksResponse(BaseModel):
    items: list[PlaybookResponse] = Field(description="By name")


@_of_service.get("/{name}/playbooks", summary="List the playbooks of a service", responses=problem_responses(404))
async def list_playbooks(session: Session, now: Now, name: ServiceName, _: Reader) -> PlaybooksResponse:
    """For each playbook its versions, which one is in use, and how often each was followed."""
    found = await playbooks.playbooks_of(session, name)
    uses = await playbooks.uses_of(session, name)
    return PlaybooksResponse(items=[PlaybookResponse.of(versions, uses, now) for versions in found.values()])


@_of_service.put(
    "/{name}/playbooks/{playbook}",
    summary="Write a version of a playbook",
    responses=problem_responses(404, 409) | {201: {"model": ContentResponse}},
)
async def put_playbook(
    session: Session,
    now: Now,
    name: ServiceName,
    playbook: PlaybookName,
    body: Annotated[PlaybookInput, Body(examples=[{"body": "1. Drain the queue\n2. Restart the workers"}])],
    response: Response,
    writer: Writer,
) -> ContentResponse:
    """Makes the next version, which is a draft. Returns 200 and the newest version if its content is the same."""
    row, is_new = await playbooks.put_playbook(
        session,
        name,
        playbook,
        body=body.body,
        link=str(body.link) if body.link else None,
        author=body.author or writer.name,
        token=writer,
        now=now,
    )
    response.status_code = 201 if is_new else 200
    return await _content(session, row, now)


@_of_service.delete(
    "/{name}/playbooks/{playbook}",
    summary="Delete a playbook",
    status_code=204,
    responses=problem_responses(404, 409),
)
async def delete_playbook(session: Session, name: ServiceName, playbook: PlaybookName, _: Writer) -> None:
    """All its versions. Refused if a task names it: withdraw its versions instead."""
    await playbooks.delete_playbook(session, name, playbook)


async def _content(session: AsyncSession, row: schema.Playbook, now: datetime) -> ContentResponse:
    return ContentResponse.of(row, await playbooks.uses_of(session, row.service, row.name), now)


@_of_service.get(
    "/{name}/playbooks/{playbook}/versions/{version}",
    summary="Read a version of a playbook",
    responses=problem_responses(404),
)
async def get_playbook_version(
    session: Session, now: Now, name: ServiceName, playbook: PlaybookName, version: VersionInPath, _: Reader
) -> ContentResponse:
    """Returns its content and its state."""
    row = await playbooks.find_version(session, name, playbook, version, lock=False)
    return await _content(session, row, now)


class VerificationInput(Input):
    by: By | None = Field(None, description="Who followed it; defaults to the name of the token")
    incident: IncidentRef | None = Field(None, description="The incident in which it was followed", examples=["INC-7"])


@_of_service.post(
    "/{name}/playbooks/{playbook}/versions/{version}/verify",
    summary="Verify a version of a playbook",
    responses=problem_responses(404, 409),
)
async def verify_playbook(
    session: Session,
    now: Now,
    name: ServiceName,
    playbook: PlaybookName,
    version: VersionInPath,
    writer: Writer,
    verification: VerificationInput | None = None,
) -> ContentResponse:
    """Records that someone has followed it, and that it works. Requires a token other than the author's. Repeating it
    changes nothing.
    """
    verification = verification or VerificationInput()
    by, ref = verification.by or writer.name, verification.incident
    act = partial(playbooks.verify, session, by=by, token=writer, ref=ref, now=now)
    return await _changed(session, (name, playbook, version), act, now)


class ApprovalInput(Input):
    by: By | None = Field(None, description="Defaults to the name of the token")
    expires_at: At | None = Field(
        None,
        description=f"Defaults to {playbooks.VALID_FOR.days} days from now, at most {playbooks.LONGEST.days}",
    )


@_of_service.post(
    "/{name}/playbooks/{playbook}/versions/{version}/approve",
    summary="Approve a version of a playbook",
    responses=problem_responses(404, 409),
)
async def approve_playbook(
    session: Session,
    now: Now,
    name: ServiceName,
    playbook: PlaybookName,
    version: VersionInPath,
    writer: Writer,
    approval: ApprovalInput | None = None,
) -> ContentResponse:
    """The version must be verified, and the token must not be the author's. Approving it again renews it."""
    approval = approval or ApprovalInput()
    by, expires_at = approval.by or writer.name, approval.expires_at
    act = partial(playbooks.approve, session, by=by, token=writer, expires_at=expires_at, now=now)
    return await _changed(session, (name, playbook, version), act, now)


@_of_service.post(
    "/{name}/playbooks/{playbook}/versions/{version}/withdraw",
    summary="Withdraw a version of a playbook",
    responses=problem_responses(404),
)
async def withdraw_playbook(
    session: Session, now: Now, name: ServiceName, playbook: PlaybookName, version: VersionInPath, _: Writer
) -> ContentResponse:
    """The version must no longer be followed. Repeating it changes nothing."""
    return await _changed(session, (name, playbook, version), partial(playbooks.withdraw, session, now=now), now)


async def _changed(
    session: AsyncSession,
    which: tuple[str, str, int],
    act: Callable[[schema.Playbook], Awaitable[schema.Playbook]],
    now: datetime,
) -> ContentResponse:
    """The version of a playbook of a service after `act` has changed it."""
    return await _content(session, await act(await playbooks.find_version(session, *which)), now)


class ExpiringModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    service: str
    name: str
    version: int
    expires_at: AtShown


class CoverageResponse(BaseModel):
    without: list[str] = Field(
        description="Services with an incident in the last 90 days, but without an approved playbook"
    )
    expiring: list[ExpiringModel] = Field(description="Versions in use that expire within 30 days")


@_coverage.get("/coverage", summary="Find services without a playbook", responses=problem_responses())
async def get_playbook_coverage(session: Session, now: Now, _: Reader) -> CoverageResponse:
    """Also lists the playbooks that expire soon."""
    found = await playbooks.coverage(session, await playbooks.every_playbook(session), now=now)
    expiring = [ExpiringModel.model_validate(each) for each in found.expiring]
    return CoverageResponse(without=[*found.without], expiring=expiring)


router = APIRouter()
for _each in (_of_service, _coverage):
    router.include_router(_each)
