"""Alertmanager's API as its clients use it: their requests, its answers, and hostile bodies."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope, create_token
from app.base.errors import UnrecognizedBody
from app.incidents.grouping.signal import fingerprint_of
from app.ingest.reading.alerts import ALERTS_AT_MOST, LABEL_BYTES, LABELS_AT_MOST
from app.ingest.sender import Part
from app.ingest.senders.alertmanager_api import READ_ONLY
from tests.conftest import ClientAs
from tests.ingest.test_senders import RECEIVED_AT, alert_values, deep, json_values, read
from tests.ingest.test_webhook import WEBHOOK, a_delivery, count
from tests.ingest.test_webhook import an_alert as a_webhook_alert

KIND = "alertmanager-api"
POST = "/api/v2/alerts"


def an_alert(**fields: Any) -> dict[str, Any]:
    return {"labels": {"alertname": "Slow", "service": "shop"}, "startsAt": "2026-08-20T10:00:00Z"} | fields


def a_body(*alerts: Any) -> bytes:
    return json.dumps(alerts).encode()


# — hostile bodies; those of all senders of alerts are in test_senders.py —


def test_the_identity_of_an_alert_is_alertmanagers() -> None:
    [signal] = read(KIND, a_body(an_alert(fingerprint="chosen by the sender"))).signals
    assert signal.fingerprint == fingerprint_of({"alertname": "Slow", "service": "shop"})


def test_ten_thousand_alerts_are_read_and_the_rest_is_kept() -> None:
    alerts = [an_alert(labels={"n": str(number)}) for number in range(ALERTS_AT_MOST + 2)]
    reading = read(KIND, a_body(*alerts))
    assert len(reading.signals) == ALERTS_AT_MOST
    [rejected] = reading.rejected
    assert (rejected.reason, rejected.part) == ("too_many_alerts", Part(ALERTS_AT_MOST, 2))
    assert json.loads(rejected.raw or b"") == alerts[-2:]
    assert read(KIND, a_body(*alerts), rejected.part).signals == read(KIND, a_body(*alerts[-2:])).signals


def test_long_text_is_cut_and_two_alerts_that_differ_beyond_stay_two() -> None:
    one, other = (an_alert(labels={"alertname": "é" * 5000 + tail}) for tail in ("a", "b"))
    first, second = read(KIND, a_body(one, other)).signals
    assert first.labels == second.labels == {"alertname": "é" * (LABEL_BYTES // 2)}
    assert (first.flags, first.fingerprint == second.fingerprint) == (("value_truncated",), False)


def test_what_is_no_json_is_repaired_or_kept_as_in_every_body() -> None:
    body = a_body(an_alert(annotations={"summary": "one@two"}), an_alert(labels={"n": "!"}))
    [lines, _] = read(KIND, body.replace(b"@", b"\n")).signals
    assert lines.annotations["summary"] == "one\ntwo"
    [cleaned, _] = read(KIND, body.replace(b"@", b"\xe9")).signals
    assert (cleaned.annotations["summary"], cleaned.flags) == ("one\ufffdtwo", ("value_cleaned",))
    assert read(KIND, b"\xef\xbb\xbf" + body) == read(KIND, body)
    nested = read(KIND, body.replace(b'"!"', deep(10_000)))
    assert (len(nested.signals), [one.reason for one in nested.rejected]) == (1, ["too_deep"])
    assert nested.rejected[0].part == Part(1)
    [whole] = read(KIND, b'[{"a":' + b'{"a":' * 10_000).rejected
    assert (whole.reason, whole.part) == ("too_deep", None)
    [many] = read(KIND, b"[" + b"0," * 100_000 + b"0]").rejected
    assert (many.reason, many.part) == ("too_many_alerts", None)


@pytest.mark.parametrize("body", [b"", b"[", b"[] x", b"[],[]", b"alerts=1", b'[],"alerts":[]', b"\xff"])
def test_a_body_that_is_not_json_is_refused_with_instructions(body: bytes) -> None:
    with pytest.raises(UnrecognizedBody, match=r"^The body is not valid JSON\. Expected .+\.$"):
        read(KIND, body)


@pytest.mark.parametrize("body", [b"1", b"null", b'"alerts"', b"{}", b'{"alerts": []}'])
def test_json_of_another_kind_is_refused_with_the_right_address(body: bytes) -> None:
    with pytest.raises(UnrecognizedBody, match=r"^Expected a JSON list of alerts, .+Alertmanager\.$"):
        read(KIND, body)


@given(st.lists(alert_values, max_size=5), st.booleans())
def test_every_alert_becomes_a_signal_or_a_rejected(alerts: list[Any], ascii_only: bool) -> None:
    body = json.dumps(alerts, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    reading = read(KIND, body)
    assert len(reading.signals) + len(reading.rejected) == len(alerts)
    for signal in reading.signals:
        assert (signal.ended_at is None) != (signal.expires_at is None)
        assert signal.expires_at is None or signal.expires_at > RECEIVED_AT
        assert signal.ended_at is None or signal.ended_at <= RECEIVED_AT
        assert 0 < len(signal.labels) <= LABELS_AT_MOST


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with suppress(UnrecognizedBody):
        read(KIND, body)


# — over HTTP —


async def a_token(engine: AsyncEngine, source: str) -> str:
    async with db.session(engine) as session:
        now = datetime.now(UTC)
        return await create_token(session, source, Scope.INGEST, now=now, source_name=source, kind=KIND)


async def test_alerts_become_incidents_and_are_answered_as_alertmanager_answers(
    client_as: ClientAs, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    token = await a_token(engine, "prom")
    sender = await client_as(None)
    for address, headers in (
        (f"/am/{token}{POST}", {}),
        (POST, {"Authorization": f"Bearer {token}"}),
        (f"/am/{token}{POST}/", {}),
    ):
        answer = await sender.post(address, content=a_body(an_alert(), an_alert(labels={})), headers=headers)
        assert (answer.status_code, answer.content) == (200, b"{}")
    [incident] = (await client.get("/api/v1/incidents")).json()["items"]
    assert (incident["sources"], incident["service"], incident["alerts"]) == (["prom"], "shop", 1)
    assert await count(engine, "SELECT count(*) FROM quarantine") == 3
    assert await count(engine, "SELECT count(*) FROM stored_request WHERE position('aft_' IN path::text) > 0") == 0


@pytest.mark.parametrize(
    ("scope", "body", "status", "says"),
    [
        (Scope.ADMIN, b"{}", 400, "JSON list of alerts"),
        (Scope.READ, b"[]", 403, "scope `ingest`"),
        (None, b"[]", 401, "token"),
        (Scope.INGEST, b"[]", 403, "post to /webhooks/alertmanager"),
    ],
)
async def test_a_refusal_is_a_json_string(
    client_as: ClientAs, scope: Scope | None, body: bytes, status: int, says: str
) -> None:
    answer = await (await client_as(scope)).post(POST, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    text = answer.json()
    assert isinstance(text, str)
    assert says in text


# — what clients ask —


async def test_open_alerts_are_listed_in_alertmanagers_form(
    client_as: ClientAs, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    token = await a_token(engine, "prom")
    anonymous = await client_as(None)
    ends = (datetime.now(UTC) + timedelta(minutes=4)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    posted = an_alert(endsAt=ends, annotations={"summary": "slow"}, generatorURL="http://prometheus/graph")
    ended = an_alert(labels={"alertname": "Over", "service": "shop"}, endsAt="2026-08-20T10:05:00Z")
    assert (await anonymous.post(f"/am/{token}{POST}", content=a_body(posted, ended))).status_code == 200
    await client.post(WEBHOOK, json=a_delivery(a_webhook_alert(service="other")))

    [listed] = (await anonymous.get(f"/am/{token}{POST}")).json()
    assert listed.pop("updatedAt") > "2026"
    assert listed == {
        "annotations": {"summary": "slow"},
        "endsAt": ends,
        "fingerprint": fingerprint_of(posted["labels"]),
        "receivers": [{"name": "prom"}],
        "startsAt": "2026-08-20T10:00:00.000Z",
        "status": {"inhibitedBy": [], "mutedBy": [], "silencedBy": [], "state": "active"},
        "generatorURL": "http://prometheus/graph",
        "labels": posted["labels"],
    }
    reader = await client_as(Scope.READ)
    assert {alert["receivers"][0]["name"] for alert in (await reader.get(POST)).json()} == {"prom", "alertmanager"}
    groups = (await reader.get("/api/v2/alerts/groups")).json()
    shown = sorted((one["labels"]["service"], one["receiver"]["name"], len(one["alerts"])) for one in groups)
    assert shown == [("other", "alertmanager", 1), ("shop", "prom", 1)]
    assert {"name": "prom"} in (await reader.get("/api/v2/receivers")).json()
    assert (await anonymous.get(f"/am/{token}/api/v2/receivers")).json() == [{"name": "prom"}]


@pytest.mark.parametrize(
    ("query", "listed"),
    [
        ("", {"A", "B"}),
        ('filter=alertname="A"', {"A"}),
        ('filter=alertname=~"A|B"&filter=zone!="1"', {"B"}),
        ("filter=zone=1", {"A"}),
        ("receiver=pr.*", {"A", "B"}),
        ("receiver=pr", set()),
        ("active=false", set()),
        ("silenced=false&inhibited=false&unprocessed=false", {"A", "B"}),
        ("unknown=1", {"A", "B"}),
    ],
)
async def test_filters_are_those_of_alertmanager(
    client_as: ClientAs, engine: AsyncEngine, query: str, listed: set[str]
) -> None:
    client = await client_as(None)
    client.headers["Authorization"] = f"Bearer {await a_token(engine, 'prom')}"
    alerts = [an_alert(labels={"alertname": "A", "zone": "1"}), an_alert(labels={"alertname": "B"})]
    await client.post(POST, content=a_body(*alerts))
    found = (await client.get(f"{POST}?{query}")).json()
    assert {alert["labels"]["alertname"] for alert in found} == listed
    groups = (await client.get(f"/api/v2/alerts/groups?{query}")).json()
    assert {alert["labels"]["alertname"] for group in groups for alert in group["alerts"]} == listed


@pytest.mark.parametrize("query", ["filter=a", 'filter=a=~"("', "receiver=(", "active=maybe", "filter=a=1&" * 21])
async def test_a_bad_filter_is_refused_as_alertmanager_refuses_it(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"{POST}?{query}")
    assert (answer.status_code, isinstance(answer.json(), str)) == (400, True)


async def test_a_listing_is_bounded_and_says_so(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.ingest.alertmanager.store.LISTED_AT_MOST", 2)
    alerts = [an_alert(labels={"n": str(n)}, startsAt=f"2026-08-20T10:0{n}:00Z") for n in range(3)]
    await client.post(POST, content=a_body(*alerts))
    answer = await client.get(POST)
    assert {alert["labels"]["n"] for alert in answer.json()} == {"1", "2"}
    assert answer.headers["x-aftermath-truncated"] == "true"
    monkeypatch.setattr("app.ingest.alertmanager.store.LISTED_AT_MOST", 3)
    answer = await client.get(POST)
    assert (len(answer.json()), "x-aftermath-truncated" in answer.headers) == (3, False)


async def test_silences_are_read_only(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v2/silences")).json() == []
    assert (await client.get("/api/v2/silence/7f0c")).status_code == 404
    assert (await client.delete("/api/v2/silence/7f0c")).status_code == 404
    refused = await client.post("/api/v2/silences", json={"comment": "ACK!"})
    assert (refused.status_code, refused.json()) == (400, READ_ONLY)


async def test_the_status_is_complete_and_probes_need_no_token(client_as: ClientAs, client: httpx.AsyncClient) -> None:
    status = (await client.get("/api/v2/status")).json()
    assert set(status) == {"cluster", "config", "uptime", "versionInfo"}
    assert status["cluster"] == {"peers": [], "status": "disabled"}
    anonymous = await client_as(None)
    for path in ("/-/healthy", "/-/ready", "/am/any/-/healthy", "/am/any/-/ready"):
        assert (await anonymous.get(path)).text == "OK"
        assert (await anonymous.head(path)).content == b""


@pytest.mark.parametrize("path", ["status", "alerts", "alerts/groups", "receivers", "silences", "silence/1"])
async def test_only_readers_and_the_source_itself_may_ask(client_as: ClientAs, path: str) -> None:
    anonymous = await client_as(None)
    for address in (f"/api/v2/{path}", f"/am/aft_00000000_x/api/v2/{path}"):
        refused = await anonymous.get(address)
        assert (refused.status_code, isinstance(refused.json(), str)) == (401, True)
    other_kind = await client_as(Scope.INGEST)
    assert (await other_kind.get(f"/api/v2/{path}")).status_code == 403
