"""Webhooks of Jira, Cloud and Data Center: how the status of an issue changes. Other events are ignored.

Workflows name statuses as they like, but each has a category: to do, in progress or done. Whether what is done was
really done, only the name of the resolution shows. The body has no address for people: it is derived from that of the
REST API (`self`) and the key.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.base.errors import UnrecognizedBody
from app.base.values.facts import IssueEvent, IssueState
from app.ingest.reading.values import (
    LINK_AT_MOST,
    Ignored,
    is_signed,
    link_in,
    moment_or_arrival,
    object_in,
    read_report,
    text_in,
)
from app.ingest.sender import Reading, Request, Sender, Unreadable, fact_as_json

SIGNATURE_HEADER = "X-Hub-Signature"
CHANGES_AT_MOST = 200  # changed fields that are looked at


def read(request: Request) -> Reading:
    """The issue in a webhook. Raises UnrecognizedBody."""
    return read_report(request, _issue_in)


def recognizes(message: Mapping[str, Any]) -> bool:
    """Whether it is a webhook of Jira about an issue."""
    event = message.get("webhookEvent")
    return isinstance(event, str) and event.startswith("jira:")


def verify(
    request: Request, *, secret: str, now: datetime, header: str | None = None, timestamp_header: str | None = None
) -> bool:
    """Whether the body is signed with `secret`, as WebSub does it: `sha256=` and the HMAC in hexadecimal digits."""
    del now, timestamp_header
    return is_signed(request, secret=secret, header=header or SIGNATURE_HEADER, prefix="sha256=")


def _issue_in(message: Mapping[str, Any], request: Request) -> IssueEvent | Ignored:
    """Raises UnrecognizedBody and Unreadable."""
    event = text_in(message.get("webhookEvent"))
    if event is None:
        raise UnrecognizedBody(_EXPECTED)
    if event not in {"jira:issue_created", "jira:issue_updated"}:
        return Ignored("another event")
    issue = object_in(message.get("issue"))
    fields = object_in(issue.get("fields"))
    changed = _CHANGING.intersection(_changed(message))
    if event == "jira:issue_updated" and not changed:
        return Ignored("the state of the issue did not change")
    state, reason = _state(fields)
    at, _ = moment_or_arrival(message.get("timestamp") or fields.get("updated"), request)
    since, is_unknown = moment_or_arrival(fields.get("statuscategorychangedate"), request)
    is_known = not is_unknown and since <= at
    if is_known and changed == {"status"}:
        at = since  # the state is as old as the category: the new status may be another one of the same
    user = object_in(message.get("user"))
    return IssueEvent(
        _link(issue),
        state,
        at,
        since=since if is_known else None,
        by=text_in(user.get("displayName")) or text_in(user.get("name")),
        reason=reason,
        created=event == "jira:issue_created",
    )


def _changed(message: Mapping[str, Any]) -> set[str]:
    """The names of the fields that the event changed."""
    items = object_in(message.get("changelog")).get("items")
    shown = items[:CHANGES_AT_MOST] if isinstance(items, list) else ()
    return {text_in(object_in(one).get("field")) or "" for one in shown}


def _state(fields: Mapping[str, Any]) -> tuple[IssueState, str | None]:
    """The state, and if it is dropped, why. Raises Unreadable."""
    category = object_in(object_in(fields.get("status")).get("statusCategory")).get("key")
    state = _STATES.get(category) if isinstance(category, str) else None
    if state is None:
        raise Unreadable("no_state", "the status of the issue has no category, or an unknown one")
    resolution = text_in(object_in(fields.get("resolution")).get("name"))
    if state is IssueState.DONE and resolution and _NOT_DONE.search(resolution):
        return IssueState.DROPPED, f"closed as {resolution}"
    return state, None


def _link(issue: Mapping[str, Any]) -> str:
    """Raises Unreadable."""
    key = text_in(issue.get("key")) or ""
    site, found, _ = (text_in(issue.get("self"), LINK_AT_MOST) or "").partition("/rest/")
    if not found or not _KEY.fullmatch(key):
        raise Unreadable("no_link", "the issue has no key, or no address of the REST API")
    return link_in(f"{site}/browse/{key}")


_KEY = re.compile(r"[A-Z][A-Z0-9_]{0,99}-[0-9]{1,18}", re.ASCII)
_CHANGING = frozenset({"status", "resolution"})
_STATES = {
    "new": IssueState.OPEN,
    "undefined": IssueState.OPEN,
    "indeterminate": IssueState.IN_PROGRESS,
    "done": IssueState.DONE,
}
# The resolutions that Jira and Jira Service Management come with, and their usual spellings.
_NOT_DONE = re.compile(
    r"\b(won.?t|will not|declined|duplicate|cannot reproduce|can.?t reproduce|cancell?ed|abandoned|rejected|obsolete"
    r"|invalid|not a bug|incomplete)\b",
    re.IGNORECASE,
)
_EXPECTED = "Expected a JSON object with a `webhookEvent`, as a webhook of Jira sends it."

DESCRIBES = """Webhooks of Jira, events *Issue created* and *Issue updated*. The status of an issue becomes that of the
action item that has the address of the issue (`https://…/browse/OPS-7`) as `link`: by the category of the status it is
open, in progress or done; if it is done with a resolution such as *Won't do* or *Duplicate*, the action item is
dropped. If you set a secret in Jira, set the same value as the `hmac_secret` of the source. Changes that do not concern
the status are ignored."""

EXAMPLE: Mapping[str, Any] = {
    "timestamp": 1787219730123,
    "webhookEvent": "jira:issue_updated",
    "issue_event_type_name": "issue_generic",
    "user": {"accountId": "99:27935d01-92a7-4687-8272-a9b8d3b2ae2e", "displayName": "Cathy Smith"},
    "issue": {
        "id": "10002",
        "self": "https://acme.atlassian.net/rest/api/2/10002",
        "key": "OPS-7",
        "fields": {
            "summary": "Move the list of servers to the runbook",
            "status": {"name": "Done", "statusCategory": {"id": 3, "key": "done", "name": "Done"}},
            "resolution": {"name": "Done"},
            "statuscategorychangedate": "2026-08-20T11:55:30.100+0200",
        },
    },
    "changelog": {"id": "10124", "items": [{"field": "status", "fromString": "In Progress", "toString": "Done"}]},
}

SENDER = Sender(
    kind="jira",
    name="Jira",
    describes=DESCRIBES,
    read=read,
    verify=verify,
    recognizes=recognizes,
    example=EXAMPLE,
    answer=fact_as_json,
)
