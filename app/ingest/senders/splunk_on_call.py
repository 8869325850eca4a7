"""Splunk On-Call's REST endpoint (formerly VictorOps). Tools that page through it send here instead, and its outgoing
webhooks report acknowledgements in the same form, with the template in docs/senders/splunk-on-call.md.

A tool refers to an alert by its entity id. The key in the path is the token of the source.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from app.base.errors import Problem, UnrecognizedBody
from app.base.values.facts import Reaction, ReactionKind
from app.incidents.grouping.signal import Status
from app.ingest.reading.details import (
    IDENTITY_AT_MOST,
    Moment,
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
from app.ingest.reading.values import TEXT_AT_MOST, message_in, text_in
from app.ingest.sender import (
    Answer,
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

ADDRESS = "/integrations/generic/20131114/alert/{token}"


def read(request: Request) -> Reading:
    """The signal, acknowledgement or note in a request. Raises UnrecognizedBody."""
    try:
        message = message_in(request)
    except Unreadable as bad:
        return Reading(rejected=(Rejected(bad.reason, bad.detail),))
    word = text_in(message.get("message_type"))
    if word is None:
        raise UnrecognizedBody("Missing fields: message_type")
    received_at = request.received_at
    key = _entity_in(message)
    fingerprint = digest_of("victorops", key)
    at = moment_in(message.get("timestamp"), received_at)
    kind = _REACTIONS.get(word.upper())
    status = _STATUSES.get(word.upper())
    if status is None:
        text = long_text_in(message.get("ack_msg") or message.get("ack_message") or message.get("state_message"))
        reaction = Reaction(
            kind or ReactionKind.NOTE,  # as Splunk On-Call does, for INFO and for unknown words
            at.at or received_at,
            fingerprint,
            key,
            by=person_in(message.get("ack_author")),
            note=text or long_text_in(message.get("entity_display_name")),
            at_arrival=at.at is None,
        )
        return Reading(reactions=(reaction,))
    signal = signal_of(
        key,
        fingerprint,
        status,
        _texts_of(message, request, word),
        # The start of a state that has ended is not that of the alert.
        started_at=moment_in(message.get("state_start_time"), received_at) if status is Status.FIRING else Moment(None),
        happened_at=at,
        received_at=received_at,
        link=_link_in(message),
        size=len(request.body),
    )
    return Reading((signal,))


def answer(outcome: Receipt | SpoolReceipt, request: Request) -> Answer:
    """As Splunk On-Call answers a request that it has accepted. Clients check `result`."""
    del outcome
    message: Mapping[str, Any] = {}
    with suppress(Problem, Unreadable):  # then it is in quarantine
        message = message_in(request)
    return _answer(200, {"result": "success", "entity_id": _entity_in(message)})


def refuse(refusal: Refusal) -> Answer:
    """Never 404, after which some clients stop sending for good."""
    return _answer(400 if refusal.status == 404 else refusal.status, {"result": "failure", "message": refusal.detail})


def recognizes(message: Mapping[str, Any]) -> bool:
    return "message_type" in message


# As a firing or a resolve: `OK` is the former word for RECOVERY, which Zabbix still sends.
_STATUSES = {
    "CRITICAL": Status.FIRING,
    "WARNING": Status.FIRING,
    "RECOVERY": Status.RESOLVED,
    "OK": Status.RESOLVED,
}
_REACTIONS = {"ACKNOWLEDGEMENT": ReactionKind.ACKNOWLEDGED, "ACK": ReactionKind.ACKNOWLEDGED}
_HOSTS = ("hostname", "host_name")
_ANNOTATIONS = {"entity_display_name": "summary", "state_message": "description"}
_OTHER = frozenset(
    {
        *("message_type", "entity_id", "timestamp", "state_start_time", "ack_author", "ack_msg", "ack_message"),
        *("alert_url", "event_info", "image_url", "api_key", "routing_key", "VO_ORGANIZATION_ID", "entity_is_host"),
        *_HOSTS,
        *_ANNOTATIONS,
    }
)
_ANNOTATED = "vo_annotate."
_LINK = f"{_ANNOTATED}u."
_NO_LABELS = frozenset(
    {"operational_data", "event_duration"}
)  # of Zabbix: they differ from one notification to the next


def _entity_in(message: Mapping[str, Any]) -> str:
    """The entity id; without one, the same for the same name and host."""
    key = identity_in(message.get("entity_id"))
    if key is not None:
        return key if len(key) <= IDENTITY_AT_MOST else digest_of("entity id", key)
    names = ("entity_display_name", "hostname", "host_name", "monitoring_tool")
    return digest_of("no entity id", *(long_text_in(message.get(name)) or "" for name in names))[:32]


def _texts_of(message: Mapping[str, Any], request: Request, word: str) -> Texts:
    """All fields of the request that its form does not know are details."""
    details = {name: value for name, value in message.items() if name not in _OTHER and not name.startswith(_ANNOTATED)}
    found = details_as_texts(details, never_labels=_NO_LABELS)
    named = {_ANNOTATIONS[name]: long_text_in(message.get(name)) for name in _ANNOTATIONS}
    summary = " ".join((named["summary"] or "").split())
    fields = {
        "alertname": label_in(summary[:TEXT_AT_MOST]) or label_in(message.get("entity_id")),
        "instance": next((host for name in _HOSTS if (host := label_in(message.get(name)))), None),
        "severity": word.lower() if word.upper() in {"CRITICAL", "WARNING"} else None,
        "route": label_in(request.path.get("route")),
    }
    labels = {name: value for name, value in fields.items() if value} | found.labels
    annotations = named | {"entity_id": _entity_in(message)} | found.annotations
    return Texts(labels, {name: text for name, text in annotations.items() if text}, found.flags)


def _link_in(message: Mapping[str, Any]) -> str:
    annotated = (value for name, value in message.items() if name.startswith(_LINK))
    return link_in(message.get("alert_url"), message.get("event_info"), next(annotated, None))


def _answer(status: int, members: Mapping[str, Any]) -> Answer:
    return Answer(status, msgspec.json.encode(members))


DESCRIBES = """For tools that page through Splunk On-Call (VictorOps): point them to this address instead. The key in
the path is a token of the source; a routing key may follow it. `CRITICAL` and `WARNING` fire the alert with its
`entity_id`, `RECOVERY` and `OK` end it, `ACKNOWLEDGEMENT` acknowledges its incident; `INFO`, like any other word, is a
note. Other fields become labels, so that they can name the `service` and the `environment`. Responses are those of
Splunk On-Call, but a wrong key never gets a 404."""

EXAMPLE: Mapping[str, Any] = {
    "message_type": "CRITICAL",
    "entity_id": "disk/db-1",
    "entity_display_name": "db-1 disk 97%",
    "state_message": "97 % of /var/lib/postgresql is in use",
    "state_start_time": 1787220045,
    "timestamp": 1787220191,
    "monitoring_tool": "nagios",
    "hostname": "db-1",
    "service": "checkout",
    "environment": "production",
    "vo_annotate.u.Runbook": "https://wiki.example.org/disk",
}

SENDER = Sender(
    kind="splunk-on-call",
    name="Splunk On-Call",
    describes=DESCRIBES,
    read=read,
    example=EXAMPLE,
    answer=answer,
    refuse=refuse,
    recognizes=recognizes,
    endpoints=(
        Endpoint(ADDRESS, ("POST",), name="alert"),
        Endpoint(f"{ADDRESS}/{{route}}", ("POST",), name="alert with route"),
        # Zabbix appends the routing key to its endpoint.
        Endpoint(f"{ADDRESS}/{{route}}/{{more}}", ("POST",), name="alert with two routes"),
        Endpoint("/webhooks/splunk-on-call"),
        Endpoint("/webhooks/splunk-on-call/{token}"),
    ),
)
