"""Webhook endpoints through the app and a real database: authentication, storage and responses."""

import asyncio
import hashlib
import hmac
import json
from contextlib import AsyncExitStack
from typing import Any
from uuid import RFC_4122

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.access.tokens import Scope
from app.base.http.context import Context
from app.incidents.grouping.decide import lock_keys
from app.ingest.intake import queue
from tests.conftest import ADMIN_TOKEN, ClientAs

WEBHOOK = "/webhooks/alertmanager"


def an_alert(started: str = "2026-08-20T10:00:00Z", ended: str | None = None, **labels: str) -> dict[str, Any]:
    return {
        "status": "resolved" if ended else "firing",
        "labels": {"alertname": "HighLatency", "service": "checkout", "severity": "critical", **labels},
        "annotations": {"summary": "slow"},
        "startsAt": started,
        "endsAt": ended or "0001-01-01T00:00:00Z",
        "generatorURL": "",
    }


def a_delivery(*alerts: Any) -> dict[str, Any]:
    return {"version": "4", "groupKey": "{}:{}", "status": "firing", "receiver": "x", "alerts": list(alerts)}


async def count(engine: AsyncEngine, query: str) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(text(query))).scalar_one())


async def test_an_alert_becomes_an_incident_and_its_resolve_a_number(client: httpx.AsyncClient) -> None:
    answer = await client.post(WEBHOOK, json=a_delivery(an_alert()))
    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    assert (receipt["signals"], receipt["verdicts"], receipt["incidents"]) == (1, {"opened": 1}, ["INC-1"])
    incident = (await client.get("/api/v1/incidents/INC-1")).json()
    assert (incident["service"], incident["severity"], incident["status"]) == ("checkout", "sev1", "open")
    assert (incident["title"], incident["key"]) == ("HighLatency: slow", 'service="checkout"')
    answer = await client.put(WEBHOOK, json=a_delivery(an_alert(ended="2026-08-20T10:30:00Z")))
    assert answer.json()["verdicts"] == {"resolved": 1}
    incident = (await client.get("/api/v1/incidents/INC-1")).json()
    assert incident["measures"]["time_to_recover"] == {"seconds": 1800, "status": "recorded", "reason": None}


async def test_one_bad_alert_is_quarantined_and_the_others_are_applied(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    bad = an_alert(started="yesterday")
    answer = await client.post(WEBHOOK, json=a_delivery(an_alert(), bad, an_alert(instance="b")))
    assert (answer.status_code, answer.json()["verdicts"]) == (200, {"opened": 1, "joined": 1, "quarantined": 1})
    [item] = (await client.get("/api/v1/quarantine")).json()["items"]
    assert (item["source"], item["reason"]) == ("alertmanager", "bad_time")
    raw = await client.get(f"/api/v1/quarantine/{item['id']}/raw")
    assert raw.json() == bad
    assert await count(engine, "SELECT sum(value) FROM tally WHERE name = 'quarantined'") == 1


async def repair_stored_requests(engine: AsyncEngine) -> None:
    """Changes the stored requests so that 'yesterday' becomes readable, as an update of the parser would."""
    repair = """UPDATE stored_request
                 SET body = convert_to(replace(convert_from(body, 'UTF8'), 'yesterday', '2026-08-20T10:00:00Z'), 'UTF8')
    """
    async with engine.begin() as connection:
        await connection.execute(text(repair))


async def test_a_replay_applies_items_that_are_readable_by_now(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(started="yesterday")))
    await repair_stored_requests(engine)
    answer = await client.post("/api/v1/quarantine/1/replay")
    assert (answer.status_code, answer.json()["verdicts"]) == (200, {"opened": 1})
    assert (await client.get("/api/v1/quarantine")).json()["items"] == []
    again = await client.post("/api/v1/quarantine/1/replay")
    assert (again.status_code, again.json()["type"]) == (409, "urn:aftermath:problem:already-replayed")
    assert (await client.post("/api/v1/quarantine/7/replay")).status_code == 404


async def test_an_unreadable_item_keeps_its_id_and_counts_the_attempt(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(started="yesterday")))
    for attempts in (1, 2):
        assert (await client.post("/api/v1/quarantine/1/replay")).json()["verdicts"] == {"quarantined": 1}
        [item] = (await client.get("/api/v1/quarantine")).json()["items"]
        assert (item["id"], item["attempts"], item["reason"]) == (1, attempts, "bad_time")


async def test_one_bad_alert_of_many_is_replayed_alone(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    alerts = [an_alert(instance=str(n), started="yesterday" if n == 30 else "2026-08-20T10:00:00Z") for n in range(50)]
    await client.post(WEBHOOK, json=a_delivery(*alerts))
    await repair_stored_requests(engine)
    answer = await client.post("/api/v1/quarantine/1/replay")
    assert answer.json()["verdicts"] == {"joined": 1}
    assert await count(engine, "SELECT count(*) FROM alert WHERE labels->>'instance' = '30'") == 1


async def test_alerts_beyond_the_limit_are_replayed_part_by_part(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ingest.reading.alerts.ALERTS_AT_MOST", 2)
    await client.post(WEBHOOK, json=a_delivery(*(an_alert(instance=str(n)) for n in range(5))))
    verdicts = [(await client.post("/api/v1/quarantine/1/replay")).json()["verdicts"] for _ in range(2)]
    assert verdicts == [{"joined": 2, "quarantined": 1}, {"joined": 1}]
    assert await count(engine, "SELECT count(*) FROM alert") == 5
    assert await count(engine, "SELECT count(*) FROM quarantine") == 1


async def test_a_replay_that_cannot_be_applied_counts_as_an_attempt(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(instance="poison", started="yesterday")))
    await repair_stored_requests(engine)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE alert ADD CHECK (labels->>'instance' <> 'poison')"))
    answer = await client.post("/api/v1/quarantine/1/replay")
    assert (answer.status_code, answer.json()["verdicts"]) == (200, {"quarantined": 1})
    [item] = (await client.get("/api/v1/quarantine")).json()["items"]
    assert (item["attempts"], item["reason"]) == (1, "cannot_apply")
    assert (await client.get("/api/v1/quarantine/1/raw")).json()["labels"]["instance"] == "poison"


async def test_a_stored_request_is_whole_but_has_no_credentials(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    secrets = ("Cookie", "X-Gitlab-Token", "X-Hub-Signature-256", "X-Grafana-Alerting-Signature", "Api-Key", "X-Secret")
    headers = dict.fromkeys(secrets, "hidden") | {"X-Tenant": "blue", "Content-Type": "application/json"}
    body = json.dumps(a_delivery(an_alert(started="yesterday")))
    for path in (WEBHOOK, f"{WEBHOOK}/{ADMIN_TOKEN}"):
        await client.post(path, params={"team": "a\0b"}, content=body, headers=headers)
    async with engine.connect() as connection:
        rows = (await connection.execute(text("SELECT * FROM stored_request"))).all()
    for row in rows:
        assert row.headers["x-tenant"] == "blue"
        assert not {name.lower() for name in (*secrets, "Authorization")} & row.headers.keys()
        assert (row.query, row.path, row.body) == ({"team": "ab"}, {}, body.encode())
        assert "hidden" not in str(row)
        assert ADMIN_TOKEN not in str(row)
    assert len(rows) == 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"version":"4","alerts":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        json.dumps(a_delivery(an_alert() | {"deep": 0})).replace('"deep": 0', '"deep": ' + "[" * 10_000 + "]" * 10_000),
        json.dumps(a_delivery(an_alert(note="nul \0 and \ud800"))),
        json.dumps(a_delivery(an_alert(note="x"))).replace('"x"', '"\\u0000\\udfff"'),
        json.dumps(a_delivery(an_alert(note="bytes"))).encode().replace(b"bytes", b"\xff\xfe\xc3"),
        json.dumps(a_delivery(an_alert(started="0001-01-01T00:00:00+02:00"))),
        json.dumps(a_delivery(an_alert(started="2026-08-20T10:00:00.123456789Z"))),
        json.dumps(a_delivery(an_alert(started="2026-08-20T10:00:00"))),
        json.dumps(a_delivery(an_alert(huge="x" * 1_000_000))),
        json.dumps(a_delivery(an_alert(**{f"label {n}": "v" for n in range(3000)}))),
        json.dumps(a_delivery(*(an_alert(instance=str(n)) for n in range(10_001)))),
        json.dumps(a_delivery(an_alert(), 7, None, [], "alert", {"status": "firing"})),
        json.dumps(a_delivery(an_alert(service="{{7*7}} {x:>900000000}\r\n'; DROP TABLE alert; --"))),
        json.dumps(a_delivery(an_alert(started="9999-12-31T23:59:59Z", ended="9999-12-31T23:59:59Z"))),
    ],
    ids=lambda body: hashlib.sha1(body if isinstance(body, bytes) else body.encode()).hexdigest()[:6],
)
async def test_hostile_bodies_neither_crash_nor_are_lost(
    client: httpx.AsyncClient, engine: AsyncEngine, body: str | bytes
) -> None:
    answer = await client.post(WEBHOOK, content=body)
    assert answer.status_code == 200, answer.text
    receipt = answer.json()["verdicts"]
    assert await count(engine, "SELECT count(*) FROM quarantine") == receipt.get("quarantined", 0)
    assert await count(engine, "SELECT count(*) FROM alert") == sum(
        number for verdict, number in receipt.items() if verdict in {"opened", "joined"}
    )
    assert sum(receipt.values()) > 0
    # The remaining items can be shown.
    for path in ("/api/v1/incidents", "/api/v1/incidents/INC-1/alerts", "/api/v1/quarantine", "/api/v1/services"):
        assert (await client.get(path)).status_code in {200, 404}, path
    assert (await client.post(WEBHOOK, json=a_delivery(an_alert(instance="after")))).status_code == 200


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"not json", {}, 400),
        (b"[]", {}, 400),
        (b'{"custom": "payload"}', {}, 400),
        (b"{}", {"content-encoding": "gzip"}, 415),
        (b" " * (11 * 2**20), {}, 413),
    ],
)
async def test_only_bodies_that_are_no_delivery_are_refused(
    client: httpx.AsyncClient, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await client.post(WEBHOOK, content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", WEBHOOK, 200),
        ("PUT", WEBHOOK, 200),
        ("POST", f"{WEBHOOK}?x=y", 200),
        ("POST", "/webhooks/%61lertmanager", 200),
        ("POST", f"{WEBHOOK}/{{token}}", 200),
        ("POST", f"{WEBHOOK}/{{token}}?x=y", 200),
        ("POST", f"{WEBHOOK}/{{token}}x", 401),
        ("POST", f"{WEBHOOK}/{{token}}/x", 404),
        ("POST", f"{WEBHOOK}/", 200),
        ("POST", "/webhooks/nagios", 404),
        ("POST", "/webhooks", 404),
        ("GET", WEBHOOK, 405),
    ],
)
async def test_only_the_paths_of_a_webhook_take_deliveries(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path.format(token=ADMIN_TOKEN), json=a_delivery(an_alert()))
    assert answer.status_code == status, answer.text


async def test_a_test_notification_opens_no_incident(client: httpx.AsyncClient) -> None:
    alert = an_alert() | {"labels": {"alertname": "TestAlert", "instance": "Grafana"}}
    answer = await client.post("/webhooks/grafana", json=a_delivery(alert) | {"version": "1"})
    assert (answer.json()["verdicts"], answer.json()["incidents"]) == ({"ignored": 1}, [])


async def test_grafanas_resolve_without_a_start_ends_the_newest_alert(client: httpx.AsyncClient) -> None:
    firing = an_alert() | {"fingerprint": "c6eadffa33fcdf37"}
    ended = firing | {"status": "resolved", "startsAt": "2026-08-20T10:20:00Z", "endsAt": "2026-08-20T10:20:00Z"}
    await client.post("/webhooks/grafana", json=a_delivery(firing))
    answer = await client.post("/webhooks/grafana", json=a_delivery(ended))
    assert answer.json()["verdicts"] == {"resolved": 1}
    incident = (await client.get("/api/v1/incidents/INC-1")).json()
    assert incident["measures"]["time_to_recover"]["seconds"] == 1200


async def test_monitoring_failures_do_not_affect_the_service(client: httpx.AsyncClient) -> None:
    no_data = an_alert() | {"fingerprint": "1", "labels": {"alertname": "DatasourceNoData", "service": "checkout"}}
    await client.post("/webhooks/grafana", json=a_delivery(no_data, an_alert() | {"fingerprint": "2"}))
    incidents = (await client.get("/api/v1/incidents")).json()["items"]
    assert len(incidents) == 2
    assert sorted(one["measures"]["time_to_recover"]["status"] for one in incidents) == ["not_applicable", "pending"]


# — authentication —


async def test_a_webhook_accepts_its_token_as_bearer_as_password_and_in_the_path(client_as: ClientAs) -> None:
    client = await client_as(Scope.INGEST)
    anonymous = await client_as(None)
    token = client.headers["Authorization"].removeprefix("Bearer ")
    body = a_delivery(an_alert())
    for answer in (
        await client.post(WEBHOOK, json=body),
        await anonymous.post(WEBHOOK, json=body, auth=("whoever", token)),
        await anonymous.post(f"{WEBHOOK}/{token}", json=body),
        await anonymous.put(f"{WEBHOOK}/{token}", json=body),
    ):
        assert answer.status_code == 200, answer.text
    for answer in (
        await anonymous.post(WEBHOOK, json=body),
        await anonymous.post(WEBHOOK, json=body, auth=("whoever", token + "x")),
        await anonymous.post(f"{WEBHOOK}/aft_00000000_no", json=body),
        await anonymous.post(f"{WEBHOOK}/{token[:-1]}", json=body),
        await anonymous.post(WEBHOOK, json=body, headers={"Authorization": "Basic %%%"}),
        await anonymous.post(WEBHOOK, json=body, headers={b"Authorization": b"Bearer \xff"}),
    ):
        assert (answer.status_code, answer.json()["title"]) == (401, "Not authenticated")


async def test_a_token_is_accepted_by_the_webhook_of_its_kind_only(client_as: ClientAs) -> None:
    client = await client_as(Scope.INGEST)
    assert (await client.post("/webhooks/grafana", json=a_delivery())).status_code == 403
    reader = await client_as(Scope.READ)
    assert (await reader.post(WEBHOOK, json=a_delivery())).status_code == 403


async def test_both_peers_of_a_pair_are_one_source(client: httpx.AsyncClient, client_as: ClientAs) -> None:
    first, second = await client_as(Scope.INGEST), await client_as(Scope.INGEST)
    await first.post(WEBHOOK, json=a_delivery(an_alert()) | {"externalURL": "http://am-0:9093"})
    answer = await second.post(WEBHOOK, json=a_delivery(an_alert()) | {"externalURL": "http://am-1:9093"})
    assert answer.json()["verdicts"] == {"repeated": 1}
    assert (await client.get("/api/v1/incidents/INC-1")).json()["sources"] == ["prod"]


async def test_a_source_may_ask_for_signatures(client: httpx.AsyncClient) -> None:
    settings = {"kind": "grafana", "hmac_secret": "secret"}
    shown = await client.put("/api/v1/sources/grafana", json=settings)
    assert (shown.status_code, shown.json()["signed"]) == (200, True)
    assert "secret" not in shown.text.replace("hmac_secret", "")
    body = json.dumps(a_delivery(an_alert())).encode()
    signature = hmac.new(b"secret", body, "sha256").hexdigest()
    for headers, status in (
        ({}, 401),
        ({"X-Grafana-Alerting-Signature": "0" * 64}, 401),
        ({"X-Grafana-Alerting-Signature": signature}, 200),
    ):
        assert (await client.post("/webhooks/grafana", content=body, headers=headers)).status_code == status
    conflict = await client.put("/api/v1/sources/grafana", json={"kind": "alertmanager"})
    assert conflict.status_code == 409
    unsigned = await client.put("/api/v1/sources/prod", json={"kind": "alertmanager", "hmac_secret": "secret"})
    assert unsigned.status_code == 422


# — one queue, one transaction —


async def test_many_deliveries_at_once_share_transactions_and_get_their_own_verdicts(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    answers = await asyncio.gather(
        *(client.post(WEBHOOK, json=a_delivery(an_alert(instance=str(n), service=f"s{n % 5}"))) for n in range(200))
    )
    verdicts = [next(iter(answer.json()["verdicts"])) for answer in answers]
    assert (verdicts.count("opened"), verdicts.count("joined")) == (5, 195)
    assert await count(engine, "SELECT count(*) FROM delivery") == 200
    assert await count(engine, "SELECT count(DISTINCT xmin::text) FROM delivery") < 100


async def test_senders_out_of_step_come_to_share_transactions(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two groups of clients, the second while the first is in the database: without gathering they would alternate and
    need forty transactions.
    """
    monkeypatch.setattr(queue, "GATHER_SECONDS", 1.0)
    first = asyncio.Event()

    async def send_on(sender: str) -> None:
        for turn in range(20):
            await client.post(WEBHOOK, json=a_delivery(an_alert(instance=f"{sender} {turn}")))
            first.set()

    async with asyncio.TaskGroup() as senders:
        for number in range(2 * queue.MIN_DELIVERIES_TO_GATHER):
            if number == queue.MIN_DELIVERIES_TO_GATHER:
                await first.wait()
            senders.create_task(send_on(str(number)))
    assert await count(engine, "SELECT count(*) FROM delivery") == 20 * 2 * queue.MIN_DELIVERIES_TO_GATHER
    assert await count(engine, "SELECT count(DISTINCT xmin::text) FROM delivery") < 30


_WAITING_FOR_A_LOCK = """
    SELECT count(*)
      FROM pg_locks
      JOIN pg_database ON pg_database.oid = pg_locks.database
     WHERE datname = current_database()
       AND locktype = 'advisory'
       AND NOT granted
"""


async def test_a_full_batch_does_not_wait_for_a_hanging_one(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """Another session holds the lock of a key; a full batch of other keys is answered meanwhile, a small one is not."""
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    async with engine.begin() as holding, asyncio.TaskGroup() as senders:
        [key] = (await holding.execute(text("SELECT key_id FROM incident"))).scalars()
        await lock_keys(holding, [key])
        hangs = senders.create_task(client.post(WEBHOOK, json=a_delivery(an_alert(instance="hangs"))))
        while not await count(engine, _WAITING_FOR_A_LOCK):
            await asyncio.sleep(0.01)
        few = senders.create_task(client.post(WEBHOOK, json=a_delivery(an_alert(service="few"))))
        await asyncio.sleep(0.2)
        assert not few.done()
        many = a_delivery(*(an_alert(instance=str(n), service="many") for n in range(queue.MIN_BATCH_WEIGHT)))
        answer = await asyncio.wait_for(client.post(WEBHOOK, json=many), 20)
        assert answer.json()["verdicts"] == {"opened": 1, "joined": queue.MIN_BATCH_WEIGHT - 1}
        assert (await few).status_code == 200, "it was queued before the others"
        assert not hangs.done()
        await holding.rollback()
    assert (await hangs).json()["verdicts"] == {"joined": 1}


async def test_ids_lie_in_order_of_time(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """Otherwise every page of an index would be rewritten and logged."""
    for number in range(20):
        await client.post(WEBHOOK, json=a_delivery(an_alert(service=str(number))))
        await asyncio.sleep(0.002)
    for table, time in (("delivery", "received_at"), ("incident", "created_at")):
        async with engine.connect() as connection:
            ids = (await connection.execute(text(f"SELECT id FROM {table} ORDER BY {time}"))).scalars().all()
        assert len(ids) == 20
        assert ids == sorted(ids)
        assert {(one.version, one.variant) for one in ids} == {(7, RFC_4122)}


async def test_fifty_first_deliveries_at_once_make_one_incident(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(client.post(WEBHOOK, json=a_delivery(an_alert(), an_alert(instance=str(n)))) for n in range(50))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert {name for answer in answers for name in answer.json()["incidents"]} == {"INC-1"}
    [incident] = (await client.get("/api/v1/incidents")).json()["items"]
    assert incident["alerts"] == 51


async def test_slow_queries_do_not_keep_alerts_waiting(client: httpx.AsyncClient, context: Context) -> None:
    """All connections of the routes are in use; ingest has its own."""
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(context.engine.connect())
        answer = await asyncio.wait_for(client.post(WEBHOOK, json=a_delivery(an_alert(instance="b"))), 5)
    assert (answer.status_code, answer.json()["verdicts"]) == (200, {"joined": 1})


async def test_a_delivery_that_fails_does_not_affect_its_batch(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """A constraint represents anything that the database may refuse and no parser foresaw."""
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE alert ADD CHECK (labels->>'instance' <> 'poison')"))
    bodies = [a_delivery(an_alert(instance=name)) for name in ("a", "poison", "b", "c")]
    answers = await asyncio.gather(*(client.post(WEBHOOK, json=body) for body in bodies))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert answers[1].json()["verdicts"] == {"quarantined": 1}
    assert await count(engine, "SELECT count(*) FROM alert") == 3
    [item] = (await client.get("/api/v1/quarantine")).json()["items"]
    assert item["reason"] == "cannot_apply"
    assert (await client.get(f"/api/v1/quarantine/{item['id']}/raw")).json() == bodies[1]
    # Replayed once the cause is fixed.
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE alert DROP CONSTRAINT alert_labels_check"))
    answer = await client.post(f"/api/v1/quarantine/{item['id']}/replay")
    assert answer.json()["verdicts"] == {"joined": 1}


async def test_a_rule_change_affects_later_alerts_only(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(instance="a")))
    rule = {"position": 1, "matchers": ['alertname="HighLatency"'], "key_labels": ["instance"], "window_seconds": 600}
    answer = await client.put("/api/v1/rules/by-instance", json=rule)
    assert answer.status_code == 201, answer.text
    answer = await client.post(WEBHOOK, json=a_delivery(an_alert(instance="a"), an_alert(instance="b")))
    assert (answer.json()["verdicts"], answer.json()["incidents"]) == ({"repeated": 1, "opened": 1}, ["INC-1", "INC-2"])
    # The alert that started under the old rule also ends in its incident.
    answer = await client.post(WEBHOOK, json=a_delivery(an_alert(instance="a", ended="2026-08-20T10:30:00Z")))
    assert (answer.json()["verdicts"], answer.json()["incidents"]) == ({"resolved": 1}, ["INC-1"])


async def test_labels_that_a_rule_ignores_make_no_series_of_their_own(client: httpx.AsyncClient) -> None:
    rule = {"position": 1, "matchers": [], "ignored_labels": ["replica"]}
    assert (await client.put("/api/v1/rules/replicas", json=rule)).status_code == 201
    answer = await client.post(WEBHOOK, json=a_delivery(an_alert(replica="a"), an_alert(replica="b")))
    assert answer.json()["verdicts"] == {"opened": 1, "repeated": 1}
