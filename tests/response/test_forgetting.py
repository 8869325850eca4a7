"""Forgetting a person: their name is gone from every table, and what they did stays."""

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.access.tokens import Scope
from app.base.schema import metadata
from app.response.store.forgetting import NAMED
from tests.conftest import ClientAs
from tests.incidents.test_api import act, clock, deliver, firing, incident, resolved
from tests.response.test_configuration import get, put
from tests.reviews.test_reviews import find, new_item, new_review, send

NAME = 'Zoë "Q" O\'Hara'
REPORT = "/api/v1/reviews/REV-1/public-report/versions/1"


async def rows_with(engine: AsyncEngine, words: str) -> dict[str, int]:
    """How many rows of each table have these words anywhere."""
    found = {}
    async with engine.connect() as tx:
        for table in metadata.tables:
            query = text(f"SELECT count(*) FROM {table} WHERE to_jsonb({table})::text LIKE :pattern")
            found[table] = (await tx.execute(query, {"pattern": f"%{words}%"})).scalar_one()
    return {table: rows for table, rows in found.items() if rows}


async def everything_by(client: httpx.AsyncClient, other: httpx.AsyncClient, name: str) -> None:
    await deliver(client, resolved("10:00", "10:30"), firing("12:00", service="mail"))
    await act(client, "acknowledge", at=clock("10:05"), by=name)
    task = await act(client, "tasks", status=201, text="t", at=clock("10:06"), by=name)
    await act(client, f"timeline/{task['id']}/correct", effect="none", by=name)
    await act(client, "facts", status=201, kind="joined", person=name, how="asked", by="ada", at=clock("10:07"))
    await act(client, "roles", number=2, status=201, role="commander", person=name, by="ada")
    await client.put("/api/v1/services/checkout", json={})
    await put(client, "services/checkout/playbooks/restart", {"body": "b", "author": name})
    for verb in ("verify", "approve"):
        answer = await other.post(f"/api/v1/services/checkout/playbooks/restart/versions/1/{verb}", json={"by": name})
        assert answer.status_code == 200, answer.text
    answer = await client.put(f"/api/v1/people/{name}", json={"contacts": [{"kind": "phone", "value": "+49 30 7"}]})
    assert answer.status_code == 201, answer.text
    await put(client, "delegates/scribe", {"people": [name]}, status=200)
    participants = [{"person": name, "part": "support"}, {"person": "ada", "part": "curious"}]
    await new_review(client, incidents=["INC-1"], facilitator=name, participants=participants)
    await find(client, text="f", by=name)
    await new_item(client, owner=name)


async def a_public_report(client: httpx.AsyncClient, other: httpx.AsyncClient, about: str) -> None:
    """Of REV-1: everything was done by the person, except for one warning that bob accepted."""
    await send(client, "POST", "/api/v1/reviews/REV-1/hold")
    content = {"title": "t", "summary": "See it@acme.example and INC-1.", "public_incident": about}
    written = await send(client, "PUT", "/api/v1/reviews/REV-1/public-report", 201, **content, author=NAME)
    for one, by in zip(written["warnings"], (NAME, "bob"), strict=True):
        leak = {name: one[name] for name in ("at", "kind", "words")}
        await send(client, "POST", f"{REPORT}/accept", **leak, by=by)
    await send(other, "POST", f"{REPORT}/approve", by=NAME)
    for step in (f"{REPORT}/publish", "/api/v1/reviews/REV-1/public-report/withdraw"):
        await send(client, "POST", step, by=NAME)


async def test_a_name_is_replaced_everywhere_and_what_they_did_stays(
    client: httpx.AsyncClient, client_as: ClientAs, engine: AsyncEngine
) -> None:
    await everything_by(client, await client_as(Scope.WRITE), NAME)
    body = {"title": "t", "first": {"status": "investigating", "body": "b", "by": NAME}}
    public = await send(client, "POST", "/api/v1/status-page/incidents", 201, **body)
    update = f"/api/v1/status-page/incidents/{public['id']}/updates/{public['updates'][0]['id']}"
    await send(client, "PATCH", update, body="c")
    writer = await client_as(Scope.WRITE)
    await a_public_report(client, writer, public["id"])
    before = await incident(client)
    named = await rows_with(engine, "O'Hara")
    assert set(named) > {"delegate", "incident", "person", "playbook", "public_update", "report_version", "review"}

    assert (await writer.post(f"/api/v1/people/{NAME}/forget")).status_code == 403
    answer = await client.post(f"/api/v1/people/{NAME}/forget")
    assert (answer.status_code, answer.json()) == (200, {"name": "someone-1"})
    assert await rows_with(engine, "O'Hara") == await rows_with(engine, "+49 30 7") == {}
    assert (await client.get(f"/api/v1/people/{NAME}")).status_code == 404
    assert (await get(client, "delegates"))["items"] == []

    after = await incident(client)
    assert (after["acknowledged_at"], after["acknowledged_by"]) == (before["acknowledged_at"], "someone-1")
    assert after["measures"] == before["measures"]
    response = await get(client, "incidents/INC-1/response")
    assert [one["person"] for one in response["people"]] == ["someone-1"]
    review = await get(client, "reviews/REV-1")
    assert (review["facilitator"], review["findings"][0]["by"], review["action_items"][0]["owner"]) == (
        *["someone-1"] * 3,
    )
    assert {one["person"] for one in review["participants"]} == {"someone-1", "ada"}
    accepted = [(one["words"], one["accepted_by"]) for one in (await send(client, "GET", REPORT))["warnings"]]
    assert accepted == [("it@acme.example", "someone-1"), ("INC-1", "bob")]

    assert (await client.post(f"/api/v1/people/{NAME}/forget")).status_code == 404
    await act(client, "timeline", status=201, note="n", by="bob")
    assert (await client.post("/api/v1/people/bob/forget")).json() == {"name": "someone-2"}


def test_every_column_with_a_name_is_known() -> None:
    """A new column whose name is that of a person in other tables must be considered."""
    of_people = {column for columns in NAMED.values() for column in columns} - {"owner"}
    found = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if column.name in of_people
    }
    elsewhere = {("delegate", "person"), ("web_session", "person")}
    assert found - elsewhere == {(table, column) for table, columns in NAMED.items() for column in columns} - {
        ("action_item", "owner")
    }
