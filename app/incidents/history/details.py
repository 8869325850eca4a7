"""What an entry of the timeline has besides its time, its text and the person: its `detail`, by kind.

The same models check what is sent and what is corrected, so that the `detail` of a stored entry has all fields of its
kind. Tasks have their own, see notes.py.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, HttpUrl, StringConstraints, ValidationError, model_validator

from app.base.errors import Invalid
from app.base.http.requests.fields import At, Input, Name, Words
from app.incidents.grouping.timeline_kind import TimelineKind


class InvalidDetail(Invalid):
    title = "Invalid detail"


class How(StrEnum):
    """How a person came to an incident."""

    ALERTED = "alerted"  # by a pager or another tool
    ASKED = "asked"  # by a person
    CAME = "came"  # by themselves


class Audience(StrEnum):
    STAKEHOLDERS = "stakeholders"
    RESPONDERS = "responders"


class UpdateStatus(StrEnum):
    INVESTIGATING = "investigating"
    IDENTIFIED = "identified"
    MONITORING = "monitoring"
    RESOLVED = "resolved"


FIRST_RESPONDER = "first_responder"  # not assigned: the first person who acknowledged or did a task
RoleName = Annotated[
    str,
    StringConstraints(pattern="^[a-z][a-z_]{1,30}$"),
    Field(
        description="`commander`, `scribe`, `communications` and any other name are held by one person at a time, "
        "`responder`, `expert` and `observer` by many",
        examples=["commander"],
    ),
]
Person = Annotated[Name, Field(examples=["ada"])]
Number = Annotated[int, Field(ge=0, le=10**12)]
Sentence = Annotated[Words, StringConstraints(min_length=1, max_length=1000)]


class Joined(Input):
    person: Person
    how: How = Field(How.CAME, description="`alerted` by a tool, `asked` by a person, or `came` without being asked")
    channel: Name | None = Field(None, description="Where, or by what, the person was reached", examples=["pager"])


class Role(Input):
    role: RoleName
    person: Person
    holds: bool = Field(True, description="False: the person gives up the role")

    @model_validator(mode="after")
    def _is_assigned(self) -> "Role":
        if self.role == FIRST_RESPONDER:
            message = "`first_responder` is not assigned: it is the first person who acknowledged or did a task"
            raise ValueError(message)
        return self


class Update(Input):
    audience: Audience = Field(
        Audience.STAKEHOLDERS, description="Updates to stakeholders are due in the cadence agreed on"
    )
    status: UpdateStatus
    conditions: Words | None = Field(None, description="What the situation is", examples=["1 of 3 databases is up"])
    actions: Words | None = Field(None, description="What is being done", examples=["Restoring the second one"])
    needs: Words | None = Field(None, description="What is missing", examples=["Someone who knows the backups"])
    next_at: At | None = Field(None, description="When the next update is promised; may be in the future")


class Criterion(Input):
    criterion: Annotated[Sentence, Field(description="As in the incident's type", examples=["Payments succeed"])]
    met: bool = True


class Room(Input):
    channel: Annotated[Name, Field(description="The channel that is used from then on", examples=["#inc-7"])]
    why: Words | None = Field(None, description="Why it is not the primary one", examples=["Slack is down"])


class CustomerImpact(Input):
    """What customers noticed. Of each field, the value with the latest time counts."""

    customers: Number | None = Field(None, description="How many were affected", examples=[1200])
    support_requests: Number | None = Field(None, description="How many asked for help", examples=[50])
    share: Annotated[Decimal, Field(ge=0, le=1, max_digits=10, decimal_places=6)] | None = Field(
        None, description="Share of all customers that were affected, 0 to 1", examples=["0.25"]
    )
    what: Annotated[Words, StringConstraints(min_length=1)] | None = Field(
        None, description="What they could not do", examples=["Log in"]
    )

    @model_validator(mode="after")
    def _says_something(self) -> "CustomerImpact":
        if (self.customers, self.support_requests, self.share, self.what) == (None, None, None, None):
            message = "needs at least one of `customers`, `support_requests`, `share` and `what`"
            raise ValueError(message)
        return self


class Evidence(Input):
    link: HttpUrl = Field(
        description="Link to a graph, a log search or a screenshot", examples=["https://grafana.example.org/d/1"]
    )
    title: Name | None = Field(None, examples=["Errors of checkout"])
    query: Words | None = Field(None, description="The query behind it", examples=["rate(errors[5m])"])


class Said(Input):
    """A message in a chat."""

    room: Name | None = None


DETAILS: Mapping[TimelineKind, type[Input]] = {
    TimelineKind.JOINED: Joined,
    TimelineKind.ROLE: Role,
    TimelineKind.UPDATE: Update,
    TimelineKind.CRITERION: Criterion,
    TimelineKind.ROOM: Room,
    TimelineKind.IMPACT: CustomerImpact,
    TimelineKind.EVIDENCE: Evidence,
    TimelineKind.SAID: Said,
}


def detail_in(kind: TimelineKind, sent: Input) -> dict[str, Any]:
    """The fields of `sent` that are details of this kind, as they are stored."""
    return sent.model_dump(mode="json", include=set(DETAILS[kind].model_fields))


def corrected(kind: TimelineKind, detail: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The detail of an entry of this kind with some fields changed. Raises InvalidDetail."""
    model = DETAILS.get(kind)
    if model is None:
        message = f"an entry of kind `{kind}` has no `detail` that can be corrected"
        raise InvalidDetail(message)
    try:
        return model.model_validate({**(detail or {}), **changes}).model_dump(mode="json")
    except ValidationError as error:
        reasons = (f"detail/{'/'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3])
        raise InvalidDetail("; ".join(reasons)) from None
