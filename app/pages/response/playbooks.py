"""Playbooks: which services have one, and one playbook with its versions, which are written, verified and approved."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Response
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.access.tokens import Scope
from app.base.errors import Conflict, Problem
from app.base.http.requests.fields import Input, Name, Slug
from app.incidents.history.path import Effect
from app.pages.web.forms import Form, entered_time, parsed
from app.pages.web.frame import PageRequest, Refusal, SegmentPageRoute, SignedIn, see_other, with_query
from app.response.api.playbooks import ApprovalInput, PlaybookInput, PlaybookName, VerificationInput, VersionInPath
from app.response.playbooks import PlaybookState, state_of, version_in_use
from app.response.store import playbooks as store

router = APIRouter(prefix="/response/playbooks", route_class=SegmentPageRoute, include_in_schema=False)

NEW = "_new"
SHOWN_AT_MOST = 500
SERVICES_AT_MOST = 500  # suggested
BODY_AT_MOST = 40_000  # characters that a form can hold

ServiceOfPlaybook = Annotated[Name, Path(alias="service")]


class _NewPlaybook(Input):
    service: Name
    name: Slug


def address_of(service: str, name: str) -> str:
    return f"/response/playbooks/{quote(service, safe='')}/{name}"


@dataclass(frozen=True, slots=True)
class VersionView:
    row: schema.Playbook
    state: PlaybookState


@dataclass(frozen=True, slots=True)
class PlaybookView:
    """A playbook; `used` is the version in use, None if none was approved. Versions are newest first."""

    service: str
    name: str
    versions: Sequence[VersionView]
    used: VersionView | None

    @classmethod
    def of(cls, versions: Sequence[schema.Playbook], now: datetime) -> "PlaybookView":
        views = [VersionView(each, state_of(each, now=now)) for each in versions]
        used = version_in_use(versions, now=now)
        in_use = next((each for each in views if used is not None and each.row.version == used.version), None)
        return cls(versions[0].service, versions[0].name, views, in_use)

    @property
    def newest(self) -> VersionView:
        return self.versions[0]

    @property
    def address(self) -> str:
        return address_of(self.service, self.name)


# — the list —


@router.get("")
async def show_playbooks(asked: SignedIn) -> Response:
    async with asked.reading() as session:
        every = await store.every_playbook(session)
        coverage = await store.coverage(session, every, now=asked.now)
    views = [PlaybookView.of(versions, asked.now) for versions in every.values()]
    return asked.page(
        "playbooks.html",
        playbooks=views[:SHOWN_AT_MOST],
        more=max(0, len(views) - SHOWN_AT_MOST),
        without=coverage.without,
        expiring={(each.service, each.name) for each in coverage.expiring},
    )


# — one playbook —


@router.get(f"/{NEW}")
async def new_playbook(asked: SignedIn, service: Annotated[str, Query(max_length=200)] = "") -> Response:
    asked.person.require(Scope.WRITE)
    return await _new(asked, service)


async def _new(asked: PageRequest, service: str, refused: Refusal | None = None) -> Response:
    async with asked.reading() as session:
        query = select(schema.Service.name).order_by(col(schema.Service.name)).limit(SERVICES_AT_MOST)
        services = (await session.exec(query)).all()
    return asked.page(
        "playbook_new.html",
        status=refused.status if refused else 200,
        service=service,
        services=services,
        longest=BODY_AT_MOST,
        refused=refused,
    )


@router.post(f"/{NEW}")
async def create_playbook(asked: SignedIn) -> Response:
    form = await asked.form()
    try:
        named = {name: form.get(name, "").strip() for name in ("service", "name")}
        new = parsed(_NewPlaybook, named)
        async with asked.session() as session:
            if new.name in await store.playbooks_of(session, new.service):
                message = "the service already has a playbook of this name; write a new version on its page"
                raise Conflict(message)
            await _write(asked, session, new.service, new.name, form)
    except Problem as problem:
        return await _new(asked, "", Refusal(problem, form))
    return see_other(address_of(new.service, new.name))


@router.get("/{service}/{playbook}")
async def show_playbook(
    asked: SignedIn,
    service: ServiceOfPlaybook,
    name: PlaybookName,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Response:
    return await _page(asked, service, name, version)


async def _page(
    asked: PageRequest, service: str, name: str, version: int | None = None, refused: Refusal | None = None
) -> Response:
    """Shows this version; None: the one in use, else the newest."""
    async with asked.reading() as session:
        versions = (await store.versions_of(session, service)).get(name)
        if not versions:
            raise store.PlaybookNotFound("this service has no playbook of this name")
        playbook = PlaybookView.of(versions, asked.now)
        uses = await store.uses_of(session, service, name)
        chosen = version or (playbook.used or playbook.newest).row.version
        shown = await store.find_version(session, service, name, chosen, lock=False)
        newest = shown
        if playbook.newest.row.version != chosen:
            newest = await store.find_version(session, service, name, playbook.newest.row.version, lock=False)
    return asked.page(
        "playbook.html",
        status=refused.status if refused else 200,
        playbook=playbook,
        uses={version: _use(counts) for (_, version), counts in uses.items()},
        shown_version=VersionView(shown, state_of(shown, now=asked.now)),
        newest=newest,
        is_editable=len(newest.body or "") <= BODY_AT_MOST,
        longest=BODY_AT_MOST,
        usual_days=store.VALID_FOR.days,
        longest_days=store.LONGEST.days,
        expires_at=asked.now + store.VALID_FOR,
        refused=refused,
    )


def _use(counts: Mapping[Effect, int]) -> tuple[int, Sequence[str]]:
    """How many tasks followed a version, and what they did."""
    return sum(counts.values()), [f"{n} {_EFFECTS[effect]}" for effect, n in counts.items() if n]


_EFFECTS = {
    Effect.POSITIVE: "helped",
    Effect.NEGATIVE: "harmed",
    Effect.NONE: "changed nothing",
    Effect.UNKNOWN: "not known",
}


@router.post("/{service}/{playbook}")
async def write_version(asked: SignedIn, service: ServiceOfPlaybook, name: PlaybookName) -> Response:
    form = await asked.form()
    try:
        async with asked.session() as session:
            version = await _write(asked, session, service, name, form)
    except Problem as problem:
        return await _page(asked, service, name, None, Refusal(problem, form))
    return see_other(with_query(address_of(service, name), {"version": version}))


async def _write(asked: PageRequest, session: AsyncSession, service: str, name: str, form: Form) -> int:
    """The number of the version, which is an earlier one if nothing was changed."""
    content = parsed(
        PlaybookInput,
        {
            "body": form.get("body", "") or None,
            "link": form.get("link", "").strip() or None,
            "author": asked.person.name,
        },
    )
    row, _ = await store.put_playbook(
        session,
        service,
        name,
        body=content.body,
        link=str(content.link) if content.link else None,
        author=content.author or asked.person.name,
        token=asked.person.token,
        now=asked.now,
    )
    return row.version


# — what happens to a version —

Act = Callable[[AsyncSession, schema.Playbook, Form], Awaitable[object]]


@router.post("/{service}/{playbook}/{version}/verify")
async def verify(asked: SignedIn, service: ServiceOfPlaybook, name: PlaybookName, version: VersionInPath) -> Response:
    async def act(session: AsyncSession, row: schema.Playbook, form: Form) -> None:
        entered = form.get("incident", "").strip().upper() or None
        verified = parsed(VerificationInput, {"by": asked.person.name, "incident": entered})
        by, token = asked.person.name, asked.person.token
        await store.verify(session, row, by=by, token=token, ref=verified.incident, now=asked.now)

    return await _acted(asked, service, name, version, act)


@router.post("/{service}/{playbook}/{version}/approve")
async def approve(asked: SignedIn, service: ServiceOfPlaybook, name: PlaybookName, version: VersionInPath) -> Response:
    async def act(session: AsyncSession, row: schema.Playbook, form: Form) -> None:
        expires_at = entered_time(form.get("expires_at", ""), asked.zone)
        approval = parsed(ApprovalInput, {"by": asked.person.name, "expires_at": expires_at})
        by, token = asked.person.name, asked.person.token
        await store.approve(session, row, by=by, token=token, expires_at=approval.expires_at, now=asked.now)

    return await _acted(asked, service, name, version, act)


@router.post("/{service}/{playbook}/{version}/withdraw")
async def withdraw(asked: SignedIn, service: ServiceOfPlaybook, name: PlaybookName, version: VersionInPath) -> Response:
    async def act(session: AsyncSession, row: schema.Playbook, _: Form) -> None:
        await store.withdraw(session, row, now=asked.now)

    return await _acted(asked, service, name, version, act)


async def _acted(asked: PageRequest, service: str, name: str, version: int, act: Act) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        await act(session, await store.find_version(session, service, name, version), form)

    async def refused(refusal: Refusal) -> Response:
        if isinstance(refusal.problem, store.PlaybookNotFound):
            raise refusal.problem
        if isinstance(refusal.problem, store.SameToken):
            message = "this needs a token other than the author's; sign in with a different one, or ask someone else"
            refusal = Refusal(store.SameToken(message), form)
        return await _page(asked, service, name, version, refusal)

    then = with_query(address_of(service, name), {"version": version})
    return await asked.change(change, form, then=then, refused=refused)
