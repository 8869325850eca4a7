"""A person takes an incident from its end to a published review and its report, in a browser without scripts."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from tests.conftest import ADMIN_TOKEN, TEMPLATE, _database, _execute, _plain
from tests.pages.browsing import Site, a_browser, examine
from tests.processes import Service

pytestmark = pytest.mark.browser

SUMMARY = "Nobody could sign in for 20 minutes. The list of servers was out of date, so that the search took long."


@pytest.fixture
async def site(server: str, tmp_path: Path) -> AsyncIterator[Site]:
    """The service as a user starts it, without any data."""
    name = f"story_{uuid4().hex}"
    await _execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    url = _plain(_database(server, name))
    service = Service(tmp_path, {"AFTERMATH_DATABASE_URL": url, "AFTERMATH_ADMIN_TOKEN": ADMIN_TOKEN})
    with service.run() as running:
        await asyncio.to_thread(running.wait_until_ready)
        async with a_browser() as browser:
            site = Site(browser, service.url, ADMIN_TOKEN)
            yield site
            await site.close()
    await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def an_incident_that_is_over(page: Page) -> None:
    await page.goto("/incidents/new")
    await page.get_by_label("Title").fill("Login unavailable")
    await page.get_by_label("Service").fill("login")
    await page.get_by_role("button", name="Declare").click()
    await page.get_by_label("What was done or seen").fill("Restarted the connection pool")
    await page.get_by_label("helped", exact=True).check()
    await page.get_by_role("button", name="Add", exact=True).click()
    await page.locator("summary", has_text="Resolve").click()
    await page.get_by_role("button", name="Resolve").click()


async def add_finding(page: Page, text: str, *, kind: str = "learning", **fields: str) -> None:
    form = page.locator("#add-finding")
    await form.get_by_label("What was found").fill(text)
    await form.get_by_label("Kind").select_option(kind)
    for label, value in fields.items():
        await form.get_by_label(label).select_option(value)
    await form.get_by_role("button", name="Add the finding").click()
    await expect(page.locator("#findings")).to_be_in_viewport()


async def add_item(page: Page, title: str, *, finding: str, owner: str, priority: str) -> None:
    row = page.locator(".findings > li", has_text=finding)
    await row.get_by_role("link", name=re.compile("^Action item")).click()
    form = page.locator("#add-item")
    await form.get_by_label("What will be done").fill(title)
    await form.get_by_label("Owner").fill(owner)
    await form.locator("select[name=priority]").select_option(priority)
    await form.get_by_role("button", name="Add the action item").click()
    await expect(page.locator(".items-of-review")).to_contain_text(title)


async def prepare(page: Page) -> None:
    """Somebody who was not involved leads it, and more than responders take part."""
    await page.get_by_label("Name a facilitator").fill("grace")
    await page.get_by_role("button", name="Save the facilitator").click()
    await expect(page.locator("#people ~ dl")).to_contain_text("not involved")
    await page.get_by_role("button", name="Invite ada").click()
    await page.locator("summary", has_text="Add or change a participant").click()
    await page.get_by_label("Name", exact=True).fill("sam")
    await page.locator("select[name=part]").select_option("support")
    await page.get_by_role("button", name="Save the participant").click()
    await expect(page.locator(".perspective")).to_have_text("Missing a manager, someone who was affected.")

    await page.get_by_role("link", name="Report", exact=True).click()
    await expect(page.locator("article")).to_contain_text("Restarted the connection pool")
    await page.get_by_role("link", name="REV-1").click()


async def hold(page: Page) -> None:
    """And record what it finds."""
    await page.locator("summary", has_text="Record that it was held").click()
    await page.get_by_role("checkbox", name="sam").uncheck()
    await page.get_by_role("button", name="It was held").click()
    await expect(page.locator(".life [aria-current]")).to_contain_text("Held")
    await expect(page.locator(".participants li", has_text="sam")).to_contain_text("did not attend")
    await page.get_by_role("link", name=re.compile("^Answer.*recover sooner")).click()
    await add_finding(page, "We should have known where the list is")
    await expect(page.locator(".findings .advice")).to_contain_text("Ask instead: What did people see")
    await expect(page.locator(".findings")).to_contain_text("What would let us recover sooner?")
    await page.get_by_role("link", name=re.compile("^Change.*We should")).click()
    await page.locator(".changing textarea").fill("There are three lists of servers, and they differ")
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.locator(".findings .advice")).to_have_count(0)
    await add_finding(page, "The runbook has no list", kind="factor", **{"Factor, if it is one": "capacity"})
    await add_finding(page, "Replace the login service", kind="parked")
    await expect(page.locator(".findings").last).to_contain_text("Replace the login service")


async def add_items(page: Page) -> None:
    await add_item(page, "Keep one list", finding="three lists", owner="cathy", priority="1")
    await add_item(page, "Link it from the runbook", finding="has no list", owner="", priority="2")


async def publish(page: Page) -> None:
    """First what is missing is listed at once."""
    await page.get_by_role("button", name="Publish").click()
    missing = page.locator(".missing")
    await expect(missing.get_by_role("listitem")).to_have_text(["The summary is empty", "AI-2 has no owner"])
    await missing.get_by_role("link", name="AI-2 has no owner").click()
    await page.get_by_label("Owner").fill("gary")
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.get_by_role("link", name="REV-1").click()
    await page.get_by_label("What happened, for people who were not there").fill(SUMMARY)
    await page.get_by_role("button", name="Save the texts").click()
    await expect(missing).to_have_count(0)
    await page.get_by_role("button", name="Publish").click()
    await expect(page.locator(".headline .status")).to_have_text("Published")


async def read_the_report(page: Page) -> None:
    """It has everything, with people by name or by role."""
    await page.get_by_role("link", name="Report", exact=True).click()
    report = page.locator("article")
    for text in (
        SUMMARY,
        "There are three lists of servers, and they differ",
        "Keep one list",
        "gary",
        "It was led by grace",
    ):
        await expect(report).to_contain_text(text)
    await page.get_by_role("link", name="By role").click()
    await expect(report).to_contain_text("It was led by the facilitator")
    await page.get_by_role("link", name="Seven sections").click()
    await expect(report).to_contain_text("7. Communication")
    await expect(page).to_have_url(re.compile("outline=postmortem&people=roles"))
    await page.emulate_media(media="print")
    await expect(page.locator("header nav")).to_be_hidden()
    await expect(page.locator(".report-choices")).to_be_hidden()
    await expect(report).to_be_visible()
    await page.emulate_media(media="screen")


async def close(page: Page) -> None:
    """Later, when each action item is done and judged."""
    for number, words in (("AI-1", "it helped"), ("AI-2", "cannot tell")):
        await page.goto(f"/action-items/{number}")
        await page.get_by_role("button", name="Done", exact=True).click()
        await page.get_by_label(words).check()
        await page.get_by_role("button", name="Save the judgment").click()
    await page.goto("/reviews/REV-1")
    await page.get_by_role("button", name="Close").click()
    await expect(page.locator(".headline .status")).to_have_text("Closed")
    await expect(page.locator("#follow-up ~ p")).to_have_text("Every action item is closed and judged.")
    await page.goto("/reviews")
    await expect(page.get_by_role("heading", name="Nothing is waiting")).to_be_visible()


async def follow_the_rules(site: Site) -> None:
    """Also the form in which a finding is changed."""
    finding = await site.visitor()
    await finding.goto("/reviews/REV-1")
    change = await finding.get_by_role("link", name=re.compile("^Change.*There are")).get_attribute("href")
    assert change is not None
    assert await examine(site, change, [1280, 390]) == []


async def test_a_review_from_its_draft_to_its_report(site: Site) -> None:
    page = await site.visitor(java_script_enabled=False)
    await an_incident_that_is_over(page)
    await page.get_by_role("button", name="Start a review").click()
    await expect(page).to_have_url(re.compile(r"/reviews/REV-1$"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Login unavailable")

    await prepare(page)
    await hold(page)
    await add_items(page)
    await publish(page)
    await read_the_report(page)
    await close(page)
    await follow_the_rules(site)
