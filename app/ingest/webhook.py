"""The webhook endpoints: pass a delivery from its HTTP request to the queue, and send the response.

FastAPI only documents these endpoints. `WebhookApp` is a plain ASGI application around FastAPI that handles deliveries
itself, because routing, dependencies and response validation would take longer than everything else.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.requests import Request as HTTPRequest

from app.base import schema
from app.base.errors import NotFound
from app.base.http.context import Context
from app.base.http.problems import answer_to, problem_responses
from app.base.logs import LOG_FIELDS, Application, Receive, Scope, Send
from app.incidents.grouping.signal import Verdict
from app.ingest.admission import admit
from app.ingest.flush import Delivery
from app.ingest.sender import EMPTY, Answer, Receipt, Sender, Spooled
from app.ingest.senders import SENDERS
from app.ingest.service import Ingest

router = APIRouter()


# — the ASGI application —


class Route(NamedTuple):
    """A webhook endpoint. `path` is its template, which is logged instead of the actual path."""

    path: str
    segments: Sequence[str]
    parameters: Mapping[int, str]  # their names, by position of the segment
    sender: Sender


class WebhookApp:
    """Handles deliveries of `senders`, and passes all other requests to `app`."""

    def __init__(self, app: Application, senders: Iterable[Sender] = SENDERS.values()) -> None:
        self._app = app
        self._routes = _routes(senders)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._match(scope) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], parameters = found
        try:
            answer = await _take(
                scope["state"]["context"], HTTPRequest(scope, receive), scope["route"].sender, parameters
            )
        except Exception as error:  # noqa: BLE001  `answer_to` converts errors, as for all other routes
            response = answer_to(error, scope["method"])
            status, headers, body = response.status_code, response.raw_headers, bytes(response.body)
        else:
            status, body = answer.status, answer.body
            headers = [*answer.headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _match(self, scope: Scope) -> tuple[Route, Mapping[str, str]] | None:
        """The endpoint for this request, and the path parameters."""
        if scope["method"] not in _METHODS:
            return None
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        segments = path.split("/")
        for route in self._routes.get((len(segments), *segments[1:3]), ()):
            if route.parameters:
                if all(
                    segment if position in route.parameters else segment == route.segments[position]
                    for position, segment in enumerate(segments)
                ):
                    return route, {name: segments[position] for position, name in route.parameters.items()}
            elif segments == route.segments:
                return route, EMPTY
        return None


def _routes(senders: Iterable[Sender]) -> Mapping[tuple[int | str, ...], Sequence[Route]]:
    """Routes by number of segments and the first two segments, so that one lookup finds the few that can match."""
    routes: dict[tuple[int | str, ...], list[Route]] = defaultdict(list)
    for sender in senders:
        for path in sender.paths:
            segments = path.split("/")
            parameters = {
                position: segment[1:-1] for position, segment in enumerate(segments) if segment.startswith("{")
            }
            assert parameters.keys().isdisjoint({1, 2}), "the first two segments are fixed"
            routes[len(segments), segments[1], segments[2]].append(Route(path, segments, parameters, sender))
    return dict(routes)


async def _take(context: Context, http: HTTPRequest, sender: Sender, parameters: Mapping[str, str]) -> Answer:
    now = datetime.now(UTC)
    source, request = await admit(context, http, sender, parameters, now=now)
    delivery = Delivery(source.id, source.name, now, sender.read(request), request, sender.kind)
    outcome = await context.part(Ingest).queue.take(delivery)
    http.scope[LOG_FIELDS] = _log_fields(source, outcome)
    return sender.answer(outcome)


def _log_fields(source: schema.Source, outcome: Receipt | Spooled) -> dict[str, object]:
    did = {"spooled": outcome.signals} if isinstance(outcome, Spooled) else outcome.verdicts
    return {"source": source.id, "delivery": outcome.delivery_id, **did}


_METHODS = ("POST", "PUT")


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


class DeploymentReceipt(BaseModel):
    """The response of the kinds that report deployments, sent once the report is on disk."""

    delivery_id: UUID
    verdict: Literal["recorded", "repeated", "ignored", "quarantined"] = Field(
        description="`recorded`: new information; `repeated`: already known; `ignored`: not about a deployment; "
        "`quarantined`: could not be read, and was kept"
    )
    deployment: str | None = Field(description="The id of the deployment")
    reason: str | None = Field(description="Why it was ignored or quarantined")


class SpooledModel(BaseModel):
    """Sent once the delivery is on disk, while the database is down."""

    delivery_id: UUID
    signals: int | None = Field(
        None, description="Number of alerts in the delivery that could be read; absent for deployments"
    )
    spooled: Literal[True] = Field(description="The verdicts are determined once the database is available again")


_DESCRIPTION = """Accepts one delivery from a sender, and responds once it is on disk. PUT does the same as POST.

An alert or deployment report that cannot be read goes to quarantine and is counted as `quarantined`; the rest of the
delivery is processed. The response is still 200, because no sender repairs a body after an error. While the database
is unavailable, deliveries go to the spool and the response is 202. If the service is overloaded or the spool is full,
the response is 503 with `Retry-After`. It is 400 only if the body is not JSON of this kind at all."""
_KINDS = "\n\n".join(f"**`{sender.kind}`** ({sender.name}): {sender.describes}" for sender in SENDERS.values())
_COMMON: dict[str, Any] = {
    "response_model": None,
    "responses": problem_responses(400, 404, 413, 415)
    | {
        200: {"model": ReceiptModel | DeploymentReceipt, "description": "The delivery is on disk"},
        202: {
            "model": SpooledModel,
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
