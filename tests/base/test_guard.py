"""Every route limits the size of bodies, for all clients."""

from collections.abc import AsyncIterator, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends

from app.base.access.tokens import Scope
from app.base.errors import Overloaded
from app.base.http.access.auth import Reader, Writer, scope_required_by
from app.base.http.context import Context
from app.base.http.limits.bodies import SMALL_BYTES, BytesInFlight, read_body
from app.base.http.limits.guard import Guard, with_headers
from app.base.process.logs import Receive, Send
from app.base.process.logs import Scope as Scope_
from app.cli import openapi_document
from app.ingest.sender import Sender
from app.ingest.senders import SENDERS
from app.main import REST_BODY_BYTES
from tests.conftest import ClientAs

LIMIT = 1000


class Reads:
    """An application that reads the whole body and counts the bytes."""

    def __init__(self) -> None:
        self.received = 0

    async def __call__(self, _: Scope_, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            self.received += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"read"})


async def answers(app: Reads, chunks: list[bytes], headers: list[tuple[bytes, bytes]]) -> int:
    """The status of the one answer to a body in chunks."""
    left = list(chunks)
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    limited = Guard(app, at_most=LIMIT)
    await limited({"type": "http", "method": "POST", "path": "/x", "headers": headers}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[0]["status"] == 413) == (b"the body is larger than" in sent[1]["body"])
    return int(sent[0]["status"])


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413)])
async def test_a_declared_length_is_refused_unread(size: int, status: int) -> None:
    app = Reads()
    assert await answers(app, [bytes(size)], [(b"content-length", b"%d" % size)]) == status
    assert app.received == (size if status == 200 else 0)


async def test_chunks_are_refused_as_soon_as_they_exceed_the_limit() -> None:
    app = Reads()
    assert await answers(app, [bytes(400)] * 100, []) == 413
    assert app.received == 800
    assert await answers(Reads(), [bytes(500)] * 2, []) == 200


@pytest.mark.parametrize("length", [b"+5", b"-1", b"9" * 5000, "²".encode("latin-1")])
async def test_an_odd_length_is_no_way_around(length: bytes) -> None:
    assert await answers(Reads(), [bytes(400)] * 100, [(b"content-length", length)]) == 413


def routes_with_a_body() -> list[tuple[str, str]]:
    return [
        (method.upper(), path.replace("{kind}", kind).replace("{", "").replace("}", ""))
        for path, operations in openapi_document()["paths"].items()
        for method, operation in operations.items()
        if "requestBody" in operation
        for kind in (SENDERS if "{kind}" in path else ("",))
    ]


def imitating(path: str) -> Sender | None:
    """The sender with this endpoint, if it answers in the form of another product."""
    for sender in SENDERS.values():
        if sender.refuse and any(path == one.path.replace("{", "").replace("}", "") for one in sender.endpoints):
            return sender
    return None


@dataclass
class Deciding:
    writer: Writer


class Approving(Deciding):
    """Inherits what it depends on."""


async def by_function(reader: Reader) -> None: ...
async def by_class(deciding: Annotated[Deciding, Depends()]) -> None: ...
async def by_subclass(deciding: Annotated[Approving, Depends()]) -> None: ...
async def by_dependency(_: Annotated[None, Depends(by_class)]) -> None: ...
async def by_no_one(name: str) -> None: ...


def test_the_scope_is_found_in_dependencies_too() -> None:
    found = [scope_required_by(each) for each in (by_function, by_class, by_subclass, by_dependency, by_no_one)]
    assert found == [Scope.READ, Scope.WRITE, Scope.WRITE, Scope.WRITE, None]


@pytest.mark.parametrize("scope", [None, Scope.INGEST, Scope.READ])
async def test_no_route_reads_a_body_before_it_knows_the_sender(client_as: ClientAs, scope: Scope | None) -> None:
    client = await client_as(scope)
    for method, path in routes_with_a_body():
        if path.startswith("/webhooks/") and scope is Scope.INGEST:
            continue
        read = False

        async def body() -> AsyncIterator[bytes]:
            nonlocal read
            read = True
            yield b"{"

        answer = await client.request(method, path, content=body(), headers={"Content-Type": "application/json"})
        status = 401 if scope is None or path.endswith("/token") else 403
        wanted = (path, False, status, "application/problem+json")
        if sender := imitating(path):
            if scope is Scope.INGEST:
                continue
            answer_form = (sender.credential.body is not None, answer.status_code, "application/json")
            assert (read, answer.status_code, answer.headers["content-type"]) == answer_form
            assert answer.status_code in {400, 401, 403, 413}
            continue
        if ("what-if" in path or path.endswith("/try")) and scope is Scope.READ:  # the only ones that readers may use
            wanted = (path, True, 422, "application/problem+json")
        assert (path, read, answer.status_code, answer.headers["content-type"]) == wanted


@pytest.mark.parametrize("declared", [True, False])
async def test_no_route_reads_a_body_without_a_size_limit(client_as: ClientAs, declared: bool) -> None:
    anonymous = await client_as(None)
    for method, path in routes_with_a_body():
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(64):
                sent += 2**18
                yield bytes(2**18)

        headers = {"Content-Type": "application/json"} | ({"Content-Length": str(64 * 2**18)} if declared else {})
        answer = await anonymous.request(method, path, content=endless(), headers=headers)
        assert (path, answer.status_code in {401, 413}) == (path, True), answer.status_code
        form = "application/json" if imitating(path) else "application/problem+json"
        assert answer.headers["content-type"] == form
        assert (path, sent <= REST_BODY_BYTES + 2**18) == (path, True)


async def test_a_rest_body_may_be_as_large_as_the_limit(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    for size, status in ((REST_BODY_BYTES, 422), (REST_BODY_BYTES + 1, 413)):
        answer = await client.post("/api/v1/incidents", content=b" " * size, headers=headers)
        assert answer.status_code == status


# — bodies in progress —


async def test_large_bodies_share_a_limit_and_small_ones_are_not_counted() -> None:
    budget, first, second = BytesInFlight(100_000), dict[str, Any](), dict[str, Any]()
    budget.count(first, 70_000)
    budget.count(first, 90_000)
    with pytest.raises(Overloaded, match="AFTERMATH_MAX_BYTES_IN_FLIGHT; retry later, or send bodies of at most 65536"):
        budget.count(second, 70_000)
    assert budget.counted == 90_000
    assert await read_body(second, a_body(bytes(SMALL_BYTES)), at_most=2**20, advice="", in_flight=budget)
    with pytest.raises(Overloaded):
        await read_body(second, a_body(bytes(SMALL_BYTES), b"x"), at_most=2**20, advice="", in_flight=budget)
    for _ in range(2):
        budget.release(first)
    budget.release(second)
    assert budget.counted == 0
    assert (
        len(await read_body(second, a_body(bytes(70_000), b"x"), at_most=2**20, advice="", in_flight=budget)) == 70_001
    )
    assert budget.counted == 70_001


def a_body(*parts: bytes) -> Receive:
    left = [*parts]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return receive


@pytest.mark.parametrize("path", ["/webhooks/alertmanager", "/api/v1/incidents"])
async def test_a_body_stops_counting_whatever_the_answer(
    client: httpx.AsyncClient, context: Context, path: str
) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"x" * 200_000, b'{"alerts":[],"x":"' + b"x" * 200_000 + b'"}', b"x" * 20 * 2**20):
        await client.post(path, content=body, headers=headers)
        assert context.in_flight.counted == 0
    context.in_flight.counted = context.in_flight.at_most
    answer = await client.post(path, content=b"x" * 200_000, headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "AFTERMATH_MAX_BYTES_IN_FLIGHT" in answer.json()["detail"]
    small = await client.post(path, content=b'{"alerts":[]}', headers=headers)
    assert small.status_code in {200, 422}


# — unexpected errors, and headers —


async def test_an_unexpected_error_is_a_problem_with_an_id_that_is_in_the_log(
    client: httpx.AsyncClient, context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        message = "a detail for the log only"
        raise LookupError(message)

    monkeypatch.setattr(context.credentials, "identify", fails)
    for method, path in (("GET", "/api/v1/incidents"), ("POST", "/api/v1/incidents"), ("POST", "/webhooks/grafana")):
        caplog.clear()
        answer = await client.request(method, path, json={})
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        error_id = answer.json()["instance"].removeprefix("urn:aftermath:error:")
        assert (
            answer.json()["detail"]
            == f"an unexpected error occurred; the log of the service describes error {error_id}"
        )
        [logged] = [record for record in caplog.records if error_id in record.getMessage()]
        assert logged.exc_info
        assert "a detail" not in answer.text


async def test_an_error_in_the_middle_of_a_response_breaks_it_off() -> None:
    async def fails(_: Scope_, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise LookupError

    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    with pytest.raises(LookupError):  # the server closes the connection
        await Guard(fails, at_most=LIMIT)(scope, a_body(b""), send)
    assert [message["type"] for message in sent] == ["http.response.start"]


PATHS = [
    "/healthz",
    "/api/v1/incidents",
    "/api/v1/incidents?format=csv",
    "/metrics",
    "/openapi.json",
    "/openapi.yaml",
    "/docs",
    "/nothing",
]


async def test_a_response_that_has_begun_is_completed_although_the_body_is_too_large() -> None:
    """A streaming response listens for the client's disconnection while it is sent."""
    sent: list[MutableMapping[str, Any]] = []

    async def streams(_: Scope_, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _part in range(3):
            if (await receive())["type"] == "http.disconnect":
                return
            await send({"type": "http.response.body", "body": b"row", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"x" * LIMIT, "more_body": True}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await Guard(streams, at_most=LIMIT)({"type": "http", "method": "GET", "path": "/x", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * 4]


@pytest.mark.parametrize("path", [*PATHS, "/docs/assets/swagger-ui.css", "/webhooks/nothing", "/webhooks/grafana"])
async def test_a_browser_neither_keeps_nor_runs_what_it_shows(client_as: ClientAs, path: str) -> None:
    for scope in (None, Scope.ADMIN):
        client = await client_as(scope)
        answer = await client.request("POST" if "webhooks" in path else "GET", path, content=b"x")
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert ("script-src" in headers["content-security-policy"]) == path.startswith("/docs")
        assert headers.get("cache-control") == (None if "assets" in path else "no-store")


def test_a_response_may_have_its_own_headers() -> None:
    own = [(b"Content-Security-Policy", b"own"), (b"cache-control", b"max-age=60")]
    headers = with_headers("/status", own)
    assert headers[:2] == own
    assert [name.lower() for name, _ in headers].count(b"content-security-policy") == 1
    assert [name.lower() for name, _ in headers].count(b"cache-control") == 1
