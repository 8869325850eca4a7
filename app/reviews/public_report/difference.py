"""How a public report differs from the version before, and what of the internal report is not in it.

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from itertools import pairwise

from app.reviews.report.outline import NOTHING, Report, Section

LINES_AT_MOST = 2000  # of each text; comparing takes longer than in proportion


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A section of the internal report, and how many of its lines the public one does not have."""

    section: str
    lines: int


def unified(before: str, after: str) -> list[str]:
    """The lines of a unified difference between two texts in Markdown, with all that is unchanged between changes."""
    old, new = before.splitlines()[:LINES_AT_MOST], after.splitlines()[:LINES_AT_MOST]
    return list(unified_diff(old, new, lineterm="", n=2))[2:]  # without the names of files


def left_out(internal: Sequence[tuple[str, str]], public: str) -> list[LeftOut]:
    """`internal` has the sections of a report: title and Markdown. Headings and heads of tables do not count."""
    shown = {NOTHING, *public.splitlines()}
    counted = (LeftOut(title, sum(line not in shown for line in _content(text))) for title, text in internal)
    return [each for each in counted if each.lines]


def _content(text: str) -> Iterator[str]:
    for line, following in pairwise([*text.splitlines(), ""]):
        if line.strip() and not line.startswith(("#", _RULE)) and not following.startswith(_RULE):
            yield line


_RULE = "| ---"  # below the head of a table


def sections_of(report: Report) -> list[tuple[str, Report]]:
    """Each section of a report as a report of its own; the introduction counts as one."""
    introduction = Report(report.title, report.introduction, [])
    return [("Introduction", introduction), *((one.title, _alone(one)) for one in report.sections)]


def _alone(section: Section) -> Report:
    return Report(section.title, section.blocks, section.sections)
