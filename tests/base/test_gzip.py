"""Compression of the responses of REST."""

import gzip
from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest

from app.base.http.responses.encoding import FROM_BYTES, Gzip
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert

Message = MutableMapping[str, Any]


async def sent_by(
    *parts: bytes, accept: str = "gzip", path: str = "/api/v1/x", **headers: str
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The headers and the parts of a response, after compression."""
    sent: list[Message] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        for number, part in enumerate(parts, 1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"accept-encoding", accept.encode())]}
    await Gzip(app)(scope, receive, send)
    return dict(sent[0]["headers"]), [message["body"] for message in sent[1:]]


async def test_a_large_response_is_compressed() -> None:
    for body in (b"x" * FROM_BYTES, b"row\n" * 100_000):
        headers, [part] = await sent_by(body, content_length=str(len(body)), vary="Accept")
        assert gzip.decompress(part) == body
        assert headers == {
            b"content-length": str(len(part)).encode(),
            b"content-encoding": b"gzip",
            b"vary": b"Accept, Accept-Encoding",
        }


async def test_a_streamed_response_is_compressed_part_by_part() -> None:
    parts = [b"header\r\n", b"a,b\r\n" * 50_000, b"c,d\r\n", b""]
    headers, sent = await sent_by(*parts)
    assert gzip.decompress(b"".join(sent)) == b"".join(parts)
    assert b"content-length" not in headers
    assert all(sent[:3]), "each part is sent at once"


@pytest.mark.parametrize(
    ("size", "more"),
    [
        (FROM_BYTES - 1, {}),
        (5000, {"accept": "identity"}),
        (5000, {"accept": "gzip;q=0"}),
        (5000, {"content_encoding": "br"}),
        (5000, {"path": "/incidents"}),
        (5000, {"path": "/webhooks/alertmanager"}),
    ],
)
async def test_other_responses_are_sent_as_they_are(size: int, more: dict[str, str]) -> None:
    headers, sent = await sent_by(b"x" * size, **more)
    assert (sent, headers.get(b"content-encoding") in {None, b"br"}) == ([b"x" * size], True)


async def test_json_and_csv_are_compressed(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    for path in ("/api/v1/incidents", "/api/v1/incidents?format=csv", "/api/v1/metrics/summary", "/openapi.json"):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers.get("content-encoding")) == (200, "gzip"), path
        assert answer.text
        plain = await client.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert "Accept-Encoding" in plain.headers["vary"]
    assert "content-encoding" not in (await client.get("/api/v1/delegates")).headers
