"""The public pages: no token, no cookie, no database. `main` includes them only if the setting is on.

`PublicPages` is a plain ASGI application in front of FastAPI, as for webhooks: customers read these pages in masses
during an outage, when ingest needs the processor, and FastAPI would take several times as long as sending what is in
memory. They are not in the OpenAPI document, because the JSON has the shape of Statuspage's API, which is documented
elsewhere.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple
from uuid import UUID

from fastapi import HTTPException, Request, Response

from app.base.errors import RETRY_AFTER_SECONDS
from app.base.http.context import context_of
from app.base.http.responses.encoding import accepts_gzip
from app.base.process.logs import Application, Receive, Scope, Send
from app.status_page.published import STYLE, Gone, Rendered, StatusPage

DOCUMENTS = (
    "/status.json",
    "/status/history.atom",
    "/status/history.rss",
    *(
        f"/status/api/v2/{name}.json"
        for name in (
            "summary",
            "status",
            "components",
            "incidents",
            "incidents/unresolved",
            "scheduled-maintenances",
            "scheduled-maintenances/active",
            "scheduled-maintenances/upcoming",
        )
    ),
)

_HEADERS = {
    "cache-control": "public, max-age=15",
    "vary": "accept-encoding",
    "content-security-policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
}
# Anyone may read the JSON and the feeds, also a script of another site.
_FOR_ANY_SITE = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
_IMMUTABLE = {"cache-control": "public, max-age=31536000, immutable"}


class Asked(NamedTuple):
    """One request. `id`: the last segment of a path that ends with one."""

    request: Request
    page: StatusPage
    path: str
    id: str = ""


class Route(NamedTuple):
    """`path` is a template, which is logged instead of the actual path."""

    path: str
    answer: Callable[[Asked], Awaitable[Response]]


class PublicPages:
    """Serves the public pages, and passes all other requests to `app`."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises HTTPException for other methods than GET and HEAD."""
        path = _path(scope) if scope["type"] == "http" else None
        if path is None:
            await self._app(scope, receive, send)
            return
        scope["route"], id_ = route, _ = _match(path)
        if scope["method"] not in {"GET", "HEAD"}:
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        request = Request(scope)
        response = await route.answer(Asked(request, context_of(request).part(StatusPage), path, id_))
        await response(scope, receive, send)


def _path(scope: Scope) -> str | None:
    """The path if it is that of a public page."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path if path in _BY_PATH or path.startswith("/status/") else None


def _match(path: str) -> tuple[Route, str]:
    """The route of a path, and the id in it, if any."""
    if found := _BY_PATH.get(path):
        return found, ""
    parent, _, id_ = path.rpartition("/")
    return _BY_PARENT.get(parent, _NOTHING), id_


async def _show_status(asked: Asked) -> Response:
    found = asked.page.find("/status")
    return _not_read_yet(asked.page) if found is None else _answer(asked.request, found)


async def _show_style(asked: Asked) -> Response:
    """Pages name its version in the address, except reports, which stay as they were approved."""
    return _answer(asked.request, STYLE, _IMMUTABLE if asked.request.query_params else None)


async def _show_history(asked: Asked) -> Response:
    if not asked.page.has_been_read:
        return _not_read_yet(asked.page)
    found = await asked.page.history(asked.request.query_params.get("month"))
    return _not_found(asked.page) if found is None else _answer(asked.request, found)


async def _show_incident(asked: Asked) -> Response:
    if not asked.page.has_been_read:
        return _not_read_yet(asked.page)
    found = await asked.page.incident(UUID(asked.id)) if _UUID.fullmatch(asked.id) else None
    return _not_found(asked.page) if found is None else _answer(asked.request, found)


async def _show_reports(asked: Asked) -> Response:
    if not asked.page.has_been_read:
        return _not_read_yet(asked.page)
    return _answer(asked.request, await asked.page.reports())


async def _show_report(asked: Asked) -> Response:
    if not asked.page.has_been_read:
        return _not_read_yet(asked.page)
    try:
        found = asked.page.report(UUID(asked.id)) if _UUID.fullmatch(asked.id) else None
    except Gone:
        return _instead(asked.page.gone, 410)
    return _not_found(asked.page) if found is None else _answer(asked.request, found)


_UUID = re.compile("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")


async def _show_document(asked: Asked) -> Response:
    found = asked.page.find(asked.path)
    return _not_read_yet(asked.page) if found is None else _answer(asked.request, found, _FOR_ANY_SITE)


async def _show_nothing(asked: Asked) -> Response:
    """Instead of the page of the inside about what is missing, which reads the session of the visitor."""
    return _not_found(asked.page)


ROUTES = (
    Route("/status", _show_status),
    Route("/status/style.css", _show_style),
    Route("/status/history", _show_history),
    Route("/status/incidents/{id}", _show_incident),
    Route("/status/reports", _show_reports),
    Route("/status/reports/{id}", _show_report),
    *(Route(path, _show_document) for path in DOCUMENTS),
)
_NOTHING = Route("/status/{rest}", _show_nothing)
_BY_PATH = {route.path: route for route in ROUTES if not route.path.endswith("{id}")}
_BY_PARENT = {route.path.removesuffix("/{id}"): route for route in ROUTES if route.path.endswith("{id}")}


def _answer(request: Request, found: Rendered, more: dict[str, str] | None = None) -> Response:
    headers = {**_HEADERS, "etag": found.etag, **(more or {})}
    known = {one.strip() for one in request.headers.get("if-none-match", "").split(",")}
    if known & {found.etag, found.etag.removeprefix("W/"), "*"}:
        return Response(status_code=304, headers=headers)
    content = found.content
    if found.compressed is not None and accepts_gzip(request):
        content, headers["content-encoding"] = found.compressed, "gzip"
    return Response(content, headers=headers, media_type=found.media_type)


def _not_read_yet(page: StatusPage) -> Response:
    more = {"cache-control": "no-store", "retry-after": str(RETRY_AFTER_SECONDS)}
    return _instead(page.not_read_yet(), 503, more)


def _not_found(page: StatusPage) -> Response:
    return _instead(page.not_found, 404)


def _instead(page: Rendered, status: int, more: Mapping[str, str] | None = None) -> Response:
    return Response(page.content, status, {**_HEADERS, **(more or {})}, page.media_type)
