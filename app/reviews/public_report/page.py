"""A public report as a page of the status page, without scripts and without anything from elsewhere.

Pure. Every text is escaped. The page is stored as it is made here, and approved and served like that.
"""

from collections.abc import Iterator
from html import escape
from uuid import UUID

from app.reviews.report.html import body
from app.reviews.report.outline import Report


def page(report: Report, site: str, public_incident: UUID) -> bytes:
    """`site` is the name of the status page."""
    return "".join(_parts(report, site, public_incident)).encode()


def _parts(report: Report, site: str, public_incident: UUID) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield '<meta name="color-scheme" content="light dark">\n'
    yield f"<title>{escape(report.title)} · {escape(site)}</title>\n"
    yield '<link rel="stylesheet" href="/status/style.css">\n</head>\n<body>\n'
    yield f'<header><p class="name"><a href="/status"><bdi>{escape(site)}</bdi></a></p>'
    yield '<p><a href="/status">Status now</a></p></header>\n'
    yield '<main class="report">\n'
    yield from body(report)
    yield f'\n<p class="more"><a href="/status/incidents/{public_incident}">Updates during the incident</a></p>\n'
    yield "</main>\n"
    yield "<footer><p>Times are in UTC.</p>"
    yield '<p><a href="/status/reports">Reports</a></p></footer>\n</body>\n</html>\n'
