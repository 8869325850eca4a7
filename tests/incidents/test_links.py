"""Links that alerts name: in the answer for one incident."""

from typing import Any

import httpx
import pytest

from app.incidents.reading.links import ALERTS_WITH_LINKS, LINKS_OF_A_KIND, Link, LinkKind, links_of
from tests.ingest.test_webhook import a_delivery, an_alert

RUNBOOK, DASHBOARD = "https://wiki.example.org/db", "https://grafana.example.org/d/1?from=now-1h"
GRAPH = "http://prometheus:9090/graph?g0.expr=up"


def naming(link: str = "", instance: str = "a", **annotations: str) -> dict[str, Any]:
    return an_alert(instance=instance) | {"annotations": annotations, "generatorURL": link}


async def shown(client: httpx.AsyncClient) -> list[tuple[str, str]]:
    answer = await client.get("/api/v1/incidents/INC-1")
    assert answer.status_code == 200, answer.text
    return [(each["kind"], each["url"]) for each in answer.json()["links"]]


async def test_an_incident_has_the_links_of_its_alerts_once(client: httpx.AsyncClient) -> None:
    alerts = (
        naming(GRAPH, runbook_url=RUNBOOK),
        naming(GRAPH, instance="b", runbook_url=RUNBOOK, dashboard_url=DASHBOARD),
    )
    answer = await client.post("/webhooks/alertmanager", json=a_delivery(*alerts))
    assert answer.status_code == 200, answer.text
    expected = [("runbook", RUNBOOK), ("dashboard", DASHBOARD), ("alert", GRAPH)]
    assert await shown(client) == expected
    acknowledged = await client.post("/api/v1/incidents/INC-1/acknowledge")
    assert [each["url"] for each in acknowledged.json()["links"]] == [url for _, url in expected]
    [listed] = (await client.get("/api/v1/incidents")).json()["items"]
    assert "links" not in listed


async def test_a_declared_incident_has_no_links(client: httpx.AsyncClient) -> None:
    await client.post("/api/v1/incidents", json={"title": "Checkout is slow", "service": "shop"})
    assert await shown(client) == []


@pytest.mark.parametrize("sent", ["https://grafana.example.org/d/1", 7])
async def test_grafana_names_dashboard_and_panel_in_fields_of_its_own(client: httpx.AsyncClient, sent: object) -> None:
    """Another type than text is as if it were missing."""
    panel = "https://grafana.example.org/d/1?viewPanel=2"
    alert = naming(GRAPH) | {"dashboardURL": sent, "panelURL": panel}
    answer = await client.post("/webhooks/grafana", json=a_delivery(alert) | {"orgId": 1})
    assert answer.json()["verdicts"] == {"opened": 1}, answer.text
    dashboards = {url for kind, url in await shown(client) if kind == "dashboard"}
    assert dashboards - {"7"} == {panel} | ({sent} if isinstance(sent, str) else set())


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "//wiki.example.org/db",
        "ftp://wiki.example.org",
        "see https://wiki.example.org",
        "",
        "https://wiki.example.org/a b",
        "https://wiki.example.org/\u202egpj.exe",
        "https://" + "w" * 2000,
    ],
)
def test_only_addresses_on_the_web_are_links(text: str) -> None:
    assert links_of([(text, {"runbook_url": text})]) == []


def test_links_are_bounded() -> None:
    many = [(f"http://prometheus/{n}", {"runbook_url": f"https://wiki.example.org/{n}"}) for n in range(50)]
    found = links_of(many)
    assert [each.kind for each in found] == [LinkKind.RUNBOOK] * LINKS_OF_A_KIND + [LinkKind.ALERT] * LINKS_OF_A_KIND
    assert found[0] == Link(LinkKind.RUNBOOK, "https://wiki.example.org/0")


async def test_only_the_first_alerts_are_searched(client: httpx.AsyncClient) -> None:
    first = [an_alert("2026-08-20T10:00:00Z", instance=f"{n}") for n in range(ALERTS_WITH_LINKS)]
    last = an_alert("2026-08-20T10:01:00Z", instance="last") | {"annotations": {"runbook_url": RUNBOOK}}
    await client.post("/webhooks/alertmanager", json=a_delivery(*first, last))
    assert await shown(client) == []
