"""The history of the page as Atom and RSS: one entry per public incident, whose id stays the same whatever is edited.

Pure. Written with the standard library's XML writer, which escapes all text.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from html import escape
from uuid import NAMESPACE_URL, uuid5
from xml.etree.ElementTree import Element, SubElement, tostring

from app.base.text.public_words import at
from app.base.values.times import EPOCH
from app.status_page.content import Content, Site
from app.status_page.public_incident import PublicIncident, stage

ENTRIES_AT_MOST = 25
ATOM = "http://www.w3.org/2005/Atom"


def atom(site: Site, content: Content, now: datetime) -> bytes:
    """RFC 4287."""
    feed = Element("feed", {"xmlns": ATOM, "xml:lang": "en"})
    _text(feed, "id", uuid5(NAMESPACE_URL, f"{site.identity}/status").urn)
    _text(feed, "title", f"{site.name}: history")
    _text(feed, "updated", _rfc3339(content.updated_at or EPOCH))
    SubElement(feed, "link", rel="self", type="application/atom+xml", href=site.address("/status/history.atom"))
    SubElement(feed, "link", rel="alternate", type="text/html", href=site.address("/status"))
    SubElement(SubElement(feed, "author"), "name").text = site.name
    for each in _newest(content):
        entry = SubElement(feed, "entry")
        _text(entry, "id", each.id.urn)
        _text(entry, "title", _title(each, now))
        _text(entry, "published", _rfc3339(each.created_at))
        _text(entry, "updated", _rfc3339(each.updated_at))
        SubElement(entry, "link", rel="alternate", type="text/html", href=_address(site, each))
        SubElement(entry, "content", type="html").text = _html(each)
    return _document(feed)


def rss(site: Site, content: Content, now: datetime) -> bytes:
    """RSS 2.0."""
    feed = Element("rss", {"version": "2.0", "xmlns:atom": ATOM})
    channel = SubElement(feed, "channel")
    _text(channel, "title", f"{site.name}: history")
    _text(channel, "link", site.address("/status"))
    _text(channel, "description", "Problems and maintenance")
    _text(channel, "lastBuildDate", _rfc2822(content.updated_at or EPOCH))
    own = {"rel": "self", "type": "application/rss+xml", "href": site.address("/status/history.rss")}
    SubElement(channel, "atom:link", own)
    for each in _newest(content):
        item = SubElement(channel, "item")
        _text(item, "title", _title(each, now))
        _text(item, "link", _address(site, each))
        SubElement(item, "guid", isPermaLink="false").text = each.id.urn
        _text(item, "pubDate", _rfc2822(each.created_at))
        _text(item, "description", _html(each))
    return _document(feed)


def _newest(content: Content) -> Sequence[PublicIncident]:
    """The public incidents that changed last."""
    return sorted(content.incidents, key=lambda each: (each.updated_at, each.id), reverse=True)[:ENTRIES_AT_MOST]


def _title(each: PublicIncident, now: datetime) -> str:
    return f"{stage(each, now).words}: {each.title}"


def _html(each: PublicIncident) -> str:
    """The updates, newest first."""
    return "".join(
        f"<p><strong>{update.stage.words}</strong> {at(update.at)}<br>"
        f"{escape(update.body, quote=False).replace(chr(10), '<br>')}</p>"
        for update in reversed(each.updates)
    )


def _address(site: Site, each: PublicIncident) -> str:
    return site.address(f"/status/incidents/{each.id}")


def _text(parent: Element, name: str, text: str) -> None:
    SubElement(parent, name).text = text


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _rfc2822(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC))


def _document(root: Element) -> bytes:
    written: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return written
