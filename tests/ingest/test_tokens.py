"""Tokens over REST: created once, listed without their secrets, rotated, revoked by name."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.access.tokens import Scope
from app.base.http.context import Context
from tests.conftest import ClientAs

PATH = "/api/v1/tokens"


def bearer(created: httpx.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {created.json()['token']}"}


async def status_with(client: httpx.AsyncClient, created: httpx.Response) -> int:
    return (await client.get("/api/v1/incidents", headers=bearer(created))).status_code


async def test_a_created_token_works_and_its_secret_is_not_listed(client: httpx.AsyncClient, context: Context) -> None:
    created = await client.post(PATH, json={"name": "grafana", "expires_at": "2199-01-01T00:00:00Z"})
    assert created.status_code == 201
    assert await status_with(client, created) == 200
    secret = created.json()["token"]
    shown = {name: value for name, value in created.json().items() if name != "token"}
    listed = await client.get(PATH)
    assert secret not in listed.text
    assert listed.json()["items"] == [shown]
    assert (shown["scope"], shown["source"], shown["last_used_at"]) == ("read", None, None)
    assert shown["expires_at"] == "2199-01-01T00:00:00Z"
    before = datetime.now(UTC)
    await context.credentials.refresh()  # as it happens every minute
    [used] = (await client.get(PATH)).json()["items"]
    assert abs(datetime.fromisoformat(used["last_used_at"]) - before) < timedelta(minutes=5)


async def test_a_later_use_replaces_an_earlier_one_only(
    client: httpx.AsyncClient, context: Context, engine: AsyncEngine
) -> None:
    created = await client.post(PATH, json={"name": "grafana"})
    await status_with(client, created)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE token SET last_used_at = '2199-01-01Z'"))  # by another process
    await context.credentials.refresh()
    assert (await client.get(PATH)).json()["items"][0]["last_used_at"] == "2199-01-01T00:00:00Z"


async def test_an_expired_token_is_refused(client: httpx.AsyncClient, context: Context, engine: AsyncEngine) -> None:
    created = await client.post(PATH, json={"name": "for a week", "expires_at": "2199-01-01T00:00:00Z"})
    assert await status_with(client, created) == 200
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE token SET expires_at = now() - interval '1 second'"))
    context.credentials.forget_token(created.json()["id"])
    assert await status_with(client, created) == 401


async def test_an_ingest_token_is_for_one_source(client: httpx.AsyncClient) -> None:
    wanted = {"name": "pager", "scope": "ingest", "source": "pager", "kind": "pagerduty-events"}
    created = await client.post(PATH, json=wanted)
    assert (created.json()["source"], len(created.json()["token"])) == ("pager", 32)  # as PagerDuty's clients check
    assert await status_with(client, created) == 403
    assert (await client.get("/api/v1/sources/pager")).json()["kind"] == "pagerduty-events"
    other_kind = await client.post(PATH, json=wanted | {"kind": "grafana"})
    assert other_kind.status_code == 409
    rotated = await client.post(f"{PATH}/pager/rotate")
    assert (rotated.json()["source"], len(rotated.json()["token"])) == ("pager", 32)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"name": "x", "scope": "ingest"}, "is for one source"),
        ({"name": "x", "source": "prod"}, "only tokens with scope ingest have a source"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "must be in the future"),
        ({"name": "x", "expires": "2199-01-01T00:00:00Z"}, "expires"),
        ({"name": ""}, "name"),
    ],
)
async def test_a_refused_token_is_not_created(client: httpx.AsyncClient, body: dict[str, str], why: str) -> None:
    refused = await client.post(PATH, json=body)
    assert (refused.status_code, why in refused.json()["detail"]) == (422, True)
    assert (await client.get(PATH)).json()["items"] == []


async def test_a_rotated_token_replaces_the_former_one(client: httpx.AsyncClient) -> None:
    former = await client.post(PATH, json={"name": "ci/main", "scope": "write"})
    rotated = await client.post(f"{PATH}/ci%2Fmain/rotate")
    assert (rotated.status_code, rotated.json()["name"], rotated.json()["scope"]) == (201, "ci/main", "write")
    assert (await status_with(client, former), await status_with(client, rotated)) == (401, 200)


async def test_a_former_token_may_remain_valid_for_a_while(client: httpx.AsyncClient) -> None:
    former = await client.post(PATH, json={"name": "ci"})
    rotated = await client.post(f"{PATH}/ci/rotate", json={"grace_seconds": 3600})
    assert (await status_with(client, former), await status_with(client, rotated)) == (200, 200)
    ends = {one["id"]: one["expires_at"] for one in (await client.get(PATH)).json()["items"]}
    left = datetime.fromisoformat(ends[former.json()["id"]]) - datetime.fromisoformat(rotated.json()["created_at"])
    assert (left, ends[rotated.json()["id"]]) == (timedelta(hours=1), None)
    # Rotating again does not extend it.
    await client.post(f"{PATH}/ci/rotate", json={"grace_seconds": 86_400})
    later = {one["id"]: one["expires_at"] for one in (await client.get(PATH)).json()["items"]}
    assert later[former.json()["id"]] == ends[former.json()["id"]]


async def test_tokens_that_differ_are_not_rotated_together(client: httpx.AsyncClient) -> None:
    for scope in ("read", "write"):
        await client.post(PATH, json={"name": "ci", "scope": scope})
    refused = await client.post(f"{PATH}/ci/rotate")
    assert (refused.status_code, "different scopes" in refused.json()["detail"]) == (409, True)


async def test_tokens_are_revoked_by_name(client: httpx.AsyncClient) -> None:
    first, second, other = [await client.post(PATH, json={"name": name}) for name in ("ci", "ci", "grafana")]
    assert [await status_with(client, each) for each in (first, second, other)] == [200, 200, 200]
    assert (await client.delete(f"{PATH}/ci")).status_code == 204
    assert [await status_with(client, each) for each in (first, second, other)] == [401, 401, 200]
    assert [one["name"] for one in (await client.get(PATH)).json()["items"]] == ["grafana"]
    revoked = (await client.get(PATH, params={"revoked": True})).json()["items"]
    assert {one["id"] for one in revoked} == {first.json()["id"], second.json()["id"]}
    for again in (await client.delete(f"{PATH}/ci"), await client.post(f"{PATH}/ci/rotate")):
        assert (again.status_code, "no valid token with the name 'ci'" in again.json()["detail"]) == (404, True)


@pytest.mark.parametrize("scope", [Scope.INGEST, Scope.READ, Scope.WRITE, None])
async def test_tokens_are_for_admins(client_as: ClientAs, scope: Scope | None) -> None:
    client = await client_as(scope)
    expected = 401 if scope is None else 403
    for method, path in (("GET", PATH), ("POST", PATH), ("POST", f"{PATH}/x/rotate"), ("DELETE", f"{PATH}/x")):
        assert (await client.request(method, path, json={"name": "x"})).status_code == expected


async def test_actions_are_recorded_under_the_name_of_the_token(client: httpx.AsyncClient) -> None:
    created = await client.post(PATH, json={"name": "chat bot", "scope": "write"})
    declared = await client.post("/api/v1/incidents", json={"title": "t", "service": "s"}, headers=bearer(created))
    path = f"/api/v1/incidents/{declared.json()['number']}"
    acknowledged = await client.post(f"{path}/acknowledge", headers=bearer(created))
    assert acknowledged.json()["acknowledged_by"] == "chat bot"
    own = await client.post(f"{path}/acknowledge", headers=bearer(created), json={"by": "ada"})
    assert own.json()["acknowledged_by"] == "chat bot"  # the first one counts
