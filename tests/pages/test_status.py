"""The inside of the status page in a browser without scripts: publishing, correcting, withdrawing."""

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.base.access.tokens import Scope
from app.base.http.context import Context
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.pages.conftest import SignedInAs
from tests.pages.visitors import rows_of, section_of, submit, text_of
from tests.pages.walking import forms_of
from tests.statements import counted

NOW = datetime.now(UTC)


@pytest.fixture
async def shop(client: httpx.AsyncClient) -> None:
    """A service with an open incident, and the component that it stands behind."""
    started = (NOW - timedelta(minutes=30)).isoformat()
    assert (await client.post("/webhooks/alertmanager", json=a_delivery(an_alert(started, service="shop")))).is_success
    component = {"services": ["shop"], "since": "2026-01-01"}
    assert (await client.put("/api/v1/status-page/components/Payments", json=component)).is_success


async def test_what_differs_is_published_with_the_form_beside_it(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, shop: None
) -> None:
    page = await signed_in.get("/status-page")
    assert "It is off" in text_of(page)
    [row] = rows_of(section_of(page, "Components")).values()
    assert (row[0], "Major outage INC-1" in row[1]) == ("Operational", True)
    [form] = [each for each in forms_of("/status-page", page.text) if each.fields.get("form") == "publish-1"]
    assert (form.fields["incident"], form.fields["component_1"], form.fields["status_1"]) == (
        "INC-1",
        "Payments",
        "major_outage",
    )
    values = form.fields | {"title": "Card payments fail", "body": "We are looking into it."}
    for _ in range(2):  # sent twice, published once
        done = await submit(signed_in, form.action, **values)
        assert done.status_code == 303, text_of(done)
    [public] = (await client.get("/api/v1/status-page/incidents")).json()["items"]
    assert (public["title"], public["incident"], public["components"]) == (
        "Card payments fail",
        "INC-1",
        {"Payments": "major_outage"},
    )
    assert public["updates"][0]["by"] == "ada"
    one = await signed_in.get(done.headers["location"])
    assert "We are looking into it." in text_of(one)
    timeline = text_of(await signed_in.get("/incidents/INC-1"))
    assert "Published on the status page" in timeline


async def test_an_update_a_correction_and_a_withdrawal(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, shop: None
) -> None:
    first = {"status": "investigating", "body": "Some cards fail.", "components": {"Payments": "partial_outage"}}
    public = (await client.post("/api/v1/status-page/incidents", json={"title": "t", "first": first})).json()
    address = f"/status-page/incidents/{public['id']}"
    fields = {"key": "k1", "status": "resolved", "body": "It works again."}
    assert (await submit(signed_in, f"{address}/updates", **fields)).status_code == 303
    page = await signed_in.get(address)
    [correct] = [each for each in forms_of(address, page.text) if each.fields.get("form") == "correct-1"]
    assert (await submit(signed_in, correct.action, **correct.fields | {"body": "All works."})).status_code == 303
    [amend] = [each for each in forms_of(address, page.text) if each.fields.get("form") == "amend"]
    assert (await submit(signed_in, amend.action, **amend.fields | {"title": "Cards"})).status_code == 303
    found = (await client.get(f"/api/v1/status-page/incidents/{public['id']}")).json()
    assert (found["title"], found["status"], found["begins_at_stated"]) == ("Cards", "resolved", False)
    assert (found["updates"][1]["body"], found["updates"][1]["earlier"][0]["body"]) == ("All works.", "It works again.")
    assert (await submit(signed_in, f"{address}/withdraw", form="withdraw")).status_code == 303
    gone = await signed_in.get(address)
    assert "no longer public" in text_of(gone)
    assert [each for each in forms_of(address, gone.text) if each.action.startswith(address)] == []


async def test_maintenance_is_planned_in_the_zone_of_the_reader(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, shop: None
) -> None:
    signed_in.cookies.set("zone", "Europe/Berlin")
    fields = {
        "form": "plan",
        "kind": "maintenance",
        "key": "k",
        "title": "Upgrade",
        "status": "scheduled",
        "body": "Read-only for an hour.",
        "component_1": "Payments",
        "begins_at": "2027-01-10T10:00",
        "scheduled_to": "2027-01-10T11:00",
    }
    refused = await submit(signed_in, "/status-page/incidents", **fields | {"scheduled_to": "2027-01-10T09:00"})
    assert refused.status_code == 422
    assert "Maintenance needs begins_at, and scheduled_to after it" in text_of(refused)
    assert 'value="Upgrade"' in refused.text  # what was entered is kept
    assert (await submit(signed_in, "/status-page/incidents", **fields)).status_code == 303
    [public] = (await client.get("/api/v1/status-page/incidents")).json()["items"]
    assert (public["begins_at"], public["status"]) == ("2027-01-10T09:00:00Z", "scheduled")
    assert public["updates"][0]["components"] == {"Payments": "under_maintenance"}


async def test_a_component_is_added_changed_and_deleted(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    empty = text_of(await signed_in.get("/status-page"))
    assert "No component yet" in empty
    fields = {"form": "component", "name": "A/B ü", "position": "5", "uptime": "published", "since": "2026-01-01"}
    assert (await submit(signed_in, "/status-page/components", **fields)).status_code == 303
    assert (await submit(signed_in, "/status-page/components", **fields)).status_code == 422  # there is one already
    page = await signed_in.get("/status-page")
    [form] = [each for each in forms_of("/status-page", page.text) if each.fields.get("form") == "component-1"]
    changed = await submit(signed_in, form.action, **form.fields | {"services": "no-such"})
    assert "There is no service" in text_of(changed)
    assert (await submit(signed_in, form.action, **form.fields | {"description": "d"})).status_code == 303
    [row] = (await client.get("/api/v1/status-page/components")).json()["items"]
    assert (row["name"], row["description"], row["position"]) == ("A/B ü", "d", 5)
    assert (await submit(signed_in, f"{form.action}/delete", form="delete-1")).status_code == 303
    assert (await client.get("/api/v1/status-page/components")).json()["items"] == []


async def test_readers_see_no_form(signed_in_as: SignedInAs, shop: None) -> None:
    reader = await signed_in_as(Scope.READ)
    page = await reader.get("/status-page")
    assert "Payments" in text_of(page)
    assert [each for each in forms_of("/status-page", page.text) if "status-page" in each.action] == []
    assert (await submit(reader, "/status-page/components", name="x")).status_code == 403


async def test_the_pages_take_a_fixed_number_of_statements(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context, shop: None
) -> None:
    first = {"status": "investigating", "body": "b", "components": {"Payments": "partial_outage"}}
    for number in range(5):
        await client.put(f"/api/v1/status-page/components/C{number}", json={"services": ["shop"]})
        public = await client.post(
            "/api/v1/status-page/incidents", json={"title": f"t{number}", "incident": "INC-1", "first": first}
        )
    for path, at_most in (("/status-page", 11), (f"/status-page/incidents/{public.json()['id']}", 6)):
        with counted(context.engine) as statements:
            page = await signed_in.get(path)
        assert page.status_code == 200
        assert len(statements) <= at_most, statements
        assert not re.search(r"style=|<script>| on\w+=", page.text)
