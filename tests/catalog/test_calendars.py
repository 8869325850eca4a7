"""Calendars over HTTP, and the constraints in the database."""

from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from tests.conftest import ClientAs

CALENDARS = "/api/v1/calendars"
OFFICE = {
    "zone": "Europe/Berlin",
    "hours": {
        "monday": [{"from": "09:00", "to": "12:00"}, {"from": "13:00", "to": "18:00"}],
        "friday": [{"from": "00:00", "to": "24:00"}],
    },
    "holidays": ["2024-08-15", "2026-12-25"],
}


async def test_a_calendar_is_stated_shown_changed_and_deleted(client: httpx.AsyncClient) -> None:
    made = await client.put(f"{CALENDARS}/office", json=OFFICE)
    assert made.status_code == 201, made.text
    shown = made.json()
    assert {key: shown[key] for key in ("name", *OFFICE)} == {"name": "office"} | OFFICE
    assert (await client.get(f"{CALENDARS}/office")).json() == shown
    other = {"zone": "UTC", "hours": {"sunday": [{"from": "10:00", "to": "10:01"}]}, "holidays": []}
    changed = await client.put(f"{CALENDARS}/office", json=other)
    assert changed.status_code == 200
    assert {key: changed.json()[key] for key in OFFICE} == other
    assert changed.json()["created_at"] == shown["created_at"]
    assert (await client.delete(f"{CALENDARS}/office")).status_code == 204
    gone = [await client.get(f"{CALENDARS}/office"), await client.delete(f"{CALENDARS}/office")]
    assert {(answer.status_code, answer.json()["type"]) for answer in gone} == {
        (404, "urn:aftermath:problem:calendar-not-found")
    }


async def test_order_and_repetition_do_not_matter_and_an_empty_day_is_off(client: httpx.AsyncClient) -> None:
    shuffled = OFFICE | {
        "hours": {"friday": OFFICE["hours"]["friday"], "tuesday": [], "monday": OFFICE["hours"]["monday"][::-1]},  # type: ignore[index]
        "holidays": ["2026-12-25", "2024-08-15", "2026-12-25"],
    }
    shown = (await client.put(f"{CALENDARS}/office", json=shuffled)).json()
    assert {key: shown[key] for key in OFFICE} == OFFICE


async def test_calendars_are_listed_in_pages(client: httpx.AsyncClient) -> None:
    for name in ("c", "a", "b"):
        await client.put(f"{CALENDARS}/{name}", json=OFFICE | {"holidays": []})
    first = (await client.get(CALENDARS, params={"limit": 2})).json()
    rest = (await client.get(CALENDARS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [[each["name"] for each in page["items"]] for page in (first, rest)] == [["a", "b"], ["c"]]
    assert all(each["hours"] == OFFICE["hours"] for each in (*first["items"], *rest["items"]))
    assert rest["next_cursor"] is None


def on_monday(*spans: tuple[str, str]) -> dict[str, Any]:
    return OFFICE | {"hours": {"monday": [{"from": start, "to": end} for start, end in spans]}}


@pytest.mark.parametrize(
    "body",
    [
        OFFICE | {"hours": {}},
        OFFICE | {"hours": {"monday": [], "tuesday": []}},
        OFFICE | {"hours": {"funday": [{"from": "09:00", "to": "12:00"}]}},
        on_monday(("12:00", "09:00")),
        on_monday(("22:00", "06:00")),
        on_monday(("12:00", "12:00")),
        on_monday(("24:00", "24:00")),
        on_monday(("09:00", "24:01")),
        on_monday(("9:00", "10:00")),
        on_monday(("09:00", "12:00"), ("11:59", "13:00")),
        on_monday(("09:00", "12:00"), ("09:00", "10:00")),
        on_monday(*[("09:00", "12:00")] * 49),
        OFFICE | {"zone": "Mars/Olympus"},
        OFFICE | {"zone": "../etc/passwd"},
        OFFICE | {"zone": "a\x00b"},
        OFFICE | {"holidays": ["0001-01-01"]},
        OFFICE | {"holidays": ["2026-02-30"]},
        OFFICE | {"holidays": ["2026-01-01"] * 5001},
        OFFICE | {"workdays": 5},
        {"zone": "UTC"},
        {"hours": OFFICE["hours"]},
    ],
)
async def test_invalid_calendars_are_rejected(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await client.put(f"{CALENDARS}/x", json=body)
    assert answer.status_code == 422, answer.text
    assert (await client.get(CALENDARS)).json()["items"] == []


async def test_hours_may_touch(client: httpx.AsyncClient) -> None:
    answer = await client.put(f"{CALENDARS}/x", json=on_monday(("09:00", "12:00"), ("12:00", "13:00")))
    assert answer.status_code == 201, answer.text


async def test_readers_read_and_writers_write(client_as: ClientAs) -> None:
    reader, anonymous = await client_as(Scope.READ), await client_as(None)
    for method in ("PUT", "DELETE"):
        assert (await reader.request(method, f"{CALENDARS}/x", json=OFFICE)).status_code == 403
    assert (await reader.get(CALENDARS)).status_code == 200
    assert (await anonymous.get(CALENDARS)).status_code == 401
    assert (await (await client_as(Scope.WRITE)).put(f"{CALENDARS}/x", json=OFFICE)).status_code == 201


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("0, 660, 720", "calendar_hours_do_not_overlap"),
        ("0, 1380, 1441", "calendar_hours_are_within_a_day"),
        ("0, 60, 60", "calendar_hours_are_within_a_day"),
        ("7, 0, 60", "calendar_weekday_is_one_of_seven"),
    ],
)
async def test_the_database_defends_itself(client: httpx.AsyncClient, engine: AsyncEngine, row: str, rule: str) -> None:
    await client.put(f"{CALENDARS}/office", json=OFFICE)
    with pytest.raises(IntegrityError, match=rule):
        async with db.transaction(engine) as tx:
            await tx.execute(text(f"INSERT INTO calendar_hours VALUES ('office', {row})"))
