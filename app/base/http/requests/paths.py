"""Paths as people type them: a trailing slash is accepted, and the response to an unknown path names the nearest known
one.
"""

from collections.abc import MutableMapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from app.base.errors import NotFound

PATH_AT_MOST = 200  # characters of a path that is compared
NEAR = 0.8  # similarity of paths, at most 1
NEAR_WORD = 0.5
OF_PARAMETER = 0.9  # a segment that fills a parameter is less similar than one that is the same word


class UnknownPath(NotFound):
    title = "There is nothing at this path"


def drop_trailing_slash(scope: MutableMapping[str, Any]) -> None:
    """Changes the scope in place, because logging reads the route from it. An encoded slash is part of a name."""
    sent: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    if len(sent) > 1 and sent.endswith(b"/"):
        scope["path"], scope["raw_path"] = scope["path"][:-1], sent[:-1]


def unknown_path(api: FastAPI, path: str) -> UnknownPath:
    found = nearest_path(path, _documented(api)) if len(path) <= PATH_AT_MOST else None
    return UnknownPath(
        f"did you mean `{found}`?" if found else "GET /openapi.json lists all routes, and /docs shows them"
    )


@lru_cache(maxsize=1)
def _documented(api: FastAPI) -> tuple[str, ...]:
    routes = [each for each in iter_route_contexts(api.routes) if isinstance(each.original_route, APIRoute)]
    paths = (each.path_format for each in routes if each.include_in_schema)
    return tuple(dict.fromkeys(path for path in paths if path))


def nearest_path(path: str, known: Sequence[str]) -> str | None:
    """The most similar path with as many segments, else the most similar one without parameters."""
    segments = path.lower().split("/")
    alike = {one: _similarity(segments, one.split("/")) for one in known if one.count("/") == len(segments) - 1}
    best = max(alike, key=lambda one: alike[one], default=None)
    if best is not None and alike[best] >= NEAR:
        return best
    plain = get_close_matches(path.lower(), [one for one in known if "{" not in one], n=1, cutoff=NEAR)
    return plain[0] if plain else None


def _similarity(segments: Sequence[str], known: Sequence[str]) -> float:
    """0 if a word has nothing to do with the one in its place."""
    each = [
        OF_PARAMETER if one.startswith("{") else _alike(sent, one) for sent, one in zip(segments, known, strict=True)
    ]
    return sum(each) / len(each) if min(each) >= NEAR_WORD else 0.0


@lru_cache(maxsize=2000)
def _alike(sent: str, known: str) -> float:
    return 1.0 if sent == known else SequenceMatcher(None, sent, known).ratio()
