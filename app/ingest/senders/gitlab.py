"""GitLab's deployment and issue events. Other events are accepted and ignored.

A deployment is flat, times have the form `2026-08-20 10:00:45 +0200`, and only `commit_url` has the full sha.
"""

import re
from collections.abc import Mapping
from typing import Any

from app.base.values.facts import IssueEvent, IssueState, Outcome, Report
from app.ingest.reading.values import (
    LINK_AT_MOST,
    Ignored,
    link_in,
    moment_in,
    moment_or_arrival,
    object_in,
    outcome_in,
    read_report,
    required,
    text_in,
)
from app.ingest.sender import Credential, Reading, Request, Sender, fact_as_json


def read(request: Request) -> Reading:
    """The deployment or issue in an event of this sender. Raises UnrecognizedBody."""
    return read_report(request, _fact_in)


def _fact_in(message: Mapping[str, Any], request: Request) -> Report | IssueEvent | Ignored:
    """Raises Unreadable."""
    match message.get("object_kind"):
        case "deployment":
            return _report_in(message, request)
        case "issue" | "work_item":  # tasks, incidents and the like, and issues of later versions
            return _issue_in(message, request)
    return Ignored("another event")


def _issue_in(message: Mapping[str, Any], request: Request) -> IssueEvent | Ignored:
    """Raises Unreadable."""
    issue = object_in(message.get("object_attributes"))
    action, is_closed = text_in(issue.get("action")), issue.get("state") == "closed"
    # Closed or reopened together with a comment, GitLab may report only an update.
    has_changed = action in {"open", "close", "reopen"} or (
        action == "update" and "state_id" in object_in(message.get("changes"))
    )
    if not has_changed:
        return Ignored("the state of the issue did not change")
    state = IssueState.DONE if action == "close" or (action == "update" and is_closed) else IssueState.OPEN
    time = issue.get("created_at") if action == "open" else issue.get("updated_at")
    if state is IssueState.DONE:
        time = issue.get("closed_at") or time
    at, _ = moment_or_arrival(time, request)
    user = object_in(message.get("user"))
    by = text_in(user.get("username")) or text_in(user.get("name"))
    return IssueEvent(link_in(issue.get("url")), state, at, by=by, created=action == "open")


def _report_in(message: Mapping[str, Any], request: Request) -> Report:
    """Raises Unreadable."""
    outcome = outcome_in(required(message.get("status"), "state")) or Outcome.UNKNOWN
    reported_at = moment_in(message.get("status_changed_at"))
    commit = _COMMIT.search(text_in(message.get("commit_url"), LINK_AT_MOST) or "")
    environment = text_in(message.get("environment"))
    return Report(
        id=required(message.get("deployment_id"), "id"),
        # `name` is only shown: two projects may have the same, and it may be changed.
        service=text_in(request.query.get("service"))
        or required(object_in(message.get("project")).get("path_with_namespace"), "service"),
        outcome=outcome,
        reported_at=reported_at,
        environment=environment,
        production=True if text_in(message.get("environment_tier")) == "production" else None,
        version=text_in(message.get("ref")),
        sha=commit[1] if commit else text_in(message.get("short_sha")),
        link=text_in(message.get("deployable_url"), LINK_AT_MOST),
        started_at=reported_at if outcome is Outcome.IN_PROGRESS else None,
        finished_at=reported_at if outcome.final else None,
    )


_COMMIT = re.compile(r"/commit/([0-9a-f]{7,64})\b")

DESCRIBES = """Add a webhook to the project or group, with the triggers *Deployment events* and *Issues events* (or
*Work item events*). Set its `Secret token` to a token of scope `ingest`; GitLab sends it as `X-Gitlab-Token`.

Closing an issue completes the action item that has its address as `link`, and reopening it reopens the action item.

The service is the path of the project with its namespace (`acme/checkout`). If your alerts name it otherwise, end the
URL of the project's webhook with `?service=checkout`. GitLab does not send the times of commits. Add them with
`POST /api/v1/deployments`: give the name of the source as `source`, GitLab's deployment id as `id`, and the same
service and environment, for example from the job that deploys (`$CI_COMMIT_TIMESTAMP`)."""

EXAMPLE: Mapping[str, Any] = {
    "object_kind": "deployment",
    "status": "success",
    "status_changed_at": "2026-08-20 11:55:30 +0200",
    "deployment_id": 15,
    "deployable_url": "https://gitlab.example.org/acme/checkout/-/jobs/796",
    "environment": "production",
    "environment_tier": "production",
    "project": {"name": "checkout", "path_with_namespace": "acme/checkout"},
    "short_sha": "6113728f",
    "commit_url": "https://gitlab.example.org/acme/checkout/-/commit/6113728f27ae82c7b1a177c8d03f9e96e0adf246",
    "ref": "v1.42.0",
}

SENDER = Sender(
    kind="gitlab",
    name="GitLab",
    describes=DESCRIBES,
    read=read,
    example=EXAMPLE,
    answer=fact_as_json,
    credential=Credential(headers=("x-gitlab-token",)),
)
