"""HTTP API of tokens: what `aftermath token` does on the command line, for those who have no shell on the host."""

import logging
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.access import tokens
from app.base.access.tokens import KnownToken, Scope
from app.base.errors import Invalid
from app.base.http.access.auth import Admin
from app.base.http.context import Now, Session, context_of
from app.base.http.requests.fields import At, AtShown, Input, Name, SingleSegmentRoute
from app.base.http.requests.filters import Contained
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.ingest.endpoints.api import SenderKind
from app.ingest.senders import SENDERS

log = logging.getLogger("aftermath.tokens")
router = APIRouter(prefix="/api/v1/tokens", tags=["tokens"], route_class=SingleSegmentRoute)

GRACE_AT_MOST = timedelta(days=7)
_EXPIRES = "When it expires; null: never"

TokenName = Annotated[Name, Path(alias="name", description="The name of the token", examples=["grafana"])]


class TokenInput(Input):
    """What a token is for. With scope `ingest` it is for the webhooks of one source, which is created if it is new."""

    name: Name = Field(
        description="The program or person that uses it; actions are recorded under this name", examples=["grafana"]
    )
    scope: Scope = Field(
        Scope.READ, description="`ingest` posts to webhooks only; of the others each includes those before it"
    )
    source: Name | None = Field(None, description="With scope `ingest`: the name of the source")
    kind: SenderKind | None = Field(None, description="With scope `ingest`: the kind of the source")
    expires_at: At | None = Field(None, description=_EXPIRES, examples=["2027-12-01T00:00:00Z"])

    def require_sense(self, now: datetime) -> None:
        """Raises Invalid."""
        if self.scope is Scope.INGEST and not (self.source and self.kind):
            raise Invalid("a token with scope ingest is for one source: enter its name and choose its kind")
        if self.scope is not Scope.INGEST and (self.source or self.kind):
            raise Invalid("only tokens with scope ingest have a source: clear source and kind, or choose that scope")
        require_future(self.expires_at, now)


def require_future(expires_at: datetime | None, now: datetime) -> None:
    """Raises Invalid."""
    if expires_at is not None and expires_at <= now:
        raise Invalid("expires_at must be in the future")


class TokenModel(BaseModel):
    """A token, without its secret."""

    id: str = Field(description="The public part of the token", examples=["4f1d2c3b"])
    name: str = Field(description="The program or person that uses it", examples=["grafana"])
    scope: Scope = Field(description="What it permits", examples=["read"])
    source: str | None = Field(description="The only source it is for; null with other scopes than `ingest`")
    created_at: AtShown
    last_used_at: AtShown | None = Field(description="To about a minute; null: never")
    expires_at: AtShown | None = Field(description=_EXPIRES)
    revoked_at: AtShown | None = Field(description="Null: it was not revoked")


class CreatedTokenModel(TokenModel):
    token: str = Field(
        description="The secret, which is shown in this response only",
        examples=["aft_4f1d2c3b_Vb6yJ0ZrW1xq8s3kT5nD7mC9fH2gL4pA6eU8iO0wQyE"],
    )


class RotationInput(Input):
    grace_seconds: int = Field(
        0,
        ge=0,
        le=int(GRACE_AT_MOST.total_seconds()),
        description="How long the former tokens remain valid, so that their holders can change without interruption",
        examples=[3600],
    )
    expires_at: At | None = Field(None, description=_EXPIRES)


def _model(known: KnownToken) -> TokenModel:
    return TokenModel(**_shown(known))


def _shown(known: KnownToken) -> dict[str, object]:
    columns = known.row.model_dump(include=set(TokenModel.model_fields))
    return columns | {"scope": known.bearer.scope, "source": known.bearer.source}


async def create_token(session: AsyncSession, wanted: TokenInput, *, now: datetime) -> str:
    """Raises Invalid and SourceOfOtherKind."""
    wanted.require_sense(now)
    kind = wanted.kind.value if wanted.kind else ""
    return await tokens.create_token(
        session,
        wanted.name,
        wanted.scope,
        now=now,
        source_name=wanted.source,
        kind=kind,
        alphanumeric=is_alphanumeric(kind),
        expires_at=wanted.expires_at,
    )


def is_alphanumeric(kind: str | None) -> bool:
    return bool(kind) and SENDERS[str(kind)].alphanumeric_tokens


async def _created(session: AsyncSession, token: str) -> CreatedTokenModel:
    known = await tokens.find_token(session, tokens.id_of(token) or "")
    assert known is not None
    return CreatedTokenModel(**_shown(known), token=token)


@router.get("", responses=problem_responses(), summary="List tokens")
async def list_access_tokens(
    _: Admin,
    session: Session,
    paging: Pages,
    *,
    revoked: bool = False,
    q: Contained = None,
    count: Counted = False,
) -> CountedPage[TokenModel]:
    """Lists tokens that were not revoked, newest first; with `revoked`, those that were. The admin token of
    the settings is not listed.
    """
    after = paging.after(datetime, str)
    rows = await tokens.page_of_tokens(
        session, q, revoked=revoked, after=(after[0], after[1]) if after else None, limit=paging.limit + 1
    )
    items, cursor = page_of(rows, paging, lambda one: (one.row.revoked_at or one.row.created_at, one.row.id))
    return CountedPage(
        items=[_model(one) for one in items],
        next_cursor=cursor,
        total=await tokens.count_listed_tokens(session, q, revoked=revoked) if count else None,
    )


@router.post("", status_code=201, responses=problem_responses(409), summary="Create a token")
async def create_access_token(_: Admin, session: Session, now: Now, body: TokenInput) -> CreatedTokenModel:
    """The response is the only one that contains the secret: only a digest of it is stored."""
    token = await create_token(session, body, now=now)
    log.info("created the token %s with scope %s", tokens.id_of(token), body.scope)
    return await _created(session, token)


@router.post("/{name}/rotate", status_code=201, responses=problem_responses(404, 409), summary="Rotate a token")
async def rotate_access_token(
    request: Request, _: Admin, session: Session, now: Now, name: TokenName, body: RotationInput | None = None
) -> CreatedTokenModel:
    """Creates a token with the same name, scope and source. All former tokens with this name expire, at once or after
    `grace_seconds`.
    """
    wanted = body or RotationInput()
    require_future(wanted.expires_at, now)
    newest = (await tokens.valid_tokens(session, name, now=now))[0].bearer
    rotated = await tokens.rotate_token(
        session,
        name,
        now=now,
        valid_until=now + timedelta(seconds=wanted.grace_seconds),
        expires_at=wanted.expires_at,
        alphanumeric=is_alphanumeric(newest.kind),
    )
    for public in rotated.replaced:
        context_of(request).credentials.forget_token(public)
    log.info("replaced %s by the token %s", ", ".join(rotated.replaced), tokens.id_of(rotated.token))
    return await _created(session, rotated.token)


@router.delete("/{name}", status_code=204, responses=problem_responses(404), summary="Revoke a token")
async def revoke_access_token(request: Request, _: Admin, session: Session, now: Now, name: TokenName) -> None:
    """Revokes all tokens with this name. Other processes may accept them for a few more seconds. Sessions that were
    opened with them end.
    """
    revoked = await tokens.revoke_tokens(session, name, now=now)
    for public in revoked:
        context_of(request).credentials.forget_token(public)
    log.info("revoked %s", ", ".join(revoked))
