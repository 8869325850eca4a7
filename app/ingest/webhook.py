"""Alert webhooks: a delivery from its HTTP request to the queue, and the receipt back.

FastAPI only describes these endpoints. Deliveries never reach it, because finding the route, solving dependencies and
validating the answer would take longer than everything else: `WebhookApp` stands in front of it as plain ASGI.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from app.base import schema
from app.base.http.auth import presented_token
from app.base.http.context import Context
from app.base.http.deliveries import admit
from app.base.http.problems import answer_to, problem_responses
from app.base.logs import LOG_FIELDS, Application, Receive, Scope, Send
from app.incidents.grouping.signal import Verdict
from app.ingest.flush import Delivery, Receipt
from app.ingest.queue import Spooled
from app.ingest.sender import Source
from app.ingest.senders import SOURCES
from app.ingest.service import Ingest

router = APIRouter()


# — what runs —


class Route(NamedTuple):
    """A webhook endpoint; `path` is its template, as it appears in the log."""

    path: str
    sender: Source


class WebhookApp:
    """Takes deliveries of alerts, and passes every other request to `app`."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = match_webhook(scope) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], token = found
        try:
            outcome = await _take(scope["state"]["context"], Request(scope, receive), scope["route"].sender, token)
        except Exception as error:  # noqa: BLE001  errors become answers in one place, for these routes too
            response = answer_to(error, scope["method"])
            status, headers, body = response.status_code, response.raw_headers, bytes(response.body)
        else:
            status, body = 202 if isinstance(outcome, Spooled) else 200, _encoder.encode(outcome)
            headers = [_JSON, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def match_webhook(scope: Scope) -> tuple[Route, str | None] | None:
    """The endpoint, and the token in the path if there is one."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if not path.startswith("/webhooks/") or scope["method"] not in _METHODS:
        return None
    kind, with_token, token = path.removeprefix("/webhooks/").partition("/")
    routes = _ROUTES.get(kind)
    if routes is None or "/" in token or (with_token and not token):
        return None
    return (routes[1], token) if with_token else (routes[0], None)


async def _take(context: Context, request: Request, sender: Source, token: str | None) -> Receipt | Spooled:
    now = datetime.now(UTC)
    token = token or presented_token(request)
    source, body = await admit(context, request, sender.kind, sender.verify, now=now, token=token)
    reading = sender.read(body, received_at=now)
    delivery = Delivery(source.id, source.name, now, reading, body, sender.kind)
    receipt = await context.part(Ingest).queue.take(delivery)
    request.scope[LOG_FIELDS] = _log_fields(source, receipt)
    return receipt


def _log_fields(source: schema.Source, receipt: Receipt | Spooled) -> dict[str, object]:
    did = {"spooled": receipt.signals} if isinstance(receipt, Spooled) else receipt.verdicts
    return {"source": source.id, "delivery": receipt.delivery_id, **did}


_METHODS = ("POST", "PUT")
_JSON = (b"content-type", b"application/json")
_encoder = msgspec.json.Encoder()
_ROUTES: Mapping[str, tuple[Route, Route]] = MappingProxyType(
    {
        kind: (Route(f"/webhooks/{kind}", source), Route(f"/webhooks/{kind}/{{token}}", source))
        for kind, source in SOURCES.items()
    }
)


# — what is described —


class ReceiptModel(BaseModel):
    """Sent after the commit: everything it lists is on disk."""

    delivery_id: UUID
    signals: int = Field(description="Alerts of the delivery that could be read")
    verdicts: dict[Verdict, int] = Field(
        description="What they did: opened, joined, repeated, resolved, reopened, merged, split, late, ignored, or "
        "quarantined for those that could not be read"
    )
    incidents: list[str] = Field(description="The incidents they are about")


class SpooledModel(BaseModel):
    """Sent once the delivery is on disk, while the database is down."""

    delivery_id: UUID
    signals: int = Field(description="Alerts of the delivery that could be read")
    spooled: Literal[True] = Field(description="Their verdicts will be known when the database is back")


_EXAMPLES = {
    "alertmanager": {
        "summary": "Alertmanager, one firing alert",
        "value": {
            "version": "4",
            "groupKey": '{}:{alertname="HighLatency"}',
            "truncatedAlerts": 0,
            "status": "firing",
            "receiver": "aftermath",
            "groupLabels": {"alertname": "HighLatency"},
            "commonLabels": {"alertname": "HighLatency", "service": "checkout", "severity": "critical"},
            "commonAnnotations": {},
            "externalURL": "http://alertmanager:9093",
            "alerts": [
                {
                    "status": "firing",
                    "labels": {"alertname": "HighLatency", "service": "checkout", "severity": "critical"},
                    "annotations": {"summary": "p99 above 2 s"},
                    "startsAt": "2026-08-20T10:00:15.123Z",
                    "endsAt": "0001-01-01T00:00:00Z",
                    "generatorURL": "http://prometheus:9090/graph",
                    "fingerprint": "251096a51337be7d",
                }
            ],
        },
    }
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "examples": _EXAMPLES}},
    }
}
_DOOR = """Takes one delivery of a sender and answers after it is durable.

An alert that cannot be read goes to quarantine, is counted as `quarantined`, and fails nothing else. While the
database is away deliveries go to the spool and are answered 202; overload and a full spool are 503 with `Retry-After`;
only a body that is not JSON of this kind at all is 400."""
_DOOR_RESPONSES = problem_responses(400, 413, 415) | {
    202: {"model": SpooledModel, "description": "Kept on disk until the database is back"}
}


def _describe(kind: Source) -> None:
    async def take() -> None:
        raise AssertionError(_NEVER)

    async def take_with_token(
        token: Annotated[str, Path(description="A token of scope `ingest`", max_length=200)],  # noqa: ARG001  described
    ) -> None:
        raise AssertionError(_NEVER)

    for method in _METHODS:
        common: dict[str, Any] = {
            "methods": [method],
            "response_model": ReceiptModel,
            "responses": _DOOR_RESPONSES,
            "tags": ["webhooks"],
            "description": f"{_DOOR}\n\n{kind.describes}",
            "openapi_extra": _BODY | {"security": [{"bearer": []}, {"basic": []}]},
        }
        router.add_api_route(
            f"/webhooks/{kind.kind}",
            take,
            summary=f"Deliver from {kind.kind.capitalize()}" + (" (PUT)" if method == "PUT" else ""),
            operation_id=f"{method.lower()}_{kind.kind}",
            **common,
        )
        router.add_api_route(
            f"/webhooks/{kind.kind}/{{token}}",
            take_with_token,
            summary=f"Deliver from {kind.kind.capitalize()}, token in the path" + (" (PUT)" if method == "PUT" else ""),
            operation_id=f"{method.lower()}_{kind.kind}_with_token",
            **(common | {"openapi_extra": _BODY | {"security": []}}),
        )


_NEVER = "`WebhookApp` takes every delivery"

for _kind in SOURCES.values():
    _describe(_kind)
