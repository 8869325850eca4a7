"""Static files. They are few and small, so each process holds them in memory, compressed."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from app.base.errors import NotFound
from app.base.http.responses.encoding import accepts_gzip

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "woff2": "font/woff2",
}
_IMMUTABLE = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    compressed: bytes
    media_type: str
    version: str  # changes with the content


def _asset(name: str, content: bytes) -> Asset:
    version = hashlib.sha256(content).hexdigest()[:10]
    return Asset(content, gzip.compress(content, mtime=0), _TYPES[name.rpartition(".")[2]], version)


ASSETS = {
    file.name: _asset(file.name, file.read_bytes())
    for file in files("app.pages").joinpath("static").iterdir()
    if file.name.rpartition(".")[2] in _TYPES
}


def address_of(name: str) -> str:
    """The address of a static file, which is another one when its content changes."""
    return f"/static/{name}?v={ASSETS[name].version}"


@router.api_route("/static/{name}", methods=["GET", "HEAD"])
async def static_file(request: Request, name: str) -> Response:
    asset = ASSETS.get(name)
    if asset is None:
        raise NotFound("there is no such file")
    headers = {"cache-control": _IMMUTABLE, "vary": "accept-encoding"}
    content = asset.content
    if accepts_gzip(request) and len(asset.compressed) < len(content):
        content, headers["content-encoding"] = asset.compressed, "gzip"
    return Response(content, headers=headers, media_type=asset.media_type)
