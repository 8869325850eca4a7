"""PagerDuty's change events (`/v2/change/enqueue`), as many CI plugins send them. `pagerduty_events.py` has the sender.

They report anything that changed: pushes, merges, configuration, Puppet runs. Only an event whose `custom_details` name
an environment or a deployment is a deployment. The format has no fields for id, outcome or service, so they are read
from `custom_details` if a sender puts them there. A deployment without an outcome is one that has been made.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

from app.base.values.facts import Change, Outcome, Report
from app.base.values.vocabulary import ENVIRONMENT_LABELS, environment_of
from app.ingest.reading.values import (
    LINK_AT_MOST,
    commits_in,
    flag_in,
    moment_in,
    object_in,
    outcome_in,
    required,
    text_in,
)
from app.ingest.sender import Request, Unreadable


def report_in(message: Mapping[str, Any], request: Request) -> Report | Change:
    """The deployment or change in an event. Raises Unreadable."""
    payload = object_in(message.get("payload"))
    if not payload:
        raise Unreadable("no_payload", "the event has no payload")
    details = object_in(payload.get("custom_details"))

    def detail(*names: str) -> Any:
        return next((details[name] for name in names if text_in(details.get(name)) is not None), None)

    environment = text_in(detail(*ENVIRONMENT_LABELS))
    service = text_in(detail("service", "service_name", "application")) or required(payload.get("source"), "service")
    stated_at = moment_in(payload.get("timestamp"))
    at = stated_at or request.received_at
    identity = detail("deployment_id", "id") or _digest(payload, request.received_at if stated_at is None else None)
    version = text_in(detail("version", "tag", "release"))
    sha = text_in(detail("sha", "commit", "revision", "commit_sha"))
    link = _link(message.get("links"))
    if environment_of(environment or "") is None and detail(*_OF_DEPLOYMENTS) is None:
        return Change(
            id=required(identity, "id"),
            service=service,
            happened_at=at,
            summary=text_in(payload.get("summary"), SUMMARY_AT_MOST),
            version=version,
            sha=sha,
            link=link,
        )
    outcome = outcome_in(detail("outcome", "build_state", "status", "result", "state")) or Outcome.SUCCEEDED
    return Report(
        id=required(identity, "id"),
        service=service,
        outcome=outcome,
        reported_at=stated_at,
        environment=environment,
        version=version,
        sha=sha,
        link=link,
        started_at=moment_in(detail("started_at")) or (at if outcome is Outcome.IN_PROGRESS else None),
        finished_at=stated_at if outcome.final else None,
        commits=commits_in(details["commits"]) if isinstance(details.get("commits"), list) else (),
        unplanned=flag_in(details.get("unplanned")),
        made_for=text_in(details.get("made_for")),
        rolled_back=text_in(details.get("rolled_back")),
    )


SUMMARY_AT_MOST = 1024  # the limit of PagerDuty
_OF_DEPLOYMENTS = ("deployment_id", "deployment")


def _digest(payload: Mapping[str, Any], received_at: datetime | None) -> str:
    """Gives the same id for the same event; an event without a time is the same only within one day."""
    day = received_at.date().isoformat() if received_at else ""
    return sha256((json.dumps(payload, sort_keys=True) + day).encode()).hexdigest()[:24]


def _link(links: Any) -> str | None:
    first = links[0] if isinstance(links, list) and links else None
    return text_in(object_in(first).get("href"), LINK_AT_MOST)


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
