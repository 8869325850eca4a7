"""Playbooks: versions that another token verifies and approves, and that expire."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.response.playbooks import PlaybookState, state_of, version_in_use
from tests.conftest import ClientAs
from tests.incidents.test_api import deliver, firing
from tests.response.test_configuration import get, put

NOW = datetime(2026, 8, 20, 10, tzinfo=UTC)
DAY = timedelta(days=1)
PATH = "services/checkout/playbooks/restart"
INCIDENT = "/api/v1/incidents/INC-1"


class Version(NamedTuple):
    version: int
    verified_at: datetime | None = None
    approved_at: datetime | None = None
    expires_at: datetime | None = None
    withdrawn_at: datetime | None = None


DRAFT, VERIFIED = Version(9), Version(8, NOW)
APPROVED, EXPIRED = Version(7, NOW, NOW, NOW + DAY), Version(6, NOW, NOW, NOW)
WITHDRAWN = Version(5, NOW, NOW, NOW + DAY, NOW)


def test_the_state_of_a_version() -> None:
    states = [state_of(each, now=NOW) for each in (DRAFT, VERIFIED, APPROVED, EXPIRED, WITHDRAWN)]
    assert states == list(PlaybookState)


def test_the_newest_approved_version_is_in_use_else_the_newest_expired_one() -> None:
    every = [WITHDRAWN, EXPIRED, APPROVED, VERIFIED, DRAFT]
    older = APPROVED._replace(version=1)
    assert version_in_use([older, *every], now=NOW) == APPROVED
    assert version_in_use([older, EXPIRED], now=NOW) == older
    assert version_in_use([WITHDRAWN, EXPIRED._replace(version=1), EXPIRED, DRAFT], now=NOW) == EXPIRED
    assert version_in_use([WITHDRAWN, VERIFIED, DRAFT], now=NOW) is None


async def act(
    client: httpx.AsyncClient, action: str, version: int = 1, status: int = 200, **body: Any
) -> dict[str, Any]:
    answer = await client.post(f"/api/v1/{PATH}/versions/{version}/{action}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_the_life_of_a_playbook(client: httpx.AsyncClient, client_as: ClientAs) -> None:
    await deliver(client, firing("10:00"))
    other = await client_as(Scope.WRITE)
    written = await put(client, PATH, {"body": "Restart it", "author": "ada"})
    assert (written["version"], written["state"], written["body"]) == (1, "draft", "Restart it")
    assert await put(client, PATH, {"body": "Restart it"}, status=200) == written, "the same content, no new version"
    assert (await act(other, "approve", status=409))["type"].endswith("not-verified")
    assert (await act(client, "verify", status=409))["type"].endswith("same-token")
    verified = await act(other, "verify", by="ben", incident="INC-1")
    assert (verified["state"], verified["verified_by"]) == ("verified", "ben")
    assert (await act(client, "approve", status=409))["type"].endswith("same-token")
    approved = await act(other, "approve", by="cy")
    assert (approved["state"], approved["approved_by"]) == ("approved", "cy")
    [shown] = (await get(client, "services/checkout/playbooks"))["items"]
    assert (shown["name"], shown["in_use"], shown["expired"]) == ("restart", 1, False)
    assert "body" not in shown["versions"][0]
    changed = await put(client, PATH, {"body": "Restart it twice"})
    assert (changed["version"], changed["state"]) == (2, "draft")
    [shown] = (await get(client, "services/checkout/playbooks"))["items"]
    assert ([one["version"] for one in shown["versions"]], shown["in_use"]) == ([2, 1], 1)
    assert (await get(client, f"{PATH}/versions/1"))["body"] == "Restart it"
    assert (await act(client, "withdraw"))["state"] == "withdrawn"
    assert (await act(other, "approve", status=409))["type"].endswith("is-withdrawn")
    [shown] = (await get(client, "services/checkout/playbooks"))["items"]
    assert shown["in_use"] is None
    await act(client, "withdraw", version=2)
    again = await put(client, PATH, {"body": "Restart it twice"})
    assert again["version"] == 3, "what was withdrawn is written anew"
    await act(client, "verify", version=9, status=404)


async def test_an_approval_expires_and_is_renewed(
    client: httpx.AsyncClient, client_as: ClientAs, engine: AsyncEngine
) -> None:
    await client.put("/api/v1/services/checkout", json={})
    other, now = await client_as(Scope.WRITE), datetime.now(UTC)
    await put(client, PATH, {"link": "https://wiki.example.org/restart"})
    await act(other, "verify")
    for wrong in (now - DAY, now + 401 * DAY):
        await act(other, "approve", status=422, expires_at=wrong.isoformat())
    await act(other, "approve", expires_at=(now + 20 * DAY).isoformat())
    found = await get(client, "playbooks/coverage")
    assert [(one["service"], one["name"], one["version"]) for one in found["expiring"]] == [("checkout", "restart", 1)]
    async with db.transaction(engine) as tx:
        await tx.execute(
            text("UPDATE playbook SET verified_at = :was, approved_at = :was, expires_at = :then"),
            {"was": now - DAY, "then": now - DAY / 2},
        )
    [shown] = (await get(client, "services/checkout/playbooks"))["items"]
    assert (shown["in_use"], shown["expired"], shown["versions"][0]["state"]) == (1, True, "expired")
    assert (await act(other, "approve"))["state"] == "approved"


async def test_a_version_shows_how_many_tasks_followed_it(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    for body in ("Restart it", "Restart it twice"):
        await put(client, PATH, {"body": body})
    await put(client, "services/checkout/playbooks/other", {"body": "b"})
    tasks = []
    for effect, name, version in (
        ("positive", "restart", 1),
        ("positive", "restart", 1),
        ("unknown", "restart", 1),
        ("none", "restart", 2),
        ("negative", "other", 1),
    ):
        playbook = {"service": "checkout", "name": name, "version": version}
        answer = await client.post(f"{INCIDENT}/tasks", json={"text": "t", "effect": effect, "playbook": playbook})
        tasks.append(answer.json()["id"])
    assert (await client.post(f"{INCIDENT}/timeline/{tasks[0]}/withdraw")).status_code == 200
    corrected = await client.post(f"{INCIDENT}/timeline/{tasks[1]}/correct", json={"effect": "negative"})
    assert corrected.status_code == 200
    none = {"positive": 0, "negative": 0, "none": 0, "unknown": 0}
    other, restart = (await get(client, "services/checkout/playbooks"))["items"]
    assert [one["used"] for one in restart["versions"]] == [none | {"none": 1}, none | {"negative": 1, "unknown": 1}]
    assert [one["used"] for one in other["versions"]] == [none | {"negative": 1}]
    assert (await get(client, f"{PATH}/versions/1"))["used"] == none | {"negative": 1, "unknown": 1}


async def test_coverage_names_services_with_incidents_and_without_a_playbook(client: httpx.AsyncClient) -> None:
    for service in ("checkout", "mail"):
        await client.post("/api/v1/incidents", json={"title": "t", "service": service})
    await client.put("/api/v1/services/quiet", json={})
    await put(client, PATH, {"body": "a draft does not count"})
    assert await get(client, "playbooks/coverage") == {"without": ["checkout", "mail"], "expiring": []}


async def test_a_playbook_creates_an_unknown_service(client: httpx.AsyncClient) -> None:
    await put(client, PATH, {"body": "b"})
    assert (await client.get("/api/v1/services/checkout")).status_code == 200


async def test_a_wrong_playbook_is_refused(client: httpx.AsyncClient) -> None:
    await get(client, "services/checkout/playbooks", status=404)
    await client.put("/api/v1/services/checkout", json={})
    for wrong in ({}, {"body": ""}, {"body": "a\0"}, {"body": "x" * 200_001}, {"link": "javascript:alert(1)"}):
        await put(client, PATH, wrong, status=422)
    await get(client, "services/unknown/playbooks", status=404)
    await get(client, f"{PATH}/versions/1", status=404)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"verified_token": "a"}, "playbook_is_verified_by_another_token"),
        ({"approved_token": "a"}, "playbook_is_approved_by_another_token"),
        ({"verified_at": None, "verified_by": None, "verified_token": None}, "playbook_approval_needs_verification"),
        ({"verified_by": None}, "playbook_verification_is_whole"),
        ({"expires_at": None}, "playbook_approval_is_whole"),
        ({"expires_at": NOW}, "playbook_expires_after_its_approval"),
        ({"verified_at": NOW + DAY}, "playbook_is_approved_after_it_was_verified"),
        ({"body": None}, "playbook_has_a_body_or_a_link"),
    ],
)
async def test_the_database_refuses_what_breaks_the_two_person_rule(
    engine: AsyncEngine, values: dict[str, Any], rule: str
) -> None:
    row = {
        "body": "b",
        "verified_at": NOW,
        "verified_by": "ben",
        "verified_token": "b",
        "approved_at": NOW,
        "approved_by": "ben",
        "approved_token": "b",
        "expires_at": NOW + DAY,
    } | values
    async with db.transaction(engine) as tx:
        await tx.execute(text("INSERT INTO service (name, first_seen_at, updated_at) VALUES ('web', now(), now())"))
    columns = ", ".join(row)
    add = text(
        f"INSERT INTO playbook (service, name, version, author, author_token, created_at, {columns}) "
        f"VALUES ('web', 'p', 1, 'ada', 'a', now(), {', '.join(f':{name}' for name in row)})"
    )
    with pytest.raises(IntegrityError, match=rule):
        async with db.transaction(engine) as tx:
            await tx.execute(add, row)


async def test_a_playbook_that_no_task_names_is_deleted_with_its_versions(
    client: httpx.AsyncClient, client_as: ClientAs
) -> None:
    for body in ("restart it", "restart it twice"):
        await put(client, PATH, {"body": body})
    assert (await client.delete(f"/api/v1/{PATH}")).status_code == 204
    assert (await get(client, "services/checkout/playbooks"))["items"] == []
    assert (await client.delete(f"/api/v1/{PATH}")).status_code == 404
    assert (await client.delete("/api/v1/services/checkout")).status_code == 204


async def test_a_playbook_that_a_task_names_stays_even_if_the_task_was_withdrawn(client: httpx.AsyncClient) -> None:
    await put(client, PATH, {"body": "restart it"})
    await deliver(client, firing("10:00"))
    followed = {"service": "checkout", "name": "restart", "version": 1}
    task = {"text": "restarted", "by": "ada", "playbook": followed}
    recorded = await client.post(f"{INCIDENT}/tasks", json=task)
    assert recorded.status_code == 201, recorded.text
    withdrawn = await client.post(f"{INCIDENT}/timeline/{recorded.json()['id']}/withdraw", json={"by": "ada"})
    assert withdrawn.status_code in {200, 201}, withdrawn.text
    refused = await client.delete(f"/api/v1/{PATH}")
    assert (refused.status_code, refused.json()["title"]) == (409, "Playbook is in use")
    assert len((await get(client, "services/checkout/playbooks"))["items"]) == 1
