"""Who looks at a page: the session of the browser, protection against forged requests, and limits on signing in."""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.access import web_sessions
from app.base.access.tokens import Bearer, Scope
from app.base.access.web_sessions import LIFETIME, OpenedBy
from app.base.errors import Forbidden, Problem
from app.base.http.context import context_of
from app.base.http.limits.clients import NETWORKS_AT_MOST, Clock, network_of
from app.base.schema import WebSession

ATTEMPTS_AT_MOST, ATTEMPTS_SECONDS = 10, 60.0
LONGEST_ADDRESS = 2000


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person who has signed in, with which token. `name` is what the timeline shows for what they do."""

    name: str
    scope: Scope
    token: Bearer

    @property
    def may_write(self) -> bool:
        return self.scope.includes(Scope.WRITE)

    @property
    def is_admin(self) -> bool:
        return self.scope.includes(Scope.ADMIN)

    def require(self, wanted: Scope) -> None:
        """Raises Forbidden."""
        if not self.scope.includes(wanted):
            message = f"this needs a token with scope `{wanted}`; you have signed in with one of scope `{self.scope}`"
            raise Forbidden(message)


class NotSignedIn(Problem):
    """Becomes a redirect to the page for signing in."""

    status, title = 401, "Not signed in"


class TooManyAttempts(Problem):
    status, title = 429, "Too many attempts"


# — the cookie —


def is_secure(request: Request) -> bool:
    """Whether the browser uses https, as far as we know: a proxy in front may end it."""
    public = context_of(request).settings.public_url
    return request.url.scheme == "https" or (public is not None and public.startswith("https://"))


def cookie_name(request: Request) -> str:
    """Behind https with a prefix that keeps other hosts and paths of the domain from setting it."""
    return "__Host-aftermath" if is_secure(request) else "aftermath"


def set_cookie(request: Request, response: Response, value: str) -> None:
    """Lax, not strict, because a link to an incident in a chat must open it."""
    response.set_cookie(
        cookie_name(request),
        value,
        max_age=int(LIFETIME.total_seconds()),
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )


def delete_cookie(request: Request, response: Response) -> None:
    response.delete_cookie(cookie_name(request), path="/", secure=is_secure(request), httponly=True, samesite="lax")


# — sessions —


async def viewer_of(request: Request, *, now: datetime) -> Viewer | None:
    """The person behind a request, None if no one has signed in, or not any more."""
    cookie = request.cookies.get(cookie_name(request), "")
    if web_sessions.digest_of(cookie) is None:
        return None
    context = context_of(request)
    if context.monitor.is_down:
        raise db.DatabaseDown
    async with db.session(context.engine) as session:
        found = await web_sessions.find_session(session, cookie, now=now)
    return None if found is None else await _viewer(request, found)


async def _viewer(request: Request, found: WebSession) -> Viewer | None:
    bearer = await context_of(request).credentials.still_valid(OpenedBy(found.token_id, found.token_digest))
    return Viewer(found.person or bearer.name, bearer.scope, bearer) if bearer else None


async def sign_in(request: Request, session: AsyncSession, token: str, person: str | None, *, now: datetime) -> str:
    """Returns the value of the cookie. The session that the browser had until now ends.

    Raises Unauthorized, Forbidden, TooManyAttempts and Overloaded.
    """
    client = request.scope.get("client")
    context_of(request).part(Attempts).count(client)
    credentials = context_of(request).credentials
    bearer: Bearer = await credentials.identify(token, client)
    if not bearer.scope.includes(Scope.READ):
        raise Forbidden(
            "a token with scope `ingest` can only send alerts; use one with scope `read`, `write` or `admin`"
        )
    await web_sessions.close_session(session, request.cookies.get(cookie_name(request), ""))
    return await web_sessions.open_session(session, credentials.opener(token), person, now=now)


class Attempts:
    """Counts attempts to sign in by network."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, client: Any) -> None:
        """Raises TooManyAttempts."""
        network, now = network_of(client), self._clock()
        times = self._times.setdefault(network, deque())
        self._times.move_to_end(network)
        if len(self._times) > NETWORKS_AT_MOST:
            self._times.popitem(last=False)
        while times and times[0] <= now - ATTEMPTS_SECONDS:
            times.popleft()
        if len(times) >= ATTEMPTS_AT_MOST:
            wait = max(1, round(times[0] + ATTEMPTS_SECONDS - now))
            message = f"too many attempts to sign in from your network; try again in {wait} seconds"
            raise TooManyAttempts(message, headers={"Retry-After": str(wait)})
        times.append(now)


# — forged requests —


def require_same_origin(request: Request) -> None:
    """Browsers say where a request comes from, in headers that scripts cannot set. Raises Forbidden."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site in {"same-origin", "none"}:
            return
    elif (origin := request.headers.get("origin")) and _is_ours(request, origin):
        return
    raise Forbidden("this form was not sent from a page of this service; open the page again and repeat it there")


def _is_ours(request: Request, origin: str) -> bool:
    public = context_of(request).settings.public_url
    if public is not None and origin == "{0.scheme}://{0.netloc}".format(urlsplit(public)):
        return True
    host = request.headers.get("host")
    return host is not None and origin in {f"http://{host}", f"https://{host}"}


def local_address(address: str) -> str:
    """Where to go after a form: a path of this service, never another host."""
    ok = len(address) <= LONGEST_ADDRESS and address[:1] == "/" and address[1:2] not in {"/", "\\"}
    return address if ok and address.isprintable() else "/"
