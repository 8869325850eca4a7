"""How requests are stored, in the spool and in quarantine: complete except for credentials.

The token is not part of a `Request`; headers that may hold a secret or a signature are left out here.
"""

import re
from datetime import datetime

import msgspec

from app.ingest.sender import Request


class Envelope(msgspec.Struct, frozen=True):
    """A request without its body."""

    headers: dict[str, str]
    query: dict[str, str]
    path: dict[str, str]
    method: str = "POST"
    endpoint: str = ""


def envelope_of(request: Request) -> Envelope:
    return Envelope(
        {name: _storable(value) for name, value in request.headers.items() if not _SECRET.search(name)},
        {_storable(name): _storable(value) for name, value in request.query.items()},
        {name: _storable(value) for name, value in request.path.items()},
        request.method,
        request.endpoint,
    )


def encode_request(request: Request) -> bytes:
    """Serializes the request: its envelope as a line of JSON, then its body."""
    return _ENCODER.encode(envelope_of(request)) + b"\n" + request.body


def decode_request(encoded: bytes, *, source: str, received_at: datetime) -> Request:
    """The inverse of `encode_request`. Raises ValueError for anything that `encode_request` did not write."""
    line, newline, body = encoded.partition(b"\n")
    if not newline:
        message = "no envelope"
        raise ValueError(message)
    envelope = _DECODER.decode(line)  # its errors are ValueErrors
    return Request(
        body,
        received_at,
        source,
        envelope.headers,
        envelope.query,
        envelope.path,
        envelope.method,
        envelope.endpoint,
    )


_SECRET = re.compile(r"auth|cookie|token|secret|signature|api-?key|password|credential|hmac", re.IGNORECASE)
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Envelope)


def _storable(text: str) -> str:
    """Removes NUL, which PostgreSQL cannot store, and replaces halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
