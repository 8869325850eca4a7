"""End to end without an Alertmanager: Debian's Prometheus, vmalert and amtool use the service as if it were one."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import RunningService, Service, a_prometheus, a_victoria, a_vmalert, free_port, program, until
from tests.test_end_to_end import RULES, a_shop, an_incident, asked, moment

SOON = {"AFTERMATH_WATCH_INTERVAL_SECONDS": "1"}
# After an end that was announced, the service waits as long for a report that may be on its way.
NOTICED_WITHIN = timedelta(seconds=90)

PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{directory}/rules.yml]
alerting:
  alertmanagers:
    - path_prefix: /am/{token}
      static_configs: [{{targets: ["127.0.0.1:{aftermath}"]}}]
scrape_configs:
  - job_name: shop
    static_configs: [{{targets: ["127.0.0.1:{shop}"]}}]
"""


@contextmanager
def a_service(directory: Path) -> Iterator[tuple[RunningService, httpx.Client, str]]:
    """The service, a client of it, and a token for clients of Alertmanager."""
    service = Service(directory, SOON)
    with service.serve() as running, running.client() as client:
        created = ("--scope", "ingest", "--source", "prometheus", "--kind", "alertmanager-api")
        yield running, client, service.command("token", "create", "prometheus", *created).split()[-1]


def listed(client: httpx.Client) -> list[Any]:
    """What the service lists as Alertmanager's API does."""
    alerts: list[Any] = client.get("/api/v2/alerts").json()
    return alerts


def evidence(client: httpx.Client, number: str) -> Any:
    [alert] = client.get(f"/api/v1/incidents/{number}/alerts").json()["items"]
    return alert


@pytest.mark.debian
@pytest.mark.slow
def test_prometheus_posts_alerts_until_they_resolve_or_expire(tmp_path: Path) -> None:
    with a_shop() as shop, a_service(tmp_path) as (running, client, token):
        (tmp_path / "rules.yml").write_text(RULES)
        ports = {"shop": shop.port, "aftermath": running.service.port}
        config = PROMETHEUS.format(directory=tmp_path, token=token, **ports)
        with a_prometheus(tmp_path, config, free_port(), "--rules.alert.resend-delay=3s") as prometheus:
            until(lambda: asked(prometheus, "checkout_errors") == [0.0], "Prometheus scrapes the shop")
            shop.errors = 1
            opened = until(lambda: an_incident(client, "open"), "the incident opens")
            shown = ("number", "title", "service", "severity", "sources")
            assert {name: opened[name] for name in shown} == {
                "number": "INC-1",
                "title": "CheckoutErrors: Checkout & payment <fail>",
                "service": "checkout",
                "severity": "sev1",
                "sources": ["prometheus"],
            }
            [theirs] = prometheus.get("/api/v1/alerts").json()["data"]["alerts"]
            assert abs(moment(opened["detected_at"]) - moment(theirs["activeAt"])) < timedelta(milliseconds=1)
            [first] = listed(client)
            assert first["labels"] == theirs["labels"]

            def is_repeated() -> bool:
                return moment(listed(client)[0]["endsAt"]) > moment(first["endsAt"])

            until(is_repeated, "Prometheus repeats the alert", within=90)
            shop.errors = 0
            resolved = until(lambda: an_incident(client, "resolved"), "the incident resolves")
            alert = evidence(client, "INC-1")
            assert (alert["end_reason"], alert["ended_at"]) == ("recovered", resolved["resolved_at"])
            assert listed(client) == []

            assert client.put("/api/v1/rules/default", json={"window_seconds": 60}).status_code == 200
            shop.errors = 1
            until(lambda: an_incident(client, "open"), "the alert fires again")
        # Prometheus was killed while the alert was firing.
        [again] = client.get("/api/v1/incidents", params={"status": "open"}).json()["items"]
        assert again["reopened"] == 1
        [last] = listed(client)
        announced = moment(last["endsAt"])
        until(lambda: an_incident(client, "resolved"), "the alert expires", within=180)
        alerts = client.get("/api/v1/incidents/INC-1/alerts").json()["items"]
        assert [one["end_reason"] for one in alerts] == ["recovered", "expired"]
        ended = moment(alerts[-1]["ended_at"])
        assert announced <= ended + timedelta(milliseconds=1) < announced + timedelta(minutes=1)
        assert datetime.now(UTC) - ended >= NOTICED_WITHIN
        [incident] = client.get("/api/v1/incidents").json()["items"]
        recover = incident["measures"]["time_to_recover"]
        assert (recover["status"], recover["reason"]) == ("recorded", None)


VMALERT_RULES = """
groups:
  - name: g
    rules:
      - alert: QueueLong
        expr: queue_length > 10
        labels: {service: shop, severity: warning}
        annotations: {summary: "queue {{ $labels.queue }} is {{ $value }}"}
"""


@pytest.mark.debian
@pytest.mark.slow
def test_vmalert_posts_alerts_until_they_resolve_or_expire(tmp_path: Path) -> None:
    with a_service(tmp_path) as (running, client, token), a_victoria(tmp_path, free_port()) as victoria:

        def write(length: int) -> None:
            victoria.post("/api/v1/import/prometheus", content=f'queue_length{{queue="mail"}} {length}\n')

        (rules := tmp_path / "rules.yml").write_text(VMALERT_RULES)
        addresses = (f"-datasource.url={victoria.base_url}", f"-notifier.url={running.service.url}/am/{token}")
        with a_vmalert(tmp_path, rules, free_port(), *addresses):
            write(42)
            opened = until(lambda: an_incident(client, "open"), "the incident opens")
            assert (opened["title"], opened["severity"]) == ("QueueLong: queue mail is 42", "sev3")
            [alert] = listed(client)
            assert alert["labels"]["alertgroup"] == "g"
            write(1)
            resolved = until(lambda: an_incident(client, "resolved"), "the incident resolves")
            assert evidence(client, "INC-1")["ended_at"] == resolved["resolved_at"]
            write(42)
            until(lambda: an_incident(client, "open"), "it fires again")
            # It announces an end four seconds ahead each time, and repeats the alert every second.
            until(lambda: datetime.now(UTC) > moment(listed(client)[0]["endsAt"]), "that time has passed")
            assert an_incident(client, "open")
        until(lambda: an_incident(client, "resolved"), "the alert expires", within=180)
        alerts = client.get("/api/v1/incidents/INC-1/alerts").json()["items"]
        assert [one["end_reason"] for one in alerts] == ["recovered", "expired"]
        assert datetime.now(UTC) - moment(alerts[-1]["ended_at"]) >= NOTICED_WITHIN


@pytest.mark.debian
def test_amtool_lists_and_adds_alerts_and_is_told_that_silences_are_kept_elsewhere(tmp_path: Path) -> None:
    with a_service(tmp_path) as (running, client, token):

        def amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
            address = f"--alertmanager.url={running.service.url}/am/{token}"
            return subprocess.run(
                [program("amtool"), address, *arguments],
                env={**os.environ, "HOME": str(tmp_path)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        def says(*arguments: str) -> str:
            done = amtool(*arguments)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        says("alert", "add", "DiskFull", "service=shop", "severity=critical", '--annotation=summary="95 %"')
        end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        says("alert", "add", "DiskFull", "service=files", f"--end={end}")
        assert [one["service"] for one in client.get("/api/v1/incidents").json()["items"]] == ["files", "shop"]
        found = json.loads(says("alert", "query", "-o", "json"))
        assert sorted(alert["labels"]["service"] for alert in found) == ["files", "shop"]
        [shop] = json.loads(says("alert", "query", "-o", "json", "DiskFull", "service=~sh.p"))
        assert (shop["labels"]["severity"], shop["status"]["state"]) == ("critical", "active")
        assert json.loads(says("alert", "query", "-o", "json", "Other")) == []
        assert json.loads(says("alert", "query", "-o", "json", "--receiver=prometheus"))
        assert "DiskFull" in says("alert", "query")
        assert json.loads(says("silence", "query", "-o", "json")) == []
        assert "receiver: aftermath" in says("config", "show")
        assert "aftermath" in says("config", "routes", "show")
        refused = amtool("silence", "add", "alertname=DiskFull", "--comment=ACK!", "--author=ada", "--duration=1h")
        assert refused.returncode != 0
        assert "Aftermath has no silences" in refused.stdout + refused.stderr
        ended = datetime.now(UTC).isoformat()
        says("alert", "add", "DiskFull", "service=files", f"--end={ended}")
        [alert] = client.get("/api/v1/incidents/INC-2/alerts").json()["items"]
        assert moment(alert["ended_at"]) == moment(ended).replace(microsecond=moment(ended).microsecond // 1000 * 1000)
