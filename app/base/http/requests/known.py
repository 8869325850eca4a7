"""What a route takes according to its OpenAPI document: the names of its query parameters, of the fields of its
body, and of those of its response. Also the known name nearest to an unknown one.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

NAME_AT_MOST = 100  # characters of a name that are compared
NAMES_LISTED = 30


@dataclass(frozen=True, slots=True)
class KnownNames:
    """`query` has the parameters, and whether each may be repeated; `chosen` the fields of the response that can be
    chosen.
    """

    query: Mapping[str, bool]
    chosen: Sequence[str]
    body: Mapping[str, Any]
    schemas: Mapping[str, Any]

    def fields_at(self, location: Sequence[object]) -> list[str]:
        """The fields of the objects that may be at this place of the body."""
        found = [self.body]
        for part in location:
            inner = [each for schema in found for each in _inner(schema, part, self.schemas)]
            found = inner or found  # a part may name the variant of a union
        return _names(found, self.schemas)


def _inner(schema: Mapping[str, Any], part: object, schemas: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for one in _plain(schema, schemas):
        if isinstance(part, int):
            found = one.get("items")
        else:
            found = one.get("properties", {}).get(part, one.get("additionalProperties"))
        if isinstance(found, Mapping):
            yield found


def _plain(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schema without references, or those of its variants."""
    if "$ref" in schema:
        schema = schemas.get(schema["$ref"].rpartition("/")[2], {})
    yield schema
    for kind in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(kind, ()):
            yield from _plain(one, schemas)


def _names(found: Iterable[Mapping[str, Any]], schemas: Mapping[str, Any]) -> list[str]:
    every = (one.get("properties", {}) for schema in found for one in _plain(schema, schemas))
    return list(dict.fromkeys(name for properties in every for name in properties))


_KNOWN: dict[Callable[..., Any], KnownNames] = {}


def known_to(route: APIRoute) -> KnownNames:
    """Read once per route."""
    found = _KNOWN.get(route.endpoint)
    if found is None:
        found = _KNOWN[route.endpoint] = _read(route)
    return found


def _read(route: APIRoute) -> KnownNames:
    document = get_openapi(title="", version="", routes=[route])
    none: tuple[str, Mapping[str, Any]] = ("", {})
    method, operation = next((found for each in document.get("paths", {}).values() for found in each.items()), none)
    schemas = document.get("components", {}).get("schemas", {})
    chosen = choosable(operation, schemas) if method == "get" else []
    query = {one["name"]: _is_list(one["schema"]) for one in operation.get("parameters", ()) if one["in"] == "query"}
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    return KnownNames(query | ({"fields": False} if chosen else {}), chosen, body, schemas)


def choosable(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[str]:
    """The fields of the object that an operation returns, or of the objects in the list of a page."""
    content = operation.get("responses", {}).get("200", {}).get("content", {})
    found = [content.get("application/json", {}).get("schema", {})]
    pages = [each for schema in found for each in _inner(schema, "items", schemas)]
    return _names([each for schema in pages for each in _inner(schema, 0, schemas)] or found, schemas)


def add_parameter(document: Mapping[str, Any]) -> None:
    """Adds `fields` to the operations that take it."""
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        operation = methods.get("get", {})
        if path.startswith("/api/v1/") and choosable(operation, schemas):
            parameters = operation.setdefault("parameters", [])
            if _FIELDS not in parameters:
                parameters.append(dict(_FIELDS))


_FIELDS: Mapping[str, Any] = {
    "name": "fields",
    "in": "query",
    "required": False,
    "schema": {"type": "string", "title": "Fields"},
    "description": "Return only these fields of the object, or of each object in the list: names separated by commas, "
    "such as `number,status`",
}


def _is_list(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array" or any(one.get("type") == "array" for one in schema.get("anyOf", ()))


def nearest(name: str, known: Collection[str]) -> str | None:
    found = get_close_matches(name[:NAME_AT_MOST].lower(), known, n=1)
    return found[0] if found else None


def suggestion(name: str, known: Collection[str], *, of: str, verb: str = "takes") -> str:
    """`did you mean …`, or all known names. `of` is what takes them: `this route`."""
    if found := nearest(name, known):
        return f"did you mean `{found}`?"
    if not known:
        return f"{of} {verb} none"
    listed = [f"`{one}`" for one in sorted(known)[:NAMES_LISTED]]
    return f"{of} {verb} {', '.join(listed)}{' and others' if len(known) > NAMES_LISTED else ''}"
