"""Pages in a browser: accessibility, both color schemes, three widths, no scripts, keyboard, time zones, hostile text.

A page joins by a line in PAGES.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx
import pytest
from playwright.async_api import Page, expect
from sqlalchemy import text

from app.base import db
from tests.conftest import ADMIN_TOKEN, TEMPLATE, _database, _execute, _plain
from tests.pages.browsing import Finding, Site, a_browser, examine
from tests.pages.history import HOSTILE, a_public_report, a_review, some_weeks
from tests.pages.test_calendars import OFFICE
from tests.processes import Service, a_delivery, an_alert, until

pytestmark = pytest.mark.browser

PUBLIC = "0198c9b4-3f0a-7c11-8d52-6a1f6b2c9d01"  # a public incident
REPORT = "0198c9b4-3f0a-4c11-8d52-6a1f6b2c9d02"  # a report about it

# Addresses by name. The incidents are those of the fixture `site`.
PAGES = {
    "overview": "/",
    "overview of 90 days": "/?days=90",
    "numbers": "/numbers",
    "numbers of a service": "/numbers?service=service-0&days=90",
    "definitions": "/numbers/definitions",
    "definitions of periods": "/numbers/definitions?kind=metric",
    "sources": "/sources",
    "source": "/sources/alertmanager",
    "quarantine": "/sources/quarantine",
    "tokens": "/tokens",
    "incidents": "/incidents?within=all",
    "no incidents": "/incidents?service=no-such-service",
    "incident": "/incidents/INC-1001",
    "resolved incident": "/incidents/INC-2",
    "timeline": "/incidents/INC-1003/timeline",
    "declare": "/incidents/new",
    "reviews": "/reviews?show=all",
    "review": "/reviews/REV-1",
    "report": "/reviews/REV-1/report",
    "report for customers": "/reviews/REV-1/public-report",
    "published report for customers": "/reviews/REV-1/public-report?version=1",
    "new review": "/reviews/new",
    "action items": "/action-items?state=all",
    "action item": "/action-items/AI-1",
    "services": "/services",
    "service": "/services/service-0",
    "rules": "/rules",
    "rule": "/rules/default",
    "new rule": "/rules/_new",
    "calendars": "/calendars",
    "calendar": "/calendars/office",
    "new calendar": "/calendars/_new",
    "incident with a response": "/incidents/INC-1003",
    "incident types": "/response/types",
    "incident type": "/response/types/outage",
    "new incident type": "/response/types/_new",
    "targets": "/response/targets",
    "playbooks": "/response/playbooks",
    "playbook": "/response/playbooks/checkout/restart",
    "new playbook": "/response/playbooks/_new",
    "people": "/response/people",
    "person": "/response/people/ada",
    "results": "/search?q=x",
    "no results": "/search?q=no-such-thing",
    "status page": "/status-page",
    "public incident": f"/status-page/incidents/{PUBLIC}",
    # What customers see; see also tests/status_page.
    "public status": "/status",
    "public incident of customers": f"/status/incidents/{PUBLIC}",
    "public history": "/status/history",
    "public report": f"/status/reports/{REPORT}",
    "public reports": "/status/reports",
}


@pytest.fixture(scope="module")
async def site(server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The service as a user starts it, with some weeks of incidents and alerts that fire now."""
    directory, name = tmp_path_factory.mktemp("site"), f"site_{uuid4().hex}"
    await _execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    url = _database(server, name)
    engine = db.connect(url)
    await some_weeks(engine, datetime.now(UTC))
    await a_review(engine, datetime.now(UTC))
    async with engine.begin() as tx:
        await tx.execute(text("SELECT setval('incident_number', 1000)"))
    await engine.dispose()
    how = {"AFTERMATH_DATABASE_URL": _plain(url), "AFTERMATH_ADMIN_TOKEN": ADMIN_TOKEN, "AFTERMATH_STATUS_PAGE": "true"}
    service = Service(directory, how)
    with service.run() as running:
        await asyncio.to_thread(running.wait_until_ready)
        await asyncio.to_thread(deliver, service.url)
        await asyncio.to_thread(publish, service.url)
        with patch("app.reviews.store.public_report.uuid4", return_value=UUID(REPORT)):
            await a_public_report(url, UUID(PUBLIC), datetime.now(UTC))
        address = f"{service.url}/status/reports/{REPORT}"
        await asyncio.to_thread(until, lambda: httpx.get(address).status_code == 200, "the report is published")
        async with a_browser() as browser:
            site = Site(browser, service.url, ADMIN_TOKEN)
            yield site
            await site.close()
    await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def deliver(url: str) -> None:
    """Alerts with hostile texts that fire now, and one that cannot be read."""
    now = datetime.now(UTC)
    started = (now - timedelta(minutes=20)).isoformat()
    alerts = [
        an_alert(started, service=f"hostile-{place}", alertname=words)
        | {"annotations": {"summary": words, words[:80]: words}}
        for place, words in enumerate(HOSTILE)
    ]
    unreadable = an_alert("yesterday", service="checkout")
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}) as client:
        for alert in (*alerts, an_alert(started, service="checkout"), unreadable):
            assert client.post("/webhooks/alertmanager", json=a_delivery(alert)).status_code == 200
        agree(client)
        respond(client, "/api/v1/incidents/INC-1003", started)


def agree(client: httpx.Client) -> None:
    """A type, people, a target and a playbook, with hostile texts."""
    words = [text.replace("{", "(").replace("}", ")") for text in HOSTILE]
    plan = {
        "matchers": ['service="hostile-2"'],
        "description": words[0],
        "exit_criteria": [text[:900] for text in words],
        "roles": ["commander", "scribe"],
        "channels": [{"kind": kind, "name": text[:190]} for kind, text in zip("abc", words, strict=True)],
        "steps": [text[:900] for text in words],
    }
    contacts = [{"kind": text[:150], "value": text[:150]} for text in words]
    for path, body in (
        ("incident-types/outage", plan),
        (
            "people/ada",
            {"contacts": contacts, "away": [{"from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}]},
        ),
        ("delegates/commander", {"people": ["ada"]}),
        ("calendars/office", OFFICE),
        ("services/checkout", {}),
        ("services/checkout/playbooks/restart", {"body": words[2] + words[1]}),
    ):
        client.put(f"/api/v1/{path}", json=body).raise_for_status()


def respond(client: httpx.Client, incident: str, at: str) -> None:
    """To the incident whose alert has the longest text."""
    client.post(f"{incident}/declare", json={"commander": HOSTILE[2][:190]}).raise_for_status()
    for fact in (
        {"kind": "joined", "person": HOSTILE[1], "how": "asked"},
        {"kind": "update", "status": "identified", "note": HOSTILE[2], "conditions": HOSTILE[1], "at": at},
        {"kind": "criterion", "criterion": HOSTILE[1]},
        {"kind": "room", "channel": HOSTILE[2][:190]},
        {"kind": "impact", "customers": 5, "what": HOSTILE[2]},
    ):
        client.post(f"{incident}/facts", json=fact).raise_for_status()


def publish(url: str) -> None:
    """A problem with an update, maintenance, and components of each kind, on the status page."""
    now = datetime.now(UTC)
    components = {
        "Payments": {"services": ["checkout"], "uptime": "measured", "description": "Cards"},
        "Website": {"section": "Shop", "since": "2026-01-01"},
    }
    first = {
        "status": "investigating",
        "body": "Some cards fail.",
        "components": {"Payments": "major_outage", "Website": "degraded_performance"},
    }
    problem = {"id": PUBLIC, "title": "Cards fail", "begins_at": f"{now - timedelta(hours=30)}", "first": first}
    planned = {
        "kind": "maintenance",
        "title": "Upgrade",
        "begins_at": f"{now + timedelta(days=1)}",
        "scheduled_to": f"{now + timedelta(days=2)}",
        "first": {"status": "scheduled", "body": "Read-only.", "components": {"Website": "under_maintenance"}},
    }
    with httpx.Client(
        base_url=f"{url}/api/v1/status-page", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
    ) as client:
        for name, body in components.items():
            assert client.put(f"/components/{name}", json=body).is_success
        for body in (problem, planned):
            assert client.post("/incidents", json=body).is_success
        update = {"status": "identified", "body": "A provider is slow.", "components": {"Payments": "partial_outage"}}
        assert client.post(f"/incidents/{PUBLIC}/updates", json=update).is_success
    until(lambda: "Cards fail" in httpx.get(f"{url}/status").text, "it is published")


@pytest.fixture(autouse=True)
async def tidy(site: Site) -> AsyncIterator[None]:
    yield
    await site.close()


# — every page —


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
async def test_a_page_follows_the_rules_of_accessibility_in_every_format(path: str, site: Site) -> None:
    assert await examine(site, path) == []


@pytest.mark.parametrize("path", ["/login", "/no-such-page"])
async def test_pages_for_anyone_follow_the_rules_too(path: str, site: Site) -> None:
    site_of_anyone = Site(site.browser, site.url, site.token, cookies={"cookies": [], "origins": []})
    found = await examine(site_of_anyone, path)
    allowed = {"status 404", "Failed to load resource: the server responded with a status of 404 (Not Found)"}
    assert [each for each in found if path == "/login" or each.what not in allowed] == []


async def test_the_first_steps_follow_the_rules_too(site: Site, server: str, tmp_path: Path) -> None:
    name = f"site_{uuid4().hex}"
    await _execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    url = _plain(_database(server, name))
    service = Service(tmp_path, {"AFTERMATH_DATABASE_URL": url, "AFTERMATH_ADMIN_TOKEN": ADMIN_TOKEN})
    with service.run() as running:
        await asyncio.to_thread(running.wait_until_ready)
        empty = Site(site.browser, service.url, ADMIN_TOKEN)
        assert await examine(empty, "/") == []
        await empty.close()
    await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_the_examination_finds_what_is_wrong(site: Site) -> None:
    """Each check is seen to fail once, on a page that is broken on purpose."""

    async def broken(page: Page) -> None:
        async def answer(route: object) -> None:
            response = await route.fetch()  # type: ignore[attr-defined]
            body = (await response.text()).replace(
                '<h1 class="sr">Overview</h1>',
                '<h1 class="sr">Overview</h1><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw="><p class="unit">x'
                '<svg width="2000" height="1"></svg></p><script>alert(1)</script><font color="#1b1e21">dark</font>',
            )
            await route.fulfill(response=response, body=body)  # type: ignore[attr-defined]

        await page.route("**/", answer)

    class Broken(Site):
        async def examiner(self, width: int) -> Page:
            page = await super().examiner(width)
            await broken(page)
            return page

    found = await examine(Broken(site.browser, site.url, site.token), "/", [390])
    assert all(isinstance(each, Finding) for each in found)
    kinds = " ".join(each.what for each in found)
    assert "overflows by" in kinds
    assert "image-alt" in kinds
    assert "Content Security Policy" in kinds
    assert "dark: color-contrast" in kinds
    assert not any(each.what.startswith("color-contrast") for each in found)


# — keyboard —


async def test_the_keyboard_reaches_everything_and_the_content_first(site: Site) -> None:
    page = await site.visitor()
    await page.goto("/")
    focused = "(it => it.placeholder || it.ariaLabel || it.textContent.trim())(document.activeElement)"
    await page.keyboard.press("Tab")
    assert await page.evaluate(focused) == "Skip to content"
    box = await page.locator(".skip").bounding_box()
    assert box is not None
    assert box["x"] >= 0  # it is shown while it has the focus
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.goto("/")
    order = []
    for _ in range(12):
        await page.keyboard.press("Tab")
        order.append(await page.evaluate(focused))
    assert order == [
        "Skip to content",
        "Aftermath",
        *("Overview", "Incidents", "Reviews", "Numbers", "Services", "Sources", "Rules"),
        *("Search", "Search"),  # the field and its button
        "Sign out",
    ]
    await page.keyboard.press("Tab")
    outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


# — without scripts —


async def test_without_scripts_people_sign_in_choose_a_period_and_a_zone_and_sign_out(site: Site) -> None:
    page = await site.visitor(signed_in=False, java_script_enabled=False)
    await page.goto("/?days=7")
    assert "/login" in page.url
    await site.sign_in(page, page.url)
    await expect(page).to_have_url(re.compile(r"/\?days=7$"))
    await expect(page.get_by_role("heading", name="Last 7 days")).to_be_visible()
    await page.get_by_role("link", name="90 days").click()
    await expect(page.get_by_role("heading", name="Last 90 days")).to_be_visible()
    await page.get_by_text("Times are in UTC").click()
    await page.get_by_label("Time zone").fill("America/New_York")
    await page.get_by_role("button", name="Use it").click()
    await expect(page.get_by_text(re.compile("Times are in America/New York"))).to_be_visible()
    await expect(page).to_have_url(re.compile(r"/\?days=90$"))
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_without_scripts_people_search_by_words_and_by_number(site: Site) -> None:
    page = await site.visitor(java_script_enabled=False)
    await page.goto("/numbers")
    await page.get_by_role("searchbox", name="Search").fill("p99 service-0")
    await page.keyboard.press("Enter")
    await expect(page.locator(".results mark", has_text="p99").first).to_be_visible()
    await page.get_by_label("Words or a number").fill("inc-2")
    await page.get_by_role("button", name="Search").click()
    await page.wait_for_url("**/incidents/INC-2")


async def test_without_scripts_people_filter_acknowledge_correct_note_and_resolve(site: Site) -> None:
    page = await site.visitor(java_script_enabled=False)
    await page.goto("/incidents")
    await page.get_by_label("open", exact=True).check()
    await page.get_by_label("Service", exact=True).fill("checkout")
    await page.get_by_role("button", name="Show").click()
    await expect(page).to_have_url(re.compile("status=open.*service=checkout"))
    await page.get_by_role("link", name="HighLatency: p99 above 2 s").click()
    await expect(page).to_have_url(re.compile(r"/incidents/INC-\d+$"))
    state, timeline = page.locator(".headline .status"), page.locator(".timeline")

    await page.get_by_role("button", name="Acknowledge", exact=True).click()
    await expect(state).to_have_text("Acknowledged")

    await page.get_by_label("What was done or seen").fill("Restarted the pods")
    await page.get_by_label("helped", exact=True).check()
    await page.get_by_role("button", name="Add").click()
    await expect(timeline).to_contain_text("Restarted the pods")

    entry = timeline.locator("li", has_text="Restarted the pods")
    await entry.get_by_role("link", name="Correct").click()
    field = page.get_by_label("When")
    moment = datetime.fromisoformat(await field.input_value()) - timedelta(minutes=3)
    await field.fill(moment.strftime("%Y-%m-%dT%H:%M"))
    await page.get_by_role("button", name="Correct").click()
    await expect(entry.locator("time").first).to_have_text(moment.strftime("%H:%M"))
    await expect(entry).to_contain_text("corrected")

    await page.locator("summary", has_text="Resolve").click()
    await page.get_by_role("button", name="Resolve").click()
    await expect(state).to_have_text("Resolved")


async def test_without_scripts_people_take_a_role_and_record_an_update(site: Site) -> None:
    page = await site.visitor(java_script_enabled=False)
    await page.goto("/incidents/INC-1003")
    response = page.get_by_role("region", name="Response")
    scribe = response.locator("li", has_text="Scribe")
    await scribe.locator("summary").click()
    await scribe.get_by_role("button", name="Assign").click()
    await expect(scribe).to_contain_text("ada since")

    await response.locator("summary", has_text="Add an update").click()
    await response.get_by_label("Update", exact=True).fill("A fix is on its way")
    await response.get_by_role("button", name="Record the update").click()
    await expect(response.locator(".given li").first).to_contain_text("A fix is on its way")

    criterion = response.locator(".checks li").first
    await criterion.get_by_role("button", name="Met").click()
    await expect(criterion.get_by_role("button", name="Reopen")).to_be_visible()


async def test_without_scripts_people_add_and_change_a_rate(site: Site) -> None:
    page = await site.visitor(java_script_enabled=False)
    await page.goto("/services/checkout")
    for summary, button, amounts in (
        ("Add a rate", "Add the rate", ("900", "1000", "1100")),
        ("Change", "Save", ("1900", "2000", "2100")),
    ):
        details = page.locator("details", has=page.locator("summary", has_text=re.compile(f"^{summary}$"))).first
        await details.locator("summary").click()
        if summary == "Add a rate":
            await details.get_by_label("Currency").fill("EUR")
        for label, amount in zip(("Low", "Expected", "High"), amounts, strict=True):
            await details.get_by_label(label).fill(amount)
        await details.get_by_role("button", name=button).click()
        await expect(page.get_by_text(f"{int(amounts[1]):,}").first).to_be_visible()


# — with scripts —


async def test_escape_closes_a_form_and_returns_to_where_it_was_opened(site: Site) -> None:
    page = await site.visitor()
    await page.goto("/incidents/INC-1001")
    summary = page.locator(".actions .edit > summary").first
    await summary.focus()
    await page.keyboard.press("Enter")
    details = page.locator(".actions .edit").first
    assert await details.evaluate("details => details.open")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Escape")
    assert not await details.evaluate("details => details.open")
    assert await summary.evaluate("summary => summary === document.activeElement")


async def test_signing_in_takes_over_the_time_zone_of_the_browser(site: Site) -> None:
    for zone, words in (("Europe/Berlin", "Europe/Berlin"), ("America/New_York", "America/New York")):
        page = await site.visitor(signed_in=False, zone=zone)
        await site.sign_in(page)
        await expect(page.locator("footer summary")).to_contain_text(words)


async def test_times_are_those_of_the_zone(site: Site) -> None:
    shown = {}
    for zone in ("Europe/Berlin", "America/New_York"):
        page = await site.visitor(signed_in=False, zone=zone)
        await site.sign_in(page)
        read_at = page.locator("[data-read-at]")
        moment = datetime.fromisoformat(await read_at.get_attribute("datetime") or "")
        local = await page.evaluate("at => new Date(at).toLocaleTimeString('en-GB').slice(0, 5)", moment.isoformat())
        assert await read_at.inner_text() == local
        shown[zone] = local
    assert len(set(shown.values())) == 2


async def test_what_is_open_stays_fresh_and_a_page_that_cannot_says_so(site: Site) -> None:
    page = await site.visitor()
    await page.clock.install()
    await page.goto("/")
    heading = page.locator("#open")
    before = await heading.inner_text()
    await page.route("**/", lambda route: route.abort())
    await page.clock.run_for(31_000)
    await expect(page.locator("footer")).to_contain_text("Not read since")
    await page.unroute("**/")
    now = datetime.now(UTC).isoformat()
    async with httpx.AsyncClient(base_url=site.url, headers={"Authorization": f"Bearer {site.token}"}) as client:
        delivered = await client.post("/webhooks/alertmanager", json=a_delivery(an_alert(now, service="fresh")))
        assert delivered.status_code == 200
    await page.clock.run_for(31_000)
    await expect(heading).not_to_have_text(before)
    await expect(page.locator("footer")).to_contain_text("Read at")
    assert "open" in await page.title()


async def test_hostile_texts_stay_text(site: Site) -> None:
    page = await site.visitor()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    for path in PAGES.values():
        await page.goto(path)
        assert await page.locator("main img, main script, main iframe").count() == 0
        assert not await page.evaluate(r"/[\u202a-\u202e\u2066-\u2069]/.test(document.body.innerText)")
    assert dialogs == []
    await page.goto("/")
    await expect(page.get_by_text("<script>alert(1)</script>").first).to_be_visible()
    await expect(page.get_by_text("⟨U+202E⟩gnp.exe").first).to_be_visible()
