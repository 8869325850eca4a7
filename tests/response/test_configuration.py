"""Types, people, delegates and targets over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from tests.conftest import ClientAs

PAYMENTS: dict[str, Any] = {
    "position": 10,
    "matchers": ['service="checkout"'],
    "description": "Users cannot pay",
    "exit_criteria": ["Payments succeed for 10 minutes", "Stakeholders were told"],
    "roles": ["commander", "scribe"],
    "channels": [{"kind": "slack", "name": "#inc-{number}"}, {"kind": "phone", "name": "Bridge 1"}],
    "steps": ["Look at the deployments of the last hour"],
    "update_seconds": 600,
}


async def put(client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int = 201) -> dict[str, Any]:
    answer = await client.put(f"/api/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def get(client: httpx.AsyncClient, path: str, status: int = 200) -> dict[str, Any]:
    answer = await client.get(f"/api/v1/{path}")
    assert answer.status_code == status, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_types_are_stored_listed_replaced_and_deleted(client: httpx.AsyncClient) -> None:
    stored = await put(client, "incident-types/payments", PAYMENTS)
    shown = await get(client, "incident-types/payments")
    assert shown == stored
    expected = PAYMENTS | {"name": "payments", "review": "by_severity"}
    expected["channels"] = [{**one, "link": None} for one in PAYMENTS["channels"]]
    assert {name: shown[name] for name in expected} == expected
    await put(client, "incident-types/other", PAYMENTS | {"position": 5})
    await put(client, "incident-types/payments", PAYMENTS | {"description": "Changed"}, status=200)
    page = await get(client, "incident-types?limit=1")
    rest = await get(client, f"incident-types?limit=1&cursor={page['next_cursor']}")
    assert [one["name"] for one in (*page["items"], *rest["items"])] == ["other", "payments"]
    assert rest["next_cursor"] is None
    assert (await client.delete("/api/v1/incident-types/other")).status_code == 204
    assert (await client.delete("/api/v1/incident-types/other")).status_code == 404
    await get(client, "incident-types/other", status=404)


SLACK, PHONE = {"kind": "slack", "name": "a"}, {"kind": "phone", "name": "b"}


async def test_a_wrong_type_is_refused(client: httpx.AsyncClient) -> None:
    changes: list[dict[str, Any]] = [
        {"exit_criteria": []},
        {"exit_criteria": [""]},
        {"channels": [SLACK]},
        {"channels": [SLACK, SLACK | {"name": "c"}, PHONE]},
        {"channels": [SLACK, PHONE, *[SLACK] * 5]},
        {"channels": [SLACK | {"name": "{0.__class__}"}, PHONE]},
        {"channels": [SLACK | {"link": "javascript:alert(1)"}, PHONE]},
        {"roles": ["first_responder"]},
        {"roles": ["Commander"]},
        {"update_seconds": 60},
        {"review": "sometimes"},
        {"unknown": 1},
    ]
    for change in changes:
        problem = await put(client, "incident-types/payments", PAYMENTS | change, status=422)
        assert problem["type"] == "urn:aftermath:problem:invalid"
    problem = await put(client, "incident-types/payments", PAYMENTS | {"matchers": ["service=~("]}, status=422)
    assert problem["type"] == "urn:aftermath:problem:invalid-matcher"
    assert (await get(client, "incident-types"))["items"] == []


@pytest.mark.parametrize(
    ("channels", "rule"),
    [
        ('[{"kind": "slack", "name": "a"}]', "type_(has_a_backup_channel|backup_is_of_another_kind)"),
        ('[{"kind": "slack", "name": "a"}, {"kind": "slack", "name": "b"}]', "type_backup_is_of_another_kind"),
        ('[{"kind": "slack", "name": "a"}, {"name": "b"}]', "type_backup_is_of_another_kind"),
    ],
)
async def test_the_database_refuses_a_type_without_a_backup_of_another_kind(
    engine: AsyncEngine, channels: str, rule: str
) -> None:
    add = text("""
        INSERT INTO incident_type (name, position, matchers, description, exit_criteria, roles, channels, steps, review,
                                   created_at, updated_at)
        VALUES ('a', 1, '{}', '', '{Done}', '{}', CAST(:channels AS jsonb), '{}', 'never', now(), now())
    """)
    with pytest.raises(IntegrityError, match=rule):
        async with db.transaction(engine) as tx:
            await tx.execute(add, {"channels": channels})


# — people and delegates —


async def test_people_and_their_contacts(client: httpx.AsyncClient, client_as: ClientAs) -> None:
    body: dict[str, Any] = {
        "email": "ada@example.org",
        "contacts": [{"kind": "phone", "value": "1234"}],
        "zone": "Europe/Berlin",
        "away": [{"from": "2026-12-24T00:00:00Z", "to": "2027-01-02T00:00:00Z"}],
    }
    stored = await put(client, "people/ada%2Fl", body)
    assert stored["name"] == "ada/l"
    assert {name: stored[name] for name in body} == body
    assert await get(client, "people/ada%2Fl") == stored
    seen = await get(await client_as(Scope.READ), "people/ada%2Fl")
    assert (seen["email"], seen["contacts"], seen["away"]) == (None, [], body["away"])
    assert (await put(client, "people/ada%2Fl", {}, status=200))["zone"] == "UTC"
    assert [one["name"] for one in (await get(client, "people"))["items"]] == ["ada/l"]
    assert (await client.delete("/api/v1/people/ada%2Fl")).status_code == 204
    assert (await client.delete("/api/v1/people/ada%2Fl")).status_code == 404
    backwards = {"from": "2027-01-02T00:00:00Z", "to": "2026-12-24T00:00:00Z"}
    wrongs: list[dict[str, Any]] = [{"zone": "Mars"}, {"email": "ada"}, {"away": [backwards]}]
    for wrong in wrongs:
        await put(client, "people/ben", wrong, status=422)


async def test_delegates_and_single_points_of_failure(client: httpx.AsyncClient) -> None:
    now = datetime.now(UTC)
    away = {"from": (now + timedelta(days=2)).isoformat(), "to": (now + timedelta(days=3)).isoformat()}
    for name, absences in (("ada", []), ("ben", []), ("cy", [away])):
        await put(client, f"people/{name}", {"away": absences})
    await put(client, "delegates/commander", {"people": ["ada", "ben"]}, status=200)
    shown = await put(client, "delegates/commander?owner=Payments", {"people": ["ada", "cy"]}, status=200)
    assert shown == {
        "items": [
            {"role": "commander", "owner": "", "people": ["ada", "ben"]},
            {"role": "commander", "owner": "Payments", "people": ["ada", "cy"]},
        ],
        "single_points_of_failure": [{"role": "commander", "owner": "Payments", "people": ["ada"]}],
    }
    assert await get(client, "delegates") == shown
    problem = (await client.delete("/api/v1/people/cy")).json()
    assert (problem["status"], problem["type"]) == (409, "urn:aftermath:problem:person-is-a-delegate")
    await put(client, "delegates/commander?owner=Payments", {"people": []}, status=200)
    assert (await client.delete("/api/v1/people/cy")).status_code == 204
    for role, people in (
        ("first_responder", ["ada"]),
        ("Commander", ["ada"]),
        ("scribe", ["nobody"]),
        ("scribe", ["ada", "ada"]),
    ):
        problem = await put(client, f"delegates/{role}", {"people": people}, status=422)
        assert "nobody" not in problem["detail"]


# — targets —


async def test_targets_are_shipped_and_replaced(client: httpx.AsyncClient) -> None:
    def short(shown: dict[str, Any]) -> list[tuple[Any, ...]]:
        names = ("service", "severity", "from", "acknowledge_seconds", "update_seconds", "resolve_seconds")
        return [tuple(one[name] for name in names) for one in shown["items"]]

    shipped = [
        ("", "sev1", None, 300, 1800, None),
        ("", "sev2", None, 900, 1800, None),
        ("", "sev3", None, 3600, None, None),
    ]
    assert short(await get(client, "targets")) == shipped
    await client.put("/api/v1/services/checkout", json={})
    targets = [
        {"severity": "sev1", "from": "2026-12-01T00:00:00Z", "acknowledge_seconds": 60},
        {"severity": "sev1", "resolve_seconds": 7200, "responders": 3},
    ]
    own = [
        ("checkout", "sev1", None, None, None, 7200),
        ("checkout", "sev1", "2026-12-01T00:00:00Z", 60, None, None),
    ]
    assert short(await put(client, "targets?service=checkout", {"targets": targets}, status=200)) == own
    assert short(await get(client, "targets")) == [*shipped, *own]
    await put(client, "targets?service=checkout", {"targets": []}, status=200)
    assert short(await get(client, "targets")) == shipped
    await put(client, "targets?service=unknown", {"targets": []}, status=404)
    await put(client, "targets?service=unknown", {"targets": targets}, status=200)
    assert (await client.get("/api/v1/services/unknown")).status_code == 200
    await put(client, "targets?service=unknown", {"targets": []}, status=200)
    for wrong in (
        [{"severity": "sev1"}],
        [{"severity": "sev1", "calendar": "office"}],
        [{"severity": "sev1", "acknowledge_seconds": 0}],
        [{"severity": "sev9", "acknowledge_seconds": 5}],
        [{"severity": "sev1", "acknowledge_seconds": 5, "calendar": "unknown"}],
        [{"severity": "sev1", "acknowledge_seconds": 5}, {"severity": "sev1", "resolve_seconds": 5}],
    ):
        await put(client, "targets", {"targets": wrong}, status=422)


async def test_a_calendar_that_a_target_names_is_not_deleted(client: httpx.AsyncClient) -> None:
    calendar = {"zone": "UTC", "hours": {"monday": [{"from": "09:00", "to": "17:00"}]}}
    answer = await client.put("/api/v1/calendars/office", json=calendar)
    assert answer.status_code == 201, answer.text
    target = {"severity": "sev1", "acknowledge_seconds": 5, "calendar": "office"}
    await put(client, "targets", {"targets": [target]}, status=200)
    assert (await client.delete("/api/v1/calendars/office")).status_code == 409
    await put(client, "targets", {"targets": []}, status=200)
    assert (await client.delete("/api/v1/calendars/office")).status_code == 204


async def test_readers_change_nothing(client_as: ClientAs) -> None:
    reader = await client_as(Scope.READ)
    for path in ("incident-types/a", "people/a", "delegates/commander", "targets", "services/a/playbooks/b"):
        await put(reader, path, {}, status=403)
