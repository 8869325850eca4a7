"""End to end with a real Alertmanager that pages and reports in one receiver, as docs/senders/one-receiver.yml says:
what it sends by four ways is one incident, and an acknowledgement through PagerDuty's library finds it.
"""

import re
from contextlib import ExitStack
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pagerduty import EventsApiV2Client

from tests.processes import REPOSITORY, Server, Service, an_alertmanager, free_port, until
from tests.tls import https_for

CONFIG = (REPOSITORY / "docs" / "senders" / "one-receiver.yml").read_text()
KINDS = ("alertmanager", "opsgenie-alerts", "pagerduty-events", "splunk-on-call")
LABELS = {"alertname": "HostDown", "service": "checkout", "environment": "prod", "severity": "critical"}


@pytest.mark.debian
@pytest.mark.slow
def test_four_ways_lead_to_one_incident_that_a_pager_acknowledges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(tmp_path, {})
    with ExitStack() as stack:
        running = stack.enter_context(service.serve())
        client = stack.enter_context(running.client())
        tokens = {kind: a_token(service, kind) for kind in KINDS}
        config = with_tokens(CONFIG.replace("http://127.0.0.1:8080", service.url), tokens)
        alertmanager = stack.enter_context(an_alertmanager(tmp_path, hurried(config), free_port()))

        began = datetime.now(UTC)
        post(alertmanager, "db-1", began)
        until(lambda: len(the_alerts(client)) == len(KINDS), "all four ways report the alert")
        [opened] = incidents(client)
        assert sorted(opened["sources"]) == [*KINDS]
        shown = ("status", "service", "environment", "severity", "acknowledged_at")
        assert [opened[name] for name in shown] == ["open", "checkout", "production", "sev1", None]
        assert datetime.fromisoformat(opened["detected_at"]) == began

        # One key by all ways: the SHA-256 of the key of the group.
        [group] = alertmanager.get("/api/v2/alerts/groups").json()
        assert group["labels"] == {name: LABELS[name] for name in ("alertname", "service", "environment")}
        matched = ", ".join(f'{name}="{LABELS[name]}"' for name in sorted(group["labels"]))
        key = sha256(f"{{}}:{{{matched}}}".encode()).hexdigest()
        named = {name: text for alert in the_alerts(client) for name, text in alert["annotations"].items()}
        assert {named[name] for name in ("dedup_key", "alias", "entity_id")} == {key}

        secured = stack.enter_context(https_for(service.url, tmp_path))
        monkeypatch.setenv("SSL_CERT_FILE", str(secured.certificate))
        before = datetime.now(UTC)
        EventsApiV2Client(tokens["pagerduty-events"], base_url=secured.url).acknowledge(key)
        [acknowledged] = incidents(client)
        at = datetime.fromisoformat(acknowledged["acknowledged_at"])
        assert acknowledged["status"] == "acknowledged"
        assert before <= at <= datetime.now(UTC)
        assert acknowledged["measures"]["time_to_acknowledge"] == {
            "seconds": pytest.approx((at - began).total_seconds()),
            "status": "recorded",
            "reason": None,
        }

        ended = datetime.now(UTC)
        post(alertmanager, "db-1", began, ended)
        until(lambda: incidents(client)[0]["status"] == "resolved", "all four ways report the end")
        [resolved] = incidents(client)
        assert resolved["number"] == opened["number"]
        ends = [datetime.fromisoformat(alert["ended_at"]) for alert in the_alerts(client)]
        # Only the webhook reports the time; the others end the alert when they arrive.
        assert min(ends) == ended
        assert datetime.fromisoformat(resolved["resolved_at"]) == max(ends)
        assert resolved["measures"]["time_to_acknowledge"] == acknowledged["measures"]["time_to_acknowledge"]


def a_token(service: Service, kind: str) -> str:
    return service.command("token", "create", kind, "--scope", "ingest", "--source", kind, "--kind", kind).strip()


def with_tokens(config: str, tokens: dict[str, str]) -> str:
    return re.sub(r"token-of-kind-([a-z-]+)", lambda found: tokens[found[1]], config)


def hurried(config: str) -> str:
    """With the smallest intervals."""
    document = yaml.safe_load(config)
    document["route"] |= {"group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h"}
    return yaml.safe_dump(document)


def post(alertmanager: Server, instance: str, began: datetime, ended: datetime | None = None) -> None:
    alert: dict[str, Any] = {"labels": {**LABELS, "instance": instance}, "startsAt": began.isoformat()}
    if ended is not None:
        alert["endsAt"] = ended.isoformat()
    alertmanager.post("/api/v2/alerts", json=[alert]).raise_for_status()


def incidents(client: httpx.Client) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get("/api/v1/incidents").json()["items"]
    return items


def the_alerts(client: httpx.Client) -> list[dict[str, Any]]:
    found = incidents(client)
    if not found:
        return []
    items: list[dict[str, Any]] = client.get(f"/api/v1/incidents/{found[0]['number']}/alerts").json()["items"]
    return items
