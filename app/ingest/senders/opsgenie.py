"""The outgoing webhook of Opsgenie and Jira Service Management: what people did about an alert there.

It opens and ends nothing: the monitoring tool reports its alerts itself. `updatedAt` is the only time of an action; it
has 19 digits, milliseconds followed by a counter.
"""

from collections.abc import Mapping
from typing import Any

from app.base.errors import UnrecognizedBody
from app.base.values.facts import Reaction, ReactionKind
from app.ingest.reading.details import identity_in, long_text_in
from app.ingest.reading.values import Ignored, moment_or_arrival, object_in, read_report, text_in
from app.ingest.sender import Reading, Request, Sender, Unreadable


def read(request: Request) -> Reading:
    """The reaction in a webhook. Raises UnrecognizedBody."""
    return read_report(request, _reaction_in)


def recognizes(message: Mapping[str, Any]) -> bool:
    """Whether it is a webhook of Opsgenie."""
    return isinstance(message.get("alert"), dict) and "action" in message and "integrationId" in message


def _reaction_in(message: Mapping[str, Any], request: Request) -> Reaction | Ignored:
    """Raises UnrecognizedBody and Unreadable."""
    action, alert = text_in(message.get("action")), object_in(message.get("alert"))
    if action is None or not alert:
        raise UnrecognizedBody(_EXPECTED)
    kind = _KINDS.get(action.replace(" ", "").casefold())
    if kind is None:
        return Ignored("another action")
    by = text_in(alert.get("username"))
    if kind is not ReactionKind.UNACKNOWLEDGED and _is_automation(by, alert, message):
        return Ignored("not by a person")
    alias = identity_in(alert.get("alias")) or identity_in(alert.get("alertId"))
    if alias is None:
        raise Unreadable("no_identity", "the alert has neither an alias nor an id")
    at, at_arrival = moment_or_arrival(alert.get("updatedAt"), request)
    note = long_text_in(alert.get("note")) or _WITHOUT_NOTE.get(action.replace(" ", "").casefold())
    return Reaction(kind, at, correlation=alias, by=by, note=note, at_arrival=at_arrival)


def _is_automation(by: str | None, alert: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    """Whether an integration or a policy acted. Only people have a user id; a tool that acts for one names them."""
    if text_in(alert.get("userId")):
        return False
    nobody = (by or "").casefold() in {"", "system", "alert api", "api"}
    return nobody or by == text_in(object_in(message.get("source")).get("name"))


_KINDS: Mapping[str, ReactionKind] = {
    "acknowledge": ReactionKind.ACKNOWLEDGED,
    "unacknowledge": ReactionKind.UNACKNOWLEDGED,
    "close": ReactionKind.CLOSED,
    "addnote": ReactionKind.NOTE,
    "takeownership": ReactionKind.NOTE,
    "assignownership": ReactionKind.NOTE,
}
_WITHOUT_NOTE = {"takeownership": "took ownership of the alert", "assignownership": "assigned the alert"}
_EXPECTED = "Expected a JSON object with `action` and `alert`, as the webhook integration of Opsgenie sends it."

DESCRIBES = """The outgoing webhook of Opsgenie and of operations in Jira Service Management: who acknowledged an alert
there and when, took that back, closed it or added a note. The alert is found by its alias, which for Alertmanager is
the SHA-256 of the group key. It opens and ends no incident; actions of integrations and policies are ignored."""

EXAMPLE: Mapping[str, Any] = {
    "source": {"name": "", "type": "web"},
    "alert": {
        "alertId": "052652ac-5d1c-464a-812a-7dd18bbfba8c",
        "alias": "aa8ea89d9cf34f952c909881d11ebdc347c9a03341e2cb7f7de522a319ce1b09",
        "tinyId": "23",
        "message": "HostDown checkout",
        "tags": ["prod"],
        "username": "alex@example.com",
        "userId": "daed1180-0000-4000-8000-000000000001",
        "entity": "",
        "source": "alertmanager",
        "createdAt": 1787220045104,
        "updatedAt": 1787220191402002246,
    },
    "action": "Acknowledge",
    "integrationId": "37c8f316-17c6-49d7-899b-9c7e540c048d",
    "integrationName": "aftermath",
}

SENDER = Sender(
    kind="opsgenie",
    name="Opsgenie webhooks",
    describes=DESCRIBES,
    read=read,
    recognizes=recognizes,
    example=EXAMPLE,
)
