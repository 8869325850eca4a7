"""The pages of calendars."""

import re
from typing import Any

import httpx
import pytest

from app.base.access.tokens import Scope
from tests.pages.conftest import SignedInAs
from tests.pages.test_services import fields_of, submitted, text_of

REST = "/api/v1/calendars"
OFFICE: dict[str, Any] = {
    "zone": "Europe/Berlin",
    "hours": {
        "monday": [{"from": "09:00", "to": "12:00"}, {"from": "13:00", "to": "18:00"}],
        "tuesday": [{"from": "09:00", "to": "12:00"}, {"from": "13:00", "to": "18:00"}],
        "saturday": [{"from": "00:00", "to": "24:00"}],
    },
    "holidays": ["2026-12-25", "2027-01-01"],
}


def configured(calendar: dict[str, Any]) -> dict[str, Any]:
    return {name: calendar[name] for name in OFFICE}


async def test_without_calendars_the_list_says_what_counts(signed_in: httpx.AsyncClient) -> None:
    assert "No calendar yet" in text_of(await signed_in.get("/calendars"))


async def test_a_calendar_is_listed_with_its_week(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await client.put(f"{REST}/office", json=OFFICE)
    text = text_of(await signed_in.get("/calendars"))
    assert "office Mon–Tue 09:00–12:00, 13:00–18:00 Sat 00:00–24:00 Europe/Berlin 2" in text


async def test_a_calendar_is_the_same_after_its_form_is_sent_as_shown(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await client.put(f"{REST}/office", json=OFFICE)
    form = fields_of((await signed_in.get("/calendars/office")).text, "/calendars/office")
    saved = await submitted(signed_in, "/calendars/office", **form)
    assert saved.headers["location"] == "/calendars/office"
    assert configured((await client.get(f"{REST}/office")).json()) == OFFICE


async def test_a_calendar_is_added_changed_and_deleted(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    form = fields_of((await signed_in.get("/calendars/_new")).text, "/calendars/_new")
    await submitted(signed_in, "/calendars/_new", **form | {"name": "office", "zone": "UTC", "friday": "9:00 - 12:00"})
    stored = (await client.get(f"{REST}/office")).json()
    assert stored["zone"] == "UTC"
    assert list(stored["hours"]) == ["monday", "tuesday", "wednesday", "thursday", "friday"]
    assert stored["hours"]["friday"] == [{"from": "09:00", "to": "12:00"}]
    await submitted(signed_in, "/calendars/_new", 409, **form | {"name": "office"})
    await submitted(signed_in, "/calendars/office", **form | {"monday": "", "holidays": "2026-12-25\n2026-12-24"})
    stored = (await client.get(f"{REST}/office")).json()
    assert (next(iter(stored["hours"])), stored["holidays"]) == ("tuesday", ["2026-12-24", "2026-12-25"])
    await submitted(signed_in, "/calendars/office/delete", form="delete")
    assert (await client.get(REST)).json()["items"] == []
    await submitted(signed_in, "/calendars/office", 404, **form)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "_x"},
        {"zone": "Berlin"},
        {"monday": "nine to five"},
        {"monday": "17:00–09:00"},
        {"monday": "09:00–12:00, 11:00–13:00"},
        dict.fromkeys(["monday", "tuesday", "wednesday", "thursday", "friday"], ""),
        {"holidays": "Christmas"},
    ],
)
async def test_a_calendar_that_cannot_be_stored_is_refused_with_what_was_entered(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, changes: dict[str, str]
) -> None:
    form = fields_of((await signed_in.get("/calendars/_new")).text, "/calendars/_new") | {"name": "office"} | changes
    refused = await submitted(signed_in, "/calendars/_new", 422, **form)
    assert refused.text.count('role="alert"') == 1
    assert fields_of(refused.text, "/calendars/_new") == form
    assert (await client.get(REST)).json()["items"] == []


async def test_a_reader_sees_calendars_without_forms(client: httpx.AsyncClient, signed_in_as: SignedInAs) -> None:
    await client.put(f"{REST}/office", json=OFFICE)
    reader = await signed_in_as(Scope.READ)
    for address in ("/calendars", "/calendars/office"):
        shown = await reader.get(address)
        assert (shown.status_code, "09:00–12:00" in shown.text) == (200, True)
        assert set(re.findall(r'action="([^"]*)"', shown.text)) == {"/logout", "/search", "/zone"}
    assert (await reader.get("/calendars/_new")).status_code == 403
    for address in ("/calendars/_new", "/calendars/office", "/calendars/office/delete"):
        assert (await reader.post(address, data={"name": "x", "zone": "UTC"})).status_code == 403
    assert configured((await client.get(f"{REST}/office")).json()) == OFFICE


async def test_an_unknown_calendar_is_a_page_of_its_own(signed_in: httpx.AsyncClient) -> None:
    assert (await signed_in.get("/calendars/none")).status_code == 404
