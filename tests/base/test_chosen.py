"""Responses with only some fields."""

import httpx
import pytest

from app.cli import openapi_document
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert


async def test_only_the_chosen_fields_are_returned(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(), an_alert(service="é")))
    page = (await client.get("/api/v1/incidents?fields=number,service,number&limit=1")).json()
    [found] = page["items"]
    assert (found.keys(), found["number"]) == ({"number", "service"}, "INC-2")
    assert page["next_cursor"]
    one = await client.get("/api/v1/incidents/INC-1?fields=status, measures")
    assert one.json().keys() == {"status", "measures"}
    assert one.headers["etag"]
    assert (await client.get("/api/v1/metrics/summary?fields=groups_left_out")).json() == {"groups_left_out": 0}
    assert (await client.get("/api/v1/incidents/INC-9?fields=status")).status_code == 404


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("fields=numbr", "query/fields: `numbr` is not a field of the response; did you mean `number`?"),
        ("fields=", "query/fields: `` is not a field of the response; the response has `acknowledged_at`"),
        ("fields=number,", "query/fields: `` is not a field of the response; the response has `acknowledged_at`"),
        ("fields=number&fields=status", "query/fields: may be given only once"),
        ("fields=number&format=csv", "`fields` chooses fields of the JSON; omit it for CSV"),
    ],
)
async def test_other_names_are_refused(client: httpx.AsyncClient, query: str, why: str) -> None:
    answer = await client.get(f"/api/v1/incidents?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(why)


async def test_every_route_that_returns_an_object_takes_them(client: httpx.AsyncClient) -> None:
    """As documented, and no other does."""
    taking = 0
    for path, methods in openapi_document()["paths"].items():
        if not path.startswith("/api/v1/") or "get" not in methods or "{" in path:
            continue
        is_documented = "fields" in [one["name"] for one in methods["get"].get("parameters", ())]
        detail = (await client.get(f"{path}?fields=no_such_field")).json()["detail"]
        assert ("is not a field of the response" in detail) == is_documented, (path, detail)
        taking += is_documented
    assert taking > 30
