"""PagerDuty's change events (`/v2/change/enqueue`), as many CI plugins send them.

The format has no fields for id, outcome or service, so they are read from `custom_details` if a sender puts them there.
An event without an outcome reports a change that has been made.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

from app.base.facts import Outcome, Report, deployment_id
from app.ingest.sender import Reading, Request, Sender, Unreadable, deployment_as_json
from app.ingest.values import (
    LINK_AT_MOST,
    commits_in,
    flag_in,
    moment_in,
    object_in,
    outcome_in,
    read_report,
    required,
    text_in,
)


def read(request: Request) -> Reading:
    """The deployment in an event of this sender. Raises NotThisKind."""
    return read_report(request, _report_in)


def _report_in(message: Mapping[str, Any], request: Request) -> Report:
    """Raises Unreadable."""
    payload = object_in(message.get("payload"))
    if not payload:
        raise Unreadable("no_payload", "the event has no payload")
    details = object_in(payload.get("custom_details"))

    def detail(*names: str) -> Any:
        return next((details[name] for name in names if text_in(details.get(name)) is not None), None)

    outcome = outcome_in(detail("outcome", "build_state", "status", "result", "state")) or Outcome.SUCCEEDED
    stated_at = moment_in(payload.get("timestamp"))
    at = stated_at or request.received_at
    identity = detail("deployment_id", "id") or _digest(payload, request.received_at if stated_at is None else None)
    return Report(
        id=deployment_id(f"{request.source}:{required(identity, 'id')}"),
        service=text_in(detail("service", "service_name", "application")) or required(payload.get("source"), "service"),
        outcome=outcome,
        told_at=stated_at,
        environment=text_in(detail("environment", "env")),
        version=text_in(detail("version", "tag", "release")),
        sha=text_in(detail("sha", "commit", "revision", "commit_sha")),
        link=_link(message.get("links")),
        started_at=moment_in(detail("started_at")) or (at if outcome is Outcome.IN_PROGRESS else None),
        finished_at=stated_at if outcome.final else None,
        commits=commits_in(details["commits"]) if isinstance(details.get("commits"), list) else (),
        unplanned=flag_in(details.get("unplanned")),
        made_for=text_in(details.get("made_for")),
    )


def _digest(payload: Mapping[str, Any], received_at: datetime | None) -> str:
    """Gives the same id for the same event; an event without a time is the same only within one day."""
    day = received_at.date().isoformat() if received_at else ""
    return sha256((json.dumps(payload, sort_keys=True) + day).encode()).hexdigest()[:24]


def _link(links: Any) -> str | None:
    first = links[0] if isinstance(links, list) and links else None
    return text_in(object_in(first).get("href"), LINK_AT_MOST)


DESCRIBES = """For tools that can send change events to a URL of your choice. `payload.custom_details` may contain
`deployment_id` (if omitted, the id is derived from the event), `service` (defaults to `payload.source`),
`environment`, `version`, `sha`, `outcome`, `commits`, `unplanned` and `made_for`. An event without an outcome counts
as succeeded. The `routing_key` is ignored: put the token into the path or the Authorization header."""

EXAMPLE: Mapping[str, Any] = {
    "routing_key": "0123456789abcdef0123456789abcdef",
    "payload": {
        "summary": "checkout 1.42.0 deployed to production",
        "source": "checkout",
        "timestamp": "2026-08-20T09:55:30.000+0000",
        "custom_details": {"environment": "production", "version": "1.42.0", "deployment_id": "1742"},
    },
    "links": [{"href": "https://ci.example.org/checkout/1742", "text": "Build 1742"}],
}

SENDER = Sender(
    kind="pagerduty-change",
    name="PagerDuty change events",
    describes=DESCRIBES,
    read=read,
    example=EXAMPLE,
    answer=deployment_as_json,
)
