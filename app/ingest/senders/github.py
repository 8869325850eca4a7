"""GitHub's `deployment_status` and `issues` events. Pings and other events are accepted and ignored.

All statuses of a deployment have its id. `inactive` means that a newer one replaced it, not that it failed. The payload
of a deployment is whatever its creator put there, an object or text.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.base.values.facts import Commit, IssueEvent, IssueState, Outcome, Report
from app.ingest.reading.values import (
    LINK_AT_MOST,
    Ignored,
    commits_in,
    flag_in,
    has_too_many_values,
    is_signed,
    link_in,
    moment_in,
    moment_or_arrival,
    object_in,
    outcome_in,
    read_report,
    required,
    text_in,
)
from app.ingest.sender import Reading, Request, Sender, fact_as_json

SIGNATURE_HEADER = "X-Hub-Signature-256"


def read(request: Request) -> Reading:
    """The deployment or issue in an event of this sender. Raises UnrecognizedBody."""
    return read_report(request, _fact_in)


def _fact_in(message: Mapping[str, Any], request: Request) -> Report | IssueEvent | Ignored:
    """Raises Unreadable."""
    match request.headers.get("x-github-event", "deployment_status"):
        case "deployment_status":
            return _report_in(message, request)
        case "issues":
            return _issue_in(message, request)
    return Ignored("another event")


def _issue_in(message: Mapping[str, Any], request: Request) -> IssueEvent | Ignored:
    """Raises Unreadable."""
    issue = object_in(message.get("issue"))
    by = text_in(object_in(message.get("sender")).get("login"))
    match message.get("action"):
        case "closed":
            why = _DROPPED.get(text_in(issue.get("state_reason")) or "")
            state, time = IssueState.DROPPED if why else IssueState.DONE, issue.get("closed_at")
        case "opened" | "reopened":
            why, state = None, IssueState.OPEN
            time = issue.get("created_at" if message["action"] == "opened" else "updated_at")
        case _:
            return Ignored("the state of the issue did not change")
    at, _ = moment_or_arrival(time, request)
    link = link_in(issue.get("html_url"))
    return IssueEvent(link, state, at, by=by, reason=why, created=message["action"] == "opened")


# By `state_reason`; without one, and with a word that is new, closing an issue means that it is done.
_DROPPED = {"not_planned": "closed as not planned", "duplicate": "closed as a duplicate"}


def _report_in(message: Mapping[str, Any], request: Request) -> Report | Ignored:
    """Raises Unreadable."""
    status, deployment = object_in(message.get("deployment_status")), object_in(message.get("deployment"))
    state = required(status.get("state"), "state")
    if state.lower() == "inactive":
        return Ignored("superseded")
    outcome = outcome_in(state) or Outcome.UNKNOWN
    reported_at = moment_in(status.get("created_at")) or moment_in(status.get("updated_at"))
    added = _payload(deployment.get("payload"))
    return Report(
        id=required(deployment.get("id"), "id"),
        service=text_in(added.get("service"))
        or text_in(request.query.get("service"))
        or required(object_in(message.get("repository")).get("name"), "service"),
        outcome=outcome,
        reported_at=reported_at,
        environment=text_in(status.get("environment")) or text_in(deployment.get("environment")),
        production=flag_in(deployment.get("production_environment")) or None,  # false is only GitHub's default
        version=text_in(added.get("version")) or text_in(deployment.get("ref")),
        sha=text_in(deployment.get("sha")),
        link=_link(status),
        started_at=reported_at if outcome is Outcome.IN_PROGRESS else None,
        finished_at=reported_at if outcome.final else None,
        commits=_commits(added, message),
        unplanned=flag_in(added.get("unplanned")),
        made_for=text_in(added.get("made_for")),
        rolled_back=text_in(added.get("rolled_back")),
    )


def verify(
    request: Request, *, secret: str, now: datetime, header: str | None = None, timestamp_header: str | None = None
) -> bool:
    """Whether the body is signed with `secret`."""
    del now, timestamp_header
    return is_signed(request, secret=secret, header=header or SIGNATURE_HEADER, prefix="sha256=")


def _payload(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        if has_too_many_values(value):
            return {}
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return object_in(value)


def _link(status: Mapping[str, Any]) -> str | None:
    names = ("log_url", "target_url", "environment_url")
    return next((link for name in names if (link := text_in(status.get(name), LINK_AT_MOST))), None)


def _commits(added: Mapping[str, Any], message: Mapping[str, Any]) -> tuple[Commit, ...]:
    """The commits in the payload, otherwise the head of the workflow run, for which GitHub may report a time."""
    if "commits" in added:
        return commits_in(added["commits"])
    head = object_in(object_in(message.get("workflow_run")).get("head_commit"))
    sha = text_in(head.get("id"))
    return (Commit(sha, moment_in(head.get("timestamp"))),) if sha else ()


DESCRIBES = """Add a webhook to the repository or organization. Use the URL with the token in the path, the content type
`application/json` and the events *Deployment statuses* and *Issues*. If you set a `Secret`, set the same value as the
`hmac_secret` of the source.

Closing an issue completes the action item that has its address as `link`, or drops it if the issue was closed as not
planned or as a duplicate; reopening the issue reopens the action item. Other events about issues are ignored.

The service is the name of the repository, unless the URL ends with `?service=…` or the `payload` of the deployment
contains `service`. The payload may also contain `version`, `commits` (`[{"sha", "at"}]`), `unplanned`, `made_for` and
`rolled_back`. You can add what GitHub does not send, above all commits and their times, with
`POST /api/v1/deployments`: give the name of the source as `source`, GitHub's deployment id as `id`, and the same
service and environment."""

EXAMPLE: Mapping[str, Any] = {
    "action": "created",
    "deployment_status": {
        "id": 20,
        "state": "success",
        "environment": "production",
        "log_url": "https://github.com/acme/checkout/actions/runs/7",
        "created_at": "2026-08-20T09:55:30Z",
        "updated_at": "2026-08-20T09:55:30Z",
    },
    "deployment": {
        "id": 10,
        "sha": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
        "ref": "v1.42.0",
        "environment": "production",
        "payload": {},
        "created_at": "2026-08-20T09:50:00Z",
    },
    "repository": {"name": "checkout", "full_name": "acme/checkout"},
}

SENDER = Sender(
    kind="github",
    name="GitHub",
    describes=DESCRIBES,
    read=read,
    verify=verify,
    example=EXAMPLE,
    answer=fact_as_json,
)
