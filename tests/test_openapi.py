"""What readers and generators need from openapi.yaml: readable names, descriptions, examples that are valid."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import yaml

from app.cli import openapi_document
from app.openapi import TAGS
from app.openapi.words import DESCRIPTIONS
from tests.conftest import ClientAs

DOCUMENT = openapi_document()
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = [(path, method, one) for path, methods in DOCUMENT["paths"].items() for method, one in methods.items()]
# As the responses of other products: their properties are not ours.
FOREIGN = {"CompatibleResponse"}


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """What a reference within the document refers to."""
    while "$ref" in value:
        found: Any = DOCUMENT
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


def test_operation_ids_are_words_and_unique() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    assert [name for name in ids if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)] == []
    # A route string contains its own path, the version and the method at the end.
    assert [name for name in ids if re.search(r"api_v1|_(get|put|post|patch|delete)$", name)] == []
    assert {"list_incidents", "get_incident", "acknowledge_incident", "get_comparison", "get_summary"} <= set(ids)


def test_no_two_schemas_share_a_name() -> None:
    assert [name for name in SCHEMAS if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name)] == []
    assert [name for name, schema in SCHEMAS.items() if "title" in schema] == []  # a generator would prefer it
    lower = Counter(name.lower() for name in SCHEMAS)
    assert [name for name, times in lower.items() if times > 1] == []


def properties(value: Any, where: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every property below a value, with the place and the name."""
    if isinstance(value, list):
        for each in value:
            yield from properties(each, where)
    elif isinstance(value, dict):
        if isinstance(value.get("properties"), dict) and value.get("type") == "object":
            for name, each in value["properties"].items():
                yield where, name, each
        for key, each in value.items():
            if key not in {"example", "examples"}:
                yield from properties(each, f"{where}.{key}")


def test_every_property_is_described() -> None:
    found = [*properties(SCHEMAS, ""), *properties(DOCUMENT["paths"], "paths")]
    assert len(found) > 1000
    assert sorted({f"{where}.{name}" for where, name, one in found if len(one.get("description", "")) < 5}) == []


def test_every_parameter_is_described() -> None:
    undescribed = {
        f"{method} {path} {one['name']}"
        for path, method, operation in OPERATIONS
        for one in operation.get("parameters", ())
        if len(one.get("description", "")) < 5
    }
    assert sorted(undescribed) == []


# Filters of incidents and of what belongs to them. Action items have other owners and priorities.
SHARED = ("service", "environment", "severity", "source", "owner", "q", "count")
OWN = {
    ("owner", "/api/v1/action-items"),
    ("environment", "/api/v1/metrics/dora"),  # without one: production
    ("severity", "/api/v1/metrics/whatif"),  # what is changed
    ("q", "/api/v1/search"),  # a question
}


def test_a_filter_means_the_same_everywhere() -> None:
    found: dict[str, dict[str, list[str]]] = {name: {} for name in SHARED}
    for path, method, operation in OPERATIONS:
        for one in operation.get("parameters", ()):
            name = one["name"]
            if name in SHARED and method == "get" and path.startswith("/api/v1/") and (name, path) not in OWN:
                found[name].setdefault(str(one), []).append(path)
    assert {name: variants for name, variants in found.items() if len(variants) != 1} == {}


def test_every_description_is_used() -> None:
    names = {name for schema in SCHEMAS.values() for name in schema.get("properties", ())}
    places = {f"{schema}.{name}" for schema, one in SCHEMAS.items() for name in one.get("properties", ())}
    assert sorted(set(DESCRIPTIONS) - names - places) == []
    shown = {
        f"{schema}.{name}": one["properties"][name].get("description")
        for schema, one in SCHEMAS.items()
        for name in one.get("properties", ())
    }
    assert [place for place, text in DESCRIPTIONS.items() if "." in place and shown[place] != text] == []
    words = {word for word, text in DESCRIPTIONS.items() if "." not in word}
    used = {
        place.partition(".")[2] for place, text in shown.items() if text == DESCRIPTIONS.get(place.partition(".")[2])
    }
    assert sorted(words - used) == []


RESPONSES = [
    (f"{method} {path} {status} {kind}", content)
    for path, method, operation in OPERATIONS
    for status, response in operation["responses"].items()
    for kind, content in resolved(response).get("content", {}).items()
]


def test_every_response_has_an_example_that_is_valid() -> None:
    assert len(RESPONSES) > 500
    wrong = {}
    checked: set[int] = set()
    for where, content in RESPONSES:
        values = [resolved(one)["value"] for one in content.get("examples", {}).values()]
        values += [content["example"]] if "example" in content else []
        if not values:
            wrong[where] = "no example"
        if id(values[0] if values else where) in checked:
            continue  # of a component that another response has too
        for value in values:
            checked.add(id(value))
            schema = content.get("schema", {}) | {"components": DOCUMENT["components"]}
            validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
            if errors := [f"{list(error.path)}: {error.message[:200]}" for error in validator.iter_errors(value)]:
                wrong[where] = "; ".join(errors)
    assert wrong == {}


def test_every_tag_is_described_and_used() -> None:
    used = {tag for _, _, operation in OPERATIONS for tag in operation["tags"]}
    assert {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]} == TAGS
    assert set(TAGS) == used


async def test_the_document_is_served_as_json_and_as_yaml(client_as: ClientAs) -> None:
    anonymous = await client_as(None)
    as_json, as_yaml = [await anonymous.get(f"/openapi.{form}") for form in ("json", "yaml")]
    assert as_yaml.headers["content-type"] == "application/yaml"
    assert yaml.load(as_yaml.text, yaml.CSafeLoader) == as_json.json() == DOCUMENT
    theirs = {"content-length", "content-type"}
    ours = {name: value for name, value in as_json.headers.items() if name not in theirs}
    assert {name: as_yaml.headers.get(name) for name in ours} == ours
    assert as_yaml.headers["cache-control"] == "no-store"


async def test_it_has_no_third_address(client: httpx.AsyncClient) -> None:
    assert (await client.get("/openapi.yml")).status_code == 404
