"""The internal report as Chromium prints it: every section, and nothing cut."""

import re
from collections.abc import Iterable

import pytest
from playwright.async_api import PdfMargins, ViewportSize

from app.incidents.history.path import Phase
from app.reviews.lifecycle import Element, FindingKind
from app.reviews.report.facts import Finding
from app.reviews.report.html import html
from app.reviews.report.outline import Outline, Section, report
from tests.pages.browsing import a_browser
from tests.reviews.test_report import an_item, facts_of

pytestmark = pytest.mark.browser

# A4 in CSS pixels, without its margins.
A4 = ViewportSize(width=794 - 2 * 38, height=1123 - 2 * 38)
MARGINS = PdfMargins(top="1cm", right="1cm", bottom="1cm", left="1cm")
LONG = "W" * 300 + " " + "words " * 60  # a word that has to be broken, then others
CUT = """() => [...document.body.querySelectorAll('*')].filter((element) => {
    const box = element.getBoundingClientRect(), style = getComputedStyle(element);
    return style.display === 'none' || style.visibility === 'hidden' || box.left < -1 || box.right > innerWidth + 1
        || (style.overflow !== 'visible' && element.tagName !== 'svg' && element.scrollWidth > element.clientWidth + 1);
}).map((element) => `${element.tagName} ${element.textContent.slice(0, 40)}`)"""


def titles(sections: Iterable[Section]) -> list[str]:
    return [title for each in sections for title in (each.title, *titles(each.sections))]


async def test_the_report_is_printed_with_all_sections_and_no_text_is_cut() -> None:
    findings = [Finding(kind, LONG, Phase.DETECTION, Element.PROCESS, None) for kind in FindingKind]
    facts = facts_of(findings, [an_item(number, LONG) for number in range(12)], text=LONG)
    async with a_browser() as browser:
        page = await browser.new_page(viewport=A4)
        await page.emulate_media(media="print")
        for outline in Outline:
            made = report(facts, outline)
            await page.set_content(html(made))
            assert await page.evaluate(CUT) == []
            printed = await page.pdf(format="A4", margin=MARGINS, tagged=True, outline=True)
            assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 1
            # The outline of the document has its headings.
            found = [each.decode("latin-1") for each in re.findall(rb"/Title \(((?:[^()\\]|\\.)*)\)", printed)]
            assert sorted(one for one in found if not one.startswith("REV-1")) == sorted(titles(made.sections))
