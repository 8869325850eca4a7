"""PagerDuty's outgoing webhooks (V3): who acknowledged an incident, took that back, or resolved it.

They open nothing. An incident refers to the alert that began it by `incident_key`, which is the dedup key with which a
monitoring tool triggered it; for Alertmanager that is the SHA-256 of the group key. What has no person as its agent was
done by automation.

PagerDuty drops a delivery that is answered 4xx, and after three of them it disables the subscription for a day. So
everything that it may send is answered 2xx.
"""

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.base.errors import UnrecognizedBody
from app.base.values.facts import Reaction, ReactionKind
from app.ingest.reading.details import identity_in, long_text_in, moment_in
from app.ingest.reading.values import message_in, object_in, text_in
from app.ingest.sender import Reading, Rejected, Request, Sender, Unreadable

SIGNATURE_HEADER = "X-PagerDuty-Signature"


def read(request: Request) -> Reading:
    """What a person did about an incident. Raises UnrecognizedBody for a body that is not a webhook of PagerDuty."""
    try:
        message = message_in(request)
    except Unreadable as bad:
        return Reading(rejected=(Rejected(bad.reason, bad.detail),))
    if "event" not in message:
        if isinstance(message.get("messages"), list):
            return Reading(ignored="webhooks_v2")  # not supported by PagerDuty since 2022
        raise UnrecognizedBody(_EXPECTED)
    event = object_in(message["event"])
    kind = text_in(event.get("event_type"))
    done = _KINDS.get(kind or "")
    if done is None:
        return Reading(ignored="ping" if kind == "pagey.ping" else "other_event")
    person = _person_in(event)
    if person is None and done is not ReactionKind.UNACKNOWLEDGED:
        return Reading(ignored="automation")
    data = object_in(event.get("data"))
    key = identity_in(data.get("incident_key") or object_in(data.get("incident")).get("incident_key"))
    if key is None:
        # An incident that a person opened in PagerDuty, and a note, which names its incident only by PagerDuty's id.
        return Reading(ignored="no_incident_key")
    at = moment_in(event.get("occurred_at"), request.received_at)
    reaction = Reaction(
        done,
        at.at or request.received_at,
        correlation=key,
        by=person,
        note=long_text_in(data.get("content")) if done is ReactionKind.NOTE else None,
        at_arrival=at.at is None,
    )
    return Reading(reactions=(reaction,))


def verify(
    request: Request, *, secret: str, now: datetime, header: str | None = None, timestamp_header: str | None = None
) -> bool:
    """Whether one of the signatures is `v1=` and the SHA-256 HMAC of the body in hex. While a secret is rotated, there
    are several. The time is not signed.
    """
    del now, timestamp_header
    expected = b"v1=" + hmac.new(secret.encode(), request.body, "sha256").hexdigest().encode()
    sent = request.headers.get((header or SIGNATURE_HEADER).lower(), "").encode(errors="replace")
    given = [signature.strip() for signature in sent.split(b",", SIGNATURES_AT_MOST)[:SIGNATURES_AT_MOST]]
    # All are compared, so that the time does not depend on which one is right. With an empty secret, anyone could sign.
    return sum(hmac.compare_digest(expected, signature) for signature in given) > 0 and bool(secret)


def recognizes(message: Mapping[str, Any]) -> bool:
    return "event_type" in object_in(message.get("event"))


SIGNATURES_AT_MOST = 10
_KINDS = {
    "incident.acknowledged": ReactionKind.ACKNOWLEDGED,
    "incident.unacknowledged": ReactionKind.UNACKNOWLEDGED,  # also when it times out
    "incident.reopened": ReactionKind.UNACKNOWLEDGED,  # its responders are paged again
    "incident.resolved": ReactionKind.CLOSED,
    "incident.annotated": ReactionKind.NOTE,
}
_EXPECTED = (
    "Expected a JSON object with an `event`, as PagerDuty's webhooks (V3) send it. "
    "Add a generic webhook (v3) in PagerDuty under Integrations with this address."
)


def _person_in(event: Mapping[str, Any]) -> str | None:
    """The name of the person who did it; None if no one did. A service or an integration is no person."""
    agent = object_in(event.get("agent"))
    is_person = (text_in(agent.get("type")) or "").startswith("user")
    return (text_in(agent.get("summary")) or text_in(agent.get("id")) or "somebody") if is_person else None


DESCRIBES = """Webhooks (V3) of PagerDuty, which report who acknowledged an incident there. They open no incident: they
concern the alerts that PagerDuty knows by the same dedup key, which is part of Alertmanager's webhook and of events
sent to the PagerDuty-compatible endpoints. Set the secret that PagerDuty shows as the `hmac_secret` of the source.
Everything that PagerDuty sends gets a 2xx, because it disables webhooks that are refused."""

EXAMPLE: Mapping[str, Any] = {
    "event": {
        "id": "01DEN0V2VIFEN1F4TC0J5LRQYZ",
        "event_type": "incident.acknowledged",
        "resource_type": "incident",
        "occurred_at": "2026-08-20T10:03:11.402Z",
        "agent": {"id": "PLH1HKV", "type": "user_reference", "summary": "Alex Doe"},
        "client": {"name": "PagerDuty"},
        "data": {
            "id": "PGR0VU2",
            "type": "incident",
            "number": 2,
            "status": "acknowledged",
            "incident_key": "db-1/replication",
            "created_at": "2026-08-20T10:00:45Z",
            "title": "Replication lag 40 s",
            "service": {"id": "PF9KMXH", "summary": "API Service", "type": "service_reference"},
            "urgency": "high",
        },
    }
}

SENDER = Sender(
    kind="pagerduty",
    name="PagerDuty webhooks",
    describes=DESCRIBES,
    read=read,
    example=EXAMPLE,
    verify=verify,
    recognizes=recognizes,
)
