"""Outgoing webhooks of Grafana OnCall and Grafana IRM: what people did about an alert group there.

They open and end nothing: the monitoring tool reports its alerts itself. The alerts are found by the group key of the
payload that created the alert group. Without one, as with OnCall's other integrations, they cannot be found: the
fingerprints of Grafana and Alertmanager are known here only together with their source.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from app.base.errors import UnrecognizedBody
from app.base.values.facts import Reaction, ReactionKind
from app.ingest.reading.values import Ignored, moment_or_arrival, object_in, read_report, text_in
from app.ingest.sender import Reading, Request, Sender


def read(request: Request) -> Reading:
    """The reaction in a webhook. Raises UnrecognizedBody."""
    return read_report(request, _reaction_in)


def recognizes(message: Mapping[str, Any]) -> bool:
    """Whether it is an outgoing webhook of OnCall."""
    return isinstance(message.get("event"), dict) and "alert_group" in message


def _reaction_in(message: Mapping[str, Any], request: Request) -> Reaction | Ignored:
    """Raises UnrecognizedBody and Unreadable."""
    event = object_in(message.get("event"))
    word = text_in(event.get("type"))
    if word is None or not isinstance(message.get("alert_group"), dict):
        raise UnrecognizedBody(_EXPECTED)
    kind = _KINDS.get(word.casefold())
    if kind is None:
        return Ignored("another event")
    user = object_in(message.get("user"))
    by = text_in(user.get("username")) or text_in(user.get("email"))
    if by is None and kind is not ReactionKind.UNACKNOWLEDGED:  # which OnCall also does when no one confirms
        return Ignored("not by a person")
    group_key = object_in(message.get("alert_payload")).get("groupKey")
    if not isinstance(group_key, str) or not group_key:
        return Ignored("no group key by which its alerts could be found")
    at, at_arrival = moment_or_arrival(event.get("time"), request)
    until = text_in(event.get("until"))
    return Reaction(
        kind,
        at,
        correlation=sha256(group_key.encode(errors="replace")).hexdigest(),
        by=by,
        note=None if kind is not ReactionKind.NOTE else f"silenced until {until}" if until else "silenced",
        at_arrival=at_arrival,
    )


_KINDS: Mapping[str, ReactionKind] = {
    "acknowledge": ReactionKind.ACKNOWLEDGED,
    "unacknowledge": ReactionKind.UNACKNOWLEDGED,
    "resolve": ReactionKind.CLOSED,
    "silence": ReactionKind.NOTE,
}
_EXPECTED = (
    "Expected a JSON object with `event` and `alert_group`, as an outgoing webhook of Grafana OnCall or IRM sends it. "
    "Turn on *Forward all* in the webhook, or leave its data template empty."
)

DESCRIBES = """Outgoing webhooks of Grafana OnCall and Grafana IRM: who acknowledged an alert group and when, took that
back, resolved or silenced it. The alerts are found by the group key in the payload of the alert group; without one, as
with integrations other than Alertmanager's and Grafana's, the event is ignored. It opens and ends no incident; events
without a person are ignored."""

EXAMPLE: Mapping[str, Any] = {
    "event": {"type": "acknowledge", "time": "2026-08-20T10:03:11.714058+00:00"},
    "user": {"id": "UVMX6YI9VY9PV", "username": "alex", "email": "alex@example.com"},
    "alert_group": {
        "id": "I6HNZGUFG4K11",
        "integration_id": "CZ7URAT4V3QF2",
        "alerts_count": 1,
        "state": "acknowledged",
        "created_at": "2026-08-20T10:00:48.231148Z",
        "acknowledged_at": "2026-08-20T10:03:11.714058Z",
        "title": "HostDown",
    },
    "alert_group_id": "I6HNZGUFG4K11",
    "alert_payload": {
        "groupKey": '{}:{alertname="HostDown", service="checkout"}',
        "alerts": [{"fingerprint": "251096a51337be7d", "status": "firing"}],
    },
    "integration": {"id": "CZ7URAT4V3QF2", "type": "alertmanager", "name": "prod"},
}

SENDER = Sender(
    kind="grafana-oncall",
    name="Grafana OnCall and IRM",
    describes=DESCRIBES,
    read=read,
    recognizes=recognizes,
    example=EXAMPLE,
)
