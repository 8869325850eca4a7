"""Forms: reading what a browser sends, and times as people enter them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.base.errors import Invalid, TooLarge, UnsupportedMediaType
from app.base.values.times import is_in_bounds
from app.incidents.impact.rates import THE_BEGINNING
from app.pages.web import wording

FORM_BYTES = 64 * 1024
FIELDS_AT_MOST = 100
ERRORS_AT_MOST = 3  # of one form that are explained

Form = Mapping[str, str]  # the last value of each field
Model = TypeVar("Model", bound=BaseModel)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a submitted form; empty ones are kept. Of a repeated field the last value counts.

    Raises UnsupportedMediaType, TooLarge and Invalid.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise UnsupportedMediaType("send a form as application/x-www-form-urlencoded")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES:
            message = f"a form may have at most {FORM_BYTES // 1024} KiB"
            raise TooLarge(message)
    try:
        pairs = parse_qsl(bytes(body).decode("utf-8"), keep_blank_values=True, max_num_fields=FIELDS_AT_MOST)
    except ValueError:
        message = f"a form must be UTF-8 and may have at most {FIELDS_AT_MOST} fields"
        raise Invalid(message) from None
    # Browsers send line breaks as CR LF.
    return {name: value.replace("\r\n", "\n") for name, value in pairs}


def parsed(model: type[Model], values: Mapping[str, Any]) -> Model:
    """The form as the same model that REST takes. Raises Invalid with the fields that are wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:ERRORS_AT_MOST]
        raise Invalid("; ".join(wording.sentence(one) for one in found)) from None


def shown_time(form: Form, field: str) -> datetime | None:
    """The time that a field stood for when the page was made, from the hidden field `was_…`. Raises Invalid."""
    was = form.get(f"was_{field}", "")
    try:
        before = datetime.fromisoformat(was) if was else None
    except ValueError:
        before = datetime.min.replace(tzinfo=UTC)
    if before is not None and before != THE_BEGINNING and not (before.tzinfo and is_in_bounds(before)):
        raise Invalid("open the page again and repeat this there")
    return before


def entered_time(value: str, zone: ZoneInfo) -> datetime | None:
    """A `datetime-local` field in the zone of the reader; None if it is empty. Of an hour that occurs twice, when
    clocks are set back, it is the earlier. Raises Invalid.
    """
    if not value:
        return None
    try:
        local = datetime.fromisoformat(value)
        if local.tzinfo is None:
            local = local.replace(tzinfo=zone)
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid("enter a time as year-month-day hour:minute, for example 2026-11-30 14:05") from None
