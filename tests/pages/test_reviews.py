"""The pages of reviews without a browser: what they show is what REST shows, and their forms become facts."""

import ast
import html
import re
from typing import Any

import httpx

from app.base.access.tokens import Scope
from app.base.http.context import Context
from app.pages import words
from app.pages.reviews.page import _WORDS
from app.pages.reviews.view import advice, pieces
from app.reviews.api.answer import wording_of
from tests.incidents.test_api import act, clock, deliver, firing, resolved
from tests.pages.conftest import SignedInAs
from tests.pages.visitors import section_of, submit, text_of
from tests.processes import REPOSITORY
from tests.reviews.test_required import draft
from tests.reviews.test_reviews import ITEMS, REVIEWS, find, new_item, new_review, published, send, step
from tests.statements import counted

HOSTILE = "<script>alert(1)</script><b x='\"'> \u202eexe.png\u202c {{ 7*7 }} " + "W" * 130


async def rest(client: httpx.AsyncClient, path: str = "reviews/REV-1") -> Any:
    answer = await client.get(f"/api/v1/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def seen(browser: httpx.AsyncClient, address: str = "/reviews/REV-1", status: int = 200) -> httpx.Response:
    answer = await browser.get(address)
    assert answer.status_code == status, answer.text
    return answer


async def sent(
    browser: httpx.AsyncClient, action: str, *, status: int = 303, review: str = "REV-1", **fields: str
) -> httpx.Response:
    answer = await submit(browser, f"/reviews/{review}/{action}", **fields)
    assert answer.status_code == status, text_of(answer)
    return answer


def plain(text: str) -> str:
    return re.sub(r"[\u00a0\u202f]", " ", text)


async def version(client: httpx.AsyncClient, review: str = "REV-1") -> str:
    return (await client.get(f"{REVIEWS}/{review}")).headers["etag"].strip('"')


# — one review —


async def test_every_number_equals_that_of_rest(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await client.put("/api/v1/services/checkout", json={})
    rate = {"currency": "EUR", "low": "6000", "expected": "14000.5", "high": "30000"}
    await client.put("/api/v1/services/checkout/rates", json=[rate])
    await deliver(client, resolved("10:00", "10:30"), resolved("12:00", "12:07", service="search"))
    await act(client, "acknowledge", at=clock("10:04"), by="ada")
    people = [{"person": "sam", "part": "support"}, {"person": "ada", "part": "first_responder"}]
    await new_review(client, incidents=["INC-1", "INC-2"], facilitator="grace", participants=people)
    await find(client, text="one", new_to=3)
    await find(client, text="two", new_to=4)
    await step(client, "hold", attended=["sam"], duration_seconds=2700, held_at=clock("14:00"))
    shown, page = await rest(client), await seen(signed_in)
    rows = re.findall(r"(?s)<tr>.*?</tr>", section_of(page, "Incidents"))[1:]
    assert len(rows) == len(shown["numbers"]) == 2
    for row, numbers in zip(rows, shown["numbers"], strict=True):
        cells = [plain(text_of(cell)) for cell in re.findall(r"(?s)<td.*?</td>", row)]
        assert f"{numbers['severity']} {numbers['service']} · {numbers['number']}" in cells[0]
        for cell, name in zip(cells[2:5], ("time_to_detect", "time_to_acknowledge", "time_to_recover"), strict=True):
            seconds = numbers["measures"][name]["seconds"]
            assert cell == ("none" if seconds is None else plain(words.duration(seconds)))
        assert cells[5] == plain(words.duration(numbers["downtime_seconds"]))
    assert f"EUR {float(shown['numbers'][0]['cost']['EUR']['expected']):,.0f}" in plain(text_of(rows[0]))
    assert "no rate" in text_of(rows[1])
    text = plain(text_of(page))
    assert shown["person_seconds"] == 5400
    assert "45 m, 1 h 30 m of people’s time" in text
    assert f"Findings 2, {shown['learned']} times new to someone" in text
    assert "ada first responder: acknowledged · did not attend" in text
    assert "sam support · attended" in text
    assert "Missing someone who responded, a manager, someone who was affected." in text


async def test_what_is_missing_is_listed_at_once_and_leads_to_its_place(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await new_review(client)
    assert "Before it can be held No facilitator is named" in text_of(await seen(signed_in))
    await step(client, "hold", facilitator=None)
    await new_item(client)
    section = section_of(await seen(signed_in), "Before it can be published")
    assert re.findall(r'<a href="([^"]+)">([^<]+)', section) == [
        ("#summary", "The summary is empty"),
        ("#add-finding", "No finding is recorded yet"),
        ("/action-items/AI-1", "AI-1 has no owner"),
        ("/action-items/AI-1", "AI-1 has no priority"),
        ("#action-items", "No action item has priority 1: add one, or state why nothing has to be done now"),
    ]
    assert len(re.findall("<li>", section)) == len((await rest(client))["missing"])
    for place in ("summary", "add-finding", "action-items"):
        assert f'id="{place}"' in (await seen(signed_in)).text
    refused = await sent(signed_in, "publish", status=409)
    assert "The summary is empty" in text_of(refused)
    assert (await rest(client))["state"] == "held"


async def test_a_review_is_prepared_held_published_closed_and_taken_back(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, resolved("10:00", "10:30"), resolved("10:10", "10:20", service="search"))
    await act(client, "tasks", status=201, text="Restarted it", at=clock("10:05"), by="bob")
    made = await submit(signed_in, "/reviews", incidents="inc-1", facilitator="bob", title="")
    assert made.headers["location"] == "/reviews/REV-1"
    text = text_of(await seen(signed_in))
    assert "bob was involved: did a task. Someone who was not finds it easier to ask." in text
    shown = await rest(client)
    assert (shown["title"], shown["incidents"]) == ((await rest(client, "incidents/INC-1"))["title"], ["INC-1"])
    await sent(
        signed_in,
        "plan",
        version=await version(client),
        title="Checkout was down",
        scheduled_at="2026-08-21T09:00",
        due_at="",
        follow_up_at="2026-09-21T09:00",
        begins_at="2026-08-20T09:00",
        ends_at="2026-08-20T11:00",
    )
    await sent(signed_in, "facilitator", facilitator="grace")
    assert 'name="incidents" value="INC-2"' in (await seen(signed_in)).text  # proposed
    await sent(signed_in, "incidents", incidents="INC-2")
    await sent(signed_in, "incidents/remove", incident="INC-1")
    await sent(signed_in, "participants", person="cathy", part="first_responder")
    await sent(signed_in, "participants", person="sam", part="curious")
    await sent(signed_in, "participants", person="sam", part="support", attended="no")
    await sent(signed_in, "participants", person="eve", part="curious")
    await sent(signed_in, "participants/remove", person="eve")
    shown = await rest(client)
    assert (shown["title"], shown["facilitator"], shown["incidents"]) == ("Checkout was down", "grace", ["INC-2"])
    assert (shown["scheduled_at"], shown["begins_at"]) == ("2026-08-21T09:00:00Z", clock("09:00"))
    assert [(one["person"], one["part"], one["attended"]) for one in shown["participants"]] == [
        ("cathy", "first_responder", None),
        ("sam", "support", False),
    ]
    held: dict[str, Any] = {"attendance": "yes", "attended-0": "cathy", "minutes": "30", "held_at": "2026-08-21T09:00"}
    await sent(signed_in, "hold", **held, facilitator="grace")
    shown = await rest(client)
    assert (shown["state"], shown["held_at"], shown["duration_seconds"]) == ("held", "2026-08-21T09:00:00Z", 1800)
    assert [one["attended"] for one in shown["participants"]] == [True, False]
    await sent(signed_in, "texts", version=await version(client), summary="It was down", customer_impact="A spinner")
    await sent(signed_in, "findings", kind="went_well", text="Cathy asked early")
    await sent(signed_in, "action-items", title="Add an alert", phase="detection", priority="1", owner="cathy")
    await sent(signed_in, "publish")
    assert (await rest(client))["state"] == "published"
    refused = await sent(signed_in, "close", status=409)
    assert "AI-1 is neither done nor dropped" in text_of(refused)
    await send(client, "PATCH", f"{ITEMS}/AI-1", state="done")
    page = await seen(signed_in)
    assert "Did what was done help?" in text_of(page)
    judged = await submit(signed_in, "/action-items/AI-1/effect", review="REV-1", effective="yes")
    assert judged.headers["location"] == "/reviews/REV-1#follow-up"
    await sent(signed_in, "close")
    states = []
    for _ in range(3):
        await sent(signed_in, "reopen")
        states.append((await rest(client))["state"])
    assert states == ["published", "held", "draft"]
    await sent(signed_in, "drop", because="Covered by REV-2")
    assert "Dropped: Covered by REV-2" in text_of(await seen(signed_in))
    assert (await rest(client))["dropped_because"] == "Covered by REV-2"


async def test_a_scheduled_meeting_can_be_put_into_a_calendar(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await new_review(client)
    assert "for your calendar" not in text_of(await seen(signed_in))
    await seen(signed_in, "/reviews/REV-1/meeting.ics", 404)
    await send(client, "PATCH", f"{REVIEWS}/REV-1", scheduled_at=clock("11:00"))
    assert 'href="/reviews/REV-1/meeting.ics" download="REV-1.ics"' in (await seen(signed_in)).text
    event = await seen(signed_in, "/reviews/REV-1/meeting.ics")
    assert event.text == (await client.get(f"{REVIEWS}/REV-1/meeting.ics")).text
    assert "DTSTART:20260820T110000Z" in event.text


async def test_findings_are_added_changed_and_removed(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await new_review(client)
    page = await seen(signed_in, "/reviews/REV-1?prompt=know_sooner")
    assert 'name="prompt" value="know_sooner"' in page.text
    assert '<option value="detection" selected>' in page.text
    fields: dict[str, Any] = {"kind": "factor", "phase": "detection", "element": "process", "prompt": "know_sooner"}
    await sent(signed_in, "findings", **fields, text="Nobody watched it", factor="capacity", new_to="4")
    [found] = (await rest(client))["findings"]
    assert {name: found[name] for name in ("text", "factor", "new_to", "by", *fields)} == fields | {
        "text": "Nobody watched it",
        "factor": "capacity",
        "new_to": 4,
        "by": "ada",
    }
    address = f"/reviews/REV-1?finding={found['id']}"
    assert "Nobody watched it</textarea>" in (await seen(signed_in, address)).text
    action = f"findings/{found['id']}"
    await sent(signed_in, action, kind="learning", text="The volume fills in nine days", prompt="know_sooner")
    [found] = (await rest(client))["findings"]
    assert (found["kind"], found["factor"], found["phase"], found["new_to"]) == ("learning", None, None, None)
    await sent(signed_in, "findings", kind="parked", text="Rewrite everything")
    text = text_of(await seen(signed_in))
    assert "Parking lot for later Rewrite everything parked idea · ada" in text
    follows = await seen(signed_in, f"/reviews/REV-1?from={found['id']}")
    assert f'<option value="{found["id"]}" selected>' in follows.text
    await sent(signed_in, "action-items", title="Watch it", phase="detection", finding=found["id"])
    assert (await rest(client, "action-items/AI-1"))["finding"] == found["id"]
    assert "The volume fills in nine days ada · AI-1" in text_of(await seen(signed_in))
    await sent(signed_in, f"{action}/remove")
    assert [one["text"] for one in (await rest(client))["findings"]] == ["Rewrite everything"]


async def test_a_finding_is_about_an_entry_of_the_timeline(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, resolved("10:00", "10:30"), resolved("12:00", "12:30", service="search"))
    task = {"text": "Restarted the queue", "at": clock("10:05"), "by": "ada"}
    entry = (await send(client, "POST", "/api/v1/incidents/INC-1/tasks", 201, **task))["id"]
    other = (await send(client, "POST", "/api/v1/incidents/INC-2/timeline", 201, note="elsewhere"))["id"]
    await new_review(client, incidents=["INC-1"])
    page = await seen(signed_in)
    assert f'<option value="{entry}">20 Aug 10:05 task: Restarted the queue</option>' in page.text
    assert "elsewhere" not in page.text
    await sent(signed_in, "findings", kind="learning", text="t", timeline_entry=str(entry))
    refused = await sent(signed_in, "findings", kind="learning", text="u", timeline_entry=str(other), status=422)
    assert "choose an entry in the timeline of one of the incidents" in text_of(refused).lower()
    [found] = (await rest(client))["findings"]
    assert found["timeline_entry"] == entry
    await send(client, "POST", f"/api/v1/incidents/INC-1/timeline/{entry}/correct", note="Restarted two queues")
    page = await seen(signed_in)
    about = 'about <a href="/incidents/INC-1#timeline"><bdi>20 Aug 10:05 task: Restarted two queues</bdi></a>'
    assert about in page.text
    changing = await seen(signed_in, f"/reviews/REV-1?finding={found['id']}")
    assert f'<option value="{entry}" selected>20 Aug 10:05 task: Restarted two queues</option>' in changing.text
    await send(client, "PATCH", f"{REVIEWS}/REV-1", incidents=["INC-2"])
    action = f"findings/{found['id']}"
    await sent(signed_in, action, kind="learning", text="v", timeline_entry=str(entry))
    [found] = (await rest(client))["findings"]
    assert (found["text"], found["timeline_entry"]) == ("v", entry), "it stays when its incident has left the review"
    await sent(signed_in, action, kind="learning", text="v", timeline_entry="")
    assert (await rest(client))["findings"][0]["timeline_entry"] is None


async def test_a_new_word_for_a_factor_is_added_to_the_list(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await new_review(client)
    refused = await sent(
        signed_in, "findings", status=422, kind="factor", text="It was hot", new_factor="heat wave", element=""
    )
    assert "Choose the element to which the new factor belongs" in text_of(refused)
    assert 'name="new_factor" value="heat wave"' in refused.text
    await sent(signed_in, "findings", kind="factor", text="It was hot", new_factor="heat wave", element="technology")
    assert (await rest(client))["findings"][0]["factor"] == "heat wave"
    # A word that exists keeps its element.
    await sent(signed_in, "findings", kind="factor", text="Again", new_factor="heat wave", element="people")
    factors = {one["name"]: one for one in (await rest(client, "factors?limit=500"))["items"]}
    assert (factors["heat wave"]["element"], factors["heat wave"]["findings"]) == ("technology", 2)
    assert '<option value="heat wave">' in (await seen(signed_in)).text
    refused = await sent(signed_in, "findings", status=422, kind="learning", text="t", factor="capacity")
    assert "A contributing factor needs a factor, and other kinds of findings must not have one" in text_of(refused)


def test_every_phrase_that_pages_replace_is_still_one_of_rest() -> None:
    texts = [
        node.value
        for path in (REPOSITORY / "app").rglob("*.py")
        if "pages" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [rest for rest, _ in _WORDS if not any(rest in text for text in texts)] == []


async def test_advice_on_wording_stands_beside_the_text_and_prevents_nothing(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, signed_in_as: SignedInAs
) -> None:
    await new_review(client)
    accepted = await sent(signed_in, "findings", kind="learning", text="We should have known. Human error!")
    page = await signed_in.get(accepted.headers["location"])
    assert re.findall("<mark>([^<]+)</mark>", page.text) == [
        *("should have", "Human error"),  # in the text
        *("should have", "Human error"),  # in the advice
    ]
    [found] = (await rest(client))["findings"]
    text = text_of(page)
    for each in found["wording"]:
        assert f"{each['why']}. Ask instead: {each['instead']}" in text
    await sent(signed_in, "texts", version=await version(client), summary="The root cause was a typo")
    text = text_of(await seen(signed_in))
    assert "Wording root cause Several factors contributed" in text
    reader = await signed_in_as(Scope.READ)
    assert "Ask instead" not in text_of(await seen(reader))


def test_pieces_are_the_whole_text_and_advice_comes_once_a_kind() -> None:
    text = "We should have asked; they could have known. Careless: human error."
    marks = wording_of(text)
    found = pieces(text, marks)
    assert "".join(piece.text for piece in found) == text
    assert [piece.text for piece in found if piece.marked] == ["should have", "could have", "Careless", "human error"]
    assert [list(each.words) for each in advice(text, marks)] == [
        ["should have", "could have"],
        ["Careless", "human error"],
    ]


async def test_a_form_that_is_refused_says_why_and_keeps_what_was_entered(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await new_review(client, participants=[{"person": "ada", "part": "support"}])
    old = await version(client)
    await send(client, "PATCH", f"{REVIEWS}/REV-1", title="Changed by somebody else")
    refused = await sent(signed_in, "texts", status=412, version=old, summary="My long summary")
    assert "Someone changed this in the meantime" in text_of(refused)
    assert "My long summary</textarea>" in refused.text
    for action, status, fields, words_of in (
        ("hold", 409, {"facilitator": ""}, "facilitator is not named"),
        ("hold", 422, {"facilitator": "grace", "minutes": "0"}, "whole minutes from 1 to 1440"),
        ("hold", 422, {"facilitator": "grace", "held_at": "2199-01-01T00:00"}, "future"),
        ("hold", 422, {"facilitator": "grace", "nobody": "yes"}, "but not both"),
        ("plan", 422, {"version": await version(client), "title": "t", "begins_at": "2026-08-20T09:00"}, "both its"),
        ("plan", 422, {"version": "", "title": "t"}, "which version it changes"),
        ("incidents", 422, {"incidents": "REV-1"}, "for example INC-7"),
        ("incidents", 404, {"incidents": "INC-99"}, "no incident"),
        ("participants", 422, {"person": "", "part": "support"}, "person: enter a value"),
        ("participants", 422, {"person": "eve", "part": "culprit"}, "part: choose"),
        ("findings", 422, {"kind": "learning", "text": " "}, "text: enter a value"),
        ("findings", 422, {"kind": "learning", "text": "t", "new_to": "-1"}, "new to: enter a number of at least 0"),
        ("action-items", 422, {"title": "Add it", "phase": "response", "link": "javascript:alert(1)"}, "link: "),
        ("action-items", 422, {"title": "Add it", "phase": "response", "finding": "1"}, "choose one of the list"),
        ("publish", 409, {}, "requires a review that is held"),
        ("drop", 422, {"because": ""}, "because: enter a value"),
    ):
        refused = await sent(signed_in, action, status=status, **fields)
        alert = re.search(r'(?s)role="alert">(.*?)</p>', refused.text)
        assert alert is not None
        assert words_of.lower() in html.unescape(alert[1]).lower(), action
        assert "`" not in alert[1]
    assert (
        'name="title" value="Add it"'
        in (await sent(signed_in, "action-items", status=422, title="Add it", phase="response", priority="9")).text
    )
    assert (await rest(client))["state"] == "draft"


async def test_only_an_admin_drops_a_required_review(
    client: httpx.AsyncClient, signed_in_as: SignedInAs, context: Context
) -> None:
    await deliver(client, resolved("10:00", "10:30", severity="sev2"))
    assert await draft(context) == 1
    writer = await signed_in_as(Scope.WRITE)
    assert "/drop" not in (await seen(writer)).text
    refused = await sent(writer, "drop", status=403, because="No time")
    assert "only someone who has signed in with an admin token can drop it" in text_of(refused)


async def test_a_scope_that_only_reads_sees_no_form_and_can_send_none(
    client: httpx.AsyncClient, signed_in_as: SignedInAs
) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    await published(client)
    await new_item(client)
    reader = await signed_in_as(Scope.READ)
    for address in ("/reviews/REV-1", "/reviews", "/action-items", "/action-items/AI-1", "/reviews/REV-1/report"):
        main = (await seen(reader, address)).text.partition("<main")[2].partition("</main>")[0]
        assert 'method="post"' not in main
        assert "/reviews/new" not in main
    await seen(reader, "/reviews/new", 403)
    await sent(reader, "findings", status=403, kind="learning", text="t")
    assert (await submit(reader, "/reviews", title="t")).status_code == 403
    assert len((await rest(client))["findings"]) == 1


async def test_hostile_text_stays_text(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00", service=HOSTILE))
    person = HOSTILE[:200]
    await new_review(
        client,
        title=HOSTILE[:200],
        incidents=["INC-1"],
        facilitator=person,
        participants=[{"person": person, "part": "support"}],
        **dict.fromkeys(("summary", "customer_impact", "resolution"), HOSTILE),
    )
    await client.put("/api/v1/factors/%3Cb%3E", json={"element": "people"})
    found = await find(client, kind="factor", factor="<b>", text=f"should have {HOSTILE}")
    await new_item(client, title=HOSTILE[:200], done_when=HOSTILE, owner=person, finding=found["id"], priority=1)
    for address in (
        *("/reviews/REV-1", f"/reviews/REV-1?finding={found['id']}", f"/reviews/REV-1?from={found['id']}"),
        *("/reviews", "/action-items", "/action-items/AI-1", "/incidents/INC-1"),
        *("/reviews/REV-1/report", "/reviews/REV-1/report?outline=postmortem", "/reviews/REV-1/report.html"),
    ):
        page = (await seen(signed_in, address)).text
        assert "<script>alert" not in page
        assert "<b x=" not in page
        assert "49" not in re.sub(r"[\w-]*49[\w-]*-[\w-]+", "", page).partition("exe.png")[2][:40]
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", page), address
        assert not re.search(r"<[^>]*\s(on\w+|style)=", page) or address.endswith(".html")


# — the report —


async def test_the_report_is_that_of_rest_in_both_outlines(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    await act(client, "tasks", status=201, text="cathy restarted it", at=clock("10:05"), by="cathy", effect="positive")
    await new_review(client, incidents=["INC-1"], facilitator="grace", summary="It was down")
    await find(client, text="What cathy saw")
    await new_item(client, owner="cathy", link="https://github.com/acme/web/issues/7")

    def texts(sections: list[dict[str, Any]]) -> list[str]:
        found = []
        for section in sections:
            found.append(section["title"])
            for block in section["blocks"]:
                found += [block["text"]] if block["kind"] == "paragraph" else []
                found += block["items"] or [] if block["kind"] == "bullets" else []
                found += [cell for row in block["rows"] or [] for cell in row] if block["kind"] == "table" else []
            found += texts(section["sections"])
        return [text for text in found if text]

    for outline in ("guide", "postmortem"):
        for people in ("named", "roles"):
            query = f"outline={outline}&people={people}"
            page = await seen(signed_in, f"/reviews/REV-1/report?{query}")
            answer = await rest(client, f"reviews/REV-1/report?{query}")
            shown, at = text_of(page), 0
            for text in texts(answer["sections"]):
                at = shown.index(text, at)
            assert ("cathy" in shown) == (people == "named")
            assert page.text.count("<svg xmlns") == 1
            for form in ("md", "html", "json"):
                download = await seen(signed_in, f"/reviews/REV-1/report.{form}?{query}")
                path = f"/api/v1/reviews/REV-1/report{'' if form == 'json' else '.' + form}?{query}"
                same = await client.get(path)
                assert download.text == same.text or download.json() == same.json()
                assert download.headers["content-type"] == same.headers["content-type"]
    assert 'href="https://github.com/acme/web/issues/7"' in page.text
    await seen(signed_in, "/reviews/REV-1/report.pdf", 404)
    await seen(signed_in, "/reviews/REV-9/report", 404)
    await seen(signed_in, "/reviews/REV-1/report?outline=none", 422)


# — statements —


async def test_the_number_of_statements_does_not_grow(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context
) -> None:
    addresses = ("/reviews", "/reviews/REV-1", "/reviews/REV-1/report", "/action-items", "/incidents/INC-1")

    async def statements() -> list[int]:
        taken = []
        for address in addresses:
            with counted(context.engine) as found:
                await seen(signed_in, address)
            taken.append(len(found))
        return taken

    await deliver(client, resolved("10:00", "10:30"))
    await new_review(client, incidents=["INC-1"], participants=[{"person": "ada", "part": "support"}])
    await find(client, text="t")
    await new_item(client)
    few = await statements()
    await deliver(client, *(resolved("12:00", "12:30", service=f"s{number}") for number in range(20)))
    many = [{"person": f"p{number}", "part": "curious"} for number in range(30)]
    incidents = [f"INC-{number}" for number in range(1, 21)]
    await send(client, "PATCH", f"{REVIEWS}/REV-1", incidents=incidents, participants=many)
    for number in range(20):
        await find(client, text=f"t{number}")
        await new_item(client, priority=number % 3 + 1, owner=f"o{number}")
        await new_review(client, incidents=incidents[:5])
    assert await statements() == few
    assert max(few) <= 20
