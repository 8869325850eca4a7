"""Who is asking: bearer tokens and basic auth, looked up at most once every few seconds."""

import asyncio
import base64
import binascii
import hmac
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException

from app.base import db, tokens
from app.base.errors import Forbidden, Unauthorised
from app.base.http.context import Context, Seen, T, context_of
from app.base.tokens import Bearer, Scope

log = logging.getLogger("aftermath.auth")

LOOKUP_SECONDS = 1.0  # how long the others go on by what was known, while one request looks it up again
LOOKUP_AT_MOST_SECONDS = 2.0  # a door waits no longer to learn what it may know already
REMEMBER_SECONDS = 60.0  # how often all tokens and sources are learnt, for when the database is away
GUESSES_AT_MOST = 10_000


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
    if is_admin(context, presented):
        return ADMIN_BEARER
    public = tokens.id_of(presented)
    known = await _known_token(context, public) if public else None
    if known is None or not proves(presented, known):
        raise Unauthorised("this token is unknown or revoked", headers={"WWW-Authenticate": "Bearer"})
    return known.bearer


ADMIN_BEARER = Bearer("admin", Scope.ADMIN)


def is_admin(context: Context, presented: str) -> bool:
    return context.admin_digest is not None and hmac.compare_digest(context.admin_digest, tokens.digest_of(presented))


def proves(presented: str, known: tokens.KnownToken) -> bool:
    return tokens.matches(known, presented) and not known.revoked_at


async def _known_token(context: Context, public: str) -> tokens.KnownToken | None:
    async def look_up() -> tokens.KnownToken | None:
        async with context.engine.connect() as connection:
            return await tokens.find_token(connection, public)

    if len(context.known_tokens) > GUESSES_AT_MOST:  # guessed ids must not fill the memory
        for guessed in [id_ for id_, seen in context.known_tokens.items() if seen.value is None]:
            del context.known_tokens[guessed]
    return await look_up_cached(context, context.known_tokens, public, look_up)


async def look_up_cached(
    context: Context, seen: dict[str, Seen[T]], name: str, look_up: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Looked up at most once in `CACHE_SECONDS`: the doors are hot.

    While the database is away what it said last still holds, for as long as the settings trust it. That something was
    not there is not trusted: it may be there now.
    """
    last = seen.get(name)
    if last and is_fresh(last):
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


def is_fresh(seen: Seen[T]) -> bool:
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
                found, sources = await tokens.list_tokens(connection), await tokens.list_sources(connection)
        except Exception as error:
            if not db.is_unreachable(error):
                log.exception("tokens and sources cannot be learnt")
        else:
            context.known_tokens |= {token.id: Seen.now(token) for token in found}
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
