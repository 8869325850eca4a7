"""Responses with only the fields that a client asks for: `fields=number,status`."""

import json
from collections.abc import Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from typing import Any

from starlette.datastructures import MutableHeaders

from app.base.process.logs import Application, Receive, Scope, Send
from app.base.process.threads import LARGE, off_loop

# Key in the scope of a request: the names of the chosen fields, which are known fields of the response.
CHOSEN = "aftermath.chosen_fields"


class ChosenFields:
    """Leaves out all other fields of the object that a route returns, or of each object in the list of a page."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head: MutableMapping[str, Any] | None = None
        body = bytearray()

        async def reduced(message: MutableMapping[str, Any]) -> None:
            nonlocal head
            chosen: AbstractSet[str] = scope.get(CHOSEN, frozenset())
            if message["type"] == "http.response.start":
                head = message if chosen and message["status"] == 200 else None
            if head is None:
                await send(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    whole = bytes(body)
                    less = await off_loop(_only, whole, chosen) if len(whole) > LARGE else _only(whole, chosen)
                    headers = MutableHeaders(raw=list(head["headers"]))
                    headers["Content-Length"] = str(len(less))
                    await send({**head, "headers": headers.raw})
                    await send({**message, "body": less})

        await self._app(scope, receive, reduced)


def _only(body: bytes, chosen: AbstractSet[str]) -> bytes:
    found = json.loads(body)
    items = found.get("items")
    if isinstance(items, list):
        found["items"] = [_part(one, chosen) for one in items]
    else:
        found = _part(found, chosen)
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def _part(one: Mapping[str, Any], chosen: AbstractSet[str]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name in chosen}
