"""Hostile values in every field: a poison fact takes nothing else with it, and what was accepted can always be read."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.http.context import Context
from app.base.http.limits import clients
from app.base.values.facts import IssueEvent, IssueState, Reaction, ReactionKind, Report
from app.cli import openapi_document
from app.incidents.grouping.signal import Signal, Status
from app.ingest.intake.flush import Delivery
from app.ingest.sender import Endpoint, Reading, Receipt, Request
from app.ingest.senders import SENDERS
from app.ingest.service import Ingest
from app.settings import Labor
from tests.ingest.test_senders import ALERT_KINDS, DEPLOYMENT_KINDS, FIXTURES
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert, count

DOCUMENT = openapi_document()
# Paths that answer in the form of another product.
IMITATED = {
    path
    for path, methods in DOCUMENT["paths"].items()
    for operation in methods.values()
    if "compatible APIs" in operation["tags"]
}
OPTIONAL = ("/objective", "/reconciler", "/meeting.ics", "/public-report")  # what need not exist: 404
HALF = "\ud83d"
NASTY: Sequence[Any] = (
    None,
    True,
    0,
    -1,
    1.5,
    10**400,
    -(10**18),
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "NaN",
    "null",
    HALF,
    "\x00",
    f"a\x00b{HALF}c",
    "\ufffe\uffff",
    "é" * 500_000,
    "x" * 1_000_000,
    "9" * 1_000_000,
    "9999999999w",
    "99999999999999999999999999999999999999d",
    "106751991167300d",
    "1w",
    "2d",
    "0000-00-00T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "1970-01-01T00:00:00Z",
    "1970-12-31T23:59:59.999999Z",
    "1971-01-01T00:00:00Z",
    "1971-01-01T00:00:00+14:00",
    "1970-12-31T12:00:00-12:00",
    "2199-12-31T23:59:59-14:00",
    "2200-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "9999-12-31T23:59:59-23:59",
    "10000-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-08-20T10:00:00+99:99",
    [],
    [None],
    ["\x00", HALF, 1, {}],
    {},
    {"": ""},
    {"\x00": "\x00", HALF: HALF},
    {"a": {"b": [1, {"c": "d"}]}},
    {"for": "9999999999w"},
    {"for": "2d", "grafana_state_reason": "\x00"},
    {f"k{n}": "v" for n in range(2000)},
    {"k" * 5000: "v" * 50_000},
    {"service": "s" * 5000, "severity": HALF, "alertname": "{{" * 2000, "environment": "\x00"},
)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def placed(document: Any, *values: Any) -> Iterator[Any]:
    """The document with each value in place of each of its fields, and nested fields, in turn."""
    for name, inner in document.items() if isinstance(document, dict) else enumerate(document):
        yield from ({**document, name: value} if isinstance(document, dict) else [value] for value in values)
        if isinstance(inner, dict | list):
            for changed in placed(inner, *values):
                yield {**document, name: changed} if isinstance(document, dict) else [changed]


# — reading —


def reading_routes() -> Iterator[tuple[str, dict[str, str]]]:
    """Every route that reads, with the parameters that it needs. Those in its path remain to be filled."""
    for path, methods in DOCUMENT["paths"].items():
        if "get" in methods:
            needed = [one for one in methods["get"].get("parameters", []) if one.get("required")]
            yield path, {one["name"]: one["schema"]["examples"][0] for one in needed if one["in"] == "query"}


async def require_readable(client: httpx.AsyncClient, *, of_each: int = 5) -> None:
    """Every route answers, for each of the latest rows."""
    known = {
        "/api/v1/incidents/": "number",
        "/api/v1/deployments/": "key",
        "/api/v1/quarantine/": "id",
        "/api/v1/services/": "name",
        "/api/v1/sources/": "name",
        "/api/v1/rules/": "name",
        "/api/v1/calendars/": "name",
        "/api/v1/maintenance/": "name",
        "/api/v1/reviews/": "number",
        "/api/v1/action-items/": "number",
        "/api/v1/status-page/incidents/": "id",
        "/api/v1/incident-types/": "name",
        "/api/v1/people/": "name",
    }
    values: dict[str, list[str]] = {}
    for start, field in known.items():
        answer = await client.get(start.rstrip("/"), params={"limit": 500})
        assert answer.status_code == 200, (start, answer.text[:500])
        values[start] = [quote(str(one[field]), safe="") for one in answer.json()["items"]][:of_each]
    for path, query in reading_routes():
        start, brace, rest = path.partition("{")
        is_imitated = path in IMITATED
        if "{token}" in path or path.count("{") > 1:
            continue  # the same as the path without it; a part of what another path shows
        ids = ["any"] if is_imitated else values[start] if brace else []
        paths = [f"{start}{value}{rest.partition('}')[2]}" for value in ids] if brace else [path]
        for each in paths:
            answer = await client.get(each, params=query)
            missing = (202, 404) if is_imitated else (404,) if each.endswith(OPTIONAL) else ()
            assert answer.status_code in (200, *missing), (each, answer.status_code, answer.text[:500])


# — alerts —


def hostile_alerts() -> list[bytes]:
    alert = an_alert(ended="2026-08-20T10:30:00Z") | {"fingerprint": "f", "annotations": {"summary": "s", "for": "5m"}}
    bodies = [as_json(one) for one in placed(alert, *NASTY)]
    bodies += [as_json(one) for one in placed(an_alert(), *NASTY[::3])]
    bodies += [as_json(one).replace(b'"@"', nested(5000)) for one in placed(alert, "@")]
    bodies += [as_json(one).replace(b'"@"', b"9" * 5000) for one in placed(alert, "@")]
    bodies += [as_json(one).replace(b"@", bytes(range(1, 32)).replace(b'"', b"")) for one in placed(alert, "@")]
    bodies += [as_json(one).replace(b"@", b"\xff\xc3\x00") for one in placed(alert, "@")]
    return [*bodies, b"1", b'""', b"null", b"[]", b"{}", nested(5000)]


async def test_one_poison_alert_takes_nothing_else_with_it(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    bad = hostile_alerts()
    assert len(bad) > 500
    good = [as_json(an_alert(service=f"good-{number}")) for number in range(len(bad))]
    for start in range(0, len(bad), 25):
        pairs = zip(bad[start : start + 25], good[start : start + 25], strict=True)
        body = b'{"alerts":[' + b",".join(alert for pair in pairs for alert in pair) + b"]}"
        for kind in ("alertmanager", "grafana"):
            answer = await client.post(f"/webhooks/{kind}", content=body)
            assert answer.status_code == 200, (start, kind, answer.text)
        answer = await client.post("/api/v2/alerts", content=body.removeprefix(b'{"alerts":').removesuffix(b"}"))
        assert answer.status_code == 200, (start, answer.text)
    assert await count(
        engine, "SELECT count(DISTINCT labels->>'service') FROM alert WHERE labels->>'service' ~ '^good-'"
    ) == len(good)
    assert await count(engine, "SELECT count(*) FROM quarantine WHERE part_start IS NULL") == 0
    await require_readable(client)


async def test_a_poison_alert_that_only_the_database_refuses_is_quarantined_alone(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await execute(engine, "ALTER TABLE alert ADD CONSTRAINT poison CHECK (labels->>'instance' NOT IN ('7', '33'))")
    unreadable = an_alert(started="yesterday")
    answer = await client.post(WEBHOOK, json=a_delivery(unreadable, *(an_alert(instance=str(n)) for n in range(50))))
    assert (answer.status_code, answer.json()["verdicts"]) == (200, {"opened": 1, "joined": 47, "quarantined": 3})
    items = (await client.get("/api/v1/quarantine")).json()["items"]
    assert [await raw(client, item) for item in reversed(items)] == [
        unreadable,
        an_alert(instance="7"),
        an_alert(instance="33"),
    ]
    assert [item["reason"] for item in items] == ["cannot_apply", "cannot_apply", "bad_time"]

    await execute(engine, "ALTER TABLE alert DROP CONSTRAINT poison")
    for item in items[:2]:
        replayed = await client.post(f"/api/v1/quarantine/{item['id']}/replay")
        assert replayed.json()["verdicts"] == {"joined": 1}
    assert await count(engine, "SELECT count(*) FROM alert") == 50


async def test_a_replay_of_many_alerts_leaves_only_the_poison_in_quarantine(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ingest.reading.alerts.ALERTS_AT_MOST", 1)
    await client.post(WEBHOOK, json=a_delivery(*(an_alert(instance=str(n)) for n in range(20))))
    monkeypatch.setattr("app.ingest.reading.alerts.ALERTS_AT_MOST", 100)
    await execute(engine, "ALTER TABLE alert ADD CONSTRAINT poison CHECK (labels->>'instance' <> '7')")
    replayed = await client.post("/api/v1/quarantine/1/replay")
    assert replayed.json()["verdicts"] == {"joined": 18, "quarantined": 1}
    [item] = (await client.get("/api/v1/quarantine")).json()["items"]
    assert (item["id"], await raw(client, item)) == (1, an_alert(instance="7"))


async def test_after_many_tries_what_was_not_tried_is_quarantined_with_the_poison(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ingest.intake.poison.TRIES", 4)
    await execute(engine, "ALTER TABLE alert ADD CONSTRAINT poison CHECK (labels->>'instance' <> '0')")
    answer = await client.post(WEBHOOK, json=a_delivery(*(an_alert(instance=str(n)) for n in range(40))))
    assert answer.json()["verdicts"] == {"opened": 1, "joined": 29, "quarantined": 10}


async def test_a_poison_fact_of_a_person_or_a_deployment_takes_no_other_with_it(
    context: Context, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    """By a sender that does not check what it reads."""
    now = datetime(2026, 8, 20, 12, tzinfo=UTC)
    delivered = (await client.post(WEBHOOK, json=a_delivery(an_alert()))).json()
    assert delivered["verdicts"] == {"opened": 1}
    reading = Reading(
        signals=tuple(
            Signal(fingerprint=name, status=Status.FIRING, started_at=now, labels={"alertname": name, "service": name})
            for name in ("good", "bad\x00")
        ),
        deployments=(Report("one", "shop"), Report("two", "shop", version="\x00"), Report("three", "shop")),
        reactions=(
            Reaction(ReactionKind.ACKNOWLEDGED, now, "good", by="ada"),
            Reaction(ReactionKind.ACKNOWLEDGED, now, "good", by="\x00"),
            Reaction(ReactionKind.ACKNOWLEDGED, datetime.min.replace(tzinfo=UTC) - timedelta(0), "good", by=HALF),
        ),
        issues=(
            IssueEvent("https://example.org/1", IssueState.DONE, now),
            IssueEvent("https://example.org/2", IssueState.DONE, now, by="\x00"),
        ),
    )
    request = Request(b"{}", now, "alertmanager")
    source_id = await count(engine, "SELECT id FROM source WHERE name = 'alertmanager'")
    delivery = Delivery(source_id, "alertmanager", now, reading, request, "alertmanager")

    receipt = await context.part(Ingest).queue.take(delivery)

    assert isinstance(receipt, Receipt)
    assert receipt.deployments == [f"alertmanager:shop:production:{name}" for name in ("one", "three")]
    assert receipt.verdicts == {"opened": 1, "recorded": 2, "waiting": 1, "acknowledged": 1, "quarantined": 1}
    assert await count(engine, "SELECT count(*) FROM reaction WHERE by = 'ada'") == 1
    await require_readable(client)


async def raw(client: httpx.AsyncClient, item: dict[str, Any]) -> Any:
    """What was received and could not be read or applied."""
    return (await client.get(f"/api/v1/quarantine/{item['id']}/raw")).json()


async def execute(engine: AsyncEngine, statement: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement))


# — deployments —


@pytest.mark.parametrize(("kind", "offset"), [("deployments", 0), ("github", 1), ("gitlab", 2)])
async def test_a_hostile_report_of_a_deployment_harms_nothing(
    client: httpx.AsyncClient, kind: str, offset: int
) -> None:
    """A third of the values for each kind, because they share their parsers."""
    example = dict(SENDERS[kind].example)
    answers = Counter[int]()
    for body in islice(placed(example, *NASTY), offset, None, 3):
        answer = await client.post(f"/webhooks/{kind}", content=as_json(body))
        answers[answer.status_code] += 1
        assert answer.status_code in {200, 400, 413, 422}, (answer.status_code, answer.text, str(body)[:300])
    assert answers[200] > 50
    assert (await client.post(f"/webhooks/{kind}", content=as_json(example))).json()["verdict"] in {
        "recorded",
        "repeated",
    }
    await require_readable(client)


# — other senders —

ENDPOINTS = [
    (kind, endpoint, method)
    for kind, sender in SENDERS.items()
    if kind not in {*ALERT_KINDS, *DEPLOYMENT_KINDS}
    for endpoint in sender.endpoints
    if "{token}" not in endpoint.path and endpoint.look_up is None
    for method in endpoint.methods[:1]
]


@pytest.mark.parametrize(
    ("kind", "endpoint", "method"), ENDPOINTS, ids=lambda one: str(getattr(one, "path", one)).replace("/", "-")
)
async def test_a_hostile_fact_harms_nothing(
    client: httpx.AsyncClient, kind: str, endpoint: Endpoint, method: str
) -> None:
    """In each field of the example, through each endpoint that takes its token elsewhere than in its path."""
    example = endpoint.example or SENDERS[kind].example
    example = dict(example) if isinstance(example, Mapping) else list(example)
    address = re.sub(r"\{\w+\}", "close", endpoint.path)
    answers = Counter[int]()
    for body in islice(placed(example, *NASTY), len(endpoint.path) % 3, None, 3):
        answer = await client.request(method, address, content=as_json(body))
        answers[answer.status_code] += 1
        assert answer.status_code in {200, 202, 400, 413, 422}, (answer.status_code, answer.text, str(body)[:300])
    assert answers[200] + answers[202] > 20
    for odd in (as_json(example).replace(b'"', b'"\x01\xff', 3), nested(5000), b'{"a":' + nested(5000) + b"}"):
        assert (await client.request(method, address, content=odd)).status_code < 500
    assert (await client.request(method, address, content=as_json(example))).status_code in {200, 202}
    await require_readable(client)


@pytest.mark.parametrize(("kind", "offset"), [("github", 0), ("gitlab", 1)])
async def test_a_hostile_report_of_an_issue_harms_nothing(client: httpx.AsyncClient, kind: str, offset: int) -> None:
    """Of the senders that also report deployments. Half of the values for each, because they share their parsers."""
    sent = json.loads((FIXTURES / kind / "issue_closed.json").read_text())
    headers = {**sent["headers"], "content-type": "application/json"}
    answers = Counter[int]()
    for body in islice(placed(sent["body"], *NASTY), offset, None, 2):
        answer = await client.post(f"/webhooks/{kind}", content=as_json(body), headers=headers)
        answers[answer.status_code] += 1
        assert answer.status_code in {200, 400, 413, 422}, (answer.status_code, answer.text, str(body)[:300])
    assert answers[200] > 200
    answer = await client.post(f"/webhooks/{kind}", content=as_json(sent["body"]), headers=headers)
    assert answer.json()["verdict"] == "waiting"
    await require_readable(client)


# — chats —

AN_ID_AND_A_TIME = {"id": "1", "createdDateTime": "2026-08-20T10:05:00Z"}
CHATS: Mapping[str, Any] = {
    "slack": {
        "users": [{"id": "U1", "name": "ada", "real_name": "Ada", "profile": {"display_name": "ada"}}],
        "messages": [
            {"type": "message", "user": "U1", "text": "<@U1> hi", "ts": "1787219730.1", "subtype": "", "channel": "c"}
        ],
    },
    "mattermost": {
        "order": ["a"],
        "posts": {"a": {"id": "a", "user_id": "u", "message": "hi", "create_at": 1787219730000, "channel_id": "c"}},
    },
    "teams": {
        "value": [
            AN_ID_AND_A_TIME
            | {"from": {"user": {"displayName": "Ada"}}, "body": {"contentType": "html", "content": "<p>hi</p>"}}
        ]
    },
    "lines": {"id": "1", "at": "2026-08-20T10:05:00Z", "by": "ada", "text": "hi"},
}


@pytest.mark.parametrize("format_", CHATS)
async def test_no_value_in_a_chat_breaks_its_import_or_a_later_answer(client: httpx.AsyncClient, format_: str) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    address = f"/api/v1/incidents/INC-1/chat?format={format_}&from=2026-01-01T00:00:00Z&to=2027-01-01T00:00:00Z"
    odd = (f"&#{'9' * 5000};", "<![odd[a]]>", "<!--", "<@U1|", "1787219730." + "9" * 400, ["a"], {"a": "b"})
    taken = 0
    for body in placed(CHATS[format_], *REST_VALUES, *odd):
        answer = await client.post(address, content=as_json(body))
        assert answer.status_code in {200, 400, 422}, (answer.status_code, answer.text, str(body)[:500])
        taken += answer.json().get("taken", 0)
    assert taken > 5
    await require_readable(client)


# — REST —

REST_VALUES: Sequence[Any] = (
    None, -1, 10**400, 1e308, float("nan"), "", HALF, "\x00", f"a\x00{HALF}", "x" * 100_000, "XXQ", "9" * 5000,
    "0001-01-01T00:00:00+14:00", "1970-12-31T23:59:59Z", "1971-01-01T00:00:00Z", "1971-01-01T00:00:00+14:00",
    "2199-12-31T23:59:59-14:00", "2200-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00", "1971-01-01", "9999-12-31",
    [], [HALF], ["\x00"], {}, {"\x00": HALF},
)  # fmt: skip


def examples() -> Iterator[tuple[str, str, Any]]:
    """Every route that takes JSON, with an example of its body."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None and not path.startswith("/webhooks/") and path not in IMITATED:
                yield method, path, example_of(content["schema"])


def example_of(schema: dict[str, Any]) -> Any:
    """A value of this schema that has every field."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    fields = {name: example_of(inner) for name, inner in schema.get("properties", {}).items()}
    for example in schema.get("examples", []):
        return fields | example if fields else example
    for inner in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
        return example_of(inner)
    defaults = {
        "object": fields,
        "array": [example_of(schema["items"])] if "items" in schema else [],
        "integer": schema.get("minimum", 1),
        "number": schema.get("minimum", 1),
        "boolean": False,
        "string": "2026-08-20T10:00:00Z" if schema.get("format") == "date-time" else "a",
    }
    return schema.get("enum", [defaults[schema.get("type", "string")]])[0]


async def a_review(client: httpx.AsyncClient) -> dict[str, str]:
    """The parameters of the paths of a new review, its finding and its action item."""
    review = (await client.post("/api/v1/reviews", json={"title": "t", "incidents": ["INC-1"]})).json()["number"]
    finding = {"kind": "learning", "text": "t"}
    found = (await client.post(f"/api/v1/reviews/{review}/findings", json=finding)).json()["id"]
    item = {"title": "t", "phase": "response", "review": review}
    made = (await client.post("/api/v1/action-items", json=item)).json()["number"]
    return {"{review}": review, "{finding}": str(found), "{item}": made}


async def a_public_incident(client: httpx.AsyncClient) -> dict[str, str]:
    """The parameters of the paths of a new public incident and its first update."""
    first = {"status": "investigating", "body": "t"}
    made = (await client.post("/api/v1/status-page/incidents", json={"title": "t", "first": first})).json()
    return {"{public_id}": made["id"], "{update_id}": str(made["updates"][0]["id"])}


@pytest.mark.parametrize(("method", "path", "example"), [*examples()], ids=lambda one: str(one)[:60])
async def test_no_value_in_a_body_breaks_a_route_or_a_later_answer(
    client: httpx.AsyncClient, method: str, path: str, example: dict[str, Any]
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(), an_alert(service="other")))
    await client.post("/api/v1/incidents/INC-1/timeline", json={"note": "n"})
    entries = (await client.get("/api/v1/incidents/INC-1/timeline")).json()["items"]
    [note] = [one["id"] for one in entries if one["kind"] == "note"]
    name = "checkout" if "/services/" in path else "alertmanager"
    ids = {"{id}": "INC-1", "{other}": "INC-2", "{entry}": str(note), "{name}": name}
    ids |= {"{person}": "ada", "{role}": "commander", "{playbook}": "restart", "{version}": "1"}
    if "/reviews" in path or "/action-items" in path:
        ids |= await a_review(client)
    if "/status-page" in path:
        ids |= await a_public_incident(client)
    address = re.sub(r"\{\w+\}", lambda found: ids[found[0]], path)
    for body in islice(placed(example, *REST_VALUES), 0, None, 2):
        answer = await client.request(method, address, content=as_json(body))
        assert answer.status_code < 500, (answer.status_code, answer.text, str(body)[:500])
        shown = as_json(body)
        if b"\\u0000" in shown or b"\\ud83d" in shown:
            assert answer.status_code in {404, 409, 422}, (answer.status_code, str(body)[:500])
    await require_readable(client)


async def test_no_value_in_a_query_breaks_a_route(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "FREE_FAILURES", 10.0**9)  # paths with a credential have a wrong one here
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    tried = 0
    for path, methods in DOCUMENT["paths"].items():
        for name in {one["name"] for one in methods.get("get", {}).get("parameters", []) if one["in"] == "query"}:
            address = path.replace("{id}", "INC-1").replace("{name}", "checkout")
            needed = dict(reading_routes())[path]
            for value in QUERY_VALUES:
                others = "&".join(f"{one}={quote(text)}" for one, text in needed.items() if one != name)
                answer = await client.get(f"{address}?{others}&{name}={value}")
                tried += 1
                assert answer.status_code < 500, (address, name, value, answer.text)
    assert tried > 1000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("sources/s", {"kind": "grafana", "hmac_secret": ""}),
        ("sources/s", {"kind": "grafana", "hmac_secret": "a\x00b"}),
        ("sources/s", {"kind": "github", "hmac_secret": HALF}),
        ("sources/alertmanager/reconciler", {"peers": ["http://127.0.0.1:9093"], "secret": ""}),
        ("sources/alertmanager/reconciler", {"peers": ["http://127.0.0.1:9093"], "receiver": ""}),
        ("services/shop/rates", [{"currency": "XXQ", "low": 1, "expected": 2, "high": 3}]),
        ("services/shop/rates", [{"currency": "eur", "low": 1, "expected": 2, "high": 3}]),
        ("services/shop/rates", [{"currency": "XXX", "low": 1, "expected": 2, "high": 3}]),
    ],
)
async def test_empty_secrets_and_unknown_currencies_are_refused(
    client: httpx.AsyncClient, path: str, body: Any
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(service="shop")))
    answer = await client.put(f"/api/v1/{path}", content=as_json(body))
    assert answer.status_code == 422, answer.text


def test_only_known_currencies_are_taken_for_labor() -> None:
    rates = {"low": 60, "expected": 80, "high": 120}
    assert Labor.model_validate({"currency": "EUR", **rates}).currency == "EUR"
    for unknown in ("XXQ", "XXX", "eur", ""):
        with pytest.raises(ValidationError):
            Labor.model_validate({"currency": unknown, **rates})


QUERY_VALUES = (
    "", "%00", "a%00b", "%ED%A0%BD", "%FF", "-1", "0", "99999999999999999999", "9" * 400, "NaN", "1e400", "{{", "a%0Ab",
    "1971-01-01T00:00:00Z", "1971-01-01T00:00:00%2B14:00", "0001-01-01T00:00:00%2B14:00", "2199-12-31T23:59:59Z",
    "2199-12-31T23:59:59-14:00", "2200-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "1970-01-01T00:00:00Z",
)  # fmt: skip


# — what is stored, however it came there —


async def test_odd_values_that_are_stored_can_be_read(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(), an_alert(ended="2026-08-20T10:30:00Z", service="shop")))
    await client.post("/webhooks/deployments", json=dict(SENDERS["deployments"].example))
    await client.put("/api/v1/services/shop/rates", json=[{"currency": "EUR", "low": 1, "expected": 2, "high": 3}])
    await client.put(
        "/api/v1/calendars/c", json={"zone": "UTC", "hours": {"monday": [{"from": "09:00", "to": "12:00"}]}}
    )
    once = {"from": "2026-08-22T20:00:00Z", "to": "2026-08-23T04:00:00Z"}
    await client.put("/api/v1/maintenance/m", json={"reason": "r", "once": once})
    await require_readable(client)
    for statement in (
        "UPDATE alert SET impact_started_at_reported = '0090-01-01', link = repeat('x', 100000), flags = '{\"\"}'",
        "UPDATE incident SET impact_started_at = '1890-01-01', acknowledged_at = '2250-01-01', title = ''",
        "UPDATE incident SET acknowledged_by = repeat('x', 5000), service = ''",
        "UPDATE deployment SET happened_at = '1750-01-01', started_at = '2900-01-01', service = repeat('x', 3000)",
        'UPDATE deployment SET commits = \'[["", "9000-01-01T00:00:00+00:00"]]\'',
        "UPDATE service_rate SET valid_from = '1800-01-01', currency = 'XXQ'",
        "UPDATE calendar SET zone = 'Mars/Olympus', created_at = '1800-01-01'",
        "UPDATE maintenance SET begins_at = '1900-01-01', ends_at = '2900-01-01', reason = ''",
        "UPDATE source SET created_at = '1800-01-01'",
        "UPDATE timeline SET at = '1800-01-01', recorded_at = '2900-01-01'",
    ):
        with suppress(DBAPIError):  # if a constraint forbids it, it cannot be stored
            await execute(engine, statement)
        await require_readable(client)


def test_no_response_validates_what_it_shows() -> None:
    """A validator in a response would turn a stored value that it does not accept into a 500."""
    bounds = {"pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "maxItems", "minItems"}
    requests, responses = set[str](), set[str]()
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            add_references(operation.get("requestBody", {}), requests)
            add_references(operation.get("responses", {}), responses)
    schemas = DOCUMENT["components"]["schemas"]
    assert {name for name in requests & responses if "properties" in schemas[name]} == set()
    for name in responses:
        for field, schema in schemas[name].get("properties", {}).items():
            found = bounds & set(re.findall(r'"(\w+)":', json.dumps(schema)))
            assert not found, (name, field, found)

    for model in models(BaseModel):
        if model.__name__ in responses and "properties" in schemas[model.__name__]:
            for field, info in model.model_fields.items():
                described = f"{info.annotation!r} {info.metadata!r}"
                assert not re.search("(After|Plain|Wrap)Validator", described), (model, field, described)
            decorators = model.__pydantic_decorators__
            after = [name for name, one in decorators.model_validators.items() if one.info.mode != "before"]
            assert (after, decorators.field_validators) == ([], {}), model


def models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from models(model)


def add_references(part: Any, found: set[str]) -> None:
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(part)):
        if name not in found:
            found.add(name)
            add_references(DOCUMENT["components"]["schemas"][name], found)
