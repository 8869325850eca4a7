"""The OpenAPI document: what FastAPI derives from the routes, with descriptions and examples, as JSON and as YAML."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

import yaml
from fastapi import FastAPI, Response
from fastapi.routing import APIRoute

from app.base.http.requests.known import add_parameter
from app.base.http.responses.problems import PROBLEM_TYPE, ProblemDocument
from app.base.process.threads import off_loop
from app.openapi.examples import example_of
from app.openapi.words import DESCRIPTIONS, PARAMETERS

TAGS = {
    "webhooks": "Endpoints for monitoring, CI and paging tools. Each kind of sender has its own format.",
    "compatible APIs": (
        "Endpoints compatible with other products' APIs, for tools that can send only to those. "
        "Responses have the form of that product."
    ),
    "incidents": "Incidents with their alerts, actions, timeline and path to recovery.",
    "response": "The response to incidents: types, roles, updates, targets, playbooks, people.",
    "reviews": "Reviews of incidents, their findings, action items and reports.",
    "metrics": (
        "Numbers over many incidents: summaries, comparisons, what-if calculations, DORA metrics, and "
        "the Prometheus endpoint."
    ),
    "deployments": "Deployments and other changes, and which of them caused an incident.",
    "services": "Services: owners, hourly cost of an outage, and objectives.",
    "rules": "How alerts are grouped into incidents.",
    "maintenance": "Planned maintenance, which does not count as downtime.",
    "calendars": "Business hours.",
    "sources": (
        "Systems that send alerts and deployments: settings, health, and the quarantine of what could not be read."
    ),
    "search": "Search by words and numbers.",
    "status page": "What customers see: components, public incidents and their updates.",
    "tokens": "Access tokens for the API and the web pages.",
    "health": "Liveness and readiness probes.",
}

_TEXTS = {  # of responses that are no JSON
    "text/csv": "from,to,service\r\n2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,checkout\r\n",
    "text/markdown": "# Checkout fails for some customers\n",
    "text/html": "<!doctype html><title>Checkout fails for some customers</title>",
    "text/plain": "OK",
}


def operation_id(route: APIRoute) -> str:
    """The name of the route's function, which no other route has."""
    return route.name


def install_document(api: FastAPI) -> None:
    """Completes the document of the application, and serves it as JSON and as YAML."""
    generate = api.openapi
    known: dict[str, Any] = {}
    written: dict[str, bytes] = {}
    writing = asyncio.Lock()

    def openapi() -> dict[str, Any]:
        if not known:
            known.update(_completed(generate()))
        return known

    api.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it

    async def document(form: str, write: Callable[[], str]) -> Response:
        async with writing:  # it takes seconds: only once, however many requests wait, and off the event loop
            if form not in written:
                written[form] = (await off_loop(write)).encode()
        return Response(written[form], media_type=f"application/{form}")

    # FastAPI's own route would derive the document on the event loop.
    api.router.routes[:] = [route for route in api.routes if getattr(route, "path", "") != api.openapi_url]

    @api.get("/openapi.json", include_in_schema=False)
    async def openapi_json() -> Response:
        return await document("json", lambda: json.dumps(openapi(), ensure_ascii=False))

    @api.get("/openapi.yaml", include_in_schema=False)
    async def openapi_yaml() -> Response:
        return await document("yaml", lambda: as_yaml(openapi()))


def as_yaml(document: Mapping[str, Any]) -> str:
    return yaml.dump(
        json.loads(json.dumps(document)),  # so that no object is shared: YAML would show it as a reference
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        sort_keys=False,
        allow_unicode=True,
        width=120,
    )


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    document = _with_names_of_pages(document)
    add_parameter(document)
    components = document["components"]
    schemas: dict[str, Any] = components["schemas"]
    # FastAPI adds the model of a response only under the media type of the route, which differs from that of problems.
    schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
    # The dependency that reads it only passes on what FastAPI's own class finds, so FastAPI does not document it.
    components["securitySchemes"]["basic"] = {
        "type": "http",
        "scheme": "basic",
        "description": "Any user name; the token is the password.",
    }
    used = {tag for _, operation in _operations(document) for tag in operation["tags"]}
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    document["servers"] = [{"url": "/", "description": "The service that serves this document"}]
    for name, schema in schemas.items():
        _describe(name, schema)
    responses: dict[str, Any] = {}
    examples: dict[str, Any] = {}
    components |= {"responses": responses, "examples": examples}
    for _, operation in _operations(document):
        operation.setdefault("security", [])  # none: probes
        for parameter in operation.get("parameters", ()):
            parameter.get("schema", {}).pop("title", None)
            word = parameter["name"]
            parameter.setdefault("description", PARAMETERS.get(word) or DESCRIPTIONS.get(word, ""))
        operation["responses"] = {
            status: _shared(response, int(status), responses)
            for status, response in sorted(operation["responses"].items())
        }
        for response in operation["responses"].values():
            for kind, content in response.get("content", {}).items():
                _exemplify(kind, content, schemas, examples)
    return document


def _with_names_of_pages(document: Mapping[str, Any]) -> dict[str, Any]:
    """The name of a page is `PageOf…`. Pydantic derives another one from the brackets of the type."""
    schemas = document["components"]["schemas"]
    names = {name: schema["title"] for name, schema in schemas.items() if schema.get("title", "").startswith("PageOf")}
    text = json.dumps(document)
    for former, name in names.items():
        text = text.replace(f'#/components/schemas/{former}"', f'#/components/schemas/{name}"')
    renamed: dict[str, Any] = json.loads(text)
    renamed["components"]["schemas"] = {
        names.get(name, name): schema for name, schema in renamed["components"]["schemas"].items()
    }
    return renamed


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def _describe(name: str, schema: dict[str, Any]) -> None:
    """Adds the descriptions of its properties, and removes the titles that pydantic derives from their names."""
    schema.pop("title", None)
    for word, each in schema.get("properties", {}).items():
        each.pop("title", None)
        if "description" not in each and (text := DESCRIPTIONS.get(f"{name}.{word}") or DESCRIPTIONS.get(word)):
            each["description"] = text


# — responses —


def _shared(response: dict[str, Any], status: int, shared: dict[str, Any]) -> dict[str, Any]:
    """A reference to the problem with this status, which many operations share; any other response as it is."""
    if [*response.get("content", {})] != [PROBLEM_TYPE] or response["description"] != HTTPStatus(status).phrase:
        return response
    name = HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")
    shared.setdefault(name, response)
    content = shared[name]["content"][PROBLEM_TYPE]
    content.setdefault("example", _problem(status))
    return {"$ref": f"#/components/responses/{name}"}


def _problem(status: int) -> dict[str, Any]:
    phrase = HTTPStatus(status).phrase
    kind, title, detail = _PROBLEMS.get(
        status, (phrase.lower().replace(" ", "-"), phrase, "the request cannot be answered")
    )
    return {"type": f"urn:aftermath:problem:{kind}", "title": title, "status": status, "detail": detail}


_PROBLEMS: Mapping[int, tuple[str, str, str]] = {  # as the service returns them: the type, the title, the detail
    400: ("unrecognized-body", "Unrecognized body", "The body is not valid JSON. Expected a JSON object."),
    401: (
        "unauthorized",
        "Not authenticated",
        "send a token as `Authorization: Bearer …` or as the basic-auth password",
    ),
    403: (
        "forbidden",
        "Token does not allow this",
        "this request requires a token with scope `write`; this token has scope `read`",
    ),
    404: (
        "incident-not-found",
        "Incident not found",
        "no incident has this id or number; GET /api/v1/incidents lists all incidents",
    ),
    409: (
        "already-resolved",
        "Incident already resolved",
        "the incident was resolved at 2026-08-20T10:40:00+00:00; acknowledge it with an earlier `at`, or reopen it",
    ),
    412: (
        "precondition-failed",
        "Changed in the meantime",
        'the incident is at version "7"; fetch it again and retry',
    ),
    413: ("too-large", "Body too large", "the body is larger than 1048576 bytes"),
    415: (
        "unsupported-media-type",
        "Unsupported encoding",
        "send the body uncompressed; bodies with a Content-Encoding are not accepted",
    ),
    422: ("invalid", "Invalid request", "query/servcie: is not a known parameter; did you mean `service`?"),
    503: ("overloaded", "Try again later", "the database is unavailable; retry later"),
}


def _exemplify(kind: str, content: dict[str, Any], schemas: Mapping[str, Any], examples: dict[str, Any]) -> None:
    """Adds an example. One of a schema with a name is a component, which all responses with that schema share."""
    if "example" in content or "examples" in content:
        return
    schema = content.get("schema", {})
    if kind in _TEXTS or kind.startswith("text/"):
        content["example"] = _TEXTS.get(kind, "…")
        return
    if kind == PROBLEM_TYPE:
        content["example"] = _problem(422)
        return
    if "$ref" not in schema:
        content["example"] = example_of(schema, schemas)
        return
    name = schema["$ref"].rpartition("/")[2]
    if name not in examples:
        examples[name] = {"summary": "Example", "value": example_of(schema, schemas)}
    content["examples"] = {"example": {"$ref": f"#/components/examples/{name}"}}
