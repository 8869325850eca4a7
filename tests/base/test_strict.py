"""Strict requests: what a route does not take is refused, and named with the nearest that it takes."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.base.access.tokens import Scope
from app.base.http.requests.known import nearest, suggestion
from app.cli import openapi_document
from tests.conftest import ClientAs
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert

DOCUMENT = openapi_document()


def operations() -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Those of REST: method, path with its parameters filled, parameters of the query."""
    for path, methods in DOCUMENT["paths"].items():
        if path.startswith("/api/v1/") or path == "/metrics":
            for method, operation in methods.items():
                query = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
                yield method, re.sub(r"\{\w+\}", "x", path), query


def is_list(schema: dict[str, Any]) -> bool:
    return any(one.get("type") == "array" for one in (schema, *schema.get("anyOf", ())))


async def refused(client: httpx.AsyncClient, method: str, address: str) -> dict[str, Any]:
    answer = await client.request(method, address)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), (
        method,
        address,
        answer.text,
    )
    return answer.json()  # type: ignore[no-any-return]


async def test_no_operation_takes_an_unknown_parameter(client: httpx.AsyncClient) -> None:
    found = list(operations())
    assert len(found) > 120
    for method, path, query in found:
        problem = await refused(client, method, f"{path}?surprise=1")
        [error] = problem["errors"]
        assert error["at"] == "query/surprise"
        assert error["why"].startswith("is not a known parameter; ")
        for one in query:
            problem = await refused(client, method, f"{path}?{one['name']}x=1")
            [error] = problem["errors"]
            assert error["at"] == f"query/{one['name']}x"
            assert "did you mean `" in error["why"]


async def test_no_operation_takes_one_of_several_values_of_a_parameter(client: httpx.AsyncClient) -> None:
    tried = 0
    for method, path, query in operations():
        for one in query:
            if not is_list(one["schema"]):
                tried += 1
                problem = await refused(client, method, f"{path}?{one['name']}=1&{one['name']}=1")
                assert f"query/{one['name']}: may be given only once" in problem["detail"]
    assert tried > 100


async def test_the_credential_is_checked_before_the_parameters(client_as: ClientAs) -> None:
    for scope, status in ((None, 401), (Scope.INGEST, 403), (Scope.READ, 422)):
        client = await client_as(scope)
        assert (await client.get("/api/v1/incidents?servcie=shop")).status_code == status
        assert (await client.get("/api/v1/metrics/summary?servcie=shop")).status_code == status


async def test_an_unknown_parameter_is_named_with_the_nearest_known_one(client: httpx.AsyncClient) -> None:
    problem = await refused(client, "get", "/api/v1/incidents?servcie=shop&timezone=x&Environment=prod")
    assert [(error["at"], error["why"].partition("; ")[2]) for error in problem["errors"]][::2] == [
        ("query/servcie", "did you mean `service`?"),
        ("query/Environment", "did you mean `environment`?"),
    ]
    assert problem["errors"][1]["why"].startswith("is not a known parameter; this route takes `")
    assert problem["type"] == "urn:aftermath:problem:invalid"
    assert problem["detail"].startswith("query/servcie: is not a known parameter; did you mean `service`?; ")
    none = await refused(client, "get", "/api/v1/targets?service=shop")
    assert none["detail"] == "query/service: is not a known parameter; this route takes `fields`"


async def test_hostile_names_are_shown_cut_and_clean(client: httpx.AsyncClient) -> None:
    for name in ("%00", "%FF", "%ED%A0%80", "x" * 5000, "", "%F0%9F%92%A5", "a%0Ab"):
        problem = await refused(client, "get", f"/api/v1/incidents?{name}=1")
        assert len(problem["detail"]) < 1000
    many = "&".join(f"p{number}=1" for number in range(2000))
    problem = await refused(client, "get", f"/api/v1/incidents?{many}")
    assert len(problem["errors"]) == 10


async def test_webhooks_and_imitated_apis_and_pages_ignore_what_they_do_not_know(client: httpx.AsyncClient) -> None:
    assert (await client.post(f"{WEBHOOK}?surprise=1", json=a_delivery(an_alert()))).status_code == 200
    for path in ("/api/v2/status", "/healthz", "/login"):
        assert (await client.get(f"{path}?surprise=1&surprise=2")).status_code == 200


# — bodies —


async def why(client: httpx.AsyncClient, method: str, path: str, body: Any) -> list[tuple[str, str]]:
    answer = await client.request(method, path, json=body)
    assert answer.status_code == 422, answer.text
    return [(error["at"], error["why"]) for error in answer.json()["errors"]]


async def test_an_unknown_field_is_named_with_the_nearest_known_one(client: httpx.AsyncClient) -> None:
    declared = {"title": "t", "service": "s"}
    assert await why(client, "post", "/api/v1/incidents", declared | {"sevrity": "sev1"}) == [
        ("body/sevrity", "is not a known field; did you mean `severity`?")
    ]
    calendar = {"zone": "UTC", "hours": {"monday": [{"from": "09:00", "to": "12:00", "untill": "13:00"}]}}
    [(at, reason)] = await why(client, "put", "/api/v1/calendars/c", calendar)
    assert at == "body/hours/monday/0/untill"
    assert reason.startswith("is not a known field; this object takes `")


def test_every_body_of_rest_refuses_unknown_fields() -> None:
    schemas, seen = DOCUMENT["components"]["schemas"], set[str]()

    def walk(schema: dict[str, Any]) -> None:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name in seen:
                return
            seen.add(name)
            schema = schemas[name]
            assert "properties" not in schema or schema.get("additionalProperties") is False, name
        inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
        inner += [one for kind in ("anyOf", "oneOf", "allOf") for one in schema.get(kind, ())]
        for one in inner:
            if isinstance(one, dict):
                walk(one)

    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values() if path.startswith("/api/v1/") else ():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                walk(content["schema"])
    assert len(seen) > 20


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, [("body/title", "is required"), ("body/service", "is required")]),
        ({"title": 1, "service": ""}, [("body/title", "must be a string"), ("body/service", "must not be empty")]),
        ([], [("body", "must be an object")]),
        (
            {"title": "t", "service": "s", "severity": "sev9", "detected_at": "2026-11-28T10:00:00"},
            [
                ("body/severity", "must be `sev1`, `sev2`, `sev3`, `sev4` or `sev5`"),
                ("body/detected_at", "must have an offset from UTC: add `Z` if it is in UTC"),
            ],
        ),
    ],
)
async def test_errors_use_the_words_of_the_api(
    client: httpx.AsyncClient, body: Any, expected: list[tuple[str, str]]
) -> None:
    assert await why(client, "post", "/api/v1/incidents", body) == expected


def test_the_nearest_name() -> None:
    known = ["service", "severity", "from"]
    assert [nearest(name, known) for name in ("servcie", "SEVERITY", "form", "x")] == [
        "service", "severity", "from", None,
    ]  # fmt: skip
    assert suggestion("x", known, of="this route") == "this route takes `from`, `service`, `severity`"
    assert suggestion("x", [], of="this route") == "this route takes none"
