"""Webhooks of incident.io: when people accepted and closed an incident there.

They open and end nothing: the monitoring tool reports its alerts itself. Deliveries are signed as Svix does it. An
incident of incident.io does not name the alerts that it came from, so its alerts are found by a custom field of it.
"""

import base64
import binascii
import hmac
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from app.base.errors import UnrecognizedBody
from app.base.values.facts import Reaction, ReactionKind
from app.ingest.reading.details import identity_in, long_text_in
from app.ingest.reading.values import Ignored, moment_or_arrival, object_in, read_report, text_in
from app.ingest.sender import Reading, Request, Sender

ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
SIGNATURE_TOLERANCE = timedelta(minutes=5)
SECRET_PREFIX = "whsec_"  # noqa: S105  what comes before the secret
VALUES_AT_MOST = 200  # custom fields and timestamps of an incident that are looked at


def read(request: Request) -> Reading:
    """The reaction in a webhook. Raises UnrecognizedBody."""
    return read_report(request, _reaction_in)


def recognizes(message: Mapping[str, Any]) -> bool:
    """Whether it is a webhook of incident.io: the event is also the name of the member with its content."""
    event = message.get("event_type")
    return isinstance(event, str) and event in message


def verify(
    request: Request, *, secret: str, now: datetime, header: str | None = None, timestamp_header: str | None = None
) -> bool:
    """Whether one of the signatures (`v1,<base64>`, separated by spaces) is the HMAC-SHA256 of id, timestamp and body.

    The key is the secret behind `whsec_`, decoded from base64. The timestamp must be close to `now`.
    """
    sent = {name: request.headers.get(name, "") for name in (ID_HEADER, TIMESTAMP_HEADER)}
    timestamp = request.headers.get((timestamp_header or TIMESTAMP_HEADER).lower(), "")
    key = _key_of(secret)
    if not key or not sent[ID_HEADER] or not _is_close(timestamp, now):
        return False
    signed = f"{sent[ID_HEADER]}.{timestamp}.".encode(errors="replace") + request.body
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
    signatures = request.headers.get((header or SIGNATURE_HEADER).lower(), "").split(" ", SIGNATURES_AT_MOST)
    return any(hmac.compare_digest(expected, each.encode(errors="replace")) for each in signatures)


SIGNATURES_AT_MOST = 10  # while a secret is being replaced there are two


def _key_of(secret: str) -> bytes:
    """Empty for a secret that is not base64: no one could sign with it."""
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _is_close(timestamp: str, now: datetime) -> bool:
    try:
        return abs(int(timestamp) - int(now.timestamp())) <= SIGNATURE_TOLERANCE.total_seconds()
    except ValueError:
        return False


def _reaction_in(message: Mapping[str, Any], request: Request) -> Reaction | Ignored:
    """Raises UnrecognizedBody and Unreadable."""
    event = text_in(message.get("event_type"))
    if event is None:
        raise UnrecognizedBody(_EXPECTED)
    if not event.startswith("public_incident.incident_status_updated"):
        return Ignored("another event")
    content = object_in(message.get(event))
    incident = object_in(content.get("incident"))
    before, after = (_category(content.get(name)) for name in ("previous_status", "new_status"))
    after = after or _category(incident.get("incident_status"))
    kind = _KINDS.get(after or "")
    if kind is None or before == after or (kind is ReactionKind.ACKNOWLEDGED and before not in {None, "triage"}):
        return Ignored("another change of status")
    actor = object_in(content.get("actor") or content.get("updater"))
    if actor and not actor.get("user"):
        return Ignored("not by a person")
    correlation = _correlation(incident)
    if correlation is None:
        return Ignored("no custom field by which its alerts could be found")
    stated = _timestamp(incident, _TIMESTAMPS[kind]) or content.get("updated_at") or incident.get("updated_at")
    at, at_arrival = moment_or_arrival(stated, request)
    user = object_in(actor.get("user"))
    return Reaction(
        kind,
        at,
        correlation=correlation,
        by=text_in(user.get("email")) or text_in(user.get("name")),
        note=long_text_in(content.get("message")),
        at_arrival=at_arrival,
    )


def _category(status: Any) -> str | None:
    """`triage`, `live`, `learning`, `closed`, …: people may rename statuses, but not these."""
    return (text_in(object_in(status).get("category")) or "").casefold() or None


def _correlation(incident: Mapping[str, Any]) -> str | None:
    for entry in _objects(incident.get("custom_field_entries")):
        if _plain(object_in(entry.get("custom_field")).get("name")) in _FIELDS:
            for value in _objects(entry.get("values")):
                if found := identity_in(value.get("value_text")):
                    return found
    return None


def _timestamp(incident: Mapping[str, Any], wanted: str) -> Any:
    """A time that incident.io keeps about the incident, by name; people may correct these."""
    for each in _objects(incident.get("incident_timestamp_values")):
        if _plain(object_in(each.get("incident_timestamp")).get("name")) == wanted:
            return object_in(each.get("value")).get("value")
    return None


def _objects(values: Any) -> Iterator[Mapping[str, Any]]:
    return (object_in(one) for one in (values[:VALUES_AT_MOST] if isinstance(values, list) else ()))


def _plain(name: Any) -> str:
    return (text_in(name) or "").casefold().replace(" ", "").replace("_", "")


_KINDS: Mapping[str, ReactionKind] = {"live": ReactionKind.ACKNOWLEDGED, "closed": ReactionKind.CLOSED}
_TIMESTAMPS = {ReactionKind.ACKNOWLEDGED: "acceptedat", ReactionKind.CLOSED: "closedat"}
_FIELDS = frozenset({"correlation", "deduplicationkey"})
_EXPECTED = "Expected a JSON object with an `event_type`, as a webhook of incident.io sends it."

DESCRIBES = """Webhooks of incident.io, event *Incident status updated*: who accepted an incident and when (its status
left triage), and who closed it. The alerts are found by the text in a custom field of the incident named *Correlation*
or *Deduplication key*; without it the event is ignored. It opens and ends no incident. Set the signing secret
(`whsec_…`) as the `hmac_secret` of the source."""

EXAMPLE: Mapping[str, Any] = {
    "event_type": "public_incident.incident_status_updated_v2",
    "public_incident.incident_status_updated_v2": {
        "incident": {
            "id": "01FDAG4SAP5TYPT98WGR2N7W91",
            "reference": "INC-123",
            "name": "Checkout does not answer",
            "incident_status": {"name": "Investigating", "category": "live"},
            "custom_field_entries": [
                {
                    "custom_field": {"name": "Correlation", "field_type": "text"},
                    "values": [
                        {"value_text": "aa8ea89d9cf34f952c909881d11ebdc347c9a03341e2cb7f7de522a319ce1b09"},
                    ],
                }
            ],
            "incident_timestamp_values": [
                {"incident_timestamp": {"name": "Accepted at"}, "value": {"value": "2026-08-20T10:03:11.714Z"}}
            ],
            "updated_at": "2026-08-20T10:03:11.8Z",
        },
        "previous_status": {"name": "Triage", "category": "triage"},
        "new_status": {"name": "Investigating", "category": "live"},
        "actor": {"user": {"name": "Alex Doe", "email": "alex@example.com"}},
    },
}

SENDER = Sender(
    kind="incident-io",
    name="incident.io",
    describes=DESCRIBES,
    read=read,
    verify=verify,
    recognizes=recognizes,
    example=EXAMPLE,
)
