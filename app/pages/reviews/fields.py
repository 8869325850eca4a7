"""What the forms of reviews and action items have in common."""

import re
from datetime import datetime
from uuid import UUID

from app.base.errors import Invalid
from app.incidents.actions import etag
from app.pages.web.forms import Form, entered_time
from app.pages.web.frame import PageRequest
from app.reviews.store.reviews import INCIDENTS_AT_MOST

_NUMBER = re.compile(r"(?:INC-)?([1-9][0-9]{0,17})", re.ASCII | re.IGNORECASE)


def address_of(number: int) -> str:
    return f"/reviews/REV-{number}"


def text(form: Form, name: str) -> str | None:
    """None if it is empty."""
    return form.get(name, "").strip() or None


def when(asked: PageRequest, form: Form, name: str) -> datetime | None:
    """A time in the zone of the reader. Raises Invalid."""
    return entered_time(form.get(name, ""), asked.zone)


def changed_time(asked: PageRequest, form: Form, name: str, stored: datetime | None) -> dict[str, datetime | None]:
    """The time if another one was entered than the form had shown; that keeps its seconds. Raises Invalid."""
    shown = asked.shown(stored, "input") if stored is not None else ""
    return {} if form.get(name, "") == shown else {name: when(asked, form, name)}


def if_match(form: Form) -> str:
    """The version that the form was made from. Raises Invalid."""
    version = form.get("version", "")
    if not re.fullmatch("[0-9]{1,9}", version, re.ASCII):
        raise Invalid("the form does not state which version it changes; open the page again")
    return etag(int(version))


def incident_numbers(entered: str) -> list[int]:
    """Reads `INC-7, 12 inc-9`. Raises Invalid."""
    words = re.split(r"[\s,;]+", entered.strip()) if entered.strip() else []
    found = [_NUMBER.fullmatch(word) for word in words[: INCIDENTS_AT_MOST + 1]]
    numbers = [int(one[1]) for one in found if one]
    if len(numbers) < len(found):
        raise Invalid("enter incidents by their numbers, for example INC-7, INC-12")
    if len(numbers) > INCIDENTS_AT_MOST:
        message = f"a review is about at most {INCIDENTS_AT_MOST} incidents; choose a time frame instead"
        raise Invalid(message)
    return numbers


def id_of(form: Form, name: str) -> UUID | None:
    """Raises Invalid."""
    entered = form.get(name, "")
    try:
        return UUID(entered) if entered else None
    except ValueError:
        raise Invalid("choose one of the list; open the page again") from None


def review_number(entered: str) -> int | None:
    """Reads `REV-7`; None if it is none."""
    found = re.fullmatch("REV-([1-9][0-9]{0,17})", entered, re.ASCII)
    return int(found[1]) if found else None
