"""The report for customers, pure: what can reach it, its outlines, the check for leaks, comparisons."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from unicodedata import normalize
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.reviews.public_report.difference import LeftOut, left_out, sections_of, unified
from app.reviews.public_report.facts import PublicFacts, PublicText
from app.reviews.public_report.leaks import InternalWords, Leak, LeakKind, leaks
from app.reviews.public_report.outline import PublicOutline, public_report
from app.reviews.public_report.page import page
from app.reviews.report.markdown import markdown
from app.reviews.report.outline import Outline, report
from tests.reviews.test_report import HOSTILE, an_item, facts_of

AT = datetime(2026, 11, 30, 14, 5, tzinfo=UTC)
END = AT + timedelta(minutes=78)
ABOUT = UUID(int=7)
FIELDS = [one.name for one in fields(PublicText)]
LISTS = {"learnings", "countermeasures"}


def a_text(**more: object) -> PublicText:
    return PublicText.of({"title": "Card payments failed", "summary": "Some payments failed.", **more})


def facts(text: PublicText, ends_at: datetime | None = END) -> PublicFacts:
    return PublicFacts(text, ["Payments", "Website"], AT, ends_at)


def test_nothing_else_can_reach_a_public_report() -> None:
    """A new field is a decision: what is in it becomes public."""
    assert [one.name for one in fields(PublicFacts)] == ["text", "components", "begins_at", "ends_at"]
    assert [
        *("title", "summary", "severity", "customer_impact", "proximate_cause", "resolution", "learnings"),
        "countermeasures",
    ] == FIELDS


# — outlines —

words = st.text("abcdefgh", min_size=3, max_size=8)


@pytest.mark.parametrize("outline", PublicOutline)
@given(written=st.dictionaries(st.sampled_from(FIELDS), st.integers(1, 4)), is_over=st.booleans())
def test_each_outline_has_every_text_once(outline: PublicOutline, written: dict[str, int], is_over: bool) -> None:
    planted = {name: [f"{name}{n}zq" for n in range(count if name in LISTS else 1)] for name, count in written.items()}
    values = {name: each if name in LISTS else each[0] for name, each in planted.items()}
    made = public_report(
        facts(PublicText.of({"title": "t", "summary": "s"} | values), END if is_over else None), outline
    )
    for content in (markdown(made).replace("\\", ""), page(made, "Acme", ABOUT).decode()):
        once = 2 if content.startswith("<") else 1  # a page also has its title in its head
        for name, each in planted.items():
            assert [content.count(one) for one in each] == [once if name == "title" else 1 for _ in each]
        for component in ("Payments", "Website"):
            assert content.count(component) == 1
        plain = content.replace("\u00a0", " ")
        times = "1 hour 18 minutes (30 Nov 2026, 14:05 to 15:23 UTC)" if is_over else "since 30 Nov 2026, 14:05 UTC"
        assert times in plain


def test_the_full_outline_has_the_sections_of_chapter_10_and_leaves_out_empty_ones() -> None:
    full = a_text(severity="x", customer_impact="x", proximate_cause="x", resolution="x", countermeasures=["x"])
    assert [one.title for one in public_report(facts(full), PublicOutline.FULL).sections] == [
        "Summary",
        "Services impacted",
        "Duration",
        "Severity",
        "Customer impact",
        "Proximate cause",
        "Resolution",
        "Countermeasures",
    ]
    assert [one.title for one in public_report(facts(full), PublicOutline.SHORT).sections] == [
        "Summary",
        "What happened",
        "What we are doing about it",
    ]
    few = public_report(facts(a_text()), PublicOutline.FULL)
    assert [one.title for one in few.sections] == ["Summary", "Services impacted", "Duration"]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags_of(content: bytes) -> list[tuple[str, dict[str, str | None]]]:
    reader = Tags()
    reader.feed(content.decode())
    return reader.found


@pytest.mark.parametrize("hostile", [*HOSTILE, "https://evil.example/", "a\u202eexe.gnp\u2066\x07"])
@pytest.mark.parametrize("outline", PublicOutline)
def test_texts_cannot_add_anything_to_a_page(outline: PublicOutline, hostile: str) -> None:
    def made(text: str) -> bytes:
        values = {name: [text] if name in LISTS else text for name in FIELDS}
        return page(public_report(facts(PublicText.of(values)), outline), text, ABOUT)

    assert tags_of(made(hostile)) == tags_of(made("x"))
    assert not {"\u202e", "\u2066", "\x07"} & set(
        page(public_report(facts(a_text(summary=hostile)), outline), "A", ABOUT).decode()
    )
    addresses = [
        value for _, given in tags_of(made(hostile)) for name, value in given.items() if name in {"href", "src"}
    ]
    assert addresses == [
        "/status/style.css", "/status", "/status", f"/status/incidents/{ABOUT}", "/status/reports",
    ]  # fmt: skip


# — leaks —

KNOWN = InternalWords(
    people={"Ada Lovelace", "grace", "payments-team", "田中"},
    services={"checkout", "Payments"},
    sources={"prom-eu"},
    labels={"db-7", "critical", "eu"},
    components={"Payments"},
    site="https://status.acme.example",
)


@pytest.mark.parametrize(
    ("written", "kind", "found"),
    [
        ("Then ada lovelace restarted it", LeakKind.PERSON, "ada lovelace"),
        ("Then Ada restarted it", LeakKind.PERSON, "Ada"),
        ("Thanks, Grace!", LeakKind.PERSON, "Grace"),
        ("the payments-team was called", LeakKind.PERSON, "payments-team"),
        ("田中さんが直した", LeakKind.PERSON, "田中"),
        ("CHECKOUT was slow", LeakKind.SERVICE, "CHECKOUT"),
        ("che\u00adck\u200bout was slow", LeakKind.SERVICE, "checkout"),
        ("ｃｈｅｃｋｏｕｔ was slow", LeakKind.SERVICE, "checkout"),
        ("as prom-eu reported", LeakKind.SOURCE, "prom-eu"),
        ("on db-7", LeakKind.LABEL, "db-7"),
        ("write to ops@acme.example.", LeakKind.EMAIL, "ops@acme.example"),
        ("write to ops@internal", LeakKind.EMAIL, "ops@internal"),
        ("see https://wiki.acme.example/x?y=1.", LeakKind.URL, "https://wiki.acme.example/x?y=1"),
        ("see https://status.acme.example@evil.test/", LeakKind.URL, "https://status.acme.example@evil.test/"),
        ("see http://status.acme.example.evil.test", LeakKind.URL, "http://status.acme.example.evil.test"),
        ("slack://channel?id=7", LeakKind.URL, "slack://channel?id=7"),
        ("at 10.20.30.40:5432", LeakKind.ADDRESS, "10.20.30.40"),
        ("in 10.0.0.0/8", LeakKind.ADDRESS, "10.0.0.0/8"),
        ("at fe80::1 and", LeakKind.ADDRESS, "fe80::1"),
        ("at 2001:db8:0:0:0:0:0:1", LeakKind.ADDRESS, "2001:db8:0:0:0:0:0:1"),
        ("on db1.internal", LeakKind.HOST, "db1.internal"),
        ("on db1.eu-west.acme.example.", LeakKind.HOST, "db1.eu-west.acme.example"),
        ("it cost 12,000 EUR", LeakKind.MONEY, "12,000 EUR"),
        ("it cost $1.5 million", LeakKind.MONEY, "$1.5 million"),
        ("it cost 300 euros", LeakKind.MONEY, "300 euros"),
        ("see INC-7", LeakKind.NUMBER, "INC-7"),
        ("see rev-12", LeakKind.NUMBER, "rev-12"),
        ("see AI-3", LeakKind.NUMBER, "AI-3"),
        ("the password=hunter2hunter2 was wrong", LeakKind.SECRET, "the password=[redacted] was wrong"),
    ],
)
def test_each_kind_of_leak_is_found(written: str, kind: LeakKind, found: str) -> None:
    for field in FIELDS:
        text = a_text(**{field: [written] if field in LISTS else written})
        assert Leak(field, kind, found) in leaks(text, KNOWN)


@pytest.mark.parametrize(
    "written",
    [
        "Payments were slow",  # a component
        "see https://status.acme.example/status and status.acme.example",
        "from 14:05 to 14:05:33 UTC, or 2026-11-30",
        "e.g. half of them, i.e. 50 % or 1.5 million requests in 12.5 s",
        "a gracefully written checkouts page",  # not whole words
        "in the eu",  # too short for a label
        "version 4.2, and 300 API calls",
    ],
)
def test_what_may_be_public_is_no_leak(written: str) -> None:
    assert leaks(a_text(summary=written), KNOWN) == []


@given(
    name=st.text(st.characters(categories=("Ll", "Lu", "Lo", "Nd", "Zs", "Pd")), min_size=4, max_size=30),
    kind=st.sampled_from(["people", "services", "sources", "labels"]),
    field=st.sampled_from(FIELDS),
    before=words,
    after=words,
)
def test_a_known_name_is_found_wherever_it_stands(name: str, kind: str, field: str, before: str, after: str) -> None:
    name = name.strip()
    assume(len(normalize("NFKC", name)) >= 4)
    written = f"{before} {name}, {after}"
    text = a_text(**{field: [before, written] if field in LISTS else written})
    known: dict[str, Any] = {kind: {name}}
    found = leaks(text, InternalWords(**known))
    assert {"people": "person"}.get(kind, kind.removesuffix("s")) in {each.kind for each in found if each.at == field}


@given(st.text(max_size=300))
def test_the_check_takes_any_text(written: str) -> None:
    found = leaks(a_text(summary=written, learnings=[written]), KNOWN)
    assert all(each.words for each in found)
    assert len(set(found)) == len(found)


# — comparisons —


def test_a_difference_shows_what_changed_and_what_was_left_out() -> None:
    first = markdown(public_report(facts(a_text()), PublicOutline.FULL))
    second = markdown(public_report(facts(a_text(summary="Nothing failed.")), PublicOutline.FULL))
    changed = [line for line in unified(first, second) if line[0] in "+-"]
    assert changed == ["-Some payments failed.", "+Nothing failed."]
    assert unified(first, first) == []
    internal = report(facts_of([], [an_item(1, "Watch the expiry")]), Outline.GUIDE)
    sections = [(title, markdown(one)) for title, one in sections_of(internal)]
    assert LeftOut("Action items", 2) in left_out(sections, second)
    assert left_out([("a", "Nothing failed.\n\nmore")], second) == [LeftOut("a", 1)]
