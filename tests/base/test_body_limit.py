"""Every route limits the size of bodies, for all clients."""

from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx
import pytest

from app.base.http.body_limit import BodyLimit
from app.base.logs import Receive, Scope, Send
from app.cli import openapi_document
from app.ingest.senders import SENDERS
from app.main import REST_BODY_BYTES
from tests.conftest import ClientAs

LIMIT = 1000


class Reads:
    """An application that reads the whole body, and counts what it was given."""

    def __init__(self) -> None:
        self.received = 0

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
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

    limited = BodyLimit(app, at_most=LIMIT)
    await limited({"type": "http", "method": "POST", "path": "/x", "headers": headers}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[0]["status"] == 413) == (b"the body is larger than" in sent[1]["body"])
    return int(sent[0]["status"])


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413)])
async def test_a_declared_length_is_refused_unread(size: int, status: int) -> None:
    app = Reads()
    assert await answers(app, [bytes(size)], [(b"content-length", b"%d" % size)]) == status
    assert app.received == (size if status == 200 else 0)


async def test_chunks_are_refused_as_soon_as_they_are_too_much() -> None:
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
        assert answer.headers["content-type"] == "application/problem+json"
        assert (path, sent <= REST_BODY_BYTES + 2**18) == (path, True)


async def test_a_rest_body_may_be_as_large_as_the_limit(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    for size, status in ((REST_BODY_BYTES, 422), (REST_BODY_BYTES + 1, 413)):
        answer = await client.post("/api/v1/incidents", content=b" " * size, headers=headers)
        assert answer.status_code == status
