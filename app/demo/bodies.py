"""The requests of the demo as its senders and people would make them. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from app.base.http.requests.fields import rfc3339
from app.demo.catalog import GRAFANA, HEARTBEAT, LABELS
from app.demo.facts import Action, ActionItem, Alert, Deployment, Episode, Finding, Incident, Review
from app.incidents.grouping.signal import fingerprint_of

ADDRESSES = {GRAFANA: "https://grafana.example.com/"}


def first_delivery(incident: Incident) -> dict[str, Any]:
    """All alerts of the incident fire."""
    return _body(incident.source, [_shown(alert, alert.episodes[0]) for alert in incident.alerts])


def later_deliveries(incident: Incident) -> Iterator[dict[str, Any]]:
    """The ends of its alerts. An alert that comes back fires again in the delivery that ends the episode before, so
    that no delivery ends an incident that will be reopened.
    """
    longest = max(len(alert.episodes) for alert in incident.alerts)
    for place in range(longest):
        shown = []
        for alert in incident.alerts:
            if place < len(alert.episodes) and alert.episodes[place].ended_at is not None:
                shown.append(_shown(alert, alert.episodes[place], is_over=True))
                shown += [_shown(alert, episode) for episode in alert.episodes[place + 1 : place + 2]]
        if shown:
            yield _body(incident.source, shown)


def heartbeat(source: str, began_at: datetime) -> dict[str, Any]:
    """It opens an incident of the platform if it is missing for longer than its rule allows."""
    labels = {"alertname": HEARTBEAT, "service": "demo-platform", "environment": "production", **LABELS}
    alert = Alert(labels, "this alert always fires", [Episode(began_at, None)])
    return _body(source, [_shown(alert, alert.episodes[0])])


def unreadable(source: str, at: datetime) -> dict[str, Any]:
    """A script sends a date as dd/mm/yyyy, which goes to quarantine."""
    labels = {"alertname": "BackupLate", "service": "demo-reports", "environment": "production", **LABELS}
    shown = _shown(Alert(labels, "the backup of yesterday is missing", [Episode(at, None)]), Episode(at, None))
    return _body(source, [shown | {"startsAt": f"{at:%d/%m/%Y %H:%M}"}])


def report_of(deployment: Deployment, *, made_for: str | None = None) -> dict[str, Any]:
    """`made_for`: the number of an incident."""
    body: dict[str, Any] = {
        "id": deployment.id,
        "service": deployment.service,
        "environment": "production",
        "outcome": deployment.outcome,
        "version": deployment.version,
        "sha": deployment.sha,
        "started_at": rfc3339(deployment.started_at),
        "finished_at": rfc3339(deployment.finished_at),
        "commits": [{"sha": sha, "at": rfc3339(at)} for sha, at in deployment.commits],
    }
    if deployment.unplanned:
        body["unplanned"] = True
    if made_for:
        body["made_for"] = made_for
    if deployment.rolled_back:
        body["rolled_back"] = deployment.rolled_back
    return body


def declaration_of(incident: Incident) -> dict[str, Any]:
    declared = incident.declaration
    assert declared is not None, "the incident is declared"
    return {
        "title": declared.title,
        "service": incident.service,
        "environment": incident.environment,
        "severity": declared.severity,
        "impact_started_at": rfc3339(declared.impact_started_at),
        "detected_at": rfc3339(incident.began_at),
        "by": declared.by,
    }


def request_of(action: Action, number: str) -> tuple[str, str, dict[str, Any]]:
    """Method, path and body."""
    path = f"/api/v1/incidents/{number}"
    who = {"at": rfc3339(action.at), "by": action.by}
    note: dict[str, Any] = {} if action.note is None else {"note": action.note}
    match action.kind:
        case "correct":
            return "PATCH", path, {"by": action.by, **action.detail}
        case "identified" | "mitigated":
            place, body = "milestones", note | {"milestone": action.kind}
        case "note":
            place, body = "timeline", note
        case "task":
            place, body = "tasks", {"text": action.note, **action.detail}
        case "fact" | "role":
            place, body = f"{action.kind}s", {**note, **action.detail}
        case "acknowledge" | "resolve":
            place, body = action.kind, note
    return "POST", f"{path}/{place}", who | body


# — reviews —


def review_of(review: Review) -> dict[str, Any]:
    """What people write before and after the meeting."""
    return {
        "title": review.title,
        "summary": review.summary,
        "customer_impact": review.customer_impact,
        "resolution": review.resolution,
        "facilitator": review.facilitator,
        "participants": [{"person": one.person, "part": one.part} for one in review.participants],
    }


def meeting_of(review: Review) -> dict[str, Any]:
    return {
        "held_at": rfc3339(review.held_at),
        "duration_seconds": round(review.lasted.total_seconds()),
        "attended": [one.person for one in review.participants if one.attended],
    }


def finding_of(finding: Finding) -> dict[str, Any]:
    return asdict(finding)


def action_item_of(item: ActionItem, review: str, finding: str) -> dict[str, Any]:
    """`review` is its number, `finding` the id."""
    body = asdict(item) | {"review": review, "finding": finding, "due_at": rfc3339(item.due_at)}
    del body["done_at"]
    return body


def _body(source: str | None, shown: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """As Alertmanager sends it, and Grafana with some more fields."""
    assert source is not None, "the incident has alerts"
    is_firing = any(alert["status"] == "firing" for alert in shown)
    group = {name: shown[0]["labels"][name] for name in ("alertname", "service")}
    body: dict[str, Any] = {
        "receiver": "aftermath",
        "status": "firing" if is_firing else "resolved",
        "alerts": shown,
        "groupLabels": group,
        "commonLabels": group,
        "commonAnnotations": {},
        "externalURL": ADDRESSES.get(source, f"http://{source}:9093"),
        "version": "4",
        "groupKey": "{{}}:{{alertname={alertname!r}, service={service!r}}}".format(**group),
        "truncatedAlerts": 0,
    }
    if source == GRAFANA:
        title = f"[{'FIRING' if is_firing else 'RESOLVED'}:{len(shown)}] {group['alertname']}"
        body |= {"version": "1", "orgId": 1, "title": title, "state": "alerting" if is_firing else "ok", "message": ""}
    return body


def _shown(alert: Alert, episode: Episode, *, is_over: bool = False) -> dict[str, Any]:
    pending = {"for": alert.pending} if alert.pending else {}
    ended_at = episode.ended_at if is_over else None
    return {
        "status": "resolved" if is_over else "firing",
        "labels": dict(alert.labels),
        "annotations": {"summary": alert.summary, **pending},
        "startsAt": rfc3339(episode.started_at),
        "endsAt": rfc3339(ended_at) if ended_at else "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": fingerprint_of(alert.labels),
    }
