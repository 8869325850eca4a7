"""The public formats: HTML, Statuspage's JSON, Atom and RSS."""

import json
from dataclasses import replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema  # type: ignore[import-untyped]  # comes with kubernetes-validate
import pytest

from app.base.text.public_words import clean, lasting, percent
from app.status_page.component import Uptime
from app.status_page.content import Content, Site, months_of
from app.status_page.rendering import feed, page, statuspage
from app.status_page.uptime import MeasuredDay
from tests.status_page.builders import (
    DAY,
    DEGRADED,
    MAINTENANCE,
    MAJOR,
    PARTIAL,
    at,
    component,
    maintenance,
    problem,
    update,
)

SITE = Site("Acme", "https://status.acme.example")
NOW = at("12:00")
OPEN = problem(
    update(at("11:00"), "investigating", {"Payments": PARTIAL, "Website": DEGRADED}, "Some <b>cards</b> fail."),
    update(at("11:30"), "identified", {"Payments": MAJOR}, "Two\nlines."),
)
OVER = problem(
    update(at("08:00"), "investigating", {"Website": MAJOR}),
    update(at("09:00"), "resolved"),
    title="Down",
    ends_at=at("09:00"),
)
PLANNED = maintenance(at("10:00", 2), at("12:00", 2), update(at("07:00"), "scheduled", {"Website": MAINTENANCE}))
CONTENT = Content(
    [
        component("Website", position=1),
        component("Payments", section="API", uptime=Uptime.MEASURED, position=2, description="Cards & refunds"),
        component("Reports", section="API", uptime=Uptime.HIDDEN, position=3),
    ],
    [PLANNED, OPEN, OVER],
    {"Payments": {DAY: MeasuredDay(DAY, timedelta(hours=6), timedelta(hours=1))}},
)
SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "statuspage.schema.json").read_text())


# — Statuspage's JSON —


@pytest.mark.parametrize("content", [CONTENT, Content()], ids=["filled", "empty"])
def test_the_json_has_the_shape_of_statuspage(content: Content) -> None:
    found = statuspage.documents(SITE, content, NOW, as_of=None)
    assert set(found) == set(SCHEMA["documents"])
    for name, document in found.items():
        schema = {"$defs": SCHEMA["$defs"], **SCHEMA["documents"][name]}
        jsonschema.validate(json.loads(json.dumps(document)), schema, format_checker=jsonschema.FormatChecker())


def test_a_sample_of_statuspage_fits_the_same_schema() -> None:
    """As in the documentation of its API, shortened; see the schema for where it is from."""
    sample = SCHEMA["examples"][0]
    jsonschema.validate(sample, {"$defs": SCHEMA["$defs"], **SCHEMA["documents"]["summary"]})
    for broken in ({"status": {"indicator": "fine", "description": ""}}, {"components": [{"id": "x"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**sample, **broken}, {"$defs": SCHEMA["$defs"], **SCHEMA["documents"]["summary"]})


def test_the_summary_has_what_is_open_and_what_is_coming() -> None:
    found = statuspage.documents(SITE, CONTENT, NOW, as_of=None)["summary"]
    assert found["status"] == {"indicator": "critical", "description": "Major outage of some systems"}
    assert [(each["name"], each["status"], each["group"]) for each in found["components"]] == [
        ("Website", "degraded_performance", False),
        ("API", "major_outage", True),
        ("Payments", "major_outage", False),
        ("Reports", "operational", False),
    ]
    [incident], [planned] = found["incidents"], found["scheduled_maintenances"]
    assert (incident["name"], incident["impact"], incident["resolved_at"]) == ("Card payments fail", "critical", None)
    assert [each["status"] for each in incident["incident_updates"]] == ["identified", "investigating"]
    changed = incident["incident_updates"][0]["affected_components"]
    assert [(each["old_status"], each["new_status"]) for each in changed] == [("partial_outage", "major_outage")]
    assert (planned["status"], planned["scheduled_for"]) == ("scheduled", "2026-12-02T10:00:00.000Z")


def test_ids_are_the_same_in_every_process_and_after_every_edit() -> None:
    before = statuspage.documents(SITE, CONTENT, NOW, as_of=None)
    edited = replace(OPEN, title="Cards fail", updated_at=at("11:55"))
    after = statuspage.documents(SITE, replace(CONTENT, incidents=[PLANNED, edited, OVER]), NOW, as_of=at("11:58"))
    for kind in ("incidents", "components"):
        assert [each["id"] for each in before["summary"][kind]] == [each["id"] for each in after["summary"][kind]]
    assert after["summary"]["page"]["as_of"] == "2026-11-30T11:58:00.000Z"


# — feeds —

NAMES = {"": "http://www.w3.org/2005/Atom"}


def require_atom(document: bytes) -> ET.Element:
    """What RFC 4287 demands of a feed and its entries."""
    root = ET.fromstring(document)
    assert root.tag == f"{{{feed.ATOM}}}feed"
    links = [(each.get("rel"), each.get("href")) for each in root.findall("link", NAMES)]
    assert ("self", "https://status.acme.example/status/history.atom") in links
    for each in (root, *root.findall("entry", NAMES)):
        for name in ("id", "title", "updated"):  # exactly one of each
            [found] = each.findall(name, NAMES)
            assert found.text
        for name in ("updated", "published"):
            for found in each.findall(name, NAMES):
                assert found.text
                assert jsonschema.FormatChecker().conforms(found.text, "date-time")
                assert found.text.endswith("Z")
        alternates = [one.get("type") for one in each.findall("link", NAMES) if one.get("rel") == "alternate"]
        assert len(alternates) == len(set(alternates)) == 1
    ids = [each.findtext("id", None, NAMES) for each in root.findall("entry", NAMES)]
    assert len(ids) == len(set(ids))
    assert all(one and one.startswith("urn:uuid:") for one in ids)
    assert root.find("author/name", NAMES) is not None  # entries have none of their own
    return root


def test_atom_validates_and_ids_are_stable_over_edits() -> None:
    before = require_atom(feed.atom(SITE, CONTENT, NOW))
    corrected = replace(OPEN.updates[0], body="Other words.", corrected_at=at("11:50"))
    edited = replace(OPEN, title="Cards fail", updates=(corrected, OPEN.updates[1]), updated_at=at("11:50"))
    after = require_atom(feed.atom(SITE, replace(CONTENT, incidents=[PLANNED, edited, OVER]), NOW))

    def entries(root: ET.Element) -> dict[str, tuple[str, str]]:
        return {
            each.findtext("id", "", NAMES): (each.findtext("title", "", NAMES), each.findtext("updated", "", NAMES))
            for each in root.findall("entry", NAMES)
        }

    assert set(entries(before)) == set(entries(after))
    assert entries(before)[OPEN.id.urn] == ("Identified: Card payments fail", "2026-11-30T11:30:00Z")
    assert entries(after)[OPEN.id.urn] == ("Identified: Cards fail", "2026-11-30T11:50:00Z")
    [content] = [
        each.findtext("content", "", NAMES)
        for each in before.findall("entry", NAMES)
        if each.findtext("id", "", NAMES) == OPEN.id.urn
    ]
    assert "Some &lt;b&gt;cards&lt;/b&gt; fail." in content
    require_atom(feed.atom(SITE, Content(), NOW))


def test_rss_has_the_same_entries() -> None:
    channel = ET.fromstring(feed.rss(SITE, CONTENT, NOW)).find("channel")
    assert channel is not None
    items = channel.findall("item")
    assert [each.findtext("guid") for each in items] == [OPEN.id.urn, OVER.id.urn, PLANNED.id.urn]
    assert parsedate_to_datetime(items[0].findtext("pubDate", "")) == OPEN.created_at
    assert all(each.find("guid").get("isPermaLink") == "false" for each in items)  # type: ignore[union-attr]


# — HTML —


class Outline(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


PAGES = {
    "overview": page.overview(SITE, CONTENT, NOW),
    "incident": page.incident(SITE, OPEN, NOW),
    "history": page.history(SITE, months_of(CONTENT), "2026-11", NOW),
    "away": page.overview(SITE, CONTENT, NOW, as_of=at("11:58")),
    "empty": page.overview(SITE, Content(), NOW),
    "starting": page.not_read_yet(SITE),
    "missing": page.not_found(SITE),
}


@pytest.mark.parametrize("html", PAGES.values(), ids=PAGES)
def test_a_page_has_no_script_no_style_of_its_own_and_leads_nowhere_else(html: str) -> None:
    found = Outline(html)
    assert {"script", "form", "img", "iframe"} & set(found.tags) == set()
    assert [one for one in found.attributes if one[1] == "style" or one[1].startswith("on")] == []
    addresses = [value for _, name, value in found.attributes if name in {"href", "src"}]
    assert addresses
    assert all(value.startswith("/status") and not value.startswith("/status-page") for value in addresses)


def test_each_status_is_told_in_words_and_by_shape() -> None:
    text = Outline(PAGES["overview"]).text
    for words in ("Major outage of some systems", "Degraded performance", "Operational", "Some <b>cards</b> fail."):
        assert words in text
    assert "83.33\u202f% up, as measured" in text
    assert PAGES["overview"].count('class="strip"') == 2  # the days of the third component are hidden
    assert 'class="unknown"' in PAGES["overview"]


def test_a_gap_is_told_in_words_and_is_not_up() -> None:
    content = replace(
        CONTENT, components=[component("Payments", uptime=Uptime.MEASURED, since=DAY - timedelta(days=3))]
    )
    text = Outline(page.overview(SITE, content, NOW)).text
    assert "27\u00a0Nov\u00a02026 to 29\u00a0Nov\u00a02026not monitored" in text
    assert "down for 1\u00a0hour, not monitored, or in maintenance, for 6\u00a0hours" in text


def test_customers_see_how_long_it_lasts_and_whether_somebody_is_at_it() -> None:
    for html in (PAGES["overview"], PAGES["incident"]):
        text = Outline(html).text.replace("\u00a0", " ")
        assert "Since 30 Nov 2026, 11:00 UTC, for 1 hour" in text
        assert "Identified 30 minutes ago 30 Nov 2026, 11:30 UTC" in " ".join(text.split())
        assert text.count(" ago") == 1 + text.count("90 days ago")  # of the newest update only
    away = Outline(PAGES["away"]).text.replace("\u00a0", " ")
    assert "Since 30 Nov 2026, 11:00 UTC" in away
    assert "UTC, for" not in away
    assert "minutes ago" not in away
    over = Outline(page.incident(SITE, OVER, NOW)).text
    assert "Resolved" in over
    assert " ago" not in over


@pytest.mark.parametrize(
    ("day", "expected"),
    [("11:00", "Scheduled maintenance"), ("59:00", "Maintenance in progress"), ("61:00", "Completed maintenance")],
)
def test_maintenance_says_whether_it_has_begun(day: str, expected: str) -> None:
    text = Outline(page.incident(SITE, PLANNED, at(day))).text
    assert expected in text
    assert "Announced 30\u00a0Nov\u00a02026" in " ".join(text.split(" "))


def test_the_tab_of_a_browser_says_what_is_wrong() -> None:
    assert "<title>Major outage of some systems · Acme</title>" in PAGES["overview"]


def test_while_the_database_is_away_the_page_says_as_of_when() -> None:
    assert "As of 30\u00a0Nov\u00a02026, 11:58\u00a0UTC." in Outline(PAGES["away"]).text
    assert "As of" not in Outline(PAGES["overview"]).text


# — words —


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (timedelta(seconds=20), "less than a minute"),
        (timedelta(minutes=1), "1\u00a0minute"),
        (timedelta(hours=1, minutes=18), "1\u00a0hour 18\u00a0minutes"),
        (timedelta(days=2, minutes=5), "2\u00a0days"),
        (timedelta(days=1, hours=3, minutes=5), "1\u00a0day 3\u00a0hours"),
    ],
)
def test_durations(duration: timedelta, expected: str) -> None:
    assert lasting(duration) == expected


def test_what_was_down_at_all_is_never_100_percent() -> None:
    from fractions import Fraction

    assert percent(Fraction(1)) == "100\u202f%"
    assert percent(1 - Fraction(1, 10**9)) == "99.99\u202f%"
    assert percent(Fraction(0)) == "0.00\u202f%"


def test_controls_do_not_get_out() -> None:
    assert clean("a\x00b\u202egnp.exe\ud800\ufffe\nline\ttab") == "abgnp.exe\nline\ttab"
