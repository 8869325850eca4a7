"""The report for customers: writing it, the check for internal words, approval with another token, publication."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import PublicIncident, ReportVersion, Review
from app.incidents.actions import Ref
from app.pages.reviews.fields import id_of
from app.pages.web import fields
from app.pages.web.forms import Form, parsed
from app.pages.web.frame import PageRequest, PageRoute, Refusal, SignedIn
from app.reviews.api.fields import ReviewInPath
from app.reviews.api.public_report import (
    PAGE_HEADERS,
    AcceptanceInput,
    PublicReportInput,
    PublicTextInput,
    VersionInPath,
    address_of,
    content_model,
    published_of,
    site_of,
    state_of,
)
from app.reviews.lifecycle import FindingKind, ReviewState
from app.reviews.public_report.leaks import Leak, LeakKind
from app.reviews.public_report.outline import PublicOutline
from app.reviews.store import action_items, findings, reviews
from app.reviews.store import public_report as store

router = APIRouter(prefix="/reviews/{review}/public-report", route_class=PageRoute, include_in_schema=False)

INCIDENTS_OFFERED = 25
OUTLINES = {PublicOutline.FULL: "with a heading for each topic", PublicOutline.SHORT: "in three parts"}
LISTS = ("learnings", "countermeasures")
LEAKS = {
    LeakKind.SECRET: "a secret",
    LeakKind.PERSON: "the name of a person or team",
    LeakKind.SERVICE: "the name of a service",
    LeakKind.SOURCE: "the name of a source",
    LeakKind.LABEL: "the value of a label",
    LeakKind.EMAIL: "an email address",
    LeakKind.URL: "a web address",
    LeakKind.ADDRESS: "a network address",
    LeakKind.HOST: "a host",
    LeakKind.MONEY: "an amount of money",
    LeakKind.NUMBER: "an internal number",
}


def _place(ref: Ref) -> str:
    return f"/reviews/{f'REV-{ref}' if isinstance(ref, int) else ref}/public-report"


@router.get("")
async def show(
    asked: SignedIn, ref: ReviewInPath, version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> Response:
    return await _page(asked, ref, version)


@router.get("/{version}/page")
async def show_as_customers(asked: SignedIn, ref: ReviewInPath, version: VersionInPath) -> Response:
    """Byte for byte what is published."""
    async with asked.reading() as session:
        row = await store.find_version(session, await reviews.find(session, ref), version)
    return HTMLResponse(row.page, headers=PAGE_HEADERS)


@router.post("")
async def write(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def change(session: AsyncSession, form: Form) -> None:
        body = parsed(PublicReportInput, _values(form))
        review = await reviews.hold_row(session, ref)
        new, site = body.new(asked.person.name), site_of(asked.context.settings)
        await store.write(session, review, new, token=asked.person.token, site=site, now=asked.now)

    return await _changed(asked, ref, change)


@router.post("/withdraw")
async def withdraw(asked: SignedIn, ref: ReviewInPath) -> Response:
    async def change(session: AsyncSession, _: Form) -> None:
        review = await reviews.hold_row(session, ref)
        await store.withdraw(session, review, by=asked.person.name, token=asked.person.token, now=asked.now)

    return await _changed(asked, ref, change)


@router.post("/{version}/accept")
async def accept(asked: SignedIn, ref: ReviewInPath, version: VersionInPath) -> Response:
    return await _decided(asked, ref, version, _accept)


@router.post("/{version}/approve")
async def approve(asked: SignedIn, ref: ReviewInPath, version: VersionInPath) -> Response:
    return await _decided(asked, ref, version, _approve)


@router.post("/{version}/publish")
async def publish(asked: SignedIn, ref: ReviewInPath, version: VersionInPath) -> Response:
    return await _decided(asked, ref, version, _publish)


async def _accept(session: AsyncSession, review: Review, row: ReportVersion, form: Form, **who: Any) -> object:
    sent = parsed(AcceptanceInput, {name: form.get(name, "") for name in ("at", "kind", "words")})
    return await store.accept(session, review, row, Leak(sent.at, sent.kind, sent.words), **who)


async def _approve(session: AsyncSession, review: Review, row: ReportVersion, _: Form, **who: Any) -> object:
    return await store.approve(session, review, row, **who)


async def _publish(session: AsyncSession, review: Review, row: ReportVersion, _: Form, **who: Any) -> object:
    return await store.publish(session, review, row, **who)


async def _decided(asked: PageRequest, ref: Ref, version: int, act: Callable[..., Awaitable[object]]) -> Response:
    async def change(session: AsyncSession, form: Form) -> None:
        review = await reviews.hold_row(session, ref)
        row = await store.find_version(session, review, version)
        who = {"by": asked.person.name, "token": asked.person.token, "now": asked.now}
        await act(session, review, row, form, site=site_of(asked.context.settings), **who)

    return await _changed(asked, ref, change, version)


async def _changed(
    asked: PageRequest, ref: Ref, act: Callable[[AsyncSession, Form], Awaitable[None]], version: int | None = None
) -> Response:
    form = await asked.form()

    async def refused(refusal: Refusal) -> Response:
        if isinstance(refusal.problem, store.ReportNotFound):
            raise refusal.problem
        return await _page(asked, ref, version, _in_words(refusal))

    return await asked.change(partial(_with, act, form), form, then=_place(ref), refused=refused)


async def _with(act: Callable[[AsyncSession, Form], Awaitable[None]], form: Form, session: AsyncSession) -> None:
    await act(session, form)


def _in_words(refusal: Refusal) -> Refusal:
    if isinstance(refusal.problem, store.SameToken):
        message = "this needs a token other than the author's; sign in with a different one, or ask someone else"
        return Refusal(store.SameToken(message), refusal.form)
    if isinstance(refusal.problem, store.NoPublicIncident):
        message = "choose the public incident that the report is about; if there is none, publish it on the status page"
        return Refusal(store.NoPublicIncident(message), refusal.form)
    return refusal


def _values(form: Form) -> dict[str, Any]:
    """Raises Invalid."""
    texts: dict[str, Any] = {name: form.get(name, "").strip() for name in PublicTextInput.model_fields}
    return {
        **texts,
        **{name: fields.entries(form.get(name, "")) for name in LISTS},
        "outline": form.get("outline", ""),
        "public_incident": id_of(form, "public_incident"),
        "based_on": form.get("based_on", ""),
    }


# — the page —


async def _page(asked: PageRequest, ref: Ref, version: int | None = None, refused: Refusal | None = None) -> Response:
    """Shows this version, by default the newest."""
    site, settings = site_of(asked.context.settings), asked.context.settings
    async with asked.reading() as session:
        review = await reviews.find(session, ref)
        versions = await store.versions_of(session, review)
        row = content = differences = None
        if versions:
            row = await store.find_version(session, review, version)
            content = content_model(row, await store.warnings_of(session, review, row, site))
            differences = await store.differences(session, review, row, now=asked.now, weights=settings.impact)
        elif version is not None:
            await store.find_version(session, review, version)  # raises
        offered = await _offered(session, review)
        found = await findings.findings_of(session, review.id)
        items = await action_items.items_of(session, review.id)
    published = published_of(versions)
    return asked.page(
        "public_report.html",
        status=refused.status if refused else 200,
        review=review,
        is_held=review.state not in {ReviewState.DRAFT, ReviewState.DROPPED},
        place=f"/reviews/REV-{review.number}",
        row=row,
        content=content,
        still_open=[each for each in content.warnings if not each.accepted_by] if content else [],
        differences=differences,
        versions=[(each, state_of(each)) for each in versions],
        published=published,
        address=address_of(versions[0]) if versions else None,
        offered=offered,
        outlines=OUTLINES,
        leak_words=LEAKS,
        learnings=[each.text for each in found if each.kind in {FindingKind.LEARNING, FindingKind.FACTOR}],
        items=[each.row.title for each in items],
        is_public=settings.status_page,
        lines=fields.lines,
        refused=refused,
    )


async def _offered(session: AsyncSession, review: Review) -> list[PublicIncident]:
    """The public incidents of the review, then the newest others."""
    own = await store.public_incidents_of(session, review)
    row = PublicIncident
    query = (
        select(row)
        .where(col(row.withdrawn_at).is_(None), col(row.id).not_in([each.id for each in own]))
        .order_by(col(row.begins_at).desc(), col(row.id))
        .limit(INCIDENTS_OFFERED)
    )
    return [*own, *(await session.exec(query)).all()]
