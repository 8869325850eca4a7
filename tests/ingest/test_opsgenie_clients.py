"""Real clients of Opsgenie's API against the running service: the Python SDK, apprise, and Zabbix's stock script."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import opsgenie_sdk  # type: ignore[import-untyped]
import pytest
from apprise import Apprise, NotifyType
from apprise.plugins import opsgenie as apprise_opsgenie
from opsgenie_sdk.exceptions import ApiException, AuthenticationException  # type: ignore[import-untyped]

from tests.processes import Service
from tests.zabbix import ACKNOWLEDGED, PROBLEM, RECOVERY, UNACKNOWLEDGED, ScriptFailed, stock_script


@dataclass(frozen=True)
class Target:
    """The running service as clients of Opsgenie see it, and a client of its own API."""

    url: str
    key: str
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
    service = Service(tmp_path_factory.mktemp("opsgenie"), {})
    with service.serve() as running, running.client() as client:
        arguments = ("--scope", "ingest", "--source", "pager", "--kind", "opsgenie-alerts")
        key = service.command("token", "create", "opsgenie", *arguments).strip()
        yield Target(service.url, key, client)


@pytest.fixture(scope="module")
def alerts(target: Target) -> Any:
    configuration = opsgenie_sdk.Configuration()
    configuration.host = target.url
    configuration.api_key["Authorization"] = target.key
    return opsgenie_sdk.AlertApi(opsgenie_sdk.ApiClient(configuration))


def require_acknowledged(incident: dict[str, Any], by: str | None) -> None:
    """Also that the time to acknowledge is that between the two."""
    assert (incident["status"], incident["acknowledged_by"]) == ("acknowledged", by)
    took = datetime.fromisoformat(incident["acknowledged_at"]) - datetime.fromisoformat(incident["detected_at"])
    assert timedelta(0) <= took < timedelta(minutes=5)
    measured = incident["measures"]["time_to_acknowledge"]
    assert measured["status"] == "recorded"
    assert abs(measured["seconds"] - took.total_seconds()) < 1


# — the Python SDK —


def test_the_sdk_opens_acknowledges_and_closes(target: Target, alerts: Any) -> None:
    alias = "sdk/checkout: latency"
    created = alerts.create_alert(
        create_alert_payload=opsgenie_sdk.CreateAlertPayload(
            message="Checkout is slow",
            alias=alias,
            priority="P1",
            details={"service": "sdk-shop", "environment": "prod"},
            responders=[{"type": "team", "name": "ops"}],
        )
    )
    assert created.result == "Request will be processed"
    status = alerts.get_request_status(created.request_id).data
    assert (status.is_success, status.alert_id) == (True, created.request_id)
    opened = target.incident("sdk-shop")
    assert (opened["status"], opened["severity"], opened["environment"]) == ("open", "sev1", "production")
    assert (opened["title"], opened["sources"]) == ("Checkout is slow", ["pager"])

    shown = alerts.get_alert(alias, identifier_type="alias").data
    assert (shown.id, shown.alias, shown.status) == (created.request_id, alias, "open")
    assert (shown.message, shown.acknowledged) == ("Checkout is slow", False)

    alerts.acknowledge_alert(
        alias,
        identifier_type="alias",
        acknowledge_alert_payload=opsgenie_sdk.AcknowledgeAlertPayload(user="alex", note="looking", source="py"),
    )
    require_acknowledged(target.incident("sdk-shop"), "alex")
    assert alerts.get_alert(created.request_id).data.acknowledged

    alerts.add_note(
        alias,
        identifier_type="alias",
        add_note_to_alert_payload=opsgenie_sdk.AddNoteToAlertPayload(note="a replica is behind", user="alex"),
    )
    alerts.update_alert_priority(
        alias,
        identifier_type="alias",
        update_alert_priority_payload=opsgenie_sdk.UpdateAlertPriorityPayload(priority="P2"),
    )
    alerts.un_acknowledge_alert(alias, identifier_type="alias")  # sends no body at all
    alerts.close_alert(alias, identifier_type="alias")
    resolved = target.incident("sdk-shop")
    assert (resolved["status"], resolved["measures"]["time_to_recover"]["status"]) == ("resolved", "recorded")
    assert alerts.get_alert(created.request_id).data.status == "closed"


def test_the_sdk_opens_one_incident_for_one_alias_and_another_after_a_close(target: Target, alerts: Any) -> None:
    payload = opsgenie_sdk.CreateAlertPayload(message="Disk is full", alias="disk", details={"service": "sdk-disk"})
    for _ in range(3):
        alerts.create_alert(create_alert_payload=payload)
    assert target.incident("sdk-disk")["alerts"] == 1
    alerts.delete_alert("disk", identifier_type="alias")
    assert target.incident("sdk-disk")["status"] == "resolved"
    alerts.create_alert(create_alert_payload=payload)
    assert (target.incident("sdk-disk")["status"], target.incident("sdk-disk")["alerts"]) == ("open", 2)


def test_the_sdk_understands_what_is_refused(target: Target, alerts: Any) -> None:
    with pytest.raises(ApiException) as unknown:
        alerts.get_alert("never heard of", identifier_type="alias")
    assert unknown.value.status == 404
    configuration = opsgenie_sdk.Configuration()
    configuration.host = target.url
    configuration.api_key["Authorization"] = "another key"
    stranger = opsgenie_sdk.AlertApi(opsgenie_sdk.ApiClient(configuration))
    with pytest.raises(AuthenticationException) as refused:
        stranger.create_alert(create_alert_payload=opsgenie_sdk.CreateAlertPayload(message="x"))
    assert refused.value.status == 401
    assert "requestId" in refused.value.body


# — apprise —


@pytest.fixture
def notify(target: Target, monkeypatch: pytest.MonkeyPatch) -> Apprise:
    """It closes an alert by the id of the request that created it."""
    monkeypatch.setitem(
        apprise_opsgenie.OPSGENIE_API_LOOKUP, apprise_opsgenie.OpsgenieRegion.US, f"{target.url}/v2/alerts"
    )
    found = Apprise()
    assert found.add(f"opsgenie://{target.key}/#ops?+service=apprise-shop&alias=apprise-1&priority=2&action=map")
    return found


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise imports it
def test_apprise_opens_and_closes(target: Target, notify: Apprise) -> None:
    assert notify.notify(title="db-1", body="does not answer", notify_type=NotifyType.FAILURE)
    opened = target.incident("apprise-shop")
    assert (opened["status"], opened["title"]) == ("open", "db-1")
    assert notify.notify(title="db-1", body="is back", notify_type=NotifyType.SUCCESS)
    assert target.incident("apprise-shop")["status"] == "resolved"


# — Zabbix —


def zabbix_notifies(target: Target, directory: Path, macros: Mapping[str, str], *, token: str | None = None) -> None:
    """As a media type of Zabbix with the stock script does. Raises ScriptFailed."""
    stock_script("Opsgenie").run(
        directory,
        macros,
        opsgenie_api=f"{target.url}/v2/alerts",
        opsgenie_web="https://acme.app.opsgenie.com",
        opsgenie_token=token or target.key,
        opsgenie_teams="ops",
    )


@pytest.mark.debian
def test_zabbix_opens_acknowledges_and_closes_by_its_stock_script(target: Target, tmp_path: Path) -> None:
    event = {"EVENT.ID": "4711", "EVENT.TAGSJSON": '[{"tag":"service","value":"zabbix-shop"}]'}

    zabbix_notifies(target, tmp_path, {**PROBLEM, **event})
    opened = target.incident("zabbix-shop")
    assert (opened["status"], opened["severity"], opened["acknowledged_at"]) == ("open", "sev2", None)

    zabbix_notifies(target, tmp_path, {**ACKNOWLEDGED, **event})
    require_acknowledged(target.incident("zabbix-shop"), "Zabbix Administrator (Admin)")

    zabbix_notifies(target, tmp_path, {**UNACKNOWLEDGED, **event})
    zabbix_notifies(target, tmp_path, {**RECOVERY, **event})
    assert target.incident("zabbix-shop")["status"] == "resolved"


@pytest.mark.debian
def test_zabbix_shows_a_wrong_token(target: Target, tmp_path: Path) -> None:
    with pytest.raises(ScriptFailed, match="401"):
        zabbix_notifies(target, tmp_path, PROBLEM, token="another-key")
