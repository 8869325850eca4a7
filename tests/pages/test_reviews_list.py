"""The list of reviews, creating one, and what other pages say about reviews, without a browser."""

import html
import re
from datetime import UTC, datetime, timedelta

import httpx

from app.base.access.tokens import Scope
from tests.incidents.test_api import clock, deliver, firing, resolved
from tests.pages.conftest import SignedInAs
from tests.pages.test_reviews import plain, seen
from tests.pages.visitors import submit, text_of
from tests.reviews.test_reviews import ITEMS, REVIEWS, new_item, new_review, published, send, step


async def test_what_waits_comes_in_the_order_in_which_it_is_due(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, firing("10:00"), firing("10:01", service="search"))
    await new_review(client, title="No time set")
    await new_review(client, title="Next year", due_at="2190-01-01T00:00:00Z", incidents=["INC-2"])
    await new_review(client, title="Overdue", due_at=clock("09:00"), incidents=["INC-1"], facilitator="grace")
    await published(client)
    await send(client, "PATCH", f"{REVIEWS}/REV-4", follow_up_at=clock("18:00"))
    await new_review(client, title="Held")
    await step(client, "hold", "REV-5", facilitator=None, held_at=clock("08:00"))

    def listed(page: httpx.Response) -> list[str]:
        return re.findall(r'<td class="what"><a href="/reviews/(REV-\d+)"', page.text)

    page = await seen(signed_in, "/reviews")
    assert listed(page) == ["REV-5", "REV-3", "REV-2", "REV-1"]
    assert "Waiting 4 Overdue 1 Drafts 3 Held 1 Published 1 Follow-up due 1 All 5" in text_of(page)
    assert "no one yet" in text_of(page)
    assert re.search("Overdue .*[0-9]+.d overdue", text_of(page))
    await new_item(client, review="REV-4")
    await new_item(client, review="REV-4")
    await send(client, "PATCH", f"{ITEMS}/AI-1", state="done")
    assert "REV-4 · 2 action items, 1 open" in plain(text_of(await seen(signed_in, "/reviews?show=published")))
    for query, reviews in {
        "show=overdue": ["REV-3"],
        "show=published": ["REV-4"],
        "show=follow_up": ["REV-4"],
        "show=all": ["REV-5", "REV-4", "REV-3", "REV-2", "REV-1"],
        "facilitator=grace": ["REV-3"],
        "service=search": ["REV-2"],
        "required=true": [],
    }.items():
        assert listed(await seen(signed_in, f"/reviews?{query}")) == reviews, query
    assert "No review matches" in text_of(await seen(signed_in, "/reviews?required=true"))


async def test_the_pages_of_a_list_have_every_review_once(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    for number in range(60):
        due = {} if number % 3 else {"due_at": f"2026-08-{number % 4 + 1:02}T00:00:00Z"}
        made = await new_review(client, title=f"t{number}", **due)
        if number % 3 == 1:
            await step(client, "hold", made["number"], facilitator=None, held_at=clock(f"10:{number:02}"))
    for show in ("waiting", "all"):
        found, address = [], f"/reviews?show={show}"
        while address:
            page = (await seen(signed_in, address)).text
            found += re.findall(r'<td class="what"><a href="/reviews/REV-(\d+)"', page)
            following = re.search(r'rel="next" href="([^"]*)"', page)
            address = html.unescape(following[1]) if following else ""
        assert sorted(map(int, found)) == list(range(1, 61))
        assert show == "waiting" or found == sorted(found, key=int, reverse=True)


async def test_an_empty_list_invites(signed_in: httpx.AsyncClient, signed_in_as: SignedInAs) -> None:
    page = await seen(signed_in, "/reviews")
    assert "No review yet" in text_of(page)
    assert page.text.count('href="/reviews/new"') == 2
    assert "No action item yet" in text_of(await seen(signed_in, "/action-items"))
    reader = await signed_in_as(Scope.READ)
    assert "/reviews/new" not in (await seen(reader, "/reviews")).text


async def test_a_review_that_cannot_be_created_keeps_what_was_entered(signed_in: httpx.AsyncClient) -> None:
    for status, fields, words_of in (
        (422, {"title": ""}, "Title: enter a value"),
        (404, {"title": "t", "incidents": "INC-7"}, "No incident"),
        (422, {"title": "t", "incidents": "seven"}, "for example INC-7"),
        (422, {"title": "t", "begins_at": "2026-08-20T09:00"}, "needs both its beginning and its end"),
    ):
        refused = await submit(signed_in, "/reviews", **fields, facilitator="grace")
        assert refused.status_code == status
        assert words_of in text_of(refused)
        assert 'name="facilitator" value="grace"' in refused.text


# — other pages —


async def test_an_incident_that_is_over_leads_to_its_review_or_starts_one(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, firing("10:00"))
    assert "Start a review" not in text_of(await seen(signed_in, "/incidents/INC-1"))
    await deliver(client, resolved("10:00", "10:30"))
    page = await seen(signed_in, "/incidents/INC-1")
    assert "Not reviewed. Start a review" in text_of(page)
    assert 'action="/reviews"' in page.text
    assert (await submit(signed_in, "/reviews", incidents="INC-1")).headers["location"] == "/reviews/REV-1"
    assert "To be reviewed in REV-1, overdue since" in text_of(await seen(signed_in, "/incidents/INC-1"))
    await step(client, "hold", facilitator=None, held_at=clock("12:00"))
    await new_item(client)
    await new_item(client)
    await send(client, "PATCH", f"{ITEMS}/AI-1", state="done")
    text = text_of(await seen(signed_in, "/incidents/INC-1"))
    assert "Reviewed in REV-1, held 20 Aug, with 2 action items, 1 open." in plain(text)


async def test_the_overview_says_what_is_due(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    now = datetime.now(UTC)
    await deliver(client, firing("10:00"))
    assert "review" not in text_of(await seen(signed_in, "/")).partition("Last 30 days")[0].partition("open")[2]
    for days in (-1, 2, 30):
        await new_review(client, due_at=(now + timedelta(days=days)).isoformat())
    await new_item(client, due_at=clock("10:00"))
    await new_item(client, priority=3)
    text = plain(text_of(await seen(signed_in, "/")))
    assert "2 reviews are due within a week, 1 overdue; 2 action items are open, 1 overdue." in text
