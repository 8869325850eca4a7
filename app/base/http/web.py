"""What all routes share: who asks, one transaction and one `now` per request, problem+json, cursors, clean text."""

import asyncio
import base64
import binascii
import hmac
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import quote, unquote
from zoneinfo import available_timezones

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBasicCredentials, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from app.base import db
from app.base import tokens as access
from app.base.errors import Forbidden, Invalid, Overloaded, Problem, TooLarge, Unauthorised, Unsupported
from app.base.spool import CannotKeep, Kept, Spool
from app.base.tokens import Bearer, Scope
from app.settings import Settings

log = logging.getLogger("aftermath.web")

CACHE_SECONDS = 5.0  # how long a process may still take a revoked token, or go by the former settings of a source
LOOKUP_SECONDS = 1.0  # how long the others go on by what was known, while one request looks it up again
LOOKUP_AT_MOST_SECONDS = 2.0  # a door waits no longer to learn what it may know already
REMEMBER_SECONDS = 60.0  # how often all tokens and sources are learnt, for when the database is away
GUESSES_AT_MOST = 10_000

T = TypeVar("T")


class Seen(NamedTuple, Generic[T]):
    """What the database said last, when, and until when nobody needs to ask again; both by the monotonic clock."""

    at: float
    until: float
    value: T

    @classmethod
    def now(cls, value: T) -> "Seen[T]":
        now = time.monotonic()
        return cls(now, now + CACHE_SECONDS, value)


@dataclass(slots=True)
class Context:
    """What a process serves with; on `app.state.context`."""

    settings: Settings
    engine: AsyncEngine
    reach: db.Reach
    spool: Spool
    admin_digest: bytes | None = None
    known_tokens: dict[str, Seen[access.KnownToken | None]] = field(default_factory=dict)
    known_sources: dict[str, Seen[access.SourceRow]] = field(default_factory=dict)
    lookups: dict[Any, "asyncio.Task[Any]"] = field(default_factory=dict)  # that are under way


# — who asks —

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="A token made by `aftermath token create`.")
_basic = HTTPBasic(auto_error=False, scheme_name="basic", description="Any user name; the token is the password.")


def presented_token(request: Request) -> str | None:
    return token_in(request.headers.get("authorization", ""))


def token_in(authorization: str) -> str | None:
    """The token of `Bearer …` or the password of basic auth."""
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip() or None
        case "basic":
            try:
                decoded = base64.b64decode(value.strip(), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return None
            return decoded.partition(":")[2] or None
    return None


async def identify(context: Context, presented: str | None) -> Bearer:
    """Raises Unauthorised; what is not known while the database is away raises something that is 503."""
    if not presented:
        raise Unauthorised(
            "send a token as `Authorization: Bearer …` or as basic-auth password",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if _is_admin(context, presented):
        return _ADMIN
    public = access.id_of(presented)
    known = await _known_token(context, public) if public else None
    if known is None or not _proves(presented, known):
        raise Unauthorised("this token is unknown or revoked", headers={"WWW-Authenticate": "Bearer"})
    return known.bearer


_ADMIN = Bearer("admin", Scope.ADMIN)


def _is_admin(context: Context, presented: str) -> bool:
    return context.admin_digest is not None and hmac.compare_digest(context.admin_digest, access.digest_of(presented))


def _proves(presented: str, known: access.KnownToken) -> bool:
    return access.matches(known, presented) and not known.revoked_at


async def _known_token(context: Context, public: str) -> access.KnownToken | None:
    async def look_up() -> access.KnownToken | None:
        async with context.engine.connect() as connection:
            return await access.find_token(connection, public)

    if len(context.known_tokens) > GUESSES_AT_MOST:  # guessed ids must not fill the memory
        for guessed in [id_ for id_, seen in context.known_tokens.items() if seen.value is None]:
            del context.known_tokens[guessed]
    return await _known(context, context.known_tokens, public, look_up)


async def _known(
    context: Context, seen: dict[str, Seen[T]], name: str, look_up: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Looked up at most once in `CACHE_SECONDS`: the doors are hot.

    While the database is away what it said last still holds, for as long as the settings trust it. That something was
    not there is not trusted: it may be there now.
    """
    last = seen.get(name)
    if last and _is_fresh(last):
        return last.value
    try:
        if context.reach.away:
            raise db.Away  # noqa: TRY301  as if it had been asked
        if last:
            # One looks it up again; the others, which are many, go by what is known until it has.
            seen[name] = Seen(last.at, time.monotonic() + LOOKUP_SECONDS, last.value)
        async with asyncio.timeout(LOOKUP_AT_MOST_SECONDS):
            value = await _together(context.lookups, (id(seen), name), look_up)
    except Exception as error:
        if not db.is_unreachable(error):
            raise
        context.reach.suspect()
        if last and last.value and time.monotonic() < last.at + context.settings.spool_trust_seconds:
            return last.value
        raise
    seen[name] = Seen.now(value)
    return value


def _is_fresh(seen: Seen[T]) -> bool:
    return time.monotonic() < seen.until


async def _together(
    lookups: dict[Any, "asyncio.Task[Any]"], what: object, look_up: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Many that ask for the same at once are one lookup."""
    task = lookups.get(what)
    if task is None:
        task = lookups[what] = asyncio.create_task(look_up())

        def done(task: "asyncio.Task[Any]") -> None:
            del lookups[what]
            if not task.cancelled():
                task.exception()  # whoever still waits is told; nobody may wait any more

        task.add_done_callback(done)
    value: T = await asyncio.shield(task)
    return value


async def remember_for_ever(context: Context) -> None:
    """Learns all tokens and sources again and again: also a sender that is seldom heard of is known when it matters."""
    while True:
        try:
            async with context.engine.connect() as connection:
                tokens, sources = await access.list_tokens(connection), await access.list_sources(connection)
        except Exception as error:
            if not db.is_unreachable(error):
                log.exception("tokens and sources cannot be learnt")
        else:
            context.known_tokens |= {token.id: Seen.now(token) for token in tokens}
            context.known_sources |= {source.name: Seen.now(source) for source in sources}
        await asyncio.sleep(REMEMBER_SECONDS)


def allow(wanted: Scope) -> Callable[..., Any]:
    """A dependency that admits bearers whose scope includes `wanted`, and gives the bearer."""

    async def admitted(
        request: Request,
        _token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        _password: Annotated[HTTPBasicCredentials | None, Depends(_quiet_basic)],
    ) -> Bearer:
        bearer = await identify(context_of(request), presented_token(request))
        if not bearer.scope.includes(wanted):
            message = f"this needs a token of scope `{wanted}`; this one has `{bearer.scope}`"
            raise Forbidden(message)
        return bearer

    return admitted


async def _quiet_basic(request: Request) -> HTTPBasicCredentials | None:
    """Basic credentials if they are readable; fastapi's own class raises on garbage before we can answer."""
    try:
        return await _basic(request)
    except HTTPException:
        return None


Reader = Annotated[Bearer, Depends(allow(Scope.READ))]
Writer = Annotated[Bearer, Depends(allow(Scope.WRITE))]
Admin = Annotated[Bearer, Depends(allow(Scope.ADMIN))]


# — what all doors share —


async def admit(
    request: Request, kind: str, verify: Callable[..., bool] | None, *, now: datetime, token: str | None
) -> tuple[access.SourceRow, bytes]:
    """The source that delivers, and the body as it was sent.

    `verify` is the Verifier of the kind, None if it has no signatures. Raises Unauthorised, Forbidden, TooLarge or
    Unsupported.
    """
    bearer = await identify(context_of(request), token)
    if why_not := _why_not_through(bearer, kind):
        raise Forbidden(why_not)
    body = await _raw_body(request)
    source = await _source_of(request, bearer, kind, now)
    if source.hmac_secret is not None and (
        verify is None
        or not verify(
            body,
            request.headers,
            secret=source.hmac_secret,
            now=now,
            header=source.hmac_header,
            timestamp_header=source.hmac_timestamp_header,
        )
    ):
        raise Unauthorised("the signature of this delivery is missing or wrong")
    return source, body


def admitted_at_once(context: Context, kind: str, token: str | None) -> access.SourceRow | None:
    """The source that delivers, where nobody has to be asked and nothing is to be verified. None is no verdict: `admit`
    gives it.
    """
    bearer = _known_bearer(context, token) if token else None
    if bearer is None or _why_not_through(bearer, kind):
        return None
    source = context.known_sources.get(bearer.source or kind)
    return source.value if source and _is_fresh(source) and source.value.hmac_secret is None else None


def _known_bearer(context: Context, presented: str) -> Bearer | None:
    if _is_admin(context, presented):
        return _ADMIN
    seen = context.known_tokens.get(access.id_of(presented) or "")
    known = seen.value if seen and _is_fresh(seen) else None
    return known.bearer if known and _proves(presented, known) else None


def _why_not_through(bearer: Bearer, kind: str) -> str | None:
    if bearer.scope not in _DOOR_SCOPES:
        return f"a door needs a token of scope `ingest`; this one has `{bearer.scope}`"
    if bearer.kind is not None and bearer.kind != kind:
        return f"this token belongs to a source of kind {bearer.kind!r}: post to /webhooks/{bearer.kind}"
    return None


_DOOR_SCOPES = frozenset({Scope.INGEST, Scope.ADMIN})


async def _raw_body(request: Request) -> bytes:
    """Raises TooLarge as soon as that is known, and Unsupported for compressed bodies (no sender makes them)."""
    if request.headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
        raise Unsupported("send the body uncompressed; bodies with a Content-Encoding are not taken")
    limit = context_of(request).settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    body = bytearray()
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {limit} bytes; raise AFTERMATH_MAX_BODY_BYTES or let the sender group less"
    )


async def _source_of(request: Request, bearer: Bearer, kind: str, now: datetime) -> access.SourceRow:
    """An ingest token names its source; the admin token stands for the source named as its kind."""
    context = context_of(request)
    name = bearer.source or kind

    async def look_up() -> access.SourceRow:
        async with db.transaction(context.engine) as tx:
            if bearer.source is None:
                await access.ensure_source(tx, kind, kind, now=now)
            return await access.source_by_name(tx, name)

    return await _known(context, context.known_sources, name, look_up)


async def keep(spool: Spool, kept: Kept) -> None:
    """What cannot go to the database. Raises Overloaded."""
    try:
        await spool.keep(kept)
    except CannotKeep as error:
        message = f"the database does not answer, and {error}; send again"
        raise Overloaded(message, headers={"Retry-After": "5"}) from None


# — one transaction, one now —


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _transaction(request: Request) -> AsyncIterator[AsyncConnection]:
    async with db.transaction(context_of(request).engine) as connection:
        yield connection


def _now() -> datetime:
    return datetime.now(UTC)


def _settings(request: Request) -> Settings:
    return context_of(request).settings


# scope="function": commit before the response leaves, so that a 2xx is never a lost write.
Tx = Annotated[AsyncConnection, Depends(_transaction, scope="function")]
Now = Annotated[datetime, Depends(_now)]
Knobs = Annotated[Settings, Depends(_settings)]


# — clean text and times —

EARLIEST, LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _storable(value: str) -> str:
    if _UNSTORABLE.search(value):
        message = "must not hold NUL or unpaired surrogates"
        raise ValueError(message)
    return value


def _utc(value: datetime) -> datetime:
    # Compared before it is converted: year 1 with an offset overflows.
    if not EARLIEST.replace(tzinfo=None) < value.replace(tzinfo=None) < LATEST.replace(tzinfo=None):
        message = f"must lie between {EARLIEST.year} and {LATEST.year}"
        raise ValueError(message)
    return value.astimezone(UTC)


def rfc3339(value: datetime) -> str:
    """`2026-08-20T10:00:15.123Z`"""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_storable)]
Words = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_storable)]
At = Annotated[AwareDatetime, AfterValidator(_utc), PlainSerializer(rfc3339, when_used="json")]


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(name: str) -> str:
    if name not in _zones():
        message = "must be the name of a time zone such as `Europe/Berlin` or `UTC`"
        raise ValueError(message)
    return name


def _date(value: date) -> date:
    if not EARLIEST.date() < value < LATEST.date():
        message = f"must lie between {EARLIEST.year} and {LATEST.year}"
        raise ValueError(message)
    return value


Zone = Annotated[Name, AfterValidator(_zone), Field(description="IANA", examples=["Europe/Berlin"])]
LocalTime = Annotated[str, StringConstraints(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Date = Annotated[date, AfterValidator(_date)]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Contract(BaseModel):
    """What the API takes: unknown fields are an error, so that a typo is not silently nothing."""

    model_config = ConfigDict(extra="forbid")


# — names and periods in addresses —


class NamedInOneSegment(APIRoute):
    """A route whose path is matched as it was sent, percent-encoded: `%2F` belongs to a name, `/` ends it.

    Names of services come from labels and hold anything. Decoded first, as is usual, `payments%2Frates` would be the
    rates of `payments`.
    """

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        sent = scope.get("raw_path") or quote(scope["path"]).encode()
        match, found = super().matches({**scope, "path": sent.decode("utf-8", "replace")})
        if match is not Match.NONE:
            found["path_params"] = {name: unquote(value) for name, value in found["path_params"].items()}
        return match, found


ServiceName = Annotated[
    Name,
    Path(description="Percent-encoded: names come from labels and may hold slashes", examples=["checkout"]),
]

DEFAULT_PERIOD = timedelta(days=30)


class Period(NamedTuple):
    """Half-open."""

    since: datetime
    until: datetime


def _period(
    now: Now,
    since: Annotated[At | None, Query(alias="from", description="Left out: 30 days before `to`")] = None,
    until: Annotated[At | None, Query(alias="to", description="Not included; left out: now")] = None,
) -> Period:
    until = until or max(now, since or now)
    since = since or max(until - DEFAULT_PERIOD, EARLIEST + timedelta(seconds=1))  # EARLIEST itself is too early
    if since > until:
        message = "`from` lies after `to`"
        raise Invalid(message)
    return Period(since, until)


AskedPeriod = Annotated[Period, Depends(_period)]


# — pages —

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last one")


class Paging(BaseModel):
    limit: int = Field(50, ge=1, le=500, description="Items on a page")
    cursor: Annotated[str, StringConstraints(max_length=1000)] | None = Field(
        None, description="`next_cursor` of the page before"
    )

    def after(self, *types: type) -> tuple[Any, ...] | None:
        """The key of the last item of the page before, as values of `types`; raises Invalid."""
        if self.cursor is None:
            return None
        try:
            parts = json.loads(base64.urlsafe_b64decode(self.cursor.encode("ascii")))
            return tuple(_part(kind, part) for kind, part in zip(types, parts, strict=True))
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            message = "this cursor was not made by this route; leave it out to begin at the first page"
            raise Invalid(message) from None


def _part(kind: type, part: Any) -> Any:
    if kind is datetime:
        return _utc(datetime.fromisoformat(part))
    if kind is int and not (isinstance(part, int) and 0 <= part < 2**63):
        raise ValueError
    if kind is not int and not isinstance(part, str):
        raise ValueError
    return _storable(part) if kind is str else kind(part)


def cursor_of(*key: object) -> str:
    """The cursor that goes on behind the item with this key."""
    parts = [part.isoformat() if isinstance(part, datetime) else part for part in key]
    return base64.urlsafe_b64encode(json.dumps(parts, default=str).encode()).decode()


def page_of(
    rows: Sequence[Any], paging: Paging, key: Callable[[Any], tuple[object, ...]]
) -> tuple[Sequence[Any], str | None]:
    """`rows` was asked for one more than `limit`: the page, and the cursor if there is more."""
    page = rows[: paging.limit]
    return page, cursor_of(*key(page[-1])) if len(rows) > paging.limit else None


Pages = Annotated[Paging, Query()]


# — problems —


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["urn:aftermath:problem:not-found"])
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = Field(None, description="What is wrong, field by field")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer these problems; 401, 403 and 503 come by themselves."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in sorted({401, 403, 422, 503, *statuses})
    }


def _answer(problem: Problem, errors: list[dict[str, Any]] | None = None) -> JSONResponse:
    document = {
        "type": f"urn:aftermath:problem:{problem.kind}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
    } | ({"errors": errors} if errors else {})
    return JSONResponse(document, problem.status, problem.headers, "application/problem+json")


def install_problems(app: FastAPI) -> None:
    """The one seam at which errors become answers."""

    async def on_error(request: Request, error: Exception) -> JSONResponse:
        return answer_to(error, request.method)

    for kind in (Problem, RequestValidationError, HTTPException, SQLAlchemyError, OSError, TimeoutError):
        app.add_exception_handler(kind, on_error)


def answer_to(error: Exception, method: str) -> JSONResponse:
    """The answer that an error amounts to, in a request of that method."""
    match error:
        case Problem():
            return _answer(error)
        case RequestValidationError():
            # `input` is left out: text of the client comes back nowhere.
            errors = [{"at": "/".join(str(part) for part in e["loc"]), "why": e["msg"]} for e in error.errors()]
            return _answer(Invalid("; ".join(f"{e['at']}: {e['why']}" for e in errors[:3])), _clean(errors[:50]))
        case HTTPException():
            phrase = HTTPStatus(error.status_code).phrase
            document = {
                "type": "about:blank",
                "title": phrase,
                "status": error.status_code,
                "detail": str(error.detail),
            }
            return JSONResponse(document, error.status_code, error.headers, "application/problem+json")
        case ClientDisconnect():
            # Nobody is left to read it; it is for the log.
            return _answer(Invalid("the connection ended before the body did"))
        case SQLAlchemyError() | OSError() | TimeoutError():
            if db.is_unreachable(error):
                log.warning("database unreachable: %s", type(error).__name__)
                return _answer(Overloaded("the database does not answer; try again", headers={"Retry-After": "5"}))
            log.error("unexpected database error on %s", method, exc_info=error)
        case _:
            log.error("unexpected error on %s", method, exc_info=error)
    return _answer(Problem("an unexpected error; it is in the log of the service"))


def _clean(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON cannot hold unpaired surrogates, and a field name may come from the client."""
    return [{k: _UNSTORABLE.sub("\ufffd", str(v))[:300] for k, v in error.items()} for error in errors]


# — health and description —

health_router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok", "degraded"] = Field(examples=["ok"])
    detail: str | None = Field(None, description="What is not well")


@health_router.get("/healthz", summary="Whether the process lives")
async def healthz() -> Health:
    """Open to everybody; touches nothing."""
    return Health(status="ok")


@health_router.get("/readyz", summary="Whether deliveries would be taken", responses={503: problem_responses()[503]})
async def readyz(request: Request) -> Health:
    """Open to everybody. While the database does not answer: 200 and `degraded` as long as the spool takes deliveries,
    so that whoever balances load keeps sending them; then 503.
    """
    context = context_of(request)
    try:
        if context.reach.away:
            raise db.Away  # noqa: TRY301  as if it had been asked
        async with asyncio.timeout(LOOKUP_AT_MOST_SECONDS), context.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception as error:
        if not db.is_unreachable(error):
            raise
        context.reach.suspect()
        if why_not := context.spool.why_not:
            raise Overloaded(f"the database does not answer, and {why_not}", headers={"Retry-After": "5"}) from error
        return Health(status="degraded", detail="the database does not answer; deliveries go to the spool")
    return Health(status="ok")


def describe(app: FastAPI) -> None:
    """Completes the generated OpenAPI document with what routes only refer to."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            components = document.setdefault("components", {})
            components.setdefault("schemas", {})["ProblemDocument"] = ProblemDocument.model_json_schema()
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
