"""The frame of every page: the request with its viewer, templates, headers, and errors as pages."""

import gzip
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, unquote, urlencode
from zoneinfo import ZoneInfo

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.base import db
from app.base.access.tokens import Scope
from app.base.errors import Invalid, NotFound, Problem
from app.base.http.context import Context, context_of
from app.base.http.limits.turns import Turns
from app.base.http.requests.fields import SingleSegmentRoute, is_zone
from app.base.http.requests.paths import unknown_path
from app.base.http.responses import problems
from app.base.http.responses.encoding import accepts_gzip
from app.pages import words
from app.pages.web import assets, wording
from app.pages.web.forms import ERRORS_AT_MOST, Form, entered_time, read_form, shown_time
from app.pages.web.session import NotSignedIn, Viewer, require_same_origin, viewer_of

ZONE_COOKIE = "zone"
GZIP_FROM_BYTES = 1000

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; font-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "same-origin",  # without it browsers would send `Origin: null` with forms
    "cross-origin-opener-policy": "same-origin",
    "vary": "accept-encoding, cookie",
}

# The address of each part, its name, and addresses of other pages that belong to it.
NAVIGATION: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("/", "Overview", ()),
    ("/incidents", "Incidents", ()),
    ("/reviews", "Reviews", ("/action-items",)),
    ("/numbers", "Numbers", ()),
    ("/services", "Services", ()),
    ("/sources", "Sources", ()),
    ("/rules", "Rules", ("/response",)),
)

# The query for incidents that are open, however long ago they were detected.
ALL_OPEN: Mapping[str, Any] = {"within": "all", "status": ["open", "acknowledged"]}


# — templates —


def _finalize(value: Any) -> Any:
    """What every `{{ … }}` of a template passes: no text from outside can hide or reorder what the reader sees."""
    is_markup = hasattr(value, "__html__")  # made by our own templates
    return words.visible(value) if isinstance(value, str) and not is_markup else value


def with_query(path: str, query: Mapping[str, Any]) -> str:
    """An address; entries without a value are left out, and lists are repeated."""
    pairs = [(name, value) for name, value in query.items() if value not in (None, "")]
    return f"{path}?{urlencode(pairs, doseq=True)}" if pairs else path


def address_of(request: Request) -> str:
    """The path and the query of a request."""
    sent = request.query_params
    return with_query(path_of(request), {name: sent.getlist(name) for name in sent})


_templates = Environment(
    loader=PackageLoader("app.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finalize,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals.update(
    asset=assets.address_of,
    navigation=NAVIGATION,
    all_open=ALL_OPEN,
    duration=words.duration,
    money=words.money,
    share=words.share,
    plural=words.plural,
    cut=words.cut,
    with_query=with_query,
)
_templates.filters["segment"] = lambda text: quote(text, safe="")


# — requests —

Change = Callable[[AsyncSession], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request for a page. `now` is one moment for everything that the page says."""

    request: Request
    viewer: Viewer | None
    zone: ZoneInfo
    now: datetime

    @property
    def context(self) -> Context:
        return context_of(self.request)

    @property
    def person(self) -> Viewer:
        """The person who has signed in. Raises NotSignedIn."""
        if self.viewer is None:
            raise NotSignedIn("sign in to see this page")
        return self.viewer

    def turn(self) -> AbstractAsyncContextManager[None]:
        """For pages that compute numbers of many incidents. Begins before the transaction. Raises Overloaded."""
        return self.context.part(Turns).one()

    def session(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction that commits if the block succeeds."""
        return db.session(self.context.engine)

    def reading(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction that only reads, and sees one state of the database throughout."""
        return db.read_session(self.context.engine)

    async def form(self, wanted: Scope = Scope.WRITE) -> dict[str, str]:
        """The fields of the submitted form. First checks that the viewer may submit it, and that our page sent it.

        Raises NotSignedIn, Forbidden, and what `read_form` raises.
        """
        self.person.require(wanted)
        require_same_origin(self.request)
        return await read_form(self.request)

    async def change(
        self,
        change: "Change",
        form: Mapping[str, str],
        *,
        then: str,
        refused: "Callable[[Refusal], Awaitable[Response]]",
    ) -> Response:
        """Makes a change that a form asks for. Then the browser opens the address `then`; if the form was refused, the
        page comes at once, with the reason and what was entered.
        """
        try:
            async with self.session() as session:
                await change(session)
        except Problem as problem:
            return await refused(Refusal(problem, form))
        return see_other(then)

    def moment(self, form: Form, field: str) -> datetime | None:
        """The time in a field. Fields show whole minutes only, so one that was not changed keeps the time it stands
        for. Raises Invalid.
        """
        before = shown_time(form, field)
        if before is not None and form.get(field) == self.shown(before, "input"):
            return before
        return entered_time(form.get(field, ""), self.zone)

    def shown(self, moment: datetime, form: words.TimeForm = "short") -> str:
        return words.shown(moment, self.zone, self.now, form)

    def page(
        self, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
    ) -> Response:
        """Renders `app/pages/templates/<template>`."""
        html = _templates.get_template(template).render(
            viewer=self.viewer,
            zone=self.zone,
            zone_words=words.zone_words(self.zone, self.now),
            now=self.now,
            path=path_of(self.request),
            here=address_of(self.request),
            shown=self.shown,
            **values,
        )
        return _html(self.request, html, status, headers or {})


def _html(request: Request, html: str, status: int, headers: Mapping[str, str]) -> Response:
    content = html.encode("utf-8", "replace")
    more = {}
    if len(content) >= GZIP_FROM_BYTES and accepts_gzip(request):
        content = gzip.compress(content, 6, mtime=0)
        more["content-encoding"] = "gzip"
    return HTMLResponse(content, status, {**HEADERS, **more, **headers})


def see_other(address: str) -> RedirectResponse:
    """The response to a form that was accepted: the browser opens the page at this address."""
    return RedirectResponse(address, 303)


def path_of(request: Request) -> str:
    """As it was sent, percent-encoded: names in it may contain anything."""
    sent: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    return sent.decode("ascii", "replace")


def zone_of(request: Request) -> ZoneInfo:
    name = request.cookies.get(ZONE_COOKIE, "")
    return ZoneInfo(name) if is_zone(name) else ZoneInfo("UTC")


async def _anyone(request: Request) -> PageRequest:
    now = datetime.now(UTC)
    return PageRequest(request, await viewer_of(request, now=now), zone_of(request), now)


def _signed_in(wanted: Scope) -> Callable[[PageRequest], Awaitable[PageRequest]]:
    async def admitted(asked: Annotated[PageRequest, Depends(_anyone)]) -> PageRequest:
        asked.person.require(wanted)
        return asked

    return admitted


Anyone = Annotated[PageRequest, Depends(_anyone)]
SignedIn = Annotated[PageRequest, Depends(_signed_in(Scope.READ))]
AdminSignedIn = Annotated[PageRequest, Depends(_signed_in(Scope.ADMIN))]


# — errors —


class PageRoute(APIRoute):
    """A route whose errors are pages. A route for GET also answers HEAD."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if self.methods and "GET" in self.methods:
            self.methods.add("HEAD")

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def respond(request: Request) -> Response:
            try:
                return await handle(request)
            except NotSignedIn:
                address = address_of(request)
                return see_other(with_query("/login", {"next": address if address != "/" else ""}))
            except RequestValidationError as error:
                return await error_page(request, _wrong_address(error))
            except Exception as error:  # noqa: BLE001  becomes the response
                return await error_page(request, error)

        return respond


class SegmentPageRoute(PageRoute, SingleSegmentRoute):
    """A page whose path contains names that may contain anything, also slashes."""


def _wrong_address(error: RequestValidationError) -> Problem:
    """Routes declare parameters of the address only; forms are read by `PageRequest.form`."""
    found = error.errors()
    if any(one["loc"][0] == "path" for one in found):
        return NotFound("there is no page at this address")
    return Invalid("; ".join(wording.sentence(one, skip=1) for one in found[:ERRORS_AT_MOST]))


async def error_page(request: Request, error: Exception) -> Response:
    """The page for an error that nothing else has handled. It also works without the database."""
    document = problems.document_of(error, request.method)
    now, viewer = datetime.now(UTC), None
    if document.status < 500:
        with suppress(SQLAlchemyError, OSError, TimeoutError):
            viewer = await viewer_of(request, now=now)
    asked = PageRequest(request, viewer, zone_of(request), now)
    context = context_of(request)
    is_away = document.status == 503 and (context.monitor.is_down or db.is_unreachable(error))
    waiting = (await context.spool.depth()).records if is_away else 0
    return asked.page(
        "error.html",
        status=document.status,
        headers=document.headers,
        problem=document,
        is_away=is_away,
        waiting=waiting,
    )


async def missing_page(request: Request, error: Exception) -> Response:
    """For addresses that do not exist: a page for people, a problem for clients of the API."""
    assert isinstance(error, HTTPException)
    if "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/"):
        return await error_page(request, error)
    return problems.answer_to(unknown_path(request.app, request.url.path), request.method)


async def page_of_form(request: Request, error: Exception) -> Response:
    """For addresses of forms that are opened as pages, for example after signing in again: leads to the page above, on
    which the form is.
    """
    assert isinstance(error, HTTPException)
    if request.method not in {"GET", "HEAD"} or not isinstance(request.scope.get("route"), PageRoute):
        return problems.answer_to(error, request.method)
    path = path_of(request)
    while path := path.rpartition("/")[0]:
        scope = {**request.scope, "path": unquote(path), "raw_path": path.encode()}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            break
    return see_other(path or "/")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A form that was not accepted: the page shows why, and what was entered."""

    problem: Problem
    form: Mapping[str, str]

    @property
    def status(self) -> int:
        return self.problem.status

    @property
    def detail(self) -> str:
        return self.problem.detail


def entered(refused: Refusal | None, name: str, default: str = "") -> str:
    """The value of a field: the one entered before the form was refused, else its default."""
    return refused.form.get(name, default) if refused else default


_templates.globals["entered"] = entered
