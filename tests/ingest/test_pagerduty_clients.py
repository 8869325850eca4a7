"""Real clients of PagerDuty's and Splunk On-Call's API against the running service: the official Python library,
apprise, and Zabbix's stock scripts.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from apprise import Apprise, NotifyType
from apprise.plugins import pagerduty as apprise_pagerduty
from apprise.plugins import splunk as apprise_splunk
from pagerduty import EventsApiV2Client, HttpError

from tests.processes import Service
from tests.tls import https_for
from tests.zabbix import ACKNOWLEDGED, PROBLEM, RECOVERY, UNACKNOWLEDGED, ScriptFailed, stock_script

ALERTS = "/integrations/generic/20131114/alert"


@dataclass(frozen=True)
class Target:
    """The running service as such clients see it, and a client of its own API."""

    url: str
    https: str
    key: str  # of PagerDuty's API
    on_call_key: str
    client: httpx.Client

    def incidents(self, service: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get("/api/v1/incidents", params={"service": service}).json()["items"]
        return found

    def incident(self, service: str) -> dict[str, Any]:
        [found] = self.incidents(service)
        incident: dict[str, Any] = self.client.get(f"/api/v1/incidents/{found['number']}").json()
        return incident


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("pagerduty")
    service = Service(directory, {})
    with service.serve() as running, running.client() as client, https_for(service.url, directory) as secured:
        keys = {
            kind: service.command(
                *("token", "create", kind, "--scope", "ingest", "--source", kind, "--kind", kind)
            ).strip()
            for kind in ("pagerduty-events", "splunk-on-call")
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(secured.certificate))
            yield Target(service.url, secured.url, keys["pagerduty-events"], keys["splunk-on-call"], client)


def require_acknowledged(incident: Mapping[str, Any], by: str | None) -> None:
    """Also that the time to acknowledge is that between the two."""
    assert (incident["status"], incident["acknowledged_by"]) == ("acknowledged", by)
    took = datetime.fromisoformat(incident["acknowledged_at"]) - datetime.fromisoformat(incident["detected_at"])
    assert timedelta(0) <= took < timedelta(minutes=5)
    measured = incident["measures"]["time_to_acknowledge"]
    assert (measured["status"], measured["seconds"]) == ("recorded", pytest.approx(took.total_seconds()))


# — PagerDuty: the official library —


def test_a_key_has_the_form_that_clients_check(target: Target) -> None:
    assert re.fullmatch(r"[0-9a-z]{32}", target.key)
    assert target.on_call_key.startswith("aft_")


def test_the_official_library_triggers_acknowledges_and_resolves(target: Target) -> None:
    client = EventsApiV2Client(target.key, base_url=target.https)
    details = {"service": "lag", "environment": "prod"}
    key = client.trigger("Replication lag", "db-1", dedup_key="db-1/lag", severity="critical", custom_details=details)
    assert key == "db-1/lag"
    opened = target.incident("lag")
    assert {name: opened[name] for name in ("status", "severity", "environment", "sources")} == {
        "status": "open",
        "severity": "sev1",
        "environment": "production",
        "sources": ["pagerduty-events"],
    }
    client.trigger("Replication lag 50 s", "db-1", dedup_key=key, severity="critical", custom_details=details)
    assert target.incident("lag")["alerts"] == 1

    assert client.acknowledge(key) == key
    require_acknowledged(target.incident("lag"), None)

    assert client.resolve(key) == key
    resolved = target.incident("lag")
    assert (resolved["status"], resolved["measures"]["time_to_recover"]["status"]) == ("resolved", "recorded")


def test_a_trigger_without_a_key_can_be_resolved_with_the_key_of_the_answer(target: Target) -> None:
    client = EventsApiV2Client(target.key, base_url=target.https)
    key = client.trigger("Disk is full", "db-2", custom_details={"service": "keyless"})
    assert client.trigger("Disk is full", "db-2", custom_details={"service": "keyless"}) == key
    assert target.incident("keyless")["alerts"] == 1
    client.acknowledge(key)
    require_acknowledged(target.incident("keyless"), None)
    client.resolve(key)
    assert target.incident("keyless")["status"] == "resolved"


def test_the_official_library_sends_change_events(target: Target) -> None:
    client = EventsApiV2Client(target.key, base_url=target.https)
    details = {"environment": "production", "version": "1.42.0", "deployment_id": "1742"}
    client.send_change_event({"summary": "deployed", "source": "changed", "custom_details": details})
    [deployment] = target.client.get("/api/v1/deployments", params={"service": "changed"}).json()["items"]
    assert (deployment["id"], deployment["version"], deployment["outcome"]) == ("1742", "1.42.0", "succeeded")


def test_the_official_library_shows_a_wrong_key(target: Target) -> None:
    client = EventsApiV2Client("0123456789abcdef0123456789abcdef", base_url=target.https)
    with pytest.raises(HttpError) as refused:
        client.acknowledge("a")
    assert refused.value.response is not None
    assert refused.value.response.status_code == 400
    assert refused.value.response.json()["errors"][0] == "Invalid routing key"


def test_no_key_is_stored_or_logged(target: Target, tmp_path: Path) -> None:
    """Also not of a request that goes to quarantine."""
    odd = {"routing_key": target.key, "payload": {"summary": "s", "source": "odd", "timestamp": "yesterday"}}
    assert httpx.post(f"{target.url}/v2/change/enqueue", json=odd).status_code == 202
    [item] = target.client.get("/api/v1/quarantine").json()["items"]
    raw = target.client.get(f"/api/v1/quarantine/{item['id']}/raw").text
    assert "yesterday" in raw
    assert target.key not in raw
    replayed = target.client.delete(f"/api/v1/quarantine/{item['id']}")
    assert replayed.is_success


def test_a_body_of_another_sender_is_answered_with_its_address(target: Target) -> None:
    headers = {"Authorization": f"Bearer {target.key}"}
    answer = httpx.post(f"{target.url}/v2/enqueue", json={"event": {"event_type": "pagey.ping"}}, headers=headers)
    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert "post to /webhooks/pagerduty" in error
    answer = httpx.post(f"{target.url}{ALERTS}/{target.on_call_key}", json={"event_action": "trigger"})
    assert (answer.status_code, answer.json()["result"]) == (400, "failure")
    assert "post to /v2/enqueue" in answer.json()["message"]
    # With the key of another kind.
    answer = httpx.post(f"{target.url}{ALERTS}/{target.key}", json={"message_type": "INFO"})
    assert (answer.status_code, answer.json()["result"]) == (403, "failure")
    assert "post to /v2/enqueue" in answer.json()["message"]


def test_a_wrong_key_of_splunk_on_call_is_never_404(target: Target) -> None:
    for path in ("wrong", "wrong/route", "wrong/route/more", "wrong/", "wrong/a%2Fb"):
        answer = httpx.post(f"{target.url}{ALERTS}/{path}", json={"message_type": "CRITICAL"})
        assert (answer.status_code, answer.json()["result"]) == (401, "failure")


# — apprise —


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise imports it
def test_apprise_triggers_through_pagerduty(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apprise_pagerduty, "PAGERDUTY_API_LOOKUP", {"us": f"{target.url}/v2/enqueue"})
    notifier = Apprise()
    assert notifier.add(f"pagerduty://{target.key}@apikeyapikeyapikey12/apprised/ping?group=g&class=Apprised")
    assert notifier.notify(title="db-1", body="does not answer", notify_type=NotifyType.FAILURE)
    [opened] = target.incidents("Apprised")
    assert (opened["status"], opened["severity"]) == ("open", "sev1")
    assert notifier.notify(title="db-1", body="back", notify_type=NotifyType.SUCCESS)  # carries no key: no alert
    assert [one["alerts"] for one in target.incidents("Apprised")] == [1]


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise imports it
def test_apprise_fires_and_recovers_through_splunk_on_call(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{target.url}{ALERTS}/{{apikey}}/{{routing_key}}"
    monkeypatch.setattr(apprise_splunk.NotifySplunk, "notify_url", address)
    notifier = Apprise()
    assert notifier.add(f"splunk://team-a@key/apprised-host?apikey={target.on_call_key}")
    assert notifier.notify(title="Apprise on call", body="does not answer", notify_type=NotifyType.FAILURE)
    [opened] = target.incidents("Apprise on call")
    assert opened["status"] == "open"
    assert notifier.notify(title="Apprise on call", body="back", notify_type=NotifyType.SUCCESS)
    assert target.incident("Apprise on call")["status"] == "resolved"


# — Splunk On-Call: acknowledgement —


def test_an_acknowledgement_through_splunk_on_call(target: Target) -> None:
    address = f"{target.url}{ALERTS}/{target.on_call_key}/team-a"
    fired = {"message_type": "CRITICAL", "entity_id": "disk/db-1", "entity_display_name": "disk", "service": "disks"}
    assert httpx.post(address, json=fired).json() == {"result": "success", "entity_id": "disk/db-1"}
    # As its own outgoing webhook sends it, by the template of the documentation.
    template = {"message_type": "ACKNOWLEDGEMENT", "entity_id": "disk/db-1", "ack_author": "alex"}
    headers = {"Authorization": f"Bearer {target.on_call_key}"}
    assert httpx.post(f"{target.url}/webhooks/splunk-on-call", json=template, headers=headers).status_code == 200
    require_acknowledged(target.incident("disks"), "alex")


# — Zabbix —


@pytest.mark.debian
def test_zabbix_sends_problems_acknowledgements_and_recoveries_as_to_pagerduty(target: Target, tmp_path: Path) -> None:
    script = stock_script("PagerDuty")

    def notify(macros: Mapping[str, str], key: str = target.key) -> str:
        mine = {**macros, "EVENT.ID": "24", "EVENT.TAGS": "service:zabbixed, team:blue"}
        return script.run(tmp_path, mine, hosts={"https://events.pagerduty.com": target.url}, token=key)

    assert notify(PROBLEM) == "OK"
    opened = target.incident("zabbixed")
    assert (opened["status"], opened["severity"]) == ("open", "sev2")
    assert notify(ACKNOWLEDGED) == "OK"
    require_acknowledged(target.incident("zabbixed"), None)
    with pytest.raises(ScriptFailed, match="Update message without ack will not be sent"):
        notify(UNACKNOWLEDGED)
    assert notify(RECOVERY) == "OK"
    assert target.incident("zabbixed")["status"] == "resolved"
    with pytest.raises(ScriptFailed, match="Invalid routing key"):
        notify(PROBLEM, "0123456789abcdef0123456789abcdef")


@pytest.mark.debian
def test_zabbix_sends_problems_and_recoveries_as_to_splunk_on_call(target: Target, tmp_path: Path) -> None:
    script = stock_script("VictorOps")
    address = f"{target.url}{ALERTS}/{target.on_call_key}"
    subject = {"ALERT.SUBJECT": "Zabbix on call"}
    assert script.run(tmp_path, {**PROBLEM, **subject}, vops_endpoint=address) == "OK"
    assert target.incident("Zabbix on call")["severity"] == "sev2"
    assert script.run(tmp_path, {**ACKNOWLEDGED, **subject}, vops_endpoint=address) == "OK"
    assert target.incident("Zabbix on call")["status"] == "open"  # it says INFO, not who acknowledged
    assert script.run(tmp_path, {**RECOVERY, **subject}, vops_endpoint=f"{address}/team-a") == "OK"
    assert target.incident("Zabbix on call")["status"] == "resolved"
