"""Feeds of other pagers: an acknowledgement there is one of the incident here, and nothing is opened or ended by it."""

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.http.context import Context
from app.ingest.sender import Request
from app.ingest.senders import SENDERS, incident_io
from tests.conftest import client_of
from tests.ingest.test_senders import FIXTURES
from tests.ingest.test_webhook import a_delivery, an_alert

GROUP_KEY = '{}:{alertname="HostDown", service="checkout"}'  # as in the examples
ACKNOWLEDGED_AT = {
    "opsgenie": "2026-08-20T10:03:11.402002Z",
    "grafana-oncall": "2026-08-20T10:03:11.714058Z",
    "incident-io": "2026-08-20T10:03:11.714000Z",
}
BY = {"opsgenie": "alex@example.com", "grafana-oncall": "alex", "incident-io": "alex@example.com"}
each_feed = pytest.mark.parametrize("kind", ACKNOWLEDGED_AT)


def body_of(kind: str, case: str) -> Any:
    return json.loads((FIXTURES / kind / f"{case}.json").read_text())["body"]


async def opened(client: httpx.AsyncClient) -> None:
    """By Alertmanager, for which the other tool pages too."""
    answer = await client.post("/webhooks/alertmanager", json=a_delivery(an_alert()) | {"groupKey": GROUP_KEY})
    assert answer.json()["verdicts"] == {"opened": 1}


async def the_incident(client: httpx.AsyncClient) -> dict[str, Any]:
    incident: dict[str, Any] = (await client.get("/api/v1/incidents/INC-1")).json()
    return incident


@each_feed
@pytest.mark.parametrize("comes_first", [True, False])
async def test_an_acknowledgement_there_counts_here(client: httpx.AsyncClient, kind: str, comes_first: bool) -> None:
    if not comes_first:
        await opened(client)
    answer = await client.post(f"/webhooks/{kind}", json=dict(SENDERS[kind].example))
    assert (answer.status_code, answer.json()["verdicts"]) == (200, {"acknowledged": 1})
    if comes_first:
        assert (await client.get("/api/v1/incidents")).json()["items"] == []
        await opened(client)
    incident = await the_incident(client)
    assert (incident["status"], incident["acknowledged_at"]) == ("acknowledged", ACKNOWLEDGED_AT[kind])
    assert (incident["acknowledged_by"], incident["acknowledged_via"]) == (BY[kind], kind)
    took = incident["measures"]["time_to_acknowledge"]
    assert (took["status"], round(took["seconds"])) == ("recorded", 191 if kind == "opsgenie" else 192)


@pytest.mark.parametrize(
    ("kind", "case"),
    [("opsgenie", "close"), ("grafana-oncall", "resolve_by_a_person"), ("incident-io", "closed")],
)
async def test_closing_there_does_not_end_the_incident_here(client: httpx.AsyncClient, kind: str, case: str) -> None:
    await opened(client)
    await client.post(f"/webhooks/{kind}", json=body_of(kind, case))
    assert (await the_incident(client))["status"] == "open"
    timeline = (await client.get("/api/v1/incidents/INC-1/timeline")).json()["items"]
    assert "closed" in {entry["kind"] for entry in timeline}


@each_feed
async def test_what_is_ignored_changes_nothing(client: httpx.AsyncClient, kind: str) -> None:
    await opened(client)
    case = {"opsgenie": "acknowledge_by_a_policy", "grafana-oncall": "auto_resolve", "incident-io": "learning"}[kind]
    answer = await client.post(f"/webhooks/{kind}", json=body_of(kind, case))
    assert (answer.status_code, answer.json()["verdicts"]) == (200, {"ignored": 1})
    assert (await the_incident(client))["acknowledged_at"] is None


# — the signature of incident.io —

NOW = datetime(2026, 8, 20, 10, 3, 12, tzinfo=UTC)
KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def signed(body: bytes, at: datetime = NOW, key: bytes = KEY, id_: str = "msg_1") -> dict[str, str]:
    timestamp = str(int(at.timestamp()))
    digest = hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, "sha256")
    signature = "v1," + base64.b64encode(digest).decode()
    return {"webhook-id": id_, "webhook-timestamp": timestamp, "webhook-signature": signature}


def is_genuine(headers: dict[str, str], body: bytes = b"{}", *, secret: str = SECRET, now: datetime = NOW) -> bool:
    return incident_io.verify(Request(body, now, "incident-io", headers), secret=secret, now=now)


def test_the_example_of_the_standard_is_genuine() -> None:
    """https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    at = datetime.fromtimestamp(1614265330, UTC)
    assert is_genuine(headers, b'{"test": 2432232314}', secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", now=at)


def test_a_signed_body_is_genuine_and_anything_else_is_not() -> None:
    headers = signed(b"{}")
    assert is_genuine(headers)
    assert is_genuine(headers, secret=SECRET.removeprefix("whsec_"))
    old = signed(b"{}", key=b"another key")["webhook-signature"]
    assert is_genuine(headers | {"webhook-signature": f"{old} {headers['webhook-signature']}"})
    assert not is_genuine(headers, b"{ }")
    assert not is_genuine(headers | {"webhook-id": "msg_2"})
    assert not is_genuine(headers | {"webhook-signature": old})
    assert not is_genuine(headers | {"webhook-signature": headers["webhook-signature"].removeprefix("v1,")})
    assert not is_genuine({})
    assert not is_genuine(headers, secret="")
    assert not is_genuine(signed(b"{}", key=b""), secret="whsec_")
    assert not is_genuine(signed(b"{}", key=b""), secret="whsec_no base64")


@pytest.mark.parametrize(("seconds", "genuine"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_a_signature_is_valid_for_five_minutes(seconds: int, genuine: bool) -> None:
    assert is_genuine(signed(b"{}"), now=NOW + timedelta(seconds=seconds)) is genuine


@given(st.text(), st.text() | st.integers().map(str), st.text(), st.text(), st.binary())
def test_no_garbage_makes_a_signature_raise(id_: str, at: str, signature: str, secret: str, body: bytes) -> None:
    headers = {"webhook-id": id_, "webhook-timestamp": at, "webhook-signature": signature}
    assert not is_genuine(headers, body, secret=secret)


async def test_incident_io_must_sign_if_its_source_has_a_secret(client: httpx.AsyncClient, context: Context) -> None:
    await client.put("/api/v1/sources/incident-io", json={"kind": "incident-io", "hmac_secret": SECRET})
    context.credentials.forget_source("incident-io")
    body = json.dumps(dict(SENDERS["incident-io"].example)).encode()
    async with client_of(context) as sender:
        refused = await sender.post("/webhooks/incident-io", content=body)
        taken = await sender.post("/webhooks/incident-io", content=body, headers=signed(body, datetime.now(UTC)))
    assert (refused.status_code, taken.status_code) == (401, 200)


# — by what their alerts are found —


def test_the_group_key_of_alertmanager_is_the_alias_of_opsgenie() -> None:
    """Recorded of Debian's Alertmanager, which sent one group to both."""
    created = json.loads((FIXTURES / "opsgenie-alerts" / "alertmanager_create.json").read_text())["body"]
    assert created["alias"] == sha256(GROUP_KEY.encode()).hexdigest()
