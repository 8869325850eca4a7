"""A report as Markdown.

Pure. Texts from people are escaped: they are shown as they were written, and cannot add headings, links or HTML.
"""

from collections.abc import Iterator

from app.base.text.markdown import escaped
from app.reviews.report.outline import Block, Bullets, Paragraph, Plot, Report, Section, Table


def markdown(report: Report) -> str:
    return "\n".join(_lines(report)).rstrip() + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {escaped(report.title)}"
    yield ""
    for block in report.introduction:
        yield from _block(block)
    for section in report.sections:
        yield from _section(section, 2)


def _section(section: Section, level: int) -> Iterator[str]:
    yield f"{'#' * level} {escaped(section.title)}"
    yield ""
    for block in section.blocks:
        yield from _block(block)
    for inner in section.sections:
        yield from _section(inner, level + 1)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph(text):
            yield escaped(text)
        case Bullets(items):
            yield from (f"- {escaped(item)}" for item in items)
        case Table(columns, rows):
            yield _row([escaped(one) for one in columns])
            yield _row(["---"] * len(columns))
            yield from (_row([escaped(cell) for cell in row]) for row in rows)
        case Plot(title, path):
            points = ", ".join(f"{point.at:%H:%M:%S} {point.level:+d}" for point in path.points)
            yield f"{escaped(title)}: {points}"
    yield ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
