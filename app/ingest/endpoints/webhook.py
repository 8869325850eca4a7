"""The webhook endpoints: pass a delivery from its HTTP request to the queue, and send the response.

FastAPI only documents these endpoints. `WebhookApp` is a plain ASGI application around FastAPI that handles deliveries
itself, because routing, dependencies and response validation would take longer than everything else.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from app.base import db
from app.base.errors import NotFound, Problem, UnrecognizedBody
from app.base.http.context import Context
from app.base.http.limits.guard import with_headers
from app.base.http.responses.problems import answer_to, document_of, problem_responses
from app.base.process.logs import LOG_FIELDS, Application, Receive, Scope, Send
from app.base.process.threads import off_loop_if_large
from app.incidents.grouping.signal import Verdict
from app.ingest.endpoints.admission import admit
from app.ingest.intake import store
from app.ingest.intake.flush import Delivery
from app.ingest.reading.values import message_in
from app.ingest.sender import (
    EMPTY,
    Answer,
    Endpoint,
    LookUp,
    Receipt,
    Refusal,
    Request,
    Sender,
    SpoolReceipt,
    Unreadable,
)
from app.ingest.senders import SENDERS
from app.ingest.service import Ingest

router = APIRouter()


# — the ASGI application —


class Route(NamedTuple):
    """A webhook endpoint. `path` is its template, which is logged instead of the actual path."""

    path: str
    methods: Collection[str]
    segments: Sequence[str]
    parameters: Mapping[int, str]  # their names, by position of the segment
    sender: Sender
    look_up: LookUp | None = None


class WebhookApp:
    """Handles deliveries of `senders`, and passes all other requests to `app`."""

    def __init__(self, app: Application, senders: Iterable[Sender] = SENDERS.values()) -> None:
        self._app = app
        self._routes = _routes(senders)
        self._fixed = {
            route.path: route for routes in self._routes.values() for route in routes if not route.parameters
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._match(scope) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], parameters = found
        context: Context = scope["state"]["context"]
        try:
            answer = await _take(context, scope, receive, found[0], parameters)
        except Exception as error:  # noqa: BLE001  `document_of` converts errors, as for all other routes
            answer = _refusal(error, scope, found[0].sender)
            headers = with_headers(scope["path"], answer.headers)
        else:
            headers = [*answer.headers]
        finally:
            context.in_flight.release(scope)
        headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _match(self, scope: Scope) -> tuple[Route, Mapping[str, str]] | None:
        """The endpoint for this request, and the path parameters."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if (fixed := self._fixed.get(path)) and scope["method"] in fixed.methods:
            return fixed, EMPTY
        segments = _segments(scope, path)
        for route in self._routes.get((len(segments), segments[1]), ()):
            if scope["method"] in route.methods and all(
                segment if position in route.parameters else segment == route.segments[position]
                for position, segment in enumerate(segments)
            ):
                return route, {name: segments[position] for position, name in route.parameters.items()}
        return None


def _segments(scope: Scope, path: str) -> Sequence[str]:
    """The decoded segments of the path, without a slash at its end. An encoded slash does not separate segments."""
    sent = scope.get("raw_path") or b""
    if b"%2f" in sent.lower():
        path = sent.decode("latin-1").partition("?")[0].removeprefix(scope.get("root_path", ""))
        segments = [unquote(segment) for segment in path.split("/")]
    else:
        segments = path.split("/")
    return segments[:-1] if len(segments) > 2 and not segments[-1] else segments


def _routes(senders: Iterable[Sender]) -> Mapping[tuple[int, str], Sequence[Route]]:
    """Routes by number of segments and the first one, so that one lookup finds the few that can match. Those with
    fewer parameters come first.
    """
    routes: dict[tuple[int, str], list[Route]] = defaultdict(list)
    for sender in senders:
        for endpoint in sender.endpoints:
            path = endpoint.path
            segments = path.split("/")
            parameters = {
                position: segment[1:-1] for position, segment in enumerate(segments) if segment.startswith("{")
            }
            assert 1 not in parameters, "the first segment is fixed"
            routes[len(segments), segments[1]].append(
                Route(path, endpoint.methods, segments, parameters, sender, endpoint.look_up)
            )
    return {key: sorted(those, key=lambda route: len(route.parameters)) for key, those in routes.items()}


def _refusal(error: Exception, scope: Scope, sender: Sender) -> Answer:
    """The response to an error: as a problem, or in the form of the API that the sender imitates."""
    if sender.refuse is None:
        response = answer_to(error, scope["method"])
        headers = tuple((name, value) for name, value in response.raw_headers if name != b"content-length")
        return Answer(response.status_code, bytes(response.body), headers)
    document = document_of(error, scope["method"])
    answer = sender.refuse(Refusal(document.status, document.title, document.detail))
    more = tuple((name.lower().encode(), value.encode()) for name, value in document.headers.items())
    return Answer(answer.status, answer.body, (*answer.headers, *more))


async def _take(context: Context, http: Scope, receive: Receive, route: Route, parameters: Mapping[str, str]) -> Answer:
    now = datetime.now(UTC)
    sender = route.sender
    source, request = await admit(context, http, receive, sender, parameters, endpoint=route.path, now=now)
    if route.look_up is not None:
        return await _look_up(context, route.look_up, source.id, request)
    try:
        reading = await off_loop_if_large(len(request.body), sender.read, request)
    except UnrecognizedBody as error:
        address = await off_loop_if_large(len(request.body), _address_for, request, sender)
        raise UnrecognizedBody(f"{error.detail} {address}") if address else error from None
    delivery = Delivery(source.id, request.source, now, reading, request, sender.kind)
    outcome = await context.part(Ingest).queue.take(delivery)
    http[LOG_FIELDS] = _log_fields(delivery.source_id, outcome)
    return sender.answer(outcome, request)


async def _look_up(context: Context, how: LookUp, source_id: int, request: Request) -> Answer:
    fingerprint = how.fingerprint(request)
    if fingerprint is None:
        return how.answer(None, request)
    async with db.transaction(context.engine) as tx:
        return how.answer(await store.newest_alert(tx, source_id, fingerprint), request)


def _address_for(request: Request, sender: Sender) -> str | None:
    """Where a body belongs that `sender` does not recognize, if another sender does."""
    if request.body.lstrip()[:1] == b"[":
        found = (other for other in SENDERS.values() if isinstance(other.example, list))
    else:
        try:
            message = message_in(request)
        except (Problem, Unreadable):
            return None
        found = (other for other in SENDERS.values() if other.recognizes is not None and other.recognizes(message))
    for other in found:
        if other is not sender:
            return (
                f"This looks like a body from {other.name}: create a token for a source of kind `{other.kind}`, "
                f"and post to {other.endpoints[0].path}."
            )
    return None


def _log_fields(source_id: int, outcome: Receipt | SpoolReceipt) -> dict[str, object]:
    did = {"spooled": outcome.signals} if isinstance(outcome, SpoolReceipt) else outcome.verdicts
    return {"source": source_id, "delivery": outcome.delivery_id, **did}


# — OpenAPI —


class ReceiptModel(BaseModel):
    """Sent once everything it lists is on disk."""

    delivery_id: UUID
    signals: int = Field(description="Number of alerts in the delivery that could be read")
    verdicts: dict[Verdict, int] = Field(
        description="Number of alerts by verdict: opened, joined, repeated, resolved, reopened, merged, split, late, "
        "ignored, or quarantined for those that could not be read"
    )
    incidents: list[str] = Field(description="Numbers of the incidents to which the alerts belong")


class FactReceipt(BaseModel):
    """The response of the kinds that report deployments and issues, sent once the report is on disk."""

    delivery_id: UUID
    verdict: Literal["recorded", "repeated", "waiting", "ignored", "quarantined"] = Field(
        description="`recorded`: new information; `repeated`: already known, or older than what is known of the issue; "
        "`waiting`: no action item has the link of the issue yet; `ignored`: not a deployment, a change or a new "
        "state of an issue; `quarantined`: could not be read, and was kept"
    )
    deployment: str | None = Field(description="The key of the deployment")
    change: str | None = Field(description="The key of the change, if it is not a deployment")
    action_item: str | None = Field(description="The action item of the issue", examples=["AI-1"])
    reason: str | None = Field(description="Why it was ignored or quarantined")


class SpoolReceiptModel(BaseModel):
    """Sent once the delivery is on disk, while the database is down."""

    delivery_id: UUID
    signals: int | None = Field(
        None, description="Number of alerts in the delivery that could be read; absent for deployments"
    )
    spooled: Literal[True] = Field(description="The verdicts are determined once the database is available again")


class CompatibleResponse(BaseModel):
    """The response in the form of the product whose API the endpoint is compatible with."""

    model_config = ConfigDict(extra="allow")


def _imitated(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of these statuses in the form of another product."""
    forms = [{"$ref": "#/components/schemas/CompatibleResponse"}, {"type": "string"}]
    content = {"application/json": {"schema": {"anyOf": forms}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def _with_imitated(responses: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """The same `responses`, also in the form of other products."""
    return {
        status: response | {"content": response["content"] | imitated["content"]}
        for (status, response), imitated in zip(
            responses.items(), _imitated(*map(int, responses)).values(), strict=True
        )
    }


_DESCRIPTION = """Accepts one delivery from a sender, and responds once it is on disk. PUT does the same as POST.

An alert or deployment report that cannot be read goes to quarantine and is counted as `quarantined`; the rest of the
delivery is processed. The response is still 200, because no sender repairs a body after an error; only `deployments`,
which people call from CI, returns 422 for a report that it cannot use. While the database is unavailable, deliveries go
to the spool and the response is 202. If the service is overloaded or the spool is full, the response is 503 with
`Retry-After`. It is 400 only if the body is not JSON of this kind."""
_KINDS = "\n\n".join(f"**`{sender.kind}`** ({sender.name}): {sender.describes}" for sender in SENDERS.values())
_COMMON: dict[str, Any] = {
    "response_model": None,
    "responses": _with_imitated(problem_responses(400, 404, 413, 415))
    | {
        200: {"model": ReceiptModel | FactReceipt | CompatibleResponse, "description": "The delivery is on disk"},
        202: {
            "model": SpoolReceiptModel | CompatibleResponse,
            "description": "The database is unavailable; the delivery is kept on disk until it is back",
        },
    },
    "tags": ["webhooks"],
    "description": f"{_DESCRIPTION}\n\n{_KINDS}",
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "examples": {
                    sender.kind: {"summary": f"From {sender.name}", "value": dict(sender.example)}
                    for sender in SENDERS.values()
                    if isinstance(sender.example, Mapping)
                },
            }
        },
    }
}
KindInPath = Annotated[str, Path(description="The kind of sender", json_schema_extra={"enum": [*SENDERS]})]
TokenInPath = Annotated[str, Path(description="A token of scope `ingest`", max_length=200)]


class UnknownKind(NotFound):
    title = "Webhook not found"


@router.post(
    "/webhooks/{kind}",
    summary="Send a delivery",
    operation_id="deliver",
    openapi_extra=_BODY | {"security": [{"bearer": []}, {"basic": []}]},
    **_COMMON,
)
@router.put("/webhooks/{kind}", include_in_schema=False)
async def deliver(kind: KindInPath) -> None:
    raise _unknown(kind)


@router.post(
    "/webhooks/{kind}/{token}",
    summary="Send a delivery, with the token in the path",
    operation_id="deliver_with_token",
    openapi_extra=_BODY | {"security": []},
    **_COMMON,
)
@router.put("/webhooks/{kind}/{token}", include_in_schema=False)
async def deliver_with_token(kind: KindInPath, token: TokenInPath) -> None:
    del token
    raise _unknown(kind)


def _unknown(kind: str) -> UnknownKind:
    """The error for a kind without a sender; `WebhookApp` handles all others."""
    return UnknownKind(f"there is no webhook for {kind!r}; the kinds are {', '.join(SENDERS)}")


# — endpoints outside /webhooks, of senders that imitate another product —


def _document(sender: Sender, endpoint: Endpoint, method: str) -> None:
    """Adds the endpoint to the OpenAPI document. `WebhookApp` handles its requests."""

    async def documented() -> None:
        raise _unknown(sender.kind)

    words = [*sender.kind.split("-"), method.lower(), *endpoint.name.split()]
    body = _documented_body(endpoint.example or sender.example)
    router.add_api_route(
        endpoint.path,
        documented,
        methods=[method],
        summary=f"{sender.name}: {method} {endpoint.path}",
        operation_id="_".join(words),
        description=sender.describes,
        response_model=None,
        responses=problem_responses(400, 413, 415)
        if sender.refuse is None
        else _imitated(200, 202, 400, 401, 403, 404, 413, 415, 422, 503),
        tags=["compatible APIs"],
        openapi_extra={
            "parameters": [
                {"name": parameter, "in": "path", "required": True, "schema": {"type": "string", "maxLength": 600}}
                for parameter in re.findall(r"{([a-z_]+)}", endpoint.path)
            ],
            **({} if method in {"GET", "DELETE"} else {"requestBody": {"content": {"application/json": body}}}),
            "security": [{"bearer": []}, {"basic": []}],
        },
    )


def _documented_body(example: Any) -> dict[str, Any]:
    if isinstance(example, Mapping):
        return {"schema": {"type": "object"}, "example": dict(example)}
    return {"schema": {"type": "array", "items": {"type": "object"}}, "example": [dict(one) for one in example]}


for _sender in SENDERS.values():
    for _endpoint in _sender.endpoints:
        if _endpoint.is_documented and not _endpoint.path.startswith("/webhooks/"):
            for _method in _endpoint.methods:
                _document(_sender, _endpoint, _method)
