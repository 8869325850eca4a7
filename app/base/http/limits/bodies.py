"""Request bodies in memory: a size limit for each, and a common limit for all of them."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect

from app.base.errors import Overloaded, TooLarge

# Bodies up to this size are not counted: the number of connections bounds them, and so no sender of large bodies can
# keep out the usual small ones.
SMALL_BYTES = 64 * 1024

# Key in the scope of a request: the bytes of its body that are counted in `BytesInFlight`.
_COUNTED = "aftermath.counted_bytes"

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class BytesInFlight:
    """The bytes of all large bodies that this process is receiving or working on."""

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self.counted = 0

    def count(self, scope: MutableMapping[str, Any], received: int) -> None:
        """Counts a body of which `received` bytes have arrived, until `release`. Raises Overloaded."""
        already: int = scope.get(_COUNTED, 0)
        if self.counted - already + received > self.at_most:
            raise Overloaded(
                f"the requests in progress already take up {self.at_most} bytes, the limit set by "
                "AFTERMATH_MAX_BYTES_IN_FLIGHT; "
                f"retry later, or send bodies of at most {SMALL_BYTES} bytes, which are always accepted"
            )
        self.counted += received - already
        scope[_COUNTED] = received

    def release(self, scope: MutableMapping[str, Any]) -> None:
        """Stops counting the body of this request."""
        if counted := scope.pop(_COUNTED, 0):
            self.counted -= counted


def require_declared_size(declared: str, at_most: int, advice: str = "") -> None:
    """Raises TooLarge if the `Content-Length` exceeds the limit."""
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > at_most:
        raise too_large(at_most, advice)


async def read_body(
    scope: MutableMapping[str, Any], receive: Receive, *, at_most: int, advice: str, in_flight: BytesInFlight
) -> bytes:
    """Raises TooLarge and Overloaded as soon as a limit is exceeded, and ClientDisconnect.

    The caller must `release` the body when it has responded.
    """
    message = await receive()
    first = message.get("body", b"")
    if not message.get("more_body", False) and len(first) <= SMALL_BYTES and message["type"] == "http.request":
        if len(first) > at_most:
            raise too_large(at_most, advice)
        return bytes(first)
    body = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > at_most:
            raise too_large(at_most, advice)
        if len(body) > SMALL_BYTES:
            in_flight.count(scope, len(body))
        if not message.get("more_body", False):
            return bytes(body)
        message = await receive()


def too_large(at_most: int, advice: str = "") -> TooLarge:
    return TooLarge(f"the body is larger than {at_most} bytes{advice}")
