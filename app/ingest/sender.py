"""The contract between ingest and its senders: the request they get, the reading they return, and their endpoints.

A `Sender` is declared at the end of its own file in `senders/`. Reading is pure: a `Request` in, a `Reading` out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec

from app.base.facts import Acknowledgement, Report
from app.incidents.grouping.signal import Signal

EMPTY: Mapping[str, str] = MappingProxyType({})


class Part(NamedTuple):
    """A range of alerts in a request, by position."""

    start: int
    length: int = 1


class Request(msgspec.Struct, frozen=True):
    """One HTTP request of a source, without the token it was sent with. Header names are in lower case.

    `part` selects some of its alerts; None selects all.
    """

    body: bytes
    received_at: datetime
    source: str  # its name
    headers: Mapping[str, str] = EMPTY
    query: Mapping[str, str] = EMPTY
    path: Mapping[str, str] = EMPTY  # the parameters of the path
    part: Part | None = None


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A part of a request that could not be read. `reason` and `detail` contain no text from the payload.

    `raw` and `part` are None for the whole request.
    """

    reason: str  # a stable snake_case word: it becomes a metric label
    detail: str = ""
    raw: bytes | None = None
    part: Part | None = None


class Reading(msgspec.Struct, frozen=True, gc=False):
    """The facts in a request. `truncated` is the number of alerts that the sender reports as left out."""

    signals: tuple[Signal, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    truncated: int = 0
    deployments: tuple[Report, ...] = ()
    acknowledgements: tuple[Acknowledgement, ...] = ()
    ignored: str | None = None  # why the request contains no facts, for example because it is a ping

    @property
    def needs_handlers(self) -> bool:
        """Whether it contains facts that other areas store."""
        return bool(self.deployments or self.acknowledgements)


class Unreadable(Exception):
    """An alert, or a whole request, cannot be read. It becomes a `Rejected`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


# — answers —


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of a delivery: its number of signals, their verdicts, and the incidents concerned."""

    delivery_id: UUID
    signals: int
    verdicts: dict[str, int]
    incidents: list[str]
    deployments: list[str] = []
    reason: str | None = None  # why it was ignored or a part rejected (the first one); in the response of some senders


class Spooled(msgspec.Struct, frozen=True):
    """The outcome of a delivery while the database is down: it is on disk, and has no verdicts yet."""

    delivery_id: UUID
    signals: int
    spooled: bool = True


class Answer(NamedTuple):
    """An HTTP response. Header names are in lower case; content-length is added."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)


def receipt_as_json(outcome: Receipt | Spooled) -> Answer:
    """200 with the receipt, 202 while the database is down."""
    if isinstance(outcome, Spooled):
        return Answer(202, _JSON.encode(outcome))
    if outcome.deployments or outcome.reason:
        outcome = msgspec.structs.replace(outcome, deployments=[], reason=None)
    return Answer(200, _JSON.encode(outcome))


def deployment_as_json(outcome: Receipt | Spooled) -> Answer:
    """200 with the verdict on the reported deployment, 202 while the database is down."""
    if isinstance(outcome, Spooled):
        return Answer(202, _JSON.encode({"delivery_id": outcome.delivery_id, "spooled": True}))
    body = {
        "delivery_id": outcome.delivery_id,
        "verdict": next(iter(outcome.verdicts), "ignored"),
        "deployment": next(iter(outcome.deployments), None),
        "reason": outcome.reason,
    }
    return Answer(200, _JSON.encode(body))


_JSON = msgspec.json.Encoder()


# — senders —


class Verifier(Protocol):
    """Returns whether a request's signature is valid, comparing in constant time."""

    def __call__(
        self,
        request: Request,
        *,
        secret: str,
        now: datetime,
        header: str | None = None,
        timestamp_header: str | None = None,
    ) -> bool:
        """`header` and `timestamp_header` are settings of the source; None means the sender's default."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Where a sender puts its token, besides the path (`{token}`) and the Authorization header. The first one
    found counts: path, `headers`, `query`, Authorization, `body`.

    `body` extracts the token from a body; it returns the token and the body without it, which is stored.
    """

    headers: tuple[str, ...] = ()  # in lower case
    query: tuple[str, ...] = ()
    body: Callable[[bytes], tuple[str | None, bytes]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A kind of sender.

    `read` raises NotThisKind for a body of another kind, which gets 400; anything else that cannot be read becomes
    `Rejected`, and the rest is used. The first two segments of a path contain no parameters.
    """

    kind: str
    name: str
    describes: str
    read: Callable[[Request], Reading]
    example: Mapping[str, Any]  # a body, for the API's documentation
    verify: Verifier | None = None
    credential: Credential = Credential()
    answer: Callable[[Receipt | Spooled], Answer] = receipt_as_json
    paths: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.paths:
            object.__setattr__(self, "paths", (f"/webhooks/{self.kind}", f"/webhooks/{self.kind}/{{token}}"))
