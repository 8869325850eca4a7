"""The report of a review: complete in both outlines, safe with any text, and with people by name or by role."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.access.tokens import Scope
from app.base.text.markdown import escaped
from app.incidents.history.details import DETAILS, detail_in
from app.incidents.history.path import Effect, Phase, PlaybookVersion, Task, path_of
from app.incidents.measures.measures import Facts
from app.reviews.lifecycle import Element, FindingKind, Part, ReviewState
from app.reviews.report.entries import entry_of, task_words
from app.reviews.report.facts import ActionItem, Entry, Finding, Incident, Participant, ReportFacts, by_role, replacing
from app.reviews.report.html import html
from app.reviews.report.markdown import markdown
from app.reviews.report.outline import NOTHING, Outline, report
from app.reviews.report.questions import questions
from app.reviews.store import report as store
from tests.conftest import ClientAs
from tests.incidents.test_api import act, clock, deliver, resolved
from tests.reviews.test_reviews import REVIEWS, new_review, step

AT = datetime(2026, 8, 20, 16, 5, tzinfo=UTC)
END = AT + timedelta(minutes=15)


def an_incident(text: str = "restarted it", by: str = "cathy") -> Incident:
    tasks = [Task(1, AT, Effect.POSITIVE, by=by, text=text), Task(2, END, Effect.NONE, by=by, text=text)]
    entries = [Entry(AT, "note", by, text, Phase.RESPONSE)]
    return Incident(
        "INC-1", text, "web", "sev2", AT, None, END, {"time_to_recover": 900.0},
        {"detection": "impact start not stated"}, 900.0,
        {"EUR": ("1.00", "2.00", "3.00")}, path_of(Facts(AT, "web", 2, END), tasks, now=END), entries,
    )  # fmt: skip


def facts_of(
    findings: list[Finding], items: list[ActionItem], *, text: str = "s", people: tuple[str, ...] = ("grace",)
) -> ReportFacts:
    return ReportFacts(
        "REV-1", text, "held", None, None, AT, 1800, None, END, people[0],
        [Participant(one, Part.COMMANDER, True) for one in people], text, text, text, text,
        [an_incident(text, people[0])], findings, items,
    )  # fmt: skip


def an_item(number: int, title: str, term: str = "short") -> ActionItem:
    return ActionItem(f"AI-{number}", title, None, term, 1, "cathy", AT, "open", None, None)


every_finding = st.builds(
    lambda kind, phase, element: (kind, phase, element),
    st.sampled_from(FindingKind),
    st.none() | st.sampled_from(Phase),
    st.none() | st.sampled_from(Element),
)


@pytest.mark.parametrize("outline", Outline)
@given(found=st.lists(every_finding, max_size=12), terms=st.lists(st.sampled_from(("short", "long")), max_size=5))
def test_each_outline_has_every_finding_and_item_once(
    outline: Outline, found: list[tuple[FindingKind, Phase | None, Element | None]], terms: list[str]
) -> None:
    findings = [
        Finding(kind, f"finding{number}x", phase, element, "capacity" if kind is FindingKind.FACTOR else None)
        for number, (kind, phase, element) in enumerate(found)
    ]
    items = [an_item(number, f"item{number}x", term) for number, term in enumerate(terms)]
    made = report(facts_of(findings, items), outline)
    for text in (markdown(made), html(made)):
        for word in [*(f"finding{n}x" for n in range(len(found))), *(f"item{n}x" for n in range(len(terms)))]:
            assert text.count(word) == 1


@pytest.mark.parametrize("outline", Outline)
def test_a_section_without_anything_says_so(outline: Outline) -> None:
    empty = ReportFacts(
        "REV-1", "t", "draft", None, None, None, None, None, None, None, [], "", "", "", None, [], [], []
    )
    made = report(empty, outline)
    for section in made.sections:
        assert NOTHING in markdown(type(made)("t", [], [section])) or section.title.startswith(("Before", "Goal", "6."))
    assert "root cause" not in markdown(made).lower()


# — hostile texts —

HOSTILE = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](data:text/html,x)",
    '"><img src=x onerror=alert(1)>',
    "# heading\n## another\n---\n- list",
    "| a | b |",
    "&lt;b&gt;",
    "1. first",
]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("outline", Outline)
def test_texts_cannot_add_anything_to_a_report(outline: Outline, text: str) -> None:
    findings = [Finding(kind, text, None, None, text) for kind in FindingKind]
    hostile = report(facts_of(findings, [an_item(1, text)], text=text, people=(text,)), outline)
    plain = report(facts_of(
        [Finding(kind, "x", None, None, "x") for kind in FindingKind], [an_item(1, "x")], text="x", people=("x",)
    ), outline)  # fmt: skip

    def tags(of: str) -> list[str]:
        parser = Tags()
        parser.feed(of)
        assert not any(name.startswith("on") for _, attributes in parser.found for name in attributes)
        return [tag for tag, _ in parser.found]

    assert tags(html(hostile)) == tags(html(plain))

    def structure(of: str) -> list[str]:
        return [re.match(r"(#+ |- |\| |)", line)[0] for line in of.splitlines()]  # type: ignore[index]

    assert structure(markdown(hostile)) == structure(markdown(plain))
    assert "<" not in markdown(hostile)


def test_links_are_links_only_to_web_pages() -> None:
    safe = ActionItem("AI-1", "t", None, "short", 1, "a", AT, "open", "https://example.org/1?a=1&b=2", None)
    for link, linked in ((safe.link, True), ("javascript:alert(1)", False), ("https://a b", False)):
        item = ActionItem("AI-1", "t", None, "short", 1, "a", AT, "open", link, None)
        assert ("<a href=" in html(report(facts_of([], [item]), Outline.GUIDE))) is linked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-08-20", "2026-08-20"),
        ("1. first", "1\\. first"),
        ("2) second", "2\\) second"),
        ("- list", "\\- list"),
        ("# heading", "\\# heading"),
        ("a - b", "a - b"),
    ],
)
def test_only_what_would_be_markup_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(st.text(max_size=200))
def test_escaped_text_stays_on_one_line(text: str) -> None:
    assert len(escaped(text).splitlines()) <= 1


# — people —


def test_people_are_called_by_what_they_did() -> None:
    facts = facts_of([Finding(FindingKind.LEARNING, "grace and Graceland", None, None, None)], [an_item(1, "t")])
    made = markdown(report(by_role(facts), Outline.GUIDE))
    assert "the commander and Graceland" in made
    assert "grace" not in made
    assert "cathy" not in made
    assert "the owner" in made


def test_a_name_that_is_part_of_another_is_replaced_once() -> None:
    facts = facts_of([Finding(FindingKind.LEARNING, "ann lee, ann", None, None, None)], [], people=("ann", "ann lee"))
    assert "ann" not in markdown(report(by_role(facts), Outline.GUIDE)).replace("commander", "")


names = st.lists(st.text("ab -.é", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


@given(names, st.text("ab -.é", max_size=30))
def test_the_longest_name_at_each_place_is_replaced(names: list[str], text: str) -> None:
    """As by a regular expression, which would take time for each name at each place."""
    longest_first = sorted(names, key=len, reverse=True)
    pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")
    words = {name: f"[{number}]" for number, name in enumerate(names)}
    assert replacing(words)(text) == pattern.sub(lambda found: words[found[1]], text)


# — entries —


@pytest.mark.parametrize(
    ("kind", "detail", "words"),
    [
        ("joined", {"person": "ada", "how": "asked", "channel": "phone"}, "ada was asked to help; by phone; n"),
        ("joined", {"person": "ada", "how": "came", "channel": None}, "ada came; n"),
        ("role", {"role": "first_aid", "person": "ada", "holds": True}, "ada took the role first aid; n"),
        ("role", {"role": "scribe", "person": "ada", "holds": False}, "ada laid down the role scribe; n"),
        (
            "update",
            {"audience": "stakeholders", "status": "identified", "conditions": "1 of 3 is up", "next_at": None},
            "to stakeholders: identified; conditions: 1 of 3 is up; n",
        ),
        ("criterion", {"criterion": "Users can pay", "met": False}, "not met: Users can pay; n"),
        ("room", {"channel": "Bridge", "why": "Slack is down"}, "Bridge; because: Slack is down; n"),
        ("impact", {"customers": 0, "support_requests": 50, "share": "0.25", "what": "Log in"},
         "0 customers; 50 support requests; share of all customers: 0.25; not possible: Log in; n"),
        ("evidence", {"link": "https://example.org/", "title": "Errors", "query": "rate(e[5m])"},
         "Errors; query: rate(e[5m]); https://example.org/; n"),
        ("said", {"room": "#inc-7"}, "in #inc-7; n"),
        ("acknowledged", {"via": "api"}, "n"),
        ("note", None, "n"),
    ],
)  # fmt: skip
def test_an_entry_says_what_its_kind_has(kind: str, detail: dict[str, Any] | None, words: str) -> None:
    found = entry_of(AT, kind, "ben", "n", detail, None)
    assert (found.text, found.people) == (words, ("ada",) if "ada" in words else ())


def test_the_details_of_every_kind_have_words() -> None:
    for kind, model in DETAILS.items():
        fields: dict[str, Any] = {"person": "ada", "role": "scribe", "status": "identified", "criterion": "c"}
        fields |= {"channel": "b", "what": "w", "link": "https://example.org/", "room": "r"}
        kept = {name: value for name, value in fields.items() if name in model.model_fields}
        assert entry_of(AT, kind, None, None, detail_in(kind, model.model_validate(kept)), None).text


def test_a_task_says_what_was_typed_and_followed() -> None:
    task = Task(1, AT, Effect.NONE, text="t", command="top", playbook=PlaybookVersion("web", "restart", 3))
    assert task_words(task) == "t; command: top; playbook: restart v3 of web"
    assert task_words(Task(1, AT, Effect.NONE, text="t")) == "t"


def test_people_whom_only_a_detail_names_are_called_by_what_they_did() -> None:
    joined = entry_of(
        AT, "joined", "ben", "mallory knows it", {"person": "mallory", "how": "asked", "channel": None}, None
    )
    facts = replace(facts_of([], []), incidents=[replace(an_incident(), entries=[joined])])
    made = markdown(report(by_role(facts), Outline.GUIDE))
    assert "a responder was asked to help; a responder knows it" in made
    assert "mallory" not in made


# — the preview —


def test_what_the_facts_leave_open_is_asked() -> None:
    ended = Facts(AT, "web", 2, END)
    known = Facts(AT, "web", 2, END, impact_started_at=AT, acknowledged_at=AT, identified_at=AT)
    unclear = [Task(1, AT, Effect.UNKNOWN), Task(2, AT, Effect.UNKNOWN), Task(3, AT, Effect.NEGATIVE)]
    for facts, tasks, asked in (
        (ended, [], ["When were users", "No one acknowledged", "When was it clear", "No tasks are recorded"]),
        (known, unclear, ["The effect of 2 tasks is not known", "One task moved it away from recovery"]),
        (known, unclear[2:], ["One task moved it away"]),
        (known, [Task(1, AT, Effect.POSITIVE)], []),
    ):
        path = path_of(facts, tasks, now=END)
        one = replace(an_incident(), path=path, impact_started_at=facts.impact_started_at, resolved_at=END)
        found = questions(replace(facts_of([], []), incidents=[one]))
        assert len(found) == len(asked)
        assert all(text.startswith(f"INC-1: {begin}") for text, begin in zip(found, asked, strict=True))


@pytest.mark.parametrize("outline", Outline)
def test_only_the_report_of_a_draft_is_a_preview(outline: Outline) -> None:
    for state in ReviewState:
        made = report(replace(facts_of([], []), state=state), outline)
        assert (made.sections[0].title == "Before the meeting") is (state is ReviewState.DRAFT)


# — over HTTP —


async def test_a_report_is_data_or_a_page_that_loads_nothing(client: httpx.AsyncClient) -> None:
    """tests/test_chapter_six.py has the reports of a whole story."""
    await deliver(client, resolved("16:05", "16:20"))
    await act(client, "tasks", status=201, text="Restarted it", at=clock("16:18"), effect="positive", by="cathy")
    await new_review(client, incidents=["INC-1"], facilitator="grace", summary="s")
    page = await client.get(f"{REVIEWS}/REV-1/report.html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    data: dict[str, Any] = (await client.get(f"{REVIEWS}/REV-1/report")).json()
    [path] = [block for section in data["sections"] for block in section["blocks"] if block["kind"] == "path"]
    assert [(point["at"], point["level"]) for point in path["points"]] == [
        (clock("16:05"), 0), (clock("16:18"), -1), (clock("16:20"), -1),
    ]  # fmt: skip


async def test_readers_read_the_preview_of_a_draft_and_sources_do_not(
    client: httpx.AsyncClient, client_as: ClientAs
) -> None:
    await deliver(client, resolved("16:05", "16:20", severity="sev2"))
    await new_review(client, incidents=["INC-1"], facilitator="grace", summary="s")
    place = f"{REVIEWS}/REV-1/report.md"
    assert (await (await client_as(Scope.INGEST)).get(place)).status_code == 403
    assert (await (await client_as(None)).get(place)).status_code == 401
    reader = await client_as(Scope.READ)
    shown = (await reader.get(place)).text
    assert shown.index("## Before the meeting") < shown.index("INC-1: When were users first affected?")
    await step(client, "hold", held_at=clock("17:00"))
    assert "Before the meeting" not in (await reader.get(place)).text


async def test_a_report_of_long_timelines_is_bounded_and_says_so(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each incident has its earliest entries."""
    monkeypatch.setattr(store, "ENTRIES_BYTES", 9000)
    await deliver(client, resolved("16:05", "16:20"), resolved("16:05", "16:20", service="mail"))
    await new_review(client, incidents=["INC-1", "INC-2"])
    for number in range(6):
        for incident in (1, 2):
            await act(client, "timeline", number=incident, status=201, note=f"n{number} " + "x" * 1000)
    page = (await client.get(f"{REVIEWS}/REV-1/report.md")).text
    assert [page.count(f"n{number} ") for number in range(6)] == [2, 2, 2, 2, 0, 0]
    assert page.count("Later entries are left out here: 2. The timeline has them.") == 2
    monkeypatch.setattr(store, "ENTRIES_BYTES", 4 * 2**20)
    assert "left out" not in (await client.get(f"{REVIEWS}/REV-1/report.md")).text


async def test_a_report_needs_its_review_and_a_known_outline(client: httpx.AsyncClient) -> None:
    await new_review(client)
    assert (await client.get(f"{REVIEWS}/REV-2/report.md")).status_code == 404
    assert (await client.get(f"{REVIEWS}/REV-1/report.md", params={"outline": "x"})).status_code == 422
    assert "No incident belongs" in (await client.get(f"{REVIEWS}/REV-1/report.md")).text
