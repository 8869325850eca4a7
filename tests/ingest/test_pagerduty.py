"""PagerDuty's signature, when an alert begins whose events have times, and the answers under overload."""

import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.http.context import Context
from app.ingest.sender import Refusal, Request
from app.ingest.senders import SENDERS, pagerduty
from app.ingest.service import Ingest

NOW = datetime(2026, 8, 20, 12, tzinfo=UTC)
SECRET = "secret"
# From the webhook reference of the project.
SIGNED = "aa9e2e3575f5d7098b6caccd790888c36d5fdb63342a73bada2d6a51747a8494"
HEADER = "X-PagerDuty-Signature"


def is_genuine(signature: str | None, *, body: bytes = b'{"a":1}', secret: str = SECRET) -> bool:
    headers = {} if signature is None else {HEADER.lower(): signature}
    return pagerduty.verify(Request(body, NOW, "pagerduty", headers), secret=secret, now=NOW)


@pytest.mark.parametrize(
    "signature", [f"v1={SIGNED}", f"v1={'0' * 64},v1={SIGNED}", f"v1={SIGNED}, v1={'0' * 64}", f"v2=x,v1={SIGNED}"]
)
def test_one_of_several_signatures_suffices(signature: str) -> None:
    assert is_genuine(signature)


@pytest.mark.parametrize(
    "signature",
    [None, "", SIGNED, f"v2={SIGNED}", f"v1={SIGNED[:-1]}", f"V1={SIGNED}", f"v1={SIGNED}x", ",", "\ud800"],
)
def test_anything_else_does_not(signature: str | None) -> None:
    assert not is_genuine(signature)
    assert not is_genuine(f"v1={SIGNED}", body=b'{"a":2}')


def test_very_many_signatures_are_not_compared() -> None:
    assert not is_genuine(",".join(["v1=0"] * pagerduty.SIGNATURES_AT_MOST + [f"v1={SIGNED}"]))


def test_an_empty_secret_accepts_no_signature() -> None:
    by_anybody = hmac.new(b"", b'{"a":1}', "sha256").hexdigest()
    assert not is_genuine(f"v1={by_anybody}", secret="")


@given(st.text(), st.binary())
def test_no_garbage_makes_a_signature_raise(signature: str, body: bytes) -> None:
    assert not is_genuine(signature, body=body)


async def test_with_a_secret_everything_signed_is_taken_and_nothing_else(client: httpx.AsyncClient) -> None:
    settings = {"kind": "pagerduty", "hmac_secret": SECRET}
    assert (await client.put("/api/v1/sources/pagerduty", json=settings)).is_success
    for message in (dict(SENDERS["pagerduty"].example), {"event": {"event_type": "pagey.ping"}}, {"event": 7}):
        body = json.dumps(message).encode()
        digest = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
        for signature, status in ((f"v1=0,v1={digest}", 200), (f"v1={digest[::-1]}", 401), ("", 401)):
            answer = await client.post("/webhooks/pagerduty", content=body, headers={HEADER: signature})
            assert (answer.status_code, message) == (status, message)


# — times —


def an_event(action: str, at: datetime | None, **details: str) -> dict[str, Any]:
    payload = {"summary": "s", "source": "db-1", "custom_details": {"service": "timed", **details}}
    if at is not None:
        payload["timestamp"] = at.isoformat()
    return {"event_action": action, "dedup_key": "k", "payload": payload}


async def starts_and_ends(client: httpx.AsyncClient, *events: dict[str, Any]) -> Sequence[tuple[str, str | None]]:
    for event in events:
        assert (await client.post("/v2/enqueue", json=event)).status_code == 202
    found = (await client.get("/api/v1/incidents", params={"service": "timed"})).json()["items"]
    alerts = [
        alert
        for incident in found
        for alert in (await client.get(f"/api/v1/incidents/{incident['number']}/alerts")).json()["items"]
    ]
    return sorted((alert["started_at"], alert["ended_at"]) for alert in alerts)


async def test_an_alert_begins_and_ends_when_its_events_happened(client: httpx.AsyncClient) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    times = [now - timedelta(minutes=minutes) for minutes in (40, 35, 30, 10, 5)]
    shown = [at.strftime("%Y-%m-%dT%H:%M:%SZ") for at in times]
    first = [an_event("trigger", times[0]), an_event("trigger", times[1]), an_event("resolve", times[2])]
    # The second trigger is a repeat, although it has another time.
    assert await starts_and_ends(client, *first) == [(shown[0], shown[2])]
    again = [an_event("trigger", times[3]), an_event("resolve", times[4])]
    assert await starts_and_ends(client, *again) == [(shown[0], shown[2]), (shown[3], shown[4])]


async def test_a_trigger_that_happened_before_the_last_end_begins_a_new_alert_on_arrival(
    client: httpx.AsyncClient,
) -> None:
    """As in PagerDuty, where a trigger after a resolve always opens a new alert. Times may have whole seconds."""
    now = datetime.now(UTC).replace(microsecond=0)
    ended = now - timedelta(minutes=1)
    events = [an_event("trigger", now - timedelta(minutes=9)), an_event("resolve", ended), an_event("trigger", ended)]
    [_, (started, open_)] = await starts_and_ends(client, *events)
    assert datetime.fromisoformat(started) >= now
    assert open_ is None


# — answers —


@pytest.mark.parametrize("kind", ["pagerduty-events", "splunk-on-call"])
def test_overload_is_answered_in_the_imitated_form(kind: str) -> None:
    refuse = SENDERS[kind].refuse
    assert refuse is not None
    answer = refuse(Refusal(503, "Try again later", "the service is overloaded"))
    assert (answer.status, answer.headers) == (503, ((b"content-type", b"application/json"),))
    assert json.loads(answer.body)["message"] == "the service is overloaded"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/enqueue", an_event("trigger", None)),
        ("/integrations/generic/20131114/alert/{token}", {"message_type": "CRITICAL", "entity_id": "a"}),
    ],
)
async def test_under_overload_clients_are_asked_to_retry(
    context: Context, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    from app.base.errors import Overloaded

    async def full(*_: object) -> None:
        raise Overloaded("the queue is full")

    monkeypatch.setattr(context.part(Ingest).queue, "take", full)
    token = client.headers["Authorization"].removeprefix("Bearer ")
    answer = await client.post(path.format(token=token), json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["message"] == "the queue is full"
