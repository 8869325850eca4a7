"""Field types of the routes about deployments, changes and causes."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Path
from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints

from app.base.errors import Invalid
from app.base.http.requests.fields import Name, Words, rfc3339
from app.base.values.facts import CLOCK_AHEAD_AT_MOST, Outcome
from app.base.values.moments import NotAMoment, moment_of
from app.base.values.vocabulary import outcome_of


def _moment(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    try:
        at = moment_of(value, utc_by_default=False)
    except NotAMoment as error:
        raise ValueError(str(error)) from None
    if at is None:
        message = "must be after 1970"
        raise ValueError(message)
    return at


def _outcome(value: object) -> object:
    if not isinstance(value, str) or value == Outcome.UNKNOWN:
        return value
    outcome = outcome_of(value)
    if outcome is None:
        message = f"{value[:50]!r} is not a known outcome; use one of {', '.join(Outcome)}"
        raise ValueError(message)
    return outcome


# As CI systems write it: RFC 3339, RFC 2822, or a Unix time in seconds or milliseconds, also as text.
Moment = Annotated[
    datetime,
    BeforeValidator(_moment, json_schema_input_type=datetime | float | str),
    PlainSerializer(rfc3339, when_used="json"),
]
OutcomeWord = Annotated[Outcome, BeforeValidator(_outcome, json_schema_input_type=Outcome | str)]
Link = Annotated[Words, StringConstraints(max_length=2_000)]
SourceName = Annotated[
    Name | None,
    Field(description="Name of the source whose deployment or change this is; null: reported by people"),
]
DeploymentKey = Annotated[
    Name, Path(description="Key or id of the deployment", examples=["people:checkout:production:checkout-1742"])
]


def require_plausible(now: datetime, *times: datetime | None) -> None:
    """Raises Invalid."""
    latest = max((at for at in times if at is not None), default=now)
    if latest > now + CLOCK_AHEAD_AT_MOST:
        minutes = CLOCK_AHEAD_AT_MOST // timedelta(minutes=1)
        message = f"{rfc3339(latest)} is more than {minutes} minutes in the future; check the clock"
        raise Invalid(message)
