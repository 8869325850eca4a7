"""The stylesheet and the templates know the same classes, and text is readable on every background."""

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from app.incidents.history.path import Effect
from app.incidents.measures.measures import IncidentStatus
from app.ingest.health.judgment import SourceStatus
from app.metrics.comparison.compare import Trend
from app.pages import incidents
from app.response.playbooks import PlaybookState
from app.reviews.action_item import ItemState
from app.reviews.lifecycle import ReviewState

PAGES = Path(incidents.__file__).parents[1]
OF_CUSTOMERS = PAGES.parent / "status_page/rendering/templates/status.css"
STYLESHEET = re.sub(r"/\*.*?\*/", "", (PAGES / "static/aftermath.css").read_text(), flags=re.DOTALL)
TEMPLATES = "\n".join(path.read_text() for path in sorted((PAGES / "templates").glob("*.html")))
SCRIPT = (PAGES / "static/aftermath.js").read_text()

# What expressions in `class="…"` put out that is not written in the template itself.
COMPUTED = {
    *IncidentStatus,
    *SourceStatus,
    *Trend,
    *PlaybookState,
    *(f"is-{effect}" for effect in Effect),
    *(f"sev{severity}" for severity in range(1, 6)),
    *(f"is-{state}" for state in (*ReviewState, *ItemState, "overdue")),
    *(f"prio{priority}" for priority in range(1, 4)),
    *("running", "censored", "recorded"),  # how far a measure reaches in the course
    *("recovered", "ended"),  # how a line in the list of incidents ends
    *("words", "keytext"),  # the kinds of a long text
}
# Names for tests, for scripts or for the reader of a template.
WITHOUT_RULES = {
    *("available", "does", "heartbeats", "invalid", "last", "reset", "said", "secret", "thirds", "zone"),
    *("amounts", "axisrow", "bottom", "calendar-list", "ring"),
}


def styled() -> set[str]:
    selectors = (found[1] for found in re.finditer(r"([^{};]+)\{", STYLESHEET))
    return {
        name
        for selector in selectors
        if not selector.lstrip().startswith("@")
        for name in re.findall(r"\.([a-z][\w-]*)", selector)
    }


def used() -> set[str]:
    """The literal names in every `class="…"`, also those within expressions."""
    found: set[str] = set()
    for attribute in re.findall(r'class="([^"]*)"', TEMPLATES):
        for expression in re.findall(r"\{[{%].*?[%}]\}", attribute):
            found |= {name for text in re.findall(r"'([^']*)'", expression) for name in text.split()}
        found |= set(re.sub(r"\{[{%].*?[%}]\}", " ", attribute).split())
    for assigned in re.findall(r"\{% set kind = (.*?) %\}", TEMPLATES):
        found |= {name for text in re.findall(r"'([^']*)'", assigned) for name in text.split()}
    found |= set(re.findall(r'classList\.\w+\("(\w+)"', SCRIPT))
    return {name for name in found if re.fullmatch(r"[a-z][\w-]*", name)}


def test_every_class_of_the_stylesheet_is_used() -> None:
    assert styled() - used() - COMPUTED == set()


def test_every_class_of_the_templates_has_a_rule_or_needs_none() -> None:
    written = {name for name in re.findall(r'class="([a-z][\w -]*)"', TEMPLATES) for name in name.split()}
    assert written - styled() - WITHOUT_RULES == set()


def test_no_rule_stands_twice() -> None:

    seen: dict[str, int] = {}
    level, media = 0, ""
    for selector, brace in re.findall(r"([^{}]*)([{}])", STYLESHEET):
        name = " ".join(selector.split(";")[-1].split())
        if brace == "}":
            level -= 1
            media = "" if level == 0 else media
        else:
            level += 1
            if name.startswith("@"):
                media = name
            elif not media:
                seen[name] = seen.get(name, 0) + 1
    assert {name for name, times in seen.items() if times > 1} == set()


@pytest.mark.parametrize("path", [PAGES / "static/aftermath.css", OF_CUSTOMERS], ids=["pages", "status page"])
def test_only_colors_differ_in_dark(path: Path) -> None:
    """So that what is examined in light colors need not be examined again in dark ones."""
    text = path.read_text()
    only_colors = r"@media [^{]*prefers-color-scheme: dark\) \{\s*:root \{(?:\s*--[\w-]+: #\w+;)+\s*\}\s*\}"
    assert len(re.findall(only_colors, text)) == text.count("prefers-color-scheme") == 1


def colors(scheme: str) -> dict[str, str]:
    roots = re.findall(r":root \{([^}]*)\}", STYLESHEET)
    light = dict(re.findall(r"--([\w-]+): (#\w+);", roots[0]))
    return light if scheme == "light" else light | dict(re.findall(r"--([\w-]+): (#\w+);", roots[1]))


def rgb(color: str) -> tuple[float, ...]:
    digits = color[1:] if len(color) == 7 else "".join(digit * 2 for digit in color[1:])
    return tuple(int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))


def mixed(color: str, share: float, below: str) -> tuple[float, ...]:
    return tuple(share * one + (1 - share) * other for one, other in zip(rgb(color), rgb(below), strict=True))


def luminance(color: tuple[float, ...]) -> float:
    """WCAG 2.2, relative luminance."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast(rgb("#777777"), rgb("#fff")) == pytest.approx(4.48, abs=0.01)


def text_on_backgrounds(scheme: str) -> Iterator[tuple[str, str, float]]:
    role = colors(scheme)
    backgrounds = {
        "page": rgb(role["page"]),
        "card": rgb(role["card"]),
        "open incident": mixed(role["open-soft"], 0.55, role["page"]),
        "problem": rgb(role["open-soft"]),
        "done": rgb(role["accent-soft"]),
        "row under the mouse": mixed(role["accent-soft"], 0.35, role["page"]),
        "code": rgb(role["grid"]),
    }
    for text in ("ink", "muted", "accent", "open", "ack", "good"):
        for name, background in backgrounds.items():
            yield text, name, contrast(rgb(role[text]), background)
    yield "page", "primary button", contrast(rgb(role["page"]), rgb(role["accent"]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_on_every_background(scheme: str) -> None:
    too_faint = {(text, on): round(ratio, 2) for text, on, ratio in text_on_backgrounds(scheme) if ratio < 4.5}
    assert too_faint == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("mark", ["line", "before", "field-rule", "focus"])
def test_lines_of_plots_and_controls_are_visible(scheme: str, mark: str) -> None:
    """WCAG 1.4.11 asks for 3."""
    assert contrast(rgb(colors(scheme)[mark]), rgb(colors(scheme)["page"])) >= 3


def test_the_typeface_is_the_one_that_was_examined() -> None:
    """Its license is in the file beside it. Whoever replaces the typeface looks at pages and license again."""
    typeface = (PAGES / "static/inter.woff2").read_bytes()
    assert sha256(typeface).hexdigest() == "3100e775e8616cd2611beecfa23a4263d7037586789b43f035236a2e6fbd4c62"
    assert len(typeface) < 50_000
