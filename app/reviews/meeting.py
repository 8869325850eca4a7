"""The meeting of a review as an event for calendars (iCalendar, RFC 5545).

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

USUAL_DURATION = timedelta(minutes=30)
LINE_AT_MOST = 75  # bytes, as the standard says


@dataclass(frozen=True, slots=True)
class Meeting:
    """`version` increases with each change, so that a calendar replaces the event. `link` leads to the review."""

    id: UUID
    number: str
    title: str
    begins_at: datetime
    changed_at: datetime
    version: int
    duration: timedelta | None = None
    link: str | None = None
    is_canceled: bool = False


def icalendar(meeting: Meeting) -> str:
    """A calendar with this event. Its lines end with CRLF, and none is longer than LINE_AT_MOST."""
    return "".join(f"{part}\r\n" for line in _lines(meeting) for part in _folded(line))


def _lines(meeting: Meeting) -> Iterator[str]:
    yield from ("BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Aftermath//Reviews//EN", "BEGIN:VEVENT")
    yield f"UID:{meeting.id}"
    yield f"DTSTAMP:{_time(meeting.changed_at)}"
    yield f"SEQUENCE:{meeting.version}"
    yield f"DTSTART:{_time(meeting.begins_at)}"
    yield f"DTEND:{_time(meeting.begins_at + (meeting.duration or USUAL_DURATION))}"
    yield f"SUMMARY:{_text(f'{meeting.number}: {meeting.title}')}"
    if meeting.link is not None:
        yield f"URL:{meeting.link}"
    yield f"STATUS:{'CANCELLED' if meeting.is_canceled else 'CONFIRMED'}"
    yield from ("END:VEVENT", "END:VCALENDAR")


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _text(text: str) -> str:
    """Escaped; control characters other than line feeds have no place in it."""
    shown = "".join(each for each in text if each == "\n" or each.isprintable())
    for special in ("\\", ";", ","):
        shown = shown.replace(special, f"\\{special}")
    return shown.replace("\n", "\\n")


def _folded(line: str) -> Iterator[str]:
    """The line in parts; each part but the first begins with a space."""
    part = ""
    for each in line:
        if len(f"{part}{each}".encode()) > LINE_AT_MOST:
            yield part
            part = " "
        part += each
    yield part
