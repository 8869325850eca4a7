"""Every position of every request, as openapi.yaml describes them, with values at and beyond what is possible.

Nothing may be a 5xx, and nothing that was accepted may make a later answer a 5xx. Sizes and slowness are the subject of
tests/faults/test_hostile_clients.py.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, quote_from_bytes

import httpx
import pytest

from app.base.access.tokens import Scope
from app.base.http.context import Context
from app.base.http.limits import clients
from app.cli import openapi_document
from app.ingest.senders import SENDERS
from app.settings import Settings
from app.status_page import public
from app.status_page.published import StatusPage
from tests.conftest import ClientAs
from tests.ingest.test_webhook import a_delivery, an_alert

DOCUMENT = openapi_document()
NOW = "2026-08-20T10:05:00Z"

STRINGS = [
    "",
    "a\0b",
    "\0",
    "a\ud800",
    "\udfff",
    "\u202e",
    "x" * 100_000,
    "=1+1",
    "INC-99999999999999999999",
    "%00",
    "-",
]
TIMES = [
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "1970-01-01T00:00:00Z",
    "1971-01-01T00:00:00Z",
    "1999-12-31T23:59:59+14:00",
    "2000-01-01T00:00:00+14:00",
    "2199-12-31T23:59:59-14:00",
    "2200-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-14:00",
    "2026-08-20T10:05:00.123456789123Z",
    "2026-08-20T10:05:60Z",
    "2026-02-30",
    "-99999d",
    "253402300800",
]
NUMBERS = [0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**400, 1e-320, 1e308, float("nan"), float("inf"), 0.1]
OTHERS: list[Any] = [None, True, [], {}, [[[[]]]], {"a\0": "b"}, {"\ud800": "b"}]

# Values with which a request succeeds, by the name of the parameter.
PARAMETERS = {
    "kind": "alertmanager",
    "token": "aft_00000000_x",
    "id": "INC-1",
    "review": "REV-1",
    "item": "AI-1",
    "incident": "INC-1",
    "name": "shop",
    "person": "ada",
    "role": "commander",
    "playbook": "restart",
    "version": "1",
    "format": "lines",
    "public_id": "0198c9b4-3f0a-7c11-8d52-6a1f6b2c9d01",
    "update_id": "0198c9b4-3f0a-7c11-8d52-6a1f6b2c9d02",
    "fingerprint": "f1",
    "q": "shop",
    "service": "shop",
    "from": "2026-08-01T00:00:00Z",
    "to": "2026-08-27T00:00:00Z",
    "a_from": "2026-08-01T00:00:00Z",
    "a_to": "2026-08-10T00:00:00Z",
    "b_from": "2026-08-10T00:00:00Z",
    "b_to": "2026-08-27T00:00:00Z",
}
# Paths that answer in the form of another product.
IMITATED = {
    path
    for path, methods in DOCUMENT["paths"].items()
    for operation in methods.values()
    if "compatible APIs" in operation["tags"]
}
# The pages for customers, which are not part of the document.
PUBLIC = ("/status", "/status/history", f"/status/incidents/{PARAMETERS['public_id']}", *public.DOCUMENTS)
# For names of things that one request may create and another read.
READERS = [path for path, methods in DOCUMENT["paths"].items() if "get" in methods]


def area_of(path: str) -> str:
    """What the operations at this path share a service with in the test: `sources`, `webhooks` …"""
    parts = [part for part in path.removeprefix("/api/v1").split("/") if part]
    return "/".join(parts[:2]) if parts[0] == "webhooks" else parts[0].partition(".")[0]


def operations() -> Iterator[tuple[str, str]]:
    for path, methods in DOCUMENT["paths"].items():
        for method in methods:
            if path == "/webhooks/{kind}":
                yield from ((method, path.replace("{kind}", kind)) for kind in SENDERS)
            else:
                yield method, path


def operation_at(method: str, path: str) -> Mapping[str, Any]:
    found = DOCUMENT["paths"].get(path) or DOCUMENT["paths"]["/webhooks/{kind}"]
    operation: Mapping[str, Any] = found[method]
    return operation


def sample(schema: Mapping[str, Any], name: str = "") -> Any:
    """A value that the schema admits, with every optional property present."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "const" in schema:
        return schema["const"]
    chosen = [schema[key] for key in ("default", "example") if schema.get(key) is not None]
    if given := [*([PARAMETERS[name]] if name in PARAMETERS else []), *chosen, *schema.get("examples", ())]:
        return copy.deepcopy(given[0])
    for choice in schema.get("anyOf", schema.get("oneOf", ())):
        if choice.get("type") != "null":
            return sample(choice, name)
    if schema.get("type") == "object":
        return {key: sample(one, key) for key, one in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [sample(schema["items"])]
    text = NOW if schema.get("format") == "date-time" else "text"
    simple = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": False}
    return schema.get("enum", [simple.get(schema.get("type", ""), text)])[0]


def variants(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of a schema for several kinds of body, those of each."""
    return [one for one in schema.get("oneOf", ()) if "$ref" in one] or [schema]


def places_in(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every position in a JSON value, and what is there."""
    yield at, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places_in(one, (*at, key))


def with_value(body: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    changed = copy.deepcopy(body)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return changed


def odd_values(value: Any) -> Iterator[Any]:
    """All odd values of the type of `value`, and some of every other type, which are mostly refused alike."""
    is_text, is_number = isinstance(value, str), isinstance(value, int | float) and not isinstance(value, bool)
    is_time = is_text and re.match(r"\d{4}-\d\d-\d\d|\d+$", value) is not None
    yield from STRINGS if is_text else STRINGS[:4]
    yield from TIMES if is_time else TIMES[::5]
    yield from NUMBERS if is_number or is_time else NUMBERS[::4]
    yield from OTHERS


def bodies(operation: Mapping[str, Any], path: str) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return
    kind = path.removeprefix("/webhooks/")
    if kind in SENDERS:
        example = SENDERS[kind].example
        samples = [example if isinstance(example, list) else dict(example)]
    else:
        samples = [content["example"]] if "example" in content else [*map(sample, variants(content["schema"]))]
    for body in samples:
        yield json.dumps(body)
        for at, value in places_in(body):
            for odd in odd_values(value):
                if odd is not value:
                    yield json.dumps(with_value(body, at, odd))
            if isinstance(value, dict):
                yield json.dumps(with_value(body, at, {**value, "a\0\ud800": "b\0"}))
    yield from ("", "nul", "[", '{"a":', "1" * 5000, "[" * 5000, '"\\ud800', "\ufeff{}")


def paths_and_queries(operation: Mapping[str, Any], path: str) -> Iterator[str]:
    parameters = operation.get("parameters", ())
    known = {one["name"]: PARAMETERS.get(one["name"]) for one in parameters}

    def address(odd: str = "", value: str = "") -> str:
        filled = path
        for one in parameters:
            if one["in"] == "path":
                chosen = value if one["name"] == odd else quote(str(known[one["name"]]), safe="")
                filled = filled.replace(f"{{{one['name']}}}", chosen)
        query = [
            f"{one['name']}={value if one['name'] == odd else quote(str(known[one['name']]), safe='')}"
            for one in parameters
            if one["in"] == "query" and (one["name"] == odd or one.get("required"))
        ]
        return f"{filled}?{'&'.join(query)}" if query else filled

    yield address()
    odd_values = [quote_from_bytes(str(one).encode("utf-8", "surrogatepass"), safe="") for one in STRINGS + TIMES]
    odd_values += [str(one)[:200] for one in NUMBERS] + ["%ff", "%ED%A0%80", "a,b", "a=b", "+02:00", "%2e%2e%2f"]
    for one in parameters:
        if one["in"] in {"path", "query"}:
            for value in odd_values:
                if one["in"] == "query" or value:
                    yield address(one["name"], value[:60_000])


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"status_page": True})


@pytest.fixture
async def filled(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    """A service with one of each thing, which answers values that are credentials without delay."""
    monkeypatch.setattr(clients, "FREE_FAILURES", 10.0**9)
    delivery = a_delivery(an_alert(), an_alert(started="yesterday"), an_alert(ended="2026-08-20T10:20:00Z"))
    (await client.post("/webhooks/alertmanager", json=delivery)).raise_for_status()
    (await client.post("/api/v1/incidents", json={"title": "t", "service": "shop"})).raise_for_status()
    (await client.post("/api/v1/reviews", json={"title": "t", "incidents": ["INC-1"]})).raise_for_status()
    item = {"title": "t", "phase": "response", "review": "REV-1"}
    (await client.post("/api/v1/action-items", json=item)).raise_for_status()
    first = {"id": PARAMETERS["update_id"], "status": "investigating", "body": "t"}
    public = {"id": PARAMETERS["public_id"], "title": "t", "incident": "INC-1", "first": first}
    (await client.post("/api/v1/status-page/incidents", json=public)).raise_for_status()
    for path, methods in DOCUMENT["paths"].items():
        for method in ("put", "post"):
            if method in methods and "{kind}" not in path and "/incidents" not in path:
                content = methods[method].get("requestBody", {}).get("content", {}).get("application/json")
                if content is not None:
                    await client.request(
                        method, next(paths_and_queries(methods[method], path)), json=sample(content["schema"])
                    )
    return client


async def assert_everything_answers(client: httpx.AsyncClient, after: str) -> None:
    for path in READERS:
        response = await client.get(next(paths_and_queries(DOCUMENT["paths"][path]["get"], path)))
        assert response.status_code < 500, f"GET {path} after {after}: {response.status_code} {response.text[:500]}"


async def send(client: httpx.AsyncClient, method: str, address: str, body: str | None) -> httpx.Response:
    try:
        content = body.encode("utf-8", "surrogatepass") if body is not None else None
        url = httpx.URL(f"http://aftermath.test{address}")
    except httpx.InvalidURL:
        pytest.fail(f"not a URL: {address[:100]}")
    return await client.request(method, url, content=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("area", sorted({area_of(path) for _, path in operations()}))
async def test_no_value_in_any_place_is_a_server_error(filled: httpx.AsyncClient, context: Context, area: str) -> None:
    for method, path in operations():
        if area_of(path) == area:
            await try_values(filled, method, path)
    await assert_everything_answers(filled, area)
    await assert_customers_are_answered(filled, context)


async def assert_customers_are_answered(client: httpx.AsyncClient, context: Context) -> None:
    """Also about what was published meanwhile. A public incident that was withdrawn is not found."""
    await context.part(StatusPage).refresh(datetime.now(UTC))
    for path in PUBLIC:
        response = await client.get(path)
        assert response.status_code in {200, *([404] if path == PUBLIC[2] else [])}, f"{path}: {response.text[:500]}"


async def test_no_value_in_the_address_of_a_page_for_customers_is_a_server_error(
    filled: httpx.AsyncClient, context: Context
) -> None:
    await assert_customers_are_answered(filled, context)
    found = await filled.get(PUBLIC[2])
    assert (found.status_code, PARAMETERS["public_id"] in (await filled.get("/status")).text) == (200, True)
    for odd in STRINGS + TIMES:
        value = quote_from_bytes(odd.encode("utf-8", "surrogatepass"), safe="")[:60_000]
        for address in (f"/status/history?month={value}", f"/status/incidents/{value}", f"/status/{value}"):
            response = await send(filled, "GET", address, None)
            assert response.status_code in {200, 404}, f"{address[:200]}: {response.status_code}"


async def try_values(filled: httpx.AsyncClient, method: str, path: str) -> None:
    """Raises AssertionError at the first answer that is a server error."""
    operation = operation_at(method, path)
    tried = 0
    for address in [*paths_and_queries(operation, path)]:
        response = await send(filled, method, address, None)
        tried += 1
        assert response.status_code < 500, f"{method} {address[:200]}: {response.status_code} {response.text[:500]}"
    address = next(paths_and_queries(operation, path))
    for body in bodies(operation, path):
        response = await send(filled, method, address, body)
        tried += 1
        assert response.status_code < 500, f"{method} {path} {body[:300]}: {response.status_code} {response.text[:500]}"
        if response.status_code >= 400:
            sender = SENDERS.get(path.removeprefix("/webhooks/"))
            is_imitated = path in IMITATED or (sender is not None and sender.refuse is not None)
            form = "application/json" if is_imitated else "application/problem+json"
            assert response.headers["content-type"] == form
    assert tried


@pytest.mark.parametrize("scope", [None, Scope.READ, Scope.INGEST])
async def test_no_value_in_any_place_is_a_server_error_for_others(
    filled: httpx.AsyncClient, client_as: ClientAs, scope: Scope | None
) -> None:
    """The credential is checked before the values, so some of each suffice; and one where a value is a credential,
    because wrong ones are answered more and more slowly.
    """
    client = await client_as(scope)
    for method, path in operations():
        operation = operation_at(method, path)
        is_guessed = "{token}" in path or path in IMITATED
        for address in [*paths_and_queries(operation, path)][:: 1000 if is_guessed else 7]:
            response = await send(client, method, address, None)
            assert response.status_code < 500, f"{method} {address[:200]}: {response.text[:500]}"
        address = next(paths_and_queries(operation, path))
        for body in [*bodies(operation, path)][:: 1000 if is_guessed else 29]:
            response = await send(client, method, address, body)
            assert response.status_code < 500, f"{method} {path} {body[:300]}: {response.text[:500]}"
            if scope is None and path not in {"/healthz", "/readyz"} and not path.startswith("/webhooks"):
                assert response.status_code == 401 or (path in IMITATED and response.status_code in {400, 413})
    await assert_everything_answers(filled, f"{scope}")
