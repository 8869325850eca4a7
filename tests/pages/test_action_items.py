"""The pages of action items without a browser: what they show is what REST shows, and their forms become facts."""

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.http.context import Context
from app.pages import words
from app.pages.plots.forest import forest
from app.pages.reviews.item import drawn
from app.reviews.effect import rate_ratio
from tests.incidents.test_api import clock, deliver, resolved
from tests.pages.test_reviews import plain, rest, seen
from tests.pages.visitors import rows_of, section_of, submit, text_of
from tests.reviews.test_reviews import ITEMS, find, new_item, new_review, published, send
from tests.statements import counted

NOW = datetime.now(UTC)


async def sent(
    browser: httpx.AsyncClient, action: str, *, status: int = 303, item: str = "AI-1", **fields: str
) -> httpx.Response:
    answer = await submit(browser, f"/action-items/{item}/{action}", **fields)
    assert answer.status_code == status, text_of(answer)
    return answer


async def made_long_ago(engine: AsyncEngine, number: int, days: float, done_after: float | None = None) -> None:
    """Moves an action item into the past."""
    at = NOW - timedelta(days=days)
    values: dict[str, Any] = {"number": number, "created": at, "due": at + timedelta(days=10)}
    change = "UPDATE action_item SET created_at = :created, due_at = :due"
    if done_after is not None:
        values["closed"] = at + timedelta(days=done_after)
        change += ", state = 'done', closed_at = :closed"
    async with engine.begin() as tx:
        await tx.execute(sql(f"{change} WHERE number = :number"), values)


def listed(page: httpx.Response) -> list[str]:
    return re.findall(r'<td class="what"><a href="/action-items/(AI-\d+)"', page.text)


async def test_the_list_shows_what_rest_shows_and_how_old_everything_is(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await new_review(client)
    for number in range(1, 17):
        owner: dict[str, Any] = {"owner": f"o{number % 3}"} if number % 3 else {}
        priority = {"priority": number % 4} if number % 4 else {}
        await new_item(client, title=f"Add {number}", **owner, **priority)
        await made_long_ago(engine, number, 100 - number, None if number > 12 else number)
    page = await seen(signed_in, "/action-items")
    items = (await rest(client, "action-items?state=open&state=in_progress"))["items"]
    assert listed(page) == ["AI-13", "AI-14", "AI-15", "AI-16"]  # due first
    assert {each["number"] for each in items} == set(listed(page))
    for each in items:
        row = plain(text_of(page.text.partition(f'<tr id="{each["number"]}"')[2].partition("</tr>")[0]))
        assert f"{each['title']} {each['number']} · REV-1 · know sooner" in row
        assert (each["owner"] or "no one") in row
        assert f"{plain(words.duration(each['overdue_seconds']))} overdue" in row
        assert plain(words.duration(each["age_seconds"])) in row
    text = plain(text_of(page))
    assert "4 action items are open, 4 overdue: 1 now" in text
    assert "1 without priority (1 overdue, oldest 84 d)" in text
    since = (NOW - timedelta(days=365)).isoformat().replace("+00:00", "Z")
    took = (await rest(client, f"metrics/action-items?from={since}"))["total"]
    median = took["time_to_complete"]["estimates"]["kaplan_meier_median"]
    assert f"half are done after {plain(words.duration(median['seconds']))} 95 % interval" in text
    for end in (median["low"], median["high"]):
        assert end is None or plain(words.duration(end)) in text
    in_time = took["done_in_time"]
    assert (in_time["k"], in_time["n"]) == (10, 16)
    shares = [plain(words.share(in_time[name])) for name in ("value", "low", "high")]
    assert f"10 of 16 were done in time {shares[0]}, {shares[1]} to {shares[2]}" in text


async def test_filters_are_in_the_address(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    await new_review(client, incidents=["INC-1"])
    await new_review(client)
    await new_item(client, owner="ada", priority=1, due_at=clock("10:00"))
    await new_item(client, review="REV-2", owner="bob", priority=2, phase="response")
    await new_item(client, review="REV-2")
    await send(client, "PATCH", f"{ITEMS}/AI-3", state="done")
    for query, items in {
        "": ["AI-1", "AI-2"],
        "?state=all": ["AI-3", "AI-2", "AI-1"],
        "?state=done": ["AI-3"],
        "?owner=bob": ["AI-2"],
        "?state=all&nobody=true": ["AI-3"],
        "?priority=1": ["AI-1"],
        "?phase=response": ["AI-2"],
        "?overdue=true": ["AI-1"],
        "?service=checkout": ["AI-1"],
        "?owner=&priority=&phase=&service=": ["AI-1", "AI-2"],  # as the form sends it
    }.items():
        page = await seen(signed_in, f"/action-items{query}")
        assert listed(page) == items, query
        assert ("Reset" in text_of(page)) == (query not in {"", "?owner=&priority=&phase=&service="})
    assert "No action item matches" in text_of(await seen(signed_in, "/action-items?owner=nobody-here"))
    await seen(signed_in, "/action-items?priority=4", 422)
    await seen(signed_in, "/action-items?after=nonsense", 422)


async def test_the_pages_of_the_list_have_every_item_once(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context
) -> None:
    await new_review(client)
    await new_review(client)
    with counted(context.engine) as few:
        await seen(signed_in, "/action-items")
    for number in range(110):
        await new_item(client, review=f"REV-{number % 2 + 1}", priority=number % 3 + 1)
    with counted(context.engine) as many:
        await seen(signed_in, "/action-items")
    assert len(few) == len(many) <= 6
    for state in ("waiting", "all"):
        found, address = [], f"/action-items?state={state}"
        while address:
            page = await seen(signed_in, address)
            found += listed(page)
            following = re.search(r'rel="next" href="([^"]*)"', page.text)
            address = html.unescape(following[1]) if following else ""
        assert len(found) == len(set(found)) == 110


async def test_an_item_is_changed_started_done_judged_and_opened_again(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await new_review(client)
    made = await find(client, text="The list was two years old")
    await new_item(client, title="Improve the list", finding=made["id"], priority=1)
    page = await seen(signed_in, "/action-items/AI-1")
    assert "Follows from The list was two years old" in text_of(page)
    assert f'href="/reviews/REV-1#finding-{made["id"]}"' in page.text
    assert "Hint Improve has no clear end; state the result instead." in text_of(page)
    shown = await rest(client, "action-items/AI-1")
    fields: dict[str, Any] = {
        "title": "Move the list",
        "phase": "response",
        "term": "long",
        "owner": "cathy",
        "priority": "2",
    }
    unchanged = shown["due_at"][:16]
    await sent(signed_in, "edit", **fields, version="1", due_at=unchanged, done_when="A colleague finds it")
    changed = await rest(client, "action-items/AI-1")
    assert (changed["title"], changed["term"], changed["owner"], changed["priority"], changed["done_when"]) == (
        *("Move the list", "long", "cathy", 2),
        "A colleague finds it",
    )
    assert changed["due_at"] == shown["due_at"]  # with its seconds
    refused = await sent(signed_in, "edit", status=412, **fields | {"title": "Mine"}, version="1", due_at="")
    assert "Someone changed this in the meantime" in text_of(refused)
    assert 'name="title" value="Mine"' in refused.text
    await sent(signed_in, "state", state="in_progress")
    refused = await sent(signed_in, "state", status=422, state="dropped", dropped_because="")
    assert "Dropping an action item needs a reason" in text_of(refused)
    await sent(signed_in, "state", state="dropped", dropped_because="The list is gone")
    assert "Dropped: The list is gone" in text_of(await seen(signed_in, "/action-items/AI-1"))
    await sent(signed_in, "state", state="open")
    await sent(signed_in, "state", state="done", closed_at="2026-11-30T10:00")
    assert (await rest(client, "action-items/AI-1"))["closed_at"] == "2026-11-30T10:00:00Z"
    await sent(signed_in, "effect", effective="no", effective_note="It came too late")
    text = text_of(await seen(signed_in, "/action-items/AI-1"))
    assert "It did not help, as people judge it: It came too late" in text
    assert "reopened 1×" in text
    await seen(signed_in, "/action-items/AI-9", 404)
    await sent(signed_in, "state", status=404, item="AI-9", state="open")


async def test_the_effect_is_that_of_rest_with_its_interval_in_words(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    for hour in range(8):
        await deliver(client, resolved(f"0{hour}:00", f"0{hour}:10"))
    await deliver(client, resolved("09:00", "09:10"))
    await published(client)
    finding = await find(client, kind="factor", factor="capacity", text="t")
    await new_item(client, finding=finding["id"])
    assert "When it is done, this page compares" in text_of(await seen(signed_in, "/action-items/AI-1"))
    await send(client, "PATCH", f"{ITEMS}/AI-1", state="done", closed_at=clock("08:30"))
    effect = (await rest(client, "action-items/AI-1"))["effect"]
    key = effect["key"]
    assert (key["before"], key["after"], key["verdict"]) == (7, 1, "cannot_tell")  # INC-1 is left out
    section = section_of(await seen(signed_in, "/action-items/AI-1"), "Did it help?")
    rows, text = rows_of(section), plain(text_of(section))
    assert rows["Same key"][:3] == ["cannot tell", "before 7", "after 1"]
    assert rows["Same factor"][:3] == ["cannot tell", "before 0", "after 0"]
    low, ratio, high = (f"{key[name]:.2g} ×" for name in ("low", "ratio", "high"))
    assert f"{ratio} as many as before; 95 % interval {low} to {high}. That includes the same number as before" in text
    assert "There was no such incident in either period." in text
    assert "Left out: INC-1, from which it comes" in text
    assert f"{plain(words.share(effect['reviewed_before']))} of all before" in text


async def test_an_effect_beyond_chance_is_called_so(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    for hour in range(10):
        await deliver(client, resolved(f"0{hour}:00", f"0{hour}:10"))
    await new_review(client)
    await new_item(client)
    # Of no incident of its own, so it compares nothing; then of the key of INC-10.
    await send(client, "PATCH", f"{ITEMS}/AI-1", state="done", closed_at=clock("08:30"))
    assert "There was no incident of the same kind" in text_of(await seen(signed_in, "/action-items/AI-1"))
    await send(client, "PATCH", "/api/v1/reviews/REV-1", incidents=["INC-10"])
    section = section_of(await seen(signed_in, "/action-items/AI-1"), "Did it help?")
    assert rows_of(section)["Same key"][:3] == ["fewer", "before 9", "after 0"]
    assert "That excludes chance, but not other changes." in text_of(section)
    assert 'class="interval better"' in section


def test_a_ratio_without_a_finite_value_is_drawn_to_the_end() -> None:
    assert drawn(None) is drawn(rate_ratio(0, 0)) is None
    [more, none_left] = forest([drawn(rate_ratio(0, 9)), drawn(rate_ratio(9, 0))]).rows
    assert more is not None
    assert none_left is not None
    assert (more.ratio > 90, more.high, none_left.low, none_left.ratio < 10) == (True, 100, 0, True)
    assert 50 < more.low < 100
    assert 0 < none_left.high < 50
