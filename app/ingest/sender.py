"""The contract of every sender: what it is given, what it reads in a request, and how its endpoint behaves.

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
    """Neighboring alerts of a request, by position."""

    start: int
    length: int = 1


class Request(msgspec.Struct, frozen=True):
    """One HTTP request of a source, without the token it was sent with. Header names are in lower case.

    `part` limits what is read to some of its alerts; None: all.
    """

    body: bytes
    received_at: datetime
    source: str  # its name
    headers: Mapping[str, str] = EMPTY
    query: Mapping[str, str] = EMPTY
    path: Mapping[str, str] = EMPTY  # the parameters of the path
    part: Part | None = None


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A part of a request that could not be read, and why, in words without payload text.

    `raw` and `part` are None for the whole request.
    """

    reason: str  # a stable snake_case word: it becomes a metric label
    detail: str = ""
    raw: bytes | None = None
    part: Part | None = None


class Reading(msgspec.Struct, frozen=True, gc=False):
    """A request as facts. `truncated` counts alerts that the sender left out, as it reports itself."""

    signals: tuple[Signal, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    truncated: int = 0
    deployments: tuple[Report, ...] = ()
    acknowledgements: tuple[Acknowledgement, ...] = ()
    ignored: str | None = None  # why the request holds no facts at all, such as a ping

    @property
    def needs_handlers(self) -> bool:
        """Whether it holds facts that other areas store."""
        return bool(self.deployments or self.acknowledgements)


class Unreadable(Exception):
    """An alert, or a whole request, cannot be read. It becomes a `Rejected`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


# — answers —


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a delivery: how many signals it held, what they did, and the incidents they are about."""

    delivery_id: UUID
    signals: int
    verdicts: dict[str, int]
    incidents: list[str]
    deployments: list[str] = []
    reason: str | None = None  # why it was ignored, or the first of its parts rejected; for senders that report it


class Spooled(msgspec.Struct, frozen=True):
    """The answer to a delivery while the database is down: it is on disk, and its verdicts will be known later."""

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
    """200 with the verdict on the one deployment that was reported, 202 while the database is down."""
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
    """Checks a sender's signature; True when it is right. Constant-time."""

    def __call__(
        self,
        request: Request,
        *,
        secret: str,
        now: datetime,
        header: str | None = None,
        timestamp_header: str | None = None,
    ) -> bool:
        """`header` and `timestamp_header` as the source is set; None for the sender's default."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Where a sender puts its token, besides the path (`{token}`) and the Authorization header. The first one counts.

    `body` takes the token out of a body: it returns both, so that a stored body has no token in it.
    """

    headers: tuple[str, ...] = ()  # in lower case
    query: tuple[str, ...] = ()
    body: Callable[[bytes], tuple[str | None, bytes]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A kind of sender.

    `read` raises NotThisKind for a body that is nothing of its kind, which is answered with 400; whatever else cannot
    be read becomes `Rejected`, and the rest is used. The first two segments of a path are fixed.
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
