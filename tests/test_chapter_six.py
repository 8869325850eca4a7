"""The outage in chapter 6 of "Post-Incident Reviews", from the first report of a user to the published review.

Its facts are in app/demo/chapter_six.py, from which the demo plays the same story. What follows from them is here.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import escape, unescape
from typing import Any

import httpx

from app.base.http.context import Context
from app.base.text.markdown import escaped
from app.demo.chapter_six import the_outage, the_review
from app.demo.facts import Incident
from app.demo.player import Player
from app.demo.presence import Access
from app.reviews.report.outline import Outline
from app.reviews.store.required import Requirements
from tests.conftest import ADMIN_TOKEN

FOUR = datetime(2026, 8, 20, 16, tzinfo=UTC)
SAID = (  # in both reports
    "0:20:00",
    "acme login",
    "cathy was asked to help; by chat",
    "phone; because: Greg was not in the chat",
    "gary took the role communications",
    "to stakeholders: investigating; Nobody can sign in",
    "50 support requests",
    "command: kill 4711",
)
EFFECTS = ["none", "none", "positive", "none", "none", "positive", "positive"]


async def test_the_outage_of_chapter_6_from_the_first_report_to_the_published_review(
    client: httpx.AsyncClient, context: Context
) -> None:
    outage, player = the_outage(FOUR), Player(client, Access(ADMIN_TOKEN, {}))

    # Four o'clock: nobody can sign in. Five minutes later support hears of it from users, and declares an incident.
    number = await player.open(outage)
    # An engineer looks for the server, for the cause and for a colleague, who repairs it at twenty past.
    await player.complete(replace(outage, review=None), number)

    # It was a sev2, so the service has drafted its review an hour later, with everyone who was there.
    assert await context.part(Requirements).draft(context.engine, now=FOUR + timedelta(hours=1)) == 1
    [draft] = (await get(client, "/api/v1/reviews"))["items"]
    assert (draft["incidents"], draft["required_because"], draft["due_at"]) == (
        [number], ["severity"], iso(FOUR + timedelta(minutes=20, days=4)),  # 48 hours from Monday to Friday
    )  # fmt: skip
    invited = (await get(client, f"/api/v1/reviews/{draft['number']}"))["participants"]
    assert {one["person"]: one["part"] for one in invited} == {
        "cathy": "first_responder", "gary": "communications", "greg": "escalation",
    }  # fmt: skip

    # At ten the next morning they meet for half an hour, learn nine things, and take on nine action items.
    await player.review(the_review(FOUR), number, draft["number"])
    await assert_recorded(client, number, draft["number"], outage)


def test_the_story_is_that_of_the_book_and_people_act_in_order() -> None:
    outage, review = the_outage(FOUR), the_review(FOUR)
    times = [action.at for action in outage.actions]
    assert times == sorted(times)
    assert [action.detail["effect"] for action in outage.actions if action.kind == "task"] == EFFECTS
    learnings = [place for place, one in enumerate(review.findings, start=1) if one.kind == "learning"]
    assert len(learnings) == len(review.action_items) == 9
    assert {item.finding for item in review.action_items} <= set(learnings)


async def assert_recorded(client: httpx.AsyncClient, number: str, review: str, outage: Incident) -> None:
    """Everything that follows from the story, however it was entered."""
    assert outage.declaration is not None
    four = outage.declaration.impact_started_at
    await assert_numbers(client, number)
    await assert_path(client, number, four)
    await assert_response(client, number, four)
    await assert_review(client, review, outage)
    await assert_reports(client, review, outage)


async def assert_numbers(client: httpx.AsyncClient, number: str) -> None:
    shown = await get(client, f"/api/v1/incidents/{number}")
    assert (shown["severity"], shown["title"]) == ("sev2", "Nobody can sign in")
    measured = {name: measure["seconds"] for name, measure in shown["measures"].items()}
    assert (measured["time_to_acknowledge"], measured["time_to_recover"]) == (60, 1200)
    assert (measured["detection"], measured["response"], measured["remediation"]) == (300, 720, 180)
    assert measured["analysis"] == timedelta(hours=17, minutes=40).total_seconds()
    assert shown["measures"]["readiness"]["status"] == "pending", "seven action items are open"


async def assert_path(client: httpx.AsyncClient, number: str, four: datetime) -> None:
    """Figure 10-1 of the book, as data."""
    path = await get(client, f"/api/v1/incidents/{number}/path")
    assert [phase["seconds"] for phase in path["phases"]][:3] == [300, 720, 180]
    assert [(minutes(point["at"], four), point["level"]) for point in path["path"]] == [
        (5, 0), (6, 0), (11, 0), (12, -1), (15, -1), (16, -1), (17, -2), (18, -3), (20, -3),
    ]  # fmt: skip
    assert [task["effect"] for task in path["tasks"]] == EFFECTS
    assert path["counts"] == {"positive": 3, "negative": 0, "none": 4, "unknown": 0}
    assert path["seconds_without_positive_effect"] == 420
    silence = path["longest_silence"]
    assert (minutes(silence["begins_at"], four), silence["seconds"]) == (7, 240)
    assert [task["command"] for task in path["tasks"]] == [
        None, None, "top", None, None, "kill 4711", "systemctl stop web && systemctl start web",
    ]  # fmt: skip


async def assert_response(client: httpx.AsyncClient, number: str, four: datetime) -> None:
    shown = await get(client, f"/api/v1/incidents/{number}/response")
    assert [(one["person"], one["how"], minutes(one["first_seen_at"], four)) for one in shown["people"]] == [
        ("gary", "alerted", 5), ("cathy", "asked", 6), ("greg", "asked", 15),
    ]  # fmt: skip
    assert (shown["first_alerted"], shown["first_responder"], shown["room"]) == ("gary", "cathy", "phone")
    assert [(one["role"], one["people"]) for one in shown["roles"]] == [("communications", ["gary"])]
    assert (shown["impact"]["what"], shown["impact"]["support_requests"]) == ("Sign in", 50)
    outcomes = {what: shown["targets"][what] for what in ("acknowledge", "update")}
    assert [(one["outcome"], one["seconds"]) for one in outcomes.values()] == [("met", 60), ("met", 660)]
    # Teams disagree about what an incident is. By one definition it lasts for more than an hour, so this was none.
    assert (shown["definition"]["met"], shown["definition"]["beyond_an_hour"]) == ("not_met", False)
    assert shown["definition"]["affects_customers"]
    evidence = (await get(client, f"/api/v1/incidents/{number}/timeline?kind=evidence"))["items"]
    assert [one["detail"]["query"] for one in evidence] == ["acme login"]


async def assert_review(client: httpx.AsyncClient, number: str, outage: Incident) -> None:
    review = outage.review
    assert review is not None
    shown = await get(client, f"/api/v1/reviews/{number}")
    assert (shown["state"], shown["required_because"][0]) == ("published", "severity")
    assert shown["person_seconds"] == 4 * 1800
    learnings = {one["id"]: one["text"] for one in shown["findings"] if one["kind"] == "learning"}
    assert list(learnings.values()) == [one.text for one in review.findings if one.kind == "learning"]
    assert [one["title"] for one in shown["action_items"]] == [item.title for item in review.action_items]
    assert [learnings[one["finding"]] for one in shown["action_items"]] == [
        review.findings[item.finding - 1].text for item in review.action_items
    ]
    assert all(one["owner"] and one["priority"] for one in shown["action_items"])
    assert [one["wording"] for one in shown["findings"]] == [[]] * len(review.findings), "nothing closes a conversation"
    assert shown["facilitator_involved_in"], "the person who led it had repaired the server"
    assert shown["missing_perspectives"] == ["management"], "managers only stood at the door"
    assert shown["learned"] == 23


async def assert_reports(client: httpx.AsyncClient, number: str, outage: Incident) -> None:
    """Both outlines have every finding and every action item once, in every form."""
    review = outage.review
    assert review is not None
    texts = [one.text for one in review.findings] + [item.title for item in review.action_items]
    assert len(texts) == len(set(texts))
    for outline in Outline:
        place, query = f"/api/v1/reviews/{number}/report", {"outline": outline}
        for form, written in ((".md", escaped), (".html", escape), ("", str)):
            made = await text_of(client, f"{place}{form}", query)
            assert {text: made.count(written(text)) for text in texts} == dict.fromkeys(texts, 1)
        page = unescape(await text_of(client, f"{place}.html", query))
        assert [said for said in SAID if said not in page] == []
        assert "root cause" not in page.lower()
        assert page.count("<svg") == 1, "the path to recovery"
        by_roles = await text_of(client, f"{place}.md", query | {"people": "roles"})
        assert not re.search(r"\b(cathy|greg|gary|bill|debby)\b", by_roles, re.IGNORECASE)


# — helpers —


async def get(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def text_of(client: httpx.AsyncClient, path: str, query: dict[str, Any]) -> str:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.text


def minutes(shown: str, four: datetime) -> float:
    return (datetime.fromisoformat(shown) - four) / timedelta(minutes=1)


def iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
