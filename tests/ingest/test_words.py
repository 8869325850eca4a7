"""Words and addresses in deliveries: severities, environments, ends without data, and tenants that share a source."""

import csv
import json
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.access.tokens import Scope
from app.ingest.intake import words
from tests.conftest import ClientAs
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert, count
from tests.metrics.prometheus.test_exposition import of, scrape

HEALTH = "/api/v1/sources/alertmanager/health"
INCIDENTS = "/api/v1/incidents"


async def incidents(client: httpx.AsyncClient, **filters: str) -> list[dict[str, Any]]:
    answer = await client.get(INCIDENTS, params=filters)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def reasons(client: httpx.AsyncClient, source: str = "alertmanager") -> dict[str, dict[str, Any]]:
    reported = (await client.get(f"/api/v1/sources/{source}/health")).json()
    return {reason["reason"]: reason for reason in reported["reasons"]}


# — environments —


@pytest.mark.parametrize("label", ["env", "environment", "deployment_environment_name", "stage"])
async def test_production_and_staging_are_incidents_of_their_own(client: httpx.AsyncClient, label: str) -> None:
    alerts = [an_alert(**{label: word}) for word in ("prod", "staging")]
    await client.post(WEBHOOK, json=a_delivery(*alerts, an_alert()))
    found = {incident["environment"]: incident["number"] for incident in await incidents(client)}
    assert found.keys() == {"production", "staging", None}
    for asked, environment in (("prod", "production"), ("PRODUCTION", "production"), ("unknown", None)):
        assert [one["number"] for one in await incidents(client, environment=asked)] == [found[environment]]
    [alert] = (await client.get(f"{INCIDENTS}/{found['production']}/alerts")).json()["items"]
    assert alert["environment"] == "production"


async def test_two_words_for_one_environment_are_one_incident(client: httpx.AsyncClient) -> None:
    alerts = [an_alert(env="prod"), an_alert(environment="production"), an_alert(stage="live")]
    answer = await client.post(WEBHOOK, json=a_delivery(*alerts))
    assert answer.json()["incidents"] == ["INC-1"]
    assert (await incidents(client))[0]["key"] == 'service="checkout", environment="production"'


async def test_a_rule_states_the_environment_of_alerts_that_do_not(client: httpx.AsyncClient) -> None:
    rule = {"matchers": ["cluster=blue"], "environment": "stg"}
    assert (await client.put("/api/v1/rules/blue", json=rule)).json()["environment"] == "staging"
    await client.post(WEBHOOK, json=a_delivery(an_alert(cluster="blue"), an_alert(cluster="green")))
    assert {incident["environment"] for incident in await incidents(client)} == {"staging", None}


async def test_a_declared_incident_has_the_environment_that_is_stated(client: httpx.AsyncClient) -> None:
    stated: list[tuple[dict[str, str], str | None]] = [({"environment": "prd"}, "production"), ({}, None)]
    for body, environment in stated:
        declared = await client.post(INCIDENTS, json={"title": "Slow", "service": "shop"} | body)
        assert (declared.status_code, declared.json()["environment"]) == (201, environment)
    wrong = await client.post(INCIDENTS, json={"title": "Slow", "service": "shop", "environment": "n/a"})
    assert (wrong.status_code, "does not name an environment" in wrong.json()["detail"]) == (422, True)


async def test_the_environment_is_exported(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(env="prod")))
    [row] = csv.DictReader((await client.get("/api/v1/incidents?format=csv")).text.splitlines())
    assert row["environment"] == "production"


# — severities —


async def test_an_unknown_severity_is_flagged_counted_and_can_be_added_to_the_rule(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(severity="Purple"), an_alert(instance="b", severity="crit")))
    [incident] = await incidents(client)
    alerts = (await client.get(f"{INCIDENTS}/{incident['number']}/alerts")).json()["items"]
    assert {alert["severity"]: alert["flags"] for alert in alerts} == {"sev3": ["severity_unrecognized"], "sev1": []}
    reason = (await reasons(client))["severity_unrecognized"]
    assert (reason["status"], "`purple` (1)" in reason["detail"]) == ("degraded", True)
    assert "`severities` of the rule" in reason["remedy"]
    counted = (await client.get(HEALTH)).json()["since_created"]["severities_unrecognized"]
    assert counted == {"purple": 1}
    assert of(await scrape(engine), "unrecognized_severities_total", source="alertmanager") == 1

    await client.put("/api/v1/rules/default", json={"severities": {"purple": "sev2"}})
    await client.post(WEBHOOK, json=a_delivery(an_alert(instance="c", severity="Purple")))
    alerts = (await client.get(f"{INCIDENTS}/{incident['number']}/alerts")).json()["items"]
    [added] = [alert for alert in alerts if alert["labels"].get("instance") == "c"]
    assert (added["severity"], added["flags"]) == ("sev2", [])


async def test_words_are_counted_separately_up_to_a_limit(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "WORDS_AT_MOST", 3)
    for number in range(6):
        await client.post(WEBHOOK, json=a_delivery(an_alert(severity=f"word {number}")))
    counted = (await client.get(HEALTH)).json()["since_created"]["severities_unrecognized"]
    assert counted == {"word 0": 1, "word 1": 1, "word 2": 1, "(others)": 3}
    assert await count(engine, "SELECT count(*) FROM tally WHERE name = 'severity_unrecognized'") >= 4


async def test_a_severity_that_is_missing_is_not_unknown(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(severity="")))
    assert (await incidents(client))[0]["severity"] == "sev3"
    assert await reasons(client) == {}


# — ends without data —

GRAFANA = "/webhooks/grafana"


def ended(why: str, **labels: str) -> dict[str, Any]:
    alert = an_alert(ended="2026-08-20T10:30:00Z", **labels)
    return alert | {"annotations": {"grafana_state_reason": why}}


async def end_reason(client: httpx.AsyncClient, why: str, **labels: str) -> tuple[str, str]:
    await client.post(GRAFANA, json=a_delivery(an_alert(**labels)))
    answer = await client.post(GRAFANA, json=a_delivery(ended(why, **labels)))
    number = answer.json()["incidents"][0]
    incident = (await client.get(f"{INCIDENTS}/{number}")).json()
    return incident["end_reason"], incident["measures"]["time_to_recover"]["status"]


async def test_an_end_without_data_is_no_recovery_by_default(client: httpx.AsyncClient) -> None:
    assert await end_reason(client, "MissingSeries", service="a") == ("missing_series", "not_applicable")
    assert await end_reason(client, "NoData", service="b") == ("no_data", "not_applicable")


async def test_a_source_can_declare_ends_without_data_recoveries(client: httpx.AsyncClient) -> None:
    assert await end_reason(client, "MissingSeries", service="before") == ("missing_series", "not_applicable")
    put = await client.put("/api/v1/sources/grafana", json={"kind": "grafana", "recoveries": ["missing_series"]})
    assert put.json()["recoveries"] == ["missing_series"]
    assert await end_reason(client, "MissingSeries", service="a") == ("recovered", "recorded")
    assert await end_reason(client, "NoData", service="b") == ("no_data", "not_applicable")
    assert await end_reason(client, "Paused", service="c") == ("rule_paused", "not_applicable")
    await client.put("/api/v1/sources/grafana", json={"kind": "grafana"})
    assert await end_reason(client, "MissingSeries", service="d") == ("missing_series", "not_applicable")


async def test_a_rule_can_declare_them_recoveries_of_its_alerts(client: httpx.AsyncClient) -> None:
    rule = {"matchers": ["team=shop"], "recoveries": ["missing_series", "no_data"]}
    await client.put("/api/v1/rules/filtered", json=rule)
    assert await end_reason(client, "MissingSeries", service="a", team="shop") == ("recovered", "recorded")
    assert await end_reason(client, "NoData", service="b", team="shop") == ("recovered", "recorded")
    assert await end_reason(client, "NoData", service="c", team="other") == ("no_data", "not_applicable")
    # A query that fails shows nothing, although Grafana treats it like missing data.
    assert await end_reason(client, "Error", service="d", team="shop") == ("no_data", "not_applicable")


# — senders —


def at(address: str | None, *alerts: dict[str, Any], **fields: object) -> dict[str, Any]:
    return a_delivery(*alerts) | ({"externalURL": address} if address else {}) | fields


A, B = "https://mimir.example/tenant-a", "https://mimir.example/tenant-b"


async def test_tenants_that_share_a_source_are_noticed(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await client.post(WEBHOOK, json=at(A, an_alert()))
    assert await reasons(client) == {}
    await client.post(WEBHOOK, json=at(B, an_alert(started="2026-08-20T10:10:00Z")))
    await client.post(WEBHOOK, json=at(A, an_alert(ended="2026-08-20T10:30:00Z")))
    reason = (await reasons(client))["contradicting_senders"]
    assert f"`{A} and {B}` (1)" in reason["detail"]
    assert "per tenant" in reason["remedy"]
    assert of(await scrape(engine), "contradictions_total", source="alertmanager") == 1


async def test_tenants_with_sources_of_their_own_do_not_contradict(
    client: httpx.AsyncClient, client_as: ClientAs
) -> None:
    tenant_b = await client_as(Scope.INGEST)  # of source `prod`
    await client.post(WEBHOOK, json=at(A, an_alert()))
    await tenant_b.post(WEBHOOK, json=at(B, an_alert(started="2026-08-20T10:10:00Z")))
    await client.post(WEBHOOK, json=at(A, an_alert(ended="2026-08-20T10:30:00Z")))
    assert [await reasons(client), await reasons(client, "prod")] == [{}, {}]


async def test_organizations_of_one_grafana_are_distinguished(client: httpx.AsyncClient) -> None:
    for organization, started in ((1, "10:00"), (2, "10:10")):
        firing = an_alert(started=f"2026-08-20T{started}:00Z")
        await client.post(GRAFANA, json=at("https://user:secret@grafana.example/", firing, orgId=organization))
    resolved = an_alert(ended="2026-08-20T10:30:00Z")
    await client.post(GRAFANA, json=at("https://user:secret@grafana.example/", resolved, orgId=1))
    detail = (await reasons(client, "grafana"))["contradicting_senders"]["detail"]
    assert "https://grafana.example/ (organization 1) and https://grafana.example/ (organization 2)" in detail
    assert "secret" not in detail


@pytest.mark.parametrize("address", [7, None, {"a": 1}, "x" * 10_000, "\ud83d", "\x00", "https://\n.example"])
async def test_any_address_is_taken(client: httpx.AsyncClient, address: object) -> None:
    for alert in (an_alert(), an_alert(started="2026-08-20T10:10:00Z"), an_alert(ended="2026-08-20T10:30:00Z")):
        answer = await client.post(WEBHOOK, content=json.dumps(at(None, alert, externalURL=address)))
        assert answer.status_code == 200, answer.text
