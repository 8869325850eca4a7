"""The public routes: no token, no cookie, no database. `main` includes them only if the setting is on.

They are not in the OpenAPI document, because the JSON has the shape of Statuspage's API, which is documented elsewhere.
"""

import re
from collections.abc import Mapping
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from app.base.errors import RETRY_AFTER_SECONDS
from app.base.http.context import context_of
from app.base.http.responses.encoding import accepts_gzip
from app.status_page.published import STYLE, Gone, Rendered, StatusPage

router = APIRouter(include_in_schema=False)

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


def _status_page(request: Request) -> StatusPage:
    return context_of(request).part(StatusPage)


Page = Annotated[StatusPage, Depends(_status_page)]


@router.api_route("/status", methods=["GET", "HEAD"])
@router.api_route("/status/", methods=["GET", "HEAD"])
async def show_status(request: Request, page: Page) -> Response:
    found = page.find("/status")
    if found is None:
        return _not_read_yet(page)
    return _answer(request, found)


@router.api_route("/status/style.css", methods=["GET", "HEAD"])
async def show_style(request: Request) -> Response:
    """Pages name its version in the address, except reports, which stay as they were approved."""
    return _answer(request, STYLE, _IMMUTABLE if request.query_params else None)


@router.api_route("/status/history", methods=["GET", "HEAD"])
async def show_history(request: Request, page: Page) -> Response:
    if not page.has_been_read:
        return _not_read_yet(page)
    found = await page.history(request.query_params.get("month"))
    if found is None:
        return _not_found(page)
    return _answer(request, found)


@router.api_route("/status/incidents/{id}", methods=["GET", "HEAD"])
async def show_incident(request: Request, page: Page, id: str) -> Response:  # noqa: A002  named in the path
    if not page.has_been_read:
        return _not_read_yet(page)
    found = await page.incident(UUID(id)) if _UUID.fullmatch(id) else None
    if found is None:
        return _not_found(page)
    return _answer(request, found)


@router.api_route("/status/reports", methods=["GET", "HEAD"])
async def show_reports(request: Request, page: Page) -> Response:
    if not page.has_been_read:
        return _not_read_yet(page)
    return _answer(request, await page.reports())


@router.api_route("/status/reports/{id}", methods=["GET", "HEAD"])
async def show_report(request: Request, page: Page, id: str) -> Response:  # noqa: A002  named in the path
    if not page.has_been_read:
        return _not_read_yet(page)
    try:
        found = page.report(UUID(id)) if _UUID.fullmatch(id) else None
    except Gone:
        return _instead(page.gone, 410)
    if found is None:
        return _not_found(page)
    return _answer(request, found)


_UUID = re.compile("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")


async def show_document(request: Request, page: Page) -> Response:
    found = page.find(request.url.path)
    if found is None:
        return _not_read_yet(page)
    return _answer(request, found, _FOR_ANY_SITE)


for _path in DOCUMENTS:
    router.add_api_route(_path, show_document, methods=["GET", "HEAD"])


@router.api_route("/status/{rest:path}", methods=["GET", "HEAD"])
async def show_nothing(page: Page) -> Response:
    """Instead of the page of the inside about what is missing, which asks the database who asks."""
    return _not_found(page)


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
