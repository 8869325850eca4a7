"""Alertmanager's API for clients that only read: amtool, karma and Grafana's data source.

An ASGI application in front of the REST API, as for webhooks: it has Alertmanager's paths, takes the token in the path
too, and answers in Alertmanager's form, errors included. FastAPI only documents it. The alerts that clients post are
deliveries and belong to `senders/alertmanager_api.py`.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter

from app import __version__
from app.base import db
from app.base.access.tokens import Bearer, Scope
from app.base.errors import Forbidden, NotFound, Overloaded
from app.base.http.access.auth import token_in
from app.base.http.context import Context
from app.base.http.limits.guard import with_headers
from app.base.http.limits.turns import Turns
from app.base.http.responses.problems import document_of
from app.base.process.logs import Application, Receive, Send
from app.base.process.logs import Scope as AsgiScope
from app.base.process.threads import off_loop
from app.ingest.alertmanager import store
from app.ingest.alertmanager.listing import (
    BadQuery,
    Filter,
    alert_as_json,
    filter_in,
    groups_as_json,
    status_as_json,
)
from app.ingest.sender import Answer, Refusal
from app.ingest.senders import alertmanager_api

_TOKEN_PATH = "/am/{token}"  # noqa: S105  a template
_FIELD_AT_MOST = 100  # parameters of a query


class AlertQuery(NamedTuple):
    """One request. `source_id`: only the alerts of this source."""

    context: Context
    query: str
    source_id: int | None
    now: datetime

    @property
    def wanted(self) -> Filter:
        """Raises BadQuery."""
        try:
            pairs = parse_qsl(self.query, keep_blank_values=True, errors="replace", max_num_fields=_FIELD_AT_MOST)
        except ValueError:
            message = f"more than {_FIELD_AT_MOST} parameters"
            raise BadQuery(message) from None
        return filter_in(pairs)


class AlertmanagerQueries:
    """Answers what clients of Alertmanager ask, and passes all other requests to `app`."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._started_at = datetime.now(UTC)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        found = _match(scope) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], token = found
        try:
            answer = await self._answer(scope, found[0], token)
        except Exception as error:  # noqa: BLE001  `document_of` converts errors, as for all other routes
            document = document_of(error, scope["method"])
            refused = alertmanager_api.refuse(Refusal(document.status, document.title, document.detail))
            more = tuple((name.lower().encode(), value.encode()) for name, value in document.headers.items())
            answer = Answer(refused.status, refused.body, (*refused.headers, *more))
        headers = with_headers(scope["path"], [*answer.headers, (b"content-length", b"%d" % len(answer.body))])
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    async def _answer(self, scope: AsgiScope, route: "Route", token: str | None) -> Answer:
        context: Context = scope["state"]["context"]
        if route.name in _PROBES:
            if route.name == "ready" and context.monitor.is_down:
                raise Overloaded("the database is unavailable; alerts that are posted are kept on disk")
            return Answer(200, b"OK", _PLAIN)
        bearer = await context.credentials.identify(token or _token_in(scope), scope.get("client"))
        source_id = _readable(bearer)
        if route.name == "status":
            return _json(status_as_json(__version__, self._started_at))
        return await _ANSWERS[route.name](
            AlertQuery(context, scope["query_string"].decode(), source_id, datetime.now(UTC))
        )


def _token_in(scope: AsgiScope) -> str | None:
    sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    return token_in(sent.decode("latin-1"))


def _readable(bearer: Bearer) -> int | None:
    """The id of the only source whose alerts the bearer may read, None for all. Raises Forbidden."""
    if bearer.scope.includes(Scope.READ):
        return None
    if bearer.scope is Scope.INGEST and bearer.kind == alertmanager_api.SENDER.kind:
        return bearer.source_id
    raise Forbidden(
        "this requires a token with scope `read`, or an `ingest` token of a source of kind "
        f"{alertmanager_api.SENDER.kind!r}"
    )


# — routes —


class Route(NamedTuple):
    """`path` is its template, which is logged instead of the actual path."""

    path: str
    name: str
    method: str = "GET"


_ROUTES = (
    Route("/api/v2/status", "status"),
    Route("/api/v2/alerts", "alerts"),
    Route("/api/v2/alerts/groups", "groups"),
    Route("/api/v2/receivers", "receivers"),
    Route("/api/v2/silences", "silences"),
    Route("/api/v2/silences", "new silence", "POST"),
    Route("/api/v2/silence/{id}", "silence"),
    Route("/api/v2/silence/{id}", "silence", "DELETE"),
    Route("/-/healthy", "healthy"),
    Route("/-/ready", "ready"),
)
_PROBES = frozenset({"healthy", "ready"})
_SILENCE = "/api/v2/silence/"
_BY_PATH: Mapping[tuple[str, str], Route] = {(route.method, route.path): route for route in _ROUTES}


def _match(scope: AsgiScope) -> tuple[Route, str | None] | None:
    """The route of this request, and the token in its path."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if not path.startswith(("/api/v2/", "/am/", "/-/")):
        return None
    token = None
    if path.startswith("/am/"):
        token, slash, rest = path.removeprefix("/am/").partition("/")
        if not token or not slash:
            return None
        path = f"/{rest}"
    path = path.rstrip("/")
    if path.startswith(_SILENCE) and "/" not in path.removeprefix(_SILENCE):
        path = f"{_SILENCE}{{id}}"
    route = _BY_PATH.get(("GET" if scope["method"] == "HEAD" else scope["method"], path))
    if route is None:
        return None
    return (route if token is None else Route(_TOKEN_PATH + route.path, route.name, route.method)), token


# — answers —

_PLAIN = ((b"content-type", b"text/plain; charset=utf-8"),)
_JSON = ((b"content-type", b"application/json"),)
_LEFT_OUT = ((b"x-aftermath-truncated", b"true"),)


async def _alerts(asked: AlertQuery) -> Answer:
    async with asked.context.part(Turns).one():
        found = await _open(asked)
        return await off_loop(lambda: _json([alert_as_json(one, asked.now) for one in found.alerts], found))


async def _groups(asked: AlertQuery) -> Answer:
    async with asked.context.part(Turns).one():
        found = await _open(asked)
        return await off_loop(lambda: _json(groups_as_json(found.alerts, asked.now), found))


async def _open(asked: AlertQuery) -> store.Listing:
    wanted = asked.wanted
    async with db.transaction(asked.context.engine) as tx:
        return await store.open_alerts(tx, asked.source_id, wanted)


async def _receivers(asked: AlertQuery) -> Answer:
    async with db.transaction(asked.context.engine) as tx:
        return _json([{"name": name} for name in await store.sources(tx, asked.source_id)])


async def _silences(asked: AlertQuery) -> Answer:
    _ = asked.wanted  # a bad filter is refused, as by Alertmanager
    return _json([])


async def _silence(asked: AlertQuery) -> Answer:
    del asked
    raise NotFound("there are no silences here")


async def _posted_silence(asked: AlertQuery) -> Answer:
    del asked
    raise BadQuery(alertmanager_api.READ_ONLY)


_ANSWERS: Mapping[str, Callable[[AlertQuery], Awaitable[Answer]]] = {
    "alerts": _alerts,
    "groups": _groups,
    "receivers": _receivers,
    "silences": _silences,
    "silence": _silence,
    "new silence": _posted_silence,
}


def _json(value: Any, listing: store.Listing | None = None) -> Answer:
    is_whole = listing is None or listing.is_whole
    return Answer(200, msgspec.json.encode(value), _JSON if is_whole else (*_JSON, *_LEFT_OUT))


# — OpenAPI —

router = APIRouter(tags=["compatible APIs"])

_TEXT = {"application/json": {"schema": {"type": "string"}}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": "The reason, as a JSON string", "content": _TEXT}
    for status in (400, 401, 403, 404, 422, 503)
}
_FILTERS = [
    {
        "name": "filter",
        "in": "query",
        "description": 'A matcher such as `severity=~"crit.*"`; may be repeated',
        "schema": {"type": "array", "items": {"type": "string"}},
    },
    {
        "name": "receiver",
        "in": "query",
        "description": "A regex for the name of a source",
        "schema": {"type": "string"},
    },
    *(
        {"name": name, "in": "query", "description": description, "schema": {"type": "boolean", "default": True}}
        for name, description in (
            ("active", "Whether to list active alerts; all open alerts are active"),
            ("silenced", "Accepted for Alertmanager's clients; no alert is silenced here"),
            ("inhibited", "Accepted for Alertmanager's clients; no alert is inhibited here"),
            ("unprocessed", "Accepted for Alertmanager's clients; no alert is unprocessed here"),
        )
    ),
]
_DOCUMENTED: Mapping[str, tuple[str, str]] = {
    "status": ("Get the status", "The emulated version of Alertmanager's API, and when the service started."),
    "alerts": (
        "List open alerts",
        f"""Lists the alerts of the token's source, or of all sources for a token with scope `read`. If more than
{store.LISTED_AT_MOST:,} match, or their labels and annotations exceed {store.BYTES_AT_MOST // 2**20} MiB,
only the newest are listed, and the response has the header `X-Aftermath-Truncated`.""",
    ),
    "groups": (
        "List open alerts by incident",
        "Takes the same parameters as the list of alerts. There is one group for each incident and source.",
    ),
    "receivers": ("List receivers", "Lists the sources, which take the place of receivers."),
    "silences": ("List silences", "Always empty: Aftermath has no silences."),
    "new silence": ("Create a silence", alertmanager_api.READ_ONLY),
    "silence": ("Get a silence", "Always 404: Aftermath has no silences."),
    "healthy": ("Check liveness", "Returns 200 while the service runs. Requires no token."),
    "ready": ("Check readiness", "Returns 200 if the service is ready. Requires no token."),
}


def _document(route: Route, prefix: str) -> None:
    """Adds the route to the OpenAPI document. `AlertmanagerQueries` handles its requests."""

    async def documented() -> None:
        raise NotFound("this path is answered elsewhere")

    summary, description = _DOCUMENTED[route.name]
    is_probe, method = route.name in _PROBES, route.method.lower()
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "maxLength": 600}}
        for name in ("token", "id")
        if f"{{{name}}}" in prefix + route.path
    ]
    if route.name in {"alerts", "groups", "silences"}:
        parameters += _FILTERS[:1] if route.name == "silences" else _FILTERS
    kind = "text/plain" if is_probe else "application/json"
    router.add_api_route(
        prefix + route.path,
        documented,
        methods=[route.method],
        summary=f"Alertmanager: {summary[0].lower()}{summary[1:]}",
        description=description,
        operation_id="_".join(["alertmanager", *(["with_token"] if prefix else []), method, *route.name.split()]),
        response_model=None,
        responses=_REFUSALS | {200: {"description": "As Alertmanager's", "content": {kind: {"schema": {}}}}},
        openapi_extra={
            "parameters": parameters,
            "security": [] if prefix or is_probe else [{"bearer": []}, {"basic": []}],
        },
    )


for _route in _ROUTES:
    for _prefix in ("", _TOKEN_PATH):
        _document(_route, _prefix)
