"""The meeting of a review over HTTP, as an event for calendars."""

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Response

from app.base.errors import NotFound
from app.base.http.access.auth import Reader
from app.base.http.context import Session, SettingsDep
from app.base.http.responses.problems import problem_responses
from app.base.schema import Review
from app.reviews.api.fields import ReviewInPath
from app.reviews.lifecycle import ReviewState
from app.reviews.meeting import Meeting, icalendar
from app.reviews.store import reviews
from app.settings import Settings

router = APIRouter(prefix="/api/v1/reviews", tags=["reviews"])


class NoMeeting(NotFound):
    title = "No meeting"


_EVENT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/calendar": {"schema": {"type": "string"}, "example": "BEGIN:VCALENDAR\r\n"}},
        "description": "A calendar with one event",
    }
}


@router.get(
    "/{review}/meeting.ics",
    response_class=Response,
    responses=problem_responses(404) | _EVENT,
    summary="Get the meeting of a review for a calendar",
)
async def get_meeting(_: Reader, session: Session, settings: SettingsDep, ref: ReviewInPath) -> Response:
    """At `scheduled_at`, in iCalendar's format. A calendar that imports it again replaces the event. 404 while no
    meeting is scheduled.
    """
    return event(await reviews.find(session, ref), settings)


def event(review: Review, settings: Settings) -> Response:
    """Raises NoMeeting."""
    number = f"REV-{review.number}"
    if review.scheduled_at is None:
        message = f"no meeting is scheduled for {number}; state `scheduled_at` first"
        raise NoMeeting(message)
    public = settings.public_url
    meeting = Meeting(
        id=review.id,
        number=number,
        title=review.title,
        begins_at=review.scheduled_at,
        changed_at=review.updated_at,
        version=review.version,
        duration=timedelta(seconds=review.duration_seconds) if review.duration_seconds else None,
        link=f"{public.rstrip('/')}/reviews/{number}" if public else None,
        is_canceled=review.state == ReviewState.DROPPED,
    )
    headers = {"Content-Disposition": f'attachment; filename="{number}.ics"'}
    return Response(icalendar(meeting), media_type="text/calendar", headers=headers)
