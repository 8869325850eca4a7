"""The alert API of Opsgenie and Jira Service Management, for tools that are pointed here instead.

Opsgenie processes every request later: it answers 202 whatever happens, and clients then ask for the status of the
request. Here everything is done by then, so that status is always final. The id of an alert is derived from its alias,
and the id of a request is that of its alert: some clients close an alert by the id of the request that created it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from msgspec.structs import replace

from app.base.errors import UnrecognizedBody
from app.base.values.facts import Reaction, ReactionKind
from app.incidents.grouping.signal import Signal, Status
from app.ingest.reading.details import (
    Moment,
    Texts,
    details_as_texts,
    identity_in,
    label_in,
    link_in,
    long_text_in,
    signal_of,
    tags_as_labels,
)
from app.ingest.reading.values import Ignored, message_in, object_in, read_report, text_in
from app.ingest.sender import (
    Answer,
    Endpoint,
    KnownAlert,
    LookUp,
    Reading,
    Receipt,
    Refusal,
    Request,
    Sender,
    SpoolReceipt,
    Unreadable,
)


def read(request: Request) -> Reading:
    """The alert or reaction in a request. Raises UnrecognizedBody."""
    if "heartbeat" in request.path:
        return Reading((_heartbeat(request),))
    if request.path and not request.body.strip():
        request = replace(request, body=b"{}")  # everything but a new alert works without a body
    return read_report(request, _fact_in)


def recognizes(message: Mapping[str, Any]) -> bool:
    """Whether it is a new alert: of the bodies of this API only these have fields of their own."""
    return "message" in message and not {"alias", "responders", "priority"}.isdisjoint(message)


def answer(outcome: Receipt | SpoolReceipt, request: Request) -> Answer:
    """202 in any case: Opsgenie reports errors of content later, if at all."""
    del outcome
    heartbeat = "heartbeat" in request.path
    result = "PONG - Heartbeat received" if heartbeat else "Request will be processed"
    return _answer(202, {"result": result}, _request_id(request))


def refuse(refusal: Refusal) -> Answer:
    """The refusal as an error of Opsgenie."""
    return _answer(refusal.status, {"message": f"{refusal.title}: {refusal.detail}"}, str(uuid4()))


def _status_of_request(alert: KnownAlert | None, request: Request) -> Answer:
    """Every request has been processed by the time its client asks."""
    del alert
    request_id = request.path["request_id"]
    if not _ID.fullmatch(request_id):
        return _answer(404, {"message": "Request does not exist"}, str(uuid4()))
    data = {
        "success": True,
        "isSuccess": True,
        "action": "Create",
        "status": "Created alert",
        "processedAt": _shown(request.received_at),
        "integrationId": "",
        "alertId": request_id,
        "alias": "",
    }
    return _answer(200, {"data": data}, request_id)


def _one_alert(alert: KnownAlert | None, request: Request) -> Answer:
    fingerprint = _asked_for(request)
    request_id = str(uuid4())
    if alert is None:
        return _answer(404, {"message": "Alert does not exist"}, request_id)
    data = {
        "id": fingerprint,
        "alias": alert.annotations.get(ALIAS, ""),
        "message": alert.annotations.get("summary", ""),
        "description": alert.annotations.get("description", ""),
        "status": "open" if alert.ended_at is None else "closed",
        "acknowledged": alert.acknowledged_at is not None,
        "createdAt": _shown(alert.started_at),
        "priority": f"P{alert.severity}",
        "details": dict(alert.labels),
    }
    return _answer(200, {"data": data}, request_id)


def _asked_for(request: Request) -> str | None:
    try:
        return _identity(request)[0]
    except Unreadable:
        return None


ALIAS = "alias"  # the annotation with the alias


def _fact_in(message: Mapping[str, Any], request: Request) -> Signal | Reaction | Ignored:
    """Raises UnrecognizedBody and Unreadable."""
    if "identifier" not in request.path:
        return _created(message, request)
    fingerprint, alias = _identity(request)
    match request.method, request.path.get("action"):
        case ("DELETE", None) | ("POST", "close"):
            return signal_of(
                alias or "",
                fingerprint,
                Status.RESOLVED,
                Texts({}, {}),
                happened_at=Moment(None),
                received_at=request.received_at,
                link="",
                size=0,
            )
        case "POST", ("acknowledge" | "unacknowledge" | "notes") as action:
            return Reaction(
                kind=_REACTIONS[action],
                at=request.received_at,
                fingerprint=fingerprint,
                correlation=alias,
                by=text_in(message.get("user")) or text_in(message.get("source")),
                note=long_text_in(message.get("note")),
                at_arrival=True,
            )
    return Ignored("a change that concerns only the other product")


_REACTIONS = {
    "acknowledge": ReactionKind.ACKNOWLEDGED,
    "unacknowledge": ReactionKind.UNACKNOWLEDGED,
    "notes": ReactionKind.NOTE,
}


# — identity —


def _identity(request: Request) -> tuple[str, str | None]:
    """Fingerprint and alias of the alert in the path; the alias is None if only the id is known. Raises Unreadable."""
    identifier = identity_in(request.path["identifier"])
    if identifier is None:
        raise Unreadable("no_identity", "the identifier in the path is empty")
    match request.query.get("identifierType", "id"):
        case "id" if _ID.fullmatch(identifier):
            return identifier.lower(), None
        case "tiny":
            raise Unreadable("tiny_id", "there are no tiny ids here; use the id or the alias")
    return _id_of(identifier), identifier


def _id_of(alias: str) -> str:
    """The id of the alert, which is also its fingerprint."""
    return str(uuid5(_NAMESPACE, alias))


def _alias_in(message: Mapping[str, Any], request: Request) -> str:
    """The alias of a new alert. Without one every request opens an alert of its own, as at Opsgenie."""
    made = f"{request.received_at.isoformat()} {request.body.decode(errors='replace')}"
    return identity_in(message.get(ALIAS)) or str(uuid5(_NAMESPACE, made))


def _request_id(request: Request) -> str:
    """The id of the alert that a request concerns; any if it concerns none."""
    try:
        if "identifier" in request.path:
            return _identity(request)[0]
        if not request.path:
            return _id_of(_alias_in(message_in(request), request))
    except Unreadable:
        pass
    return str(uuid4())


_NAMESPACE = uuid5(NAMESPACE_URL, "urn:aftermath:opsgenie-alerts")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


# — a new alert —


def _created(message: Mapping[str, Any], request: Request) -> Signal:
    """Raises UnrecognizedBody."""
    summary = text_in(message.get("message"), SUMMARY_AT_MOST)
    if summary is None or isinstance(message.get("alerts"), list):
        raise UnrecognizedBody(_EXPECTED)
    alias = _alias_in(message, request)
    details = object_in(message.get("details"))
    found = details_as_texts(details, never_labels=_addresses_in(details))
    tags = _tags_in(message)
    given = {
        "alertname": _GROUP_SIZE.sub("", summary, count=1),
        "instance": label_in(message.get("entity")),
        "priority": label_in(message.get("priority")),
    }
    described = {
        "summary": summary,
        **{name: long_text_in(message.get(name)) for name in ("description", "note", "source")},
        "tags": ", ".join(tags),
        ALIAS: alias,
    }
    texts = Texts(
        _present(given) | tags_as_labels([tag for tag in tags if "://" not in tag]) | found.labels,
        found.annotations | _present(described),
        found.flags,
    )
    return signal_of(
        alias,
        _id_of(alias),
        Status.FIRING,
        texts,
        happened_at=Moment(None),
        received_at=request.received_at,
        link=link_in(*(details.get(name) for name in ("url", "runbook_url", "runbook"))),
        size=len(request.body),
    )


SUMMARY_AT_MOST = 200  # characters; Opsgenie's limit is 130
TAGS_AT_MOST = 100
_GROUP_SIZE = re.compile(r"\[FIRING:\d{1,6}\] ")  # Alertmanager's title changes with the number of alerts in the group
_EXPECTED = "Expected a JSON object with a `message`, as clients of Opsgenie's alert API send it."


def _addresses_in(details: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(name for name, value in details.items() if isinstance(value, str) and "://" in value[:20])


def _tags_in(message: Mapping[str, Any]) -> list[str]:
    tags = message.get("tags")
    some = tags[:TAGS_AT_MOST] if isinstance(tags, list) else ()
    return [text for tag in some if (text := text_in(tag)) is not None]


def _present(texts: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}


# — heartbeats —


def _heartbeat(request: Request) -> Signal:
    """A ping. As a test it opens no incident; a rule for heartbeats that matches it notices when it stays away."""
    name = text_in(request.path["heartbeat"]) or "heartbeat"
    return Signal(
        fingerprint=_id_of(f"heartbeat\n{name}"),
        status=Status.FIRING,
        started_at=None,
        labels={"alertname": "OpsgenieHeartbeat", "heartbeat": name},
        test=True,
    )


# — answers —


def _answer(status: int, members: Mapping[str, Any], request_id: str) -> Answer:
    body = {**members, "took": 0.001, "requestId": request_id}
    headers = (
        (b"content-type", b"application/json"),
        (b"x-request-id", request_id.encode()),
        (b"x-response-time", b"0.001"),
        (b"x-ratelimit-state", b"OK"),
    )
    return Answer(status, json.dumps(body).encode(), headers)


def _shown(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_ACTION: Mapping[str, Any] = {"user": "alex", "note": "looking", "source": "chat"}


def _endpoints(base: str, *, is_documented: bool) -> Iterator[Endpoint]:
    only_asks = LookUp(lambda _: None, _status_of_request)
    for path, name, methods, look_up, example in (
        ("/alerts", "alert", ("POST",), None, None),
        ("/alerts/requests/{request_id}", "request", ("GET",), only_asks, None),
        ("/alerts/{identifier}", "alert", ("DELETE",), None, _ACTION),
        ("/alerts/{identifier}", "alert", ("GET",), LookUp(_asked_for, _one_alert), None),
        ("/alerts/{identifier}/{action}", "action", ("POST", "PUT", "DELETE"), None, _ACTION),
        ("/alerts/{identifier}/actions/{custom}", "custom action", ("POST",), None, _ACTION),
        ("/heartbeats/{heartbeat}/ping", "heartbeat", ("GET", "POST", "PUT"), None, {}),
    ):
        yield Endpoint(base + path, methods, look_up, example, is_documented, name)


DESCRIBES = """The alert API of Opsgenie, also as Jira Service Management has it under `/jsm/ops/integration`. In a tool
that sends to Opsgenie, replace `https://api.opsgenie.com` with the address of this service, and the API key with a
token of scope `ingest`; it is sent as `Authorization: GenieKey …`. `service` and `environment` are taken from the
details or tags of the alert. `acknowledge` and `unacknowledge` are recorded on the incident, and `close` ends the
alert. Other changes are accepted and ignored. Times are those of arrival, because this API has none."""

EXAMPLE: Mapping[str, Any] = {
    "message": "Checkout is slow",
    "alias": "checkout-latency",
    "description": "p95 is 2.4 s",
    "priority": "P2",
    "details": {"service": "checkout", "environment": "production"},
    "tags": ["team:shop"],
    "entity": "checkout-7",
    "source": "synthetic",
    "user": "probe",
    "note": "first seen by probe 3",
}

SENDER = Sender(
    kind="opsgenie-alerts",
    name="Opsgenie alert API",
    describes=DESCRIBES,
    read=read,
    example=EXAMPLE,
    answer=answer,
    refuse=refuse,
    recognizes=recognizes,
    endpoints=(
        *_endpoints("/v2", is_documented=True),
        *_endpoints("/jsm/ops/integration/v2", is_documented=False),
        Endpoint("/webhooks/opsgenie-alerts"),
        Endpoint("/webhooks/opsgenie-alerts/{token}"),
    ),
)
