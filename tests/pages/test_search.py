"""The search in the header of every page, and the page of its results."""

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.base.http.context import Context
from app.pages import search
from tests.conftest import ADMIN_TOKEN
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.pages.history import HOSTILE
from tests.pages.visitors import text_of, visiting
from tests.search.test_search import send
from tests.statements import counted

BEGAN = (datetime.now(UTC) - timedelta(days=2)).isoformat()


async def fill(client: httpx.AsyncClient, incidents: int) -> None:
    alerts = [an_alert(BEGAN, alertname=f"LatencyHigh {n}", service=f"shop-{n}") for n in range(incidents)]
    assert (await client.post("/webhooks/alertmanager", json=a_delivery(*alerts))).status_code == 200


async def test_results_lead_to_their_pages_and_show_the_words(context: Context, client: httpx.AsyncClient) -> None:
    await fill(client, 1)
    await send(client, "PUT", "services/a%2Fb", owner="The latency team")
    await send(client, "POST", "reviews", title="Latency again", summary="A queue was full")
    finding = await send(client, "POST", "reviews/REV-1/findings", kind="learning", text="Latency grows with the queue")
    await send(client, "POST", "action-items", title="Alert on latency", phase="detection", incident="INC-1")
    async with visiting(context, token=ADMIN_TOKEN) as visitor:
        with counted(context.engine) as statements:
            page = await visitor.get("/search?q=LATENCY")
        few = len(statements)
        found = sorted(re.findall(r'<h2><a href="([^"]+)"><bdi>(.*?)</bdi>', page.text))
        assert found == [
            ("/action-items/AI-1", "Alert on <mark>latency</mark>"),
            ("/incidents/INC-1", "<mark>Latency</mark>High 0: slow"),
            ("/reviews/REV-1", "<mark>Latency</mark> again"),
            (f"/reviews/REV-1#finding-{finding['id']}", "<mark>Latency</mark> grows with the queue"),
            ("/services/a%2Fb", "a/b"),
        ]
        await fill(client, 40)
        with counted(context.engine) as statements:
            assert "44 results" in text_of(await visitor.get("/search?q=latency"))
        assert len(statements) == few


async def test_a_number_leads_straight_to_its_page(context: Context, client: httpx.AsyncClient) -> None:
    await fill(client, 1)
    await send(client, "POST", "reviews", title="t")
    await send(client, "POST", "action-items", title="t", phase="detection", review="REV-1")
    async with visiting(context, token=ADMIN_TOKEN) as visitor:
        for q, address in (
            ("INC-1", "/incidents/INC-1"),
            (" inc 1 ", "/incidents/INC-1"),
            ("rev-1", "/reviews/REV-1"),
            ("AI-1", "/action-items/AI-1"),
        ):
            answer = await visitor.get("/search", params={"q": q})
            assert (answer.status_code, answer.headers.get("location")) == (303, address), q
        missing = await visitor.get("/search?q=inc-9")
        assert (missing.status_code, "There is no INC-9." in text_of(missing)) == (200, True)
        assert "1 result" in text_of(await visitor.get("/search?q=INC-1&kind=incident"))
        several = text_of(await visitor.get("/search?q=1"))
        assert "3 results" in several


async def test_without_results_and_with_too_many_it_says_what_to_do(
    context: Context, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(client, 4)
    async with visiting(context, token=ADMIN_TOKEN) as visitor:

        async def said(query: str, status: int = 200) -> str:
            answer = await visitor.get(f"/search?{query}")
            assert answer.status_code == status
            return text_of(answer.text.partition("<main")[2])

        assert "Finds incidents by title and service" in await said("")
        assert "There is nothing to look for" in await said("q=%25%25")
        assert "Try fewer of them" in await said("q=nothing")
        assert 'href="/search?q=latency"' in (await visitor.get("/search?q=latency&kind=review")).text
        assert "Search for at most 200 characters." in await said(f"q={'x' * 201}", 422)
        assert "4 results" in await said("q=latency&kind=no-such-kind")
        monkeypatch.setattr(search, "RESULTS", 3)
        assert "These are the best 3. There are more: add a word, or choose a kind." in await said("q=latency")
        assert "There are more: add a word." in await said("q=latency&kind=incident")
        monkeypatch.setattr("app.search.store.INCIDENTS_READ", 3)
        assert "Older ones are in the list of incidents" in await said("q=shop")


async def test_hostile_texts_are_text(context: Context, client: httpx.AsyncClient) -> None:
    for place, title in enumerate(HOSTILE):
        await send(client, "POST", "incidents", title=f"findme {title}"[:200], service=f"s{place}")
    async with visiting(context, token=ADMIN_TOKEN) as visitor:
        for q in ("findme", "findme <script>", "script alert", "x" * 60, "amp quoted", "\u202egnp"):
            page = (await visitor.get("/search", params={"q": q})).text
            assert "<script>alert" not in page
            assert "<img" not in page
            assert "\u202e" not in page
        assert "3 results" in text_of(await visitor.get("/search?q=findme"))
        assert "<mark>script</mark>&gt;alert(1)&lt;/<mark>script</mark>" in (await visitor.get("/search?q=script")).text


async def test_every_page_has_the_search_once(context: Context, client: httpx.AsyncClient) -> None:
    async with visiting(context, token=ADMIN_TOKEN) as visitor:
        for address in ("/", "/incidents", "/numbers", "/sources", "/search", "/search?q=a"):
            page = (await visitor.get(address)).text
            assert page.count('role="search"') == 1, address
        assert 'role="search"' not in (await client.get("/login", headers={"accept": "text/html"})).text
