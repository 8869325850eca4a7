"""Aftermath's own JSON for deployments, for CI jobs and for tools that send a template, such as Argo CD."""

from collections.abc import Mapping
from typing import Any

from app.base.values.facts import REPORT_EXAMPLE, Outcome, Report
from app.ingest.reading.values import (
    LINK_AT_MOST,
    commits_in,
    flag_in,
    moment_in,
    outcome_in,
    read_strictly,
    required,
    text_in,
)
from app.ingest.sender import Reading, Request, Sender, Unreadable, fact_as_json


def read(request: Request) -> Reading:
    """The deployment in an event of this sender. Raises UnrecognizedBody and UnusableReport."""
    return read_strictly(request, _report_in)


def _report_in(message: Mapping[str, Any], request: Request) -> Report:
    """Raises Unreadable."""
    del request
    return Report(
        id=required(message.get("id"), "id"),
        service=required(message.get("service"), "service"),
        outcome=_outcome(message.get("outcome")),
        environment=text_in(message.get("environment")),
        production=flag_in(message.get("production")),
        version=text_in(message.get("version")),
        sha=text_in(message.get("sha")),
        link=text_in(message.get("link"), LINK_AT_MOST),
        started_at=moment_in(message.get("started_at")),
        finished_at=moment_in(message.get("finished_at")),
        commits=commits_in(message.get("commits")),
        unplanned=flag_in(message.get("unplanned")),
        made_for=text_in(message.get("made_for")),
        needed_intervention=flag_in(message.get("needed_intervention")),
        rolled_back=text_in(message.get("rolled_back")),
    )


def _outcome(value: Any) -> Outcome | None:
    outcome = outcome_in(value)
    if outcome is Outcome.UNKNOWN and value != Outcome.UNKNOWN:
        detail = "`outcome` is not a known outcome; use `succeeded`, `failed`, `canceled`, `in_progress` or `unknown`"
        raise Unreadable("unknown_outcome", detail)
    return outcome


DESCRIBES = """The JSON of `POST /api/v1/deployments`, but more lenient: only `id` and `service` are required, unknown
fields are ignored, and empty strings count as omitted. `outcome` may be a word that your CI uses (`success`,
`UNSTABLE`, `timed_out`, `done`, …). Times may be RFC 3339, RFC 2822 or Unix times in seconds or milliseconds. Reports
of this source with the same `id`, `service` and `environment` describe one deployment: send one at the start, one at
the end, and the commits as soon as you know them. A report that cannot be used is refused with 422, so that
`curl --fail` fails the job.

A sync that deploys the same `sha` and `version` that are running already is stored as a change, not as a deployment.

To have Argo CD send it, add this to `argocd-notifications-cm`, for a source of kind `deployments`:

```yaml
service.webhook.aftermath: |
  url: https://aftermath.example.org
  headers:
    - name: Authorization
      value: Bearer $aftermath-token
    - name: Content-Type
      value: application/json
template.aftermath-deployment: |
  webhook:
    aftermath:
      method: POST
      path: /webhooks/deployments
      body: |
        {
          "id": "argocd-{{.app.metadata.uid}}-{{.app.status.operationState.startedAt}}",
          "service": "{{.app.metadata.name}}",
          "environment": "{{.app.spec.destination.namespace}}",
          "sha": "{{.app.status.sync.revision}}",
          "outcome": "{{.app.status.operationState.phase}}",
          "started_at": "{{.app.status.operationState.startedAt}}",
          "finished_at": "{{.app.status.operationState.finishedAt}}"
        }
trigger.on-aftermath-deployment: |
  - when: app.status.operationState.phase in ['Running', 'Succeeded', 'Error', 'Failed']
    oncePer: app.status.operationState.startedAt + app.status.operationState.phase
    send: [aftermath-deployment]
```

Subscribe with the annotation `notifications.argoproj.io/subscribe.on-aftermath-deployment.aftermath: ""`. If the
namespace is not the name of the environment, set for example `"environment": "production"`."""

SENDER = Sender(
    kind="deployments",
    name="a CI job or Argo CD",
    describes=DESCRIBES,
    read=read,
    example=REPORT_EXAMPLE,
    answer=fact_as_json,
)
