"""The hot door: a delivery from the socket to the queue and back.

FastAPI describes the doors and answers what is not for them; deliveries never reach it. Finding the route, solving
dependencies and validating the answer would take longer than all the rest, so `Doors` stands in front and does only
what a delivery needs: who sends, the body, its kind's parser, the queue, the receipt.

`DirectDoors` does the same without ASGI, for what is nearly all: deliveries of a source that is known, about which
nothing has to be looked up and nothing is wrong. It refuses nobody; what it does not take, `Doors` sees to.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from app.base.http.auth import presented_token, token_in
from app.base.http.context import Context
from app.base.http.deliveries import admit, admitted_at_once
from app.base.http.problems import answer_to, problem_responses
from app.base.http.server import Answer, Headers
from app.base.logs import TOLD, Application, Receive, Scope, Send, lines_are_written, write_line
from app.base.tokens import SourceRow
from app.incidents.grouping.signal import Verdict
from app.ingest.intake import Delivery, Intake, Receipt, Spooled
from app.ingest.sender import Source
from app.ingest.senders import SOURCES

router = APIRouter()


def intake_of(request: Request) -> Intake:
    intake: Intake = request.app.state.intake
    return intake


# — what runs —


class Route(NamedTuple):
    """A door by its template, as the line in the log names it."""

    path: str
    kind: Source


class Doors:
    """Takes deliveries; hands on everything else."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _door_of(scope) if scope["type"] == "http" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        scope["route"], token = found
        request = Request(scope, receive)
        outcome: Receipt | Spooled | Exception
        try:
            outcome = await _take(request, scope["route"].kind, token)
        except Exception as error:  # noqa: BLE001  the one seam decides, as it does for every route
            outcome = error
        status, headers, body = _answer_of(outcome, scope["method"])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


AT_A_TIME = 8  # deliveries that are read before the event loop sees what else there is


class DirectDoors:
    """Takes deliveries off the connection itself.

    Those who were answered together come again together. To read them all at once would let PostgreSQL wait for its
    next statement meanwhile, so they are read a few at a time.
    """

    def __init__(self, context: Context, intake: Intake) -> None:
        self._context = context
        self.intake = intake
        self._unread: deque[tuple[_Arriving, bytes]] = deque()
        self._reading = False

    def opened(self, method: str, url: str, headers: Mapping[bytes, bytes], length: int) -> "_Arriving | None":
        if length > self._context.settings.max_body_bytes or "%" in url or "?" in url or "#" in url:
            return None
        found = _door_at(url, method)
        if found is None:
            return None
        route, token = found
        token = token or token_in(headers.get(b"authorization", b"").decode("latin-1"))
        source = admitted_at_once(self._context, route.kind.kind, token)
        return _Arriving(self, route, source, method) if source else None

    def read_soon(self, arriving: "_Arriving", body: bytes) -> None:
        self._unread.append((arriving, body))
        if not self._reading:
            self._go_on()

    def _go_on(self) -> None:
        self._reading = bool(self._unread)
        if self._reading:
            asyncio.get_running_loop().call_soon(self._read_some)

    def _read_some(self) -> None:
        try:
            for _ in range(min(AT_A_TIME, len(self._unread))):
                arriving, body = self._unread.popleft()
                arriving.read(body)
        finally:
            self._go_on()


class _Arriving:
    """A delivery that a direct door has opened for, until it is answered."""

    __slots__ = ("_answer", "_began", "_doors", "_method", "_now", "_route", "_source")

    def __init__(self, doors: DirectDoors, route: Route, source: SourceRow, method: str) -> None:
        self._doors = doors
        self._route = route
        self._source = source
        self._method = method
        self._now = datetime.now(UTC)
        self._began = time.perf_counter()

    def whole(self, body: bytes, answer: Answer) -> None:
        self._answer = answer
        self._doors.read_soon(self, body)

    def read(self, body: bytes) -> None:
        try:
            self._doors.intake.offer(_delivery(self._route.kind, self._source, self._now, body), self._done)
        except Exception as error:  # noqa: BLE001  as in `Doors`
            self._done(error)

    def cut(self) -> None:
        self._answer = _to_nobody
        self._done(ClientDisconnect())

    def _done(self, outcome: Receipt | Spooled | Exception) -> None:
        status, headers, body = _answer_of(outcome, self._method)
        self._answer(status, headers, body)
        if lines_are_written():
            told = {} if isinstance(outcome, Exception) else _told(self._source, outcome)
            write_line(self._method, self._route.path, status, began=self._began, told=told)


def _to_nobody(_status: int, _headers: Headers, _body: bytes) -> None:
    pass


def _door_of(scope: Scope) -> tuple[Route, str | None] | None:
    return _door_at(scope["path"].removeprefix(scope.get("root_path", "")), scope["method"])


def _door_at(path: str, method: str) -> tuple[Route, str | None] | None:
    """The door and the token in its path, if there is one."""
    if not path.startswith("/webhooks/") or method not in _METHODS:
        return None
    kind, with_token, token = path.removeprefix("/webhooks/").partition("/")
    routes = _ROUTES.get(kind)
    if routes is None or "/" in token or (with_token and not token):
        return None
    return (routes[1], token) if with_token else (routes[0], None)


async def _take(request: Request, kind: Source, token: str | None) -> Receipt | Spooled:
    now = datetime.now(UTC)
    source, body = await admit(request, kind.kind, kind.verify, now=now, token=token or presented_token(request))
    receipt = await intake_of(request).take(_delivery(kind, source, now, body))
    request.scope[TOLD] = _told(source, receipt)
    return receipt


def _delivery(kind: Source, source: SourceRow, now: datetime, body: bytes) -> Delivery:
    """Raises NotThisKind."""
    return Delivery(source.id, source.name, now, kind.read(body, received_at=now), body, kind.kind)


def _told(source: SourceRow, receipt: Receipt | Spooled) -> dict[str, object]:
    did = {"spooled": receipt.signals} if isinstance(receipt, Spooled) else receipt.verdicts
    return {"source": source.id, "delivery": receipt.delivery_id, **did}


def _answer_of(outcome: Receipt | Spooled | Exception, method: str) -> tuple[int, Headers, bytes]:
    if isinstance(outcome, Exception):
        response = answer_to(outcome, method)
        return response.status_code, response.raw_headers, bytes(response.body)
    body = _encoder.encode(outcome)
    # Without a length it would go out in chunks.
    headers = [*_JSON, (b"content-length", b"%d" % len(body))]
    return 202 if isinstance(outcome, Spooled) else 200, headers, body


_METHODS = ("POST", "PUT")
_JSON = [(b"content-type", b"application/json")]
_encoder = msgspec.json.Encoder()
_ROUTES: Mapping[str, tuple[Route, Route]] = MappingProxyType(
    {
        kind: (Route(f"/webhooks/{kind}", source), Route(f"/webhooks/{kind}/{{token}}", source))
        for kind, source in SOURCES.items()
    }
)


# — what is described —


class ReceiptModel(BaseModel):
    """Sent after the commit: what is told here is on disk."""

    delivery_id: UUID
    signals: int = Field(description="Alerts of the delivery that could be read")
    verdicts: dict[Verdict, int] = Field(
        description="What they did: opened, joined, repeated, resolved, reopened, merged, split, late, ignored, or "
        "quarantined for those that could not be read"
    )
    incidents: list[str] = Field(description="The incidents they are about")


class SpooledModel(BaseModel):
    """Sent once the delivery is on disk, while the database is away."""

    delivery_id: UUID
    signals: int = Field(description="Alerts of the delivery that could be read")
    spooled: Literal[True] = Field(description="What they do will be seen when the database is back")


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
        common = {
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
            **common,  # type: ignore[arg-type]
        )
        router.add_api_route(
            f"/webhooks/{kind.kind}/{{token}}",
            take_with_token,
            summary=f"Deliver from {kind.kind.capitalize()}, token in the path" + (" (PUT)" if method == "PUT" else ""),
            operation_id=f"{method.lower()}_{kind.kind}_with_token",
            **(common | {"openapi_extra": _BODY | {"security": []}}),  # type: ignore[arg-type]
        )


_NEVER = "`Doors` takes every delivery"

for _kind in SOURCES.values():
    _describe(_kind)
