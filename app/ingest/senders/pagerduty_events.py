"""PagerDuty's Events API: version 2, version 1, and change events. Tools that page through PagerDuty send here instead.

A tool refers to an alert by its dedup key. The routing key of a request is the token of the source. Alertmanager and
Zabbix report no times, so an alert then begins and ends when its events arrive, as it does in PagerDuty.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from app.base.errors import Problem, UnrecognizedBody
from app.base.values.facts import Reaction, ReactionKind
from app.incidents.grouping.signal import Status
from app.ingest.reading.details import (
    Texts,
    details_as_texts,
    digest_of,
    identity_in,
    label_in,
    link_in,
    long_text_in,
    moment_in,
    person_in,
    signal_of,
)
from app.ingest.reading.values import TEXT_AT_MOST, message_in, object_in, read_report, text_in
from app.ingest.sender import (
    Answer,
    Credential,
    Endpoint,
    Reading,
    Receipt,
    Refusal,
    Rejected,
    Request,
    Sender,
    SpoolReceipt,
    Unreadable,
)
from app.ingest.senders import pagerduty_changes

EVENTS, EVENTS_1, CHANGES = "/v2/enqueue", "/generic/2010-04-15/create_event.json", "/v2/change/enqueue"
KEY_AT_MOST = 255  # characters; the limit of PagerDuty
TEST_KEYS = frozenset({"Uptime Kuma/test"})  # of the buttons that send a test


def read(request: Request) -> Reading:
    """The signal, acknowledgement, deployment or change in an event. Raises UnrecognizedBody, also for bad events."""
    try:
        message = message_in(request)
    except Unreadable as bad:
        return Reading(rejected=(Rejected(bad.reason, bad.detail),))
    if _is_change(message, request):
        if not object_in(message.get("payload")):
            raise UnrecognizedBody("'payload' is missing or blank")
        return read_report(request, pagerduty_changes.report_in)
    event, payload, names = _event_in(message)
    action = (text_in(event.get("event_action")) or "").lower()
    key = identity_in(event.get("dedup_key"))
    _require_valid(action, key, payload, names)
    if key is None and text_in(payload.get("severity")) == "info":
        return Reading(ignored="no_key_and_info")  # good news of a tool that never resolves, or a message
    key = key or _made_key(payload)
    at = moment_in(payload.get("timestamp"), request.received_at)
    if action == "acknowledge":
        reaction = Reaction(
            ReactionKind.ACKNOWLEDGED,
            at.at or request.received_at,
            fingerprint_of(key),
            key,
            by=person_in(event.get("client")),
            at_arrival=at.at is None,
        )
        return Reading(reactions=(reaction,))
    signal = signal_of(
        key,
        fingerprint_of(key),
        Status.FIRING if action == "trigger" else Status.RESOLVED,
        _texts_of(event, payload, key),
        happened_at=at,
        received_at=request.received_at,
        link=link_in(_first_link(event.get("links")), event.get("client_url")),
        size=len(request.body),
        test=key in TEST_KEYS,
    )
    return Reading((signal,))


def fingerprint_of(key: str) -> str:
    """The fingerprint of the alert with this dedup key."""
    return digest_of("pagerduty", key)


def token_in(body: bytes) -> tuple[str | None, bytes]:
    """The routing key, or service key, and the body without it. Raises UnrecognizedBody and TooLarge."""
    try:
        fields = _FIELDS.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _token_in_odd(body)
    found = [fields.pop(name) for name in _KEYS if name in fields]
    token = None
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        token = _TEXT.decode(found[0]) if found else None
    return token, msgspec.json.encode(fields) if found else body


def _token_in_odd(body: bytes) -> tuple[str | None, bytes]:
    """The same for a body with control characters, bytes that are not UTF-8, or deep nesting."""
    try:
        message = dict(message_in(Request(body, _NEVER, "")))
        found = [message.pop(name) for name in _KEYS if name in message]
        return found[0] if found and isinstance(found[0], str) else None, json.dumps(message).encode()
    except Unreadable as bad:
        raise UnrecognizedBody(bad.detail) from None
    except RecursionError:
        raise UnrecognizedBody("the body is nested too deeply to be read") from None


def answer(outcome: Receipt | SpoolReceipt, request: Request) -> Answer:
    """As PagerDuty answers an event that it has accepted."""
    del outcome
    message: Mapping[str, Any] = {}
    with suppress(Problem, Unreadable):  # then it is in quarantine
        message = message_in(request)
    if _is_change(message, request):
        return _answer(202, {"status": "success", "message": "Change event processed"})
    event, payload, names = _event_in(message)
    key = identity_in(event.get("dedup_key")) or _made_key(payload)
    members = {"status": "success", "message": "Event processed", names["dedup_key"]: key}
    return _answer(202 if names is _NAMES else 200, members)


def refuse(refusal: Refusal) -> Answer:
    """As PagerDuty refuses an event: 400 with the errors. A wrong key gets the same: for version 1, 403 would mean that
    the client should slow down.
    """
    if refusal.status >= 500:
        return _answer(refusal.status, {"status": "error", "message": refusal.detail})
    errors = ["Invalid routing key", refusal.detail] if refusal.status in {401, 403} else [refusal.detail]
    members = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
    return _answer(413 if refusal.status == 413 else 400, members)


def recognizes(message: Mapping[str, Any]) -> bool:
    return "event_action" in message or "routing_key" in message or "service_key" in message


# — events of both versions —

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_KEYS = ("routing_key", "service_key")
_NEVER = datetime.min.replace(tzinfo=UTC)
_ACTIONS = frozenset({"trigger", "acknowledge", "resolve"})
_NAMES = MappingProxyType({name: name for name in ("event_action", "dedup_key", "payload.summary")})
_NAMES_1 = MappingProxyType(
    {"event_action": "event_type", "dedup_key": "incident_key", "payload.summary": "description"}
)
# Details of Alertmanager that differ from one notification about a group to the next.
_NO_LABELS = frozenset({"firing", "resolved", "num_firing", "num_resolved"})
_HOSTS = ("instance", "host", "hostname", "host_name")


class _Event(NamedTuple):
    """An event in the form of version 2, and how the version that was sent names its fields."""

    fields: Mapping[str, Any]
    payload: Mapping[str, Any]
    names: Mapping[str, str]


def _event_in(message: Mapping[str, Any]) -> _Event:
    if "event_action" in message or "event_type" not in message:
        return _Event(message, object_in(message.get("payload")), _NAMES)
    contexts = message.get("contexts")
    fields = {
        "event_action": message.get("event_type"),
        "dedup_key": message.get("incident_key"),
        "client": message.get("client"),
        "client_url": message.get("client_url"),
        "links": [one for one in contexts if object_in(one).get("type") == "link"]
        if isinstance(contexts, list)
        else None,
    }
    payload = {"summary": message.get("description"), "custom_details": message.get("details")}
    return _Event(fields, payload, _NAMES_1)


def _is_change(message: Mapping[str, Any], request: Request) -> bool:
    if request.endpoint in {EVENTS, EVENTS_1}:
        return False
    return request.endpoint == CHANGES or ("payload" in message and not message.keys() & {"event_action", "event_type"})


def _require_valid(action: str, key: str | None, payload: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Raises UnrecognizedBody."""
    if action not in _ACTIONS:
        raise UnrecognizedBody(f"'{names['event_action']}' must be trigger, acknowledge or resolve")
    if action == "trigger" and text_in(payload.get("summary")) is None:
        raise UnrecognizedBody(f"'{names['payload.summary']}' is missing or blank")
    if action != "trigger" and key is None:
        raise UnrecognizedBody(f"'{names['dedup_key']}' is missing or blank")
    if key is not None and len(key) > KEY_AT_MOST:
        raise UnrecognizedBody(f"'{names['dedup_key']}' is too long (maximum is {KEY_AT_MOST} characters)")


def _made_key(payload: Mapping[str, Any]) -> str:
    """The dedup key of a trigger without one: the same whenever the same problem is reported."""
    parts = (long_text_in(payload.get(name)) or "" for name in ("source", "component", "group", "class", "summary"))
    return digest_of("no dedup key", *parts)[:32]


def _texts_of(event: Mapping[str, Any], payload: Mapping[str, Any], key: str) -> Texts:
    """Labels from the details, and from the fields of the event, which count where they say the same."""
    found = details_as_texts(payload.get("custom_details"), never_labels=_NO_LABELS)
    summary = long_text_in(payload.get("summary")) or ""
    client, source = label_in(event.get("client")), label_in(payload.get("source"))
    fields = {name: label_in(payload.get(name)) for name in ("severity", "component", "group", "class")}
    if source is not None:
        source = source.removesuffix(" : *UNKNOWN*")  # of Zabbix, for a host without an address
    host = next((found.labels[name] for name in _HOSTS if name in found.labels), None)
    defaults = {
        "alertname": fields["class"] or label_in(" ".join(summary.split())[:TEXT_AT_MOST]),
        "instance": host or (source if source != client else None),
    }
    labels = {name: value for name, value in defaults.items() if value} | found.labels
    labels |= {name: value for name, value in (fields | {"client": client}).items() if value}
    annotations = {"summary": summary, "dedup_key": key} | found.annotations
    return Texts(labels, {name: text for name, text in annotations.items() if text}, found.flags)


def _first_link(links: Any) -> Any:
    first = links[0] if isinstance(links, list) and links else None
    return object_in(first).get("href")


def _answer(status: int, members: Mapping[str, Any]) -> Answer:
    return Answer(status, msgspec.json.encode(members))


DESCRIBES = """For tools that page through PagerDuty: point them to this address instead. The `routing_key` (in version
1 the `service_key`) is a token of the source. A trigger fires the alert with its `dedup_key`, a resolve ends it, and an
acknowledge acknowledges its incident. Short values in `custom_details` become labels, so that they can name the
`service` and the `environment`. Responses are those of PagerDuty: 202, in version 1 200, with the dedup key; 400 with
`errors`; 503 with `Retry-After` under overload. A trigger without a `dedup_key` gets one made from its source,
component, group, class and summary, unless its severity is `info`: then it is ignored.

A change event (`/v2/change/enqueue`) is a deployment if `payload.custom_details` contains an environment
(`environment`, `env`, …) or a `deployment_id`; any other event (a push, a merge, a run of Puppet) is a change, which
never counts in the DORA metrics. For a deployment, `custom_details` may also contain `service` (defaults to
`payload.source`), `version`, `sha`, `outcome`, `commits`, `unplanned`, `made_for` and `rolled_back`. If
`deployment_id` and `id` are omitted, the id is derived from the event. A deployment without an outcome counts as
succeeded."""

EXAMPLE: Mapping[str, Any] = {
    "routing_key": "0123456789abcdef0123456789abcdef",
    "event_action": "trigger",
    "dedup_key": "db-1/replication",
    "client": "shop-monitor",
    "client_url": "https://monitor.example.org/events/91",
    "payload": {
        "summary": "Replication lag 40 s",
        "source": "db-1.eu.example.org",
        "severity": "critical",
        "timestamp": "2026-08-20T10:00:45.315+0000",
        "component": "postgres",
        "group": "checkout",
        "class": "replication_lag",
        "custom_details": {"service": "checkout", "environment": "production", "lag_seconds": 40},
    },
    "links": [{"href": "https://wiki.example.org/lag", "text": "runbook"}],
}

_EXAMPLE_1: Mapping[str, Any] = {
    "service_key": "0123456789abcdef0123456789abcdef",
    "event_type": "trigger",
    "incident_key": "nightly-backup",
    "description": "nightly-backup is down",
    "client": "Healthchecks.io",
    "client_url": "https://hc.example.org",
    "details": {"host": "db-1", "service": "backup", "total_pings": 210},
    "contexts": [{"type": "link", "href": "https://hc.example.org/checks/1", "text": "check"}],
}

SENDER = Sender(
    kind="pagerduty-events",
    name="PagerDuty Events API",
    describes=DESCRIBES,
    read=read,
    example=EXAMPLE,
    credential=Credential(body=token_in),
    answer=answer,
    refuse=refuse,
    recognizes=recognizes,
    alphanumeric_tokens=True,
    endpoints=(
        Endpoint(EVENTS, ("POST",), name="event"),
        Endpoint(EVENTS_1, ("POST",), example=_EXAMPLE_1, name="event of version 1"),
        Endpoint(CHANGES, ("POST",), example=pagerduty_changes.EXAMPLE, name="change"),
        Endpoint("/webhooks/pagerduty-events"),
        Endpoint("/webhooks/pagerduty-events/{token}"),
    ),
)
