"""The page of quarantine: what could not be read or applied, as it was received."""

import logging
from codecs import getincrementaldecoder
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, StringConstraints
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.access.tokens import Scope
from app.base.errors import Problem
from app.base.http.requests.fields import storable
from app.base.http.requests.paging import Paging, page_of
from app.base.schema import Quarantine
from app.ingest import quarantine
from app.ingest.quarantine import ListedItem, QuarantinedNotFound
from app.ingest.replay import replay as replay_item
from app.ingest.service import ingest_of
from app.pages import words
from app.pages.sources.read import QUARANTINE, shared
from app.pages.web.forms import Form
from app.pages.web.frame import PageRequest, Refusal, SegmentPageRoute, SignedIn, see_other, with_query
from app.pages.web.session import local_address

log = logging.getLogger("aftermath.ingest")
router = APIRouter(route_class=SegmentPageRoute, include_in_schema=False)

ITEMS_AT_MOST = 20
SHOWN_BYTES = 4096
LAST_ID = 2**63 - 1

Text = Annotated[str, StringConstraints(max_length=200), AfterValidator(storable)]
ItemId = Annotated[int, Path(ge=1, le=LAST_ID)]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items are shown; its fields are those of the address."""

    source: str = ""
    replayed: bool = False
    cursor: str = ""
    changed: int | None = None  # the item that a form has just changed

    def address(self, **changes: Any) -> str:
        shown = {"source": self.source, "replayed": "1" if self.replayed else "", "cursor": self.cursor}
        return with_query(QUARANTINE, shown | changes)


@dataclass(frozen=True, slots=True)
class Item:
    row: Quarantine
    source: str
    size: int  # bytes
    text: str  # the beginning of what was received

    @property
    def is_cut(self) -> bool:
        return self.size > SHOWN_BYTES


@router.get(QUARANTINE)
async def list_items(
    asked: SignedIn,
    source: Text = "",
    replayed: Annotated[str, Query(max_length=5)] = "",
    cursor: Annotated[str, Query(max_length=1000)] = "",
    changed: Annotated[int | None, Query(ge=1, le=LAST_ID)] = None,
) -> Response:
    return await _page(asked, Filter(source, bool(replayed), cursor, changed))


async def _page(asked: PageRequest, shown: Filter, refused: Refusal | None = None) -> Response:
    paging = Paging(limit=ITEMS_AT_MOST, cursor=shown.cursor or None)
    key = paging.after(int)
    async with asked.reading() as session:
        rows = await quarantine.listed(
            session,
            quarantine.Filters(waiting=not shown.replayed, sources=[shown.source] if shown.source else ()),
            after=key[0] if key else None,
            limit=paging.limit + 1,
        )
        listed, older = page_of(rows, paging, lambda row: (row.item.id,))
        texts = await quarantine.beginnings(session, [one.item.id for one in listed], size=SHOWN_BYTES)
        used = await quarantine.used_by_source(session)
        outcome = await _outcome(session, shown.changed)
    return asked.page(
        "quarantine.html",
        status=refused.status if refused else 200,
        items=[_item(one, texts[one.item.id]) for one in listed],
        filter=shown,
        older=shown.address(cursor=older) if older else None,
        newest=shown.address(cursor="") if shown.cursor else None,
        used={name: size for name, size in used.items() if shown.source in {"", name}},
        sources=sorted({*used, *([shown.source] if shown.source else [])}),
        shown_bytes=SHOWN_BYTES,
        outcome=outcome,
        refused=refused,
        **shared(asked),
    )


def _item(listed: ListedItem, beginning: bytes) -> Item:
    return Item(listed.item, listed.source, listed.size, as_text(beginning, is_cut=listed.size > SHOWN_BYTES))


def as_text(received: bytes, *, is_cut: bool) -> str:
    """What was received, as characters. Invalid bytes become U+FFFD; a character that was cut in two is left out."""
    text = getincrementaldecoder("utf-8")("replace").decode(received, final=not is_cut)
    # Controls are written out, which could make a text many times as long.
    return words.cut(words.visible(text), 2 * SHOWN_BYTES)


@dataclass(frozen=True, slots=True)
class Outcome:
    words: str
    is_good: bool


async def _outcome(session: AsyncSession, changed: int | None) -> Outcome | None:
    """What a form has done to an item, derived from the item itself, so that no address can say anything else."""
    if changed is None:
        return None
    try:
        item = (await quarantine.find(session, changed))[0].item
    except QuarantinedNotFound:
        return Outcome(f"Item {changed} is no longer in quarantine", is_good=True)
    if item.replayed_at is not None:
        return Outcome(f"Item {changed} was replayed, and its alerts count like any others", is_good=True)
    if item.attempts:
        return Outcome(f"Item {changed} still cannot be used, and stays here: {item.detail}", is_good=False)
    return None


# — forms —


@router.post(QUARANTINE + "/{id}/replay")
async def replay(asked: SignedIn, id: ItemId) -> Response:  # noqa: A002  as in REST
    form = await asked.form(Scope.WRITE)
    try:
        async with asked.session() as session:
            item, stored, source = await quarantine.begin_replay(session, id)
            _, rejected = await replay_item(session, ingest_of(asked.request).flusher, item, stored, source)
            quarantine.end_replay(session, item, rejected, now=asked.now)
    except QuarantinedNotFound:
        return see_other(_filter(form).address(changed=id))
    except Problem as problem:
        return await _page(asked, _filter(form), Refusal(problem, form))
    return see_other(_filter(form).address(changed=id))


@router.post(QUARANTINE + "/{id}/delete")
async def delete(asked: SignedIn, id: ItemId) -> Response:  # noqa: A002
    form = await asked.form(Scope.WRITE)
    try:
        async with asked.session() as session:
            await quarantine.delete_item(session, id)
        log.info("deleted item %d from quarantine", id)
    except QuarantinedNotFound:
        pass  # someone else was faster
    return see_other(_filter(form).address(changed=id))


def _filter(form: Form) -> Filter:
    """The filter of the page that the form was on."""
    query: Mapping[str, str] = dict(parse_qsl(urlsplit(local_address(form.get("next", ""))).query))
    return Filter(query.get("source", ""), bool(query.get("replayed")), query.get("cursor", ""))
