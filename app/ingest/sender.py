"""The contract between ingest and its senders: the request they get, the reading they return, and their endpoints.

A `Sender` is declared at the end of its own file in `senders/`. Reading is pure: a `Request` in, a `Reading` out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec

from app.base.values.facts import Change, IssueEvent, Reaction, Report
from app.incidents.grouping.signal import Signal

EMPTY: Mapping[str, str] = MappingProxyType({})
QUERY_ERROR = "query_error"  # the flag of a signal that a failing query caused


class Part(NamedTuple):
    """A range of alerts in a request, by position."""

    start: int
    length: int = 1


class Request(msgspec.Struct, frozen=True):
    """One HTTP request of a source, without the token it was sent with. Header names are in lower case.

    `endpoint` is the path of its endpoint as the sender declares it, with the names of its parameters; `path` has their
    values, decoded. `part` selects some of the alerts; None selects all.
    """

    body: bytes
    received_at: datetime
    source: str  # its name
    headers: Mapping[str, str] = EMPTY
    query: Mapping[str, str] = EMPTY
    path: Mapping[str, str] = EMPTY
    method: str = "POST"
    endpoint: str = ""
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
    """The facts in a request. `truncated` is the number of alerts that the sender reports as left out.

    `alerts` and `positions` are those that the signals were read from, one for one; empty if they do not correspond.
    """

    signals: tuple[Signal, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    truncated: int = 0
    deployments: tuple[Report, ...] = ()
    changes: tuple[Change, ...] = ()
    reactions: tuple[Reaction, ...] = ()
    issues: tuple[IssueEvent, ...] = ()
    ignored: str | None = None  # why the request contains no facts, for example because it is a ping
    sender: str | None = None  # the address by which the sender calls itself
    alerts: Sequence[msgspec.Raw] = ()
    positions: Sequence[int] = ()

    @property
    def needs_handlers(self) -> bool:
        """Whether it contains facts that other areas store."""
        return bool(self.deployments or self.changes or self.reactions or self.issues)


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
    changes: list[str] = []
    action_items: list[str] = []
    reason: str | None = None  # why it was ignored or a part rejected (the first one); in the response of some senders


class SpoolReceipt(msgspec.Struct, frozen=True):
    """The outcome of a delivery while the database is down: it is on disk, and has no verdicts yet."""

    delivery_id: UUID
    signals: int
    spooled: bool = True


class Answer(NamedTuple):
    """An HTTP response. Header names are in lower case; content-length is added."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)


class Refusal(NamedTuple):
    """Why a request is refused: the status, and the members of a problem in problem+json."""

    status: int
    title: str
    detail: str


def receipt_as_json(outcome: Receipt | SpoolReceipt, request: Request) -> Answer:
    """200 with the receipt, 202 while the database is down."""
    del request
    if isinstance(outcome, SpoolReceipt):
        return Answer(202, _JSON.encode(outcome))
    if outcome.deployments or outcome.changes or outcome.action_items or outcome.reason:
        outcome = msgspec.structs.replace(outcome, deployments=[], changes=[], action_items=[], reason=None)
    return Answer(200, _JSON.encode(outcome))


def fact_as_json(outcome: Receipt | SpoolReceipt, request: Request) -> Answer:
    """200 with the verdict on the reported deployment, change or issue, 202 while the database is down."""
    del request
    if isinstance(outcome, SpoolReceipt):
        return Answer(202, _JSON.encode({"delivery_id": outcome.delivery_id, "spooled": True}))
    body = {
        "delivery_id": outcome.delivery_id,
        "verdict": next(iter(outcome.verdicts), "ignored"),
        "deployment": next(iter(outcome.deployments), None),
        "change": next(iter(outcome.changes), None),
        "action_item": next(iter(outcome.action_items), None),
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


class KnownAlert(NamedTuple):
    """The newest alert of a series, and when its incident was acknowledged."""

    started_at: datetime
    ended_at: datetime | None
    severity: int  # 1 (worst) to 5
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    acknowledged_at: datetime | None


class LookUp(NamedTuple):
    """How to answer a read-only request, which is not a delivery.

    `fingerprint` is that of the alert it asks for; None if it asks for none, or for one that cannot exist.
    """

    fingerprint: Callable[[Request], str | None]
    answer: Callable[[KnownAlert | None, Request], Answer]


class Endpoint(NamedTuple):
    """A path with parameters in braces, and the methods it takes. Its first segment is not a parameter.

    With `look_up`, its requests are read-only: they are admitted like deliveries, but not recorded. `example` is a body
    for it, if the example of the sender is not.
    """

    path: str
    methods: tuple[str, ...] = ("POST", "PUT")
    look_up: LookUp | None = None
    example: Mapping[str, Any] | None = None
    is_documented: bool = True  # in OpenAPI; False for another spelling of an endpoint that is
    name: str = ""  # in OpenAPI, of an endpoint outside /webhooks; unique among those of the sender with its method


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A kind of sender.

    `read` raises UnrecognizedBody for a body of another kind, which gets 400; anything else that cannot be read becomes
    `Rejected`, and the rest is used. An endpoint that people call raises another Problem instead of rejecting.

    A sender that imitates the API of another product answers in its form: `answer` gets the outcome and the request,
    and `refuse` the reason for a refusal (None: problem+json, as everywhere).

    `recognizes` returns whether a JSON object is a body of this kind: one sent to the endpoint of another kind is
    answered with the right address. `alphanumeric_tokens`: its clients check that a token consists of 32 letters and
    digits.
    """

    kind: str
    name: str
    describes: str  # what it reports, for the API's documentation
    read: Callable[[Request], Reading]
    example: Any  # a body: a JSON object or array, for the API's documentation
    verify: Verifier | None = None
    credential: Credential = Credential()
    answer: Callable[[Receipt | SpoolReceipt, Request], Answer] = receipt_as_json
    refuse: Callable[[Refusal], Answer] | None = None
    recognizes: Callable[[Mapping[str, Any]], bool] | None = None
    alphanumeric_tokens: bool = False
    endpoints: tuple[Endpoint, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.endpoints:
            paths = (f"/webhooks/{self.kind}", f"/webhooks/{self.kind}/{{token}}")
            object.__setattr__(self, "endpoints", tuple(Endpoint(path) for path in paths))
