"""The meeting of a review as an event for calendars."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from hypothesis import given
from hypothesis import strategies as st

from app.reviews.meeting import LINE_AT_MOST, Meeting, icalendar
from tests.reviews.test_reviews import REVIEWS, new_review, send, step

AT = datetime(2026, 8, 21, 10, tzinfo=UTC)


def a_meeting(title: str) -> Meeting:
    return Meeting(UUID(int=1), "REV-1", title, AT, AT, 3, link="https://aftermath.example.org/reviews/REV-1")


def test_an_event_has_its_time_and_its_review() -> None:
    assert icalendar(a_meeting("Login; again, and\nagain\\")).split("\r\n") == [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Aftermath//Reviews//EN",
        "BEGIN:VEVENT",
        "UID:00000000-0000-0000-0000-000000000001",
        "DTSTAMP:20260821T100000Z",
        "SEQUENCE:3",
        "DTSTART:20260821T100000Z",
        "DTEND:20260821T103000Z",
        "SUMMARY:REV-1: Login\\; again\\, and\\nagain\\\\",
        "URL:https://aftermath.example.org/reviews/REV-1",
        "STATUS:CONFIRMED",
        "END:VEVENT",
        "END:VCALENDAR",
        "",
    ]


@given(st.text(max_size=300))
def test_no_text_adds_a_line_or_is_too_long(title: str) -> None:
    lines = icalendar(a_meeting(title)).removesuffix("\r\n").split("\r\n")
    assert all(len(line.encode()) <= LINE_AT_MOST for line in lines)
    unfolded = "\n".join(lines).replace("\n ", "").split("\n")
    assert [line.partition(":")[0] for line in unfolded] == [
        *("BEGIN", "VERSION", "PRODID", "BEGIN", "UID", "DTSTAMP", "SEQUENCE", "DTSTART", "DTEND"),
        *("SUMMARY", "URL", "STATUS", "END", "END"),
    ]


async def test_a_scheduled_meeting_goes_into_a_calendar(client: httpx.AsyncClient) -> None:
    await new_review(client)
    path = f"{REVIEWS}/REV-1/meeting.ics"
    problem = await client.get(path)
    assert (problem.status_code, problem.json()["type"]) == (404, "urn:aftermath:problem:no-meeting")
    begins_at = (AT + timedelta(hours=1)).isoformat()
    await send(client, "PATCH", f"{REVIEWS}/REV-1", scheduled_at=begins_at, duration_seconds=3600)
    answer = await client.get(path)
    assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="REV-1.ics"'
    assert "DTSTART:20260821T110000Z\r\nDTEND:20260821T120000Z\r\n" in answer.text
    assert "STATUS:CONFIRMED" in answer.text
    await step(client, "drop", because="a duplicate")
    assert "STATUS:CANCELLED" in (await client.get(path)).text
    assert (await client.get(f"{REVIEWS}/REV-9/meeting.ics")).status_code == 404
