"""A report as a page of its own, without scripts and without anything from elsewhere; a browser prints it.

Pure. Every text is escaped; the only links are those of action items, to `http` or `https`.
"""

import base64
import hashlib
from collections.abc import Iterator
from html import escape

from app.reviews.report.outline import Block, Bullets, Paragraph, Plot, Report, Section, Table
from app.reviews.report.plot import svg

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
body { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: 0.9em; }
th, td { border: 1px solid #bbb; padding: 0.25rem 0.5rem; text-align: left; vertical-align: top; }
p, li { white-space: pre-line; }
svg { width: 100%; height: auto; }
@media print { body { margin: 0; max-width: none; } h2, h3 { break-after: avoid; } tr, svg { break-inside: avoid; } }
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"


def html(report: Report) -> str:
    return "".join(_parts(report))


def _parts(report: Report) -> Iterator[str]:
    title = escape(report.title)
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><main>'
    yield from body(report)
    yield "</main></body></html>"


def body(report: Report) -> Iterator[str]:
    """The content of `main`: the title, the introduction and the sections."""
    yield f"<h1><bdi>{escape(report.title)}</bdi></h1>"
    for block in report.introduction:
        yield from _block(block)
    for section in report.sections:
        yield from _section(section, 2)


def _section(section: Section, level: int) -> Iterator[str]:
    yield f"<section><h{level}>{escape(section.title)}</h{level}>"
    for block in section.blocks:
        yield from _block(block)
    for inner in section.sections:
        yield from _section(inner, level + 1)
    yield "</section>"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph(text):
            yield f"<p><bdi>{escape(text)}</bdi></p>"
        case Bullets(items):
            yield f"<ul>{''.join(f'<li><bdi>{escape(item)}</bdi></li>' for item in items)}</ul>"
        case Table(columns, rows):
            head = "".join(f'<th scope="col">{escape(one)}</th>' for one in columns)
            yield f"<table><thead><tr>{head}</tr></thead><tbody>"
            for row in rows:
                yield f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>"
            yield "</tbody></table>"
        case Plot(title, path):
            yield svg(title, path)


def _cell(text: str) -> str:
    shown = f"<bdi>{escape(text)}</bdi>"
    if text.startswith(("https://", "http://")) and " " not in text:
        return f'<a href="{escape(text)}" rel="noreferrer">{shown}</a>'
    return shown
