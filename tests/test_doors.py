"""The doors, end to end through the app and a real database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx


def an_alert(started: str = "2026-08-20T10:00:00Z", ended: str | None = None, **labels: str) -> dict[str, Any]:
    return {
        "status": "resolved" if ended else "firing",
        "labels": {"alertname": "HighLatency", "service": "checkout", "severity": "critical", **labels},
        "annotations": {"summary": "slow"},
        "startsAt": started,
        "endsAt": ended or "0001-01-01T00:00:00Z",
        "generatorURL": "",
    }


def a_delivery(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {"version": "4", "groupKey": "{}:{}", "status": "firing", "receiver": "x", "alerts": list(alerts)}


async def test_an_alert_becomes_an_incident(client: httpx.AsyncClient) -> None:
    answer = await client.post("/webhooks/alertmanager", json=a_delivery(an_alert()))
    assert answer.status_code == 200, answer.text
    assert answer.json()["verdicts"] == {"opened": 1}
    assert answer.json()["incidents"] == ["INC-1"]
    incident = (await client.get("/api/v1/incidents/INC-1")).json()
    assert (incident["service"], incident["severity"], incident["status"]) == ("checkout", "sev1", "open")
    answer = await client.post("/webhooks/alertmanager", json=a_delivery(an_alert(ended="2026-08-20T10:30:00Z")))
    assert answer.json()["verdicts"] == {"resolved": 1}
    incident = (await client.get("/api/v1/incidents/INC-1")).json()
    assert incident["measures"]["time_to_recover"]["seconds"] == 1800


_ = (UTC, datetime, timedelta)
