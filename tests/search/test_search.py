"""Search over HTTP: what is found, in which order, and within which bounds."""

import json
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.http.context import Context
from app.search import store
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.statements import counted

SEARCH = "/api/v1/search"


async def search(client: httpx.AsyncClient, q: str, status: int = 200, **query: Any) -> dict[str, Any]:
    answer = await client.get(SEARCH, params={"q": q, **query})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def names(client: httpx.AsyncClient, q: str, **query: Any) -> list[str]:
    """The numbers of what was found, in order; of findings and services the titles."""
    return [one["number"] or one["title"] for one in (await search(client, q, **query))["items"]]


async def send(client: httpx.AsyncClient, method: str, path: str, **body: Any) -> dict[str, Any]:
    answer = await client.request(method, f"/api/v1/{path}", json=body)
    assert answer.status_code < 300, answer.text
    sent: dict[str, Any] = answer.json()
    return sent


@pytest.fixture
async def filled(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """INC-1 and INC-2 of alerts, INC-3 declared; REV-1 with a finding and AI-1; AI-2 of an incident."""
    alerts = [
        an_alert("2026-08-20T10:00:00Z", alertname="LatencyHigh", service="checkout-api"),
        an_alert("2026-08-21T10:00:00Z", alertname="DiskFull: /var/lib/kafka", service="kafka"),
    ]
    assert (await client.post("/webhooks/alertmanager", json=a_delivery(*alerts))).status_code == 200
    await send(client, "POST", "incidents", title="Größere Störung: Kunden können nicht zahlen", service="pay")
    await send(client, "PUT", "services/checkout-api", owner="Shop Team")
    await send(
        client,
        "POST",
        "reviews",
        title="Checkout was slow",
        incidents=["INC-1"],
        summary="Nobody noticed. " * 40 + "The connection pool of checkout-api was exhausted at 10:04.",
    )
    await send(
        client, "POST", "reviews/REV-1/findings", kind="factor", factor="missing timeout", text="The pool waits forever"
    )
    await send(
        client,
        "POST",
        "action-items",
        title="Set a timeout on the pool",
        phase="remediation",
        review="REV-1",
        done_when="A stuck connection is closed after 5s",
    )
    await send(client, "POST", "action-items", title="Clean up topics", phase="remediation", incident="INC-2")
    return client


FOUND = [
    ("latency", ["INC-1"]),
    ("LATENCYHIGH", ["INC-1"]),
    ("kafka", ["kafka", "INC-2"]),
    ("var/lib", ["INC-2"]),
    ("disk checkout", []),
    ("latency checkout", ["INC-1"]),
    ("GRÖSS", []),
    ("größere stör", ["INC-3"]),
    ("checkout", ["checkout-api", "REV-1", "INC-1"]),
    ("checkout-api", ["checkout-api", "REV-1", "INC-1"]),
    ("shop team", ["checkout-api"]),
    ("pool", ["AI-1", "The pool waits forever", "REV-1"]),
    ("timeout", ["AI-1", "The pool waits forever"]),
    ("exhaust", ["REV-1"]),
    ("10:04", ["REV-1"]),
    ("hausted", []),  # words that people wrote are found by their beginning only
    ("tency", ["INC-1"]),  # titles of alerts are full of CamelCase
    ("clean topics", ["AI-2"]),
    ("nothing like it", []),
    ("INC-2", ["INC-2"]),
    ("inc2", ["INC-2"]),
    ("rev-1", ["REV-1"]),
    ("AI-2", ["AI-2"]),
    ("INC-99", []),
    ("INC-1 kafka", ["INC-1", "kafka", "INC-2"]),
    ("1", ["INC-1", "REV-1", "AI-1"]),
    ("%", []),
    ("_", []),
    ("\\ ' \" & | ! : * <->", []),
    ("ai", []),
]


async def test_words_and_numbers_find(filled: httpx.AsyncClient) -> None:
    for q, found in FOUND:
        everything = await names(filled, q)
        assert sorted(everything) == sorted(found), q
        if q not in {"1", "timeout"}:  # their order is that of their creation
            assert everything == found, q


async def test_everything_about_the_results(filled: httpx.AsyncClient) -> None:
    service, review, incident = (await search(filled, "checkout"))["items"]
    assert (service["kind"], service["path"], service["snippet"]) == (
        "service",
        "/api/v1/services/checkout-api",
        "Shop Team",
    )
    assert (review["kind"], review["state"], review["review"]) == ("review", "draft", "REV-1")
    assert review["snippet"].startswith("…")
    assert "checkout-api was exhausted at 10:04." in review["snippet"]
    assert len(review["snippet"]) <= 202
    assert incident | {"title": "", "at": ""} == {
        "kind": "incident",
        "number": "INC-1",
        "title": "",
        "snippet": None,
        "service": "checkout-api",
        "severity": "sev1",
        "state": "open",
        "review": None,
        "incident": "INC-1",
        "at": "",
        "path": "/api/v1/incidents/INC-1",
    }
    finding = (await search(filled, "forever"))["items"][0]
    assert (finding["kind"], finding["title"], finding["review"]) == ("finding", "The pool waits forever", "REV-1")
    item = (await search(filled, "clean"))["items"][0]
    assert (item["state"], item["review"], item["incident"]) == ("open", None, "INC-2")
    for one in (service, review, incident, finding, item):
        assert (await filled.get(one["path"])).status_code == 200


async def test_only_some_kinds_and_only_so_many(filled: httpx.AsyncClient) -> None:
    assert await names(filled, "pool", kind=["finding", "review"]) == ["The pool waits forever", "REV-1"]
    assert await names(filled, "1", kind="review") == ["REV-1"]
    first = await search(filled, "pool", limit=1)
    assert (len(first["items"]), first["more"]) == (1, True)
    assert (await search(filled, "pool", limit=3))["more"] is False
    for bad in ("q=", f"q={'x' * 201}", "q=a%00", "q=a&limit=0", "q=a&limit=101", "q=a&kind=alert", ""):
        assert (await filled.get(f"{SEARCH}?{bad}")).status_code == 422, bad


async def test_old_incidents_are_found_by_number_or_by_what_people_wrote(
    filled: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await search(filled, "kafka"))["incidents_since"] is None
    monkeypatch.setattr(store, "INCIDENTS_READ", 2)
    found = await search(filled, "latency", kind="incident")
    assert (found["items"], found["incidents_since"]) == ([], "2026-08-20T10:00:00Z")
    assert await names(filled, "INC-1") == ["INC-1"]
    await send(filled, "PATCH", "incidents/INC-1", title="Latency of the checkout")
    assert await names(filled, "latency") == ["INC-1"]


async def test_a_merged_incident_is_found_by_its_number_only(filled: httpx.AsyncClient, engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        await tx.execute(
            text("UPDATE incident SET merged_into = (SELECT id FROM incident WHERE number = 2) WHERE number = 3")
        )
    assert await names(filled, "Kunden") == []
    assert await names(filled, "INC-3") == ["INC-3"]


async def test_the_number_of_statements_is_constant(filled: httpx.AsyncClient, context: Context) -> None:
    with counted(context.engine) as statements:
        await search(filled, "pool INC-1")
    few = len(statements)
    for number in range(20):
        await send(filled, "POST", "reviews/REV-1/findings", kind="learning", text=f"pool {number}")
    with counted(context.engine) as statements:
        assert len((await search(filled, "pool INC-1", limit=100))["items"]) == 24
    assert len(statements) == few == 1


async def test_what_people_wrote_is_found_by_an_index(engine: AsyncEngine) -> None:
    """If a part did not have the expression of its index, it could not use it even without any other."""
    parts = {
        "review": "reviews",
        "finding": "findings",
        "action_item": "action items",
        "incident": "incidents with a title by a person",
    }
    values = {"query": "'pool'", "first": "'pool'", "phrase": "'pool'", "limit": "9", "patterns": "'{%pool%}'"}
    async with engine.connect() as tx:
        await tx.execute(text("SET LOCAL enable_seqscan = off"))
        for table, part in parts.items():
            statement = store._of_part(part)
            for name, value in values.items():
                statement = statement.replace(f":{name}", value)
            others = await tx.execute(
                text("""
                    SELECT indexname
                      FROM pg_indexes
                     WHERE tablename = :table
                       AND indexdef NOT LIKE '%UNIQUE%'
                       AND indexname <> 'incidents_of_a_key_never_overlap'
                       AND indexname NOT LIKE '%words'
                """),
                {"table": table},
            )
            for (name,) in others:
                await tx.execute(text(f"DROP INDEX {name}"))
            await tx.execute(text("ALTER TABLE incident DROP CONSTRAINT IF EXISTS incidents_of_a_key_never_overlap"))
            plan = (await tx.exec_driver_sql("EXPLAIN (FORMAT json) " + statement)).scalar_one()
            assert f"{table}_by_words" in json.dumps(plan), part
