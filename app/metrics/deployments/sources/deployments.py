"""Our own JSON, for CI jobs and for whatever can send a template, such as Argo CD."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.metrics.deployments.deployment import Report, id_of
from app.metrics.deployments.source import (
    LINK_AT_MOST,
    Ignored,
    Source,
    commits_in,
    flag_in,
    moment_in,
    outcome_in,
    required,
    text_in,
)


def read(
    message: Mapping[str, Any], *, headers: Mapping[str, str], source: str, received_at: datetime
) -> Report | Ignored:
    """Raises Unreadable."""
    del headers, source, received_at
    return Report(
        id=id_of(required(message.get("id"), "id")),
        service=required(message.get("service"), "service"),
        outcome=outcome_in(message.get("outcome")),
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
    )


DESCRIBES = """The JSON of `POST /api/v1/deployments`, read leniently: `id` and `service` are needed, unknown fields
are skipped, empty text counts as absent, and `outcome` may be a word of your CI (`success`, `Failed`, `Running`, …).
Several reports with one `id` are one deployment: send one at the start, one at the end, and the commits whenever you
know them.

Argo CD sends it with this in `argocd-notifications-cm`, for a source of kind `deployments`:

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

Subscribe with the annotation `notifications.argoproj.io/subscribe.on-aftermath-deployment.aftermath: ""`. Where the
namespace is not the name of the environment, write `"environment": "production"` instead."""

EXAMPLE: Mapping[str, Any] = {
    "id": "checkout-1742",
    "service": "checkout",
    "environment": "production",
    "version": "1.42.0",
    "sha": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
    "outcome": "succeeded",
    "started_at": "2026-08-20T09:50:00Z",
    "finished_at": "2026-08-20T09:55:30Z",
    "commits": [{"sha": "6113728f27ae82c7b1a177c8d03f9e96e0adf246", "at": "2026-08-19T16:20:00Z"}],
    "unplanned": False,
    "link": "https://ci.example.org/checkout/1742",
}

SOURCE = Source(kind="deployments", name="a CI job or Argo CD", describes=DESCRIBES, read=read, example=EXAMPLE)
