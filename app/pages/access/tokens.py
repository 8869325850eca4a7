"""The page of tokens: creating them, and revoking them. What `aftermath token` does on the command line."""

import logging
from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter, Response

from app.base.access import tokens, web_sessions
from app.base.access.tokens import Scope
from app.base.errors import Problem
from app.base.http.requests.fields import Input, Name
from app.base.http.requests.paging import Pages, Paging, page_of
from app.ingest.endpoints.tokens import TokenInput, create_token
from app.ingest.senders import SENDERS
from app.pages.web.connect import alerting, receiver, service_address
from app.pages.web.forms import parsed
from app.pages.web.frame import AdminSignedIn, PageRequest, PageRoute, Refusal, see_other
from app.pages.web.session import cookie_name

log = logging.getLogger("aftermath")
router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Created:
    """A token that has just been created. It is shown on this page only."""

    token: str
    name: str
    scope: Scope
    source: str | None = None
    configuration: tuple[str, str] | None = None  # a file and what to put into it, if the sender has one
    endpoint: str | None = None  # where its source sends to


@router.get("/tokens")
async def list_tokens(asked: AdminSignedIn, paging: Pages, *, revoked: bool = False) -> Response:
    """Those that are valid, or with `revoked` those that are not."""
    return await _page(asked, paging, revoked=revoked)


async def _page(
    asked: PageRequest,
    paging: Paging | None = None,
    *,
    revoked: bool = False,
    created: Created | None = None,
    refused: Refusal | None = None,
) -> Response:
    paging = paging or Paging(limit=50, cursor=None)
    after = paging.after(datetime, str)
    async with asked.session() as session:
        found = await tokens.page_of_tokens(
            session, revoked=revoked, after=(after[0], after[1]) if after else None, limit=paging.limit + 1
        )
        valid, no_longer = await tokens.count_tokens(session)
        names = [source.name for source in await tokens.list_sources(session)]
        mine = await web_sessions.find_session(
            session, asked.request.cookies.get(cookie_name(asked.request), ""), now=asked.now
        )
    page, next_cursor = page_of(found, paging, lambda one: (one.row.revoked_at or one.row.created_at, one.row.id))
    return asked.page(
        "tokens.html",
        status=refused.status if refused else 200,
        tokens=page,
        are_revoked=revoked,
        valid=valid,
        revoked=no_longer,
        is_first_page=after is None,
        next_cursor=next_cursor,
        sources=names,
        kinds={kind: sender.name for kind, sender in SENDERS.items()},
        mine=mine.token_id if mine else None,
        created=created,
        refused=refused,
    )


@router.post("/tokens")
async def create(asked: AdminSignedIn) -> Response:
    """Responds with the page itself, the only one that ever shows the token."""
    form = await asked.form(Scope.ADMIN)
    try:
        entered = parsed(TokenInput, {name: text for name, value in form.items() if (text := value.strip())})
        async with asked.session() as session:
            token = await create_token(session, entered, now=asked.now)
    except Problem as problem:
        return await _page(asked, refused=Refusal(problem, form))
    log.info("created the token %s with scope %s", tokens.id_of(token), entered.scope)
    return await _page(asked, created=_created(asked, entered, token))


def _created(asked: PageRequest, entered: TokenInput, token: str) -> Created:
    if entered.kind is None:
        return Created(token, entered.name, entered.scope)
    kind = entered.kind.value
    configurations = {
        "alertmanager": ("alertmanager.yml", receiver(asked, token)),
        "alertmanager-api": ("prometheus.yml", alerting(asked, token)),
    }
    return Created(
        token,
        entered.name,
        entered.scope,
        entered.source,
        configurations.get(kind),
        service_address(asked) + SENDERS[kind].endpoints[0].path.replace("{token}", token),
    )


class RevokeForm(Input):
    id: Name


@router.post("/tokens/revoke")
async def revoke(asked: AdminSignedIn) -> Response:
    form = await asked.form(Scope.ADMIN)
    try:
        public = parsed(RevokeForm, form).id
        async with asked.session() as session:
            await tokens.revoke_token(session, public, now=asked.now)
    except Problem as problem:
        return await _page(asked, refused=Refusal(problem, {}))
    asked.context.credentials.forget_token(public)
    log.info("revoked the token %s", public)
    return see_other("/tokens")
