"""The contract: openapi.yaml matches the app and is complete, and the running service conforms to it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.cli import openapi_document
from tests.conftest import ClientAs
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.processes import REPOSITORY, Service

ADMIN_TOKEN = "contract-admin-token-of-the-tests"
OPEN = {"/healthz", "/readyz"}
DOCUMENT = openapi_document()
# Paths that answer in the form of another product.
IMITATED = {
    path
    for path, methods in DOCUMENT["paths"].items()
    for operation in methods.values()
    if "compatible APIs" in operation["tags"]
}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def test_the_committed_document_is_the_apps() -> None:
    committed = yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())
    assert committed == DOCUMENT, "stale: run `make openapi`"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


@pytest.mark.parametrize(("path", "method", "operation"), list(operations()), ids=lambda one: str(one)[:60])
def test_each_operation_is_fully_documented(path: str, method: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    if path in OPEN:
        return
    assert "security" in operation
    problems = {status for status in operation["responses"] if status >= "400"}
    assert {"401", "403", "422", "503"} <= problems
    for status in problems:
        response = operation["responses"][status]
        name = response.get("$ref", "").rpartition("/")[2]
        forms = {*(DOCUMENT["components"]["responses"][name] if name else response)["content"]}
        if path in IMITATED:
            assert forms == {"application/json"}
        elif "{kind}" in path:  # of any kind
            assert forms == {"application/json", "application/problem+json"}
        else:
            assert forms == {"application/problem+json"}
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        assert "examples" in body or "example" in body or has_examples(body["schema"]), f"{method} {path}: no example"


def has_examples(schema: dict[str, Any]) -> bool:
    """Whether a schema, or one it refers to, has an example."""
    if "examples" in schema or "example" in schema or "default" in schema:
        return True
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return has_examples(DOCUMENT["components"]["schemas"][name])
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", []), *schema.get("allOf", [])]
    return any(has_examples(one) for one in [*inner, *([schema["items"]] if "items" in schema else [])])


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The schema of a running service with data of every kind."""
    import httpx

    service = Service(tmp_path_factory.mktemp("contract"), {"AFTERMATH_ADMIN_TOKEN": ADMIN_TOKEN})
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    with service.serve(), httpx.Client(base_url=service.url, headers=headers) as client:
        client.post("/webhooks/alertmanager", json=a_delivery(an_alert(), an_alert(started="yesterday")))
        client.post("/webhooks/alertmanager", json=a_delivery(an_alert(ended="2026-08-20T10:20:00Z")))
        client.post("/api/v1/incidents", json={"title": "t", "service": "s"}).raise_for_status()
        yield schemathesis.openapi.from_url(f"{service.url}/openapi.json")


@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method, _ in operations()])
def test_the_running_service_keeps_to_the_document(live: Any, path: str, method: str) -> None:
    """No 5xx, no undocumented status, and every response matches its schema."""
    # Made-up tokens are wrong, and answered more and more slowly.
    examples = 5 if "{token}" in path else 20

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=live[path][method.upper()].as_strategy())
    def keeps_to_it(case: Any) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, checks=CHECKS)

    keeps_to_it()


async def test_the_api_page_loads_nothing_from_elsewhere(client_as: ClientAs) -> None:
    anonymous = await client_as(None)
    page = await anonymous.get("/docs")
    assert page.status_code == 200
    used = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page.text)
    addresses = [first or second for first, second in used]
    assert len(addresses) > 2
    for address in addresses:
        assert address.startswith("/")
        assert (await anonymous.get(address)).status_code == 200
    assert "http" not in page.text
    assert (await anonymous.get("/docs/assets/../core.py")).status_code == 404
    assert (await anonymous.get("/redoc")).status_code == 404
